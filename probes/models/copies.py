"""Copies of a loaded model, some of whose tensors are replaced."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from probes.models.model import Model


def copy_model(
    model: Model, name: str | None = None, instead: Mapping[int, Tensor | nn.Module] | None = None
) -> Model:
    """A deep copy with modules of its own; `instead` says by the `id` of a tensor or module what stands for it.

    What stands for itself is shared. Structure, padding and pooling are those of `model`: they are not found
    anew.
    """
    memo: dict[int, Any] = dict(instead or {})
    # Model and structure in one go, so that the copied structure points into the copied model.
    hf_model, structure = copy.deepcopy((model.hf_model, model.structure), memo)
    return replace(model, name=name or model.name, hf_model=hf_model, structure=structure)
