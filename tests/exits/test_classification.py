"""The ridge probe equals scikit-learn's; leave-one-cluster-out equals refitting."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

from probes.errors import DataError, InputError
from probes.exits import classification
from probes.exits.classification import predict_classes
from probes.exits.resample import Resamples


def reference(X, labels, n_classes, fit, alpha):
    """scikit-learn's ridge on standardised states, one output per class."""
    scaler = StandardScaler().fit(X[fit])
    targets = np.where(labels[:, None] == np.arange(n_classes), 1.0, -1.0)
    model = Ridge(alpha=alpha * len(fit)).fit(scaler.transform(X[fit]), targets[fit])
    return model.predict(scaler.transform(X)), targets, scaler


@pytest.mark.parametrize("classes", [2, 5])
def test_predictions_equal_sklearn_at_every_width(rng, monkeypatch, classification_task, classes):
    monkeypatch.setattr(classification, "LAMBDAS", np.array([0.05]))
    task, X = classification_task(150, 24, rng, classes)
    fit, rest = np.arange(90), np.arange(90, 150)
    found = predict_classes(X, task.labels, classes, [8, 16, 24], fit, task.clusters)
    for step, m in enumerate([8, 16, 24]):
        expected = reference(X[:, :m], task.labels, classes, fit, 0.05)[0].argmax(axis=1)
        np.testing.assert_array_equal(found[step, rest], expected[rest])


def test_rows_of_the_fit_part_are_predicted_without_their_cluster(
    rng, monkeypatch, classification_task
):
    """Against refitting without the cluster, the scaling kept, for clusters of different sizes."""
    monkeypatch.setattr(classification, "LAMBDAS", np.array([0.02]))
    task, X = classification_task(70, 12, rng, 3)
    fit = np.arange(50)
    clusters = np.concatenate(
        [np.repeat(np.arange(10), 3), 10 + np.arange(20), 100 + np.arange(20)]
    )
    found = predict_classes(X, task.labels, 3, [12], fit, clusters)[0]
    Z = StandardScaler().fit(X[fit]).transform(X)
    targets = np.where(task.labels[:, None] == np.arange(3), 1.0, -1.0)
    for c in np.unique(clusters[fit]):
        inside = fit[clusters[fit] == c]
        outside = fit[clusters[fit] != c]
        refit = Ridge(alpha=0.02 * 50).fit(Z[outside], targets[outside])
        np.testing.assert_array_equal(found[inside], refit.predict(Z[inside]).argmax(axis=1))


def test_penalty_is_the_one_of_least_leave_one_out_error(rng, monkeypatch, classification_task):
    task, X = classification_task(80, 60, rng, 2, signal=2)
    fit = np.arange(60)
    Z = StandardScaler().fit(X[fit]).transform(X)
    targets = np.where(task.labels[:, None] == np.arange(2), 1.0, -1.0)

    def error(penalty):
        total = 0.0
        for i in fit:
            others = fit[fit != i]
            model = Ridge(alpha=penalty * 60).fit(Z[others], targets[others])
            total += float(((model.predict(Z[[i]]) - targets[i]) ** 2).sum())
        return total

    some = np.array([1e-3, 0.1, 1.0, 10.0])
    best = some[np.argmin([error(p) for p in some])]
    monkeypatch.setattr(classification, "LAMBDAS", some)
    chosen = predict_classes(X, task.labels, 2, [60], fit, task.clusters)
    monkeypatch.setattr(classification, "LAMBDAS", np.array([best]))
    np.testing.assert_array_equal(
        chosen, predict_classes(X, task.labels, 2, [60], fit, task.clusters)
    )


def test_twins_across_classes_do_not_leak(rng):
    """Each group holds one text of either class, told apart by noise only: judged with its group left out, the probe is
    at chance; were only the row left out, its twin would push it far below."""
    n = 120
    topic = rng.normal(size=(n // 2, 40))
    X = np.repeat(topic, 2, axis=0) + 0.01 * rng.normal(size=(n, 40))
    labels = np.tile([0, 1], n // 2)
    fit, groups = np.arange(n), np.repeat(np.arange(n // 2), 2)
    grouped = (predict_classes(X, labels, 2, [40], fit, groups) == labels).mean()
    single = (predict_classes(X, labels, 2, [40], fit, np.arange(n)) == labels).mean()
    assert single < 0.3
    assert 0.35 < grouped < 0.65


def test_constant_coordinates_do_no_harm(rng, classification_task):
    task, X = classification_task(100, 10, rng, 3)
    fit = np.arange(60)
    with_dead = np.concatenate(
        [X, np.full((100, 3), 7.0) + 1e-14 * rng.normal(size=(100, 3))], axis=1
    )
    a = predict_classes(X, task.labels, 3, [10], fit, task.clusters)
    b = predict_classes(with_dead, task.labels, 3, [13], fit, task.clusters)
    np.testing.assert_array_equal(a, b)


def test_balanced_accuracy_and_its_draws_equal_sklearn(rng, classification_task):
    task, X = classification_task(90, 8, rng, 3)
    predicted = predict_classes(X, task.labels, 3, [8], np.arange(40), task.clusters)
    right = (predicted == task.labels).astype(float)
    rows = np.arange(40, 90)
    found = task.estimate("balanced_accuracy", right, rows)[0]
    assert found == pytest.approx(balanced_accuracy_score(task.labels[rows], predicted[0, rows]))
    drawn = Resamples.make(50, 30, seed=0)
    draws = task.draws("balanced_accuracy", right, rows, drawn)
    for j in range(30):
        again = np.repeat(rows, drawn.counts[:, j])
        assert draws[0, j] == pytest.approx(
            balanced_accuracy_score(task.labels[again], predicted[0, again])
        )


def test_one_class_or_one_group_in_the_fit_part_is_refused(rng, classification_task):
    task, X = classification_task(30, 4, rng, 2)
    same = np.flatnonzero(task.labels == 0)
    with pytest.raises(DataError, match="one class only"):
        predict_classes(X, task.labels, 2, [4], same, task.clusters)
    with pytest.raises(InputError, match="one group"):
        predict_classes(X, task.labels, 2, [4], np.arange(30), np.zeros(30, dtype=int))
