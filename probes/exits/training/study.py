"""The study behind `analyses/train_exits.py`: the grid before, one training per loss, the grid after, and fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.exits.fusion import fusion_study
from probes.exits.grid import GridPlan, GridResult
from probes.exits.material import Material, builtin_texts, prepare
from probes.exits.pipeline import fit_translators, prompts_for
from probes.exits.training.bridge import require_libraries
from probes.exits.training.losses import LOSSES
from probes.exits.training.measure import Judge, change_table
from probes.exits.training.rows import training_rows
from probes.exits.training.train import TrainPlan, train_exits
from probes.exits.translate import MIN_TEXTS
from probes.exits.variants import embedded, translated
from probes.runs import Keep, Progress
from probes.tables import tidy

if TYPE_CHECKING:
    from probes.models import Model
    from probes.types import Dataset

Array = NDArray[np.floating[Any]]
TRAINED, TRANSLATED = "trained=", "translated"
DEFAULT_LOSSES = ("2d-matryoshka", "starbucks")


@dataclass(frozen=True)
class TrainingStudy:
    """What is done: `losses` by name, each trained by `training`; `prompts` and `pooling` as in `StudyPlan`.

    With `fusion` combinations of all layers are measured too.
    """

    losses: tuple[str, ...] = DEFAULT_LOSSES
    training: TrainPlan = field(default_factory=TrainPlan)
    pooling: str | None = None
    prompts: Mapping[str, str] | None = None
    draws: int = 1000
    fusion: bool = True
    cache: bool = False


@dataclass
class _Work:
    """A study under way."""

    model: Model
    plan: TrainingStudy
    material: Material
    judge: Judge
    progress: Progress

    @property
    def pooling(self) -> str:
        return self.plan.pooling or self.model.embedding.pooling

    def pooled(self, model: Model, texts: Sequence[str], what: str) -> Mapping[int, Array]:
        """Pooled states (texts, d) per layer."""
        from probes.capture import capture

        return capture(
            model,
            texts,
            sites=["exit"],
            pooling=self.pooling,
            max_length=self.plan.training.max_length,
            cache=self.plan.cache,
            progress=lambda done, total: self.progress(done, total, what),
        )["exit"]


def study_training(
    model: Model,
    data: Dataset,
    keep: Keep,
    folder: Path,
    plan: TrainingStudy | None = None,
    progress: Progress | None = None,
    texts: Sequence[str] | None = None,
) -> None:
    """Train copies of `model` for early exits on `data`, and measure what that gains and costs.

    Args:
        data: scored pairs or a retrieval set. The fit part is trained on; everything is measured on the other parts.
        keep: takes the tidy rows (variants: none before training, `translated`, `trained=LOSS`) and the tables
            `training` (change per loss, layer and width), `training_loss`, `fusion` and `fusion_weights`.
        folder: takes checkpoints and the trained models, `folder`/LOSS/model.
        texts: unlabelled texts for the translators that trained exits are compared with; None: built-in text.

    Raises before anything is trained: `InputError` for other data, pairs or losses that do not exist, `DataError` for
    too few examples, `FathometerError` where a library is missing.
    """
    plan = plan or TrainingStudy()
    require_libraries()
    for name in plan.losses:
        _ = LOSSES[name]
    loss_plan = plan.training.loss_plan(model)
    prompts = prompts_for(model, data, plan.prompts)
    seed = plan.training.seed
    extra = builtin_texts(data.all_texts(), seed=seed) if texts is None else texts
    material = prepare(data, extra, seed, prompts)
    rows = training_rows(data, material.parts["fit"], prompts)
    held = np.sort(np.concatenate([material.parts[p] for p in ("tune", "calibrate", "test")]))
    grid = GridPlan(loss_plan.dims, plan.draws, seed, pooling=plan.pooling)
    work = _Work(
        model, plan, material, Judge.make(material.task, held, grid), progress or (lambda *_: None)
    )
    keep.note(
        f"trained on {len(material.parts['fit']):,} examples, measured on the {len(held):,} others; exit-layers with "
        "the same data, limit and seed fits on the same part, so that a trained model may be given to it"
    )
    before, moved = _before(work, keep)
    tables: dict[str, list[Any]] = {"training": [], "training_loss": []}
    for name in dict.fromkeys(plan.losses):
        trained = train_exits(
            model,
            rows,
            name,
            folder / name,
            plan.training,
            pooling=work.pooling,
            prompts=prompts,
            progress=work.progress,
        )
        after = _after(work, trained.folder, name, keep)
        for against, other in (("before", before), (TRANSLATED, moved)):
            changes = [] if other is None else work.judge.changes(other, after)
            for row in changes:
                pair = name == "starbucks" and (row["layer"], row["dim"]) in loss_plan.pairs
                tables["training"].append(
                    {"against": against, "loss": name, "trained_pair": pair, **row}
                )
        tables["training_loss"].append(trained.history)
        keep.write_table("training", change_table(tables["training"]))
        keep.write_table("training_loss", pd.concat(tables["training_loss"], ignore_index=True))


def _before(work: _Work, keep: Keep) -> tuple[GridResult, GridResult | None]:
    """The grids of the model as it is, raw and translated, and what all its layers together would give."""
    pooled = work.pooled(work.model, work.material.texts, "encoding texts")
    raw = embedded(pooled, work.model.embed)
    before = work.judge.grid(raw, None, work.progress)
    keep.add(tidy(before.rows))
    moved = None
    if len(work.material.fit_rows) >= MIN_TEXTS:
        last = raw[max(pooled)]
        found = fit_translators(pooled, last, work.material.fit_rows, work.progress)
        moved = work.judge.grid(translated(pooled, found), TRANSLATED, work.progress)
        keep.add(tidy(moved.rows))
    if work.plan.fusion:
        own = work.material
        found = fusion_study(
            own.task, raw, own.parts, own.fit_rows, work.plan.draws, work.plan.training.seed
        )
        keep.write_table("fusion", found.table)
        keep.write_table("fusion_weights", found.weights)
    return before, moved


def _after(work: _Work, folder: Path, name: str, keep: Keep) -> GridResult:
    from probes.models import load_model

    dtype = str(work.model.dtype).removeprefix("torch.")
    model = load_model(folder, device=str(work.model.device), dtype=dtype)
    own = work.material.texts[: work.material.own]
    pooled = work.pooled(model, own, f"encoding texts after training with {name}")
    after = work.judge.grid(embedded(pooled, model.embed), f"{TRAINED}{name}", work.progress)
    keep.add(tidy(after.rows))
    return after
