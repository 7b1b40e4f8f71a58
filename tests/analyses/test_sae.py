"""Autoencoders from the command line: what is written, what is not applicable, mistakes, and a run that goes on."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from zoo import build, hf_model, texts, tokenizer

from probes.analysis import load_analysis
from probes.cli.main import app
from probes.cli.run import command_for, run_app
from probes.cli.shell import invoke
from probes.features import LookPlan, SaePlan, TrainPlan, study_autoencoders
from probes.features.material import first_tokens, gather
from probes.features.training import Clock
from probes.report import RunData
from probes.report.verdict import verdict
from probes.runs import Findings, Previous, list_runs
from probes.sae.features import FeatureTables
from probes.sae.saelens import load_saelens
from probes.sae.token_states import text_codes

QUICK = [
    "--tokens",
    "4000",
    "--steps",
    "60",
    "--batch-size",
    "256",
    "--n-features",
    "64",
    "--draws",
    "200",
]
QUICK += ["--loss-texts", "20", "--max-length", "16"]
BASELINES = {"random", "pca", "neurons"}


@pytest.fixture(scope="module", autouse=True)
def _commands() -> None:
    if not any(command.name == "sae" for command in run_app.registered_commands):
        analysis = load_analysis("sae")
        run_app.command("sae", help=analysis.question)(command_for(analysis))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A three-block Llama with random weights as a transformers folder."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    hf_model("llama").save_pretrained(folder)
    tokenizer("decoder").save_pretrained(folder)
    return folder


@pytest.fixture
def story(tmp_path: Path) -> Path:
    path = tmp_path / "story.txt"
    path.write_text("\n".join(dict.fromkeys(texts(900, seed=5, longest=12))))
    return path


@pytest.fixture
def moods(tmp_path: Path) -> Path:
    """Labelled texts that one word tells apart."""
    rows = [
        f"{text} {word},{word}"
        for i, text in enumerate(dict.fromkeys(texts(400, seed=8, longest=8)))
        for word in [("red", "blue")[i % 2]]
    ]
    path = tmp_path / "moods.csv"
    path.write_text("text,label\n" + "\n".join(rows[:120]))
    return path


def run(model: Path, data: Path, *more: str) -> int:
    return invoke(app, ["run", "sae", "--model", str(model), "--data", str(data), *QUICK, *more])


def test_a_decoder_is_read_from_training_to_effects(
    decoder: Path, story: Path, moods: Path, home: Path
) -> None:
    moods.write_text(moods.read_text().replace("text,label", "remark,mood"))
    more = ["--k", "2,4,8", "--parts", "train,loss,concepts,features,effects"]
    more += ["--concepts", str(moods), "--columns", "text=remark,label=mood"]
    assert run(decoder, story, *more) == 0
    (view,) = list_runs(home / "runs")
    applies = view.table("applies").set_index("part")
    parts = applies["applies"].drop("effects")
    assert parts.all(), applies["reason"].to_dict()

    rows = view.measurements
    held = rows[rows["split"] == "held out"]
    kept: Any = held[held["measure"] == "explained_variance"].set_index("variant")["value"]
    assert set(kept.index) == {f"{name} k={k}" for name in ("topk", *BASELINES) for k in (2, 4, 8)}
    active: Any = held[held["measure"] == "l0"].set_index("variant")["value"]
    for k in (2, 4, 8):
        assert kept[f"topk k={k}"] > max(kept[f"random k={k}"], kept[f"neurons k={k}"])
        assert active[f"topk k={k}"] == k
    assert kept["topk k=2"] < kept["topk k=4"] < kept["topk k=8"]
    losses: Any = held[held["measure"] == "cross_entropy"].set_index("variant")["value"]
    assert {"clean", "mean", "zero", "topk k=4", "random k=4", "pca k=4"} <= set(losses.index)

    models = view.table("sae_models").set_index("sae")
    assert models["main"].to_dict() == {
        "L1 topk k=2": False, "L1 topk k=4": True, "L1 topk k=8": False,
    }  # fmt: skip
    again = load_saelens(view.path / models.loc["L1 topk k=4", "folder"])
    assert again.decoder_.shape == (64, 32)

    features = view.table("sae_features")
    assert len(features) == 64
    living = features[~features["dead"]]
    assert living["density"].gt(0).all()
    examples = view.table("sae_examples")
    assert set(examples["feature"]) <= set(living["feature"])
    best: Any = view.table("sae_concepts").set_index("coder")
    assert {"sae", "dense", *BASELINES} == set(best.index)
    assert best.loc["dense", "auroc"] > 0.9  # the last word decides
    probing = view.table("sae_probing")
    assert probing["features"].isna().sum() == 1  # the dense probe
    shown = features["shown"].notna()
    assert (
        applies.loc["effects", "applies"] == shown.any()
    )  # random weights: perhaps none can be read
    if shown.any():
        effects = view.table("sae_effects")
        assert set(effects["feature"]) == set(features.loc[shown, "feature"])

    told = verdict(RunData.of(view))
    assert "explain" in told.headline or "variance" in told.headline
    assert (view.path / "report.html").stat().st_size > 5000


def test_an_encoder_has_no_loss_and_no_effects(
    tiny_model: Path, story: Path, moods: Path, home: Path
) -> None:
    more = ["--k", "4", "--concepts", str(moods), "--parts", "train,loss,features,effects,circuits"]
    assert run(tiny_model, story, *more) == 0
    (view,) = list_runs(home / "runs")
    applies = view.table("applies").set_index("part")
    assert applies["applies"].to_dict() == {
        "train": True, "loss": False, "features": True, "effects": False, "circuits": False,
    }  # fmt: skip
    assert view.table("sae_features")["up_tokens"].isna().all()
    assert not {"loss_recovered", "cross_entropy"} & set(view.measurements["measure"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--parts", "trains"], "did you mean 'train'"),
        (["--k", "0"], "numbers from 1"),
        (["--k", "8,65"], "at most all of the 64 features"),
        (["--variant", "top"], "topk"),
        (["--layers", "x"], "no whole number"),
        (["--site", "residual"], "resid_post"),
        (["--circuit-tasks", "iou"], "did you mean 'ioi'"),
        (["--concepts", "citties"], "citties"),
        (["--sparse-data", "nowhere"], "nowhere"),
        (["--data", "story.txtt"], "story.txtt"),
        (["--parts", "loss"], "loss needs train"),
        (["--parts", "csr,features,circuits"], "features needs train"),
        (["--parts", "train,effects"], "effects needs features"),
        (["--seeds", "4"], "5"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_run(
    decoder: Path, story: Path, home: Path, more: list[str], words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(decoder, story, *more) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert words in said[0]
    assert not list_runs(home / "runs")


def test_too_few_texts_and_missing_layers_end_the_run_in_one_line(
    decoder: Path, story: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(decoder, story, "--layers", "7") == 2
    assert "has layers 0 to 3" in capsys.readouterr().err
    story.write_text("\n".join(story.read_text().splitlines()[:5]))
    assert run(decoder, story) == 2
    assert "at least 20 are needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--parts", "csr"], "nothing could be done: csr: "),
        (["--parts", "circuits", "--circuit-tasks", "none"], "no circuit task was asked for"),
        (["--parts", "train,csr"], "no autoencoder was trained: the texts have"),
    ],
)
def test_a_run_that_can_do_nothing_fails_with_its_reason_and_a_report(
    decoder: Path, story: Path, home: Path, more: list[str], words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    story.write_text("\n".join(story.read_text().splitlines()[:25]))  # too few tokens to train on
    assert run(decoder, story, *more) == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
    (view,) = list_runs(home / "runs")
    assert view.info["status"] == "failed"
    assert words in view.info["message"]
    assert not view.table("applies")["applies"].any()
    assert words.split(":")[0] in (view.path / "report.html").read_text().lower()
    # the same again, without doing it again
    assert invoke(app, ["run", "--resume", view.slug]) == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]


def test_narrow_embeddings_get_the_codes_that_fit(
    tiny_model: Path, story: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probes.sae.recipe.default_steps", lambda n, batch_size: 20)
    assert run(tiny_model, story, "--parts", "csr", "--sparse-data", "docstrings") == 0
    (view,) = list_runs(home / "runs")
    table = view.table("csr")
    width = int(table[table["coder"] == "full"]["width"].iloc[0])
    assert set(table[table["coder"] == "csr"]["active"]) == {
        k for k in (8, 16, 32, 64) if k < width
    }
    assert width <= 64
    assert any("need embeddings wider than" in note for note in view.info["warnings"])


def test_effects_are_judged_on_texts_that_had_no_part_in_picking(
    home: Path, story: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[str]] = {}

    def described(model: Any, sae: Any, texts: Any, *_: Any, held_out: Any, **more: Any) -> Any:
        seen["picked from"], seen["checked"] = list(texts), list(held_out)
        features = pd.DataFrame({"feature": [3], "shown": [1]})
        return FeatureTables(features, pd.DataFrame({"feature": [3]}), 1, 1)

    def tried(model: Any, sae: Any, texts: Any, *_: Any, **more: Any) -> pd.DataFrame:
        seen["tried"] = list(texts)
        return pd.DataFrame({"feature": [3], "mode": ["steer"], "value": [0.0]})

    monkeypatch.setattr("probes.features.reading.describe_features", described)
    monkeypatch.setattr("probes.features.reading.feature_effects", tried)
    training = TrainPlan(ks=(4,), n_features=64, steps=5, batch_size=256, tokens=4000)
    plan = SaePlan(frozenset({"train", "features", "effects"}), training, max_length=16)
    study = study_autoencoders(build("llama"), story.read_text().splitlines(), plan, Findings())
    assert study.failure is None
    held = study.material.chosen(study.material.held_out)
    assert sorted(seen["checked"] + seen["tried"]) == sorted(held)
    assert not set(seen["tried"]) & (set(seen["checked"]) | set(seen["picked from"]))
    assert abs(len(seen["checked"]) - len(seen["tried"])) <= 1


def test_concepts_are_looked_for_in_every_principal_component(
    home: Path, story: Path, moods: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def recorded(model: Any, coders: dict[str, Any], *rest: Any, **more: Any) -> Any:
        given.update(coders)
        return text_codes(model, coders, *rest, **more)

    monkeypatch.setattr("probes.features.reading.text_codes", recorded)
    training = TrainPlan(ks=(4,), n_features=64, steps=5, batch_size=256, tokens=4000)
    look = LookPlan(concepts=str(moods))
    plan = SaePlan(frozenset({"train", "concepts"}), training, look, None, 16, 100)
    study = study_autoencoders(build("llama"), story.read_text().splitlines(), plan, Findings())
    assert study.failure is None
    assert given["pca"].decoder_.shape == (32, 32)


def test_time_and_sparsity_of_each_autoencoder(home: Path, story: Path) -> None:
    """The time of one pass is shared out, and the number of active features asked for is told of every variant."""
    training = TrainPlan(
        ks=(2, 4), variant="batchtopk", n_features=64, steps=30, batch_size=256, tokens=4000
    )
    plan = SaePlan(frozenset({"train"}), training, max_length=16, draws=100)
    start = time.monotonic()
    study = study_autoencoders(build("llama"), story.read_text().splitlines(), plan, Findings())
    took = time.monotonic() - start
    models = study.tables["sae_models"]
    assert models["target_l0"].tolist() == [2, 4]
    assert models["seconds"].nunique() == 1
    assert 0 < models["seconds"].sum() <= took


def test_the_time_of_earlier_starts_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("probes.features.training.time.monotonic", lambda: now[0])
    first = Clock(tmp_path / "training")
    assert first.seconds == 0
    for now[0] in (1001.0, 1003.0, 1004.5):  # written down at 3 seconds
        first.tick()
    now[0] = 5000.0
    second = Clock(tmp_path / "training")
    now[0] += 10
    assert second.seconds == 13
    (tmp_path / "training" / "seconds.json").write_text('{"seconds": "soon"}')
    assert Clock(tmp_path / "training").seconds == 0
    assert Clock(None).seconds == 0


def test_a_costless_mean_is_told(home: Path, story: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the last layer of this random model the mean costs less than nothing."""
    training = TrainPlan(ks=(4,), layers=(3,), n_features=64, steps=5, batch_size=256, tokens=4000)
    look = LookPlan(loss_texts=20)
    plan = SaePlan(frozenset({"train", "loss"}), training, look, None, 16, 200)
    found = Findings()
    notes: list[str] = []
    monkeypatch.setattr(found, "note", notes.append)
    study_autoencoders(build("llama"), story.read_text().splitlines(), plan, found)
    rows = pd.concat(found.frames)
    assert rows[rows["measure"] == "loss_recovered"]["value"].isna().all()
    assert any("L3: the mean in place of every state is not shown to cost" in n for n in notes)


def test_a_study_goes_on_with_the_autoencoders_it_had_trained(
    home: Path, tmp_path: Path, story: Path
) -> None:
    """The part train is not done again, and the loss is what it would have been."""
    model = build("llama")
    lines = story.read_text().splitlines()
    training = TrainPlan(ks=(4,), n_features=64, steps=60, batch_size=256, tokens=4000)
    folder = tmp_path / "run" / "sae"

    def plan(*parts: str) -> SaePlan:
        return SaePlan(frozenset(parts), training, LookPlan(loss_texts=20), folder, 16, 200)

    whole = Findings()
    study_autoencoders(model, lines, plan("train", "loss"), whole)
    first = Findings()
    study_autoencoders(model, lines, plan("train"), first)
    weights = (folder / "L1-topk-k4" / "sae_weights.safetensors").stat().st_mtime_ns
    assert not (folder / "training").exists()  # kept only while the run is not done
    second = Findings()
    previous = Previous(pd.concat(first.frames), dict(first.tables))
    study = study_autoencoders(model, lines, plan("train", "loss"), second, previous=previous)
    assert (folder / "L1-topk-k4" / "sae_weights.safetensors").stat().st_mtime_ns == weights
    assert study.tables["applies"]["part"].tolist() == ["train", "loss"]
    key = ["measure", "variant"]
    columns = [*key, "value", "low", "high", "n"]
    a, b = (pd.concat(found.frames).sort_values(key)[columns] for found in (whole, second))
    pd.testing.assert_frame_equal(a.reset_index(drop=True), b.reset_index(drop=True), rtol=1e-12)


def test_first_tokens_and_sinks_are_left_out_of_training(home: Path, story: Path) -> None:
    model = build("llama")
    lines = story.read_text().splitlines()
    plan = SaePlan(training=TrainPlan(layers=(1,), tokens=4000), max_length=16)
    material = gather(model, lines, (1,), plan)
    offsets = material.store.offsets
    rows = material.rows(1, material.train)
    assert not set(rows.numbers) & set(first_tokens(offsets, 1))
    groups = material.groups(1, material.train)
    assert set(groups) <= set(material.train)
    np.testing.assert_array_equal(offsets[groups] < rows.numbers, True)
    assert not set(material.train) & set(material.held_out)
    # a state far longer than the others is left out, and nothing else
    lengths = np.linalg.norm(rows.take(np.arange(rows.n)).numpy(), axis=1)
    tight = type(material)(
        material.texts, material.store, material.site, material.train, material.held_out, 1,
        {1: float(np.sort(lengths)[-2:].mean())},
    )  # fmt: skip
    assert tight.rows(1, material.train).n == rows.n - 1


@pytest.mark.slow
@pytest.mark.models
def test_features_of_a_real_model(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small autoencoder of SmolLM2 keeps more of variance and loss than components, neurons and random directions."""
    if cache := os.environ.get("FATHOMETER_TEST_CACHE"):
        monkeypatch.setenv("FATHOMETER_CACHE", cache)
    quick = ["--tokens", "12000", "--steps", "250", "--batch-size", "1024", "--n-features", "1152"]
    quick += ["--k", "32", "--loss-texts", "30", "--draws", "300", "--dtype", "bfloat16"]
    parts = ["--parts", "train,loss"]
    assert invoke(app, ["run", "sae", "--model", "smollm2", *quick, *parts]) == 0
    (view,) = list_runs(home / "runs")
    rows = view.measurements.set_index(["measure", "variant"])
    for measure in ("explained_variance", "loss_recovered"):
        ours = rows.loc[(measure, "topk k=32")]
        for name in BASELINES:
            assert ours["low"] > rows.loc[(measure, f"{name} k=32"), "high"], (measure, name)
    assert rows.loc[("l0", "topk k=32"), "value"] == 32
    # without attention sinks among the states, which would make the share of variance look like 0.99 and more
    assert rows.loc[("explained_variance", "topk k=32"), "value"] < 0.95
