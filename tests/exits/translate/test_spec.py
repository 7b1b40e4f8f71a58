"""Specs, inputs, translators of a layer, recipes; MLP, learning curve, mismatch: arrays with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from probes.errors import InputError
from probes.exits.recipe import load_recipe, save_recipe
from probes.exits.translate import (
    Inputs,
    StaticTable,
    TranslatorSpec,
    fit_layer,
    learning_curve,
    sif_weights,
    text_mismatch,
)
from probes.exits.translate.vocabulary import count_tokens
from probes.linalg import normalise_rows

N = 400


@pytest.fixture
def world(rng):
    """Each source alone holds a part of the target: only together they give it whole."""
    states = {
        pooling: {layer: rng.normal(size=(N, 6)).astype(np.float32) for layer in range(3)}
        for pooling in ("mean", "sif")
    }
    bag = rng.normal(size=(N, 4))
    target = 3 * np.eye(10)[0] + 0.3 * bag @ rng.normal(size=(4, 10))
    for layer in range(3):
        for pooling in states:
            target = target + 0.3 * states[pooling][layer] @ rng.normal(size=(6, 10))
    return Inputs(states, bag), normalise_rows(target)


def _cosine(translator, inputs, target):
    return float((translator(inputs) * target).sum(axis=1).mean())


def test_what_more_is_read_is_gained(world):
    inputs, target = world
    specs = (
        TranslatorSpec(),
        TranslatorSpec(("mean", "sif")),
        TranslatorSpec(("mean", "sif"), table=True),
        TranslatorSpec(("mean", "sif"), "all", table=True),
    )
    found = [_cosine(fit_layer(inputs, target, 2, spec), inputs, target) for spec in specs]
    assert found == sorted(found)
    assert found[0] < 0.93
    assert found[-1] > 0.97
    control = fit_layer(inputs, np.random.default_rng(5).permutation(target), 2, specs[-1])
    assert _cosine(control, inputs, target) < found[0]


def test_order_of_the_inputs_and_rows_of_the_fit(world):
    inputs, target = world
    spec = TranslatorSpec(("mean", "sif"), "all", table=True)
    read = inputs.read(spec, 1, np.array([3, 0]))
    mean, sif = inputs.states["mean"], inputs.states["sif"]
    parts = [mean[0], sif[0], mean[1], sif[1], inputs.bag]
    np.testing.assert_array_equal(read, np.concatenate([p[[3, 0]] for p in parts], axis=1))
    rows = np.arange(0, N, 2)
    fitted = fit_layer(inputs, 7 * target, 1, spec, rows)  # the length of a target does not count
    whole = inputs.read(spec, 1, slice(None))
    scaler = StandardScaler().fit(whole[rows])
    ridge = Ridge(alpha=fitted.map.penalty * len(rows)).fit(
        scaler.transform(whole[rows]), target[rows]
    )
    expected = normalise_rows(ridge.predict(scaler.transform(whole)))
    np.testing.assert_allclose(fitted(inputs), expected, atol=1e-8)
    np.testing.assert_allclose(fitted(inputs, slice(5, 9)), expected[5:9], atol=1e-8)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (TranslatorSpec(), None),
        (TranslatorSpec(("max",), map="orthogonal"), None),
        (TranslatorSpec(("last",), map="reduced-rank"), None),
        (TranslatorSpec(("sif",)), "how rare"),
        (TranslatorSpec(("mean", "max")), "several poolings"),
        (TranslatorSpec(("mean",), "all"), "several layers"),
        (TranslatorSpec(("mean",), table=True), "static vocabulary table"),
    ],
)
def test_recipe_is_the_same_map_and_says_why_it_cannot_be_exported(rng, tmp_path, spec, reason):
    states = {
        p: {k: rng.normal(size=(60, 5)) for k in range(2)} for p in ("mean", "max", "last", "sif")
    }
    inputs = Inputs(states, rng.normal(size=(60, 3)))
    fitted = fit_layer(inputs, rng.normal(size=(60, 4)), 1, spec)
    recipe = fitted.recipe()
    assert (recipe.reason is None) if reason is None else (reason in recipe.reason)
    assert recipe.exportable == (reason is None)
    assert recipe.layer == 1
    read = inputs.read(spec, 1, slice(None))
    np.testing.assert_allclose(recipe(read), fitted(inputs), atol=1e-10)
    save_recipe(recipe, tmp_path / "kept")
    np.testing.assert_allclose(load_recipe(tmp_path / "kept")(read), fitted(inputs), atol=1e-5)


def test_mlp_learns_what_a_ridge_cannot_and_keeps_to_it_where_nothing_bends(rng):
    X = rng.normal(size=(1000, 6))
    bent = np.stack([np.abs(X[:, 0]), X[:, 1] * X[:, 2], X[:, 3], 1 + 0 * X[:, 0]], axis=1)
    inputs, spec = Inputs({"mean": {0: X}}), TranslatorSpec(map="mlp")
    ridge = fit_layer(inputs, bent, 0)
    mlp = fit_layer(inputs, bent, 0, spec)
    assert mlp.map.r2 > ridge.map.r2 + 0.1
    few, noise = np.arange(100), rng.normal(size=(1000, 4))
    once, again = (fit_layer(inputs, noise, 0, spec, few) for _ in range(2))
    assert once.map.r2 < 0.1
    np.testing.assert_array_equal(once(inputs), again(inputs))
    with pytest.raises(InputError, match="cannot be kept"):
        mlp.recipe()


def test_learning_curve_rises_to_the_whole_fit(world):
    inputs, target = world
    spec = TranslatorSpec(("mean", "sif"), "all", table=True)
    curve = learning_curve(inputs, target, 2, spec, seed=3)
    assert curve["n_texts"].tolist() == [40, 80, 160, 320]
    assert curve["value"].is_monotonic_increasing
    assert (curve["low"] <= curve["value"]).all()
    assert (curve["value"] <= curve["high"]).all()
    order = np.random.default_rng(3).permutation(N)
    out, fit = order[: N // 5], order[N // 5 :]
    alone = fit_layer(inputs, target, 2, spec, fit[:160])
    mean = (alone(inputs, out) * target[out]).sum(axis=1).mean()
    assert curve["value"][2] == pytest.approx(mean)
    with pytest.raises(InputError, match="40 or more"):
        learning_curve(inputs, target, 2, spec, np.arange(30))


def test_mismatch_sees_words_and_lengths_and_is_silent_where_there_is_none(rng):
    def texts(words, length, n=200):
        return count_tokens(
            [rng.choice(words, size=length + rng.integers(0, 3)) for _ in range(n)], 60
        )

    same = text_mismatch(texts(30, 8), texts(30, 8))
    assert same.warnings() == ()
    assert same.coverage == 1
    assert same.length_distance < 0.2
    words = text_mismatch(texts(30, 8), texts(60, 8))
    assert 0.4 < words.coverage < 0.6
    assert len(words.warnings()) == 1
    assert "50%" in words.warnings()[0] or "tokens do not occur" in words.warnings()[0]
    longer = text_mismatch(texts(30, 8), texts(30, 40))
    assert longer.length_distance == pytest.approx(1)
    assert "texts of 9 tokens and are used on texts of 41" in longer.warnings()[0]


def test_bags_are_weighted_sums_and_fold_into_one_table(rng):
    ids = [np.array([0, 2, 2]), np.array([4]), np.array([], int)]
    counts = count_tokens(ids, 5)
    table = StaticTable(rng.normal(size=(5, 3)), sif_weights(counts, a=0.1))
    shares = np.array([1, 0, 2, 0, 1]) / 4
    np.testing.assert_allclose(table.weights, 0.1 / (0.1 + shares))
    bags = table.bags(counts)
    by_hand = sum(table.weights[t] * table.rows[t] for t in (0, 2, 2)) / 3
    np.testing.assert_allclose(bags[0], by_hand)
    np.testing.assert_array_equal(bags[2], 0)
    weight, bias = rng.normal(size=(3, 2)), rng.normal(size=2)
    folded = table.folded(weight, bias)
    np.testing.assert_allclose(folded[[0, 2, 2]].mean(axis=0), bags[0] @ weight + bias)


def test_what_makes_no_sense_is_refused(rng):
    with pytest.raises(InputError, match="reads nothing"):
        TranslatorSpec(())
    with pytest.raises(InputError, match="map"):
        TranslatorSpec(map="forest")
    with pytest.raises(InputError, match="reach"):
        TranslatorSpec(reach="some")
    inputs = Inputs({"mean": {1: rng.normal(size=(20, 3))}})
    target = rng.normal(size=(20, 3))
    with pytest.raises(InputError, match="sif states of layer 1, which did not come"):
        fit_layer(inputs, target, 1, TranslatorSpec(("sif",)))
    with pytest.raises(InputError, match="bags, which did not come"):
        fit_layer(inputs, target, 1, TranslatorSpec(table=True))
    with pytest.raises(InputError, match="20 texts came, but 19"):
        fit_layer(inputs, target[:19], 1)
    with pytest.raises(InputError, match="a is 0"):
        sif_weights(sparse.csr_array(np.ones((1, 2))), a=0)
