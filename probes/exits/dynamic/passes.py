"""Forward passes whose rows leave on the way: a block computes only the rows that are still in the batch.

The model's own forward runs, so everything an architecture does between its blocks stays as it is; only the blocks are
given fewer rows. Which of their arguments have one entry per row is found by running the model twice, on two and on
three rows, not by names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from probes.errors import DoesNotApply, InputError, ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from probes.models import Model

IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]
Where = tuple[
    int, str | int, tuple[str | int, ...]
]  # block, argument ("out": what it returns), place in it
Visit = Callable[[int, "torch.Tensor", IntArray], BoolArray]
_OUT = "out"
_TRIALS = (2, 3)  # rows


class _AllLeft(Exception):
    """No row is left: leave the forward pass."""


class LeavingPass:
    """Passes of one model that stop for every row where `visit` says so; made once, used for any number of batches.

    `layers` are those at which `visit(layer, states, rows)` is asked: `states` (rows, token, d) of the site `exit`,
    `rows` their places in the batch; it returns which of them leave (rows,). What is left after the last of `layers`
    leaves there. Raises `InputError` for layers the model does not have, and `DoesNotApply` where its blocks do not
    keep the rows of a batch apart or share one module.
    """

    def __init__(self, model: Model, layers: Sequence[int]) -> None:
        known = range(model.n_layers + 1)
        for layer in layers:
            if layer not in known:
                raise InputError(f"layer {layer} does not exist: 0 to {model.n_layers} are allowed")
        if not layers or list(layers) != sorted(set(layers)):
            raise InputError(
                f"exit layers {list(layers)}: one or more, in rising order, are needed"
            )
        self.model = model
        self.layers = tuple(layers)
        modules = [block.module for block in model.structure.blocks]
        if len({id(module) for module in modules}) < len(modules):
            raise DoesNotApply(
                f"{model.name} runs one module as several blocks: rows cannot leave it"
            )
        self._per_row: dict[Where, bool] = find_per_row(model) if len(self.layers) > 1 else {}

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, visit: Visit) -> None:
        """One pass over a padded batch, (batch, token) ids and 0/1 mask."""
        import torch

        running = _Running(self, len(input_ids), visit)
        blocks = self.model.structure.blocks[: self.layers[-1] + 1]
        modules = [block.module for block in blocks]
        inputs = self.model.forward_inputs(
            input_ids.to(self.model.device), attention_mask.to(self.model.device)
        )
        with (
            torch.inference_mode(),
            _wrapped(modules, running.block),
            contextlib.suppress(_AllLeft),
        ):
            self.model.structure.base(**inputs)
        if len(running.rows):
            raise ModelError(
                f"a forward pass of {self.model.name} never came by layer {self.layers[-1]}: its blocks run elsewhere"
            )

    def per_row(self, where: Where, tensor: torch.Tensor) -> bool:
        """Whether the tensor there has one entry per row of the batch; `ModelError` where the trial saw none there."""
        if where not in self._per_row and tensor.ndim:
            block, name, _ = where
            raise ModelError(
                f"block {block} of {self.model.name} came with a tensor {tuple(tensor.shape)} as {name!r} that its "
                "trial did not show: whether it has one entry per row is unknown"
            )
        return self._per_row.get(where, False)


class _Running:
    """One pass: the rows still in the batch, and what a block is replaced by."""

    def __init__(self, plan: LeavingPass, n: int, visit: Visit) -> None:
        self.plan, self.n, self.visit = plan, n, visit
        self.rows: IntArray = np.arange(n)
        self._index: torch.Tensor | None = None  # of the rows; None while all are there
        self._taken: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # masks serve many blocks

    def block(self, number: int, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        structure = self.plan.model.structure
        if number == 0:
            self._look(0, structure.read_hidden(args, kwargs))
        args, kwargs = self._fewer(number, args, kwargs)
        output = forward(*args, **kwargs)
        index = self._index  # the rows that were computed
        self._look(number + 1, _first(output))
        return output if index is None else self._all_rows(number, output, index)

    def _look(self, layer: int, states: torch.Tensor) -> None:
        """Show `states` of the rows that are left, and let go those that leave."""
        import torch

        if layer not in self.plan.layers:
            return
        shown = self.plan.model.structure.apply_tail(states)
        leaves = np.asarray(self.visit(layer, shown, self.rows), dtype=bool)
        if layer == self.plan.layers[-1]:
            leaves = np.ones(len(self.rows), dtype=bool)
        if leaves.any():
            self.rows = self.rows[~leaves]
            self._index = torch.from_numpy(self.rows).to(states.device)
            self._taken.clear()
        if not len(self.rows):
            raise _AllLeft

    def _fewer(self, number: int, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        index = self._index
        if index is None:
            return args, kwargs

        def take(where: Where, tensor: torch.Tensor) -> torch.Tensor:
            if not self.plan.per_row(where, tensor) or len(tensor) != self.n:
                return tensor
            if where[1] == hidden:  # new at every block, unlike masks, which serve many
                return tensor.index_select(0, index)
            if (
                id(tensor) not in self._taken
            ):  # the tensor is kept too, so that its id stays its own
                self._taken[id(tensor)] = tensor, tensor.index_select(0, index)
            return self._taken[id(tensor)][1]

        hidden = self.plan.model.structure.hidden_place
        made = [_map(value, (number, place, ()), take) for place, value in enumerate(args)]
        named = {name: _map(value, (number, name, ()), take) for name, value in kwargs.items()}
        return tuple(made), named

    def _all_rows(self, number: int, output: Any, index: torch.Tensor) -> Any:
        """`output` with room for all rows again; those that have left hold zeros that nothing reads."""

        def spread(where: Where, tensor: torch.Tensor) -> torch.Tensor:
            if not self.plan.per_row(where, tensor) or len(tensor) != len(index):
                return tensor
            wide = tensor.new_zeros((self.n, *tensor.shape[1:]))
            return wide.index_copy_(0, index, tensor)

        return _map(output, (number, _OUT, ()), spread)


def find_per_row(model: Model) -> dict[Where, bool]:
    """Whether the first axis is the row of the batch, for every argument and result of every block; found by trial.

    Raises `DoesNotApply` where the residual stream itself is none of them.
    """
    import torch

    from probes.models.inputs import plain_ids

    sizes: dict[Where, set[tuple[int, int]]] = {}
    side = next((side for side in model.padding_sides if side in ("right", "left")), None)
    ids = plain_ids(model.hf_model, 7).to(model.device)
    for rows in _TRIALS:
        for padded in (False, True) if side else (False,):
            mask = torch.ones((rows, len(ids)), dtype=torch.long, device=model.device)
            if padded:
                mask[-1, 5:] = 0
                mask = mask.flip(1) if side == "left" else mask

            def record(where: Where, tensor: torch.Tensor, rows: int = rows) -> torch.Tensor:
                found = int(tensor.shape[0]) if tensor.ndim else 0
                sizes.setdefault(where, set()).add((rows, found))
                return tensor

            def block(number: int, forward: Any, args: Any, kwargs: Any) -> Any:
                for place, value in enumerate(args):
                    _map(value, (number, place, ()), record)
                for name, value in kwargs.items():
                    _map(value, (number, name, ()), record)
                return _map(forward(*args, **kwargs), (number, _OUT, ()), record)

            modules = [b.module for b in model.structure.blocks]
            with torch.inference_mode(), _wrapped(modules, block):
                model.structure.base(**model.forward_inputs(ids.expand(rows, -1), mask))
    per_row = {where: {(r, r) for r in _TRIALS} <= seen for where, seen in sizes.items()}
    for number in range(model.n_layers):
        place = model.structure.hidden_place
        results = [apart for where, apart in per_row.items() if where[:2] == (number, _OUT)]
        if (
            not per_row.get((number, place, ())) or not results[0]
        ):  # the first result is the residual stream
            raise DoesNotApply(
                f"block {number} of {model.name} does not keep the rows of a batch apart: none can leave it"
            )
    return per_row


@contextlib.contextmanager
def _wrapped(modules: Sequence[nn.Module], block: Callable[..., Any]) -> Generator[None]:
    """While the context lasts, each module computes `block(number, its own forward, args, kwargs)`."""
    from probes.models.trace import replacing_forward

    with contextlib.ExitStack() as stack:
        for number, module in enumerate(modules):
            forward = module.forward

            def answer(
                *args: Any, number: int = number, forward: Any = forward, **kwargs: Any
            ) -> Any:
                return block(number, forward, args, kwargs)

            stack.enter_context(replacing_forward([module], answer))
        yield


def _map(value: Any, where: Where, change: Callable[[Where, torch.Tensor], torch.Tensor]) -> Any:
    """`value` with every tensor in it changed, containers anew; the same object where it holds none."""
    import torch

    if isinstance(value, torch.Tensor):
        return change(where, value)
    number, argument, path = where
    if isinstance(value, (tuple, list)):
        members = [
            _map(member, (number, argument, (*path, place)), change)
            for place, member in enumerate(cast("tuple[Any, ...]", value))
        ]
        return type(value)(members) if type(value) in (tuple, list) else type(value)(*members)
    if isinstance(value, Mapping):
        named = {
            name: _map(member, (number, argument, (*path, str(name))), change)
            for name, member in cast("Mapping[str, Any]", value).items()
        }
        return named if type(value) is dict else cast("Any", type(value))(**named)
    return value


def _first(output: Any) -> torch.Tensor:
    from probes.models.trace import first_tensor

    found = first_tensor(output)
    assert found is not None
    return found
