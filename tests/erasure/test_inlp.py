"""INLP: stops when it should, leaves nothing for a linear probe, harms more than LEACE."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from probes.erasure import fit_inlp, fit_leace
from probes.errors import InputError
from probes.probing import LinearProbe, RidgeProbe


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("probe", [None, LinearProbe(Cs=(1.0,))], ids=str)
def test_no_probe_learns_after_the_rounds_and_did_before(
    planted: Any, classes: int, probe: Any
) -> None:
    X, y = planted(n=600, d=40, classes=classes)
    y[:40] = 0  # a majority
    eraser = fit_inlp(X, y, probe=probe)
    cleaned = eraser(X)
    share = np.bincount(y).max() / len(y)
    for refit in (RidgeProbe(), LinearProbe()):
        assert refit.fit(X, y).score(X, y) > 0.85
        assert refit.fit(cleaned, y).score(cleaned, y) == pytest.approx(share)
    means = np.stack([cleaned[y == k].mean(axis=0) for k in range(classes)])
    assert np.ptp(means, axis=0).max() / X.std() < 1e-5
    assert eraser.history[0] > 0.85
    assert eraser.rank < 40
    assert eraser.method == "inlp"


def test_is_an_orthogonal_projection_about_the_mean(planted: Any) -> None:
    X, y = planted()
    eraser = fit_inlp(X, y)
    np.testing.assert_allclose(eraser.right @ eraser.right.T, np.eye(eraser.rank), atol=1e-10)
    np.testing.assert_array_equal(eraser.left, eraser.right.T)
    np.testing.assert_allclose(eraser(X).mean(axis=0), X.mean(axis=0), atol=1e-9)


def test_one_axis_in_white_noise_takes_few_dimensions_and_noise_none() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(2000) % 2
    noise = rng.normal(size=(2000, 10))
    X = noise.copy()
    X[:, 0] += 4 * y
    found = fit_inlp(X, y)
    assert 1 <= found.rank <= 3
    assert abs(found.right[0, 0]) > 0.99
    nothing = fit_inlp(noise, y, epsilon=0.05)
    assert len(nothing.history) == 2  # at the majority twice, then it stops
    assert nothing.rank == 1  # the mean difference alone


def test_changes_states_more_than_leace(planted: Any) -> None:
    X, y = planted(n=400, d=20)
    change = {e.method: np.square(e(X) - X).sum() for e in (fit_inlp(X, y), fit_leace(X, y))}
    assert change["leace"] < change["inlp"]


def test_groups_stay_on_one_side_of_the_hold_out() -> None:
    """Labels that groups share tell nothing about new groups: with groups INLP sees that at once."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 10)
    y = rng.integers(0, 2, size=40)[groups]
    X = rng.normal(size=(40, 30))[groups] + 0.01 * rng.normal(size=(400, 30))
    assert fit_inlp(X, y).history[0] > 0.8
    assert fit_inlp(X, y, groups=groups, epsilon=0.2).history[0] < 0.75


def test_warns_when_the_rounds_do_not_suffice(planted: Any) -> None:
    X, y = planted(n=400, d=20)
    with pytest.warns(UserWarning, match="raise max_rounds"):
        fit_inlp(X, y, max_rounds=1)


def test_fewer_rows_than_dimensions(planted: Any) -> None:
    X, y = planted(n=60, d=150)
    y[:12] = 0  # a majority: with none, rounding decides between two equal classes
    cleaned = fit_inlp(X, y)(X)
    assert RidgeProbe().fit(X, y).score(X, y) > 0.9
    assert RidgeProbe().fit(cleaned, y).score(cleaned, y) == pytest.approx((y == 0).mean())


def test_bad_data_are_refused() -> None:
    X = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(InputError, match="two are needed"):
        fit_inlp(X, np.zeros(20))
    with pytest.raises(InputError, match="groups"):
        fit_inlp(X, np.arange(20) % 2, groups=[1, 2])
