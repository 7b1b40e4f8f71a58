"""TopK: finds planted features, keeps its sparsity, repeats, and its hand-written gradients are autograd's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone

from probes.errors import InputError, NonFiniteError
from probes.sae import SparseAutoencoder, Training
from probes.sae.baselines import ClusterCoder, NeuronCoder, PCACoder, random_autoencoder
from probes.sae.metrics import explained_variance, l0, row_l0
from probes.sae.settings import Recipe, Sizes
from probes.sae.sparse import flat_codes, reconstruction_gradients, top_k
from probes.sae.trainer import Trainer


@pytest.fixture(scope="module")
def fitted(planted: Any) -> SparseAutoencoder:
    return SparseAutoencoder(48, 3, steps=1000, batch_size=512, device="cpu").fit(planted.X)


def test_planted_features_are_found_and_baselines_do_not_find_them(
    planted: Any, fitted: SparseAutoencoder
) -> None:
    assert planted.recovered(fitted.decoder_) >= 0.9
    random = random_autoencoder(fitted, planted.X)
    pca = PCACoder(24).fit(planted.X)
    assert planted.recovered(random.decoder_) < 0.7
    assert planted.recovered(np.concatenate([pca.decoder_, -pca.decoder_])) < 0.7

    def gained(coder: Any) -> float:
        return explained_variance(planted.X, coder.inverse_transform(coder.transform(planted.X)))

    others = [random, PCACoder(3).fit(planted.X), NeuronCoder(3).fit(planted.X)]
    assert gained(fitted) > 0.9
    for other in [*others, ClusterCoder(48).fit(planted.X)]:
        assert gained(other) < gained(fitted) - 0.2
    assert gained(random) > 0  # its gain is fitted: it is a control, and no straw man


def test_every_row_has_k_active_features(planted: Any, fitted: SparseAutoencoder) -> None:
    codes = fitted.transform(planted.X)
    assert set(np.asarray((codes != 0).sum(1)).tolist()) == {3}
    assert l0(codes) == 3
    assert codes.has_sorted_indices


@pytest.mark.parametrize("steps", [1, 60, 600])
@pytest.mark.parametrize("k", [4, 12, 30])
def test_k_are_active_where_fewer_are_positive(steps: int, k: int) -> None:
    """A narrow dictionary has too few positive scores for k: the next largest are negative codes."""
    X = np.random.default_rng(1).normal(size=(800, 12)).astype(np.float32)
    sae = SparseAutoencoder(32, k, steps=steps, batch_size=200, device="cpu").fit(X[:500])
    codes = sae.transform(X[500:])
    assert set(row_l0(codes).tolist()) == {k}
    pre = (X[500:] - sae.mean_) * sae.scale_ @ sae.encoder_.T + sae.encoder_bias_
    few = (pre > 1e-4).sum(1) < k
    assert np.array_equal((codes.toarray() < -1e-4).any(1)[few], few[few])
    assert few.any() or k < 30


@pytest.mark.parametrize("k", [1, 8, 32])
def test_a_wide_dictionary_has_exactly_its_l0(k: int) -> None:
    X = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    sae = SparseAutoencoder(512, k, steps=20, batch_size=100, device="cpu").fit(X)
    assert set(row_l0(sae.transform(X)).tolist()) == {k}


def test_codes_are_the_definition(planted: Any, fitted: SparseAutoencoder) -> None:
    X = planted.X[:50]
    pre = (X - fitted.mean_) * fitted.scale_ @ fitted.encoder_.T + fitted.encoder_bias_
    order = np.argsort(-pre, 1)[:, :3]
    expected = np.zeros_like(pre)
    np.put_along_axis(expected, order, np.take_along_axis(pre, order, 1), 1)
    codes = fitted.transform(X)
    np.testing.assert_allclose(codes.toarray(), expected, rtol=1e-4, atol=1e-5)
    dense = (expected @ fitted.decoder_ + fitted.decoder_bias_) / fitted.scale_ + fitted.mean_
    np.testing.assert_allclose(fitted.inverse_transform(codes), dense, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(fitted.decoder_, axis=1), 1, rtol=1e-5)


def test_training_repeats_bit_for_bit_and_follows_the_seeds(planted: Any) -> None:
    def run(seed: int = 0, order: int = 0) -> np.ndarray:
        training = Training(order_seed=order)
        sae = SparseAutoencoder(
            32, 2, steps=30, batch_size=64, seed=seed, device="cpu", training=training
        )
        return sae.fit(planted.X).decoder_

    first = run()
    assert np.array_equal(first, run())
    assert not np.array_equal(first, run(seed=1))
    assert not np.array_equal(first, run(order=1))


@pytest.mark.parametrize("prefixes", [(12,), (3, 7, 12)])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("cut", ["signed", "relu"])
def test_hand_written_gradients_are_those_of_autograd(
    prefixes: tuple[int, ...], with_bias: bool, cut: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    kept: Any = torch.relu if cut == "relu" else torch.clone

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    x, target = draw(9, 5).detach(), draw(9, 5).detach()
    encoder, encoder_bias, decoder = draw(12, 5), draw(12), draw(12, 5)
    bias = draw(5) if with_bias else None
    pre = x @ encoder.T + encoder_bias
    values, cols = pre.topk(9, 1)
    assert bool((values < 0).any()), "the gradient of a code that is cut off must vanish"
    codes = torch.zeros_like(pre).scatter(1, cols, kept(values))
    shift = 0 if bias is None else bias
    losses = [
        (codes[:, :p] @ decoder[:p] + shift - target).square().sum(1).mean() for p in prefixes
    ]
    (sum(losses) / len(losses)).backward()  # type: ignore[union-attr]
    with torch.no_grad():
        mine = reconstruction_gradients(
            flat_codes(kept(values), cols), x, target, decoder, bias, prefixes
        )
    for name, leaf in (("encoder", encoder), ("encoder_bias", encoder_bias), ("decoder", decoder)):
        torch.testing.assert_close(getattr(mine, name), leaf.grad)
    if bias is not None:
        torch.testing.assert_close(mine.decoder_bias, bias.grad)
    torch.testing.assert_close(mine.squares / 9, torch.stack(losses).detach())


@pytest.mark.parametrize(("m", "k"), [(40, 5), (1000, 7), (1003, 32), (4608, 32), (600, 600)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_largest_are_those_that_a_sort_finds(m: int, k: int, dtype: torch.dtype) -> None:
    scores = torch.randn(20, m, generator=torch.Generator().manual_seed(m)).to(dtype)
    values, cols = top_k(scores, k)
    assert torch.equal(values, scores.gather(1, cols))
    assert all(len(set(row)) == k for row in cols.tolist())
    assert torch.equal(
        values.sort(1, descending=True)[0], scores.sort(1, descending=True)[0][:, :k]
    )


def test_preselection_in_half_precision_ends_at_the_same_loss(planted: Any) -> None:
    def loss(precision: Any) -> float:
        training = Training(precision=precision)
        sae = SparseAutoencoder(
            96, 3, steps=400, batch_size=512, device="cpu", training=training
        ).fit(planted.X)
        return 1 - explained_variance(planted.X, sae.reconstruct(planted.X))

    exact = loss("float32")
    assert loss("preselect") == pytest.approx(exact, abs=5e-3)
    assert loss("bfloat16") == pytest.approx(exact, abs=3e-2)


def test_codes_do_not_depend_on_what_else_is_in_the_batch(
    planted: Any, fitted: SparseAutoencoder
) -> None:
    together = fitted.transform(planted.X[:40]).toarray()
    for row in range(0, 40, 7):
        alone = fitted.transform(planted.X[row : row + 1]).toarray()[0]
        np.testing.assert_allclose(alone, together[row], rtol=1e-4, atol=1e-5)
        assert np.array_equal(alone != 0, together[row] != 0)


def test_the_auxiliary_loss_revives_dead_features(planted: Any) -> None:
    """Four fifths of the encoder start too weak to be ever chosen: alone the others cannot hold all directions."""
    x = torch.from_numpy(planted.X)
    x = (x - x.mean(0)) / x.std()

    def train(aux_k: int) -> tuple[float, float]:
        recipe = Recipe(Sizes(24, 96, 3.0, (96,)), 400, 500, 3e-3, aux_k, 1 / 32, 3000, "float32")
        trainer = Trainer("topk", recipe, 0, torch.device("cpu"))
        with torch.no_grad():
            trainer.net.weights["encoder"][:80] *= 0.05
        rng = np.random.default_rng(0)
        while not trainer.done:
            trainer.step(x[torch.from_numpy(rng.integers(0, len(x), 500))])
        decoder = trainer.net.weights["decoder"].detach().numpy()
        return trainer.row()["dead_share"], planted.recovered(decoder)

    dead, recovered = train(0)
    dead_aux, recovered_aux = train(12)
    assert dead > 0.7
    assert dead_aux < dead - 0.15
    assert recovered_aux > 0.9 > recovered


def test_it_is_a_scikit_learn_estimator(planted: Any) -> None:
    sae = SparseAutoencoder(8, 2, steps=3, device="cpu", training=Training(aux_k=4))
    again = clone(sae)
    assert again.get_params() == sae.get_params()
    assert again.set_params(k=1).k == 1
    with pytest.raises(Exception, match="not fitted"):
        again.transform(planted.X)
    codes = again.fit_transform(planted.X[:20])
    assert codes.shape == (20, 8)
    assert again.n_features_in_ == 24


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"k": 49}, "k is 49: more than 0 and at most n_features = 48"),
        ({"k": 0}, "k is 0: a whole number from 1 on"),
        ({"n_features": 2.5}, "n_features is 2.5"),
        ({"variant": "topkk"}, "did you mean 'topk'"),
        ({"target_l0": 5}, "k is what 'topk' reaches"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"training": Training(aux_weight=-1)}, "aux_weight is -1"),
        ({"training": Training(prefixes=(4, 2))}, "ascending"),
        ({"training": Training(precision="float8")}, "unknown precision"),  # type: ignore[arg-type]
        ({"device": "tpu"}, "unknown device"),
    ],
)
def test_parameters_that_are_not_allowed(change: dict[str, Any], says: str, planted: Any) -> None:
    with pytest.raises(InputError, match=says):
        SparseAutoencoder(48, 3, steps=2, device="cpu").set_params(**change).fit(planted.X)


def test_data_that_cannot_be_learned_from(planted: Any) -> None:
    sae = SparseAutoencoder(8, 2, steps=3, device="cpu")
    for X, says in (
        (np.zeros((0, 3)), "shape"),
        (np.zeros(3), "shape"),
        (np.array([["a"]]), "numbers"),
        (np.ones((5, 3)), "are equal"),
        ("text", "str"),
        ([], "no batches"),
    ):
        with pytest.raises(InputError, match=says):
            sae.fit(X)
    broken = planted.X[:30].copy()
    broken[7, 2] = np.nan
    with pytest.raises(NonFiniteError, match="row 7"):
        sae.fit(broken)
    sae.fit(planted.X[:30])
    with pytest.raises(NonFiniteError, match="row 7"):
        sae.transform(broken)
    with pytest.raises(InputError, match="3 columns"):
        sae.transform(np.ones((2, 3)))
    with pytest.raises(InputError, match="codes have shape"):
        sae.inverse_transform(np.ones((2, 3)))


def test_odd_shapes_train(planted: Any) -> None:
    rng = np.random.default_rng(0)
    narrow = rng.normal(size=(50, 1))
    assert SparseAutoencoder(4, 1, steps=5, device="cpu").fit(narrow).decoder_.shape == (4, 1)
    constant = planted.X[:50].copy()
    constant[:, 3] = 7.0
    sae = SparseAutoencoder(8, 2, steps=50, device="cpu").fit(constant)
    assert np.isfinite(sae.reconstruct(constant)).all()
    whole = SparseAutoencoder(8, 8, steps=5, device="cpu").fit(planted.X[:50])
    assert l0(whole.transform(planted.X[:50])) <= 8
    lists = SparseAutoencoder(4, 1, steps=5, device="cpu").fit(narrow.tolist())
    assert lists.n_features_in_ == 1


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_all_number_types_are_taken(dtype: Any) -> None:
    X = (np.random.default_rng(0).normal(size=(40, 6)) * 10).astype(dtype)
    X.flags.writeable = False
    sae = SparseAutoencoder(8, 2, steps=3, device="cpu").fit(X)
    assert sae.decoder_.dtype == np.float32
    tensor = SparseAutoencoder(8, 2, steps=3, device="cpu").fit(torch.from_numpy(X.copy()))
    assert np.array_equal(tensor.decoder_, sae.decoder_)
