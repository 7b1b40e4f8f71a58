"""The weights of every attention head, found in a live pass and verified against what the attention really got.

A fused projection may lay queries, keys and values out in several ways. Each way that its width allows is tried: the
one taken reproduces z = pattern @ values at every token, and the queries and keys of token 0, where a rotary position
embedding does nothing. What no layout reproduces is missing, with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from probes.errors import DoesNotApply
from probes.heads.weights.operands import Operands, watch_operands
from probes.models import Model
from probes.models.find_sites import is_projection
from probes.models.inputs import call_arguments, trial_inputs
from probes.models.selfcheck import relative_difference, tolerance
from probes.models.structure import Block, Heads
from probes.models.trace import Call, recording

_PARTS = ("Q", "K", "V", "O")


@dataclass(frozen=True)
class HeadWeights:
    """The weights of the heads of one block, float32; keys and values of grouped heads are repeated.

    `matrices` and `biases` go by "Q", "K", "V", "O": Q, K and V are (head, d_model, d_head) and (head, d_head), O is
    (head, d_head, d_model) and (d_model,). A part that could not be verified is in `missing`, with the reason.
    `notes` say what stands between the weights and what they are multiplied with (a norm, a rotation).
    """

    block: int
    heads: Heads
    matrices: Mapping[str, Tensor]
    biases: Mapping[str, Tensor]
    missing: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()

    def matrix(self, part: str) -> Tensor:
        """The matrices of one part; `DoesNotApply` with the reason where it could not be verified."""
        if part not in self.matrices:
            raise DoesNotApply(
                f"weights {part} of block {self.block}: {self.missing.get(part, 'unknown part')}"
            )
        return self.matrices[part]

    @property
    def W_Q(self) -> Tensor:  # noqa: N802
        return self.matrix("Q")

    @property
    def W_K(self) -> Tensor:  # noqa: N802
        return self.matrix("K")

    @property
    def W_V(self) -> Tensor:  # noqa: N802
        return self.matrix("V")

    @property
    def W_O(self) -> Tensor:  # noqa: N802
        return self.matrix("O")


@dataclass(frozen=True)
class _Candidate:
    """Some columns (head, d_head) of a projection's output; `seen` is what the model goes on with."""

    call: Call
    columns: Tensor
    seen: Tensor  # (batch, token, head, d_head)
    norm: Call | None = None


def head_weights(model: Model, block: int) -> HeadWeights:
    """The query, key, value and output weights of the heads of `block`, verified in a pass over a few tokens.

    Found by structure, whatever the names: separate projections, fused ones (concatenated as in GPT-2 and Phi-3, or
    interleaved by head as in GPT-NeoX and Falcon), grouped queries. Weights are the model's own: no norm is folded in.

    Raises `DoesNotApply` where the block has no attention heads; a part that cannot be verified raises it, with the
    reason, when it is asked for.

    >>> def ov_norms(model, block):  # Frobenius norm of each head's OV circuit
    ...     weights = head_weights(model, block)
    ...     return (weights.W_V @ weights.W_O).flatten(1).norm(dim=1)
    """
    model.structure.module_for("z", block)
    return next(w for w in all_head_weights(model) if w.block == block)


def all_head_weights(model: Model) -> list[HeadWeights]:
    """`head_weights` of every block that has heads, from one pass; `DoesNotApply` where no block has any."""
    blocks = [b for b in model.structure.blocks if b.o_proj is not None and b.heads is not None]
    if not blocks:
        raise DoesNotApply(
            f"weights of heads of {model.name}: {model.structure.why_missing('z', 0)}"
        )
    base = model.structure.base
    inputs = trial_inputs(model.hf_model)
    inputs = {
        # rows that differ, or an embedding could be mistaken for a constant
        name: torch.stack([t[0], t[1].flip(-1)]) if name != "attention_mask" else t
        for name, t in inputs.items()
    }
    with (
        torch.no_grad(),
        watch_operands(model, [b.index for b in blocks]) as operands,
        recording(base) as trace,
    ):
        base(**call_arguments(base, inputs))
    found: list[HeadWeights] = []
    for block in blocks:
        (whole,) = trace.of(block.module)
        inside = [c for c in trace.calls if whole.start < c.start and c.end < whole.end]
        found.append(_find(block, inside, operands[block.index]))
    return found


def _find(block: Block, calls: list[Call], seen: Operands) -> HeadWeights:
    heads = block.heads
    assert heads is not None
    output = next(c for c in calls if c.module is block.o_proj)
    assert output.given is not None
    allowed = 10 * tolerance(output.given.dtype)
    before = [c for c in calls if c.end < output.start]
    candidates = list(_candidates(before, heads, len(seen.pattern), allowed))
    matrices: dict[str, Tensor] = {}
    biases: dict[str, Tensor] = {}
    missing: dict[str, str] = {}
    notes: list[str] = []
    for part, fits in _tests(output, heads, seen, allowed).items():
        chosen = next((c for c in candidates if fits(c, False)), None)
        chosen = chosen or next((c for c in candidates if fits(c, True)), None)
        if chosen is None:
            missing[part] = _WHY[part]
            continue
        matrices[part], biases[part] = _columns(chosen, heads)
        if chosen.norm is not None:
            notes.append(f"{part}: a {type(chosen.norm.module).__name__} follows the projection")
    if _is_linear(output, allowed):
        matrix, biases["O"] = _matrix(output.module)
        matrices["O"] = matrix.reshape(heads.n, heads.width, -1)
    else:
        missing["O"] = "the output projection does more than multiply with its weight"
    if block.attn_out is not None and block.attn_out is not block.o_proj:
        notes.append(f"O: a {type(block.attn_out).__name__} follows the projection")
    return HeadWeights(block.index, heads, matrices, biases, missing, tuple(notes))


_WHY = {
    "V": "no projection of the block reproduces z as pattern times values",
    "Q": "no projection of the block reproduces the queries that attention gets",
    "K": "no projection of the block reproduces the keys that attention gets",
}


def _tests(
    output: Call, heads: Heads, seen: Operands, allowed: float
) -> dict[str, Callable[[_Candidate, bool], bool]]:
    """Whether a candidate is that part: asked about all tokens (False), or the first alone (True)."""
    given = output.given
    assert given is not None
    z = given.reshape(len(seen.pattern), -1, heads.n, heads.width).float()

    def values(c: _Candidate, first: bool) -> bool:
        v = c.seen.float().repeat_interleave(heads.n // c.seen.shape[2], 2)
        return relative_difference(torch.einsum("bhqk,bkhd->bqhd", seen.pattern, v), z) <= allowed

    def same(c: _Candidate, operand: Tensor | None, first: bool) -> bool:
        if operand is None:
            return False
        ours, theirs = c.seen.float(), operand.transpose(1, 2).float()
        if ours.shape[2] < theirs.shape[2]:
            ours = ours.repeat_interleave(theirs.shape[2] // ours.shape[2], 2)
        if ours.shape != theirs.shape:
            return False
        if first:
            ours, theirs = ours[:, 0], theirs[:, 0]
        # models scale queries, keys, or neither, before the product: one factor for all heads
        square = float((ours * ours).sum())
        factor = float((ours * theirs).sum()) / square if square else 1.0
        return factor > 0 and relative_difference(factor * ours, theirs) <= allowed

    return {
        "V": values,
        "Q": lambda c, first: same(c, seen.query, first),
        "K": lambda c, first: same(c, seen.key, first),
    }


def _candidates(
    calls: list[Call], heads: Heads, batch: int, allowed: float
) -> Iterator[_Candidate]:
    """Every way to read heads from a projection before the output projection, and from a norm of it."""
    for call in calls:
        if not is_projection(call) or call.result is None or not _is_linear(call, allowed):
            continue
        assert call.output is not None
        norms = [
            c
            for c in calls
            if call.end < c.start
            and c.input is not None
            and c.result is not None
            and c.input.data_ptr() == call.output.data_ptr()
            and c.input.numel() == call.output.numel() == c.result.numel()
            and not is_projection(c)
        ]
        wide = call.result.shape[-1]
        for columns in _layouts(wide, heads):
            yield _Candidate(call, columns, call.result.reshape(batch, -1, wide)[:, :, columns])
            for norm in norms:
                for result in _orders(norm.result, len(columns)):
                    flat = result.reshape(batch, -1, wide)
                    yield _Candidate(call, columns, flat[:, :, columns], norm)


def _orders(result: Tensor | None, heads: int) -> Iterator[Tensor]:
    """A norm's output with heads behind tokens, whichever way the norm saw them."""
    assert result is not None
    yield result
    if result.ndim == 4 and result.shape[1] == heads:
        yield result.transpose(1, 2)


def _layouts(wide: int, heads: Heads) -> Iterator[Tensor]:
    """Column numbers (head, d_head) of one part in an output of `wide` columns."""
    n, kv, d = heads.n, heads.n_kv, heads.width
    every = torch.arange(wide)
    if wide == n * d or wide == kv * d:
        yield every.reshape(-1, d)
    if wide == 2 * kv * d:
        yield from every.reshape(2, kv, d)
        yield from every.reshape(kv, 2, d).unbind(1)
    if wide == (n + 2 * kv) * d:
        yield from (part.reshape(-1, d) for part in every.split([n * d, kv * d, kv * d]))
        by_group = every.reshape(kv, n // kv + 2, d)
        yield by_group[:, :-2].reshape(n, d)
        yield by_group[:, -2]
        yield by_group[:, -1]


def _matrix(module: nn.Module) -> tuple[Tensor, Tensor]:
    """The weight (in, out) and bias (out,) of a linear map, float32; a missing bias is zeros."""
    from transformers.pytorch_utils import Conv1D

    anything: Any = module
    weight = anything.weight.detach().float()
    weight = weight if isinstance(module, Conv1D) else weight.T
    bias = getattr(module, "bias", None)
    return weight, torch.zeros_like(weight[0]) if bias is None else bias.detach().float()


def _is_linear(call: Call, allowed: float) -> bool:
    """Whether the call is the product with the module's weight: low-bit kernels and adapters do something else."""
    matrix, bias = _matrix(call.module)
    assert call.given is not None
    assert call.result is not None
    if matrix.shape[0] != call.given.shape[-1]:
        return False
    return relative_difference(call.given.float() @ matrix + bias, call.result) <= allowed


def _columns(candidate: _Candidate, heads: Heads) -> tuple[Tensor, Tensor]:
    """The matrices (head, d_model, d_head) and biases (head, d_head), grouped ones repeated."""
    matrix, bias = _matrix(candidate.call.module)
    repeats = heads.n // len(candidate.columns)
    columns = candidate.columns.to(matrix.device)
    parts = matrix[:, columns].permute(1, 0, 2), bias[columns]
    return parts[0].repeat_interleave(repeats, 0), parts[1].repeat_interleave(repeats, 0)
