"""The frozen map: arrays and tensors alike, files, stored states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.erasure import Eraser, erased, fit_inlp, fit_leace, random_eraser
from probes.errors import DataError, InputError, NonFiniteError


@pytest.fixture
def eraser(planted: Any) -> Eraser:
    return fit_leace(*planted(classes=3))


def test_formula_by_brute_force(eraser: Eraser) -> None:
    X = np.random.default_rng(1).normal(size=(4, 5, 12))
    P = np.eye(12) - eraser.left @ eraser.right
    for i in range(4):
        for j in range(5):
            expected = P @ (X[i, j] - eraser.mean) + eraser.mean
            np.testing.assert_allclose(eraser(X)[i, j], expected, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_tensors_equal_arrays_and_keep_their_type(eraser: Eraser, dtype: torch.dtype) -> None:
    states = torch.randn(3, 7, 12, dtype=torch.float64).to(dtype)
    before = states.clone()
    found = eraser(states)
    assert found.dtype == dtype
    assert torch.equal(states, before)  # the given states are not edited
    exact = eraser(states.double().numpy())
    tolerance = 4 * torch.finfo(dtype).eps * np.abs(exact).max()
    np.testing.assert_allclose(found.double().numpy(), exact, atol=tolerance)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64])
def test_arrays_keep_their_precision(eraser: Eraser, kind: Any) -> None:
    X = np.arange(24).reshape(2, 12).astype(kind)
    assert eraser(X).dtype == (np.float64 if kind is np.int64 else kind)


def test_other_widths_are_refused(eraser: Eraser) -> None:
    for X in (np.ones((2, 11)), np.ones(13), torch.ones(2, 11), np.float64(1)):
        with pytest.raises(InputError, match="acts on"):
            eraser(X)


def test_a_file_gives_back_the_same_map(eraser: Eraser, planted: Any, tmp_path: Path) -> None:
    X, y = planted()
    for one in (eraser, fit_inlp(X, y), random_eraser(12, 0)):
        one.save(tmp_path / "concept.safetensors")
        again = Eraser.load(tmp_path / "concept.safetensors")
        np.testing.assert_array_equal(again(X), one(X))
        assert (again.method, again.history, again.rank) == (one.method, one.history, one.rank)


def test_other_files_are_refused(eraser: Eraser, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "x.safetensors"
    with pytest.raises(DataError, match="cannot be read"):
        Eraser.load(path)
    path.write_bytes(b"\x80\x04 not a safetensors file")
    with pytest.raises(DataError, match="cannot be read"):
        Eraser.load(path)
    save_file({"weight": np.ones(3)}, path)
    with pytest.raises(DataError, match="holds no eraser"):
        Eraser.load(path)
    meta = {"format": "fathometer eraser 1", "method": "leace"}
    parts = {"left": np.ones((3, 1)), "right": np.ones((2, 3)), "mean": np.ones(3)}
    save_file({**parts, "history": np.ones(0)}, path, metadata=meta)
    with pytest.raises(DataError, match="shapes"):
        Eraser.load(path)
    eraser.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        Eraser.load(path)


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="shapes"):
        Eraser(np.ones((3, 1)), np.ones((1, 4)), np.ones(3), "leace")
    with pytest.raises(InputError, match="finite float64"):
        Eraser(np.full((3, 1), np.nan), np.ones((1, 3)), np.ones(3), "leace")


@settings(deadline=None, max_examples=30)
@given(d=st.integers(1, 30), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_random_erasers_are_orthogonal_projections_of_their_rank(
    d: int, share: float, seed: int
) -> None:
    rank = round(share * d)
    eraser = random_eraser(d, rank, seed)
    X = np.random.default_rng(seed).normal(size=(d + 5, d))
    cleaned = eraser(X)
    assert np.linalg.matrix_rank(cleaned, tol=1e-9) == d - rank
    np.testing.assert_allclose(eraser(cleaned), cleaned, atol=1e-9)
    removed = X - cleaned
    np.testing.assert_allclose((removed * cleaned).sum(axis=1), 0, atol=1e-9)


def test_random_erasers_differ_by_seed_and_refuse_impossible_ranks() -> None:
    assert np.abs(random_eraser(8, 1, 0).right @ random_eraser(8, 1, 1).left).item() < 0.99
    with pytest.raises(InputError, match="0 to 8"):
        random_eraser(8, 9)


def test_stored_states_are_erased_one_layer_at_a_time(planted: Any) -> None:
    X, y = planted()
    reads: list[int] = []

    class Store(dict[int, np.ndarray]):
        def __getitem__(self, layer: int) -> np.ndarray:
            reads.append(layer)
            return super().__getitem__(layer)

    store = Store({0: X, 1: X + 1, 2: X + 2})
    cleaned = erased(store, {1: fit_leace(X + 1, y), 2: random_eraser(12, 3)})
    assert list(cleaned) == [1, 2]
    assert reads == []
    found = cleaned[1]
    assert reads == [1]
    assert np.ptp([found[y == k].mean(axis=0) for k in (0, 1)], axis=0).max() < 1e-9
    with pytest.raises(InputError, match="layer 7"):
        erased(store, {7: random_eraser(12, 1)})
    with pytest.raises(NonFiniteError, match="layer 0"):
        erased({0: X * np.nan}, {0: random_eraser(12, 1)})[0]
