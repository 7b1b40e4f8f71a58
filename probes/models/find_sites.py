"""Finding attention and MLP inside a block, by running the block once on two nearly equal rows.

The second row differs from the first in one token only. The first projection whose *input* differs at
the other tokens comes after attention mixed them: it is the output projection, and its input is z.
What is added to the residual stream is then looked for among module outputs and accepted only if the
sums come out:

* additive blocks: out = x + attn_out + mlp_out (serial and parallel alike);
* post-norm blocks: y = norm₁(x + attn_out), out = norm₂(y + mlp_out).

The neurons (`mlp_act`) are the input of the one projection that ends the MLP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from probes.models.find_blocks import Chain
from probes.models.replay_block import Replay, replay_block
from probes.models.structure import BLOCK_SITES, Block, Heads
from probes.models.trace import Call, key


def find_sites(chain: Chain, index: int, config: Any) -> Block:
    """Block `index` with its sites; a site that cannot be verified has no module, but a reason."""
    call = chain.calls[index]
    heads_wanted = _configured(config, "num_attention_heads", index)
    block = Block(index, call.path, call.module)
    if heads_wanted is None:
        why = "the model has no attention heads (its configuration names none, as in state-space models)"
        return _without(block, why)
    try:
        replay = replay_block(call, chain.hidden_place)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever an unknown block may raise, its layers can still be used
        return _without(
            block, f"the block does not run by itself ({type(error).__name__}: {error})"
        )
    projection = _output_projection(replay)
    if projection is None:
        return _without(
            block,
            "no attention found: looked for a projection whose input mixes the tokens",
        )
    missing: dict[str, str] = {}
    heads = _find_heads(replay, projection, heads_wanted, config, index)
    if heads is None:
        assert projection.input is not None
        missing["z"] = (
            f"{projection.path}, the first projection after tokens are mixed, takes "
            f"{projection.input.shape[-1]} coordinates, which are no {heads_wanted} heads of an attention"
        )
    attn, mlp = _added(replay, projection)
    if attn is None or mlp is None:
        why = (
            "no module outputs were found that add up to what the block does "
            "(looked for x + attn_out + mlp_out, and for a norm after each sum)"
        )
        missing |= {"attn_out": why, "mlp_out": why}
    down = _down_projection(replay, projection, mlp)
    if down is None:
        missing["mlp_act"] = (
            "its MLP ends in no single projection onto the residual stream, as in a mixture of experts"
        )
    other = _other_mixer(config, index)
    if other is not None:
        heads, attn = None, None
        missing |= dict.fromkeys(
            ("z", "attn_out"), f"this block is a {other!r} layer, not attention"
        )
    calls = {"attn_out": attn, "mlp_out": mlp, "mlp_act": down, "z": projection if heads else None}
    modules = {site: call.module for site, call in calls.items() if call is not None}
    return Block(index, call.path, call.module, modules, heads, missing)


def _other_mixer(config: Any, index: int) -> str | None:
    """What mixes tokens in this block of a hybrid model, if not softmax attention with the model's heads.

    A convolution or a linear recurrence also ends in a projection of mixed tokens; that its input has no
    heads cannot be seen from outside, so here the configuration is believed.
    """
    for name in ("layer_types", "layers_block_type"):
        kinds = getattr(config, name, None)
        if isinstance(kinds, (list, tuple)) and index < len(cast("Sequence[Any]", kinds)):
            kind = str(cast("Sequence[Any]", kinds)[index])
            return None if "attention" in kind and "linear" not in kind else kind
    return None


def _without(block: Block, why: str) -> Block:
    missing = dict.fromkeys(BLOCK_SITES, why)
    return Block(block.index, block.path, block.module, missing=missing)


def _configured(config: Any, name: str, index: int) -> int | None:
    """A number from the configuration, which may be one per block."""
    value = getattr(config, name, None)
    if isinstance(value, (list, tuple)):
        value = cast("Sequence[Any]", value)[index]
    return int(value) if isinstance(value, int) and value > 0 else None


def is_projection(call: Call) -> bool:
    """A leaf with a 2-D weight applied to the last axis: `Linear`, GPT-2's `Conv1D`, low-bit variants."""
    weight = getattr(call.module, "weight", None)
    if (
        not isinstance(weight, Tensor)
        or weight.ndim != 2
        or call.input is None
        or call.output is None
    ):
        return False
    return call.input.is_floating_point() and call.input.shape[:-1] == call.output.shape[:-1]


def _output_projection(replay: Replay) -> Call | None:
    for call in replay.calls:
        if not is_projection(call):
            continue
        given = replay.per_token(call.given)
        if given is None or given.shape[1] < 2:
            continue
        change = (given[1, 1:] - given[0, 1:]).abs().amax()
        if float(change) > 1e-5 * float(given.abs().amax()):
            return call
    return None


def _find_heads(replay: Replay, projection: Call, n: int, config: Any, index: int) -> Heads | None:
    assert projection.input is not None
    wide = projection.input.shape[-1]
    assert projection.output is not None
    if wide % n or projection.output.shape[-1] != replay.x.shape[-1]:
        return None
    width = wide // n
    # Query, key and value projections together are (n + 2·n_kv)·width wide, fused or not.
    before = {
        call.path: call.output.shape[-1]
        for call in replay.calls
        if call.end < projection.start
        and is_projection(call)
        and call.output is not None
        and replay.per_token(call.input) is not None
    }
    spare, rest = divmod(sum(before.values()) - n * width, 2 * width)
    if rest == 0 and 1 <= spare <= n and n % spare == 0:
        return Heads(n, spare, width)
    return Heads(n, _configured(config, "num_key_value_heads", index) or n, width)


def _added(replay: Replay, projection: Call) -> tuple[Call | None, Call | None]:
    """The calls whose outputs attention and MLP add to the residual stream, verified by the sums."""
    for attn in _followers(replay, projection):
        a = replay.per_token(attn.result)
        if a is None or a.shape != replay.x.shape:
            continue
        middle = replay.x + a
        mlp = _with_output(replay, replay.out - middle, (attn, projection))
        if mlp is None:
            mlp = _after_norms(replay, middle, attn)
        if mlp is not None:
            return attn, mlp
    return None, None


def _down_projection(replay: Replay, projection: Call, mlp: Call | None) -> Call | None:
    """The one projection whose output is what the MLP gives (before a norm of its own, in blocks that have one).

    Where nothing adds up (scaled additions): the only one onto the residual stream after attention's, if it is last.
    """
    later = [c for c in replay.calls if is_projection(c) and c.module is not projection.module]
    onto = [c for c in later if c.result is not None and c.result.shape[-1] == replay.x.shape[-1]]
    if mlp is None:
        after, last = ([c for c in some if c.start > projection.end] for some in (later, onto))
        return last[0] if len(last) == 1 and last[0] is after[-1] else None
    if mlp in onto:
        return mlp
    ends = [t for t in map(replay.per_token, (mlp.result, mlp.given)) if t is not None]
    found = [
        c
        for c in onto
        if (own := replay.per_token(c.result)) is not None
        and any(own.shape == t.shape and replay.equal(own, t) for t in ends)
    ]
    return found[0] if len(found) == 1 else None


def _followers(replay: Replay, projection: Call) -> list[Call]:
    """The output projection and modules that take exactly its output (a norm after attention)."""
    assert projection.output is not None
    known = {key(projection.output)}
    found = [projection]
    for call in replay.calls:
        if call.start < projection.end or call.input is None or call.output is None:
            continue
        if key(call.input) in known and key(call.output) not in known:
            known.add(key(call.output))
            found.append(call)
    return found


def _after_norms(replay: Replay, middle: Tensor, attn: Call) -> Call | None:
    """Post-norm blocks: y = norm₁(x + a), out = norm₂(y + m); gives the call that outputs m."""
    for first in replay.calls:
        given, y = replay.per_token(first.given), replay.per_token(first.result)
        if given is None or y is None or y.shape != middle.shape or given.shape != middle.shape:
            continue
        if not replay.equal(given, middle):
            continue
        for second in replay.calls:
            total, out = replay.per_token(second.given), replay.per_token(second.result)
            if total is None or out is None or out.shape != y.shape or total.shape != y.shape:
                continue
            if second.start > first.end and replay.equal(out, replay.out):
                mlp = _with_output(replay, total - y, (attn, first, second))
                if mlp is not None:
                    return mlp
    return None


def _with_output(replay: Replay, target: Tensor, taken: tuple[Call, ...]) -> Call | None:
    """The first call to end, with weights of its own, whose output is `target` (2, token, d).

    One with that very shape is preferred to one that works on (2·token, d), as OPT's second layer does.
    """
    found: list[Call] = []
    for call in sorted(replay.calls, key=lambda c: c.end):
        value = replay.per_token(call.result)
        if value is None or value.shape != target.shape or not _has_weights(call.module):
            continue
        if any(call is other for other in taken):
            continue
        if replay.equal(value, target):
            found.append(call)
    whole = [call for call in found if call.result is not None and call.result.ndim == 3]
    return next(iter(whole or found), None)


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
