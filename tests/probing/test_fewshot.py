"""Few labels: balanced draws, a fixed test part, and no more than there is to learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from probes.errors import DataError, InputError
from probes.probing import LinearProbe, few_shot
from probes.probing.base import Concept
from probes.probing.fewshot import _all_draws, _balanced


def test_more_labels_more_accuracy_where_there_is_something_to_learn(planted: Any) -> None:
    states, y = planted(2, layers=4, n=400, d=30)
    table = few_shot(states, y, sizes=(4, 16, 64), dataset="d", concept="c", pooling="mean")
    found = table[table.measure == "accuracy"].set_index(["layer", "variant"])
    for layer in range(4):
        few, some, many = (found.loc[(layer, f"shots={s}")] for s in (4, 16, 64))
        if layer < 2:
            assert few.low <= 0.5 <= few.high
            assert abs(many.value - 0.5) < 0.15
        else:
            assert few.value < some.value < many.value
            assert many.low > 0.8
    assert set(table.concept) == {"c"}
    assert ((table.low <= table.value) & (table.value <= table.high)).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_draws_are_balanced_nested_and_from_the_pool(classes: int) -> None:
    y = np.random.default_rng(0).choice(
        classes, size=300, p=np.r_[0.7, [0.3 / (classes - 1)] * (classes - 1)]
    )
    pool = np.arange(0, 300, 2)
    shown, notes = _all_draws(Concept(None, y, classes), pool, (6, 13, 24), 4, 0)
    assert not notes
    for size, draws in shown.items():
        for small, rows in zip(shown[6], draws, strict=True):
            counts = np.bincount(y[rows], minlength=classes)
            assert counts.max() - counts.min() <= 1
            assert len(set(rows.tolist())) == size
            assert set(rows.tolist()) <= set(pool.tolist())
            assert set(small.tolist()) <= set(rows.tolist())
    assert len({tuple(rows) for rows in shown[24]}) == 4


class Recorder(LinearProbe):
    """Remembers which rows it saw: the first state of a row is its number."""

    shown: list[np.ndarray] = []  # noqa: RUF012
    tested: list[np.ndarray] = []  # noqa: RUF012

    def fit(self, X: Any, y: Any, groups: Any = None) -> LinearProbe:
        self.shown.append(X[:, 0].astype(int))
        return super().fit(X, y, groups)

    def predict(self, X: Any) -> Any:
        self.tested.append(X[:, 0].astype(int))
        return super().predict(X)


def test_one_test_part_and_no_group_on_both_sides() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    groups = np.arange(120) // 4
    X = np.column_stack([np.arange(120), rng.normal(size=(120, 3))])
    Recorder.shown, Recorder.tested = [], []
    few_shot({0: X, 1: X}, y, (4, 8), draws=3, probe=Recorder(Cs=(1.0,)), groups=groups)
    assert len(Recorder.shown) == 2 * 2 * 3
    test = set(Recorder.tested[0].tolist())
    assert all(set(rows.tolist()) == test for rows in Recorder.tested)
    for rows in Recorder.shown:
        assert not set(groups[rows]) & {groups[row] for row in test}
    half = len(Recorder.shown) // 2
    for first, second in zip(Recorder.shown[:half], Recorder.shown[half:], strict=True):
        np.testing.assert_array_equal(first, second)  # layers are shown the same


def test_shuffled_labels_stay_at_chance(planted: Any) -> None:
    states, y = planted(0, layers=3, n=300)
    table = few_shot(states, np.random.default_rng(1).permutation(y), sizes=(8, 64))
    assert (abs(table.value - 0.5) < 0.12).all()
    assert (table.low < 0.5).all()


def test_balanced_accuracy_scores() -> None:
    right = np.array([[1.0, 1, 1, 0, 0], [1, 0, 1, 1, 0]])
    y = np.array([0, 0, 0, 1, 1])
    expected = np.mean([right[:, :3].mean(), right[:, 3:].mean()])
    assert _balanced(right, y).mean() == pytest.approx(expected)


def test_chance_of_unequal_classes() -> None:
    rng = np.random.default_rng(0)
    y = (np.arange(200) % 10 == 0).astype(int)
    table = few_shot({0: rng.normal(size=(200, 4))}, y, sizes=(4, 8))
    assert table.attrs["chance"][0]["accuracy"] == 0.9
    assert table.attrs["chance"][0]["balanced_accuracy"] == 0.5


def test_sizes_that_are_not_possible_are_noted() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    table = few_shot({0: rng.normal(size=(90, 4))}, y, sizes=(4, 12, 500))
    assert set(table.variant) == {"shots=12"}
    assert [note.split()[0] for note in table.attrs["notes"]] == ["shots=4", "shots=500"]


def test_errors() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(90, 4)), np.arange(90) % 3
    with pytest.raises(InputError, match="no size"):
        few_shot({0: X}, y, sizes=(2, 4))
    with pytest.raises(InputError, match="draws is 1"):
        few_shot({0: X}, y, draws=1)
    with pytest.raises(DataError, match="90 are needed"):
        few_shot({0: X[:80]}, y)
    with pytest.raises(InputError, match="no layer 3"):
        few_shot({0: X}, y, layers=[3])


def test_an_ensemble_is_a_probe_too() -> None:
    """Unfitted ensembles have no truth value."""
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    X = rng.normal(size=(80, 3)) + 4 * y[:, None]
    forest = RandomForestClassifier(5, random_state=0)
    table = few_shot({0: X}, y, sizes=(16,), draws=2, probe=forest)
    assert table.value.min() > 0.9
