"""The reference backend: PyTorch hooks on the model itself.

Hooks are set for one forward pass and removed in `finally`. They only read; what they read is handed to `receive`
at once, so that pooling happens inside the hook and no full state outlives its block. The pass ends, by a private
exception, as soon as every place asked for has been read: later blocks and the language-model head never run.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from probes.capture.sites import SITES, Place, parse_sites
from probes.errors import InputError, ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from probes.models import Model

Receive = Callable[[Place, "torch.Tensor"], None]
Inputs = Mapping[str, "torch.Tensor"]


class _PassDone(Exception):
    """Everything asked for has been read: leave the forward pass."""


@dataclass(frozen=True)
class Spot:
    """Where a place is found: the input or the output of a module."""

    module: nn.Module
    end: Literal["input", "output"]


def find_spot(model: Model, place: Place) -> Spot:
    """Where `place` is read; `DoesNotApply` with the reason where the architecture has no such place."""
    from probes.models.structure import READ_AT_INPUT

    structure = model.structure
    site, index = place
    if SITES[site].axis == "layer":
        if index == 0:
            return Spot(structure.blocks[0].module, "input")
        return Spot(structure.blocks[index - 1].module, "output")
    module = structure.module_for(site, index)
    return Spot(module, "input" if site in READ_AT_INPUT else "output")


def _states_in(value: Any, spot: Spot) -> torch.Tensor:
    from probes.models.trace import first_tensor

    found = first_tensor(value)
    if found is None:
        raise ModelError(
            f"{type(spot.module).__name__} gave {type(value).__name__} without a tensor to read"
        )
    return found


def _attach(model: Model, spot: Spot, act: Callable[[torch.Tensor], torch.Tensor | None]) -> Any:
    """A hook that shows the states at `spot` to `act`; a tensor that `act` returns takes their place."""
    from probes.models.trace import with_first_tensor

    structure = model.structure

    def at_output(_module: nn.Module, _args: Any, output: Any) -> Any:
        new = act(_states_in(output, spot))
        return None if new is None else with_first_tensor(output, new)

    def at_block_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        new = act(structure.read_hidden(args, kwargs))
        return None if new is None else structure.replace_hidden(args, kwargs, new)

    def at_input(_module: nn.Module, args: tuple[Any, ...]) -> Any:
        new = act(_states_in(args, spot))
        return None if new is None else with_first_tensor(args, new)

    if spot.end == "output":
        return spot.module.register_forward_hook(at_output)
    if any(block.module is spot.module for block in structure.blocks):
        return spot.module.register_forward_pre_hook(at_block_input, with_kwargs=True)
    return spot.module.register_forward_pre_hook(at_input)


def shape_states(
    model: Model, place: Place, states: torch.Tensor, shape: Sequence[int]
) -> torch.Tensor:
    """`states` as (batch, token, d), or (batch, token, head, d_head) for `z`, whatever the module's own layout.

    Some modules work on (batch · token, d), some libraries split heads; `shape` is (batch, token).
    """
    batch, token = shape
    width, rest = divmod(states.numel(), batch * token)
    heads = model.structure.blocks[place.number].heads if SITES[place.site].per_head else None
    if rest or (heads is not None and width != heads.n * heads.width):
        raise ModelError(
            f"{place} has shape {tuple(states.shape)}: it does not hold {batch} × {token} tokens"
        )
    if heads is None:
        return states.reshape(batch, token, width)
    return states.reshape(batch, token, heads.n, heads.width)


class TorchRunner:
    """Forward passes of one model that hand the states at `places` to a receiver.

    Examples:
        >>> from probes.capture.sites import Place
        >>> def show(model, inputs):  # with a loaded model and {"input_ids": …, "attention_mask": …}
        ...     TorchRunner(model, [Place("exit", 3)])(inputs, lambda place, states: print(place, states.shape))
    """

    def __init__(self, model: Model, places: Sequence[Place]) -> None:
        if not places:
            raise InputError("no place was asked for: name at least one site and one layer")
        self.model = model
        self._spots: dict[Spot, list[Place]] = {}
        for place in places:
            self._spots.setdefault(find_spot(model, place), []).append(place)

    def __call__(self, inputs: Inputs, receive: Receive) -> None:
        """Run the backbone on `inputs` and call `receive(place, states)` for each place, in the order they are met.

        `states` is (batch, token, d), for `z` (batch, token, head, d_head). The receiver must not edit them.
        """
        import torch

        open_spots = set(self._spots)
        shape = token_shape(inputs)
        handles: list[Any] = []

        def read(spot: Spot) -> Callable[[torch.Tensor], None]:
            def act(states: torch.Tensor) -> None:
                if spot not in open_spots:
                    raise ModelError(
                        f"{self._spots[spot][0]} is read twice in one forward pass: a module is shared between blocks"
                    )
                for place in self._spots[spot]:
                    found = (
                        self.model.structure.apply_tail(states) if place.site == "exit" else states
                    )
                    grid = shape or found.shape[:2]
                    receive(place, shape_states(self.model, place, found, grid))
                open_spots.discard(spot)
                if not open_spots:
                    raise _PassDone

            return act

        try:
            for spot in self._spots:
                handles.append(_attach(self.model, spot, read(spot)))
            with torch.inference_mode(), contextlib.suppress(_PassDone):
                run_backbone(self.model, inputs)
        finally:
            for handle in handles:
                handle.remove()
        if open_spots:
            missed = sorted(str(self._spots[spot][0]) for spot in open_spots)
            raise ModelError(
                f"the forward pass never came by {missed[0]}: this model runs its blocks elsewhere"
            )


def token_shape(inputs: Inputs) -> tuple[int, int] | None:
    """(batch, token) of token inputs; None for images, whose number of patches only the model knows."""
    ids = inputs.get("input_ids")
    return None if ids is None else (int(ids.shape[0]), int(ids.shape[1]))


def run_backbone(model: Model, inputs: Inputs) -> Any:
    """The model's own forward pass without its language-model head and without a key-value cache."""
    from probes.models.inputs import call_arguments

    return model.structure.base(**call_arguments(model.structure.base, inputs))


@contextlib.contextmanager
def edit_site(
    model: Model, site: str, index: int, edit: Callable[[torch.Tensor], torch.Tensor]
) -> Generator[None]:
    """While the context lasts, replace the states at one place by `edit(states)` in every forward pass.

    `states` is (batch, token, d), for `z` (batch, token, head, d_head); `edit` returns a new tensor of the same shape.
    `exit` cannot be edited, as it is no place on the model's own path: edit `resid_post`.

    Raises `InputError` for unknown places and wrong shapes, `DoesNotApply` where the architecture has no such place.

    Examples:
        >>> def without_head(model, block, head):  # zero-ablate one head
        ...     def edit(z):
        ...         z = z.clone()
        ...         z[:, :, head] = 0
        ...         return z
        ...     return edit_site(model, "z", block, edit)
    """
    (place,) = parse_sites(site, model.n_layers, layers=[index])
    if place.site == "exit":
        raise InputError(
            "'exit' is read beside the model's own path and cannot be edited: edit 'resid_post'"
        )

    def act(states: torch.Tensor) -> torch.Tensor:
        grid = states.shape[:2] if states.ndim > 2 else (1, states.shape[0])
        shaped = shape_states(model, place, states, grid)
        new = edit(shaped)
        if new.shape != shaped.shape:
            raise InputError(
                f"the edit of {place} returned {tuple(new.shape)}, {tuple(shaped.shape)} is needed"
            )
        return new.reshape(states.shape)

    handle = _attach(model, find_spot(model, place), act)
    try:
        with marked_edited(model):
            yield
    finally:
        handle.remove()


_edits: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()  # in force now


@contextlib.contextmanager
def marked_edited(model: Model) -> Generator[None]:
    """`model` counts as edited meanwhile; every context that changes what it computes enters this one."""
    base = model.structure.base
    _edits[base] = _edits.get(base, 0) + 1
    try:
        yield
    finally:
        _edits[base] -= 1


def is_edited(model: Model) -> bool:
    """Whether an edit (`edit_site`, `skip_blocks`, `temperature`) is in force: states are not the model's own."""
    return edits_in_force(model) > 0


def edits_in_force(model: Model) -> int:
    """How many edits are in force."""
    return _edits.get(model.structure.base, 0)
