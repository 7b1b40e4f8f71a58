"""One training with sentence-transformers' own trainer: seeded, with checkpoints, and going on where it was stopped."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from probes.errors import NonFiniteError
from probes.exits.training.bridge import save_trained, trainable, write_identity
from probes.exits.training.checkpoints import latest_checkpoint, mark_complete, require_same
from probes.exits.training.losses import (
    LOSSES,
    LossPlan,
    Pair,
    base_loss,
    check_pairs,
    starbucks_pairs,
)
from probes.exits.training.rows import TrainingRows
from probes.runs import Progress

if TYPE_CHECKING:
    from probes.models import Model

MODEL, CHECKPOINTS = "model", "checkpoints"
KEPT = 2  # checkpoints: while the newest is being written the one before it must be there


@dataclass(frozen=True)
class TrainPlan:
    """How each loss is trained; `pairs` (layer, dim) of Starbucks, None: chosen by the model's size.

    The learning rate rises over the first tenth of the steps and falls linearly to zero. `checkpoint_every` in steps.
    """

    steps: int = 300
    batch_size: int = 16
    learning_rate: float = 1e-4
    pairs: tuple[Pair, ...] | None = None
    dims: tuple[int, ...] | None = None
    checkpoint_every: int = 100
    max_length: int | None = None
    seed: int = 0

    def loss_plan(self, model: Model) -> LossPlan:
        """Pairs and dims for this model."""
        from probes.exits.grid import GridPlan

        n, d = model.n_layers, model.embed(_one_row(model.d_model)).shape[1]
        pairs = starbucks_pairs(n, d) if self.pairs is None else check_pairs(self.pairs, n, d)
        return LossPlan(n, pairs, tuple(GridPlan(self.dims).widths(d)))


def _one_row(d: int) -> Any:
    import numpy as np

    return np.ones((1, d), dtype=np.float32)


@dataclass(frozen=True)
class Trained:
    """A finished training: the model's folder, and the loss by step (columns loss, step, value, learning_rate)."""

    folder: Path
    history: pd.DataFrame


def train_exits(
    model: Model,
    rows: TrainingRows,
    loss: str,
    folder: Path,
    plan: TrainPlan | None = None,
    *,
    pooling: str | None = None,
    prompts: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train a copy of `model` on `rows` and save it in `folder`/model as a sentence-transformers model.

    Args:
        model: stays as it is.
        loss: a name in `LOSSES`.
        folder: holds checkpoints while training lasts. A training that was stopped goes on from the last complete
            one; one that is finished is read. On one processor type the result has the same bits as without the stop.
        pooling: of the embedding (None: the model's own).
        prompts: kept in the saved model; `rows` hold them already.

    Raises `FathometerError` where `folder` holds another training or a library is missing, `DoesNotApply` for models
    that stock modules cannot express, `NonFiniteError` where training diverged.
    """
    plan = plan or TrainPlan()
    build = LOSSES[loss]
    pooling = pooling or model.embedding.pooling
    identity = {
        "loss": loss,
        "weights": model.weights_hash,
        "rows": rows.digest(),
        "pooling": pooling,
        "plan": {**asdict(plan), "checkpoint_every": None},
    }
    known = require_same(folder, identity)
    if known and (folder / MODEL).is_dir():
        return Trained(folder / MODEL, _read_history(folder))
    write_identity(folder, identity)
    with trainable(model, pooling, plan.max_length, prompts or {}) as made:
        criterion = build(made, base_loss(made, rows.objective), plan.loss_plan(model))
        history = _run(made, rows, criterion, folder, plan, progress, loss)
        if not all(math.isfinite(value) for value in history["value"]):
            raise NonFiniteError(
                f"training with {loss} diverged: try a smaller --learning-rate than {plan.learning_rate:g}"
            )
        history.to_parquet(folder / "history.parquet", index=False)
        save_trained(made, folder / MODEL, _card(model, rows, loss, plan))
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return Trained(folder / MODEL, history)


def _read_history(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "history.parquet")


def _run(
    made: Any,
    rows: TrainingRows,
    criterion: Any,
    folder: Path,
    plan: TrainPlan,
    progress: Progress | None,
    name: str,
) -> pd.DataFrame:
    """Train to the last step; the history has one row per logged step."""
    from datasets import Dataset

    place = folder / CHECKPOINTS
    start = latest_checkpoint(place)
    with _quiet():
        trainer = _trainer(
            made, Dataset.from_dict(rows.columns()), criterion, place, plan, len(rows)
        )
        trainer.add_callback(_callback(place, plan.steps, progress, f"training with {name}"))
        trainer.train(resume_from_checkpoint=None if start is None else str(start))
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    return pd.DataFrame(
        {
            "loss": name,
            "step": [int(entry["step"]) for entry in log],
            "value": [float(entry["loss"]) for entry in log],
            "learning_rate": [float(entry["learning_rate"]) for entry in log],
        }
    )


def _trainer(made: Any, table: Any, criterion: Any, place: Path, plan: TrainPlan, n: int) -> Any:
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from transformers import PrinterCallback

    class Trainer(SentenceTransformerTrainer):
        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """The library's own card would look the data up on the hub."""

    settings: dict[str, Any] = {
        "output_dir": str(place),
        "max_steps": plan.steps,
        "per_device_train_batch_size": min(plan.batch_size, n),
        "learning_rate": plan.learning_rate,
        "warmup_steps": max(1, plan.steps // 10),
        "logging_steps": max(1, plan.steps // 50),
        "save_strategy": "steps",
        "save_steps": plan.checkpoint_every,
        "save_total_limit": KEPT,
        "batch_sampler": "no_duplicates",
        "dataloader_drop_last": n > plan.batch_size,
        "dataloader_pin_memory": False,
        "use_cpu": made.device.type == "cpu",
        "seed": plan.seed,
        "report_to": "none",
        "disable_tqdm": True,
    }
    arguments = SentenceTransformerTrainingArguments(**settings)
    trainer: Any = Trainer(model=made, args=arguments, train_dataset=table, loss=criterion)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _callback(place: Path, steps: int, progress: Progress | None, text: str) -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            mark_complete(place / f"checkpoint-{state.global_step}")

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if progress is not None:
                progress(state.global_step, steps, text)

    return Watch()


@contextmanager
def _quiet() -> Generator[None]:
    """Bars and notices of the libraries stay off the terminal."""
    import datasets

    from probes.models.quiet import quiet_transformers

    bars = datasets.are_progress_bars_disabled()
    logger = logging.getLogger("sentence_transformers")
    level = logger.level
    datasets.disable_progress_bars()
    logger.setLevel(logging.ERROR)
    try:
        with quiet_transformers():
            yield
    finally:
        logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


def _card(model: Model, rows: TrainingRows, loss: str, plan: TrainPlan) -> str:
    pairs = ", ".join(f"layer {layer} × {dim}" for layer, dim in plan.loss_plan(model).pairs)
    places = f" at {pairs}" if loss == "starbucks" else ""
    return (
        f"# {Path(model.name).name}, trained for early exits\n\n"
        f"Loss {loss}{places}, over {rows.objective} of {len(rows):,} rows; {plan.steps} steps of "
        f"{plan.batch_size}, learning rate {plan.learning_rate:g}, seed {plan.seed}.\n\n"
        "The licence of the model it was trained from applies. Made with Fathometer.\n"
    )
