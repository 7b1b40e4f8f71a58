"""Several poolings of the same states in one pass, one of them with a weight for every entry of the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.capture.hooks import TorchRunner
from probes.capture.observe import Reading
from probes.capture.pooling import POOLINGS, Pooler
from probes.capture.shard import reduce_batch
from probes.capture.sites import Layers, Place, parse_sites
from probes.errors import InputError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

    from probes.capture.batching import Batch
    from probes.capture.progress import Report
    from probes.models import Model

Float32 = NDArray[np.float32]
SIF = "sif"
Pooled = dict[str, dict[int, Float32]]


class SeveralPoolings:
    """Pools the `exit` states of one model after the given layers in several ways at once; made once, used often.

    Args:
        poolings: of mean, last, first, max, weighted and `sif`: the mean weighted by `token_weights`, Σ w h / Σ w,
            which is the plain mean for a text whose tokens all weigh nothing.
        token_weights: (vocabulary,) ≥ 0, the weight of every token id; needed by `sif` alone.

    Raises `InputError` for unknown poolings, no pooling, and weights that are missing or negative.
    Paper: Arora et al. 2017, "A Simple but Tough-to-Beat Baseline for Sentence Embeddings".
    """

    def __init__(
        self,
        model: Model,
        poolings: Sequence[str],
        layers: int | Layers = None,
        token_weights: Float32 | None = None,
    ) -> None:
        import torch

        self.model = model
        self.poolings = _checked(poolings)
        self.places = parse_sites(["exit"], model.n_layers, layers)
        self._weights: Tensor | None = None
        if SIF in self.poolings:
            weights = None if token_weights is None else np.asarray(token_weights, np.float32)
            if weights is None or weights.ndim != 1 or not np.all(weights >= 0):
                raise InputError("pooling 'sif' needs token_weights: one number ≥ 0 per token id")
            self._weights = torch.from_numpy(weights).to(model.device)
        self._runner = TorchRunner(model, self.places)

    def __call__(
        self, reading: Reading, progress: bool | Report = False
    ) -> dict[str, dict[int, Float32]]:
        """{pooling: {layer: (n, d) float32}} of the texts of `reading`, row i is text i."""
        found: Pooled = {name: {} for name in self.poolings}
        reading.run(lambda batch: self.put(batch, found, reading.source.n), progress)
        return found

    def put(self, batch: Batch, found: Pooled, n: int) -> None:
        """Pool one batch into the rows `batch.rows` of `found`, whose arrays, of n rows, are made as they are met."""

        def put_rows(place: Place, made: Tensor) -> None:
            for name, pooled in zip(self.poolings, made.cpu().numpy(), strict=True):
                mine = found.setdefault(name, {})
                if place.number not in mine:
                    mine[place.number] = np.full((n, pooled.shape[1]), np.nan, np.float32)
                mine[place.number][batch.rows] = pooled

        pool = self._poolers(batch)
        reduce_batch(self.model, self._runner, batch, lambda _, states: pool(states), put_rows)

    def _poolers(self, batch: Batch) -> Any:
        """A function of states (batch, token, d) that gives (poolings, batch, d)."""
        import torch

        assert batch.keep is not None
        keep = batch.keep.to(self.model.device)
        weights = None
        if self._weights is not None:
            ids = batch.inputs["input_ids"].to(self.model.device)
            weights = self._weights[ids] * keep  # (batch, token)
            total = weights.sum(1, keepdim=True)
            weights = torch.where(total > 0, weights / total, keep / keep.sum(1, keepdim=True))
        poolers = {name: Pooler(name, keep) for name in self.poolings if name != SIF}

        def pool(states: Tensor) -> Tensor:
            made: list[Tensor] = []
            for name in self.poolings:
                if name == SIF:
                    assert weights is not None
                    kept = states.float().masked_fill(~keep[..., None], 0)
                    made.append(torch.bmm(weights[:, None], kept).squeeze(1))
                else:
                    made.append(poolers[name](states))
            return torch.stack(made)

        return pool


def pool_several(
    model: Model,
    texts: Sequence[str],
    poolings: Sequence[str] = ("mean", "sif"),
    layers: int | Layers = None,
    token_weights: Float32 | None = None,
    *,
    max_length: int | None = None,
    progress: bool | Report = False,
) -> dict[str, dict[int, Float32]]:
    """{pooling: {layer: (n, d) float32}} in one pass over the texts; see `SeveralPoolings` and `capture`.

    Examples:
        >>> pool_several(model, ["Gold is heavy."], ["mean", "max"], 2)["max"][2].shape  # doctest: +SKIP
        (1, 384)
    """
    reading = Reading.of(model, texts, max_length=max_length)
    return SeveralPoolings(model, poolings, layers, token_weights)(reading, progress)


def _checked(poolings: Sequence[str]) -> tuple[str, ...]:
    allowed = [*(name for name in POOLINGS if name != "none"), SIF]
    for name in poolings:
        if name not in allowed:
            raise unknown_name("pooling", name, allowed)
    if not poolings or len(set(poolings)) < len(poolings):
        raise InputError(f"poolings {list(poolings)}: one or more different ones are needed")
    return tuple(poolings)
