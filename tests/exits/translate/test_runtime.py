"""From texts to what translators read: against `capture` and by hand, on models of random weights and on MiniLM."""

from __future__ import annotations

import numpy as np
import pytest
import zoo

from probes.capture import capture
from probes.capture.several import SeveralPoolings, pool_several
from probes.errors import InputError
from probes.exits.translate import (
    StaticTable,
    TranslatedModel,
    TranslatorSpec,
    fit_layer,
    read_inputs,
    sif_weights,
    static_table,
    token_counts,
)
from probes.exits.translate.vocabulary import state_weights, vocabulary_size
from probes.linalg import normalise_rows

NAMES = ("bert", "llama", "gpt2")


@pytest.fixture(params=NAMES)
def model(request):
    return zoo.build(request.param)


def test_several_poolings_equal_capture_and_sif_is_a_weighted_mean(model, rng):
    texts = zoo.texts(12)
    weights = rng.uniform(size=vocabulary_size(model)).astype(np.float32)
    found = pool_several(model, texts, ("mean", "max", "last", "sif"), [0, 2], weights)
    for pooling in ("mean", "max", "last"):
        acts = capture(model, texts, layers=[0, 2], pooling=pooling)
        for layer in (0, 2):
            np.testing.assert_allclose(found[pooling][layer], acts["exit", layer], atol=1e-5)
    tokens = capture(model, texts, layers=[2], pooling="none")
    from probes.capture.tokens import TextEncoder

    for i, one in enumerate(TextEncoder(model.tokenizer, model.max_length)(texts)):
        states = tokens["exit", 2][tokens.offsets[i] : tokens.offsets[i + 1]]
        by_hand = weights[one.ids] @ states / weights[one.ids].sum()
        np.testing.assert_allclose(found["sif"][2][i], by_hand, atol=1e-5)


def test_tokens_without_weight_give_the_plain_mean_and_never_nan(model):
    texts = zoo.texts(5)
    nothing = np.zeros(vocabulary_size(model), np.float32)
    found = pool_several(model, texts, ("mean", "sif"), [1], nothing)
    np.testing.assert_allclose(found["sif"][1], found["mean"][1], atol=1e-6)


def test_static_table_is_the_full_model_on_each_entry_alone(model):
    table = static_table(model)
    assert table.shape == (vocabulary_size(model), model.d_model)
    words = zoo.WORDS[:20]
    acts = capture(model, words, layers=[model.n_layers])
    expected = normalise_rows(model.embed(acts["exit", model.n_layers]))
    vocabulary = model.tokenizer.get_vocab()
    np.testing.assert_allclose(table[[vocabulary[w] for w in words]], expected, atol=1e-5)


def test_counts_leave_out_what_is_put_around_a_text(model):
    counts = token_counts(model, ["cat dog cat", "sun"]).toarray()
    vocabulary = model.tokenizer.get_vocab()
    assert counts[0, vocabulary["cat"]] == 2
    assert counts.sum(axis=1).tolist() == [3, 1]
    weights = state_weights(model, token_counts(model, zoo.texts(30)))
    assert (weights[sorted(model.tokenizer.all_special_ids)] <= 1).all()
    if model.kind == "encoder":
        assert weights[vocabulary["[CLS]"]] == 0


@pytest.mark.parametrize(
    "spec",
    [
        TranslatorSpec(),
        TranslatorSpec(("mean", "sif"), "all", table=True),
        TranslatorSpec((), table=True),
    ],
    ids=lambda spec: spec.name,
)
def test_a_translated_model_embeds_what_was_fitted(model, spec):
    texts = zoo.texts(80, longest=20)
    table = StaticTable.build(model, token_counts(model, texts))
    inputs = read_inputs(model, texts, ("mean", "sif"), None, table)
    full = model.embed(inputs.states["mean"][model.n_layers])
    translator = fit_layer(inputs, full, 1, spec)
    runs = TranslatedModel(model, translator, table)
    np.testing.assert_allclose(runs(texts[:7]), translator(inputs, slice(0, 7)), atol=1e-4)
    np.testing.assert_allclose(runs(texts[3:4]), translator(inputs, slice(3, 4)), atol=1e-4)


@pytest.mark.slow
def test_a_translator_of_the_table_alone_is_a_stock_static_embedding():
    """Folded into one table, it gives the same embeddings in sentence-transformers' own module."""
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.models import Normalize, StaticEmbedding

    model = zoo.build("bert")
    texts = zoo.texts(60)
    table = StaticTable.build(model, token_counts(model, texts))
    inputs = read_inputs(model, texts, ("mean",), None, table)
    full = model.embed(inputs.states["mean"][model.n_layers])
    translator = fit_layer(inputs, full, 0, TranslatorSpec((), table=True))
    folded = table.folded(*translator.map.as_linear()).astype(np.float32)
    modules = [
        StaticEmbedding(model.tokenizer.backend_tokenizer, embedding_weights=folded),
        Normalize(),
    ]
    made = library.SentenceTransformer(modules=modules, device="cpu").encode(texts)
    np.testing.assert_allclose(made, translator(inputs), atol=1e-5)


def test_the_last_layer_translates_to_itself(model):
    texts = zoo.texts(300, longest=20)
    inputs = read_inputs(model, texts, (model.embedding.pooling,))
    spec = TranslatorSpec((model.embedding.pooling,))
    states = inputs.states[model.embedding.pooling]
    full = normalise_rows(model.embed(states[model.n_layers]).astype(np.float64))
    cosines = [
        float((fit_layer(inputs, full, k, spec)(inputs) * full).sum(axis=1).mean())
        for k in (0, model.n_layers)
    ]
    assert cosines[1] > 0.99
    assert cosines[0] < cosines[1]


def test_what_does_not_fit_is_refused(model):
    with pytest.raises(InputError, match="token_weights"):
        pool_several(model, ["cat"], ("sif",))
    with pytest.raises(InputError, match="did you mean 'mean'"):
        SeveralPoolings(model, ("maen",))
    with pytest.raises(InputError, match="different"):
        SeveralPoolings(model, ("mean", "mean"))
    inputs = read_inputs(model, zoo.texts(20), ("mean",))
    translator = fit_layer(inputs, inputs.states["mean"][3], 1)
    needs = type(translator)(TranslatorSpec(("sif",)), 1, translator.map)
    with pytest.raises(InputError, match="static table"):
        TranslatedModel(model, needs)


@pytest.mark.models
def test_minilm_embedding_layer_translated_is_closer_than_raw_and_the_table_helps():
    from probes.datasets import load_texts
    from probes.models import load_model

    model = load_model("minilm")
    texts = [text for text in load_texts("docstrings") if len(text) < 120][:250]
    fit, out = np.arange(200), np.arange(200, len(texts))
    counts = token_counts(model, texts)
    # A table of the words of these texts only: that of the whole vocabulary takes a minute.
    entries = np.flatnonzero(np.asarray(counts.sum(axis=0)).ravel())
    words = model.tokenizer.convert_ids_to_tokens(entries.tolist())
    rows = np.zeros((vocabulary_size(model), model.d_model))
    alone = capture(model, [word.removeprefix("##") or "#" for word in words], layers=[6])
    rows[entries] = normalise_rows(alone["exit", 6])
    table = StaticTable(rows, sif_weights(counts[fit]))
    inputs = read_inputs(model, texts, ("mean",), [0, 6], table)
    full = normalise_rows(model.embed(inputs.states["mean"][6]))

    def cosine(spec):
        made = fit_layer(inputs, full, 0, spec, fit)(inputs, out)
        return float((made * full[out]).sum(axis=1).mean())

    raw = float((normalise_rows(inputs.states["mean"][0][out]) * full[out]).sum(axis=1).mean())
    plain, rich = cosine(TranslatorSpec()), cosine(TranslatorSpec(table=True))
    assert raw < 0.3 < plain < rich
