"""Direct logit attribution: a planted head gets it all, sums are exact, and models without such sums are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import zoo

from probes.errors import DoesNotApply
from probes.heads.circuits import Component, Draws, Task, attribute, attribution
from probes.heads.circuits.norms import freeze

ADDING = [
    "gpt2", "gpt-neox", "gpt-neox-serial", "gptj", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma3", "phi3",
    "mixtral", "falcon", "olmo2", "cohere", "stablelm",
]  # fmt: skip


@pytest.mark.parametrize("name", ADDING)
def test_contributions_add_up_to_the_models_own_logit_difference(
    name: str, tiny: Callable[[str], Any], zoo_task: Callable[[str], Task]
) -> None:
    model, task = tiny(name), zoo_task(name)
    found = attribute(model, task)
    total = found.components.index(Component("total"))
    parts = np.delete(found.values, total, axis=1)
    np.testing.assert_allclose(parts.sum(axis=1), found.values[:, total], atol=1e-4)
    for row, value in zip(task.rows, found.values[:, total], strict=True):  # without any hook
        with torch.no_grad():
            logits = model.hf_model(torch.tensor([row.clean])).logits[0, -1]
        own = logits[list(row.answers)].mean() - logits[list(row.wrongs)].mean()
        assert float(own) == pytest.approx(value, abs=1e-4)
    assert len(found.components) == 1 + model.n_layers * (model.n_heads + 1) + 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gemma2", "soft capping"),
        ("opt-post-norm", "neither a LayerNorm nor an RMS norm"),
        ("granite", "attn_out"),
        ("mamba", "no attention heads"),
    ],
)
def test_models_whose_parts_do_not_add_up_are_refused(
    name: str, words: str, tiny: Callable[[str], Any], zoo_task: Callable[[str], Task]
) -> None:
    with pytest.raises(DoesNotApply, match=words):
        attribute(tiny(name), zoo_task(name))


@pytest.mark.parametrize("name", ["llama", "gpt2", "olmo2"])
def test_contributions_add_up_in_half_precision_too(
    name: str, zoo_task: Callable[[str], Task]
) -> None:
    """Passes are in float32; the model is bfloat16 before and after."""
    model = zoo.build(name)
    model.hf_model.bfloat16()
    found = attribute(model, zoo_task(name))
    total = found.components.index(Component("total"))
    parts = np.delete(found.values, total, axis=1)
    off = np.abs(parts.sum(axis=1) - found.values[:, total])
    assert (off <= 1e-3 * np.abs(parts).max(axis=1)).all()
    assert found.error <= 1e-3
    assert {p.dtype for p in model.hf_model.parameters()} == {torch.bfloat16}


def test_a_scaled_residual_sum_is_told_as_such(zoo_task: Callable[[str], Task]) -> None:
    model = zoo.build("llama")

    def scale(_: Any, __: Any, output: Any) -> Any:
        return (0.7 * output[0], *output[1:]) if isinstance(output, tuple) else 0.7 * output

    model.structure.blocks[1].module.register_forward_hook(scale)
    with pytest.raises(DoesNotApply, match="not the sum of the embedding and what attention"):
        attribute(model, zoo_task("llama"))


def test_a_head_that_is_more_than_a_matrix_is_not_put_down_to_the_stream(
    zoo_task: Callable[[str], Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attribution, "EXACT", -1.0)  # whatever the sum, it is refused
    monkeypatch.setattr(attribution, "_logit_scale", lambda *_: 1.0)
    with pytest.raises(DoesNotApply, match="the final norm or the head does more"):
        attribute(zoo.build("llama"), zoo_task("llama"))


def test_the_planted_induction_head_carries_the_answer(planted: Any) -> None:
    model, heads, task = planted
    found = attribute(model, task)
    rows = found.rows(Draws.make(len(task), 200, 0))
    total = next(row for row in rows if row["component"] == "total")
    first, second = sorted(
        (r for r in rows if r["component"] == "head"), key=lambda r: -abs(r["value"])
    )[:2]
    assert (first["block"], first["head"]) == heads["induction"]
    assert first["value"] == pytest.approx(total["value"], rel=0.03)
    assert abs(second["value"]) < 0.03 * total["value"]


def test_a_head_taken_away_takes_its_contribution_with_it(
    tiny: Callable[[str], Any], zoo_task: Callable[[str], Task]
) -> None:
    """Nothing comes after the last block's attention but its MLP; with that off, contributions are differences."""
    model = zoo.build("llama", seed=3)
    block = model.structure.blocks[-1]
    with torch.no_grad():
        block.mlp_out.weight.zero_()
        for norm in model.structure.tail:
            norm.weight.fill_(1.0)
    task = zoo_task("llama")
    found = attribute(model, task)
    number = found.components.index(Component("head", model.n_layers - 1, 2))
    total = found.components.index(Component("total"))
    row = task.rows[0]

    def final(scale: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        seen: list[torch.Tensor] = []
        handle = model.structure.tail[0].register_forward_pre_hook(
            lambda _, args: seen.append(args[0])
        )
        with torch.no_grad():
            model.hf_model(torch.tensor([row.clean]))
        handle.remove()
        last = seen[0][0, -1]
        scale = last.pow(2).mean().rsqrt() if scale is None else scale
        logits = model.structure.lm_head(last * scale)
        difference = logits[list(row.answers)].mean() - logits[list(row.wrongs)].mean()
        return difference.detach(), scale

    whole, scale = final(None)
    assert float(whole) == pytest.approx(found.values[0, total], abs=1e-3)
    with torch.no_grad():
        width = block.heads.width
        block.o_proj.weight[:, 2 * width : 3 * width] = 0
    without, _ = final(scale)
    assert float(whole - without) == pytest.approx(found.values[0, number], abs=1e-3)


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_a_frozen_norm_is_the_norm_at_its_states(kind: str) -> None:
    torch.manual_seed(0)
    norm = torch.nn.LayerNorm(12) if kind == "layer" else torch.nn.RMSNorm(12)
    for parameter in norm.parameters():
        parameter.data = torch.randn_like(parameter)
    x, direction = 3 * torch.randn(5, 12) + 1, torch.randn(5, 12)
    frozen = freeze(norm, x)
    assert frozen is not None
    assert frozen.centred == (kind == "layer")
    own = (norm(x) * direction).sum(-1)
    read = (x * frozen.back(direction)).sum(-1) + (frozen.bias * direction).sum(-1)
    torch.testing.assert_close(read, own, atol=1e-4, rtol=1e-4)


def test_what_is_no_norm_is_not_taken_for_one() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 12)
    assert freeze(torch.nn.Linear(12, 12), x) is None
    assert freeze(torch.nn.Linear(12, 6), x) is None
    assert freeze(torch.nn.Tanh(), x) is None
