"""Tasks as a model reads them: clean and corrupted prompts of equal length, answer tokens and wrong ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.errors import DoesNotApply, InputError, unknown_name
from probes.heads.circuits.files import read_pairs
from probes.heads.circuits.pairs import SOURCES, Pair

if TYPE_CHECKING:
    from probes.models import Model

FEWEST = 4  # pairs: below that an interval says nothing
_TRIES = 20  # pairs drawn for each one wanted
_FEW_WORDS = 8  # of a list must be one token each, or the whole list is used


class _Unusable(Exception):
    """Why a pair cannot be used with this tokenizer; the words are counted."""


@dataclass(frozen=True)
class Row:
    """A pair in tokens: `clean` and `corrupted` have the same length (T,), and the answer follows their last token."""

    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    answers: tuple[int, ...]
    wrongs: tuple[int, ...]
    pair: Pair

    @property
    def changed(self) -> tuple[bool, ...]:
        """Which tokens differ, (T,)."""
        return tuple(a != b for a, b in zip(self.clean, self.corrupted, strict=True))


@dataclass(frozen=True)
class Task:
    """Pairs of one task in tokens, and how many were left out for which reason."""

    name: str
    rows: tuple[Row, ...]
    skipped: dict[str, int] = field(default_factory=dict[str, int])

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, rows: Iterable[int]) -> Task:
        """The same task with some of its rows."""
        return Task(self.name, tuple(self.rows[i] for i in rows), self.skipped)


def build_task(model: Model, name: str, n: int = 50, seed: int = 0) -> Task:
    """A built-in task in the tokens of `model`: up to `n` different pairs.

    Clean and corrupted prompts have equally many tokens; answers count by the first token in which they differ from
    wrong answers (a beginning that all share is put onto the prompt). Pairs that cannot be had so are counted with the
    reason. Names: `probes.heads.circuits.SOURCES`.

    Raises `InputError` for unknown names, `DoesNotApply` where fewer than four pairs can be used.
    """
    if name not in SOURCES:
        raise unknown_name("task", name, SOURCES)
    reader = _Reader(model)
    drawn = SOURCES[name].draw(np.random.default_rng(seed), reader.one)
    return _build(reader, name, islice(drawn, _TRIES * n), n)


def load_task(model: Model, path: str | Path, n: int = 50, seed: int = 0) -> Task:
    """A user's file as a task (see `read_pairs` for its columns): up to `n` of its rows, drawn by `seed`."""
    pairs = read_pairs(path)
    order = np.random.default_rng(seed).permutation(len(pairs)).tolist()
    return _build(_Reader(model), Path(path).stem[:64], (pairs[i] for i in order), n)


def make_task(model: Model, name: str, pairs: Sequence[Pair]) -> Task:
    """Pairs in memory as a task."""
    return _build(_Reader(model), name, pairs, len(pairs))


def _build(reader: _Reader, name: str, pairs: Iterable[Pair], n: int) -> Task:
    if n < 1:
        raise InputError(f"{n} pairs: at least one is needed")
    rows: dict[tuple[tuple[int, ...], ...], Row] = {}
    skipped: Counter[str] = Counter()
    for pair in pairs:
        try:
            row = reader.row(pair)
        except _Unusable as reason:
            skipped[str(reason)] += 1
            continue
        rows.setdefault((row.clean, row.corrupted), row)
        if len(rows) == n:
            break
    if len(rows) < FEWEST:
        why = "; ".join(f"{reason} ({count})" for reason, count in skipped.most_common(3))
        raise DoesNotApply(
            f"task {name}: {len(rows)} pairs can be used with the tokenizer of {reader.model.name}, {FEWEST} are "
            f"needed{': ' if why else ''}{why}"
        )
    return Task(name, tuple(rows.values()), dict(skipped))


class _Reader:
    """Turns text into tokens as the model would read it, with nothing after the text."""

    def __init__(self, model: Model) -> None:
        from probes.models import require_language_model

        require_language_model(model)
        self.model = model
        self.tokenizer: Any = model.require_tokenizer()
        self._unknown = getattr(self.tokenizer, "unk_token_id", None)

    def ids(self, text: str) -> tuple[int, ...]:
        coded = self.tokenizer(text, add_special_tokens=True, return_special_tokens_mask=True)
        ids, special = list(coded["input_ids"]), list(coded["special_tokens_mask"])
        while ids and special[-1]:  # an end-of-text token would end what is to be continued
            ids.pop()
            special.pop()
        if (self._unknown, 0) in zip(ids, special, strict=True):
            raise _Unusable("a word is unknown to the tokenizer")
        return tuple(ids)

    def one(self, words: Sequence[str]) -> list[str]:
        """Words that are one token after a space; all of them where these are few."""
        start = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        found = [
            word
            for word in words
            if len(self.tokenizer(f"a {word}", add_special_tokens=False)["input_ids"])
            == len(start) + 1
        ]
        return found if len(found) >= min(_FEW_WORDS, len(words)) else list(words)

    def row(self, pair: Pair) -> Row:
        clean, corrupted = self.ids(pair.clean), self.ids(pair.corrupted)
        if len(clean) != len(corrupted):
            raise _Unusable("clean and corrupted prompt differ in number of tokens")
        if clean == corrupted:
            raise _Unusable("clean and corrupted prompt are the same tokens")
        answers, wrongs = (
            [self._after(pair.clean, clean, word) for word in words]
            for words in (pair.answers, pair.wrongs)
        )
        shared = _shared_start([*answers, *wrongs])
        given, refused = ({ids[shared] for ids in some} for some in (answers, wrongs))
        both = given & refused
        if not given - both or not refused - both:
            raise _Unusable("answer and wrong answer begin with the same token")
        more = answers[0][:shared]
        if len(clean) + shared > self.model.max_length:
            raise _Unusable("the prompt is longer than the model takes")
        return Row(
            (*clean, *more), (*corrupted, *more), tuple(sorted(given - both)),
            tuple(sorted(refused - both)), pair,
        )  # fmt: skip

    def _after(self, prompt: str, ids: tuple[int, ...], word: str) -> tuple[int, ...]:
        whole = self.ids(prompt + word)
        if whole[: len(ids)] != ids or len(whole) == len(ids):
            raise _Unusable("the answer changes how the end of the prompt is cut into tokens")
        return whole[len(ids) :]


def _shared_start(sequences: Sequence[Sequence[int]]) -> int:
    """How many first tokens all have in common, leaving each at least one.

    >>> _shared_start([(5, 1, 2), (5, 3)]), _shared_start([(5,), (5, 3)])
    (1, 0)
    """
    most = min(len(ids) for ids in sequences) - 1
    shared = 0
    while shared < most and len({ids[shared] for ids in sequences}) == 1:
        shared += 1
    return shared


def batches(task: Task, tokens: int) -> Iterator[tuple[int, ...]]:
    """Row numbers in groups of about `tokens` tokens, short prompts together."""
    order = sorted(range(len(task)), key=lambda i: len(task.rows[i].clean))
    group: list[int] = []
    for i in order:
        if group and (len(group) + 1) * len(task.rows[i].clean) > tokens:
            yield tuple(group)
            group = []
        group.append(i)
    if group:
        yield tuple(group)
