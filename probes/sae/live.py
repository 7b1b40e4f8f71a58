"""Coders at work on a live model's states: in torch on the model's device; what is no autoencoder goes by numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from probes.errors import EstimatorInputError, InputError
from probes.sae.estimator import SparseAutoencoder
from probes.sae.infer import frozen_codes, frozen_tensors
from probes.sae.metrics import Coder
from probes.sae.network import Weights
from probes.sae.sparse import Codes, decode


class Live(Protocol):
    """States (n, d) float32 as a coder gives them back, on the same device."""

    def reconstruct(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class LiveAutoencoder:
    """A fitted `SparseAutoencoder` on one device; codes and reconstruction are those of the estimator."""

    variant: str
    k: int
    weights: Weights

    @classmethod
    def of(cls, sae: SparseAutoencoder, device: torch.device) -> LiveAutoencoder:
        check_is_fitted(sae, "decoder_")
        weights = {name: held.to(device) for name, held in frozen_tensors(sae).items()}
        for name in ("decoder", "decoder_bias"):
            weights[name] = torch.from_numpy(np.array(getattr(sae, f"{name}_"), np.float32)).to(
                device
            )
        return cls(sae.variant, int(sae.k), weights)

    @property
    def d(self) -> int:
        return self.weights["decoder"].shape[1]

    @property
    def n_features(self) -> int:
        return self.weights["decoder"].shape[0]

    def codes(self, x: Tensor) -> Codes:
        """Codes of states x (n, d), flat; some may be zero."""
        if x.ndim != 2 or x.shape[1] != self.d:
            raise EstimatorInputError(
                f"states of shape {tuple(x.shape)} came, the autoencoder was fitted to (n, {self.d})"
            )
        return frozen_codes(self.variant, self.k, self.weights, x)

    def reconstruct(self, x: Tensor) -> Tensor:
        w = self.weights
        scaled = decode(self.codes(x), w["decoder"]) + w["decoder_bias"]
        return scaled / w["scale"] + w["mean"]

    def activations(self, x: Tensor, features: Sequence[int]) -> Tensor:
        """How much of each of `features` is in each state: lengths in state units (n, features), along unit rows."""
        return self.lengths(self.codes(x), features)

    def lengths(self, codes: Codes, features: Sequence[int]) -> Tensor:
        """As `activations`, of codes that were computed before."""
        place = torch.full((self.n_features,), -1, device=codes.cols.device)
        place[list(features)] = torch.arange(len(features), device=codes.cols.device)
        wanted = place[codes.cols] >= 0
        found = codes.values.new_zeros(codes.n_rows, len(features))
        values = codes.values[wanted] / self.weights["scale"]
        return found.index_put((codes.rows[wanted], place[codes.cols[wanted]]), values)


@dataclass(frozen=True, eq=False)
class LiveNumpy:
    """Any coder, through numpy on the CPU."""

    coder: Coder

    def reconstruct(self, x: Tensor) -> Tensor:
        found: Any = self.coder.inverse_transform(self.coder.transform(x.detach().cpu().numpy()))
        made = torch.from_numpy(np.array(found, np.float32)).to(x.device)
        if made.shape != x.shape:
            raise InputError(
                f"{type(self.coder).__name__} made {tuple(made.shape)} of states {tuple(x.shape)}: the same shape is "
                "needed"
            )
        return made


@dataclass(frozen=True, eq=False)
class LiveConstant:
    """One state (d,) in place of every other."""

    state: Tensor

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.state.to(x.device, x.dtype).expand_as(x)


def live(coder: Coder | Live, device: torch.device) -> Live:
    """`coder` ready for tensors on `device`; `InputError` for what can neither reconstruct nor code."""
    if isinstance(coder, SparseAutoencoder):
        return LiveAutoencoder.of(coder, device)
    if isinstance(coder, LiveAutoencoder | LiveConstant | LiveNumpy):
        return coder
    if hasattr(coder, "transform") and hasattr(coder, "inverse_transform"):
        return LiveNumpy(coder)  # type: ignore[arg-type]
    raise InputError(
        f"{type(coder).__name__} is no coder: transform and inverse_transform are needed, as SparseAutoencoder has them"
    )
