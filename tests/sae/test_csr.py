"""Sparse codes of embeddings: the loss against its formula, planted codes with controls, the index by brute force."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone

from probes.errors import EstimatorInputError, FathometerError, InputError, NonFiniteError
from probes.linalg import normalise_rows
from probes.sae.baselines import random_autoencoder
from probes.sae.csr import WIDE, Contrastive, CSRCoder
from probes.sae.inverted import InvertedIndex, best_first, unit_codes
from probes.sae.network import start_network
from probes.sae.settings import Recipe, Sizes
from probes.sae.topk import AUX_ROWS

QUICK = {"steps": 200, "batch_size": 128, "device": "cpu"}
LOSS = Contrastive(0.5, 0.2)


@pytest.fixture(scope="module")
def embeddings():
    """Unit vectors (2000, 24) that are sums of 3 of 48 directions: sparse by nature, spread over all coordinates."""
    rng = np.random.default_rng(0)
    directions = normalise_rows(rng.normal(size=(48, 24)))
    codes = np.zeros((2000, 48))
    np.put_along_axis(
        codes, rng.random((2000, 48)).argsort(1)[:, :3], rng.uniform(0.5, 1.5, (2000, 3)), 1
    )
    return normalise_rows(codes @ directions).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(embeddings):
    return CSRCoder(k=4, n_features=64, **QUICK).fit(embeddings[:1500])


def agreement(states, truth, top=10):
    """Share of each row's `top` nearest by `truth` that are among its nearest by `states`."""

    def nearest(X):
        cosines = normalise_rows(X) @ normalise_rows(X).T
        np.fill_diagonal(cosines, -2)
        return np.argsort(-cosines, axis=1)[:, :top]

    a, b = nearest(states), nearest(truth)
    return np.mean([len(set(x) & set(y)) / top for x, y in zip(a, b, strict=True)])


def test_codes_keep_neighbours_that_cut_vectors_and_random_directions_lose(fitted, embeddings):
    new = embeddings[1500:]
    ours = agreement(fitted.transform(new).toarray(), new)
    cut = agreement(new[:, :4], new)
    random = random_autoencoder(fitted.autoencoder_, embeddings[:1500])
    control = agreement(random.transform(new).toarray(), new)
    assert ours > 0.5
    assert ours > 2 * cut
    assert ours > control + 0.1


def test_codes_have_k_numbers_and_depend_on_their_own_embedding_alone(fitted, embeddings):
    codes = fitted.transform(embeddings[:50])
    assert codes.shape == (50, 64)
    assert codes.dtype == np.float32
    assert codes.count_nonzero(axis=1).max() <= 4
    alone = sparse.vstack([fitted.transform(embeddings[i : i + 1]) for i in range(50)])
    np.testing.assert_allclose(codes.toarray(), alone.toarray(), atol=1e-6)
    # float32 is not exactly invariant to scale, the chosen features are
    longer = fitted.transform(3 * embeddings[:50])
    np.testing.assert_allclose(longer.toarray(), codes.toarray(), atol=1e-5)
    copies = fitted.inverse_transform(codes)
    cosines = (normalise_rows(copies) * embeddings[:50]).sum(1)
    assert cosines.mean() > 0.9


def network(rng, m=32, d=8, k=3):
    recipe = Recipe(Sizes(d, m, float(k), (m,)), 100, 64, 1e-3, 0, 0.0, 10**9, "float32")
    net = start_network(LOSS, recipe, 0, torch.device("cpu"))
    with torch.no_grad():
        for name, w in net.weights.items():
            if name.endswith("bias"):
                w.copy_(torch.from_numpy(0.1 * rng.normal(size=w.shape)))
    return net, torch.from_numpy(rng.normal(size=(40, d)).astype(np.float32))


def dense_codes(w, x, k):
    """The k largest, kept where positive, by sorting: (rows, m), with its graph."""
    pre = x @ w["encoder"].T + w["encoder_bias"]
    least = pre.sort(dim=1).values[:, -k][:, None]
    return torch.where(pre >= least, pre, torch.zeros(())).relu()


def test_loss_is_its_formula():
    net, x = network(np.random.default_rng(1))
    w, d, k = net.weights, 8, 3
    copy = dense_codes(w, x, WIDE * k) @ w["decoder"] + w["decoder_bias"]
    expected = (copy - x).square().sum(1).mean() / 8
    unit = torch.nn.functional.normalize(dense_codes(w, x, k), dim=1)
    similar = ((unit @ unit.T) / 0.2).exp()
    expected = expected - 0.5 * d * (similar.diag() / similar.sum(1)).log().mean()
    assert LOSS.beside(net, x).item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradients_are_those_of_all_four_losses_written_out():
    net, x = network(np.random.default_rng(2))
    w, k = net.weights, 3
    copy = dense_codes(w, x, k) @ w["decoder"] + w["decoder_bias"]
    quarter = x[: len(x) // AUX_ROWS]
    total = (copy - x).square().sum(1).mean() + LOSS.beside(net, quarter)
    expected = torch.autograd.grad(total, list(w.values()))
    LOSS.backward(net, x)
    for name, gradient in zip(w, expected, strict=True):
        np.testing.assert_allclose(w[name].grad, gradient, rtol=1e-3, atol=1e-5, err_msg=name)


def test_contrast_drives_codes_apart_and_without_it_they_stay(embeddings):
    rng = np.random.default_rng(3)
    crowded = normalise_rows(embeddings + 2 * rng.normal(size=24)).astype(np.float32)

    def closeness(contrast):
        coder = CSRCoder(k=4, n_features=64, contrast=contrast, **QUICK).fit(crowded[:1500])
        unit = normalise_rows(coder.transform(crowded[1500:]).toarray())
        return float((unit @ unit.T)[np.triu_indices(500, 1)].mean())

    assert closeness(3.0) < closeness(0.0) - 0.01


def test_same_seed_same_codes_and_a_saved_coder_comes_back(fitted, embeddings, tmp_path):
    again = clone(fitted).fit(embeddings[:1500])
    codes = fitted.transform(embeddings[:100])
    assert (again.transform(embeddings[:100]) != codes).nnz == 0
    fitted.save(tmp_path / "coder")
    back = CSRCoder.load(tmp_path / "coder")
    assert back.get_params() == fitted.get_params()
    assert back.n_features_in_ == 24
    assert (back.transform(embeddings[:100]) != codes).nnz == 0
    with pytest.raises(FathometerError, match=r"CSRCoder\.save"):
        CSRCoder.load(tmp_path)


def test_training_goes_on_where_it_stopped_and_not_with_another_loss(embeddings, tmp_path):
    whole = CSRCoder(k=4, n_features=64, **QUICK).fit(embeddings)

    class StopError(Exception):
        pass

    def stop(step, steps):
        if step == 150:
            raise StopError

    coder = CSRCoder(k=4, n_features=64, **QUICK)
    with pytest.raises(StopError):
        coder.fit(embeddings, checkpoint=tmp_path, every=100, progress=stop)
    with pytest.raises(InputError, match="another autoencoder"):
        clone(coder).set_params(contrast=1.0).fit(embeddings, checkpoint=tmp_path)
    coder.fit(embeddings, checkpoint=tmp_path, every=100)
    np.testing.assert_array_equal(coder.autoencoder_.encoder_, whole.autoencoder_.encoder_)
    np.testing.assert_array_equal(coder.autoencoder_.decoder_, whole.autoencoder_.decoder_)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"contrast": -1.0}, "contrast"),
        ({"temperature": 0.0}, "temperature"),
        ({"k": 0}, "k is 0"),
        ({"k": 200, "n_features": 64}, "n_features = 64"),
    ],
)
def test_parameters_that_are_not_allowed_are_named(embeddings, given, word):
    with pytest.raises(EstimatorInputError, match=word):
        CSRCoder(**{**QUICK, **given}).fit(embeddings)


def test_embeddings_that_are_none_are_refused(fitted):
    with pytest.raises(NonFiniteError):
        CSRCoder(**QUICK).fit(np.full((10, 4), np.nan))
    with pytest.raises(EstimatorInputError, match="24"):
        fitted.transform(np.ones((2, 7)))


@st.composite
def sparse_codes(draw, m=12):
    n = draw(st.integers(1, 20))
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    codes = rng.integers(-2, 4, (n, m)) * (rng.random((n, m)) < draw(st.floats(0, 0.6)))
    return codes.astype(
        np.float32
    )  # whole numbers, so that equal cosines and rows of zeros are common


@settings(max_examples=80, deadline=None)
@given(sparse_codes(), sparse_codes(), st.integers(1, 25))
def test_index_finds_what_brute_force_finds(corpus, queries, top):
    index = InvertedIndex(sparse.csr_array(corpus))
    expected = (
        normalise_rows(queries.astype(np.float64)) @ normalise_rows(corpus.astype(np.float64)).T
    )
    np.testing.assert_allclose(index.scores(sparse.csr_array(queries)), expected, atol=1e-6)
    ids, found = index.search(queries, top)
    count = min(top, len(corpus))
    assert ids.shape == found.shape == (len(queries), count)
    assert all(len(set(row)) == count for row in ids.tolist())
    np.testing.assert_allclose(found, -np.sort(-expected, axis=1)[:, :count], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(expected, ids, 1), found, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(sparse_codes(), sparse_codes())
def test_sixteen_bits_are_as_near_as_stated(corpus, queries):
    bound = 1.6e-5 * np.sqrt(12) + 1e-6
    exact, rough = (
        InvertedIndex(corpus, values).scores(queries) for values in ("float32", "int16")
    )
    assert np.abs(exact - rough).max() <= bound


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.integers(1, 35))
def test_best_first_is_a_stable_sort(numbers, count):
    scores = np.asarray(numbers, dtype=np.float32)
    expected = sorted(range(len(numbers)), key=lambda i: (-numbers[i], i))[:count]
    assert best_first(scores, count).tolist() == expected


def test_index_says_what_it_holds():
    rng = np.random.default_rng(0)
    codes = sparse.random_array((300, 50), density=0.1, rng=rng, format="csr", dtype=np.float32)
    codes.indices, codes.indptr = codes.indices.astype(np.int64), codes.indptr.astype(np.int64)
    index, half = InvertedIndex(codes), InvertedIndex(codes, "int16")
    assert index.nnz == codes.nnz
    assert index.nbytes == 8 * codes.nnz + 4 * 51
    assert half.nbytes == 6 * half.nnz + 4 * 51
    assert index.bytes_per_text == index.nbytes / 300
    np.testing.assert_allclose(np.square(unit_codes(codes).toarray()).sum(1)[0], 1, rtol=1e-5)
    assert codes.data.max() <= 1  # the caller's codes are as they were
    assert not np.shares_memory(codes.data, unit_codes(codes).data)


def test_what_no_index_can_hold_is_refused():
    with pytest.raises(InputError, match="shape"):
        InvertedIndex(np.zeros((0, 4)))
    with pytest.raises(NonFiniteError):
        InvertedIndex(np.array([[np.nan, 1.0]]))
    with pytest.raises(InputError, match="float32"):
        InvertedIndex(np.eye(3), "float64")
    index = InvertedIndex(np.eye(3))
    with pytest.raises(InputError, match="one coder"):
        index.search(np.eye(4))
    with pytest.raises(InputError, match="top is 0"):
        index.search(np.eye(3), 0)


def test_loss_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LOSS.weight = 1.0  # type: ignore[misc]
