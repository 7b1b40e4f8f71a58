"""On the real default models: the same numbers as the libraries their makers use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probes import capture

TEXTS = [
    "The capital of France is Paris.",
    "Gold is a metal; it does not rust, and it never did.",
    "A cat sleeps.",
]

pytestmark = pytest.mark.models


@pytest.fixture
def load(users_cache: None) -> Any:
    from probes import load_model

    return load_model


def test_minilm_gives_the_sentence_embeddings_of_its_maker(load: Any) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling

    model = load("minilm")
    acts = capture(model, TEXTS, batch_tokens=20)
    ids = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        features = {**ids, "token_embeddings": model.structure.base(**ids).last_hidden_state}
        maker = SentenceTransformer(modules=[Pooling(model.d_model), Normalize()])
        for module in maker:
            features = module(features)
    np.testing.assert_allclose(
        model.embed(acts["exit", 6]), features["sentence_embedding"], atol=1e-5
    )


@pytest.mark.parametrize("name", ["minilm", "smollm2"])
def test_equals_own_hidden_states(name: str, load: Any) -> None:
    model = load(name)
    acts = capture(model, TEXTS, ["resid_post", "exit"], "none", batch_tokens=20)
    for row, text in enumerate(TEXTS):
        with torch.no_grad():
            inputs = model.tokenizer(text, return_tensors="pt")
            own = model.structure.base(**inputs, output_hidden_states=True)
        tokens = slice(acts.offsets[row], acts.offsets[row + 1])
        for layer in (0, 1, model.n_layers - 1):
            expected = own.hidden_states[layer][0].numpy()
            difference = np.abs(acts["resid_post", layer][tokens] - expected).max()
            assert difference / np.abs(expected).max() < 1e-5
        expected = own.last_hidden_state[0].numpy()
        difference = np.abs(acts["exit", model.n_layers][tokens] - expected).max()
        assert difference / np.abs(expected).max() < 1e-5


@pytest.mark.parametrize("name", ["minilm", "smollm2"])
def test_control_tokens_in_a_text_are_plain_characters(name: str, load: Any) -> None:
    from probes.capture.tokens import TextEncoder, control_ids

    model = load(name)
    control = control_ids(model.tokenizer)
    spelled = " and ".join(control.values())
    (tokens,) = TextEncoder(model.tokenizer, 200)([spelled])
    assert not set(tokens.ids[~tokens.special].tolist()) & set(control)
    assert set(model.tokenizer(spelled)["input_ids"]) >= set(control)  # the control: they would act
