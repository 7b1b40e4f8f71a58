"""Contrastive probe: partners of unseen classes are found, exchanged partners are not."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from probes.errors import InputError
from probes.probing import ContrastiveProbe, contrastive_fit, unseen_retrieval
from probes.probing.contrastive_fit import BATCH, found_first, info_nce

QUICK = ContrastiveProbe(dim=16, epochs=3)


def views(
    n: int = 240, d: int = 30, things: int = 8, nuisance: float = 1.0, seed: int = 0, same: int = 1
) -> Any:
    """Two views of hidden things, `same` rows a thing, each with its own large nuisance directions."""
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(n // same), same)
    hidden = rng.normal(size=(n // same, things))[code]

    def view() -> np.ndarray:
        own = 3 * nuisance * rng.normal(size=(n, 3)) @ rng.normal(size=(3, d))
        return hidden @ rng.normal(size=(things, d)) + nuisance * rng.normal(size=(n, d)) + own

    return view(), view(), code


def test_scikit_learn_accepts_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(QUICK, on_fail=None)
    assert not {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert sum(r["status"] == "passed" for r in results) > 40


@pytest.mark.parametrize("shared", [False, True])
def test_unseen_classes_are_found_beyond_exchanged_partners(shared: bool) -> None:
    A, B, _ = views()
    table = unseen_retrieval(A, B, probe=ContrastiveProbe(dim=16, epochs=5, shared=shared), cv=4)
    own, control = table.iloc[0], table.iloc[1]
    assert table.attrs["chance"] == pytest.approx(1 / 60)
    assert own.value > (0.25 if shared else 0.6)
    assert own.low > control.high
    assert own.low <= own.value <= own.high
    assert control.value < 0.08
    assert own.n == 240


def test_views_without_anything_in_common_are_at_chance() -> None:
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(2, 200, 20))
    row = unseen_retrieval(A, B, probe=QUICK, controls=()).iloc[0]
    assert row.low <= 1 / 40 <= row.high


def test_training_pairs_alone_prove_nothing() -> None:
    """More dimensions than pairs: partners of pure noise are found in training, and only there."""
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(2, 60, 100))
    probe = ContrastiveProbe(dim=32, epochs=5).fit(A, B)
    assert probe.score(A, B) > 0.5
    assert unseen_retrieval(A, B, probe=QUICK, controls=()).value[0] < 0.3


def test_layers_of_two_models_of_different_width() -> None:
    A, B, _ = views()
    noise = np.random.default_rng(1).normal(size=A.shape)
    states = {0: noise, 1: A}, {0: B[:, :20], 1: B[:, :20]}
    table = unseen_retrieval(*states, probe=QUICK, controls=(), concept="translation")
    assert table.layer.tolist() == [0, 1]
    assert set(table.concept) == {"translation"}
    assert table.value[0] < 0.1
    assert table.value[1] > 0.4
    with pytest.raises(InputError, match="have no raw cosine"):
        unseen_retrieval(*states, probe=QUICK, controls=("raw",))


def test_raw_cosine_is_a_baseline_where_views_share_a_basis() -> None:
    rng = np.random.default_rng(0)
    A = rng.normal(size=(60, 20))
    B = A + 0.3 * rng.normal(size=A.shape) + 10
    table = unseen_retrieval(A, B, probe=QUICK, controls=("raw",))
    assert table.variant.tolist()[1] == "raw"
    assert table.value[1] > 0.95


def test_whole_classes_are_held_out_and_any_of_the_class_counts() -> None:
    A, B, code = views(n=240, same=4)
    table = unseen_retrieval(A, B, code, probe=QUICK, cv=5)
    assert table.attrs["classes"] == 60
    assert table.attrs["chance"] == pytest.approx(4 / 48)
    assert table.value[0] > 0.7
    assert table.value[1] < 0.3
    with pytest.raises(InputError, match="cv=5 for 3 classes"):
        unseen_retrieval(A[:12], B[:12], code[:12], probe=QUICK)


def test_loss_in_closed_form() -> None:
    import torch

    tau, n = 0.1, 12
    code = torch.arange(n)
    partners = info_nce(torch.eye(n, dtype=torch.float64) / tau, code, "masked")
    assert float(partners) == pytest.approx(math.log(1 + (n - 1) * math.exp(-1 / tau)), rel=1e-5)
    # two of a class, all alike: masked negatives leave n − 1 candidates; as positives each has half
    pair = torch.arange(n) // 2
    assert float(info_nce(torch.zeros(n, n), pair, "masked")) == pytest.approx(
        math.log(n - 1), rel=1e-5
    )
    assert float(info_nce(torch.zeros(n, n), pair, "positive")) == pytest.approx(
        math.log(n), rel=1e-5
    )
    logits = torch.randn(n, n, generator=torch.Generator().manual_seed(0))
    brute = 0.0
    for z in (logits, logits.T):
        for i in range(n):
            logp = z[i] - torch.logsumexp(z[i], 0)
            brute -= float(logp[pair == pair[i]].mean()) / (2 * n)
    assert float(info_nce(logits, pair, "positive")) == pytest.approx(brute, rel=1e-5)


def test_training_lowers_the_loss_it_is_chosen_by() -> None:
    A, B, _ = views(nuisance=0.5)
    probe = ContrastiveProbe(dim=16, epochs=10, temperature=0.3).fit(A, B)
    assert probe.hold_out_loss_[probe.epochs_] <= probe.hold_out_loss_[0]
    assert probe.hold_out_loss_.min() < math.log(48)  # of telling nothing apart


def test_ties_are_shared() -> None:
    alike = np.tile([[1.0, 0.0]], (5, 1))
    np.testing.assert_allclose(found_first(alike, alike, np.arange(5)), 0.2)
    np.testing.assert_allclose(found_first(np.eye(5), np.eye(5), np.arange(5)), 1.0)
    constant = np.ones((20, 4))
    assert ContrastiveProbe(epochs=1).fit(constant, constant).score(
        constant, constant
    ) == pytest.approx(0.05)


def test_many_pairs_are_never_all_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of 12,000 pairs is held out: more than a batch, in training and outside."""
    sizes: list[int] = []

    def watched(logits: Any, code: Any, same_class: str) -> Any:
        sizes.append(len(logits))
        return info_nce(logits, code, same_class)

    monkeypatch.setattr(contrastive_fit, "info_nce", watched)
    A, B, _ = views(12_000, d=8, nuisance=0.1)
    probe = ContrastiveProbe(dim=4, epochs=1).fit(A, B)
    assert BATCH / 2 < max(sizes) <= BATCH
    assert probe.hold_out_loss_[-1] < math.log(max(sizes)) - 2


def test_recall_by_blocks_is_that_of_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    e, f = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in rng.normal(size=(2, 50, 3)))
    e[7] = e[8]
    code = np.arange(50) // 2
    brute = np.zeros(50)
    for a, b in ((e, f), (f, e)):
        for i, row in enumerate(a @ b.T):
            nearest = np.flatnonzero(np.isclose(row, row.max(), rtol=0, atol=1e-9))
            brute[i] += (code[nearest] == code[i]).mean() / 2
    for cells in (1, 130, 10_000):
        monkeypatch.setattr(contrastive_fit, "CELLS", cells)
        np.testing.assert_allclose(found_first(e, f, code), brute)


@pytest.mark.parametrize("same_class", ["masked", "positive"])
def test_same_seed_same_maps_and_rows_of_length_one(same_class: Any) -> None:
    A, B, code = views(same=2)
    probe = ContrastiveProbe(dim=8, epochs=2, same_class=same_class, shared=True)
    first, second = clone(probe).fit(A, B, code), clone(probe).fit(A, B, code)
    np.testing.assert_array_equal(first.maps_[0], second.maps_[0])
    np.testing.assert_array_equal(first.maps_[0], first.maps_[1])
    np.testing.assert_allclose(np.linalg.norm(first.transform(B, view=1), axis=1), 1)


def test_errors_say_what_came() -> None:
    A, B, _ = views(60)
    with pytest.raises(InputError, match="60 rows in the first view, 59 in the second"):
        ContrastiveProbe().fit(A, B[1:])
    with pytest.raises(InputError, match="cannot share a map"):
        ContrastiveProbe(shared=True).fit(A, B[:, 1:])
    with pytest.raises(InputError, match="unknown same_class 'positiv': did you mean 'positive'"):
        ContrastiveProbe(same_class="positiv").fit(A, B)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="temperature > 0"):
        ContrastiveProbe(temperature=0).fit(A, B)
    with pytest.raises(InputError, match="all 60 pairs are of one class"):
        ContrastiveProbe().fit(A, B, np.zeros(60))
    with pytest.raises(ValueError, match="NaN"):
        ContrastiveProbe().fit(A, np.where(A > 2, np.nan, B))
    with pytest.raises(InputError, match="view is 2"):
        ContrastiveProbe(epochs=0).fit(A, B).transform(A, view=2)
    with pytest.raises(InputError, match="one view is a mapping"):
        unseen_retrieval({0: A}, B)
