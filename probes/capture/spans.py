"""Character spans: which tokens belong to a piece of a text, and helpers that find sentences and words.

A span `(start, end)` counts characters of the text alone, as Python slices do: the prompt and the tokens that the
tokenizer adds do not shift it. White space at its edges is ignored. Its tokens are those from the first to the last
that share a character with what is left. So "Paris" and " Paris" mean the same, whether a tokenizer counts the space
before a word to it (byte-level BPE), trims it (RoBERTa) or drops it (WordPiece), and a token that lies only partly in
the span belongs to it. Special tokens never do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError

if TYPE_CHECKING:
    from probes.capture.tokens import Tokens

Spans = Sequence[Sequence[tuple[int, int]]] | NDArray[Any]

_ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|cf|e\.g|i\.e)$")
# Runs of marks with the quotes and brackets that close behind them, before white space or the end; East Asian marks
# need no space; so does an empty line.
_STOP = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s|$)|[。！？]+[”’」』）]*|\n\s*\n")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """The sentences of a text, in order, without white space at their edges; all other characters lie in one.

    A sentence ends at `.`, `!`, `?` or `…` before white space, at `。`, `！`, `？`, and at an empty line. A mark does
    not end it where a lower-case letter follows, nor a full stop after Mr, Mrs, Ms, Dr, Prof, St, vs, cf, e.g or i.e.
    A single letter ends one: "in box B. Then" is commoner in probing data than "J. S. Bach".

    Examples:
        >>> text = "Dr. Ito left.  The box, i.e. the red one, is empty! Why?"
        >>> [text[start:end] for start, end in sentence_spans(text)]
        ['Dr. Ito left.', 'The box, i.e. the red one, is empty!', 'Why?']
        >>> sentence_spans("  ")
        []
    """
    edges = [0, *(stop.end() for stop in _STOP.finditer(text) if _ends(text, stop)), len(text)]
    spans: list[tuple[int, int]] = []
    for edge, next_edge in pairwise(edges):
        start, end = _strip(text, edge, next_edge)
        if start < end:
            spans.append((start, end))
    return spans


def _ends(text: str, stop: re.Match[str]) -> bool:
    if stop[0][0] not in ".!?…":
        return True
    behind = re.compile(r"\s*(\S)").match(text, stop.end())
    if behind is not None and behind[1].islower():
        return False
    start = max(0, stop.start() - 8)
    return stop[0] != "." or _ABBREVIATION.search(text[start : stop.start()]) is None


def word_spans(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """The words joined by one space, as `TokenLabels.all_texts` does, and where each lies.

    Examples:
        >>> word_spans(["Gold", "is", "heavy"])
        ('Gold is heavy', [(0, 4), (5, 7), (8, 13)])
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for word in words:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    return " ".join(words), spans


def _strip(text: str, start: int, end: int) -> tuple[int, int]:
    """The same span without white space at its edges; empty where there is nothing else."""
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    return start + left, max(start + left, start + len(piece.rstrip()))


def check_spans(spans: Spans, texts: Sequence[str]) -> tuple[NDArray[np.int64], ...]:
    """Each text's spans as (spans, 2), stripped of white space; an (n, 2) array means one span per text.

    Raises `DataError` that names text and span for what is no span of its text.
    """
    if len(spans) != len(texts):
        raise DataError(f"spans for {len(spans):,} texts came with {len(texts):,} texts")
    flat = isinstance(spans, np.ndarray) and spans.ndim == 2
    rows: Iterable[Any] = np.expand_dims(np.asarray(spans), 1) if flat else spans
    found = tuple(
        _check_row(row, given, text)
        for row, (given, text) in enumerate(zip(rows, texts, strict=True))
    )
    if not any(len(row) for row in found):
        raise DataError("no text has a span: give one for at least one text")
    return found


def _check_row(row: int, given: Any, text: str) -> NDArray[np.int64]:
    if len(given) == 0:
        return np.empty((0, 2), np.int64)
    array: NDArray[Any]
    try:
        array = np.asarray(given)
    except ValueError:  # rows of unequal length
        array = np.empty(0)
    if array.dtype.kind not in "iu" or array.ndim != 2 or array.shape[1] != 2:
        raise DataError(f"the spans of text {row} are no list of (start, end) in whole numbers")
    stripped = np.empty(array.shape, np.int64)
    for i, (start, end) in enumerate(zip(*array.T.tolist(), strict=True)):
        where = f"text {row}, span {i} ({start}, {end})"
        if not 0 <= start <= end <= len(text):
            raise DataError(f"{where} lies outside the text of {len(text):,} characters")
        stripped[i] = _strip(text, start, end)
        if stripped[i, 0] == stripped[i, 1]:
            raise DataError(f"{where} holds no token: it is empty or white space only")
    return stripped


def hash_spans(spans: Sequence[NDArray[np.int64]]) -> str:
    """Hex SHA-256 of the spans of all texts."""
    digest = hashlib.sha256(np.asarray([len(row) for row in spans], "<i8").tobytes())
    for row in spans:
        digest.update(np.ascontiguousarray(row, "<i8").tobytes())
    return digest.hexdigest()


def span_tokens(
    tokens: Tokens, spans: NDArray[np.int64], prompt: int, row: int
) -> NDArray[np.int64]:
    """(spans, 2): the tokens `[first, last)` of each span of one text, after a prompt of so many characters.

    Raises `DataError` that names text `row` and the span where it has no token, or where truncation took some.
    """
    if not len(spans):
        return np.empty((0, 2), np.int64)
    assert tokens.offsets is not None
    inside = ~tokens.special[None, :] & _overlap(tokens.offsets.kept, spans + prompt)
    for i in range(len(spans)):
        where = f"text {row}, span {i} ({spans[i, 0]}, {spans[i, 1]})"
        if _overlap(tokens.offsets.cut, spans[i : i + 1] + prompt).any():
            raise DataError(
                f"{where} lies beyond the {len(tokens)} tokens that the text was cut to: "
                "raise max_length or leave it out"
            )
        if not inside[i].any():
            raise DataError(f"{where} holds no token: the tokenizer drops what it says")
    first = inside.argmax(1)
    last = inside.shape[1] - inside[:, ::-1].argmax(1)
    return np.stack([first, last], 1)


def _overlap(offsets: NDArray[np.int64], spans: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(spans, tokens): whether they share a character; `offsets` (tokens, 2) may be empty ones."""
    start, end = offsets[:, 0], offsets[:, 1]
    return (start < end) & (start < spans[:, 1:]) & (end > spans[:, :1])
