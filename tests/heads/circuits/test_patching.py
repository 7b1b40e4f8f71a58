"""Activation patching and its approximation: planted heads, brute force, restoration, TransformerLens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from zoo import build

from probes.capture.hooks import is_edited
from probes.capture.sites import Place
from probes.errors import DoesNotApply, InputError
from probes.heads.circuits import (
    Draws,
    Effects,
    Pair,
    Patch,
    Row,
    Task,
    agreement,
    list_patches,
    make_task,
    patch_activations,
    patch_attributions,
)
from probes.heads.circuits.names import LEVELS, POSITIONS
from probes.heads.circuits.passes import edit_tokens, last_logits, places_of, read, split

MODELS = ["gpt2", "gpt-neox", "gptj", "opt", "llama", "gemma2", "mixtral", "falcon", "olmo2"]


def patches_of(model: Any, *levels: str) -> list[Patch]:
    return [patch for level in levels for patch in list_patches(model, level)]


@pytest.mark.parametrize("name", MODELS)
def test_the_whole_stream_restores_the_clean_difference_at_every_layer(
    name: str, tiny: Callable[[str], Any], zoo_task: Callable[[str], Task]
) -> None:
    model, task = tiny(name), zoo_task(name)
    before = {key: value.clone() for key, value in model.hf_model.state_dict().items()}
    effects = patch_activations(model, task, list_patches(model, "resid"))
    assert np.ptp(effects.gap) > 0.01
    whole = effects.part([p for p in effects.patches if p.positions == "all"])
    assert whole.values.shape == (len(task), model.n_layers + 1)
    np.testing.assert_allclose(
        whole.values, np.tile(effects.gap[:, None], model.n_layers + 1), atol=1e-4
    )
    # at the end only the last token counts, at the start only changed ones
    places = {(p.layer, p.positions): i for i, p in enumerate(effects.patches)}

    np.testing.assert_allclose(
        effects.values[:, places[model.n_layers, "last"]], effects.gap, atol=1e-4
    )
    np.testing.assert_allclose(effects.values[:, places[model.n_layers, "other"]], 0, atol=1e-4)
    np.testing.assert_allclose(effects.values[:, places[0, "changed"]], effects.gap, atol=1e-4)
    np.testing.assert_allclose(effects.values[:, places[0, "last"]], 0, atol=1e-4)
    assert not is_edited(model)
    assert all("forward" not in vars(b.module) for b in model.structure.blocks)
    for key, value in model.hf_model.state_dict().items():
        assert torch.equal(value, before[key])


def plain_pass(model: Any, row: Row, ids: tuple[int, ...], module: Any, hook: Any) -> float:
    """The logit difference of one prompt with a plain hook on what goes into (`z`) or comes out of a module."""
    into = "o_proj" in hook.__name__
    handle = (module.register_forward_pre_hook if into else module.register_forward_hook)(hook)
    with torch.no_grad():
        logits = model.hf_model(torch.tensor([ids])).logits[0, -1]
    handle.remove()
    return float(logits[list(row.answers)].mean() - logits[list(row.wrongs)].mean())


def plain_patch(model: Any, row: Row, patch: Patch) -> tuple[float, float, float]:
    """Clean, corrupted and patched logit difference by plain hooks, one unpadded prompt at a time."""
    block = model.structure.blocks[patch.block]
    head = patch.level == "head"
    module = {"head": block.o_proj, "attn": block.attn_out, "mlp": block.mlp_out}[patch.level]
    last = torch.arange(len(row.clean)) == len(row.clean) - 1
    masks = {"last": last, "changed": torch.tensor(row.changed), "all": torch.ones_like(last)}
    mask = masks[patch.positions]
    width = block.heads.width
    part = slice(patch.head * width, (patch.head + 1) * width) if head else slice(None)
    seen: list[torch.Tensor] = []

    def mixed() -> torch.Tensor:
        new = seen[1].clone()
        flat = new.reshape(len(row.clean), -1)
        flat[mask, part] = seen[0].reshape(len(row.clean), -1)[mask, part]
        return new

    def see_o_proj(_: Any, args: Any) -> None:
        seen.append(args[0].clone())

    def see(_: Any, args: Any, output: torch.Tensor) -> None:
        seen.append(output.clone())

    def put_o_proj(_: Any, args: Any) -> Any:
        return (mixed(), *args[1:])

    def put(_: Any, args: Any, output: torch.Tensor) -> Any:
        return mixed()

    look, change = (see_o_proj, put_o_proj) if head else (see, put)
    clean = plain_pass(model, row, row.clean, module, look)
    corrupted = plain_pass(model, row, row.corrupted, module, look)
    return clean, corrupted, plain_pass(model, row, row.corrupted, module, change)


@pytest.mark.parametrize("name", ["gpt2", "llama", "falcon", "opt"])
def test_effects_equal_those_of_passes_over_one_prompt_without_padding(
    name: str, tiny: Callable[[str], Any], zoo_task: Callable[[str], Task]
) -> None:
    """Batched, padded and started late, against plain hooks on one row at a time."""
    model, task = tiny(name), zoo_task(name)
    patches = [
        Patch("head", "last", block=1, head=2),
        Patch("attn", "changed", block=1),
        Patch("mlp", "all", block=0),
    ]
    effects = patch_activations(model, task, patches)
    assert (np.abs(effects.values).max(axis=0) > 1e-3).all()
    for i, row in enumerate(task.rows):
        for j, patch in enumerate(patches):
            clean, corrupted, patched = plain_patch(model, row, patch)
            assert effects.clean[i] == pytest.approx(clean, abs=1e-4)
            assert effects.values[i, j] == pytest.approx(patched - corrupted, abs=1e-4), patch


def test_all_parts_together_restore_the_clean_difference(
    tiny: Callable[[str], Any], zoo_task: Callable[[str], Task]
) -> None:
    """Not one place but all at once: embedding, every head and every MLP as on the clean prompts."""
    model = tiny("llama")
    (_, batch), *_ = split(model, zoo_task("llama"))
    places = [*places_of(model, ["z", "mlp_out"]), Place("resid_post", 0)]
    clean = read(model, batch, batch.clean, places)
    with torch.no_grad(), ExitStack() as stack:
        for place in places:
            new = clean.states[place]
            stack.enter_context(
                edit_tokens(model, place, batch.corrupted, lambda _, new=new: new.clone())
            )
        found = batch.difference(last_logits(model, batch.corrupted, batch.last)[:, 0])
    torch.testing.assert_close(found, clean.difference, atol=1e-4, rtol=0)


def test_planted_heads_and_their_tokens_are_found(planted: Any) -> None:
    model, heads, task = planted
    effects = patch_activations(model, task, patches_of(model, "head"))
    share = dict(zip(effects.patches, effects.values.mean(0) / effects.gap.mean(), strict=True))
    for patch, value in share.items():
        place = (patch.block, patch.head)
        # the previous-token head works where the answer stands, the induction head at the end
        works = {heads["previous"]: ("all", "other"), heads["induction"]: ("all", "last")}
        expected = 1.0 if patch.positions in works.get(place, ()) else 0.0
        assert value == pytest.approx(expected, abs=0.02), patch


def mixed_difference(model: Any, batch: Any, patch: Patch, share: float) -> Any:
    """The corrupted difference with a share of the clean states mixed in at one place."""
    clean = read(model, batch, batch.clean, [patch.place]).states[patch.place]
    mask = batch.mask(patch.positions).double()

    def edit(states: torch.Tensor) -> torch.Tensor:
        own = mask.reshape(*mask.shape, *[1] * (states.ndim - 2))
        if patch.head is not None:
            own = own * (torch.arange(states.shape[2]) == patch.head)[:, None]
        return states + share * own * (clean - states)

    with torch.no_grad(), edit_tokens(model, patch.place, batch.corrupted, edit):
        return batch.difference(last_logits(model, batch.corrupted, batch.last)[:, 0])


@pytest.mark.parametrize(
    ("name", "step"),  # RMS norms round to float32, which takes a large step
    [("gpt2", 1e-5), ("falcon", 1e-5), ("opt", 1e-5), ("llama", 3e-3), ("gemma2", 3e-3)],
)
def test_attribution_is_the_slope_of_activation_patching(
    name: str, step: float, zoo_task: Callable[[str], Task]
) -> None:
    """Mixing a little of the clean states in changes the difference by that share of the attribution."""
    model, task = build(name), zoo_task(name)
    model.hf_model.double()
    patches = [
        Patch("head", "all", block=0, head=1),
        Patch("mlp", "changed", block=1),
        Patch("resid", "last", layer=2),
        Patch("attn", "other", block=0),
    ]
    estimated = patch_attributions(model, task, patches, steps=0)
    assert all(p.grad is None for p in model.hf_model.parameters())
    for rows, batch in split(model, task):
        for j, patch in enumerate(patches):
            up, down = (mixed_difference(model, batch, patch, share) for share in (step, -step))
            slope = ((up - down) / (2 * step)).numpy()
            np.testing.assert_allclose(
                estimated.values[list(rows), j], slope, atol=5e-3, rtol=1e-2, err_msg=str(patch)
            )


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "falcon"])
def test_integrated_gradients_add_up_to_the_whole_gap(
    name: str, tiny: Callable[[str], Any], zoo_task: Callable[[str], Task]
) -> None:
    """Completeness (Sundararajan et al. 2017): at the embeddings the attributions are what there is to restore."""
    model, task = tiny(name), zoo_task(name)
    patch = [Patch("resid", "all", layer=0)]
    many = patch_attributions(model, task, patch, steps=50)
    np.testing.assert_allclose(many.values[:, 0], many.gap, atol=2e-3 + 0.02 * np.ptp(many.gap))
    with pytest.raises(InputError, match="-1 steps"):
        patch_attributions(model, task, patch, steps=-1)


def correlations(model: Any, task: Task, steps: int) -> dict[str, float]:
    patches = patches_of(model, *LEVELS)
    effects = patch_activations(model, task, patches)
    estimated = patch_attributions(model, task, patches, steps=steps)
    draws = Draws.make(len(task), 100, 0)
    return {row["level"]: row["pearson"] for row in agreement(effects, estimated, draws)}


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_attribution_patching_goes_with_activation_patching(
    name: str, tiny: Callable[[str], Any], zoo_task: Callable[[str], Task]
) -> None:
    found = correlations(tiny(name), zoo_task(name), 5)
    assert set(found) == set(LEVELS)
    assert min(found.values()) > 0.8, found


def test_integrated_gradients_go_where_one_gradient_does_not(planted: Any) -> None:
    """The planted heads attend all or nothing, the worst case: at either end the gradient sees nothing of that."""
    model, _, task = planted
    found, single = (correlations(model, task, steps) for steps in (5, 0))
    assert found["head"] > 0.8 > single["head"]
    assert all(found[level] > single[level] + 0.1 for level in single)


def test_normalised_rows_are_zero_as_corrupted_and_one_as_clean() -> None:
    clean, corrupted = np.array([3.0, 5.0, 4.0, 6.0]), np.array([1.0, -1.0, 0.0, 0.0])
    gap = clean - corrupted
    patches = (
        Patch("resid", "all", layer=0),
        Patch("resid", "last", layer=0),
        Patch("resid", "other", layer=0),
    )
    values = np.stack([gap, 0 * gap, gap / 2], axis=1)
    rows = Effects(patches, values, clean, corrupted).rows(Draws.make(4, 300, 0))
    for row, expected in zip(rows, (1, 0, 0.5), strict=True):
        for name in ("value", "low", "high"):
            assert row[name] == pytest.approx(expected)
        assert row["n"] == 4


@pytest.mark.parametrize("skewed", [False, True])
def test_of_many_heads_that_do_nothing_none_is_shown(skewed: bool) -> None:
    """270 heads without effect on 20 pairs: pointwise intervals name several of them, simultaneous ones none."""
    rng = np.random.default_rng(0)
    draws = Draws.make(20, 400, 0)
    patches = tuple(Patch("head", "all", block=b, head=h) for b in range(30) for h in range(9))
    named, pointwise = 0, 0
    for _ in range(60):
        values = 1 - rng.exponential(size=(20, 270)) if skewed else rng.normal(size=(20, 270))
        effects = Effects(patches, values, 10 + rng.normal(size=20), np.zeros(20))
        named += any(row["low"] > 0 for row in effects.together(draws))
        pointwise += any(row["low"] > 0 for row in effects.rows(draws))
    assert named / 60 <= 0.07
    assert pointwise / 60 > 0.9


def test_a_planted_head_is_shown_among_many() -> None:
    rng = np.random.default_rng(0)
    patches = tuple(Patch("head", "all", block=b, head=h) for b in range(30) for h in range(9))
    values = rng.normal(size=(20, 270))
    values[:, 7] += 3
    effects = Effects(patches, values, 10 + rng.normal(size=20), np.zeros(20))
    rows = effects.together(Draws.make(20, 1000, 0))
    assert [i for i, row in enumerate(rows) if row["low"] > 0] == [7]
    assert rows[7]["value"] == pytest.approx(values[:, 7].mean() / effects.gap.mean())
    (one,) = Draws.make(20, 4000, 0).simultaneous(values[:, 7:8], effects.gap)
    (plain,) = Draws.make(20, 4000, 0).ratio(values[:, 7:8], effects.gap)
    for name in ("low", "high"):  # of one head there is nothing to correct for
        assert one[name] == pytest.approx(plain[name], abs=0.06)


def test_nothing_to_restore_does_not_apply() -> None:
    clean, corrupted = np.array([1.0, -1.0, 2.0, -2.0]), np.zeros(4)
    effects = Effects((Patch("resid", "all", layer=0),), np.zeros((4, 1)), clean, corrupted)
    with pytest.raises(DoesNotApply, match="nothing to restore"):
        effects.rows(Draws.make(4, 300, 0))


def test_agreement_is_the_correlation_over_places() -> None:
    rng = np.random.default_rng(0)
    patches = tuple(Patch("head", "all", block=0, head=h) for h in range(20))
    values = rng.normal(size=(8, 20))
    other = values + 0.1 * rng.normal(size=(8, 20))
    ends = np.ones(8), np.zeros(8)
    draws = Draws.make(8, 300, 0)
    (row,) = agreement(Effects(patches, values, *ends), Effects(patches, other, *ends), draws)
    expected = np.corrcoef(values.mean(0), other.mean(0))[0, 1]
    assert row["pearson"] == pytest.approx(expected)
    assert row["low"] < expected < row["high"] + 1e-9
    assert (row["level"], row["n"]) == ("head", 8)


def test_levels_and_positions_that_do_not_exist(tiny: Callable[[str], Any]) -> None:
    with pytest.raises(InputError, match="did you mean 'resid'"):
        list_patches(tiny("llama"), "residue")
    with pytest.raises(InputError, match="did you mean 'last'"):
        list_patches(tiny("llama"), "head", ["lst"])
    with pytest.raises(DoesNotApply, match="no attention heads"):
        list_patches(tiny("mamba"), "head")
    assert len(list_patches(tiny("llama"), "head")) == 3 * 4 * len(POSITIONS)
    assert {p.level for level in LEVELS for p in list_patches(tiny("llama"), level)} == set(LEVELS)


def test_a_model_without_heads_still_has_a_stream(tiny: Callable[[str], Any]) -> None:
    model = tiny("mamba")
    words = ("cat", "tree", "king", "queen")
    task = make_task(
        model, "own", [Pair(f"{w} dog in", f"{w} sun in", (" bird",), (" fish",)) for w in words]
    )
    effects = patch_activations(model, task, list_patches(model, "resid", ["all"]))
    np.testing.assert_allclose(effects.values, np.tile(effects.gap[:, None], 4), atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_equal_to_transformer_lens(
    name: str, tiny: Callable[[str], Any], zoo_task: Callable[[str], Task]
) -> None:
    """Residual stream and heads, patched by TransformerLens' own functions on its bridge of the same model."""
    patching = pytest.importorskip("transformer_lens.patching")
    from probes.capture.bridge_backend import BridgeRunner

    model, whole = tiny(name), zoo_task(name)
    length = len(whole.rows[0].clean)
    task = whole.part([i for i, row in enumerate(whole.rows) if len(row.clean) == length])
    bridge = BridgeRunner(model, [Place("z", 0)]).bridge
    clean, corrupted = (
        torch.tensor([getattr(row, side) for row in task.rows]) for side in ("clean", "corrupted")
    )

    def metric(logits: torch.Tensor) -> torch.Tensor:
        found = [
            own[-1, list(row.answers)].mean() - own[-1, list(row.wrongs)].mean()
            for own, row in zip(logits, task.rows, strict=True)
        ]
        return torch.stack(found).mean()

    with torch.no_grad():
        _, cache = bridge.run_with_cache(clean)
        resid = patching.get_act_patch_resid_pre(bridge, corrupted, cache, metric)
        heads = patching.get_act_patch_attn_head_out_all_pos(bridge, corrupted, cache, metric)
    effects = patch_activations(model, task, patches_of(model, "resid", "head"))
    own = dict(zip(effects.patches, effects.values.mean(0), strict=True))
    base = effects.corrupted.mean()
    for block in range(model.n_layers):
        for head in range(model.n_heads):
            mine = own[Patch("head", "all", block=block, head=head)] + base
            assert mine == pytest.approx(float(heads[block, head]), abs=1e-4)
    # TransformerLens patches one token at a time: the last one can be compared
    for layer in range(model.n_layers):
        mine = own[Patch("resid", "last", layer=layer)] + base
        assert mine == pytest.approx(float(resid[layer, -1]), abs=1e-4)
