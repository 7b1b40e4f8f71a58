"""A tiny model folder and small data files, with a home of their own for runs and caches."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from zoo import hf_model, texts, tokenizer


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A three-block BERT with random weights as a transformers folder."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    hf_model("bert").save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs and caches of one test."""
    monkeypatch.setenv("FATHOMETER_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("FATHOMETER_CACHE", str(tmp_path / "cache"))
    return tmp_path


Write = Callable[[str, Sequence[str], Sequence[Sequence[object]]], Path]


@pytest.fixture
def write_csv(tmp_path: Path) -> Write:
    def write(name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(columns)
            writer.writerows(rows)
        return path

    return write


@pytest.fixture
def pairs_csv(write_csv: Write) -> Path:
    """Pairs scored by how many words they share: a random-weight encoder can see that."""
    rng = np.random.default_rng(0)
    rows = []
    for text in dict.fromkeys(texts(400, seed=1, longest=10)):
        words = text.split()
        if len(words) < 4:
            continue
        kept = int(rng.integers(0, len(words) + 1))
        other = (
            words[:kept] + texts(1, seed=int(rng.integers(1 << 30)), longest=10)[0].split()[kept:]
        )
        if other:
            rows.append((text, " ".join(other), kept / len(words)))
    return write_csv("pairs.csv", ["text_a", "text_b", "score"], rows)


@pytest.fixture
def labels_csv(write_csv: Write) -> Path:
    """Texts labelled by whether they hold the word "cat"."""
    rows = [(text, int("cat" in text.split())) for text in dict.fromkeys(texts(900, seed=2))]
    ones = [row for row in rows if row[1]]
    zeros = [row for row in rows if not row[1]][: 2 * len(ones)]
    return write_csv("labels.csv", ["text", "label"], ones + zeros)


@pytest.fixture
def retrieval_folder(tmp_path: Path) -> Path:
    """Every query is the beginning of its document."""
    folder = tmp_path / "search"
    folder.mkdir()
    documents = [t for t in dict.fromkeys(texts(300, seed=3)) if len(t.split()) >= 6][:150]
    lines = [f'{{"id": "d{i}", "title": "", "text": "{text}"}}' for i, text in enumerate(documents)]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    starts = [" ".join(text.split()[:4]) for text in documents]
    lines = [f'{{"id": "q{i}", "text": "{start}"}}' for i, start in enumerate(starts)]
    (folder / "queries.jsonl").write_text("\n".join(lines))
    (folder / "qrels.csv").write_text(
        "query_id,doc_id,score\n" + "".join(f"q{i},d{i},1\n" for i in range(len(documents)))
    )
    return folder
