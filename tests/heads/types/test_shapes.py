"""Shapes of attention: closed forms on made patterns, and plain computation on whole patterns of real architectures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import zoo

from probes.capture.attention import attention_calls
from probes.capture.attention_call import SoftmaxCall
from probes.capture.hooks import marked_edited
from probes.errors import DoesNotApply, InputError
from probes.heads.types import attention_shapes
from probes.heads.types.measures import SHAPES
from probes.heads.types.shapes import NEAR, batch_shapes
from probes.models.structure import Heads

NAMES = [measure.name for measure in SHAPES]


@dataclass
class Pattern:
    """One head's attention (query, key), as a call."""

    weights: torch.Tensor

    def shapes(self, **more: Any) -> dict[str, float]:
        n = len(self.weights)
        given = self.weights.log()[None, None]
        call = SoftmaxCall(0, Heads(1, 1, 4), given, lambda x: x.softmax(-1))
        found = batch_shapes(call, torch.ones(1, n, dtype=torch.bool), **more)[0, 0]
        return dict(zip(NAMES, found.tolist(), strict=True))


def test_uniform_attention() -> None:
    n = 40
    found = Pattern(torch.full((n, n), 1 / n)).shapes()
    apart = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    assert found["attention_entropy"] == pytest.approx(1.0)
    assert found["sink_share"] == pytest.approx(1 / n)
    assert found["max_column_mass"] == pytest.approx(1 / n)
    assert found["attention_distance"] == pytest.approx(apart.mean(), rel=1e-5)
    assert found["local_share"] == pytest.approx((apart <= NEAR).mean(), rel=1e-5)


def test_attention_to_the_first_token_and_to_the_one_before() -> None:
    n, tiny = 40, 1e-30
    causal = torch.ones(n, n).tril()
    sink = torch.full((n, n), tiny) * causal
    sink[:, 0] = 1.0
    found = Pattern(sink).shapes()
    assert found["attention_entropy"] == pytest.approx(0.0, abs=1e-6)
    assert found["sink_share"] == found["max_column_mass"] == pytest.approx(1.0)
    assert found["attention_distance"] == pytest.approx(
        np.arange(1, n).mean()
    )  # row 0 has no choice
    before = torch.full((n, n), tiny) * causal
    before[range(1, n), range(n - 1)] = 1.0
    before[0, 0] = 1.0
    found = Pattern(before).shapes()
    assert found["attention_distance"] == pytest.approx(1.0)
    assert found["max_column_mass"] == pytest.approx(1 / (n - 1))
    assert found["local_share"] == pytest.approx(1.0)


def test_pieces_of_any_size_give_the_same() -> None:
    weights = torch.rand(23, 23, generator=torch.Generator().manual_seed(0)).tril()
    whole = Pattern(weights).shapes()
    for at_once in (1, 23 * 5, 23 * 22):
        assert Pattern(weights).shapes(at_once=at_once) == pytest.approx(whole, rel=1e-5)


def test_no_more_of_the_pattern_exists_at_once_than_asked() -> None:
    sizes: list[int] = []

    class Recorded(SoftmaxCall):
        def logits(self, rows: Any = None, heads: Any = None) -> torch.Tensor:
            found = super().logits(rows, heads)
            sizes.append(found.numel())
            return found

    given = torch.randn(1, 2, 60, 60, generator=torch.Generator().manual_seed(0))
    call = Recorded(0, Heads(2, 2, 4), given, lambda x: x.softmax(-1))
    batch_shapes(call, torch.ones(1, 60, dtype=torch.bool), at_once=1000)
    assert max(sizes) <= 1000 < 2 * 60 * 60 == sum(sizes)


def plainly(pattern: np.ndarray) -> list[float]:
    """The same numbers of one text's own pattern (query, key), as the definitions read."""
    rows = [(i, p) for i, p in enumerate(pattern) if (p > 0).sum() > 1]
    entropies = [-(p[p > 0] * np.log(p[p > 0])).sum() / np.log((p > 0).sum()) for _, p in rows]
    apart = [np.abs(np.arange(len(p)) - i) for i, p in rows]
    return [
        float(np.mean(entropies)),
        float(np.mean([p[0] for _, p in rows])),
        float(np.mean([p @ away for (_, p), away in zip(rows, apart, strict=True)])),
        float(np.mean([p for _, p in rows], axis=0).max()),
        float(np.mean([p[away <= NEAR].sum() for (_, p), away in zip(rows, apart, strict=True)])),
    ]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "falcon", "bert", "t5-encoder"])
def test_batches_of_texts_agree_with_each_text_alone(name: str, side: str) -> None:
    model = zoo.build(name)
    if side not in model.padding_sides:
        pytest.skip(f"{name} cannot be padded on the {side}")
    texts = [text for text in zoo.texts(12, seed=4, longest=30) if " " in text]
    table = attention_shapes(model, texts, confidence=None, padding_side=side)
    expected: dict[tuple[int, int], list[list[float]]] = {}

    def look(call: Any) -> None:
        for head, pattern in enumerate(call.pattern()[0].double().numpy()):
            expected.setdefault((call.block, head), []).append(plainly(pattern))

    with torch.inference_mode(), attention_calls(model, look):
        for text in texts:
            ids = torch.tensor([model.tokenizer(text)["input_ids"]])
            model.structure.base(**model.forward_inputs(ids, torch.ones_like(ids)))
    assert len(table) == len(expected) * len(NAMES)
    for row in table.to_dict("records"):
        values = [one[NAMES.index(row["measure"])] for one in expected[row["block"], row["head"]]]
        assert row["value"] == pytest.approx(np.mean(values), abs=2e-5), row["measure"]


@pytest.mark.parametrize(
    "name", ["opt", "gemma2", "phi3", "deberta-v2", "modernbert", "distilbert"]
)
def test_every_architecture_keeps_to_the_ranges(name: str) -> None:
    table = attention_shapes(zoo.build(name), zoo.texts(6, seed=1))
    for measure in SHAPES:
        mine = table[table["measure"].eq(measure.name).to_numpy(bool)]
        assert len(mine) == 12
        assert mine["value"].ge(0).all()
        assert measure.high is None or mine["value"].le(measure.high + 1e-6).all()
        assert (mine["low"] <= mine["value"] + 1e-6).all()
        assert (mine["value"] <= mine["high"] + 1e-6).all()


def test_a_sharper_temperature_lowers_the_entropy() -> None:
    model, texts = zoo.build("llama"), zoo.texts(6, seed=2)

    def entropy() -> float:
        table = attention_shapes(model, texts, confidence=None)
        return float(table[table["measure"].eq("attention_entropy").to_numpy(bool)]["value"].mean())

    plain = entropy()
    with marked_edited(model), attention_calls(model, lambda call: call.scaled(0.25)):
        sharp = entropy()
    assert sharp < plain - 0.05


def test_single_tokens_have_no_shape() -> None:
    model = zoo.build("gpt2")
    table = attention_shapes(model, ["dog", "the dog", "a cat sleeps"], [1], seed=7)
    assert set(table["block"]) == {1}
    assert set(table["n"]) == {2}
    assert set(table["seed"]) == {7}
    assert "1 of 3 texts have one token" in table.attrs["notes"][0]
    alone = attention_shapes(model, ["dog"], [1])
    assert alone["value"].isna().all()
    with pytest.raises(InputError, match="no block"):
        attention_shapes(model, ["the dog"], [])
    with pytest.raises(InputError):
        attention_shapes(model, ["the dog"], [9])
    with pytest.raises(DoesNotApply):
        attention_shapes(zoo.build("mamba"), ["the dog"])


def test_groups_count_as_one_draw() -> None:
    model, texts = zoo.build("gpt2"), zoo.texts(10, seed=3, longest=8)
    texts = [f"the {text}" for text in texts]
    own = attention_shapes(model, texts, [0])
    twice = attention_shapes(model, texts * 2, [0], groups=np.tile(np.arange(10), 2))
    pd.testing.assert_series_equal(own["low"], twice["low"], atol=1e-5, rtol=0)
