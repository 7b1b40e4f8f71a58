"""Trials: a needle in a haystack with its question, in tokens whose places are known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.errors import InputError
from probes.heads.retrieval.haystack import Haystack, cut_haystack
from probes.heads.retrieval.needles import Needle
from probes.heads.retrieval.pieces import (
    Ids,
    answer_pieces,
    chat_frame,
    pair_frame,
    piece_ids,
)

if TYPE_CHECKING:
    from probes.models import Model

NULL_QUESTION = "N/A"  # what the question is compared with
_LEAST_BODY = 4


@dataclass(frozen=True)
class Placed:
    """Another needle in the context, at a depth of its own."""

    needle: Needle
    depth: float


@dataclass(frozen=True, eq=False)
class Trial:
    """One context with a needle and the question for it.

    `ids` (T,) is the whole prompt, up to the lead of the reply; the model goes on with `answer_ids` (A,), which are
    the very ids at `spans["answer"]` of the context. `spans` are ranges of positions, disjoint but for the answer,
    which lies in the sentence: "answer", "sentence", "question", and "context" (the haystack with all that is in
    it). `null_ids` is the same prompt with a content-free question, `null_spans` holds "sentence" and "question" there;
    a decoder's begins like `ids` up to the question.
    An encoder's trial is the pair question, document: it has no reply, so `answer_ids` holds what is looked for and
    `rows` is empty.
    """

    ids: Ids
    answer_ids: Ids
    spans: dict[str, range]
    distractors: tuple[range, ...]
    null_ids: Ids
    null_spans: dict[str, range]
    needle: Needle
    depth: float
    reply: bool = field(default=True)

    @property
    def rows(self) -> range:
        """Positions of `forced_ids` whose next-token predictions are the answer; none for an encoder."""
        end = len(self.ids)
        return range(end - 1, end - 1 + len(self.answer_ids)) if self.reply else range(0)

    @property
    def forced_ids(self) -> Ids:
        """The prompt with the answer but for its last token, which no row is needed for: (T + A - 1,)."""
        return np.concatenate([self.ids, self.answer_ids[:-1]]) if self.reply else self.ids

    @property
    def tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.ids)

    @property
    def answer(self) -> range:
        return self.spans["answer"]

    @property
    def sentence(self) -> range:
        return self.spans["sentence"]

    @property
    def question(self) -> range:
        return self.spans["question"]


def build_trial(
    model: Model,
    needle: Needle,
    haystack: Haystack,
    tokens: int,
    depth: float,
    distractors: Sequence[Needle | Placed] = (),
    chat: bool | str = "auto",
    start: int = 0,
) -> Trial:
    """A prompt of at most `tokens` tokens: haystack from `start` on, needle and distractors in it, question, lead.

    The needle goes to the sentence end nearest to `depth` (0 the beginning, 1 the end of the context); distractors
    without a depth of their own are spread evenly. Everything is put together from pieces that are tokenised on
    their own, so all positions are exact and the answer's ids in the context are those expected in the reply.

    Raises `InputError` for a length or depth that cannot be, `DataError` where the haystack is too short or the
    tokenizer cannot write the answer.
    """
    if not 0 <= depth <= 1:
        raise InputError(f"depth {depth}: a number from 0 (beginning) to 1 (end) is needed")
    limit = model.max_length
    make = _decoder_parts if model.is_causal else _encoder_parts
    parts = make(model, needle, chat)
    placed = _placed(needle, depth, distractors)
    hidden = [
        answer_pieces(model.tokenizer, each.needle.parts, each.needle.name) for each in placed
    ]
    fixed = parts.size + sum(len(piece) for pieces in hidden for piece in pieces)
    extra = len(hidden[0][1]) - 1 if parts.reply else 0
    if tokens + extra > limit:
        raise InputError(
            f"{tokens:,} tokens: {model.name} takes {limit:,}, {extra} of them for the answer; use a shorter length"
        )
    if tokens - fixed < _LEAST_BODY:
        raise InputError(
            f"{tokens:,} tokens: needle, question and prompt alone take {fixed}; use at least {fixed + _LEAST_BODY}"
        )
    body = cut_haystack(haystack, tokens - fixed, start)
    context, spans = _mixed(body, placed, hidden)
    return _joined(parts, context, spans, needle, depth, hidden[0][1])


@dataclass(frozen=True, eq=False)
class _Parts:
    """Ids before and after the context; the question's place in the part that holds it; for both questions."""

    before: tuple[Ids, Ids]  # with the real question, with the null question
    after: tuple[Ids, Ids]
    question: tuple[range, range]  # within `after` for a reply, within `before` for an encoder
    reply: bool

    @property
    def size(self) -> int:
        return max(len(b) + len(a) for b, a in zip(self.before, self.after, strict=True))


def _decoder_parts(model: Model, needle: Needle, chat: bool | str) -> _Parts:
    frame = chat_frame(model, chat)
    words = model.tokenizer
    label = piece_ids(words, "\n\n" if frame.chat else "\nQuestion:")
    # After a template the reply begins a text of its own; otherwise it follows "Answer:".
    lead = needle.lead if frame.chat else f" {needle.lead}"
    lead_ids = piece_ids(words, lead)
    after: list[Ids] = []
    places: list[range] = []
    for text in (needle.question, NULL_QUESTION):
        question = piece_ids(words, text if frame.chat else f" {text}")
        after.append(np.concatenate([label, question, frame.after, lead_ids]))
        places.append(range(len(label), len(label) + len(question)))
    return _Parts((frame.before, frame.before), (after[0], after[1]), (places[0], places[1]), True)


def _encoder_parts(model: Model, needle: Needle, _chat: bool | str) -> _Parts:
    first, between, last = pair_frame(model.require_tokenizer())
    before: list[Ids] = []
    places: list[range] = []
    for text in (needle.question, NULL_QUESTION):
        question = piece_ids(model.tokenizer, text)
        before.append(np.concatenate([first, question, between]))
        places.append(range(len(first), len(first) + len(question)))
    return _Parts((before[0], before[1]), (last, last), (places[0], places[1]), False)


def _placed(needle: Needle, depth: float, others: Sequence[Needle | Placed]) -> list[Placed]:
    spread = [
        other if isinstance(other, Placed) else Placed(other, (i + 0.5) / len(others))
        for i, other in enumerate(others)
    ]
    for other in spread:
        if other.needle.answer == needle.answer:
            raise InputError(
                f"distractor {other.needle.name!r} has the needle's own answer: use others"
            )
    return [Placed(needle, depth), *spread]


def _mixed(
    body: Haystack, placed: Sequence[Placed], hidden: Sequence[tuple[Ids, Ids, Ids]]
) -> tuple[Ids, list[tuple[range, range]]]:
    """The body with all needles in it, and for each its (sentence, answer) in the result."""
    length = len(body.ids)
    places = [int(body.ends[np.abs(body.ends - p.depth * length).argmin()]) for p in placed]
    pieces: list[Ids] = []
    spans: list[tuple[range, range]] = [(range(0), range(0))] * len(placed)
    at = last = 0
    for which in np.argsort(places, kind="stable"):
        pieces.append(body.ids[last : places[which]])
        at += len(pieces[-1])
        last = places[which]
        before, answer, after = hidden[which]
        begin = at + len(before)
        pieces += [before, answer, after]
        at = begin + len(answer) + len(after)
        spans[which] = (
            range(begin - len(before), at),
            range(begin, begin + len(answer)),
        )
    pieces.append(body.ids[last:])
    return np.concatenate(pieces), spans


def _shifted(span: range, by: int) -> range:
    return range(span.start + by, span.stop + by)


def _joined(
    parts: _Parts,
    context: Ids,
    spans: list[tuple[range, range]],
    needle: Needle,
    depth: float,
    answer: Ids,
) -> Trial:
    whole = [
        np.concatenate([before, context, after])
        for before, after in zip(parts.before, parts.after, strict=True)
    ]
    starts = [len(before) for before in parts.before]
    questions = [
        _shifted(place, start + len(context) if parts.reply else 0)
        for place, start in zip(parts.question, starts, strict=True)
    ]
    sentence, inside = (_shifted(span, starts[0]) for span in spans[0])
    return Trial(
        whole[0],
        answer,
        {
            "answer": inside,
            "sentence": sentence,
            "question": questions[0],
            "context": range(starts[0], starts[0] + len(context)),
        },
        tuple(_shifted(other, starts[0]) for other, _ in spans[1:]),
        whole[1],
        {
            "sentence": _shifted(sentence, starts[1] - starts[0]),
            "question": questions[1],
        },
        needle,
        depth,
        parts.reply,
    )


def describe(trial: Trial) -> dict[str, Any]:
    """What a table says about a trial: needle, tokens, depth, number of distractors."""
    return {
        "needle": trial.needle.name,
        "tokens": trial.tokens,
        "depth": trial.depth,
        "distractors": len(trial.distractors),
    }
