"""Metrics of two views and of two layers: conformance over the registry, closed forms, definitions by brute force."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power

from probes.errors import DoesNotApply, InputError, NonFiniteError
from probes.layers import (
    alignment,
    block_influence,
    cka,
    cka_matrix,
    dime,
    infonce,
    lidar,
    measure_views,
)
from probes.registry import MEASURES, PAIR_METRICS
from probes.tables import validate

NAMES = sorted(PAIR_METRICS)


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def rotation(d: int) -> np.ndarray:
    return np.linalg.qr(normal(d, d, 99))[0]


def views(n: int = 40, d: int = 6, seed: int = 0, noise: float = 0.5) -> tuple[np.ndarray, ...]:
    """Two noisy looks at the same texts."""
    rng = np.random.default_rng(seed)
    texts = rng.normal(size=(n, d)) * np.arange(1, d + 1) + 2
    return tuple(texts + noise * rng.normal(size=(n, d)) for _ in range(2))


@pytest.mark.parametrize("name", NAMES)
class TestConformance:
    def test_value_is_a_float_in_range_and_repeats(self, name: str) -> None:
        metric = PAIR_METRICS[name]
        low, high = metric.measure.low, metric.measure.high
        for n, d in ((40, 6), (5, 30)):
            A, B = views(n, d)
            before = A.copy(), B.copy()
            value = metric.compute(A, B)
            assert isinstance(value, float)
            assert low is None or value >= low
            assert high is None or value <= high
            assert metric.compute(A, B) == value
            assert metric.influence is not None
            metric.influence(A, B)
            np.testing.assert_array_equal((A, B), before)

    def test_rotation_changes_nothing(self, name: str) -> None:
        A, B = views()
        compute, Q = PAIR_METRICS[name].compute, rotation(6)
        assert compute(A @ Q, B @ Q) == pytest.approx(compute(A, B), rel=1e-9)

    def test_which_view_comes_first_does_not_matter(self, name: str) -> None:
        A, B = views(300)
        compute = PAIR_METRICS[name].compute
        assert compute(B, A) == pytest.approx(compute(A, B), rel=0.02 if name == "dime" else 1e-9)

    def test_agreeing_views_are_better_than_shuffled_ones(self, name: str) -> None:
        if name == "lidar":
            pytest.skip("a count of directions, which its own test holds to its definition")
        metric = PAIR_METRICS[name]
        A, B = views(200)
        right, wrong = metric.compute(A, B), metric.compute(A, np.roll(B, 1, axis=0))
        assert (right > wrong) == (metric.measure.better == "up")

    def test_influence_is_what_leaving_a_text_out_changes(self, name: str) -> None:
        metric = PAIR_METRICS[name]
        A, B = views(200)
        if name == "dime":
            pytest.skip("another number of rows draws other shuffles: the spread below checks it")
        level, rows = metric.compute(A, B), range(0, 200, 7)
        left_out = [
            level - metric.compute(np.delete(A, i, axis=0), np.delete(B, i, axis=0)) for i in rows
        ]
        assert metric.influence is not None
        shares = metric.influence(A, B)[rows]
        np.testing.assert_allclose(
            left_out - np.mean(left_out), shares - shares.mean(), atol=0.1 * np.abs(shares).max()
        )

    def test_interval_matches_the_spread_over_other_texts(self, name: str) -> None:
        """DiME's comes out a third too wide at so few texts."""
        tables = [measure_views({0: views(120, seed=seed)}, [name]) for seed in range(40)]
        spread = np.std([float(t.value[0]) for t in tables])
        half = np.mean([float(t.high[0] - t.low[0]) / 2 for t in tables])
        assert 0.65 < half / (1.96 * spread) < (1.7 if name == "dime" else 1.35)

    def test_documented(self, name: str) -> None:
        assert PAIR_METRICS[name].measure.paper
        assert PAIR_METRICS[name].measure.summary.endswith(".")
        assert PAIR_METRICS[name].compute.__doc__

    def test_bad_input(self, name: str) -> None:
        compute = PAIR_METRICS[name].compute
        with pytest.raises(InputError, match="must agree"):
            compute(np.ones((3, 2)), np.ones((3, 4)))
        with pytest.raises(NonFiniteError):
            compute(np.eye(3), np.full((3, 3), np.nan))
        with pytest.raises(DoesNotApply):
            compute(np.ones((1, 3)), np.ones((1, 3)))
        with pytest.raises(DoesNotApply):
            compute(np.zeros((5, 3)), np.zeros((5, 3)))

    @pytest.mark.parametrize(
        "pair",
        [
            (np.ones((6, 4)), np.ones((6, 4))),
            (np.full((6, 4), 0.1), np.full((6, 4), 0.3)),
            (np.eye(5), np.eye(5)),
            (np.eye(5), -np.eye(5)),
            views(3, 2),
            views(4, 1),
            views(2, 5),
            (np.eye(4), np.zeros((4, 4))),
        ],
    )
    def test_a_finite_number_or_a_reason(
        self, name: str, pair: tuple[np.ndarray, np.ndarray]
    ) -> None:
        metric = PAIR_METRICS[name]
        try:
            value = metric.compute(*pair)
        except DoesNotApply:
            return
        assert np.isfinite(value)
        assert metric.influence is not None
        assert np.isfinite(metric.influence(*pair)).all()


class TestInfoNCE:
    @pytest.mark.parametrize("n", [2, 5, 30])
    def test_orthonormal(self, n: int) -> None:
        expected = np.log(1 + (2 * n - 2) * np.exp(-10))
        assert infonce(np.eye(n), np.eye(n), center=False) == pytest.approx(expected, abs=1e-6)
        # centred, other texts are at −1/(n − 1)
        expected = np.log(1 + (2 * n - 2) * np.exp(-10 * (1 + 1 / (n - 1))))
        assert infonce(np.eye(n), np.eye(n)) == pytest.approx(expected, abs=1e-6)

    def test_unrelated_views_in_many_dimensions(self) -> None:
        found = infonce(normal(100, 5000), normal(100, 5000, 1))
        assert found == pytest.approx(np.log(199), abs=0.03)

    def test_double_loop(self) -> None:
        A, B = views(12, 4)
        both = np.vstack([A, B])
        both = both - both.mean(axis=0)
        both /= np.linalg.norm(both, axis=1, keepdims=True)
        losses = []
        for i in range(24):
            scores = np.exp([both[i] @ both[j] / 0.3 for j in range(24) if j != i])
            losses.append(-np.log(np.exp(both[i] @ both[(i + 12) % 24] / 0.3) / scores.sum()))
        assert infonce(A, B, tau=0.3) == pytest.approx(np.mean(losses), rel=1e-9)

    def test_blocks_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        A, B = views()
        influence = PAIR_METRICS["infonce"].influence
        assert influence is not None
        value, shares = infonce(A, B), influence(A, B)
        # by name: the package's attribute of that name is the function
        monkeypatch.setattr(sys.modules["probes.layers.infonce"], "BLOCK", 7)
        assert infonce(A, B) == pytest.approx(value, rel=1e-12)
        np.testing.assert_allclose(influence(A, B), shares, rtol=1e-9)

    def test_bad_tau(self) -> None:
        with pytest.raises(InputError, match="tau 0"):
            infonce(np.eye(3), np.eye(3), tau=0)


class TestDiME:
    def test_definition(self) -> None:
        A, B = views(15, 4)
        K, L = (Z @ Z.T for Z in (X / np.linalg.norm(X, axis=1, keepdims=True) for X in (A, B)))

        def entropy(M: np.ndarray) -> float:
            values = np.linalg.eigvalsh(M / np.trace(M))
            values = values[values > 1e-15]
            return -float(values @ np.log(values))

        rng = np.random.default_rng(3)
        shuffled = []
        for _ in range(4):
            P = np.eye(15)[rng.permutation(15)]
            shuffled.append(entropy(K * (P @ L @ P.T)))
        expected = np.mean(shuffled) - entropy(K * L)
        assert dime(A, B, permutations=4, seed=3) == pytest.approx(expected, rel=1e-9)

    def test_unrelated_views(self) -> None:
        assert dime(normal(300, 8), normal(300, 8, 1)) == pytest.approx(0, abs=0.02)
        assert dime(normal(300, 8), normal(300, 8)) > 0.2  # control: the same view twice

    def test_more_columns_than_rows_are_not_what_is_shuffled(self) -> None:
        """Shuffled features would leave the Gram matrix of B as it is, and DiME at 0."""
        texts = np.repeat(np.eye(50)[:2], 20, axis=0)
        assert dime(texts, texts) == pytest.approx(np.log(2), abs=0.1)

    def test_limit(self) -> None:
        A, B = views(60)
        tiled = np.tile(A, (20, 1)), np.tile(B, (20, 1))
        table = measure_views({0: tiled}, ["dime"], confidence=None)
        assert table.n.tolist() == [1000]
        assert dime(A, B, limit=30, seed=1) != dime(A, B, limit=30, seed=2)

    def test_no_shuffles(self) -> None:
        with pytest.raises(InputError, match="0 permutations"):
            dime(np.eye(4), np.eye(4), permutations=0)


class TestLiDAR:
    def test_definition_with_many_views(self) -> None:
        rng = np.random.default_rng(0)
        data = rng.normal(size=(30, 1, 5)) * np.arange(1, 6) + rng.normal(size=(30, 4, 5))
        means = data.mean(axis=1)
        within = sum(np.cov(text.T) for text in data) / 30 + 1e-4 * np.eye(5)
        root = fractional_matrix_power(within, -0.5)
        values = np.linalg.eigvalsh(root @ np.cov(means.T, bias=True) @ root)
        p = values / values.sum()
        assert lidar(data) == pytest.approx(np.exp(-(p @ np.log(p))), rel=1e-9)

    def test_identical_views_count_the_texts_directions(self) -> None:
        X = np.vstack([np.eye(4), -np.eye(4)]) @ rotation(4)
        assert lidar(X, X) == pytest.approx(4, abs=1e-6)
        assert lidar(np.outer(np.arange(5.0), [1, 2]), np.outer(np.arange(5.0), [1, 2])) == (
            pytest.approx(1, abs=1e-6)
        )

    def test_noisy_directions_do_not_count(self) -> None:
        """Two directions of texts; a third, louder, is noise of the views: counted only by a plain rank."""
        rng = np.random.default_rng(0)
        texts = np.column_stack([rng.normal(size=(4000, 2)), np.zeros(4000)])
        noise = rng.normal(size=(2, 4000, 3)) * np.array([0.01, 0.01, 10])
        assert lidar(texts + noise[0], texts + noise[1]) == pytest.approx(2, abs=0.05)

    def test_other_shapes(self) -> None:
        for bad in (np.ones((4, 3)), np.ones((4, 1, 3)), np.array([[["a"]]])):
            with pytest.raises(InputError, match="views have shape"):
                lidar(bad)
        with pytest.raises(NonFiniteError, match="text 2"):
            lidar(np.where(np.arange(4)[:, None, None] == 2, np.nan, np.ones((4, 2, 3))))
        with pytest.raises(InputError, match="delta"):
            lidar(np.eye(3), np.eye(3), delta=0)


class TestAlignment:
    def test_closed_forms(self) -> None:
        assert alignment(np.eye(4), 3 * np.eye(4)) == pytest.approx(0, abs=1e-12)
        assert alignment(np.eye(4), -np.eye(4)) == pytest.approx(4)
        assert alignment(np.eye(4), np.roll(np.eye(4), 1, axis=0)) == pytest.approx(2)


class TestTable:
    def test_all_metrics(self) -> None:
        table = measure_views(
            {2: views(), 1: views(seed=1)}, dataset="toy", variant="typos", seed=3
        )
        validate(table.copy())
        assert table.layer.tolist() == [1] * len(NAMES) + [2] * len(NAMES)
        assert table.variant.unique().tolist() == ["typos"]
        assert ((table.low <= table.value) & (table.value <= table.high)).all()

    def test_undefined_is_null_with_a_reason(self) -> None:
        table = measure_views({0: (np.ones((5, 2)), np.ones((5, 2)))}, ["lidar", "infonce"])
        assert table.value.isna().all()
        assert len(table.attrs["notes"]) == 2
        assert "layer 0: LiDAR of 5 texts: all texts are equal" in table.attrs["notes"][0]

    def test_bad_input(self) -> None:
        with pytest.raises(InputError, match="did you mean 'lidar'"):
            measure_views({0: views()}, ["lydar"])
        with pytest.raises(InputError, match="no pair"):
            measure_views({0: (np.eye(3),)})  # type: ignore[dict-item]
        with pytest.raises(InputError, match="at least one layer"):
            measure_views({})


class Counted(Mapping[int, np.ndarray]):
    """Layers that are made when read; counts readings."""

    def __init__(self, layers: dict[int, np.ndarray]) -> None:
        self.layers, self.read = layers, 0

    def __getitem__(self, layer: int) -> np.ndarray:
        self.read += 1
        return self.layers[layer]

    def __iter__(self) -> Iterator[int]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)


class TestCKA:
    @pytest.mark.parametrize(("n", "d"), [(40, 6), (6, 40), (7, 6)])
    def test_turning_stretching_and_moving_change_nothing(self, n: int, d: int) -> None:
        X = normal(n, d) * np.arange(1, d + 1)
        assert cka(X, X) == pytest.approx(1, abs=1e-9)
        assert cka(X, -3 * X @ rotation(d) + 100) == pytest.approx(1, abs=1e-6)
        assert cka(X, X * np.arange(1, d + 1)) < 0.999  # control: not any linear map

    @pytest.mark.parametrize(("n", "d", "e"), [(40, 6, 3), (6, 40, 9), (10, 4, 30)])
    def test_by_gram_matrices(self, n: int, d: int, e: int) -> None:
        X, Y = normal(n, d) + 3, normal(n, e, 1) ** 2
        H = np.eye(n) - 1 / n
        K, L = H @ X @ X.T @ H, H @ Y @ Y.T @ H
        expected = np.trace(K @ L) / np.sqrt(np.trace(K @ K) * np.trace(L @ L))
        assert cka(X, Y) == pytest.approx(expected, rel=1e-9)
        assert cka(Y, X) == pytest.approx(expected, rel=1e-9)

    def test_refusals(self) -> None:
        with pytest.raises(InputError, match="must agree"):
            cka(np.eye(3), np.eye(4))
        with pytest.raises(DoesNotApply, match="all rows are equal"):
            cka(np.eye(3), np.full((3, 2), 0.1))

    @pytest.mark.parametrize("memory", [1, 3 * 8 * 30 * 4, 1 << 30])
    def test_matrix_equals_every_pair_whatever_the_memory(self, memory: int) -> None:
        layers = {k: normal(30, 4, k) + normal(30, 4) for k in range(5)}
        layers[3] = np.full((30, 4), 0.1)
        reader = Counted(layers)
        table = cka_matrix(reader, memory=memory)
        assert len(table) == 25
        for a, b, value in table[["layer_a", "layer_b", "value"]].itertuples(index=False):
            if 3 in (a, b):
                assert table[(table.layer_a == a) & (table.layer_b == b)].value.isna().all()
            else:
                assert value == pytest.approx(cka(layers[a], layers[b]), rel=1e-9)
        assert table.attrs["notes"] == [
            "layer 3: CKA of 30 rows: all rows are equal, there is no direction"
        ]
        if memory > 1 << 20:
            assert reader.read <= 5 + 2  # once each, but for the shapes

    def test_limit_is_recorded(self) -> None:
        layers = {k: normal(50, 4, k) for k in range(2)}
        table = cka_matrix(layers, limit=20, seed=7)
        assert table.n.unique().tolist() == [20]
        assert table.seed.unique().tolist() == [7]
        rows = np.sort(np.random.default_rng(7).choice(50, 20, replace=False))
        assert table.value[1] == pytest.approx(cka(layers[0][rows], layers[1][rows]))

    def test_layers_of_other_lengths(self) -> None:
        with pytest.raises(InputError, match="layer 1 has 4 rows"):
            cka_matrix({0: np.eye(5), 1: np.eye(4)})


class TestBlockInfluence:
    def test_closed_forms(self) -> None:
        X = normal(20, 5)
        assert block_influence(X, 3 * X)[0] == pytest.approx(0, abs=1e-12)
        assert block_influence(X, -X)[0] == pytest.approx(2)
        assert block_influence(np.eye(4), np.roll(np.eye(4), 1, axis=0))[0] == pytest.approx(1)

    def test_rows(self) -> None:
        A, B = normal(20, 5), normal(20, 5, 1)
        value, rows = block_influence(A, B)
        cosines = (A * B).sum(axis=1) / np.linalg.norm(A, axis=1) / np.linalg.norm(B, axis=1)
        np.testing.assert_allclose(rows, 1 - cosines)
        assert value == pytest.approx(rows.mean())
        assert block_influence(A[:1], B[:1])[0] == pytest.approx(rows[0])

    def test_registered_and_refusals(self) -> None:
        assert MEASURES["block_influence"].high == 2
        with pytest.raises(DoesNotApply, match="row 0 is zero"):
            block_influence(np.zeros((2, 2)), np.eye(2))
        with pytest.raises(InputError):
            block_influence(np.eye(2), np.eye(3))
