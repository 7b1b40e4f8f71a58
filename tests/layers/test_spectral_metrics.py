"""Metrics of one layer's states: closed forms, definitions step by step, independent libraries, degenerate input."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import skdim
from scipy.linalg import svdvals
from scipy.spatial.distance import pdist

from probes.errors import DoesNotApply, InputError
from probes.layers import (
    centroid_distance,
    coding_rate,
    dataset_entropy,
    effective_rank,
    effective_rank_uncentred,
    intrinsic_dimension,
    isoscore,
    measure_layers,
    participation_ratio,
    spectra,
    spectral_entropy_rank,
    spectrum,
    top_share,
    uniformity,
)
from probes.layers.states import BLOCK, States, sample_rows
from probes.registry import LAYER_METRICS


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def orthonormal(n: int, d: int) -> np.ndarray:
    """(n, d) with orthonormal rows, or orthonormal columns when n > d."""
    Q = np.linalg.qr(normal(max(n, d), min(n, d)))[0]
    return Q if n > d else Q.T


def with_variances(variances: np.ndarray) -> np.ndarray:
    """Centred rows, 2d of them, whose covariance is turned but has these eigenvalues (times 2d)."""
    axes = np.diag(np.sqrt(np.asarray(variances) / 2))
    return np.vstack([axes, -axes]) @ orthonormal(len(axes), len(axes)) + 3.0


class TestSharedSpectrum:
    @pytest.mark.parametrize(
        ("n", "d"), [(50, 12), (12, 50), (13, 12), (12, 12), (2 * BLOCK + 5, 6)]
    )
    def test_equals_scipy(self, n: int, d: int) -> None:
        X = (normal(n, d) * np.geomspace(1, 1e-6, d) + 5).astype(np.float32)
        wide = X.astype(np.float64)
        scale = svdvals(wide)[0]
        np.testing.assert_allclose(
            spectrum(X), svdvals(wide - wide.mean(axis=0)), atol=1e-12 * scale
        )
        np.testing.assert_allclose(spectrum(X, center=False), svdvals(wide), atol=1e-12 * scale)

    @pytest.mark.parametrize(("n", "d"), [(50, 12), (12, 50), (BLOCK + 5, 6)])
    def test_shares_sum_to_the_eigenvalues(self, n: int, d: int) -> None:
        states = States(normal(n, d) + 1)
        for found in (
            states.centred("test"),
            states.uncentred("test"),
            states.unit_spectrum("test"),
        ):
            np.testing.assert_allclose(
                found.shares.sum(axis=0), found.eigenvalues, rtol=1e-5, atol=1e-9
            )
        assert states.unit_spectrum("test").eigenvalues.sum() == pytest.approx(n)

    def test_small_singular_values_stay_exact(self) -> None:
        X = np.diag(10.0 ** -np.arange(0, 13, 3))
        np.testing.assert_allclose(spectrum(X, center=False), np.diag(X), rtol=1e-10)

    def test_work_is_done_once_for_a_layer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = []
        original = np.linalg.svd

        def counted(*args: object, **options: object) -> object:
            calls.append(1)
            return original(*args, **options)  # type: ignore[call-overload]

        monkeypatch.setattr(np.linalg, "svd", counted)
        measure_layers({0: normal(60, 5)})
        assert len(calls) == 3  # centred, uncentred, unit rows

    @pytest.mark.parametrize("scale", [1e-30, 1e30, 1e-160, 1e160])
    def test_extreme_scales(self, scale: float) -> None:
        X = normal(30, 4) + 1
        for name, metric in LAYER_METRICS.items():
            assert metric.compute(X * scale) == pytest.approx(metric.compute(X), rel=1e-9), name

    def test_spectra_table(self) -> None:
        table = spectra({0: normal(30, 4), 1: np.ones((30, 4)), 2: normal(3, 4)}, limit=20, seed=5)
        assert table.groupby("layer").size().to_dict() == {0: 4, 2: 3}
        assert table.groupby("layer")["share"].sum().to_numpy() == pytest.approx(1)
        assert table.n.unique().tolist() == [20, 3]
        assert "layer 1: spectrum of 20 rows: all rows are equal" in table.attrs["notes"][0]
        rows = sample_rows(30, 20, 5)
        assert table.singular_value[0] == pytest.approx(spectrum(normal(30, 4)[rows])[0])


class TestClosedForms:
    @pytest.mark.parametrize("d", [2, 5, 9])
    def test_equal_variances(self, d: int) -> None:
        X = with_variances(np.ones(d))
        for rank in (effective_rank, spectral_entropy_rank, participation_ratio):
            assert rank(X) == pytest.approx(d, abs=1e-6)
        assert isoscore(X) == pytest.approx(1, abs=1e-6)
        assert top_share(X) == pytest.approx(1 / d, abs=1e-6)

    def test_rank_one(self) -> None:
        X = np.outer(np.arange(1.0, 9), [1, -2, 3])
        for rank in (effective_rank, spectral_entropy_rank, participation_ratio):
            assert rank(X) == pytest.approx(1, abs=1e-6)
        assert isoscore(X) == pytest.approx(0, abs=1e-6)
        assert top_share(X, 1) == pytest.approx(1, abs=1e-6)
        assert dataset_entropy(X) == pytest.approx(0, abs=1e-6)
        assert coding_rate(X) == pytest.approx(np.log(1 + 3 / 0.5) / 2, abs=1e-6)
        assert uniformity(X) == pytest.approx(0, abs=1e-6)
        assert centroid_distance(X) == pytest.approx(0, abs=1e-6)

    def test_known_variances(self) -> None:
        variances = np.array([4.0, 2, 1, 1])
        X, p = with_variances(variances), variances / 8
        assert spectral_entropy_rank(X) == pytest.approx(np.exp(-(p @ np.log(p))), abs=1e-6)
        assert participation_ratio(X) == pytest.approx(64 / 22, abs=1e-6)
        assert [top_share(X, k) for k in (1, 3, 10)] == pytest.approx([4 / 8, 7 / 8, 1])
        assert spectral_entropy_rank(X) < effective_rank(X)

    @pytest.mark.parametrize(("n", "d"), [(6, 10), (10, 6), (7, 7)])
    def test_orthonormal(self, n: int, d: int) -> None:
        Q, r = orthonormal(n, d), min(n, d)
        assert effective_rank_uncentred(Q) == pytest.approx(r, abs=1e-6)
        if n <= d:
            assert dataset_entropy(Q) == pytest.approx(1, abs=1e-6)
            assert dataset_entropy(Q, alpha=2) == pytest.approx(1, abs=1e-6)
            assert coding_rate(Q) == pytest.approx(n / 2 * np.log(1 + d / (n * 0.5)), abs=1e-6)
            assert uniformity(Q) == pytest.approx(-4, abs=1e-6)
            assert centroid_distance(Q) == pytest.approx(np.sqrt(1 - 1 / n), abs=1e-6)

    def test_two_points(self) -> None:
        X = np.array([[1.0, 0], [-2, 0]])
        assert uniformity(X) == pytest.approx(-8)
        assert centroid_distance(X) == pytest.approx(1)

    def test_many_isotropic_directions(self) -> None:
        X = normal(2000, 100)
        assert isoscore(X) > 0.9
        assert uniformity(X) == pytest.approx(-4, abs=0.2)
        assert dataset_entropy(X) > 0.98


class TestDefinitions:
    def test_isoscore_step_by_step(self) -> None:
        X = normal(60, 7) * np.arange(1, 8)
        d = 7
        variances = np.linalg.eigvalsh(np.cov(X.T))
        hat = np.sqrt(d) * variances / np.linalg.norm(variances)
        defect = np.linalg.norm(hat - 1) / np.sqrt(2 * (d - np.sqrt(d)))
        share = (d - defect**2 * (d - np.sqrt(d))) ** 2 / d**2
        assert isoscore(X) == pytest.approx((d * share - 1) / (d - 1), rel=1e-9)

    @pytest.mark.parametrize(("n", "d"), [(20, 6), (6, 20)])
    def test_entropy_and_coding_rate_by_gram_matrix(self, n: int, d: int) -> None:
        X = normal(n, d) + 0.5
        Z = X / np.linalg.norm(X, axis=1, keepdims=True)
        values = np.linalg.eigvalsh(Z @ Z.T / n)
        values = values[values > 1e-12]
        most = np.log(min(n, d))
        assert dataset_entropy(X) == pytest.approx(-(values @ np.log(values)) / most, rel=1e-9)
        renyi = np.log((values**3).sum()) / (1 - 3) / most
        assert dataset_entropy(X, alpha=3) == pytest.approx(renyi, rel=1e-9)
        _, logdet = np.linalg.slogdet(np.eye(d) + d / (n * 0.2) * Z.T @ Z)
        assert coding_rate(X, epsilon_squared=0.2) == pytest.approx(logdet / 2, rel=1e-9)
        _, logdet = np.linalg.slogdet(np.eye(d) + d / (n * 0.5) * X.T @ X)
        assert coding_rate(X, normalise=False) == pytest.approx(logdet / 2, rel=1e-9)

    def test_entropy_of_order_near_one(self) -> None:
        X = normal(20, 6)
        assert dataset_entropy(X, alpha=1 + 1e-5) == pytest.approx(dataset_entropy(X), rel=1e-5)
        assert dataset_entropy(X, alpha=1 + 1e-12) == dataset_entropy(X)
        largest = States(X).unit_spectrum("test").eigenvalues[0] / 20
        expected = -np.log(largest) / np.log(6)  # as alpha grows only the largest counts
        assert dataset_entropy(X, alpha=1e5) == pytest.approx(expected, rel=1e-4)

    def test_coding_rate_of_huge_states(self) -> None:
        X = normal(20, 6)
        by_scale = coding_rate(1e170 * X, normalise=False) - coding_rate(1e160 * X, normalise=False)
        assert by_scale == pytest.approx(6 * np.log(1e10), rel=1e-9)

    def test_uniformity_by_all_pairs(self) -> None:
        X = normal(1100, 5)  # more than one block
        Z = X / np.linalg.norm(X, axis=1, keepdims=True)
        expected = np.log(np.exp(-2 * pdist(Z, "sqeuclidean")).mean())
        assert uniformity(X) == pytest.approx(expected, rel=1e-9)

    def test_bad_options(self) -> None:
        X = normal(5, 3)
        for call in (
            lambda: dataset_entropy(X, alpha=0),
            lambda: coding_rate(X, epsilon_squared=-1),
            lambda: top_share(X, 0),
        ):
            with pytest.raises(InputError):
                call()


class TestIntrinsicDimension:
    @pytest.mark.parametrize(("n", "d"), [(300, 3), (301, 40)])  # two ways of searching there
    def test_equals_scikit_dimension(self, n: int, d: int) -> None:
        X = normal(n, d) * np.arange(1, d + 1)
        assert intrinsic_dimension(X) == pytest.approx(skdim.id.TwoNN().fit(X).dimension_, rel=1e-6)

    def test_cube(self) -> None:
        X = np.random.default_rng(0).uniform(size=(4000, 5)) @ orthonormal(5, 30)
        assert intrinsic_dimension(X) == pytest.approx(5, abs=0.5)

    @pytest.mark.parametrize("rounding", [0, 1e-7])
    def test_repeated_rows_count_once(self, rounding: float) -> None:
        X = normal(100, 4)
        twice = np.vstack([X, X[:30], X[:30]])
        twice[100:] += rounding * normal(60, 4, 1)
        assert intrinsic_dimension(twice) == pytest.approx(intrinsic_dimension(X), rel=1e-5)
        shares = LAYER_METRICS["intrinsic_dimension"].influence(twice)  # type: ignore[misc]
        assert shares.shape == (160,)
        np.testing.assert_allclose(shares[:30], shares[100:130])
        np.testing.assert_allclose(shares[:30], shares[130:])

    def test_far_from_the_origin(self) -> None:
        X = normal(100, 4)
        assert intrinsic_dimension(X + 1e6) == pytest.approx(intrinsic_dimension(X), rel=1e-6)

    def test_nothing_to_count(self) -> None:
        for X in (np.eye(6), normal(3, 4), np.repeat(normal(3, 4), 5, axis=0)):
            with pytest.raises(DoesNotApply):
                intrinsic_dimension(X)

    def test_interval_covers(self) -> None:
        """Neighbours share distances: without allowing for it, this covers in 86 of 100."""
        tables = [
            measure_layers({0: normal(300, 3, seed)}, ["intrinsic_dimension"])
            for seed in range(120)
        ]
        mean = np.mean([float(t.value[0]) for t in tables])
        inside = [float(t.low[0]) <= mean <= float(t.high[0]) for t in tables]
        assert np.mean(inside) > 0.9


class TestDegenerate:
    @pytest.mark.parametrize("name", sorted(LAYER_METRICS))
    @pytest.mark.parametrize(
        "X",
        [
            np.ones((6, 4)),
            np.full((6, 4), 0.1),
            np.eye(5),
            np.vstack([np.zeros(3), np.eye(3)]),
            normal(2, 5),
            normal(4, 9),
            normal(9, 1),
            np.repeat(normal(2, 3), 4, axis=0),
            normal(8, 3).astype(np.float16),
        ],
    )
    def test_a_finite_number_in_range_or_a_reason(self, name: str, X: np.ndarray) -> None:
        metric = LAYER_METRICS[name]
        try:
            value = metric.compute(X)
        except DoesNotApply:
            return
        low, high = metric.measure.low, metric.measure.high
        assert np.isfinite(value)
        assert low is None or value >= low - 1e-9
        assert high is None or value <= high + 1e-9
        assert metric.influence is not None
        shares = metric.influence(X)
        assert shares.shape == (len(X),)
        assert np.isfinite(shares).all()
        measure_layers({0: X}, [name])

    def test_all_equal_rows(self) -> None:
        X = np.full((10, 4), 0.1)
        for rank in (spectral_entropy_rank, participation_ratio, isoscore, top_share):
            with pytest.raises(DoesNotApply, match="all rows are equal"):
                rank(X)
        assert uniformity(X) == pytest.approx(0)
        assert centroid_distance(X) == pytest.approx(0)
        assert dataset_entropy(X) == pytest.approx(0, abs=1e-9)

    def test_zero_rows_are_named(self) -> None:
        X = normal(5, 3)
        X[2] = 0
        for metric in (uniformity, centroid_distance, dataset_entropy, coding_rate):
            with pytest.raises(DoesNotApply, match=r"row 2 is zero \(1 of 5"):
                metric(X)


class TestTableSampling:
    def test_costly_metrics_use_a_seeded_sample(self) -> None:
        X = normal(5000, 3)
        names = ["uniformity", "anisotropy"]
        table = measure_layers({0: X}, names, seed=4, groups=np.arange(5000) // 2)
        assert table.n.tolist() == [4096, 5000]
        assert table.value[0] == pytest.approx(uniformity(X[sample_rows(5000, 4096, 4)]))
        again = measure_layers({0: X}, names, seed=4, variant="untrained")
        assert again.value[0] == table.value[0]
        assert again.variant.unique().tolist() == ["untrained"]


@pytest.mark.parametrize("metric", [effective_rank, participation_ratio, isoscore, top_share])
def test_rows_equal_but_for_the_last_bits_of_float32_have_no_direction(metric: Any) -> None:
    rng = np.random.default_rng(0)
    row = rng.normal(size=384).astype(np.float32)
    near = np.nextafter(np.tile(row, (50, 1)), rng.choice([-9.0, 9.0], size=(50, 384)).astype("f"))
    assert near.dtype == np.float32
    assert (near != row).all()
    with pytest.raises(DoesNotApply, match="all rows are equal"):
        metric(near)
    spread = near + rng.normal(scale=1e-4, size=near.shape).astype(np.float32)
    assert np.isfinite(metric(spread))  # a thousandth of the states' size is no rounding


def test_a_table_over_many_layers_keeps_one_layer_in_memory() -> None:
    """Without help from the garbage collector, which may not come by for a long time."""
    rng = np.random.default_rng(0)
    alive: list[weakref.ref[Any]] = []

    class Layers(dict[int, Any]):
        def __getitem__(self, layer: int) -> Any:
            if len(alive) > 2:  # what the last layer but one was made into is gone
                assert all(ref() is None for ref in alive[:-1])
            made = rng.normal(size=(60, 12)) + layer
            alive.append(weakref.ref(made))
            return made

    gc.disable()
    try:
        table = measure_layers(Layers(dict.fromkeys(range(6))))
    finally:
        gc.enable()
    assert set(table["layer"]) == set(range(6))
    assert len(alive) == 6
