"""Folders of many architectures, loaded by the libraries they are made for, give what the recipe gives."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from zoo import NAMES, TEXT_NAMES, texts

from probes.errors import DoesNotApply
from probes.exits.export.classes import affine, write_transformers
from probes.exits.export.stock import why_not_stock, write_stock
from probes.exits.export.verify import check_files, reference
from probes.exits.recipe import Linear, Normalise, Probe, Recipe, Truncate

TEXTS = [*texts(24, seed=5), "a cat [SEP] sees a dog"]
D = 32


def probe(rng, d=D, classes=3):
    weight, bias = rng.normal(size=(d, classes)), rng.normal(size=classes)
    weight -= weight.mean(axis=1, keepdims=True)
    return Probe(weight, bias - bias.mean(), tuple(f"class {i}" for i in range(classes)))


def close(found, expected):
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found / lengths, expected / lengths, atol=1e-5)


def by_sentence_transformers(folder, **more):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    return model.encode(TEXTS, batch_size=8, show_progress_bar=False, **more)


def by_transformers(folder, classes, trust):
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    kind = AutoModelForSequenceClassification if classes else AutoModel
    model = kind.from_pretrained(folder, trust_remote_code=trust).eval()
    words = AutoTokenizer.from_pretrained(folder)
    batch = words(TEXTS, padding=True, truncation=True, return_tensors="pt")
    batch.pop("token_type_ids", None)
    with torch.no_grad():
        out = model(**batch)
    return (out.logits if classes else out.pooler_output).numpy(), model


# Mamba cannot be padded; transformers gives every Qwen2 its own tokenizer, in place of this test's list of words.
OTHERS = ("mamba", "qwen2")


@pytest.mark.parametrize("name", [n for n in TEXT_NAMES if n not in OTHERS])
def test_every_architecture_loads_with_sentence_transformers_alone(name, make_exit, tmp_path):
    rng = np.random.default_rng(0)
    width = make_exit(name, Recipe(1, "mean")).width
    steps = (Linear(rng.normal(size=(width, 12)), rng.normal(size=12)), Normalise())
    exit_ = make_exit(name, Recipe(1, "mean", steps))
    write_stock(tmp_path, exit_)
    close(by_sentence_transformers(tmp_path), reference(exit_, TEXTS))
    assert check_files(tmp_path, exit_).passed


@pytest.mark.parametrize("pooling", ["mean", "last", "first", "max", "weighted"])
@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("layer", [0, 2])
def test_every_pooling_and_layer(name, pooling, layer, make_exit, tmp_path):
    exit_ = make_exit(name, Recipe(layer, pooling, (Truncate(8), Normalise())))
    write_stock(tmp_path, exit_)
    found = by_sentence_transformers(tmp_path)
    assert found.shape == (len(TEXTS), 8)
    close(found, reference(exit_, TEXTS))


def test_a_last_truncation_is_the_librarys_own(make_exit, tmp_path):
    exit_ = make_exit("bert", Recipe(1, "mean", (Normalise(), Truncate(5))))
    write_stock(tmp_path, exit_)
    settings = json.loads((tmp_path / "config_sentence_transformers.json").read_text())
    assert settings["truncate_dim"] == 5
    close(by_sentence_transformers(tmp_path), reference(exit_, TEXTS))


def test_prompts_go_with_the_model(make_exit, tmp_path):
    exit_ = make_exit("bert", Recipe(2, "mean", (Normalise(),)), {"text": "the old "})
    write_stock(tmp_path, exit_)
    close(by_sentence_transformers(tmp_path), reference(exit_, ["the old " + t for t in TEXTS]))
    close(by_sentence_transformers(tmp_path, prompt=""), reference(exit_, TEXTS))


def test_scores_of_classes_come_from_stock_modules(make_exit, tmp_path):
    rng = np.random.default_rng(1)
    steps = (Normalise(), Truncate(16))
    exit_ = make_exit("bert", Recipe(1, "mean", steps, probe=probe(rng, 16)))
    write_stock(tmp_path, exit_)
    close(by_sentence_transformers(tmp_path), reference(exit_, TEXTS))
    assert json.loads((tmp_path / "labels.json").read_text()) == ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize("name", ["gpt2", "opt", "gpt-neox", "stablelm"])
def test_a_decoder_with_a_bias_in_its_last_norm_is_a_stock_classifier(name, make_exit, tmp_path):
    rng = np.random.default_rng(2)
    exit_ = make_exit(name, Recipe(2, "last", (Truncate(20),), probe=probe(rng, 20)))
    write_transformers(tmp_path, exit_)
    found, model = by_transformers(tmp_path, True, False)
    close(found, reference(exit_, TEXTS))
    assert model.config.id2label[2] == "class 2"
    assert not list(tmp_path.glob("*.py"))
    assert type(model).__name__.endswith("ForSequenceClassification")


@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize(
    ("name", "pooling", "tau"),
    [("llama", "last", 1.0), ("bert", "mean", 1.0), ("bert", "max", 0.5), ("qwen3", "weighted", 2.0),
     ("gpt2", "first", 1.0)],
)  # fmt: skip
def test_what_stock_classes_cannot_express_needs_its_own_file(
    name, pooling, tau, classes, make_exit, tmp_path, monkeypatch
):
    rng = np.random.default_rng(3)
    steps = (Linear(rng.normal(size=(D, 10)), rng.normal(size=10)), Normalise(), Truncate(7))
    recipe = Recipe(2, pooling, steps, temperature=tau, probe=probe(rng, 7) if classes else None)
    exit_ = make_exit(name, recipe)
    with pytest.raises(DoesNotApply, match="--with-code"):
        write_transformers(tmp_path, exit_)
    assert (why_not_stock(recipe) is None) == (tau == 1)
    write_transformers(tmp_path, exit_, with_code=True)
    with pytest.raises(ValueError, match="trust_remote_code"):
        by_transformers(tmp_path, classes, False)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    found, _ = by_transformers(tmp_path, classes, True)
    close(found, reference(exit_, TEXTS))
    assert check_files(tmp_path, exit_).passed


def test_a_recipe_says_itself_why_stock_modules_cannot(make_exit, tmp_path):
    exit_ = make_exit("bert", Recipe(1, "mean", reason="several layers are read"))
    with pytest.raises(DoesNotApply, match="several layers are read"):
        write_stock(tmp_path, exit_)
    assert list(tmp_path.iterdir()) == []


def test_steps_as_one_map():
    rng = np.random.default_rng(4)
    recipe = Recipe(
        1,
        "last",
        (Linear(rng.normal(size=(6, 5)), rng.normal(size=5)), Truncate(4)),
        probe=probe(rng, 4),
    )
    weight, bias = affine(recipe, 6)
    X = rng.normal(size=(3, 6))
    assert recipe.probe is not None
    np.testing.assert_allclose(
        X @ weight + bias, recipe(X) @ recipe.probe.weight + recipe.probe.bias
    )
    with pytest.raises(DoesNotApply, match="unit length"):
        affine(Recipe(1, "last", (Normalise(),)), 6)


def test_files_with_a_place_of_this_machine_or_pickles_are_seen(make_exit, tmp_path):
    exit_ = make_exit("bert", Recipe(1, "mean"))
    assert check_files(tmp_path, exit_).passed
    (tmp_path / "config.json").write_text(json.dumps({"name_or_path": str(tmp_path / "x")}))
    assert "config.json names a place" in check_files(tmp_path, exit_).text
    (tmp_path / "config.json").unlink()
    (tmp_path / "weights.bin").write_bytes(b"")
    assert not check_files(tmp_path, exit_).passed


def test_the_zoo_is_what_is_tested():
    assert set(TEXT_NAMES) <= set(NAMES)
