"""Copies of a loaded model: in another precision, or sharing all weights, for a library that rewires what it wraps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes.models.copies import copy_model

if TYPE_CHECKING:
    import torch

    from probes.models import Model


def sharing_weights(model: Model) -> Model:
    """Modules of its own, tensors shared: wrapping or rewiring the twin leaves `model` as it was."""
    tensors = [*model.hf_model.parameters(), *model.hf_model.buffers()]
    return copy_model(model, instead={id(tensor): tensor for tensor in tensors})


def in_dtype(model: Model, dtype: torch.dtype) -> Model:
    """The model in another precision, `model` itself when it has it already.

    Parameters and saved buffers are cast; computed buffers (the frequencies of rotary positions) stay in float32, as
    transformers keeps them.
    """
    if model.dtype == dtype:
        return model
    twin = copy_model(model)
    saved = set(twin.hf_model.state_dict())
    for name, tensor in [*twin.hf_model.named_parameters(), *twin.hf_model.named_buffers()]:
        if name in saved and tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    return twin
