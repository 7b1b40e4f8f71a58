"""Log-probabilities: equal to the model's own logits, one text at a time, for every architecture with a head."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import zoo

from probes.errors import DataError, DoesNotApply, InputError
from probes.models import completions as module
from probes.models import cut_model, wrap_model
from probes.models.completions import completion_logprobs, sentence_logprobs

DECODERS = tuple(n for n in zoo.NAMES if zoo.SPECS[n][1].endswith(("CausalLM", "LMHeadModel")))
OTHERS = tuple(n for n in zoo.NAMES if n not in DECODERS)
TEXTS = [text for text in zoo.texts(14, seed=3) if len(text.split()) > 3]
SPLITS = [text.rsplit(" ", 1 + row % 2) for row, text in enumerate(TEXTS)]
PROMPTS = [parts[0] for parts in SPLITS]
COMPLETIONS = [text[len(prompt) :] for text, prompt in zip(TEXTS, PROMPTS, strict=True)]


def own(model: Any, text: str) -> np.ndarray:
    """Log-probabilities of all tokens but the first, by the whole model and a loop."""
    ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logprobs = model.hf_model(input_ids=ids).logits[0].double().log_softmax(-1)
    return np.asarray([float(logprobs[t - 1, ids[0, t]]) for t in range(1, ids.shape[1])])


@pytest.mark.parametrize("name", DECODERS)
def test_equal_the_models_own_logits(name: str, tiny: Any) -> None:
    """Padded batches, chunks of the head, scaled and capped logits (Granite, Cohere, Gemma 2) included."""
    model = tiny(name)
    words = [len(completion.split()) for completion in COMPLETIONS]
    found = completion_logprobs(model, PROMPTS, COMPLETIONS, batch_tokens=40)
    expected = [own(model, t)[-n:].sum() for t, n in zip(TEXTS, words, strict=True)]
    np.testing.assert_allclose(found, expected, atol=5e-5)
    mean = completion_logprobs(model, PROMPTS, COMPLETIONS, per_token=True)
    np.testing.assert_allclose(mean, np.divide(expected, words), atol=5e-5)
    whole = sentence_logprobs(model, TEXTS)
    np.testing.assert_allclose(whole, [own(model, t).sum() for t in TEXTS], atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "opt-post-norm", "gemma2"])
def test_at_a_layer_it_is_what_the_model_cut_there_says(name: str, tiny: Any) -> None:
    model = tiny(name)
    layers = list(range(model.n_layers + 1))
    found = sentence_logprobs(model, TEXTS, layers)
    assert found.shape == (len(TEXTS), model.n_layers + 1)
    np.testing.assert_allclose(found[:, -1], sentence_logprobs(model, TEXTS), atol=1e-4)
    np.testing.assert_array_equal(found[:, 1], sentence_logprobs(model, TEXTS, 1))
    for k in layers:
        cut = cut_model(model, k)
        for row in (0, 3):
            ids = model.tokenizer(TEXTS[row], return_tensors="pt")["input_ids"]
            with torch.no_grad():
                output = cut(input_ids=ids)
                logits = module.head_logits(model, output, output[0][0])
            logprobs = logits[:-1].log_softmax(-1).gather(1, ids[0, 1:, None])
            assert found[row, k] == pytest.approx(float(logprobs.sum()), abs=1e-4)


def test_logits_are_computed_in_pieces(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    whole = sentence_logprobs(model, TEXTS)
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 3 * zoo.VOCABULARY)
    np.testing.assert_allclose(sentence_logprobs(model, TEXTS), whole, atol=1e-5)


def test_the_model_is_left_as_it_was(tiny: Any) -> None:
    model = tiny("opt")
    ids = model.tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    before = model.hf_model(input_ids=ids).logits
    sentence_logprobs(model, TEXTS, [0, 2])
    assert torch.equal(model.hf_model(input_ids=ids).logits, before)
    assert not any("forward" in vars(m) for m in model.hf_model.modules())


@pytest.mark.parametrize("name", OTHERS)
def test_models_without_such_probabilities_say_why(name: str, tiny: Any) -> None:
    with pytest.raises(DoesNotApply, match=r"language-model head|sees later tokens"):
        sentence_logprobs(tiny(name), ["the cat"])


def test_a_token_across_the_border_counts_with_the_completion() -> None:
    """ "bo" + "th" is one token of this tokenizer: what follows the prompt is that token, not half of it."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    pieces = ["<p>", "a", "b", "o", "t", "h", "bo", "both", " ", "the"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [("b", "o"), ("t", "h"), ("bo", "th")]
    core = Tokenizer(models.BPE({**vocabulary, "th": len(pieces)}, merges))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<p>")
    model = wrap_model(zoo.hf_model("llama"), tokenizer)
    assert tokenizer.tokenize("a both") == ["a", " ", "both"]
    whole = own(model, "a both")
    found = completion_logprobs(model, ["a bo"], ["th"])
    assert found[0] == pytest.approx(whole[1], abs=1e-5)
    assert completion_logprobs(model, ["a"], [" both"])[0] == pytest.approx(whole.sum(), abs=1e-5)


def test_a_first_token_of_the_tokenizers_own_is_context_not_text(tiny: Any) -> None:
    hf_model = zoo.hf_model("llama")
    model = wrap_model(hf_model, zoo.tokenizer("encoder"))  # [CLS] … [SEP]
    ids = model.tokenizer("cat sleeps")["input_ids"]
    assert len(ids) == 4
    logprobs = own(model, "cat sleeps")
    assert sentence_logprobs(model, ["cat sleeps"])[0] == pytest.approx(
        logprobs[:2].sum(), abs=1e-5
    )
    assert completion_logprobs(model, [""], ["cat"])[0] == pytest.approx(logprobs[0], abs=1e-5)


def test_control_tokens_in_a_text_are_plain_characters(tiny: Any) -> None:
    model = tiny("llama")
    assert sentence_logprobs(model, ["the </s> cat"])[0] != pytest.approx(
        own(model, "the </s> cat").sum(), abs=1e-3
    )


@pytest.mark.parametrize(
    ("prompts", "completions", "error", "words"),
    [
        (["the cat"], [], InputError, "1 prompts but 0"),
        (["the cat"], [" "], DataError, "completion 0 is empty"),
        ([""], ["cat"], DataError, "prompt 0 is empty"),
        (["the " * 80], ["cat"], DataError, "81 tokens, tiny-llama takes 64"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    prompts: Any, completions: Any, error: Any, words: str, tiny: Any
) -> None:
    with pytest.raises(error, match=words):
        completion_logprobs(tiny("llama"), prompts, completions)


def test_single_tokens_and_missing_layers_are_refused(tiny: Any) -> None:
    with pytest.raises(DataError, match="text 1 has no token to score"):
        sentence_logprobs(tiny("llama"), ["the cat", "cat"])
    with pytest.raises(InputError, match="layer 4 does not exist: 0 to 3"):
        sentence_logprobs(tiny("llama"), ["the cat"], 4)
    with pytest.raises(InputError, match="no layer"):
        sentence_logprobs(tiny("llama"), ["the cat"], [])


@pytest.mark.models
def test_smollm2_knows_capitals_and_grammar(users_cache: None) -> None:
    from probes import load_model

    model = load_model("smollm2")
    prompts = ["The capital of France is"] * 2 + ["The capital of Italy is"] * 2
    found = completion_logprobs(model, prompts, [" Paris", " Rome", " Paris", " Rome"])
    assert found[0] > found[1]
    assert found[3] > found[2]
    layers = sentence_logprobs(model, ["The cats are here.", "The cats is here."], [0, 30])
    assert layers[0, 1] > layers[1, 1]
    exact = own(model, "The cats are here.").sum()
    assert layers[0, 1] == pytest.approx(exact, abs=1e-3)
