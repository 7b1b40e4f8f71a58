"""Core neurons: by brute force from the definitions, and planted ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probes.capture import capture
from probes.errors import DataError, DoesNotApply, InputError
from probes.heads.neurons import core_neurons, jaccard, neuron_table
from probes.types import TextPairs


def by_hand(tokens: np.ndarray, share: float, token_share: float) -> tuple[set[int], float]:
    """Core and sparsity of one text from its neurons (T, n), by the words of the definition."""
    votes = np.zeros(tokens.shape[1])
    for token in tokens:
        positive = [i for i in range(len(token)) if token[i] > 0]
        positive.sort(key=lambda i: -token[i])
        for i in positive[: int(np.ceil(token_share * len(positive)))]:
            votes[i] += 1
        votes += np.maximum(token, 0) / token.max() / 1e6
    core = set(np.argsort(-votes)[: round(share * tokens.shape[1])].tolist())
    size = np.abs(tokens)
    return core, float((size < 0.01 * size.max(1, keepdims=True)).mean())


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "gpt-neox"])
def test_definition_by_brute_force(name: str, tiny: Any, zoo: Any) -> None:
    model = tiny(name)
    texts = [t for t in zoo.texts(20, longest=14) if len(t.split()) > 3]
    found = core_neurons(model, texts, batch_tokens=40)  # several padded batches
    for row, text in enumerate(texts):
        alone = capture(model, [text], ["mlp_act"], pooling="none")
        whole = core_neurons(model, [text])
        for block in range(3):
            tokens = np.asarray(alone["mlp_act", block])
            core, sparsity = by_hand(tokens, 0.2, 0.4)
            assert set(np.flatnonzero(found.sets[block][row])) == core
            half, _ = by_hand(tokens[: (len(tokens) + 1) // 2], 0.2, 0.4)
            assert found.half is not None
            assert set(np.flatnonzero(found.half[block][row])) == half
            assert found.sparsity[block][row] == pytest.approx(sparsity, abs=1e-6)
            assert np.array_equal(whole.sets[block][0], found.sets[block][row])


def test_relu_zeros_are_quiet(tiny: Any, zoo: Any) -> None:
    """About half of a ReLU layer's neurons are exact zeros; a GELU layer has few that small."""
    relu, gelu = (core_neurons(tiny(n), zoo.texts(8)).sparsity for n in ("opt", "gpt-neox"))
    assert all(0.3 < sparsity.mean() < 0.75 for sparsity in relu.values())
    assert all(gelu[b].mean() < relu[b].mean() for b in relu)


def test_planted_neurons(zoo: Any) -> None:
    """Texts of one half of the vocabulary drive one half of the neurons: cores follow the topic, not the words."""
    model = zoo.build("opt")
    topics = zoo.WORDS[:20], zoo.WORDS[20:40]
    ids = [model.tokenizer.convert_tokens_to_ids(list(words)) for words in topics]
    base = model.hf_model.model.decoder
    with torch.no_grad():
        direction = torch.nn.functional.normalize(
            torch.randn(32, generator=torch.Generator().manual_seed(1)), dim=0
        )
        direction -= direction.mean()
        for sign, tokens in zip((6.0, -6.0), ids, strict=True):
            base.embed_tokens.weight[tokens] += sign * direction
        fc1 = base.layers[0].fc1.weight
        fc1[:24] += 3 * direction
        fc1[24:] -= 3 * direction
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(topics[i % 2], 8)) for i in range(24)]
    sets = core_neurons(model, texts).sets[0]
    same = np.mean(
        [jaccard(sets[i], sets[j]) for i in range(24) for j in range(i) if (i - j) % 2 == 0]
    )
    other = np.mean([jaccard(sets[i], sets[j]) for i in range(24) for j in range(i) if (i - j) % 2])
    assert same > 0.3
    assert other < 0.05
    a, b = rng.integers(0, 24, (2, 40))
    alike = (a % 2 == b % 2).astype(float)
    pairs = TextPairs("p", tuple(texts[i] for i in a), tuple(texts[i] for i in b), alike)
    table = neuron_table(model, pairs, draws=200)
    similarity = table[(table["measure"] == "core_similarity") & (table["block"] == 0)]
    own, random = (
        similarity[similarity["variant"].fillna("") == v].iloc[0] for v in ("", "random")
    )
    assert own["low"] > 0.5
    assert random["low"] < 0 < random["high"] < own["low"]
    grouped = TextPairs("p", pairs.texts_a, pairs.texts_b, alike, groups=np.arange(40) // 4)
    wide = neuron_table(model, grouped, draws=200)
    wide = wide[(wide["measure"] == "core_similarity") & (wide["block"] == 0)].iloc[0]
    assert wide["value"] == own["value"]
    assert 0 < wide["low"] != own["low"]


def test_table(tiny: Any, zoo: Any) -> None:
    table = neuron_table(tiny("llama"), zoo.texts(10, longest=20))
    assert list(table.columns) == [
        "block",
        "measure",
        "variant",
        "value",
        "low",
        "high",
        "n",
        "seed",
    ]
    assert len(table) == 3 * 3
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    stability = table[table["measure"] == "core_stability"]
    own, random = (
        stability[stability["variant"].fillna("") == v]["value"].mean() for v in ("", "random")
    )
    assert own > random + 0.2
    assert table.equals(neuron_table(tiny("llama"), zoo.texts(10, longest=20)))


def test_encoders_have_cores_but_no_stability(tiny: Any, zoo: Any) -> None:
    table = neuron_table(tiny("bert"), zoo.texts(8))
    assert set(table["measure"]) == {"activation_sparsity"}
    assert "sees later tokens" in table.attrs["notes"][0]


def test_refusals(tiny: Any, zoo: Any) -> None:
    with pytest.raises(DoesNotApply, match="mixture of experts"):
        core_neurons(tiny("mixtral"), zoo.texts(4))
    with pytest.raises(DoesNotApply, match="no attention heads"):
        core_neurons(tiny("mamba"), zoo.texts(4))
    with pytest.raises(InputError, match=r"share 0: a number above 0"):
        core_neurons(tiny("gpt2"), zoo.texts(4), share=0)
    with pytest.raises(DataError, match="3 texts: four texts"):
        neuron_table(tiny("gpt2"), zoo.texts(3))
