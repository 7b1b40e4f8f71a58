"""The online code: in bits, against closed forms, a loop of fits, and its control."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.errors import DataError, InputError, NonFiniteError
from probes.probing import LinearProbe, MDLProbe, mdl, mdl_sweep
from probes.probing.crossed import crossed_mean
from probes.probing.mdl import PORTIONS, portion_bounds, sending_order


def blobs(
    n: int = 300, d: int = 8, classes: int = 2, shift: float = 3.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % classes)
    return rng.normal(size=(n, d)) + shift * np.eye(classes, d)[y], y


class Ignorant(MDLProbe):
    """A stub that gives every class the same probability."""

    def _predicted(
        self, X: Any, concept: Any, prefixes: Any, coming: Any, groups: Any
    ) -> list[tuple[np.ndarray, float]]:
        K = concept.n_classes
        return [(np.full((K, len(rows)), -np.log(K)), 1.0) for rows in coming]


class Certain(MDLProbe):
    """A stub that knows every label, or is wrong about all of them."""

    right = True

    def _predicted(
        self, X: Any, concept: Any, prefixes: Any, coming: Any, groups: Any
    ) -> list[tuple[np.ndarray, float]]:
        K = concept.n_classes
        with np.errstate(divide="ignore"):
            return [
                (np.log(np.eye(K)[(concept.y[rows] + (not self.right)) % K].T), 1.0)
                for rows in coming
            ]


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_uniform_predictor_costs_exactly_n_log_k(classes: int) -> None:
    X, y = blobs(classes=classes)
    probe = Ignorant(Cs=(1.0,)).fit(X, y)
    assert probe.uniform_bits_ == 300 * np.log2(classes)
    assert probe.mdl_ == pytest.approx(probe.uniform_bits_, rel=1e-14)
    assert probe.compression_ == pytest.approx(1, rel=1e-14)
    np.testing.assert_allclose(probe.bits_, np.log2(classes), rtol=1e-14)


@pytest.mark.parametrize("classes", [2, 3])
def test_one_portion_is_coded_uniformly(classes: int) -> None:
    X, y = blobs(classes=classes)
    probe = MDLProbe(portions=(100,)).fit(X, y)
    assert probe.mdl_ == pytest.approx(300 * np.log2(classes), rel=1e-14)
    assert np.isnan(probe.portion_C_).all()


@pytest.mark.parametrize("right", [True, False])
def test_price_of_certainty(right: bool) -> None:
    """Always right costs log₂(1 + 1/m) at most, always wrong log₂ K(m + 1): a class never seen has a finite price."""
    X, y = blobs(classes=3)
    probe = Certain(Cs=(1.0,))
    probe.right = right
    code = probe.online_code(X, y, 3)
    for (a, b), C in zip(pairwise(code.bounds), code.C, strict=True):
        each = code.bits[code.order[a:b]]
        if np.isnan(C):
            expected = np.log2(3)
        elif right:
            expected = -np.log2(1 - (1 - 1 / 3) / (a + 1))
            assert expected < np.log2(1 + 1 / a)
        else:
            expected = np.log2(3 * (a + 1))
        np.testing.assert_allclose(each, expected, rtol=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_constant_features_give_the_code_of_class_frequencies(classes: int) -> None:
    """Closed form: without features the probe's probabilities are the classes' shares in the prefix."""
    rng = np.random.default_rng(0)
    y = rng.choice(classes, size=400, p=np.arange(1, classes + 1) / sum(range(classes + 1)))
    probe = MDLProbe(tol=1e-10).fit(np.full((400, 3), 2.5), y)
    order = sending_order(400, None, 0)
    bounds = portion_bounds(PORTIONS, None, 400)
    total = 0.0
    for (a, b), C in zip(pairwise(bounds), probe.portion_C_, strict=True):
        seen = np.bincount(y[order[:a]], minlength=classes) / max(a, 1)
        mixed = (seen + 1 / (a * classes)) * a / (a + 1) if a else None
        p = np.full(b - a, 1 / classes) if np.isnan(C) else mixed[y[order[a:b]]]
        total += float(-np.log2(p).sum())
    assert probe.mdl_ == pytest.approx(total, rel=1e-4)
    assert probe.mdl_ < probe.uniform_bits_  # the classes are not equally frequent


@pytest.mark.parametrize(("n", "d", "classes"), [(260, 6, 2), (260, 6, 4), (90, 120, 2)])
@pytest.mark.parametrize("grouped", [False, True])
def test_equals_a_loop_of_fits(
    n: int, d: int, classes: int, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch of nested prefixes against one `LinearProbe` after the other."""
    monkeypatch.setattr(mdl, "CODE_TOL", 1e-10)
    X, y = blobs(n, d, classes, shift=1.5)
    groups = np.arange(n) // 3 if grouped else None
    code = MDLProbe(random_state=3, tol=1e-10).online_code(X, y, classes, groups)
    bits = np.full(n, np.log2(classes))
    for i, (a, b) in enumerate(pairwise(code.bounds)):
        if np.isnan(code.C[i]):
            continue
        prefix, coming = code.order[:a], code.order[a:b]
        own = None if groups is None else groups[prefix]
        judge = LinearProbe(tol=1e-10, random_state=3).fit(X[prefix], y[prefix], own)
        assert float(code.C[i]) == judge.C_
        p = np.zeros((b - a, classes))
        p[:, judge.classes_] = judge.predict_proba(X[coming])
        mixed = (p * a + 1 / classes) / (a + 1)
        bits[coming] = -np.log2(mixed[np.arange(b - a), y[coming]])
    assert np.isfinite(code.C).sum() >= 2
    np.testing.assert_allclose(code.bits, bits, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(code.per_portion().sum(), code.bits.sum())


def test_signal_shortens_the_code_and_shuffled_labels_do_not() -> None:
    X, y = blobs(600)
    weak, _ = blobs(600, shift=1.0)
    strong, some = MDLProbe().fit(X, y), MDLProbe().fit(weak, y)
    none = MDLProbe().fit(X, np.random.default_rng(1).permutation(y))
    assert strong.mdl_ < 0.3 * strong.uniform_bits_
    assert strong.mdl_ < some.mdl_ < none.mdl_
    assert 0.9 < none.compression_ < 1.02


def test_the_code_sees_what_the_accuracy_on_all_rows_does_not() -> None:
    """The same classes behind many more noisy dimensions: read as well in the end, but from more labels."""
    rng = np.random.default_rng(0)
    X, y = blobs(1000, 4, shift=6.0)
    wide = np.hstack([X, rng.normal(size=(1000, 200))])
    plain, hidden = MDLProbe().fit(X, y), MDLProbe().fit(wide, y)
    assert plain.score(X, y) > 0.99
    assert hidden.score(wide, y) > 0.99
    assert hidden.mdl_ > 1.5 * plain.mdl_


def test_it_is_a_linear_probe_too() -> None:
    X, y = blobs(classes=3)
    ours, plain = MDLProbe().fit(X, y), LinearProbe().fit(X, y)
    np.testing.assert_array_equal(ours.coef_, plain.coef_)
    np.testing.assert_array_equal(ours.predict(X), plain.predict(X))


def test_same_seed_same_code_other_seed_another_order() -> None:
    X, y = blobs()
    first, again, other = (MDLProbe(random_state=s).fit(X, y) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.bits_, again.bits_)
    assert not np.array_equal(first.bits_, other.bits_)
    assert first.portion_sizes_.sum() == len(y)
    assert first.portion_bits_.sum() == pytest.approx(first.mdl_)


def test_a_class_that_comes_late_is_dear_but_finite() -> None:
    """Two members of a third class: wherever they are first met, their price is finite."""
    X, y = blobs(200)
    y = np.where(np.arange(200) < 2, 2, y)
    for seed in range(5):
        code = MDLProbe(random_state=seed).online_code(X, y, 3)
        assert np.isfinite(code.bits).all()
        assert code.bits.max() <= np.log2(3 * 201)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 400),
    size=st.integers(1, 30),
    seed=st.integers(0, 9),
    ends=st.lists(st.floats(0.05, 99.9), max_size=12, unique=True),
)
def test_portions_hold_every_row_once_and_no_group_twice(
    n: int, size: int, seed: int, ends: list[float]
) -> None:
    groups = np.random.default_rng(seed).integers(0, -(-n // size), n)
    order = sending_order(n, groups, seed)
    assert sorted(order.tolist()) == list(range(n))
    bounds = portion_bounds((*sorted(ends), 100), groups[order], n)
    assert bounds[0] == 0
    assert bounds[-1] == n
    assert (np.diff(bounds) > 0).all()
    parts = [set(groups[order[a:b]]) for a, b in pairwise(bounds)]
    assert sum(len(part) for part in parts) == len(set(groups.tolist()))


@pytest.mark.parametrize(
    "portions", [(), (0, 100), (50,), (50, 20, 100), (10, np.nan, 100), (10, 120)]
)
def test_bad_portions(portions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="portions are"):
        MDLProbe(portions=portions).fit(*blobs())


def test_groups_are_not_split_between_what_teaches_and_what_is_coded() -> None:
    """Every row four times with labels of noise: a probe that met a row's twin would know its label."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(120, 150)), np.arange(120) % 2
    X4, y4, twins = np.repeat(X, 4, axis=0), np.repeat(y, 4), np.repeat(np.arange(120), 4)
    assert MDLProbe().fit(X4, y4).compression_ > 1.3
    assert MDLProbe().fit(X4, y4, groups=twins).compression_ < 1.05


class TestSweep:
    def test_finds_the_planted_layer(self, planted: Any) -> None:
        states, y = planted(3)
        table, bits = mdl_sweep(states, y, orders=2, dataset="d", concept="c", pooling="mean")
        lengths = table[table.measure == "mdl"].set_index("layer")
        ratio = table[table.measure == "compression"].set_index("layer")
        assert [k for k in range(6) if ratio.low[k] > 1] == [3, 4, 5]
        np.testing.assert_allclose(bits.sum(axis=1), lengths.value.astype(float))
        np.testing.assert_allclose(
            (ratio.value * lengths.value).astype(float), len(y) * np.log2(2), rtol=1e-12
        )
        for part in (lengths, ratio):
            assert ((part.low <= part.value) & (part.value <= part.high)).all()
        assert set(table.concept) == {"c"}
        assert set(table.dataset) == {"d"}

    def test_shuffled_labels_teach_nothing(self, planted: Any) -> None:
        states, y = planted(0, layers=3)
        noise = np.random.default_rng(0).permutation(y)
        table, _ = mdl_sweep(states, noise, orders=2, variant="shuffled")
        assert set(table.variant) == {"shuffled"}
        assert (table[table.measure == "compression"].low < 1).all()
        assert (table[table.measure == "compression"].value < 1.05).all()

    def test_one_order_has_no_interval_and_says_so(self, planted: Any) -> None:
        states, y = planted(0, layers=1)
        table, bits = mdl_sweep(states, y, orders=1)
        assert table.low.isna().all()
        assert bits.shape == (1, len(y))
        assert "no interval" in table.attrs["notes"][0]

    def test_layers_share_the_orders(self, planted: Any) -> None:
        states, y = planted(0, layers=1)
        _, bits = mdl_sweep({0: states[0], 5: states[0]}, y, orders=1)
        np.testing.assert_array_equal(bits[0], bits[1])

    def test_errors(self, planted: Any) -> None:
        states, y = planted(0, layers=1)
        with pytest.raises(InputError, match="orders"):
            mdl_sweep(states, y, orders=0)
        with pytest.raises(DataError, match="two classes"):
            mdl_sweep(states, np.zeros(len(y)))
        with pytest.raises(DataError, match="rows"):
            mdl_sweep(states, y[:-1])
        broken = states[0].copy()
        broken[7, 2] = np.inf
        with pytest.raises(NonFiniteError, match="row 7"):
            mdl_sweep({0: broken}, y)


class TestCrossedMean:
    def test_is_the_usual_standard_error_where_only_examples_vary(self) -> None:
        scores = np.tile(np.random.default_rng(0).normal(size=400), (50, 1))
        found = crossed_mean(scores, bounds=(-9, 9))
        usual = scores[0].std(ddof=1) / np.sqrt(400)
        assert found.high is not None
        assert (found.high - found.value) / 1.966 == pytest.approx(usual, rel=0.01)

    def test_widens_with_the_spread_of_draws_and_of_groups(self) -> None:
        rng = np.random.default_rng(0)
        scores = np.tile(rng.normal(size=200), (5, 1))

        def width(values: np.ndarray, groups: Any = None) -> float:
            found = crossed_mean(values, groups, bounds=(-99, 99))
            assert found.low is not None
            assert found.high is not None
            return found.high - found.low

        assert width(scores + rng.normal(size=(5, 1))) > 3 * width(scores)
        twins = np.repeat(scores[:, ::2], 2, axis=1)
        assert width(twins, np.arange(200) // 2) > 1.3 * width(twins)

    def test_nominal_coverage(self) -> None:
        """Crossed normal effects of both kinds: the 95 % interval holds the truth in 92 to 98 % of 600 samples."""
        rng = np.random.default_rng(0)
        held = 0
        for _ in range(600):
            scores = 0.2 * rng.normal(size=(5, 1)) + rng.normal(size=80) + rng.normal(size=(5, 80))
            found = crossed_mean(scores, bounds=(-9, 9))
            assert found.low is not None
            assert found.high is not None
            held += found.low <= 0 <= found.high
        assert 0.92 <= held / 600 <= 0.98

    def test_all_right_and_too_few(self) -> None:
        perfect = crossed_mean(np.ones((5, 40)))
        assert perfect.high == 1
        assert perfect.low is not None
        assert 0.85 < perfect.low < 1
        assert crossed_mean(np.ones((1, 40)) * 0.5).low is None
        assert crossed_mean(np.full((5, 40), 2.0), bounds=(0.0, np.inf)).low is None
