"""A dataset made ready for a study: the task, its four parts, and every text that has to be encoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import InputError
from probes.exits.tasks import Task, distinct_texts, make_task, relocated

if TYPE_CHECKING:
    from probes.types import Dataset

IntArray = NDArray[np.integer[Any]]
Words = tuple[str, ...]

BUILTIN_TEXTS = 1000  # of the built-in text, where no unlabelled texts are named
_SHINGLE = 8  # words in a row that two texts must share to count as overlapping
_SHORT = 4  # texts of fewer words turn up inside others by chance


@dataclass(frozen=True)
class Material:
    """Task, parts, and the texts to encode: the task's own first, then `extra` unlabelled ones.

    `more` holds task and parts of further datasets, whose texts are among the own ones; `weights` those of all the
    datasets' mean (None: each must keep the budget).
    """

    task: Task
    parts: Mapping[str, IntArray]
    texts: tuple[str, ...]
    extra: int
    caveats: tuple[str, ...]
    more: tuple[tuple[Task, Mapping[str, IntArray]], ...] = ()
    weights: tuple[float, ...] | None = None

    @property
    def each(self) -> tuple[tuple[Task, Mapping[str, IntArray]], ...]:
        """Task and parts of every dataset."""
        return ((self.task, self.parts), *self.more)

    @property
    def own(self) -> int:
        """How many of `texts` belong to the data."""
        return len(self.texts) - self.extra

    @property
    def fit_rows(self) -> IntArray:
        """Rows of `texts` that translators and centring may use: those of the fit parts and the unlabelled ones.

        A text of one dataset's fit part that another dataset judges by is left out.
        """
        fit = [task.text_rows(parts["fit"]) for task, parts in self.each]
        for i, rows in enumerate(fit):
            for j, (task, parts) in enumerate(self.each):
                if i != j:
                    judged = [part for name, part in parts.items() if name != "fit"]
                    rows = np.setdiff1d(rows, task.text_rows(np.concatenate(judged)))
            fit[i] = rows
        own = fit[0] if len(fit) == 1 else np.unique(np.concatenate(fit))
        return np.concatenate([own, np.arange(self.own, len(self.texts))])

    def with_caveat(self, text: str) -> Material:
        """The same with one more caveat."""
        return replace(self, caveats=(*self.caveats, text))


def prepare(
    data: Dataset,
    texts: Sequence[str] = (),
    seed: int = 0,
    prompts: Mapping[str, str] | None = None,
) -> Material:
    """Task, parts and texts.

    Unlabelled `texts` that overlap with the data are left out: outside the fit part they would show the translators
    what they are judged on. `prompts` are put before the texts of the data (keys as in `make_task`) and, that of the
    documents or texts, before the unlabelled ones.
    """
    from probes.datasets.splits import four_parts

    task, own = make_task(data, prompts)
    parts = four_parts(data, np.random.default_rng(seed))
    kept = without_overlap(texts, data.all_texts())
    given = prompts or {}
    prompt = given.get("text", given.get("document", ""))
    known = set(own)
    extra = [text for text in dict.fromkeys(prompt + text for text in kept) if text not in known]
    caveats = list(parts.warnings)
    if task.kind == "retrieval":
        caveats.append(
            "translators and centring also used the corpus documents, which queries of all parts search"
        )
    indices = {name: getattr(parts, name) for name in ("fit", "tune", "calibrate", "test")}
    return Material(task, indices, (*own, *extra), len(extra), tuple(caveats))


def prepare_several(
    datas: Sequence[Dataset],
    texts: Sequence[str],
    seed: int,
    prompts: Sequence[Mapping[str, str]],
    weights: tuple[float, ...] | None = None,
) -> Material:
    """`prepare` for several datasets that are judged together; `prompts` of each.

    Every dataset is split by itself, so that it has the parts it has alone. Unlabelled texts are given the first
    dataset's prompt.
    """
    if len(datas) == 1:
        return prepare(datas[0], texts, seed, prompts[0])
    names = [data.name for data in datas]
    if len(set(names)) < len(names):
        raise InputError(f"data {', '.join(names)}: two datasets have one name, rename one")
    alone = [prepare(data, (), seed, own) for data, own in zip(datas, prompts, strict=True)]
    joined, rows = distinct_texts([text for one in alone for text in one.texts])
    places = np.split(rows, np.cumsum([len(one.texts) for one in alone])[:-1])
    each = [
        (relocated(one.task, place), one.parts) for one, place in zip(alone, places, strict=True)
    ]
    kept = without_overlap(texts, [text for data in datas for text in data.all_texts()])
    prompt = prompts[0].get("text", prompts[0].get("document", ""))
    known = set(joined)
    extra = [text for text in dict.fromkeys(prompt + text for text in kept) if text not in known]
    caveats = [f"{one.task.name}: {caveat}" for one in alone for caveat in one.caveats]
    shared = len(rows) - len(joined)
    if shared:
        caveats.append(
            f"{shared} texts occur in more than one dataset: what these say of the same text is not independent"
        )
    (task, parts), *more = each
    return Material(
        task, parts, (*joined, *extra), len(extra), tuple(caveats), tuple(more), weights
    )


def without_overlap(texts: Iterable[str], data: Sequence[str]) -> list[str]:
    """The different `texts` that share no eight words in a row with `data`, and neither hold nor are a text of it.

    Case, spacing and Unicode form do not count. Texts under eight words overlap where one lies whole in another.

    >>> without_overlap(["the cat sleeps on the mat today", "A dog barks."], ["Now the CAT sleeps  on the mat today!"])
    ['A dog barks.']
    """
    words = {text: _words(text) for text in dict.fromkeys(texts)}
    known = [_words(text) for text in dict.fromkeys(data)]
    lengths = {min(_SHINGLE, len(own)) for own in words.values()}
    seen = {gram for own in known for n in lengths for gram in _shingles(own, n)}
    short = {own for own in known if _SHORT <= len(own) < _SHINGLE}
    sizes = {len(own) for own in short}
    kept: list[str] = []
    for text, own in words.items():
        if any(gram in seen for gram in _shingles(own, min(_SHINGLE, len(own)))):
            continue
        if any(gram in short for n in sizes for gram in _shingles(own, n)):
            continue
        kept.append(text)
    return kept


def _words(text: str) -> Words:
    from probes.datasets import fold_text

    marked = "".join(c if c.isalnum() else " " for c in fold_text(text))
    return tuple(marked.split()) or (text,)


def _shingles(words: Words, n: int) -> set[Words]:
    return {words[i : i + n] for i in range(len(words) - n + 1)}


def builtin_texts(
    like: Sequence[str], limit: int = BUILTIN_TEXTS, seed: int = 0
) -> tuple[str, ...]:
    """A seeded sample of the built-in real text, for translators where no other texts are named.

    Texts longer than nearly all of `like` (its 95th percentile) are left out: a translator must see the lengths it is
    used on, and long texts cost the most. What overlaps with `like` is left out before the sample is drawn.
    """
    from probes.datasets import load_texts

    longest = np.quantile([len(text) for text in like], 0.95)
    pool = [*load_texts("docstrings"), *load_texts("reference")]
    texts = without_overlap((text for text in pool if len(text) <= longest), like)
    picks = np.random.default_rng(seed).permutation(len(texts))[:limit]
    return tuple(texts[i] for i in sorted(picks))
