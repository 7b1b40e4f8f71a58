"""True and false statements from the fact tables in `data/facts/`, balanced, with closed groups.

Every false statement takes its wrong end from a partner, and partners form one group: the cities of two
countries, or two elements. So a split by group shares neither subject nor object. With the subject alone as group
a bag of words falls far below chance (0.31 on elements): what was true of a symbol in one part is false in the other.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from probes.datasets.catalogue import OWN, register_dataset
from probes.errors import DataError
from probes.files import bundled
from probes.types import LabelledTexts, Source

ORIGIN = "data/facts/{}, compiled for Fathometer from general knowledge"
NOTE = "groups tie each subject to the one its false statement borrows from: split by group"
Row = tuple[str, bool, str]  # text, is it true, group


@lru_cache(maxsize=8)
def fact_table(name: str) -> tuple[dict[str, str], ...]:
    """Rows of `data/facts/<name>`."""
    path = bundled("data") / "facts" / name
    if not path.is_file():
        raise DataError(f"{path} is missing: reinstall the package or run data/make_facts.py")
    with path.open(encoding="utf-8", newline="") as handle:
        return tuple(csv.DictReader(handle))


def partners(sizes: dict[str, int], rng: np.random.Generator) -> list[tuple[str, str]]:
    """Names in twos, both of a pair of about equal size; of an odd number the smallest is left out.

    >>> sorted(map(sorted, partners({"a": 9, "b": 1, "c": 8, "d": 1}, np.random.default_rng(0))))
    [['a', 'c'], ['b', 'd']]
    """
    names = [str(name) for name in rng.permutation(sorted(sizes))]
    names.sort(key=lambda name: -sizes[name])
    return list(zip(names[0::2], names[1::2], strict=False))


def _make(name: str, table: str, rows: Sequence[Row], rng: np.random.Generator) -> LabelledTexts:
    """Shuffled statements with the labels "false" and "true"."""
    mixed = [rows[i] for i in rng.permutation(len(rows))]
    return LabelledTexts.make(
        name,
        [text for text, _, _ in mixed],
        ["true" if true else "false" for _, true, _ in mixed],
        [group for _, _, group in mixed],
        Source(OWN, ORIGIN.format(table), (NOTE,)),
    )


@register_dataset(
    "cities",
    "labelled",
    OWN,
    "True and false statements: The city of X is in Y. Groups are pairs of countries.",
    "factual",
)
def cities(seed: int) -> LabelledTexts:
    """ "The city of X is in Y.", once true and once false, for the cities of paired countries."""
    rng = np.random.default_rng(seed)
    by_country: dict[str, list[str]] = {}
    for row in fact_table("cities.csv"):
        by_country.setdefault(row["country"], []).append(row["city"])
    rows: list[Row] = []
    for pair in partners({country: len(found) for country, found in by_country.items()}, rng):
        group = " / ".join(sorted(pair))
        for country, other in (pair, pair[::-1]):
            for city in by_country[country]:
                rows.append((f"The city of {city} is in {country}.", True, group))
                rows.append((f"The city of {city} is in {other}.", False, group))
    return _make("cities", "cities.csv", rows, rng)


@register_dataset(
    "elements",
    "labelled",
    OWN,
    "True and false statements about symbols and atomic numbers. Groups are pairs of elements.",
    "factual",
)
def elements(seed: int) -> LabelledTexts:
    """Symbol and atomic number of all 118 elements, each once true and once false."""
    rng = np.random.default_rng(seed)
    table = {row["name"]: row for row in fact_table("elements.csv")}
    rows: list[Row] = []
    for pair in partners(dict.fromkeys(table, 1), rng):
        group = " / ".join(sorted(pair))
        for name, other in (pair, pair[::-1]):
            for what, key in (("chemical symbol", "symbol"), ("atomic number", "atomic_number")):
                start = f"The {what} of {name} is"
                rows.append((f"{start} {table[name][key]}.", True, group))
                rows.append((f"{start} {table[other][key]}.", False, group))
    return _make("elements", "elements.csv", rows, rng)
