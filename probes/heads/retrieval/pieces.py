"""Text in pieces, each with its own tokens: where a piece stands among the ids is counted, never searched for."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError, DoesNotApply, InputError

Ids = NDArray[np.int64]
_AFTER_WORD = ("x", "is", "0")
_AFTER_STOP = (".", "\n")  # a word right behind a letter would be taken for its continuation
_MARK = "FATHOMETERPLACE"


@dataclass(frozen=True)
class Frame:
    """What stands around a user's text: ids before it, ids up to the reply, and whether a chat template made them."""

    before: Ids
    after: Ids
    chat: bool


def plain_ids(tokenizer: Any, text: str, special: bool = False) -> Ids:
    """Ids of `text` alone. Special tokens written in it are characters unless `special`."""
    coded = tokenizer(
        text, add_special_tokens=False, split_special_tokens=not special, truncation=False
    )
    return np.asarray(coded["input_ids"], np.int64).reshape(-1)


def piece_ids(tokenizer: Any, text: str, before: str = "") -> Ids:
    """Ids of `text` as they are after other text, so that a tokenizer that marks the start of a text does not.

    The tokens are those of `before` + `text` that lie in `text`; where one lies across the border, other words
    are put before, and the text alone is taken when none leaves a clean border.
    """
    if not text:
        return np.zeros(0, np.int64)
    word = before.split()[-1] if before.split() else ""
    stops = _AFTER_STOP if text[0].isalnum() else _AFTER_WORD
    for anchor in (word, *stops) if word else stops:
        ids, starts, ends = offsets(tokenizer, anchor + text)
        inside = starts >= len(anchor)
        if np.array_equal(inside, ends > len(anchor)) and (np.diff(inside.astype(int)) >= 0).all():
            return ids[inside]
    return plain_ids(tokenizer, text)


def offsets(tokenizer: Any, text: str) -> tuple[Ids, Ids, Ids]:
    """Ids of `text`, and the characters (first, last + 1) that each covers.

    Raises `DoesNotApply` for a tokenizer that does not say where its tokens lie.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise DoesNotApply(
            "this tokenizer does not say where its tokens lie: a fast tokenizer is needed for retrieval trials"
        )
    coded = tokenizer(
        text,
        add_special_tokens=False,
        split_special_tokens=True,
        truncation=False,
        return_offsets_mapping=True,
        verbose=False,  # a haystack is longer than the model: it is cut
    )
    places = np.asarray(coded["offset_mapping"], np.int64).reshape(-1, 2)
    return np.asarray(coded["input_ids"], np.int64).reshape(-1), places[:, 0], places[:, 1]


def answer_pieces(tokenizer: Any, parts: Sequence[str], name: str) -> tuple[Ids, Ids, Ids]:
    """Ids of a needle sentence before its answer, of the answer, and after it.

    Raises `DataError` where the tokenizer cannot write the answer.
    """
    before, answer, after = parts
    ids = piece_ids(tokenizer, answer, before)
    unknown = getattr(tokenizer, "unk_token_id", None)
    if not len(ids) or (unknown is not None and unknown in ids):
        raise DataError(
            f"the tokenizer has no tokens for the answer {answer.strip()!r} of needle {name!r}: use other needles"
        )
    return piece_ids(tokenizer, f" {before}" if before else ""), ids, piece_ids(tokenizer, after)


def chat_frame(model: Any, chat: bool | str) -> Frame:
    """The ids around a user's text: the tokenizer's chat template, or "Question … Answer" without one.

    `chat` is "auto" (the template where there is one), True or False. Raises `InputError` for other values and
    for True where there is no template.
    """
    if chat not in ("auto", True, False):
        raise InputError(f'chat {chat!r}: "auto", True or False are allowed')
    tokenizer = model.require_tokenizer()
    template = getattr(tokenizer, "chat_template", None)
    if chat is True and not template:
        raise InputError(f"the tokenizer of {model.name} has no chat template: use chat=False")
    return _frame(weakref.ref(tokenizer), str(template) if template and chat else None)


@functools.lru_cache(maxsize=16)
def _frame(reference: weakref.ref[Any], template: str | None) -> Frame:
    tokenizer: Any = reference()  # the caller holds it
    if template:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": _MARK}], tokenize=False, add_generation_prompt=True
        )
        if text.count(_MARK) != 1:
            raise DoesNotApply(
                "the chat template does not hold the user's words exactly once: use chat=False"
            )
        before, after = text.split(_MARK)
        return Frame(plain_ids(tokenizer, before, True), plain_ids(tokenizer, after, True), True)
    return Frame(leading_ids(tokenizer), piece_ids(tokenizer, "\nAnswer:"), False)


def leading_ids(tokenizer: Any) -> Ids:
    """The special ids that the tokenizer puts before every text, such as one for its beginning; mostly one or none."""
    whole = np.asarray(tokenizer("x")["input_ids"], np.int64)
    alone = plain_ids(tokenizer, "x")
    for lead in range(len(whole) - len(alone) + 1):
        if np.array_equal(whole[lead : lead + len(alone)], alone):
            return whole[:lead]
    return whole[:0]


def pair_frame(tokenizer: Any) -> tuple[Ids, Ids, Ids]:
    """The special ids before, between and after two texts of a pair, as an encoder is given them."""
    coded = tokenizer("a", "b")
    ids, owner = np.asarray(coded["input_ids"], np.int64), coded.sequence_ids()
    first, second = owner.index(0), owner.index(1)
    last_first = len(owner) - 1 - owner[::-1].index(0)
    last_second = len(owner) - 1 - owner[::-1].index(1)
    return ids[:first], ids[last_first + 1 : second], ids[last_second + 1 :]
