"""Pooling against a loop over the tokens that count, for every side of padding and every mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.capture.pooling import POOLINGS, Pooler
from probes.errors import DataError, InputError

LOOP = {
    "mean": lambda rows: rows.mean(0),
    "last": lambda rows: rows[-1],
    "first": lambda rows: rows[0],
    "max": lambda rows: rows.max(0),
    "weighted": lambda rows: np.arange(1, len(rows) + 1) @ rows / (len(rows) * (len(rows) + 1) / 2),
}


def by_hand(name: str, states: torch.Tensor, keep: torch.Tensor) -> list[np.ndarray]:
    rows = [states[i][keep[i]].double().numpy() for i in range(len(states))]
    if name == "none":
        return rows
    return [LOOP[name](r.reshape(len(r), -1)).reshape(r.shape[1:]) for r in rows]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(POOLINGS)), st.booleans())
def test_equals_a_loop_for_any_mask(seed: int, name: str, heads: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(3, 5, *((2, 4) if heads else (8,)), generator=generator)
    keep = torch.rand(3, 5, generator=generator) < 0.6
    keep[:, int(torch.randint(5, (1,), generator=generator))] = True
    pooled = Pooler(name, keep)(states)
    expected = by_hand(name, states, keep)
    if name == "none":
        np.testing.assert_array_equal(pooled, np.concatenate(expected))
    else:
        assert pooled.shape == (3, *states.shape[2:])
        assert pooled.dtype == torch.float32
        np.testing.assert_allclose(pooled, np.stack(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(POOLINGS))
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("filler", [1e30, float("nan"), float("inf")])
def test_padding_never_matters(name: str, side: str, filler: float) -> None:
    states = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    bare = Pooler(name, torch.ones(2, 4, dtype=torch.bool))(states)
    junk = torch.full((2, 3, 6), filler)
    wide = torch.cat([junk, states] if side == "left" else [states, junk], 1)
    keep = torch.zeros(2, 7, dtype=torch.bool)
    keep[:, slice(3, 7) if side == "left" else slice(0, 4)] = True
    torch.testing.assert_close(Pooler(name, keep)(wide), bare, rtol=1e-6, atol=1e-6)


def test_a_real_nan_is_kept() -> None:
    states = torch.ones(2, 3, 2)
    states[0, 0, 1] = float("nan")
    keep = torch.tensor([[True, True, False]] * 2)
    for name in ("mean", "max", "weighted", "first"):
        pooled = Pooler(name, keep)(states)
        assert torch.isnan(pooled[0, 1])
        assert torch.isfinite(pooled[1]).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_states_are_summed_in_float32(dtype: torch.dtype) -> None:
    """4096 ones and one 1024: a half-precision sum would stop counting long before."""
    states = torch.ones(1, 4097, 1, dtype=dtype)
    states[0, 0, 0] = 1024
    keep = torch.ones(1, 4097, dtype=torch.bool)
    pooled = Pooler("mean", keep)(states)
    assert pooled.dtype == torch.float32
    assert pooled.item() == pytest.approx((1024 + 4096) / 4097, rel=1e-5)
    control = torch.zeros(1, dtype=dtype)  # the control: a running sum in half precision is far off
    for value in states[0, :, 0]:
        control = control + value
    assert abs(control.item() / 4097 - pooled.item()) > 0.1


def test_none_keeps_the_states_own_dtype() -> None:
    states = torch.ones(1, 2, 3, dtype=torch.bfloat16)
    assert Pooler("none", torch.ones(1, 2, dtype=torch.bool))(states).dtype == torch.bfloat16


def test_states_are_not_edited() -> None:
    states = torch.randn(2, 3, 4)
    before = states.clone()
    for name in POOLINGS:
        Pooler(name, torch.tensor([[True, False, True]] * 2))(states)
    assert torch.equal(states, before)


def test_refusals() -> None:
    with pytest.raises(InputError, match="did you mean 'mean'"):
        Pooler("maen", torch.ones(1, 1))
    with pytest.raises(DataError, match="row 1"):
        Pooler("mean", torch.tensor([[True], [False]]))
    with pytest.raises(DataError, match="do not fit"):
        Pooler("mean", torch.ones(1, 2))(torch.ones(1, 3, 4))
