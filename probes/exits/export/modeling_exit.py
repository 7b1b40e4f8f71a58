"""A transformer stopped after a layer, with pooling, linear maps and, for classification, a probe on top.

This file lies beside the weights and is run by transformers with trust_remote_code=True. It opens no file and no
connection. `ExitModel` returns `pooler_output` (batch, dim), or `logits` (batch, classes) where there is a probe.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput


class ExitConfig(PretrainedConfig):
    """`backbone` is the configuration of the cut transformer; `steps` are applied in order to the pooled state."""

    model_type = "fathometer_exit"

    def __init__(
        self,
        backbone: dict[str, Any] | None = None,
        pooling: str = "mean",
        steps: list[dict[str, Any]] | None = None,
        classifies: bool = False,
        temperature: float = 1.0,
        **kwargs: Any,
    ) -> None:
        self.backbone = backbone or {}
        self.pooling = pooling
        self.steps = steps or []
        self.classifies = classifies
        self.temperature = temperature
        super().__init__(**kwargs)


class ExitModel(PreTrainedModel):
    """Texts' tokens in, embeddings or class scores out."""

    config_class = ExitConfig
    base_model_prefix = ""

    def __init__(self, config: ExitConfig) -> None:
        super().__init__(config)
        told = dict(config.backbone)
        self.backbone = AutoModel.from_config(AutoConfig.for_model(told.pop("model_type"), **told))
        self.steps = nn.ModuleList([_step(told) for told in config.steps])
        if config.temperature != 1:
            _divide_attention(self.backbone, config.temperature)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPooling | SequenceClassifierOutput:
        """input_ids and attention_mask are (batch, token)."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states = self.backbone(input_ids=input_ids, attention_mask=mask).last_hidden_state
        rows = pool(self.config.pooling, states, mask)
        for step in self.steps:
            rows = step(rows)
        if self.config.classifies:
            return SequenceClassifierOutput(logits=rows)
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=rows)


def pool(kind: str, states: Tensor, mask: Tensor) -> Tensor:
    """(batch, token, d) states and (batch, token) 0/1 mask to (batch, d)."""
    keep = mask.to(states.dtype)
    if kind == "max":
        return states.masked_fill(mask.unsqueeze(2) == 0, -torch.inf).amax(1)
    rank = keep.cumsum(1) * keep  # 1, 2, … of every token that counts
    if kind == "mean":
        weights = keep
    elif kind == "weighted":
        weights = rank
    elif kind == "first":
        weights = (rank == 1).to(states.dtype)
    elif kind == "last":
        weights = ((rank == keep.sum(1, keepdim=True)) & (mask != 0)).to(states.dtype)
    else:
        raise ValueError(f"pooling {kind!r} is unknown")
    weights = weights / weights.sum(1, keepdim=True)
    return torch.bmm(weights.unsqueeze(1), states).squeeze(1)


class Normalise(nn.Module):
    """Rows to unit length."""

    def forward(self, rows: Tensor) -> Tensor:
        return functional.normalize(rows, dim=-1)


class Truncate(nn.Module):
    """The first `dim` coordinates."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, rows: Tensor) -> Tensor:
        return rows[:, : self.dim]


def _step(told: dict[str, Any]) -> nn.Module:
    if told["kind"] == "linear":
        return nn.Linear(told["d_in"], told["d_out"])
    return Truncate(told["dim"]) if told["kind"] == "truncate" else Normalise()


def _divide_attention(backbone: nn.Module, temperature: float) -> None:
    """Divide the scale of the attention logits in every block."""
    found = [m for m in backbone.modules() if isinstance(getattr(m, "scaling", None), float)]
    if not found:
        raise ValueError(f"{type(backbone).__name__} does not say the scale of its attention")
    for module in found:
        setattr(module, "scaling", getattr(module, "scaling") / temperature)  # noqa: B009, B010
