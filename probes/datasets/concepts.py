"""Lists of concepts: which datasets a concept study reads, under which names and in which families."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from probes.datasets.catalogue import build_dataset, builtin_datasets
from probes.datasets.filtering import Where, filtered
from probes.datasets.folders import is_retrieval_folder
from probes.datasets.hub import hub_table
from probes.datasets.load import HUB, existing, from_table, short_name
from probes.datasets.reading import SUFFIXES, Table, open_table
from probes.errors import DataError, FathometerError, InputError, unknown_name
from probes.files import sha256_texts
from probes.types import Dataset, Retrieval, TextPairs

DEFAULT_CONCEPTS = (
    "cities,elements,numbers,sentiment,coin-flip,entity-tracking,entailment,agreement,tense,"
    "magnitude,years,docstring-topics"
)
KEYS = ("data", "family", "columns", "where")
NO_CONCEPT = "no concept: labelled texts, pairs or words, minimal pairs and texts with numbers are"


@dataclass(frozen=True)
class ConceptData:
    """One concept: its own name, the family it is drawn under, and the data that show it."""

    name: str
    family: str
    dataset: Dataset


class Concepts(tuple[ConceptData, ...]):
    """Concepts in order, a plain tuple; `notes` say which tables of a folder were left out and why."""

    notes: tuple[str, ...]

    def __new__(cls, items: Iterable[ConceptData], notes: Iterable[str] = ()) -> Concepts:
        made = super().__new__(cls, items)
        made.notes = tuple(notes)
        return made


@dataclass(frozen=True)
class _Request:
    """What is asked for: a built-in name, `hf:` name or file, and how to read it."""

    data: str
    name: str | None = None
    family: str | None = None
    columns: Mapping[str, str] | None = None
    where: Where | None = None


def load_concepts(
    spec: str, columns: Mapping[str, str] | None = None, seed: int = 0
) -> tuple[ConceptData, ...]:
    """The concepts that `spec` names, in order, each with a name of its own.

    `spec` is a list with commas of built-in names, `hf:` names, files, folders (every table in them that is
    recognised; the others are named in `.notes` of the result) and `.toml` files: one table per concept,

        [cities]
        data = "truth/cities.csv"          # a path relative to the file, a built-in name or hf:NAME
        family = "factual"                 # default: the folder's name, or what a built-in set declares
        columns = { label = "label" }      # as for load_dataset
        where = { relation = ["P17"] }     # only rows with this value, or one of these

    `columns` names the columns of all plain files. Whole-number labels of pairs are classes here. Concepts with
    different texts have different dataset names. Raises `DataError` or `InputError` naming file and table.

    >>> [(c.name, c.family, len(c.dataset)) for c in load_concepts("sentiment, coin-flip")]
    [('sentiment', 'emotional', 1120), ('coin-flip', 'inferential', 600)]
    """
    found: list[ConceptData] = []
    notes: list[str] = []
    parts = [spec] if _is_path(spec) else [part.strip() for part in spec.split(",")]
    _refuse_repeats(parts)
    if columns and all(part in builtin_datasets() for part in parts):
        raise InputError(
            f"{spec!r} is built in and has no columns to name: leave out {', '.join(columns)}"
        )
    for part in filter(None, parts):
        path = _plain_path(part)
        if path is not None and path.suffix.lower() == ".toml":
            found += _from_toml(path, seed)
        elif path is not None and path.is_dir():
            found += _from_folder(path, columns or {}, notes)
        else:
            found.append(_load(_Request(part, columns=columns), seed))
    if not found:
        raise InputError(
            f"concepts {spec!r} name nothing: built-in names, files or folders are needed"
        )
    return Concepts(_unique_data(_unique_names(found)), notes)


def _refuse_repeats(parts: list[str]) -> None:
    for part in parts:
        if part and parts.count(part) > 1:
            raise InputError(f"concept {part!r} is named twice: name it once")


def _is_path(spec: str) -> bool:
    """Whether the whole is one path, commas included."""
    try:
        return "," in spec and Path(spec).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def _plain_path(part: str) -> Path | None:
    """The path that `part` names; None for built-in and hub names."""
    if part in builtin_datasets() or part.startswith(HUB):
        return None
    return existing(part)


def _load(request: _Request, seed: int) -> ConceptData:
    data = request.data
    columns = dict(request.columns or {})
    if data in builtin_datasets():
        entry = builtin_datasets()[data]
        if request.where:
            raise InputError(f"{data!r} is built in: its rows cannot be chosen with `where`")
        if columns and request.name is not None:
            raise InputError(f"{data!r} is built in and has no columns to name: leave them out")
        dataset = build_dataset(entry, seed)
        return ConceptData(request.name or data, request.family or entry.family, _usable(dataset))
    if data.startswith(HUB):
        table, name, family = hub_table(data.removeprefix(HUB)), data.removeprefix(HUB), "hub"
    else:
        path = existing(data)
        if path.is_dir():
            raise DataError(f"{path} is a folder: name one table in it")
        table, name, family = open_table(path), path.stem, path.resolve().parent.name
    name = short_name(name)
    dataset = _usable(_read(filtered(table, request.where or {}), columns, name))
    return ConceptData(request.name or name, request.family or short_name(family), dataset)


def _read(table: Table, columns: dict[str, str], name: str) -> Dataset:
    """The dataset in a table; pairs whose whole-number `label` would count as a score become classes."""
    dataset = from_table(table, columns, name)
    labels = [column for column in table.columns if column.strip().lower() == "label"]
    if isinstance(dataset, TextPairs) and "score" not in columns and labels:
        whole = bool((dataset.scores % 1 == 0).all())
        scored = dataset.source.notes[0].endswith(f"score={labels[0]}")
        if whole and scored:
            return from_table(table, {**columns, "label": labels[0]}, name)
    return dataset


def _usable(dataset: Dataset) -> Dataset:
    if isinstance(dataset, (Retrieval, TextPairs)):
        hint = "; name the column of their classes with label=" if dataset.kind == "pairs" else ""
        raise DataError(
            f"{dataset.source.origin or dataset.name} holds {dataset.kind} data, {NO_CONCEPT}{hint}"
        )
    return dataset


def _from_folder(folder: Path, columns: Mapping[str, str], notes: list[str]) -> list[ConceptData]:
    """Every table of `folder` that holds a concept; of the others a note says why they do not."""
    if is_retrieval_folder(folder):
        raise DataError(f"{folder} holds retrieval data, {NO_CONCEPT}")
    found: list[ConceptData] = []
    left: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or path.is_dir():
            continue
        try:
            found.append(_load(_Request(str(path), columns=columns), 0))
        except FathometerError as error:
            left.append(f"{path.name} is left out: {error}")
    if not found:
        why = f" ({left[0]})" if left else ""
        raise DataError(f"{folder} holds no table with a concept{why}: name files or a .toml list")
    notes.extend(left)
    return found


def _from_toml(path: Path, seed: int) -> list[ConceptData]:
    """One concept per table of a TOML file."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} is not TOML: {error}") from None
    if not tables:
        raise DataError(
            f"{path} names no concept: one table per concept is needed, such as [cities]"
        )
    found: list[ConceptData] = []
    for name, table in tables.items():
        try:
            found.append(_load(_request(name, table, path.parent), seed))
        except FathometerError as error:
            raise DataError(f"{path}, [{name}]: {error}") from None
    return found


def _request(name: str, table: Any, folder: Path) -> _Request:
    if not isinstance(table, dict):
        raise DataError(
            f'{name} = {table!r} stands outside a table: write [{name}] and data = "..."'
        )
    for key in table:
        if key not in KEYS:
            raise unknown_name("key", key, KEYS)
    data, family = table.get("data"), table.get("family")
    columns, where = table.get("columns", {}), table.get("where", {})
    if not isinstance(data, str) or not data.strip():
        raise DataError(
            "data is missing: a path relative to this file or a built-in name is needed"
        )
    if family is not None and (not isinstance(family, str) or not family.strip()):
        raise DataError(f"family is {family!r}: a name is needed")
    if not _is_strings(columns):
        raise DataError(f'columns are {columns!r}: write {{ role = "column" }}')
    if not isinstance(where, dict):
        raise DataError(f"where is {where!r}: write {{ column = value }}")
    if data not in builtin_datasets() and not data.startswith(HUB):
        data = str(folder / Path(data).expanduser())
    return _Request(data, short_name(name), family, columns, where)


def _is_strings(value: Any) -> TypeGuard[dict[str, str]]:
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())


def _unique_names(found: list[ConceptData]) -> list[ConceptData]:
    """Names that come twice get their family in front, then a number."""
    taken: set[str] = set()
    names = [concept.name for concept in found]
    result: list[ConceptData] = []
    for concept in found:
        name = concept.name
        if names.count(name) > 1 and name in taken:
            name = short_name(f"{concept.family}-{name}")
        number, stem = 2, name
        while name in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name)
        result.append(replace(concept, name=name))
    return result


def _unique_data(found: list[ConceptData]) -> list[ConceptData]:
    """Datasets of one name hold the same texts: others are called like their concept.

    A concept's curve is compared with another's example by example where both are told from the same dataset.
    """
    texts: dict[str, str] = {}
    result: list[ConceptData] = []
    names = {concept.dataset.name for concept in found} | {concept.name for concept in found}
    for concept in found:
        dataset = concept.dataset
        held = sha256_texts(dataset.all_texts())
        if texts.setdefault(dataset.name, held) != held:
            name = concept.name if concept.name not in texts else _free(concept.name, names)
            names.add(name)
            texts[name] = held
            dataset = replace(dataset, name=name)
        result.append(replace(concept, dataset=dataset))
    return result


def _free(stem: str, taken: set[str]) -> str:
    number = 2
    while f"{stem}-{number}" in taken:
        number += 1
    return f"{stem}-{number}"
