"""From an estimator and data to trained weights: one autoencoder, or several over one pass of the data."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from probes.errors import EstimatorInputError, InputError, unknown_name
from probes.sae.checkpoint import load_checkpoint, save_checkpoint
from probes.sae.data import ArrayRows, Order, Rows, Stream, buffer_rows, deal, sample_rows
from probes.sae.network import VARIANTS
from probes.sae.settings import (
    Recipe, Sizes, Training, check_training, default_prefixes, default_rate, default_steps,
)  # fmt: skip
from probes.sae.trainer import Row, Trainer

if TYPE_CHECKING:
    from probes.sae.estimator import SparseAutoencoder

Report = Callable[[int, int], None]


class Feed:
    """Data as batches in a fixed order, whatever form it came in."""

    def __init__(self, X: Any, training: Training) -> None:
        self.seed = training.order_seed
        self.rows: Rows | None = None
        self.stream: Stream | None = None
        if isinstance(X, Rows):
            self.rows = X
        elif _is_array(X):
            self.rows = ArrayRows(X)
        elif isinstance(X, Iterable) and not isinstance(X, str | bytes | Mapping):
            self.stream = Stream(X, training.buffer_mib, self.seed)
        else:
            raise EstimatorInputError(
                f"X is {type(X).__name__}: an array (n, d), a StoreRows or an iterable of batches is needed"
            )
        if self.rows is not None:
            self._order = Order(
                self.rows.n, buffer_rows(training.buffer_mib, self.rows.d), self.seed
            )

    @property
    def n(self) -> int | None:
        """Rows, where they can be counted."""
        return None if self.rows is None else self.rows.n

    @property
    def d(self) -> int:
        source = self.rows or self.stream
        assert source is not None
        return source.d

    def sample(self) -> Tensor:
        if self.rows is not None:
            return sample_rows(self.rows, self.seed)
        assert self.stream is not None
        return self.stream.sample()

    def deal(self, batch_size: int, first: int) -> Iterator[Tensor]:
        if self.rows is not None:
            return deal(self.rows, self._order, batch_size, first)
        assert self.stream is not None
        return self.stream.deal(batch_size, first)


def _is_array(X: Any) -> bool:
    if isinstance(X, Tensor | np.ndarray) or hasattr(X, "__array__"):
        return True
    plain = isinstance(X, list) and len(X) > 0 and isinstance(X[0], list)
    return plain and bool(X[0]) and isinstance(X[0][0], int | float)


class Session:
    """The training of one estimator: its recipe, scaling, trainer and history."""

    def __init__(self, sae: SparseAutoencoder, name: str) -> None:
        self.sae, self.name = sae, name
        self.history: list[Row] = []

    def open(self, feed: Feed) -> None:
        """Work out the recipe and the scaling from the data; weights at their start."""
        from probes.sae.estimator import device_of

        self.recipe = make_recipe(self.sae, feed.d, feed.n)
        self.device = device_of(self.sae.device)
        self.mean, self.scale = moments(feed.sample())
        self.trainer = Trainer(self.sae.variant, self.recipe, self.sae.seed, self.device)
        self.identity = {
            "parameters": plain_parameters(self.sae),
            "recipe": dataclasses.asdict(self.recipe),
            "rows": feed.n,
        }
        every = self.sae.training.log_every
        self._log_every = every or max(1, self.recipe.steps // 200)
        self._mean = self.mean.to(self.device)

    def step(self, x: Tensor) -> None:
        scaled = (x.to(self.device, torch.float32) - self._mean).mul_(self.scale)
        self.trainer.step(scaled)
        count = self.trainer.step_count
        if count % self._log_every == 0 or self.trainer.done:
            self.history.append(self.trainer.row())

    def save(self, folder: Path) -> None:
        extra = {"mean": self.mean, "scale": torch.tensor(self.scale, dtype=torch.float64)}
        save_checkpoint(
            folder, {**self.trainer.tensors(), **extra}, self.identity, self.trainer.step_count,
            self.history,
        )  # fmt: skip

    def resume(self, folder: Path) -> None:
        """Go on from what lies in `folder`, if anything does."""
        found = load_checkpoint(folder, self.identity)
        if found is None:
            return
        self.trainer.load(found.tensors)
        self.mean, self.scale = found.tensors["mean"], float(found.tensors["scale"])
        self._mean = self.mean.to(self.device)
        self.history = found.history

    def close(self) -> None:
        """Hand the trained weights to the estimator, as arrays."""
        sae, net = self.sae, self.trainer.net
        for name in ("encoder", "encoder_bias", "decoder", "decoder_bias"):
            setattr(sae, f"{name}_", as_array(net.weights[name]))
        for name in ("magnitude_log_scale", "magnitude_bias"):
            weight = net.weights.get(name)
            setattr(sae, f"{name}_", None if weight is None else as_array(weight))
        threshold = self.trainer.variant.frozen_threshold(net)
        sae.threshold_ = None if threshold is None else as_array(threshold)
        sae.mean_, sae.scale_ = as_array(self.mean), self.scale
        sae.history_ = pd.DataFrame(self.history)
        sae.n_steps_, sae.n_features_in_ = self.trainer.step_count, self.recipe.sizes.d


def as_array(tensor: Tensor) -> Any:
    return tensor.detach().float().cpu().numpy().copy()


def moments(sample: Tensor) -> tuple[Tensor, float]:
    """Mean (d,) and the factor that brings the mean square per dimension about it to 1."""
    wide = sample.double()
    mean = wide.mean(0)
    spread = float((wide - mean).square().mean().sqrt())
    if not spread > 1e-7 * float(mean.abs().max()):
        raise EstimatorInputError(
            f"all {len(sample)} rows of X are equal: an autoencoder needs rows that differ"
        )
    return mean.float().cpu(), 1 / spread


def make_recipe(sae: SparseAutoencoder, d: int, n: int | None) -> Recipe:
    """Check the parameters and work out those that were left to the data."""
    _check(sae)
    training, m = sae.training, int(sae.n_features)
    batch_size = int(sae.batch_size if n is None else min(sae.batch_size, n))
    steps = sae.steps
    if steps is None:
        if n is None:
            raise EstimatorInputError(
                "steps is None and the length of the data is not known: give steps, as the learning rate follows them"
            )
        steps = default_steps(n, batch_size)
    dead_after = training.dead_after
    return Recipe(
        sizes=Sizes(
            d,
            m,
            float(sae.k if sae.target_l0 is None else sae.target_l0),
            training.prefixes or default_prefixes(m),
        ),
        steps=int(steps),
        batch_size=batch_size,
        learning_rate=float(
            default_rate(m) if sae.learning_rate is None else sae.learning_rate
        ),
        aux_k=max(1, d // 2) if training.aux_k is None else training.aux_k,
        aux_weight=training.aux_weight,
        dead_after=steps * batch_size // 20 if dead_after is None else dead_after,
        precision=training.precision,
    )


def _check(sae: SparseAutoencoder) -> None:
    if sae.variant not in VARIANTS:
        raise unknown_name("variant", str(sae.variant), VARIANTS)
    for name in ("n_features", "k", "batch_size", "steps"):
        value = getattr(sae, name)
        if value is None and name == "steps":
            continue
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise EstimatorInputError(f"{name} is {value!r}: a whole number from 1 on is needed")
    target = sae.k if sae.target_l0 is None else sae.target_l0
    if not 0 < target <= sae.n_features:
        which = "k" if sae.target_l0 is None else "target_l0"
        raise EstimatorInputError(
            f"{which} is {target}: more than 0 and at most n_features = {sae.n_features} is needed"
        )
    if sae.variant == "topk" and target != sae.k:
        raise EstimatorInputError(
            f"target_l0 is {target} and k is {sae.k}: k is what 'topk' reaches; leave target_l0 away"
        )
    if sae.learning_rate is not None and not 0 < sae.learning_rate < float("inf"):
        raise EstimatorInputError(f"learning_rate is {sae.learning_rate}: it must be positive")
    check_training(sae.training, int(sae.n_features))


def plain_parameters(sae: SparseAutoencoder) -> dict[str, Any]:
    """Constructor parameters that decide the result, as JSON values."""
    found = {
        name: getattr(sae, name)
        for name in ("n_features", "k", "variant", "target_l0", "batch_size", "seed")
    }
    found["training"] = dataclasses.asdict(sae.training)
    return found


def run_sessions(
    sessions: Sequence[Session],
    X: Any,
    checkpoint: str | Path | None,
    every: int,
    progress: Report | None,
) -> None:
    """Train all sessions on the batches of X, together, and hand the weights over."""
    feed = Feed(X, sessions[0].sae.training)
    for session in sessions:
        session.open(feed)
        if checkpoint is not None:
            session.resume(_folder(checkpoint, sessions, session))
    _loop(sessions, feed, checkpoint, every, progress)
    for session in sessions:
        session.close()


def _folder(checkpoint: str | Path, sessions: Sequence[Session], session: Session) -> Path:
    return Path(checkpoint) if len(sessions) == 1 else Path(checkpoint) / session.name


def _loop(
    sessions: Sequence[Session],
    feed: Feed,
    checkpoint: str | Path | None,
    every: int,
    progress: Report | None,
) -> None:
    if every < 1:
        raise InputError(f"every is {every}: a checkpoint every 1 or more steps is needed")
    first = min(session.trainer.step_count for session in sessions)
    recipe = sessions[0].recipe
    steps = recipe.steps
    batches = feed.deal(recipe.batch_size, first)
    for number in range(first, steps):
        x = next(batches, None)
        if x is None:
            if not number:
                raise EstimatorInputError(
                    f"the batches hold fewer than batch_size = {recipe.batch_size} rows: lower it"
                )
            warnings.warn(
                f"the data ended after {number:,} of {steps:,} steps: the learning rate had not come down yet",
                stacklevel=4,
            )
            break
        for session in sessions:
            if session.trainer.step_count == number:  # others were saved later, and wait
                session.step(x)
        if checkpoint is not None and ((number + 1) % every == 0 or number + 1 == steps):
            for session in sessions:
                session.save(_folder(checkpoint, sessions, session))
        if progress is not None:
            progress(number + 1, steps)
