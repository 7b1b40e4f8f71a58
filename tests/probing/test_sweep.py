"""The sweep: planted signal, controls, groups, bad input."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.naive_bayes import GaussianNB

from probes.errors import DataError, FathometerError, InputError, NonFiniteError
from probes.probing import BelowChanceWarning, LinearProbe, MassMeanProbe, RidgeProbe, sweep
from probes.probing.base import Concept
from probes.probing.folds import stratified_folds
from probes.tables import validate

PROBES: list[Any] = [LinearProbe(), RidgeProbe(), MassMeanProbe(), GaussianNB()]
Planted = Callable[..., tuple[dict[int, np.ndarray], np.ndarray]]


def curve(table: pd.DataFrame, measure: str, variant: str | None = None) -> pd.DataFrame:
    rows = table[table.measure == measure]
    rows = rows[rows.variant.isna()] if variant is None else rows[rows.variant == variant]
    return rows.set_index("layer")


@pytest.mark.parametrize("probe", PROBES, ids=str)
@pytest.mark.parametrize("classes", [2, 3])
def test_planted_signal_is_found_where_it_begins(
    probe: Any, classes: int, planted: Planted
) -> None:
    for k in (0, 3, 5):
        states, y = planted(k, classes=classes)
        table = sweep(probe, states, y, controls=("shuffled",), draws=300)
        for measure, chance in (("balanced_accuracy", 1 / classes), ("auroc", 0.5)):
            low = curve(table, measure).low
            assert low[low > chance + 0.15].index.min() == k
            shuffled = curve(table, measure, "shuffled")
            assert abs(shuffled.value.mean() - chance) < 0.08


def test_table_is_tidy_and_complete(planted: Planted) -> None:
    states, y = planted(1, layers=2)
    table = sweep(
        RidgeProbe(),
        states,
        y,
        seed=7,
        site="resid_post",
        dataset="toy",
        concept="c",
        pooling="mean",
    )
    validate(table.copy())
    assert len(table) == 2 * 3
    assert set(table.measure) == {"accuracy", "balanced_accuracy", "auroc"}
    for column, value in {
        "site": "resid_post",
        "dataset": "toy",
        "concept": "c",
        "pooling": "mean",
    }.items():
        assert set(table[column]) == {value}
    assert set(table.n) == {240}
    assert set(table.seed) == {7}
    assert table.block.isna().all()
    assert ((table.low <= table.value) & (table.value <= table.high)).all()
    assert table.attrs["chance"][0]["balanced_accuracy"] == 0.5
    assert len(table.attrs["chosen"]) == 2 * 5
    assert "bootstrap" in table.attrs["interval"]


def test_sites_of_blocks_fill_the_block_column(planted: Planted) -> None:
    states, y = planted(0, layers=2)
    table = sweep(RidgeProbe(), states, y, site="attn_out")
    assert table.layer.isna().all()
    assert sorted(set(table.block)) == [0, 1]


def test_same_seed_same_table(planted: Planted) -> None:
    states, y = planted(2, layers=3)
    first, again, other = (sweep(LinearProbe(), states, y, seed=s) for s in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert not first.value.equals(other.value)


def test_several_concepts_are_what_each_is_alone(planted: Planted) -> None:
    states, y = planted(1, layers=2)
    folds = [(np.arange(120, 240), np.arange(120)), (np.arange(120), np.arange(120, 240))]
    other = np.roll(y, 1)
    both = sweep(RidgeProbe(), states, {"a": y, "b": other}, folds)
    for name, labels in (("a", y), ("b", other)):
        alone = sweep(RidgeProbe(), states, labels, folds)
        assert both[both.concept == name].value.tolist() == alone.value.tolist()


class OneAtATime(Mapping[int, np.ndarray]):
    """Like a store: makes a layer when asked and notes when an earlier one is still alive."""

    def __init__(self, states: dict[int, np.ndarray]) -> None:
        self.states = states
        self.asked: list[int] = []

    def __getitem__(self, layer: int) -> np.ndarray:
        self.asked.append(layer)
        return self.states[layer].copy()

    def __iter__(self) -> Iterator[int]:
        return iter(self.states)

    def __len__(self) -> int:
        return len(self.states)


def test_each_layer_is_read_once(planted: Planted) -> None:
    states, y = planted(1, layers=4)
    lazy = OneAtATime(states)
    sweep(RidgeProbe(), lazy, {"a": y, "b": 1 - y}, controls=("shuffled",))
    assert lazy.asked == [0, 1, 2, 3]


def paired(n: int = 100, d: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each entity twice, once true and once false, the states nearly the same: a bag of words."""
    rng = np.random.default_rng(0)
    entity = np.repeat(np.arange(n), 2)
    X = rng.normal(size=(n, d))[entity] + 0.05 * rng.normal(size=(2 * n, d))
    return X, np.arange(2 * n) % 2, entity


def test_paired_statements_warn_below_chance_and_groups_mend_it() -> None:
    X, y, entity = paired()
    with pytest.warns(BelowChanceWarning, match="give groups"):
        table = sweep(RidgeProbe(alphas=(1.0,)), {0: X}, y)
    assert table.attrs["notes"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mended = sweep(RidgeProbe(alphas=(1.0,)), {0: X}, y, groups=entity)
    assert not mended.attrs["notes"]
    assert float(curve(mended, "accuracy").high[0]) > 0.5


def test_shuffled_control_does_not_warn() -> None:
    X, y, _ = paired()
    with pytest.warns(BelowChanceWarning) as caught:
        sweep(RidgeProbe(alphas=(1.0,)), {0: X}, y, controls=("shuffled",))
    assert len(caught) == 1


def test_more_classes_than_auroc_is_given_for() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(660) % 110
    X = np.eye(110)[y] + 0.1 * rng.normal(size=(660, 110))
    table = sweep(RidgeProbe(), {0: X}, y, cv=3, draws=200)
    assert set(table.measure) == {"accuracy", "balanced_accuracy"}
    assert float(table.value.min()) > 0.95


def test_a_class_with_two_members_is_judged() -> None:
    rng = np.random.default_rng(0)
    y = np.array([0, 1] * 50 + [2, 2])
    X = rng.normal(size=(102, 5)) + 6 * np.eye(3, 5)[y]
    for probe in (LinearProbe(), RidgeProbe()):
        assert float(curve(sweep(probe, {0: X}, y), "accuracy").value[0]) > 0.9


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": np.zeros(40)}, DataError, "two classes"),
        ({"labels": [0, 1] * 19 + [None, 1]}, DataError, "row 38 is missing"),
        ({"labels": np.r_[np.nan, np.arange(39) % 2]}, DataError, "row 0 is missing"),
        ({"labels": [0, "a"] * 20}, DataError, "mixed types"),
        ({"labels": np.linspace(0, 1, 40)}, DataError, "real numbers"),
        ({"labels": np.arange(38) % 2}, DataError, "40 rows but there are 38 labels"),
        ({"labels": {}}, InputError, "no concept"),
        (
            {"labels": {"a": np.arange(40) % 2, "b": np.arange(9) % 2}},
            DataError,
            "different lengths",
        ),
        ({"labels": [0] * 39 + [1]}, DataError, "one class"),
        ({"states": {}}, InputError, "at least one layer"),
        ({"states": np.ones((2, 3))}, InputError, "must map"),
        ({"states": {0: np.full((40, 2), np.nan)}}, NonFiniteError, "layer 0.*row 0"),
        ({"states": {0: np.ones(40)}}, InputError, "layer 0"),
        ({"controls": ("shufled",)}, InputError, "did you mean 'shuffled'"),
        ({"groups": np.zeros(3)}, InputError, "one per row"),
        ({"groups": np.arange(40) // 20}, InputError, "cv=5 for 2 groups"),
        ({"confidence": 95}, InputError, "strictly between 0 and 1"),
    ],
)
def test_bad_input_is_one_clear_line(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    rng = np.random.default_rng(0)
    given = {"states": {0: rng.normal(size=(40, 3))}, "labels": np.arange(40) % 2, **change}
    with pytest.raises(error, match=message) as caught:
        sweep(RidgeProbe(), **given)
    assert isinstance(caught.value, FathometerError)
    assert "\n" not in str(caught.value)


def test_constant_layer_is_at_chance() -> None:
    y = np.arange(60) % 2
    for probe in (LinearProbe(), RidgeProbe(), MassMeanProbe()):
        table = sweep(probe, {0: np.full((60, 4), 3.0)}, y)
        assert curve(table, "balanced_accuracy").value[0] == 0.5
        assert curve(table, "auroc").value[0] == 0.5


def test_importing_the_probes_loads_no_torch() -> None:
    code = "import sys, probes.probing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_a_hundred_thousand_rows() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 100_000)
    X = rng.normal(size=(100_000, 32)).astype(np.float32)
    X[:, 0] += y
    for probe in (RidgeProbe(), LinearProbe()):
        accuracy = curve(sweep(probe, {0: X}, y, draws=200), "accuracy")
        assert float(accuracy.value[0]) == pytest.approx(0.691, abs=0.01)  # Φ(½), the best there is
        assert float(accuracy.high[0] - accuracy.low[0]) < 0.01


class Listening(RidgeProbe):
    """A probe that solves one fold at a time, and remembers the groups it was fitted with."""

    heard: list[Any] = []  # noqa: RUF012  shared by all copies on purpose

    out_of_fold: Any = None

    def fit(self, X: Any, y: Any, groups: Any = None) -> Any:
        self.heard.append(groups)
        return super().fit(X, y, groups)


def test_probes_that_are_fitted_fold_by_fold_hear_of_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every row four times: without groups the λ is chosen on copies of the rows it was fitted on."""
    from probes.probing.folds import FoldPlan
    from probes.probing.layerwise import _loop

    monkeypatch.setattr(Listening, "heard", [])
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 4)
    X, y = np.repeat(rng.normal(size=(30, 20)), 4, axis=0), np.repeat(np.arange(30) % 2, 4)
    concept = Concept(None, y, 2)
    folds = stratified_folds(y, groups, 3, 0)
    alone = _loop(Listening(), X, concept, folds, groups)
    for (train, _), heard in zip(folds, Listening.heard, strict=True):
        np.testing.assert_array_equal(heard, groups[train])
    plan = FoldPlan.make([train for train, _ in folds], len(y))
    (together,) = RidgeProbe().out_of_fold(X, [concept], folds, plan, groups)
    np.testing.assert_array_equal(alone.predicted, together.predicted)
    (deaf,) = RidgeProbe().out_of_fold(X, [concept], folds, plan, None)
    assert min(together.chosen) > max(deaf.chosen)  # what groups are for
