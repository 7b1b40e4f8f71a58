"""Few heads kept: the planted circuit suffices, random heads do not; the areas by hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from zoo import build

from probes.capture.hooks import edit_site, is_edited
from probes.errors import DoesNotApply
from probes.heads.circuits import Curve, Draws, Task, faithfulness, faithfulness_curves
from probes.heads.circuits.faithfulness import head_ids, kept_counts


def test_the_two_planted_heads_are_the_circuit(planted: Any) -> None:
    model, heads, task = planted
    circuit = {heads["previous"]: 1.0, heads["induction"]: -1.0}  # by size, whatever the sign
    scores = {head: circuit.get(head, 0.0) for head in head_ids(model)}
    found = {curve.ranking: curve for curve in faithfulness_curves(model, task, {"known": scores})}
    assert set(found) == {"known", "known:absolute", "random"}
    draws = Draws.make(len(task), 200, 0)
    known = {row["heads_kept"]: row for row in found["known:absolute"].rows(draws)}
    signed = {row["heads_kept"]: row for row in found["known"].rows(draws)}
    assert signed[6]["value"] == pytest.approx(0, abs=0.02)  # by sign the second head comes last
    assert known[0]["value"] == 0
    assert known[1]["value"] == pytest.approx(0, abs=0.02)  # one of the two alone does nothing
    assert known[2]["value"] == pytest.approx(1, abs=0.02)
    assert known[12] == {**known[12], "value": 1, "low": 1, "high": 1, "share": 1}
    control = {row["heads_kept"]: row for row in found["random"].rows(draws)}
    assert control[2]["value"] < 0.1
    areas = {name: curve.areas(draws) for name, curve in found.items()}
    assert {name: set(area) for name, area in areas.items()} == {
        "known": {"cpr"}, "known:absolute": {"cmd"}, "random": {"cpr", "cmd"}
    }  # fmt: skip
    assert areas["known"]["cpr"]["high"] < 0.5
    assert areas["known:absolute"]["cmd"]["high"] < areas["random"]["cmd"]["low"]
    assert not is_edited(model)


def test_a_curve_is_what_hooks_with_means_give(planted: Any) -> None:
    """Prompts of one length: the mean over corrupted ones is the plain mean, token by token."""
    model, _, task = planted
    order = np.random.default_rng(0).permutation(head_ids(model)).tolist()
    scores = {(block, head): float(i) for i, (block, head) in enumerate(order)}
    draws = Draws.make(len(task), 100, 0)
    curve = faithfulness_curves(model, task, {"own": scores})[0]
    kept = {(block, head) for block, head in order[-6:]}
    corrupted = torch.tensor([row.corrupted for row in task.rows])
    means: dict[int, torch.Tensor] = {}

    def remember(block: int) -> Any:
        def act(z: torch.Tensor) -> torch.Tensor:
            means[block] = z.mean(0, keepdim=True)
            return z

        return act

    def ablate(block: int) -> Any:
        def act(z: torch.Tensor) -> torch.Tensor:
            z = z.clone()
            for head in range(z.shape[2]):
                if (block, head) not in kept:
                    z[:, :, head] = means[block][:, :, head]
            return z

        return act

    def run(ids: torch.Tensor, make: Any) -> torch.Tensor:
        with torch.no_grad(), ExitStack() as stack:
            for block in range(model.n_layers):
                stack.enter_context(edit_site(model, "z", block, make(block)))
            return model.hf_model(ids).logits[:, -1]

    run(corrupted, remember)
    logits = run(torch.tensor([row.clean for row in task.rows]), ablate)
    expected = [
        float(own[list(row.answers)].mean() - own[list(row.wrongs)].mean())
        for own, row in zip(logits, task.rows, strict=True)
    ]
    at = curve.kept.index(6)
    np.testing.assert_allclose(curve.values[:, at], expected, atol=1e-4)
    assert curve.rows(draws)[at]["heads_kept"] == 6


def test_areas_by_hand() -> None:
    values = np.tile([0.0, 1.0, 2.0], (5, 1))  # half of the heads keep half of it
    draws = Draws.make(5, 50, 0)
    areas = Curve("random", (0, 2, 4), values).areas(draws)
    assert areas["cpr"]["value"] == pytest.approx(0.5)
    assert areas["cmd"]["value"] == pytest.approx(0.5)
    over = np.tile([0.0, 4.0, 2.0], (5, 1))
    signed = Curve("x", (0, 2, 4), over).areas(draws)
    assert signed["cpr"]["value"] == pytest.approx(1.25)  # (0 + 2)/2 · ½ + (2 + 1)/2 · ½
    absolute = Curve("x:absolute", (0, 2, 4), over).areas(draws)
    assert absolute["cmd"]["value"] == pytest.approx(0.75)  # |1 − f| counts on both sides


def test_heads_that_work_against_the_task_come_last_by_sign_and_early_by_size(planted: Any) -> None:
    """What the two areas rank by (MIB): a harmful head of large score first hurts CPR, last hurts CMD."""
    model, heads, task = planted
    other = next(head for head in head_ids(model) if head not in heads.values())
    scores = {heads["previous"]: 2.0, heads["induction"]: 1.0, other: -3.0}
    scores = {head: scores.get(head, 0.0) for head in head_ids(model)}
    seen: dict[str, dict[int, float]] = {}
    draws = Draws.make(len(task), 50, 0)
    for curve in faithfulness_curves(model, task, {"s": scores}):
        seen[curve.ranking] = {row["heads_kept"]: row["value"] for row in curve.rows(draws)}
    assert seen["s"][2] == pytest.approx(1, abs=0.02)
    assert seen["s:absolute"][2] == pytest.approx(0, abs=0.02)  # one of the two places is taken


@pytest.mark.parametrize(("pairs", "rounds"), [(10, 1), (4, 3)])
def test_every_pair_has_random_orders_of_its_own(
    planted: Any, pairs: int, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interval over pairs is over orders too: at least ten, and no two pairs share one."""
    model, _, task = planted
    seen: list[list[frozenset[Any]]] = []
    keeping = faithfulness._keeping

    def note(model: Any, ids: Any, kept: Any, means: Any) -> Any:
        seen.append(list(kept))
        return keeping(model, ids, kept, means)

    monkeypatch.setattr(faithfulness, "_keeping", note)
    (curve,) = faithfulness_curves(model, task.part(range(pairs)), {})
    half = [kept for kept in seen if len(kept[0]) == 6]
    assert len(half) == rounds
    orders = [one for kept in half for one in kept]
    assert len(orders) >= faithfulness.FEWEST_ORDERS
    assert len(set(orders)) > 0.9 * len(orders)  # of 924 sets of 6 of 12 heads
    assert curve.values.shape[0] == pairs


@pytest.mark.parametrize("heads", [1, 2, 12, 270, 1024])
def test_curves_begin_with_no_head_and_end_with_all(heads: int) -> None:
    counts = kept_counts(heads)
    assert (counts[0], counts[-1]) == (0, heads)
    assert counts == sorted(set(counts))


def test_heads_that_do_nothing_for_a_task_do_not_apply(zoo_task: Callable[[str], Task]) -> None:
    model = build("llama")
    for block in model.structure.blocks:
        block.o_proj.weight.data.zero_()
    with pytest.raises(DoesNotApply, match="nothing to restore"):
        faithfulness_curves(model, zoo_task("llama"), {})
