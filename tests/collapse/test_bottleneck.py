"""The loss of a head of lower rank, against a model whose head was cut by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from zoo import texts

from probes.collapse.bottleneck import (
    bottleneck_table,
    find_head,
    rank_losses,
    ranks_of,
    spectrum,
    spectrum_kl,
)
from probes.errors import DataError, DoesNotApply, InputError

TEXTS = texts(40, seed=7, longest=20)


def by_hand(model: Any, rank: int | None) -> list[float]:
    """Mean bits of the tokens after the first, text by text, with the head's weight truncated."""
    cut = copy.deepcopy(model.hf_model)
    weight = cut.get_output_embeddings().weight
    if rank is not None:
        left, values, right = np.linalg.svd(
            weight.detach().numpy().astype(np.float64), full_matrices=False
        )
        values[rank:] = 0
        new = torch.from_numpy((left * values) @ right).float()
        cut.get_output_embeddings().weight = torch.nn.Parameter(new)  # untied from the input
    losses: list[float] = []
    for text in TEXTS:
        ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
        if ids.shape[1] < 2:
            continue
        with torch.inference_mode():
            logits = cut(input_ids=ids).logits[0].double()
        chosen = logits.log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])[:, 0]
        losses.append(float(-chosen.sum()) / np.log(2))
    return losses


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "cohere", "opt"])
def test_losses_are_those_of_a_truncated_head(name: str, tiny: Callable[[str], Any]) -> None:
    """Tied and untied heads, capped and scaled logits; rank d is the model itself."""
    model = tiny(name)
    head = find_head(model)
    losses, owner = rank_losses(model, TEXTS, head, [4, 32])
    sums = np.stack([np.bincount(owner, weights=row) for row in losses])
    np.testing.assert_allclose(np.sort(sums[0]), np.sort(by_hand(model, 4)), rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(
        np.sort(sums[1]), np.sort(by_hand(model, None)), rtol=2e-3, atol=1e-3
    )


def test_the_table_has_the_mean_and_an_interval_around_it() -> None:
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(50), rng.integers(1, 9, 50))
    losses = rng.gamma(2.0, size=(3, len(owner))) + np.array([[2.0], [1.0], [0.0]])
    table = bottleneck_table(losses, owner, [1, 2, 3], draws=400)
    ends = ["difference", "difference_low", "difference_high"]
    assert list(table.columns) == ["rank", "loss_bits", "low", "high", *ends, "n", "seed"]
    np.testing.assert_allclose(table["loss_bits"], losses.mean(axis=1))
    assert ((table["low"] < table["loss_bits"]) & (table["loss_bits"] < table["high"])).all()
    assert (table["n"] == len(owner)).all()
    assert table[ends].iloc[-1].tolist() == [0, 0, 0]


def test_differences_between_ranks_are_paired_by_text() -> None:
    """Texts differ a lot, ranks by the same amount in all: the interval is narrow."""
    owner = np.repeat(np.arange(30), 4)
    hard = np.repeat(np.random.default_rng(0).normal(0, 5, 30), 4)
    losses = np.stack([hard + 0.3, hard])
    table = bottleneck_table(losses, owner, [1, 2], draws=300)
    row = table.iloc[0]
    assert row["high"] - row["low"] > 1
    assert row[["difference", "difference_low", "difference_high"]].tolist() == pytest.approx(
        [0.3] * 3
    )


def test_the_spectrum_is_that_of_the_matrix() -> None:
    weight = np.random.default_rng(1).normal(size=(60, 7))
    found = spectrum(weight)
    np.testing.assert_allclose(found.values, np.linalg.svd(weight, compute_uv=False))
    projected = weight @ found.directions[:, :3] @ found.directions[:, :3].T
    assert np.linalg.matrix_rank(projected) == 3


def test_divergence_from_a_flat_spectrum() -> None:
    assert spectrum_kl(np.ones(16)) == pytest.approx(0, abs=1e-12)
    assert spectrum_kl(np.array([2.0, 0, 0, 0])) == pytest.approx(np.log(4))
    p = np.array([3, 1]) / 4
    assert spectrum_kl(np.array([6.0, 2.0])) == pytest.approx(np.sum(p * np.log(p * 2)))
    with pytest.raises(DoesNotApply):
        spectrum_kl(np.zeros(3))
    with pytest.raises(InputError):
        spectrum_kl(np.array([-1.0]))


def test_models_without_a_head_are_told_so(tiny: Callable[[str], Any]) -> None:
    for name, words in (("bert", "no language-model head"), ("xlm-roberta", "sees later tokens")):
        with pytest.raises(DoesNotApply, match=words):
            find_head(tiny(name))


def test_too_little_text_is_refused(tiny: Callable[[str], Any]) -> None:
    model = tiny("gpt2")
    with pytest.raises(DataError, match="at least 10"):
        rank_losses(model, ["cat"] * 20, find_head(model), ranks_of(32))
