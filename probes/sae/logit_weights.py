"""What a feature writes on the way to the output: its decoder row through the final norm and the unembedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.capture.sites import Place
from probes.errors import DoesNotApply, InputError
from probes.heads.circuits.norms import freeze
from probes.models import require_language_model
from probes.sae.token_text import spellings

if TYPE_CHECKING:
    from probes.models import Model

FloatArray = NDArray[np.floating[Any]]
_AT_ONCE = 2**23  # logits


@dataclass(frozen=True)
class LogitWeights:
    """The most promoted and the most suppressed tokens of each feature, the strongest first.

    `up`, `down` (m, n) token ids; `up_tokens`, `down_tokens` their spelling; `kurtosis` (m,): excess kurtosis of a
    feature's weights over the vocabulary (0 for a normal distribution, high where it promotes a few tokens).
    """

    up: NDArray[np.int64]
    down: NDArray[np.int64]
    up_tokens: list[list[str]]
    down_tokens: list[list[str]]
    kurtosis: FloatArray


@torch.no_grad()
def logit_weights(model: Model, decoder: Any, site: str, layer: int, n: int = 10) -> LogitWeights:
    """Logits that one unit of each decoder row (m, d) at `site` of `layer` adds by the direct path.

    weight = W_U · (g ∘ (w − mean w)): w is what the row writes into the residual stream (the row itself; at `z` and
    `mlp_act` its image under the projection that follows), g the final norm's gain, the mean taken off only where that
    norm does so. The norm's scale, one positive number per state, is left out: weights of a feature compare with each
    other, their size with nothing. At "exit" the row is past the norm. What later blocks do with the row is not in it.

    Raises `DoesNotApply` for models without a causal language-model head, where the head is no single matrix of the
    residual stream's width, and where the tail is more than one norm.

    >>> def promoted(model, sae):
    ...     return logit_weights(model, sae.decoder_, "resid_post", 12).up_tokens
    """
    rows = torch.as_tensor(np.asarray(decoder, np.float32)).to(model.device)
    unembedding = _unembedding(model)
    if n < 1 or 2 * n > len(unembedding):
        raise InputError(f"{n} tokens: 1 to {len(unembedding) // 2} are possible")
    written = _through_norm(model, _written(model, rows, Place(site, layer)), site)
    ups: list[Tensor] = []
    downs: list[Tensor] = []
    kurtosis: list[Tensor] = []
    for part in written.split(max(1, _AT_ONCE // len(unembedding))):
        logits = part @ unembedding.T  # (features, vocabulary)
        logits -= logits.mean(1, keepdim=True)
        ups.append(logits.topk(n, dim=1)[1].cpu())
        downs.append(logits.topk(n, dim=1, largest=False)[1].cpu())
        squares = logits.square()
        spread = squares.mean(1)
        fourth = squares.square_().mean(1)
        kurtosis.append((fourth / spread.square().clamp_min(1e-30) - 3).cpu())
    up, down = torch.cat(ups).numpy(), torch.cat(downs).numpy()
    return LogitWeights(
        up, down, _spelled(model, up), _spelled(model, down), torch.cat(kurtosis).double().numpy()
    )


def _spelled(model: Model, ids: NDArray[np.int64]) -> list[list[str]]:
    different, place = np.unique(ids, return_inverse=True)
    texts = np.asarray(spellings(model.tokenizer, different.tolist()), dtype=object)
    return texts[place.reshape(ids.shape)].tolist()


def _unembedding(model: Model) -> Tensor:
    """(vocabulary, d), without rows that pad it beyond the tokenizer's words."""
    head: Any = require_language_model(model)
    weight = getattr(head, "weight", None)
    if weight is None or weight.ndim != 2 or weight.shape[1] != model.d_model:
        raise DoesNotApply(
            f"the head of {model.name} is no single matrix of width {model.d_model}: "
            "decoder rows have no logits of their own"
        )
    return weight.detach().float()[: len(model.require_tokenizer())]


def _written(model: Model, rows: Tensor, place: Place) -> Tensor:
    """What decoder rows (m, width of the site) write into the residual stream: (m, d)."""
    if place.site in ("z", "mlp_act"):
        project: Any = model.structure.module_for(place.site, place.number)
        given = rows.to(model.dtype)
        rows = (project(given) - project(torch.zeros_like(given[:1]))).float()  # no bias
    if rows.shape[1] != model.d_model:
        raise InputError(
            f"decoder rows are {rows.shape[1]} wide at {place}, the residual stream of {model.name} {model.d_model}"
        )
    return rows


def _through_norm(model: Model, written: Tensor, site: str) -> Tensor:
    tail: list[Any] = list(model.structure.tail)
    if site == "exit" or not tail:
        return written
    if len(tail) > 1:
        raise DoesNotApply(
            f"{model.name} has {len(tail)} modules after its last block: only one norm can be folded"
        )
    states = torch.randn(8, model.d_model, generator=torch.Generator().manual_seed(0))
    norm = freeze(tail[0], states.to(model.device))
    if norm is None:
        raise DoesNotApply(
            f"the last module of {model.name} is neither a layer norm nor an RMS norm: {type(tail[0]).__name__}"
        )
    found = written - written.mean(1, keepdim=True) if norm.centred else written
    return found * norm.weight
