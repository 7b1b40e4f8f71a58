"""`quantised`: few values per channel, half a step from the trained ones, and only where it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import NAMES, build, hf_model, texts

from probes import capture
from probes.errors import InputError, ModelError, StoreError
from probes.models import quantised, wrap_model
from probes.models.inputs import run_base, trial_inputs
from probes.models.quantise import linear_weights, round_weights
from probes.models.selfcheck import relative_difference

torch.set_num_threads(1)


def _by_hand(row: np.ndarray, bits: int) -> np.ndarray:
    """One channel, weight by weight: the nearest of the allowed values."""
    top = 2 ** (bits - 1) - 1
    step = np.abs(row).max() / top
    grid = step * np.arange(-top, top + 1)
    return np.asarray([grid[np.abs(grid - w).argmin()] for w in row])


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 8), st.integers(1, 40), st.integers(1, 45), st.integers(0, 10_000))
def test_rounding_against_the_nearest_value_of_the_grid(
    bits: int, n: int, group: int, seed: int
) -> None:
    weight = torch.randn(3, n, generator=torch.Generator().manual_seed(seed))
    found = round_weights(weight, bits, group).numpy()
    for channel, row in enumerate(weight.double().numpy()):
        for start in range(0, n, group):
            cell = slice(start, start + group)
            np.testing.assert_allclose(
                found[channel, cell], _by_hand(row[cell], bits), rtol=1e-4, atol=1e-6
            )


def test_zeros_and_tiny_channels() -> None:
    weight = torch.stack([torch.zeros(4), torch.tensor([0.0, 1e-44, -1e-44, 0.0]), torch.ones(4)])
    found = round_weights(weight, 4)
    assert torch.isfinite(found).all()
    assert torch.equal(found[[0, 2]], weight[[0, 2]])
    assert float((found[1] - weight[1]).abs().max()) <= 1e-44


@pytest.mark.parametrize("name", NAMES)
def test_levels_and_error_of_every_architecture(name: str) -> None:
    model = build(name)
    before = model.weights_hash
    hashes = {before}
    inside = {path: transposed for path, _, transposed in linear_weights(model.structure)}
    old = dict(model.structure.base.named_parameters())
    error = {}
    for bits in (8, 4):
        low = quantised(model, bits)
        hashes.add(low.weights_hash)
        new = dict(low.structure.base.named_parameters())
        assert new.keys() == old.keys()
        for key, weight in old.items():
            if key not in inside:
                assert torch.equal(weight, new[key]), key
                continue
            a, b = (w.transpose(-1, -2) if inside[key] else w for w in (weight, new[key]))
            step = a.abs().amax(-1) / (2 ** (bits - 1) - 1)
            assert bool(((a - b).abs().amax(-1) <= step * 0.5001).all()), key
            for channel in b.flatten(0, -2):
                assert len(channel.unique()) <= 2**bits
            assert not torch.equal(a, b)
        inputs = trial_inputs(model.hf_model)
        error[bits] = relative_difference(
            run_base(low.structure.base, inputs), run_base(model.structure.base, inputs)
        )
    assert 0 < error[8] < error[4]
    assert len(hashes) == 3
    assert model.weights_hash == before


@pytest.mark.parametrize("name", ["gpt2", "bert", "mixtral", "falcon", "mamba"])
def test_what_is_linear_in_a_block(name: str) -> None:
    """From the documentation of the architecture: how many maps a block has."""
    model = build(name)
    maps = {"gpt2": 4, "bert": 6, "mixtral": 4 + 2, "falcon": 4, "mamba": 4}[name]
    found = [path for path, _, _ in linear_weights(model.structure)]
    assert len(found) == len(set(found)) == 3 * maps


def test_the_channel_is_the_output_also_where_the_weight_is_transposed() -> None:
    """Conv1D is (in, out): with steps along the wrong side, one large input would coarsen every channel."""
    model = build("gpt2")
    weight = model.structure.blocks[0].module.mlp.c_fc.weight  # pyright: ignore
    low = quantised(model, 4).structure.blocks[0].module.mlp.c_fc.weight  # pyright: ignore
    per_output = [len(column.unique()) for column in low.T]
    per_input = [len(row.unique()) for row in low]
    assert max(per_output) <= 15 < min(per_input)
    assert low.is_contiguous() == weight.is_contiguous()


def test_groups_are_closer_than_channels() -> None:
    model = build("llama")
    key = "layers.1.mlp.down_proj.weight"
    old = dict(model.structure.base.named_parameters())[key]
    errors = []
    for group in (None, 16, 7, 1):
        new = dict(quantised(model, 4, group).structure.base.named_parameters())[key]
        errors.append(float((new - old).detach().pow(2).mean()))
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[3] < 1e-12  # one weight per group is exact


def test_half_precision_is_kept() -> None:
    low = quantised(wrap_model(hf_model("bert").to(torch.bfloat16)), 4)
    assert low.dtype == torch.bfloat16
    for _, weight, _ in linear_weights(low.structure):
        assert max(len(row.unique()) for row in weight) <= 15


def test_quantised_states_are_stored_apart(tmp_path: Path) -> None:
    model = build("bert")
    plain = capture(model, texts(4), out=tmp_path)["exit", 3]
    difference = [0.0]
    for bits in (8, 4):
        with pytest.raises(StoreError, match="weights"):
            capture(quantised(model, bits), texts(4), out=tmp_path)
        difference.append(
            np.abs(capture(quantised(model, bits), texts(4))["exit", 3] - plain).max()
        )
    assert difference[0] < difference[1] < difference[2]


def test_names() -> None:
    model = build("bert")
    assert quantised(model).name == "tiny-bert (int8)"
    assert quantised(model, 4, 16).name == "tiny-bert (int4)"


def test_a_stack_of_unknown_layout_is_refused() -> None:
    bare: Any = hf_model("bert")
    bare.encoder.layer[1].register_parameter("stack", torch.nn.Parameter(torch.zeros(2, 3, 4)))
    with pytest.raises(ModelError, match=r"encoder.layer.1.stack is a stack of matrices"):
        quantised(wrap_model(bare))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, "bits is 1: a whole number from 2 to 8"),
        ({"bits": 16}, "bits is 16"),
        ({"bits": "8"}, "bits is '8'"),
        ({"group": 0}, "group is 0"),
        ({"group": 0.5}, "group is 0.5"),
        ({"backend": "bitsandbites"}, "did you mean 'bitsandbytes'"),
    ],
)
def test_refusals(options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        quantised(build("bert"), **options)
