"""report.html, report.md and measurements.csv: complete, self-contained, and inert against hostile text."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from probes.errors import RunError
from probes.report import RunData, build_report
from probes.report.html import csv_text, data_block
from probes.report.markdown import escape
from probes.report.verdict import verdict
from probes.runs import RunView


class _Page(HTMLParser):
    """Elements, scripts and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.text = ""
        self._script: dict[str, str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.elements.append((tag, found))
        if tag == "script":
            self._script = found

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts.append((self._script, data))
            self._script = None
        else:
            self.text += data


@pytest.fixture(scope="module")
def page(full_run: Path) -> _Page:
    return _Page(build_report(full_run).read_text(encoding="utf-8"))


def test_the_decision_comes_first_and_in_plain_words(page: _Page) -> None:
    headings = [tag for tag, _ in page.elements if tag in ("h1", "h2")]
    assert headings[0] == "h1"
    start = page.text.index("Stop after layer 4 of 6 and keep 256 of 384 dimensions (translated)")
    assert start < page.text.index("Figures") < page.text.index("How this was made")
    for words in (
        "On the untouched test part",
        "shows with 95\u00a0% confidence that it keeps at least",
        "times as fast",
    ):
        assert words in page.text
    for baseline in ("last layer", "depth 1/2", "depth 2/3", "depth 3/4"):
        assert baseline in page.text
    assert "fathometer run exit-layers --model minilm --data stsb_dev" in page.text


def test_every_script_is_allowed_by_its_hash_and_plotly_is_there_once(page: _Page) -> None:
    policy = next(
        e["content"]
        for t, e in page.elements
        if t == "meta" and "Content-Security-Policy" in str(e)
    )
    assert "default-src 'none'" in policy
    assert "'unsafe-eval'" not in policy
    assert "script-src 'unsafe-inline'" not in policy
    code = [
        text for attributes, text in page.scripts if attributes.get("type") != "application/json"
    ]
    assert sum("plotly.js v" in text for text in code) == 1
    for text in code:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_nothing_is_fetched(page: _Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("iframe", "object", "embed", "base")
        for key in ("src", "href", "action", "srcset", "data"):
            assert attributes.get(key, "data:").startswith("data:"), (tag, attributes)


def test_figures_have_titles_descriptions_and_downloads(page: _Page) -> None:
    figures = [e["id"] for t, e in page.elements if t == "figure"]
    assert len(figures) == 5
    for name in figures:
        json.loads(next(text for a, text in page.scripts if a.get("id") == f"{name}-json"))
        plot = next(e for t, e in page.elements if e.get("id") == f"{name}-plot")
        assert plot["role"] == "img"
        assert len(plot["aria-label"]) > 40
        link = next(e for t, e in page.elements if e.get("download") == f"{name}.csv")
        table = pd.read_csv(io.BytesIO(base64.b64decode(link["href"].split(",", 1)[1])))
        assert len(table) > 0
        assert any(t == "button" and e.get("data-figure") == name for t, e in page.elements)


def test_measurements_csv_holds_the_table(full_run: Path) -> None:
    build_report(full_run)
    table = pd.read_csv(full_run / "measurements.csv")
    view = RunView(full_run).measurements
    assert len(table) == len(view)
    assert table["value"].sum() == pytest.approx(view["value"].sum())


def test_markdown_says_the_same(full_run: Path) -> None:
    build_report(full_run)
    text = (full_run / "report.md").read_text(encoding="utf-8")
    assert "## Stop after layer 4 of 6" in text
    assert "| **chosen** |" in text


def test_hostile_text_is_inert(synthetic: Any, tmp_path: Path) -> None:
    path = synthetic.make_run(tmp_path, dataset=synthetic.HOSTILE, model=synthetic.HOSTILE)
    decision = json.loads((path / "decision.json").read_text())
    decision["caveats"] = [synthetic.HOSTILE, "</script><script>alert(2)</script>"]
    decision["baselines"][0]["name"] = synthetic.HOSTILE
    decision["reason"] = decision["pooling"] = synthetic.HOSTILE
    (path / "decision.json").write_text(json.dumps(decision))
    page = _Page(build_report(path).read_text(encoding="utf-8"))
    assert not any(tag == "img" for tag, _ in page.elements)
    assert all(not e.get("href", "").startswith(("http", "javascript")) for _, e in page.elements)
    code = [text for a, text in page.scripts if a.get("type") != "application/json"]
    assert len(code) == 2  # Plotly and the page's own
    assert "\u202e" not in page.text
    markdown = (path / "report.md").read_text(encoding="utf-8")
    markdown = re.sub(r"```\n.*?\n```", "", markdown, flags=re.S)  # a fence shows what is in it
    assert "<script" not in markdown.replace("\\<", "")
    assert not re.search(r"(?<!\\)!\[", markdown)


def test_infeasible_gives_the_reason(synthetic: Any, tmp_path: Path) -> None:
    data = RunData.of(RunView(synthetic.make_run(tmp_path, min_quality=0.999)))
    found = verdict(data)
    assert found.kind == "infeasible"
    assert "99.9" in found.headline
    assert "full model" in found.sentences[0]
    assert found.table is not None
    assert found.table.rows[0][0] == "last layer"


@pytest.mark.parametrize(
    ("status", "headline"),
    [
        ("failed", "This run failed"),
        ("interrupted", "This run was interrupted"),
        ("running", "This run is not finished"),
    ],
)
def test_unfinished_runs_are_shown_as_such(
    synthetic: Any, tmp_path: Path, status: str, headline: str
) -> None:
    path = synthetic.make_run(tmp_path, status=status, parts=("grid",))
    page = _Page(build_report(path).read_text(encoding="utf-8"))
    assert headline in page.text


def test_a_broken_run_is_refused_in_one_line(synthetic: Any, tmp_path: Path) -> None:
    path = synthetic.break_run(synthetic.make_run(tmp_path))
    with pytest.raises(RunError, match=r"no report of 'minilm-stsb': run\.json cannot be read"):
        build_report(path)
    assert not (path / "report.html").exists()


@pytest.mark.parametrize("decision", [
    {}, {"status": "chosen"}, {"status": "chosen", "layer": "three", "dim": None}, {"status": 3, "baselines": "x"},
    {"status": "chosen", "layer": 2, "dim": 64, "test": [1], "baselines": [None, 3, {}], "caveats": "no list"},
])  # fmt: skip
def test_a_damaged_decision_does_not_stop_the_report(
    synthetic: Any, tmp_path: Path, decision: dict[str, Any]
) -> None:
    path = synthetic.make_run(tmp_path, parts=("grid",))
    (path / "decision.json").write_text(json.dumps(decision))
    assert build_report(path).stat().st_size > 1_000_000


def test_a_report_is_replaced_not_appended(full_run: Path) -> None:
    first = build_report(full_run).read_bytes()
    assert build_report(full_run).read_bytes() == first
    assert not list(full_run.glob(".*"))


def test_data_blocks_cannot_be_left() -> None:
    value = {"a": "</script><!-- <script> & ]]>"}
    block = str(data_block(value))
    assert "<" not in block
    assert json.loads(block) == value


def test_csv_formulas_are_disarmed() -> None:
    frame = pd.DataFrame({"variant": ["=1+1", "@x", "fine", None], "value": [1.0, -2.0, 3.0, 4.0]})
    lines = csv_text(frame).splitlines()
    assert lines[1:] == ["'=1+1,1.0", "'@x,-2.0", "fine,3.0", ",4.0"]


@pytest.mark.parametrize(
    "text", ["![x](http://a/b.png)", "<img src=x>", "[a](javascript:b)", "a | b", "`c`", "# d\n# e"]
)
def test_markdown_shows_text_as_it_is(text: str) -> None:
    escaped = escape(text)
    assert "\n" not in escaped
    assert not re.search(r"(?<![\\&])[<\[`|#]", escaped)
