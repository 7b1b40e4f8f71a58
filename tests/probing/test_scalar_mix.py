"""Scalar mix: the layer that knows gets the weight, however large the states of the others are."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import optimize
from scipy.special import softmax
from sklearn.utils.estimator_checks import check_estimator

from probes.errors import InputError
from probes.linalg import Standardiser
from probes.probing import LinearProbe, ScalarMixProbe
from probes.probing.scalar_mix import PRIOR


def planted(
    at: int, classes: int = 2, n: int = 200, layers: int = 5, d: int = 8, shift: float = 4.0
):
    rng = np.random.default_rng(at)
    y = rng.permutation(np.arange(n) % classes)
    X = rng.normal(size=(n, layers, d))
    X[:, at] += shift * np.eye(classes, d)[y]
    return X, y


def test_scikit_learn_accepts_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(ScalarMixProbe(), on_fail=None)
    assert not {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert sum(r["status"] == "passed" for r in results) > 40


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("at", [0, 2, 4])
def test_weight_lies_on_the_planted_layer(at: int, classes: int) -> None:
    X, y = planted(at, classes)
    probe = ScalarMixProbe().fit(X[:140], y[:140])
    assert int(probe.weights_.argmax()) == int(probe.layer_share_.argmax()) == at
    assert probe.weights_[at] > 0.6
    assert probe.weights_.sum() == pytest.approx(1)
    assert probe.layer_share_.sum() == pytest.approx(1)
    assert probe.score(X[140:], y[140:]) > 0.9
    assert probe.predict_proba(X).sum(axis=1) == pytest.approx(1)
    assert (np.diff(probe.objective_) <= 1e-6 * probe.objective_[0]).all()  # every turn descends


def test_without_signal_it_is_at_chance() -> None:
    X, y = planted(1)
    y = np.random.default_rng(9).permutation(y)
    assert abs(ScalarMixProbe().fit(X[:140], y[:140]).score(X[140:], y[140:]) - 0.5) < 0.2


def test_size_of_the_states_does_not_matter() -> None:
    """The claim of normalising: a layer a thousand times as large neither drowns nor shouts."""
    X, y = planted(2)
    scale = np.array([1e3, 1.0, 1e-3, 30.0, 1.0])[:, None]
    plain, scaled = (ScalarMixProbe(Cs=(1.0,)).fit(Z, y) for Z in (X, X * scale + 5 * scale))
    np.testing.assert_allclose(scaled.weights_, plain.weights_, atol=1e-3)
    np.testing.assert_allclose(
        scaled.decision_function(X * scale + 5 * scale), plain.decision_function(X), atol=2e-2
    )


def test_combines_layers_that_know_different_halves() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    X = rng.normal(size=(400, 2, 6))
    X[:, 0, 0] += 1.5 * y
    X[:, 1, 1] += 1.5 * y
    mixed = ScalarMixProbe().fit(X[:300], y[:300]).score(X[300:], y[300:])
    single = max(LinearProbe().fit(X[:300, k], y[:300]).score(X[300:, k], y[300:]) for k in (0, 1))
    assert mixed > single


def test_turns_reach_the_minimum_of_all_parameters_at_once() -> None:
    X, y = planted(1, n=80, layers=3, d=4, shift=1.5)
    ours = ScalarMixProbe(Cs=(0.5,), rounds=500, tol=1e-12).fit(X, y)
    Z = np.stack([Standardiser.fit(X[:, k]).transform(X[:, k]) for k in range(3)])

    def joint(theta: np.ndarray) -> float:
        a, w, b = theta[:3], theta[3:7], theta[7]
        mix = np.tensordot(softmax(a), Z, axes=1)
        z = mix / np.sqrt(np.square(mix).mean()) @ w + b
        return float((np.logaddexp(0, z) - y * z).sum() + w @ w + PRIOR * a @ a)

    judge = optimize.minimize(joint, np.zeros(8), method="BFGS", options={"gtol": 1e-7})
    assert ours.objective_[-1] == pytest.approx(judge.fun, rel=1e-5)
    np.testing.assert_allclose(ours.weights_, softmax(judge.x[:3]), atol=5e-3)
    mix = np.tensordot(softmax(judge.x[:3]), Z, axes=1)
    decision = mix / np.sqrt(np.square(mix).mean()) @ judge.x[3:7] + judge.x[7]
    np.testing.assert_allclose(ours.decision_function(X), decision, atol=2e-2)


def test_one_layer_is_logistic_regression() -> None:
    X, y = planted(0, layers=1)
    ours, judge = ScalarMixProbe(Cs=(0.3,)).fit(X, y), LinearProbe(Cs=(0.3,)).fit(X[:, 0], y)
    assert ours.weights_.tolist() == [1.0]
    np.testing.assert_allclose(
        ours.decision_function(X), judge.decision_function(X[:, 0]), atol=1e-2
    )
    flat = ScalarMixProbe(Cs=(0.3,)).fit(X[:, 0], y)  # (n, d) is one layer
    np.testing.assert_array_equal(flat.decision_function(X[:, 0]), ours.decision_function(X))


def test_mapping_of_layers() -> None:
    X, y = planted(2)
    states = {3 * k: X[:, k] for k in range(5)}
    ours = ScalarMixProbe(Cs=(1.0,)).fit(states, y)
    assert ours.layers_.tolist() == [0, 3, 6, 9, 12]
    np.testing.assert_array_equal(ours.coef_, ScalarMixProbe(Cs=(1.0,)).fit(X, y).coef_)
    np.testing.assert_array_equal(ours.predict(states), ours.predict(X))
    with pytest.raises(InputError, match=r"layers \[0, 3\] were given, the probe was fitted on"):
        ours.predict({0: X[:, 0], 3: X[:, 1]})


def test_same_data_same_weights_and_constant_layers_are_harmless() -> None:
    X, y = planted(1)
    X[:, 3] = 7.0
    first, second = ScalarMixProbe().fit(X, y), ScalarMixProbe().fit(X, y)
    np.testing.assert_array_equal(first.weights_, second.weights_)
    assert first.layer_share_[3] == 0
    assert ScalarMixProbe(Cs=(1.0,)).fit(np.ones((20, 2, 3)), np.arange(20) % 2).score(
        np.ones((20, 2, 3)), np.arange(20) % 2
    ) == pytest.approx(0.5)


def test_errors_say_what_came() -> None:
    X, y = planted(0)
    with pytest.raises(ValueError, match="needs samples of two classes"):
        ScalarMixProbe().fit(X, y * 0)
    with pytest.raises(InputError, match=r"shape \(200, 5, 4, 2\): \(n, layers, d\)"):
        ScalarMixProbe().fit(X.reshape(200, 5, 4, 2), y)
    fitted = ScalarMixProbe(Cs=(1.0,)).fit(X, y)
    with pytest.raises(
        InputError, match="X has 5 layers of width 7, the probe was fitted on 5 of 8"
    ):
        fitted.predict(X[:, :, :7])
    with pytest.raises(ValueError, match="NaN"):
        ScalarMixProbe().fit(np.where(X > 2, np.nan, X), y)
