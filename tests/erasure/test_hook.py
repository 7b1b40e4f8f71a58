"""Edits of a live model: the guarantee holds in what is captured, at every layer, pooling and side of padding."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
import zoo

from probes import capture
from probes.erasure import erase, fit_leace, random_eraser, steer
from probes.errors import InputError
from probes.probing import RidgeProbe

TEXTS = zoo.texts(80, seed=3)
Y = np.asarray([len(text.split()) > 6 for text in TEXTS]).astype(int)
CASES = [(name, pooling) for name in ("llama", "bert", "gemma2") for pooling in ("mean", "last")]
CASES += [("llama", "weighted"), ("gpt2", "last"), ("falcon", "mean"), ("deberta-v2", "mean")]


def gap(X: Any) -> float:
    return float(np.abs(X[Y == 0].mean(axis=0) - X[Y == 1].mean(axis=0)).max() / X.std())


@pytest.mark.parametrize(("name", "pooling"), CASES)
def test_what_held_for_pooled_states_holds_in_the_edited_model(
    name: str, pooling: str, tiny: Any
) -> None:
    model = tiny(name)
    for layer in (0, 1, model.n_layers):
        read = {"sites": "resid_post", "pooling": pooling, "batch_tokens": 200}
        before = capture(model, TEXTS, **read)
        eraser = fit_leace(before["resid_post", layer], Y)
        positions = "last" if pooling == "last" else "all"
        with erase(model, eraser, layer, positions):
            after = capture(model, TEXTS, **read)
        assert gap(before["resid_post", layer]) > 0.01
        assert gap(after["resid_post", layer]) < 1e-5
        np.testing.assert_allclose(
            after["resid_post", layer], eraser(before["resid_post", layer]), atol=1e-4
        )
        for earlier in range(layer):
            np.testing.assert_array_equal(
                after["resid_post", earlier], before["resid_post", earlier]
            )
        again = capture(model, TEXTS, **read)
        np.testing.assert_array_equal(again["resid_post", layer], before["resid_post", layer])
        share = max(Y.mean(), 1 - Y.mean())
        cleaned = after["resid_post", layer]
        assert RidgeProbe().fit(cleaned, Y).score(cleaned, Y) == pytest.approx(share)


@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "mpnet"])
def test_side_of_padding_does_not_matter(name: str, positions: Any, tiny: Any) -> None:
    model = tiny(name)
    eraser = random_eraser(model.d_model, 5, mean=np.ones(model.d_model))
    found = {}
    for side in (*model.padding_sides, "none"):
        with erase(model, eraser, 1, positions):
            acts = capture(model, TEXTS, "exit", "mean", [2, 3], padding_side=side)
        found[side] = np.stack([acts["exit", 2], acts["exit", 3]])
    assert len(found) > 1
    for side in found:
        np.testing.assert_allclose(found[side], found["none"], atol=1e-5)
    plain = capture(model, TEXTS, "exit", "mean", [2])["exit", 2]
    assert np.abs(found["none"][0] - plain).max() > 0.01


def test_last_edits_the_last_token_only(tiny: Any) -> None:
    model = tiny("llama")
    vector = np.full(model.d_model, 2.0)
    plain = capture(model, TEXTS, "resid_post", "none", [1])
    with steer(model, vector, 1, strength=0.5, positions="last"):
        found = capture(model, TEXTS, "resid_post", "none", [1])
    moved = found["resid_post", 1] - plain["resid_post", 1]
    expected = np.zeros_like(moved)
    expected[plain.offsets[1:] - 1] = 1.0
    np.testing.assert_allclose(moved, expected, atol=1e-5)


def test_the_mask_is_found_however_it_is_passed(tiny: Any) -> None:
    """By keyword or by position, to the whole model or to the backbone; without one every token counts."""
    model = tiny("gpt2")
    ids = torch.tensor([[10, 11, 12, 1, 1], [10, 11, 12, 13, 14]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    with steer(model, np.full(32, 3.0), 2, positions="last"), torch.no_grad():
        by_name = model.hf_model(input_ids=ids, attention_mask=mask).logits
        order = list(inspect.signature(model.structure.base.forward).parameters)
        between = [None] * (order.index("attention_mask") - 1)
        by_place = model.structure.base(ids, *between, mask).last_hidden_state
        alone = model.hf_model(input_ids=ids[:1, :3]).logits
    torch.testing.assert_close(by_name[0, :3], alone[0])
    torch.testing.assert_close(model.hf_model.lm_head(by_place), by_name)


def test_generation_is_edited_at_every_step(tiny: Any) -> None:
    model = tiny("llama")
    head = model.hf_model.lm_head.weight
    word = 40
    push = head[word].detach().double().numpy()
    ids = torch.tensor([[10, 11, 12]])
    with steer(model, push, model.n_layers, strength=1000.0, positions="last"):
        steered = model.hf_model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=1)
    assert steered[0, 3:].tolist() == [word] * 4
    plain = model.hf_model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=1)
    assert plain[0, 3:].tolist() != [word] * 4


def test_edits_add_up_and_leave_no_hook_behind(tiny: Any) -> None:
    model = tiny("llama")
    hooks = lambda: sum(  # noqa: E731
        len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf_model.modules()
    )
    before = hooks()
    v = np.arange(32.0)
    with steer(model, v, 1), steer(model, v, 1, strength=-1.0):
        nothing = capture(model, TEXTS, "resid_post", layers=[2])["resid_post", 2]
    np.testing.assert_allclose(
        nothing, capture(model, TEXTS, "resid_post", layers=[2])["resid_post", 2], atol=1e-4
    )
    with pytest.raises(ZeroDivisionError), steer(model, v, 1, positions="last"):
        assert hooks() > before
        raise ZeroDivisionError
    assert hooks() == before


def test_strength_one_carries_one_class_mean_to_the_other(tiny: Any) -> None:
    model = tiny("llama")
    X = capture(model, TEXTS, "resid_post", "mean", [1])["resid_post", 1]
    theta = X[Y == 1].mean(axis=0) - X[Y == 0].mean(axis=0)
    with steer(model, theta, 1):
        moved = capture(model, TEXTS, "resid_post", "mean", [1])["resid_post", 1]
    np.testing.assert_allclose(moved[Y == 0].mean(axis=0), X[Y == 1].mean(axis=0), atol=1e-5)


def test_half_precision_models(tiny: Any) -> None:
    from probes.capture.twins import in_dtype

    model = in_dtype(tiny("llama"), torch.bfloat16)
    X = capture(model, TEXTS, "resid_post", "last", [1])["resid_post", 1]
    with erase(model, fit_leace(X, Y), 1, "last"):
        cleaned = capture(model, TEXTS, "resid_post", "last", [1])["resid_post", 1]
    assert gap(cleaned) < 0.05 * gap(X) or gap(cleaned) < 5e-3


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda m: erase(m, random_eraser(31, 1), 1), "width 31"),
        (lambda m: erase(m, random_eraser(32, 1), 9), "no layer 9"),
        (lambda m: erase(m, random_eraser(32, 1), 1, "first"), "unknown positions 'first'"),
        (lambda m: steer(m, np.ones(31), 1), "32 finite numbers"),
        (lambda m: steer(m, np.full(32, np.nan), 1), "32 finite numbers"),
        (lambda m: steer(m, np.ones(32), 1, np.inf), "finite number"),
    ],
)
def test_impossible_edits_are_refused(edit: Any, words: str, tiny: Any) -> None:
    with pytest.raises(InputError, match=words), edit(tiny("llama")):
        pass
