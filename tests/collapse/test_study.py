"""The whole study on tiny models: tables as they are promised, what does not apply, and what a stopped run keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from zoo import texts

from probes.collapse import CollapsePlan, Places, StudyTexts, study_collapse
from probes.collapse.helping import chosen_tau
from probes.collapse.study import Study
from probes.errors import InputError
from probes.runs import Findings, Previous
from probes.tables import tidy
from probes.types import LabelledTexts, MinimalPairs, Retrieval, TextPairs

ENDS = "low high"
DIFFERENCE = "difference difference_low difference_high"
LEFT = [f"{name}_{end}" for name in ("anisotropy", "collapse_slope") for end in DIFFERENCE.split()]
HELPED = f"measure quality {ENDS} {DIFFERENCE} anisotropy collapse_slope {' '.join(LEFT)} n seed"
COLUMNS = {
    "length": f"dataset mode layer tokens tokens_low tokens_high measure value {ENDS} {DIFFERENCE} n seed",
    "temperature": f"dataset tau layer split chosen {HELPED}",
    "remedies": f"dataset remedy layer split {HELPED}",
    "chunking": f"method layer measure value {ENDS} {DIFFERENCE} n seed",
    "bottleneck": f"rank loss_bits {ENDS} {DIFFERENCE} n seed",
    "head_spectrum": "rank singular_value",
    "mask": "layer with_mask with_low with_high without without_low without_high "
    "ratio ratio_low ratio_high n seed",
    "index_size": f"dataset layer dim distractors k recall {ENDS} n seed",
    "index_breaks": f"dataset layer dim k distractors difference {ENDS} n seed",
    "applies": "part applies reason",
}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATHOMETER_CACHE", str(tmp_path))


def plan(parts: str, **more: Any) -> CollapsePlan:
    given = {"taus": (0.7, 1.0, 1.3), "cuts": (8, 16, 32), "draws": 200, "distractors": 60}
    return CollapsePlan(frozenset(parts.split(",")), **{**given, "documents": 40, **more})


@pytest.fixture
def words(long_texts: tuple[str, ...]) -> StudyTexts:
    return StudyTexts("tiny-texts", long_texts, long_texts)


def study(
    model: Any, data: Any, words: StudyTexts, parts: str, **more: Any
) -> tuple[Findings, Study]:
    found = Findings()
    made = study_collapse(model, data, words, plan(parts, **more), found)
    return found, made


def reasons(found: Findings) -> dict[str, Any]:
    return dict(
        zip(found.tables["applies"]["part"], found.tables["applies"]["reason"], strict=True)
    )


def check_tables(found: Findings) -> None:
    for name, table in found.tables.items():
        assert sorted(table.columns) == sorted(COLUMNS[name].split()), name
        for column in table.select_dtypes("number"):
            assert np.isfinite(table[column].dropna().to_numpy(float)).all(), (name, column)


def test_an_encoder_with_a_search_set(
    tiny: Callable[[str], Any], search: Retrieval, words: StudyTexts
) -> None:
    found, made = study(
        tiny("bert"), search, words, "length,temperature,remedies,chunking,bottleneck,mask,index"
    )
    check_tables(found)
    told = reasons(found)
    assert "no language-model head" in told.pop("bottleneck")
    assert "no long documents" in told.pop(
        "chunking"
    )  # chunks hold 64 tokens, and so does this model
    assert pd.isna(list(told.values())).all()
    assert set(found.tables["length"]["mode"]) == {"natural", "cut", "random-words"}
    for _, own in found.tables["length"].groupby("mode"):
        assert own["n"].nunique() == 1
    rows = pd.concat(found.frames)
    slopes = rows[rows["measure"] == "collapse_slope"]
    for mode in ("natural", "cut", "random-words"):
        assert slopes[slopes["variant"] == mode]["layer"].tolist() == [0, 1, 2, 3]
    taus = found.tables["temperature"]
    plain = taus[taus["tau"] == 1]
    assert (plain[[*DIFFERENCE.split(), *LEFT]] == 0).all(axis=None)
    assert (taus[(taus["layer"] == 0)]["difference"] == 0).all()  # no attention lies before layer 0
    assert taus[taus["layer"] == 3]["anisotropy"].nunique() == 3
    assert (taus[taus["layer"] == 0][LEFT] == 0).all(axis=None)
    assert taus.groupby(["layer", "split"])["chosen"].sum().eq(1).all()
    for _, own in taus[taus["split"] == "calibrate"].groupby("layer"):
        assert own[own["chosen"]]["quality"].item() == own["quality"].max()
    remedies = found.tables["remedies"]
    none = remedies[remedies["remedy"] == "none"].set_index("layer")
    assert (none[["difference", *LEFT]] == 0).all(axis=None)
    for name in ("anisotropy", "collapse_slope"):
        gap = remedies[name] - remedies["layer"].map(none[name])
        assert (gap - remedies[f"{name}_difference"]).abs().max() < 1e-12
        ends = [remedies[f"{name}_difference_{end}"] for end in ("low", "high")]
        assert (ends[0] <= ends[1]).all()
    centred = remedies[(remedies["remedy"] == "centred") & (remedies["layer"] == 3)].iloc[0]
    assert centred["anisotropy_difference_high"] < 0  # what centring is for
    same = remedies[remedies["remedy"] == "none"]["quality"].tolist()
    assert same == plain[plain["split"] == "test"]["quality"].tolist()
    assert {"centred", "whitened", "top1", "top3", "top10", "ditto"} <= set(remedies["remedy"])
    assert remedies[remedies["layer"] == 3]["collapse_slope"].nunique() > 5
    tau = chosen_tau(made)
    assert (f"tau={tau:g}" in set(remedies["remedy"])) if tau else tau is None
    index = found.tables["index_size"]
    assert index["distractors"].max() == 59  # as many as were asked for, less the relevant one
    assert not any(note.startswith("index:") for note in found.notes)
    breaks = found.tables["index_breaks"]
    assert len(breaks) == 4 * 2 * (index["dim"].nunique() - 1)
    assert not breaks["high"].isna().any()


def test_a_language_model_with_pairs(tiny: Callable[[str], Any], words: StudyTexts) -> None:
    rng = np.random.default_rng(0)
    lines = list(dict.fromkeys(texts(300, seed=8, longest=10)))[:200]
    pairs = TextPairs("tiny-pairs", tuple(lines[:100]), tuple(lines[100:]), rng.random(100))
    found, _ = study(
        tiny("llama"), pairs, words, "remedies,bottleneck,mask,index,chunking",
        places=Places(layers=(1, 3)),
    )  # fmt: skip
    check_tables(found)
    told = reasons(found)
    assert "left to right" in told["mask"]
    assert "queries and documents are needed" in told["index"]
    assert "queries and documents are needed" in told["chunking"]
    assert found.tables["bottleneck"]["rank"].tolist() == [1, 2, 4, 8, 16, 32]
    assert len(found.tables["head_spectrum"]) == 32
    assert set(found.tables["remedies"]["layer"]) == {1, 3}
    (row,) = pd.concat(found.frames).to_dict("records")
    assert row["measure"] == "head_spectrum_kl"
    assert pd.isna(row["layer"])


def test_long_documents_in_chunks(
    tiny: Callable[[str], Any],
    search: Retrieval,
    words: StudyTexts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("probes.collapse.chunking.chunk_texts.__defaults__", (None, "", 16))
    found, _ = study(tiny("bert"), search, words, "chunking")
    check_tables(found)
    assert pd.isna(reasons(found)["chunking"]), reasons(found)
    table = found.tables["chunking"]
    assert set(table["method"]) == {"late", "first", "whole"}
    late, first = (table[table["method"] == name].set_index("layer") for name in ("late", "first"))
    gaps = late["value"] - first["value"] - late["difference"]
    assert gaps.abs().max() < 1e-9
    # before the first block nothing but positions tells a chunk in its document from one alone
    assert late["value"].std() > 0


def test_short_texts_have_no_cuts_and_say_so(tiny: Callable[[str], Any], search: Retrieval) -> None:
    short = tuple(dict.fromkeys(texts(300, seed=9, longest=5)))
    found, _ = study(
        tiny("bert"), search, StudyTexts("short", short, short), "length,temperature",
        cuts=(32, 64),
    )  # fmt: skip
    check_tables(found)
    assert pd.isna(reasons(found)["length"])  # as they are, they fall into two bins of length
    assert set(found.tables["length"]["mode"]) == {"natural"}
    assert any("no long documents" in note for note in found.notes)
    assert found.tables["temperature"]["collapse_slope"].isna().all()


def test_data_without_a_quality_and_models_without_attention(
    tiny: Callable[[str], Any], search: Retrieval, words: StudyTexts
) -> None:
    pairs = MinimalPairs("p", ("the cat runs",) * 40, ("the cat run",) * 40)
    found, _ = study(tiny("bert"), pairs, words, "temperature,remedies")
    assert all("an exit is chosen on" in reason for reason in reasons(found).values())
    found, _ = study(tiny("mamba"), search, words, "temperature,remedies")
    told = reasons(found)
    assert "attention" in told["temperature"]
    assert pd.isna(told["remedies"])
    assert "ditto" not in set(found.tables["remedies"]["remedy"])
    assert any(note.startswith("ditto:") for note in found.notes)


def test_classes_are_judged_by_a_probe_fitted_on_the_fit_part(
    tiny: Callable[[str], Any], words: StudyTexts
) -> None:
    lines = list(dict.fromkeys(texts(900, seed=2)))
    labels = ["cat" in line.split() for line in lines]
    keep = [i for i, y in enumerate(labels) if y or i % 7 == 0]
    data = LabelledTexts.make("cats", [lines[i] for i in keep], [labels[i] for i in keep])
    found, _ = study(tiny("bert"), data, words, "remedies", places=Places(layers=(0,)))
    table = found.tables["remedies"].set_index("remedy")
    assert table["measure"].unique().tolist() == ["accuracy"]
    assert table["difference"]["centred"] == 0  # a probe that standardises cannot tell


def test_a_stopped_study_does_only_what_was_not_done(
    tiny: Callable[[str], Any],
    search: Retrieval,
    words: StudyTexts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import probes.collapse.parts as parts

    model = tiny("bert")
    whole, _ = study(model, search, words, "length,mask")
    broken = Findings()

    def stop(_study: Study) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(parts.PART_FUNCTIONS, "mask", stop)  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            study_collapse(model, search, words, plan("length,mask"), broken)
    assert set(broken.tables) == {"length", "applies"}

    def again(_study: Study) -> None:
        raise AssertionError("a part that was done is done again")

    rest = Findings()
    with monkeypatch.context() as patch:
        patch.setitem(parts.PART_FUNCTIONS, "length", again)  # type: ignore[arg-type]
        previous = Previous(pd.concat(broken.frames), broken.tables)
        study_collapse(model, search, words, plan("length,mask"), rest, previous=previous)
    assert rest.tables["applies"].equals(whole.tables["applies"])
    assert rest.tables["mask"].equals(whole.tables["mask"])
    pd.testing.assert_frame_equal(pd.concat(rest.frames), pd.concat(whole.frames))


def test_numbers_of_a_part_that_was_not_done_are_not_taken_over(
    tiny: Callable[[str], Any], search: Retrieval, words: StudyTexts
) -> None:
    stale = tidy([{"measure": "collapse_slope", "layer": 0, "value": 9.0, "n": 3}])
    applies = pd.DataFrame({"part": ["mask"], "applies": [True], "reason": [None]})
    found = Findings()
    study_collapse(
        tiny("bert"), search, words, plan("length,mask"), found,
        previous=Previous(stale, {"applies": applies}),
    )  # fmt: skip
    assert 9.0 not in pd.concat(found.frames)["value"].tolist()
    assert found.tables["applies"]["part"].tolist() == ["length", "mask"]


def test_an_index_smaller_than_asked_for_is_told(
    tiny: Callable[[str], Any],
    search: Retrieval,
    words: StudyTexts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("probes.collapse.parts._more_texts", lambda *_: ["another text"] * 3)
    found, _ = study(
        tiny("bert"), search, words, "index", distractors=1000, places=Places(layers=(3,))
    )
    (note,) = (note for note in found.notes if note.startswith("index:"))
    assert "93 documents, fewer than the 1,000 asked for" in note


def test_progress_is_told_for_every_part(
    tiny: Callable[[str], Any], search: Retrieval, words: StudyTexts
) -> None:
    said: list[str] = []
    study_collapse(
        tiny("bert"), search, words, plan("length,mask,index"), Findings(),
        lambda done, total, text: said.append(text),
    )  # fmt: skip
    assert {text.split(":")[0] for text in said} == {"length", "mask", "index"}


def test_wrong_layers_parts_and_numbers_are_refused(
    tiny: Callable[[str], Any], search: Retrieval, words: StudyTexts
) -> None:
    with pytest.raises(InputError, match="layers 0 to 3"):
        study(tiny("bert"), search, words, "length", places=Places(layers=(9,)))
    with pytest.raises(InputError, match="did you mean 'length'"):
        plan("lenght")
    with pytest.raises(InputError, match="taus"):
        plan("length", taus=(0.0,))
    with pytest.raises(InputError, match="cuts"):
        plan("length", cuts=(1,))
    with pytest.raises(InputError, match="max_length"):
        study(tiny("bert"), search, words, "mask,index", places=Places(max_length=2))


def test_onset_may_be_missing() -> None:
    tidy([{"measure": "collapse_onset_tokens", "layer": 1, "value": None, "n": 3}])
