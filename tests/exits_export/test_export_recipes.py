"""Recipes give what the study measured: same cosines, same classes, for every variant, layer and width."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from probes.errors import DoesNotApply, InputError
from probes.exits.candidates import Candidate
from probes.exits.classification import fit_probe, predict_classes
from probes.exits.encoded import Encoded
from probes.exits.export.recipes import head_steps, keep_recipes, recipe_of, recipe_path, simplified
from probes.exits.material import prepare
from probes.exits.pipeline import StudyPlan, study_states
from probes.exits.recipe import Linear, Normalise, Recipe, Truncate, load_recipe
from probes.exits.variants import centred, embedded, translated
from probes.exits.walk import Budget
from probes.exits.ways import Source
from probes.models.embedding import EmbeddingSpec, Normalize
from probes.models.sentence import Dense
from probes.types import LabelledTexts, Retrieval

WIDTH = 12
PLAN = StudyPlan(draws=200, latency=None, pooling="mean")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def make_study(kind, rng, spec):
    n = 300
    meaning = rng.normal(size=(n, WIDTH)) + 0.5
    if kind == "retrieval":
        relevance = sparse.csr_array(np.eye(n))
        queries, documents = (tuple(f"{w} {i}" for i in range(n)) for w in ("query", "document"))
        data = Retrieval("search", queries, documents, relevance)
        last = np.concatenate([meaning + 0.2 * rng.normal(size=meaning.shape), meaning])
    else:
        labels = (meaning[:, 0] > 0.5).astype(int) + (meaning[:, 1] > 1)
        data = LabelledTexts.make("topics", [f"text {i}" for i in range(n)], labels.tolist())
        last = meaning
    material = prepare(data, texts=[f"an unlabelled text numbered {i}" for i in range(40)])
    last = np.concatenate([last, rng.normal(size=(material.extra, WIDTH)) + 0.5])
    bent = last * np.logspace(1, 0, WIDTH) + 3
    pooled = {
        k: v.astype(np.float32)
        for k, v in {0: rng.normal(size=last.shape), 1: bent, 2: last}.items()
    }
    hot = {k: (v * 1.5 + 0.1).astype(np.float32) for k, v in pooled.items()}
    plain = Encoded.plain(pooled, PLAN.space, "mean")
    read = replace(plain, states={Source(): pooled, Source(tau=0.5): hot})
    study = study_states(material, read, Budget(0.8), PLAN, spec.apply)
    views = {
        None: (embedded(pooled, spec.apply), pooled),
        "tau=0.5": (embedded(hot, spec.apply), hot),
        "translated": (translated(pooled, study.translators), pooled),
    }
    if kind == "retrieval":
        views["centred"] = (centred(embedded(pooled, spec.apply), material.fit_rows), pooled)
    return study, views, data


def specs(rng):
    dense = Dense(
        rng.normal(size=(9, WIDTH)).astype(np.float32),
        rng.normal(size=9).astype(np.float32),
        "Identity",
    )
    return {
        "plain": EmbeddingSpec(),
        "unit": EmbeddingSpec(head=(Normalize(),)),
        "dense": EmbeddingSpec(head=(dense, Normalize()), dim=8),
    }


@pytest.mark.parametrize("head", ["plain", "unit", "dense"])
def test_recipes_of_every_variant_give_the_cosines_that_were_measured(rng, head):
    spec = specs(rng)[head]
    study, views, _ = make_study("retrieval", rng, spec)
    for variant, (states, pooled) in views.items():
        for layer in states:
            for dim in (3, 8):
                recipe = recipe_of(Candidate(variant, layer, dim), study, spec)
                given_rows = recipe(pooled[layer])
                expected = states[layer][:, :dim]
                expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
                np.testing.assert_allclose(given_rows, expected, atol=2e-5)
                assert recipe.temperature == (0.5 if variant == "tau=0.5" else 1.0)
                assert recipe.exportable


@pytest.mark.parametrize("head", ["plain", "dense"])
def test_the_probe_of_a_recipe_gives_the_classes_that_were_judged(rng, head):
    spec = specs(rng)[head]
    study, views, data = make_study("labelled", rng, spec)
    task, fit = study.material.task, study.material.parts["fit"]
    judged = np.concatenate([study.material.parts[p] for p in ("tune", "calibrate", "test")])
    for variant, (states, pooled) in views.items():
        for layer in states:
            for dim in (3, 8):
                recipe = recipe_of(Candidate(variant, layer, dim), study, spec, data.label_names)
                X = states[layer][task.rows]
                expected = predict_classes(
                    X, task.labels, task.n_classes, [dim], fit, task.clusters
                )[0]
                probe = recipe.probe
                assert probe is not None
                scores = recipe(pooled[layer][task.rows]) @ probe.weight + probe.bias
                assert (scores.argmax(axis=1)[judged] == expected[judged]).all()
                assert probe.labels == data.label_names


def test_chosen_and_alternatives_are_kept_and_come_back(rng, tmp_path):
    spec = EmbeddingSpec()
    study, views, _ = make_study("retrieval", rng, spec)
    assert keep_recipes(tmp_path, study, spec) == []
    chosen = study.decision.chosen
    assert chosen is not None
    others = study.decision.comparisons.alternatives
    assert len(list((tmp_path / "exits").glob("*.json"))) == 1 + len(others)
    back = load_recipe(recipe_path(tmp_path, chosen.name))
    states, pooled = views[chosen.variant]
    cosines = (back(pooled[chosen.layer]) ** 2).sum(axis=1)
    np.testing.assert_allclose(cosines, 1, atol=1e-6)
    assert states[chosen.layer].shape[1] >= back(pooled[chosen.layer]).shape[1] == chosen.dim


def test_a_head_that_is_not_linear_is_told_and_nothing_is_kept(rng, tmp_path):
    tanh = Dense(np.eye(WIDTH, dtype=np.float32), None, "Tanh")
    with pytest.raises(DoesNotApply, match="Dense with Tanh"):
        head_steps(EmbeddingSpec(head=(tanh,)))
    study, _, _ = make_study("retrieval", rng, EmbeddingSpec())
    plain = replace(study, decision=replace(study.decision, chosen=Candidate(None, 1, 3)))
    (reason, *_) = keep_recipes(tmp_path, plain, EmbeddingSpec(head=(tanh,)))
    assert reason.startswith("raw:1x3 cannot be exported")
    with pytest.raises(InputError, match="variant with a recipe"):
        recipe_of(Candidate("sparse", 1, 3), study, EmbeddingSpec())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["linear", "unit", "3", "5", "9"]), max_size=6), st.integers(0, 9))
def test_simplified_steps_do_the_same(kinds, seed):
    rng = np.random.default_rng(seed)
    X, width, steps = rng.normal(size=(4, 6)), 6, []
    for kind in kinds:
        if kind == "linear":
            step = Linear(rng.normal(size=(width, 4)), rng.normal(size=4))
        else:
            step = Normalise() if kind == "unit" else Truncate(int(kind))
        steps.append(step)
        width = Recipe(0, "mean", tuple(steps))(X).shape[1]
    short = simplified(steps, 6)
    assert len(short) <= len(steps)
    np.testing.assert_allclose(
        Recipe(0, "mean", short)(X), Recipe(0, "mean", tuple(steps))(X), atol=1e-9
    )


def test_the_probe_is_that_of_the_grid_at_full_width(rng):
    X, labels = rng.normal(size=(80, 6)), rng.integers(0, 3, 80)
    X[:, 0] += labels
    fit, clusters = np.arange(50), np.arange(80) // 2
    weight, bias = fit_probe(X, labels, 3, fit, clusters)
    expected = predict_classes(X, labels, 3, [6], fit, clusters)[0]
    assert ((X @ weight + bias).argmax(axis=1)[50:] == expected[50:]).all()
