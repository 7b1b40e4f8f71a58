"""What runs of collapse and of layer quality say: the planted findings, their absence, and reports in whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import synthetic_collapse as collapse
import synthetic_quality as quality

from probes.report import RunData, build_report
from probes.report.collapse import NOT_MEASURED
from probes.report.verdict import Verdict, verdict
from probes.runs import RunView


def _said(path: Path) -> Verdict:
    return verdict(RunData.of(RunView(path)))


def _text(found: Verdict) -> str:
    return "\n".join([found.headline, *found.sentences])


def test_planted_collapse_is_told_with_its_numbers(tmp_path: Path) -> None:
    found = _said(collapse.write_collapse_run(tmp_path))
    assert found.kind == "found"
    rise = collapse.slope(6, 6)
    assert found.headline.startswith("Embeddings collapse with length")
    assert f"{rise:.3f} [{rise - 0.004:.3f}, {rise + 0.004:.3f}]" in found.headline
    assert "at the last layer (the same documents, cut)" in found.headline
    text = _text(found)
    assert "4 of 7 layers read (3 to 6), most at layer 6" in text
    first = (
        "From 16 tokens on the mean cosine at the last layer is shown to be higher than at 8 tokens"
    )
    assert f"{first} (+0.053 [0.038, 0.068] there); no other of 7 layers begins earlier." in text
    assert "25 % of the rise with real texts" in text
    assert (
        "τ = 0.80, chosen on the calibrate part, changes nDCG@10 at the last layer by +0.040"
        in text
    )
    assert (
        "Of 7 remedies 4 help at the last layer, most top 3 removed: +0.045 [0.030, 0.060]" in text
    )
    assert "Shown to do harm: whitened and Ditto pooling." in text
    assert "Late chunking is better than chunking first at the last layer: +0.060" in text
    assert "to 0.840 [0.820, 0.860] among 100,000; with 64 of 384 dimensions" in text
    lost = "64 dimensions from 1,000 documents on (−0.129 [−0.144, −0.114])"
    assert (
        f"recall at 10 at the last layer is shown to be lower by more than a hundredth with {lost}"
        in text
    )
    assert "; 128 dimensions is not shown to, at any size." in text
    assert "256 of 384 directions, for 0.04 [0.03, 0.06] bits per token more" in text
    assert (
        "Of those tried whitened lessens the collapse most: it takes 0.052 [0.047, 0.057] off the rise per doubling "
        "(leaving 0.001) and changes nDCG@10 by −0.020 [−0.035, −0.005]." in text
    )
    assert "τ = 0.50 lessens the collapse most: it takes 0.027 [0.022, 0.032] off the rise" in text
    assert "0.70 [0.67, 0.73] times" in text
    assert "Not measured" not in text
    assert "nan" not in text.lower()


def test_random_words_that_do_as_much_are_told(tmp_path: Path) -> None:
    path = collapse.write_collapse_run(tmp_path)
    frame = pd.read_parquet(path / "measurements.parquet")
    control = frame["variant"] == "random-words"
    for name in ("value", "low", "high"):
        frame.loc[control, name] = frame.loc[control, name] + 0.1
    frame.to_parquet(path / "measurements.parquet")
    assert "no less than real texts do: length alone is enough" in _text(_said(path))


def test_no_collapse_is_not_called_one(tmp_path: Path) -> None:
    found = _said(collapse.write_collapse_run(tmp_path, strength=0.0))
    assert found.headline == (
        "No collapse with length is shown at any of the 7 layers read: the mean cosine changes by 0.000 "
        "[−0.004, 0.004] per doubling at the last layer (the same documents, cut)"
    )
    assert "At none of 7 layers read" in _text(found)
    assert "no length is shown from which on" in _text(found)
    assert (
        "whitened lessens the collapse most: it takes 0.343 [0.328, 0.358] off the mean cosine"
        in _text(found)
    )
    assert "length alone is not shown to do it" in _text(found)


def _edit(path: Path, where: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Verdict:
    """What is said after a table was changed."""
    change(pd.read_parquet(path / where)).to_parquet(path / where)
    return _said(path)


def test_texts_as_they_are_are_named_where_nothing_was_cut(tmp_path: Path) -> None:
    path = collapse.write_collapse_run(tmp_path, parts=("length",))
    found = _edit(path, "measurements.parquet", lambda rows: rows[rows["variant"] == "natural"])
    assert found.headline.endswith("(texts as they are: content may differ with length)")
    assert f"{0.9 * collapse.slope(6, 6):.3f}" in found.headline
    assert "tokens on" not in _text(found)
    assert found.table is not None
    assert "texts as they are" in found.table.note


def test_the_largest_layer_read_is_not_called_the_last(tmp_path: Path) -> None:
    path = collapse.write_collapse_run(tmp_path, parts=("length",))
    found = _edit(path, "measurements.parquet", lambda rows: rows[rows["layer"].isin([0, 3])])
    assert "at layer 3 (the same" in found.headline
    assert "the last layer" not in _text(found)
    assert "1 of 2 layers read (3)" in _text(found)
    found = _edit(path, "measurements.parquet", lambda rows: rows[rows["layer"].isin([0])])
    assert found.headline.startswith("No collapse with length is shown at the layer read: ")


def test_inner_collapse_is_told_beside_the_last_layers_interval(tmp_path: Path) -> None:
    path = collapse.write_collapse_run(tmp_path, parts=("length",))

    def flat(rows: pd.DataFrame) -> pd.DataFrame:
        last = (rows["layer"] == 6) & (rows["measure"] == "collapse_slope")
        rows.loc[last, ["value", "low", "high"]] = [0.001, -0.003, 0.005]
        return rows[~((rows["layer"] == 6) & (rows["measure"] == "collapse_onset_tokens"))]

    found = _edit(path, "measurements.parquet", flat)
    assert found.headline.startswith("Layers inside the model collapse with length, the last one")
    assert "+0.001 [−0.003, 0.005] per doubling at the last layer" in found.headline
    text = _text(found)
    assert "At the last layer no length is shown from which on" in text
    assert "; earliest of 7 layers, layer 4: from 16 on (+0.027 [0.012, 0.042] there)." in text


def test_no_rank_or_width_is_said_to_do_without_its_interval(tmp_path: Path) -> None:
    path = collapse.write_collapse_run(tmp_path, parts=("bottleneck", "index"))

    def wide(rows: pd.DataFrame) -> pd.DataFrame:
        below = rows["rank"] < 384
        rows.loc[below, "difference_high"] = rows["difference_high"][below] + 0.1
        return rows

    text = _text(_edit(path, "tables/bottleneck.parquet", wide))
    assert "No smaller rank of the head is shown to cost less than 0.1 bits per token" in text
    assert "256 of 384 directions cost 0.04 [0.03, 0.16]" in text
    text = _text(_edit(path, "tables/index_breaks.parquet", lambda rows: rows[rows["dim"] == 128]))
    assert (
        "No smaller width is shown to lose more than a hundredth of recall at 10 at the last layer"
        in text
    )


def test_tables_of_earlier_runs_are_told_without_the_differences_they_lack(tmp_path: Path) -> None:
    path = collapse.write_collapse_run(tmp_path)
    for file in (path / "tables").glob("*.parquet"):
        frame = pd.read_parquet(file)
        own = [name for name in frame.columns if "difference" in name]
        kept = ["difference", "difference_low", "difference_high"] if "quality" in frame else []
        frame.drop(columns=[name for name in own if name not in kept]).to_parquet(file)
    (path / "tables" / "index_breaks.parquet").unlink()
    found = _said(path)
    text = _text(found)
    assert "nan" not in text.lower()
    assert "lessen" not in text
    assert "higher than at 8 tokens; no other" in text
    assert "256 of 384 directions cost 0.04" in text
    assert build_report(path).stat().st_size > 1000


def test_the_model_as_it_is_may_be_the_best_temperature_tried(tmp_path: Path) -> None:
    path = collapse.write_collapse_run(tmp_path, parts=("temperature",))
    text = _text(
        _edit(
            path,
            "tables/temperature.parquet",
            lambda rows: rows.assign(chosen=rows["tau"] == 1, collapse_slope_difference_high=0.1),
        )
    )
    assert "none of the 7 other temperatures tried is better on the calibrate part" in text
    assert "None is shown to lessen the rise per doubling; the most, τ = 0.50: −0.027" in text


def test_texts_that_spread_are_no_collapse(tmp_path: Path) -> None:
    found = _said(collapse.write_collapse_run(tmp_path, strength=-1.0))
    assert found.headline.startswith(
        "Embeddings spread with length: the mean cosine falls by 0.053"
    )
    assert "[0.049, 0.057]" in found.headline


def test_parts_that_do_not_apply_give_their_reason_once(tmp_path: Path) -> None:
    found = _said(collapse.write_collapse_run(tmp_path, parts=("mask", "index")))
    assert found.headline == NOT_MEASURED
    told = [words for words in found.sentences if words.startswith("Not measured")]
    assert told == [
        "Not measured: length, temperature, remedies, chunking and bottleneck (the model has no such head)."
    ]


@pytest.mark.parametrize("part", collapse.PARTS)
def test_every_part_alone_can_be_told(tmp_path: Path, part: str) -> None:
    found = _said(collapse.write_collapse_run(tmp_path, parts=(part,)))
    assert len(found.sentences) >= 2
    assert "nan" not in _text(found).lower()


def test_a_remedy_that_may_be_chance_is_not_said_to_help(tmp_path: Path) -> None:
    path = collapse.write_collapse_run(tmp_path, parts=("remedies",))
    table = path / "tables" / "remedies.parquet"
    frame = pd.read_parquet(table)
    frame["difference_low"] = frame["difference"] - 1
    frame["difference_high"] = frame["difference"] + 1
    frame.to_parquet(table)
    text = _text(_said(path))
    assert "None of 7 remedies is shown to help" in text
    assert "harm" not in text


def test_the_table_has_a_row_per_layer(tmp_path: Path) -> None:
    table = _said(collapse.write_collapse_run(tmp_path)).table
    assert table is not None
    assert [row[0] for row in table.rows] == [str(k) for k in range(7)]
    last = dict(zip(table.columns, table.rows[-1], strict=True))
    assert last["from tokens"] == "16"
    assert last["best remedy"] == "top 3 removed"
    first = dict(zip(table.columns, table.rows[0], strict=True))
    assert first["from tokens"] == "–"


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_an_unfinished_run_says_so_and_shows_what_it_has(tmp_path: Path, status: str) -> None:
    for path in (
        collapse.write_collapse_run(tmp_path, "a", status=status, parts=("length",)),
        quality.write_quality_run(tmp_path, "b", status=status),
    ):
        found = _said(path)
        assert found.kind == ("running" if status == "running" else "failed")
        assert found.table is not None


def test_quality_names_the_best_layer_and_diagnostics_to_trust(tmp_path: Path) -> None:
    found = _said(quality.write_quality_run(tmp_path, n_layers=12, datasets=("docstrings", "two")))
    best = quality.quality(8, 12)
    assert found.headline.startswith(
        f"Layer 8 of 12 is best by labels on docstrings: nDCG@10 {best:.3f}"
    )
    text = _text(found)
    assert "on two it is layer 8" in text
    assert "with quality on docstrings over layers" in text
    assert "with quality on two over layers" in text
    told = quality.agreement_table(12, ("docstrings",))
    sure = int(((told["p"] < 0.05) & (told["low"] * told["high"] > 0)).sum())
    assert 0 < sure < len(told)
    assert f"Of {len(told)} diagnostics {sure} go with quality on" in text
    assert f"{0.05 * len(told):.1f} would by chance" in text
    assert "+0.90 [0.65, 1.00]" in text
    assert "least influence" in text
    table = found.table
    assert table is not None
    moves = {row[0].lower(): row[5] for row in table.rows}
    assert moves["effective rank"] == "rises"
    assert moves["uniformity"] == "falls"
    assert moves["infonce, crop"] == "falls"
    infonce = next(row for row in table.rows if row[0].lower() == "infonce, crop")
    assert infonce[7] == "8"  # lowest where quality is highest
    assert moves["curvature"] == "–"


def test_strong_and_stable_agreement_is_not_called_more_than_chance_where_random_curves_do_as_well(
    tmp_path: Path,
) -> None:
    path = quality.write_quality_run(tmp_path)
    table = path / "tables" / "agreement.parquet"
    pd.read_parquet(table).assign(p=0.3).to_parquet(table)
    found = _said(path)
    assert "None of 23 diagnostics is shown to go with quality" in _text(found)
    assert found.table is not None
    assert {row[5] for row in found.table.rows} == {"–"}


def test_the_depth_alone_stands_beside_the_diagnostics_and_is_none_of_them(tmp_path: Path) -> None:
    path = quality.write_quality_run(tmp_path)
    rows = pd.read_parquet(path / "measurements.parquet")
    alone = rows[rows["measure"] == "label_agreement"].head(1)
    alone = alone.assign(variant="layer number", value=0.65, low=0.5, high=0.8)
    pd.concat([rows, alone], ignore_index=True).to_parquet(path / "measurements.parquet")
    found = _said(path)
    stronger = sum(abs(value) > 0.65 for value in quality.AGREEMENT.values())
    assert f"{stronger} of 23 diagnostics are stronger" in _text(found)
    assert "None of 23" in _text(found) or "Of 23 diagnostics" in _text(found)
    assert found.table is not None
    assert any(row[0].startswith("Layer number") for row in found.table.rows)


def test_quality_without_labels_or_blocks(tmp_path: Path) -> None:
    found = _said(quality.write_quality_run(tmp_path, parts=("metrics",)))
    assert found.headline == "No quality by labels was measured: diagnostics only"
    assert found.table is None


@pytest.mark.parametrize("hostile", [False, True])
def test_reports_of_both_are_whole(tmp_path: Path, hostile: bool) -> None:
    parts = ("length", "remedies")
    for path, ids in (
        (collapse.write_collapse_run(tmp_path, "a", hostile=hostile, parts=parts), "collapse-rank"),
        (quality.write_quality_run(tmp_path, "b", hostile=hostile), "label-agreement"),
    ):
        page = build_report(path).read_text(encoding="utf-8")
        assert ids in page
        assert "<script>alert" not in page
        assert '<img src="http://evil' not in page
        assert ("&lt;script&gt;" in page) == hostile
