"""Features in a live model: what they do is what closed forms and brute force say, and their controls do not do it."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
import zoo

from probes import capture
from probes.capture.observe import Reading
from probes.erasure import steer
from probes.errors import DoesNotApply, InputError
from probes.sae import SparseAutoencoder
from probes.sae.effects import (
    COLUMNS,
    EffectOptions,
    ablate_feature,
    feature_effects,
    steer_feature,
)
from probes.sae.matched import Activity, feature_activity, matched_features
from probes.sae.splice import Where

TEXTS = zoo.texts(40, seed=2)
D, M = 32, 48
GOLD = zoo.tokenizer("decoder").convert_tokens_to_ids("gold")
SCALE = 0.5


@functools.cache
def tiny(name: str = "llama") -> Any:
    return zoo.build(name)


@functools.cache
def planted(layer: int = 3) -> SparseAutoencoder:
    """An autoencoder whose feature 7 writes what the head reads for "gold"; the others are random directions."""
    model, rng = tiny(), np.random.default_rng(0)
    gain = model.structure.tail[0].weight.detach().numpy()
    head = model.structure.lm_head.weight.detach().numpy()
    directions = rng.normal(size=(M, D)).astype(np.float32)
    directions[7] = gain * (head[GOLD] - head.mean(0))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    sae = SparseAutoencoder(M, 4, "l1", device="cpu")
    sae.encoder_ = sae.decoder_ = directions
    sae.encoder_bias_ = np.full(M, -0.5, np.float32)
    sae.decoder_bias_ = np.zeros(D, np.float32)
    X = capture(model, TEXTS, "resid_post", "none", [layer])["resid_post", layer]
    sae.mean_, sae.scale_ = X.mean(0), SCALE
    sae.threshold_, sae.magnitude_log_scale_, sae.magnitude_bias_ = (
        np.zeros(M, np.float32),
        None,
        None,
    )
    sae.n_features_in_ = D
    return sae


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.hf_model(input_ids=ids).logits[0].double()


def ids_of(text: str) -> torch.Tensor:
    return tiny().tokenizer(text, return_tensors="pt")["input_ids"]


def by_hand(stream: torch.Tensor) -> torch.Tensor:
    """Logits of the last layer's states, by the formula of an RMS norm and the head's matrix."""
    model = tiny()
    norm = model.structure.tail[0]
    wide = stream.double()
    size = (wide.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
    head = model.structure.lm_head.weight.detach().double()
    return (wide / size * norm.weight.detach().double()) @ head.T


def stream_of(ids: torch.Tensor, layer: int) -> torch.Tensor:
    with torch.no_grad():
        states = tiny().hf_model.model(input_ids=ids, output_hidden_states=True).hidden_states
    return states[layer][0]


def last_stream(ids: torch.Tensor) -> torch.Tensor:
    """The stream before the final norm, which transformers does not return."""
    found: list[torch.Tensor] = []
    block = tiny().structure.blocks[-1].module
    handle = block.register_forward_hook(
        lambda _m, _a, out: found.append(
            (out if isinstance(out, torch.Tensor) else out[0]).detach()
        )
    )
    try:
        stream_of(ids, 0)
    finally:
        handle.remove()
    return found[0][0]


@pytest.mark.parametrize("strength", [3.0, -2.0])
def test_steering_changes_the_logits_by_the_closed_form(strength: float) -> None:
    model, sae = tiny(), planted()
    ids = ids_of("the gold king sees a red house")
    stream, plain = last_stream(ids), logits(model, ids)
    np.testing.assert_allclose(by_hand(stream), plain, atol=1e-4)
    with steer_feature(model, sae, "resid_post", 3, 7, strength):
        found = logits(model, ids)
    row = torch.from_numpy(sae.decoder_[7])
    np.testing.assert_allclose(found[1:], by_hand(stream[1:] + strength * row), atol=1e-4)
    np.testing.assert_array_equal(found[0], plain[0])  # the first token stays
    rise = (found - plain)[1:]
    own = rise[:, GOLD] - rise.mean(1)
    assert bool((own * np.sign(strength) > 0.5).all())
    with steer_feature(model, sae, "resid_post", 3, 11, strength):
        other = (logits(model, ids) - plain)[1:]
    assert float((own * np.sign(strength)).min()) > float(
        (other[:, GOLD] - other.mean(1)).abs().mean()
    )
    np.testing.assert_array_equal(logits(model, ids), plain)  # gone after the context


def test_steering_every_token_is_the_steering_of_directions() -> None:
    model, sae = tiny(), planted()
    ids = ids_of("a cat runs to the river")
    for layer in (0, 1, 2):
        with steer_feature(model, sae, "resid_post", layer, 3, 1.5, keep_first=False):
            found = logits(model, ids)
        with steer(model, sae.decoder_[3], layer, 1.5):
            np.testing.assert_allclose(found, logits(model, ids), atol=1e-5)


def test_ablation_takes_away_that_feature_and_nothing_else() -> None:
    model, sae = tiny(), planted(2)
    plain = capture(model, TEXTS, "resid_post", "none", [2])["resid_post", 2]
    codes = sae.transform(plain).toarray()
    feature = int((codes > 0).mean(0).argmax())
    with ablate_feature(model, sae, "resid_post", 2, feature, keep_first=False):
        found = capture(model, TEXTS, "resid_post", "none", [2])["resid_post", 2]
    expected = plain - codes[:, [feature]] / SCALE * sae.decoder_[feature]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    idle = codes[:, feature] == 0
    assert 0.05 < idle.mean() < 0.95
    np.testing.assert_array_equal(found[idle], plain[idle])
    assert np.abs(found[~idle] - plain[~idle]).max() > 0.1


def test_generation_is_steered_token_by_token() -> None:
    model, sae = tiny(), planted()
    for prompt in ("the king", "dog"):
        ids = ids_of(prompt)
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "do_sample": False}
        given |= {"max_new_tokens": 5, "eos_token_id": None, "pad_token_id": 1}
        plain = model.hf_model.generate(**given)[0]
        with steer_feature(model, sae, "resid_post", 3, 7, 200.0):
            made = model.hf_model.generate(**given)[0]
            whole = logits(model, made[None])
        own = made[len(ids[0]) :].tolist()
        kept = 1 if prompt == "dog" else 0  # what follows a text's first token is not steered
        assert own[kept:] == [GOLD] * (5 - kept)
        assert own == whole[len(ids[0]) - 1 : -1].argmax(-1).tolist()
        assert plain[len(ids[0]) :].tolist() != own


def options(**given: Any) -> EffectOptions:
    return EffectOptions(**{"steer_texts": 100, "controls": 2, **given})


def brute_force(feature: int, layer: int, strength: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Per token the change after ablating (None) or steering, text by text, and the text of each; control excluded."""
    model, sae = tiny(), planted(layer)
    changes, owner = [], []
    for number, text in enumerate(TEXTS):
        ids = ids_of(text)
        if ids.shape[1] < 2:
            continue
        plain = logits(model, ids)
        z = sae.transform(stream_of(ids, layer).numpy()).toarray()[:, feature]
        if strength is None:
            context = ablate_feature(model, sae, "resid_post", layer, feature)
        else:
            context = steer_feature(model, sae, "resid_post", layer, feature, strength)
        with context:
            edited = logits(model, ids)
        for at in range(1, ids.shape[1] - 1):
            if strength is None:
                if z[at] > 0:
                    target = ids[0, at + 1]
                    both = [one[at].log_softmax(-1)[target] for one in (edited, plain)]
                    changes.append(float(both[0] - both[1]))
                    owner.append(number)
            else:
                both = [one[at, [GOLD, 9]].mean() - one[at].mean() for one in (edited, plain)]
                changes.append(float(both[0] - both[1]))
                owner.append(number)
    return np.asarray(changes), np.asarray(owner)


@pytest.mark.parametrize("batch_tokens", [40, 2000])
def test_effects_are_those_of_whole_passes_text_by_text(batch_tokens: int) -> None:
    model, sae = tiny(), planted(2)
    reading = Reading.of(model, TEXTS, special_tokens=False)
    activity = feature_activity(Where(model, "resid_post", 2), sae, reading)
    feature = int(np.argsort(activity.density)[M // 2])
    table = feature_effects(
        model, sae, TEXTS, "resid_post", 2, [feature], promoted={feature: [GOLD, 9]},
        options=options(strengths=(2.0,), batch_tokens=batch_tokens),
    )  # fmt: skip
    assert tuple(table.columns) == COLUMNS
    ablate, steered = (table[table["mode"] == mode].iloc[0] for mode in ("ablate", "steer"))
    changes, owner = brute_force(feature, 2, None)
    assert ablate.value == pytest.approx(changes.mean(), abs=1e-5)
    assert ablate.n == len(changes)
    means = np.asarray([changes[owner == i].mean() for i in np.unique(owner)])
    sizes = np.asarray([(owner == i).sum() for i in np.unique(owner)])
    shares = sizes * (means - changes.mean()) / len(changes)  # a t interval over texts, by hand
    from scipy import stats

    g = len(sizes)
    half = stats.t.ppf(0.975, g - 1) * np.sqrt(g / (g - 1) * np.square(shares).sum())
    assert ablate.high - ablate.value == pytest.approx(half, rel=1e-3)
    length = 2.0 * activity.mean_active[feature]
    changes, _ = brute_force(feature, 2, length)
    assert steered.value == pytest.approx(changes.mean(), abs=1e-5)
    assert steered.n == len(changes)
    assert steered.strength == 2
    for row in (ablate, steered):
        assert row.difference == pytest.approx(row.value - row.control_value)
        assert row.difference_low < row.difference < row.difference_high


def test_a_planted_feature_promotes_its_token_and_its_controls_do_not() -> None:
    model, sae = tiny(), planted()
    features = [7, 3, 20]
    table = feature_effects(
        model, sae, TEXTS, "resid_post", 3, features, modes=("steer",),
        promoted={f: [GOLD] for f in features}, options=options(strengths=(1.0, 3.0)),
    )  # fmt: skip
    own = table[table.feature == 7]
    assert (own.difference_low > 0).all()
    assert own.value.is_monotonic_increasing
    assert (own.control_value.abs() < own.value / 2).all()
    for other in features[1:]:  # a feature that does not promote it is no better than its controls
        mine = table[table.feature == other]
        assert (mine.value < own.value.to_numpy() / 2).all()


def test_the_promoted_tokens_are_those_that_the_decoder_row_points_at() -> None:
    model, sae = tiny(), planted()
    table = feature_effects(
        model, sae, TEXTS, "resid_post", 3, [7, 8], modes=("steer",), options=options(seed=3)
    )
    assert (table.value > 0.1).all()  # by construction the directions' own tokens
    assert (table.difference > 0).all()
    again = feature_effects(
        model, sae, TEXTS, "resid_post", 3, [7, 8], modes=("steer",), options=options(seed=3)
    )
    assert again.equals(table)


def test_a_feature_that_is_never_active_has_no_effect_to_report() -> None:
    model = tiny()
    sae = SparseAutoencoder(M, 4, "l1", device="cpu")
    for name, value in vars(planted()).items():
        setattr(sae, name, value)
    sae.threshold_ = np.zeros(M, np.float32)
    sae.threshold_[5] = 1e6
    table = feature_effects(model, sae, TEXTS, "resid_post", 3, [5], options=options())
    assert table.value.isna().all()
    assert table.n.tolist() == [0, 0]


def test_controls_are_alive_alike_and_no_copies() -> None:
    rng = np.random.default_rng(0)
    m = 400
    density = np.exp(rng.normal(-5, 2, m))
    density[::7] = 0
    size = np.where(density > 0, np.exp(rng.normal(0, 1, m)), 0)
    decoder = rng.normal(size=(m, 16))
    decoder[100] = -decoder[50] + 0.1 * rng.normal(size=16)  # a copy with the other sign
    activity = Activity(density, size, 1000)
    drawn = {
        int(f)
        for seed in range(40)
        for f in matched_features(activity, decoder, 50, 3, np.random.default_rng(seed))
    }
    assert len(drawn) > 10
    assert 50 not in drawn
    assert 100 not in drawn
    chosen = np.asarray(sorted(drawn))
    assert (density[chosen] > 0).all()
    living = np.flatnonzero(density > 0)

    def gap(which: np.ndarray) -> float:
        return float(np.abs(np.log(density[which] / density[50])).mean())

    assert gap(chosen) < 0.4 * gap(living)
    with pytest.raises(InputError, match="fewer controls"):
        matched_features(activity, decoder, 50, 400, rng)


def test_activity_is_that_of_the_codes() -> None:
    model, sae = tiny(), planted(2)
    reading = Reading.of(model, TEXTS, special_tokens=False, batch_tokens=50)
    acts = capture(model, TEXTS, "resid_post", "none", [2])
    for keep_first in (True, False):
        found = feature_activity(Where(model, "resid_post", 2, keep_first), sae, reading)
        counted = np.ones(len(acts["resid_post", 2]), bool)
        if keep_first:
            counted[acts.offsets[:-1]] = False
        codes = sae.transform(acts["resid_post", 2][counted]).toarray()
        assert found.tokens == counted.sum()
        np.testing.assert_allclose(found.density, (codes > 0).mean(0))
        means = codes.sum(0) / np.maximum((codes > 0).sum(0), 1) / SCALE
        np.testing.assert_allclose(found.mean_active, means, rtol=1e-4)


def test_errors_say_what_to_do() -> None:
    model, sae = tiny(), planted()
    with pytest.raises(InputError, match="feature 48 does not exist: 0 to 47"):
        feature_effects(model, sae, TEXTS, "resid_post", 3, [48])
    with pytest.raises(InputError, match="unknown mode 'abalte': did you mean 'ablate'"):
        feature_effects(model, sae, TEXTS, "resid_post", 3, [1], modes=("abalte",))
    with pytest.raises(InputError, match="finite"), steer_feature(model, sae, "z", 1, 0, np.inf):
        pass
    with pytest.raises(DoesNotApply, match="head"):
        feature_effects(zoo.build("bert"), sae, TEXTS, "resid_post", 3, [1])
    with pytest.raises(InputError, match="at least 1"):
        EffectOptions(controls=0)
    with pytest.raises(InputError, match="no promoted tokens"):
        feature_effects(model, sae, TEXTS, "resid_post", 3, [1], promoted={})


@pytest.mark.slow
@pytest.mark.models
def test_the_real_model_loses_what_it_should_and_says_what_it_is_steered_to() -> None:
    from probes import load_dataset, load_model
    from probes.sae import PCACoder
    from probes.sae.splice import loss_recovered, spliced

    model = load_model("smollm2")
    texts = [t for t in load_dataset("docstrings").documents if 60 < len(t) < 200][:30]
    acts = capture(model, texts[10:], "resid_post", "none", [20], max_length=24)
    kept = np.ones(len(acts["resid_post", 20]), bool)
    kept[acts.offsets[:-1]] = False
    X = acts["resid_post", 20][kept]
    norms = np.linalg.norm(acts["resid_post", 20], axis=1)
    assert norms[~kept].min() > 5 * np.median(norms[kept])  # why first tokens are left alone
    coders = {"all": PCACoder(576).fit(X), "few": PCACoder(8).fit(X)}
    table = loss_recovered(model, coders, texts[:10], "resid_post", 20, max_length=24)
    found = {(m, v): x for m, v, x in zip(table.measure, table.variant, table.value, strict=True)}
    assert found["loss_recovered", "all"] == pytest.approx(1, abs=1e-3)
    assert -0.5 < found["loss_recovered", "few"] < 0.9
    assert found["cross_entropy", "clean"] + 1 < found["cross_entropy", "mean"]
    ids = model.tokenizer("The capital of", return_tensors="pt")
    word = model.tokenizer(" Paris")["input_ids"][0]
    sae = SparseAutoencoder(M, 4, "l1", device="cpu")
    for name, value in vars(planted()).items():
        setattr(sae, name, value)
    norm, head = model.structure.tail[0].weight, model.structure.lm_head.weight
    rows = np.random.default_rng(0).normal(size=(M, 576)).astype(np.float32)
    unit = head / head.norm(dim=1, keepdim=True)
    rows[7] = ((unit[word] - unit.mean(0)) / norm).detach().numpy()
    sae.decoder_ = sae.encoder_ = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    sae.decoder_bias_, sae.mean_, sae.n_features_in_ = np.zeros(576, np.float32), X.mean(0), 576
    given = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    said = {}
    for feature in (7, 3):
        with steer_feature(model, sae, "resid_post", 30, feature, 3000.0):
            said[feature] = model.hf_model.generate(**ids, **given)[0, -3:].tolist()
    assert said[7] == [word] * 3
    assert word not in said[3]
    with spliced(model, coders["all"], "resid_post", 20):
        through = model.hf_model.generate(**ids, **given)[0]
    assert through.tolist() == model.hf_model.generate(**ids, **given)[0].tolist()
