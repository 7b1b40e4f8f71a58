"""Planted quality per layer: the right exit is found, and said to be infeasible where it is."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from probes.errors import InputError
from probes.exits.candidates import Candidate, CandidateScores
from probes.exits.choose import Setting, choose
from probes.exits.evidence import build_chains
from probes.exits.walk import FULL, MADE_UP, Budget, walk_chains

D = 32
DESIGN_KEYS = (
    *(
        "status",
        "layer",
        "dim",
        "pooling",
        "variant",
        "quality",
        "quality_full",
        "share",
        "share_low",
    ),
    *(
        "relative_cost",
        "speedup",
        "confidence",
        "guarantee",
        "baselines",
        "alternatives",
        "caveats",
    ),
)


@pytest.fixture
def planted(rng, retrieval_task, split_parts):
    """Scores of a retrieval task with chosen mean quality per candidate: {(variant, layer, dim): mean}."""

    def make(means, n=1500, noise=0.1):
        task, _ = retrieval_task(n, 5, rng)
        candidates = tuple(Candidate(*key) for key in means)
        difficulty = noise * rng.normal(size=n)
        lines = [
            np.clip(m + difficulty + noise / 2 * rng.normal(size=n), 0, 1) for m in means.values()
        ]
        full = max((c for c in candidates if c.variant is None), key=lambda c: c.cost)
        return CandidateScores(task, candidates, np.stack(lines), full), split_parts(n, rng)

    return make


LADDER = {
    (None, 0, D): 0.30,
    (None, 1, 8): 0.35,
    (None, 1, D): 0.40,
    (None, 2, D): 0.60,
    (None, 3, 8): 0.70,
    (None, 3, D): 0.80,
    ("translated", 0, D): 0.55,
    ("translated", 1, 8): 0.60,
    ("translated", 1, D): 0.785,
    ("translated", 2, 8): 0.65,
    ("translated", 2, D): 0.79,
}


def test_the_planted_exit_is_found_past_bad_raw_layers(planted):
    scores, parts = planted(LADDER)
    made = choose(scores, parts, Budget(0.95), Setting(draws=500, pooling="mean"))
    decision = made.decision
    assert decision.chosen == Candidate("translated", 1, D)
    assert decision.status == "chosen"
    assert decision.share == pytest.approx(0.785 / 0.80, abs=0.02)
    assert decision.kept is not None
    assert decision.kept.n == len(parts["test"])
    assert decision.kept.quality == pytest.approx(
        scores.quality([decision.chosen], parts["test"])[0]
    )
    lower = choose(scores, parts, Budget(0.65), Setting(draws=500)).decision
    assert lower.chosen == Candidate("translated", 0, D)


def test_a_middle_failure_stops_its_chain(planted):
    """Fixed-sequence testing: what lies behind a failure is not reached, however good it looks."""
    scores, parts = planted(LADDER)
    lines = scores.scores.copy()
    place = list(scores.candidates).index(Candidate("translated", 2, D))
    lines[place, parts["calibrate"]] = 0.1
    spoilt = CandidateScores(scores.task, scores.candidates, lines, scores.full)
    made = choose(spoilt, parts, Budget(0.95), Setting(draws=300))
    assert made.decision.status == "infeasible"
    reached = made.chains[made.chains["chain"] == "translated"].set_index("name")
    assert bool(reached.loc["translated:2x32", "tested"])
    assert not bool(reached.loc["translated:2x32", "passed"])
    assert not bool(reached.loc["translated:1x32", "tested"])
    assert reached.loc["translated:1x32", "p"] < 0.01  # it would have passed, had it been its turn


def test_chains_are_fronts_of_the_tune_part(planted):
    scores, parts = planted(LADDER)
    chains = build_chains(scores, parts["tune"])
    for name, chain in chains.groupby("chain"):
        chain = chain.sort_values("order")
        assert chain["name"].iloc[0] == "raw:3x32"
        costs = list(zip(chain["layer"], chain["dim"], strict=True))
        assert costs == sorted(costs, reverse=True)
        assert chain["tune_quality"].iloc[1:].is_monotonic_decreasing
        assert name in ("raw", "translated")
    # dominated: dearer and worse than translated:1x32
    assert "translated:2x8" not in set(chains["name"])


def test_decision_has_the_fixed_keys_and_is_json(planted):
    scores, parts = planted(LADDER)
    cost = {0: 0.02, 1: 0.35, 2: 0.68, 3: 1.0}
    made = choose(
        scores, parts, Budget(0.95), Setting(draws=300, relative_cost=cost, pooling="mean")
    )
    written = made.decision.to_dict()
    assert list(written)[: len(DESIGN_KEYS)] == list(DESIGN_KEYS)
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert written["relative_cost"] == 0.35
    assert written["speedup"] == pytest.approx(1 / 0.35)
    assert written["guarantee"] == "asymptotic"
    names = [b["name"] for b in written["baselines"]]
    assert names[:4] == ["last layer", "depth 1/2", "depth 2/3", "depth 3/4"]
    assert "depth 1/2, translated" in names
    half = written["baselines"][1]
    assert (half["layer"], half["dim"], half["variant"]) == (
        2,
        D,
        None,
    )  # half of three layers, rounded up
    assert half["low"] <= half["quality"] <= half["high"]
    assert written["baselines"][0]["share"] == pytest.approx(1)


def alternating(n, rng, retrieval_task):
    """The candidate keeps 98.125 % on average in every part of even size, by turns more and less."""
    task, _ = retrieval_task(4 * n, 5, rng)
    candidates = (Candidate(None, 0, D), Candidate(None, 1, D))
    lines = np.stack([0.785 + 0.1 * (-1.0) ** np.arange(4 * n), np.full(4 * n, 0.8)])
    parts = dict(
        zip(("fit", "tune", "calibrate", "test"), np.split(np.arange(4 * n), 4), strict=True)
    )
    return CandidateScores(task, candidates, lines, candidates[1]), parts


def test_infeasible_says_how_many_examples_would_do(rng, retrieval_task):
    scores, parts = alternating(60, rng, retrieval_task)
    decision = choose(scores, parts, Budget(0.97), Setting(draws=1000)).decision
    assert decision.status == "infeasible"
    assert decision.chosen is None
    reason = decision.to_dict()["reason"]
    needed = int(reason.split("about ")[1].split(" would")[0].replace(",", ""))
    assert 500 < needed < 2000
    for size, status in ((needed // 6 * 2, "infeasible"), (needed // 2 * 2, "chosen")):
        scores, parts = alternating(size, rng, retrieval_task)
        assert choose(scores, parts, Budget(0.97), Setting(draws=1000)).decision.status == status
    hopeless = choose(scores, parts, Budget(0.99), Setting(draws=1000)).decision.to_dict()["reason"]
    assert "more data will not help" in hopeless


def test_infeasible_largest_loss_says_how_many_would_do(rng, retrieval_task):
    scores, parts = alternating(40, rng, retrieval_task)
    reason = choose(scores, parts, Budget(max_loss=0.08)).decision.to_dict()["reason"]
    needed = int(reason.split("about ")[1].split(" would")[0].replace(",", ""))
    more, split = alternating(needed // 2 * 2, rng, retrieval_task)
    assert choose(more, split, Budget(max_loss=0.08)).decision.status == "chosen"
    less, split = alternating(needed // 6 * 2, rng, retrieval_task)
    assert choose(less, split, Budget(max_loss=0.08)).decision.status == "infeasible"


def test_a_useless_full_model_is_infeasible(rng, similarity_task, split_parts):
    task, _ = similarity_task(300, rng)
    candidates = (Candidate(None, 0, 8), Candidate(None, 1, 8))
    noise = rng.normal(size=(2, 300))
    scores = CandidateScores(task, candidates, noise, candidates[1])
    decision = choose(scores, split_parts(300, rng), Budget(0.5), Setting(draws=400)).decision
    assert decision.status == "infeasible"
    assert "not above chance" in decision.to_dict()["reason"]


def test_largest_loss_on_similarity_is_refused(rng, similarity_task, split_parts):
    task, _ = similarity_task(60, rng)
    candidates = (Candidate(None, 0, 8), Candidate(None, 1, 8))
    scores = CandidateScores(task, candidates, rng.normal(size=(2, 60)), candidates[1])
    with pytest.raises(InputError, match="does not apply to similarity"):
        choose(scores, split_parts(60, rng), Budget(max_loss=0.1))


def test_largest_loss_is_finite_sample(planted):
    scores, parts = planted(LADDER)
    made = choose(scores, parts, Budget(max_loss=0.1, confidence=0.9), Setting(draws=300))
    assert made.decision.chosen == Candidate("translated", 1, D)
    written = made.decision.to_dict()
    assert written["guarantee"] == "finite-sample"
    assert 0 <= written["calibrate"]["excess_loss"] < 0.1
    assert 0 <= written["test_excess_loss"] < 0.1
    small = choose(scores, parts, Budget(max_loss=0.001), Setting(draws=300)).decision
    assert small.status == "infeasible"


@pytest.mark.parametrize(
    "budget", [Budget(0.9), Budget(0.97, confidence=0.8), Budget(max_loss=0.2), Budget(0.55)]
)
def test_the_slider_finds_what_choose_finds(planted, budget, tmp_path):
    """From one run's tables, written and read again, for any other budget."""
    scores, parts = planted(LADDER)
    run = choose(scores, parts, Budget(0.95), Setting(draws=400))
    for name in ("chains", "share_draws", "losses"):
        getattr(run, name).to_parquet(tmp_path / f"{name}.parquet")
    tables = {
        name: pd.read_parquet(tmp_path / f"{name}.parquet")
        for name in ("chains", "share_draws", "losses")
    }
    walk = walk_chains(tables["chains"], tables["share_draws"], tables["losses"], budget)
    afresh = choose(scores, parts, budget, Setting(draws=400))
    chosen = afresh.decision.chosen
    assert walk.chosen == (None if chosen is None else chosen.name)
    pd.testing.assert_frame_equal(walk.steps, afresh.chains)


def test_losses_and_shares_are_what_they_say(planted):
    scores, parts = planted(LADDER, n=400)
    made = choose(scores, parts, Budget(0.95), Setting(draws=300))
    rows = parts["calibrate"]
    full = scores.quality([scores.full], rows)[0]
    assert made.losses[FULL].mean() == pytest.approx(1 - full)
    step = made.chains[made.chains["name"] == "translated:1x32"].iloc[0]
    assert step["calibrate_share"] == pytest.approx(
        (1 - made.losses["translated:1x32"].mean()) / full
    )
    plain = made.share_draws["translated:1x32"] * (1 + made.share_draws[MADE_UP])
    assert plain.mean() == pytest.approx(step["calibrate_share"], abs=0.01)
    assert (made.share_draws["raw:3x32"] == 1).all()


@pytest.mark.parametrize("n", [50, 200, 1000])
def test_where_nothing_differs_the_bound_is_the_rule_of_three(n, planted):
    """A candidate that is right wherever the full model is: a plain bootstrap would promise 100 % at any n."""
    scores, parts = planted(LADDER, n=5 * n)
    same = replace(scores, scores=np.repeat(scores.scores[-1:], len(scores.scores), axis=0))
    made = choose(same, parts, Budget(0.5), Setting(draws=4000))
    step = made.chains[made.chains["passed"] & (made.chains["order"] > 0)].iloc[0]
    size = len(parts["calibrate"])
    level = 1 - 0.05 / made.chains["chain"].nunique()
    copies = stats.poisson.ppf(level, 1)
    full = same.quality([same.full], parts["calibrate"])[0]
    assert step["bound"] == pytest.approx(1 / (1 + copies / size / full), rel=0.01)
    assert step["bound"] < 1


def test_bad_parts_are_refused(planted):
    scores, parts = planted(LADDER, n=100)
    with pytest.raises(InputError, match="disjoint"):
        choose(scores, {**parts, "test": parts["tune"]})
    with pytest.raises(InputError, match="'tune' is missing"):
        choose(scores, {k: v for k, v in parts.items() if k != "tune"})
    with pytest.raises(InputError, match="calibrate part has 0"):
        choose(scores, {**parts, "calibrate": parts["calibrate"][:0]})
    with pytest.raises(InputError, match="no time is given for layer 0"):
        choose(scores, parts, setting=Setting(relative_cost={1: 0.5, 2: 0.7, 3: 1.0}))
