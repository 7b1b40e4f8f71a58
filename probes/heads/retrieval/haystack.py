"""The long text that needles are hidden in, as tokens with known ends of sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probes.errors import DataError
from probes.heads.retrieval.pieces import Ids, offsets

if TYPE_CHECKING:
    from probes.models import Model

_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s|$)")


@dataclass(frozen=True, eq=False)
class Haystack:
    """Long text as ids (N,), with `ends`: how many tokens stand before each place where a sentence is over."""

    ids: Ids
    ends: Ids


def haystack_ids(
    model: Model, texts: Sequence[str] | None = None, seed: int | None = 0
) -> Haystack:
    """Texts in tokens, one after the other, with the ends of their sentences.

    Without `texts` the paragraphs of the built-in language reference. `seed` shuffles the texts; None keeps
    their order. Raises `DataError` for texts without a single sentence end.
    """
    if texts is None:
        from probes.datasets import load_texts

        texts = load_texts("reference")
    tokenizer = model.require_tokenizer()
    order = np.arange(len(texts))
    if seed is not None:
        np.random.default_rng([seed, 5]).shuffle(order)
    ids: list[Ids] = []
    ends: list[Ids] = []
    at = 0
    for row in order:
        text = " " + " ".join(texts[int(row)].split())
        found, _, stops = offsets(tokenizer, text)
        sentence = [match.end() for match in _SENTENCE_END.finditer(text)]
        ids.append(found)
        ends.append(at + 1 + np.flatnonzero(np.isin(stops, sentence)))
        at += len(found)
    whole = np.concatenate(ends) if ends else np.zeros(0, np.int64)
    if not len(whole):
        raise DataError("the haystack has no sentence that ends: give texts with whole sentences")
    return Haystack(np.concatenate(ids), np.unique(whole))


def cut_haystack(haystack: Haystack, tokens: int, start: int) -> Haystack:
    """At most `tokens` tokens from the first sentence begin after `start` on, round the end, up to a sentence end.

    Where the first sentence is longer than that, it is cut. Raises `DataError` for a haystack that is too short:
    no text occurs twice in one context.
    """
    size = len(haystack.ids)
    if tokens > size:
        raise DataError(
            f"the haystack has {size:,} tokens, {tokens:,} are needed: give more text or shorter lengths"
        )
    begins = haystack.ends[haystack.ends < size]
    first = int(begins[np.searchsorted(begins, start % size) % len(begins)]) if len(begins) else 0
    ends = np.unique((haystack.ends - first - 1) % size + 1)  # as counted from `first`
    ends = ends[ends <= tokens]
    length = int(ends[-1]) if len(ends) else tokens
    taken = (first + np.arange(length)) % size
    return Haystack(haystack.ids[taken], np.unique([0, *ends, length]).astype(np.int64))
