"""Words of autoencoders: what is kept, beside what baselines keep; and nothing claimed that was not shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import synthetic_sae as planted

from probes.report import RunData
from probes.report.content import compose, verdict
from probes.report.verdict import Verdict
from probes.runs import RunView


def _told(tmp_path: Path, **more: Any) -> Verdict:
    return verdict(RunData.of(RunView(planted.write_sae_run(tmp_path, **more))))


def test_words_of_a_good_autoencoder(tmp_path: Path) -> None:
    told = _told(tmp_path)
    assert told.headline == (
        "With 32 of 240 features active, TopK keeps 85.0\xa0% [84.2, 85.8] of the variance of layer 15 "
        "(PCA 58.0\xa0%, random weights 30.0\xa0%) and 93.0\xa0% [91.5, 94.5] of the loss "
        "(PCA 71.0\xa0%, random weights 12.0\xa0%)"
    )
    words = "\n".join(told.sentences)
    assert "3.20 untouched, 3.48 with reconstructed states" in words
    assert "7 (promotes “France” “Seine” “Louvre”" in words
    assert "Of 4 concepts, the best single feature lies clearly above the best neuron in 4" in words
    assert "for 10 of 10 features" in words
    assert "not shown to differ from k-means (0.78)" in words
    assert "truncation to as many bytes" in words
    assert "Not shown: that the model itself computes with these features" in words
    assert told.table is not None
    assert told.table.rows[0][:3] == (
        "7", "“France” “Seine” “Louvre”", "The old text number 0 says «Paris» and goes on."
    )  # fmt: skip


def test_words_are_honest_where_the_autoencoder_is_no_better(tmp_path: Path) -> None:
    told = _told(tmp_path, strength=0.0)
    assert told.headline.count("not shown to be more than PCA") == 2
    words = "\n".join(told.sentences)
    assert "the best neuron in 0" in words
    assert "clearly better in 4" in words
    assert "for 0 of 10 features" in words
    assert "below k-means" in words


def test_without_intervals_or_baselines_nothing_is_shown_to_be_more(tmp_path: Path) -> None:
    path = planted.write_sae_run(tmp_path, parts=("train",))
    file = path / "measurements.parquet"
    frame = pd.read_parquet(file)
    frame.assign(low=pd.NA, high=pd.NA).astype(frame.dtypes).to_parquet(file)
    headline = verdict(RunData.of(RunView(path))).headline
    assert "not shown to be more than PCA and random weights" in headline
    frame[~frame["variant"].str.contains("pca|random")].to_parquet(file)
    assert "(no baseline was measured)" in verdict(RunData.of(RunView(path))).headline


def test_what_was_not_measured_is_said_with_its_reason(tmp_path: Path) -> None:
    told = _told(tmp_path, parts=("train",))
    assert any(
        s.startswith(
            "Not measured: loss, features, concepts, probing, effects, circuits and csr (the model has no"
        )
        for s in told.sentences
    )
    assert (
        _told(tmp_path / "none", parts=()).headline == "What the autoencoder keeps was not measured"
    )


def test_the_report_lists_the_autoencoders(tmp_path: Path) -> None:
    data = RunData.of(RunView(planted.write_sae_run(tmp_path)))
    assert [t.title for t in compose(data, "x").tables] == ["Autoencoders"]
