"""The Overview page on full, empty, half-written, broken and vanished runs; budget, URL and figures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from probes.exits.walk import Budget, walk_chains
from probes.runs import RunView


def _metrics(at: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in at.metric}


def _texts(at: AppTest) -> str:
    return "\n".join(text.value for text in at.text)


def _charts(at: AppTest) -> list[dict[str, Any]]:
    return [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]


def _expected(path: Path, budget: Budget) -> str | None:
    view = RunView(path)
    return walk_chains(
        view.table("chains"), view.table("share_draws"), view.table("losses"), budget
    ).chosen


def test_a_full_run_shows_decision_and_figures(synthetic: Any, runs: Path, overview: Any) -> None:
    synthetic.make_run(runs)
    at = overview()
    shown = _metrics(at)
    assert shown["Exit (translated)"] == "4 × 256"
    assert set(shown) == {
        "Exit (translated)",
        "Quality kept",
        "Quality",
        "Time per text",
        "Speed-up",
        "Confidence",
    }
    assert len(_charts(at)) == 5
    assert "untouched test part" in _texts(at)
    assert len(at.get("download_button")) >= 6


@pytest.mark.parametrize("keep", [60.0, 80.0, 90.0, 99.0, 100.0])
def test_the_slider_recomputes_the_choice_as_the_walk_does(
    synthetic: Any, runs: Path, overview: Any, keep: float
) -> None:
    path = synthetic.make_run(runs)
    at = overview()
    at.slider(key="keep").set_value(keep).run()
    assert not at.exception
    expected = _expected(path, Budget(keep / 100))
    if expected is None:
        assert "No exit keeps this budget" in at.warning[0].value
        assert not at.metric
    else:
        variant, cell = expected.split(":")
        assert _metrics(at)[f"Exit ({variant})"] == cell.replace("x", " × ")


def test_confidence_matters(synthetic: Any, runs: Path, overview: Any) -> None:
    path = synthetic.make_run(runs)
    keep, chosen = next(
        (keep, names)
        for keep in range(60, 100)
        if len(names := {_expected(path, Budget(keep / 100, confidence=c)) for c in (0.8, 0.99)})
        == 2
    )
    at = overview(keep=str(float(keep)))
    seen = set()
    for sure in (80, 99):
        at.select_slider(key="sure").set_value(sure).run()
        assert not at.exception
        seen |= {label for label in _metrics(at).values() if " × " in label}
    assert seen == {name.split(":")[1].replace("x", " × ") for name in chosen if name}


def test_the_budget_starts_where_the_run_was_made(
    synthetic: Any, runs: Path, overview: Any
) -> None:
    synthetic.make_run(runs, min_quality=0.9)
    assert overview().slider(key="keep").value == 90.0


def test_the_url_sets_run_budget_and_cell(synthetic: Any, runs: Path, overview: Any) -> None:
    synthetic.make_run(runs, "first")
    synthetic.make_run(runs, "second")
    at = overview(run="first", keep="80.0", cell="raw:2x64")
    assert at.selectbox(key="run").value == "first"
    assert at.slider(key="keep").value == 80.0
    assert at.selectbox(key="cell").value == "raw:2x64"
    assert at.selectbox(key="state").value == "raw"
    assert _metrics(at)["Picked"] == "2 × 64"


@pytest.mark.parametrize("query", [
    {"run": "../../etc"}, {"run": "missing"}, {"cell": "raw:99x1"}, {"cell": "<script>"}, {"keep": "1e9"},
    {"keep": "x"}, {"sure": "100"}, {"with": "minilm-stsb"}, {"state": "![x](http://evil.example)"},
])  # fmt: skip
def test_nonsense_in_the_url_is_ignored(
    synthetic: Any, runs: Path, overview: Any, query: dict[str, str]
) -> None:
    synthetic.make_run(runs)
    assert _metrics(overview(**query))["Exit (translated)"] == "4 × 256"


def test_picking_marks_the_cell_everywhere_and_clearing_unmarks_it(
    synthetic: Any, runs: Path, overview: Any
) -> None:
    synthetic.make_run(runs)
    at = overview()
    before = _charts(at)
    at.selectbox(key="cell").set_value("centred:1x32").run()
    assert "picked" in json.dumps(_charts(at))
    assert _metrics(at)["Picked"] == "1 × 32"
    assert at.selectbox(key="state").value == "centred"
    next(b for b in at.button if b.label == "Clear selection").click().run()
    assert at.selectbox(key="cell").value is None
    assert "picked" not in json.dumps(_charts(at))
    assert len(before) == len(_charts(at))


def test_the_map_can_be_clicked(synthetic: Any, runs: Path, overview: Any) -> None:
    """Every cell has its invisible square with the cell's name, as a list."""
    synthetic.make_run(runs)
    heat = _charts(overview())[0]
    squares = next(t for t in heat["data"] if t["type"] == "scatter")
    assert squares["marker"]["opacity"] == 0
    names = [entry[0] for entry in squares["customdata"]]
    assert "translated:4x256" in names
    assert len(names) == len(set(names)) == len(squares["x"]) == 6 * 7
    assert heat["layout"]["dragmode"] is False
    assert heat["layout"]["xaxis"]["fixedrange"] is True


def test_two_runs_share_colour_limits(synthetic: Any, runs: Path, overview: Any) -> None:
    synthetic.make_run(runs, "first")
    synthetic.make_run(runs, "second", n_layers=4, d=64)
    at = overview(run="first", **{"with": "second"})
    maps = [c for c in _charts(at) if any(t["type"] == "heatmap" for t in c["data"])]
    assert len(maps) == 2
    assert (
        len({(c["layout"]["coloraxis"]["cmin"], c["layout"]["coloraxis"]["cmax"]) for c in maps})
        == 1
    )


def test_no_runs_says_what_to_do(runs: Path, overview: Any) -> None:
    at = overview()
    assert any("fathometer demo" in code.value for code in at.code)


def test_a_missing_folder_of_runs_is_no_traceback(runs: Path, overview: Any) -> None:
    runs.rmdir()
    assert any("fathometer demo" in code.value for code in overview().code)


@pytest.mark.parametrize(
    "parts",
    [(), ("latency",), ("grid",), ("grid", "latency", "metrics"), ("decision",), ("tables",)],
)
@pytest.mark.parametrize("status", ["running", "finished", "failed", "interrupted"])
def test_half_written_runs_are_shown_as_such(
    synthetic: Any, runs: Path, overview: Any, parts: tuple[str, ...], status: str
) -> None:
    synthetic.make_run(runs, parts=parts, status=status)
    at = overview()
    said = "\n".join(e.value for kind in (at.info, at.error, at.warning) for e in kind)
    if status == "running":
        assert "not finished" in said
        assert "measuring the grid (3 of 7)" in _texts(at)
    elif status in ("failed", "interrupted"):
        assert f"not finished ({status})" in said
        assert "out of memory" in _texts(at)
        assert any("--resume minilm-stsb" in code.value for code in at.code)


def test_a_broken_run_is_named_with_its_problem(synthetic: Any, runs: Path, overview: Any) -> None:
    synthetic.break_run(synthetic.make_run(runs))
    at = overview()
    assert "cannot be read" in at.error[0].value
    assert "run.json cannot be read" in _texts(at)


@pytest.mark.parametrize("name", ["measurements.parquet", "decision.json", "measures.json", "tables/chains.parquet",
                                  "tables/share_draws.parquet"])  # fmt: skip
def test_damaged_parts_are_no_traceback(
    synthetic: Any, runs: Path, overview: Any, name: str
) -> None:
    path = synthetic.make_run(runs)
    (path / name).write_bytes((path / name).read_bytes()[:100])
    overview()


def test_tables_of_another_shape_are_no_traceback(
    synthetic: Any, runs: Path, overview: Any
) -> None:
    path = synthetic.make_run(runs)
    pd.DataFrame({"a": [1]}).to_parquet(path / "tables" / "chains.parquet")
    assert "cannot be used" in _texts(overview())


def test_a_run_deleted_while_shown(synthetic: Any, runs: Path, overview: Any) -> None:
    synthetic.make_run(runs, "stays")
    path = synthetic.make_run(runs, "goes")
    at = overview(run="goes")
    shutil.rmtree(path)
    at.run()
    assert not at.exception
    assert at.selectbox(key="run").value == "stays"


def test_a_live_run_is_followed(synthetic: Any, runs: Path, overview: Any) -> None:
    synthetic.make_run(runs, status="running", parts=("latency",))
    at = overview()
    assert len(_charts(at)) == 1
    shutil.rmtree(runs / "minilm-stsb")
    synthetic.make_run(runs)
    at.run()
    assert not at.exception
    assert len(_charts(at)) == 5


def test_max_loss_runs_get_the_other_slider(synthetic: Any, runs: Path, overview: Any) -> None:
    path = synthetic.make_run(runs)
    decision = json.loads((path / "decision.json").read_text())
    decision["budget"] = {"min_quality": 0.95, "max_loss": 0.1}
    (path / "decision.json").write_text(json.dumps(decision))
    at = overview()
    assert at.slider(key="lose").value == 0.1
    expected = _expected(path, Budget(max_loss=0.1))
    assert expected is not None
    assert expected.split(":")[1].replace("x", " × ") in _metrics(at).values()


def test_hostile_text_never_reaches_markdown(synthetic: Any, runs: Path, overview: Any) -> None:
    path = synthetic.make_run(
        runs, dataset=synthetic.HOSTILE, model=synthetic.HOSTILE, status="failed"
    )
    for name in ("measures.json", "decision.json", "run.json"):
        text = (path / name).read_text()
        hostile = json.dumps(synthetic.HOSTILE)[1:-1]
        for word in ("Spearman correlation", "asymptotic", "out of memory"):
            text = text.replace(word, hostile)
        (path / name).write_text(text)
    at = overview()
    interpreted = [
        at.markdown,
        at.caption,
        at.error,
        at.warning,
        at.info,
        at.success,
        at.header,
        at.subheader,
        at.title,
    ]
    said = [element.value for kind in interpreted for element in kind]
    said += [str(field) for m in at.metric for field in (m.label, m.value, m.delta, m.help)]
    assert said
    assert not [text for text in said if "evil" in text and ("](" in text or "<" in text)]


def test_the_page_needs_no_torch(synthetic: Any, runs: Path) -> None:
    synthetic.make_run(runs)
    code = (
        "import sys; from streamlit.testing.v1 import AppTest\n"
        "at = AppTest.from_file('app/start/main.py', default_timeout=120).run()\n"
        "assert not at.exception and len(at.metric) == 6\n"
        "at.switch_page('../pages/runs.py').run(); assert not at.exception\n"
        "bad = {'torch', 'transformers', 'sklearn'} & set(sys.modules); assert not bad, bad"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.path.insert(0, '.')\n" + code],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
