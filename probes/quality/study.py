"""The study of one dataset after another: quality by layer, every label-free metric, and which of them to trust."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.capture import capture
from probes.datasets.splits import four_parts
from probes.errors import DataError, DoesNotApply, ModelError
from probes.exits.pipeline import prompts_for
from probes.exits.tasks import Task, make_task
from probes.layers import cka_matrix, measure_layers, measure_views, spectra
from probes.quality.agreement import label_agreement, metric_names
from probes.quality.drops import choose_stretches, measure_drops
from probes.quality.influence import influence_rows
from probes.quality.measured import Judge, Quality
from probes.quality.plan import QualityPlan
from probes.quality.views import VIEWS, make_views
from probes.registry import LAYER_METRICS
from probes.runs import Keep, Progress
from probes.stats import check_confidence
from probes.tables import tidy

if TYPE_CHECKING:
    from probes.models import Model
    from probes.store import Store
    from probes.types import Dataset

Array = NDArray[np.floating[Any]]
CONFIDENCE = 0.95


@dataclass
class Study:
    """A study under way: the model, what is asked, where findings go."""

    model: Model
    plan: QualityPlan
    keep: Keep
    progress: Progress
    tables: dict[str, list[pd.DataFrame]] = field(default_factory=dict[str, list[pd.DataFrame]])

    @property
    def pooling(self) -> str:
        return self.plan.pooling or self.model.embedding.pooling

    def capture(
        self, texts: Sequence[str], what: str, *, sites: Sequence[str] = ("exit",),
        layers: Any = None, model: Model | None = None, pooling: str | None = None, cache: bool = True,
    ) -> Store:  # fmt: skip
        """Pooled states; what was captured before comes from the cache."""
        return capture(
            model or self.model,
            texts,
            sites=list(sites),
            layers=layers,
            pooling=pooling or self.pooling,
            max_length=self.plan.max_length,
            cache=cache,
            progress=lambda done, total: self.progress(done, total, what),
        )

    @cached_property
    def fresh(self) -> Model:
        """The model before training."""
        from probes.models import untrained

        return untrained(self.model, self.plan.seed)

    def add(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Into the run, with the reasons of what does not apply."""
        if len(rows):
            self.keep.add(rows)
        for note in rows.attrs.get("notes", ()):
            self.keep.note(str(note))
        return rows

    def extend(self, name: str, frame: pd.DataFrame) -> None:
        """Rows of one more dataset for a table; the table is written whole."""
        self.tables.setdefault(name, []).append(frame)
        self.keep.write_table(name, pd.concat(self.tables[name], ignore_index=True))


@dataclass
class OnData:
    """One dataset under study: its task, its texts, its states and the metrics found so far."""

    study: Study
    task: Task
    texts: tuple[str, ...]
    judge: Judge
    metrics: list[pd.DataFrame] = field(default_factory=list[pd.DataFrame])

    @classmethod
    def make(cls, study: Study, data: Dataset) -> OnData:
        # The maker's prompts, as in the choice of an exit: quality must be the same number in both.
        task, texts = make_task(data, prompts_for(study.model, data, None))
        parts = four_parts(data, np.random.default_rng(study.plan.seed))
        if task.kind == "classification":
            study.keep.note(
                f"{task.name}: the probe behind accuracy is fitted on {len(parts.fit):,} of {len(task):,} texts, as in "
                "exit-layers; with more labelled texts it would be higher"
            )
        return cls(
            study, task, texts, Judge.make(task, parts.fit, study.plan.draws, study.plan.seed)
        )

    @property
    def name(self) -> str:
        return self.task.name

    @cached_property
    def store(self) -> Store:
        """Exits of all texts, pooled."""
        return self.study.capture(self.texts, f"encoding {self.name}")

    @cached_property
    def tokens(self) -> Store:
        """The residual stream of every token of a few texts: pooled states would show the largest tokens only."""
        return self.study.capture(
            self.sample(self.study.plan.attention_texts),
            f"tokens of {self.name}, block by block",
            sites=("resid_post",),
            pooling="none",
            cache=False,
        )

    @property
    def states(self) -> Mapping[int, Any]:
        return self.store["exit"]

    @cached_property
    def quality(self) -> Quality:
        return self.judge(self.states)

    def place(self) -> dict[str, Any]:
        """What all rows of this dataset say of themselves."""
        return {"dataset": self.name, "pooling": self.study.pooling, "seed": self.study.plan.seed}

    def add(self, rows: pd.DataFrame) -> None:
        self.metrics.append(self.study.add(rows))

    def sample(self, most: int) -> list[str]:
        """At most so many of the texts, drawn by the seed, in their order."""
        picks = np.random.default_rng(self.study.plan.seed).permutation(len(self.texts))[:most]
        return [self.texts[i] for i in sorted(picks)]


def study_quality(
    model: Model, datasets: Sequence[Dataset], plan: QualityPlan, keep: Keep, progress: Progress
) -> None:
    """Every part of `plan` on every dataset, written to `keep` as it is found; see `PARTS` for the parts.

    A part that does not apply to the model or the data is left out with a note that says why. Quality is the primary
    measure of the task at full width on all examples (probes of labelled texts are fitted on the fit part, whose own
    rows are predicted by leave-one-out).
    """
    check_confidence(CONFIDENCE)
    study = Study(model, plan, keep, progress)
    for data in datasets:
        on = OnData.make(study, data)
        progress(0, None, f"quality and metrics of {on.name}")
        study.add(tidy(on.judge.rows(on.states, on.quality, study.pooling)))
        on.add(measure_layers(on.states, **on.place()))
        for name, part in _PARTS.items():
            if name in plan.parts:
                progress(0, None, f"{on.name}: {name}")
                _try(study, name, on, part)


def _try(study: Study, name: str, on: OnData, part: Callable[[OnData], None]) -> None:
    try:
        part(on)
    except (DoesNotApply, DataError, ModelError) as reason:
        study.keep.note(f"{on.name}: {name} left out: {reason}")


def _untrained(on: OnData) -> None:
    """The control: the same metrics on states of fresh weights. They agree with nothing, so they join no agreement."""
    store = on.study.capture(on.texts, f"encoding {on.name}, untrained", model=on.study.fresh)
    on.study.add(
        measure_layers(store["exit"], list(LAYER_METRICS), variant="untrained", **on.place())
    )


def _tokens(on: OnData) -> None:
    from probes.layers import token_metrics

    progress = on.study.progress
    rows = token_metrics(
        on.study.model,
        on.sample(on.study.plan.token_texts),
        max_length=on.study.plan.max_length,
        dataset=on.name,
        seed=on.study.plan.seed,
        progress=lambda done, total: progress(done, total, f"tokens of {on.name}"),
    )
    on.add(rows)


def _views(on: OnData) -> None:
    sampled = on.sample(on.study.plan.view_texts)
    for kind in VIEWS:
        try:
            views = make_views(sampled, kind, on.study.plan.seed)
        except DoesNotApply as reason:
            on.study.keep.note(f"{on.name}: {reason}")
            continue
        both = on.study.capture([*views.first, *views.second], f"views of {on.name}: {kind}")[
            "exit"
        ]
        half = len(views.rows)
        pairs = _Pairs(both, half)
        on.add(measure_views(pairs, variant=f"view={kind}", **on.place()))


class _Pairs(Mapping[int, tuple[Array, Array]]):
    """Layer -> the two halves of its rows, read one layer at a time."""

    def __init__(self, states: Mapping[int, Any], half: int) -> None:
        self._states, self._half = states, half

    def __getitem__(self, layer: int) -> tuple[Array, Array]:
        rows = self._states[layer]
        return rows[: self._half], rows[self._half :]

    def __iter__(self) -> Any:
        return iter(self._states)

    def __len__(self) -> int:
        return len(self._states)


def _attention(on: OnData) -> None:
    from probes.layers import frequency_gains

    progress = on.study.progress
    rows = frequency_gains(
        on.study.model,
        on.sample(on.study.plan.attention_texts),
        max_length=on.study.plan.max_length,
        dataset=on.name,
        seed=on.study.plan.seed,
        progress=lambda done, total: progress(done, total, f"attention on {on.name}"),
    )
    on.study.add(rows)


def _similarity(on: OnData) -> None:
    seed = on.study.plan.seed
    on.study.add(tidy([row | on.place() for row in influence_rows(on.tokens)]))
    on.study.extend("cka", cka_matrix(on.states, seed=seed).assign(dataset=on.name))
    on.study.extend("spectra", spectra(on.states, seed=seed).assign(dataset=on.name))


def _agreement(on: OnData) -> None:
    metrics = pd.concat(on.metrics, ignore_index=True)
    named = metrics.assign(name=metric_names(metrics))
    found = label_agreement(named, on.quality.values, on.quality.draws, seed=on.study.plan.seed)
    on.study.extend("agreement", found.rename(columns={"name": "metric"}).assign(dataset=on.name))
    rows = found.drop(columns="p").rename(columns={"name": "variant"})
    rows = rows.assign(measure="label_agreement", dataset=on.name, pooling=on.study.pooling)
    on.study.add(tidy(rows.to_dict("records")))


def _drops(on: OnData) -> None:
    study, last = on.study, on.study.model.n_layers
    if last < 2:
        raise DoesNotApply("a model of one block has none to leave out")
    stretches = choose_stretches(on.tokens["resid_post"], seed=study.plan.seed)

    def capture_last(what: str) -> Array:
        text = f"{on.name} {what}"
        return study.capture(on.texts, text, layers=[last], cache=False)["exit", last]

    study.extend("drops", measure_drops(study.model, stretches, on.judge, on.quality, capture_last))


_PARTS: Mapping[str, Callable[[OnData], None]] = {
    "untrained": _untrained,
    "tokens": _tokens,
    "views": _views,
    "attention": _attention,
    "similarity": _similarity,
    "agreement": _agreement,
    "drops": _drops,
}
