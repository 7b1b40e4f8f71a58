"""Recipes: kept and read again they are the same function, and what is damaged is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.errors import FathometerError, InputError
from probes.exits.recipe import (
    Linear,
    Normalise,
    Probe,
    Recipe,
    Truncate,
    load_recipe,
    save_recipe,
)

D = 6


def steps() -> st.SearchStrategy[tuple[object, ...]]:
    def linear(seed: int) -> Linear:
        rng = np.random.default_rng(seed)
        weight, bias = rng.normal(size=(D, D)), rng.normal(size=D)
        return Linear(weight.astype(np.float32), bias.astype(np.float32))

    one = st.one_of(st.integers(0, 99).map(linear), st.just(Normalise()))
    last = st.one_of(st.just(()), st.integers(1, D).map(lambda m: (Truncate(m),)))
    return st.tuples(st.lists(one, max_size=3).map(tuple), last).map(lambda both: both[0] + both[1])


@given(steps(), st.sampled_from(["mean", "last"]), st.sampled_from([None, "two layers"]))
def test_what_is_kept_is_the_same_function(tmp_path_factory, made, pooling, reason) -> None:
    path = tmp_path_factory.mktemp("recipe") / "translated-3x64"
    recipe = Recipe(3, pooling, made, "bfloat16", 0.9, None, reason)
    save_recipe(recipe, path)
    again = load_recipe(path)
    states = np.random.default_rng(0).normal(size=(4, D))
    np.testing.assert_array_equal(again(states), recipe(states))
    assert (again.layer, again.pooling, again.precision) == (3, pooling, "bfloat16")
    assert (again.temperature, again.reason, again.exportable) == (0.9, reason, reason is None)


def test_a_probe_comes_along(tmp_path: Path) -> None:
    weight, bias = np.ones((D, 2), np.float32), np.zeros(2, np.float32)
    save_recipe(Recipe(1, "mean", probe=Probe(weight, bias, ("no", "yes"))), tmp_path / "one")
    probe = load_recipe(tmp_path / "one").probe
    assert probe is not None
    assert probe.labels == ("no", "yes")
    np.testing.assert_array_equal(probe.weight, weight)


def test_damage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one"
    with pytest.raises(FathometerError):
        load_recipe(path)
    save_recipe(Recipe(1, "mean", (Linear(np.eye(D), np.zeros(D)),)), path)
    whole = Path(f"{path}.safetensors").read_bytes()
    Path(f"{path}.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FathometerError, match="damaged"):
        load_recipe(path)
    Path(f"{path}.json").write_text("[]")
    with pytest.raises(FathometerError):
        load_recipe(path)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match="float64"):
        Recipe(1, "mean", precision="float64")
