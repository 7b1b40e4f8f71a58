"""Confidence rules and gates against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from probes.errors import InputError
from probes.exits.dynamic.gates import LayerGate, fit_gate, fit_gates, signals
from probes.exits.dynamic.heads import SpaceHeads, fit_temperature, probabilities
from probes.exits.dynamic.looks import Look, Top, row_cosines
from probes.exits.dynamic.rules import RULES, exit_places, rules_for
from probes.linalg import normalise_rows


def look_at(probabilities, layer=0, states=None, before=None):
    p = np.asarray(probabilities, dtype=float)
    states = np.ones((len(p), 2)) if states is None else np.asarray(states, dtype=float)
    return Look.at(layer, states, p, Top.of(p), before)


def test_class_rules_have_their_closed_forms():
    look = look_at([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(RULES["max-prob"](look), [0.5, 1, 1 / 3])
    np.testing.assert_allclose(RULES["margin"](look), [0.2, 1, 0], atol=1e-12)
    own = -(0.5 * np.log(0.5) + 0.3 * np.log(0.3) + 0.2 * np.log(0.2)) / np.log(3)
    np.testing.assert_allclose(RULES["entropy"](look), [1 - own, 1, 0], atol=1e-12)


def test_patience_counts_equal_answers_in_a_row():
    first = look_at([[0.9, 0.1], [0.9, 0.1]])
    second = look_at([[0.6, 0.4], [0.2, 0.8]], 1, before=first)
    third = look_at([[0.7, 0.3], [0.1, 0.9]], 2, before=second)
    counts = [RULES["patience"](look).tolist() for look in (first, second, third)]
    assert counts == [[1, 1], [2, 1], [3, 2]]


def test_cosines_compare_with_the_look_before_and_say_nothing_at_the_first():
    first = look_at([[1, 0], [1, 0]], states=[[1, 0], [1, 0]])
    second = look_at([[1, 0], [0, 1]], 1, states=[[2, 0], [1, 1]], before=first)
    assert np.all(RULES["state-cosine"](first) == -np.inf)
    np.testing.assert_allclose(RULES["state-cosine"](second), [1, np.sqrt(0.5)])
    np.testing.assert_allclose(RULES["answer-cosine"](second), [1, 0])


def test_rows_taken_keep_their_past():
    first = look_at([[0.9, 0.1], [0.1, 0.9], [0.2, 0.8]], states=[[1, 0], [0, 1], [1, 1]])
    part = first.take(np.array([False, True, True]))
    after = look_at([[0.2, 0.8], [0.7, 0.3]], 1, states=[[0, 3], [1, -1]], before=part)
    assert RULES["patience"](after).tolist() == [2, 1]
    np.testing.assert_allclose(RULES["state-cosine"](after), [1, 0], atol=1e-12)
    np.testing.assert_allclose(after.origin, [[0, 1], [1, 1]])


def test_margin_of_hits_needs_an_index(rng):
    answers = normalise_rows(rng.normal(size=(7, 5)))
    index = normalise_rows(rng.normal(size=(20, 5)))
    assert SpaceHeads({}, lambda X: X).top(answers) is None
    bare = Look.at(0, answers, answers, None, None)
    with pytest.raises(InputError, match="needs classes, or an index"):
        RULES["margin"](bare)
    heads = SpaceHeads({}, lambda X: X, index)
    look = Look.at(0, answers, answers, heads.top(answers), None)
    ordered = np.sort(answers @ index.T, axis=1)
    np.testing.assert_allclose(RULES["margin"](look), ordered[:, -1] - ordered[:, -2])


def test_rules_apply_where_they_mean_something():
    names = {kind: {r.name for r in rules_for(kind)} for kind in ("classification", "retrieval")}
    assert "entropy" in names["classification"]
    assert "entropy" not in names["retrieval"]
    assert "answer-cosine" in names["retrieval"]


@pytest.mark.parametrize("seed", range(5))
def test_exit_places_agree_with_a_loop(seed):
    rng = np.random.default_rng(seed)
    confidence = rng.choice([-np.inf, 0.1, 0.5, 0.9], size=(4, 50))
    for threshold in (-1.0, 0.5, 0.7, np.inf):
        slow = [next((e for e in range(4) if confidence[e, i] >= threshold), 4) for i in range(50)]
        assert exit_places(confidence, threshold).tolist() == slow


def test_temperature_recovers_the_one_that_made_the_labels(rng):
    scores = rng.normal(size=(20_000, 4))
    p = probabilities(scores, 0.4)
    labels = (rng.uniform(size=(len(p), 1)) > np.cumsum(p, axis=1)).sum(axis=1)
    assert fit_temperature(scores, labels) == pytest.approx(0.4, rel=0.05)


def test_the_layer_gate_finds_who_is_easy_and_knows_nothing_of_noise(rng):
    origin = rng.normal(size=(600, 5))
    easy = (origin[:, 0] > 0).astype(float)
    noise = rng.integers(0, 2, 600).astype(float)
    gate = LayerGate((0, 1), fit_gate(origin, np.stack([easy, noise], axis=1)))
    fresh = rng.normal(size=(400, 5))
    predicted = gate.all_exits(fresh)
    assert np.corrcoef(predicted[0], fresh[:, 0] > 0)[0, 1] > 0.7
    assert abs(np.corrcoef(predicted[1], fresh[:, 0] > 0)[0, 1]) < 0.7
    assert np.ptp(predicted[1]) < 0.5 * np.ptp(predicted[0])
    look = Look.at(1, fresh, fresh, None, Look.at(0, fresh, fresh, None, None))
    np.testing.assert_allclose(gate(look), predicted[1])


def test_the_look_gate_reads_the_same_signals_with_and_without_a_top(rng):
    p = rng.dirichlet([1, 1, 1], size=100)
    with_top, without = look_at(p, states=p), Look.at(0, p, p, None, None)
    assert signals(with_top).shape[1] == signals(without).shape[1] + 3
    right = (rng.uniform(size=100) < p.max(axis=1)).astype(float)
    layer_gate, look_gate = fit_gates((0,), p, [signals(with_top)], right[None, :])
    assert look_gate(with_top).shape == (100,)
    assert layer_gate(with_top).shape == (100,)
    assert np.corrcoef(look_gate(with_top), right)[0, 1] > 0.1


def test_cosine_of_a_zero_vector_is_zero():
    assert row_cosines(np.zeros((1, 3)), np.ones((1, 3))).tolist() == [0.0]
