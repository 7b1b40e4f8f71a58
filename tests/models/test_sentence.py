"""sentence-transformers folders: the library itself is the judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from zoo import hf_model, texts, tokenizer

from probes.errors import InputError, ModelError
from probes.models import load_model
from probes.models.trace import first_tensor

library = pytest.importorskip("sentence_transformers", reason="the judge is not installed")


def pooled(model: Any, sentences: list[str]) -> np.ndarray:
    """One text at a time, so that no padding takes part: the plainest pooling there is."""
    rows: list[np.ndarray] = []
    for sentence in sentences:
        encoded = model.tokenizer(
            sentence, return_tensors="pt", truncation=True, max_length=model.max_length
        )
        with torch.no_grad():
            states = first_tensor(
                model.structure.base(
                    **model.forward_inputs(encoded["input_ids"], encoded["attention_mask"])
                )
            )
        assert states is not None
        tokens = states[0].numpy().astype(np.float64)
        weights = np.arange(1, len(tokens) + 1)[:, None]
        rows.append(
            {
                "mean": lambda t: t.mean(0),
                "first": lambda t: t[0],
                "last": lambda t: t[-1],
                "max": lambda t: t.max(0),
                "weighted": lambda t, w=weights: (t * w).sum(0) / w.sum(),
            }[model.embedding.pooling](tokens)
        )
    return np.stack(rows)


def modules() -> Any:
    from sentence_transformers import models  # the old home is kept as an alias

    return models


def make(
    tmp_path: Path,
    *after: Any,
    pooling: str = "mean",
    max_length: int | None = None,
    **options: Any,
) -> Path:
    """A folder saved by sentence-transformers: tiny BERT, pooling, then the given modules."""
    bare, folder = tmp_path / "bare", tmp_path / "sentence"
    hf_model("bert").save_pretrained(bare)
    tokenizer().save_pretrained(bare)
    first = modules().Transformer(str(bare))
    if max_length:
        first.max_seq_length = max_length
    parts = [first, modules().Pooling(32, pooling), *after]
    library.SentenceTransformer(modules=parts, device="cpu", **options).save_pretrained(str(folder))
    return folder


def judge(folder: Path, sentences: list[str], **options: Any) -> np.ndarray:
    return library.SentenceTransformer(str(folder), device="cpu").encode(sentences, **options)


def same(folder: Path, sentences: list[str]) -> Any:
    model = load_model(folder, device="cpu")
    expected = judge(folder, sentences)
    np.testing.assert_allclose(
        model.embed(pooled(model, sentences)), expected, rtol=1e-4, atol=1e-5
    )
    return model


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken", "weightedmean"])
def test_pooling_modes(tmp_path: Path, pooling: str) -> None:
    same(make(tmp_path, pooling=pooling), texts(12))


def test_dense_and_normalise(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dense = modules().Dense(32, 20, activation_function=torch.nn.Tanh())
    model = same(make(tmp_path, dense, modules().Normalize()), texts(12))
    assert model.embed(pooled(model, ["the cat"])).shape == (1, 20)
    assert len(model.embedding.head) == 2


@pytest.mark.parametrize("width", [32, 12])
def test_residual_dense(tmp_path: Path, width: int) -> None:
    try:
        dense = modules().Dense(
            32, width, bias=False, activation_function=torch.nn.GELU(), use_residual=True
        )
    except TypeError:
        pytest.skip("this release of sentence-transformers has no residual Dense")
    same(make(tmp_path, dense), texts(8))


def test_layer_norm_and_order_of_modules(tmp_path: Path) -> None:
    norm = modules().LayerNorm(32)
    torch.nn.init.normal_(norm.norm.weight)
    torch.nn.init.normal_(norm.norm.bias)
    same(make(tmp_path, modules().Normalize(), norm, modules().Dropout(0.5)), texts(8))


def test_truncation_prompts_length_and_similarity(tmp_path: Path) -> None:
    folder = make(
        tmp_path,
        modules().Normalize(),
        max_length=6,
        prompts={"query": "the king ", "document": ""},
        default_prompt_name="query",
        truncate_dim=8,
        similarity_fn_name="dot",
    )
    model = load_model(folder)
    spec = model.embedding
    assert (model.max_length, spec.dim, spec.similarity) == (6, 8, "dot")
    assert (dict(spec.prompts), spec.default_prompt) == ({"query": "the king "}, "query")
    sentences = texts(8)
    ours = model.embed(pooled(model, ["the king " + text for text in sentences]))
    np.testing.assert_allclose(ours, judge(folder, sentences), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prompts": {"query": "the king ", "document": "a cat "}},
        {"prompts": {"query": "the king ", "x": "a dog "}, "default_prompt_name": "x"},
        {"prompts": {"query": "the king ", "document": ""}, "default_prompt_name": "query"},
        {"prompts": {"passage": "a cat ", "x": ""}, "default_prompt_name": "x"},
    ],
)
def test_prompts_are_those_the_library_chooses(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = make(tmp_path, **options)
    spec = load_model(folder).embedding
    theirs = library.SentenceTransformer(str(folder), device="cpu")
    chosen: list[str] = []
    resolve = theirs._resolve_prompt

    def watched(*given: Any) -> Any:
        chosen.append(resolve(*given) or "")
        return chosen[-1]

    theirs._resolve_prompt = watched
    for encode in (theirs.encode, theirs.encode_query, theirs.encode_document):
        encode("the dog")
    assert [spec.prompt_for(role) for role in ("text", "query", "document")] == chosen


def test_an_unknown_role_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'query'"):
        load_model(make(tmp_path)).embedding.prompt_for("qurey")


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", None])
@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("dim", [None, 8])
def test_what_counts_as_cosine(
    tmp_path: Path, name: str | None, unit: bool, dim: int | None
) -> None:
    after = [modules().Normalize()] if unit else []
    folder = make(tmp_path, *after, similarity_fn_name=name, truncate_dim=dim)
    theirs = library.SentenceTransformer(str(folder), device="cpu")
    rows = theirs.encode(texts(8))
    wanted = library.util.cos_sim(rows, rows)
    same_numbers = np.allclose(theirs.similarity(rows, rows), wanted, atol=1e-5)
    assert load_model(folder).embedding.is_cosine == same_numbers


def test_the_old_style_of_pooling_config(tmp_path: Path) -> None:
    folder = make(tmp_path)
    old = {
        "word_embedding_dimension": 32,
        "pooling_mode_cls_token": True,
        "pooling_mode_mean_tokens": False,
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(old))
    assert same(folder, texts(5)).embedding.pooling == "first"


def test_a_plain_folder_has_the_default(tmp_path: Path) -> None:
    make(tmp_path)
    spec = load_model(tmp_path / "bare").embedding
    assert (spec.pooling, spec.head, spec.max_length) == ("mean", (), None)
    rows = np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)
    np.testing.assert_array_equal(spec.apply(rows), rows)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    return str(caught.value)


def test_what_cannot_be_honoured_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path, modules().Dense(32, 8), prompts={"query": "a "})
    pooling, dense = folder / "1_Pooling" / "config.json", folder / "2_Dense" / "config.json"
    listed = json.loads((folder / "modules.json").read_text())
    keep = {path: path.read_text() for path in (pooling, dense, folder / "modules.json")}

    def again() -> None:
        for path, text in keep.items():
            path.write_text(text)

    edit(pooling, pooling_mode=["mean", "max"])
    assert "mean + max is not supported" in refused(folder)
    edit(pooling, pooling_mode="mean_sqrt_len_tokens")
    assert "mean_sqrt_len_tokens is not supported" in refused(folder)
    edit(pooling, pooling_mode="mean", include_prompt=False)
    assert "include_prompt" in refused(folder)
    again()
    edit(dense, activation_function="os.system")
    assert "activation os.system is not supported" in refused(folder)
    again()
    edit(dense, module_output_name="token_embeddings")
    assert "module_output_name" in refused(folder)
    again()
    listed[2]["type"] = "sentence_transformers.models.CNN"
    (folder / "modules.json").write_text(json.dumps(listed))
    assert "the module CNN is not supported" in refused(folder)
    listed[2]["type"] = "custom_code.Head"
    (folder / "modules.json").write_text(json.dumps(listed))
    assert "brings its own code" in refused(folder)
    again()
    listed = json.loads(keep[folder / "modules.json"])
    listed[1]["path"] = "../../elsewhere"
    (folder / "modules.json").write_text(json.dumps(listed))
    assert "outside the folder" in refused(folder)
    again()
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    assert "can run code" in refused(folder)


@pytest.mark.models
def test_minilm_equals_the_library() -> None:
    model = load_model("minilm", device="cpu")
    sentences = [
        "A man is playing a guitar.",
        "Ein Mann spielt Gitarre.",
        "x",
        "The quick brown fox jumps over the lazy dog. " * 60,  # longer than 256 tokens
    ]
    from probes.models import pull

    expected = judge(pull("minilm"), sentences)
    np.testing.assert_allclose(model.embed(pooled(model, sentences)), expected, atol=2e-6)
    assert (model.n_layers, model.n_heads, model.d_model, model.max_length) == (6, 12, 384, 256)
