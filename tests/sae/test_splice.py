"""Coders in a live model: the identity loses nothing, the mean is worth nothing, late passes are exact."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import zoo

from probes import capture
from probes.capture.observe import Reading
from probes.errors import DataError, DoesNotApply, InputError
from probes.sae import VARIANTS, NeuronCoder, PCACoder, SparseAutoencoder, random_autoencoder
from probes.sae.live import LiveAutoencoder, LiveConstant
from probes.sae.passes import Passes
from probes.sae.splice import Where, loss_recovered, mean_state, spliced

TEXTS = zoo.texts(30, seed=1)
SITES = (("resid_post", 0), ("resid_post", 3), ("attn_out", 1), ("mlp_act", 0), ("z", 2))


class Identity:
    def transform(self, X: Any) -> Any:
        return X

    def inverse_transform(self, codes: Any) -> Any:
        return codes


class Halved(Identity):
    def inverse_transform(self, codes: Any) -> Any:
        return codes * np.float32(0.5)


@functools.cache
def tiny(name: str) -> Any:
    return zoo.build(name)


def values(table: Any) -> dict[tuple[str, str], float]:
    return {(m, v): x for m, v, x in zip(table.measure, table.variant, table.value, strict=True)}


@functools.cache
def fitted(variant: str) -> SparseAutoencoder:
    X = capture(tiny("llama"), TEXTS, "resid_post", "none", [2])["resid_post", 2]
    return SparseAutoencoder(
        64, 4, variant, steps=60, batch_size=64, learning_rate=3e-3, device="cpu"
    ).fit(X)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "opt", "mamba"])
@pytest.mark.parametrize("keep_first", [True, False])
def test_the_identity_loses_exactly_nothing_and_the_mean_is_the_other_end(
    name: str, keep_first: bool
) -> None:
    model = tiny(name)
    tried = 0
    for site, number in SITES:
        if name == "mamba" and site != "resid_post":
            continue
        place = Where(model, site, number, keep_first)
        mean = mean_state(place, Reading.of(model, TEXTS, special_tokens=False))
        coders = {"same": Identity(), "mean state": LiveConstant(torch.from_numpy(mean))}
        found = values(
            loss_recovered(
                model, coders, TEXTS, site, number, keep_first=keep_first, resamples=20,
                batch_tokens=60,
            )
        )  # fmt: skip
        assert found["cross_entropy", "same"] == found["cross_entropy", "clean"]
        assert found["cross_entropy", "mean state"] == found["cross_entropy", "mean"]
        assert found["cross_entropy", "mean"] != found["cross_entropy", "clean"]
        if found["cross_entropy", "mean"] > found["cross_entropy", "clean"]:
            assert found["loss_recovered", "same"] == 1
            assert found["loss_recovered", "mean state"] == 0
            tried += 1
        else:  # a random model may gain: then there is nothing to recover
            assert pd.isna(found["loss_recovered", "same"])
    assert tried or name == "mamba"


def test_in_half_precision_too() -> None:
    from probes.models import wrap_model

    model = wrap_model(zoo.hf_model("llama").to(torch.bfloat16), zoo.tokenizer("decoder"))
    coders = {"same": Identity(), "half": Halved(), "sae": fitted("topk")}
    table = loss_recovered(model, coders, TEXTS, "resid_post", 2, resamples=20)
    own = values(table)
    assert own["cross_entropy", "same"] == own["cross_entropy", "clean"]
    full = values(loss_recovered(tiny("llama"), coders, TEXTS, "resid_post", 2, resamples=20))
    for name in ("clean", "half", "sae", "mean", "zero"):
        assert own["cross_entropy", name] == pytest.approx(full["cross_entropy", name], rel=0.03)


def brute_force(model: Any, context: Any) -> float:
    """Cross-entropy of TEXTS, text by text, by the model's own logits."""
    total, count = 0.0, 0
    for text in TEXTS:
        ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad(), context():
            logits = model.hf_model(input_ids=ids).logits[0].double()
        found = logits[:-1].log_softmax(-1).gather(1, ids[0, 1:, None])
        total, count = total - float(found.sum()), count + len(found)
    return total / count


@pytest.mark.parametrize("name", ["llama", "opt", "gemma2"])
def test_losses_are_those_of_whole_passes_text_by_text(name: str) -> None:
    model, moved = tiny(name), []
    for site, number in (("resid_post", 2), ("z", 1)):
        coder = Halved()
        found = loss_recovered(model, {"half": coder}, TEXTS, site, number, resamples=20)
        own = values(found)
        plain = brute_force(model, lambda: torch.no_grad())
        through = brute_force(model, lambda: spliced(model, coder, site, number))  # noqa: B023
        assert own["cross_entropy", "clean"] == pytest.approx(plain, rel=1e-5)
        assert own["cross_entropy", "half"] == pytest.approx(through, rel=1e-5)
        moved.append(abs(through - plain))
        assert found.n.unique().tolist() == [sum(len(t.split()) - 1 for t in TEXTS)]
    assert max(moved) > 1e-3


def test_a_share_between_the_ends_and_its_interval() -> None:
    """Halfway between state and mean, at a place that the head reads almost linearly, and the formula by hand."""
    model = tiny("llama")
    table = loss_recovered(model, {"half": Halved()}, TEXTS, "z", 2, resamples=300)
    own = values(table)
    mean, clean = own["cross_entropy", "mean"], own["cross_entropy", "clean"]
    expected = (mean - own["cross_entropy", "half"]) / (mean - clean)
    row = table[table.measure == "loss_recovered"].iloc[0]
    assert mean > clean
    assert row.value == pytest.approx(expected)
    entropy = table[table.measure == "cross_entropy"]
    assert ((entropy.low < entropy.value) & (entropy.value < entropy.high)).all()
    again = loss_recovered(model, {"half": Halved()}, TEXTS, "z", 2, resamples=300)
    assert again.equals(table)
    other = loss_recovered(model, {"half": Halved()}, TEXTS, "z", 2, resamples=300, seed=1)
    assert other.value.tolist() == table.value.tolist()
    assert other.low.tolist() != table.low.tolist()


def test_more_texts_give_narrower_intervals_and_the_interval_covers() -> None:
    model = tiny("llama")
    many = zoo.texts(400, seed=5)
    widths = []
    for texts in (many[:25], many):
        table = loss_recovered(model, {}, texts, "z", 2, resamples=400)
        row = table[table.variant == "clean"].iloc[0]
        widths.append(row.high - row.low)
    assert 2.5 < widths[0] / widths[1] < 6.5  # √16 = 4


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_live_codes_are_those_of_the_estimator(variant: str) -> None:
    sae = fitted(variant)
    X = np.random.default_rng(0).normal(size=(50, 32)).astype(np.float32)
    X[:3] = sae.mean_  # rows in which nearly nothing is active
    coder = LiveAutoencoder.of(sae, torch.device("cpu"))
    found = coder.reconstruct(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(found, sae.reconstruct(X), atol=2e-5)
    features = [5, 63, 0]
    expected = sae.transform(X).toarray()[:, features] / sae.scale_
    lengths = coder.activations(torch.from_numpy(X), features).numpy()
    np.testing.assert_allclose(lengths, expected, atol=2e-5)


def test_every_kind_of_coder_can_be_spliced_and_the_trained_one_wins() -> None:
    model, sae = tiny("llama"), fitted("topk")
    X = capture(model, TEXTS, "resid_post", "none", [2])["resid_post", 2]
    coders = {
        "sae": sae, "random": random_autoencoder(sae, X), "pca": PCACoder(31).fit(X),
        "neurons": NeuronCoder(4).fit(X),
    }  # fmt: skip
    table = loss_recovered(model, coders, TEXTS, "resid_post", 2, resamples=20, dataset="tiny")
    own = values(table)
    clean = own["cross_entropy", "clean"]
    lost = {name: abs(own["cross_entropy", name] - clean) for name in coders}
    assert lost["pca"] < lost["sae"] < lost["random"]
    assert table.dataset.unique().tolist() == ["tiny"]
    assert table.layer.unique().tolist() == [2]
    with spliced(model, sae, "resid_post", 2, keep_first=False):
        after = capture(model, TEXTS, "resid_post", "none", [2])["resid_post", 2]
    np.testing.assert_allclose(after, sae.reconstruct(X), atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_first_tokens_are_left_alone(side: Any) -> None:
    model = tiny("llama")
    zero = LiveConstant(torch.zeros(32))
    plain = capture(model, TEXTS, "resid_post", "none", [1, 2], padding_side=side)
    for keep_first in (True, False):
        with spliced(model, zero, "resid_post", 1, keep_first=keep_first):
            found = capture(model, TEXTS, "resid_post", "none", [1, 2], padding_side=side)
        first = np.zeros(len(found["resid_post", 1]), bool)
        first[found.offsets[:-1]] = keep_first
        assert not found["resid_post", 1][~first].any()
        np.testing.assert_allclose(
            found["resid_post", 1][first], plain["resid_post", 1][first], atol=1e-5
        )


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_while_a_text_is_generated_the_first_token_is_the_texts_own(name: str) -> None:
    """Token by token with a cache, the spliced model says what it says of the whole text at once."""
    model = tiny(name)
    prompts = [[9, 12, 30, 41], [7]]
    for prompt in prompts:
        ids = torch.tensor([prompt])
        with spliced(model, Halved(), "resid_post", 2):
            made = model.hf_model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6,
                do_sample=False, eos_token_id=None, pad_token_id=1,
            )[0]  # fmt: skip
            with torch.no_grad():
                logits = model.hf_model(input_ids=made[None]).logits[0]
        assert logits[len(prompt) - 1 : -1].argmax(-1).tolist() == made[len(prompt) :].tolist()
        with torch.no_grad():  # gone after the context
            plain = model.hf_model(input_ids=made[None]).logits[0]
        assert not torch.equal(plain, logits)


def test_later_passes_do_not_run_the_blocks_before(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.build("llama")
    runs = [0, 0, 0]

    def counted(i: int, forward: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            runs[i] += 1
            return forward(*args, **kwargs)

        return run

    for block in model.structure.blocks:
        module = block.module
        for part in (module.self_attn,):
            monkeypatch.setattr(part, "forward", counted(block.index, part.forward))
    mean = np.zeros(32, np.float32)
    coders = {"a": Identity(), "b": Halved()}
    loss_recovered(model, coders, TEXTS[:4], "resid_post", 2, mean=mean, resamples=20)
    assert runs == [1, 1, 5]  # clean, a, b, mean, zero


def test_rows_of_a_batch_are_those_texts_alone() -> None:
    model = tiny("gemma2")
    batches: list[Any] = []
    Reading.of(model, TEXTS[:6], special_tokens=False).run(batches.append)
    (batch,) = batches
    whole = Passes.of(model, batch, 2)
    part = whole.rows(torch.tensor([1, 4]))
    place = Where(model, "resid_post", 2)
    edited = [p.under(place.editing(lambda x: 0.5 * x)) for p in (whole, part)]
    np.testing.assert_allclose(edited[0][[1, 4]], edited[1], atol=1e-5)
    own = whole.logprobs(edited[0])[np.isin(whole.scored.row, [1, 4])]
    np.testing.assert_allclose(own, part.logprobs(edited[1]), atol=1e-5)
    assert part.batch.rows.tolist() == batch.rows[[1, 4]].tolist()


def hooks(model: Any) -> int:
    modules = model.hf_model.modules()
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


def test_errors_say_what_to_do() -> None:
    model = tiny("llama")
    before = hooks(model)
    with pytest.raises(DoesNotApply, match="use 'resid_post'"):
        loss_recovered(model, {"same": Identity()}, TEXTS, "exit", 2)
    with pytest.raises(DoesNotApply, match="language-model head"):
        loss_recovered(tiny("bert"), {"same": Identity()}, TEXTS, "resid_post", 2)
    with pytest.raises(InputError, match="'mean', which is a reference"):
        loss_recovered(model, {"mean": Identity()}, TEXTS, "resid_post", 2)
    with pytest.raises(DataError, match="one token only"):
        loss_recovered(model, {"same": Identity()}, ["dog", "cat"], "resid_post", 2)
    with pytest.raises(InputError, match="transform and inverse_transform"):
        loss_recovered(model, {"what": object()}, TEXTS, "resid_post", 2)  # type: ignore[dict-item]
    with pytest.raises(InputError, match=r"the autoencoder was fitted to \(n, 32\)"):
        loss_recovered(model, {"sae": fitted("topk")}, TEXTS, "mlp_act", 2)
    with pytest.raises(InputError, match="layer"):
        loss_recovered(model, {"same": Identity()}, TEXTS, "resid_post", 4)
    assert hooks(model) == before
