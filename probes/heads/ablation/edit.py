"""Heads taken out of a live model: their outputs replaced by zero, or by what they give on average."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from probes.capture.hooks import TorchRunner, edit_site, edits_in_force
from probes.capture.sites import Place
from probes.errors import InputError, NonFiniteError, unknown_name
from probes.heads.ablation.ranking import HeadId, all_heads, check_heads

if TYPE_CHECKING:
    from torch import Tensor, nn

    from probes.models import Model

Mode = Literal["zero", "mean"]
Means = Mapping[int, NDArray[np.floating[Any]]]
FloatArray = NDArray[np.floating[Any]]


@contextlib.contextmanager
def ablate_heads(
    model: Model,
    heads: Iterable[HeadId],
    mode: str = "zero",
    means: Means | None = None,
    positions: Sequence[int] | Tensor | None = None,
) -> Generator[None]:
    """While the context lasts, the outputs z of `heads` are replaced in every forward pass.

    Parameters
    ----------
    heads : (block, head) pairs, of any number of blocks; none leaves the model as it is.
    mode : "zero", or "mean": `means[block][head]`, each (d_head,), as `mean_outputs` gives them.
    positions : all tokens when None; numbers of tokens, the same in every row, negative ones from the end; or true
    where to replace, (batch, token). They count in what is passed in, padding and, in generation, each step included.

    z is a head's mixed values before the output projection, so that nothing else of the block changes. Grouped-query
    heads are single query heads. Raises `InputError` for a head or mode that does not exist and for missing or
    misshapen means, `DoesNotApply` for a block without heads. See also `probes.capture.hooks.edit_site`.

    >>> def logits_without(model, inputs):  # a loaded model without heads 3.1 and 5.0
    ...     with ablate_heads(model, [(3, 1), (5, 0)]):
    ...         return model.hf_model(**inputs).logits
    """
    chosen = check_heads(model, heads)
    put = check_means(model, chosen, mode, means)
    held = _ablated.setdefault(model.structure.base, [])
    with contextlib.ExitStack() as stack:
        for block, numbers in chosen.items():
            stack.enter_context(
                edit_site(model, "z", block, _replacing(numbers, put.get(block), positions))
            )
        held.extend(chosen)
        try:
            yield
        finally:
            for block in chosen:
                held.remove(block)


_ablated: weakref.WeakKeyDictionary[nn.Module, list[int]] = (
    weakref.WeakKeyDictionary()
)  # blocks, now


def ablated_from(model: Model) -> int | None:
    """The first block with ablated heads; None where there are none, or where other edits are in force beside them."""
    held = _ablated.get(model.structure.base, [])
    return min(held) if held and len(held) == edits_in_force(model) else None


def check_means(
    model: Model, chosen: Mapping[int, Sequence[int]], mode: str, means: Means | None
) -> dict[int, FloatArray]:
    """What to put in place, block -> (heads chosen, d_head); nothing for zeros."""
    if mode not in get_args(Mode):
        raise unknown_name("ablation mode", mode, get_args(Mode))
    if mode == "zero":
        return {}
    if means is None:
        raise InputError("mode 'mean' replaces by averages: give means=mean_outputs(model, rows)")
    put: dict[int, FloatArray] = {}
    for block, numbers in chosen.items():
        heads = model.structure.block(block).heads
        assert heads is not None
        given = np.asarray(means.get(block, np.empty(0)), dtype=np.float32)
        if given.shape != (heads.n, heads.width):
            raise InputError(
                f"means of block {block} have shape {given.shape}, ({heads.n}, {heads.width}) is needed"
            )
        if not np.isfinite(given).all():
            raise NonFiniteError(f"means of block {block} hold NaN or infinity")
        put[block] = given[list(numbers)]
    return put


def _replacing(
    heads: Sequence[int], put: FloatArray | None, positions: Sequence[int] | Tensor | None
) -> Callable[[Tensor], Tensor]:
    import torch

    def edit(z: Tensor) -> Tensor:  # (batch, token, head, d_head)
        index = torch.as_tensor(heads, device=z.device)
        new = torch.zeros((), dtype=z.dtype, device=z.device)
        if put is not None:
            new = torch.from_numpy(put).to(z.device, z.dtype)  # (heads chosen, d_head)
        replaced = z.clone()
        if positions is None:
            replaced[:, :, index] = new
            return replaced
        where = _where(positions, z.shape[0], z.shape[1]).to(z.device)[:, :, None, None]
        replaced[:, :, index] = torch.where(where, new, z[:, :, index])
        return replaced

    return edit


def _where(positions: Sequence[int] | Tensor, batch: int, token: int) -> Tensor:
    """True where to replace, (batch, token)."""
    import torch

    given = torch.as_tensor(positions).cpu()
    if given.dtype == torch.bool:
        if given.shape != (batch, token):
            raise InputError(
                f"positions have shape {tuple(given.shape)}, ({batch}, {token}) is needed: true where to replace"
            )
        return given
    outside = [int(p) for p in given.reshape(-1) if not -token <= int(p) < token]
    if outside:
        raise InputError(f"position {outside[0]} does not exist: the pass has {token} tokens")
    where = torch.zeros(batch, token, dtype=torch.bool)
    where[:, given.reshape(-1).long()] = True
    return where


def mean_outputs(model: Model, token_rows: Sequence[Sequence[int]]) -> dict[int, FloatArray]:
    """Mean output z of every head over all tokens of `token_rows`: block -> (heads, d_head) float32.

    Each row is one text's token ids, special tokens included where wanted; every token counts the same. Rows are read
    one by one, so they may differ in length. Blocks without heads are left out.

    Raises `DoesNotApply` where no block has heads, `InputError` for empty rows, `NonFiniteError` for NaN.
    """
    import torch

    blocks = sorted({block for block, _ in all_heads(model)})
    runner = TorchRunner(model, [Place("z", block) for block in blocks])
    sums: dict[int, FloatArray] = {}
    if not len(token_rows) or not all(len(row) for row in token_rows):
        raise InputError("token rows are needed, each with at least one token")

    def add(place: Place, z: Tensor) -> None:
        found = z.float().sum((0, 1)).cpu().double().numpy()  # (head, d_head)
        sums[place.number] = sums.get(place.number, np.zeros(())) + found

    for row in token_rows:
        ids = torch.as_tensor(np.asarray(row, np.int64)[None], device=model.device)
        runner(model.forward_inputs(ids, torch.ones_like(ids)), add)
    n = sum(len(row) for row in token_rows)
    means = {block: (total / n).astype(np.float32) for block, total in sums.items()}
    for block, found in means.items():
        if not np.isfinite(found).all():
            raise NonFiniteError(f"heads of block {block} give NaN or infinity")
    return means
