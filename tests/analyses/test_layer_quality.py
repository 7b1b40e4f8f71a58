"""Layer quality from the command line on tiny models: rows, tables, report; what does not apply is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from probes.analysis import load_analysis
from probes.capture import capture
from probes.cli.main import app
from probes.cli.run import command_for, run_app
from probes.cli.shell import invoke
from probes.layers import block_influence, effective_rank
from probes.models import load_model
from probes.registry import LAYER_METRICS, PAIR_METRICS, TOKEN_METRICS
from probes.runs import RunView, list_runs

QUICK = ["--draws", "200", "--view-texts", "60", "--token-texts", "40", "--attention-texts", "20"]


@pytest.fixture(scope="module", autouse=True)
def _commands() -> None:
    if not any(command.name == "layer-quality" for command in run_app.registered_commands):
        analysis = load_analysis("layer-quality")
        run_app.command("layer-quality", help=analysis.question)(command_for(analysis))


def run(model: Path, data: str, *more: str) -> int:
    words = ["run", "layer-quality", "--model", str(model), "--data", data, *QUICK, *more]
    return invoke(app, words)


@pytest.fixture
def view(tiny_model: Path, pairs_csv: Path, labels_csv: Path, home: Path) -> RunView:
    assert run(tiny_model, f"{pairs_csv},{labels_csv}", "--limit", "150") == 0
    (found,) = list_runs(home / "runs")
    assert found.status == "finished"
    return found


def test_every_metric_of_every_dataset_is_there_and_is_what_the_function_says(
    view: RunView, tiny_model: Path
) -> None:
    rows = view.measurements
    assert set(rows["dataset"].dropna()) == {"pairs", "labels"}
    for name in (*LAYER_METRICS, *TOKEN_METRICS, "high_frequency_gain", "block_influence"):
        held = rows[rows["measure"] == name]
        assert set(held["dataset"]) == {"pairs", "labels"}, name
        assert held["value"].notna().mean() > 0.5, name
    views = rows[rows["measure"].isin(list(PAIR_METRICS))]
    assert set(views["variant"]) == {"view=swap", "view=drop"}  # these texts are single sentences
    assert any("have two sentences" in note for note in view.info["warnings"])
    fresh = rows[(rows["variant"] == "untrained") & (rows["measure"] == "effective_rank")]
    assert set(fresh["layer"]) == {0, 1, 2, 3}
    quality = rows[rows["measure"].isin(["spearman", "accuracy"])]
    assert set(zip(quality["dataset"], quality["measure"], strict=True)) == {
        ("pairs", "spearman"), ("labels", "accuracy"),
    }  # fmt: skip
    assert (quality["dim"] == 32).all()
    assert not rows["value"].isin([np.inf, -np.inf]).any()


def test_tables_agree_with_the_rows_and_drops_name_their_comparison(view: RunView) -> None:
    agreement, drops = view.table("agreement"), view.table("drops")
    assert {"layer number", "effective_rank", "infonce, swap", "curvature"} <= set(
        agreement["metric"]
    )
    assert agreement["p"].between(0, 1, inclusive="right").all()
    assert set(drops["count"]) == {1}
    for _, held in drops.groupby("dataset"):
        assert held["chosen"].sum() == 1
        assert (held["first"] == 2).any()  # the last block is always among them
        assert held.loc[held["chosen"], "influence"].item() == held["influence"].min()
    cka = view.table("cka")
    assert len(cka) == 2 * 16
    same = cka[cka["layer_a"] == cka["layer_b"]]["value"]
    assert np.allclose(same.astype(float), 1)
    spectra = view.table("spectra")
    assert set(spectra["layer"]) == {0, 1, 2, 3}


def test_the_last_blocks_left_out_are_the_exit_itself(view: RunView) -> None:
    """Leaving out the last block is stopping before it: the same quality by two roads."""
    drops, rows = view.table("drops"), view.measurements
    for dataset, held in drops.groupby("dataset"):
        last = held[held["first"] == 2].iloc[0]
        exit_rows = rows[
            (rows["dataset"] == dataset)
            & (rows["measure"] == last["measure"])
            & (rows["layer"] == 2)
        ]
        assert last["quality"] == pytest.approx(float(exit_rows["value"].iloc[0]), abs=0.02)


def test_the_report_says_what_was_found(view: RunView) -> None:
    text = (view.path / "report.md").read_text(encoding="utf-8")
    assert "is best by labels on pairs: Spearman correlation" in text
    assert "on labels it is layer" in text
    assert "random curve" in text
    assert "layer number alone" in text.lower()
    assert "of the blocks" in text
    assert "of the time" not in text
    page = (view.path / "report.html").read_text(encoding="utf-8")
    for figure in (
        "label-agreement",
        "layer-drops",
        "layer-cka",
        "layer-spectra",
        "block-influence",
    ):
        assert figure in page


def test_block_influence_is_of_tokens_not_of_pooled_states(
    tiny_model: Path, labels_csv: Path, home: Path
) -> None:
    assert (
        run(
            tiny_model,
            str(labels_csv),
            "--limit",
            "40",
            "--parts",
            "similarity",
            "--attention-texts",
            "500",
        )
        == 0
    )
    (found,) = list_runs(home / "runs")
    model = load_model(str(tiny_model))
    texts = pd.read_csv(labels_csv)["text"].tolist()
    from probes.analysis import load_analysis as load

    module = load("layer-quality")
    (data,) = module.run.__globals__["load"](module.check({"data": str(labels_csv), "limit": 40}))
    assert set(data.texts) <= set(texts)
    acts = capture(model, data.texts, sites=["resid_post", "exit"], pooling="none")
    rows = found.measurements
    got = rows[rows["measure"] == "block_influence"].set_index("block")["value"]
    for block in range(3):
        value, _ = block_influence(acts["resid_post", block], acts["resid_post", block + 1])
        assert got[block] == pytest.approx(value, abs=1e-5)
    pooled = capture(model, data.texts)["exit", 2]
    ranks = rows[(rows["measure"] == "effective_rank") & rows["variant"].isna()].set_index("layer")
    assert ranks.loc[2, "value"] == pytest.approx(effective_rank(pooled), rel=1e-5)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--parts", "tokenz"], "unknown --parts 'tokenz': did you mean 'tokens'"),
        (["--view-texts", "3"], "--view-texts 3: at least 50"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_folder(
    tiny_model: Path, labels_csv: Path, home: Path, more: list[str], said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(tiny_model, str(labels_csv), *more) == 2
    assert said in capsys.readouterr().err
    assert list_runs(home / "runs") == []
