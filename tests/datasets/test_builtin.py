"""Conformance of every built-in dataset: schema, licence, determinism, stable hash, disjoint splits."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from probes.datasets import (
    builtin_datasets,
    describe,
    describe_entry,
    four_parts,
    list_datasets,
    load_dataset,
    load_texts,
)
from probes.datasets.facts import fact_table
from probes.datasets.numbers import in_words
from probes.datasets.stdlib_docs import split_docstring, stdlib_docstrings
from probes.errors import DataError, InputError
from probes.files import bundled
from probes.types import LabelledTexts, Retrieval, TextPairs

DATA = [name for name in list_datasets() if builtin_datasets()[name].kind != "texts"]
LABELLED = [name for name in DATA if builtin_datasets()[name].kind == "labelled"]
LICENCES = {"CC0-1.0", "PSF-2.0"}


@pytest.mark.parametrize("name", DATA)
def test_schema(name: str) -> None:
    entry = builtin_datasets()[name]
    dataset = load_dataset(name)
    assert dataset.kind == entry.kind
    assert dataset.name == name
    assert entry.n == len(dataset) >= 300
    assert entry.licence == dataset.source.licence in LICENCES
    assert dataset.source.origin
    assert entry.summary.endswith(".")
    assert all(text == text.strip() for text in dataset.all_texts())


@pytest.mark.parametrize("name", DATA)
def test_same_seed_same_data(name: str) -> None:
    assert load_dataset(name, seed=3).content_hash() == load_dataset(name, seed=3).content_hash()


@pytest.mark.parametrize("name", [n for n in DATA if n != "docstrings"])
def test_another_seed_other_data(name: str) -> None:
    assert load_dataset(name, seed=0).content_hash() != load_dataset(name, seed=1).content_hash()


def test_another_process_builds_the_same_and_imports_nothing() -> None:
    """Another hash seed and process: same hashes, and none of the modules whose sources are read."""
    code = (
        "import json, sys\nfrom probes.datasets import builtin_datasets, describe, load_dataset\n"
        "names = [n for n, e in builtin_datasets().items() if e.kind != 'texts']\n"
        "print(json.dumps([{n: load_dataset(n).content_hash() for n in names}, sorted(sys.modules)]))\n"
    )
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": str(bundled("probes").parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    hashes, modules = json.loads(done.stdout)
    assert hashes == {name: load_dataset(name).content_hash() for name in DATA}
    assert not {"antigravity", "this", "tkinter", "idlelib", "turtle", "nntplib", "torch"} & set(
        modules
    )


@pytest.mark.parametrize("name", DATA)
def test_parts_are_disjoint_and_near_the_shares(name: str) -> None:
    dataset = load_dataset(name)
    parts = four_parts(dataset, np.random.default_rng(0))
    index = np.concatenate([parts.fit, parts.tune, parts.calibrate, parts.test])
    assert sorted(index.tolist()) == list(range(len(dataset)))
    if dataset.groups is not None:
        seen = [
            set(dataset.groups[p].tolist())
            for p in (parts.fit, parts.tune, parts.calibrate, parts.test)
        ]
        assert sum(map(len, seen)) == len(set.union(*seen))
    assert np.allclose(np.array(parts.sizes()) / len(dataset), (0.4, 0.2, 0.2, 0.2), atol=0.05)
    assert parts.warnings == ()


@pytest.mark.parametrize("name", LABELLED)
def test_labels_are_in_every_part(name: str) -> None:
    dataset = load_dataset(name)
    assert isinstance(dataset, LabelledTexts)
    assert len(set(dataset.texts)) == len(dataset.texts), "a text comes twice"
    parts = four_parts(dataset, np.random.default_rng(0))
    for part in (parts.fit, parts.tune, parts.calibrate, parts.test):
        assert set(dataset.labels[part]) == set(dataset.labels)


@pytest.mark.parametrize("name", DATA)
def test_describe_is_json_and_complete(name: str) -> None:
    told = json.loads(json.dumps(describe(load_dataset(name)), allow_nan=False))
    assert told["n"] == builtin_datasets()[name].n
    assert told["licence"] in LICENCES
    assert len(told["hash"]) == 64
    assert (
        1
        <= told["length_chars"]["min"]
        <= told["length_chars"]["median"]
        <= told["length_chars"]["max"]
    )
    assert told["examples"]
    if "classes" in told:
        assert sum(told["classes"].values()) == told["n"]


@pytest.mark.parametrize("name", ["cities", "elements", "numbers", "sentiment", "coin-flip"])
@pytest.mark.parametrize("seed", [0, 1])
def test_generated_sets_are_balanced(name: str, seed: int) -> None:
    dataset = load_dataset(name, seed=seed)
    assert isinstance(dataset, LabelledTexts)
    counts = np.bincount(dataset.labels)
    assert counts.tolist() == [len(dataset) // 2] * 2


def test_cities_are_right() -> None:
    country = {row["city"]: row["country"] for row in fact_table("cities.csv")}
    dataset = load_dataset("cities")
    assert isinstance(dataset, LabelledTexts)
    counts: dict[str, Counter[str]] = {"true": Counter(), "false": Counter()}
    for text, code in zip(dataset.texts, dataset.labels, strict=True):
        match = re.fullmatch(r"The city of (.+) is in (.+)\.", text)
        assert match is not None
        label = dataset.label_names[code]
        assert (country[match[1]] == match[2]) == (label == "true")
        counts[label][match[2]] += 1
    assert counts["true"].total() == counts["false"].total()


def test_groups_of_cities_are_closed() -> None:
    dataset = load_dataset("cities")
    assert isinstance(dataset, LabelledTexts)
    assert dataset.groups is not None
    for text, group in zip(dataset.texts, dataset.groups.tolist(), strict=True):
        assert text.removesuffix(".").split(" is in ")[1] in group.split(" / ")


def test_elements_are_right() -> None:
    rows = {row["name"]: row for row in fact_table("elements.csv")}
    assert [int(row["atomic_number"]) for row in rows.values()] == list(range(1, 119))
    dataset = load_dataset("elements")
    assert isinstance(dataset, LabelledTexts)
    for text, code in zip(dataset.texts, dataset.labels, strict=True):
        match = re.fullmatch(r"The (chemical symbol|atomic number) of (\w+) is (\w+)\.", text)
        assert match is not None
        key = "symbol" if match[1] == "chemical symbol" else "atomic_number"
        assert (rows[match[2]][key] == match[3]) == (dataset.label_names[code] == "true")


def test_numbers_are_right() -> None:
    value = {in_words(n): n for n in range(1000)}
    assert len(value) == 1000
    dataset = load_dataset("numbers")
    assert isinstance(dataset, LabelledTexts)
    for text, code in zip(dataset.texts, dataset.labels, strict=True):
        match = re.fullmatch(r"(.+) is (larger|smaller) than (.+)\.", text)
        assert match is not None
        first, second = value[match[1].lower()], value[match[3]]
        true = first > second if match[2] == "larger" else first < second
        assert true == (dataset.label_names[code] == "true")


def test_coin_is_followed_rightly() -> None:
    dataset = load_dataset("coin-flip")
    assert isinstance(dataset, LabelledTexts)
    for text, code in zip(dataset.texts, dataset.labels, strict=True):
        assert (text.count(" flips ") % 2 == 0) == (dataset.label_names[code] == "yes")


def test_sentiment_groups_share_no_opinion_word() -> None:
    dataset = load_dataset("sentiment")
    assert isinstance(dataset, LabelledTexts)
    assert dataset.groups is not None
    opinion = {word for pair in set(dataset.groups.tolist()) for word in pair.split("/")}
    for text, group in zip(dataset.texts, dataset.groups.tolist(), strict=True):
        used = set(re.findall(r"\w+", text.lower())) & opinion
        assert used, text
        assert used <= set(group.split("/")), text


@pytest.mark.parametrize("name", ["cities", "numbers", "coin-flip", "elements"])
def test_a_bag_of_words_is_at_chance(name: str) -> None:
    """The control: word counts alone must not solve sets that are about knowledge or order."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    dataset = load_dataset(name)
    assert isinstance(dataset, LabelledTexts)
    parts = four_parts(dataset, np.random.default_rng(0))
    counts = CountVectorizer().fit_transform(dataset.texts)
    model = LogisticRegression(max_iter=300).fit(counts[parts.fit], dataset.labels[parts.fit])
    rest = np.concatenate([parts.tune, parts.calibrate, parts.test])
    accuracy = model.score(counts[rest], dataset.labels[rest])
    assert abs(accuracy - 0.5) < 0.1


def test_docstrings_are_from_the_library_and_have_distractors() -> None:
    dataset = load_dataset("docstrings")
    assert isinstance(dataset, Retrieval)
    assert len(dataset) > 1000
    assert describe(dataset)["distractors"] > 200
    modules = {item.module for item in stdlib_docstrings()}
    assert {"threading", "json", "pathlib", "decimal"} <= modules
    assert not {"antigravity", "this", "test", "tkinter", "idlelib"} & modules
    assert len(set(dataset.documents)) == len(dataset.documents)
    assert len(set(dataset.queries)) == len(dataset.queries)
    query = dataset.queries.index("A set is a finite, iterable container.")
    document = dataset.documents[dataset.relevance[[query]].indices[0]]
    assert document.startswith("This class provides concrete generic implementations")


def test_docstring_pairs_grade_by_provenance() -> None:
    dataset = load_dataset("docstring-pairs")
    assert isinstance(dataset, TextPairs)
    counts = Counter(dataset.scores.tolist())
    assert counts[0.0] == counts[1.0] == counts[2.0]
    retrieval = load_dataset("docstrings")
    assert isinstance(retrieval, Retrieval)
    cells = retrieval.relevance.tocoo()
    own = {
        (retrieval.queries[q], retrieval.documents[d])
        for q, d in zip(cells.row, cells.col, strict=True)
    }
    for a, b, score in zip(dataset.texts_a, dataset.texts_b, dataset.scores, strict=True):
        if score < 2:
            assert (a, b) not in own


def test_reference_is_prose_without_labels() -> None:
    texts = load_texts("reference")
    assert len(texts) == len(set(texts)) > 500
    with pytest.raises(DataError, match="without labels"):
        load_dataset("reference")


@pytest.mark.parametrize("name", list_datasets())
def test_every_entry_can_be_shown(name: str) -> None:
    told = json.loads(json.dumps(describe_entry(name), allow_nan=False))
    assert {"kind", "n", "licence", "hash", "length_chars", "examples", "summary"} <= set(told)


def test_columns_of_a_builtin_set_are_refused() -> None:
    with pytest.raises(InputError, match="built in"):
        load_dataset("cities", text="text")


@pytest.mark.parametrize(
    ("docstring", "split"),
    [
        ("One sentence.", ("One sentence.", "")),
        ("One.  Two, e.g. This. Three.", ("One.", "Two, e.g. This. Three.")),
        ("Use it, e.g. Here. Two.", ("Use it, e.g. Here.", "Two.")),
        (
            "First line\n    goes on. Rest\n    too.\n\n    More.",
            ("First line goes on.", "Rest too.\nMore."),
        ),
        ("name(a, b) -> int\n\nReturn it. Fast.", ("Return it.", "Fast.")),
        (">>> f()\n1", None),
        ("-----\n=====", None),
        ("   ", None),
    ],
)
def test_docstrings_split_at_the_first_sentence(
    docstring: str, split: tuple[str, str] | None
) -> None:
    assert split_docstring(docstring) == split


def test_long_bodies_are_cut_at_a_word() -> None:
    split = split_docstring("Short. " + "Word " * 1000)
    assert split is not None
    assert 1990 <= len(split[1]) <= 2000
    assert split[1].endswith("Word")
