"""Columns for classes of pairs, numbers and spans: what is named is taken, what is wrong is named with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probes.datasets import load_dataset, load_texts
from probes.datasets.values import find_span, word_span
from probes.errors import DataError, FathometerError, InputError
from probes.types import LabelledNumbers, LabelledPairs, LabelledTexts, TextPairs

PAIRS = "text_a,text_b,label\na b,c d,{}\ne f,g h,{}\n"
PLACES = "city,lat,lon,a+b\nOslo,59.9,10.7,1\nLima,-12,-77,2\nQuito,-0.2,-78.5,3\n"


def write(folder: Path, content: str, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def test_words_as_labels_of_pairs_are_classes(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path, PAIRS.format("neutral", "entailment")))
    assert isinstance(data, LabelledPairs)
    assert data.label_names == ("entailment", "neutral")
    assert data.labels.tolist() == [1, 0]
    assert data.texts_b == ("c d", "g h")
    assert "label=label" in data.source.notes[0]


def test_numbers_as_labels_of_pairs_are_scores_unless_named(tmp_path: Path) -> None:
    path = write(tmp_path, PAIRS.format(1, 0))
    scored = load_dataset(path)
    assert isinstance(scored, TextPairs)
    assert scored.scores.tolist() == [1.0, 0.0]
    classes = load_dataset(path, label="label")
    assert isinstance(classes, LabelledPairs)
    assert classes.label_names == ("0", "1")


def test_a_score_goes_before_a_label(tmp_path: Path) -> None:
    content = "text_a,text_b,score,label\na,b,1,x\nc,d,2,y\n"
    path = write(tmp_path, content)
    assert isinstance(load_dataset(path), TextPairs)
    assert isinstance(load_dataset(path, label="label"), LabelledPairs)


def test_a_group_may_be_one_of_the_texts(tmp_path: Path) -> None:
    content = "text_a,text_b,label\nsame,b,x\nsame,c,y\nother,d,x\n"
    data = load_dataset(write(tmp_path, content), label="label", group="text_a")
    assert data.groups is not None
    assert data.groups.tolist() == ["same", "same", "other"]


def test_a_parquet_column_may_fill_two_roles(tmp_path: Path) -> None:
    table = pa.table({"text_a": ["a", "b"], "text_b": ["c", "d"], "label": ["x", "y"]})
    pq.write_table(table, tmp_path / "d.parquet")
    data = load_dataset(tmp_path / "d.parquet", group="text_a")
    assert isinstance(data, LabelledPairs)
    assert data.groups is not None
    assert data.groups.tolist() == ["a", "b"]


def test_words_of_a_pair_become_spans(tmp_path: Path) -> None:
    rows = ["text_a,text_b,label,i,j", "You must carry  it,Sound carries,0,2,1", "a b,c,1,0,0"]
    data = load_dataset(write(tmp_path, "\n".join(rows) + "\n"), word_a="i", word_b="j")
    assert isinstance(data, LabelledPairs)
    assert data.spans is not None
    assert [data.texts_a[i][slice(*data.spans[i, 0])] for i in (0, 1)] == ["carry", "a"]
    assert [data.texts_b[i][slice(*data.spans[i, 1])] for i in (0, 1)] == ["carries", "c"]


def test_targets_are_numbers_in_the_order_named(tmp_path: Path) -> None:
    path = write(tmp_path, PLACES)
    data = load_dataset(path, text="city", target="lon + LAT")
    assert isinstance(data, LabelledNumbers)
    assert data.target_names == ("lon", "lat")
    assert data.targets.tolist() == [[10.7, 59.9], [-77.0, -12.0], [-78.5, -0.2]]
    assert "target=lon+lat" in data.source.notes[0]
    one = load_dataset(path, text="city", target="a+b")  # a column of this very name
    assert isinstance(one, LabelledNumbers)
    assert one.target_names == ("a+b",)


def test_numbers_come_from_json_too(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"t{i}", "year": 1900 + i, "about": f"{i}"}) for i in range(3)]
    path = write(tmp_path, "\n".join(lines), "d.jsonl")
    data = load_dataset(path, target="year", span="about")
    assert isinstance(data, LabelledNumbers)
    assert data.targets[:, 0].tolist() == [1900.0, 1901.0, 1902.0]
    assert data.spans is not None
    assert data.spans.tolist() == [[1, 2]] * 3


def test_a_table_of_texts_still_needs_no_names(tmp_path: Path) -> None:
    """New roles have no usual names: a column called span or target changes nothing by itself."""
    data = load_dataset(write(tmp_path, "text,label,span,word_a\nab,x,zz,9\ncd,y,zz,9\n"))
    assert isinstance(data, LabelledTexts)
    assert data.spans is None
    assert isinstance(load_dataset(write(tmp_path, "text,target\na,x\nb,y\n")), LabelledTexts)


@pytest.mark.parametrize(
    ("content", "named", "message"),
    [
        ("text,label,s\nabc,0,b\nabc,1,x\n", {"span": "s"}, "line 3: the span 'x' does not occur"),
        ("text,label,s\nabc,0,b\nabc,1,\n", {"span": "s"}, "line 3: the span is empty"),
        ("text,y\na,1\nb,two\n", {"target": "y"}, "line 3: the y is 'two', a number is needed"),
        ("text,y\na,1\nb,inf\n", {"target": "y"}, "line 3: the y is inf, a finite number"),
        ("text,y\na,1\nb,1\n", {"target": "y"}, "y is 1 in all 2 rows"),
        ("text,y\n", {"target": "y"}, "has columns but no rows"),
        ("text,y\na,1\n", {"target": "y+z"}, "unknown column 'z'"),
        ("text,y\na,1\n", {"target": "y+y"}, "a column comes twice"),
        ("text,y\na,1\n", {"target": "y", "label": "text"}, "do not belong to one kind"),
        ("blurb,y\na,1\n", {"target": "y"}, '"text=blurb,target=y"'),
        (
            "text_a,text_b,label,i,j\na b,c,0,2,0\n",
            {"word_a": "i", "word_b": "j"},
            "line 2: word_a is 2, the text has words 0 to 1",
        ),
        (
            "text_a,text_b,label,i,j\na b,c,0,0,0.5\n",
            {"word_a": "i", "word_b": "j"},
            "line 2: word_b is 0.5",
        ),
        ("text_a,text_b,label,i\na b,c,0,0\n", {"word_a": "i"}, "name both word_a and word_b"),
        ("text_a,text_b,label\na,b,1\nc,d,x\n", {}, "line 3: the label is 'x', a number"),
        ("text_a,text_b,label\na,b,x\nc,d,\n", {}, "line 3: the label is missing"),
        ("text_a,text_b,label\na,b,0.5\nc,d,1\n", {"label": "label"}, "line 2: the label is 0.5"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: str, named: dict, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(FathometerError) as caught:
        load_dataset(path, **named)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_of_a_builtin_set_are_still_refused() -> None:
    with pytest.raises(InputError, match="no columns to name"):
        load_dataset("years", target="year")


def test_texts_of_pairs_with_classes_can_be_taken(tmp_path: Path) -> None:
    path = write(tmp_path, PAIRS.format("x", "y"))
    assert load_texts(path) == ("a b", "e f", "c d", "g h")


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip)


@given(st.lists(WORDS, min_size=1, max_size=6), st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_spans_hold_what_was_sought(words: list[str], data: st.DataObject) -> None:
    text = " ".join(words)
    number = data.draw(st.integers(0, len(text.split()) - 1))
    start, end = word_span(str(number), text, "word_a", "d.csv, line 2")
    assert text[start:end] == text.split()[number]
    part = data.draw(st.sampled_from(words)).strip()
    start, end = find_span(part, text, "d.csv, line 2")
    assert text[start:end] == part


def test_a_span_is_a_whole_word_where_there_is_one() -> None:
    assert find_span("he", "The man said he left", "x") == (13, 15)
    assert find_span("he", "The man", "x") == (1, 3)
    assert find_span("C++", "In C++ and C", "x") == (3, 6)
    with pytest.raises(DataError, match="line 7: the span 'she' does not occur"):
        find_span("she", "The man", "d.csv, line 7")
