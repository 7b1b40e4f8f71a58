"""The Features page: full, partial, hostile, broken and foreign runs; a picked feature, search; two runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import synthetic_collapse
import synthetic_sae
from streamlit.testing.v1 import AppTest


@pytest.fixture
def page(overview: Any) -> Any:
    """Opens the page of features."""

    def open_page(**query: str) -> AppTest:
        at = overview(**query).switch_page("../pages/sae.py").run()
        assert not at.exception, [e.message for e in at.exception]
        return at

    return open_page


@pytest.fixture
def sae(runs: Path) -> Path:
    return synthetic_sae.write_sae_run(runs)


def _charts(at: AppTest) -> list[dict[str, Any]]:
    return [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]


def _titles(at: AppTest) -> str:
    return "\n".join(chart["layout"]["title"]["text"].replace("<br>", " ") for chart in _charts(at))


def _texts(at: AppTest) -> str:
    return "\n".join(text.value for text in at.text)


def _html(at: AppTest) -> str:
    return "\n".join(held.value for held in at.get("html"))


def _strip(at: AppTest) -> str:
    return next(held.value for held in at.get("html") if 'role="figure"' in held.value)


def test_it_shows_verdict_table_and_the_first_feature_to_read(sae: Path, page: Any) -> None:
    at = page()
    assert "With 32 of 240 features active, TopK explains 85.0" in _html(at)
    assert [str(f) for f in at.dataframe[0].value["feature"]] == [
        str(f) for f in synthetic_sae.READ
    ]
    assert "Feature 7, the first to read of L15 topk k=32" in _html(at)
    assert "Promotes “France” “Seine” “Louvre”; suppresses “the” “of”." in _texts(at)
    assert "How often features fire" in _titles(at)


@pytest.mark.parametrize(
    ("view", "titles"),
    [
        ("Quality", ["Variance explained", "Loss of the model", "How training"]),
        ("Concepts", ["How well a single number", "best few features"]),
        ("Effects", ["What features do in the model"]),
        ("Circuits", ["How well codes of heads", "Heads of each task"]),
        ("Sparse codes", ["Sparse codes of embeddings"]),
    ],
)
def test_each_section(sae: Path, page: Any, view: str, titles: list[str]) -> None:
    at = page(view=view, feature="23")
    for title in titles:
        assert title in _titles(at)
    assert "How often features fire" not in _titles(at)


def test_a_picked_feature_is_linked_everywhere_and_cleared(sae: Path, page: Any) -> None:
    at = page(feature="41")
    assert at.number_input(key="feature").value == 41
    assert at.session_state["summary-smollm2-sae"]["selection"]["rows"] == [2]
    assert "Feature 41 of L15" in _html(at)
    assert "Steered by 4.0: logits of promoted tokens +1.056" in _texts(at)
    next(b for b in at.button if b.label.startswith("42 (")).click().run()
    assert not at.exception
    assert at.number_input(key="feature").value == 42
    assert "Feature 42 of L15" in _html(at)
    next(b for b in at.button if b.label == "Clear selection").click().run()
    assert "the first to read" in _html(at)


def test_examples_are_shaded_by_activation_at_every_quantile(sae: Path, page: Any) -> None:
    at = page(feature="7")
    strip = _strip(at)
    assert strip.count("outline:") == 5 * 3  # quantiles, examples of each
    assert "> Paris</span>" in strip
    assert 'title="6.00"' in strip
    assert "50–75 % of its activations" in strip
    at.segmented_control(key="quantile-smollm2-sae").set_value("0–25 %").run()
    strip = _strip(at)
    assert strip.count("outline:") == 3
    assert 'title="6.00"' not in strip


def test_search_finds_by_promoted_tokens_texts_and_number(sae: Path, page: Any) -> None:
    for query, feature, where in (
        ("france", 7, "promotes"),
        ("1999", 41, "fires on"),
        ("208", 208, "number"),
    ):
        at = page(find=query)
        found = at.dataframe[1].value
        assert found["feature"][0] == feature, query
        assert found["found in"][0] == where
    at = page(find="nothing such")
    assert "No feature promotes, fires on or is labelled with nothing such" in _html(at)


@pytest.mark.parametrize("query", [
    {"feature": "9999"}, {"feature": "<script>"}, {"feature": "-3"}, {"feature": "1e3"}, {"sae": "x"}, {"view": "x"},
    {"find": "![x](http://evil.example) <img>"},
])  # fmt: skip
def test_nonsense_in_the_url_is_ignored(sae: Path, page: Any, query: dict[str, str]) -> None:
    at = page(**query)
    assert at.number_input(key="feature").value is None
    assert "Feature 7, the first to read" in _html(at)
    assert "<img" not in _html(at)


def test_a_choice_that_another_run_lacks_is_forgotten(sae: Path, runs: Path, page: Any) -> None:
    path = synthetic_sae.write_sae_run(runs, "small")
    for name in ("sae_features", "sae_models"):
        file = path / "tables" / f"{name}.parquet"
        frame = pd.read_parquet(file)
        if name == "sae_features":
            frame = frame[frame["feature"] < 50]
        frame.to_parquet(file)
    at = page(run="smollm2-sae", feature="208", sae=synthetic_sae.WIDE)
    at.selectbox(key="run").set_value("small").run()
    assert not at.exception
    assert at.number_input(key="feature").value is None


@pytest.mark.parametrize("part", synthetic_sae.PARTS)
def test_every_part_alone(runs: Path, page: Any, part: str) -> None:
    synthetic_sae.write_sae_run(runs, "a", parts=(part,))
    for view in ("Features", "Quality", "Concepts", "Effects", "Circuits", "Sparse codes"):
        page(run="a", view=view)


def test_what_does_not_apply_gives_its_reason(runs: Path, page: Any) -> None:
    synthetic_sae.write_sae_run(runs, "a", parts=("train",))
    at = page(run="a", view="Effects")
    assert not _charts(at)
    assert "Not measured: effects, because the model has no language-model head." in _texts(at)


def test_two_runs_side_by_side(sae: Path, runs: Path, page: Any) -> None:
    synthetic_sae.write_sae_run(runs, "weak", strength=0.0)
    at = page(run="smollm2-sae", **{"with": "weak"}, feature="7", find="paris")
    assert "not shown to be more than PCA" in _html(at)
    assert _html(at).count('role="figure"') == 2
    at = page(run="smollm2-sae", **{"with": "weak"}, view="Quality")
    drawn = [c for c in _charts(at) if "Variance explained" in c["layout"]["title"]["text"]]
    assert drawn[0]["layout"]["yaxis"]["range"] == drawn[1]["layout"]["yaxis"]["range"]


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
@pytest.mark.parametrize("parts", [(), ("train", "features")])
def test_unfinished_runs(runs: Path, page: Any, status: str, parts: tuple[str, ...]) -> None:
    synthetic_sae.write_sae_run(runs, "a", status=status, parts=parts)
    at = page(run="a")
    assert ("How often features fire" in _titles(at)) == bool(parts)
    if status != "running":
        assert "out of memory" in _texts(at)


def test_no_runs_broken_runs_and_damaged_tables(runs: Path, page: Any, synthetic: Any) -> None:
    assert "fathometer run sae" in page().code[0].value
    synthetic.break_run(synthetic_sae.write_sae_run(runs, "broken"))
    assert page(run="broken").error
    path = synthetic_sae.write_sae_run(runs, "damaged")
    (path / "tables" / "sae_examples.parquet").write_bytes(b"no parquet")
    at = page(run="damaged", find="france")
    assert "No examples of this feature were kept" in _html(at)
    assert at.dataframe[1].value["feature"][0] == 7
    (path / "tables" / "sae_features.parquet").write_bytes(b"no parquet")
    assert "No features were described" in _html(page(run="damaged"))


def test_other_analyses_lead_elsewhere_and_back(sae: Path, runs: Path, page: Any) -> None:
    synthetic_collapse.write_collapse_run(runs)
    at = page(run="minilm-collapse")
    assert any("has not trained a sparse autoencoder" in info.value for info in at.info)
    next(b for b in at.button if b.label.startswith("Open")).click().run()
    assert not at.exception
    assert "How often features fire" in _titles(at)


def test_hostile_names_and_tokens_are_inert(runs: Path, page: Any) -> None:
    synthetic_sae.write_sae_run(runs, "a", hostile=True)
    opened = [page(run="a", find="paris")]
    opened += [
        page(run="a", view=v)
        for v in ("Quality", "Concepts", "Effects", "Circuits", "Sparse codes")
    ]
    for at in opened:
        for bad in ("<script", "<img", "<a "):
            assert bad not in _html(at)
            assert bad not in json.dumps(_charts(at))
        assert not any("evil.example" in held.value for held in [*at.markdown, *at.caption])
        assert not any("evil.example" in button.label for button in at.button)


def test_the_overview_shows_it_in_short_and_leads_there(sae: Path, overview: Any) -> None:
    at = overview(run="smollm2-sae")
    assert "TopK explains" in _html(at)
    assert "Variance explained" in _titles(at)
