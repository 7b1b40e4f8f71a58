"""Forward passes over a batch of pairs: logits at the last token only, sites read with gradients or edited.

Prompts of a batch are padded on the right with a mask of ones: the models are causal, so what stands behind a token
cannot change it, and one mask for all keeps attention on its fast path.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from probes.capture.hooks import edit_site, marked_edited
from probes.capture.sites import Place
from probes.errors import DoesNotApply, NonFiniteError
from probes.heads.circuits.names import POSITIONS
from probes.models.completions import require_language_model
from probes.models.inputs import call_arguments
from probes.models.trace import with_first_tensor

if TYPE_CHECKING:
    from probes.heads.circuits.tasks import Row, Task
    from probes.models import Model

Array = NDArray[np.floating[Any]]
SITES = {"attn": "attn_out", "mlp": "mlp_out", "head": "z"}
BATCH_TOKENS = 1024


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows of a task: `clean` and `corrupted` ids (n, T), `last` (n,) the token before the answer."""

    rows: tuple[Row, ...]
    clean: Tensor
    corrupted: Tensor
    last: Tensor

    @classmethod
    def of(cls, model: Model, rows: Sequence[Row]) -> Batch:
        width = max(len(row.clean) for row in rows)
        sides = [
            torch.tensor(
                [[*ids, *[model.pad_id] * (width - len(ids))] for ids in side], device=model.device
            )
            for side in ([row.clean for row in rows], [row.corrupted for row in rows])
        ]
        last = torch.tensor([len(row.clean) - 1 for row in rows], device=model.device)
        return cls(tuple(rows), sides[0], sides[1], last)

    def mask(self, positions: str) -> Tensor:
        """(n, T): the tokens of a group of `POSITIONS`; padding is in none but "all"."""
        if positions == "all":
            return torch.ones_like(self.clean, dtype=torch.bool)
        place = torch.arange(self.clean.shape[1], device=self.clean.device)[None]
        last = place == self.last[:, None]
        changed = self.clean != self.corrupted
        found = {"last": last, "changed": changed}
        if positions in found:
            return found[positions]
        assert positions in POSITIONS
        return ~last & ~changed & (place < self.last[:, None])

    def difference(self, logits: Tensor) -> Tensor:
        """Mean logit of the answers less that of the wrong ones, (n, …, vocabulary) -> (n, …)."""
        found = [
            own[..., list(row.answers)].mean(-1) - own[..., list(row.wrongs)].mean(-1)
            for own, row in zip(logits, self.rows, strict=True)
        ]
        result = torch.stack(found)
        if not bool(torch.isfinite(result).all()):
            raise NonFiniteError("logits hold NaN or infinity")
        return result


def split(
    model: Model, task: Task, tokens: int = BATCH_TOKENS
) -> list[tuple[tuple[int, ...], Batch]]:
    """The rows of a task in batches, with their numbers."""
    from probes.heads.circuits.tasks import batches

    return [(rows, Batch.of(model, [task.rows[i] for i in rows])) for rows in batches(task, tokens)]


Swap = Callable[[Tensor], Tensor]


def last_logits(model: Model, ids: Tensor, last: Tensor, swap: Swap | None = None) -> Tensor:
    """The model's own logits (n, k, vocabulary) in float32 at the tokens `last` (n,); k is 1.

    What goes into the language-model head is cut to these tokens, so scaling and capping of the logits are done as the
    model does them, at no cost for the others. `swap` puts other final states (n, k, d) in the place of (n, 1, d).
    Gradients flow where the caller has them on.
    """
    head = require_language_model(model)
    rows = torch.arange(len(ids), device=ids.device)

    def only_last(_module: nn.Module, args: tuple[Any, ...]) -> Any:
        states = cast("Tensor", args[0])[rows, last][:, None]
        return with_first_tensor(args, states if swap is None else swap(states))

    handle = head.register_forward_pre_hook(only_last)
    try:
        given = model.forward_inputs(ids, torch.ones_like(ids))
        output = cast("Any", model.hf_model)(**call_arguments(model.hf_model, given))
    finally:
        handle.remove()
    logits = cast("Tensor", output.logits)
    return logits if logits.dtype == torch.float64 else logits.float()


@dataclass(eq=False)
class Reading:
    """One pass with all that was asked for: states by place, and the logit difference (n,)."""

    states: dict[Place, Tensor]
    difference: Tensor


def places_of(model: Model, sites: Iterable[str]) -> list[Place]:
    """All places of `sites`; `DoesNotApply` where the architecture has one of them not everywhere."""
    found: list[Place] = []
    for site in sites:
        blocks = range(model.n_layers + 1 if site == "resid_post" else model.n_layers)
        for number in blocks:
            if site != "resid_post":
                model.structure.module_for(site, number)
            found.append(Place(site, number))
    return found


def differences(model: Model, task: Task) -> tuple[Array, Array]:
    """Logit differences of the clean and of the corrupted prompts, (n,) each."""
    found = np.zeros((2, len(task)))
    for rows, batch in split(model, task):
        for side, ids in enumerate((batch.clean, batch.corrupted)):
            found[side, list(rows)] = numbers(read(model, batch, ids, []).difference)
    return found[0], found[1]


def numbers(found: Tensor) -> Array:
    """A tensor as float64 in numpy, whatever its precision and device."""
    return found.detach().double().cpu().numpy()


def edit_tokens(
    model: Model, place: Place, ids: Tensor, edit: Swap
) -> contextlib.AbstractContextManager[None]:
    """`edit_site` with states (n, T, …) for `ids` (n, T) also where a module works on (n · T, …)."""

    def shaped(states: Tensor) -> Tensor:
        return edit(states.reshape(*ids.shape, *states.shape[2:])).reshape(states.shape)

    return edit_site(model, place.site, place.number, shaped)


def read(
    model: Model, batch: Batch, ids: Tensor, places: Iterable[Place], gradients: bool = False
) -> Reading:
    """States at `places` in a pass over `ids` (n, T), and with `gradients` a graph from them to the difference."""
    states: dict[Place, Tensor] = {}

    def keep(place: Place) -> Swap:
        def look(found: Tensor) -> Tensor:
            if gradients and not found.requires_grad:
                found = found.detach().requires_grad_()
            states[place] = found
            return found.clone()  # some models add to what they get, in place

        return look

    places = list(places)
    if gradients and Place("resid_post", 0) not in places:
        places.append(Place("resid_post", 0))  # the leaf: weights may have no gradients
    with contextlib.ExitStack() as stack:
        for place in places:
            stack.enter_context(edit_tokens(model, place, ids, keep(place)))
        stack.enter_context(torch.enable_grad() if gradients else torch.no_grad())
        difference = batch.difference(last_logits(model, ids, batch.last)[:, 0])
    return Reading(states, difference)


Wrap = Callable[[Tensor], Any]
_WRAPS: tuple[Wrap, ...] = (lambda states: states, lambda states: (states,))


@contextlib.contextmanager
def started_at(model: Model, layer: int, stream: Tensor, wrap: Wrap = _WRAPS[0]) -> Generator[None]:
    """While the context lasts a pass begins at `layer` with the residual stream `stream` (n, T, d).

    Blocks before it are not computed, which saves their time; `late_start` says how, and whether a model allows it.
    """
    structure = model.structure
    skipped = [block.module for block in structure.blocks[:layer]]
    before = [vars(module).get("forward") for module in skipped]

    def passing(*args: Any, **kwargs: Any) -> Any:
        return wrap(structure.read_hidden(args, kwargs))

    try:
        for module in skipped:
            module.forward = passing
        with marked_edited(model), edit_site(model, "resid_post", layer, lambda _: stream):
            yield
    finally:
        for module, forward in zip(skipped, before, strict=True):
            if forward is not None:
                module.forward = forward
            else:
                del module.forward


def late_start(model: Model, batch: Batch, base: Reading) -> Wrap | None:
    """What blocks that are left out return, for passes over the corrupted prompts that begin late; None where these
    would not give the same: blocks hand each other more than the residual stream. The middle layer is tried.
    """
    middle = model.n_layers // 2
    stream = base.states[Place("resid_post", middle)]
    for wrap in _WRAPS:
        try:
            with torch.no_grad(), started_at(model, middle, stream, wrap):
                found = batch.difference(last_logits(model, batch.corrupted, batch.last)[:, 0])
        except Exception:  # whatever the model's code does with what it did not expect
            continue
        if torch.allclose(found, base.difference, rtol=1e-5, atol=1e-5):
            return wrap
    return None


def needs(model: Model, level: str) -> str | None:
    """Why a level of patching has no places in this model; None where it has."""
    if level == "resid":
        return None
    try:
        places_of(model, [SITES[level]])
    except DoesNotApply as reason:
        return str(reason)
    return None
