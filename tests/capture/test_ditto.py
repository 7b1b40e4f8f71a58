"""Ditto pooling equals a sum over what the library itself returns, text by text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from zoo import build

from probes.capture import capture
from probes.capture.ditto import ditto_pool
from probes.errors import DoesNotApply, InputError, NonFiniteError


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama", "gemma2", "t5-encoder"])
def test_it_is_the_weighted_sum_of_first_and_later_layer(name: str, zoo: Any) -> None:
    model, texts = build(name), [*zoo.texts(5), "cat"]
    found = ditto_pool(model, texts, block=1, head=2, batch_tokens=40)
    tokens = capture(model, texts, pooling="none")
    for module in model.hf_model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = "eager"
    for i, text in enumerate(texts):
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            pattern = model.structure.base(input_ids=ids, output_attentions=True).attentions[1]
        weights = pattern[0, 2].diagonal().numpy()
        at = slice(tokens.offsets[i], tokens.offsets[i + 1])
        for layer in range(4):
            states = (np.asarray(tokens["exit", 0][at]) + np.asarray(tokens["exit", layer][at])) / 2
            wanted = weights @ states / weights.sum()
            np.testing.assert_allclose(found[layer][i], wanted, atol=1e-5)


def test_padding_and_the_layers_asked_for_do_not_matter(tiny: Any, zoo: Any) -> None:
    for name in ("bert", "llama"):
        model, texts = tiny(name), zoo.texts(7)
        bare = ditto_pool(model, texts, 2, 0, padding_side="none")
        for side in model.padding_sides:
            found = ditto_pool(model, texts, 2, 0, layers=[1, 3], padding_side=side)
            assert sorted(found) == [1, 3]
            for layer in (1, 3):
                np.testing.assert_allclose(found[layer], bare[layer], atol=1e-5)


def test_uniform_attention_is_the_mean(tiny: Any, zoo: Any) -> None:
    from probes.layers import temperature

    model, texts = tiny("bert"), zoo.texts(6)
    with temperature(model, 1e7):
        found = ditto_pool(model, texts, 0, 1)
        mean = capture(model, texts, pooling="mean")
        for layer in range(4):
            wanted = (mean["exit", 0] + mean["exit", layer]) / 2
            np.testing.assert_allclose(found[layer], wanted, atol=1e-5)
    plain = ditto_pool(model, texts, 0, 1)
    assert np.abs(plain[0] - mean["exit", 0]).max() > 1e-2  # the control: it is not the mean


def test_what_does_not_exist_is_refused(tiny: Any, zoo: Any) -> None:
    texts = zoo.texts(2)
    with pytest.raises(InputError, match="head 4 does not exist: block 0 has heads 0 to 3"):
        ditto_pool(tiny("bert"), texts, 0, 4)
    with pytest.raises(InputError, match="block 5"):
        ditto_pool(tiny("bert"), texts, 5, 0)
    with pytest.raises(InputError, match="no layer 8"):
        ditto_pool(tiny("bert"), texts, 0, 0, layers=[8])
    with pytest.raises(DoesNotApply, match="attention of block 0 of tiny-mamba"):
        ditto_pool(tiny("mamba"), texts, 0, 0)


def test_attention_that_is_not_finite_is_an_error(zoo: Any) -> None:
    model = build("bert")
    with torch.no_grad():
        model.structure.blocks[1].module.attention.self.query.weight[0, 0] = float("nan")
    ditto_pool(model, zoo.texts(2), 0, 0, layers=[1])
    with pytest.raises(NonFiniteError, match="head 0 of block 1 of tiny-bert holds NaN"):
        ditto_pool(model, zoo.texts(2), 1, 0)
