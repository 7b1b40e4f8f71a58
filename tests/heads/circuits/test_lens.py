"""The logit lens: each layer is the model cut there, the last one the model itself; suppression by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from probes.heads.circuits import Draws, Lens, Task, read_lens
from probes.models import cut_model, sentence_logprobs
from probes.models.completions import head_logits


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "cohere", "mamba", "opt-post-norm"])
def test_every_layer_is_the_model_cut_there(
    name: str, tiny: Callable[[str], Any], zoo_task: Callable[[str], Task]
) -> None:
    model, task = tiny(name), zoo_task(name)
    lens = read_lens(model, task)
    assert lens.logprob.shape == (len(task), model.n_layers + 1)
    for layer in (1, model.n_layers):
        cut = cut_model(model, layer)
        for i, row in enumerate(task.rows[:4]):
            with torch.no_grad():
                output = cut(torch.tensor([row.clean]))
                logits = head_logits(model, output, output.last_hidden_state[0, -1:])[0]
            own = logits.log_softmax(-1)[list(row.answers)].exp().sum().log()
            assert lens.logprob[i, layer] == pytest.approx(float(own), abs=1e-3)
            best = logits[list(row.answers)].max()
            assert lens.rank[i, layer] == 1 + int((logits > best).sum())
            assert lens.top[i, layer] == float(int(logits.argmax()) in row.answers)
            difference = logits[list(row.answers)].mean() - logits[list(row.wrongs)].mean()
            assert lens.difference[i, layer] == pytest.approx(float(difference), abs=1e-3)


def test_equal_to_the_lens_of_sentences(
    tiny: Callable[[str], Any], zoo_task: Callable[[str], Task]
) -> None:
    """Another implementation: log p(prompt + answer) − log p(prompt), layer by layer."""
    model, task = tiny("llama"), zoo_task("llama")
    lens = read_lens(model, task)
    layers = list(range(model.n_layers + 1))
    prompts = [row.pair.clean for row in task.rows]
    whole = [row.pair.clean + row.pair.answers[0] for row in task.rows]
    both, alone = (sentence_logprobs(model, texts, layers) for texts in (whole, prompts))
    np.testing.assert_allclose(lens.logprob, both - alone, atol=1e-3)


def test_the_planted_answer_appears_with_the_induction_head(planted: Any) -> None:
    model, heads, task = planted
    rows = read_lens(model, task).rows(Draws.make(len(task), 200, 0))
    after = heads["induction"][0] + 1
    assert [row["layer"] for row in rows] == list(range(model.n_layers + 1))
    for row in rows:
        if row["layer"] < after:
            assert row["top1_high"] < 0.5
        else:
            assert row["top1"] == 1
            assert row["rank"] == 1


def suppression(logprob: np.ndarray, seed: int = 0) -> dict[str, Any]:
    zeros = np.zeros_like(logprob)
    return Lens(logprob, zeros + 1, zeros, zeros).suppression(seed)


def test_suppression_is_what_is_lost_after_the_best_layer() -> None:
    logprob = np.tile([-5.0, -1.0, -3.0], (6, 1))
    found = suppression(logprob)
    assert (found["value"], found["low"], found["high"], found["n"]) == (2, 2, 2, 6)
    assert suppression(np.sort(logprob))["value"] == -2  # the last layer is the best


@pytest.mark.parametrize("pairs", [8, 30])
@pytest.mark.parametrize("walk", [False, True])
def test_a_layer_that_is_highest_by_chance_shows_no_suppression(pairs: int, walk: bool) -> None:
    """31 layers of equal expectation: the best one of them lies above the last, yet nothing is shown."""
    rng = np.random.default_rng(0)
    shown, naive = 0, 0
    for seed in range(400):
        noise = rng.normal(size=(pairs, 31)) + rng.normal(size=(pairs, 1))
        logprob = noise.cumsum(axis=1) if walk else noise
        found = suppression(logprob, seed)
        shown += found["low"] > 0
        naive += logprob.mean(0).max() > logprob.mean(0)[-1]
    assert shown / 400 <= 0.07
    assert naive / 400 > 0.5


def test_planted_suppression_is_found() -> None:
    rng = np.random.default_rng(0)
    rise = np.concatenate([np.linspace(-9, -1, 29), [-1.2, -2.0]])  # 1 nat below layer 28
    found = [suppression(rise + rng.normal(size=(50, 31)), seed) for seed in range(50)]
    assert sum(row["low"] > 0 for row in found) >= 45
    assert np.mean([row["value"] for row in found]) == pytest.approx(1.0, abs=0.15)
