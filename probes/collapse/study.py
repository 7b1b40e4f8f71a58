"""The whole study, part after part; what does not apply leaves its reason, and the rest goes on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.collapse.length import FEWEST_TEXTS
from probes.collapse.names import PARTS
from probes.collapse.plan import CollapsePlan
from probes.collapse.texts import StudyTexts
from probes.errors import DoesNotApply, InputError
from probes.runs import Keep, Previous, Progress, do_parts
from probes.tables import tidy, typed

if TYPE_CHECKING:
    from probes.exits.material import Material
    from probes.models import Model
    from probes.store import Store
    from probes.types import Dataset

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Rows = Iterable[Mapping[str, Any]]
_CUT = r".*were cut"  # the warning of `capture`, where cutting is what is wanted
_MEASURES = {
    "length": ("collapse_slope", "collapse_onset_tokens"),
    "bottleneck": ("head_spectrum_kl",),
}
_INTEGERS = ("layer", "dim", "distractors", "k", "rank", "n", "seed")
_WORDS = ("dataset", "mode", "measure", "split", "remedy", "method", "part", "reason")
_TRUTHS = ("chosen", "applies")


@dataclass
class Study:
    """A study under way: what it works on, and what later parts need of earlier ones."""

    model: Model
    data: Dataset
    texts: StudyTexts
    plan: CollapsePlan
    keep: Keep
    progress: Progress
    tables: dict[str, pd.DataFrame] = field(default_factory=dict[str, pd.DataFrame])
    by_tau: dict[float, Any] = field(default_factory=dict[float, Any])  # judged in `temperature`

    @property
    def layers(self) -> list[int]:
        return list(self.plan.places.layers or range(self.model.n_layers + 1))

    @property
    def pooling(self) -> str:
        return self.plan.places.pooling or self.model.embedding.pooling

    @property
    def longest(self) -> int:
        """Tokens of a text that the model reads at most."""
        return min(self.plan.places.max_length or self.model.max_length, self.model.max_length)

    @cached_property
    def material(self) -> Material:
        """The task with its four parts and texts without labels; `FathometerError` for data without a task."""
        from probes.exits.material import builtin_texts, prepare
        from probes.exits.pipeline import prompts_for

        extra: Sequence[str] = self.texts.natural
        if self.texts.name == "reference":
            extra = builtin_texts(self.data.all_texts(), seed=self.plan.seed)
        extra = extra[: 5 * self.plan.documents]
        prompts = prompts_for(self.model, self.data, None)
        try:
            found = prepare(self.data, extra, self.plan.seed, prompts)
        except InputError as error:  # data of a kind that has no quality
            raise DoesNotApply(str(error)) from None
        self.tell(_caveats(found))
        return found

    @cached_property
    def cut_documents(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Documents that are at least as long as the longest cut that enough of them reach, and the cuts."""
        return choose_cuts(
            self.tokens(self.texts.long), self.texts.long, self._cuts(), self.plan.documents
        )

    def _cuts(self) -> tuple[int, ...]:
        special = self.model.require_tokenizer().num_special_tokens_to_add()
        return tuple(cut for cut in self.plan.cuts if special < cut <= self.longest)

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of every text as the model reads it, special ones included."""
        from probes.capture.tokens import TextEncoder

        encoder = TextEncoder(self.model.require_tokenizer(), self.longest)
        return [len(tokens) for tokens in encoder(texts)]

    def states(self, texts: Sequence[str], told: str, **more: Any) -> Store:
        """States of all layers at `exit`, from the cache where they were captured before."""
        from probes.capture import capture

        options: dict[str, Any] = {
            "pooling": self.pooling,
            "max_length": self.plan.places.max_length,
            **more,
        }
        options.setdefault("cache", True)
        with warnings.catch_warnings():
            if "max_length" in more:
                warnings.filterwarnings("ignore", message=_CUT)
            return capture(
                self.model,
                texts,
                sites=["exit"],
                layers=self.layers,
                progress=lambda done, total: self.progress(done, total, told),
                **options,
            )

    def embedded(self, store: Store, layer: int) -> Array:
        """A layer's states (texts, d) through the maker's head."""
        return self.model.embed(np.asarray(store["exit", layer]))

    def add(self, rows: Rows) -> None:
        """Tidy rows of one layer or none, at the site and dataset of this study."""
        found = [dict(row) for row in rows]
        if found:
            self.keep.add(tidy(found))

    def write(self, name: str, rows: Rows | pd.DataFrame) -> None:
        """Write a table down: missing numbers are null, and NaN is refused."""
        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows), dtype=object)
        self.tables[name] = typed(frame, integers=_INTEGERS, words=_WORDS, truths=_TRUTHS)
        self.keep.write_table(name, self.tables[name])

    def tell(self, notes: Iterable[str]) -> None:
        """Write down what a reader must know; a long list is cut short."""
        listed = list(dict.fromkeys(notes))
        for note in listed[:5]:
            self.keep.note(note)
        if len(listed) > 5:
            self.keep.note(f"… and {len(listed) - 5} more of the kind")


def choose_cuts(
    tokens: Sequence[int], texts: Sequence[str], cuts: Sequence[int], most: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Texts that reach the longest possible of the `cuts`, at most `most`, and the cuts up to it.

    A cut is possible where `FEWEST_TEXTS` texts reach it. `DoesNotApply` where fewer than two cuts are.

    >>> chosen, cuts = choose_cuts([9] * 40 + [99], ["a"] * 41, (4, 8, 16), 35)
    >>> len(chosen), cuts
    (35, (4, 8))
    """
    lengths = np.asarray(tokens)
    possible = [cut for cut in cuts if int((lengths >= cut).sum()) >= FEWEST_TEXTS]
    if len(possible) < 2:
        raise DoesNotApply(
            f"of {len(texts)} texts fewer than {FEWEST_TEXTS} reach two of the cuts "
            f"{', '.join(map(str, cuts))}: no long documents (--texts names others)"
        )
    rows: list[int] = np.flatnonzero(lengths >= possible[-1])[:most].tolist()
    return tuple(texts[row] for row in rows), tuple(possible)


def study_collapse(
    model: Model,
    data: Dataset,
    texts: StudyTexts,
    plan: CollapsePlan,
    keep: Keep,
    progress: Progress = lambda done, total, text: None,
    *,
    previous: Previous | None = None,
) -> Study:
    """Measure how embeddings of `model` collapse, and what helps, and write all that is found to `keep`.

    Every part writes its tables when it is done; a part that does not apply (no language-model head, no long texts)
    leaves its reason in the table `applies`. Parts that `previous` holds are taken over.
    """
    from probes.collapse.parts import PART_FUNCTIONS

    for layer in plan.places.layers or ():
        if not 0 <= layer <= model.n_layers:
            raise InputError(f"--layers {layer}: {model.name} has layers 0 to {model.n_layers}")
    study = Study(model, data, texts, plan, keep, progress)
    done: dict[str, dict[str, Any]] = {}
    if previous is not None:
        done = previous.done
        study.tables.update(previous.tables)
        rows = previous.rows_of(name for part in done for name in _MEASURES.get(part, ()))
        if len(rows):
            keep.add(rows)
    do_parts(
        [name for name in PARTS if name in plan.parts],
        done,
        lambda name: PART_FUNCTIONS[name](study),
        lambda outcomes: study.write("applies", outcomes),
        progress,
    )
    return study


def _caveats(material: Material) -> list[str]:
    """What is said of the parts, where this study uses them: it fits no translators and has no use for `tune`."""
    found = [note for note in material.caveats if " tune " not in note and "transl" not in note]
    if material.task.kind == "retrieval":
        found.append("remedies were also fitted on the corpus documents, which all queries search")
    return found
