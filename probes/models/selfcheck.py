"""The check at load: what was found must reproduce the model's own numbers and have an effect on them."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor, nn

from probes.errors import ModelError
from probes.models.inputs import accepts, call_arguments, pad_id, plain_ids, run_base
from probes.models.structure import BLOCK_SITES, READ_AT_INPUT, Structure
from probes.models.trace import first_tensor, with_first_tensor

_PADDED = 3


def tolerance(dtype: torch.dtype) -> float:
    """Largest relative difference that counts as equal: 1e-5 in float32, a few roundings in half."""
    return 1e-5 if dtype in (torch.float32, torch.float64) else 8 * torch.finfo(dtype).eps


def relative_difference(a: Tensor, b: Tensor) -> float:
    """max |a − b| / max |b|, in float32; infinite for different shapes or non-finite values."""
    if a.shape != b.shape:
        return float("inf")
    a, b = a.detach().float(), b.detach().float()
    value = float((a - b).abs().max().item()) / max(float(b.abs().max().item()), 1e-30)
    return value if value == value else float("inf")


@contextlib.contextmanager
def collecting_layers(structure: Structure) -> Generator[list[Tensor]]:
    """Collect the residual stream at layers 0…L of one pass of the base."""
    states: list[Tensor] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states.append(structure.read_hidden(args, kwargs).clone())

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        state = first_tensor(output)
        assert state is not None
        states.append(state.clone())

    handles: list[Any] = []
    try:
        blocks = structure.blocks
        handles.append(blocks[0].module.register_forward_pre_hook(enter, with_kwargs=True))
        handles += [block.module.register_forward_hook(leave) for block in blocks]
        yield states
    finally:
        for handle in handles:
            handle.remove()


def check_layers(structure: Structure, inputs: dict[str, Tensor], name: str) -> None:
    """Layers 0…L equal the model's own `hidden_states` (the last one after the final norm)."""
    base = structure.base
    with torch.no_grad(), collecting_layers(structure) as states:
        output = base(**call_arguments(base, {**inputs, "output_hidden_states": True}))
        own: tuple[Tensor, ...] | None = getattr(output, "hidden_states", None)
        exits = structure.apply_tail(states[-1])
    if own is None:
        return  # the model does not offer them: the chain itself was already checked by identity
    if len(own) != structure.n_layers + 1:
        raise ModelError(
            f"{name}: {structure.n_layers} blocks were found, but the model returns {len(own)} hidden states"
        )
    ours = [*states[1:], exits] if _starts_after_block_0(states, own) else states
    allowed = tolerance(states[0].dtype)
    for layer, (found, theirs) in enumerate(zip(ours, own, strict=True)):
        difference = relative_difference(found, theirs)
        if (
            layer == structure.n_layers
        ):  # most models return this one after the final norm, some before
            difference = min(difference, relative_difference(exits, theirs))
        if not difference <= allowed:
            raise ModelError(
                f"{name}: layer {layer} differs from the model's own hidden state by {difference:.1e} "
                f"(allowed {allowed:.0e}): this architecture is not understood"
            )


def _starts_after_block_0(states: list[Tensor], own: tuple[Tensor, ...]) -> bool:
    """Mamba leaves the embeddings out of its hidden states and ends with both: block L, final norm."""
    first = relative_difference(states[0], own[0])
    return first > relative_difference(states[1], own[0])


Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def check_sites(structure: Structure, inputs: dict[str, Tensor], name: str) -> None:
    """Editing each resolved site changes what its block gives, and editing a layer what the model returns.

    A site is tried on its block alone: that blocks hand their output on is what made them blocks, and
    whole passes for every site would take seconds for a model of thirty blocks.
    """
    before, arguments = _block_arguments(structure, inputs)
    for block, (args, kwargs) in zip(structure.blocks, arguments, strict=True):
        with torch.no_grad():
            plain = first_tensor(block.module(*args, **kwargs))
            assert plain is not None
            for site in (site for site in BLOCK_SITES if site not in block.missing):
                size, module = float(plain.abs().mean()), structure.module_for(site, block.index)
                with editing(module, size, on_input=site in READ_AT_INPUT):
                    edited = first_tensor(block.module(*args, **kwargs))
                assert edited is not None
                if not _differ(edited, plain):
                    raise ModelError(
                        f"{name}: editing {site} of block {block.index} changes nothing"
                    )
    for index in sorted({0, structure.n_layers - 1}):
        with editing(structure.blocks[index].module, 1.0):
            after = run_base(structure.base, inputs)
        if not _differ(after, before):
            raise ModelError(f"{name}: editing layer {index + 1} changes nothing")


def _block_arguments(
    structure: Structure, inputs: dict[str, Tensor]
) -> tuple[Tensor, list[Arguments]]:
    """`last_hidden_state` of a pass, and what each block was called with (states copied)."""
    seen: list[Arguments] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        state = structure.read_hidden(args, kwargs).clone()  # some blocks add in place
        seen.append(structure.replace_hidden(args, kwargs, state))

    handles = [
        b.module.register_forward_pre_hook(enter, with_kwargs=True) for b in structure.blocks
    ]
    try:
        return run_base(structure.base, inputs), seen
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def editing(module: nn.Module, size: float, on_input: bool = False) -> Generator[None]:
    """Add a ramp over the coordinates to what a module gives (or gets); a constant a norm would remove.

    The ramp is as large as the value itself plus `size`, so that half precision does not round it away.
    """

    def edit(value: Tensor) -> Tensor:
        ramp = torch.linspace(-1.0, 1.0, value.shape[-1], device=value.device, dtype=value.dtype)
        return value + (size + value.abs().mean()) * ramp

    def enter(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (edit(args[0]), *args[1:])

    def leave(module: nn.Module, args: Any, output: Any) -> Any:
        value = first_tensor(output)
        assert value is not None
        return with_first_tensor(output, edit(value))

    handle = (
        module.register_forward_pre_hook(enter) if on_input else module.register_forward_hook(leave)
    )
    try:
        yield
    finally:
        handle.remove()


def _differ(a: Tensor, b: Tensor) -> bool:
    """Whether a tenth of the numbers changed; a few outliers a thousand times larger must not hide that."""
    return float((a != b).float().mean()) > 0.1


def find_padding(base: nn.Module, model: nn.Module, tokenizer: Any) -> tuple[tuple[str, ...], bool]:
    """On which sides padding does not matter, and whether positions must be passed for that.

    Some models count positions from the mask or the pad token themselves, others need
    `position_ids`; which is which is tried out on one short text.
    """
    ids = plain_ids(model, 5).to(next(model.parameters()).device)
    mask = torch.ones_like(ids)
    alone = run_base(base, {"input_ids": ids[None], "attention_mask": mask[None]})[0]
    filler = ids.new_full((_PADDED,), pad_id(tokenizer, model))
    padded = torch.stack([torch.cat([ids, filler]), torch.cat([filler, ids])])
    masked = torch.stack([torch.cat([mask, 0 * filler]), torch.cat([0 * filler, mask])])
    best: tuple[tuple[str, ...], bool] = ((), False)
    for explicit in (False, True):
        if explicit and (len(best[0]) == 2 or not accepts(base, "position_ids")):
            break
        given = {"input_ids": padded, "attention_mask": masked}
        if explicit:
            given["position_ids"] = (masked.cumsum(-1) - 1).clamp(min=0)
        states = run_base(base, given)
        real = {"right": states[0, : len(ids)], "left": states[1, _PADDED:]}
        sides = tuple(
            side
            for side, state in real.items()
            if relative_difference(state, alone) <= tolerance(alone.dtype)
        )
        if len(sides) > len(best[0]):
            best = (sides, explicit)
    return best
