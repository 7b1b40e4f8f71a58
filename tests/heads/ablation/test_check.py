"""The planted copy head matters for needles and for nothing else; a head that only scores does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from probes.errors import DoesNotApply, InputError, NonFiniteError
from probes.heads.ablation import (
    CheckOptions,
    Judge,
    MatchedHeads,
    ablate_heads,
    all_heads,
    causal_check,
    draw_of,
    effect_agreement,
    head_name,
    ranked,
    single_head_effects,
    spared,
    without_random,
)
from probes.heads.ablation.check import _sets
from probes.heads.ablation.paired import difference_bounds, mean_bounds

Planted = tuple[Any, dict[str, tuple[int, int]]]
FEW = CheckOptions(modes=("zero",), draws=5)


def row(table: pd.DataFrame, **where: Any) -> Any:
    for name, value in where.items():
        table = table[(table[name] == value).to_numpy(bool)]
    (found,) = table.to_dict("records")
    return found


@pytest.fixture(scope="module")
def table(planted: Planted, judge: Judge, means: dict[int, np.ndarray]) -> pd.DataFrame:
    model, heads = planted
    scores = {heads["copy"]: 1.0, heads["induction"]: 0.3, (1, 0): 0.0}
    return causal_check(model, judge, scores, (1, 2), CheckOptions(draws=5), means=means)


@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_the_copy_head_finds_the_needle(table: pd.DataFrame, mode: str) -> None:
    whole = row(table, mode=mode, k=0, measure="needle_accuracy")
    top = row(table, mode=mode, k=1, target="top", measure="needle_accuracy")
    random = row(table, mode=mode, k=1, target="random", measure="needle_accuracy")
    assert whole["value"] == 1.0 == random["value"]
    assert whole["target"] == "none"
    assert top["value"] < 0.4
    assert top["difference_high"] < -0.5
    assert top["over_random_high"] < -0.5
    assert random["difference_low"] <= 0 <= random["difference_high"]
    assert pd.isna(random["over_random"])


def test_the_control_task_is_spared_until_the_induction_head_goes_too(table: pd.DataFrame) -> None:
    one = row(table, mode="zero", k=1, target="top", measure="control_accuracy")
    two = row(table, mode="zero", k=2, target="top", measure="control_accuracy")
    assert one["value"] == 1.0
    assert one["difference"] == 0.0
    assert two["value"] < 0.4
    assert two["over_random_high"] < 0


def test_heads_that_do_nothing_are_found_to_do_nothing(planted: Planted, judge: Judge) -> None:
    model, _ = planted
    idle = {(0, 0): 0.9, (1, 0): 0.8, (2, 1): 0.7}
    found = causal_check(model, judge, idle, (3,), FEW)
    top = row(found, k=3, target="top", measure="needle_accuracy")
    assert top["difference"] == 0.0
    assert top["difference_low"] < 0 < top["difference_high"]  # 30 items that agree are no proof


def test_differences_are_paired_by_item(planted: Planted, judge: Judge) -> None:
    model, heads = planted
    found = causal_check(model, judge, [heads["copy"]], (1,), FEW)
    top = row(found, k=1, target="top", measure="answer_logprob")
    random = row(found, k=1, target="random", measure="answer_logprob")
    assert top["over_random"] == pytest.approx(top["value"] - random["value"])
    assert top["difference"] == pytest.approx(
        top["value"] - row(found, k=0, measure="answer_logprob")["value"]
    )


def test_random_sets_are_crossed_with_items_and_avoid_what_scores(planted: Planted) -> None:
    model, heads = planted
    seen: list[np.ndarray] = []

    def read(edited: Any, items: np.ndarray) -> dict[str, Any]:
        seen.append(items)
        return {"m": np.zeros(len(items))}

    scores = {**dict.fromkeys(heads.values(), 0.5), (2, 0): 0.4, (2, 1): 0.2, (2, 2): 0.05}
    found = causal_check(model, Judge(7, read), scores, (1,), FEW)
    assert not found.attrs["notes"]
    assert [len(items) for items in seen] == [7, 7, 2, 2, 1, 1, 1]  # whole, top, random sets
    assert sorted(np.concatenate(seen[2:]).tolist()) == list(range(7))
    order, late = ranked(scores), (2, 2)
    met = control(all_heads(model), [late], {**scores, late: 0.7}, 1)
    assert met == {(2, 3)}  # the only head of that block without a score, however small
    many = [*order, (0, 0), (0, 3), (1, 0), (1, 1)]
    assert set(order) & control(all_heads(model), many, scores, 2) == set()


def control(heads: Any, order: Any, scores: Any, k: int) -> set[tuple[int, int]]:
    """All heads of forty random sets."""
    sets, _ = _sets(heads, order, scores, [k], CheckOptions(modes=("zero",), draws=40))
    return {head for draw in sets[k].draws for head in draw}


def test_small_scores_are_in_random_sets_only_where_nothing_else_is_left_and_a_note_says_so() -> (
    None
):
    heads = [(0, head) for head in range(10)]
    scores = dict(zip(heads, [0.9, 0.8, *[0.01] * 6, 0, 0], strict=True))
    assert spared(scores, heads, 2) == (set(heads[:8]), None)
    assert control(heads, heads, scores, 2) == set(heads[8:])
    found, note = spared(scores, heads, 3)
    assert found == set(heads[:3])
    assert note is not None
    assert "between 0 and 0.1" in note
    _, notes = _sets(heads, heads, scores, [3], CheckOptions(modes=("zero",)))
    assert note in notes
    assert spared(scores, heads, 9, needed=4)[0] == set(
        heads[:4]
    )  # of the best 9, the 4 in question
    assert spared(heads, heads, 4) == (set(heads[:4]), None)  # no scores: only the best


def test_what_cannot_be_compared_is_left_out_and_said(planted: Planted, judge: Judge) -> None:
    model, heads = planted
    more = [(1, 0), (1, 1), (2, 0), (2, 1)]
    scores = dict.fromkeys(heads.values(), 0.5) | dict.fromkeys(more, 0.3)
    found = causal_check(model, judge, scores, (1, 4, 5, 6, 7, 20), FEW)
    assert sorted(set(found["k"])) == [0, 1, 4]
    told = found.attrs["notes"]
    assert any("k = 20 left out: the ranking has 8" in note for note in told)
    assert any("k = 7 left out: more than half" in note for note in told)
    assert any("k = 6 left out: only 4 heads are neither" in note for note in told)
    assert any("k = 4: 2 of 4 random heads come from the nearest" in note for note in told)


def test_equal_seeds_give_equal_tables(planted: Planted, judge: Judge) -> None:
    model, heads = planted
    one, two = (causal_check(model, judge, [heads["copy"]], (1,), FEW) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
    assert one.dtypes["value"] == "Float64"
    assert one.dtypes["k"] == "Int64"


def test_each_item_meets_one_set_and_all_sets_are_used() -> None:
    found = draw_of(23, 10, seed=0)
    assert np.bincount(found).tolist() == [3, 3, 3, *[2] * 7]
    assert (found != np.arange(23) % 10).any()  # items may come in turns of ten


def test_single_effects_follow_what_is_planted(planted: Planted, judge: Judge) -> None:
    model, heads = planted
    scores = {(block, head): 0.0 for block in range(3) for head in range(4)}
    scores[heads["copy"]] = 1.0
    found = single_head_effects(model, judge, scores, scores=scores)
    needle = found[(found["measure"] == "needle_accuracy").to_numpy(bool)]
    worst = {
        head_name((int(r["block"]), int(r["head"])))
        for r in needle.to_dict("records")
        if r["difference"] < -0.5
    }
    assert worst == {"0.1", "1.3"}  # it needs the previous-token head
    agreement = effect_agreement(found, "needle_accuracy")
    assert 0.5 < agreement.value < 1
    assert agreement.low is not None
    assert agreement.low <= agreement.value <= (agreement.high or 0)
    with pytest.raises(DoesNotApply, match="at least four"):
        effect_agreement(found[:2], "needle_accuracy")
    with pytest.raises(DoesNotApply, match="same score"):
        effect_agreement(found.assign(score=0.5), "needle_accuracy")


def test_a_random_ranking_agrees_with_nothing(planted: Planted, judge: Judge) -> None:
    model, _ = planted
    rng = np.random.default_rng(3)
    scores = {(block, head): float(rng.random()) for block in range(3) for head in range(4)}
    found = effect_agreement(
        single_head_effects(model, judge, scores, scores=scores), "answer_logprob"
    )
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high


def test_a_judge_that_answers_wrongly_is_refused(planted: Planted) -> None:
    model, heads = planted
    for answer, error in (
        ({}, InputError),
        ({"m": np.zeros(2)}, InputError),
        ({"m": np.full(4, np.nan)}, NonFiniteError),
    ):
        with pytest.raises(error):
            causal_check(model, Judge(4, lambda *_, a=answer: a), [heads["copy"]], (1,), FEW)
    answers = iter(["m", "m"])
    with pytest.raises(InputError, match="other measures"):
        changing = Judge(3, lambda _, items: {next(answers, "other"): np.zeros(len(items))})
        causal_check(model, changing, [heads["copy"]], (1,), FEW)
    with pytest.raises(InputError, match="mean_outputs"):
        causal_check(model, Judge(1, lambda *_: {}), [(0, 0)], (1,))
    with pytest.raises(InputError, match="twice"):
        causal_check(model, Judge(1, lambda *_: {}), [(0, 0), (0, 0)], (1,), FEW)


def test_a_control_of_one_set_is_that_set_ablated(planted: Planted, judge: Judge) -> None:
    model, heads = planted
    sets = MatchedHeads(((heads["copy"],), ((2, 0),)), 0)
    found = without_random(model, judge, sets, seed=4)["answer_logprob"]
    with ablate_heads(model, [heads["copy"]]):
        first = judge(model)["answer_logprob"]
    with ablate_heads(model, [(2, 0)]):
        second = judge(model)["answer_logprob"]
    met = draw_of(judge.n, 2, seed=4)
    np.testing.assert_allclose(found, np.where(met == 0, first, second), atol=1e-5)
    assert np.abs(first - second).min() > 0.1


def test_intervals_cover_what_they_should() -> None:
    """t intervals over sets hold the mean over all sets in about 95 of 100 studies; over items alone far fewer do."""
    rng = np.random.default_rng(0)
    owner, items = draw_of(40, 10, seed=0), np.arange(40)
    by_set = by_item = 0
    for _ in range(400):
        values = rng.normal(size=10)[owner] + rng.normal(size=40)
        for owners, add in (([owner], "set"), ([items], "item")):
            _, low, high = mean_bounds(values, owners)
            assert low is not None
            assert high is not None
            by_set += add == "set" and low <= 0 <= high
            by_item += add == "item" and low <= 0 <= high
    assert 0.92 * 400 < by_set < 0.98 * 400
    assert by_item < 0.85 * 400


def test_items_that_all_agree_leave_a_margin() -> None:
    own = [np.arange(20)]
    one_each = [np.arange(4)]
    # t alone lies beyond both ends.
    assert mean_bounds(np.array([1.0, 0, 1, 0]), one_each) == (0.5, 0.0, 1.0)
    assert mean_bounds(np.array([2.0, 0, 2, 0]), one_each)[2] > 2  # no share: not cut
    lost = difference_bounds(np.array([1.0, 0, 0, 0]), np.array([0.0, 1, 1, 1]), one_each)
    assert lost == (-0.5, -1.0, 1.0)
    assert mean_bounds(np.ones(20), own) == pytest.approx((1.0, 0.839, 1.0), abs=1e-3)
    value, low, high = difference_bounds(np.zeros(20), np.ones(20), own)
    assert value == low == -1.0
    assert high is not None
    assert -0.8 < high < -0.7
    assert mean_bounds(np.array([0.1, 0.2]), [np.arange(2)]) == (pytest.approx(0.15), None, None)
