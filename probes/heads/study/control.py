"""A task that needs no retrieval: going on with plain text, judged only where the next token is new to the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from probes.errors import DataError
from probes.models.completions import head_logits, require_language_model
from probes.models.trace import first_tensor

if TYPE_CHECKING:
    from probes.models import Model

LENGTH = 48  # tokens of a window: short, so that little could be copied


@dataclass(frozen=True)
class ControlTask:
    """Windows of text as tokens (n, t), and which of them are scored (n, t): those new to their window's text.

    >>> task = ControlTask.of(np.arange(100) % 30, 2, 40, seed=0)
    >>> task.scored.sum(1).tolist()  # 30 different tokens, of which the first has nothing before it
    [29, 29]
    """

    ids: NDArray[np.int64]
    scored: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        tokens: NDArray[np.int64],
        n: int,
        length: int = LENGTH,
        *,
        seed: int,
        before: NDArray[np.int64] | None = None,
    ) -> ControlTask:
        """`n` windows of a long text's `tokens` (t,), not overlapping, drawn by `seed`.

        `before` are the special tokens that the tokenizer puts before a text: each window begins with them, and
        neither they nor the first token after them are scored.
        """
        fit = len(tokens) // length
        if fit < n:
            raise DataError(
                f"the text has {len(tokens):,} tokens, {n * length:,} are needed for the control task"
            )
        starts = np.random.default_rng(seed).choice(fit, size=n, replace=False) * length
        ids = np.stack([tokens[start : start + length] for start in starts]).astype(np.int64)
        scored = np.zeros(ids.shape, bool)
        for row, window in enumerate(ids):
            scored[row, np.unique(window, return_index=True)[1]] = True
        scored[:, 0] = False
        lead = np.zeros(0, np.int64) if before is None else before
        leads = np.tile(lead, (n, 1)).astype(np.int64)
        return cls(np.hstack([leads, ids]), np.hstack([np.zeros(leads.shape, bool), scored]))

    def logprobs(self, model: Model, rows: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Mean log-probability (natural) of the scored tokens of each of the windows `rows` (m,): (m,), ≤ 0."""
        require_language_model(model)
        ids = torch.from_numpy(self.ids[rows]).to(model.device)
        scored = torch.from_numpy(self.scored[rows]).to(model.device)
        with torch.inference_mode():
            output = model.structure.base(**model.forward_inputs(ids, torch.ones_like(ids)))
        row, token = scored.nonzero(as_tuple=True)
        states = first_tensor(output)
        assert states is not None
        logits = head_logits(model, output, states[row, token - 1]).float()
        found = logits.gather(1, ids[row, token][:, None])[:, 0] - logits.logsumexp(1)
        sums = np.bincount(row.cpu().numpy(), weights=found.double().cpu().numpy())
        return sums / self.scored[rows].sum(1)
