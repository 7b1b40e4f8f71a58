"""`load_dataset` and `load_texts`: one name or path in, validated data out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from probes.datasets.assemble import assemble, classes_not_scores
from probes.datasets.catalogue import build_dataset, build_texts, builtin_datasets
from probes.datasets.columns import find_column, recognise
from probes.datasets.folders import is_retrieval_folder, load_folder
from probes.datasets.hub import hub_table
from probes.datasets.reading import SUFFIXES, Table, decoded_lines, open_table
from probes.datasets.values import good_text
from probes.errors import DataError, InputError, unknown_name
from probes.types import Dataset, Source

HUB = "hf:"


def load_dataset(
    name_or_path: str | Path,
    *,
    text: str | None = None,
    label: str | None = None,
    group: str | None = None,
    text_a: str | None = None,
    text_b: str | None = None,
    score: str | None = None,
    query: str | None = None,
    document: str | None = None,
    relevance: str | None = None,
    good: str | None = None,
    bad: str | None = None,
    words: str | None = None,
    tags: str | None = None,
    target: str | None = None,
    span: str | None = None,
    word_a: str | None = None,
    word_b: str | None = None,
    seed: int = 0,
) -> Dataset:
    """A dataset by built-in name, file, retrieval folder or `hf:name[:config][:split]`.

    Files are CSV, TSV, JSON lines and Parquet. The options name columns; without them columns are
    recognised by their usual names (`text,label[,group]`, `text_a,text_b,score`,
    `query,document[,relevance]`, `good,bad`, `words,tags`; `sentence1,sentence2`, `question,answer` and the
    like too). Pairs with a `label` in words are classes, with numbers they are scored unless `label` is named.
    Only by name: `target="lat+lon"` takes numbers that are to be told from the text, `span` a column whose
    string is sought in the text, `word_a` and `word_b` the 0-based numbers of a word in each text of a pair
    (all that stands between white space). A retrieval folder holds corpus.jsonl, queries.jsonl and qrels.csv,
    .tsv or BEIR's qrels/test.tsv. `seed` is for built-in sets that are generated.

    Raises `DataError` with file and line for bad data, `InputError` for a wrong name or option.

    >>> cities = load_dataset("cities")
    >>> cities.texts[0].startswith("The city of "), cities.label_names
    (True, ('false', 'true'))
    """
    options = {
        "text": text, "label": label, "group": group, "text_a": text_a, "text_b": text_b,
        "score": score, "query": query, "document": document, "relevance": relevance,
        "good": good, "bad": bad, "words": words, "tags": tags,
        "target": target, "span": span, "word_a": word_a, "word_b": word_b,
    }  # fmt: skip
    given = {role: column for role, column in options.items() if column is not None}
    name = str(name_or_path)
    if isinstance(name_or_path, str) and name in builtin_datasets():
        if given:
            raise InputError(
                f"{name!r} is built in and has no columns to name: leave out {', '.join(given)}"
            )
        return build_dataset(builtin_datasets()[name], seed)
    if name.startswith(HUB):
        table = hub_table(name.removeprefix(HUB))
        return from_table(table, given, short_name(name.removeprefix(HUB)))
    path = existing(name)
    if path.is_dir():
        return _from_folder(path, given)
    return from_table(open_table(path), given, short_name(path.stem))


def load_texts(
    name_or_path: str | Path, *, text: str | None = None, seed: int = 0
) -> tuple[str, ...]:
    """The different texts behind a name or path, in order: what translators are fitted on.

    A `.txt` file holds one text per line (blank lines are skipped); of a table the `text` column is taken, or
    all texts of the dataset it is recognised as; of anything else every text.

    >>> len(load_texts("reference")) > 1000
    True
    """
    name = str(name_or_path)
    if isinstance(name_or_path, str) and name in builtin_datasets():
        return build_texts(builtin_datasets()[name], seed)
    if name.startswith(HUB):
        return _texts_of_table(hub_table(name.removeprefix(HUB)), text)
    path = existing(name)
    if path.is_dir():
        return tuple(dict.fromkeys(_from_folder(path, {}).all_texts()))
    if path.suffix.lower() in (".txt", ".text"):
        return _unique(_lines(path), str(path))
    return _texts_of_table(open_table(path), text)


def require_dataset(name: str) -> None:
    """`InputError` unless `name` is a built-in dataset, a path that exists or an `hf:` name. Nothing is read.

    >>> require_dataset("cities")
    """
    if name not in builtin_datasets() and not name.startswith(HUB):
        existing(name)


def dataset_names(text: str) -> tuple[str, ...]:
    """The names of datasets that `text` holds, separated by commas; a path that exists is one name, commas and all.

    >>> dataset_names("docstrings, docstring-topics")
    ('docstrings', 'docstring-topics')
    """
    if Path(text).exists():
        return (text,)
    return tuple(part.strip() for part in text.split(",") if part.strip()) or (text,)


def short_name(name: str) -> str:
    """`name` in the characters that run slugs and tables allow.

    >>> short_name("user/STS (b)")
    'user-STS-b'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:64] or "data"


def existing(name: str) -> Path:
    """`name` as a path that exists; otherwise an error that guesses what was meant."""
    try:
        path = Path(name).expanduser()
        exists = path.exists()
    except (ValueError, OSError, RuntimeError) as error:
        raise InputError(f"bad dataset path {name[:80]!r}: {error}") from None
    if exists:
        return path
    if path.suffix.lower() in (*SUFFIXES, ".txt", ".toml") or "/" in name:
        raise DataError(
            f"{name} does not exist: give a file, a retrieval folder or a built-in name"
        )
    raise unknown_name(
        "dataset", name, builtin_datasets(),
        "A path to a CSV, TSV, JSONL or Parquet file, a retrieval folder or hf:NAME will do too.",
    )  # fmt: skip


def _from_folder(path: Path, given: dict[str, str]) -> Dataset:
    if not is_retrieval_folder(path):
        raise DataError(
            f"{path} is a folder without corpus.jsonl and queries.jsonl: a retrieval folder holds these and "
            "qrels.csv; otherwise name one file"
        )
    if extra := sorted(set(given) - {"group"}):
        raise InputError(f"a retrieval folder has fixed names: leave out {', '.join(extra)}")
    return load_folder(path, short_name(path.resolve().name), given.get("group"))


def from_table(table: Table, given: Mapping[str, str], name: str) -> Dataset:
    """The dataset in a table; `given` names columns by role."""
    choice = classes_not_scores(table, recognise(table.columns, given, table.origin))
    source = Source(origin=table.origin, notes=(f"columns {choice.told()}",))
    return assemble(table, choice, name, source)


def _unique(texts: dict[str, None], origin: str) -> tuple[str, ...]:
    if not texts:
        raise DataError(f"{origin} holds no texts")
    return tuple(texts)


def _lines(path: Path) -> dict[str, None]:
    lines = (line.strip() for line in decoded_lines(path))
    return dict.fromkeys(line for line in lines if line)


def _texts_of_table(table: Table, text: str | None) -> tuple[str, ...]:
    found = find_column("text", table.columns, {} if text is None else {"text": text}, table.origin)
    if found is None or (text is None and found[1] > 0):
        try:
            dataset = from_table(table, {}, "texts")
            return tuple(dict.fromkeys(dataset.all_texts()))
        except DataError:
            if found is None:
                raise
    column = found[0]
    texts: dict[str, None] = {}
    for line, (value,) in table.rows([column]):
        texts[good_text(value, "text", table.where(line))] = None
    return _unique(texts, table.origin)
