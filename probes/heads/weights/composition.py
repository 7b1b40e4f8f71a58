"""Composition: how much of what an earlier head writes a later head reads, against matrices rotated at random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.errors import DoesNotApply, InputError, unknown_name
from probes.heads.weights.chance import highest_score, power_sums
from probes.heads.weights.factored import Factored, circuit
from probes.heads.weights.find import HeadWeights, all_head_weights
from probes.models import Model

FloatArray = NDArray[np.floating[Any]]
Kind = Literal["Q", "K", "V"]
KINDS: tuple[Kind, ...] = ("Q", "K", "V")
COLUMNS = {
    "kind": "string",
    "block_from": "Int64",
    "head_from": "Int64",
    "block_to": "Int64",
    "head_to": "Int64",
    "component": "Int64",
    "value": "Float64",
    "floor": "Float64",
    "floor_low": "Float64",
    "floor_high": "Float64",
    "floor_max_high": "Float64",
    "n": "Int64",
    "seed": "Int64",
}


@dataclass(frozen=True)
class _Floor:
    """Squared overlaps of random directions: `squares` (draw, r_from, r_to) for two frames rotated at random."""

    squares: Tensor

    @classmethod
    def draw(cls, d: int, ranks: tuple[int, int], draws: int, seed: int) -> _Floor:
        generator = torch.Generator().manual_seed(seed)
        frames = torch.randn(draws, d, ranks[1], generator=generator)
        # Only the angle between the two frames matters: one may stay where it is.
        return cls(torch.linalg.qr(frames).Q[:, : ranks[0]] ** 2)

    def scores(self, written: Tensor, read: Tensor) -> Tensor:
        """(draw, from, to) for the values of writers (from, r_from) and readers (to, r_to)."""
        weights = _shares(written).float() @ self.squares @ _shares(read).float().T
        return weights.sqrt()

    def components(self, read: Tensor, count: int) -> Tensor:
        """(draw, component, to): one direction against the values of readers (to, r_to)."""
        return (self.squares[:, :count] @ _shares(read).float().T).sqrt()


def _shares(values: Tensor) -> Tensor:
    squares = values**2
    return squares / squares.sum(-1, keepdim=True).clamp(min=torch.finfo(squares.dtype).tiny)


def composition_scores(
    model: Model,
    kind: Kind = "K",
    *,
    components: int = 0,
    draws: int = 100,
    seed: int = 0,
    weights: Sequence[HeadWeights] | None = None,
) -> pd.DataFrame:
    """Composition of every head with every head of a later block: ‖A B‖ / (‖A‖ ‖B‖), Frobenius norms.

    A = W_V W_O is what the earlier head writes; B is what the later one reads: W_Q W_Kᵀ for `kind` "Q", its transpose
    for "K", W_V W_O for "V". Between 0 and 1. `component` is null for whole matrices; `components` adds rows for that
    many leading singular directions of A, taken as matrices of rank one (0: the strongest). Weights are the model's
    own, with no norm folded in, and heads that share keys and values get the same ones.

    `floor`, with `floor_low` and `floor_high` (the central 95 % of `draws` draws), is the same for matrices of equal
    singular values rotated at random: about 1/√d_model for whole matrices. All pairs share the draws. A head of zeros
    has the score 0. The value itself is computed from weights and has no interval; `n` counts draws.
    That bound is one for a single pair: of very many pairs some lie above it by chance. With `floor_max_high` (whole
    matrices only) in its place, no pair of any of the three kinds does with 95 %, were all heads rotated at random:
    the distribution of a pair's score is approximated by three moments, `probes.heads.weights.chance`.

    `weights` are `all_head_weights(model)` where they are known; else they are found, which takes a pass.

    Raises `DoesNotApply` where a circuit could not be verified in any two blocks (other blocks are left out and named
    in `frame.attrs["notes"]`), `InputError` for unknown kinds. Papers: Elhage et al. 2021, Merullo et al. 2024
    (Talking Heads, arXiv 2406.09519).

    >>> def strongest(model):  # pairs that compose most beyond chance
    ...     table = composition_scores(model, "K")
    ...     return table.assign(beyond=table["value"] - table["floor"]).nlargest(10, "beyond")
    """
    if kind not in KINDS:
        raise unknown_name("kind of composition", kind, KINDS)
    if draws < 2 or components < 0:
        raise InputError(f"{draws} draws, {components} components: 2 or more, 0 or more are needed")
    writers, readers, notes = _sides(model, kind, weights)
    first, last = next(iter(writers.values())), next(iter(readers.values()))
    ranks = (first.values.shape[-1], last.values.shape[-1])
    floor = _Floor.draw(model.d_model, ranks, draws, seed)
    parts = [
        part
        for a, written in writers.items()
        for b, read in readers.items()
        if a < b
        for part in _pair(a, b, written, read, floor, min(components, ranks[0]))
    ]
    if not parts:
        raise DoesNotApply(
            f"composition in {model.name}: it takes heads of two blocks with known weights. "
            + "; ".join(notes)
        )
    frame = pd.concat(parts, ignore_index=True).assign(kind=kind, n=draws, seed=seed)
    frame["floor_max_high"] = _highest(frame, writers, readers, model.d_model)
    typed: Any = frame[list(COLUMNS)].astype(COLUMNS)
    typed.attrs["notes"] = notes
    return typed


def _highest(
    frame: pd.DataFrame, writers: dict[int, Factored], readers: dict[int, Factored], d: int
) -> FloatArray:
    """What no pair of whole matrices exceeds by chance with 95 %, for every row; NaN for components."""
    whole = frame["component"].isna().to_numpy()
    pairs = frame.loc[whole]
    sums = [
        {block: power_sums(side.values.double().cpu().numpy()) for block, side in sides.items()}
        for sides in (writers, readers)
    ]
    both = [
        np.stack([known[b][:, h] for b, h in zip(pairs[f"block_{end}"], pairs[f"head_{end}"], strict=True)], 1)
        for known, end in zip(sums, ("from", "to"), strict=True)
    ]  # fmt: skip
    found = np.full(len(frame), np.nan)
    found[whole] = highest_score(both[0] * both[1], d, len(KINDS) * len(pairs))
    return found


def _sides(
    model: Model, kind: Kind, known: Sequence[HeadWeights] | None
) -> tuple[dict[int, Factored], dict[int, Factored], list[str]]:
    """What each block's heads write and read, and why blocks are left out."""
    writers: dict[int, Factored] = {}
    readers: dict[int, Factored] = {}
    notes: list[str] = []
    for weights in all_head_weights(model) if known is None else known:
        try:
            writers[weights.block] = circuit(weights, "OV")
            read = writers[weights.block] if kind == "V" else circuit(weights, "QK")
            readers[weights.block] = read.transposed if kind == "K" else read
        except DoesNotApply as error:
            notes.append(str(error))
    if not readers:
        raise DoesNotApply(f"composition in {model.name}: {notes[0]}")
    return writers, readers, notes


def _pair(
    a: int, b: int, written: Factored, read: Factored, floor: _Floor, components: int
) -> Iterator[pd.DataFrame]:
    """The rows of all pairs of heads of blocks `a` and `b`."""
    # float32 is enough for sums of squares of cosines; their weights were found in float64
    right, left = (t.float().transpose(0, 1).flatten(1) for t in (written.right, read.left))
    shape = (len(written.values), -1, len(read.values), read.values.shape[-1])
    overlaps = (right.T @ left).view(shape).square_()
    kept = torch.einsum("irjs,js->ijr", overlaps, _shares(read.values).float()).double()
    whole = (kept * _shares(written.values)[:, None]).sum(-1).sqrt()
    yield _rows(a, b, whole[None], floor.scores(written.values, read.values)[:, None], (None,))
    if components:
        found = kept[..., :components].permute(2, 0, 1).sqrt()
        alone = floor.components(read.values, components)[:, :, None]
        wide = alone.expand(-1, -1, len(written.values), -1)
        yield _rows(a, b, found, wide, range(components))


def _rows(
    a: int, b: int, values: Tensor, floors: Tensor, components: Sequence[int | None]
) -> pd.DataFrame:
    """Values (component, from, to) and their floors (draw, component, from, to) as rows."""
    _, before, after = values.shape
    random: FloatArray = floors.cpu().numpy()
    low, high = np.quantile(random, [0.025, 0.975], axis=0)
    names = [component for component in components for _ in range(before * after)]
    return pd.DataFrame(
        {
            "block_from": a,
            "head_from": np.tile(np.repeat(np.arange(before), after), len(components)),
            "block_to": b,
            "head_to": np.tile(np.arange(after), before * len(components)),
            "component": pd.array(names, dtype="Int64"),
            "value": values.cpu().numpy().ravel(),
            "floor": random.mean(0).ravel(),
            "floor_low": low.ravel(),
            "floor_high": high.ravel(),
        }
    )
