"""nnsight as a backend: traces of a twin of the loaded model that shares its weights.

Every site is shared: nnsight reads inputs and outputs of the very modules that the torch backend hooks. Not shared are
blocks that take the residual stream as anything but their first argument, which nnsight's `.input` does not show
(layer 0 of such a model raises `DoesNotApply`). A trace must ask for values in the order in which the model computes
them; that order is found by one tiny pass when the runner is made.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from probes.capture.hooks import (
    Inputs,
    Receive,
    Spot,
    TorchRunner,
    find_spot,
    shape_states,
    token_shape,
)
from probes.capture.sites import Place
from probes.capture.twins import sharing_weights
from probes.errors import DoesNotApply, ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from probes.models import Model


def computed_order(model: Model, places: Sequence[Place]) -> list[Place]:
    """`places` in the order in which a forward pass comes by them."""
    from probes.models.inputs import trial_inputs

    order: list[Place] = []
    TorchRunner(model, places)(
        trial_inputs(model.hf_model, rows=1), lambda place, _states: order.append(place)
    )
    return order


class NnsightRunner:
    """Traces through nnsight; `model` is the loaded model, which stays as it was."""

    def __init__(self, model: Model, places: Sequence[Place]) -> None:
        from nnsight import NNsight

        self.model = model
        twin = sharing_weights(model)
        with (
            warnings.catch_warnings()
        ):  # it renames submodules called "output", which are not looked up by name here
            warnings.simplefilter("ignore")
            self._net: Any = NNsight(twin.structure.base)
        envoys = {id(envoy._module): envoy for envoy in self._net.modules()}
        self._reads: dict[Spot, tuple[Any, list[Place]]] = {}
        for place in computed_order(twin, places):
            spot = find_spot(twin, place)
            first_block = spot.module is twin.structure.blocks[0].module
            if (
                spot.end == "input"
                and first_block
                and twin.structure.hidden_place not in (0, "hidden_states")
            ):
                raise DoesNotApply(
                    f"{place}: nnsight shows a module's first argument only; use backend='torch'"
                )
            self._reads.setdefault(spot, (envoys[id(spot.module)], []))[1].append(place)

    def __call__(self, inputs: Inputs, receive: Receive) -> None:
        import torch

        from probes.models.inputs import call_arguments
        from probes.models.trace import first_tensor

        shape = token_shape(inputs)
        arguments = call_arguments(self.model.structure.base, inputs)

        def hand_over(value: Any, places: list[Place]) -> None:
            states: Tensor | None = first_tensor(value)
            if states is None:
                raise ModelError(
                    f"{places[0]}: nnsight gave {type(value).__name__} without a tensor"
                )
            with torch.inference_mode():  # the block of a trace runs outside the caller's mode
                for place in places:
                    found = (
                        self.model.structure.apply_tail(states) if place.site == "exit" else states
                    )
                    receive(place, shape_states(self.model, place, found, shape or found.shape[:2]))

        reads = list(self._reads.items())
        with torch.inference_mode(), self._net.trace(**arguments) as tracer:
            for spot, (envoy, places) in reads:
                value = envoy.input if spot.end == "input" else envoy.output
                hand_over(value, places)
            tracer.stop()


@contextlib.contextmanager
def open_nnsight(model: Model, places: Sequence[Place]) -> Generator[NnsightRunner]:
    """A runner whose traces live as long as the context; the model itself is not touched."""
    yield NnsightRunner(model, places)
