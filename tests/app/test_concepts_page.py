"""The Concepts page on full, small, half-written, hostile, foreign and empty runs; picking, comparing, examples."""

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

ROOT = Path(__file__).parents[2]


def _charts(at: AppTest) -> list[dict[str, Any]]:
    return [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]


def _titles(at: AppTest) -> str:
    return "\n".join(chart["layout"]["title"]["text"].replace("<br>", " ") for chart in _charts(at))


def _texts(at: AppTest) -> str:
    return "\n".join(text.value for text in at.text)


def _pick(at: AppTest, name: str | None) -> AppTest:
    at.selectbox(key="concept").set_value(name).run()
    assert not at.exception, [e.message for e in at.exception]
    return at


@pytest.fixture
def small(studies: Any, runs: Path) -> Path:
    return studies.write_small_concept_run(runs)


def test_a_study_shows_verdict_table_and_curves(small: Path, concepts_page: Any) -> None:
    at = concepts_page()
    assert any("are readable before the last layer" in html.value for html in at.get("html"))
    table = at.dataframe[0].value
    assert [name.split(" ")[0] for name in table["concept"]] == [
        "cities",
        "years",
        "sentiment",
        "coin-flip",
        "agreement",
    ]
    assert table["bag of words"].dtype == float
    assert at.selectbox(key="concept").value is None
    assert len(_charts(at)) == 1
    assert "Concept depth" in _titles(at)


def test_no_budget_where_nothing_is_chosen(
    small: Path, synthetic: Any, runs: Path, concepts_page: Any
) -> None:
    at = concepts_page(run="minilm-concepts")
    assert not at.slider
    assert not at.select_slider
    synthetic.make_run(runs, "chosen", min_quality=0.9)
    at = concepts_page(run="minilm-concepts")
    at.selectbox(key="run").set_value("chosen").run()
    assert at.slider(key="keep").value == 90.0
    at.selectbox(key="run").set_value("minilm-concepts").run()
    assert not at.slider
    at.selectbox(key="with").set_value("chosen").run()
    assert not at.exception
    assert at.slider(key="keep").value == 90.0


def test_a_picked_concept_shows_its_own_figures(small: Path, concepts_page: Any) -> None:
    at = _pick(concepts_page(), "cities")
    for words in (
        "cities under every condition",
        "online code",
        "number of labels",
        "Erasing",
        "Causal effect",
    ):
        assert words in _titles(at)
    assert {m.label: m.value for m in at.metric}["Examples"] == "600"
    _pick(at, "years")
    assert "R² of years" in _titles(at)
    assert "magnitude" in _titles(at)
    assert "Causal effect" not in _titles(at)
    assert any("Not measured for this concept" in caption.value for caption in at.caption)
    next(b for b in at.button if b.label == "Clear selection").click().run()
    assert at.selectbox(key="concept").value is None
    assert not at.metric


def test_the_url_names_the_concept(small: Path, concepts_page: Any) -> None:
    at = concepts_page(concept="sentiment", layer="2", figures="Depths")
    assert at.selectbox(key="concept").value == "sentiment"
    assert at.slider(key="layer").value == 2
    assert "Depth of every concept" in _titles(at)


@pytest.mark.parametrize("query", [
    {"concept": "<script>"}, {"concept": "![x](http://evil.example)"}, {"figures": "x"}, {"layer": "99"},
    {"concept": "cities", "layer": "-1"}, {"concept": "cities", "layer": "x"},
])  # fmt: skip
def test_nonsense_in_the_url_is_ignored(
    small: Path, concepts_page: Any, query: dict[str, str]
) -> None:
    at = concepts_page(**query)
    known = query.get("concept") == "cities"
    assert at.selectbox(key="concept").value == ("cities" if known else None)
    assert "Concept depth" in _titles(at)


def test_the_table_follows_the_picked_concept(small: Path, concepts_page: Any) -> None:
    at = _pick(concepts_page(), "sentiment")
    held = at.session_state["summary-minilm-concepts"]["selection"]["rows"]
    assert held == [2]


def test_a_click_means_the_concept_of_its_panel_or_row(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "app"))
    from panels.linked import clickable, linked

    from probes.report import RunData
    from probes.report.figures import cards
    from probes.report.study import Study
    from probes.runs import RunView

    data = RunData.of(RunView(small))
    study = Study.of(data)
    assert study is not None
    found = {card.id: clickable(card) for card in cards(data)}
    picked: list[str | None] = []
    for name in ("concept-depth", "concept-mdl"):
        card = found[name]
        assert card is not None
        click = linked(card, study, picked.append)
        assert click is not None
        panels = {
            trace.get("xaxis", "x"): at
            for at, trace in enumerate(card.spec["data"])
            if len(trace["x"]) > 1
        }
        for at in panels.values():
            click([{"curve_number": at, "x": 1, "y": 0.5}])
        assert len(set(picked)) == len(panels) > 2
        assert set(picked) <= {concept.name for concept in study.concepts}
        picked.clear()
    click = linked(found["concept-depths"], study, picked.append)
    assert click is not None
    for row in range(5):
        click([{"curve_number": 0, "x": 1, "y": row}])
    click([])
    assert sorted(str(name) for name in picked[:5]) == sorted(c.name for c in study.concepts)
    assert picked[5] is None
    matrix = found["concept-transfer"]
    assert matrix is not None
    assert [trace["type"] for trace in matrix.spec["data"]] == ["heatmap", "scatter"]
    assert linked(matrix, study, picked.append) is not None


@pytest.mark.parametrize("question", ["Curves", "Depths", "Conditions", "Effort", "Transfer", "Directions", "Erasure",
                                      "Behaviour", "Over time", "Layer mix"])  # fmt: skip
def test_every_question_has_its_figures(small: Path, concepts_page: Any, question: str) -> None:
    at = concepts_page(figures=question)
    assert _charts(at)
    assert at.get("download_button")


def test_examples_show_what_a_layer_gets_wrong(small: Path, concepts_page: Any) -> None:
    at = _pick(concepts_page(), "cities")
    made = pd.read_parquet(small / "tables" / "predictions.parquet").query("concept == 'cities'")
    wide = made.pivot(index="layer", columns="example", values="correct")
    for layer in (0, 3, 5):
        at.slider(key="layer").set_value(layer).run()
        assert not at.exception
        wanted = wide.columns[wide.loc[6] & ~wide.loc[layer]]
        tables = [frame.value for frame in at.dataframe[1:]]
        shown = set(tables[0]["example"]) if tables else set()
        assert shown == set(wanted)
        assert f"{len(wanted)} of 12 examples" in _texts(at)
    _pick(at, "years")
    assert at.slider(key="layer").value != 5


def test_predictions_are_read_only_for_a_picked_concept(small: Path, concepts_page: Any) -> None:
    (small / "tables" / "predictions.parquet").unlink()
    at = _pick(concepts_page(), "cities")
    assert any("No examples with predictions" in caption.value for caption in at.caption)
    assert not [s for s in at.slider if s.key == "layer"]


def test_two_runs_share_limits(studies: Any, small: Path, runs: Path, concepts_page: Any) -> None:
    weak = [c for c in studies.SMALL if c.name in ("cities", "years")]
    studies.write_small_concept_run(runs, "second", concepts=weak, n_layers=4)
    at = _pick(concepts_page(run="minilm-concepts", **{"with": "second"}), "cities")
    by_title: dict[str, list[Any]] = {}
    for chart in _charts(at):
        by_title.setdefault(chart["layout"]["title"]["text"], []).append(chart["layout"])
    pairs = [pair for pair in by_title.values() if len(pair) == 2]
    assert len(pairs) >= 4
    assert all(a["yaxis"].get("range") == b["yaxis"].get("range") for a, b in pairs)
    _pick(at, "sentiment")
    assert "did not measure this concept" in _texts(at)


def test_the_full_run(studies: Any, runs: Path, concepts_page: Any) -> None:
    studies.write_concept_run(runs)
    at = _pick(concepts_page(), "entity-tracking")
    assert "after each sentence" in _titles(at)
    assert len(at.dataframe[0].value) == 14


@pytest.mark.parametrize(
    "parts",
    [(), ("curves",), ("curves", "controls"), ("depths",), ("curves", "conditions"), ("tables",)],
)
@pytest.mark.parametrize("status", ["running", "finished", "failed"])
def test_half_written_runs(
    studies: Any, runs: Path, concepts_page: Any, parts: tuple[str, ...], status: str
) -> None:
    studies.write_small_concept_run(runs, parts=parts, status=status)
    at = concepts_page()
    said = "\n".join(e.value for kind in (at.info, at.error) for e in kind)
    if status == "running":
        assert "not finished" in said
    elif status == "failed":
        assert "not finished (failed)" in said
        assert any("--resume minilm-concepts" in code.value for code in at.code)
    elif not parts:
        assert any("fathometer run concept-depth" in code.value for code in at.code)
    names = [name for box in at.selectbox if box.key == "concept" for name in box.options]
    if names:
        _pick(at, names[0])


@pytest.mark.parametrize("name", ["concepts", "depth_tests", "transfer", "erasure", "causal", "over_time", "scalar_mix",
                                  "examples", "predictions"])  # fmt: skip
def test_damaged_or_odd_tables_are_no_traceback(small: Path, concepts_page: Any, name: str) -> None:
    path = small / "tables" / f"{name}.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    at = _pick(concepts_page(), "cities")
    pd.DataFrame({"concept": ["cities"], "layer": ["x"]}).to_parquet(path)
    at.run()
    assert not at.exception


def test_new_tables_of_a_live_run_are_seen(studies: Any, runs: Path, concepts_page: Any) -> None:
    path = studies.write_small_concept_run(runs, status="running", tables=())
    at = concepts_page()
    assert "family" in at.dataframe[0].value.columns
    assert set(at.dataframe[0].value["family"].fillna("–")) == {"–"}
    done = studies.write_small_concept_run(runs, "done")
    shutil.copy(done / "tables" / "concepts.parquet", path / "tables")
    at.selectbox(key="run").set_value(path.name).run()
    assert not at.exception
    assert "factual" in set(at.dataframe[0].value["family"])


def test_a_run_of_another_analysis_points_elsewhere(
    synthetic: Any, studies: Any, runs: Path, concepts_page: Any
) -> None:
    synthetic.make_run(runs, "chosen")
    at = concepts_page(run="chosen")
    assert "has not measured concepts" in at.info[0].value
    assert any("fathometer run concept-depth --model minilm" in code.value for code in at.code)
    studies.write_small_concept_run(runs)
    at = concepts_page(run="chosen")
    next(b for b in at.button if b.label == "Open minilm-concepts").click().run()
    assert at.selectbox(key="run").value == "minilm-concepts"
    assert len(_charts(at)) == 1


def test_no_runs_says_what_to_do(runs: Path, concepts_page: Any) -> None:
    at = concepts_page()
    assert any("fathometer run concept-depth --model minilm" in code.value for code in at.code)


def test_overview_points_here_and_stays_light(small: Path, overview: Any) -> None:
    at = overview()
    assert len(_charts(at)) == 1
    assert not at.slider
    assert not at.dataframe
    assert at.get("page_link")


def test_hostile_text_never_reaches_markdown(
    studies: Any, synthetic: Any, runs: Path, concepts_page: Any
) -> None:
    studies.write_small_concept_run(runs, hostile=True)
    at = concepts_page()
    for name in at.selectbox(key="concept").options[:2]:
        _pick(at, name)
        kinds = [
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
        said = [element.value for kind in kinds for element in kind]
        said += [str(f) for m in at.metric for f in (m.label, m.value, m.delta, m.help)]
        said += [str(toast.value) for toast in at.toast]
        assert not [text for text in said if "evil" in text and ("](" in text or "<" in text)]
        assert not [
            html.value for html in at.get("html") if "<img" in html.value or "<script" in html.value
        ]
        charts = json.dumps(_charts(at))
        assert "<img" not in charts
        assert "<script" not in charts
    assert any(synthetic.HOSTILE[:20] in str(frame.value) for frame in at.dataframe)


def test_the_page_needs_no_torch(small: Path, runs: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, '.'); from streamlit.testing.v1 import AppTest\n"
        "at = AppTest.from_file('app/start/main.py', default_timeout=120).run()\n"
        "at.switch_page('../pages/concepts.py').run(); assert not at.exception\n"
        "at.selectbox(key='concept').set_value('cities').run()\n"
        "assert not at.exception and len(at.get('plotly_chart')) > 5\n"
        "bad = {'torch', 'transformers', 'sklearn'} & set(sys.modules); assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
