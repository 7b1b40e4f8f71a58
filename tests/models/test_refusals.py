"""Models that cannot be understood or trusted get one clear line."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from zoo import build, hf_model, tokenizer

from probes.errors import DoesNotApply, InputError, ModelError, NonFiniteError
from probes.models import wrap_model
from probes.models.inputs import trial_inputs
from probes.models.selfcheck import check_layers, check_sites


class Tangled(transformers.LlamaModel):
    """A planted architecture: every block sees the sum of all earlier ones, so nothing is a chain."""

    def forward(self, input_ids: Any = None, **_: Any) -> Any:
        x = self.embed_tokens(input_ids)
        for layer in self.layers:
            x = x + layer.mlp(x)
        return transformers.modeling_outputs.BaseModelOutput(last_hidden_state=self.norm(x))


class OddEnd(transformers.LlamaModel):
    """A planted end: something that is no module comes after the blocks."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.last_hidden_state = output.last_hidden_state.flip(-1) * 2
        return output


def planted(kind: type[transformers.LlamaModel]) -> transformers.LlamaModel:
    return kind(hf_model("llama").config)


def test_blocks_that_are_not_found_say_what_was_looked_for() -> None:
    with pytest.raises(ModelError) as caught:
        wrap_model(planted(Tangled))
    message = str(caught.value)
    assert "Tangled" in message
    assert "ModuleList" in message
    assert "layers (member 0 of 3 does not run)" in message
    assert "\n" not in message


def test_an_end_that_is_not_understood() -> None:
    with pytest.raises(ModelError, match=r"layers\.2 to last_hidden_state.*norm"):
        wrap_model(planted(OddEnd))


def test_shared_layers_are_refused_by_name() -> None:
    config = transformers.AlbertConfig(
        vocab_size=96,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    with pytest.raises(ModelError, match=r"runs 3 times.*shared layers"):
        wrap_model(transformers.AlbertModel(config))


def test_blocks_of_a_hybrid_that_are_no_attention_have_no_heads() -> None:
    """A gated convolution adds to the residual stream just as attention does, but has no heads."""
    config = transformers.Lfm2Config(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention", "conv"],
        pad_token_id=1,
    )
    m = wrap_model(transformers.Lfm2ForCausalLM(config))
    assert (m.n_heads, m.n_kv_heads, m.d_head) == (4, 2, 8)
    assert m.structure.module_for("z", 1) is m.structure.blocks[1].o_proj
    for site in ("z", "attn_out"):
        with pytest.raises(DoesNotApply, match="'conv' layer, not attention"):
            m.structure.module_for(site, 0)
    assert m.structure.module_for("mlp_out", 0) is m.structure.blocks[0].mlp_out


def test_a_convolutional_network_is_refused() -> None:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])
    with pytest.raises(ModelError, match="does not say its image size"):
        wrap_model(transformers.ResNetModel(config))


def test_changing_widths_are_refused() -> None:
    config = transformers.SwinConfig(
        embed_dim=16, depths=[1, 1], num_heads=[2, 2], image_size=16, patch_size=2, window_size=4
    )
    with pytest.raises(ModelError, match=r"one shape .* at every layer is needed"):
        wrap_model(transformers.SwinModel(config))


def test_bare_modules_are_refused() -> None:
    with pytest.raises(ModelError, match="no transformers model"):
        wrap_model(nn.Linear(2, 2))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bad_weights_are_named(value: float) -> None:
    model = hf_model("bert")
    model.encoder.layer[1].output.dense.weight.data[3, 4] = value
    with pytest.raises(NonFiniteError, match=r"encoder\.layer\.1\.output\.dense\.weight.*1 of"):
        wrap_model(model)


def test_large_finite_weights_are_not_taken_for_infinity() -> None:
    model = hf_model("bert")
    model.pooler.dense.weight.data[:] = 3e38  # their sum overflows, they do not
    assert wrap_model(model).n_layers == 3


def test_the_self_check_notices_a_wrong_layer_order() -> None:
    m = build("llama")
    blocks = m.structure.blocks
    wrong = copy.copy(m.structure)
    object.__setattr__(wrong, "blocks", (*blocks[:2], blocks[1]))
    with pytest.raises(ModelError, match=r"layer 3 differs .* by .*e[+-]"):
        check_layers(wrong, trial_inputs(m.hf_model), "planted")
    object.__setattr__(wrong, "blocks", blocks[:2])
    with pytest.raises(ModelError, match="2 blocks were found, but the model returns 4"):
        check_layers(wrong, trial_inputs(m.hf_model), "planted")


def test_the_self_check_notices_a_site_without_effect() -> None:
    m = build("llama")
    first = copy.copy(m.structure.blocks[0])
    outside = {**first.modules, "mlp_out": m.structure.tail[0]}  # does not run inside the block
    object.__setattr__(first, "modules", outside)
    wrong = copy.copy(m.structure)
    object.__setattr__(wrong, "blocks", (first, *m.structure.blocks[1:]))
    with pytest.raises(ModelError, match="editing mlp_out of block 0 changes nothing"):
        check_sites(wrong, trial_inputs(m.hf_model), "planted")


def test_blocks_and_sites_that_do_not_exist() -> None:
    m = build("llama")
    with pytest.raises(InputError, match="0 to 2 are allowed"):
        m.structure.module_for("z", 3)
    with pytest.raises(InputError, match="did you mean 'attn_out'"):
        m.structure.module_for("attnout", 0)


def test_a_vision_model_has_no_tokenizer() -> None:
    with pytest.raises(DoesNotApply, match="pixel_values"):
        build("vit").require_tokenizer()
    with pytest.raises(ModelError, match="no tokenizer"):
        wrap_model(hf_model("bert")).require_tokenizer()


def test_a_pad_token_without_a_row_is_not_used() -> None:
    words = tokenizer("decoder")
    words.add_special_tokens({"pad_token": "<new-pad>"})
    words.add_tokens([f"extra{i}" for i in range(40)])
    words.pad_token = "extra39"
    assert words.pad_token_id >= 96
    assert wrap_model(hf_model("gpt2"), words).pad_id < 96


def test_lengths_and_hashes() -> None:
    bert, roberta = build("bert"), build("roberta")
    assert bert.max_length == 64
    assert roberta.max_length == 62  # its position table starts after the padding row
    assert bert.tokenizer_hash == roberta.tokenizer_hash != build("gpt2").tokenizer_hash
    before = bert.tokenizer_hash
    bert.tokenizer(["a cat", "a"], padding=True, truncation=True, max_length=4)
    fresh = wrap_model(hf_model("bert"), bert.tokenizer)
    assert fresh.tokenizer_hash == before  # settings of a call are no part of it
    with torch.no_grad():
        weights = bert.weights_hash
        bert.hf_model.embeddings.word_embeddings.weight[5, 5] += 1  # pyright: ignore
    assert bert.weights_hash != weights
