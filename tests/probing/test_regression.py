"""Ridge regression and its sweep: against brute force and scikit-learn, with what must not be found beside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from probes.errors import DataError, InputError, NonFiniteError
from probes.linalg import Standardiser
from probes.probing import RidgeRegressionProbe, regression_sweep
from probes.probing.folds import FoldPlan, stratified_folds
from probes.probing.regression_scores import r2_scores, spearman_scores


def line(n: int = 120, d: int = 8, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n + d)
    X = rng.normal(size=(n, d)) * np.geomspace(1, 100, d) + 7
    y = (X - 7) @ (rng.normal(size=d) / np.geomspace(1, 100, d)) + noise * rng.normal(size=n)
    return X, y


def planted_numbers(k: int, layers: int = 5, n: int = 200) -> tuple[dict[int, Any], np.ndarray]:
    """Layers of noise; from k on one direction carries the year."""
    rng = np.random.default_rng(k)
    year = rng.uniform(1800, 2025, n)
    states = {layer: rng.normal(size=(n, 12)) for layer in range(layers)}
    for layer in range(k, layers):
        states[layer] += 2 * stats.zscore(year)[:, None] * rng.normal(size=12) / np.sqrt(12)
    return states, year


class TestProbe:
    @pytest.mark.parametrize(("n", "d"), [(40, 8), (24, 60)])
    @pytest.mark.parametrize("grouped", [False, True])
    def test_lambda_is_chosen_by_exact_leave_one_out_per_target(
        self, n: int, d: int, grouped: bool
    ) -> None:
        X, y = line(n, d)
        Y = np.column_stack([y, 1000 * np.random.default_rng(0).normal(size=n) + 5])
        alphas = (0.1, 10.0, 1000.0)
        groups = np.random.default_rng(1).integers(0, 9, n) if grouped else None
        probe = RidgeRegressionProbe(alphas=alphas).fit(X, Y, groups=groups)
        Z = Standardiser.fit(X).transform(X)
        owner = np.arange(n) if groups is None else groups
        for t, target in enumerate(Y.T):
            errors = np.empty((len(alphas), n))
            for a, alpha in enumerate(alphas):
                for g in np.unique(owner):
                    out = owner == g
                    judge = Ridge(alpha).fit(Z[~out], target[~out])
                    errors[a, out] = target[out] - judge.predict(Z[out])
            brute = np.square(errors).mean(axis=1)
            np.testing.assert_allclose(probe.loo_error_[:, t], brute, rtol=1e-6)
            assert probe.alpha_[t] == alphas[int(brute.argmin())]
            judge = Ridge(probe.alpha_[t]).fit(Z, target)
            np.testing.assert_allclose(probe.predict(X)[:, t], judge.predict(Z), rtol=1e-7)
        assert probe.alpha_[0] != probe.alpha_[1]  # each target its own

    def test_shapes_for_one_target_and_for_several(self) -> None:
        X, y = line()
        one = RidgeRegressionProbe().fit(X, y)
        two = RidgeRegressionProbe().fit(X, np.column_stack([y, -2 * y]))
        assert (one.coef_.shape, np.shape(one.intercept_), one.predict(X).shape) == (
            (8,),
            (),
            (120,),
        )
        assert (two.coef_.shape, two.intercept_.shape, two.predict(X).shape) == (
            (2, 8),
            (2,),
            (120, 2),
        )
        np.testing.assert_allclose(two.coef_[1], -2 * one.coef_, rtol=1e-9)
        assert isinstance(one.alpha_, float)
        assert two.loo_error_.shape == (8, 2)

    def test_units_of_the_target_change_nothing_but_units(self) -> None:
        """Float32 states, a target of spread 30 about 2e6: a year in seconds keeps its digits."""
        X, y = line()
        X32 = X.astype(np.float32)
        plain = RidgeRegressionProbe().fit(X32, y)
        far = RidgeRegressionProbe().fit(X32, 30 * y + 2e6)
        np.testing.assert_allclose(
            (far.predict(X32) - 2e6) / 30, plain.predict(X32), atol=1e-5 * np.ptp(y)
        )
        assert far.alpha_ == plain.alpha_

    def test_numbers_without_relation_are_not_explained(self) -> None:
        X, y = line(300)
        noise = np.random.default_rng(0).permutation(y)
        assert RidgeRegressionProbe().fit(X[:200], y[:200]).score(X[200:], y[200:]) > 0.8
        assert RidgeRegressionProbe().fit(X[:200], noise[:200]).score(X[200:], noise[200:]) < 0.1

    def test_batched_folds_equal_a_loop_of_fits(self) -> None:
        X, y = line(90, 6)
        Y = np.stack([y, np.random.default_rng(0).normal(size=90)])
        groups = np.arange(90) // 3
        folds = stratified_folds(np.zeros(90, dtype=np.int64), groups, 4, 0)
        plan = FoldPlan.make([train for train, _ in folds], 90)
        predicted, chosen = RidgeRegressionProbe().out_of_fold(X, Y, folds, plan, groups)
        for fold, (train, test) in enumerate(folds):
            judge = RidgeRegressionProbe().fit(X[train], Y[:, train].T, groups=groups[train])
            np.testing.assert_allclose(predicted[:, test].T, judge.predict(X[test]), atol=1e-8)
            np.testing.assert_array_equal(chosen[fold], judge.alpha_)


class TestScores:
    def test_their_mean_is_r_squared(self) -> None:
        rng = np.random.default_rng(0)
        Y = rng.normal(size=(2, 80))
        guess = Y + rng.normal(size=(2, 80)) * [[0.3], [1.5]]
        baseline = np.zeros((2, 80)) + Y.mean(axis=1, keepdims=True)
        usual = r2_score(Y.T, guess.T)  # about the same mean the two definitions agree
        assert r2_scores(Y, guess, baseline).mean() == pytest.approx(usual, rel=1e-12)

    def test_knowing_the_training_mean_only_is_exactly_zero(self) -> None:
        Y = np.random.default_rng(0).normal(size=(1, 60))
        baseline = np.repeat(np.random.default_rng(1).normal(size=(1, 6)), 10, axis=1)
        np.testing.assert_allclose(r2_scores(Y, baseline, baseline), 0, atol=1e-15)

    def test_spearman_is_that_within_folds(self) -> None:
        rng = np.random.default_rng(0)
        fold = np.arange(90) % 3
        x = rng.normal(size=90)
        y = np.round(x + rng.normal(size=90), 1) + 100 * fold  # folds have no common zero
        expected = np.mean([stats.spearmanr(x[fold == f], y[fold == f])[0] for f in range(3)])
        found = spearman_scores(x[None], y[None], fold)
        assert found.mean() == pytest.approx(expected, rel=1e-12)
        assert spearman_scores(x[None], np.zeros((1, 90)), fold).tolist() == [0] * 90

    @pytest.mark.parametrize("ties", [False, True])
    def test_influences_are_the_jackknife(self, ties: bool) -> None:
        """What Spearman's correlation gains by an example, against leaving the example out."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=300)
        y = x + rng.normal(size=300)
        if ties:
            x, y = np.round(x), np.round(2 * y)
        scores = spearman_scores(x[None], y[None], np.zeros(300, dtype=int))
        whole = stats.spearmanr(x, y)[0]
        keep = ~np.eye(300, dtype=bool)
        jackknife = [299 * (whole - stats.spearmanr(x[k], y[k])[0]) for k in keep]
        agreement = np.corrcoef(scores - whole, jackknife)[0, 1]
        assert agreement > (0.8 if ties else 0.999)
        assert np.std(scores) == pytest.approx(np.std(jackknife), rel=0.5 if ties else 0.02)


class TestSweep:
    @pytest.mark.parametrize("k", [0, 2, 4])
    def test_finds_the_planted_layer(self, k: int) -> None:
        states, year = planted_numbers(k)
        table, curves = regression_sweep(states, year, concept="year", controls=["shuffled"])
        own = table[table.variant.isna()]
        for measure in ("r2", "spearman"):
            found = own[own.measure == measure].set_index("layer")
            assert [layer for layer in range(5) if found.low[layer] > 0.1] == list(range(k, 5))
        control = table[(table.variant == "shuffled") & (table.measure == "r2")]
        assert (control.low <= 0).all()
        assert (control.value < 0.1).all()
        curve, shuffled = curves
        np.testing.assert_allclose(curve.values, own[own.measure == "r2"].value.astype(float))
        assert (curve.concept, curve.measure, curve.chance) == ("year", "r2", 0.0)
        assert shuffled.variant == "shuffled"

    def test_several_concepts_share_folds_and_change_nothing(self) -> None:
        states, year = planted_numbers(1, layers=2)
        place = np.random.default_rng(0).normal(size=(len(year), 2))
        both, curves = regression_sweep(states, {"year": year, "place": place})
        alone, _ = regression_sweep(states, year, concept="year")
        found = both[both.concept == "year"].reset_index(drop=True)
        np.testing.assert_allclose(found.value.astype(float), alone.value.astype(float))
        assert [curve.concept for curve in curves] == ["year", "place"]
        assert {c["target"] for c in both.attrs["chosen"] if c["concept"] == "place"} == {0, 1}

    def test_several_targets_are_averaged(self) -> None:
        states, year = planted_numbers(0, layers=1)
        other = np.random.default_rng(0).permutation(year)
        two, _ = regression_sweep(states, np.column_stack([year, other]))
        each = [
            regression_sweep(states, {"first": year, "own": target})[0] for target in (year, other)
        ]
        apart = [table[table.concept == "own"].value.astype(float).to_numpy() for table in each]
        np.testing.assert_allclose(two.value.astype(float), np.mean(apart, axis=0))

    def test_groups_never_straddle(self) -> None:
        """Twins with a number of their own: random folds read it off the twin, folds by group do not."""
        rng = np.random.default_rng(0)
        X, y = np.repeat(rng.normal(size=(60, 80)), 4, axis=0), np.repeat(rng.normal(size=60), 4)
        X += 0.01 * rng.normal(size=X.shape)
        groups = np.repeat(np.arange(60), 4)
        leaking, _ = regression_sweep({0: X}, y)
        honest, curves = regression_sweep({0: X}, y, groups=groups)
        assert leaking[leaking.measure == "r2"].value.item() > 0.7
        assert honest[honest.measure == "r2"].value.item() < 0.15
        assert curves[0].groups is not None

    def test_intervals_hold_zero_without_signal(self) -> None:
        """λ choice included: 60 sets of noise, of which 95 % would hold 0; 3 standard errors of that are 8 %."""
        rng = np.random.default_rng(0)
        states = {seed: rng.normal(size=(100, 10)) for seed in range(60)}
        table, _ = regression_sweep(states, rng.normal(size=100))
        for measure in ("r2", "spearman"):
            found = table[table.measure == measure]
            assert ((found.low <= 0) & (found.high >= 0)).mean() >= 0.86

    def test_same_seed_same_table(self) -> None:
        states, year = planted_numbers(1, layers=2)
        first, again = (regression_sweep(states, year, seed=4)[0] for _ in range(2))
        assert first.equals(again)
        assert not first.equals(regression_sweep(states, year, seed=5)[0])

    def test_blocks_and_places_are_written_into_the_rows(self) -> None:
        states, year = planted_numbers(0, layers=2)
        table, _ = regression_sweep(
            states, year, site="attn_out", dataset="d", pooling="last", variant="weights=int8"
        )
        assert table.layer.isna().all()
        assert table.block.tolist() == [0, 0, 1, 1]
        assert set(table.variant) == {"weights=int8"}

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"targets": np.array(["a"] * 200)}, DataError, "numbers"),
            ({"targets": np.full(200, 3.0)}, DataError, "one value"),
            ({"targets": np.r_[np.nan, np.ones(199)]}, DataError, "row 0"),
            ({"targets": np.ones((200, 2, 2))}, DataError, "shape"),
            ({"targets": np.arange(199.0)}, DataError, "199 are needed"),
            ({"targets": {}}, InputError, "no concept"),
            ({"targets": {"a": np.arange(200), "b": np.arange(9)}}, DataError, "different lengths"),
            ({"controls": ["shufled"]}, InputError, "did you mean 'shuffled'"),
            ({"cv": 1}, InputError, "folds are possible"),
            ({"groups": [1, 2]}, InputError, "one per row"),
        ],
        ids=str,
    )
    def test_errors(self, change: dict[str, Any], error: type, message: str) -> None:
        states, year = planted_numbers(0, layers=1)
        with pytest.raises(error, match=message):
            regression_sweep(states, **{"targets": year} | change)

    def test_states_that_are_not_finite(self) -> None:
        states, year = planted_numbers(0, layers=2)
        states[1][4, 4] = np.nan
        with pytest.raises(NonFiniteError, match=r"layer 1 .* row 4"):
            regression_sweep(states, year)
