"""Retrieval folders in the layouts of this project, BEIR and TREC; and `hf:` names on local data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from probes.datasets import load_dataset, load_texts
from probes.datasets.hub import parse_hub_name
from probes.errors import DataError, InputError
from probes.types import LabelledTexts, Retrieval, TextPairs

CORPUS = [
    {"id": "d 1", "title": "Title", "text": "first"},
    {"id": 2, "title": "", "text": "second"},
    {"id": "d3", "text": "third"},
]
QUERIES = [{"id": "q1", "text": "one", "lang": "en"}, {"id": "q2", "text": "two", "lang": "de"}]


def folder(
    path: Path, qrels: dict[str, str], corpus: list[dict[str, object]] | None = None
) -> Path:
    path.mkdir(exist_ok=True)
    rows = CORPUS if corpus is None else corpus
    (path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (path / "queries.jsonl").write_text("\n".join(map(json.dumps, QUERIES)), encoding="utf-8")
    for name, content in qrels.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("qrels.csv", "query_id,doc_id,score\nq1,d 1,1\nq2,2,2\n"),
        ("qrels.csv", "doc_id,query_id\nd 1,q1\n2,q2\n"),
        ("qrels.tsv", "query_id\tdoc_id\tscore\nq1\td 1\t1\nq2\t2\t2\n"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td 1\t1\nq2\t2\t2\n"),
        ("qrels.tsv", "q1\t0\td 1\t1\nq2\t0\t2\t2\nq2\t0\td3\t-1\n"),
        ("qrels.csv", "query_id,doc_id,score\r\nq1,d 1,1\r\n\r\nq2,2,2\r\nq1,d3,0\r\n"),
    ],
)
def test_layouts(tmp_path: Path, name: str, content: str) -> None:
    data = load_dataset(folder(tmp_path / "set", {name: content}))
    assert isinstance(data, Retrieval)
    assert data.name == "set"
    assert data.queries == ("one", "two")
    assert data.documents == ("Title first", "second", "third")
    assert data.document_ids == ("d 1", "2", "d3")
    graded = data.relevance.toarray()
    assert (graded > 0).tolist() == [[True, False, False], [False, True, False]]
    assert name in data.source.notes[0]


def test_trec_with_spaces(tmp_path: Path) -> None:
    data = load_dataset(folder(tmp_path / "set", {"qrels.txt": "q1 0 2 1\nq2 0 d3 1\n"}))
    assert isinstance(data, Retrieval)
    assert data.relevance.toarray().tolist() == [[0, 1, 0], [0, 0, 1]]


def test_test_judgements_come_before_train(tmp_path: Path) -> None:
    header = "query-id\tcorpus-id\tscore\n"
    path = folder(
        tmp_path / "s",
        {"qrels/train.tsv": header + "q1\t2\t1\n", "qrels/test.tsv": header + "q2\t2\t1\n"},
    )
    data = load_dataset(path)
    assert isinstance(data, Retrieval)
    assert data.query_ids == ("q2",)
    assert "1 queries without a relevant document are left out" in data.source.notes


def test_a_group_of_queries(tmp_path: Path) -> None:
    path = folder(tmp_path / "s", {"qrels.csv": "query_id,doc_id\nq1,2\nq2,2\n"})
    data = load_dataset(path, group="lang")
    assert data.groups is not None
    assert data.groups.tolist() == ["en", "de"]
    with pytest.raises(InputError, match="leave out text"):
        load_dataset(path, text="text")


HEADER = "query_id,doc_id,score\n"


@pytest.mark.parametrize(
    ("qrels", "says"),
    [
        ({}, "no judgements: qrels.csv"),
        ({"qrels.csv": ""}, "is empty"),
        ({"qrels.csv": HEADER}, "holds no judgements"),
        ({"qrels.csv": HEADER + "q1,nope,1\n"}, "line 2: corpus.jsonl has no id 'nope'"),
        ({"qrels.csv": HEADER + "q1,2,1\n\nq9,2,1\n"}, "line 4: queries.jsonl has no id 'q9'"),
        ({"qrels.csv": HEADER + "q1,2,x\n"}, "line 2: the score is 'x'"),
        ({"qrels.csv": HEADER + "q1,2\n"}, "line 2 has 2 fields"),
        ({"qrels.csv": HEADER + "q1,2,1\nq1,2,2\n"}, "line 3: a second, different score"),
        ({"qrels.csv": HEADER + "q1,2,0\n"}, "no query has a relevant document"),
        ({"qrels.csv": "a,b\nq1,2\n"}, "line 1: 2 columns"),
        ({"qrels.csv": HEADER + "q1,2,1\n", "qrels.tsv": "x"}, "leave only one"),
    ],
)
def test_bad_judgements(tmp_path: Path, qrels: dict[str, str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        load_dataset(folder(tmp_path / "s", qrels))


@pytest.mark.parametrize(
    ("corpus", "says"),
    [
        ([{"id": "a", "text": "x"}, {"id": "a", "text": "y"}], "line 2: the id 'a' was on line 1"),
        ([{"text": "x"}], "line 1: no id"),
        ([{"id": True, "text": "x"}], "line 1: no id"),
        ([{"id": "a", "title": "t"}], "line 1: the document is missing"),
        ([{"id": "a", "title": "", "text": " "}], "line 1: the document is empty"),
        ([{"id": "a", "title": 3, "text": "x"}], "line 1: the title is int"),
        ([], "is empty"),
    ],
)
def test_bad_corpus(tmp_path: Path, corpus: list[dict[str, object]], says: str) -> None:
    with pytest.raises(DataError, match=says):
        load_dataset(folder(tmp_path / "s", {"qrels.csv": HEADER + "q1,a,1\n"}, corpus))


def test_other_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"folder without corpus\.jsonl"):
        load_dataset(tmp_path)
    (tmp_path / "queries.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"has no corpus\.jsonl"):
        load_dataset(tmp_path)


def test_texts_of_a_folder(tmp_path: Path) -> None:
    path = folder(tmp_path / "s", {"qrels.csv": HEADER + "q1,2,1\n"})
    assert load_texts(path) == ("one", "Title first", "second", "third")


def test_hub_names() -> None:
    assert parse_hub_name("a/b") == ("a/b", None, None)
    assert parse_hub_name("a:cfg") == ("a", "cfg", None)
    assert parse_hub_name("a:train[:10%]".replace(":10", "10")) == ("a", None, "train[10%]")
    for bad in ("", "a:", "a:b:c:d"):
        with pytest.raises(InputError, match="hf:NAME"):
            parse_hub_name(bad)


def test_hub_datasets_saved_locally(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    names = datasets.ClassLabel(names=["bad", "fine"])
    features = datasets.Features({"sentence": datasets.Value("string"), "label": names})
    one = datasets.Dataset.from_dict(
        {"sentence": ["a", "b", "c"], "label": [0, 1, 0]}, features=features
    )
    one.save_to_disk(tmp_path / "one")
    data = load_dataset(f"hf:{tmp_path}/one")
    assert isinstance(data, LabelledTexts)
    assert data.texts == ("a", "b", "c")
    assert data.label_names == ("bad", "fine")
    assert load_texts(f"hf:{tmp_path}/one") == ("a", "b", "c")

    pairs = datasets.Dataset.from_dict(
        {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0.0, 5.0]}
    )
    datasets.DatasetDict({"train": pairs, "test": pairs}).save_to_disk(tmp_path / "two")
    assert isinstance(load_dataset(f"hf:{tmp_path}/two:test"), TextPairs)
    with pytest.raises(DataError, match="has the splits train, test: say which"):
        load_dataset(f"hf:{tmp_path}/two")
    with pytest.raises(InputError, match="unknown split 'dev'"):
        load_dataset(f"hf:{tmp_path}/two:dev")

    unlabelled = datasets.Dataset.from_dict(
        {"sentence": ["a", "b"], "label": [-1, 1]}, features=features
    )
    unlabelled.save_to_disk(tmp_path / "three")
    with pytest.raises(DataError, match="row 1: the label -1 has no name"):
        load_dataset(f"hf:{tmp_path}/three")


def test_hub_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    import socket

    def unresolved(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with pytest.raises(
        DataError, match=r"hf:someone/nothing-of-this-name cannot be loaded .*local file"
    ):
        load_dataset("hf:someone/nothing-of-this-name")
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE in (False, True)


def test_hub_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DataError, match="pip install"):
        load_dataset("hf:imdb")
