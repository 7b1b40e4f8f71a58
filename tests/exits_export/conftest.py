"""Tiny exits without a run, and runs on a tiny model with data whose answer words give away."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from zoo import build, hf_model, texts, tokenizer

from probes.analysis import execute, load_analysis
from probes.exits.candidates import Candidate
from probes.exits.export.source import Exit


@pytest.fixture
def make_exit():
    """`make_exit("bert", recipe)` → an `Exit` of that tiny model, with a run that says next to nothing."""

    def make(name, recipe, prompts=None):
        model = build(name)
        view = SimpleNamespace(
            path=Path("runs/none"), info={"options": {}}, decision={}, slug="none"
        )
        dim = 1
        return Exit(Candidate(None, recipe.layer, dim), recipe, model, prompts or {}, 40, view)

    return make


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-bert")
    hf_model("bert").save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data_files(tmp_path_factory):
    """kind → file or folder; a random-weight encoder can see the words that decide."""
    place = tmp_path_factory.mktemp("data")
    found = [
        (t, "long" if len(t.split()) > 6 else "short") for t in dict.fromkeys(texts(500, seed=2))
    ]
    _write(place / "labels.csv", ["text", "label"], found)
    rng, rows = np.random.default_rng(0), []
    for text in dict.fromkeys(texts(300, seed=1, longest=10)):
        words = text.split()
        kept = int(rng.integers(0, len(words) + 1))
        other = words[:kept] + texts(1, seed=int(rng.integers(1 << 30)), longest=10)[0].split()
        rows.append((text, " ".join(other), kept / len(words)))
    _write(place / "pairs.csv", ["text_a", "text_b", "score"], rows)
    search = place / "search"
    search.mkdir()
    documents = [t for t in dict.fromkeys(texts(300, seed=3)) if len(t.split()) >= 6][:120]
    lines = [json.dumps({"id": f"d{i}", "title": "", "text": t}) for i, t in enumerate(documents)]
    (search / "corpus.jsonl").write_text("\n".join(lines))
    lines = [
        json.dumps({"id": f"q{i}", "text": " ".join(t.split()[:4])})
        for i, t in enumerate(documents)
    ]
    (search / "queries.jsonl").write_text("\n".join(lines))
    (search / "qrels.csv").write_text(
        "query_id,doc_id,score\n" + "".join(f"q{i},d{i},1\n" for i in range(len(documents)))
    )
    return {"labelled": place / "labels.csv", "pairs": place / "pairs.csv", "retrieval": search}


def _write(path, columns, rows):
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([columns, *rows])


@pytest.fixture(scope="session")
def study_run(tmp_path_factory, tiny_model, data_files):
    """kind → folder of a finished run on the tiny model, made once."""
    made = {}

    def run(kind, **more):
        key = (kind, tuple(sorted(more.items())))
        if key not in made:
            given = {
                "model": str(tiny_model), "data": str(data_files[kind]), "min_quality": 0.6,
                "draws": 200, "latency_seconds": 1.0, **more,
            }  # fmt: skip
            place = tmp_path_factory.mktemp("runs")
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("FATHOMETER_CACHE", str(tmp_path_factory.mktemp("cache")))
                made[key] = execute(load_analysis("exit-layers"), given, runs=place)
        return made[key]

    return run
