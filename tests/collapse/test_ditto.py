"""The head for Ditto pooling: its self-attention against TF-IDF, by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from zoo import build, texts

from probes.capture.ditto_head import choose_head, head_agreement, tf_idf
from probes.errors import DataError, DoesNotApply

TEXTS = [text for text in texts(60, seed=4, longest=20) if len(text.split()) > 4]


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_agreement_is_that_of_each_heads_own_pattern(name: str) -> None:
    """Eager attention of one text at a time, as transformers gives it out."""
    model = build(name)  # its own copy: it is switched to eager attention
    found = head_agreement(model, TEXTS)
    assert found.shape == (3, 4)
    tokenizer = model.tokenizer
    wanted = tf_idf(
        [np.asarray(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in TEXTS]
    )
    model.hf_model.set_attn_implementation("eager")
    sums = np.zeros((3, 4))
    for text, goal in zip(TEXTS, wanted, strict=True):
        coded = tokenizer(text, return_tensors="pt", return_special_tokens_mask=True)
        own = ~coded.pop("special_tokens_mask")[0].bool().numpy()
        with torch.inference_mode():
            patterns = model.structure.base(
                input_ids=coded["input_ids"], output_attentions=True
            ).attentions
        for block, pattern in enumerate(patterns):
            weights = pattern[0].diagonal(dim1=-2, dim2=-1).numpy()[:, own]
            sums[block] += [np.corrcoef(row, goal)[0, 1] for row in weights]
    np.testing.assert_allclose(found, sums / len(TEXTS), atol=1e-5)
    block, head, agreement = choose_head(model, TEXTS)
    assert agreement == pytest.approx(found.max(), abs=1e-6)
    assert agreement == pytest.approx(found[block, head], abs=1e-6)


def test_models_without_heads_and_texts_without_words_are_told_so(
    tiny: Callable[[str], Any],
) -> None:
    with pytest.raises(DoesNotApply):
        head_agreement(tiny("mamba"), TEXTS)
    with pytest.raises(DataError, match="different TF-IDF"):
        head_agreement(tiny("bert"), ["cat", "dog"])
