"""Retrieval on the real small models: tokens, agreement of both modes, and who retrieves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from probes.heads.retrieval import (
    builtin_needles,
    haystack_ids,
    measure_trial,
    plan_trials,
    retrieval_scores,
)
from probes.models import load_model

pytestmark = [pytest.mark.models, pytest.mark.slow]


@pytest.fixture(scope="module")
def smollm2() -> Any:
    return load_model("smollm2")


@pytest.mark.parametrize("name", ["minilm", "smollm2"])
def test_every_builtin_needle_is_exact(name: str, smollm2: Any) -> None:
    model = smollm2 if name == "smollm2" else load_model(name)
    haystack = haystack_ids(model)
    decode = model.tokenizer.decode
    for planned in plan_trials((200,), trials=24, distractors=1):
        trial = planned.build(model, haystack)
        assert trial.tokens <= 200
        text = decode(trial.ids[trial.answer.start : trial.answer.stop]).strip()
        sentence = decode(trial.ids[trial.sentence.start : trial.sentence.stop]).strip()
        question = decode(trial.ids[trial.question.start : trial.question.stop]).strip()
        for found, meant in (
            (text, trial.needle.answer),
            (sentence, trial.needle.sentence),
            (question, trial.needle.question),
        ):
            lower = name == "minilm"  # its tokenizer knows no capitals, and spaces before signs
            assert found.replace(" ", "") == (meant.lower() if lower else meant).replace(" ", "")
        for span in trial.distractors:
            assert not set(span) & set(trial.sentence)


def test_smollm2_answers_and_both_modes_agree(smollm2: Any) -> None:
    haystack = haystack_ids(smollm2)
    answered = 0
    for planned in plan_trials((250,), trials=6):
        trial = planned.build(smollm2, haystack)
        forced = measure_trial(smollm2, trial)
        assert forced.why == {}
        if forced.answered:
            answered += 1
            decoded = measure_trial(smollm2, trial, "decode", extras=False)
            np.testing.assert_allclose(decoded.score, forced.score, atol=1e-6)
            assert forced.score.max() > 0.5
            assert (forced.score == 0).mean() > 0.5
    assert answered >= 3


def test_half_precision_has_the_same_contributions(smollm2: Any) -> None:
    half = load_model("smollm2", dtype="bfloat16")
    trial = plan_trials((250,), trials=1)[0]
    found = [measure_trial(m, trial.build(m, haystack_ids(m))) for m in (smollm2, half)]
    assert [each.why for each in found] == [{}, {}]
    whole, coarse = (each.contribution.ravel() for each in found)
    assert np.corrcoef(whole, coarse)[0, 1] > 0.95


def test_smollm2_without_its_template_differs(smollm2: Any) -> None:
    trial = plan_trials((250,), trials=1)[0]
    haystack = haystack_ids(smollm2)
    with_template, without = (trial.build(smollm2, haystack, chat) for chat in (True, False))
    assert smollm2.tokenizer.decode(with_template.ids).startswith("<|im_start|>")
    assert "<|im_start|>" not in smollm2.tokenizer.decode(without.ids)


def test_minilm_looks_at_the_needle_when_asked_for_it() -> None:
    table = retrieval_scores(load_model("minilm"), 8, lengths=(150,), needles=builtin_needles())
    assert set(table["measure"]) == {"query_mass"}
    assert len(table) == 12 * 6
    assert table["value"].max() > 0.02
