"""Collateral damage: erased concepts fall to the majority, unrelated ones stay, related ones fall in part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from probes.erasure import ConceptStates, DamageOptions, collateral, fit_leace
from probes.errors import DataError, InputError, NonFiniteError
from probes.probing import LinearProbe, RidgeProbe, sweep

D = 16


def shared_rows(
    n: int = 300, d: int = D, seed: int = 0
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One set of states that holds two unrelated concepts, and a third that is half of the first."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 2, size=(2, n))
    c = np.where(rng.random(n) < 0.9, a, rng.integers(0, 2, size=n))
    X = rng.normal(size=(n, d))
    X[:, 0] += 4 * a
    X[:, 1] += 4 * b
    return X @ rng.normal(size=(d, d)), {"a": a, "b": b, "c": c}


def by_pair(table: Any, method: str) -> Any:
    return table[table.method == method].set_index(["erased", "measured"])


def test_on_shared_rows_the_erased_falls_to_the_majority_and_others_stay() -> None:
    X, labels = shared_rows()
    concepts = {name: ConceptStates({3: X}, y) for name, y in labels.items()}
    table = collateral(concepts, options=DamageOptions(cv=4, draws=300))
    assert len(table) == 3 * 3 * 4  # leace, inlp and a control for each
    assert set(table.layer) == {3}
    for method in ("leace", "inlp"):
        found = by_pair(table, method)
        for name in labels:
            row = found.loc[(name, name)]
            assert row.before > 0.9
            assert row.after_low <= row.majority <= row.after_high
            assert row.after == pytest.approx(row.majority, abs=0.08)
    leace = by_pair(table, "leace")
    assert leace.loc[("a", "b"), "after"] > 0.9
    assert leace.loc[("b", "a"), "after"] > 0.9
    assert leace.loc[("a", "c"), "after"] < 0.7  # most of c is a
    random = table[(table.method == "random") & (table.against == "leace")]
    assert (random["rank"] == 1).all()
    assert (random.after > random.before - 0.15).all()


def test_an_eraser_that_saw_the_test_rows_would_fall_below_the_majority() -> None:
    """Why erasers are fitted inside the folds: the tempting shortcut is biased, and this is not."""
    X, labels = shared_rows(n=100, d=80)
    y = labels["a"]
    probe = RidgeProbe(alphas=(1.0,))  # λ chosen by leave-one-out hides it
    row = collateral({"a": ConceptStates({0: X}, y)}, methods=("leace",), probe=probe).iloc[0]
    shortcut = sweep(probe, {0: fit_leace(X, y)(X)}, y)
    wrong = shortcut[shortcut.measure == "accuracy"].value.iloc[0]
    assert wrong < row.majority - 0.1
    assert row.after > row.majority - 0.1


def test_other_rows_are_cleaned_by_an_eraser_of_all_rows() -> None:
    X, labels = shared_rows()
    other, other_labels = shared_rows(seed=0, n=200)
    concepts = {
        "a": ConceptStates({0: X}, labels["a"]),
        "b": ConceptStates({0: other}, other_labels["b"]),
    }
    found = by_pair(collateral(concepts, methods=("leace",)), "leace")
    cleaned = fit_leace(X, labels["a"])(other)
    expected = sweep(RidgeProbe(), {0: cleaned}, other_labels["b"])
    value = expected[expected.measure == "accuracy"].value.iloc[0]
    assert found.loc[("a", "b"), "after"] == pytest.approx(value)
    plain = sweep(RidgeProbe(), {0: other}, other_labels["b"])
    assert found.loc[("a", "b"), "before"] == pytest.approx(
        plain[plain.measure == "accuracy"].value.iloc[0]
    )
    assert found.loc[("a", "b"), "n"] == 200


def test_layers_groups_probe_and_classes() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(150) % 3
    groups = np.arange(150) // 6
    X = rng.normal(size=(150, D)) + 4 * np.eye(3, D)[y]
    concepts = {"kind": ConceptStates({0: X, 2: X + 1, 5: X}, y, groups)}
    done: list[tuple[int, int]] = []
    table = collateral(
        concepts,
        [2, 5],
        methods=("leace", "random"),
        probe=LinearProbe(Cs=(1.0,)),
        options=DamageOptions(cv=3),
        progress=lambda i, n: done.append((i, n)),
    )
    assert table.layer.tolist() == [2, 2, 5, 5]
    assert table.method.tolist() == ["leace", "random"] * 2
    assert (table["rank"] == 2).all()
    assert table.after.iloc[0] < 0.5 < table.after.iloc[1]
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert table.dtypes["before_low"] == "Float64"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"layers": [9]}, InputError, "layer 9"),
        ({"methods": ("leice",)}, InputError, "did you mean 'leace'"),
        ({"methods": ("random",)}, InputError, "control"),
    ],
)
def test_wrong_requests_are_refused(change: Any, error: Any, words: str) -> None:
    X, labels = shared_rows(n=40)
    with pytest.raises(error, match=words):
        collateral({"a": ConceptStates({0: X}, labels["a"])}, **change)


def test_wrong_data_are_refused() -> None:
    X, labels = shared_rows(n=40)
    with pytest.raises(InputError, match="no concept"):
        collateral({})
    with pytest.raises(InputError, match="common layer"):
        collateral(
            {"a": ConceptStates({0: X}, labels["a"]), "b": ConceptStates({1: X}, labels["b"])}
        )
    with pytest.raises(DataError, match="different widths"):
        collateral(
            {
                "a": ConceptStates({0: X}, labels["a"]),
                "b": ConceptStates({0: X[:, 1:]}, labels["b"]),
            }
        )
    with pytest.raises(DataError, match="40 rows but there are 39"):
        collateral({"a": ConceptStates({0: X}, labels["a"][1:])})
    with pytest.raises(NonFiniteError, match="of 'a'"):
        collateral({"a": ConceptStates({0: X * np.inf}, labels["a"])})
