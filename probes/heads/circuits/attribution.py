"""Direct logit attribution: what embedding, heads, MLPs and biases write straight onto the logit difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from probes.capture.sites import Place
from probes.errors import DoesNotApply
from probes.heads.circuits.draws import Draws
from probes.heads.circuits.norms import freeze
from probes.heads.circuits.passes import Batch, last_logits, numbers, places_of, read, split
from probes.models.completions import require_language_model
from probes.models.trace import in_float32

if TYPE_CHECKING:
    from probes.heads.circuits.tasks import Task
    from probes.models import Model

Array = NDArray[np.floating[Any]]
EXACT = 1e-3  # largest error of the sum, in parts of the largest component


@dataclass(frozen=True)
class Component:
    """`kind` is embedding, head, mlp, bias or total; heads and MLPs have a block."""

    kind: str
    block: int | None = None
    head: int | None = None


@dataclass(frozen=True, eq=False)
class Contributions:
    """Contributions (n, components) to the logit difference in logits; `error` is the largest one of their sum."""

    components: tuple[Component, ...]
    values: Array
    error: float

    def rows(self, draws: Draws) -> list[dict[str, Any]]:
        found = draws.mean(self.values)
        return [
            {"component": c.kind, "block": c.block, "head": c.head, **row}
            for c, row in zip(self.components, found, strict=True)
        ]


def attribute(model: Model, task: Task) -> Contributions:
    """Direct logit attribution on the clean prompts, at the token before the answer.

    The final state is a sum of what embedding, heads (through their part of the output projection), MLPs and biases
    wrote; with the final norm's scale held at what it was, so is the logit difference. The component `total` is the
    model's own difference; the others add up to it to 1e-3 of the largest of them. The passes are in float32
    whatever the model's type, half precision would not add up. A norm behind attention or MLP (Gemma 2, OLMo 2) is held
    likewise.

    Raises `DoesNotApply` where that is not so: norms after each sum, scaled residual sums, capped logits, an unknown
    final norm; the reason says which. Paper: Elhage et al. 2021.
    """
    require_language_model(model)
    places = places_of(model, ["z", "attn_out", "mlp_out"])
    places += [Place("resid_post", 0), Place("resid_post", model.n_layers)]
    found: dict[int, Array] = {}
    error = 0.0
    components: tuple[Component, ...] = ()
    with in_float32(model.hf_model):  # sums of parts are told from the whole by subtracting
        for rows, batch in split(model, task):
            components, values, own = _attributed(model, batch, places)
            error = max(error, own)
            found.update(zip(rows, values, strict=True))
    return Contributions(components, np.stack([found[i] for i in range(len(task))]), error)


def _attributed(
    model: Model, batch: Batch, places: list[Place]
) -> tuple[tuple[Component, ...], Array, float]:
    reading = read(model, batch, batch.clean, places)
    rows = torch.arange(len(batch.rows), device=model.device)
    at = {place: states[rows, batch.last].float() for place, states in reading.states.items()}
    direction, constant = _direction(model, batch, at[Place("resid_post", model.n_layers)])
    parts: list[tuple[Component, Tensor]] = [
        (Component("embedding"), _along(at[Place("resid_post", 0)], direction))
    ]
    for b in range(model.n_layers):
        heads, bias = _heads(model, b, at, direction)
        parts += [(Component("head", b, h), heads[:, h]) for h in range(heads.shape[1])]
        parts.append((Component("mlp", b), _along(at[Place("mlp_out", b)], direction)))
        constant = constant + bias
    total = reading.difference.float()
    parts.append((Component("bias"), constant))
    values = torch.stack([value for _, value in parts], dim=1)  # (n, components)
    size = values.abs().amax(dim=1)
    error = float(((values.sum(1) - total).abs() / size).max())
    if not error <= EXACT:
        raise DoesNotApply(
            f"contributions to the logit difference of {model.name} do not add up to it (off by {error:.2g} of the "
            f"largest): {_why_not(model, at)}"
        )
    components = (*(component for component, _ in parts), Component("total"))
    values = torch.cat([values, total[:, None]], dim=1)
    return components, numbers(values), error


def _why_not(model: Model, at: dict[Place, Tensor]) -> str:
    """Whether it is the residual stream that does not add up, or what reads it."""
    stream = at[Place("resid_post", model.n_layers)]
    written = at[Place("resid_post", 0)].clone()
    for b in range(model.n_layers):
        written = written + at[Place("attn_out", b)] + at[Place("mlp_out", b)]
    if torch.allclose(written, stream, atol=1e-3 * float(stream.abs().max()), rtol=1e-3):
        return "the final norm or the head does more than one matrix does"
    return (
        "the residual stream is not the sum of the embedding and what attention and MLPs write; it is scaled or normed "
        "on the way (post-norm models), or something else writes into it"
    )


def _along(states: Tensor, direction: Tensor) -> Tensor:
    return (states * direction).sum(-1)


def _direction(model: Model, batch: Batch, final: Tensor) -> tuple[Tensor, Tensor]:
    """The direction (n, d) in the residual stream that the logit difference reads, and what biases add, (n,)."""
    head = require_language_model(model)
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or len(model.structure.tail) > 1:
        raise DoesNotApply(f"the head of {model.name} is no single matrix after one norm")
    weight = weight.detach().float()
    bias = getattr(head, "bias", None)
    pairs = [(list(row.answers), list(row.wrongs)) for row in batch.rows]
    direction = torch.stack([weight[a].mean(0) - weight[w].mean(0) for a, w in pairs])
    if isinstance(bias, Tensor):
        bias = bias.detach().float()
        constant = torch.stack([bias[a].mean() - bias[w].mean() for a, w in pairs])
    else:
        constant = torch.zeros(len(pairs), device=direction.device)
    direction = direction * _logit_scale(model, batch, weight, bias)
    for norm in model.structure.tail:
        frozen = freeze(norm, final)
        if frozen is None:
            raise DoesNotApply(
                f"the last module of {model.name}, {type(norm).__name__}, is neither a LayerNorm nor an RMS norm"
            )
        constant = constant + _along(frozen.bias.expand_as(direction), direction)
        direction = frozen.back(direction)
    return direction, constant


def _logit_scale(model: Model, batch: Batch, weight: Tensor, bias: Any) -> float:
    """What the model multiplies its logits by (Cohere, Granite); `DoesNotApply` where it does more, such as capping."""
    seen: list[Tensor] = []

    def look(states: Tensor) -> Tensor:
        seen.append(states.detach()[:, 0].float())
        return states

    with torch.no_grad():
        given = last_logits(model, batch.clean, batch.last, look)[:, 0]
    plain = seen[0] @ weight.T  # (n, vocabulary)
    plain = plain + bias if isinstance(bias, Tensor) else plain
    if plain.shape != given.shape:
        raise DoesNotApply(f"the head of {model.name} is no single matrix")
    scale = float((plain * given).sum() / plain.pow(2).sum())
    off = float((plain * scale - given).norm() / given.norm())
    if off > EXACT:
        raise DoesNotApply(
            f"logits of {model.name} are not linear in the final state (soft capping): contributions do not add up"
        )
    if isinstance(bias, Tensor) and abs(scale - 1) > EXACT:
        raise DoesNotApply(f"{model.name} scales logits that have a bias")
    return scale


def _heads(
    model: Model, block: int, at: dict[Place, Tensor], direction: Tensor
) -> tuple[Tensor, Tensor]:
    """Contributions of the heads of a block, (n, heads), and of the biases of its attention, (n,)."""
    found = model.structure.block(block)
    z, out = at[Place("z", block)], at[Place("attn_out", block)]
    weight, bias = _projection(found.o_proj, z.shape[1] * z.shape[2])
    constant = torch.zeros(len(z), device=z.device)
    if found.attn_out is not found.o_proj:
        written = z.flatten(1) @ weight + bias
        close = torch.allclose(written, out, atol=1e-4 * float(out.abs().max()), rtol=1e-3)
        frozen = None if close or found.attn_out is None else freeze(found.attn_out, written)
        if not close and frozen is None:
            raise DoesNotApply(
                f"what stands between heads and residual stream in block {block} is no norm: heads cannot be told apart"
            )
        if frozen is not None:
            constant = _along(frozen.bias.expand_as(direction), direction)
            direction = frozen.back(direction)
    maps = weight.unflatten(0, z.shape[1:])  # (head, d_head, d)
    heads = torch.einsum("nhe,hed,nd->nh", z, maps, direction)
    return heads, constant + _along(bias.expand_as(direction), direction)


def _projection(module: nn.Module | None, width: int) -> tuple[Tensor, Tensor]:
    """Weight (heads · d_head, d) and bias (d,) of the output projection, as a Linear or a transposed one."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or width not in weight.shape:
        raise DoesNotApply(f"the output projection {type(module).__name__} is no single matrix")
    weight = weight.detach().float()
    transposed = type(module).__name__ == "Conv1D"  # GPT-2 keeps (in, out)
    weight = weight if transposed else weight.T
    bias = getattr(module, "bias", None)
    zero = torch.zeros(weight.shape[1], device=weight.device)
    return weight, bias.detach().float() if isinstance(bias, Tensor) else zero
