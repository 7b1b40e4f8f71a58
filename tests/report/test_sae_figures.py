"""Figures and tables of autoencoders: planted numbers arrive, baselines stand apart, nothing comes of nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic_sae as planted
from hypothesis import given
from hypothesis import strategies as st

from probes.report import RunData, build_report
from probes.report.content import verdict
from probes.report.figures import (
    best_single,
    cards,
    circuit_auc,
    circuit_maps,
    density,
    feature_effects,
    features_to_read,
    loss_kept,
    reconstruction,
    sparse_codes,
    sparse_probing,
    training,
)
from probes.report.figures.wide import is_wide
from probes.report.sae_examples import Example, around, examples_in, in_words, texts_in
from probes.report.sae_list import autoencoder_table, feature_names
from probes.report.sae_search import SearchIndex
from probes.report.sae_tables import TABLES, SaeFocus, features_of, held, saes_of
from probes.report.theme import ACCENT, NEUTRAL
from probes.runs import RunView
from probes.tables import tidy

IDS = [
    "sae-features", "sae-concepts", "sae-probing", "sae-effects", "sae-reconstruction", "sae-loss", "sae-training",
    "sae-density", "sae-circuits", "sae-circuit-heads", "sae-csr",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return RunData.of(RunView(planted.write_sae_run(tmp_path_factory.mktemp("sae"))))


def _data(tmp_path: Path, **more: Any) -> RunData:
    return RunData.of(RunView(planted.write_sae_run(tmp_path, **more)))


def _line(card: Any, name: str, axis: str = "x") -> dict[str, Any]:
    found = [
        t
        for t in card.spec["data"]
        if t.get("name") == name and "customdata" in t and t.get("xaxis", "x") == axis
    ]
    assert found, [t.get("name") for t in card.spec["data"]]
    return found[0]


def test_every_figure_in_reading_order_can_be_read_without_its_picture(run: RunData) -> None:
    drawn = cards(run)
    assert [card.id for card in drawn] == IDS
    for card in drawn:
        assert len(card.alt) > 40
        assert "nan" not in card.alt.lower(), card.alt
        assert len(card.how_to_read) > 60
        assert len(card.data) > 0
        assert "NaN" not in json.dumps(card.figure.layout.to_plotly_json(), default=str)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("train", {"sae-reconstruction", "sae-training"}),
        ("loss", {"sae-loss"}),
        ("features", {"sae-features", "sae-density"}),
        ("concepts", {"sae-concepts"}),
        ("probing", {"sae-probing"}),
        ("effects", {"sae-effects"}),
        ("circuits", {"sae-circuits", "sae-circuit-heads"}),
        ("csr", {"sae-csr"}),
    ],
)
def test_a_part_brings_its_own_figures_only(tmp_path: Path, part: str, expected: set[str]) -> None:
    data = _data(tmp_path, parts=(part,))
    assert {card.id for card in cards(data)} == expected
    assert verdict(data).headline


def test_nothing_is_drawn_from_nothing_damage_or_another_analysis(run: RunData) -> None:
    wrong = pd.DataFrame(
        {"sae": ["a", None], "feature": ["x", "y"], "value": [1.0, np.nan], "task": [1, 2]}
    )
    for frame in (wrong, pd.DataFrame(), wrong.iloc[:0]):
        data = RunData(
            tidy([]), info={"analysis": "sae"}, table_names=tuple(TABLES), read_table=lambda _, f=frame: f
        )  # fmt: skip
        assert cards(data) == []
        assert verdict(data).headline
        assert autoencoder_table(data) is None or frame is wrong
    other = RunData(run.measurements, None, run.measures, {}, run.table_names, run.read_table)
    assert not {card.id for card in cards(other)} & set(IDS)


@pytest.mark.parametrize("name", sorted(planted.TABLES))
def test_missing_intervals_rows_and_lists_are_survived(tmp_path: Path, name: str) -> None:
    path = planted.write_sae_run(tmp_path)
    file = path / "tables" / f"{name}.parquet"
    frame = pd.read_parquet(file)
    for column in frame.columns:
        if name != "sae_density" and (
            column
            in ("low", "high", "n", "seed", "k", "strength", "concept", "density", "shown", "peak")
            or column.endswith(("_low", "_high", "_tokens", "_ms"))
        ):
            frame[column] = None
    frame.iloc[::3].to_parquet(file)
    data = RunData.of(RunView(path))
    for card in cards(data):
        card.figure.to_json()
        assert "nan" not in card.alt.lower(), card.alt
    told = verdict(data)
    assert "nan" not in " ".join([told.headline, *told.sentences]).lower()


def test_reconstruction_shows_every_coder_at_its_sparsity(run: RunData) -> None:
    card = reconstruction(run)
    assert card is not None
    for name, kind in (("TopK", "topk"), ("PCA", "pca"), ("random weights", "random")):
        drawn = _line(card, name, "x2")  # layer 15; x is layer 8
        assert drawn["x"].tolist() == [32, 64]
        expected = [planted.variance(15, kind, k, 1.0) for k in (32, 64)]
        assert drawn["y"] == pytest.approx(expected)
        assert drawn["error_y"]["array"] == pytest.approx([0.008, 0.008])
    assert _line(card, "random weights")["line"]["color"] == NEUTRAL


def test_loss_kept_and_the_loss_itself(run: RunData) -> None:
    card = loss_kept(run)
    assert card is not None
    kept, loss = card.spec["data"]
    shares = [100 * planted.recovered(kind, 1.0) for kind in ("topk", "pca", "neurons", "random")]
    assert kept["x"] == pytest.approx(shares)
    assert loss["x"][-3:] == pytest.approx(list(planted.CE.values()))


def test_training_and_density(run: RunData) -> None:
    curves, histogram = training(run), density(run, SaeFocus(feature=7))
    assert curves is not None
    assert histogram is not None
    assert (
        _line(curves, planted.MAIN)["line"]["width"] > _line(curves, planted.WIDE)["line"]["width"]
    )
    bars = _line(histogram, "autoencoder")
    own = planted.density_table(1.0)
    own = own[(own["sae"] == planted.MAIN) & (own["coder"] == "sae")]
    full = own["features"].to_numpy()
    assert [n for n in bars["y"] if n] == [n for n in full if n]
    assert len(bars["y"]) < len(full)  # no empty decades
    mark = histogram.spec["layout"]["shapes"][0]["x0"]
    assert mark == pytest.approx(np.log10(features_of(run, SaeFocus())[7]["density"]))
    assert "Dashed: the picked feature" in histogram.how_to_read
    plain = density(run)
    assert plain is not None
    assert "shapes" not in plain.spec["layout"]
    assert "Dashed" not in plain.how_to_read
    low, high = plain.spec["layout"]["xaxis"]["range"]
    assert all(low <= at <= high for at in plain.spec["layout"]["xaxis"]["tickvals"])
    assert not any("e" in text for text in plain.spec["layout"]["xaxis"]["ticktext"])
    assert not is_wide(plain.spec)


def test_panels_that_say_nothing_are_left_out(run: RunData) -> None:
    """Planted: TopK has as many active features at every step, and no penalty."""
    card = training(run)
    assert card is not None
    titles = [note["text"] for note in card.spec["layout"]["annotations"]]
    assert titles[:2] == ["variance unexplained", "dead features"]
    assert "Left out, because it never changed: active features." in card.how_to_read
    assert "penalty" not in card.how_to_read


def test_words_of_one_feature_and_one_sparsity(tmp_path: Path) -> None:
    path = planted.write_sae_run(tmp_path)
    file = path / "tables" / "sae_features.parquet"
    frame = pd.read_parquet(file)
    frame["shown"] = frame["shown"].where(frame["feature"] == 7)
    frame.loc[frame["feature"] == 7, "up_tokens"] = json.dumps(['",', " &quot;"])
    frame.to_parquet(file)
    rows = pd.read_parquet(path / "measurements.parquet")
    rows[~rows["variant"].fillna("").str.contains("k=64")].to_parquet(path / "measurements.parquet")
    data = RunData.of(RunView(path))
    card = features_to_read(data)
    assert card is not None
    assert card.title.startswith("1 feature to read")
    text = "\n".join(note["text"] for note in card.spec["layout"]["annotations"])
    assert "“&#34;,”" in text
    assert "“&amp;quot;”" in text
    words = "\n".join(verdict(data).sentences)
    assert "1 feature to read: 7 (" in words
    assert "Only 1 of 240 can be read" in words
    assert "more tokens, more steps" in words
    quality = reconstruction(data)
    assert quality is not None
    assert "Broken lines" not in quality.how_to_read
    assert "PCA, single neurons and" in quality.how_to_read
    assert is_wide(card.spec)


def test_whiskers_of_concepts_stay_inside(tmp_path: Path) -> None:
    path = planted.write_sae_run(tmp_path)
    file = path / "tables" / "sae_concepts.parquet"
    frame = pd.read_parquet(file)
    frame["low"] = 0.2
    frame.to_parquet(file)
    card = best_single(RunData.of(RunView(path)))
    assert card is not None
    assert card.spec["layout"]["xaxis"]["range"][0] < 0.2


def test_search_shows_what_it_found() -> None:
    """The strongest example does not hold the word; another does, far from its peak."""
    far = ["begin", *[f" filler{i}" for i in range(20)], " needle", " end"]
    rows = [
        {"quantile": "top", "feature": 3, "rank": rank, "tokens": json.dumps(tokens),
         "values": json.dumps([5.0 - rank] + [0.1] * (len(tokens) - 1)), "peak": 0, "activation": 5.0}
        for rank, tokens in enumerate((["only", " hay"], far))
    ]  # fmt: skip
    promoted = [f" up{i}" for i in range(9)]
    feature = {"up_tokens": json.dumps(promoted), "concept": "colour", "dataset": None}
    index = SearchIndex.of({3: feature}, pd.DataFrame(rows))
    assert "needle" in index.search("needle")[0][0].shown
    assert "«begin» filler0" in index.search("begin")[0][0].shown
    assert index.search("up8")[0][0].shown.startswith("“up8” “up0”")
    assert index.search("colour")[0][0].shown == "colour: «only» hay"


def test_features_to_read_carry_their_examples(run: RunData) -> None:
    card = features_to_read(run)
    assert card is not None
    text = "\n".join(note["text"] for note in card.spec["layout"]["annotations"])
    assert text.count("<b>") == 10 + 10 * 6  # a title each, and the peak of six examples
    assert f'<b><span style="color:{ACCENT.lower()}"> Paris</span></b>' in text
    assert feature_names(run) == [str(f) for f in planted.READ]
    assert set(card.data["quantile"]) == set(planted.QUANTILES)


def test_concepts_effects_and_their_picked_feature(run: RunData) -> None:
    card = best_single(run, SaeFocus(feature=7))
    assert card is not None
    assert _line(card, "autoencoder")["x"] == pytest.approx(list(planted.CONCEPTS.values()))
    ring = next(t for t in card.spec["data"] if t.get("name") == "picked feature")
    assert len(ring["x"]) == 4
    effects = feature_effects(run, SaeFocus(feature=23))
    assert effects is not None
    own, control = _line(effects, "feature"), _line(effects, "random feature")
    assert own["x"][0] == pytest.approx(-0.3)
    assert control["x"][0] == pytest.approx(-0.006)
    assert set(own["marker"]["color"]) == {ACCENT}
    assert sum(t.get("name") == "picked feature" for t in effects.spec["data"]) == 2  # both panels


def test_a_feature_that_does_what_random_ones_do_is_not_marked(tmp_path: Path) -> None:
    card = feature_effects(_data(tmp_path, strength=0.0, parts=("effects",)))
    assert card is not None
    assert ACCENT not in _line(card, "feature")["marker"]["color"]
    assert "0 of 10 features differ" in card.alt


def test_probing_circuits_and_codes_hold_their_tables(run: RunData) -> None:
    card = sparse_probing(run)
    assert card is not None
    line = _line(card, "autoencoder")
    assert line["x"].tolist() == list(planted.KS)
    assert line["y"][0] == pytest.approx(0.94)
    assert any(s["y0"] == pytest.approx(0.98) for s in card.spec["layout"]["shapes"])  # dense
    auc = circuit_auc(run)
    assert auc is not None
    seeds, means = auc.spec["data"][:2]
    assert len(seeds["y"]) == 4 * 2 * planted.SEEDS
    assert means["y"][0] == pytest.approx(0.84)
    maps = circuit_maps(run)
    assert maps is not None
    truth, score = (np.asarray(t["z"]) for t in maps.spec["data"][:2])
    for block, head in planted.IN_CIRCUIT:
        assert truth[head, block] == planted.effect(block, head)
        assert score[head, block] > 0.6
    codes = sparse_codes(run)
    assert codes is not None
    assert _line(codes, "sparse code (CSR)")["x"].tolist() == [8, 16, 32, 64]
    assert _line(codes, "sparse code (CSR)", "x2")["x"].tolist() == [48, 96, 192, 384]
    assert len(_line(codes, "sparse code (CSR)", "x3")["x"]) == 4  # the time of a query


def test_the_main_autoencoder_comes_first(run: RunData) -> None:
    assert saes_of(run) == [planted.MAIN, planted.WIDE, planted.EARLY]
    table = autoencoder_table(run)
    assert table is not None
    assert table.rows[0][:3] == (planted.MAIN, "240", "32.0")
    assert "sae/L15-topk-k32" in table.note


def test_search_prefers_whole_tokens_and_needs_every_word(run: RunData) -> None:
    examples = held(run, "sae_examples")
    assert examples is not None
    index = SearchIndex.of(features_of(run, SaeFocus()), examples[examples["quantile"] == "top"])
    found, total = index.search("her")
    assert (found[0].feature, found[0].where) == (58, "promotes")
    assert total == 1
    assert [f.feature for f in index.search("says king")[0]] == [112]
    assert index.search("king nowhere") == ([], 0)
    assert index.search("   ") == ([], 0)
    found, total = index.search("text number", 5)
    assert len(found) == 5
    assert total == 234  # every feature that is not dead


@given(
    st.text()
    | st.none()
    | st.integers()
    | st.lists(st.text()).map(json.dumps)
    | st.just("[" * 100_000)
)
def test_lists_of_unknown_origin_give_texts_or_nothing(found: Any) -> None:
    assert all(isinstance(text, str) for text in texts_in(found))


@given(
    st.lists(st.tuples(st.text(max_size=8), st.floats(0, 9)), min_size=1, max_size=30), st.data()
)
def test_the_peak_is_always_in_what_is_shown(
    tokens: list[tuple[str, float]], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(tokens) - 1))
    example = Example(
        "top", tuple(t for t, _ in tokens), tuple(v for _, v in tokens), at, tokens[at][1]
    )
    shown = around(example, 10, 10)
    assert sum(peak for _, _, peak in shown) == 1
    assert "«" in in_words(example)


def test_broken_examples_are_left_out() -> None:
    good = {
        "quantile": "top",
        "rank": 0,
        "peak": 99,
        "activation": None,
        "tokens": '["a", "b"]',
        "values": "[1, 3]",
    }
    bad = [
        {**good, "tokens": "["},
        {**good, "values": "[1]"},
        {**good, "values": "{}"},
        {**good, "tokens": "[1, 2]"},
    ]
    kept = examples_in(pd.DataFrame([*bad, good]))
    assert [len(v) for v in kept.values()] == [1]
    assert kept["top"][0].peak == 1  # the highest, where the table names a place that is not there
    assert kept["top"][0].activation == 3


def test_hostile_texts_are_inert_in_every_figure_and_the_report(tmp_path: Path) -> None:
    path = planted.write_sae_run(tmp_path, hostile=True)
    for card in cards(RunData.of(RunView(path))):
        drawn = json.dumps(card.figure.to_plotly_json(), default=str)
        for bad in ("<script", "<img", "<a ", "%{x}"):
            assert bad not in drawn, card.id
    text = build_report(path).read_text(encoding="utf-8")
    assert "<img" not in text.split("<main>")[1].split("<script")[0]
