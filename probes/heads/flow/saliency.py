"""Saliency of attention in few-shot prompts: where the information that decides the label flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.capture.attention import attention_calls
from probes.capture.attention_call import AttentionCall, FusedCall
from probes.errors import NonFiniteError
from probes.heads.flow.measures import LABEL_FLOW
from probes.heads.flow.prompts import TEMPLATE, LabelPrompt, label_prompts
from probes.layers.tokens import mean_row
from probes.models import Model
from probes.models.inputs import accepts
from probes.types import LabelledTexts

FloatArray = NDArray[np.floating[Any]]
FLOWS: tuple[str, ...] = ("wp", "pq", "ww")
RANDOM_LABELS = "random-labels"
COLUMNS = {
    "dataset": "string",
    "block": "Int64",
    "flow": "string",
    "variant": "string",
    "value": "Float64",
    "low": "Float64",
    "high": "Float64",
    "n": "Int64",
    "seed": "Int64",
}


def label_saliency(
    model: Model,
    dataset: LabelledTexts,
    n: int = 20,
    *,
    per_class: int = 1,
    words: Sequence[str] | None = None,
    template: str = TEMPLATE,
    seed: int = 0,
    control: bool = True,
) -> pd.DataFrame:
    """S_wp, S_pq and S_ww of each block over `n` few-shot prompts of `dataset`: dataset, block, flow, variant, value….

    `wp` is the mean flow from the text to the label words of the demonstrations, `pq` that from the label words to the
    last token, where the answer is predicted, and `ww` that between all other pairs (`saliency_matrices` says what is
    averaged). Rows of `variant` "random-labels" are the same prompts with label words drawn at random (`control`
    leaves them out when False). Intervals: mean ± t · standard error over prompts, 95 %.

    Raises as `label_prompts` does; `DoesNotApply` where a block has no attention heads. Paper: Wang et al. 2023 (Label
    Words are Anchors, arXiv 2305.14160).

    >>> def anchors(model, dataset):  # the block at which label words have collected most
    ...     table = label_saliency(model, dataset, control=False)
    ...     return int(table[table["flow"] == "wp"].nlargest(1, "value")["block"].iloc[0])
    """
    rows: list[dict[str, Any]] = []
    for random_labels in (False, True) if control else (False,):
        prompts = label_prompts(
            model, dataset, n, per_class=per_class, words=words, template=template,
            random_labels=random_labels, seed=seed,
        )  # fmt: skip
        flows = np.stack([prompt_flows(model, prompt) for prompt in prompts])  # (n, block, flow)
        for block in range(model.n_layers):
            for number, flow in enumerate(FLOWS):
                estimate = mean_row(flows[:, block, number], LABEL_FLOW, np.arange(n), 0.95)
                rows.append(
                    {
                        "dataset": dataset.name,
                        "block": block,
                        "flow": flow,
                        "variant": RANDOM_LABELS if random_labels else None,
                        **estimate,
                        "seed": seed,
                    }
                )
    frame: Any = pd.DataFrame({name: [row.get(name) for row in rows] for name in COLUMNS})
    return frame.astype(COLUMNS)


def prompt_flows(model: Model, prompt: LabelPrompt) -> FloatArray:
    """S_wp, S_pq and S_ww of one prompt, (block, 3): means of `saliency_matrices` over three sets of pairs.

    With label words at p_k and the last token q: wp are the pairs (p_k, j) for every earlier token j, pq the pairs
    (q, p_k), ww all other pairs of a token and an earlier one.
    """
    T = len(prompt.ids)
    later, earlier = np.tril_indices(T, -1)
    to_label = np.isin(later, prompt.labels)
    to_last = (later == prompt.last) & np.isin(earlier, prompt.labels)
    sets = (to_label, to_last & ~to_label, ~to_label & ~to_last)
    rows: list[list[float]] = []
    for matrix in saliency_matrices(model, prompt):
        pairs = matrix[later, earlier]
        rows.append([float(pairs[chosen].mean()) for chosen in sets])
    found = np.asarray(rows)
    if not np.isfinite(found).all():
        raise NonFiniteError(f"saliency of {model.name} holds NaN or infinity")
    return found


def saliency_matrices(model: Model, prompt: LabelPrompt) -> FloatArray:
    """I = |Σ_h A ⊙ ∂L/∂A| of each block, (block, token, earlier token): what each attention weight does to the label.

    L is the cross-entropy of the right label among the first tokens of the label words. The gradient goes through the
    pattern alone, computed in float32, with everything behind it; weights and activations stay as they are.
    """
    leaves: dict[int, tuple[Tensor, Tensor]] = {}

    def open_up(call: AttentionCall) -> Tensor:
        pattern = call.pattern()
        leaf = torch.zeros_like(pattern, requires_grad=True)  # ∂L/∂leaf is ∂L/∂A
        leaves[call.block] = (pattern.detach(), leaf)
        return _attend(call, pattern + leaf)

    ids = torch.as_tensor(prompt.ids, device=model.device)[None]
    with torch.enable_grad(), attention_calls(model, open_up):
        logits = _last_logits(model, ids)
        classes = logits[torch.as_tensor(prompt.answers, device=logits.device)].float()
        loss = torch.nn.functional.cross_entropy(
            classes, torch.tensor(prompt.gold).to(logits.device)
        )
        gradients = torch.autograd.grad(loss, [leaf for _, leaf in leaves.values()])
    found: list[FloatArray] = []
    for (pattern, _), gradient in zip(leaves.values(), gradients, strict=True):
        found.append((pattern * gradient)[0].sum(0).abs().double().cpu().numpy())
    return np.stack(found)


def _attend(call: AttentionCall, pattern: Tensor) -> Tensor:
    """What the model's attention function gives for this pattern (batch, head, query, key)."""
    if not isinstance(call, FusedCall):
        given = cast("Any", call).given
        return pattern.reshape(given.shape).to(given.dtype)
    value: Tensor = call.rest["value"]
    wide = value.repeat_interleave(call.heads.n // value.shape[1], 1)
    return (pattern @ wide.to(pattern.dtype)).to(value.dtype)


def _last_logits(model: Model, ids: Tensor) -> Tensor:
    """Logits (vocabulary,) at the last token, with gradients."""
    given: dict[str, Any] = {"input_ids": ids}
    if accepts(model.hf_model, "logits_to_keep"):
        given["logits_to_keep"] = 1
    if accepts(model.hf_model, "use_cache"):
        given["use_cache"] = False
    return cast("Any", model.hf_model)(**given).logits[0, -1]
