"""Finding the backbone, its blocks and what comes after them, from one recorded pass.

Blocks are the members of one `ModuleList` that run once each, in order, where each one's output
tensor *is* the next one's input tensor. The tail is the chain of modules that leads from the last
block's output to `last_hidden_state`. Nothing is guessed: what does not fit is refused.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from probes.errors import ModelError
from probes.models.inputs import run_base, takes_pixels
from probes.models.trace import Call, Trace, key, recording


@dataclass(frozen=True)
class Chain:
    """The blocks' calls of one pass, and which argument carries the residual stream."""

    path: str
    calls: tuple[Call, ...]
    hidden_place: int | str


def find_base(model: nn.Module) -> nn.Module:
    """The backbone without head: of an encoder-decoder its encoder, of a multimodal model its text part."""
    anything = cast("Any", model)
    base = cast("nn.Module", anything.base_model)
    if takes_pixels(model):
        return base
    if getattr(anything.config, "is_encoder_decoder", False):
        return cast("nn.Module", anything.get_encoder())
    if anything.config.get_text_config() is not anything.config:
        return cast("nn.Module", anything.get_decoder())
    return base


def record_pass(base: nn.Module, inputs: dict[str, Tensor]) -> tuple[Trace, Tensor]:
    """One recorded pass and its `last_hidden_state`."""
    with recording(base) as trace:
        last = run_base(base, inputs)
    return trace, last


def find_chain(base: nn.Module, trace: Trace) -> Chain:
    """The longest outermost chain of blocks; otherwise an error that lists every list looked at."""
    chains: list[Chain] = []
    looked: list[str] = []
    for path, module in base.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) == 0:
            continue
        if any(path.startswith(chain.path + ".") for chain in chains):
            continue  # parts of a block already found
        found = _chain_of(path, module, trace)
        if isinstance(found, Chain):
            chains.append(found)
        else:
            looked.append(f"{path} ({found})")
    if not chains:
        listed = "; ".join(looked[:6]) or "the model has no ModuleList"
        raise ModelError(
            f"the blocks of {type(base).__name__} were not found: looked for a ModuleList whose "
            "members run once each, in order, each taking the output tensor of the one before. "
            f"Seen: {listed}"
        )
    best = max(chains, key=lambda chain: len(chain.calls))
    _check_width(base, best)
    return best


def _chain_of(path: str, members: nn.ModuleList, trace: Trace) -> Chain | str:
    """The chain made by this list, or why it is none."""
    calls: list[Call] = []
    for index, member in enumerate(members):
        runs = trace.of(member)
        if not runs:
            return f"member {index} of {len(members)} does not run"
        if len(runs) > 1:
            return f"member {index} runs {len(runs)} times in one pass: shared layers are not supported"
        calls.append(runs[0])
    places: set[int | str] = set()
    for index, (before, after) in enumerate(itertools.pairwise(calls)):
        place = _place_of(before.output, after)
        if place is None:
            return f"member {index + 1} does not take the output of member {index}"
        places.add(place)
    if len(places) > 1:
        return f"the residual stream comes in different arguments: {sorted(map(str, places))}"
    place = places.pop() if places else _place_of(calls[0].input, calls[0])
    if place is None:
        return "no tensor goes in"
    return Chain(path, tuple(calls), place)


def _place_of(tensor: Tensor | None, call: Call) -> int | str | None:
    if tensor is None:
        return None
    wanted = key(tensor)
    everything: list[tuple[int | str, Any]] = [*enumerate(call.args), *call.kwargs.items()]
    for place, value in everything:
        if isinstance(value, Tensor) and key(value) == wanted:
            return place
    return None


def hidden_of(call: Call, place: int | str) -> Tensor:
    """The residual stream that went into a block call."""
    value = call.args[place] if isinstance(place, int) else call.kwargs[place]
    return cast("Tensor", value)


def _check_width(base: nn.Module, chain: Chain) -> None:
    shapes: set[tuple[int, ...]] = set()
    for call in chain.calls:
        assert call.output is not None
        shapes |= {tuple(call.output.shape), tuple(hidden_of(call, chain.hidden_place).shape)}
    if len(shapes) > 1 or len(next(iter(shapes))) != 3:
        raise ModelError(
            f"the blocks {chain.path} of {type(base).__name__} have states of shapes {sorted(shapes)}: "
            "one shape (batch, token, d) at every layer is needed"
        )


def find_tail(base: nn.Module, trace: Trace, chain: Chain, last: Tensor) -> tuple[nn.Module, ...]:
    """The modules from the last block's output to `last_hidden_state`, checked by running them."""
    final = chain.calls[-1]
    assert final.output is not None
    later = [call for call in trace.calls if call.start > final.end]
    tail = _lead(final.output, last, later)
    if tail is None:
        seen = [call.path for call in later if call.holds(final.output)]
        raise ModelError(
            f"what follows the last block of {type(base).__name__} was not understood: looked for a chain of "
            f"modules from the output of {final.path} to last_hidden_state. "
            f"Modules that take it: {', '.join(seen) or 'none'}"
        )
    hidden = final.output
    with torch.no_grad():
        for module in tail:
            hidden = module(hidden)
    if not _same_values(hidden, last):
        raise ModelError(
            f"the modules after the last block of {type(base).__name__} do not reproduce last_hidden_state"
        )
    return tail


def _lead(state: Tensor, goal: Tensor, later: list[Call]) -> tuple[nn.Module, ...] | None:
    """Depth-first: the first chain of calls, outermost modules first, from `state` to `goal`."""
    if key(state) == key(goal) or _same_values(state, goal):
        return ()
    for index, call in enumerate(later):
        if call.input is None or call.output is None or key(call.input) != key(state):
            continue
        if key(call.output) == key(state):
            continue  # dropout of a model in eval mode hands its input on
        rest = _lead(call.output, goal, [c for c in later[index + 1 :] if c.start > call.end])
        if rest is not None:
            return (call.module, *rest)
    return None


def _same_values(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    scale = float(b.abs().max()) or 1.0
    tolerance = 16 * torch.finfo(b.dtype).eps
    return float((a.float() - b.float()).abs().max()) <= tolerance * scale
