"""Weights of heads: every layout of every architecture, against the live model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from probes.capture.hooks import edit_site, run_backbone
from probes.errors import DoesNotApply
from probes.heads.weights import all_head_weights, head_weights
from probes.models import wrap_model

WITH_HEADS = [
    "gpt2", "gpt-neox", "gptj", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3",
    "phi3", "mixtral", "falcon", "olmo2", "cohere", "granite", "bert", "distilbert", "mpnet",
    "electra", "deberta-v2", "modernbert", "t5-encoder", "vit",
]  # fmt: skip


@pytest.mark.parametrize("name", WITH_HEADS)
def test_all_parts_are_found_in_every_block(name: str, tiny: Any) -> None:
    model = tiny(name)
    found = all_head_weights(model)
    assert [weights.block for weights in found] == list(range(model.n_layers))
    for weights in found:
        assert not weights.missing
        n, width = weights.heads.n, weights.heads.width
        for matrix in (weights.W_Q, weights.W_K, weights.W_V):
            assert matrix.shape == (n, model.d_model, width)
        assert weights.W_O.shape == (n, width, model.d_model)


@pytest.mark.parametrize(
    ("name", "path", "transposed"),
    [("llama", "self_attn.{}_proj", True), ("gptj", "attn.{}_proj", True)],
)
def test_separate_projections_are_the_models_own(
    name: str, path: str, transposed: bool, tiny: Any
) -> None:
    model = tiny(name)
    weights = head_weights(model, 1)
    heads = weights.heads
    for part in "QKV":
        module = model.structure.blocks[1].module.get_submodule(path.format(part.lower()))
        own = module.weight.T.reshape(model.d_model, -1, heads.width).permute(1, 0, 2)
        own = own.repeat_interleave(heads.n // len(own), 0)
        assert torch.equal(weights.matrix(part), own)


def test_interleaved_and_concatenated_layouts_differ(tiny: Any) -> None:
    """The very columns, by the definitions of GPT-2 (q | k | v) and GPT-NeoX (by head: q, k, v)."""
    for name, path, by_head in (
        ("gpt2", "attn.c_attn", False),
        ("gpt-neox", "attention.query_key_value", True),
    ):
        model = tiny(name)
        fused = model.structure.blocks[0].module.get_submodule(path).weight
        fused = fused.T if by_head else fused  # (d, 3 · n · width)
        shape = (model.d_model, 4, 3, 8) if by_head else (model.d_model, 3, 4, 8)
        own = fused.reshape(shape).permute((2, 1, 0, 3) if by_head else (1, 2, 0, 3))
        found = head_weights(model, 0)
        for part, theirs in zip("QKV", own, strict=True):
            assert torch.equal(found.matrix(part), theirs), (name, part)


def test_output_weights_write_what_attention_adds(tiny: Any) -> None:
    """Σ over heads of z W_O + b is the attention's output; editing z by one head moves it by that head's W_O."""
    model = tiny("llama")
    weights = head_weights(model, 0)
    seen: list[torch.Tensor] = []
    inputs = {
        "input_ids": torch.tensor([[9, 30, 41, 17]]),
        "attention_mask": torch.ones(1, 4).long(),
    }
    projection = model.structure.blocks[0].o_proj
    handle = projection.register_forward_hook(lambda _m, args, out: seen.extend([args[0], out]))
    with torch.no_grad():
        run_backbone(model, inputs)
        with edit_site(model, "z", 0, lambda z: z * torch.tensor([1.0, 0, 1, 1])[:, None]):
            run_backbone(model, inputs)
    handle.remove()
    z, out, _, without = seen
    z = z.reshape(4, 4, 8)
    whole = torch.einsum("thw,hwd->td", z, weights.W_O)
    torch.testing.assert_close(whole, out[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out[0] - without[0], z[:, 1] @ weights.W_O[1], atol=1e-5, rtol=1e-5)


def test_what_stands_between_is_noted(tiny: Any) -> None:
    notes = head_weights(tiny("olmo2"), 0).notes
    assert [note[0] for note in notes] == ["Q", "K", "O"]
    assert all("Norm follows the projection" in note for note in notes)
    assert head_weights(tiny("llama"), 0).notes == ()


def test_models_without_heads_say_why(tiny: Any) -> None:
    with pytest.raises(DoesNotApply, match="no attention heads"):
        all_head_weights(tiny("mamba"))
    with pytest.raises(DoesNotApply, match="no attention heads"):
        head_weights(tiny("mamba"), 0)


def test_weights_that_do_not_explain_the_pass_are_missing(zoo: Any) -> None:
    """A projection that does more than its weight says is not taken for its weight."""
    bare = zoo.hf_model("llama")
    model = wrap_model(bare, zoo.tokenizer("decoder"))
    attention = bare.model.layers[1].self_attn
    handles = [
        attention.v_proj.register_forward_hook(lambda _m, _a, out: out.tanh()),
        bare.model.layers[2].self_attn.q_proj.register_forward_hook(lambda _m, _a, out: out + 1),
    ]
    found = all_head_weights(model)
    for handle in handles:
        handle.remove()
    assert not found[0].missing
    assert list(found[1].missing) == ["V"]
    assert list(found[2].missing) == ["Q"]
    with pytest.raises(DoesNotApply, match="weights V of block 1: no projection"):
        _ = found[1].W_V
    assert not all_head_weights(model)[1].missing
