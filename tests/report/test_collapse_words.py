"""What runs of collapse and of layer quality say: the planted findings, their absence, and reports in whole."""

from __future__ import annotations

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
    text = _text(found)
    assert "4 of 7 layers (3 to 6), most at layer 6" in text
    assert "From 16 tokens on" in text
    assert "25 % of the rise with real texts" in text
    assert (
        "τ = 0.80, chosen on the calibrate part, changes nDCG@10 at the last layer by +0.040"
        in text
    )
    assert (
        "Of 7 remedies 4 help at the last layer, most top 3 removed: +0.045 [0.030, 0.060]" in text
    )
    assert "Whitened and attention-weighted pooling do harm" in text
    assert "Late chunking is better than chunking first at the last layer: +0.060" in text
    assert "to 0.840 [0.820, 0.860] among 100,000; with 64 of 384 dimensions" in text
    assert "256 of 384 directions" in text
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
    assert found.headline == "No collapse with length is shown at any layer"
    assert "At none of 7 layers" in _text(found)
    assert "length alone is not shown to do it" in _text(found)


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
    sure = sum(abs(value) > quality.HALF for value in quality.AGREEMENT.values())
    assert f"Of {len(quality.AGREEMENT)} diagnostics {sure} go with quality" in text
    assert "+0.90 [0.65, 1.00]" in text
    assert "Not to be trusted here" in text
    assert "least influence" in text
    table = found.table
    assert table is not None
    moves = {row[0].lower(): row[5] for row in table.rows}
    assert moves["effective rank"] == "rises"
    assert moves["uniformity"] == "falls"
    assert moves["infonce, crop"] == "falls"
    infonce = next(row for row in table.rows if row[0].lower() == "infonce, crop")
    assert infonce[1] == "Two views of a text"
    assert infonce[7] == "8"  # lowest where quality is highest
    assert moves["curvature"] == "is not shown to move"


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
