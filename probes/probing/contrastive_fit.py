"""How a contrastive probe is fitted: where its maps start, how they are trained, and by which loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from probes.probing.base import FloatArray, IntArray

if TYPE_CHECKING:
    from torch import Tensor

    from probes.probing.contrastive import ContrastiveProbe

BATCH = 1024  # pairs that are negatives of each other
CELLS = 2**22  # similarities at a time: 32 MiB
TIE = 1e-9  # cosines this close are equal: equal states differ by rounding
RATE = 1e-2  # of AdamW, for maps whose entries have the root mean square 1
PATIENCE, GAIN = 3, 0.005  # epochs without a hold-out loss lower by this share


@dataclass(frozen=True)
class Training:
    """AdamW on the pairs that are not held out."""

    probe: ContrastiveProbe
    A: FloatArray
    B: FloatArray
    code: IntArray

    def maps(
        self, start: tuple[FloatArray, FloatArray], epochs: int, held: NDArray[np.bool_]
    ) -> tuple[tuple[FloatArray, FloatArray], FloatArray]:
        """Maps after `epochs` epochs; the loss on the rows held before any and after each (none held: no losses).

        Held rows are negatives of each other in batches, as in training, and always in the same ones.
        """
        import torch

        probe, rows = self.probe, np.flatnonzero(~held)
        rng = np.random.default_rng(probe.random_state)
        views = [torch.from_numpy(v).to(probe.device, torch.float32) for v in (self.A, self.B)]
        own = [torch.tensor(m, dtype=torch.float32, device=probe.device) for m in start]
        own = own[:1] if probe.shared else own
        for weights in own:
            weights.requires_grad_(True)
        optimiser = torch.optim.AdamW(own, lr=RATE, weight_decay=probe.weight_decay)
        codes = torch.from_numpy(self.code).to(probe.device)

        def loss(rows: IntArray) -> Tensor:
            at = torch.from_numpy(rows).to(probe.device)
            e, f = (
                torch.nn.functional.normalize(v[at] @ m, dim=1)
                for v, m in zip(views, (own[0], own[-1]), strict=True)
            )
            return info_nce(e @ f.T / probe.temperature, codes[at], probe.same_class)

        apart = _batches(np.flatnonzero(held), np.random.default_rng(probe.random_state))

        def outside() -> float:
            with torch.no_grad():
                return sum(len(batch) * float(loss(batch)) for batch in apart) / int(held.sum())

        seen = [outside()] if held.any() else []
        for _ in range(epochs):
            for batch in _batches(rows, rng):
                optimiser.zero_grad()
                loss(batch).backward()
                optimiser.step()
            if held.any():
                seen.append(outside())
                if len(seen) - 1 - settled(np.asarray(seen)) >= PATIENCE:
                    break
        done = [m.detach().double().cpu().numpy() for m in own]
        return (done[0], done[-1]), np.asarray(seen)


def _batches(rows: IntArray, rng: np.random.Generator) -> list[IntArray]:
    """The rows at random in parts of about one size, at most `BATCH`."""
    return np.array_split(rng.permutation(rows), max(1, -(-len(rows) // BATCH)))


@dataclass(frozen=True)
class Start:
    """Eigendecompositions of both views, from which the maps of any shrinkage are made."""

    cross: FloatArray  # (d, d')
    eigen: tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]
    shared: bool

    @classmethod
    def of(cls, A: FloatArray, B: FloatArray, shared: bool) -> Start:
        cross, own = A.T @ B / len(A), [v.T @ v / len(v) for v in (A, B)]
        if shared:
            cross, own = (cross + cross.T) / 2, [(own[0] + own[1]) / 2] * 2
        first = np.linalg.eigh(own[0])
        second = first if shared else np.linalg.eigh(own[1])
        return cls(cross, ((first[0], first[1]), (second[0], second[1])), shared)

    def maps(self, shrinkage: float, dim: int) -> tuple[FloatArray, FloatArray]:
        """(d, dim) and (d', dim), root mean square 1."""
        left, right = (self._root(values, V, shrinkage) for values, V in self.eigen)
        whitened = left @ self.cross @ right
        if self.shared:
            values, vectors = np.linalg.eigh(whitened)
            top = np.argsort(-values)[:dim]
            rho, pair = values[top], (vectors[:, top], vectors[:, top])
        else:
            first, rho, second = np.linalg.svd(whitened, full_matrices=False)
            rho, pair = rho[:dim], (first[:, :dim], second[:dim].T)
        rho = np.clip(rho, 1e-6, 0.99)  # nothing is perfect: a weight must stay finite
        weight = np.sqrt(rho / (1 - np.square(rho)))
        first, second = left @ pair[0] * weight, right @ pair[1] * weight
        return first / _rms(first), second / _rms(second)

    @staticmethod
    def _root(values: FloatArray, V: FloatArray, s: float) -> FloatArray:
        """((1 − s) Σ + s σ² I)^(−1/2), σ² the mean variance."""
        shrunk = (1 - s) * np.maximum(values, 0) + s * values.mean()
        floor = 1e-12 * max(float(shrunk.max()), 1e-300)
        return (V / np.sqrt(np.maximum(shrunk, floor))) @ V.T


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.square(values).mean())) or 1.0


def settled(losses: FloatArray) -> int:
    """The first epoch that no later one betters by more than `GAIN`."""
    return int(np.flatnonzero(losses * (1 - GAIN) <= losses.min())[0])


def info_nce(logits: Tensor, code: Tensor, same_class: str) -> Tensor:
    """Symmetric InfoNCE of logits (n, n) whose diagonal holds the partners, in nats; code (n,) classes.

    log n where nothing is told apart.

    >>> import torch
    >>> round(float(info_nce(torch.zeros(8, 8), torch.arange(8), "masked").exp()), 4)
    8.0
    """
    import torch

    eye = torch.eye(len(code), dtype=torch.bool, device=logits.device)
    same = code[:, None] == code
    if same_class == "masked":
        logits = logits.masked_fill(same & ~eye, -torch.inf)
        same = eye
    share = same / same.sum(dim=1, keepdim=True)
    rows, columns = (
        torch.log_softmax(z, dim=1).masked_fill(~same, 0.0) for z in (logits, logits.T)
    )
    return -(share * (rows + columns)).sum(dim=1).mean() / 2


def found_first(e: FloatArray, f: FloatArray, code: IntArray) -> FloatArray:
    """(n,) whether the nearest row of f is of the class of row i of e, and the other way round: their mean.

    Ties are shared: of t equally near rows, w of the class, it is w / t. So states that are all alike
    are found as often as by chance. e, f (n, dim) of length one; code (n,). Time grows with n², memory with n.
    """
    return (_found_among(e, f, code) + _found_among(f, e, code)) / 2


def _found_among(e: FloatArray, f: FloatArray, code: IntArray) -> FloatArray:
    found = np.empty(len(e))
    step = max(1, CELLS // len(f))
    for start in range(0, len(e), step):
        rows = slice(start, start + step)
        similar = e[rows] @ f.T
        best = similar >= similar.max(axis=1, keepdims=True) - TIE
        right = best & (code[rows, None] == code)
        found[rows] = right.sum(axis=1) / best.sum(axis=1)
    return found
