"""Starting a forward pass in the middle: what the first blocks gave is put in their place, so that they do not run.

For passes over the same input that differ only from some block on, such as ablations of later heads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probes.errors import InputError, ModelError
from probes.models.trace import first_tensor, replacing_forward, with_first_tensor

if TYPE_CHECKING:
    from probes.models import Model


@dataclass(frozen=True, eq=False)
class Replay:
    """What block `layer` − 1 returned in an earlier pass, whatever else than the residual stream that may hold."""

    layer: int
    output: Any


@contextlib.contextmanager
def keeping(model: Model, layer: int) -> Generator[list[Replay]]:
    """While the context lasts, a list that holds what the last pass gave at `layer`, from 1 to L.

    Raises `InputError` for a layer that is no output of a block.
    """
    if not 1 <= layer <= model.n_layers:
        raise InputError(f"layer {layer} is no block's output: 1 to {model.n_layers} are allowed")
    kept: list[Replay] = []

    def hook(_module: Any, _args: Any, output: Any) -> None:
        kept[:] = [Replay(layer, output)]

    handle = model.structure.blocks[layer - 1].module.register_forward_hook(hook)
    try:
        yield kept
    finally:
        handle.remove()


@contextlib.contextmanager
def starting_at(model: Model, replay: Replay) -> Generator[None]:
    """While the context lasts, passes begin at the layer of `replay`: the blocks before it return what it holds.

    The caller answers for the input being the one that was kept; another number of tokens is refused (`ModelError`).
    Edits of blocks before that layer have no effect. What the embedding computes is computed, and not used.

    >>> def twice(model, inputs, edit):  # the same pass with an edit of block 7 or later, at the cost of what follows
    ...     with keeping(model, 7) as kept:
    ...         plain = model.hf_model(**inputs).logits
    ...     with starting_at(model, kept[0]), edit:
    ...         return plain, model.hf_model(**inputs).logits
    """
    structure = model.structure
    modules = [block.module for block in structure.blocks[: replay.layer]]
    states = first_tensor(replay.output)
    assert states is not None

    def answer(*args: Any, **kwargs: Any) -> Any:
        given = structure.read_hidden(args, kwargs)
        if given.shape != states.shape:
            raise ModelError(
                f"a pass over {tuple(given.shape)} was to begin with states of {tuple(states.shape)}: another input"
            )
        return with_first_tensor(replay.output, states.clone())  # later blocks may write into it

    with replacing_forward(modules, answer):
        yield
