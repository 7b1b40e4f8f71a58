"""Concepts and features: AUROC against scikit-learn, honest halves, planted features found, noise at chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import roc_auc_score

from probes.errors import DataError, InputError
from probes.probing import LinearProbe
from probes.sae.auroc import feature_aurocs
from probes.sae.concepts import COLUMNS as CONCEPT_COLUMNS
from probes.sae.concepts import concepts_of_features, feature_concepts
from probes.sae.halves import Halves, concept_labels
from probes.sae.probing import COLUMNS as PROBING_COLUMNS
from probes.sae.probing import sparse_probing
from probes.types import LabelledTexts


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 25), st.integers(1, 6), st.integers(0, 10**6))
def test_aurocs_are_shares_of_pairs_with_ties_signs_and_zeros(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(-2, 4, (n, m)) / 3
    labels = rng.random((n, 3)) < 0.5
    labels[0], labels[1] = True, False
    wanted = np.empty((3, m))
    for concept, y in enumerate(labels.T):
        over = values[y][:, None] - values[~y][None]  # (positives, negatives, m)
        wanted[concept] = ((over > 0) + 0.5 * (over == 0)).mean((0, 1))
    for codes in (values, sparse.csr_array(values), sparse.coo_array(values)):
        assert np.allclose(feature_aurocs(codes, labels), wanted, atol=1e-12)
    assert wanted[0, 0] == pytest.approx(roc_auc_score(labels[:, 0], values[:, 0]))


def test_stored_zeros_are_zeros_and_dead_features_know_nothing() -> None:
    stored = sparse.csr_array((np.array([0.0, 2, 1]), [0, 0, 1], [0, 1, 2, 3, 3]), shape=(4, 3))
    dense = stored.toarray()
    y = np.array([0, 1, 0, 1], bool)
    assert np.allclose(feature_aurocs(stored, y), feature_aurocs(dense, y))
    assert feature_aurocs(stored, y)[0, 2] == 0.5
    assert stored.nnz == 3
    with pytest.raises(InputError, match="rows with it"):
        feature_aurocs(dense, [True] * 4)
    with pytest.raises(InputError, match="rows of codes"):
        feature_aurocs(dense, [True, False])


def noisy(n: int, m: int, seed: int = 0, share: float = 0.1) -> Any:
    rng = np.random.default_rng(seed)
    return rng.random((n, m)) * (rng.random((n, m)) < share)


class Times:
    """A coder: codes are the states times a matrix, rectified."""

    def __init__(self, W: Any) -> None:
        self.W = W

    def transform(self, X: Any) -> Any:
        return sparse.csr_array(np.maximum(X @ self.W, 0))

    def inverse_transform(self, codes: Any) -> Any:
        return np.asarray(codes @ self.W.T)


@pytest.fixture(scope="module")
def told() -> tuple[Any, dict[str, Any]]:
    """X (600, 8): column 0 tells "first", 3 tells "second" the other way round."""
    rng = np.random.default_rng(1)
    first, second = rng.random(600) < 0.5, rng.random(600) < 0.3
    X = rng.normal(size=(600, 8))
    X[:, 0] += 3 * first
    X[:, 3] -= 3 * second
    return X, {"first": first, "second": second}


def test_the_planted_feature_is_found_and_others_are_beside_it(told: Any) -> None:
    X, labels = told
    spread = np.random.default_rng(0).normal(size=(8, 64)) / 3
    coders = {"sae": Times(np.eye(8)), "random": Times(spread), "neurons": X}
    table = feature_concepts(coders, X, labels, dataset="planted", resamples=300)
    assert tuple(table.columns) == CONCEPT_COLUMNS
    assert len(table) == 2 * 4
    row = table.set_index(["concept", "coder"])
    assert row.loc[("first", "sae"), "feature"] == 0
    assert row.loc[("first", "neurons"), "feature"] == 0
    assert row.loc[("second", "neurons"), "feature"] == 3  # read the other way round
    assert row.loc[("second", "neurons"), "auroc"] > 0.95
    for concept in labels:
        best = row.loc[(concept, "neurons"), "auroc"]
        assert row.loc[(concept, "dense"), "auroc"] > 0.95
        assert row.loc[(concept, "random"), "auroc"] < best
    assert table["feature"].isna().tolist() == [False] * 6 + [True] * 2
    assert (table["low"] < table["auroc"]).all()
    assert (table["auroc"] <= table["high"]).all()
    assert (table["n"] == 300).all()
    again = feature_concepts(coders, X, labels, dataset="planted", resamples=300)
    assert again.equals(table)


def test_numbers_are_those_of_the_half_that_did_not_pick(told: Any) -> None:
    X, labels = told
    table = feature_concepts({"neurons": X}, X, labels, seed=5, resamples=200)
    halves = Halves.make(labels, None, 200, 5)
    for concept, y in labels.items():
        row = table[(table["concept"] == concept) & (table["coder"] == "neurons")].iloc[0]
        fit = [roc_auc_score(y[halves.fit], column) for column in X[halves.fit].T]
        best = int(np.argmax(np.abs(np.array(fit) - 0.5)))
        judged = roc_auc_score(y[halves.judge], X[halves.judge, best])
        assert row["feature"] == best
        assert row["fit_auroc"] == pytest.approx(max(fit[best], 1 - fit[best]))
        assert row["auroc"] == pytest.approx(judged if fit[best] >= 0.5 else 1 - judged)
        dense = table[(table["concept"] == concept) & (table["coder"] == "dense")].iloc[0]
        probe = LinearProbe(random_state=5).fit(X[halves.fit], y[halves.fit])
        wanted = roc_auc_score(y[halves.judge], probe.decision_function(X[halves.judge]))
        assert dense["auroc"] == pytest.approx(wanted)


def test_the_best_of_many_noise_features_is_at_chance_on_the_other_half() -> None:
    inside, fits, values = 0, [], []
    for seed in range(40):
        y = np.random.default_rng(seed).random(160) < 0.5
        codes = noisy(160, 800, seed + 1000, 0.4)
        row = feature_concepts(
            {"sae": codes}, None, {"y": y}, dense=False, seed=seed, resamples=300
        )
        row = row.iloc[0]
        fits.append(row["fit_auroc"])
        values.append(row["auroc"])
        inside += row["low"] <= 0.5 <= row["high"]
    assert min(fits) > 0.63
    assert np.mean(values) == pytest.approx(0.5, abs=0.04)
    assert inside >= 34  # of 40 at 95 %


def test_groups_are_never_on_both_sides_and_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 10)
    y = (np.arange(40) % 2 == 0)[groups]
    signal = (y + rng.normal(size=40)[groups])[:, None] + 0.01 * rng.normal(size=(400, 1))
    halves = Halves.make({"y": y}, groups, 100, 0)
    assert not set(groups[halves.fit]) & set(groups[halves.judge])
    wide = feature_concepts({"one": signal}, None, {"y": y}, groups, dense=False).iloc[0]
    narrow = feature_concepts({"one": signal}, None, {"y": y}, dense=False).iloc[0]
    assert wide["high"] - wide["low"] > 1.8 * (narrow["high"] - narrow["low"])


def test_the_concept_of_each_feature_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    y = {"a": rng.random(400) < 0.5, "b": rng.random(400) < 0.4}
    codes = noisy(400, 30, share=0.3)
    codes[:, 4] += y["a"]
    codes[:, 9] += y["b"]
    codes[:, 20] = 0
    table = concepts_of_features(sparse.csr_array(codes), None, y, dataset="d", resamples=200)
    assert 20 not in set(table["feature"])
    assert len(table) == 29
    halves = Halves.make(y, None, 200, 0)
    for row in table.to_dict("records"):
        column = codes[:, row["feature"]]
        fit = {name: roc_auc_score(v[halves.fit], column[halves.fit]) for name, v in y.items()}
        assert row["concept"] == max(fit, key=lambda name: fit[name])
        assert row["fit_auroc"] == pytest.approx(fit[row["concept"]])
        judged = roc_auc_score(y[row["concept"]][halves.judge], column[halves.judge])
        assert row["auroc"] == pytest.approx(judged)
        assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]
    told = table.set_index("feature")
    assert told.loc[4, "concept"] == "a"
    assert told.loc[9, "concept"] == "b"
    assert min(told.loc[4, "auroc_low"], told.loc[9, "auroc_low"]) > 0.9


def test_few_features_of_a_planted_code_do_what_dense_states_do() -> None:
    rng = np.random.default_rng(0)
    parts = rng.random((800, 6)) < 0.3
    y = parts[:, :3].any(1)  # three features together
    W = np.linalg.qr(rng.normal(size=(24, 24)))[0]
    X = np.hstack([parts, 0.3 * rng.normal(size=(800, 18))]) @ W
    coders = {"sae": Times(W.T), "neurons": X, "random": Times(rng.normal(size=(24, 24)))}
    table = sparse_probing(coders, X, {"any": y}, ks=(1, 3, 10, 500), dataset="d", resamples=200)
    assert tuple(table.columns) == PROBING_COLUMNS
    value = {(r["coder"], r["features"]): r["value"] for r in table.to_dict("records")}
    assert value["sae", 3] > value["sae", 1] + 0.1
    assert value["sae", 3] > value["neurons", 3] + 0.03
    assert value["sae", 3] > value["random", 3] + 0.03
    assert table["features"].max() == 10  # there are no 500
    dense = table[table["coder"] == "dense"].iloc[0]
    assert value["sae", 3] >= dense["value"] - 0.05
    halves = Halves.make({"any": y}, None, 200, 0)
    probe = LinearProbe(random_state=0).fit(X[halves.fit], y[halves.fit])
    wanted = roc_auc_score(y[halves.judge], probe.decision_function(X[halves.judge]))
    assert dense["value"] == pytest.approx(wanted)
    codes = np.maximum(X @ W.T, 0)
    mean = codes[halves.fit][y[halves.fit]].mean(0) - codes[halves.fit][~y[halves.fit]].mean(0)
    best = np.argsort(-np.abs(mean) / codes[halves.fit].std(0))[:3]
    probe = LinearProbe(random_state=0).fit(codes[halves.fit][:, best], y[halves.fit])
    wanted = roc_auc_score(y[halves.judge], probe.decision_function(codes[halves.judge][:, best]))
    assert value["sae", 3] == pytest.approx(wanted, abs=1e-6)


def test_shuffled_labels_stay_at_chance(told: Any) -> None:
    X, labels = told
    y = np.random.default_rng(3).permutation(labels["first"])
    table = sparse_probing({"sae": X}, X, {"y": y}, ks=(1, 5), resamples=300)
    assert (np.abs(table["value"] - 0.5) < 0.15).all()
    assert (table["low"] < 0.55).all()


def test_concepts_of_a_dataset() -> None:
    texts = [f"text {i}" for i in range(90)]
    three = LabelledTexts.make("d", texts, ["a"] * 40 + ["b"] * 40 + ["c"] * 10)
    assert {name: int(y.sum()) for name, y in concept_labels(three).items()} == {"a": 40, "b": 40}
    two = LabelledTexts.make("d", texts, [False] * 40 + [True] * 50)
    assert list(concept_labels(two)) == [two.label_names[1]]


def test_errors(told: Any) -> None:
    X, labels = told
    with pytest.raises(InputError, match="both must agree"):
        feature_concepts({"one": X[:10]}, X, labels)
    with pytest.raises(InputError, match="both must agree"):
        feature_concepts({}, X[:10], labels)
    with pytest.raises(InputError, match="0 and 1"):
        feature_concepts({}, X, {"y": np.arange(600)})
    with pytest.raises(InputError, match="equally many"):
        feature_concepts({}, X, {"y": labels["first"], "z": labels["first"][:9]})
    with pytest.raises(InputError, match="groups"):
        feature_concepts({}, X, labels, [1, 2])
    with pytest.raises(DataError, match="one class"):
        feature_concepts({}, X, {"rare": np.arange(600) == 0})
    with pytest.raises(InputError, match="1 or more"):
        sparse_probing({}, X, labels, ks=(0,))
