"""Copies on bitsandbytes' kernels: near the model, apart in the cache, and only where the library can."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from zoo import build, texts

from probes import capture
from probes.errors import InputError, ModelError
from probes.models import Model, quantised
from probes.models import bitsandbytes as module
from probes.models.inputs import run_base, trial_inputs
from probes.models.selfcheck import relative_difference

torch.set_num_threads(1)


@pytest.fixture
def library() -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is an optional library")


def check(model: Model, bits: int) -> float:
    """Relative error of a copy with so many bits, after what must hold for every one."""
    before = model.weights_hash
    inputs = trial_inputs(model.hf_model)
    low = quantised(model, bits, backend="bitsandbytes")
    first = low.weights_hash
    error = relative_difference(
        run_base(low.structure.base, inputs), run_base(model.structure.base, inputs)
    )
    assert low.weights_hash == first != before  # also after a pass
    assert quantised(model, bits, backend="bitsandbytes").weights_hash == first
    assert model.weights_hash == before
    assert low.name == f"{model.name} (int{bits})"
    assert 0 < error < 1
    return error


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_near_the_model(name: str, library: None) -> None:
    assert check(build(name), 8) < 0.1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="4 bit kernels need a GPU")
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_4_bits_are_further_away(name: str, library: None) -> None:
    model = build(name)
    model.hf_model.to("cuda")
    assert check(model, 8) < check(model, 4)


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
    with pytest.raises(InputError, match="rewrite their weights on a CPU"):
        quantised(build("bert"), 4, backend="bitsandbytes")
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
