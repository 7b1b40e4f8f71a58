"""[MASK] in the input: which tokens are read, and what becomes of their rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from probes.capture import capture
from probes.collapse.mask import MaskStates, mask_states, mask_table, mask_token
from probes.errors import DataError, DoesNotApply
from probes.layers import effective_rank


def test_plain_states_are_the_models_own_and_masked_ones_differ(
    tiny: Callable[[str], Any], long_texts: tuple[str, ...]
) -> None:
    model = tiny("bert")
    given = [text for text in long_texts if len(text.split()) >= 3][:60]
    found = mask_states(model, given, [0, 3])
    acts = capture(model, given, pooling="none", layers=[0, 3])
    assert len(found.owner) == len(found.plain[3]) == len(found.masked[3])
    for row in (0, 100, len(found.owner) - 1):
        text = int(found.owner[row])
        own = acts["exit", 3][acts.offsets[text] : acts.offsets[text + 1]]
        gaps = np.abs(own - found.plain[3][row]).max(axis=1)
        assert gaps.min() < 1e-4
        assert 0 < gaps.argmin() < len(own) - 1  # neither [CLS] nor [SEP]
    # what is read is never masked, so nothing has changed before the first block, and much after the last
    np.testing.assert_allclose(found.masked[0], found.plain[0], atol=1e-5)
    assert np.abs(found.masked[3] - found.plain[3]).max() > 0.1


def test_the_ratio_is_that_of_the_ranks_and_its_interval_is_paired() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 12))
    squeezed = X * np.linspace(1, 0.2, 12)
    states = MaskStates({2: squeezed, 4: X}, {2: X, 4: X}, np.repeat(np.arange(50), 4))
    table = mask_table(states)
    assert list(table.columns) == [
        "layer", "with_mask", "with_low", "with_high", "without", "without_low", "without_high",
        "ratio", "ratio_low", "ratio_high", "n", "seed",
    ]  # fmt: skip
    first, same = table.to_dict("records")
    assert first["with_mask"] == pytest.approx(effective_rank(squeezed))
    assert first["ratio"] == pytest.approx(effective_rank(squeezed) / effective_rank(X))
    assert first["ratio_high"] < 1
    assert same["ratio"] == same["ratio_low"] == same["ratio_high"] == 1  # paired: no noise is left
    assert same["with_high"] > same["with_low"]


def test_states_without_spread_are_null_with_a_reason() -> None:
    X = np.random.default_rng(0).normal(size=(100, 5))
    table = mask_table(MaskStates({0: np.ones_like(X)}, {0: X}, np.arange(100)))
    assert table[["with_mask", "ratio", "ratio_low"]].isna().all(axis=None)
    assert table["without"].notna().all()
    assert "with_mask: layer 0" in table.attrs["notes"][0]


@pytest.mark.parametrize(
    ("name", "words"), [("gpt2", "reads left to right"), ("mamba", "reads left to right")]
)
def test_models_without_a_mask_are_told_so(
    name: str, words: str, tiny: Callable[[str], Any]
) -> None:
    with pytest.raises(DoesNotApply, match=words):
        mask_token(tiny(name))


def test_too_little_text_is_refused(tiny: Callable[[str], Any]) -> None:
    with pytest.raises(DataError, match="more text"):
        mask_states(tiny("bert"), ["cat dog tree"] * 5)
