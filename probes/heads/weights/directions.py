"""The few directions that a head's circuits need most, as small maps on its queries or its outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from probes.capture.attention import attention_calls
from probes.capture.attention_call import AttentionCall, FusedCall
from probes.capture.hooks import run_backbone
from probes.errors import DoesNotApply, InputError, unknown_name
from probes.heads.ablation import HeadId
from probes.heads.ablation.ranking import check_heads
from probes.heads.weights.factored import CIRCUITS, Circuit, circuit
from probes.heads.weights.find import all_head_weights
from probes.models import Model

TokenRows = Sequence[Sequence[int]]


@dataclass(frozen=True)
class HeadMap:
    """`into` (d_head, d_head) @ `out` (d_head, d_head) is the identity where nothing is lost; its first r columns and
    rows keep r directions. `offset` (d_head,) is left out of the map."""

    into: Tensor
    out: Tensor
    offset: Tensor

    def keep(self, rank: int) -> Tensor:
        """The map (d_head, d_head) that keeps the leading `rank` directions."""
        if rank >= len(self.into):
            return torch.eye(len(self.into), dtype=self.into.dtype, device=self.into.device)
        return self.into[:, :rank] @ self.out[:rank]


@dataclass(frozen=True)
class Directions:
    """The leading directions of one circuit of some heads, all on float64."""

    circuit: Circuit
    maps: Mapping[HeadId, HeadMap]

    @property
    def width(self) -> int:
        """d_head."""
        return len(next(iter(self.maps.values())).offset)


def leading_directions(
    model: Model,
    heads: Iterable[HeadId],
    name: Circuit,
    calibration: TokenRows | None = None,
) -> Directions:
    """The directions of `heads` in the order in which their circuit needs them.

    "OV": the right singular directions of W_V W_O, from weights alone. "QK": those of the attention logits between all
    queries and keys of the `calibration` rows of token ids, after whatever the model does to them (a rotary position
    embedding, a norm), with the mean key taken out, which no softmax sees. Each r of them give the best logits of rank
    r on those tokens in squares.

    Raises `DoesNotApply` where weights could not be verified or attention is eager, so that queries are out of sight
    (load the model with attn_implementation="sdpa"); `InputError` for heads that do not exist and for "QK" without
    calibration.
    """
    if name not in CIRCUITS:
        raise unknown_name("circuit", name, CIRCUITS)
    chosen = check_heads(model, heads)
    if not chosen:
        raise InputError("no head was asked for: name at least one")
    return Directions(
        name, _written(model, chosen) if name == "OV" else _asked(model, chosen, calibration)
    )


def _written(model: Model, chosen: Mapping[int, list[int]]) -> dict[HeadId, HeadMap]:
    found: dict[HeadId, HeadMap] = {}
    for weights in all_head_weights(model):
        if weights.block not in chosen:
            continue
        right = circuit(weights, "OV").right  # (head, d, d_head)
        output = weights.W_O.double()
        inverse = torch.linalg.pinv(output)  # (head, d, d_head)
        for head in chosen[weights.block]:
            # z' W_O = z W_O V Vᵀ; what attention adds whatever it attends to, the bias, stays
            found[weights.block, head] = HeadMap(
                output[head] @ right[head],
                right[head].T @ inverse[head],
                weights.biases["V"][head].double(),
            )
    return found


def _asked(
    model: Model, chosen: Mapping[int, list[int]], rows: TokenRows | None
) -> dict[HeadId, HeadMap]:
    if not rows or not all(len(row) for row in rows):
        raise InputError(
            "directions of QK are measured on tokens: give calibration=, rows of token ids, each with one at least"
        )
    moments: dict[int, list[Tensor]] = {}

    def look(call: AttentionCall) -> None:
        query, key = _seen(call)
        n = torch.tensor(key.shape[0] * key.shape[2], dtype=torch.float64)
        now = [_gram(query), _gram(key), key.double().sum((0, 2)), n]
        before = moments.get(call.block)
        moments[call.block] = (
            now if before is None else [a + b for a, b in zip(before, now, strict=True)]
        )

    with torch.no_grad(), attention_calls(model, look, chosen):
        for row in rows:
            ids = torch.as_tensor(np.asarray(row, np.int64)[None], device=model.device)
            run_backbone(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    found: dict[HeadId, HeadMap] = {}
    for block, (queries, keys, sums, n) in moments.items():
        group = len(queries) // len(keys)
        centred = keys - sums[:, :, None] * sums[:, None] / n
        for head in chosen[block]:
            found[block, head] = _best(queries[head], centred[head // group])
    return found


def _seen(call: AttentionCall) -> tuple[Tensor, Tensor]:
    if not isinstance(call, FusedCall):
        raise DoesNotApply(
            f"queries of block {call.block} are out of sight, its attention is eager: "
            'load the model with attn_implementation="sdpa"'
        )
    return call.query, call.key


def _gram(states: Tensor) -> Tensor:
    """Σ over tokens of s sᵀ, (head, d_head, d_head), for states (batch, head, token, d_head)."""
    wide = states.double()
    return torch.einsum("bhtd,bhte->hde", wide, wide)


def _best(queries: Tensor, keys: Tensor) -> HeadMap:
    """From the second moments of queries and keys: the best logits of rank r, by a map of the queries alone."""
    root, inverse = _roots(queries)
    u = torch.linalg.svd(root @ _roots(keys)[0]).U
    return HeadMap(inverse @ u, u.T @ root, torch.zeros_like(queries[0]))


def _roots(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The square root of a moment matrix and its pseudo-inverse."""
    values, vectors = torch.linalg.eigh(gram)
    kept = values > 1e-12 * values.max()
    sizes = values.clamp(min=0).sqrt()
    inverses = torch.where(kept, 1 / sizes.clamp(min=1e-300), 0.0)
    return (vectors * sizes) @ vectors.T, (vectors * inverses) @ vectors.T
