"""Quantised copies that compute with the kernels of the library bitsandbytes."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from probes.errors import InputError, ModelError
from probes.models.copies import copy_model
from probes.models.inputs import run_base, trial_inputs
from probes.models.model import Model

_OUTLIERS = 6.0  # LLM.int8(): activations beyond it are not quantised


def with_kernels(model: Model, bits: int, group: int | None) -> Model:
    """A copy of `model` whose linear layers in the blocks are bitsandbytes' own: LLM.int8() for 8 bits, NF4 for 4.

    Raises `InputError` for other bits, a group, 4 bits on a CPU, or where the library is missing; `ModelError`
    for a model that does not run on its kernels.
    """
    if bits not in (8, 4) or group is not None:
        raise InputError(
            f"bitsandbytes came with bits={bits}, group={group}: it has 8 or 4 bits and groups of its own "
            "(group=None); backend='simulated' takes others"
        )
    if bits == 4 and model.device.type == "cpu":
        # Version 0.50 repacks the weights in a pass and not back to the same ones in state_dict(): their hash, by which
        # stored states are found again, would change from pass to pass.
        raise InputError(
            "the 4 bit kernels of bitsandbytes rewrite their weights on a CPU: use backend='simulated', or a GPU"
        )
    try:
        import_module("bitsandbytes")
    except ImportError:
        raise InputError(
            "backend 'bitsandbytes' needs that library: run pip install bitsandbytes, or use "
            "backend='simulated'"
        ) from None
    # That activations are cast to half precision is logged in every layer of every pass otherwise.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    instead = {id(m): _layer(m, bits) for m in _linear_modules(model)}
    twin = copy_model(model, f"{model.name} (int{bits})", instead)
    _try_out(model, twin)
    return twin


def _linear_modules(model: Model) -> list[Any]:
    from transformers.pytorch_utils import Conv1D

    from probes.models.quantise import linear_weights

    owners = {id(p): m for m in model.hf_model.modules() for p in m.parameters(recurse=False)}
    found: dict[int, Any] = {}
    for path, weight, _ in linear_weights(model.structure):
        module = owners[id(weight)]
        if not isinstance(module, (nn.Linear, Conv1D)):
            raise ModelError(
                f"{path} is a stack of experts, which bitsandbytes does not take: use backend='simulated'"
            )
        found[id(module)] = module
    return list(found.values())


def _layer(module: Any, bits: int) -> nn.Module:
    """bitsandbytes' layer in place of an `nn.Linear`, or of a Conv1D, whose weight is (in, out)."""
    kernels: Any = import_module("bitsandbytes.nn")

    weight: Tensor = module.weight.detach()
    weight = (weight if isinstance(module, nn.Linear) else weight.T).contiguous()
    size = (weight.shape[1], weight.shape[0], module.bias is not None)
    layer: Any
    if bits == 8:
        layer = kernels.Linear8bitLt(*size, has_fp16_weights=False, threshold=_OUTLIERS)
        layer.weight = kernels.Int8Params(
            weight.cpu().clone(), requires_grad=False, has_fp16_weights=False
        )
    else:
        layer = kernels.Linear4bit(*size, compute_dtype=weight.dtype, quant_type="nf4")
        layer.weight = kernels.Params4bit(
            weight.cpu().clone(), requires_grad=False, quant_type="nf4"
        )
    if module.bias is not None:
        layer.bias = nn.Parameter(module.bias.detach().clone(), requires_grad=False)
    return layer.to(weight.device).eval()  # quantises on the way


def _try_out(model: Model, twin: Model) -> None:
    """A model that reads its weights itself (Mamba) fails in one pass of a few tokens, and not in a long capture."""
    try:
        last = run_base(twin.structure.base, trial_inputs(model.hf_model))
    except Exception as error:  # shapes and types that do not fit raise many kinds
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"{model.name} does not run with bitsandbytes ({type(error).__name__}: {reason[:150]}): "
            "use backend='simulated'"
        ) from error
    if not bool(torch.isfinite(last).all()):
        raise ModelError(
            f"{model.name} gives NaN or infinity with bitsandbytes: use backend='simulated'"
        )
