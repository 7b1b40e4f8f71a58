"""Every registered variant: its sparsity, its inference, its gradients; the conformance tests run over the registry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probes.sae import VARIANTS, SparseAutoencoder, Training, random_autoencoder
from probes.sae.batchtopk import largest
from probes.sae.calibrate import HeldOut, weights_like
from probes.sae.metrics import explained_variance, l0
from probes.sae.network import start_network
from probes.sae.recipe import make_recipe

PENALISED = ("gated", "jumprelu", "l1")


@pytest.fixture(scope="module")
def trained(planted: Any) -> dict[str, SparseAutoencoder]:
    return {
        name: SparseAutoencoder(
            48, 3, name, steps=1000, batch_size=512, learning_rate=2e-3, device="cpu"
        ).fit(planted.X[:5000])
        for name in VARIANTS
    }


def test_all_six_are_there() -> None:
    assert sorted(VARIANTS) == ["batchtopk", "gated", "jumprelu", "l1", "matryoshka", "topk"]


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_the_target_is_met_within_a_tenth_on_new_rows(
    name: str, trained: Any, planted: Any
) -> None:
    codes = trained[name].transform(planted.X[5000:])
    assert l0(codes) == pytest.approx(3, rel=0.1)
    assert name == "topk" or codes.data.min() > 0


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_planted_features_are_found_better_than_by_chance(
    name: str, trained: Any, planted: Any
) -> None:
    sae, X = trained[name], planted.X[5000:]
    random = random_autoencoder(sae, planted.X[:5000])
    # L1 shrinks its codes, which at so few active features costs most of the variance
    floor = {"l1": 0.1, "matryoshka": 0.6}.get(name, 0.7)
    assert explained_variance(X, sae.reconstruct(X)) > floor
    assert planted.recovered(sae.decoder_) > planted.recovered(random.decoder_) + 0.05


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_a_target_of_its_own(name: str, planted: Any) -> None:
    if name == "topk":
        pytest.skip("k is its sparsity")
    sae = SparseAutoencoder(
        48, 3, name, target_l0=7.5, steps=600, batch_size=256, learning_rate=2e-3, device="cpu"
    ).fit(planted.X)
    assert l0(sae.transform(planted.X)) == pytest.approx(7.5, rel=0.1)


THRESHOLDS = sorted(set(VARIANTS) - {"topk"})


@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, 5))]
)
def test_the_target_is_met_where_a_dictionary_fits_its_own_rows_better(
    name: str, seed: int, plant: Any
) -> None:
    """More features than the rows can teach: other numbers are active on the rows trained on than on new ones."""
    made = plant(6000, 200, 24, 4, seed)
    sae = SparseAutoencoder(256, 4, name, steps=150, batch_size=500, seed=seed, device="cpu")
    sae.fit(made.X[:3000])
    assert l0(sae.transform(made.X[3000:])) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("n", [500, 3001, 40_000, 1_000_000])
def test_held_out_rows_are_a_tenth_in_runs_all_over_the_data(n: int) -> None:
    held = HeldOut.of(n, 0)
    assert held is not None
    rows = held.numbers()
    assert len(rows) == pytest.approx(min(n / 10, 8192), rel=0.05)
    assert rows.max() < n
    assert np.abs(np.histogram(rows, 4, (0, n))[0] / len(rows) - 0.25).max() < 0.05
    assert (np.diff(rows) == 1).mean() >= 1 - 1.2 / held.run
    assert np.array_equal(held.mask(np.arange(n + 9)), np.isin(np.arange(n + 9), rows))
    assert HeldOut.of(499, 0) is None
    assert not np.array_equal(rows, HeldOut(n, held.run, held.every, 1).numbers())


@pytest.mark.parametrize("name", ["l1", "topk"])
def test_held_out_rows_are_not_trained_on(name: str, planted: Any) -> None:
    """In another order they leave the dictionary as it is where there is a threshold; "topk" trains on them too."""
    X = planted.X
    held = HeldOut.of(len(X), 0)
    assert held is not None
    other = X.copy()
    other[held.numbers()] = X[held.numbers()[::-1]]  # mean and scale stay, but for rounding
    made = [
        SparseAutoencoder(32, 2, name, steps=60, batch_size=200, device="cpu").fit(one).decoder_
        for one in (X, other)
    ]
    change = np.abs(made[0] - made[1]).max()
    assert change > 1e-2 if name == "topk" else change < 1e-4


def test_weighted_rows_are_as_long_as_all() -> None:
    rng = np.random.default_rng(0)
    everything = torch.from_numpy(rng.normal(size=(4000, 5)) * rng.uniform(0.5, 2, (4000, 1)))
    some = everything[:300] * 1.1
    weights = weights_like(some, everything)
    length = some.norm(dim=1)
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights @ length) == pytest.approx(float(everything.norm(dim=1).mean()), rel=1e-2)
    assert torch.allclose(weights_like(some[:1], everything), torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_codes_do_not_depend_on_batch_mates(name: str, trained: Any, planted: Any) -> None:
    together = trained[name].transform(planted.X[:200]).toarray()
    for row in (0, 17, 150):
        alone = trained[name].transform(planted.X[row : row + 1]).toarray()[0]
        np.testing.assert_allclose(alone, together[row], rtol=1e-3, atol=1e-4)
    others = np.concatenate([planted.X[:1], 100 * planted.X[1:200]])
    np.testing.assert_allclose(
        trained[name].transform(others).toarray()[0], together[0], rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_inference_is_the_documented_formula(name: str, trained: Any, planted: Any) -> None:
    sae, X = trained[name], planted.X[:64]
    gate = (X - sae.mean_) * sae.scale_ @ sae.encoder_.T
    pre = gate + sae.encoder_bias_
    if name == "topk":
        assert sae.threshold_ is None
        return
    active = pre > sae.threshold_
    size = pre
    if name == "gated":
        size = np.maximum(gate * np.exp(sae.magnitude_log_scale_) + sae.magnitude_bias_, 0)
    else:
        assert sae.magnitude_bias_ is None
    clear = np.abs(pre - sae.threshold_) > 1e-4
    codes = sae.transform(X).toarray()
    np.testing.assert_allclose(codes[clear], (active * size)[clear], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_training_repeats_bit_for_bit(name: str, planted: Any) -> None:
    def run() -> SparseAutoencoder:
        return SparseAutoencoder(32, 2, name, steps=25, batch_size=100, device="cpu").fit(planted.X)

    one, two = run(), run()
    assert np.array_equal(one.decoder_, two.decoder_)
    assert np.array_equal(one.encoder_bias_, two.encoder_bias_)
    assert one.history_.equals(two.history_)
    assert np.array_equal(one.transform(planted.X).data, two.transform(planted.X).data)


@pytest.mark.parametrize("name", ["batchtopk", "matryoshka"])
def test_hand_written_backward_of_a_whole_step_is_that_of_autograd(name: str, planted: Any) -> None:
    sae = SparseAutoencoder(48, 3, name, steps=10, training=Training(prefixes=(6, 20, 48)))
    recipe = make_recipe(sae, 24, 1000)
    net = start_network(VARIANTS[name], recipe, 0, torch.device("cpu"))
    x = torch.from_numpy(planted.X[:70])
    VARIANTS[name].backward(net, x)
    mine = {key: w.grad.clone() for key, w in net.weights.items() if w.grad is not None}
    w = {key: t.detach().double().requires_grad_() for key, t in net.weights.items()}
    pre = x.double() @ w["encoder"].T + w["encoder_bias"]
    mask = torch.zeros(pre.numel(), dtype=torch.bool)
    mask[pre.detach().flatten().topk(210)[1]] = True
    codes = torch.where(mask.view_as(pre), pre, 0.0).relu()
    prefixes = (6, 20, 48) if name == "matryoshka" else (48,)
    loss = sum(
        (codes[:, :p] @ w["decoder"][:p] + w["decoder_bias"] - x).square().sum(1).mean()
        for p in prefixes
    ) / len(prefixes)
    loss.backward()  # type: ignore[union-attr]
    for key, leaf in w.items():
        torch.testing.assert_close(mine[key].double(), leaf.grad, rtol=1e-3, atol=1e-4)


def test_the_threshold_gradient_of_jumprelu_pulls_the_sparsity_the_right_way(planted: Any) -> None:
    sae = SparseAutoencoder(48, 3, "jumprelu", steps=10)
    net = start_network(VARIANTS["jumprelu"], make_recipe(sae, 24, 1000), 0, torch.device("cpu"))
    net.state["penalty"].fill_(10.0)  # sparsity is all that counts
    net.state["count"].fill_(5)
    VARIANTS["jumprelu"].backward(net, torch.from_numpy(planted.X[:500]))
    grad = net.weights["log_threshold"].grad
    assert grad is not None
    assert bool((grad <= 0).all())  # down the gradient thresholds rise, where a score is near
    assert float((grad < 0).float().mean()) > 0.5


def test_prefixes_of_matryoshka_reconstruct_on_their_own(trained: Any, planted: Any) -> None:
    X = planted.X[5000:]

    def first(name: str, p: int) -> float:
        sae = trained[name]
        codes = sae.transform(X).toarray()
        codes[:, p:] = 0
        return explained_variance(X, sae.inverse_transform(codes))

    assert first("matryoshka", 12) > first("batchtopk", 12) + 0.05


@pytest.mark.parametrize("floor", [0.0, 0.5])
@pytest.mark.parametrize("rows", [1, 7, 30])
def test_the_largest_of_a_batch_are_found_part_by_part(floor: float, rows: int) -> None:
    pre = torch.randn(30, 50, generator=torch.Generator().manual_seed(0))
    places, values = largest(pre.split(rows), 90, floor)
    assert torch.equal(places, pre.flatten().topk(90)[1].sort()[0])
    assert torch.equal(values, pre.flatten()[places])
    few, _ = largest(pre.split(rows), 90, 2.5)
    assert torch.equal(few, (pre.flatten() > 2.5).nonzero()[:, 0])
    assert len(largest((pre - 10).split(rows), 90, floor)[0]) == 0


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_half_precision_trains(name: str, planted: Any) -> None:
    training = Training(precision="bfloat16")
    sae = SparseAutoencoder(
        48, 3, name, steps=400, batch_size=256, learning_rate=2e-3, device="cpu", training=training
    ).fit(planted.X)
    assert explained_variance(planted.X, sae.reconstruct(planted.X)) > 0
    assert sae.decoder_.dtype == np.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_cuda_trains_to_the_same_quality(name: str, planted: Any) -> None:
    made = [
        SparseAutoencoder(48, 3, name, steps=400, batch_size=256, device=device).fit(planted.X)
        for device in ("cpu", "cuda")
    ]
    cpu, cuda = (explained_variance(planted.X, sae.reconstruct(planted.X)) for sae in made)
    assert cuda == pytest.approx(cpu, abs=0.05)
