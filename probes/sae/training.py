"""From an estimator and data to trained weights: one autoencoder, or several over one pass of the data."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from probes.errors import EstimatorInputError, InputError
from probes.sae.calibrate import calibrated_level
from probes.sae.checkpoint import load_checkpoint, save_checkpoint
from probes.sae.data import Batch
from probes.sae.feed import Feed, make_feeds
from probes.sae.recipe import check_parameters, make_recipe
from probes.sae.settings import Recipe
from probes.sae.trainer import Row, Trainer

if TYPE_CHECKING:
    from probes.sae.estimator import SparseAutoencoder

Report = Callable[[int, int], None]


class Session:
    """The training of one estimator: its recipe, scaling, trainer and history."""

    def __init__(self, sae: SparseAutoencoder, name: str) -> None:
        self.sae, self.name = sae, name
        self.history: list[Row] = []

    def open(self, feed: Feed, key: Any = None) -> None:
        """Work out the recipe and the scaling from the data; weights at their start."""
        from probes.sae.estimator import device_of

        self.feed = feed
        self._columns = feed.columns(key)
        d = self._columns.stop - self._columns.start
        self.recipe = make_recipe(self.sae, d, feed.n)
        self.device = device_of(self.sae.device)
        self.mean, self.scale = moments(feed.sample()[:, self._columns])
        self.trainer = Trainer(self.sae.variant, self.recipe, self.sae.seed, self.device)
        self.identity = {
            "parameters": plain_parameters(self.sae),
            "recipe": dataclasses.asdict(self.recipe),
            "rows": feed.n,
        }
        every = self.sae.training.log_every
        self._log_every = every or max(1, self.recipe.steps // 200)
        self._mean = self.mean.to(self.device)
        # a small batch might be held out altogether
        may = self.trainer.variant.threshold and self.recipe.batch_size >= 32
        self._held_out = feed.held_out if may else None

    def _scaled(self, x: Tensor) -> Tensor:
        mine = x[:, self._columns].to(self.device, torch.float32)
        return (mine - self._mean).mul_(self.scale)

    def step(self, batch: Batch) -> None:
        x, numbers = batch
        if self._held_out is not None:
            x = x[torch.from_numpy(~self._held_out.mask(numbers))]
        self.trainer.step(self._scaled(x))
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
        sae, net, variant = self.sae, self.trainer.net, self.trainer.variant
        level = 0.0
        if variant.threshold:
            rows = self._scaled(self.feed.calibration(self._held_out))
            everything = self._scaled(self.feed.sample())
            level = calibrated_level(variant, net, rows, everything)
        for name in ("encoder", "decoder", "decoder_bias"):
            setattr(sae, f"{name}_", as_array(net.weights[name]))
        sae.encoder_bias_ = as_array(variant.frozen_bias(net, level))
        for name in ("magnitude_log_scale", "magnitude_bias"):
            weight = net.weights.get(name)
            setattr(sae, f"{name}_", None if weight is None else as_array(weight))
        threshold = variant.frozen_threshold(net, level)
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
    keys: Sequence[Any] | None = None,
) -> None:
    """Train all sessions on the batches of X, together, and hand the weights over.

    `keys` name what each session reads where X or its batches are mappings.
    """
    if not isinstance(every, int) or every < 1:
        raise InputError(f"every is {every}: a checkpoint every 1 or more steps is needed")
    for session in sessions:
        check_parameters(session.sae)
    names = [None] * len(sessions) if keys is None else keys
    feeds = make_feeds(X, sessions[0].sae.training, names)
    for session, feed, key in zip(sessions, feeds, names, strict=True):
        session.open(feed, key)
    _check_agreement(sessions)
    folders = [] if checkpoint is None else [_folder(checkpoint, keys, one) for one in sessions]
    for session, folder in zip(sessions, folders, strict=False):
        session.resume(folder)
    _loop(sessions, folders, every, progress)
    for session in sessions:
        session.close()


def _folder(checkpoint: str | Path, keys: Sequence[Any] | None, session: Session) -> Path:
    return Path(checkpoint) if keys is None else Path(checkpoint) / session.name


def _check_agreement(sessions: Sequence[Session]) -> None:
    first = sessions[0]
    for one in sessions[1:]:
        for name in ("batch_size", "steps"):
            mine, other = getattr(one.recipe, name), getattr(first.recipe, name)
            if mine != other:
                raise EstimatorInputError(
                    f"{name} is {mine} for {one.name} and {other} for {first.name}: one pass needs one value"
                )
        for name in ("order_seed", "buffer_mib"):
            mine, other = getattr(one.sae.training, name), getattr(first.sae.training, name)
            if mine != other:
                raise EstimatorInputError(
                    f"training.{name} is {mine} for {one.name} and {other} for {first.name}: one pass needs one value"
                )


def _loop(
    sessions: Sequence[Session], folders: Sequence[Path], every: int, progress: Report | None
) -> None:
    first = min(session.trainer.step_count for session in sessions)
    recipe = sessions[0].recipe
    feeds = {id(session.feed): session.feed for session in sessions}
    batches = {key: feed.deal(recipe.batch_size, first) for key, feed in feeds.items()}
    for number in range(first, recipe.steps):
        found = {key: next(stream, None) for key, stream in batches.items()}
        if any(x is None for x in found.values()):
            _ended(number, recipe)
            break
        for session in sessions:
            if session.trainer.step_count == number:  # those that were saved later wait
                x = found[id(session.feed)]
                assert x is not None
                session.step(x)
        if (number + 1) % every == 0 or number + 1 == recipe.steps:
            for session, folder in zip(sessions, folders, strict=False):
                session.save(folder)
        if progress is not None:
            progress(number + 1, recipe.steps)


def _ended(number: int, recipe: Recipe) -> None:
    if not number:
        raise EstimatorInputError(
            f"the batches hold fewer than batch_size = {recipe.batch_size} rows: lower it"
        )
    warnings.warn(
        f"the data ended after {number:,} of {recipe.steps:,} steps: the learning rate had not come down yet",
        stacklevel=6,
    )
