"""Several datasets: the planted exit that one of them spoils is not chosen; weights say how much each counts."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from probes.errors import InputError
from probes.exits.candidates import Candidate, CandidateScores
from probes.exits.choose import Judged, Judges, Setting, choose, choose_jointly
from probes.exits.decide import with_label_free
from probes.exits.material import prepare_several
from probes.exits.retrieval import RetrievalTask
from probes.exits.walk import Budget, walk_chains
from probes.types import LabelledTexts, TextPairs

D = 16
GOOD = {(None, 1, D): 0.40, (None, 2, D): 0.79, (None, 3, D): 0.80}
EASY = {(None, 1, D): 0.795, (None, 2, D): 0.79, (None, 3, D): 0.80}
SETTING = Setting(draws=400)


@pytest.fixture
def judged(rng, retrieval_task, split_parts):
    def make(name, means, n=1000):
        task, _ = retrieval_task(n, 5, rng)
        task = RetrievalTask(name, task.queries, task.documents, task.relevance, task.clusters)
        hard = 0.1 * rng.normal(size=n)
        lines = [np.clip(m + hard + 0.05 * rng.normal(size=n), 0, 1) for m in means.values()]
        candidates = tuple(Candidate(*key) for key in means)
        scores = CandidateScores(task, candidates, np.stack(lines), candidates[-1])
        return Judged(scores, split_parts(n, rng))

    return make


@pytest.mark.parametrize("budget", [Budget(0.95), Budget(max_loss=0.1)])
def test_the_worst_dataset_decides(judged, budget):
    good, easy = judged("a", GOOD), judged("b", EASY)
    assert choose(easy.scores, easy.parts, budget, SETTING).decision.layer == 1
    made = choose_jointly(Judges.make((easy, good)), budget, SETTING)
    written = made.decision.to_dict()
    assert made.decision.layer == 2
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert written["task_rule"] == "worst"
    assert [task["name"] for task in written["tasks"]] == ["b", "a"]
    assert written["share"] == pytest.approx(min(task["share"] for task in written["tasks"]))
    assert written["share_low"] == pytest.approx(min(t["share_low"] for t in written["tasks"]))


@pytest.mark.parametrize(("weights", "layer"), [((30.0, 1.0), 1), ((1.0, 1.0), 2)])
@pytest.mark.parametrize("budget", [Budget(0.95), Budget(max_loss=0.1)])
def test_weights_say_how_much_each_counts(judged, budget, weights, layer):
    tasks = judged("b", EASY), judged("a", GOOD)
    made = choose_jointly(Judges.make(tasks, weights), budget, SETTING)
    assert made.decision.layer == layer
    written = made.decision.to_dict()
    shares = np.asarray(weights) / sum(weights)
    assert written["quality"] == pytest.approx(shares @ [t["quality"] for t in written["tasks"]])
    assert written["share"] == pytest.approx(written["quality"] / written["quality_full"])


@pytest.mark.parametrize("weights", [None, (2.0, 1.0)])
@pytest.mark.parametrize("budget", [Budget(0.95), Budget(0.999), Budget(max_loss=0.1)])
def test_the_slider_finds_it_again(judged, budget, weights, tmp_path):
    judges = Judges.make((judged("a", GOOD), judged("b", EASY)), weights)
    run = choose_jointly(judges, Budget(0.5), SETTING)
    for name in ("chains", "share_draws", "losses"):
        getattr(run, name).to_parquet(tmp_path / name)
    tables = [pd.read_parquet(tmp_path / n) for n in ("chains", "share_draws", "losses")]
    afresh = choose_jointly(judges, budget, SETTING).decision.chosen
    assert walk_chains(*tables, budget).chosen == (None if afresh is None else afresh.name)


def test_one_dataset_is_the_case_of_one(judged):
    one = judged("a", GOOD)
    alone = choose(one.scores, one.parts, Budget(0.95), SETTING)
    joint = choose_jointly(Judges.make((one,), (3.0,)), Budget(0.95), SETTING)
    assert alone.decision.to_dict() == joint.decision.to_dict()
    pd.testing.assert_frame_equal(alone.share_draws, joint.share_draws)


def test_infeasible_names_the_dataset_that_is_too_small(judged):
    judges = Judges.make((judged("a", GOOD), judged("b", GOOD, n=100)))
    decision = choose_jointly(judges, Budget(0.94), SETTING).decision.to_dict()
    assert decision["status"] == "infeasible"
    assert "b: 20, about" in decision["reason"]
    needed = {row["name"]: row for row in decision["needed"]}
    assert needed["b"]["calibrate"] > 20
    assert needed["b"]["labelled"] == pytest.approx(5 * needed["b"]["calibrate"], abs=5)


def test_what_does_not_go_together_is_refused(judged):
    one, two = judged("a", GOOD), judged("a", EASY)
    with pytest.raises(InputError, match="one name"):
        Judges.make((one, two))
    for weights in ((1.0,), (1.0, 0.0)):
        with pytest.raises(InputError, match="task weights"):
            Judges.make((one, judged("b", EASY)), weights)
    fewer = {key: value for key, value in EASY.items() if key[1] != 1}
    with pytest.raises(InputError, match="different candidates"):
        Judges.make((one, judged("b", fewer)))


def test_texts_of_several_datasets_are_encoded_once_and_judged_apart(rng):
    """No text that one dataset judges by is fitted on, though the other has it in its fit part."""
    n = 200
    shared = [f"sentence {i}" for i in range(n)]
    pairs = TextPairs(
        "pairs", tuple(shared), tuple(f"other {i}" for i in range(n)), rng.uniform(size=n)
    )
    topics = LabelledTexts("topics", tuple(shared), rng.integers(0, 2, n), ("x", "y"))
    material = prepare_several([pairs, topics], ["free text of its own"], 0, [{}, {}])
    assert len(material.texts) == 2 * n + 1
    assert material.own == 2 * n
    for (task, parts), data in zip(material.each, (pairs, topics), strict=True):
        rows = task.a if data is pairs else task.rows
        assert [material.texts[i] for i in rows] == shared
        for name in ("tune", "calibrate", "test"):
            assert not set(task.text_rows(parts[name])) & set(material.fit_rows)
    assert any("more than one dataset" in caveat for caveat in material.caveats)


def test_label_free_picks_stand_among_the_baselines_and_choose_nothing(judged):
    from probes.layers import measure_layers

    judges = Judges.make((judged("a", GOOD),))
    made = choose_jointly(judges, Budget(0.95), SETTING).decision
    flat = np.random.default_rng(0).normal(size=(50, 4))
    metrics = measure_layers(
        {1: flat, 2: flat + 5.0, 3: flat + 1.0}, ["anisotropy", "effective_rank"]
    )
    told = with_label_free(made, judges, metrics)
    extra = told.comparisons.baselines[len(made.comparisons.baselines) :]
    assert [row["name"] for row in extra] == ["best anisotropy"]  # a rank has no better direction
    assert extra[0]["layer"] == 1
    rows = judges.tasks[0].parts["test"]
    expected = judges.tasks[0].scores.quality([Candidate(None, 1, D)], rows)[0]
    assert extra[0]["quality"] == pytest.approx(expected)
    assert told.chosen == made.chosen
