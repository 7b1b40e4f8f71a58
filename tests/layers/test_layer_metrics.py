"""Conformance of every registered layer metric, closed forms, and independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.linalg import svdvals
from scipy.spatial.distance import pdist

from probes.errors import DataError, DoesNotApply, InputError, NonFiniteError
from probes.layers import anisotropy, effective_rank, measure_layers
from probes.registry import LAYER_METRICS
from probes.tables import validate

NAMES = sorted(LAYER_METRICS)


def states(n: int = 40, d: int = 12, seed: int = 0) -> np.ndarray:
    """Rows of one population: a spectrum and a mean that do not depend on the seed."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * np.arange(1, d + 1) + np.sin(np.arange(d))


@pytest.mark.parametrize("name", NAMES)
class TestConformance:
    def test_value_is_a_float_in_the_declared_range(self, name: str) -> None:
        metric = LAYER_METRICS[name]
        low, high = metric.measure.low, metric.measure.high
        for n, d in ((40, 12), (5, 30), (2, 3)):
            if name == "intrinsic_dimension" and n == 2:
                continue  # refused: see its own test
            value = metric.compute(states(n, d))
            assert isinstance(value, float)
            assert low is None or value >= low - 1e-9
            assert high is None or value <= high + 1e-9

    def test_declared_invariances_hold(self, name: str) -> None:
        metric = LAYER_METRICS[name]
        X = states()
        rng = np.random.default_rng(1)
        changed = {
            "rotation": X @ np.linalg.qr(rng.normal(size=(12, 12)))[0],
            "scale": 1e-3 * X,
            "translation": X + rng.normal(size=12),
            "permutation": X[rng.permutation(len(X))],
        }
        assert metric.invariances <= set(changed)
        for kind, other in changed.items():
            same = metric.compute(other) == pytest.approx(metric.compute(X), rel=1e-9)
            assert same == (kind in metric.invariances), kind

    def test_input_is_untouched_and_the_answer_repeats(self, name: str) -> None:
        metric = LAYER_METRICS[name]
        for dtype in (np.float32, np.float64):
            X = states().astype(dtype)
            before = X.copy()
            assert metric.compute(X) == metric.compute(X)
            if metric.influence:
                metric.influence(X)
            np.testing.assert_array_equal(X, before)

    def test_influence_is_the_derivative_in_the_weights(self, name: str) -> None:
        """A row repeated once more has weight 2; the slope is checked against repeating all rows many times but one."""
        metric = LAYER_METRICS[name]
        if metric.influence is None or metric.limit is not None:
            pytest.skip(
                "pairs of a row and its own copy have no part in it: the jackknife below checks it"
            )
        X, times = states(30), 60
        shares = metric.influence(X)
        many = np.repeat(X, times, axis=0)
        level = metric.compute(many)
        slopes = [
            (metric.compute(np.vstack([many, X[i]])) - level) * times for i in range(0, 30, 7)
        ]
        scale = np.abs(shares).max()
        np.testing.assert_allclose(slopes, shares[::7], atol=0.05 * scale)

    def test_influence_is_what_leaving_a_row_out_changes(self, name: str) -> None:
        metric = LAYER_METRICS[name]
        if metric.influence is None:
            pytest.skip("has no influence function")
        X, rows = states(300), range(0, 300, 6)
        level = metric.compute(X)
        left_out = np.array([level - metric.compute(np.delete(X, i, axis=0)) for i in rows])
        shares = metric.influence(X)[rows]
        if name == "intrinsic_dimension":  # leaving a row out also moves its neighbours' ratios
            assert np.corrcoef(left_out, shares)[0, 1] > 0.4
        else:
            # a change of n itself (ranks grow with it) moves all rows alike
            np.testing.assert_allclose(
                left_out - left_out.mean(), shares - shares.mean(), atol=0.1 * np.abs(shares).max()
            )

    def test_documented(self, name: str) -> None:
        measure = LAYER_METRICS[name].measure
        assert measure.paper
        assert measure.summary.endswith(".")
        assert LAYER_METRICS[name].compute.__doc__

    def test_bad_input(self, name: str) -> None:
        compute = LAYER_METRICS[name].compute
        with pytest.raises(NonFiniteError):
            compute(np.array([[1.0, np.nan], [1, 2]]))
        with pytest.raises(InputError):
            compute(np.ones(3))
        with pytest.raises(InputError):
            compute(np.ones((0, 3)))

    def test_degenerate_input_is_refused_with_a_reason(self, name: str) -> None:
        with pytest.raises(DoesNotApply):
            LAYER_METRICS[name].compute(np.zeros((4, 3)))
        if name == "effective_rank_uncentred":
            assert LAYER_METRICS[name].compute(np.ones((1, 3))) == pytest.approx(1)
        else:
            with pytest.raises(DoesNotApply):
                LAYER_METRICS[name].compute(np.ones((1, 3)))


class TestEffectiveRank:
    @pytest.mark.parametrize(("n", "d"), [(6, 10), (10, 6), (7, 7)])
    def test_orthonormal(self, n: int, d: int) -> None:
        Q = np.linalg.qr(np.random.default_rng(0).normal(size=(max(n, d), max(n, d))))[0][:n, :d]
        Q = Q if n <= d else np.linalg.qr(Q)[0]
        assert effective_rank(Q, center=False) == pytest.approx(min(n, d), abs=1e-6)

    def test_rank_one(self) -> None:
        X = np.outer(np.arange(1.0, 9), [1, -2, 3])
        assert effective_rank(X) == pytest.approx(1, abs=1e-6)
        assert effective_rank(X, center=False) == pytest.approx(1, abs=1e-6)

    def test_known_spectrum(self) -> None:
        X = np.diag([4.0, 2, 1, 1])
        p = np.array([4, 2, 1, 1]) / 8
        assert effective_rank(X, center=False) == pytest.approx(np.exp(stats.entropy(p)), rel=1e-12)

    @pytest.mark.parametrize("center", [True, False])
    @pytest.mark.parametrize(("n", "d"), [(50, 9), (9, 50)])
    def test_independent_implementation(self, n: int, d: int, center: bool) -> None:
        X = states(n, d)
        sigma = svdvals(X - X.mean(0) if center else X)
        assert effective_rank(X, center) == pytest.approx(np.exp(stats.entropy(sigma)), rel=1e-9)

    def test_centring_changes_everything(self) -> None:
        X = np.random.default_rng(0).normal(size=(200, 10)) + 100
        assert effective_rank(X) > 9
        assert effective_rank(X, center=False) < 2

    @pytest.mark.parametrize("value", [0.1, 1e8, 1 / 3])
    def test_equal_rows_leave_only_rounding(self, value: float) -> None:
        with pytest.raises(DoesNotApply, match="all rows are equal"):
            effective_rank(np.full((30, 7), value))
        assert effective_rank(np.full((30, 7), value), center=False) == pytest.approx(1)


class TestAnisotropy:
    @pytest.mark.parametrize("seed", range(3))
    def test_isotropic_gaussian(self, seed: int) -> None:
        X = np.random.default_rng(seed).normal(size=(2000, 100))
        assert anisotropy(X) == pytest.approx(0, abs=0.02)

    def test_one_direction(self) -> None:
        assert anisotropy(np.outer(np.arange(1, 6), [1.0, 2])) == pytest.approx(1)
        assert anisotropy(np.array([[1.0, 0], [-3, 0]])) == pytest.approx(-1)

    def test_regular_simplex_is_the_least(self) -> None:
        X = np.eye(5) - 1 / 5
        assert anisotropy(X) == pytest.approx(-1 / 4)

    def test_independent_implementation_and_double_loop(self) -> None:
        X = states(25, 6)
        assert anisotropy(X) == pytest.approx(np.mean(1 - pdist(X, "cosine")), rel=1e-9)
        pairs = [
            X[i] @ X[j] / np.linalg.norm(X[i]) / np.linalg.norm(X[j])
            for i in range(25)
            for j in range(25)
            if i != j
        ]
        assert anisotropy(X) == pytest.approx(np.mean(pairs), rel=1e-9)

    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_extreme_scales(self, scale: float) -> None:
        X = states().astype(np.float32)
        assert anisotropy(X * np.float32(scale)) == pytest.approx(anisotropy(X), rel=1e-5)

    def test_a_zero_row_is_named(self) -> None:
        X = states()
        X[7] = 0
        with pytest.raises(DoesNotApply, match=r"row 7 is zero \(1 of 40"):
            anisotropy(X)


class TestTable:
    def test_all_metrics_over_layers(self) -> None:
        table = measure_layers(
            {0: states(), 1: states(seed=1)}, dataset="toy", pooling="mean", seed=3
        )
        validate(table.copy())
        assert len(table) == 2 * len(NAMES)
        assert set(table.n) == {40}
        assert set(table.seed) == {3}
        assert ((table.low < table.value) & (table.value < table.high)).all()

    def test_undefined_is_null_with_a_reason(self) -> None:
        table = measure_layers({0: np.ones((5, 3)), 1: states()}, ["effective_rank"])
        assert table.value.isna().tolist() == [True, False]
        assert table.low.isna().tolist() == [True, False]
        assert "layer 0: effective rank of 5 rows: all rows are equal" in table.attrs["notes"][0]

    def test_no_intervals_on_request_or_for_two_rows(self) -> None:
        assert measure_layers({0: states()}, confidence=None).low.isna().all()
        assert measure_layers({0: states(2, 5)}).low.isna().all()

    @pytest.mark.parametrize("name", NAMES)
    def test_interval_covers_the_value_of_other_texts(self, name: str) -> None:
        """Half-widths against the spread over independent samples of the same size."""
        draws = [states(300, 12, seed) for seed in range(60)]
        tables = [measure_layers({0: X}, [name]) for X in draws]
        spread = np.std([float(t.value[0]) for t in tables])
        half = np.mean([float(t.high[0] - t.low[0]) / 2 for t in tables])
        assert half / (1.96 * spread) == pytest.approx(1, abs=0.35)

    def test_groups_widen_the_interval(self) -> None:
        X = np.repeat(states(30), 8, axis=0)
        groups = np.repeat(np.arange(30), 8)
        alone, together = (measure_layers({0: X}, ["anisotropy"], groups=g) for g in (None, groups))
        widths = [float(t.high[0] - t.low[0]) for t in (alone, together)]
        assert widths[1] / widths[0] == pytest.approx(np.sqrt(8), rel=0.1)

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"metrics": ["efective_rank"]}, InputError),
            ({"states": {}}, InputError),
            ({"states": {0: np.full((3, 2), np.inf)}}, NonFiniteError),
            ({"groups": [1]}, DataError),
            ({"confidence": 2.0}, InputError),
        ],
    )
    def test_bad_input(self, change: dict[str, object], error: type[Exception]) -> None:
        with pytest.raises(error):
            measure_layers(**{"states": {0: states()}, **change})  # type: ignore[arg-type]
