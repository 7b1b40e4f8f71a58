"""What a probe is compared with: a control task on the same states, and the words of the texts alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from probes.errors import DataError, InputError
from probes.probing.base import Concept, IntArray, OutOfFold, as_classes
from probes.probing.folds import Folds, inner_hold_out

Text = str | tuple[str, str]

BAG_OF_WORDS_CS = (0.1, 1.0, 10.0, 100.0, 1000.0)  # rows of TF-IDF have unit length
TRIES = 100  # assignments of classes to word types before a control task is given up
WORD = re.compile(r"\w+")
TOKEN = re.compile(r"\w+|[^\w\s]")  # punctuation counts, and so do words of one letter or digit


def checked_documents(texts: Any, n: int) -> list[Text]:
    """Texts, or pairs of texts, one per row."""
    if isinstance(texts, str) or len(texts) != n:
        came = "one string" if isinstance(texts, str) else f"{len(texts)} texts"
        raise InputError(f"{came} came for {n} rows: texts are one string or one pair per row")
    found: list[Text] = []
    for row, text in enumerate(texts):
        if isinstance(text, str):
            found.append(text)
        elif (
            isinstance(text, (tuple, list))
            and len(text) == 2
            and all(isinstance(part, str) for part in text)
        ):
            found.append((text[0], text[1]))
        else:
            raise DataError(f"text {row} is {text!r}: a string or a pair of strings is needed")
    return found


def last_word(text: Text) -> str:
    """The word type that a text stands for in a control task: its last word, of a pair the second text's.

    >>> last_word("The city of Kraków is in Poland."), last_word(("One", "and two"))
    ('Poland', 'two')
    """
    whole = text if isinstance(text, str) else text[1]
    words = WORD.findall(whole)
    return words[-1] if words else whole.strip()


def control_task(
    concept: Concept, types: NDArray[Any], folds: Folds, rng: np.random.Generator
) -> Concept | None:
    """The concept's control task: every word type gets one random class (Hewitt & Liang 2019).

    Classes are drawn independently per type, with the shares that they have among the rows of
    `concept`. `types` (n,) names each row's word type. A draw in which some fold would train on one
    class only is drawn again; None when that cannot be had, as when all rows share one type.
    """
    kinds, code = np.unique(types, return_inverse=True)
    shares = np.bincount(concept.y, minlength=concept.n_classes) / len(concept.y)
    for _ in range(TRIES if len(kinds) > 1 else 0):
        y = rng.choice(concept.n_classes, len(kinds), p=shares)[code]
        if all(len(np.unique(y[train])) > 1 for train, _ in folds):
            present, compact = np.unique(y, return_inverse=True)
            return Concept(concept.name, compact.astype(np.int64), len(present), "control-task")
    return None


def bag_of_words(
    documents: Sequence[Text],
    concepts: Sequence[Concept],
    folds: Folds,
    groups: NDArray[Any] | None = None,
    seed: int = 0,
) -> list[OutOfFold]:
    """Out-of-fold predictions from the texts alone: TF-IDF of words and word pairs, logistic regression.

    Vocabulary and document frequencies come from the training rows of a fold; word pairs that occur
    in one of its texts only are left out. C is chosen among `BAG_OF_WORDS_CS` by log-loss on an
    inner hold-out of the training rows (whole `groups`). Words are runs of letters and digits in
    lower case, and single punctuation marks. Of a pair of texts, each side has words of its own.
    """
    counter = CountVectorizer(analyzer=_terms)  # type: ignore[reportArgumentType]  # the stub is too narrow
    counts = sparse.csr_array(counter.fit_transform(documents))
    least = np.asarray([1 + (" " in term) for term in counter.get_feature_names_out()])
    scores = [np.zeros((len(documents), concept.n_classes)) for concept in concepts]
    chosen: list[list[float]] = [[] for _ in concepts]
    for train, test in folds:
        documents_with = np.bincount(counts[train].indices, minlength=len(least))
        known = np.flatnonzero(documents_with >= least)
        weigh = TfidfTransformer().fit(counts[train][:, known])
        X, new = (sparse.csr_array(weigh.transform(counts[r][:, known])) for r in (train, test))
        own = None if groups is None else groups[train]
        for number, concept in enumerate(concepts):
            fitted, C = _fitted(X, concept.y[train], own, seed)
            chosen[number].append(C)
            said = fitted.decision_function(new)
            place_scores(scores[number], test, fitted.classes_, said)
    return [as_out_of_fold(s, tuple(c)) for s, c in zip(scores, chosen, strict=True)]


def place_scores(scores: NDArray[Any], rows: IntArray, classes: IntArray, found: Any) -> None:
    """Write decision scores of the `classes` a fold knows into `scores` (n, K); the other classes get −∞."""
    found = np.asarray(found)
    if found.ndim == 1:
        found = np.stack([-found / 2, found / 2], axis=1)
    scores[rows] = -np.inf
    scores[np.ix_(rows, classes)] = found


def as_out_of_fold(scores: NDArray[Any], chosen: tuple[float, ...] = ()) -> OutOfFold:
    """From scores (n, K)."""
    if scores.shape[1] == 2:
        scores = scores[:, 1] - scores[:, 0]
    return OutOfFold(scores, as_classes(scores), chosen)


def _fitted(X: Any, y: IntArray, groups: NDArray[Any] | None, seed: int) -> tuple[Any, float]:
    """Logistic regression on all rows of X, with the C that is best on the inner hold-out; and that C."""
    held = inner_hold_out(y, groups, seed)
    fit, judge = np.flatnonzero(~held), np.flatnonzero(held)
    classes = np.unique(y)
    losses: list[float] = []
    model: Any = LogisticRegression(max_iter=1000, warm_start=True)
    for C in BAG_OF_WORDS_CS:
        model.set_params(C=C).fit(X[fit], y[fit])
        losses.append(float(log_loss(y[judge], model.predict_proba(X[judge]), labels=classes)))
        if losses[-1] > min(losses):  # weaker regularisation is slow, and worse from here on
            break
    best = BAG_OF_WORDS_CS[int(np.argmin(losses))]
    return LogisticRegression(C=best, max_iter=1000).fit(X, y), best


def _terms(text: Text) -> Iterable[str]:
    """Words and pairs of neighbouring words; those of a pair of texts carry the side's name.

    >>> list(_terms("It is."))
    ['it', 'is', '.', 'it is', 'is .']
    """
    if not isinstance(text, str):
        sides = zip("ab", text, strict=True)
        return [f"{side}:{term}" for side, part in sides for term in _terms(part)]
    words = TOKEN.findall(text.lower())
    return [*words, *(f"{first} {second}" for first, second in pairwise(words))]
