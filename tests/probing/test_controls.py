"""Controls: the control task, selectivity, the bag of words; and what a sweep keeps of every example."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from probes.errors import DataError, FathometerError, InputError
from probes.probing import (
    CONTROLS,
    BelowChanceWarning,
    LinearProbe,
    RidgeProbe,
    cross_validate,
    sweep,
)
from probes.probing import controls as controls_module
from probes.probing.base import Concept, OutOfFold
from probes.probing.controls import bag_of_words, control_task, last_word
from probes.probing.folds import stratified_folds
from probes.probing.scores import Resamples, selectivity_terms

Planted = Callable[..., tuple[dict[int, np.ndarray], np.ndarray]]


def rows_of(table: pd.DataFrame, measure: str, variant: str | None = None) -> pd.DataFrame:
    rows = table[table.measure == measure]
    return rows[rows.variant.isna()] if variant is None else rows[rows.variant == variant]


def concept_of(y: np.ndarray) -> Concept:
    return Concept("c", y.astype(np.int64), int(y.max()) + 1)


# -- control task


def test_a_type_has_one_class_and_classes_have_the_labels_shares() -> None:
    rng = np.random.default_rng(0)
    y = rng.choice(3, 9000, p=[0.7, 0.2, 0.1])
    types = rng.integers(0, 3000, 9000).astype(str)
    folds = stratified_folds(y, None, 5, 0)
    task = control_task(concept_of(y), types, folds, np.random.default_rng(1))
    assert task is not None
    assert task.variant == "control-task"
    by_type: dict[str, set[int]] = {}
    for kind, label in zip(types, task.y, strict=True):
        by_type.setdefault(kind, set()).add(int(label))
    assert all(len(classes) == 1 for classes in by_type.values())
    assert np.bincount(task.y) / 9000 == pytest.approx([0.7, 0.2, 0.1], abs=0.04)


def test_the_draw_is_seeded_and_never_leaves_a_fold_with_one_class() -> None:
    y = np.arange(40) % 2
    types = np.asarray(
        ["rare"] * 3 + ["frequent"] * 37
    )  # a careless draw often gives both one class
    folds = stratified_folds(y, None, 2, 0)
    for seed in range(20):
        task = control_task(concept_of(y), types, folds, np.random.default_rng(seed))
        again = control_task(concept_of(y), types, folds, np.random.default_rng(seed))
        assert task is not None
        assert again is not None
        assert task.y.tolist() == again.y.tolist()
        assert all(len(np.unique(task.y[train])) == 2 for train, _ in folds)


def test_texts_that_end_alike_have_no_control_task() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = rng.normal(size=(60, 3))
    texts = [f"Coin number {i} shows heads?" for i in range(60)]
    swept = cross_validate(RidgeProbe(), {0: X}, y, controls=("control-task",), texts=texts)
    assert set(swept.table.variant.dropna()) == set()
    assert "selectivity" not in set(swept.table.measure)
    assert len(swept.notes) == 1
    assert "60 rows have 1 word type" in swept.notes[0]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Rome is in Italy.", "Italy"),
        ("3 < 14!?", "14"),
        ("…", "…"),
        (("a b", "c d."), "d"),
        ("naïve café", "café"),
    ],
)
def test_last_word(text: str | tuple[str, str], word: str) -> None:
    assert last_word(text) == word


def test_selectivity_tells_the_concept_from_the_word() -> None:
    """States that name the word type do any task on types; states that hold the concept only do that one."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 30, 900)
    y = (kind % 2).astype(np.int64)
    identity = np.eye(30)[kind] + 0.01 * rng.normal(size=(900, 30))
    concept = np.eye(2)[y] + 0.1 * rng.normal(size=(900, 2))
    swept = cross_validate(
        LinearProbe(), {0: identity, 1: concept}, y, controls=("control-task",), types=kind
    )
    real = rows_of(swept.table, "accuracy").value.tolist()
    control = rows_of(swept.table, "accuracy", "control-task").value.tolist()
    found = rows_of(swept.table, "selectivity").set_index("layer")
    assert min(real) > 0.99
    assert control[0] > 0.99
    assert control[1] < 0.8
    assert found.value.tolist() == pytest.approx(np.subtract(real, control), abs=1e-12)
    assert abs(found.value[0]) < 0.01
    assert float(found.low[1]) > 0.2
    assert (found.low <= found.value).all()
    assert (found.value <= found.high).all()


def test_selectivity_is_paired() -> None:
    """Examples that are hard in both tasks say nothing about their difference: its interval must not see them."""
    n = 400
    y = np.arange(n) % 2
    rng = np.random.default_rng(0)
    hard = rng.random(n) < 0.4
    wrong = hard | (rng.random(n) < 0.05)
    both = [
        (concept_of(y), OutOfFold(np.zeros(n), np.where(miss, 1 - y, y))) for miss in (hard, wrong)
    ]
    terms = selectivity_terms(both[0], both[1], np.arange(n))
    sample = Resamples(n, None, 2000, 0.95, np.random.default_rng(0))
    ((_, found),) = sample.estimates([terms], 0)
    difference = wrong.astype(float) - hard
    assert found.value == pytest.approx(difference.mean())
    exact = 1.96 * difference.std() / np.sqrt(n) * np.sqrt(terms.inflation)
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * exact, rel=0.1)


@pytest.mark.parametrize(
    ("hit", "control", "low", "high"), [(1, 1, -0.04, 0.04), (1, 0, 0.93, 1), (0, 1, -1, -0.93)]
)
def test_selectivity_without_spread(hit: int, control: int, low: float, high: float) -> None:
    n = 100
    y = np.arange(n) % 2
    real, by_chance = (
        (concept_of(y), OutOfFold(np.zeros(n), y if right else 1 - y)) for right in (hit, control)
    )
    terms = selectivity_terms(real, by_chance, np.arange(n))
    sample = Resamples(n, None, 200, 0.95, np.random.default_rng(0))
    ((_, found),) = sample.estimates([terms], 0)
    assert found.value == hit - control
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)


# -- bag of words


SUBJECTS = ["the cat", "a dog", "my friend", "our neighbour", "this child", "the old man"]


def sentences(n: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """One word tells the class in nine of ten texts."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 2)
    said = np.where(rng.random(n) < 0.9, y, 1 - y)
    return [f"It {['slept', 'ran'][s]} beside {rng.choice(SUBJECTS)}." for s in said], y


def test_bag_of_words_finds_the_telling_word() -> None:
    texts, y = sentences(300)
    X = np.random.default_rng(0).normal(size=(300, 4))
    swept = cross_validate(RidgeProbe(), {0: X, 1: X}, y, controls=("bag-of-words",), texts=texts)
    rows = swept.table[swept.table.variant == "bag-of-words"]
    assert rows.layer.isna().all()
    assert rows.block.isna().all()
    assert sorted(rows.measure) == ["accuracy", "auroc", "balanced_accuracy"]
    accuracy = rows_of(swept.table, "accuracy", "bag-of-words").iloc[0]
    assert accuracy.value == pytest.approx(0.9, abs=0.04)
    assert accuracy.low < 0.9 < accuracy.high
    assert rows_of(swept.table, "accuracy").value.max() < 0.6
    (level,) = swept.levels
    assert level.values[0] == accuracy.value
    assert swept.curve(None, "bag-of-words") is level


def test_bag_of_words_equals_a_pipeline_fitted_on_the_training_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Vocabulary (pairs in two texts at least), document frequencies and weights of the training part only."""
    monkeypatch.setattr(controls_module, "BAG_OF_WORDS_CS", (3.0,))
    texts, y = sentences(120)
    texts = [f"{t} Number {i} was {i % 7}" for i, t in enumerate(texts)]
    train, test = np.arange(80), np.arange(80, 120)
    (found,) = bag_of_words(texts, [concept_of(y)], [(train, test)])
    words = [[w.lower() for w in texts[i].replace(".", " .").split()] for i in train]
    singles = {w for text in words for w in text}
    in_texts = Counter(p for text in words for p in {*pairwise(text)})
    pairs = {f"{a} {b}" for (a, b), count in in_texts.items() if count > 1}
    reference = TfidfVectorizer(
        vocabulary=sorted(singles | pairs), ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]"
    )
    A = reference.fit_transform([texts[i] for i in train])
    B = reference.transform([texts[i] for i in test])
    expected = LogisticRegression(C=3.0, max_iter=1000).fit(A, y[train]).decision_function(B)
    assert found.scores[test] == pytest.approx(expected, abs=1e-3)
    assert found.chosen == (3.0,)


def test_test_texts_reach_nothing_but_their_own_prediction() -> None:
    texts, y = sentences(100)
    folds = [(np.arange(70), np.arange(70, 100))]
    (first,) = bag_of_words(texts, [concept_of(y)], folds)
    changed = [*texts[:99], "Quite other words , ran ran ran"]
    (second,) = bag_of_words(changed, [concept_of(y)], folds)
    assert first.scores[:99].tolist() == second.scores[:99].tolist()
    assert first.scores[99] != second.scores[99]


def test_sides_of_a_pair_have_words_of_their_own() -> None:
    """The class is the order of two words: one bag for both sides could not know."""
    y = np.arange(100) % 2
    pairs = [("hot day", "cold day") if label else ("cold day", "hot day") for label in y]
    folds = stratified_folds(y, None, 5, 0)
    (apart,) = bag_of_words(pairs, [concept_of(y)], folds)
    (joined,) = bag_of_words([" ".join(sorted(p)) for p in pairs], [concept_of(y)], folds)
    assert (apart.predicted == y).all()
    assert (joined.predicted == y).mean() == 0.5


def test_bag_of_words_on_paired_statements_warns_and_groups_mend_it() -> None:
    entity = np.repeat(np.arange(80), 2)
    y = np.arange(160) % 2
    wrong = entity // 4 * 4 + (entity + 1) % 4  # false countries come from the same four cities
    texts = [
        f"City{e} lies in country{e if label else w}"
        for e, label, w in zip(entity, y, wrong, strict=True)
    ]
    states = {0: np.random.default_rng(0).normal(size=(160, 3))}
    given: dict[str, Any] = {"controls": ("bag-of-words",), "texts": texts}
    with pytest.warns(
        BelowChanceWarning, match=r"bag of words: balanced accuracy is .*give groups"
    ):
        swept = cross_validate(RidgeProbe(), states, y, **given)
    assert any("bag of words" in note for note in swept.notes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cross_validate(RidgeProbe(), states, y, groups=entity // 4, **given)


def test_the_warning_names_the_callers_line() -> None:
    entity = np.repeat(np.arange(100), 2)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 60))[entity] + 0.05 * rng.normal(size=(200, 60))
    for call in (sweep, cross_validate):
        with pytest.warns(BelowChanceWarning) as caught:
            call(RidgeProbe(alphas=(1.0,)), {0: X}, np.arange(200) % 2)
        assert caught[0].filename == __file__


# -- what is kept


def test_controls_leave_the_probe_alone(planted: Planted) -> None:
    """Same values and intervals of the probe, with the controls that draw nothing for it."""
    states, y = planted(1, layers=2)
    texts, _ = sentences(len(y))
    plain = sweep(RidgeProbe(), states, y)
    among = sweep(RidgeProbe(), states, y, controls=("control-task", "bag-of-words"), texts=texts)
    among = among[among.variant.isna() & (among.measure != "selectivity")].reset_index(drop=True)
    pd.testing.assert_frame_equal(plain, among)


def test_curves_are_the_table_example_by_example(planted: Planted) -> None:
    states, y = planted(1, layers=3)
    texts, other = sentences(len(y))
    groups = np.arange(len(y)) // 2
    labels = {"a": y, "b": other}
    swept = cross_validate(
        RidgeProbe(), states, labels, groups=groups, controls=CONTROLS, texts=texts
    )
    seen = {(c.concept, c.variant) for c in (*swept.curves, *swept.levels)}
    assert seen == {(name, v) for name in "ab" for v in (None, *CONTROLS)}
    for curve in swept.curves:
        assert curve.layers == (0, 1, 2)
        assert curve.groups is not None
        assert curve.groups.tolist() == groups.tolist()
        assert set(np.unique(curve.scores)) <= {0.0, 1.0}
        rows = rows_of(swept.table, "accuracy", curve.variant)
        rows = rows[rows.concept == curve.concept]
        assert rows.value.tolist() == pytest.approx(curve.values.tolist(), abs=1e-12)
    chance = {entry["concept"]: entry["accuracy"] for entry in swept.attrs["chance"]}
    assert swept.curve("a").chance == chance["a"] == 0.5
    with pytest.raises(InputError, match=r"no curve of concept 'c'.*there are \(a, None\)"):
        swept.curve("c")


def test_curves_hold_the_tested_rows_only(planted: Planted) -> None:
    states, y = planted(0, layers=1)
    test = np.arange(200, 240)
    swept = cross_validate(RidgeProbe(), states, y, [(np.arange(200), test)], groups=np.arange(240))
    assert swept.curve().rows.tolist() == test.tolist()
    assert swept.curve().groups is not None
    assert swept.curve().groups.tolist() == test.tolist()


def test_variant_labels_all_rows(planted: Planted) -> None:
    states, y = planted(1, layers=2)
    swept = cross_validate(RidgeProbe(), states, y, variant="untrained")
    assert set(swept.table.variant) == {"untrained"}
    assert [c.variant for c in swept.curves] == ["untrained"]
    plain = sweep(RidgeProbe(), states, y)
    assert swept.table.value.tolist() == plain.value.tolist()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"controls": ("bag-of-words",)}, InputError, "needs texts="),
        ({"controls": ("control-task",)}, InputError, "needs texts= or types="),
        ({"controls": CONTROLS, "texts": ["a"] * 39}, InputError, "39 texts came for 40 rows"),
        ({"controls": CONTROLS, "texts": "a text"}, InputError, "one string came for 40 rows"),
        ({"controls": CONTROLS, "texts": ["a"] * 39 + [3]}, DataError, "text 39 is 3"),
        ({"controls": CONTROLS, "texts": [("a", "b", "c")] * 40}, DataError, "a pair of strings"),
        ({"controls": ("control-task",), "types": [1, 2]}, InputError, "types have shape"),
        ({"controls": ("shuffled",), "variant": "untrained"}, InputError, "rows have one variant"),
        ({"controls": ("bag-of-word",)}, InputError, "did you mean 'bag-of-words'"),
    ],
)
def test_bad_input_is_one_clear_line(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    X = np.random.default_rng(0).normal(size=(40, 3))
    with pytest.raises(error, match=message) as caught:
        cross_validate(RidgeProbe(), {0: X}, np.arange(40) % 2, **change)
    assert isinstance(caught.value, FathometerError)
    assert "\n" not in str(caught.value)
