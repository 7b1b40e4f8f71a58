"""The generated concepts: answers checked by other means, balance, and shortcuts that must not work."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from probes.datasets import group_folds, load_dataset
from probes.datasets.agreement import KNOWS, PEOPLE
from probes.datasets.agreement import VERBS as AGREEING
from probes.datasets.entailment import RELATIONS
from probes.datasets.quantities import AMOUNTS, DATES
from probes.datasets.tense import VERBS, present
from probes.types import LabelledNumbers, LabelledPairs, LabelledTexts, MinimalPairs

SEEDS = pytest.mark.parametrize("seed", [0, 1])


def named(data: LabelledTexts | LabelledPairs) -> list[str]:
    return [data.label_names[code] for code in data.labels]


def tfidf_folds(columns: list[tuple[str, ...]], y: np.ndarray, groups: np.ndarray | None):
    """Features of uni- and bigrams, fitted on the training fold only, of one or more columns of texts."""
    for train, test in group_folds(y, groups, 5, np.random.default_rng(0)):
        parts = []
        for texts in columns:
            words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\b\w+\b")
            fitted = words.fit_transform([texts[i] for i in train])
            parts.append((fitted, words.transform([texts[i] for i in test])))
        yield train, test, *(sparse.hstack(side).tocsr() for side in zip(*parts, strict=True))


def bag_of_words_accuracy(columns, y: np.ndarray, groups: np.ndarray | None) -> float:
    right = 0
    for train, test, seen, unseen in tfidf_folds(columns, y, groups):
        model = LogisticRegression(C=10, max_iter=500).fit(seen, y[train])
        right += int((model.predict(unseen) == y[test]).sum())
    return right / len(y)


# ---------------------------------------------------------------- entity tracking


def follow(text: str) -> dict[str, str]:
    """Where everything is in the end, and what is asked for under "?"."""
    place = dict(re.findall(r"The (\w+) is in the (\w+) box\.", text))
    assert len(place) == len(set(place.values())) == 4
    for _, thing, goal in re.findall(r"(\w+) moves the (\w+) to the (\w+) box\.", text):
        assert place[thing] != goal, "a move that moves nothing"
        place[thing] = goal
    (asked,) = re.findall(r"Where is the (\w+)\?$", text)
    return {**place, "?": asked}


@SEEDS
def test_things_are_where_they_are_said_to_be(seed: int) -> None:
    data = load_dataset("entity-tracking", seed=seed)
    assert isinstance(data, LabelledTexts)
    for text, label in zip(data.texts, named(data), strict=True):
        state = follow(text)
        assert state[state["?"]] == label
        assert text.count(".") == 8, "four places and four moves"
    assert np.bincount(data.labels).tolist() == [160] * 4


@SEEDS
def test_no_mention_is_a_shortcut_to_the_box(seed: int) -> None:
    data = load_dataset("entity-tracking", seed=seed)
    assert isinstance(data, LabelledTexts)
    boxes = [re.findall(r"(\w+) box", text) for text in data.texts]
    assert all(set(Counter(row).values()) == {2} for row in boxes)
    for place in range(8):  # the box named last, first, or anywhere else is no better than a guess
        hits = np.mean([row[place] == label for row, label in zip(boxes, named(data), strict=True)])
        assert hits <= 0.25 + 3 * np.sqrt(0.25 * 0.75 / len(data))
    last = np.mean([row[-1] == label for row, label in zip(boxes, named(data), strict=True)])
    assert last == 0.25


# ---------------------------------------------------------------- tense


def test_tense_by_the_list_of_verbs() -> None:
    data = load_dataset("tense")
    assert isinstance(data, LabelledTexts)
    assert data.groups is not None
    forms = {base: (past, base, present(base, False)) for base, past, _ in VERBS}
    for text, label, group in zip(data.texts, named(data), data.groups.tolist(), strict=True):
        words = text.rstrip(".").split()
        past, *now = forms[group]
        assert (past in words, any(form in words for form in now)) == (
            (True, False) if label == "past" else (False, True)
        ), text
    assert Counter(data.label_names[c] for c in data.labels) == {"past": 376, "present": 376}


def test_verbs_differ_in_tense_and_occur_in_one_group_only() -> None:
    bases = [base for base, _, _ in VERBS]
    assert len(set(bases)) == len(bases) >= 90
    forms = [form for base, past, _ in VERBS for form in {base, past, present(base, False)}]
    assert len(set(forms)) == len(forms), "two verbs share a form"
    irregular = [base for base, past, _ in VERBS if not past.endswith("ed")]
    assert len(irregular) > 60


def test_a_number_of_the_subject_fits_its_verb() -> None:
    plural = {p for _, p in PEOPLE}
    data = load_dataset("tense")
    assert isinstance(data, LabelledTexts)
    assert data.groups is not None
    for text, label, group in zip(data.texts, named(data), data.groups.tolist(), strict=True):
        subject = re.search(r"[Tt]he (\w+)", text)
        assert subject
        if label == "present":
            assert present(group, subject[1] in plural) in text.rstrip(".").split(), text
        if "who live nearby" in text:
            assert subject[1] in plural


# ---------------------------------------------------------------- agreement


@SEEDS
def test_the_right_verb_agrees_with_its_subject(seed: int) -> None:
    data = load_dataset("agreement", seed=seed)
    assert isinstance(data, MinimalPairs)
    plural = {p for _, p in PEOPLE}
    assert not plural & {s for s, _ in PEOPLE}
    verbs = {(s, p) for s, p, _ in AGREEING}
    near_agrees = []
    for good, bad in zip(data.good, data.bad, strict=True):
        a, b = good.rstrip(".").split(), bad.rstrip(".").split()
        (place,) = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
        subject, *between = [w for w in a[:place] if w in plural or w in {s for s, _ in PEOPLE}]
        assert len(between) == 1
        many = subject in plural
        assert ((b[place], a[place]) if many else (a[place], b[place])) in verbs
        near_agrees.append((between[0] in plural) == many)
        for one, more in KNOWS:
            if one in a or more in a:
                assert (more in a) == (between[0] in plural)
    assert np.mean(near_agrees) == 0.5


def test_nouns_of_agreement_stay_in_one_group() -> None:
    data = load_dataset("agreement")
    assert data.groups is not None
    home: dict[str, str] = {}
    people = {form: singular for singular, plural in PEOPLE for form in (singular, plural)}
    for text, group in zip(data.all_texts(), data.groups.tolist() * 2, strict=True):
        for word in text.rstrip(".").split():
            if word in people:
                assert home.setdefault(people[word], group) == group
                assert people[word] in group.split(" / ")


# ---------------------------------------------------------------- entailment


@SEEDS
def test_entailment_follows_from_a_model_of_the_relations(seed: int) -> None:
    """Each relation as an order: the converse swaps the sides; other relations say nothing."""
    order = {r: (i, side) for i, pair in enumerate(RELATIONS) for side, r in enumerate(pair)}

    def read(text: str) -> tuple[int, str, str]:
        first, rest = text.rstrip(".").split(" ", 1)
        relation, second = rest.rsplit(" ", 1)
        which, converse = order[relation]
        return (which, second, first) if converse else (which, first, second)

    data = load_dataset("entailment", seed=seed)
    assert isinstance(data, LabelledPairs)
    for a, b, label in zip(data.texts_a, data.texts_b, named(data), strict=True):
        one, other = read(a), read(b)
        assert a != b
        assert set(one[1:]) == set(other[1:])
        expected = (
            "neutral" if one[0] != other[0] else "entailment" if one == other else "contradiction"
        )
        assert label == expected, (a, b)
    assert len(set(zip(data.texts_a, data.texts_b, strict=True))) == len(data)


@SEEDS
def test_either_side_of_entailment_alone_is_alike_in_all_classes(seed: int) -> None:
    data = load_dataset("entailment", seed=seed)
    assert isinstance(data, LabelledPairs)
    for texts in (data.texts_a, data.texts_b):
        by_class = [
            Counter(t for t, c in zip(texts, data.labels, strict=True) if c == k) for k in range(3)
        ]
        assert by_class[0] == by_class[1] == by_class[2]


# ---------------------------------------------------------------- numbers


@SEEDS
@pytest.mark.parametrize(
    ("name", "templates", "low", "high"),
    [("magnitude", AMOUNTS, 2, 9999), ("years", DATES, 1800, 2025)],
)
def test_the_number_is_the_one_in_the_text(
    name: str, templates: tuple[str, ...], low: int, high: int, seed: int
) -> None:
    data = load_dataset(name, seed=seed)
    assert isinstance(data, LabelledNumbers)
    assert data.groups is not None
    assert data.spans is not None
    for text, (start, end), (value,), group in zip(
        data.texts, data.spans.tolist(), data.targets.tolist(), data.groups.tolist(), strict=True
    ):
        assert re.findall(r"\d+", text) == [text[start:end]] == [str(group)] == [f"{value:.0f}"]
        assert text[:start] + "{}" + text[end:] in templates
    values, counts = np.unique(data.targets, return_counts=True)
    assert set(counts) == {4}
    assert low <= values[0] < values[-1] <= high
    assert len(set(data.texts)) == len(data)


def test_magnitudes_are_spread_over_the_decades() -> None:
    data = load_dataset("magnitude")
    assert isinstance(data, LabelledNumbers)
    digits = [len(str(int(v))) for v in np.unique(data.targets)]
    assert Counter(digits) == {1: 8, 2: 64, 3: 64, 4: 64}


def test_all_years_are_there() -> None:
    data = load_dataset("years")
    assert isinstance(data, LabelledNumbers)
    assert np.unique(data.targets).tolist() == list(range(1800, 2026))


# ---------------------------------------------------------------- the bag of words


@SEEDS
@pytest.mark.parametrize("name", ["entity-tracking", "tense"])
def test_words_do_not_tell_the_class(name: str, seed: int) -> None:
    data = load_dataset(name, seed=seed)
    assert isinstance(data, LabelledTexts)
    accuracy = bag_of_words_accuracy([data.texts], data.labels, data.groups)
    chance = 1 / len(data.label_names)
    assert abs(accuracy - chance) <= 3 * np.sqrt(chance * (1 - chance) / len(data))


@SEEDS
def test_words_of_both_sides_do_not_tell_entailment(seed: int) -> None:
    data = load_dataset("entailment", seed=seed)
    assert isinstance(data, LabelledPairs)
    accuracy = bag_of_words_accuracy([data.texts_a, data.texts_b], data.labels, data.groups)
    assert abs(accuracy - 1 / 3) <= 3 * np.sqrt(2 / 9 / len(data))


@SEEDS
def test_words_do_not_tell_agreement(seed: int) -> None:
    data = load_dataset("agreement", seed=seed)
    assert isinstance(data, MinimalPairs)
    assert data.groups is not None
    y = np.repeat([1, 0], len(data))
    accuracy = bag_of_words_accuracy([data.good + data.bad], y, np.tile(data.groups, 2))
    assert abs(accuracy - 0.5) <= 3 * 0.5 / np.sqrt(len(data))


@SEEDS
@pytest.mark.parametrize("name", ["magnitude", "years"])
def test_words_do_not_tell_the_number(name: str, seed: int) -> None:
    data = load_dataset(name, seed=seed)
    assert isinstance(data, LabelledNumbers)
    y = data.targets[:, 0]
    error = total = 0.0
    for train, test, seen, unseen in tfidf_folds([data.texts], data.targets, data.groups):
        predicted = Ridge(alpha=10).fit(seen, y[train]).predict(unseen)
        error += ((predicted - y[test]) ** 2).sum()
        total += ((y[train].mean() - y[test]) ** 2).sum()
    assert 1 - error / total < 0.03


def test_the_control_of_these_tests_sees_a_free_ride() -> None:
    """The same bag of words on texts in which the answer's box is named once more: it is not blind."""
    data = load_dataset("entity-tracking")
    assert isinstance(data, LabelledTexts)
    texts = tuple(f"{text} A {box} box." for text, box in zip(data.texts, named(data), strict=True))
    assert bag_of_words_accuracy([texts], data.labels, data.groups) > 0.95
