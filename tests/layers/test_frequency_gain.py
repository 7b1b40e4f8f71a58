"""High-frequency gain: closed forms, brute force over the patterns that transformers returns itself, and padding."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from probes.errors import DoesNotApply, InputError, NonFiniteError
from probes.layers import temperature
from probes.layers.frequency_gain import batch_gains, frequency_gains, high_frequency_gain


@pytest.fixture(scope="module")
def zoo() -> Any:
    if "zoo" not in sys.modules:
        spec = importlib.util.spec_from_file_location("zoo", Path(__file__).parents[1] / "zoo.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules["zoo"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["zoo"])
    return sys.modules["zoo"]


def _pattern(n: int, seed: int = 0, causal: bool = False) -> np.ndarray:
    logits = torch.randn(n, n, generator=torch.Generator().manual_seed(seed)) * 3
    if causal:
        logits = logits.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf)
    return torch.softmax(logits, -1).numpy()


def test_closed_forms() -> None:
    assert high_frequency_gain(np.eye(7)) == pytest.approx(1)
    assert high_frequency_gain(np.full((7, 7), 1 / 7)) == pytest.approx(0, abs=1e-12)
    shift = np.roll(np.eye(6), 1, axis=1)  # a permutation only moves tokens
    assert high_frequency_gain(shift) == pytest.approx(1)
    sink = np.zeros((5, 5))
    sink[:, 0] = 1  # everyone attends to the first token
    assert high_frequency_gain(sink) == pytest.approx(0, abs=1e-12)
    halves = np.zeros((6, 6))
    halves[:3, 0] = halves[3:, 1] = 1  # centred: ± 1/2 in two columns of 6 rows -> √(2 · 6 / 4)
    assert high_frequency_gain(halves) == pytest.approx(np.sqrt(3))
    mixed = 0.3 * np.eye(4) + 0.7 / 4  # a share of the identity lets through that share
    assert high_frequency_gain(mixed) == pytest.approx(0.3)


def test_it_bounds_what_gets_through() -> None:
    pattern = _pattern(12).astype(np.float64)
    values = np.random.default_rng(0).normal(size=(12, 500))
    out = pattern @ values
    high = np.linalg.norm(out - out.mean(0), axis=0) / np.linalg.norm(values, axis=0)
    gain = high_frequency_gain(pattern)
    assert high.max() <= gain + 1e-9
    _, _, right = np.linalg.svd(pattern - pattern.mean(0))
    best = pattern @ right[0]
    assert np.linalg.norm(best - best.mean()) == pytest.approx(gain)


def test_what_is_no_pattern_is_refused() -> None:
    with pytest.raises(InputError, match="square"):
        high_frequency_gain(np.ones((2, 3)))
    with pytest.raises(DoesNotApply, match="one token"):
        high_frequency_gain([[1.0]])


@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_equal_single_patterns(side: str) -> None:
    sizes, width = (2, 5, 9, 1), 9
    patterns, own = torch.full((4, width, width), 0.3), torch.zeros(4, width, dtype=torch.bool)
    for i, n in enumerate(sizes):
        at = slice(width - n, width) if side == "left" else slice(0, n)
        patterns[i, at, at] = torch.from_numpy(_pattern(n, i, causal=bool(i % 2)))
        own[i, at] = True
        wanted = high_frequency_gain(patterns[i, at, at].numpy()) if n > 1 else np.nan
        np.testing.assert_allclose(batch_gains(patterns, own)[i], wanted, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["bert", "gpt2", "llama", "gemma2", "t5-encoder", "falcon", "modernbert"]
)
def test_the_table_equals_the_patterns_of_the_library(zoo: Any, name: str) -> None:
    model, texts = zoo.build(name), [*zoo.texts(5), "cat"]
    table = frequency_gains(model, texts, batch_tokens=40)
    eager = zoo.build(name)
    for module in eager.hf_model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = "eager"
    gains: list[list[list[float]]] = []  # text, block, head
    for text in texts:
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        if ids.shape[1] < 2:
            continue
        with torch.inference_mode():
            found = eager.structure.base(input_ids=ids, output_attentions=True).attentions
        gains.append([[high_frequency_gain(head) for head in block[0]] for block in found])
    values = np.asarray(gains)
    mean = values.mean(0)
    error = stats.sem(values, axis=0) * stats.t.ppf(0.975, len(values) - 1)
    heads = table[table["head"].notna()]
    assert len(heads) == model.n_layers * model.n_heads
    for row in heads.to_dict("records"):
        at = row["block"], row["head"]
        assert row["value"] == pytest.approx(mean[at], abs=1e-5)
        assert row["low"] == pytest.approx(max(0, mean[at] - error[at]), abs=1e-5)
        assert row["n"] == len(values)
    blocks = table[table["head"].isna()]
    np.testing.assert_allclose(blocks["value"].astype(float), mean.mean(1), atol=1e-5)
    assert table["layer"].isna().all()
    assert bool(table.attrs["notes"]) == (len(values) < len(texts))


def test_padding_and_memory_do_not_matter(zoo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, texts = zoo.build("llama"), zoo.texts(8)
    bare = frequency_gains(model, texts, padding_side="none")["value"].astype(float)
    for side in ("left", "right"):
        found = frequency_gains(model, texts, padding_side=side)["value"].astype(float)
        np.testing.assert_allclose(found, bare, atol=1e-5)

    from probes.capture.hooks import TorchRunner

    real_call = TorchRunner.__call__

    def small(self: Any, inputs: Any, receive: Any) -> None:
        real_call(self, inputs, receive)
        if len(inputs["input_ids"]) > 3:
            raise MemoryError

    monkeypatch.setattr(TorchRunner, "__call__", small)
    found = frequency_gains(model, texts)["value"].astype(float)
    np.testing.assert_allclose(found, bare, atol=1e-5)


def test_heat_takes_the_gain_away_and_cold_adds_to_it(zoo: Any) -> None:
    model, texts = zoo.build("bert"), zoo.texts(6)
    means = {}
    for tau in (0.25, 1.0, 1e5):
        with temperature(model, tau):
            table = frequency_gains(model, texts, dataset="some", seed=3)
        means[tau] = table[table["head"].isna()]["value"].astype(float).to_numpy()
    assert (means[0.25] > means[1.0]).all()
    assert (means[1e5] < 1e-3).all()
    assert set(table["dataset"]) == {"some"}
    assert set(table["seed"]) == {3}


def test_some_blocks_only_and_models_without_heads(zoo: Any) -> None:
    texts = zoo.texts(3)
    table = frequency_gains(zoo.build("gpt2"), texts, [1])
    assert set(table["block"]) == {1}
    with pytest.raises(DoesNotApply, match="attention of block 0 of tiny-mamba"):
        frequency_gains(zoo.build("mamba"), texts)
    with pytest.raises(InputError, match="block 7 does not exist"):
        frequency_gains(zoo.build("gpt2"), texts, [7])
    with pytest.raises(InputError, match="no block"):
        frequency_gains(zoo.build("gpt2"), texts, [])


def test_attention_that_is_not_finite_is_an_error(zoo: Any) -> None:
    model = zoo.build("bert")
    frequency_gains(model, zoo.texts(2))
    with torch.no_grad():
        model.structure.blocks[1].module.attention.self.query.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="attention of block 1 holds NaN"):
        frequency_gains(model, zoo.texts(2))
