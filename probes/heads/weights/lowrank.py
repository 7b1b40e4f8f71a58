"""Low-rank tests: what a model still does when some heads attend, or write, with a few directions only."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Generator, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from probes.capture.attention import attention_calls
from probes.capture.attention_call import AttentionCall, FusedCall
from probes.capture.hooks import edit_site, marked_edited
from probes.errors import DoesNotApply, InputError
from probes.heads.ablation import HeadId, Judge, matched_random_heads
from probes.heads.ablation.check import draw_of
from probes.heads.ablation.paired import mean_bounds
from probes.heads.ablation.ranking import all_heads, check_heads
from probes.heads.weights.directions import Directions, TokenRows, leading_directions
from probes.heads.weights.factored import CIRCUITS, Circuit
from probes.models import Model

COLUMNS = {
    "circuit": "string",
    "heads": "string",
    "rank": "Int64",
    "measure": "string",
    "value": "Float64",
    "low": "Float64",
    "high": "Float64",
    "n": "Int64",
    "seed": "Int64",
}


@contextlib.contextmanager
def low_rank(
    model: Model,
    heads: Iterable[HeadId],
    name: Circuit,
    rank: int,
    calibration: TokenRows | None = None,
    *,
    directions: Directions | None = None,
) -> Generator[None]:
    """While the context lasts, `heads` use the leading `rank` directions of their QK or OV circuit only.

    "OV" puts the best approximation of rank `rank` in the place of W_V W_O, exactly, by a map of z; the value bias is
    kept, so that rank 0 writes what the head writes whatever it attends to. "QK" maps the queries so that logits have
    rank `rank`, by directions measured on `calibration` (`leading_directions` says how); rank 0 attends evenly.
    d_head leaves the model as it is. `directions` made before, of these heads or more, save making them again.

    Raises what `leading_directions` raises, `InputError` for ranks outside 0…d_head. The test is that of Lieberum et
    al. 2023 (arXiv 2307.09458).

    >>> def logits_of_rank(model, inputs, rank):  # with heads 3.1 and 5.0 writing few directions
    ...     with low_rank(model, [(3, 1), (5, 0)], "OV", rank):
    ...         return model.hf_model(**inputs).logits
    """
    chosen = check_heads(model, heads)
    wanted = [(block, head) for block, numbers in chosen.items() for head in numbers]
    found = directions or leading_directions(model, wanted, name, calibration)
    if found.circuit != name or not set(wanted) <= set(found.maps):
        raise InputError(
            f"the directions given are of other heads, or of {found.circuit} and not {name}"
        )
    if not 0 <= rank <= found.width:
        raise InputError(f"rank {rank}: a number from 0 to d_head = {found.width} is needed")
    maps = {block: _Map(found, block, numbers, rank) for block, numbers in chosen.items()}
    with contextlib.ExitStack() as stack:
        if name == "OV":
            for block, one in maps.items():
                stack.enter_context(edit_site(model, "z", block, one.outputs))
        else:
            stack.enter_context(marked_edited(model))
            stack.enter_context(attention_calls(model, lambda c: maps[c.block].queries(c), maps))
        yield


class _Map:
    """The maps of some heads of one block."""

    def __init__(self, directions: Directions, block: int, heads: list[int], rank: int) -> None:
        own = [directions.maps[block, head] for head in heads]
        self.heads = heads
        self.matrices = torch.stack([one.keep(rank) for one in own])  # (chosen, d_head, d_head)
        self.offsets = torch.stack([one.offset for one in own])
        self.whole = rank == directions.width

    def outputs(self, z: Tensor) -> Tensor:
        """z (batch, token, head, d_head) with those of the chosen heads mapped."""
        if self.whole:
            return z
        matrices, offsets = self.matrices.to(z.device), self.offsets.to(z.device)
        new = z.clone()
        own = z[:, :, self.heads].double() - offsets
        mapped = torch.einsum("bthd,hde->bthe", own, matrices) + offsets
        new[:, :, self.heads] = mapped.to(z.dtype)
        return new

    def queries(self, call: AttentionCall) -> AttentionCall | None:
        """The call with the queries of the chosen heads mapped."""
        if not isinstance(call, FusedCall):
            raise DoesNotApply(
                f"queries of block {call.block} are out of sight: its attention is eager"
            )
        if self.whole:
            return None
        batch, n, rows, _ = call.shape
        new = call.query.reshape(batch, n, rows, -1).clone()  # a single query may come packed
        own = new[:, self.heads].double()
        mapped = torch.einsum("bhtd,hde->bhte", own, self.matrices.to(own.device))
        new[:, self.heads] = mapped.to(new.dtype)
        return replace(call, query=new.reshape(call.query.shape))


def low_rank_curve(
    model: Model,
    judge: Judge,
    heads: Sequence[HeadId],
    ranks: Sequence[int] | None = None,
    *,
    circuits: Sequence[Circuit] = CIRCUITS,
    calibration: TokenRows | None = None,
    draws: int = 5,
    exclude: Collection[HeadId] = (),
    seed: int = 0,
) -> pd.DataFrame:
    """What `judge` says when `heads`, or as many random ones, keep r directions: circuit, heads, rank, measure, value….

    `ranks` are 1, 2, 4, … up to d_head, the whole model, by default. Rows of `heads` "random" are of heads of the
    same blocks that are neither chosen nor in `exclude`: each item meets one of `draws` sets, and intervals take the
    items of one set as one draw. Where no such heads are left, or a circuit does not apply, rows are left out and
    `frame.attrs["notes"]` says why.

    Raises `InputError` as `low_rank` does.

    >>> def enough(model, judge, heads, rows):  # accuracy by rank
    ...     table = low_rank_curve(model, judge, heads, calibration=rows)
    ...     return table.pivot_table(index="rank", columns=["circuit", "heads"], values="value")
    """
    rng = np.random.default_rng(seed)
    notes: list[str] = []
    sets: dict[str, tuple[tuple[HeadId, ...], ...]] = {"top": (tuple(heads),)}
    try:
        matched = matched_random_heads(heads, all_heads(model), draws, rng, exclude)
        sets["random"] = matched.draws
        notes += [note for note in (matched.note(),) if note]
    except InputError as error:
        notes.append(f"low rank, random heads: {error}")
    every = sorted({head for kind in sets.values() for group in kind for head in group})
    rows: list[dict[str, Any]] = []
    for name in circuits:
        try:
            directions = leading_directions(model, every, name, calibration)
        except DoesNotApply as error:
            notes.append(str(error))
            continue
        for rank in ranks_up_to(directions.width) if ranks is None else sorted(set(ranks)):
            for kind, groups in sets.items():
                about = {"circuit": name, "heads": kind, "rank": rank, "seed": seed}
                rows += [
                    {**about, **row}
                    for row in _judged(model, judge, groups, (directions, rank), seed)
                ]
    frame: Any = pd.DataFrame({column: [row[column] for row in rows] for column in COLUMNS})
    typed = frame.astype(COLUMNS)
    typed.attrs["notes"] = notes
    return typed


def ranks_up_to(width: int) -> list[int]:
    """Powers of two below `width`, and `width`.

    >>> ranks_up_to(12)
    [1, 2, 4, 8, 12]
    """
    return [*(2**power for power in range((width - 1).bit_length())), width]


def _judged(
    model: Model,
    judge: Judge,
    groups: Sequence[tuple[HeadId, ...]],
    change: tuple[Directions, int],
    seed: int,
) -> list[dict[str, Any]]:
    """Rows of each measure, each item under one of the groups; `change` is directions and rank."""
    directions, rank = change
    draw = draw_of(judge.n, len(groups), seed)
    values: dict[str, np.ndarray] = {}
    for number, heads in enumerate(groups):
        items = np.flatnonzero(draw == number)
        if len(items) == 0:
            continue
        with low_rank(model, heads, directions.circuit, rank, directions=directions):
            for measure, found in judge(model, items).items():
                values.setdefault(measure, np.zeros(judge.n))[items] = found
    owners = [judge.owners] if len(groups) == 1 else [judge.owners, draw]
    rows: list[dict[str, Any]] = []
    for measure, found in values.items():
        value, low, high = mean_bounds(found, owners)
        rows.append({"measure": measure, "value": value, "low": low, "high": high, "n": judge.n})
    return rows
