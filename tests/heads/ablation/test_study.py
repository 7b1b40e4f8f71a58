"""What the study of retrieval heads asks while heads are ablated: other needles, enough of each kind, whole texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from planted_heads import FILLER, PLACES, SECRETS, planted_model
from tokenizers.processors import TemplateProcessing

from probes.heads.retrieval import builtin_needles
from probes.heads.retrieval.needles import split_needles
from probes.heads.retrieval.pieces import leading_ids
from probes.heads.study import AblationPlan, HeadPlan, NeedlePlan, Study, TrialPlan, study_heads
from probes.heads.study.asking import questions, short_questions, short_trials, windows
from probes.heads.study.control import ControlTask
from probes.heads.study.grid import CELL
from probes.runs import Findings


def story() -> list[str]:
    rng = np.random.default_rng(0)
    return [
        f"a {a} is in a {b}. the {c} runs in the {d}."
        for a, b, c, d in rng.choice(FILLER[1:10], (200, 4))
    ]


def needles(path: Path, n: int = 12) -> str:
    rows = [
        {
            "sentence": f"the secret word of {place} is {secret}.",
            "answer": secret,
            "question": f"what is the secret word of {place}?",
            "lead": f"the secret word of {place} is",
            "name": secret,
        }
        for place, secret in zip(PLACES * 3, SECRETS, strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, rows[:n])))
    return str(path)


@pytest.fixture
def make(tmp_path: Path, planted: Any) -> Any:
    def made(
        n: int = 12, model: Any = None, several: int = 1, seed: int = 0, **options: Any
    ) -> Study:
        options.setdefault("lengths", (70, 90))
        path = needles(tmp_path / "needles.jsonl", n)
        trials = TrialPlan(24, needles=NeedlePlan(path, several), **options)
        ablations = AblationPlan((1, 2), ("zero",), 20, 5, 4)
        plan = HeadPlan(frozenset({"retrieval", "ablation"}), trials, ablations, seed)
        return Study(model or planted[0], story(), plan, Findings(), lambda *_: None)

    return made


def names(planned: Any) -> set[str]:
    return {each.needle.name for each in planned}


def test_heads_are_judged_on_other_needles_than_they_were_ranked_on(make: Any) -> None:
    study = make()
    ranked_by, judged_by = names(study.planned(60)), names(study.judging(60))
    assert not ranked_by & judged_by
    assert len(ranked_by) == len(judged_by) == 6
    assert names(questions(study, 20).planned) <= judged_by
    assert names(short_questions(study).planned) <= judged_by
    assert study.keep.notes == []


def test_few_needles_are_shared_and_a_note_says_so(make: Any) -> None:
    study = make(7)
    assert names(study.planned(60)) == names(study.judging(60))
    questions(study, 4)
    short_questions(study)
    (note,) = study.keep.notes
    assert "the same 7 needles" in note
    assert "8 or more" in note
    crowded = make(12, several=7)
    assert "14 or more" in crowded.shared_needles


def test_needles_with_one_answer_stay_together() -> None:
    twice = [*builtin_needles(), *builtin_needles()]
    halves = split_needles(twice, 3)
    assert halves is not None
    first, second = ({needle.answer for needle in half} for half in halves)
    assert not first & second
    assert split_needles(builtin_needles()[:7], 0) is None
    assert split_needles(twice, 3) != split_needles(twice, 4)


@pytest.mark.parametrize("several", [1, 2, 4, 6])
def test_there_are_enough_short_trials_however_many_needles_share_a_context(
    make: Any, several: int
) -> None:
    for seed in range(4):
        study = make(several=several, seed=seed, lengths=(900, 70, 800, 700))
        for n in (8, 30):
            assert [each.tokens for each in short_trials(study, n)] == [70] * n


def test_every_cell_of_the_grid_has_four_trials_and_an_interval(make: Any) -> None:
    study = make()
    study = study_heads(study.model, study.texts, study.plan, Findings())
    grid: Any = study.tables["ablation_grid"]
    assert set(grid["variant"].dropna()) == {"zero=top2", "zero=random2"}
    assert len(grid) == 3 * 2 * 3 * 2  # variants, lengths, thirds, measures
    assert (grid["n"] >= CELL).all()
    assert grid[["value", "low", "high"]].notna().all(axis=None)
    assert (grid["low"] <= grid["value"]).all()
    accuracy = grid[grid["measure"] == "needle_accuracy"]
    assert (accuracy["low"] < accuracy["high"]).all()
    assert grid["depth"].nunique() == 3
    whole, top = (
        accuracy[accuracy["variant"].isna() if v is None else accuracy["variant"] == v]["value"]
        for v in (None, "zero=top2")
    )
    assert whole.mean() == 1
    assert top.mean() < 0.3


def with_beginning() -> Any:
    """The planted model with a tokenizer that puts <s> before every text."""
    model, _ = planted_model()
    tokenizer = model.tokenizer
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return model


def test_plain_text_begins_as_the_tokenizer_begins_it(make: Any, planted: Any) -> None:
    model = with_beginning()
    begin = model.tokenizer.bos_token_id
    assert leading_ids(model.tokenizer).tolist() == [begin]
    assert leading_ids(planted[0].tokenizer).tolist() == []
    study = make(model=model)
    assert all(row[0] == begin and begin not in row[1:] for row in windows(study))
    assert max(map(len, windows(study))) <= model.max_length
    control = questions(study, 4).control
    assert (control.ids[:, 0] == begin).all()
    assert not control.scored[:, :2].any()
    assert control.scored.sum() > 0


def test_only_the_context_changes_with_what_stands_before_a_window() -> None:
    tokens = np.arange(200) % 31
    plain = ControlTask.of(tokens, 3, 20, seed=1)
    more = ControlTask.of(tokens, 3, 20, seed=1, before=np.array([40, 41]))
    np.testing.assert_array_equal(more.ids[:, 2:], plain.ids)
    np.testing.assert_array_equal(more.scored[:, 2:], plain.scored)
    assert (more.ids[:, :2] == [40, 41]).all()


def test_a_tokenizer_that_ends_its_texts_too_has_only_its_beginning() -> None:
    model = with_beginning()
    model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B </s>",
        special_tokens=[("<s>", 2), ("</s>", 3)],
    )
    assert leading_ids(model.tokenizer).tolist() == [2]


def test_two_needles_give_scores_without_intervals_and_say_so(make: Any) -> None:
    study = make(2)
    found = Findings()
    study_heads(study.model, study.texts, study.plan, found)
    rows = pd.concat(found.frames)
    rows = rows[rows["measure"].isin(["retrieval_score", "retrieval_share", "answered_share"])]
    assert rows["low"].isna().all()
    assert any("2 needle(s) in all trials: no intervals" in note for note in found.notes)
    assert len(found.notes) == len(set(found.notes))


def test_extras_can_be_left_out(make: Any) -> None:
    study = make(extras=False)
    found = Findings()
    study_heads(study.model, study.texts, study.plan, found)
    assert not {"query_mass", "copy_contribution"} & set(pd.concat(found.frames)["measure"])
    assert found.tables["head_trials"]["mass"].isna().all()
    assert found.tables["ablation"]["value"].notna().all()
