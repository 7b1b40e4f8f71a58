"""Running scores: means over answered trials, overlap, stop, and going on after an interruption."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import build

from probes.errors import DataError, DoesNotApply
from probes.heads.ablation import ranked
from probes.heads.retrieval import Needle, RunningScores, retrieval_scores
from probes.heads.retrieval.summary import agreed_notes, needle_notes, not_answered
from probes.tables import tidy

TEXTS = [
    "the cat sees one dog. the bird sings to a tree. a fish eats. the moon runs under a house."
]
NEEDLES = [
    Needle(f"n-{a}", f"the red stone was {a}.", a, "was stone red", "stone was")
    for a in ("seven", "eight", "gold iron", "north")
]


def filled(
    n: int, answered: Any = None, shape: tuple[int, int] = (6, 5), seed: int = 0
) -> RunningScores:
    rng = np.random.default_rng(seed)
    truth = rng.random(shape) ** 6
    running = RunningScores()
    for i in range(n):
        score = (rng.random(shape) < truth).astype(float)
        row = {
            "needle": f"n{i % 7}", "tokens": 100, "depth": 0.5, "distractors": 0, "mode": "forced",
            "answered": True if answered is None else bool(answered[i]), "logprob": -1.5,
            "expected": "x", "emitted": "y",
        }  # fmt: skip
        running.add_arrays(i, row, {"score": score, "mass": rng.normal(size=shape)})
    return running


def test_scores_count_answered_trials_and_mass_counts_all() -> None:
    answered = [True, False, True, False, True]
    running = filled(5, answered)
    values, trials = running.stacked("score")
    assert trials == [0, 2, 4]
    np.testing.assert_allclose(running.means("score"), values.mean(0))
    assert running.stacked("mass")[1] == [0, 1, 2, 3, 4]
    rows = tidy(running.rows(seed=3))
    assert set(rows["n"][rows["measure"] == "retrieval_score"]) == {3}
    assert set(rows["n"][rows["measure"] == "query_mass"]) == {5}
    assert set(rows["measure"]) == {"retrieval_score", "query_mass"}
    assert len(rows) == 2 * 30


def test_nothing_answered_is_said_and_not_scored_zero() -> None:
    running = filled(4, [False] * 4)
    with pytest.raises(DoesNotApply, match="answered verbatim"):
        running.means()
    assert not any(row["measure"] == "retrieval_score" for row in running.rows())
    (row,) = running.summary_rows()
    assert (row["measure"], row["value"], row["n"]) == ("answered_share", 0.0, 4)


@given(st.integers(0, 10**6), st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_top_and_overlap_equal_a_plain_sort(seed: int, n: int) -> None:
    running = filled(n, seed=seed)
    values, _ = running.stacked("score")

    def top(upto: int) -> list[tuple[int, int]]:
        mean, mass = values[:upto].mean(0), running.stacked("mass")[0][:upto].mean(0)
        heads = [(b, h) for b in range(6) for h in range(5) if mean[b, h] > 0]
        return sorted(heads, key=lambda at: (-mean[at], -mass[at], at))[:20]

    assert running.top() == top(n)
    if n > 5:
        before, now = set(top(n - 5)), set(top(n))
        assert running.overlap() == pytest.approx(len(before & now) / max(len(before), len(now)))
    else:
        assert running.overlap() is None


def test_heads_that_never_copied_are_no_top_heads() -> None:
    running = RunningScores()
    score = np.zeros((4, 9))
    score[2, 3] = 0.5
    for i in range(8):
        running.add_arrays(i, {"needle": "a", "answered": True}, {"score": score})
    assert running.top() == [(2, 3)]
    assert running.overlap() == 1.0


def test_it_stops_when_stable_and_not_before_twenty() -> None:
    running = RunningScores()
    score = np.zeros((4, 9))
    score[1, :4] = [0.4, 0.6, 0.8, 1]
    for i in range(24):
        running.add_arrays(i, {"needle": "a", "answered": True}, {"score": score})
        assert running.stable() == (i + 1 >= 20)
    assert running.running()["stopped"].tolist() == [False] * 19 + [True] * 5


def test_it_does_not_stop_while_the_top_changes() -> None:
    running = RunningScores()
    for i in range(40):
        score = np.zeros((8, 9))
        score[i // 5, i % 9] = 50.0**i  # each new trial outweighs all before
        score[(i // 5 + 3) % 8] = 50.0**i
        running.add_arrays(i, {"needle": "a", "answered": True}, {"score": score})
        assert not running.stable()


def test_frames_survive_parquet_and_hold_what_was_put_in() -> None:
    running = filled(9, [True] * 8 + [False])
    running._values[3]["score"][5, 4] = np.nan  # a block with fewer heads
    running._values[3]["mass"][5, 4] = np.nan
    back = []
    for frame in running.frames():
        buffer = io.BytesIO()
        frame.to_parquet(buffer)
        assert not frame.select_dtypes("Float64").isin([np.inf]).any(axis=None)
        back.append(pd.read_parquet(buffer))
    again = RunningScores.from_frames(*back)
    assert again.answered == running.answered
    assert again.rows() == running.rows()
    for first, second in zip(running.frames(), again.frames(), strict=True):
        pd.testing.assert_frame_equal(first, second)


def test_a_trial_whose_heads_were_not_written_is_run_again() -> None:
    trials, heads = filled(3).frames()
    again = RunningScores.from_frames(trials, heads[heads["trial"] != 2])
    assert 1 in again
    assert 2 not in again
    with pytest.raises(DataError, match="twice"):
        again.add_arrays(1, {}, {})
    assert len(RunningScores.from_frames(trials, heads.iloc[:0])) == 0


def test_halves_agree_for_real_scores_and_not_for_noise() -> None:
    overlap, rank = filled(60, shape=(20, 10)).halves()
    assert rank is not None
    assert rank > 0.7
    noise = RunningScores()
    rng = np.random.default_rng(1)
    for i in range(60):
        noise.add_arrays(i, {"needle": "a", "answered": True}, {"score": rng.random((20, 10))})
    low_overlap, low_rank = noise.halves()
    assert abs(low_rank or 0) < 0.25
    assert low_overlap < overlap  # type: ignore[operator]


def test_whole_study_on_a_tiny_model_and_going_on_where_it_ended() -> None:
    model = build("llama")
    options: Any = {
        "lengths": (40, 52),
        "depths": (0.0, 1.0),
        "needles": NEEDLES,
        "haystack": TEXTS * 5,
    }
    whole = retrieval_scores(model, 6, **options)
    part = retrieval_scores(model, 3, **options)
    told: list[tuple[int, int]] = []
    resumed = retrieval_scores(
        model, 6, **options, progress=lambda done, total: told.append((done, total)),
        resume=RunningScores.from_frames(part.attrs["trials"], part.attrs["head_trials"]),
    )  # fmt: skip
    pd.testing.assert_frame_equal(whole.drop(columns=[]), resumed)
    assert told[-1] == (6, 6)
    assert set(whole["measure"]) >= {"query_mass", "copy_contribution", "answered_share"}
    assert len(whole.attrs["trials"]) == 6
    assert len(whole.attrs["head_trials"]) == 6 * 12
    assert any("no retrieval_score" in note for note in whole.attrs["notes"]) == (
        not whole.attrs["trials"]["answered"].any()
    )


def test_encoders_get_query_mass_and_nothing_else() -> None:
    model = build("bert")
    table = retrieval_scores(model, 4, lengths=(40,), needles=NEEDLES, haystack=TEXTS * 5)
    assert set(table["measure"]) == {"query_mass"}
    assert table.attrs["trials"]["answered"].isna().all()
    assert any("says no answer" in note for note in table.attrs["notes"])


@pytest.mark.parametrize("name", ["mamba", "vit"])
def test_models_without_heads_or_words_do_not_apply(name: str) -> None:
    with pytest.raises(DoesNotApply):
        retrieval_scores(build(name), 2)


def test_going_on_with_a_model_whose_last_block_has_no_heads() -> None:
    running = filled(4)
    for i in range(4):
        for field in ("score", "mass"):
            running._values[i][field][5] = np.nan  # block 5 has no heads
    again = RunningScores.from_frames(*running.frames(), (6, 5))
    more = filled(5)
    again.add_arrays(4, more._trials[4], more._values[4])
    assert again.means().shape == (6, 5)


def test_run_level_numbers_have_intervals_over_needles() -> None:
    running = filled(42, [i % 5 > 0 for i in range(42)], shape=(20, 10))
    rows = {row["measure"]: row for row in running.summary_rows(seed=2)}
    assert set(rows) == {
        "answered_share", "retrieval_share", "retrieval_zero_share", "split_half_overlap", "split_half_spearman",
    }  # fmt: skip
    for row in rows.values():
        assert row["low"] < row["value"] < row["high"] or row["value"] in (row["low"], row["high"])
        assert row["low"] < row["high"]
        assert row["seed"] == 2
    assert rows == {row["measure"]: row for row in running.summary_rows(seed=2)}
    assert rows != {row["measure"]: row for row in running.summary_rows(seed=3)}


def test_trials_of_one_needle_are_one_draw() -> None:
    """Each trial said five times over tells nothing new: intervals stay as they are."""
    once, often = RunningScores(), RunningScores()
    source = filled(7, shape=(20, 10))
    for i in range(7):
        values = dict(source._values[i])
        row = {**source._trials[i], "answered": i != 3}
        once.add_arrays(i, row, values)
        for j in range(5):
            often.add_arrays(5 * i + j, row, values)
    for name in ("retrieval_share", "retrieval_zero_share"):
        one, many = (
            next(row for row in each.summary_rows() if row["measure"] == name)
            for each in (once, often)
        )
        assert (one["low"], one["high"]) == (many["low"], many["high"])
    one, many = (each.summary_rows()[0] for each in (once, often))
    assert one["value"] == many["value"] == pytest.approx(6 / 7)
    assert many["high"] - many["low"] > 0.3  # seven needles, not 35


def test_too_few_needles_have_no_interval_and_a_note_says_so() -> None:
    running = filled(12)
    for i, row in running._trials.items():
        row["needle"] = f"n{i % 2}"
    assert all(row["low"] is None and row["high"] is None for row in running.summary_rows())
    assert "2 needle(s)" in needle_notes(running)[0]
    assert needle_notes(filled(12)) == []
    few = filled(9, [i % 7 < 2 for i in range(9)])
    assert "2 needle(s) answered" in needle_notes(few)[0]
    assert few.summary_rows()[0]["low"] is not None
    assert few.summary_rows()[1]["low"] is None


def test_resamples_that_agree_are_no_certainty() -> None:
    """Every trial with the same scores: the share answered has Wilson's interval, shares of heads have none."""
    running = RunningScores()
    for i in range(12):
        row = {"needle": f"n{i}", "answered": True}
        running.add_arrays(i, row, {"score": np.array([[0.5, 0.2, 0.0], [0.0, 0.0, 0.0]])})
    rows = {row["measure"]: row for row in running.summary_rows()}
    answered = rows.pop("answered_share")
    assert answered["low"] == pytest.approx(0.757, abs=1e-3)
    assert answered["high"] == 1
    assert rows["retrieval_share"]["value"] == pytest.approx(1 / 3)
    assert all(row["low"] is None and row["high"] is None for row in rows.values())
    (note,) = agreed_notes(list(rows.values()))
    assert "Share of retrieval heads" in note
    assert agreed_notes([answered]) == []


def test_what_was_said_instead_of_the_answer_is_shown() -> None:
    running = RunningScores()
    for i, said in enumerate([":", "x" * 99, "third"]):
        row = {"needle": "n", "answered": False, "expected": "green door", "emitted": said}
        running.add_arrays(i, row, {"score": np.zeros((1, 1))})
    text = not_answered(running)
    assert "none of 3 trials" in text
    assert "expected 'green door' but the model said ':'" in text
    assert f"'{'x' * 60}…'" in text
    assert "third" not in text


def test_equal_scores_are_ordered_by_mass_then_by_place() -> None:
    running = RunningScores()
    score = np.array([[0.0, 0.5, 0.0], [0.5, 0.0, np.nan]])
    mass = np.array([[0.2, 0.1, 0.2], [0.3, 0.9, np.nan]])
    running.add_arrays(0, {"needle": "a", "answered": True}, {"score": score, "mass": mass})
    assert list(running.order()) == [(1, 0), (0, 1), (1, 1), (0, 0), (0, 2)]
    assert ranked(running.order()) == list(running.order())
