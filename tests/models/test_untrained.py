"""`untrained`: same architecture, fresh weights, nothing else moved."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from zoo import NAMES, build, hf_model, texts

from probes import capture
from probes.errors import InputError, ModelError, StoreError
from probes.models import Model, load_model, untrained, wrap_model
from probes.models.inputs import run_base, trial_inputs
from probes.models.selfcheck import check_layers, check_sites

torch.set_num_threads(1)


def _own_init(model: Model, seed: int) -> dict[str, torch.Tensor]:
    """The judge: the class called by hand on the configuration."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return type(model.hf_model)(model.config).state_dict()


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_gets_its_own_initial_weights(name: str) -> None:
    trained = build(name)
    before = trained.weights_hash
    fresh = untrained(trained, seed=3)
    assert trained.weights_hash == before
    assert fresh.weights_hash not in (before, untrained(trained, seed=4).weights_hash)
    assert fresh.weights_hash == untrained(trained, seed=3).weights_hash
    expected = _own_init(trained, 3)
    state = fresh.hf_model.state_dict()
    assert state.keys() == expected.keys() == trained.hf_model.state_dict().keys()
    for key, tensor in state.items():
        torch.testing.assert_close(tensor, expected[key], rtol=0, atol=0)
    # The places are those of the original, and they hold.
    assert fresh.name == f"tiny-{name} (untrained)"
    assert [b.path for b in fresh.structure.blocks] == [b.path for b in trained.structure.blocks]
    assert fresh.padding_sides == trained.padding_sides
    assert fresh.tokenizer is trained.tokenizer
    assert fresh.embedding == trained.embedding
    check_layers(fresh.structure, trial_inputs(fresh.hf_model), name)
    check_sites(fresh.structure, trial_inputs(fresh.hf_model, rows=1), name)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_equals_the_model_wrapped_from_scratch(name: str) -> None:
    """Control for the copied structure: an own search on the fresh weights gives the same numbers."""
    fresh = untrained(build(name), seed=1)
    bare = hf_model(name)
    bare.load_state_dict(_own_init(build(name), 1))
    inputs = trial_inputs(bare)
    torch.testing.assert_close(
        run_base(fresh.structure.base, inputs), run_base(wrap_model(bare).structure.base, inputs)
    )


def test_no_tensor_is_shared_and_tied_weights_stay_tied() -> None:
    config = hf_model("gpt2").config
    config.tie_word_embeddings = True
    import transformers

    trained = wrap_model(transformers.GPT2LMHeadModel(config))
    fresh = untrained(trained)
    hf: Any = fresh.hf_model
    assert hf.lm_head.weight is hf.transformer.wte.weight
    ours = {p.data_ptr() for p in trained.hf_model.parameters()}
    assert not ours & {p.data_ptr() for p in fresh.hf_model.parameters()}
    assert fresh.structure.lm_head is hf.lm_head
    assert fresh.structure.blocks[0].module is hf.transformer.h[0]


def test_random_states_of_the_process_are_left_alone() -> None:
    model = build("bert")
    numpys = np.random.get_state()[1].copy()  # noqa: NPY002
    states = [torch.get_rng_state(), numpys, random.getstate()]
    dtype = torch.get_default_dtype()
    one = untrained(model)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]
    assert torch.get_default_dtype() == dtype
    torch.manual_seed(99)  # and they do not matter
    np.random.seed(99)  # noqa: NPY002
    assert untrained(model).weights_hash == one.weights_hash


def test_precision_is_kept_and_rounded_from_the_same_draw() -> None:
    half = wrap_model(hf_model("bert").to(torch.bfloat16), build("bert").tokenizer)
    fresh, full = untrained(half, 5), untrained(build("bert"), 5)
    assert fresh.dtype == torch.bfloat16
    for key, tensor in full.hf_model.state_dict().items():
        assert torch.equal(fresh.hf_model.state_dict()[key], tensor.to(torch.bfloat16))


def test_a_trained_running_statistic_does_not_survive() -> None:
    """Saved buffers are weights too: a model that keeps what it learnt in one would not be untrained."""
    bare = hf_model("bert")
    bare.register_buffer("learnt", torch.full((3,), 7.0))
    with pytest.raises(ModelError, match="its configuration does not make, such as learnt"):
        untrained(wrap_model(bare))


def test_an_untrained_model_is_captured_apart(tmp_path: Path) -> None:
    model = build("bert")
    first = capture(model, texts(4), out=tmp_path)
    with pytest.raises(StoreError, match="weights"):
        capture(untrained(model), texts(4), out=tmp_path)
    other = capture(untrained(model), texts(4))
    assert not np.allclose(first["exit", 2], other["exit", 2])


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, "1", None])
def test_seeds_that_are_none(seed: Any) -> None:
    with pytest.raises(InputError, match="seed is"):
        untrained(build("bert"), seed)


@pytest.mark.models
def test_minilm() -> None:
    model = load_model("minilm", device="cpu")
    fresh = untrained(model)
    assert fresh.name == "minilm (untrained)"
    assert fresh.embedding == model.embedding
    std = float(fresh.structure.blocks[0].module.attention.self.query.weight.detach().std())  # pyright: ignore
    assert std == pytest.approx(model.config.initializer_range, rel=0.02)
