"""Blocks left out: the one that does nothing is found, and leaving it out costs nothing; another one does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from zoo import build, texts

from probes import capture
from probes.datasets.splits import four_parts
from probes.errors import InputError
from probes.exits.grid import GridPlan, layer_dim_grid
from probes.exits.tasks import make_task
from probes.quality import Judge, choose_stretches, measure_drops, stretch_influence
from probes.quality.drops import default_counts
from probes.types import TextPairs


@pytest.fixture(scope="module")
def pairs() -> TextPairs:
    """Scored by the share of words that both sides have: a model with random weights can see that."""
    rng = np.random.default_rng(0)
    left, right, scores = [], [], []
    for text, other in zip(texts(160, seed=1), texts(160, seed=2), strict=True):
        words, more = text.split(), other.split()
        kept = int(rng.integers(0, len(words) + 1))
        left.append(text)
        right.append(" ".join([*words[:kept], *more[kept : len(words)]]) or other)
        scores.append(kept / len(words))
    return TextPairs("pairs", tuple(left), tuple(right), np.array(scores))


@pytest.fixture
def idle() -> Any:
    """A Llama whose second block adds nothing to the residual stream."""
    model = build("llama")
    block = model.structure.blocks[1].module
    with torch.no_grad():
        block.self_attn.o_proj.weight.zero_()
        block.mlp.down_proj.weight.zero_()
    return model


def judged(model: Any, data: TextPairs) -> tuple[Judge, Any, tuple[str, ...]]:
    task, wanted = make_task(data)
    parts = four_parts(data, np.random.default_rng(0))
    judge = Judge.make(task, parts.fit, 200, 0)
    return judge, capture(model, wanted, sites=["exit", "resid_post"]), wanted


def test_the_idle_block_is_found_and_can_be_left_out_for_nothing(idle: Any, pairs: Any) -> None:
    judge, store, wanted = judged(idle, pairs)
    stretches = choose_stretches(store["resid_post"], [1])
    assert [(s.first, s.chosen) for s in stretches] == [(1, True), (2, False), (0, False)]
    assert stretches[0].influence == pytest.approx(0, abs=1e-6)
    full = judge(store["exit"])
    table = measure_drops(
        idle, stretches, judge, full, lambda _: capture(idle, wanted, layers=[3])["exit", 3]
    )
    free, last, costly = table.to_dict("records")
    assert last["quality"] == pytest.approx(float(full.values[2]))  # leaving out the last is exit 2
    assert free["share"] == free["share_low"] == free["share_high"] == 1
    assert costly["quality"] != pytest.approx(free["quality"], abs=1e-3)
    assert free["relative_cost"] == pytest.approx(2 / 3)
    assert (table["n"] == 160).all()


def test_shares_of_a_quality_that_may_be_zero_are_left_out(idle: Any, pairs: Any) -> None:
    rng = np.random.default_rng(0)
    noise = TextPairs("noise", pairs.texts_a, pairs.texts_b, rng.random(160))
    judge, store, wanted = judged(idle, noise)
    stretches = choose_stretches(store["resid_post"], [1])[:1]
    full = judge(store["exit"])
    assert full.interval()[0][-1] <= 0
    table = measure_drops(
        idle, stretches, judge, full, lambda _: capture(idle, wanted, layers=[3])["exit", 3]
    )
    assert table[["share", "share_low", "share_high"]].isna().all(axis=None)
    assert table["quality"].notna().all()


def test_influence_of_stretches_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    states = {k: rng.normal(size=(7, 5)) for k in range(5)}
    found = stretch_influence(states, [1, 3])
    assert set(found) == {(0, 1), (1, 1), (2, 1), (3, 1), (0, 3), (1, 3)}
    for (first, count), value in found.items():
        a, b = states[first], states[first + count]
        cosines = [u @ v / np.linalg.norm(u) / np.linalg.norm(v) for u, v in zip(a, b, strict=True)]
        assert value == pytest.approx(1 - np.mean(cosines))


def test_a_control_beside_every_choice_never_the_choice_itself() -> None:
    rng = np.random.default_rng(1)
    states = {k: rng.normal(size=(7, 5)) for k in range(9)}
    for seed in range(5):
        found = choose_stretches(states, seed=seed)
        chosen = {s.count: s for s in found if s.chosen}
        assert sorted(chosen) == default_counts(8) == [1, 2, 3, 4]
        for count in chosen:
            assert 8 - count in [s.first for s in found if s.count == count]  # the last blocks
        for stretch in found:
            if not stretch.chosen:
                assert stretch.first != chosen[stretch.count].first
                assert stretch.influence >= chosen[stretch.count].influence


def test_counts_that_leave_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="4 blocks cannot be left out of 4: 1 to 3 can"):
        choose_stretches({k: np.eye(3) for k in range(5)}, [4])


def test_judged_as_the_grid_of_the_exit_choice_does(pairs: Any) -> None:
    model = build("bert")
    task, wanted = make_task(pairs)
    parts = four_parts(pairs, np.random.default_rng(0))
    states = capture(model, wanted)["exit"]
    grid = layer_dim_grid(task, {None: states}, {}, parts.fit, GridPlan((32,), 200, 0))
    judge = Judge.make(task, parts.fit, 200, 0)
    rows = judge.rows(states, judge(states), "mean")
    for ours, theirs in zip(rows, grid.rows, strict=True):
        for key in ("measure", "layer", "dim", "value", "low", "high", "n"):
            assert ours[key] == theirs[key]
