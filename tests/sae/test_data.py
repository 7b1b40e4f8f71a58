"""Data of every form: a store trains like its array, a stream covers its rows, a model needs no store."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo

from probes import capture
from probes.errors import InputError, NonFiniteError
from probes.sae import SparseAutoencoder, StoreRows, Training, evaluate, from_model
from probes.sae.data import CHUNK, ArrayRows, Order, deal
from probes.sae.stream import Stream
from probes.store import Store


def make_store(path: Path, X: np.ndarray, cut: tuple[int, ...], ragged: bool = False) -> Store:
    bounds = [0, *cut, len(X)]
    shards = list(pairwise(bounds))
    if ragged:  # three texts in each shard, of whatever lengths
        texts = [(3 * i, 3 * i + 3) for i in range(len(shards))]
        store = Store.create(path, {"made": "here"}, texts)
        for i, (lo, hi) in enumerate(shards):
            offsets = np.array([0, 1, (hi - lo) // 2, hi - lo])
            store.write_shard(i, {("exit", 2): X[lo:hi]}, offsets=offsets)
    else:
        store = Store.create(path, {"made": "here"}, shards)
        for i, (lo, hi) in enumerate(shards):
            store.write_shard(i, {("exit", 2): X[lo:hi]})
    store.finish()
    return store


def small(**training: Any) -> SparseAutoencoder:
    return SparseAutoencoder(
        32, 2, steps=40, batch_size=300, device="cpu", training=Training(**training)
    )


@pytest.mark.parametrize("ragged", [False, True])
def test_a_store_trains_like_its_array(tmp_path: Path, planted: Any, ragged: bool) -> None:
    store = make_store(tmp_path / "acts", planted.X, (700, 1500, 4100), ragged)
    rows = StoreRows(store, "exit", 2)
    assert (rows.n, rows.d) == planted.X.shape
    one, two = small().fit(planted.X), small().fit(rows)
    assert np.array_equal(one.decoder_, two.decoder_)
    assert np.array_equal(one.transform(planted.X).data, two.transform(rows).data)
    table = evaluate({"sae": two}, rows, resamples=10)
    assert table.equals(evaluate({"sae": one}, planted.X, resamples=10))


def test_a_store_is_read_in_pieces_that_fit_the_buffer(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(6 * CHUNK + 17, 256)).astype(np.float32)
    store = make_store(tmp_path / "acts", X, (2000,))
    rows, most = StoreRows(store, "exit", 2), [0]
    take = rows.take

    def counted(wanted: np.ndarray) -> torch.Tensor:
        most.append(len(wanted))
        return take(wanted)

    rows.take = counted  # type: ignore[method-assign]
    order = Order(rows.n, 2 * CHUNK, 0)
    batches = deal(rows, order, 500)
    seen = torch.cat([next(batches)[0] for _ in range(12)])
    assert max(most) <= 2 * CHUNK
    expected = deal(ArrayRows(X), order, 500)
    assert torch.equal(seen, torch.cat([next(expected)[0] for _ in range(12)]))


@pytest.mark.parametrize("buffer", [CHUNK, 3 * CHUNK, 100 * CHUNK])
@pytest.mark.parametrize("n", [5, CHUNK, 4 * CHUNK + 3])
def test_every_pass_deals_every_row_once_and_can_begin_anywhere(n: int, buffer: int) -> None:
    X = np.arange(n, dtype=np.float32)[:, None]
    batch = min(n, 700)
    order = Order(n, buffer, 3)
    stream = deal(ArrayRows(X), order, batch)
    count = 2 * n // batch + 2
    pairs = [next(stream) for _ in range(count)]
    batches = [x[:, 0].numpy() for x, _ in pairs]
    assert all(np.array_equal(x[:, 0].numpy(), numbers) for x, numbers in pairs)
    flat = np.concatenate(batches)
    assert sorted(flat[:n].tolist()) == list(range(n))
    assert sorted(flat[n : 2 * n].tolist()) == list(range(n))
    assert n < 10 or not np.array_equal(flat[:n], flat[n : 2 * n])
    for first in (0, 1, count // 2, count - 1):
        assert np.array_equal(
            next(deal(ArrayRows(X), order, batch, first))[0][:, 0], batches[first]
        )


def test_heads_of_a_site_are_read_alone_or_side_by_side(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(50, 3, 4)).astype(np.float32)
    store = Store.create(tmp_path / "acts", {"made": "here"}, [(0, 50)])
    store.write_shard(0, {("z", 1): X})
    store.finish()
    numbers = np.array([7, 3])
    assert StoreRows(store, "z", 1).d == 12
    np.testing.assert_array_equal(StoreRows(store, "z", 1, head=2).take(numbers), X[numbers, 2])
    with pytest.raises(InputError, match="head 3"):
        StoreRows(store, "z", 1, head=3)


def test_a_stream_deals_every_row_once_whatever_the_batches(planted: Any) -> None:
    X = np.arange(5000, dtype=np.float32)[:, None]
    parts = [X[:7], X[7:2000], X[2000:2001], X[2001:]]
    pairs = list(Stream(iter(parts), 1, 0).deal(100))
    dealt = torch.cat([x for x, _ in pairs])[:, 0].numpy()
    assert np.array_equal(np.concatenate([numbers for _, numbers in pairs]), dealt)
    assert sorted(dealt.tolist()) == list(range(5000))
    assert not np.array_equal(dealt, np.sort(dealt))
    later = torch.cat([x for x, _ in Stream(iter(parts), 1, 0).deal(100, 30)])[:, 0].numpy()
    assert np.array_equal(later, dealt[3000:])


def test_training_from_batches(planted: Any) -> None:
    def once() -> Iterator[np.ndarray]:
        yield from np.array_split(planted.X, 13)

    sae = small()
    with pytest.raises(InputError, match="give steps"):
        SparseAutoencoder(32, 2, device="cpu").fit(once())
    with pytest.warns(UserWarning, match="ended after 20 of 40 steps"):
        sae.fit(once())
    assert sae.n_steps_ == 20
    again = small().fit(np.array_split(planted.X, 13))  # a list is read again
    assert again.n_steps_ == 40
    with pytest.raises(InputError, match="fewer than batch_size"):
        small().fit(iter([planted.X[:20]]))
    with pytest.raises(InputError, match="width 3 came after one of 24"):
        small().fit(iter([planted.X[:2000], planted.X[:20, :3]]))
    bad = planted.X[:400].copy()
    bad[399] = np.inf
    with pytest.raises(NonFiniteError, match="row 399"):
        small().fit(iter([bad]))


@pytest.fixture(scope="module")
def llama() -> Any:
    return zoo.build("llama")


@pytest.mark.parametrize(("site", "layer"), [("resid_post", 1), ("mlp_out", 0), ("z", 1)])
def test_states_from_the_model_are_those_that_capture_stores(
    site: str, layer: int, llama: Any
) -> None:
    texts = zoo.texts(40)
    batches = from_model(llama, texts, site, layer, batch_tokens=64)
    found = torch.cat(list(batches)).numpy()
    stored = capture(llama, texts, sites=[site], pooling="none")[site, layer]
    stored = stored.reshape(len(stored), -1)
    assert found.shape == stored.shape
    order = [np.lexsort(np.round(part, 4).T) for part in (found, stored)]
    np.testing.assert_allclose(found[order[0]], stored[order[1]], atol=1e-3)
    assert np.array_equal(found, torch.cat(list(batches)).numpy())


def test_training_straight_from_a_model(llama: Any) -> None:
    texts = zoo.texts(60)
    sae = SparseAutoencoder(32, 4, steps=30, batch_size=64, device="cpu")
    sae.fit(from_model(llama, texts, "resid_post", 1))
    assert sae.n_steps_ == 30
    assert sae.history_["fvu"].iloc[-1] < sae.history_["fvu"].iloc[0]
    with pytest.raises(InputError, match="layer"):
        from_model(llama, texts, "resid_post", 99)
    with pytest.raises(InputError, match="no layers"):
        from_model(llama, texts, "resid_post", [])
    with pytest.raises(InputError, match="train_together"):
        sae.fit(from_model(llama, texts, "resid_post", [0, 1]))
