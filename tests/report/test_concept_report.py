"""The report of a concept study: its words follow from its numbers, and it stays inert and readable."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from probes.report import RunData, build_report
from probes.report.concepts import depth_test_table, given_away, headline
from probes.report.content import compose, datasets_text
from probes.report.figures.concept_conditions import condition_changes
from probes.report.study import PROBE, Study, variant_words
from probes.report.verdict import verdict
from probes.runs import RunView
from probes.tables import tidy

L = 30


@pytest.fixture(scope="module")
def data(concept_run: Path) -> RunData:
    return RunData.of(RunView(concept_run))


def _study(data: RunData) -> Study:
    study = Study.of(data)
    assert study is not None
    return study


def test_the_headline_counts_what_was_planted(planted: Any, data: RunData) -> None:
    early = [c for c in planted.CONCEPTS if c.readable and c.depth(L) < L]
    heights = {c.name: [c.value(k, L) for k in range(L + 1)] for c in planted.CONCEPTS}
    below = [
        c for c in planted.CONCEPTS if max(heights[c.name]) - c.half(max(heights[c.name])) <= c.bag
    ]
    assert (
        [c.name for c in given_away(_study(data))]
        == [c.name for c in below]
        == ["coin-flip", "topics"]
    )
    found = verdict(data)
    assert found.kind == "found"
    assert found.headline == (
        f"{len(early)} of 14 concepts are readable before the last layer; "
        f"{len(below)} never rise above a bag of words"
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cities"], ("1 of 1 concept is", "every one rises")),
        (["coin-flip", "cities"], ("1 of 2 concepts is", "1 never rises")),
        (["coin-flip"], ("0 of 1 concept is", "1 never rises")),
    ],
)
def test_the_headline_is_a_sentence_for_few_concepts(
    data: RunData, names: list[str], expected: tuple[str, str]
) -> None:
    study = _study(data)
    some = replace(study, concepts=tuple(c for c in study.concepts if c.name in names))
    early, above = expected
    words = f"{early} readable before the last layer; {above} above a bag of words"
    assert headline(some) == words


def test_without_a_bag_of_words_none_is_claimed() -> None:
    rows = [
        {"measure": "accuracy", "concept": "a", "layer": k, "value": 0.5 + k / 10, "n": 100}
        for k in range(4)
    ]
    found = verdict(RunData(tidy(rows)))
    assert found.headline == "0 of 1 concept is readable before the last layer"
    assert "bag of words" not in " ".join(found.sentences)


def test_the_sentences_name_extremes_and_failures(data: RunData) -> None:
    told = " ".join(verdict(data).sentences)
    assert "earliest is part-of-speech (robust depth 8 of 30), latest entity-tracking (25)" in told
    assert "No layer rises above a bag of words for coin-flip and topics." in told
    assert "No depth could be given to coin-flip." in told
    assert "Untrained weights reach none of the peaks." in told
    frame = data.table("depth_tests")
    assert frame is not None
    assert f"Of {len(frame)} pairs of concepts, {frame['deeper'].notna().sum()} differ" in told


def test_use_by_the_model_is_told_by_what_goes_beyond_random_directions(data: RunData) -> None:
    told = next(s for s in verdict(data).sentences if "used by the model" in s)
    frame = data.table("causal")
    assert frame is not None
    for concept in frame["concept"].unique():
        (row,) = frame[(frame["concept"] == concept) & (frame["treatment"] == "leace")].to_dict(
            "records"
        )
        use = "is" if row["over_random_high"] < 0 else "is not shown to be"
        assert f"{concept} {use} used" in told.lower()
        assert f"{row['over_random']:.2f}".replace("-", "−") in told


def test_the_table_has_a_row_per_concept_with_its_numbers(planted: Any, data: RunData) -> None:
    table = verdict(data).table
    assert table is not None
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert len(rows) == 14
    cities = next(c for c in planted.CONCEPTS if c.name == "cities")
    peak, half = cities.value(cities.peak(L), L), cities.half(cities.value(cities.peak(L), L))
    assert rows["cities"] | {} == {
        "concept": "cities",
        "family": "factual",
        "n": "600",
        "chance": "0.50",
        "bag of words": "0.52",
        "peak": f"{peak:.2f} [{peak - half:.2f}, {peak + half:.2f}]",
        "at layer": str(cities.peak(L)),
        "robust depth": f"{cities.depth(L)} [{cities.depth(L) - 2}, {cities.depth(L) + 1}]",
        "selectivity": rows["cities"]["selectivity"],
        "MDL depth": str(cities.peak(L)),
        "compression": f"{1 + 6 * (peak - 0.5) ** 1.5:.1f}×",
    }
    kept = data.measurements
    own = kept[(kept["concept"] == "cities") & (kept["measure"] == "selectivity")]
    at_peak = own[own["layer"] == cities.peak(L)]["value"].iloc[0]
    assert rows["cities"]["selectivity"] == f"{at_peak:.2f}"
    assert rows["years (R²)"]["MDL depth"] == "–"
    assert (
        "¹ Not above bag of words; never rises above chance. ² Not above bag of words."
        in table.note
    )
    assert {"coin-flip ¹", "topics ²"} <= set(rows)


def test_tests_are_told_with_the_deeper_concept_first(data: RunData) -> None:
    table = depth_test_table(data)
    frame = data.table("depth_tests")
    assert table is not None
    assert frame is not None
    assert len(table.rows) == 20
    assert "Showing 20" in table.note
    known = {(r["a"], r["b"]): r for r in frame.to_dict("records")}
    for deeper, depth, other, shallow, gap, span, _ in table.rows:
        row = known.get((deeper, other)) or known[other, deeper]
        assert row["deeper"] == deeper
        assert int(depth) - int(shallow) == int(gap) == abs(row["difference"]) > 0
        low, high = (int(v.replace("−", "-")) for v in span.strip("[]").split(","))
        assert low < int(gap) < high


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("running", "This run is not finished"),
        ("failed", "This run failed"),
        ("interrupted", "This run was interrupted"),
    ],
)
def test_an_unfinished_study_says_so_and_shows_what_it_has(
    planted: Any, tmp_path: Path, status: str, words: str
) -> None:
    path = planted.write_small_concept_run(tmp_path, status=status, parts=("curves", "controls"))
    found = verdict(RunData.of(RunView(path)))
    assert found.headline == words
    assert found.table is not None
    assert len(found.table.rows) == 5
    assert build_report(path).stat().st_size > 1_000_000


def test_a_study_may_hold_nothing_yet(planted: Any, tmp_path: Path) -> None:
    path = planted.write_small_concept_run(tmp_path, status="running", parts=())
    data = RunData.of(RunView(path))
    assert Study.of(data) is None
    assert compose(data, path.name).figures == []
    assert build_report(path).is_file()


def test_many_datasets_are_counted_in_the_title_and_listed_in_one_table(
    concept_run: Path, data: RunData
) -> None:
    report = compose(data, concept_run.name)
    assert report.head.title == "smollm2 on 14 datasets"
    tables = [table for table in report.provenance if table.title.startswith("Data")]
    assert len(tables) == 1
    assert len(tables[0].rows) == 14
    assert datasets_text({"datasets": [{"name": name} for name in "abc"]}) == "a, b, c"


def test_a_study_reads_what_was_written(planted: Any, data: RunData) -> None:
    study = _study(data)
    assert [c.name for c in study.concepts] == [c.name for c in planted.CONCEPTS]
    assert study.n_layers == L
    assert study.families == ["factual", "emotional", "inferential", "linguistic"]
    for concept, plan in zip(study.concepts, planted.CONCEPTS, strict=True):
        assert (concept.n, concept.chance, concept.measure) == (plan.n, plan.chance, plan.measure)
        bag, peak = study.bag_of_words(concept), study.peak(concept)
        assert bag is not None
        assert bag.value == plan.bag
        assert peak is not None
        assert peak.layer == plan.peak(L)
        assert set(study.conditions(concept)) == set(planted.CONDITIONS)
        depth = study.depth(concept)
        assert (depth and depth.value) == (plan.depth(L) if plan.readable else None)
        shaken = study.level(concept, "robust_depth", "noise=shuffle")
        assert (shaken and shaken.value) == (plan.depth(L, 0.8) if plan.readable else None)


def test_variants_are_told_in_words() -> None:
    for variant in (
        PROBE,
        "bag-of-words",
        "control-task",
        "noise=swap",
        "shots=4",
        "template=1",
        "tau=0.9",
    ):
        assert "=" not in variant_words(variant)
        assert variant_words(variant) != variant or variant == PROBE


def test_the_report_holds_everything_and_stays_inert(planted: Any, tmp_path: Path) -> None:
    path = planted.write_small_concept_run(tmp_path, hostile=True)
    page = build_report(path).read_text(encoding="utf-8")
    body = re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.S)
    assert "<img" not in body
    assert "<script" not in body
    assert "\u202e" not in page
    assert len(re.findall(r'<figure id="concept-', page)) == 14
    for link in re.findall(r'download="concept-[a-z-]+\.csv" href="data:[^,]+,([^"]+)"', page):
        assert len(pd.read_csv(io.BytesIO(base64.b64decode(link)))) > 0
    for block in re.findall(
        r'<script type="application/json"[^>]*>(.*?)</script>', page, flags=re.S
    ):
        json.loads(block)
    markdown = (path / "report.md").read_text(encoding="utf-8")
    markdown = re.sub(r"```\n.*?\n```", "", markdown, flags=re.S)
    assert "<script" not in markdown.replace("\\<", "")
    assert not re.search(r"(?<!\\)!\[", markdown)


@pytest.mark.browser
def test_titles_of_panels_do_not_run_into_each_other(
    browsing: Any, chrome: Any, concept_run: Path
) -> None:
    report = build_report(concept_run)
    guard = browsing.Guard()
    boxes_of = """name => [...document.querySelectorAll(`figure#${name} .annotation-text-g`)].map(node => {
        const box = node.getBoundingClientRect();
        return [node.textContent, box.left, box.right, box.top, box.bottom];
    })"""
    viewport = {"width": 800, "height": 900}
    with browsing.page_of(chrome, guard, color_scheme="light", viewport=viewport) as page:
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-drawn=true]", state="attached")
        for name in (
            "concept-depth",
            "concept-conditions",
            "concept-mdl",
            "concept-scalar-mix",
            "concept-erasure",
        ):
            boxes = page.evaluate(boxes_of, name)
            assert len(boxes) > 8, name
            for a, b in combinations(boxes, 2):
                apart = a[2] <= b[1] or b[2] <= a[1] or a[4] <= b[3] + 3 or b[4] <= a[3] + 3
                assert apart, (name, a, b)
    assert guard.found == []


@pytest.mark.browser
def test_a_hostile_study_draws_and_stays_silent(
    browsing: Any, chrome: Any, planted: Any, tmp_path: Path
) -> None:
    report = build_report(planted.write_small_concept_run(tmp_path, hostile=True))
    guard = browsing.Guard()
    with browsing.page_of(chrome, guard, color_scheme="dark") as page:
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-drawn=true]", state="attached")
        assert page.locator(".plot .main-svg").count() >= 14
        for plot in page.locator(".plot").all():
            plot.hover()
        page.wait_for_timeout(200)
    assert guard.found == []


@pytest.mark.parametrize("claim", [True, False])
def test_the_paired_test_of_the_run_decides_over_the_intervals(data: RunData, claim: bool) -> None:
    def read(name: str) -> pd.DataFrame:
        table = data.table(name)
        assert table is not None
        return table.assign(above_bag=claim) if name == "concepts" else table

    study = _study(replace(data, read_table=read))
    assert given_away(study) == ([] if claim else list(study.concepts))


def test_conditions_without_plain_curves_have_no_figure(data: RunData) -> None:
    rows = data.measurements
    only_conditions = rows[rows["variant"].notna() | rows["layer"].isna()]
    assert condition_changes(data) is not None
    assert condition_changes(replace(data, measurements=only_conditions)) is None
