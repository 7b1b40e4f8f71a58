"""The running model against the model that is really cut, and against what was decided on arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probes.capture import capture
from probes.errors import DataError, InputError
from probes.exits.dynamic import ClassHeads, DynamicExit, Policy, SpaceHeads, measure_policies
from probes.exits.dynamic.gates import LayerGate, LookGate
from probes.exits.dynamic.looks import Look
from probes.exits.dynamic.rules import RULES, exit_places
from probes.exits.latency import LatencyPlan
from probes.exits.recipe import Linear
from probes.linalg import normalise_rows
from probes.models.cut import cut_model

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("own_cache")


def heads_for(model, rng, space=False, index=None):
    layers = range(model.n_layers + 1)
    width = model.d_model if space else 3
    maps = {
        k: Linear(rng.normal(size=(model.d_model, width)), rng.normal(size=width)) for k in layers
    }
    if space:
        return SpaceHeads({k: maps[k] for k in layers if k < model.n_layers}, model.embed, index)
    return ClassHeads(maps, dict.fromkeys(layers, 4.0))


def rules_for_test(model, rng):
    exits = tuple(range(model.n_layers))
    wide = Linear(rng.normal(size=(model.d_model, len(exits))), np.zeros(len(exits)))
    narrow = {k: Linear(rng.normal(size=(6, 1)), np.zeros(1)) for k in exits}
    return [
        *(RULES[name] for name in ("max-prob", "margin", "entropy", "state-cosine", "patience")),
        LayerGate(exits, wide),
        LookGate(narrow),
    ]


def decided(states, heads, rule, threshold, layers):
    """Layers and answers that the arrays give: no running model in sight."""
    look, confidence, answers = None, [], []
    for layer in layers:
        answers.append(heads.answers(layer, states[layer]))
        look = Look.at(layer, states[layer], answers[-1], heads.top(answers[-1]), look)
        if layer < layers[-1]:
            confidence.append(rule(look))
    places = exit_places(np.stack(confidence), threshold)
    return np.asarray(layers)[places], np.stack(answers)[places, np.arange(len(places))], confidence


@pytest.mark.parametrize("name", ["bert", "llama", "t5-encoder", "gemma3", "mamba"])
def test_running_decides_and_answers_as_the_arrays_say(zoo, rng, name):
    model = zoo.build(name)
    texts = zoo.texts(40, seed=1)
    acts = capture(model, texts, sites=["exit"], pooling="mean")
    layers = tuple(range(model.n_layers + 1))
    states = {k: np.asarray(acts["exit", k]) for k in layers}
    heads = heads_for(model, rng)
    for rule in rules_for_test(model, rng):
        _, _, confidence = decided(states, heads, rule, 0.0, layers)
        rounded = [np.unique(np.round(c[np.isfinite(c)], 4)) for c in confidence]
        between = next(values for values in rounded if len(values) > 1)
        middle = len(between) // 2
        threshold = float((between[middle - 1] + between[middle]) / 2)  # rounding flips nobody
        wanted_layers, wanted, _ = decided(states, heads, rule, threshold, layers)
        policy = Policy(heads, layers, "mean", rule, threshold)
        found = DynamicExit(model, policy, batch_tokens=64)(texts)
        assert found.layers.tolist() == wanted_layers.tolist(), rule.name
        np.testing.assert_allclose(found.answers, wanted, atol=1e-5, err_msg=rule.name)
        assert len(set(found.layers.tolist())) > 1, rule.name  # a test of leaving, not of staying


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_texts_that_leave_at_k_get_what_the_cut_model_gives(zoo, rng, name):
    model = zoo.build(name)
    texts = zoo.texts(24, seed=2)
    heads = heads_for(model, rng, space=True)
    layers = tuple(range(model.n_layers + 1))
    acts = capture(model, texts, sites=["exit"], pooling="mean")
    states = {k: np.asarray(acts["exit", k]) for k in layers}
    _, _, confidence = decided(states, heads, RULES["state-cosine"], 0.0, layers)
    threshold = float(np.median(np.stack(confidence[1:])))
    policy = Policy(heads, layers, "mean", RULES["state-cosine"], threshold)
    found = DynamicExit(model, policy)(texts)
    assert len(set(found.layers.tolist())) > 1
    for row, text in enumerate(texts):
        k = int(found.layers[row])
        encoded = model.tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            out = cut_model(model, k)(
                input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]
            ).last_hidden_state
        pooled = out.mean(dim=1).numpy()
        np.testing.assert_allclose(found.answers[row], heads.answers(k, pooled)[0], atol=1e-5)


def test_margin_over_an_index_runs(zoo, rng):
    model = zoo.build("bert")
    index = normalise_rows(rng.normal(size=(9, model.d_model))).astype(np.float32)
    heads = heads_for(model, rng, space=True, index=index)
    layers = tuple(range(model.n_layers + 1))
    for name in ("margin", "patience"):
        policy = Policy(heads, layers, "mean", RULES[name], 2.0 if name == "patience" else 0.05)
        found = DynamicExit(model, policy)(zoo.texts(20))
        assert found.answers.shape == (20, model.d_model)


def test_a_static_policy_stops_everything_at_its_layer(zoo, rng):
    model = zoo.build("bert")
    texts = zoo.texts(10)
    heads = heads_for(model, rng)
    found = DynamicExit(model, Policy(heads, (2,), "mean"))(texts)
    assert found.layers.tolist() == [2] * 10
    states = np.asarray(capture(model, texts, sites=["exit"], pooling="mean")["exit", 2])
    np.testing.assert_allclose(found.answers, heads.answers(2, states), atol=1e-5)


def test_extreme_thresholds_are_the_first_and_the_last_exit(zoo, rng):
    model = zoo.build("bert")
    heads, texts = heads_for(model, rng), zoo.texts(12)
    for threshold, layer in ((-1.0, 1), (np.inf, 3)):
        policy = Policy(heads, (1, 2, 3), "mean", RULES["max-prob"], threshold)
        assert DynamicExit(model, policy)(texts).layers.tolist() == [layer] * 12


def test_what_makes_no_sense_is_refused(zoo, rng):
    model = zoo.build("bert")
    heads = heads_for(model, rng)
    with pytest.raises(InputError, match="without a rule"):
        Policy(heads, (1, 3), "mean")
    with pytest.raises(DataError, match="no texts"):
        DynamicExit(model, Policy(heads, (1,), "mean"))([])
    with pytest.raises(InputError, match="at least one is needed"):
        measure_policies(model, {}, ["a"])


def test_time_table_has_a_line_per_policy_and_the_full_model(zoo, rng):
    model = zoo.build("bert")
    heads = heads_for(model, rng)
    policies = {
        "static": Policy(heads, (1,), "mean"),
        "dynamic": Policy(heads, (0, 1, 3), "mean", RULES["max-prob"], 0.6),
    }
    plan = LatencyPlan(seconds=1, batch_size=4, max_rounds=4)
    table = measure_policies(model, policies, zoo.texts(10), plan)
    assert table["policy"].tolist() == ["static", "dynamic", "full"]
    assert table["depth"].iloc[0] == 1
    assert table["depth"].iloc[2] == 3
    assert 0 <= table["depth"].iloc[1] <= 3
    assert table["relative_cost"].iloc[2] == 1
    assert (table["low"] <= table["relative_cost"] + 1e-12).all()
