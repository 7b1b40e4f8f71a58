"""The transfer matrix: what is shared transfers, what is private does not, groups stay on one side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from probes.errors import DataError, InputError
from probes.probing import LinearProbe, MassMeanProbe, RidgeProbe, transfer_matrix

PROBES: list[Any] = [
    MassMeanProbe(),
    MassMeanProbe(covariance=True),
    RidgeProbe(),
]


def shown(
    axis: int, sign: int = 1, n: int = 100, d: int = 10, seed: int = 0, shift: float = 4.0
) -> Any:
    rng = np.random.default_rng([seed, axis, sign + 1])
    y = np.arange(n) % 2
    return {
        k: rng.normal(size=(n, d)) + (k > 0) * sign * shift * np.outer(y - 0.5, np.eye(d)[axis])
        for k in (0, 1)
    }, y


def matrix(table: Any, layer: int) -> np.ndarray:
    return (
        table[table.layer == layer].pivot(index="train", columns="test", values="value").to_numpy()
    )


@pytest.mark.parametrize("probe", PROBES, ids=str)
def test_shared_directions_transfer_private_ones_do_not_reversed_ones_reverse(probe: Any) -> None:
    sets = {"a": shown(0), "b": shown(0, seed=1), "c": shown(1), "d": shown(0, sign=-1)}
    table = transfer_matrix(
        {k: v[0] for k, v in sets.items()}, {k: v[1] for k, v in sets.items()}, probe=probe
    )
    assert list(table.columns) == ["train", "test", "layer", "value", "low", "high", "n", "chance"]
    high, chance, low = (0.85, 1.0), (0.3, 0.7), (0.0, 0.15)
    expected = [
        [high, high, chance, low],
        [high, high, chance, low],
        [chance, chance, high, chance],
        [low, low, chance, high],
    ]
    found = matrix(table, 1)
    for row, bounds in zip(found, expected, strict=True):
        for value, (least, most) in zip(row, bounds, strict=True):
            assert least <= value <= most
    assert (np.abs(matrix(table, 0) - 0.5) < 0.25).all()  # control: the layer without any signal
    assert ((table.low <= table.value) & (table.value <= table.high)).all()
    assert set(table.chance) == {0.5}


def test_the_diagonal_is_cross_validated_and_cells_are_a_plain_loop() -> None:
    (A, y), (B, z) = shown(0, shift=1.0), shown(0, seed=5, shift=1.0)
    table = transfer_matrix({"a": A, "b": B}, {"a": y, "b": z}, layers=[1], cv=4, seed=3)
    from probes.probing.folds import stratified_folds

    both = np.concatenate([y, z + 2])
    fold = np.empty(200, dtype=int)
    for number, (_, test) in enumerate(stratified_folds(both, None, 4, 3)):
        fold[test] = number
    mine, other = fold[:100], fold[100:]
    right = {"a": [], "b": []}
    for number in range(4):
        X, t = A[1][mine != number], y[mine != number]
        theta = X[t == 1].mean(0) - X[t == 0].mean(0)
        middle = (X[t == 1].mean(0) + X[t == 0].mean(0)) / 2
        for name, S, own, f in (("a", A, y, mine), ("b", B, z, other)):
            said = (S[1][f == number] - middle) @ theta > 0
            right[name] += (said == own[f == number]).tolist()
    np.testing.assert_allclose(matrix(table, 1)[0], [np.mean(right["a"]), np.mean(right["b"])])


def test_noise_remembered_in_training_is_not_measured() -> None:
    rng = np.random.default_rng(0)
    X = {0: rng.normal(size=(60, 300))}  # separable by chance
    y = np.arange(60) % 2
    table = transfer_matrix({"a": X}, {"a": y}, probe=RidgeProbe())
    assert RidgeProbe().fit(X[0], y).score(X[0], y) > 0.95
    assert abs(table.value[0] - 0.5) < 0.25


def test_a_group_of_one_name_in_two_data_sets_is_one_group() -> None:
    """Statements and their negations about the same cities: a city's own direction must not be carried over."""
    rng = np.random.default_rng(0)
    n = 60
    entity = 6 * rng.normal(size=(n, 120))  # what a probe could remember about each city
    y = np.arange(n) % 2
    rng.shuffle(y)
    sets = {name: {0: entity + 0.1 * rng.normal(size=(n, 120))} for name in ("cities", "negated")}
    labels = dict.fromkeys(sets, y)
    names = {name: [f"city {i}" for i in range(n)] for name in sets}
    free = matrix(transfer_matrix(sets, labels, probe=RidgeProbe()), 0)
    kept = matrix(transfer_matrix(sets, labels, groups=names, probe=RidgeProbe()), 0)
    assert min(free[0, 1], free[1, 0]) > 0.75
    assert max(kept[0, 1], kept[1, 0]) < 0.7


def test_auroc_sees_the_direction_where_the_threshold_is_off() -> None:
    (A, y), (B, z) = shown(0), shown(0, seed=1)
    B = {1: B[1] + 20 * np.eye(10)[0]}
    sets, labels = {"a": {1: A[1]}, "b": B}, {"a": y, "b": z}
    accuracy, auroc = (
        matrix(transfer_matrix(sets, labels, measure=m), 1)[0, 1] for m in ("accuracy", "auroc")
    )
    assert accuracy < 0.6
    assert auroc > 0.9


def test_three_classes_in_words_and_unequal_sizes() -> None:
    rng = np.random.default_rng(0)
    centres = 5 * np.eye(3, 8)
    sets, labels = {}, {}
    for name, n in (("a", 60), ("b", 150)):
        y = rng.choice(3, n, p=[0.5, 0.3, 0.2])
        sets[name] = {0: centres[y] + rng.normal(size=(n, 8))}
        labels[name] = np.array(["ant", "bee", "cat"])[y]
    table = transfer_matrix(sets, labels, probe=LinearProbe(Cs=(0.1,)))
    assert (matrix(table, 0) > 0.9).all()
    assert table[table.test == "b"].n.unique().tolist() == [150]
    share = np.unique(labels["b"], return_counts=True)[1].max() / 150
    assert table[table.test == "b"].chance.unique().tolist() == [share]


def test_errors_say_what_came() -> None:
    A, y = shown(0)
    with pytest.raises(InputError, match="'b' has states but no labels"):
        transfer_matrix({"a": A, "b": A}, {"a": y})
    with pytest.raises(DataError, match="'b' has no example of class 1"):
        transfer_matrix({"a": A, "b": A}, {"a": y, "b": y * 0})
    with pytest.raises(DataError, match="layer 0 of 'b' has 100 rows, 99 are needed"):
        transfer_matrix({"a": A, "b": A}, {"a": y, "b": y[1:]})
    with pytest.raises(InputError, match="'a' hold no layer 7"):
        transfer_matrix({"a": A}, {"a": y}, layers=[7])
    with pytest.raises(InputError, match="unknown measure 'acuracy'"):
        transfer_matrix({"a": A}, {"a": y}, measure="acuracy")  # type: ignore[arg-type]
    narrow = {k: v[:, :3] for k, v in A.items()}
    with pytest.raises(DataError, match="different widths"):
        transfer_matrix({"a": A, "b": narrow}, {"a": y, "b": y})
    with pytest.raises(InputError, match="groups of 'a' have shape"):
        transfer_matrix({"a": A}, {"a": y}, groups={"a": [1, 2]})


@pytest.mark.slow
def test_intervals_cover_chance_at_their_rate() -> None:
    """On and off the diagonal, random labels, 200 seeds: 95 % within three binomial standard errors."""
    inside: dict[bool, list[bool]] = {True: [], False: []}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        states = {name: {0: rng.normal(size=(100, 10))} for name in "ab"}
        labels = {name: rng.permutation(np.arange(100) % 2) for name in "ab"}
        for row in transfer_matrix(states, labels, seed=seed, draws=200).itertuples():
            if row.train == "a":
                inside[row.train == row.test].append(row.low <= 0.5 <= row.high)
    for found in inside.values():
        assert abs(np.mean(found) - 0.95) <= 3 * np.sqrt(0.95 * 0.05 / 200)
