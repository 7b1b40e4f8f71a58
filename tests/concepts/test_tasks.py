"""Each kind of data becomes the right question: which texts, which rows, which labels."""

from __future__ import annotations

import numpy as np
import pytest

from probes.concepts.conditions import Condition, parse_conditions
from probes.concepts.states import LayerStates, compared, sides, task_states
from probes.concepts.tasks import Reading, make_task
from probes.datasets.concepts import ConceptData
from probes.errors import DataError, InputError
from probes.types import (
    LabelledNumbers,
    LabelledPairs,
    LabelledTexts,
    MinimalPairs,
    TextPairs,
    TokenLabels,
)


def task_of(data):
    return make_task(ConceptData("a-name", "a-family", data))


def test_texts_keep_labels_groups_and_spans() -> None:
    data = LabelledTexts(
        "t", ("a cat", "a dog", "no cat"), np.array([0, 1, 0]), ("x", "y"),
        np.array([1, 1, 2]), spans=np.array([[2, 5], [2, 5], [3, 6]]),
    )  # fmt: skip
    task = task_of(data)
    assert (task.name, task.family, task.kind, task.measure) == (
        "a-name", "a-family", "classes", "accuracy",
    )  # fmt: skip
    assert task.reading.spans == (((2, 5),), ((2, 5),), ((3, 6),))
    assert task.is_binary
    assert list(task.words) == ["a cat", "a dog", "no cat"]
    assert task.groups is not None
    assert task.groups.tolist() == [1, 1, 2]


def test_pairs_read_both_texts_and_compare_them() -> None:
    data = LabelledPairs("p", ("a", "b"), ("c", "d"), np.array([0, 1]), ("no", "yes"))
    task = task_of(data)
    assert task.reading.texts == ("a", "b", "c", "d")
    assert list(task.words) == [("a", "c"), ("b", "d")]
    rows = np.array([[1.0, 2], [3, 4], [5, 5], [0, 1]])
    found = task_states(task, {7: rows})
    assert list(found) == [7]
    np.testing.assert_array_equal(found[7], [[4, 3, 5, 10], [3, 3, 0, 4]])
    first, second = sides(task, {7: rows})
    np.testing.assert_array_equal(first[7], rows[:2])
    np.testing.assert_array_equal(second[7], rows[2:])


def test_pair_features_do_not_care_which_text_comes_first() -> None:
    u, v = np.random.default_rng(0).normal(size=(2, 5, 3))
    np.testing.assert_array_equal(compared(u, v), compared(v, u))


def test_spans_of_pairs_follow_their_texts() -> None:
    spans = np.array([[[0, 1], [2, 3]], [[4, 5], [6, 7]]])
    data = LabelledPairs(
        "p", ("aaaaaaaaa", "b" * 9), ("c" * 9, "d" * 9), np.array([0, 1]), ("n", "y"), spans=spans
    )
    assert task_of(data).reading.spans == (((0, 1),), ((4, 5),), ((2, 3),), ((6, 7),))


def test_two_scores_are_classes_and_more_are_refused() -> None:
    two = TextPairs("p", ("a", "b"), ("c", "d"), np.array([0.0, 5.0]))
    assert task_of(two).target.names == ("0", "5")
    three = TextPairs("p", ("a", "b", "e"), ("c", "d", "f"), np.array([0.0, 1.0, 2.0]))
    with pytest.raises(DataError, match="3 different scores"):
        task_of(three)


def test_words_of_a_text_belong_together() -> None:
    data = TokenLabels("w", (("Dogs", "bark"), ("She", "barks")), (("N", "V"), ("P", "V")))
    task = task_of(data)
    assert task.kind == "tokens"
    assert task.n == 4
    assert task.target.names == ("N", "P", "V")
    assert task.labels.tolist() == [0, 2, 1, 2]
    assert task.groups is not None
    assert task.groups.tolist() == [0, 0, 1, 1]
    assert task.types == ("dogs", "bark", "she", "barks")
    spans = task.reading.spans
    assert spans is not None
    read = [text[a:b] for text, row in zip(task.reading.texts, spans, strict=True) for a, b in row]
    assert read == ["Dogs", "bark", "She", "barks"]
    assert task.shown()[1] == "Dogs [bark]"


def test_numbers_and_minimal_pairs() -> None:
    numbers = LabelledNumbers("n", ("x", "y"), np.array([[1.0, 2], [3, 4]]), ("lat", "lon"))
    assert task_of(numbers).measure == "r2"
    pairs = task_of(MinimalPairs("m", ("good",), ("bad",)))
    assert pairs.kind == "minimal-pairs"
    assert pairs.n == 1
    assert pairs.shown() == ["good | bad"]


def test_templates_move_spans_along() -> None:
    reading = Reading(("gold",), (((1, 3),),)).in_template("Is {} it?")
    (text,), spans = reading.texts, reading.spans
    assert spans is not None
    a, b = spans[0][0]
    assert text[a:b] == "ol"


@pytest.mark.parametrize("template", ["no place", "{} and {}"])
def test_a_template_holds_the_text_once(template: str) -> None:
    with pytest.raises(InputError, match="needed once"):
        parse_conditions(None, [template])


@pytest.mark.parametrize(
    "text", ["noise", "noise=loud", "colour=red", "weights=int2", "noise=swap,noise=swap"]
)
def test_unknown_conditions_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_conditions(text)


def test_noise_is_refused_where_states_are_taken_at_places() -> None:
    with pytest.raises(InputError, match="noise moves"):
        Condition("noise", "swap").reading(Reading(("ab",), (((0, 1),),)), 0)


def test_layers_are_read_one_at_a_time() -> None:
    asked: list[int] = []

    class Source(dict[int, np.ndarray]):
        def __getitem__(self, layer: int) -> np.ndarray:
            asked.append(layer)
            return super().__getitem__(layer)

    states = LayerStates(Source({0: np.eye(2), 1: np.eye(2)}), (np.array([1]),), lambda rows: rows)
    np.testing.assert_array_equal(states[1], [[0, 1]])
    assert asked == [1]


def test_noise_falls_on_both_sides_of_a_minimal_pair_alike() -> None:
    good = tuple(f"the {w} cat that sees me runs" for w in ("old", "new", "red", "big"))
    bad = tuple(text.replace("runs", "run") for text in good)
    reading = task_of(MinimalPairs("m", good, bad)).reading
    noisy = Condition("noise", "prepend").reading(reading, 0).texts
    assert noisy[0] != good[0]
    for i in range(4):
        assert noisy[i].removesuffix("s") == noisy[4 + i]
