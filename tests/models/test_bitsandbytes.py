"""Copies on bitsandbytes' kernels: near the model, apart in the cache, and only where the library can."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from zoo import build, texts

from probes import capture
from probes.errors import InputError, ModelError
from probes.models import bitsandbytes as module
from probes.models import quantised
from probes.models.inputs import run_base, trial_inputs
from probes.models.selfcheck import relative_difference

torch.set_num_threads(1)


@pytest.fixture
def library() -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is an optional library")


@pytest.mark.parametrize(("name", "widths"), [("bert", (8, 4)), ("gpt2", (8,))])
def test_near_the_model_and_8_bits_nearer_than_4(
    name: str, widths: tuple[int, ...], library: None
) -> None:
    """GPT-2 with 8 bits only: on a CPU the 4 bit kernels do not take all maps with fewer than 64 inputs."""
    model = build(name)
    before = model.weights_hash
    inputs = trial_inputs(model.hf_model)
    plain = run_base(model.structure.base, inputs)
    error, hashes = {}, {before}
    for bits in widths:
        low = quantised(model, bits, backend="bitsandbytes")
        first = low.weights_hash
        error[bits] = relative_difference(run_base(low.structure.base, inputs), plain)
        assert low.weights_hash == first  # also after a pass
        assert low.name == f"tiny-{name} (int{bits})"
        assert quantised(model, bits, backend="bitsandbytes").weights_hash == first
        hashes.add(first)
    assert sorted(error, key=error.__getitem__) == list(widths)
    assert all(0 < value < 1 for value in error.values())
    assert len(hashes) == 1 + len(widths)
    assert model.weights_hash == before


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_places_point_into_the_copy(name: str, library: None) -> None:
    """Capture reads the copy's own layers: what attention adds comes out of the new projection."""
    model = build(name)
    low = quantised(model, 8, backend="bitsandbytes")
    modules = {id(m) for m in low.hf_model.modules()}
    for block in low.structure.blocks:
        assert type(block.o_proj).__name__ == "Linear8bitLt"
        assert {id(block.module), id(block.o_proj), id(block.mlp_out)} <= modules
    acts = [capture(m, texts(6), ["exit", "z", "attn_out"]) for m in (model, low)]
    for place in (("exit", 3), ("z", 1), ("attn_out", 2)):
        a, b = (store[place] for store in acts)
        assert 0 < np.abs(a - b).max() < 0.2 * np.abs(a).max()


def test_what_it_cannot_do(library: None) -> None:
    for options in ({"bits": 3}, {"group": 16}):
        with pytest.raises(InputError, match="8 or 4 bits and groups of its own"):
            quantised(build("bert"), backend="bitsandbytes", **options)
    with pytest.raises(ModelError, match="stack of experts"):
        quantised(build("mixtral"), backend="bitsandbytes")


def test_a_model_that_does_not_run_on_it_is_refused_at_once() -> None:
    model = build("bert")
    twin = module.copy_model(model)
    twin.hf_model.encoder.layer[0].forward = lambda *a, **k: 1 / 0  # pyright: ignore
    with pytest.raises(ModelError, match=r"does not run with bitsandbytes .ZeroDivisionError"):
        module._try_out(model, twin)
    twin = module.copy_model(model)
    with torch.no_grad():
        twin.structure.blocks[2].module.output.dense.weight.fill_(torch.nan)  # pyright: ignore
    with pytest.raises(ModelError, match="NaN or infinity"):
        module._try_out(model, twin)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(InputError, match="run pip install bitsandbytes"):
        quantised(build("bert"), backend="bitsandbytes")
