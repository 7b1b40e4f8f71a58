"""The public development sets beside the checkout: every format in them is read, and the facts agree."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from probes.datasets import components, four_parts, load_dataset
from probes.datasets.facts import fact_table

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(
    not SHARED.is_dir(),
    reason=f"the shared development data are not at {SHARED.name}/ beside the checkout",
)

# file -> kind, rows as its README says
SETS = {
    "truth/cities.csv": ("labelled", 1496),
    "truth/counterfact.csv": ("labelled", 4032),
    "truth/truthfulqa.csv": ("minimal-pairs", 500),
    "classification/sst2_dev.csv": ("labelled", 872),
    "classification/tweet_emotion.csv": ("labelled", 3229),
    "longtext/imdb_counterfactual.csv": ("labelled", 2800),
    "pairs/paws.csv": ("pairs", 4000),
    "pairs/blimp.csv": ("minimal-pairs", 4355),
    "probing/ud_tokens.jsonl": ("token-labels", 1200),
    "sts/stsb_dev.csv": ("pairs", 1500),
    "sts/stsb_multilingual.csv": ("pairs", 2100),
    "retrieval/scifact": ("retrieval", 500),
    "retrieval/xquad": ("retrieval", 1725),
    "retrieval/nq_oracle": ("retrieval", 1000),
    "retrieval/limit_small": ("retrieval", 1000),
}


@pytest.mark.parametrize("name", SETS)
def test_every_format_is_read(name: str) -> None:
    data = load_dataset(SHARED / name)
    assert (data.kind, len(data)) == SETS[name]


@pytest.mark.parametrize(
    "name", ["sts/stsb_dev.csv", "retrieval/scifact", "retrieval/xquad", "truth/cities.csv"]
)
def test_real_sets_split_at_their_shares(name: str) -> None:
    data = load_dataset(SHARED / name)
    parts = four_parts(data, np.random.default_rng(0))
    assert np.allclose(np.array(parts.sizes()) / len(data), (0.4, 0.2, 0.2, 0.2), atol=0.01)
    assert parts.warnings == ()
    component = components(data)
    seen = [
        set(component[p].tolist()) for p in (parts.fit, parts.tune, parts.calibrate, parts.test)
    ]
    assert sum(map(len, seen)) == len(set.union(*seen))


def test_cities_agree_with_the_gazetteers() -> None:
    """Our own table of cities against two others, where they know the city."""
    known: dict[str, set[str]] = defaultdict(set)
    for name, city, country in (
        ("facts/cities.csv", "city", "country"),
        ("truth/cities.csv", "city", "correct_country"),
        ("facts/countries.csv", "capital", "country"),
    ):
        with (SHARED / name).open(encoding="utf-8", newline="") as handle:
            for row in csv.DictReader(handle):
                known[row[city]].add(row[country].lower().removeprefix("the "))
    same = {"cabo verde": "cape verde", "czechia": "czech republic", "timor leste": "east timor"}
    checked = 0
    for row in fact_table("cities.csv"):
        countries = {same.get(name, name) for name in known.get(row["city"], ())}
        if countries:
            checked += 1
            assert row["country"].lower().removeprefix("the ") in countries, row
    assert checked > 400


def test_elements_agree_with_the_table() -> None:
    with (SHARED / "facts/elements.csv").open(encoding="utf-8", newline="") as handle:
        theirs = {int(row["atomic_number"]): row["symbol"] for row in csv.DictReader(handle)}
    assert {
        int(row["atomic_number"]): row["symbol"] for row in fact_table("elements.csv")
    } == theirs
