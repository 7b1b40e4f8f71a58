"""Trainings: they help where they should, survive a kill to the bit, and leave a clean folder."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from probes.capture import capture
from probes.errors import DataError, FathometerError, InputError
from probes.exits.grid import GridPlan
from probes.exits.tasks import make_task
from probes.exits.training import TrainPlan, train_exits, training_rows
from probes.exits.training.checkpoints import latest_checkpoint, mark_complete
from probes.exits.training.measure import Judge
from probes.models import load_model
from probes.types import LabelledTexts, Retrieval

QUICK = TrainPlan(steps=12, batch_size=8, learning_rate=1e-3, checkpoint_every=4)


class Killed(Exception):
    pass


def killed_at(step):
    def progress(done, total, text):
        if done == step:
            raise Killed

    return progress


def weights(trained):
    return load_model(trained.folder).weights_hash


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["starbucks", "2d-matryoshka"])
def test_a_stopped_training_goes_on_to_the_same_bits(tiny, pairs, tmp_path, loss):
    rows = training_rows(pairs, np.arange(60))
    whole = train_exits(tiny, rows, loss, tmp_path / "whole", QUICK)
    for step in (6, 10):  # after the first and the second checkpoint
        random.seed(step)
        torch.manual_seed(step)
        with pytest.raises(Killed):
            train_exits(tiny, rows, loss, tmp_path / "cut", QUICK, progress=killed_at(step))
    at = latest_checkpoint(tmp_path / "cut" / "checkpoints")
    assert at is not None
    assert at.name == "checkpoint-8"
    seen: list[int] = []
    done = train_exits(
        tiny, rows, loss, tmp_path / "cut", QUICK, progress=lambda d, n, t: seen.append(d)
    )
    assert seen[0] == 9
    assert weights(done) == weights(whole)
    assert done.history.equals(whole.history)
    other = train_exits(tiny, rows, loss, tmp_path / "other", TrainPlan(12, 8, 1e-3, seed=1))
    assert weights(other) != weights(whole)  # the control: bits do depend on the seed
    again = train_exits(tiny, rows, loss, tmp_path / "cut", QUICK, progress=killed_at(1))
    assert weights(again) == weights(whole)  # finished: read, not trained
    assert again.history.equals(whole.history)


def test_half_written_and_damaged_checkpoints_are_not_gone_on_from(tmp_path):
    for step in (2, 10, 9):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights %d" % step)
        (folder / "training_args.bin").write_bytes(b"pickle")
    mark_complete(tmp_path / "checkpoint-2")
    mark_complete(tmp_path / "checkpoint-9")
    assert not (tmp_path / "checkpoint-9" / "training_args.bin").exists()
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "checkpoint-9"  # 10 has no mark
    (tmp_path / "checkpoint-9" / "model.safetensors").write_bytes(b"weights x")
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "checkpoint-2"
    assert not (tmp_path / "checkpoint-9").exists()


def test_a_folder_with_another_training_is_refused(tiny, pairs, tmp_path):
    rows = training_rows(pairs, np.arange(40))
    plan = TrainPlan(steps=2, batch_size=8)
    train_exits(tiny, rows, "plain", tmp_path, plan)
    with pytest.raises(FathometerError, match="another model, other data or other options"):
        train_exits(tiny, training_rows(pairs, np.arange(41)), "plain", tmp_path, plan)
    with pytest.raises(FathometerError, match="another"):
        train_exits(tiny, rows, "plain", tmp_path, TrainPlan(steps=3, batch_size=8))


@pytest.mark.parametrize("kind", ["tiny", "tiny_normed"])
def test_the_saved_folder_is_clean_and_loads_everywhere_alike(request, pairs, tmp_path, kind):
    from sentence_transformers import SentenceTransformer

    model = request.getfixturevalue(kind)
    rows = training_rows(pairs, np.arange(40), {"text": "the "})
    plan = TrainPlan(steps=2, batch_size=8)
    made = train_exits(model, rows, "starbucks", tmp_path, plan, prompts={"text": "the "})
    files = [p for p in made.folder.rglob("*") if p.is_file()]
    assert {p.suffix for p in files} <= {".safetensors", ".json", ".md"}
    assert not [p for p in files if str(tmp_path).encode() in p.read_bytes()]
    assert not (tmp_path / "checkpoints").exists()
    texts = list(pairs.texts_a[:10])
    loaded = load_model(made.folder)
    assert loaded.embedding.prompt_for("text") == "the "
    own = loaded.embed(capture(loaded, texts, sites=["exit"])["exit", loaded.n_layers])
    library = SentenceTransformer(str(made.folder), device="cpu").encode(texts, prompt="")
    np.testing.assert_allclose(own, library, atol=1e-5)


@pytest.mark.slow
def test_starbucks_raises_shallow_quality_on_examples_it_has_not_seen(tiny, pairs, tmp_path):
    task, texts = make_task(pairs)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(pairs))
    fit, held = order[: len(order) // 2], np.sort(order[len(order) // 2 :])
    judge = Judge.make(task, held, GridPlan((8, 32), 300, 0))
    states = {
        "before": capture(tiny, texts, sites=["exit"])["exit"],
    }
    for loss in ("starbucks", "plain"):
        plan = TrainPlan(steps=120, batch_size=16, learning_rate=2e-3, pairs=((1, 8),))
        made = train_exits(tiny, training_rows(pairs, fit), loss, tmp_path / loss, plan)
        states[loss] = capture(load_model(made.folder), texts, sites=["exit"])["exit"]
    grids = {name: judge.grid(found, name) for name, found in states.items()}
    rows = {
        loss: {(r["layer"], r["dim"]): r for r in judge.changes(grids["before"], grids[loss])}
        for loss in ("starbucks", "plain")
    }
    shallow = rows["starbucks"][1, 8]
    assert shallow["low"] > 0, shallow
    assert shallow["n"] == len(held)
    assert shallow["change"] == pytest.approx(shallow["after"] - shallow["before"])
    # The control, trained at the last layer alone, gains less there.
    assert rows["plain"][1, 8]["change"] < shallow["change"]
    same = judge.changes(grids["before"], grids["before"])
    assert all(r["change"] == r["low"] == r["high"] == 0 for r in same)


def test_training_rows_hold_prompts_every_relevant_document_and_refuse_other_data(pairs):
    from scipy import sparse

    rows = training_rows(pairs, np.arange(10), {"text": "q: "})
    assert rows.first[3] == "q: " + pairs.texts_a[3]
    assert list(rows.columns()) == ["anchor", "positive", "score"]
    relevance = np.zeros((9, 10))
    relevance[np.arange(9), np.arange(9)] = 1
    relevance[0, 9] = 2
    search = Retrieval(
        "s", tuple(f"q{i}" for i in range(9)), tuple(f"d{i}" for i in range(10)),
        sparse.csr_array(relevance),
    )  # fmt: skip
    found = training_rows(search, np.arange(9), {"query": "Q ", "document": "D "})
    assert (found.first[:2], found.second[:2]) == (("Q q0", "Q q0"), ("D d0", "D d9"))
    assert list(found.columns()) == ["anchor", "positive"]
    assert found.digest() != rows.digest()
    with pytest.raises(DataError, match="at least 8"):
        training_rows(search, np.arange(3))
    labelled = LabelledTexts.make("l", ["a", "b"], [0, 1])
    with pytest.raises(InputError, match="scored pairs or on a retrieval set"):
        training_rows(labelled, np.arange(2))


def test_the_identity_is_readable(tiny, pairs, tmp_path):
    train_exits(tiny, training_rows(pairs, np.arange(20)), "plain", tmp_path, TrainPlan(2, 8))
    told = json.loads((tmp_path / "training.json").read_text())
    assert told["loss"] == "plain"
    assert told["weights"] == tiny.weights_hash
