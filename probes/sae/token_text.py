"""Tokens as a reader sees them: the piece of the text that each stands for, and its type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.capture.observe import Reading
from probes.capture.tokens import TextEncoder, Tokens

IntArray = NDArray[np.integer[Any]]


def spellings(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Each token decoded alone, with the space that it begins with."""
    texts: list[str] = tokenizer.batch_decode([[int(i)] for i in ids])
    raw: list[str] = tokenizer.convert_ids_to_tokens([int(i) for i in ids])
    # SentencePiece drops the space of a text's first token
    return [
        f" {text}" if str(token).startswith("▁") and not text.startswith(" ") else text
        for text, token in zip(texts, raw, strict=True)
    ]


_SIGNS = {
    "\n": "↵",
    "\r": "↵",
    "\t": "→",
    " ": "␣",
}  # of white space, where a token is nothing else


def readable_name(text: str, token: str) -> str:
    """The name of a token's type: its text without case and outer white space; white space alone as signs; and a part
    of a character (`token`, as byte-level tokenizers write it) as its bytes.

    >>> readable_name(" The", "ĠThe"), readable_name("\\n  ", "ĊĠĠ"), readable_name("\ufffd", "âĢ")
    ('the', '↵␣␣', 'bytes e2 80')
    """
    if "\ufffd" in text:
        return _bytes_named(token)
    return text.strip().casefold() or "".join(_SIGNS.get(sign, sign) for sign in text) or token


def _bytes_named(token: str) -> str:
    """A token that is no whole character, by its bytes; as it is where the tokenizer writes something else."""
    known = _byte_signs()
    if not all(sign in known for sign in token):
        return token
    return "bytes " + " ".join(f"{known[sign]:02x}" for sign in token)


@cache
def _byte_signs() -> dict[str, int]:
    """The byte that each sign of byte-level tokenizers stands for: printable ones themselves, others from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): b for i, b in enumerate(others)}


@dataclass(frozen=True)
class Types:
    """Token types: ids that differ only in case and outer white space have one.

    `of` (vocabulary,) numbers into `names`.
    """

    of: IntArray
    names: tuple[str, ...]

    @classmethod
    def make(cls, tokenizer: Any) -> Types:
        n = len(tokenizer)
        raw: list[str] = [str(token) for token in tokenizer.convert_ids_to_tokens(list(range(n)))]
        words = [
            readable_name(text, token)
            for text, token in zip(spellings(tokenizer, range(n)), raw, strict=True)
        ]
        number: dict[str, int] = {}
        of = np.asarray([number.setdefault(word, len(number)) for word in words], np.int64)
        return cls(of, tuple(number))


class SpelledTexts:
    """The texts of a reading, tokenised once more, with ids and pieces.

    `ids` (all tokens,) of all texts, one after the other; those of text i begin at `starts[i]`.
    """

    def __init__(self, reading: Reading) -> None:
        source: Any = reading.source
        given: TextEncoder = source.encoder
        fast = getattr(given.tokenizer, "is_fast", False)
        encoder = TextEncoder(given.tokenizer, given.max_length, given.prompt, offsets=fast)
        self._tokenizer, self._prompt = given.tokenizer, given.prompt
        self._texts: Sequence[str] = source.texts
        self._tokens: list[Tokens] = encoder(self._texts)
        lengths = [len(one) for one in self._tokens]
        self.starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.ids = np.concatenate([one.ids for one in self._tokens])

    def at(self, text: IntArray, position: IntArray, default: int = -1) -> IntArray:
        """Ids at those places, of any shape; `default` outside of the text."""
        length = np.diff(self.starts)[text]
        inside = (position >= 0) & (position < length)
        return np.where(
            inside, self.ids[self.starts[text] + np.where(inside, position, 0)], default
        )

    def pieces(self, text: int) -> list[str]:
        """What each token of that text stands for, white space before it included; put together they are the text.

        A character of several tokens is the first one's. Special tokens, and all tokens of a tokenizer in pure Python,
        are spelled out.
        """
        tokens = self._tokens[text]
        if tokens.offsets is None:
            return spellings(self._tokenizer, tokens.ids.tolist())
        whole = self._prompt + self._texts[text]
        named: list[str] = self._tokenizer.convert_ids_to_tokens(tokens.ids.tolist())
        found: list[str] = []
        end: int | None = None
        for name, special, (first, last) in zip(
            named, tokens.special.tolist(), tokens.offsets.kept.tolist(), strict=True
        ):
            if special:
                found.append(str(name))
                continue
            start = first if end is None else end
            end = max(start, last)
            found.append(whole[start:end])
        return found
