"""Lists of concepts: names, files, folders and TOML in; each with its own name, family and data out."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.datasets import DEFAULT_CONCEPTS, builtin_datasets, load_concepts
from probes.datasets.concepts import Concepts
from probes.errors import DataError, FathometerError, InputError
from probes.types import LabelledNumbers, LabelledPairs, LabelledTexts

ROWS = "text,label,kind,n\na one,0,x,1\nb two,1,x,2\nc three,0,y,3\nd four,1,y,4\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "moods"
    place.mkdir()
    (place / "joy.csv").write_text(ROWS)
    (place / "anger.csv").write_text(ROWS.replace("a one", "an hour"))
    (place / "alike.csv").write_text("text_a,text_b,label\na,b,1\nc,d,0\n")
    (place / "graded.csv").write_text("text_a,text_b,score\na,b,1\nc,d,0.5\n")
    (place / "odd.csv").write_text("id,blurb\n1,a\n")
    (place / "broken.jsonl").write_text("{")
    (place / ".hidden.csv").write_text(ROWS)
    (place / "readme.txt").write_text("no table")
    return place


def toml(folder: Path, content: str) -> str:
    path = folder / "list.toml"
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_the_default_works_offline_and_spans_the_families() -> None:
    concepts = load_concepts(DEFAULT_CONCEPTS)
    assert [c.name for c in concepts] == DEFAULT_CONCEPTS.split(",")
    assert len(concepts) >= 12
    assert {c.family for c in concepts} >= {"factual", "emotional", "inferential", "linguistic"}
    assert {c.dataset.kind for c in concepts} == {
        "labelled", "labelled-pairs", "minimal-pairs", "numbers",
    }  # fmt: skip
    other = load_concepts("years,tense", seed=1)
    assert other[1].dataset.content_hash() != load_concepts("tense")[0].dataset.content_hash()


def test_every_concept_kind_of_builtin_set_declares_a_family() -> None:
    for name, entry in builtin_datasets().items():
        holds = entry.kind not in ("pairs", "retrieval", "texts")
        assert (entry.family != "other") == holds, name


def test_files_take_the_family_of_their_folder(folder: Path) -> None:
    concepts = load_concepts(f"{folder}/joy.csv, sentiment")
    assert [(c.name, c.family, len(c.dataset)) for c in concepts] == [
        ("joy", "moods", 4), ("sentiment", "emotional", 1120),
    ]  # fmt: skip


def test_a_folder_gives_its_tables_and_says_what_is_left_out(folder: Path) -> None:
    concepts = load_concepts(str(folder))
    assert isinstance(concepts, tuple)
    assert isinstance(concepts, Concepts)
    assert [(c.name, c.dataset.kind) for c in concepts] == [
        ("alike", "labelled-pairs"), ("anger", "labelled"), ("joy", "labelled"),
    ]  # fmt: skip
    assert [note.split(" is left out: ")[0] for note in concepts.notes] == [
        "broken.jsonl", "graded.csv", "odd.csv",
    ]  # fmt: skip
    assert "label=" in concepts.notes[1]
    assert all("\n" not in note for note in concepts.notes)


def test_columns_apply_to_files(folder: Path) -> None:
    (concept,) = load_concepts(str(folder / "joy.csv"), {"label": "kind"})
    assert isinstance(concept.dataset, LabelledTexts)
    assert concept.dataset.label_names == ("x", "y")
    mixed = load_concepts(f"coin-flip,{folder}/joy.csv", {"label": "kind"})
    assert isinstance(mixed[1].dataset, LabelledTexts)
    assert mixed[1].dataset.label_names == ("x", "y")


def test_a_list_in_toml(folder: Path) -> None:
    spec = toml(
        folder.parent,
        """
        [gladness]
        data = "moods/joy.csv"
        family = "emotional"
        [counting]
        data = "moods/joy.csv"
        columns = { target = "n", group = "kind" }
        [half]
        data = "moods/joy.csv"
        where = { kind = "x", n = [1, 2, 3] }
        [same]
        data = "moods/alike.csv"
        [coin]
        data = "coin-flip"
        """,
    )
    concepts = {c.name: c for c in load_concepts(spec)}
    assert list(concepts) == ["gladness", "counting", "half", "same", "coin"]
    assert [c.family for c in concepts.values()] == [
        "emotional", "moods", "moods", "moods", "inferential",
    ]  # fmt: skip
    counting = concepts["counting"].dataset
    assert isinstance(counting, LabelledNumbers)
    assert counting.targets[:, 0].tolist() == [1, 2, 3, 4]
    assert counting.groups is not None
    assert concepts["half"].dataset.all_texts() == ("a one", "b two")
    assert isinstance(concepts["same"].dataset, LabelledPairs)
    # One name for the same texts, so that curves can be compared example by example; another for others.
    assert concepts["gladness"].dataset.name == counting.name == "joy"
    assert concepts["half"].dataset.name == "half"


def test_names_are_unique(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "moods"
    other.mkdir(parents=True)
    for i, place in enumerate((other, other.parent)):
        (place / "joy.csv").write_text(ROWS.replace("a one", f"other {i}"))
    paths = [folder / "joy.csv", other / "joy.csv", other.parent / "joy.csv"]
    concepts = load_concepts(",".join(map(str, paths)))
    assert [c.name for c in concepts] == ["joy", "moods-joy", "other-joy"]
    assert len({c.dataset.name for c in concepts}) == 3
    again = load_concepts(",".join(map(str, [*paths[:2], other / ".." / "moods" / "joy.csv"])))
    assert [c.name for c in again] == ["joy", "moods-joy", "moods-joy-2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "names no concept"),
        ("x = 1", "list.toml, [x]: x = 1 stands outside a table"),
        ("[a", "is not TOML"),
        ("[a]\nfamily = 'x'", "[a]: data is missing"),
        ("[a]\ndata = 'moods/none.csv'", "[a]: "),
        (
            "[a]\ndata = 'moods/joy.csv'\nfamliy = 'x'",
            "[a]: unknown key 'famliy': did you mean 'family'",
        ),
        ("[a]\ndata = 'moods/joy.csv'\nfamily = 3", "[a]: family is 3"),
        ("[a]\ndata = 'moods/joy.csv'\ncolumns = ['x']", "[a]: columns are ['x']"),
        (
            "[a]\ndata = 'moods/joy.csv'\ncolumns = {lable = 'x'}",
            "[a]: unknown column role 'lable'",
        ),
        ("[a]\ndata = 'moods/joy.csv'\ncolumns = {label = 'x'}", "[a]: unknown column 'x'"),
        ("[a]\ndata = 'moods/joy.csv'\nwhere = 'x'", "[a]: where is 'x'"),
        ("[a]\ndata = 'moods/joy.csv'\nwhere = {kin = 'x'}", "[a]: unknown column 'kin'"),
        ("[a]\ndata = 'moods/joy.csv'\nwhere = {kind = 'z'}", "joy.csv: no row has kind = 'z'"),
        ("[a]\ndata = 'moods/joy.csv'\nwhere = {label = 0}", "two classes are needed"),
        ("[a]\ndata = 'moods/graded.csv'", "[a]: "),
        ("[a]\ndata = 'moods'", "is a folder"),
        ("[a]\ndata = 'years'\nwhere = {year = 1900}", "[a]: 'years' is built in"),
        ("[a]\ndata = 'years'\ncolumns = {target = 'year'}", "[a]: 'years' is built in"),
        ("[b]\ndata = 'docstrings'", "holds retrieval data, no concept"),
        ("[b]\ndata = 'reference'", "holds texts without labels"),
    ],
)
def test_mistakes_in_toml_name_file_and_table(folder: Path, content: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        load_concepts(toml(folder.parent, content))
    assert message in str(caught.value)
    assert "list.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "name nothing"),
        (" , ", "name nothing"),
        ("citees", "did you mean 'cities'"),
        ("cities,cities", "'cities' is named twice"),
        ("none.toml", "does not exist"),
        ("docstring-pairs", "no concept"),
    ],
)
def test_bad_lists(spec: str, message: str) -> None:
    with pytest.raises(FathometerError, match=message):
        load_concepts(spec)


def test_columns_without_files_are_refused() -> None:
    with pytest.raises(InputError, match="no columns to name: leave out label"):
        load_concepts("cities,years", {"label": "x"})


def test_folders_without_a_concept(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no table with a concept"):
        load_concepts(str(tmp_path))
    (tmp_path / "graded.csv").write_text("text_a,text_b,score\na,b,1\nc,d,0.5\n")
    with pytest.raises(DataError, match=r"graded\.csv is left out"):
        load_concepts(str(tmp_path))


def test_a_path_may_hold_a_comma(folder: Path) -> None:
    path = folder / "joy, mixed.csv"
    path.write_text(ROWS)
    assert [c.name for c in load_concepts(str(path))] == ["joy-mixed"]


def test_values_of_where_are_compared_as_written(tmp_path: Path) -> None:
    lines = [
        f'{{"text": "t{i}", "label": {i % 2}, "ok": {"true" if i < 4 else "false"}, "n": {i}.0}}'
        for i in range(8)
    ]
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    for where, left in (("ok = true", 4), ("ok = 'true'", 4), ("n = [0, '1', 2.0]", 3)):
        (concept,) = load_concepts(toml(tmp_path, f"[a]\ndata = 'd.jsonl'\nwhere = {{ {where} }}"))
        assert len(concept.dataset) == left
