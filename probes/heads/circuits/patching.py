"""Activation patching from clean to corrupted prompts, and its approximation by gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.capture.sites import Place
from probes.errors import DoesNotApply, InputError, unknown_name
from probes.heads.circuits.draws import Draws
from probes.heads.circuits.names import LEVELS, POSITIONS
from probes.heads.circuits.passes import (
    SITES,
    Batch,
    Reading,
    Wrap,
    edit_tokens,
    last_logits,
    late_start,
    needs,
    numbers,
    places_of,
    read,
    split,
    started_at,
)
from probes.stats import pearson, percentile_interval

if TYPE_CHECKING:
    from probes.heads.circuits.tasks import Task
    from probes.models import Model

Array = NDArray[np.floating[Any]]
Report = Callable[[int, int], None]
STEPS = 5  # between corrupted and clean embeddings, of attribution patching
_EMBEDDING = Place("resid_post", 0)


@dataclass(frozen=True)
class Patch:
    """What is taken over from the clean pass: a level, its layer or block (and head), and which tokens."""

    level: str
    positions: str
    layer: int | None = None
    block: int | None = None
    head: int | None = None

    @property
    def place(self) -> Place:
        if self.level == "resid":
            assert self.layer is not None
            return Place("resid_post", self.layer)
        assert self.block is not None
        return Place(SITES[self.level], self.block)

    @property
    def start(self) -> int:
        """The layer up to which the pass is the corrupted one."""
        return self.layer if self.layer is not None else self.block or 0

    def columns(self) -> dict[str, Any]:
        return {
            "level": self.level, "layer": self.layer, "block": self.block, "head": self.head,
            "positions": self.positions,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Effects:
    """Change of the logit difference (n, patches) over the corrupted pass, and both passes' own (n,)."""

    patches: tuple[Patch, ...]
    values: Array
    clean: Array
    corrupted: Array

    @property
    def gap(self) -> Array:
        """Clean less corrupted, (n,): what there is to restore."""
        return self.clean - self.corrupted

    def rows(self, draws: Draws) -> list[dict[str, Any]]:
        """Normalised effects, mean change / mean gap: 0 as corrupted, 1 as clean.

        Raises `DoesNotApply` where the gap is not told from zero: there is nothing to restore.
        """
        require_gap(self.gap, draws)
        found = draws.ratio(self.values, self.gap)
        return [{**patch.columns(), **row} for patch, row in zip(self.patches, found, strict=True)]

    def together(self, draws: Draws) -> list[dict[str, Any]]:
        """The same with intervals that hold for all places at once: whatever is picked from them is shown."""
        require_gap(self.gap, draws)
        found = draws.simultaneous(self.values, self.gap)
        return [{**patch.columns(), **row} for patch, row in zip(self.patches, found, strict=True)]

    def part(self, patches: Sequence[Patch]) -> Effects:
        """The effects of some of the patches, in that order."""
        place = {patch: i for i, patch in enumerate(self.patches)}
        return replace(
            self, patches=tuple(patches), values=self.values[:, [place[p] for p in patches]]
        )


def require_gap(
    gap: Array, draws: Draws, what: str = "the logit difference of clean and corrupted prompts"
) -> None:
    """`DoesNotApply` unless the mean of `gap` (n,) lies above or below zero with its whole interval."""
    (row,) = draws.mean(gap[:, None])
    if row["low"] <= 0 <= row["high"]:
        raise DoesNotApply(
            f"{what} is not told apart "
            f"({row['value']:.3g}, {row['low']:.3g} to {row['high']:.3g}): there is nothing to restore"
        )


def list_patches(model: Model, level: str, positions: Sequence[str] = POSITIONS) -> list[Patch]:
    """All patches of a level; `DoesNotApply` with the reason where the model has no such places."""
    if level not in LEVELS:
        raise unknown_name("level", level, LEVELS)
    for group in positions:
        if group not in POSITIONS:
            raise unknown_name("positions", group, POSITIONS)
    why = needs(model, level)
    if why is not None:
        raise DoesNotApply(why)
    if level == "resid":
        return [Patch(level, p, layer=k) for p in positions for k in range(model.n_layers + 1)]
    found: list[Patch] = []
    for group in positions:
        for block in model.structure.blocks:
            if level != "head":
                found.append(Patch(level, group, block=block.index))
                continue
            heads = range(block.n_heads or 0)
            found += [Patch(level, group, block=block.index, head=h) for h in heads]
    return found


def patch_activations(
    model: Model, task: Task, patches: Sequence[Patch], report: Report = lambda done, total: None
) -> Effects:
    """Activation patching: each place in turn gets what it held on the clean prompt, in a corrupted pass.

    Effect = logit difference with the patch − without, (n, patches), in logits. Each pass begins at the patched block,
    where the model allows that. Patching the whole residual stream at any layer restores the clean difference. Papers:
    Meng et al. 2022 (arXiv 2202.05262), Wang et al. 2022 (arXiv 2211.00593). See also `patch_attributions`.

    Raises `NonFiniteError` for NaN in the logits.
    """
    places = sorted({patch.place for patch in patches} | set(places_of(model, ["resid_post"])))
    effects = _empty(task, patches)
    parts = split(model, task)
    for done, (rows, batch) in enumerate(parts):
        clean = read(model, batch, batch.clean, places)
        base = read(model, batch, batch.corrupted, places)
        _note(effects, rows, clean, base)
        wrap = late_start(model, batch, base)
        for i, patch in enumerate(patches):
            report(done * len(patches) + i, len(parts) * len(patches))
            found = _patched(model, batch, patch, (clean, base), wrap) - base.difference
            effects.values[list(rows), i] = numbers(found)
    return effects


def _patched(
    model: Model, batch: Batch, patch: Patch, passes: tuple[Reading, Reading], wrap: Wrap | None
) -> Tensor:
    clean, base = passes
    mask = batch.mask(patch.positions)
    new = clean.states[patch.place]

    def edit(states: Tensor) -> Tensor:
        if patch.head is None:
            return torch.where(mask[..., None], new, states)
        states = states.clone()
        states[:, :, patch.head] = torch.where(
            mask[..., None], new[:, :, patch.head], states[:, :, patch.head]
        )
        return states

    start = 0 if wrap is None else patch.start
    wrap = wrap or (lambda states: states)
    stream = base.states[Place("resid_post", start)]
    if patch.level == "resid" and start == patch.start:
        with torch.no_grad(), started_at(model, start, edit(stream), wrap):
            return batch.difference(last_logits(model, batch.corrupted, batch.last)[:, 0])
    with (
        torch.no_grad(),
        started_at(model, start, stream, wrap),
        edit_tokens(model, patch.place, batch.corrupted, edit),
    ):
        return batch.difference(last_logits(model, batch.corrupted, batch.last)[:, 0])


def patch_attributions(
    model: Model, task: Task, patches: Sequence[Patch], *, steps: int = STEPS
) -> Effects:
    """Attribution patching: (clean − corrupted) · gradient of the logit difference, (n, patches), all places at once.

    The gradient is the mean over `steps` passes whose embeddings lie between corrupted and clean ones (at shares
    (k + ½) / steps), integrated gradients; with `steps` 0 it is that of the corrupted pass alone. Takes two forward
    passes, and a forward and a backward one per step, against one forward pass per place of `patch_activations`, which
    this approximates. On SmolLM2 (indirect objects) the correlation with it is 0.95 for the residual stream, 0.98 for
    attention, 0.99 for MLPs, 0.96 for heads; with `steps` 0 it is 0.58, 0.95, 0.82, 0.94. Papers: Nanda 2023, Syed et
    al. 2023 (arXiv 2310.10348), Hanna et al. 2024 (EAP-IG, arXiv 2403.17806).

    Raises `InputError` for a negative number of steps.
    """
    if steps < 0:
        raise InputError(f"{steps} steps: 0 or more are needed")
    places = sorted({patch.place for patch in patches})
    effects = _empty(task, patches)
    for rows, batch in split(model, task):
        clean = read(model, batch, batch.clean, {*places, _EMBEDDING})
        base = read(model, batch, batch.corrupted, {*places, _EMBEDDING})
        _note(effects, rows, clean, base)
        shares = [(k + 0.5) / steps for k in range(steps)] or [0.0]
        slopes = _slopes(model, batch, (clean, base), places, shares)
        for place, slope in slopes.items():
            change = clean.states[place].float() - base.states[place].float()
            product = (change * slope).sum(-1)  # (n, T) or (n, T, head)
            for i, patch in enumerate(patches):
                if patch.place != place:
                    continue
                own = product if patch.head is None else product[:, :, patch.head]
                found = (own * batch.mask(patch.positions)).sum(1)
                effects.values[list(rows), i] = numbers(found)
    return effects


def _slopes(
    model: Model,
    batch: Batch,
    passes: tuple[Reading, Reading],
    places: Sequence[Place],
    shares: Sequence[float],
) -> dict[Place, Tensor]:
    """Gradient of the logit difference at each place, the mean over `shares` of the way from corrupted to clean."""
    clean, base = (found.states[_EMBEDDING].float() for found in passes)
    sums: dict[Place, Tensor] = {}
    for share in shares:
        start = base + share * (clean - base)

        def mix(states: Tensor, start: Tensor = start) -> Tensor:
            return start.to(states.dtype)

        with edit_tokens(model, _EMBEDDING, batch.corrupted, mix):
            found = read(model, batch, batch.corrupted, places, gradients=True)
        slopes = torch.autograd.grad(found.difference.sum(), [found.states[p] for p in places])
        for place, slope in zip(places, slopes, strict=True):
            sums[place] = sums.get(place, 0) + slope.float() / len(shares)
    return sums


def agreement(activation: Effects, attribution: Effects, draws: Draws) -> Iterator[dict[str, Any]]:
    """Pearson correlation over places between mean effects of both methods, per level, resampled by pair.

    Places are those that both hold: layers, blocks or heads, each at each of its groups of tokens. Where one side is
    constant there is no row.
    """
    for level in LEVELS:
        patches = [p for p in activation.patches if p.level == level and p in attribution.patches]
        if len(patches) < 3:
            continue
        a, b = (found.part(patches).values for found in (activation, attribution))
        if min(np.ptp(a.mean(axis=0)), np.ptp(b.mean(axis=0))) == 0:
            continue
        drawn = pearson(draws.weights @ a, draws.weights @ b)
        low, high = percentile_interval(drawn)
        yield {
            "level": level, "pearson": float(pearson(a.mean(axis=0), b.mean(axis=0))),
            "low": float(low), "high": float(high), "n": draws.n, "seed": draws.seed,
        }  # fmt: skip


def _empty(task: Task, patches: Sequence[Patch]) -> Effects:
    n = len(task)
    return Effects(tuple(patches), np.zeros((n, len(patches))), np.zeros(n), np.zeros(n))


def _note(effects: Effects, rows: tuple[int, ...], clean: Reading, base: Reading) -> None:
    effects.clean[list(rows)] = numbers(clean.difference)
    effects.corrupted[list(rows)] = numbers(base.difference)
