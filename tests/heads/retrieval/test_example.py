"""The example to look at: roles cover all tokens, weights are the model's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from zoo import build

from probes.errors import DoesNotApply, InputError
from probes.heads.retrieval import attention_example, measure_trial


def test_roles_and_weights(make_trial: Any, eager: Any, other: Any) -> None:
    model = build("llama")
    trial = make_trial(model, 58, distractors=[other])
    tokens, rows = attention_example(model, trial, keep=0.01)
    assert tokens["position"].tolist() == list(range(len(trial.forced_ids)))
    at = tokens.set_index("role")["token"]
    assert list(at["needle"]) == ["seven", "eight", "nine"]
    assert "red" in list(at["needle sentence"])
    assert "blue" in list(at["distractor"])
    assert set(tokens["role"]) >= {"question", "context", "template", "answer"}
    with torch.no_grad():
        out = eager(model)(torch.tensor([trial.forced_ids.tolist()]), output_attentions=True)
    whole = np.stack([a[0].numpy() for a in out.attentions])  # (block, head, query, key)
    found = whole[rows["block"], rows["head"], rows["query_position"], rows["position"]]
    np.testing.assert_allclose(rows["weight"], found, atol=1e-6)
    picked = whole[:, :, list(trial.rows)]
    needle = np.isin(np.arange(picked.shape[-1]), list(trial.answer))
    assert len(rows) == int(((picked >= 0.01) | needle).sum())
    said = rows.drop_duplicates("row").sort_values("row")["emitted"]
    assert " ".join(said) == measure_trial(model, trial, extras=False).emitted


def test_sliding_windows_leave_out_needles_that_no_cache_holds(make_trial: Any) -> None:
    model = build("mistral")
    trial = make_trial(model, depth=0.0)
    _, rows = attention_example(model, trial)
    near = rows["query_position"] - rows["position"] < 16
    assert rows["weight"][near].max() > 0
    assert (rows["weight"][~near] == 0).all()


def test_what_cannot_be_shown(make_trial: Any) -> None:
    model = build("llama")
    with pytest.raises(InputError, match="0 to 1"):
        attention_example(model, make_trial(model), keep=2)
    encoder = build("bert")
    with pytest.raises(DoesNotApply, match="no answer"):
        attention_example(encoder, make_trial(encoder))
