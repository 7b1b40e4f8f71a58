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
        "With 32 of 240 features active, TopK explains 85.0\xa0% [84.2, 85.8] of the variance of layer 15 "
        "(PCA 58.0\xa0%, random weights 30.0\xa0%, neurons 35.0\xa0%) and has a loss recovered of "
        "93.0\xa0% [91.5, 94.5] "
        "(PCA 71.0\xa0%, random weights 12.0\xa0%, neurons 20.0\xa0%)"
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
    assert told.table.rows[0][:4] == (
        "7", told.table.rows[0][1], "“France” “Seine” “Louvre”", "… text number 0 says «Paris» and goes on."
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
    assert "not shown to be more than PCA, random weights and neurons" in headline
    frame[~frame["variant"].str.contains("pca|random|neurons")].to_parquet(file)
    assert "(no baseline was measured)" in verdict(RunData.of(RunView(path))).headline


def _changed(path: Path, change: Any) -> Verdict:
    """The verdict with the measurements changed."""
    file = path / "measurements.parquet"
    frame = pd.read_parquet(file)
    change(frame).astype(frame.dtypes).to_parquet(file)
    return verdict(RunData.of(RunView(path)))


def test_an_autoencoder_that_keeps_clearly_less_is_said_to(tmp_path: Path) -> None:
    """11 % where PCA has 58 %, random weights 30 % and neurons as much: less than two, and the third left open."""

    def worse(frame: Any) -> Any:
        own = frame["variant"].str.startswith(("topk", "neurons"))
        poor = (frame["measure"] == "explained_variance") & own
        frame.loc[poor, ["value", "low", "high"]] = [0.11, 0.09, 0.13]
        return frame

    headline = _changed(planted.write_sae_run(tmp_path, parts=("train",)), worse).headline
    assert headline.endswith(
        "; less than PCA and random weights; not shown to be more than neurons)"
    )


def test_where_the_mean_costs_nothing_there_is_no_share_of_the_loss(tmp_path: Path) -> None:
    def nothing(frame: Any) -> Any:
        gone = frame["measure"] == "loss_recovered"
        frame.loc[gone, ["value", "low", "high"]] = pd.NA
        return frame

    told = _changed(planted.write_sae_run(tmp_path), nothing)
    assert "of the variance" in told.headline
    assert "loss recovered" not in told.headline
    assert "is not shown to cost anything, so that there is no share" in "\n".join(told.sentences)
    assert "not shown to cost" not in "\n".join(_told(tmp_path / "plain").sentences)


def test_circuits_are_told_apart_by_the_paired_difference(tmp_path: Path) -> None:
    """Intervals of the two means lie apart, that of their difference says nothing; and the other way round."""

    def wide(frame: Any) -> Any:
        rows = frame["measure"] == "circuit_auc_difference"
        frame.loc[rows, ["low", "high"]] = [-0.5, 0.5]
        return frame

    def narrow(frame: Any) -> Any:
        rows = frame["measure"] == "circuit_auc_difference"
        frame.loc[rows, ["low", "high"]] = [0.01, 0.1]
        return frame

    words = "\n".join(_changed(planted.write_sae_run(tmp_path, strength=0.0), wide).sentences)
    assert "not shown to differ from k-means" in words
    words = "\n".join(_changed(planted.write_sae_run(tmp_path / "other"), narrow).sentences)
    assert "above k-means" in words


def test_one_concept_is_one(tmp_path: Path) -> None:
    path = planted.write_sae_run(tmp_path)
    file = next(path.rglob("sae_concepts.parquet"))
    frame = pd.read_parquet(file)
    frame[frame["concept"] == "capital"].to_parquet(file)
    words = "\n".join(verdict(RunData.of(RunView(path))).sentences)
    assert "Of 1 concept, " in words


def test_what_was_not_measured_is_said_with_its_reason(tmp_path: Path) -> None:
    told = _told(tmp_path, parts=("train",))
    assert any(
        s.startswith(
            "Not measured: loss, features, concepts, probing, effects, circuits and csr (the model has no"
        )
        for s in told.sentences
    )
    assert (
        _told(tmp_path / "none", parts=()).headline
        == "What the autoencoder explains was not measured"
    )


def test_the_report_lists_the_autoencoders(tmp_path: Path) -> None:
    data = RunData.of(RunView(planted.write_sae_run(tmp_path)))
    assert [t.title for t in compose(data, "x").tables] == ["Autoencoders"]
