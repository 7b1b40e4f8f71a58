"""Studies of pairs and of retrieval, what they refuse, and a whole one on a tiny model."""

from __future__ import annotations

import numpy as np
import pytest

from probes.errors import InputError
from probes.exits.dynamic import DynamicExit, DynamicPlan, study_dynamic
from probes.exits.dynamic.calibrate import STATIC
from probes.exits.dynamic.heads import SpaceHeads
from probes.exits.dynamic.study import exits_of, rule_names, study_dynamic_states
from probes.exits.material import Material
from probes.exits.walk import Budget
from probes.types import LabelledTexts

PLAN = DynamicPlan(draws=200)


def deepening(states, layers, rng, noise=1.5):
    """States that get nearer to the last layer's with every layer."""
    return {
        k: states + noise * (1 - k / (layers - 1)) * rng.normal(size=states.shape)
        for k in range(layers)
    }


def test_pairs_are_scored_with_both_texts_at_their_own_exit(similarity_task, split_parts, rng):
    task, states = similarity_task(400, rng)
    material = Material(task, split_parts(400, rng), ("",) * len(states), 0, ())
    pooled = deepening(states, 4, rng)
    study = study_dynamic_states(material, pooled, Budget(0.9), PLAN)
    units = study.units
    full = task.score(pooled[3], [states.shape[1]], material.parts["fit"])["spearman"][0]
    np.testing.assert_allclose(units.scores(np.full(len(units.rows), 3)), full, atol=1e-9)
    places = rng.integers(0, 4, len(units.rows))
    found = units.scores(places)
    exit_of = dict(zip(units.rows.tolist(), places.tolist(), strict=True))
    for i in (0, 7, 399):
        a, b = (
            units.heads.answers(exit_of[int(row)], pooled[exit_of[int(row)]][[row]])[0]
            for row in (task.a[i], task.b[i])
        )
        assert found[i] == pytest.approx(float(a @ b), abs=1e-9)
    assert set(study.rules) == {"state-cosine", "answer-cosine", "layer-gate", "look-gate"}
    assert study.to_dict()["measure"] == "spearman"


def test_queries_search_the_full_models_index(retrieval_task, split_parts, rng):
    task, states = retrieval_task(300, 60, rng, graded=False)
    material = Material(task, split_parts(300, rng), ("",) * len(states), 0, ())
    pooled = deepening(states, 4, rng)
    study = study_dynamic_states(material, pooled, Budget(0.9), PLAN)
    units, heads = study.units, study.units.heads
    assert isinstance(heads, SpaceHeads)
    assert heads.index is not None
    wanted = task.score(pooled[3], [states.shape[1]], material.parts["fit"])["ndcg_at_10"][0]
    np.testing.assert_allclose(units.scores(np.full(300, 3)), wanted, atol=1e-12)
    mixed = states.copy()
    mixed[task.documents] = heads.index
    mixed[task.queries] = heads.answers(1, pooled[1][task.queries])
    wanted = task.score(mixed, [states.shape[1]], material.parts["fit"])["ndcg_at_10"][0]
    np.testing.assert_allclose(units.scores(np.full(300, 1)), wanted, atol=1e-12)
    assert {"margin", "patience"} <= set(study.rules)
    margin = next(c for c in study.found.candidates if c.variant == "margin")
    cosine = next(c for c in study.found.candidates if c.variant == "state-cosine")
    assert study.policy(margin).heads.index is not None
    assert study.policy(cosine).heads.index is None  # no search where the rule asks for none


def test_names_and_layers_that_mean_nothing_are_refused():
    with pytest.raises(InputError, match="unknown rule for similarity data 'entropy'"):
        rule_names(DynamicPlan(rules=("entropy",)), "similarity")
    with pytest.raises(InputError, match="6 is the full model"):
        exits_of(DynamicPlan(layers=(7,)), 6)
    with pytest.raises(InputError, match="6 is the full model"):
        exits_of(DynamicPlan(layers=(6,)), 6)
    assert exits_of(DynamicPlan(layers=(2, 1)), 6) == (1, 2, 6)


def test_infeasible_says_why_and_runs_nothing(planted):
    material, pooled, _ = planted(n=120, hard=1.0)
    study = study_dynamic_states(material, pooled, Budget(0.999), PLAN)
    told = study.to_dict()
    assert told["status"] == "infeasible"
    assert told["reason"]
    assert told["chosen"] is None
    with pytest.raises(InputError, match="nothing was chosen"):
        study.policy()


def test_from_texts_to_a_running_exit(zoo, own_cache, rng):
    """Class = whether the text holds the word: layer 0 can tell, so nothing has to run."""
    model = zoo.build("bert")
    labels = rng.integers(0, 2, 300)
    words = [
        f"{' '.join(rng.choice(zoo.WORDS[20:60], 4))} {'gold' if y else 'iron'}" for y in labels
    ]
    data = LabelledTexts("words", tuple(words), labels, ("iron", "gold"))
    study = study_dynamic(model, data, Budget(0.9), plan=DynamicPlan(draws=200, layers=(0, 1)))
    chosen = study.choice.chosen
    assert chosen is not None
    found = DynamicExit(model, study.policy())(words)
    assert (found.answers.argmax(axis=1) == labels).mean() > 0.9
    assert set(study.texts()) == {words[i] for i in study.material.parts["test"]}
    place = study.found.candidates.index(chosen)
    assert found.layers.mean() == pytest.approx(study.found.depths[place].mean(), abs=0.3)
    assert {c.layer for c in study.found.candidates if c.variant == STATIC} == {0, 1, 3}
