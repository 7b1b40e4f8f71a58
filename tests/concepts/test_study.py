"""The whole study on a tiny decoder: every kind of concept leaves the rows and tables that figures read."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from zoo import build, texts

from probes.concepts import (
    ConceptPlan,
    Places,
    make_task,
    parse_conditions,
    study_concepts,
)
from probes.concepts.names import PARTS
from probes.datasets.concepts import ConceptData
from probes.errors import DataError, InputError
from probes.probing import sweep
from probes.runs import Findings
from probes.types import (
    LabelledNumbers,
    LabelledPairs,
    LabelledTexts,
    MinimalPairs,
    TokenLabels,
)

ANIMALS = ("cat", "dog", "bird", "fish")
COLOURS = ("red", "blue", "green", "gold")


def truths(name: str, middle: str) -> LabelledTexts:
    """ "the cat <middle> red": each subject once with its own colour, once with another's."""
    rows = []
    for number in range(30):
        animal, colour = number % 4, number // 4 % 4
        start = f"the {WORDY[number]} {ANIMALS[animal]} {middle}"
        rows.append((f"{start} {COLOURS[animal]}", 1, number))
        rows.append((f"{start} {COLOURS[(animal + 1 + colour % 3) % 4]}", 0, number))
    return LabelledTexts.make(name, *(list(column) for column in zip(*rows, strict=True)))  # type: ignore[arg-type]


SIZES = ("old", "new", "big", "small", "fast", "slow")
WORDY = [f"{a} {b}" for a in SIZES for b in ("tree", "river", "sun", "moon", "king")]
PLACES = ("river", "house", "tree", "stone", "road")


def story(verb: str, place: str, colour: str) -> str:
    """What happens to the dog is told in the second of three sentences."""
    return f"the cat sleeps. Then the dog {verb} near the {place}. Now the sun is {colour}."


def cat_texts(n: int = 160) -> LabelledTexts:
    """Whether a text holds a cat; balanced."""
    found = list(dict.fromkeys(texts(8 * n, seed=5, longest=8)))
    ones = [t for t in found if "cat" in t.split()][: n // 2]
    zeros = [t for t in found if "cat" not in t.split()][: len(ones)]
    return LabelledTexts.make("cats", ones + zeros, ["cat"] * len(ones) + ["none"] * len(zeros))


@pytest.fixture(scope="module")
def tasks() -> tuple[Any, ...]:
    """One concept of every kind."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9, size=60)
    colours = (*COLOURS, "red one", "old blue")
    stories = [story(*parts) for parts in product(("runs", "sings"), PLACES, colours)]
    concepts = {
        "is": ("factual", truths("is", "is")),
        "was": ("factual", truths("was", "was")),
        "cats": ("topical", cat_texts()),
        "story": (
            "inferential",
            LabelledTexts.make("story", stories, ["runs" in s for s in stories]),
        ),
        "same": (
            "linguistic",
            LabelledPairs.make(
                "same",
                (texts(80, 1), [*texts(80, 1)[:40], *texts(40, 2)]),
                [1] * 40 + [0] * 40,
            ),
        ),
        "agree": (
            "linguistic",
            MinimalPairs(
                "agree",
                tuple(f"the {w} cat runs" for w in WORDY),
                tuple(f"the {w} cat will" for w in WORDY),
            ),
        ),
        "count": (
            "numerical",
            LabelledNumbers(
                "count",
                tuple(f"{'red ' * c}{w}" for c, w in zip(counts, WORDY * 2, strict=True)),
                counts[:, None].astype(float),
                ("count",),
            ),
        ),
        "words": (
            "linguistic",
            TokenLabels(
                "words",
                tuple(tuple(f"the {w} sees a dog".split()) for w in WORDY),
                tuple(("D", "A", "N", "V", "D", "N") for _ in WORDY),
            ),
        ),
    }
    return tuple(make_task(ConceptData(k, f, d)) for k, (f, d) in concepts.items())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def found(tasks: tuple[Any, ...], cache: Path) -> Findings:
    findings = Findings()
    plan = ConceptPlan(
        probe="ridge",
        folds=3,
        conditions=parse_conditions("noise=swap,weights=int4,pooling=mean", ["is it {}"]),
        draws=200,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FATHOMETER_CACHE", str(cache))
        study_concepts(build("llama"), tasks, plan, findings)
    return findings


@pytest.fixture(scope="module")
def rows(found: Findings) -> pd.DataFrame:
    return pd.concat(found.frames, ignore_index=True)


def test_every_concept_has_a_curve_over_all_layers(
    rows: pd.DataFrame, tasks: tuple[Any, ...]
) -> None:
    for task in tasks:
        own = rows[(rows["concept"] == task.name) & rows["variant"].isna()]
        curve = own[(own["measure"] == task.measure) & own["layer"].notna()]
        assert curve["layer"].tolist() == [0, 1, 2, 3], task.name
        assert curve["low"].notna().all()


def test_controls_and_conditions_stand_beside_it(rows: pd.DataFrame) -> None:
    assert set(rows[rows["concept"] == "cats"]["variant"].dropna()) >= {
        "shuffled", "control-task", "bag-of-words", "untrained", "noise=swap", "weights=int4", "pooling=mean",
        "template=1",
    }  # fmt: skip
    bag = rows[(rows["concept"] == "cats") & (rows["variant"] == "bag-of-words")]
    assert bag["layer"].isna().all()
    assert float(bag[bag["measure"] == "accuracy"]["value"].iloc[0]) > 0.9  # "cat" is a word


def test_the_curve_is_the_sweep_itself(
    rows: pd.DataFrame, tasks: tuple[Any, ...], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from probes import capture
    from probes.probing import RidgeProbe

    monkeypatch.setenv("FATHOMETER_CACHE", str(cache))
    task = next(t for t in tasks if t.name == "cats")
    states = capture(build("llama"), task.reading.texts)["exit"]
    direct = sweep(RidgeProbe(), states, task.labels, cv=3, draws=200)
    wanted = direct[direct["measure"] == "accuracy"]["value"].tolist()
    own = rows[(rows["concept"] == "cats") & (rows["measure"] == "accuracy")]
    assert own[own["variant"].isna()]["value"].tolist() == pytest.approx(wanted)


def test_a_concept_of_the_tokens_is_found_and_shuffled_labels_are_not(rows: pd.DataFrame) -> None:
    own = rows[(rows["concept"] == "words") & (rows["measure"] == "accuracy")]
    plain = own[own["variant"].isna()].set_index("layer")
    assert float(plain["value"].min()) > 0.9  # the word itself is in its state
    shuffled = own[own["variant"] == "shuffled"]
    assert float(shuffled["value"].max()) < 0.6


def test_tables_are_complete(found: Findings, tasks: tuple[Any, ...]) -> None:
    assert set(found.tables) >= {
        "concepts", "predictions", "examples", "scalar_mix", "over_time", "transfer", "erasure", "causal",
    }  # fmt: skip
    concepts = found.tables["concepts"].set_index("concept")
    assert list(concepts.index) == [task.name for task in tasks]
    assert concepts.loc["words", "kind"] == "tokens"
    assert concepts.loc["cats", "chance"] == pytest.approx(0.5)
    transfer = found.tables["transfer"]
    assert set(transfer["train"]) == {"is", "was"}
    time = found.tables["over_time"]
    assert set(time["concept"]) == {"story"}
    assert set(time["sentence"]) == {1, 2, 3}


def test_what_happens_in_sentence_two_is_known_after_it_and_not_before(found: Findings) -> None:
    time = found.tables["over_time"]
    by_sentence = time[time["layer"] > 0].groupby("sentence")["value"].max()
    assert float(by_sentence[1]) < 0.75
    assert float(by_sentence[2]) > 0.9


def test_predictions_give_the_curve_back(rows: pd.DataFrame, found: Findings) -> None:
    table = found.tables["predictions"]
    own = table[table["concept"] == "cats"].groupby("layer")["correct"].mean()
    curve = rows[
        (rows["concept"] == "cats") & (rows["measure"] == "accuracy") & rows["variant"].isna()
    ]
    assert own.tolist() == pytest.approx(curve["value"].tolist())


def test_erased_concepts_are_at_the_majority(found: Findings) -> None:
    table = found.tables["erasure"]
    own = table[(table["erased"] == table["measured"]) & (table["method"] == "leace")]
    words = own[own["erased"] == "cats"].iloc[0]
    assert words["before"] > words["majority"] + 0.1
    assert words["after_low"] <= words["majority"] + 0.02


def test_edits_have_their_random_controls(found: Findings) -> None:
    treatments = set(found.tables["causal"]["treatment"])
    assert treatments >= {"none", "leace", "inlp", "random", "steer", "steer-random"}


def test_what_does_not_apply_is_said(found: Findings) -> None:
    assert any("noise" in note and "words" in note for note in found.notes)


def test_a_model_without_a_head_leaves_notes_instead_of_rows(
    tasks: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FATHOMETER_CACHE", str(tmp_path))
    findings = Findings()
    some = tuple(task for task in tasks if task.name in ("is", "agree"))
    plan = ConceptPlan(
        probe="ridge", folds=3, controls=frozenset(), parts=frozenset({"preference", "causal"}), draws=200
    )  # fmt: skip
    study_concepts(build("bert"), some, plan, findings)
    assert "causal" not in findings.tables
    assert sum("no language-model head" in note for note in findings.notes) == 2


def test_parts_can_be_left_out(
    tasks: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FATHOMETER_CACHE", str(tmp_path))
    findings = Findings()
    plan = ConceptPlan(probe="ridge", folds=3, controls=frozenset(), parts=frozenset(), draws=200)
    study_concepts(build("llama"), tasks[:1], plan, findings)
    assert set(findings.tables) == {"concepts", "predictions", "examples"}
    assert pd.concat(findings.frames)["variant"].isna().all()
    assert set(PARTS) == ConceptPlan().parts


def test_one_pass_over_a_causal_model_is_the_same_as_reading_only_so_far(
    tasks: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from probes.capture import sentence_spans
    from probes.concepts import each
    from probes.concepts.study import Study

    monkeypatch.setenv("FATHOMETER_CACHE", str(tmp_path))
    task = next(t for t in tasks if t.name == "story")
    study = Study(build("llama"), (task,), ConceptPlan(), Findings(), lambda *_: None)
    spans = [sentence_spans(text) for text in task.reading.texts]
    after = each._SentenceStates(study, task, spans)
    assert after._store is not None
    rows = np.arange(0, task.n, 7)
    at_once = [after.states(2, rows)[layer] for layer in range(4)]
    after._store = None
    apart = [after.states(2, rows)[layer] for layer in range(4)]
    np.testing.assert_allclose(at_once, apart, atol=1e-5)


def test_more_workers_give_the_same_numbers(
    tasks: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FATHOMETER_CACHE", str(tmp_path))
    plan = ConceptPlan(
        probe="ridge", folds=3, controls=frozenset({"shuffled"}), parts=frozenset({"mdl"}), draws=200
    )  # fmt: skip
    tables = []
    for workers in (1, 2):
        findings = Findings()
        study_concepts(build("llama"), tasks[:2], plan, findings, workers=workers)
        tables.append(pd.concat(findings.frames, ignore_index=True))
    pd.testing.assert_frame_equal(*tables, rtol=1e-4)


def test_numbers_and_minimal_pairs_have_a_bag_of_words_too(
    rows: pd.DataFrame, found: Findings
) -> None:
    bags = rows[rows["variant"] == "bag-of-words"].set_index(["concept", "measure"])
    assert bags["layer"].isna().all()
    assert float(bags.loc[("count", "r2"), "low"]) > 0.2  # how often it says "red"
    assert float(bags.loc[("agree", "accuracy"), "value"]) > 0.9  # "runs" against "will"
    above = found.tables["concepts"].set_index("concept")["above_bag"]
    assert above["agree"] is False or not above["agree"]


def test_one_unusable_concept_is_named_and_ends_nothing(
    tasks: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FATHOMETER_CACHE", str(tmp_path))
    few = LabelledTexts.make("few", ["a cat", "a dog", "a fish"], [0, 1, 1])
    bad = make_task(ConceptData("too-few", "none", few))
    plan = ConceptPlan(probe="ridge", controls=frozenset(), parts=frozenset(), draws=200)
    findings = Findings()
    study_concepts(build("llama"), (bad, tasks[0]), plan, findings)
    assert findings.tables["concepts"]["concept"].tolist() == ["is"]
    assert [note for note in findings.notes if "too-few: left out: " in note]
    with pytest.raises(DataError, match="concept 'too-few': cv=5 for 3 rows"):
        study_concepts(build("llama"), (bad,), plan, Findings())


def test_an_option_that_fits_no_concept_is_an_error(tasks: tuple[Any, ...]) -> None:
    plan = ConceptPlan(places=Places(max_length=100_000))
    with pytest.raises(InputError, match="max_length"):
        study_concepts(build("llama"), tasks[:1], plan, Findings())
