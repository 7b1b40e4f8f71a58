"""Several from one pass are each what they would be alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import zoo

from probes.errors import InputError
from probes.sae import SparseAutoencoder, Training, from_model, train_together
from probes.sae.data import ArrayRows


def make(k: int = 2, variant: str = "topk", seed: int = 0, **options: Any) -> SparseAutoencoder:
    given = {"steps": 25, "batch_size": 200, "device": "cpu", **options}
    return SparseAutoencoder(32, k, variant, seed=seed, **given)


def test_together_is_apart_from_one_pass(planted: Any) -> None:
    class Counted(ArrayRows):
        reads = 0

        def take(self, rows: Any) -> Any:
            Counted.reads += len(rows)
            return super().take(rows)

    def saes() -> dict[str, SparseAutoencoder]:
        return {"sparse": make(1), "dense": make(8), "other": make(3, "jumprelu", seed=4)}

    together = train_together(saes(), Counted(planted.X))
    sample = 4 * len(planted.X)  # each works out its own centre, and lengths for a threshold
    sample += len(planted.X) // 10  # which is set on the rows held out
    assert Counted.reads == sample + 25 * 200
    for name, alone in saes().items():
        alone.fit(planted.X)
        assert np.array_equal(alone.decoder_, together[name].decoder_)
        assert np.array_equal(alone.encoder_bias_, together[name].encoder_bias_)
        assert alone.history_.equals(together[name].history_)


def test_each_reads_its_own_layer(planted: Any) -> None:
    layers = {0: planted.X, 1: planted.X[:, :10] ** 2}
    saes = {"a": make(), "b": make(3), "c": make(4)}
    train_together(saes, layers, reads={"a": 0, "b": 1, "c": 1})
    assert saes["a"].n_features_in_ == 24
    assert np.array_equal(saes["b"].fit(layers[1]).decoder_, make(3).fit(layers[1]).decoder_)
    assert saes["c"].n_features_in_ == 10


def test_layers_straight_from_a_model_in_one_pass() -> None:
    model, texts = zoo.build("llama"), zoo.texts(60)
    saes = {"early": make(batch_size=64), "late": make(batch_size=64)}
    source = from_model(model, texts, "resid_post", [0, 2])
    train_together(saes, source, reads={"early": 0, "late": 2})
    alone = make(batch_size=64).fit(from_model(model, texts, "resid_post", 2))
    # the buffer of one layer holds more rows than that of two, so the order may differ; the centre does not
    np.testing.assert_allclose(saes["late"].mean_, alone.mean_, atol=0.2)
    assert not np.allclose(saes["early"].mean_, saes["late"].mean_, atol=1e-3)


def test_what_does_not_fit_together_is_refused(planted: Any) -> None:
    for other, says in (
        (make(steps=9), "steps is 9"),
        (make(batch_size=9), "batch_size is 9"),
        (make(training=Training(order_seed=1)), "order_seed"),
        (make(training=Training(buffer_mib=1)), "buffer_mib"),
        (make(k=99), "k is 99"),
    ):
        with pytest.raises(InputError, match=says):
            train_together({"a": make(), "b": other}, planted.X)
    one = make()
    with pytest.raises(InputError, match="clone"):
        train_together({"a": one, "b": one}, planted.X)
    with pytest.raises(InputError, match="no autoencoders"):
        train_together({}, planted.X)
    with pytest.raises(InputError, match="reads names 'c'"):
        train_together({"a": make()}, planted.X, reads={"c": 1})
    with pytest.raises(InputError, match="unknown key of X 'a'"):
        train_together({"a": make()}, {"b": planted.X})
    with pytest.raises(InputError, match="unknown key of the batches 'a'"):
        train_together({"a": make()}, [{"b": planted.X}])
    with pytest.raises(InputError, match="same keys"):
        train_together({"b": make()}, iter([{"b": planted.X}, {"c": planted.X}]))
    with pytest.raises(InputError, match="bad name"):
        train_together({"../a": make()}, planted.X, checkpoint="x")
