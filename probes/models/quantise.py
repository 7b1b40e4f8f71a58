"""`quantised`: a copy whose block weights lie on the few values that low-precision formats can hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from probes.errors import InputError, ModelError, unknown_name
from probes.models.copies import copy_model
from probes.models.model import Model

if TYPE_CHECKING:
    from probes.models.structure import Structure

BITS = range(2, 9)


def quantised(
    model: Model, bits: int = 8, group: int | None = None, *, backend: str = "simulated"
) -> Model:
    """A copy of `model` with the linear weights of its blocks in `bits` bits, rounded to nearest; no data is needed.

    Each output channel has one step, Δ = max |w| / (2^(bits-1) - 1), and its weights become Δ · round(w / Δ): at most
    2^bits - 1 values, symmetric about zero, none further than Δ/2 from the trained weight. Activations stay as they
    are. Quantised are `nn.Linear`, GPT-2's Conv1D and stacks of experts inside the blocks; embeddings, norms, biases,
    routers, short convolutions and the language-model head are not, as is usual (Dettmers et al. 2022, arXiv
    2208.07339).

    Args:
        model: from `load_model` or `wrap_model`; it is left as it is.
        bits: 2 to 8.
        group: that many neighbouring inputs of a channel share a step (the last group may be shorter); None: all.
        backend: `simulated` computes with the rounded weights in the model's own precision, on every device;
            `bitsandbytes` runs that library's own 8 or 4 bit kernels, which quantise the activations too (8) or put
            the weights on the NF4 values in groups of 64 (4, on GPUs only).

    Returns:
        A `Model` named like "minilm (int8)". Its `weights_hash` differs, so that no stored state is taken for its own.

    Raises:
        InputError: bits, group or backend that do not exist, or `bitsandbytes` not installed. ModelError: a stack of
        matrices of unknown layout, or a model that does not run on the kernels of `bitsandbytes`.

    Examples:
        >>> low = quantised(load_model("minilm"), bits=4)  # doctest: +SKIP
        >>> low.name  # doctest: +SKIP
        'minilm (int4)'
    """
    if bits not in BITS:
        raise InputError(f"bits is {bits!r}: a whole number from {BITS[0]} to {BITS[-1]} is needed")
    if group is not None and (not isinstance(group, int) or group < 1):
        raise InputError(f"group is {group!r}: a number of weights, 1 or more, or None is needed")
    if backend not in _BACKENDS:
        raise unknown_name("quantisation backend", backend, _BACKENDS)
    return _BACKENDS[backend](model, bits, group)


def round_weights(weight: Tensor, bits: int, group: int | None = None) -> Tensor:
    """`weight` (…, out, in) on its grid of at most 2^bits - 1 values per channel (and group), in its own type.

    Scale and rounding are computed in float32. A channel of zeros stays one.

    >>> round_weights(torch.tensor([[0.0, 0.24, -1.0, 0.5, 0.99]]), bits=2)
    tensor([[ 0.,  0., -1.,  0.,  1.]])
    """
    inputs = weight.shape[-1]
    size = min(group or inputs, inputs)
    padded = nn.functional.pad(weight.float(), (0, -inputs % size))
    cells = padded.unflatten(-1, (-1, size))  # (…, out, group, size)
    top = 2 ** (bits - 1) - 1
    step = cells.abs().amax(-1, keepdim=True) / top
    # In units of the step, and a step of zero (or one that a division made so) divides nothing.
    units = torch.where(step > 0, cells / step, 0.0).round().clamp(-top, top)
    return (units * step).flatten(-2)[..., :inputs].to(weight.dtype)


def linear_weights(structure: Structure) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """(path, weight, whether it is (…, in, out)) of every linear map inside the blocks, each once.

    Raises `ModelError` for a stack of matrices whose layout is not known: half a quantised model would pass for one.
    """
    from transformers.pytorch_utils import Conv1D

    seen: set[int] = set()
    for block in structure.blocks:
        for path, module in block.module.named_modules(prefix=block.path):
            for name, weight in module.named_parameters(recurse=False):
                if id(weight) in seen:
                    continue
                seen.add(id(weight))
                if isinstance(module, (nn.Linear, Conv1D)):
                    if name == "weight":
                        yield f"{path}.{name}", weight, isinstance(module, Conv1D)
                elif weight.ndim == 3 and not isinstance(module, nn.Conv1d):
                    # transformers' stacks of experts say which way their matrices lie
                    transposed = getattr(module, "is_transposed", None)
                    if not isinstance(transposed, bool):
                        raise ModelError(
                            f"{path}.{name} is a stack of matrices of shape {tuple(weight.shape)} in a "
                            f"{type(module).__name__}, which does not say which side is the input"
                        )
                    yield f"{path}.{name}", weight, transposed


def _simulated(model: Model, bits: int, group: int | None) -> Model:
    rounded: dict[int, Tensor] = {}
    for _, weight, transposed in linear_weights(model.structure):
        data = weight.detach()
        matrix = data.transpose(-1, -2) if transposed else data
        new = round_weights(matrix, bits, group)
        new = (new.transpose(-1, -2) if transposed else new).contiguous()
        rounded[id(weight)] = nn.Parameter(new, requires_grad=weight.requires_grad)
    if not rounded:
        raise ModelError(f"{model.name} has no linear weights in its blocks: nothing to quantise")
    return copy_model(model, f"{model.name} (int{bits})", rounded)


def _bitsandbytes(model: Model, bits: int, group: int | None) -> Model:
    from probes.models.bitsandbytes import with_kernels

    return with_kernels(model, bits, group)


_BACKENDS: dict[str, Callable[[Model, int, int | None], Model]] = {
    "simulated": _simulated,
    "bitsandbytes": _bitsandbytes,
}
