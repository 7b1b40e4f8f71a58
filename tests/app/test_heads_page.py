"""The Heads and Circuits pages: full, partial, hostile, broken and foreign runs; linked heads and tasks; two runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import synthetic_circuits
import synthetic_collapse
import synthetic_heads
from streamlit.testing.v1 import AppTest

FAST = ("retrieval", "ablation", "single", "types")


@pytest.fixture
def page(overview: Any) -> Any:
    """Opens the page of heads or circuits."""

    def open_page(name: str = "heads", **query: str) -> AppTest:
        at = overview(**query).switch_page(f"../pages/{name}.py").run()
        assert not at.exception, [e.message for e in at.exception]
        return at

    return open_page


@pytest.fixture
def heads(runs: Path) -> Path:
    return synthetic_heads.write_heads_run(runs)


@pytest.fixture
def circuits(runs: Path) -> Path:
    return synthetic_circuits.write_circuits_run(runs)


def _charts(at: AppTest) -> list[dict[str, Any]]:
    return [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]


def _titles(at: AppTest) -> str:
    return "\n".join(chart["layout"]["title"]["text"].replace("<br>", " ") for chart in _charts(at))


def _texts(at: AppTest) -> str:
    return "\n".join(text.value for text in at.text)


def _html(at: AppTest) -> str:
    return "\n".join(held.value for held in at.get("html"))


def _frames(chart: dict[str, Any]) -> list[tuple[float, float]]:
    """Cells with a frame around them: block, head."""
    return [
        (shape["x0"] + 0.47, shape["y0"] + 0.46)
        for shape in chart["layout"].get("shapes", [])
        if shape["type"] == "rect"
    ]


def test_heads_show_verdict_table_map_and_the_best_head(heads: Path, page: Any) -> None:
    at = page()
    assert "6 of 270 heads (2.2\xa0% [1.8, 2.6]) score as retrieval heads" in _html(at)
    assert list(at.dataframe[0].value["head"].astype(str))[:3] == ["16.3", "12.1", "20.7"]
    assert "Head 16.3, the best one" in _html(at)
    assert "rank 1 of 270" in _texts(at)
    assert "Retrieval score of every head" in _titles(at)
    assert "Heads by retrieval score" in _titles(at)


@pytest.mark.parametrize(
    ("show", "titles"),
    [
        ("Ablation", ["ablating the best heads", "by length and depth", "Effect of each single head"]),
        ("Types and attention", ["Types of heads", "Shapes of attention"]),
        ("Weights", ["strongest pairs", "Composition between blocks", "Singular values", "How many directions"]),
    ],
)  # fmt: skip
def test_each_section_of_heads(heads: Path, page: Any, show: str, titles: list[str]) -> None:
    at = page(show=show, head="12.1")
    for title in titles:
        assert title in _titles(at)
    assert "Retrieval score of every head" not in _titles(at)


def test_a_picked_head_is_linked_everywhere_and_cleared(heads: Path, page: Any) -> None:
    at = page(head="12.1")
    assert at.selectbox(key="head").value == "12.1"
    assert pytest.approx((12, 1)) in _frames(_charts(at)[0])
    assert at.session_state["summary-smollm2-heads"]["selection"]["rows"] == [1]
    assert "rank 2 of 270" in _texts(at)
    assert "Ablated alone" in _texts(at)
    at.selectbox(key="measure").set_value("induction_score").run()
    assert "Induction score of every head" in _titles(at)
    assert pytest.approx((12, 1)) in _frames(_charts(at)[0])
    next(b for b in at.button if b.label == "Clear selection").click().run()
    assert not at.exception
    assert not _frames(_charts(at)[0])
    assert "the best one" in _html(at)


def test_the_strip_outlines_the_needle_and_leaves_out_what_gets_nothing(
    heads: Path, page: Any
) -> None:
    at = page(head="16.3")
    strip = next(h.value for h in at.get("html") if 'role="figure"' in h.value)
    assert strip.count("outline:2px") == 2
    assert ">copper</span>" in strip
    assert "⋯ 32 tokens" in strip
    assert "needle: 0.620" in strip
    at.segmented_control(key="token-smollm2-heads").set_value("1").run()
    strip = next(h.value for h in at.get("html") if 'role="figure"' in h.value)
    assert "needle: 0.620" in strip.split("copper")[1]
    at.selectbox(key="head").set_value("0.0").run()
    assert not at.exception
    assert "attention of this head was not kept" in _html(at)


@pytest.mark.parametrize(
    ("circuit", "titles"),
    [
        ("Tasks", ["Does the model do the tasks?", "Where the answer appears"]),
        ("Attribution", ["Direct logit attribution of every head, greater than", "What each part adds"]),
        ("Patching", ["patching a layer brings back, greater than", "patching each head", "Attribution patching (y)"]),
        ("Few heads", ["How few heads keep the task, greater than"]),
        ("Label words", ["label words"]),
        ("Graph of words", ["How the graph of words", "Words of the graph"]),
        ("Neurons", ["Neurons of the MLPs"]),
    ],
)  # fmt: skip
def test_each_section_of_circuits(
    circuits: Path, page: Any, circuit: str, titles: list[str]
) -> None:
    at = page("circuits", circuit=circuit, task="greater than", head="8.1")
    assert "The model does 2 of 3 tasks" in _html(at)
    for title in titles:
        assert title in _titles(at)
    if circuit == "Attribution":
        assert pytest.approx((8, 1)) in _frames(_charts(at)[0])
    assert at.session_state["summary-smollm2-circuits"]["selection"]["rows"] == [1]


@pytest.mark.parametrize("query", [
    {"head": "99.99"}, {"head": "<script>"}, {"task": "x"}, {"show": "x"}, {"measure": "![x](http://evil.example)"},
])  # fmt: skip
def test_nonsense_in_the_url_is_ignored(
    heads: Path, circuits: Path, page: Any, query: dict[str, str]
) -> None:
    at = page(run="smollm2-heads", **query)
    assert at.selectbox(key="head").value is None
    assert "Retrieval score of every head" in _titles(at)
    at = page("circuits", run="smollm2-circuits", **query)
    assert at.selectbox(key="task").value == "ioi"


def test_a_choice_that_another_run_lacks_is_forgotten(
    heads: Path, circuits: Path, page: Any
) -> None:
    at = page(run="smollm2-heads", head="29.8")
    at.selectbox(key="run").set_value("smollm2-circuits").run()
    at = at.switch_page("../pages/circuits.py").run()
    assert not at.exception
    assert at.selectbox(key="head").value is None


def test_what_does_not_apply_gives_its_reason(runs: Path, page: Any) -> None:
    synthetic_heads.write_heads_run(runs, "a", parts=("retrieval",))
    at = page(run="a", show="Ablation")
    assert not _charts(at)
    assert "Not measured: ablation, because the model has no language-model head." in _texts(at)
    synthetic_circuits.write_circuits_run(runs, "b", parts=("lens",))
    at = page("circuits", run="b", circuit="Patching")
    assert "Not measured: patching of indirect object, because" in _texts(at)


def test_two_runs_side_by_side_share_their_colours(heads: Path, runs: Path, page: Any) -> None:
    synthetic_heads.write_heads_run(runs, "weak", strength=0.0, parts=FAST)
    at = page(run="smollm2-heads", **{"with": "weak"})
    maps = [c for c in _charts(at) if "of every head" in c["layout"]["title"]["text"]]
    assert len(maps) == 2
    assert maps[0]["layout"]["coloraxis"]["cmax"] == maps[1]["layout"]["coloraxis"]["cmax"]
    assert "not shown to hurt more than random heads" in _html(at)
    assert _html(at).count('role="figure"') == 2


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
@pytest.mark.parametrize("parts", [(), ("retrieval", "lens")])
def test_unfinished_runs(runs: Path, page: Any, status: str, parts: tuple[str, ...]) -> None:
    synthetic_heads.write_heads_run(runs, "a", status=status, parts=parts)
    synthetic_circuits.write_circuits_run(runs, "b", status=status, parts=parts)
    at, other = page(run="a"), page("circuits", run="b")
    assert ("of every head" in _titles(at)) == bool(parts)
    assert ("Where the answer appears" in _titles(other)) == bool(parts)
    if status != "running":
        assert "out of memory" in _texts(at)
        assert "out of memory" in _texts(other)


def test_no_runs_broken_runs_and_damaged_tables(runs: Path, page: Any, synthetic: Any) -> None:
    assert "fathometer run retrieval-heads" in page().code[0].value
    assert "fathometer run circuits" in page("circuits").code[0].value
    synthetic.break_run(synthetic_heads.write_heads_run(runs, "broken", parts=FAST))
    assert page(run="broken").error
    path = synthetic_heads.write_heads_run(runs, "damaged", parts=FAST)
    (path / "tables" / "attention_rows.parquet").write_bytes(b"no parquet")
    at = page(run="damaged")
    assert "of every head" in _titles(at)
    assert "No attention rows were kept" in _html(at)


def test_other_analyses_lead_elsewhere_and_back(heads: Path, runs: Path, page: Any) -> None:
    synthetic_collapse.write_collapse_run(runs)
    at = page(run="minilm-collapse")
    assert not _charts(at)
    assert any("has not looked for retrieval heads" in info.value for info in at.info)
    next(b for b in at.button if b.label.startswith("Open")).click().run()
    assert not at.exception
    assert "of every head" in _titles(at)
    at = page("circuits", run="minilm-collapse")
    assert any("has not traced circuits" in info.value for info in at.info)


def test_hostile_names_and_tokens_are_inert(runs: Path, page: Any) -> None:
    synthetic_heads.write_heads_run(runs, "a", hostile=True, parts=("retrieval", "ablation"))
    synthetic_circuits.write_circuits_run(runs, "b", hostile=True)
    opened = [page(run="a"), page(run="a", show="Weights")]
    opened += [
        page("circuits", run="b", circuit=name) for name in ("Tasks", "Patching", "Graph of words")
    ]
    for at in opened:
        assert "<script" not in _html(at)
        assert "<img" not in _html(at)
        assert not any("evil.example" in held.value for held in [*at.markdown, *at.caption])
        for chart in _charts(at):
            assert "<script" not in json.dumps(chart)
            assert "<img" not in json.dumps(chart)


def test_the_overview_shows_studies_in_short(heads: Path, circuits: Path, overview: Any) -> None:
    at = overview(run="smollm2-heads")
    assert "score as retrieval heads" in _html(at)
    assert len(_charts(at)) == 1
    at = overview(run="smollm2-circuits")
    assert "The model does 2 of 3 tasks" in _html(at)
    assert len(_charts(at)) == 1
