"""Saliency: against transformers' own eager attention with kept gradients, and the sets of pairs by definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probes.errors import DataError, DoesNotApply, InputError
from probes.heads.flow import label_prompts, label_saliency, prompt_flows, saliency_matrices
from probes.types import LabelledTexts

DATA = LabelledTexts.make(
    "animals",
    [f"the {size} {thing} {verb}" for verb in ("runs", "sleeps") for size in ("big", "small")
     for thing in ("cat", "dog", "house", "tree")],
    ["good", "good", "bad", "bad"] * 4,
)  # fmt: skip
TEMPLATE = "{text} is"


def prompts(model: Any, n: int = 3, **options: Any) -> Any:
    return label_prompts(model, DATA, n, template=TEMPLATE, **options)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gptj", "gemma2", "phi3"])
def test_equals_gradients_of_eager_attention(name: str, zoo: Any) -> None:
    model = zoo.build(name)
    prompt = prompts(model, 1)[0]
    ours = saliency_matrices(model, prompt)
    bare = zoo.hf_model(name)
    bare.set_attn_implementation("eager")
    output = bare(input_ids=torch.tensor(prompt.ids)[None], output_attentions=True)
    for pattern in output.attentions:
        pattern.retain_grad()
    chosen = output.logits[0, -1, prompt.answers]
    torch.nn.functional.cross_entropy(chosen, torch.tensor(prompt.gold)).backward()
    for block, pattern in enumerate(output.attentions):
        theirs = (pattern * pattern.grad)[0].sum(0).abs().detach().numpy()
        np.testing.assert_allclose(ours[block], theirs, atol=1e-6 + 1e-4 * theirs.max())


def test_leaves_the_model_as_it_is(zoo: Any) -> None:
    model = zoo.build("gpt2")
    before = model.weights_hash
    saliency_matrices(model, prompts(model, 1)[0])
    assert model.weights_hash == before
    assert all(parameter.grad is None for parameter in model.hf_model.parameters())
    assert not model.structure.blocks[0].module._forward_pre_hooks


def test_flows_are_means_over_the_papers_sets(tiny: Any) -> None:
    model = tiny("llama")
    prompt = prompts(model, 1, per_class=2)[0]
    flows = prompt_flows(model, prompt)
    for block, matrix in enumerate(saliency_matrices(model, prompt)):
        sets: dict[str, list[float]] = {"wp": [], "pq": [], "ww": []}
        for i in range(len(prompt.ids)):
            for j in range(i):
                if i in prompt.labels:
                    sets["wp"].append(matrix[i, j])
                elif i == prompt.last and j in prompt.labels:
                    sets["pq"].append(matrix[i, j])
                else:
                    sets["ww"].append(matrix[i, j])
        assert len(sets["pq"]) == 4
        np.testing.assert_allclose(flows[block], [np.mean(sets[k]) for k in ("wp", "pq", "ww")])


def test_label_tokens_are_known(zoo: Any) -> None:
    """Label positions hold the label words; random labels change those alone."""
    model = zoo.build("gpt2")
    tokenizer = model.tokenizer
    own, random = prompts(model, 8, seed=4), prompts(model, 8, seed=4, random_labels=True)
    changed = 0
    for a, b in zip(own, random, strict=True):
        shown = [tokenizer.decode(a.ids[place]) for place in a.labels]
        assert sorted(shown) == ["bad", "good"]
        assert tokenizer.decode(a.ids[a.last]) == "is"
        assert [tokenizer.decode(t) for t in a.answers] == ["bad", "good"]
        assert a.gold == b.gold
        different = np.flatnonzero(a.ids != b.ids)
        assert set(different) <= set(a.labels)
        changed += len(different)
    assert changed


def test_demonstrations_keep_groups_apart(zoo: Any) -> None:
    model = zoo.build("gpt2")
    grouped = LabelledTexts.make(
        "g", DATA.texts, [DATA.label_names[c] for c in DATA.labels], groups=np.arange(16) // 8
    )
    for prompt in label_prompts(model, grouped, 10, template=TEMPLATE):
        verbs = {"runs", "sleeps"} & set(prompt.text.split()[-2:-1])
        assert prompt.text.count(verbs.pop()) == 1


def test_table(tiny: Any) -> None:
    table = label_saliency(tiny("gpt2"), DATA, 4, template=TEMPLATE)
    assert len(table) == 3 * 3 * 2
    assert set(table["variant"].dropna()) == {"random-labels"}
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    assert (table["n"] == 4).all()
    assert table.equals(label_saliency(tiny("gpt2"), DATA, 4, template=TEMPLATE))


def test_planted_label_reader_carries_the_flow(zoo: Any) -> None:
    """Only attention to label words reaches the answer where values of all other tokens are cut off."""
    model = zoo.build("gpt2")
    kept = {model.tokenizer.convert_tokens_to_ids(word) for word in ("good", "bad")}
    with (
        torch.no_grad()
    ):  # block 0 alone attends, over embeddings; other words' embeddings are constant
        for block in model.hf_model.transformer.h[1:]:
            block.attn.c_proj.weight.zero_()
        weight = model.hf_model.transformer.h[0].attn.c_attn.weight
        weight[:, 64:] = 0
        weight[0, 64:] = 3.0  # values read coordinate 0
        table = model.hf_model.transformer.wte.weight
        model.hf_model.transformer.wpe.weight[:, 0] = 0
        table[:, 0] = 0
        for sign, token in zip((4.0, -4.0), kept, strict=True):
            table[token, 0] = sign
        model.hf_model.transformer.h[0].ln_1.bias.zero_()
        model.hf_model.transformer.h[0].attn.c_attn.bias.zero_()
    flows = np.mean([prompt_flows(model, p) for p in prompts(model, 6)], axis=0)
    assert flows[0, 1] > 3 * flows[0, 2]
    assert np.allclose(flows[1:], 0, atol=1e-9)


def test_refusals(tiny: Any) -> None:
    with pytest.raises(DoesNotApply, match="language-model head"):
        prompts(tiny("bert"))
    with pytest.raises(InputError, match="begin with the same token"):
        prompts(tiny("gpt2"), words=["good", "good one"])
    with pytest.raises(InputError, match="1 label words for 2 classes"):
        prompts(tiny("gpt2"), words=["good"])
    with pytest.raises(DataError, match="are needed as demonstrations"):
        prompts(tiny("gpt2"), per_class=9)
    with pytest.raises(DataError, match="tokens, tiny-gpt2 takes 64"):
        prompts(tiny("gpt2"), per_class=6)
    with pytest.raises(InputError, match="must hold"):
        label_prompts(tiny("gpt2"), DATA, template="Label:")


@pytest.mark.models
@pytest.mark.slow
def test_smollm2_reads_label_words_late(users_cache: None) -> None:
    """As in the paper: the answer is drawn from label words in late blocks, far beyond other pairs."""
    from probes.datasets import load_dataset
    from probes.models import load_model

    table = label_saliency(load_model("smollm2"), load_dataset("sentiment"), 4, control=False)
    flows = table.pivot(index="block", columns="flow", values="value").astype(float)
    assert 12 <= flows["pq"].idxmax() <= 26
    assert flows["pq"].max() > 20 * flows["ww"][flows["pq"].idxmax()]
