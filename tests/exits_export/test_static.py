"""A translator of the vocabulary table alone becomes a static embedding, which runs no transformer."""

from __future__ import annotations

import json

import numpy as np
import pytest

from probes.exits.candidates import Candidate
from probes.exits.export import export_exit
from probes.exits.export.verify import Timing, reference
from probes.exits.recipe import Linear, Normalise, Probe, Recipe, Truncate
from probes.exits.translate import StaticTable
from probes.exits.translate.vocabulary import vocabulary_size
from probes.runs import RunView


def table_recipe(model, rng, *more, probe=None):
    rows = rng.normal(size=(vocabulary_size(model), 6)).astype(np.float32)
    table = StaticTable(rows, rng.uniform(0.1, 1, len(rows)))
    linear = Linear(rng.normal(size=(6, 10)), rng.normal(size=10))
    return Recipe(0, "table", (linear, *more), probe=probe, table=table)


@pytest.mark.parametrize("end", ["unit", "cut", "probe"])
def test_it_loads_and_gives_what_the_recipe_gives(make_exit, tmp_path, zoo_texts, end):
    from sentence_transformers import SentenceTransformer

    from probes.exits.export.stock import write_stock

    rng = np.random.default_rng(0)
    exit_ = make_exit("bert", Recipe(0, "mean"))
    more = {
        "unit": (Normalise(),),
        "cut": (Truncate(4), Normalise()),
        "probe": (Normalise(), Truncate(7)),
    }
    probe = (
        Probe(rng.normal(size=(7, 2)), rng.normal(size=2), ("a", "b")) if end == "probe" else None
    )
    recipe = table_recipe(exit_.model, rng, *more[end], probe=probe)
    exit_ = type(exit_)(
        Candidate("translated=table", 0, 10), recipe, exit_.model, {}, exit_.max_length, exit_.view
    )
    write_stock(tmp_path, exit_)
    kinds = [
        entry["type"].rpartition(".")[2]
        for entry in json.loads((tmp_path / "modules.json").read_text())
    ]
    assert kinds[0] == "StaticEmbedding"
    assert "Transformer" not in kinds
    found = SentenceTransformer(str(tmp_path), device="cpu").encode(
        zoo_texts, show_progress_bar=False
    )
    np.testing.assert_allclose(found, reference(exit_, zoo_texts), atol=1e-5)


@pytest.fixture
def zoo_texts():
    from zoo import texts

    return [*texts(12, seed=4), "the " * 100]  # one is cut


@pytest.mark.slow
def test_a_run_exports_it_verified(study_run, tmp_path):
    run = study_run("pairs", min_quality=0.05, translators="table", remedies="none")
    decision = RunView(run).decision
    name = "translated=table"
    entries = [decision, *decision["alternatives"]]
    found = next(entry for entry in entries if entry["variant"] == name)
    candidate = Candidate(name, 0, int(found["dim"])).name
    timing = Timing(seconds=0.1, min_rounds=3, max_rounds=4)
    done = export_exit(run, tmp_path / "small", candidate, timing=timing)
    assert done.verification is not None
    for check in ("process", "embeddings", "quality", "files"):
        assert done.verification.check(check).passed, done.verification.check(check).text
