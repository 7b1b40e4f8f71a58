"""From texts to token ids: nothing in a user's text acts as a control token, and truncation is counted.

"[SEP]" or "<|im_end|>" inside a text is tokenised as the plain characters that it is; only the tokens that the
tokenizer itself puts around a text are special. No chat template is ever applied.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError, DoesNotApply, ModelError

_TEXTS_AT_ONCE = 256


@dataclass(frozen=True)
class Offsets:
    """The characters `[start, end)` of prompt and text that each token stands for: (tokens, 2), of the tokens that were
    kept and of those that truncation took. Tokens that stand for none have an empty range.
    """

    kept: NDArray[np.int64]
    cut: NDArray[np.int64]


@dataclass(frozen=True)
class Tokens:
    """One text: `ids` (t,), `special` (t,) true for the tokens around it, `truncated` if it was cut.

    `offsets` are there where the encoder was asked for them; `spans` (spans, 2) are tokens `[first, last)`, where the
    text has spans.
    """

    ids: NDArray[np.int64]
    special: NDArray[np.bool_]
    truncated: bool
    offsets: Offsets | None = None
    spans: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.ids)


def control_ids(tokenizer: Any) -> dict[int, str]:
    """Ids that act as control tokens, with their spelling; the unknown token is none: it stands for words.

    Where the unknown token is also the first, last or padding token, it counts as a control token: no word becomes it
    in such (byte-level) vocabularies.
    """
    found = {
        int(i): str(tokenizer.convert_ids_to_tokens(int(i))) for i in tokenizer.all_special_ids
    }
    for index, token in getattr(tokenizer, "added_tokens_decoder", {}).items():
        if token.special:
            found[int(index)] = str(token.content)
    unknown = tokenizer.unk_token_id
    shared = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    if unknown is not None and unknown not in shared:
        found.pop(int(unknown), None)
    return found


class TextEncoder:
    """Tokenises texts for one model.

    Args:
        tokenizer: a Hugging Face tokenizer; `ModelError` when there is none.
        max_length: longest sequence, special tokens included; longer texts are cut at the tokenizer's own side.
        prompt: text put before each text, as plain text.
        offsets: whether to say which characters each token stands for; `DoesNotApply` for tokenizers in pure Python,
            which do not know.
    """

    def __init__(
        self, tokenizer: Any, max_length: int, prompt: str = "", *, offsets: bool = False
    ) -> None:
        if tokenizer is None:
            raise ModelError("this model has no tokenizer: give pixel_values=, not texts")
        if offsets and not getattr(tokenizer, "is_fast", False):
            raise DoesNotApply(
                f"{type(tokenizer).__name__} does not say which characters its tokens stand for: "
                "spans need a fast tokenizer (tokenizer.json)"
            )
        self.offsets = offsets
        self._space = tokenizer.get_vocab().get("▁") if offsets else None
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.prompt = prompt
        self._control = control_ids(tokenizer)

    def __call__(self, texts: Sequence[str], first_row: int = 0) -> list[Tokens]:
        """One `Tokens` per text. `first_row` is the number of the first text, for messages."""
        found: list[Tokens] = []
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            part = [self.prompt + text for text in texts[start : start + _TEXTS_AT_ONCE]]
            found += self._encode(part, first_row + start)
        return found

    def _encode(self, texts: list[str], first_row: int) -> list[Tokens]:
        coded = self.tokenizer(
            texts,
            add_special_tokens=True,
            split_special_tokens=True,
            truncation=True,
            max_length=self.max_length,
            padding=False,
            return_special_tokens_mask=True,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        encodings = coded.encodings
        found: list[Tokens] = []
        for i, (ids, special) in enumerate(
            zip(coded["input_ids"], coded["special_tokens_mask"], strict=True)
        ):
            tokens = Tokens(np.asarray(ids, np.int64), np.asarray(special, bool), False)
            if encodings is not None:
                tokens = self._of_encoding(tokens, encodings[i], texts[i])
            elif len(ids) >= self.max_length:
                tokens = Tokens(tokens.ids, tokens.special, self._is_cut(texts[i]))
            if self._control_inside(tokens):
                tokens = self._encode_in_pieces(texts[i], first_row + i)
            if len(tokens) == 0:
                raise DataError(f"text {first_row + i} has no tokens: remove it or give it a text")
            found.append(tokens)
        return found

    def _of_encoding(self, tokens: Tokens, encoding: Any, text: str) -> Tokens:
        beyond = encoding.overflowing
        offsets = None
        if self.offsets:
            cut = [np.empty((0, 2), np.int64), *(self._characters(e, text) for e in beyond)]
            offsets = Offsets(self._characters(encoding, text), np.concatenate(cut))
        return replace(tokens, truncated=bool(beyond), offsets=offsets)

    def _characters(self, encoding: Any, text: str) -> NDArray[np.int64]:
        """(tokens, 2). The "▁" put before a text by SentencePiece claims its first character, and stands for none."""
        found = np.asarray(encoding.offsets, np.int64).reshape(-1, 2)
        if self._space is not None:
            for i in np.flatnonzero(np.asarray(encoding.ids) == self._space):
                start, end = found[i]
                if text[start:end] != "▁":
                    found[i] = start
        return found

    def _is_cut(self, text: str) -> bool:
        whole = self.tokenizer(text, split_special_tokens=True, truncation=False)["input_ids"]
        return len(whole) > self.max_length

    def _control_inside(self, tokens: Tokens) -> bool:
        inside = tokens.ids[~tokens.special]
        return any(int(i) in self._control for i in inside)

    def _encode_in_pieces(self, text: str, row: int) -> Tokens:
        """For vocabularies that hold the control token as a word, so that asking to split it does not help.

        The spelling of each control token is broken in its middle and the pieces are tokenised on their own.
        """
        core = getattr(self.tokenizer, "backend_tokenizer", None)
        if core is None:
            raise DataError(self._refusal(row))
        from tokenizers import Encoding

        core.no_truncation()
        core.encode_special_tokens = True
        parts = self._break(text)
        pieces = core.encode_batch(parts, add_special_tokens=False)
        whole: Any = Encoding.merge(pieces, growing_offsets=True)
        room = self.max_length - core.num_special_tokens_to_add(is_pair=False)
        truncated = len(whole.ids) > room
        if truncated:
            whole.truncate(room, direction=self.tokenizer.truncation_side)
        whole = core.post_process(whole, None, True)
        special = np.asarray(whole.special_tokens_mask, bool)
        offsets = self._of_pieces(parts, pieces, special) if self.offsets else None
        tokens = Tokens(np.asarray(whole.ids, np.int64), special, truncated, offsets)
        if self._control_inside(tokens):
            raise DataError(self._refusal(row))
        return tokens

    def _of_pieces(self, parts: list[str], pieces: Any, special: NDArray[np.bool_]) -> Offsets:
        """Counted from the pieces' own: merged ones grow by the last token's end, not by the length of the piece."""
        starts = np.cumsum([0, *(len(part) for part in parts)])
        every = np.concatenate(
            [
                self._characters(piece, part) + start
                for piece, part, start in zip(pieces, parts, starts, strict=False)
            ]
        )
        kept = np.zeros((len(special), 2), np.int64)
        left = self.tokenizer.truncation_side == "left"
        n = int((~special).sum())
        border = len(every) - n if left else n
        kept[~special] = every[border:] if left else every[:border]
        return Offsets(kept, every[:border] if left else every[border:])

    def _break(self, text: str) -> list[str]:
        spellings = sorted((s for s in self._control.values() if len(s) > 1), key=len, reverse=True)
        pattern = "|".join(re.escape(s) for s in spellings)
        cuts = [match.start() + len(match[0]) // 2 for match in re.finditer(pattern, text)]
        edges = [0, *cuts, len(text)]
        return [text[a:b] for a, b in pairwise(edges) if b > a]

    def _refusal(self, row: int) -> str:
        return (
            f"text {row} holds the spelling of a control token that this tokenizer cannot take as plain text: "
            "remove it from the text"
        )
