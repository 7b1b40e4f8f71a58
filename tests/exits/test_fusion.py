"""Mixtures find the layers that know, add nothing where the last layer knows all, and are judged on unseen examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probes.exits.fusion import cosent, fusion_study, neutral_mixture

D = 24


def layers_of(meaning, rng, place):
    """Three layers of noise and one, `place`, that holds the meaning; scales differ wildly."""
    states = {k: rng.normal(size=(len(meaning), D)) * 10.0**k + 5 for k in range(4)}
    wide = np.zeros((len(meaning), D))
    wide[:, : meaning.shape[1]] = meaning
    states[place] = (wide + 0.02 * rng.normal(size=wide.shape)) * 0.01 + 3
    return states


@pytest.mark.parametrize("kind", ["similarity", "retrieval", "classification"])
@pytest.mark.parametrize("place", [1, 3])
def test_weight_goes_to_the_layer_that_knows(
    kind, place, rng, similarity_task, retrieval_task, classification_task, split_parts
):
    if kind == "similarity":
        task, meaning = similarity_task(300, rng, latent=16)
    elif kind == "retrieval":
        task, meaning = retrieval_task(300, 80, rng)
    else:
        task, meaning = classification_task(300, 16, rng)
    parts = split_parts(len(task), rng)
    states = layers_of(meaning, rng, place)
    found = fusion_study(task, states, parts, task.text_rows(parts["fit"]), draws=200)
    rows = found.table.set_index("kind")
    for name in ("scalar-mix", "importance"):
        weights = found.weights[found.weights["kind"] == name].set_index("layer")["weight"]
        assert weights.sum() == pytest.approx(1, abs=1e-5)
        of_signal = (
            found.mixtures[name].weights[:, :4].mean(axis=1)
        )  # the others a probe may ignore
        assert of_signal.argmax() == place
    if place == 1:  # the last layer is noise: every way of listening to layer 1 beats it
        assert rows.loc["scalar-mix", "over_full_low"] > 0
        assert rows.loc["single", "layer"] == 1
    else:  # the last layer knows all there is: nothing can be gained
        assert rows.loc["scalar-mix", "over_full_low"] <= 0.02
        assert rows.loc["single", "over_full"] == 0
    assert rows.loc["last", "over_full"] == 0
    assert set(rows["n"]) == {len(parts["test"])}


def test_layers_that_each_know_a_half_are_better_together(rng, similarity_task, split_parts):
    task, meaning = similarity_task(400, rng, latent=16)
    states = {k: 0.05 * rng.normal(size=(len(meaning), D)) for k in range(3)}
    states[1][:, :8] += meaning[:, :8]
    states[2][:, 8:16] += meaning[:, 8:]
    parts = split_parts(len(task), rng)
    found = fusion_study(task, states, parts, np.arange(len(meaning)), draws=200)
    rows = found.table.set_index("kind")
    for name in ("scalar-mix", "importance"):
        assert rows.loc[name, "over_full_low"] > 0
        assert rows.loc[name, "value"] > rows.loc["single", "value"]


def test_test_examples_teach_nothing(rng, similarity_task, split_parts):
    task, meaning = similarity_task(200, rng, latent=16)
    parts = split_parts(len(task), rng)
    states = layers_of(meaning, rng, 1)
    fit = task.text_rows(parts["fit"])
    one = fusion_study(task, states, parts, fit, draws=200)
    changed = task.gold.copy()
    changed[parts["test"]] = rng.permutation(changed[parts["test"]])
    from dataclasses import replace

    other = fusion_study(replace(task, gold=changed), states, parts, fit, draws=200)
    assert one.weights.equals(other.weights)
    assert not one.table["value"].equals(other.table["value"])


def test_a_mixture_is_its_formula(rng):
    states = {0: rng.normal(size=(20, 5)) + 2, 1: 7 * rng.normal(size=(20, 5))}
    start = neutral_mixture(states, np.arange(10))
    made = start.with_weights(np.asarray([[0.25], [0.75]]))
    wanted = 0.0
    for k, w in ((0, 0.25), (1, 0.75)):
        shifted = states[k] - states[k][:10].mean(axis=0)
        wanted = wanted + w * shifted / np.sqrt((shifted[:10] ** 2).mean())
    np.testing.assert_allclose(made(states), wanted)
    np.testing.assert_allclose(made(states, np.asarray([3])), wanted[[3]])


def test_cosent_equals_its_sum_written_out(rng):
    c, gold = rng.uniform(-1, 1, 12), rng.integers(0, 4, 12).astype(float)
    total = sum(
        np.exp(20 * (c[j] - c[i])) for i in range(12) for j in range(12) if gold[i] > gold[j]
    )
    found = cosent(torch.as_tensor(c), torch.as_tensor(gold))
    assert float(found) == pytest.approx(np.log1p(total), rel=1e-6)
