"""Files into datasets: what is written comes back; what is wrong is named with its line."""

from __future__ import annotations

import ast
import csv
import io
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probes.analysis import parse_columns
from probes.datasets import load_dataset, load_texts
from probes.errors import DataError, FathometerError, InputError
from probes.files import bundled
from probes.types import LabelledTexts, MinimalPairs, Retrieval, TextPairs, TokenLabels

TEXTS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1
).filter(lambda text: text.strip() != "" and "\r" not in text)
PROPERTY = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(folder: Path, content: str | bytes, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def as_csv(rows: list[list[Any]], delimiter: str = ",", newline: str = "\n") -> str:
    handle = io.StringIO()
    csv.writer(handle, delimiter=delimiter, lineterminator=newline).writerows(rows)
    return handle.getvalue()


@given(
    st.lists(TEXTS, min_size=2, max_size=10),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
)
@PROPERTY
def test_csv_comes_back(
    tmp_path: Path, texts: list[str], newline: str, bom: bool, tabs: bool
) -> None:
    rows = [["text", "label"], *[[text, i % 2] for i, text in enumerate(texts)]]
    content = as_csv(rows, "\t" if tabs else ",", newline).encode("utf-8")
    path = write(tmp_path, b"\xef\xbb\xbf" * bom + content, "d.tsv" if tabs else "d.csv")
    data = load_dataset(path)
    assert isinstance(data, LabelledTexts)
    assert list(data.texts) == texts
    assert data.labels.tolist() == [i % 2 for i in range(len(texts))]
    assert data.label_names == ("0", "1")


@given(st.lists(TEXTS, min_size=2, max_size=10), st.integers(0, 9))
@PROPERTY
def test_the_line_of_a_bad_row_is_right(tmp_path: Path, texts: list[str], place: int) -> None:
    place = min(place, len(texts) - 1)
    rows = [["text", "label"], *[[text, i % 2] for i, text in enumerate(texts)]]
    before = as_csv(rows[: place + 1])
    path = write(tmp_path, before + "  ,1\n" + as_csv(rows[place + 1 :]))
    line = before.count("\n") + 1
    with pytest.raises(DataError, match=f"line {line}: the text is empty"):
        load_dataset(path)


@given(st.lists(TEXTS, min_size=2, max_size=10), st.booleans())
@PROPERTY
def test_jsonl_comes_back(tmp_path: Path, texts: list[str], escape: bool) -> None:
    lines = [
        json.dumps({"text": t, "label": i % 2 == 0}, ensure_ascii=escape)
        for i, t in enumerate(texts)
    ]
    data = load_dataset(write(tmp_path, "\n\n".join(lines), "d.jsonl"))
    assert isinstance(data, LabelledTexts)
    assert list(data.texts) == texts


@given(st.lists(TEXTS, min_size=2, max_size=10))
@PROPERTY
def test_parquet_comes_back(tmp_path: Path, texts: list[str]) -> None:
    table = pa.table(
        {"text": texts, "label": [float(i % 2) for i in range(len(texts))], "x": texts}
    )
    pq.write_table(table, tmp_path / "d.parquet")
    data = load_dataset(tmp_path / "d.parquet")
    assert isinstance(data, LabelledTexts)
    assert list(data.texts) == texts
    assert data.label_names == ("0", "1")


@given(
    st.binary(max_size=300),
    st.sampled_from(["csv", "tsv", "jsonl", "parquet", "json"]),
    st.booleans(),
)
@settings(PROPERTY, max_examples=300)
def test_any_bytes_give_data_or_a_clear_error(
    tmp_path: Path, content: bytes, suffix: str, header: bool
) -> None:
    start = {"csv": b"text,label\n", "tsv": b"text\tlabel\n"}.get(
        suffix, b'{"text": "a", "label": 1}\n'
    )
    path = write(tmp_path, start * header + content, f"d.{suffix}")
    message = "data.d."
    try:
        load_dataset(path)
    except FathometerError as error:
        message = str(error)
    assert "\n" not in message or suffix == "parquet"
    assert f"d.{suffix}" in message or message == "data.d."


CSV = "text,label\na,0\n"
BAD: list[tuple[str, str | bytes, str]] = [
    ("d.csv", "", "is empty"),
    ("d.csv", "text,label\n", "no rows"),
    ("d.csv", CSV + "b\n", "line 3 has 1 fields, the header has 2"),
    ("d.csv", CSV + "b,1,2\n", "line 3 has 3 fields"),
    ("d.csv", CSV + '"b\nc",1\n"d,1\n', "line 5: a quote opens here and is never closed"),
    ("d.csv", CSV + '"b"x,1\n', "line 3: a quote inside a quoted field"),
    ("d.csv", CSV + ",1\n", "line 3: the text is empty"),
    ("d.csv", CSV + " \t,1\n", "line 3: the text is empty"),
    ("d.csv", CSV + "\u3000,1\n", "line 3: the text is empty"),
    ("d.csv", CSV + "b,\n", "line 3: the label is missing"),
    ("d.csv", CSV + "b,nan\n", "line 3: the label is 'nan' among numbers"),
    ("d.csv", CSV + "b,1.5\n", "line 3: the label is 1.5: classes are whole numbers"),
    ("d.csv", CSV + "b,0\n", "all 2 rows have the label '0'"),
    ("d.csv", CSV.encode() + b"b\xff,1\n", "line 3 is not UTF-8 .byte 0xff at position 1"),
    ("d.csv", CSV.encode() + b"b\0,1\n", "line 3 holds a NUL byte"),
    ("d.csv", "text;label\na;0\n", "separated by semicolons, commas are expected"),
    ("d.csv", "text\tlabel\na\t0\n", "separated by tabs, commas are expected"),
    ("d.tsv", "text,label\na,0\n", "separated by commas, tabs are expected"),
    ("d.csv", "text,label,text\na,0,b\n", "line 1: the column 'text' comes twice"),
    ("d.csv", "text,label\ra,0\rb,1\r", "a carriage return stands alone"),
    ("d.csv", "text,label\n".encode("utf-16"), "is UTF-16"),
    ("d.csv", b"PK\x03\x04....", "a ZIP archive or a spreadsheet"),
    ("d.csv", b"\x1f\x8b....", "compressed with gzip"),
    ("d.csv", "id,blurb\n1,a\n", "the columns are id, blurb; needed are text,label"),
    ("d.csv", "Satz,Güte\na,0\n", 'name yours, e.g. --columns "text=Satz,label=Güte"'),
    ("d.csv", '"a,b",Güte\na,0\n', "name yours, e.g. in Python text='a,b', label='Güte'"),
    ("d.csv", "text\na\n", "the columns are text; needed are"),
    (
        "d.csv",
        "sentence,review,label\na,b,0\n",
        "'sentence' and 'review' could both be the text: say which, e.g. "
        '--columns "text=sentence"',
    ),
    ("d.csv", "text_a,text_b,score\na,b,x\n", "line 2: the score is 'x', a number is needed"),
    ("d.csv", "text_a,text_b,score\na,b,inf\n", "line 2: the score is inf, a finite number"),
    ("d.csv", "text_a,text_b,score\na,b,1\na,c,1\n", "all scores are equal"),
    (
        "d.csv",
        "text_a,text_b,label\na,b,1\na,c,entailment\n",
        "line 3: the label is 'entailment', a number is needed",
    ),
    ("d.csv", "text,label,group\na,0,g\nb,1,\n", "line 3: the group is missing"),
    ("d.csv", "query,document,relevance\nq,d,1\nq,d,0\n", "line 3: relevance 0, but 1 on line 2"),
    ("d.csv", "query,document,relevance\nq,d,0\n", "no query has a relevant document"),
    ("d.jsonl", "", "is empty"),
    ("d.jsonl", '{"text": "a", "label": 0}\n{"text": "b"\n', "line 2 is not JSON"),
    ("d.jsonl", '[{"text": "a"}]', "line 1 is a JSON array: one object per line"),
    ("d.jsonl", '{"text": "a", "label": 0}\n\n{"text": "b"}\n', "line 3: the label is missing"),
    ("d.jsonl", '{"text": "a", "label": 0}\n{"label": 1}\n', "line 2: the text is missing"),
    (
        "d.jsonl",
        '{"text": "a", "label": 0}\n{"text": 3, "label": 1}\n',
        "line 2: the text is int, a string",
    ),
    (
        "d.jsonl",
        '{"text": "a", "label": 1}\n{"text": "b", "label": "a"}\n',
        "line 2: the label 'a' is a string",
    ),
    (
        "d.jsonl",
        '{"text": "a", "label": 1}\n{"text": "b", "label": true}\n',
        "line 2: the label True is a true/false",
    ),
    (
        "d.jsonl",
        '{"text": "a", "label": 1}\n{"text": "b", "label": NaN}\n',
        "line 2: the label is missing",
    ),
    (
        "d.jsonl",
        '{"text": "a", "label": 1}\n{"text": "b", "label": Infinity}\n',
        "line 2: the label is inf",
    ),
    (
        "d.jsonl",
        '{"text": "a", "label": 1}\n{"text": "b", "label": [1]}\n',
        "line 2: the label is list",
    ),
    (
        "d.jsonl",
        '{"text": "a", "label": 1}\n{"text": "b\\ud800", "label": 0}\n',
        "line 2: .* lone surrogate at character 1",
    ),
    ("d.jsonl", '{"text": "a\\u0000", "label": 1}\n', "line 1: .* NUL"),
    ("d.jsonl", "[" * 100_000, "line 1 is not JSON"),
    ("d.jsonl", '{"words": ["a", "b"], "tags": ["X"]}\n', "line 1: 2 words but 1 tags"),
    ("d.parquet", b"PAR1 not really", "is not a readable Parquet file"),
    ("d.xlsx", b"x", "ends with '.xlsx'"),
]


@pytest.mark.parametrize(("name", "content", "says"), BAD)
def test_bad_files(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        load_dataset(write(tmp_path, content, name))


def test_null_and_na_are_data(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path, "text,label\nnull,NA\nNA,null\nNone,nan\n"))
    assert isinstance(data, LabelledTexts)
    assert data.texts == ("null", "NA", "None")
    assert data.label_names == ("NA", "nan", "null")


@pytest.mark.parametrize(("text", "label"), [("Satz", "Güte"), ("der Satz", "it's"), ("a;b", "#")])
def test_the_hint_can_be_copied(tmp_path: Path, text: str, label: str) -> None:
    path = write(tmp_path, as_csv([[text, label], ["a", "0"], ["b", "1"]]))
    with pytest.raises(DataError) as error:
        load_dataset(path)
    hint = str(error.value).split("e.g. ")[1]
    option, value = shlex.split(hint.split(" (in Python ")[0])
    assert option == "--columns"
    python = ast.parse(f"load{hint[hint.index(' (in Python ') :].replace('in Python ', '')}").body[
        0
    ]
    assert isinstance(python, ast.Expr)
    assert isinstance(python.value, ast.Call)
    written = {str(word.arg): ast.literal_eval(word.value) for word in python.value.keywords}
    assert parse_columns(value) == written == {"text": text, "label": label}
    assert len(load_dataset(path, **parse_columns(value))) == 2


def test_names_of_labels_do_not_confuse(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path, "TEXT,Label_Name,Label\na,neg,0\nb,pos,1.0\n"))
    assert isinstance(data, LabelledTexts)
    assert data.label_names == ("0", "1")


def test_padded_numbers_stay_names(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path, "text,label\na,007\nb,7\n"))
    assert isinstance(data, LabelledTexts)
    assert data.label_names == ("007", "7")


def test_numbers_sort_as_numbers(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path, "text,label\na,10\nb,9\nc,-1\n"))
    assert isinstance(data, LabelledTexts)
    assert data.label_names == ("-1", "9", "10")


def test_pairs_take_a_numeric_label_as_score(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path, "sentence1,sentence2,label\na,b,1\nc,d,0\n"))
    assert isinstance(data, TextPairs)
    assert data.scores.tolist() == [1.0, 0.0]
    given_by_name = load_dataset(
        write(tmp_path, "x,y,z\na,b,1\nc,d,0\n"), text_a="x", text_b="y", score="z"
    )
    assert isinstance(given_by_name, TextPairs)


def test_named_columns_win(tmp_path: Path) -> None:
    path = write(tmp_path, "text,label,other,Kind\na,0,x,k\nb,1,y,l\n")
    data = load_dataset(path, text="other", label="kind")
    assert isinstance(data, LabelledTexts)
    assert data.texts == ("x", "y")
    assert data.label_names == ("k", "l")


def test_wrong_options(tmp_path: Path) -> None:
    path = write(tmp_path, "text,label\na,0\nb,1\n")
    with pytest.raises(InputError, match="unknown column 'txt': did you mean 'text'"):
        load_dataset(path, text="txt")
    with pytest.raises(InputError, match="do not belong to one kind"):
        load_dataset(path, text="text", good="label")


def test_groups_long_and_short(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path, f"text,label,group\na,0,{'g' * 5000}\nb,1,h\n"))
    assert data.groups is not None
    assert data.groups.tolist() == ["g" * 5000, "h"]


def test_question_and_answer(tmp_path: Path) -> None:
    path = write(tmp_path, "question,answer\nq1,a1\nq1,a2\nq2,a1\n")
    data = load_dataset(path)
    assert isinstance(data, Retrieval)
    assert data.queries == ("q1", "q2")
    assert data.relevance.toarray().tolist() == [[1, 1], [1, 0]]


def test_graded_relevance_with_distractors(tmp_path: Path) -> None:
    path = write(
        tmp_path, "query,document,relevance,group\nq1,a,2,x\nq1,b,0,x\nq2,b,0,y\nq3,b,1,y\n"
    )
    data = load_dataset(path)
    assert isinstance(data, Retrieval)
    assert data.queries == ("q1", "q3")
    assert data.documents == ("a", "b")
    assert data.relevance.toarray().tolist() == [[2, 0], [0, 1]]
    assert data.groups is not None
    assert data.groups.tolist() == ["x", "y"]
    assert "1 queries without a relevant document are left out" in data.source.notes


def test_minimal_pairs_and_token_labels(tmp_path: Path) -> None:
    pairs = load_dataset(write(tmp_path, "sentence_good,sentence_bad\na,b\n"))
    assert isinstance(pairs, MinimalPairs)
    line = json.dumps({"id": 1, "text": "a b", "tokens": ["a", "b"], "upos": ["DET", "NOUN"]})
    tokens = load_dataset(write(tmp_path, line, "t.jsonl"))
    assert isinstance(tokens, TokenLabels)
    assert tokens.labels == (("DET", "NOUN"),)


def test_a_line_of_ten_megabytes(tmp_path: Path) -> None:
    long = "word " * 2_000_000
    data = load_dataset(write(tmp_path, f"text,label\n{long},0\nb,1\n"))
    assert isinstance(data, LabelledTexts)
    assert data.texts[0] == long


def test_right_to_left_and_emoji(tmp_path: Path) -> None:
    texts = ["שלום עולם", "مرحبا", "\U0001f469\u200d\U0001f469\u200d\U0001f467 family", "e\u0301"]
    data = load_dataset(
        write(tmp_path, as_csv([["text", "label"], *[[t, i % 2] for i, t in enumerate(texts)]]))
    )
    assert isinstance(data, LabelledTexts)
    assert list(data.texts) == texts


def test_a_flipped_bit_in_parquet_is_noticed(tmp_path: Path) -> None:
    table = pa.table(
        {"text": [f"text number {i}" for i in range(2000)], "label": np.arange(2000) % 2}
    )
    path = tmp_path / "d.parquet"
    pq.write_table(table, path, write_page_checksum=True, compression="none")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"d\.parquet"):
        load_dataset(path)


def test_null_in_parquet_names_the_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", None], "label": [0, 1]}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"d\.parquet, row 2: the text is missing"):
        load_dataset(tmp_path / "d.parquet")


def test_paths_that_do_not_exist() -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_dataset("nowhere/data.csv")
    with pytest.raises(DataError, match="does not exist"):
        load_dataset("nothing.csv")
    with pytest.raises(InputError, match="unknown dataset 'citeis': did you mean 'cities'"):
        load_dataset("citeis")
    with pytest.raises(InputError, match="unknown dataset"):
        load_dataset("a\0b")
    with pytest.raises(InputError, match="bad dataset path"):
        load_dataset("x" * 300)


def test_umlauts_and_spaces_in_paths(tmp_path: Path) -> None:
    folder = tmp_path / "Größe mit Leerzeichen"
    folder.mkdir()
    data = load_dataset(str(write(folder, "text,label\na,0\nb,1\n", "Dätén 1.csv")))
    assert data.name == "D-t-n-1"


def test_texts_from_anything(tmp_path: Path) -> None:
    assert load_texts(write(tmp_path, "one\n\n two \r\none\n", "t.txt")) == ("one", "two")
    assert load_texts(write(tmp_path, "id,text\n1,a\n2,b\n", "t.csv")) == ("a", "b")
    assert load_texts(write(tmp_path, "id,body\n1,a\n2,b\n", "u.csv")) == ("a", "b")
    assert load_texts(write(tmp_path, "id,x\n1,a\n2,b\n", "v.csv"), text="x") == ("a", "b")
    assert load_texts(write(tmp_path, "text_a,text_b,score\na,b,1\na,c,2\n", "p.csv")) == (
        "a",
        "b",
        "c",
    )
    assert load_texts("cities") == tuple(dict.fromkeys(load_texts("cities")))
    with pytest.raises(DataError, match="holds no texts"):
        load_texts(write(tmp_path, "\n \n", "empty.txt"))
    with pytest.raises(DataError, match="needed are"):
        load_texts(write(tmp_path, "id,x\n1,a\n", "w.csv"))
    with pytest.raises(DataError, match="line 2 is not UTF-8"):
        load_texts(write(tmp_path, b"a\n\xff\n", "x.txt"))


@pytest.mark.slow
def test_a_large_file_passes_in_bounded_memory(tmp_path: Path) -> None:
    """256 MB of which 5 MB are wanted: the reader must not grow with the file."""
    path = tmp_path / "big.csv"
    with path.open("w", encoding="utf-8") as handle:
        handle.write("text,label,blob\n")
        blob = "x" * 2500
        for i in range(100_000):
            handle.write(f'"sentence {i}, with a comma",{i % 3},"{blob}"\n')
    code = (
        "import resource, sys\nfrom probes.datasets import load_dataset\nload_dataset('cities')\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "data = load_dataset(sys.argv[1])\nassert len(data) == 100_000\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    environment = {"PYTHONPATH": str(bundled("probes")) + "/.."}
    out = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert float(out.stdout) < 100
