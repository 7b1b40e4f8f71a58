"""Replacing what heads give: the same as changing weights by hand, in every architecture with heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import zoo

from probes.capture.hooks import TorchRunner, is_edited
from probes.capture.sites import Place
from probes.errors import DoesNotApply, InputError, NonFiniteError
from probes.heads.ablation import ablate_heads, all_heads, matched_random_heads, mean_outputs
from probes.models.inputs import trial_inputs

NAMES = [name for name in zoo.TEXT_NAMES if name not in zoo.WITHOUT_HEADS]
QUICK = ["gpt2", "llama", "gemma2", "bert"]


def last(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        return model.structure.base(
            **model.forward_inputs(inputs["input_ids"], inputs["attention_mask"])
        )[0]


def read_z(model: Any, inputs: dict[str, torch.Tensor], block: int) -> torch.Tensor:
    found: list[torch.Tensor] = []
    given = model.forward_inputs(inputs["input_ids"], inputs["attention_mask"])
    TorchRunner(model, [Place("z", block)])(given, lambda _, z: found.append(z))
    return found[0]


@pytest.mark.parametrize("name", NAMES)
def test_zero_ablation_is_a_projection_without_those_columns(name: str) -> None:
    model = zoo.build(name)
    inputs = trial_inputs(model.hf_model)
    heads, before = [(0, 1), (0, 3), (2, 0)], last(model, inputs)
    with ablate_heads(model, heads):
        assert is_edited(model)
        edited = last(model, inputs)
    assert not is_edited(model)
    assert torch.equal(last(model, inputs), before)
    assert (edited - before).abs().max() > 1e-3
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    for block, head in heads:
        module: Any = model.structure.module_for("z", block)
        width = model.structure.block(block).d_head or 0
        weight = module.weight
        at = slice(head * width, (head + 1) * width)
        part = weight[at] if type(module).__name__ == "Conv1D" else weight[:, at]
        kept.append((part, part.detach().clone()))
        part.data.zero_()
    by_weights = last(model, inputs)
    for part, value in kept:
        part.data.copy_(value)
    assert torch.allclose(edited, by_weights, atol=1e-5)


@pytest.mark.parametrize("name", QUICK)
def test_mean_ablation_puts_the_mean_over_all_tokens(name: str) -> None:
    model = zoo.build(name)
    rng = np.random.default_rng(0)
    rows = [rng.integers(10, 90, size=n).tolist() for n in (3, 9, 5)]
    means = mean_outputs(model, rows)
    seen = [
        read_z(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, 1)[0]
        for ids in (torch.tensor([row]) for row in rows)
    ]
    assert np.allclose(means[1], torch.cat(seen).mean(0).numpy(), atol=1e-6)
    inputs = trial_inputs(model.hf_model)
    with ablate_heads(model, [(1, 2)], "mean", means):
        replaced = read_z(model, inputs, 1)
    plain = read_z(model, inputs, 1)
    assert torch.allclose(replaced[:, :, 2], torch.from_numpy(means[1][2]).expand(2, 7, -1))
    assert torch.equal(replaced[:, :, [0, 1, 3]], plain[:, :, [0, 1, 3]])


def test_only_the_positions_named_are_replaced() -> None:
    model = zoo.build("llama")
    inputs = trial_inputs(model.hf_model)
    plain = read_z(model, inputs, 2)
    where = torch.zeros(2, 7, dtype=torch.bool)
    where[0, 3] = where[1, -1] = True
    for positions, hit in (([3, -1], [(0, 3), (1, 3), (0, 6), (1, 6)]), (where, [(0, 3), (1, 6)])):
        with ablate_heads(model, [(2, 0)], positions=positions):
            found = read_z(model, inputs, 2)
        zero = {tuple(at) for at in (found[:, :, 0] == 0).all(-1).nonzero().tolist()}
        assert zero == set(hit)
        assert torch.equal(found[:, :, 1:], plain[:, :, 1:])
    for wrong in ([7], where[:, :3]):
        with (
            pytest.raises(InputError, match="position"),
            ablate_heads(model, [(2, 0)], positions=wrong),
        ):
            last(model, inputs)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_generation_with_a_cache_is_ablated_at_every_step(name: str) -> None:
    model = zoo.build(name)
    ids = trial_inputs(model.hf_model, rows=1)["input_ids"]

    def logits(cache: bool) -> torch.Tensor:
        with torch.inference_mode():
            out = model.hf_model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, use_cache=cache,
                pad_token_id=1, eos_token_id=None, output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
        return torch.stack(out.logits)

    heads = [(block, head) for block in range(3) for head in (0, 2)]
    with ablate_heads(model, heads):
        with_cache, without = logits(True), logits(False)
    assert torch.allclose(with_cache, without, atol=1e-4)
    assert ((with_cache - logits(True)).abs().amax(-1) > 0.01).all()


def test_refusals() -> None:
    model = zoo.build("gpt2")
    means = {0: np.zeros((4, 8)), 1: np.zeros((4, 7)), 2: np.full((4, 8), np.nan)}
    for heads, mode, error, told in (
        ([(0, 4)], "zero", InputError, "0.4 does not exist: block 0 has heads 0 to 3"),
        ([(3, 0)], "zero", InputError, "block 3"),
        ([(0, 0)], "maen", InputError, "did you mean 'mean'"),
        ([(1, 0)], "mean", InputError, r"shape \(4, 7\), \(4, 8\) is needed"),
        ([(2, 0)], "mean", NonFiniteError, "NaN"),
    ):
        with pytest.raises(error, match=told), ablate_heads(model, heads, mode, means):
            pass
    mamba = zoo.build("mamba")
    with pytest.raises(DoesNotApply):
        all_heads(mamba)
    with pytest.raises(DoesNotApply), ablate_heads(mamba, [(0, 0)]):
        pass
    for rows in ([], [[]]):
        with pytest.raises(InputError, match="token"):
            mean_outputs(model, rows)


def test_random_heads_are_matched_and_disjoint() -> None:
    heads = [(block, head) for block in range(6) for head in range(8)]
    rng = np.random.default_rng(0)
    for _ in range(50):
        order = [heads[i] for i in rng.permutation(len(heads))]
        top, scored = order[:7], order[:20]
        found = matched_random_heads(top, heads, 4, rng, scored)
        for draw in found.draws:
            assert len(set(draw)) == 7
            assert not set(draw) & set(scored)
        strangers = {len({b for b, _ in draw} - {b for b, _ in top}) for draw in found.draws}
        assert found.moved or strangers == {0}


def test_random_heads_differ_between_draws_and_run_out() -> None:
    heads = [(0, head) for head in range(9)]
    rng = np.random.default_rng(0)
    found = matched_random_heads([(0, 0)], heads, 30, rng)
    assert {head for draw in found.draws for head in draw} == set(heads[1:])
    assert found.note() is None
    with pytest.raises(InputError, match="only 1 are neither"):
        matched_random_heads(heads[:2], heads, 1, rng, heads[:8])
