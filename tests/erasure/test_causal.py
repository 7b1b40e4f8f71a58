"""Causal effect: there with the right direction, absent with random ones; the arithmetic of the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import zoo

from probes import capture
from probes.erasure import (
    CausalOptions,
    CompletionPairs,
    causal_effect,
    erase,
    fit_inlp,
    fit_leace,
    random_eraser,
    steer,
)
from probes.errors import DoesNotApply, InputError
from probes.models.completions import completion_logprobs

FEELINGS, METALS = ("good", "bad"), ("gold", "iron")
OPTIONS = CausalOptions(draws=8, positions="last")


@pytest.fixture(scope="module")
def metals(metal_model: Any, metal_texts: Any) -> Any:
    """The planted model, its direction, states and labels for fitting, and pairs for testing."""
    model, v = metal_model
    texts, y = metal_texts
    fit, test = np.arange(80), np.arange(80, 120)
    acts = capture(model, [texts[i] for i in fit], "resid_post", "last")
    right = [METALS[y[i]] for i in test]
    wrong = [METALS[1 - y[i]] for i in test]
    pairs = CompletionPairs(
        tuple(texts[i] for i in test),
        tuple(f" {word}" for word in right),
        tuple(f" {word}" for word in wrong),
    )
    return model, v, acts["resid_post"], y[fit], pairs, y[test]


@pytest.mark.parametrize("layer", [2, 3])
def test_erasing_what_drives_the_answer_does_away_with_it_and_random_erasure_does_not(
    metals: Any, layer: int
) -> None:
    model, _, states, y, pairs, _ = metals
    X = states[layer]
    erasers = {layer: [fit_leace(X, y), fit_inlp(X, y)]}
    table = causal_effect(
        model, pairs, erasers=erasers, states={layer: X}, concept="metal", options=OPTIONS
    )
    assert table["treatment"].tolist() == ["none", "leace", "random", "inlp", "random"]
    assert table["against"].fillna("").tolist() == ["", "", "leace", "", "inlp"]
    ranks = table["rank"].tolist()[1:]
    assert ranks[:2] == [1, 1]
    assert ranks[2] == ranks[3] < 16  # INLP leaves most of the state
    assert table["draws"].tolist() == [1, 1, 8, 1, 8]
    assert set(table["concept"]) == {"metal"}
    assert set(table["n"]) == {40}
    none, leace, random, inlp, _ = table.to_dict("records")
    assert none["value"] > 5
    assert none["effect"] == 0
    for erased in (leace, inlp):
        assert abs(erased["value"]) < 0.1 * none["value"]
        assert erased["effect_high"] < -0.8 * none["value"]
    assert random["value"] > 0.7 * none["value"]
    assert random["effect_low"] > leace["effect_high"]
    assert leace["over_random"] == pytest.approx(leace["value"] - random["value"])
    assert leace["over_random_low"] <= leace["over_random"] <= leace["over_random_high"] < -3
    assert pd.isna([none["over_random"], random["over_random"]]).all()


def test_steering_along_the_concept_drives_the_answer_and_random_directions_do_not(
    metals: Any,
) -> None:
    model, _, states, y, pairs, now = metals
    theta = states[2][y == 0].mean(axis=0) - states[2][y == 1].mean(axis=0)  # towards good
    bad = pairs.take(np.flatnonzero(now == 1))
    strengths = (0.5, 1.0, 2.0)
    table = causal_effect(
        model, bad, directions={2: theta}, strengths=strengths, options=OPTIONS
    ).set_index("treatment")
    assert table.loc["steer", "strength"].tolist() == [0.5, 1.0, 2.0]
    right, random = (table.loc[name].reset_index() for name in ("steer", "steer-random"))
    assert (np.diff(right["effect"]) < 0).all()  # the more, the further
    assert right.loc[1, "high"] < -4  # carried to good, it says gold
    assert (random["value"] > 0).all()  # long vectors drown the state, yet the answer stays
    assert (random["effect"].abs() < 0.5 * right["effect"].abs()).all()
    assert (table.loc["steer-random", "against"] == "steer").all()


def test_last_edits_the_token_that_the_completion_follows_and_no_other(metals: Any) -> None:
    """Prompts and completions of many lengths, padded together: each pair is as if it were alone."""
    model, v, _, _, pairs, _ = metals
    long = CompletionPairs(
        pairs.prompts,
        tuple(f"{t} cat sleeps" for t in pairs.true),
        tuple(f"{f} dog" for f in pairs.false),
    )
    table = causal_effect(model, long, directions={2: v}, options=OPTIONS).set_index("treatment")
    expected = []
    for prompt, true, false in zip(long.prompts, long.true, long.false, strict=True):
        place = torch.tensor([len(prompt.split()) - 1])
        with steer(model, v, 2, positions=place):
            a, b = (completion_logprobs(model, [prompt], [text])[0] for text in (true, false))
        expected.append(a - b)
    assert table.loc["steer", "value"] == pytest.approx(np.mean(expected), abs=1e-4)
    everywhere = causal_effect(model, long, directions={2: v}).set_index("treatment")
    assert everywhere.loc["steer", "value"] != pytest.approx(np.mean(expected), abs=1e-2)


def test_rows_are_what_a_loop_over_the_edits_gives(metals: Any) -> None:
    model, _, states, y, pairs, _ = metals
    pairs = pairs.take(range(10))
    eraser = fit_leace(states[1], y)
    table = causal_effect(
        model,
        pairs,
        erasers={1: eraser},
        directions={2: np.ones(32)},
        strengths=(-0.3,),
        options=CausalOptions(draws=2),
    ).set_index(["layer", "treatment"])

    def preference() -> np.ndarray:
        true = completion_logprobs(model, pairs.prompts, pairs.true)
        return true - completion_logprobs(model, pairs.prompts, pairs.false)

    plain = preference()
    with erase(model, eraser, 1):
        cleaned = preference()
    with steer(model, -0.3 * np.ones(32), 2):
        steered = preference()
    for key, expected in (
        ((1, "none"), plain),
        ((2, "none"), plain),
        ((1, "leace"), cleaned),
        ((2, "steer"), steered),
    ):
        assert table.loc[key, "value"] == pytest.approx(expected.mean(), abs=1e-5)
        assert table.loc[key, "effect"] == pytest.approx((expected - plain).mean(), abs=1e-5)
        low, high = table.loc[key, ["low", "high"]]
        assert low < expected.mean() < high
        error = expected.std() / np.sqrt(len(expected))
        assert high - low == pytest.approx(2 * 1.96 * error, rel=0.25)


def test_controls_have_the_rank_norm_and_seed(metals: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed to the model: matched in rank and norm, all different, the same for the same seed."""
    import probes.erasure.causal as module

    model, v, states, y, pairs, _ = metals
    used: list[Any] = []

    def watch_erase(m: Any, eraser: Any, *rest: Any) -> Any:
        used.append(eraser)
        return erase(m, eraser, *rest)

    def watch_steer(m: Any, vector: Any, *rest: Any) -> Any:
        used.append(vector)
        return steer(m, vector, *rest)

    monkeypatch.setattr(module, "erase", watch_erase)
    monkeypatch.setattr(module, "steer", watch_steer)
    three = random_eraser(32, 3)

    def call(seed: int) -> list[Any]:
        used.clear()
        causal_effect(
            model, pairs.take(range(3)), erasers={1: [fit_leace(states[1], y), three]},
            directions={1: v}, states=states, options=CausalOptions(draws=3, seed=seed),
        )  # fmt: skip
        return list(used)

    first, same, other = call(0), call(0), call(1)
    leace, controls, _, orthogonal = first[0], first[1:4], first[4], first[5:8]
    assert {c.rank for c in controls} == {1}
    assert {c.rank for c in orthogonal} == {3}
    for control in controls:
        np.testing.assert_array_equal(control.mean, leace.mean)
        assert not np.allclose(control.left, control.right.T)  # oblique, like LEACE
    for control in orthogonal:
        np.testing.assert_array_equal(control.left, control.right.T)
    vectors = first[9:12]
    np.testing.assert_allclose([np.linalg.norm(u) for u in vectors], np.linalg.norm(v))
    assert np.abs(np.corrcoef(vectors) - np.eye(3)).max() < 0.9
    for a, b in zip(first[9:12], same[9:12], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(first[1].left, same[1].left)
    assert not np.allclose(first[1].left, other[1].left)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "gemma3", "falcon", "mixtral", "mamba"])
def test_passes_that_begin_at_the_layer_equal_whole_ones(name: str, tiny: Any) -> None:
    """In several batches, whatever a block returns, and without a trace left in the model."""
    model = tiny(name)
    texts = [text for text in zoo.texts(10, seed=5) if len(text.split()) > 1]
    pairs = CompletionPairs(tuple(texts), (" cat",) * len(texts), (" gold tree",) * len(texts))
    v = np.random.default_rng(0).normal(size=model.d_model)
    table = causal_effect(
        model,
        pairs,
        erasers={1: random_eraser(model.d_model, 3, seed=4)},
        directions=dict.fromkeys(range(model.n_layers + 1), v),
        options=CausalOptions(draws=1, batch_tokens=30),
    ).set_index(["layer", "treatment", "against"])

    def preference() -> float:
        true = completion_logprobs(model, pairs.prompts, pairs.true, batch_tokens=30)
        return float(np.mean(true - completion_logprobs(model, pairs.prompts, pairs.false)))

    plain = preference()
    for layer in range(model.n_layers + 1):
        with steer(model, v, layer):
            expected = preference()
        found = table.loc[(layer, "steer")].iloc[0]
        assert found["value"] == pytest.approx(expected, abs=1e-4)
        assert abs(expected - plain) > 1e-3
        assert table.loc[(layer, "none")].iloc[0]["value"] == pytest.approx(plain, abs=1e-4)
    with erase(model, random_eraser(model.d_model, 3, seed=4), 1):
        expected = preference()
    assert table.loc[(1, "random")].iloc[0]["value"] == pytest.approx(expected, abs=1e-4)
    assert not any("forward" in vars(module) for module in model.hf_model.modules())


def test_groups_widen_the_interval(metals: Any) -> None:
    model, v, _, _, pairs, _ = metals
    twice = CompletionPairs(
        pairs.prompts * 2, pairs.true * 2, pairs.false * 2, np.tile(np.arange(40), 2)
    )
    alone = CompletionPairs(twice.prompts, twice.true, twice.false)
    width = {}
    for name, given in (("groups", twice), ("alone", alone), ("once", pairs)):
        table = causal_effect(model, given, directions={1: v}, options=CausalOptions(draws=1))
        width[name] = float(table["high"].iloc[0] - table["low"].iloc[0])
    assert width["groups"] == pytest.approx(width["once"], rel=0.15)
    assert width["alone"] == pytest.approx(width["once"] / np.sqrt(2), rel=0.15)


def test_progress_counts_the_passes(metals: Any) -> None:
    model, v, _, _, pairs, _ = metals
    seen: list[tuple[int, int]] = []
    causal_effect(
        model,
        pairs.take(range(3)),
        directions={1: v},
        options=CausalOptions(draws=2),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_what_cannot_be_asked_is_refused(metals: Any, tiny: Any) -> None:
    model, v, _, _, pairs, _ = metals
    with pytest.raises(InputError, match="nothing to try"):
        causal_effect(model, pairs)
    with pytest.raises(InputError, match="draws"):
        causal_effect(model, pairs, directions={1: v}, options=CausalOptions(draws=0))
    with pytest.raises(DoesNotApply, match="no language-model head"):
        causal_effect(tiny("bert"), pairs, directions={1: v})
    with pytest.raises(InputError, match="no layer 9"):
        causal_effect(model, pairs, directions={9: v})
