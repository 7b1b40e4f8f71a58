"""From datasets and states to a study: planted exits, no leaks between parts, real models."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from probes.datasets import load_dataset
from probes.errors import InputError
from probes.exits.latency import LatencyPlan
from probes.exits.material import builtin_texts, prepare
from probes.exits.pipeline import StudyPlan, choose_exit, study_exits, study_states
from probes.exits.tasks import make_task
from probes.exits.walk import Budget, walk_chains
from probes.linalg import normalise_rows
from probes.tables import validate
from probes.types import LabelledTexts, MinimalPairs, Retrieval, TextPairs

PLAN = StudyPlan(draws=200, latency=None, pooling="mean")


def pairs_data(n, rng):
    scores = np.round(rng.uniform(0, 5, size=n), 1)
    return TextPairs(
        "pairs", tuple(f"left {i}" for i in range(n)), tuple(f"right {i}" for i in range(n)), scores
    )


def planted_states(data, texts, rng, hidden=(1,), width=16):
    """Four layers: the last says what the scores say; layers in `hidden` say it after a rotation and an offset that
    spoils cosines; the others are noise."""
    n = len(data)
    place = {text: i for i, text in enumerate(texts)}
    last = rng.normal(size=(len(texts), width))
    for i in range(n):
        share = data.scores[i] / 5
        a, b = place[data.texts_a[i]], place[data.texts_b[i]]
        last[b] = share * last[a] + (1 - share) * last[b]
    last = normalise_rows(last)
    rotation = np.linalg.qr(rng.normal(size=(width, width)))[0]
    bent = last @ rotation * np.logspace(0, 2, width) + 40
    noise = {k: rng.normal(size=last.shape) for k in range(4)}
    return {k: last if k == 3 else bent if k in hidden else noise[k] for k in range(4)}


def test_a_planted_translated_exit_is_found_and_nothing_before_it(rng):
    data = pairs_data(600, rng)
    material = prepare(data, texts=[f"free {i}" for i in range(200)])
    pooled = planted_states(data, material.texts, rng, hidden=(1,))
    study = study_states(material, pooled, Budget(0.95), PLAN)
    chosen = study.decision.chosen
    assert chosen is not None
    assert (chosen.variant, chosen.layer) == ("translated", 1)
    assert study.translators[1].r2 > 0.99
    assert study.translators[0].r2 < 0.2
    raw = study.chains[(study.chains["chain"] == "raw") & study.chains["passed"]]
    assert raw["layer"].min() == 3  # the same layer untranslated is no good
    assert study.decision.to_dict()["pooling"] == "mean"


def test_without_a_planted_exit_none_is_found(rng):
    data = pairs_data(600, rng)
    material = prepare(data)
    study = study_states(
        material, planted_states(data, material.texts, rng, hidden=()), Budget(0.97), PLAN
    )
    assert study.decision.status == "infeasible" or study.decision.layer == 3


def test_the_study_is_reproducible_and_the_slider_agrees(rng):
    data = pairs_data(300, rng)
    material = prepare(data, seed=3)
    pooled = planted_states(data, material.texts, rng)
    a, b = (study_states(material, pooled, Budget(0.9), PLAN) for _ in range(2))
    pd.testing.assert_frame_equal(a.measurements, b.measurements)
    assert a.decision.to_dict() == b.decision.to_dict()
    for share in (0.3, 0.6, 0.99):
        walk = walk_chains(a.chains, a.share_draws, a.losses, Budget(share))
        chosen = study_states(material, pooled, Budget(share), PLAN).decision.chosen
        assert walk.chosen == (None if chosen is None else chosen.name)


def test_parts_that_are_judged_teach_nothing(rng):
    """States of texts outside the fit part are replaced: translators stay what they were."""
    data = pairs_data(200, rng)
    material = prepare(data, texts=["free text", *[f"free {i}" for i in range(30)]])
    pooled = planted_states(data, material.texts, rng)
    fit = material.fit_rows
    other = np.setdiff1d(np.arange(len(material.texts)), fit)
    spoilt = {k: v.copy() for k, v in pooled.items()}
    for states in spoilt.values():
        states[other] = rng.normal(size=states[other].shape)
    plan = StudyPlan(draws=20, latency=None)
    a, b = (study_states(material, p, Budget(), plan).translators for p in (pooled, spoilt))
    for k in a:
        np.testing.assert_array_equal(a[k].coefficients, b[k].coefficients)


def test_texts_of_the_dataset_are_no_unlabelled_texts(rng):
    data = pairs_data(40, rng)
    material = prepare(data, texts=["free", data.texts_a[0], "free", *data.texts_b])
    assert material.extra == 1
    assert material.texts[-1] == "free"


def test_pieces_of_the_data_are_no_unlabelled_texts_either(rng):
    """Neither a part of a text, nor a text around one, nor another spelling, whatever prompt is put before."""
    long = "the quick brown fox jumps over the lazy dog and then sleeps for a while"
    texts = [f"{long} {i} of {i + 1} days" for i in range(60)]
    data = LabelledTexts.make("x", texts, [i % 2 for i in range(60)])
    pieces = [
        "jumps over the lazy dog and then sleeps",
        "The Quick  BROWN fox",
        f"So {texts[3]}, he said.",
    ]
    free = "an entirely different sentence about the price of iron in winter"
    for prompts in (None, {"text": "passage: "}):
        material = prepare(data, [*texts, *pieces, free], prompts=prompts)
        assert material.extra == 1
        assert material.texts[-1].endswith(free)


def test_builtin_texts_share_nothing_with_data_from_the_same_source():
    data = load_dataset("docstring-topics")
    joined = "\n".join(" ".join(text.split()) for text in data.all_texts())
    texts = builtin_texts(data.all_texts())
    assert len(texts) == 1000
    assert [t for t in texts if len(t) > 40 and " ".join(t.split()) in joined] == []


@pytest.mark.parametrize("kind", ["retrieval", "labelled"])
@pytest.mark.parametrize("budget", [Budget(0.9), Budget(max_loss=0.2)])
def test_other_kinds_of_data(rng, kind, budget):
    n, width = 400, 12
    meaning = rng.normal(size=(n, width))
    if kind == "retrieval":
        relevance = sparse.csr_array(np.eye(n))
        queries, documents = (tuple(f"{w} {i}" for i in range(n)) for w in ("query", "document"))
        data = Retrieval("search", queries, documents, relevance)
        last = np.concatenate([meaning + 0.2 * rng.normal(size=meaning.shape), meaning])
    else:
        labels = (meaning[:, 0] > 0).astype(int) + (meaning[:, 1] > 1)
        data = LabelledTexts.make("topics", [f"text {i}" for i in range(n)], labels.tolist())
        last = meaning
    material = prepare(data)
    pooled = {0: rng.normal(size=last.shape), 1: last * np.logspace(3, 0, width), 2: last}
    study = study_states(material, pooled, budget, PLAN)
    chosen = study.decision.chosen
    assert chosen is not None
    assert chosen.layer == 1  # stretched: for a probe raw will do, for cosines not
    assert kind == "labelled" or chosen.variant in ("translated", "centred")
    validate(study.measurements)
    assert set(study.measurements["measure"]) == set(material.task.measures)
    assert set(study.measurements["split"]) == {"all", "tune", "calibrate", "test"}
    variants = {v for v in study.measurements["variant"] if not pd.isna(v)}
    # A probe standardises its input, so centring is no candidate of its own.
    assert variants == ({"centred", "translated"} if kind == "retrieval" else {"translated"})
    assert any("corpus" in c for c in study.decision.caveats) == (kind == "retrieval")


def test_tasks_of_datasets_index_distinct_texts():
    pairs = TextPairs("p", ("a", "b", "a"), ("b", "c", "d"), np.array([1.0, 2.0, 3.0]))
    task, texts = make_task(pairs)
    assert texts == ("a", "b", "c", "d")
    assert (task.a.tolist(), task.b.tolist()) == ([0, 1, 0], [1, 2, 3])
    assert len(np.unique(task.clusters)) == 1  # chained by shared sentences
    grouped = LabelledTexts.make("l", ["a", "b", "c"], [0, 1, 0], groups=["x", "y", "x"])
    clusters = make_task(grouped)[0].clusters
    assert clusters[0] == clusters[2] != clusters[1]


def test_prompts_are_put_before_queries_and_documents_only():
    data = Retrieval("r", ("q",), ("d", "q"), sparse.csr_array(np.array([[1.0, 0.0]])))
    assert make_task(data)[1] == ("q", "d")
    task, texts = make_task(data, {"query": "query: ", "document": "passage: "})
    assert texts == ("query: q", "passage: d", "passage: q")
    assert task.documents.tolist() == [1, 2]
    with pytest.raises(
        InputError, match=r"prompt for retrieval data .title.: Allowed: document, query"
    ):
        make_task(data, {"title": "x"})
    with pytest.raises(InputError, match="minimal-pairs"):
        make_task(MinimalPairs("m", ("a b",), ("a c",)))


def test_whole_study_on_a_tiny_model(zoo, own_cache, rng):
    words = zoo.WORDS
    texts = [" ".join(rng.choice(words, size=6)) for _ in range(240)]
    labels = ["dog" in t or "cat" in t or "the" in t or "sun" in t or "gold" in t for t in texts]
    data = LabelledTexts.make("words", texts, labels)
    seen = []
    plan = StudyPlan(draws=50, latency=LatencyPlan(seconds=0.5, max_rounds=3))
    study = study_exits(
        zoo.build("bert"),
        data,
        Budget(0.8),
        texts=zoo.texts(60),
        plan=plan,
        progress=lambda *a: seen.append(a),
    )
    assert study.latency is not None
    assert {"relative_cost", "latency_p50_ms", "accuracy"} <= set(study.measurements["measure"])
    written = study.decision.to_dict()
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert any("rounds only" in c for c in written["caveats"])
    assert any("encoding" in text for _, _, text in seen)
    assert all(0 <= done <= total for done, total, _ in seen)


@pytest.mark.models
def test_choose_exit_on_the_real_model():
    """MiniLM's last layer tells topics apart, and so do earlier ones: seen on 80 texts, not to be shown on 20."""
    animals = [f"The {a} {v} in the {p}." for a in ("cat", "dog", "owl", "frog", "mouse", "fox")
               for v in ("sleeps", "eats", "hides", "waits", "plays", "runs")
               for p in ("forest", "barn", "garden", "field", "meadow", "bush")]  # fmt: skip
    money = [f"The {a} {v} the {p}." for a in ("bank", "broker", "trader", "fund", "dealer", "insurer")
             for v in ("sells", "buys", "holds", "prices", "rates", "trades")
             for p in ("bonds", "shares", "loans", "currency", "futures", "notes")]  # fmt: skip
    plan = StudyPlan(draws=400, latency=None)

    def decide(step):
        texts = animals[::step] + money[::step]
        labels = ["animals"] * len(animals[::step]) + ["money"] * len(money[::step])
        return choose_exit(
            "minilm", LabelledTexts.make("topics", texts, labels), 0.9, texts=[], plan=plan
        )

    few = decide(4)
    assert few.status == "infeasible"
    assert "if the estimates hold" in few.to_dict()["reason"]
    decision = decide(1)
    assert decision.status == "chosen"
    assert decision.quality_full > 0.9
    assert decision.layer is not None
    assert decision.layer < 6
