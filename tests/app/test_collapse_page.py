"""The Collapse page, and the Overview of layer quality: full, partial, hostile, broken and foreign runs; two runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import synthetic_collapse
import synthetic_quality
from streamlit.testing.v1 import AppTest


@pytest.fixture
def page(overview: Any) -> Any:
    """Opens the Collapse page."""

    def open_page(**query: str) -> AppTest:
        at = overview(**query).switch_page("../pages/collapse.py").run()
        assert not at.exception, [e.message for e in at.exception]
        return at

    return open_page


@pytest.fixture
def small(runs: Path) -> Path:
    return synthetic_collapse.write_collapse_run(runs)


def _charts(at: AppTest) -> list[dict[str, Any]]:
    return [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]


def _titles(at: AppTest) -> str:
    return "\n".join(chart["layout"]["title"]["text"].replace("<br>", " ") for chart in _charts(at))


def _texts(at: AppTest) -> str:
    return "\n".join(text.value for text in at.text)


def _html(at: AppTest) -> str:
    return "\n".join(held.value for held in at.get("html"))


def test_a_study_shows_verdict_table_and_length(small: Path, page: Any) -> None:
    at = page()
    assert "Embeddings collapse with length" in _html(at)
    assert "4 of 7 layers" in _texts(at)
    assert list(at.dataframe[0].value["layer"]) == list(range(7))
    assert "Mean cosine between texts" in _titles(at)
    assert len(_charts(at)) == 2
    assert "dataset" not in [box.key for box in at.selectbox]


@pytest.mark.parametrize(
    ("part", "titles"),
    [
        ("Temperature and remedies", ["attention temperature", "Chosen τ", "What remedies change", "Late chunking"]),
        ("Spectra", ["Spread of states"]),
        ("Index size", ["Recall against index size, layer 6"]),
        ("Head and mask", ["directions the head needs", "beside [MASK]"]),
    ],
)  # fmt: skip
def test_each_section_shows_its_figures(
    small: Path, page: Any, part: str, titles: list[str]
) -> None:
    at = page(part=part)
    for title in titles:
        assert title in _titles(at)
    assert "Mean cosine between texts" not in _titles(at)


def test_a_picked_layer_is_linked_everywhere(small: Path, page: Any) -> None:
    at = page(at="3", part="Index size")
    assert at.selectbox(key="at").value == "3"
    assert "layer 3" in _titles(at)
    assert at.session_state["summary-minilm-collapse"]["selection"]["rows"] == [3]
    at.selectbox(key="at").set_value("5").run()
    assert "layer 5" in _titles(at)
    next(b for b in at.button if b.label == "Clear selection").click().run()
    assert not at.exception
    assert at.selectbox(key="at").value is None
    assert "layer 6" in _titles(at)


@pytest.mark.parametrize("query", [
    {"at": "99"}, {"at": "<script>"}, {"at": "-1"}, {"part": "x"}, {"dataset": "![x](http://evil.example)"},
])  # fmt: skip
def test_nonsense_in_the_url_is_ignored(small: Path, page: Any, query: dict[str, str]) -> None:
    at = page(**query)
    assert at.selectbox(key="at").value is None
    assert "Mean cosine between texts" in _titles(at)


def test_what_does_not_apply_gives_its_reason(runs: Path, page: Any) -> None:
    synthetic_collapse.write_collapse_run(runs, parts=("length", "mask"))
    at = page(part="Head and mask")
    assert "Not measured: bottleneck, because the model has no such head." in _texts(at)
    assert "beside [MASK]" in _titles(at)
    at = page(part="Index size")
    assert not _charts(at)
    assert "Not measured: index" in _texts(at)


def test_two_runs_side_by_side_share_their_axes(small: Path, runs: Path, page: Any) -> None:
    synthetic_collapse.write_collapse_run(runs, "flat", n_layers=4, strength=0.0)
    at = page(run="minilm-collapse", **{"with": "flat"})
    charts = [c for c in _charts(at) if "Mean cosine" in c["layout"]["title"]["text"]]
    assert len(charts) == 2
    assert charts[0]["layout"]["yaxis"]["range"] == charts[1]["layout"]["yaxis"]["range"]
    assert "No collapse with length" in _html(at)


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
@pytest.mark.parametrize("parts", [(), ("length",)])
def test_unfinished_runs(runs: Path, page: Any, status: str, parts: tuple[str, ...]) -> None:
    synthetic_collapse.write_collapse_run(runs, status=status, parts=parts)
    at = page()
    assert ("Mean cosine" in _titles(at)) == bool(parts)
    if status != "running":
        assert "out of memory" in _texts(at)


def test_no_runs_a_broken_run_and_damaged_tables(runs: Path, page: Any, synthetic: Any) -> None:
    assert "fathometer run embedding-collapse" in page().code[0].value
    synthetic.break_run(synthetic_collapse.write_collapse_run(runs, "broken"))
    assert page(run="broken").error
    path = synthetic_collapse.write_collapse_run(runs, "damaged")
    (path / "tables" / "length.parquet").write_bytes(b"no parquet")
    at = page(run="damaged")
    assert "Change of mean cosine" in _titles(at)
    assert "Mean cosine between" not in _titles(at)


def test_other_analyses_lead_elsewhere_and_back(small: Path, runs: Path, page: Any) -> None:
    synthetic_quality.write_quality_run(runs)
    at = page(run="minilm-quality")
    assert not _charts(at)
    assert any("has not looked for collapse" in info.value for info in at.info)
    next(b for b in at.button if b.label.startswith("Open")).click().run()
    assert not at.exception
    assert "Mean cosine between texts" in _titles(at)


def test_hostile_names_are_inert(runs: Path, page: Any, overview: Any) -> None:
    synthetic_collapse.write_collapse_run(runs, "a", hostile=True, parts=("length", "remedies"))
    synthetic_quality.write_quality_run(runs, "b", hostile=True, datasets=("x", "y"))
    opened = [page(run="a", part=part) for part in ("Length", "Temperature and remedies")]
    opened += [overview(run="b", view=view) for view in ("Quality and diagnostics", "Blocks")]
    for at in opened:
        assert "<script" not in _html(at)
        assert not any("evil.example" in held.value for held in [*at.markdown, *at.caption])
        for chart in _charts(at):
            assert "<script" not in json.dumps(chart)


def test_the_overview_shows_a_study_in_short(small: Path, overview: Any) -> None:
    at = overview()
    assert "Embeddings collapse with length" in _html(at)
    assert len(_charts(at)) == 1
    assert not at.slider


@pytest.mark.parametrize(
    ("view", "titles"),
    [
        ("Quality and diagnostics", ["nDCG@10 over layers", "Which diagnostics go with quality"]),
        ("Every diagnostic", ["Label-free measures"]),
        ("Layers side by side", ["Similarity of layers", "Singular values"]),
        ("Blocks", ["Influence of each block", "kept without some blocks", "High-frequency gain"]),
    ],
)
def test_the_overview_of_layer_quality(
    runs: Path, overview: Any, view: str, titles: list[str]
) -> None:
    synthetic_quality.write_quality_run(runs, datasets=("docstrings", "scifact"))
    at = overview(view=view, at="2")
    assert "is best by labels on docstrings" in _html(at)
    for title in titles:
        assert title in _titles(at)
    at.selectbox(key="dataset").set_value("scifact").run()
    assert not at.exception
    if view != "Blocks":
        assert "scifact" in json.dumps(_charts(at))


@pytest.mark.parametrize("parts", [(), ("metrics",), ("blocks",)])
@pytest.mark.parametrize("status", ["running", "finished"])
def test_half_a_study_of_layer_quality(
    runs: Path, overview: Any, parts: tuple[str, ...], status: str
) -> None:
    synthetic_quality.write_quality_run(runs, parts=parts, status=status)
    at = overview()
    if not parts:
        assert "No figure can be drawn yet." in _texts(at)


def test_exit_runs_are_shown_beside_layer_quality(
    runs: Path, overview: Any, synthetic: Any
) -> None:
    synthetic.make_run(runs, "exits")
    synthetic_quality.write_quality_run(runs)
    at = overview(run="exits", **{"with": "minilm-quality"})
    assert "Which diagnostics go with quality" in _titles(at)
    assert "by layer and dimensions" in _titles(at)
