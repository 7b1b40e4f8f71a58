"""The model physically cut after k blocks: the ground truth for `exit` at layer k, and what is exported."""

from __future__ import annotations

import copy
from typing import Any, cast

from torch import nn

from probes.errors import InputError, ModelError
from probes.models.inputs import text_config
from probes.models.model import Model


def cut_config(config: Any, k: int, n_layers: int) -> Any:
    """A deep copy with k layers: the layer count, and every list that has one entry per layer."""
    cut = copy.deepcopy(config)
    text = cut.get_text_config() if hasattr(cut, "get_text_config") else cut
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(cast("list[Any]", value)) == n_layers:
            setattr(text, name, value[:k])
    text.num_hidden_layers = k
    return cut


def cut_model(model: Model, k: int) -> nn.Module:
    """The backbone with its first k blocks only, k in 0…L; weights are shared with `model`.

    Only the modules on the way to the list of blocks are copied (shallowly), each with a
    configuration that says k layers, so the given model stays as it was.
    """
    structure = model.structure
    if not 0 <= k <= structure.n_layers:
        raise InputError(f"cannot cut after {k} blocks: 0 to {structure.n_layers} are allowed")
    list_path = structure.blocks[0].path.rpartition(".")[0]
    root = _shallow(structure.base)
    config = cut_config(text_config(structure.base), k, structure.n_layers)
    _set_config(root, config)
    parent = root
    *way, last = list_path.split(".")
    for name in way:
        child = parent._modules[name]  # pyright: ignore[reportPrivateUsage]
        assert child is not None
        child = _shallow(child)
        _set_config(child, config)
        setattr(parent, name, child)
        parent = child
    blocks = getattr(parent, last)
    if not isinstance(blocks, nn.ModuleList):
        raise ModelError(f"{list_path} is no ModuleList: the model cannot be cut")
    setattr(parent, last, nn.ModuleList(list(blocks)[:k]))
    return root


def _shallow(module: nn.Module) -> nn.Module:
    """A copy that shares all parameters and children, but can be given other children."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)  # pyright: ignore[reportPrivateUsage]
    return twin


def _set_config(module: nn.Module, config: Any) -> None:
    if hasattr(module, "config"):
        cast("Any", module).config = config
