"""Every backend gives the reference's numbers at every site that it shares, and leaves the model as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probes import capture
from probes.capture import backends
from probes.capture.backends import BACKENDS, Backend
from probes.errors import DoesNotApply, InputError

OTHERS = [name for name in BACKENDS if name != "torch"]
# What TransformerLens 4.3 has no adapter for, and encoder-decoders.
NOT_IN_LENS = [
    "xlm-roberta",
    "distilbert",
    "mpnet",
    "electra",
    "deberta-v2",
    "modernbert",
    "t5-encoder",
    "t5",
]


def sites_of(model: Any) -> list[str]:
    found = ["resid_post", "exit"]
    for site in ("attn_out", "mlp_out", "mlp_act", "z"):
        if model.structure.why_missing(site, 0) is None:
            found.append(site)
    return found


def furthest(a: Any, b: Any) -> float:
    """Largest difference between two stores, relative to the largest value of the array."""
    assert a.sites() == b.sites()
    found = 0.0
    for site in a.sites():
        assert a.layers(site) == b.layers(site)
        for layer in a.layers(site):
            x, y = a[site, layer], b[site, layer]
            found = max(found, float(np.abs(x - y).max() / np.abs(x).max()))
    return found


def hooks(model: Any) -> list[int]:
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf_model.modules()]


@pytest.mark.parametrize("backend", OTHERS)
def test_agrees_with_the_reference(backend: str, architecture: str, tiny: Any, zoo: Any) -> None:
    model = tiny(architecture)
    given: dict[str, Any] = {"texts": zoo.texts(7)}
    if architecture in zoo.VISION:
        generator = torch.Generator().manual_seed(0)
        given = {"pixel_values": torch.randn(3, 3, 12, 12, generator=generator)}
    if backend == "transformer_lens" and architecture in NOT_IN_LENS:
        with pytest.raises(DoesNotApply, match="TransformerLens"):
            capture(model, **given, backend=backend)
        return
    attention = model.config._attn_implementation
    weights, before, kinds = (
        model.weights_hash,
        hooks(model),
        [type(m) for m in model.hf_model.modules()],
    )
    reference = capture(model, **given, sites=sites_of(model), pooling="mean")
    other = capture(model, **given, sites=sites_of(model), pooling="mean", backend=backend)
    assert furthest(reference, other) < 1e-5
    assert model.weights_hash == weights
    assert hooks(model) == before
    assert [type(m) for m in model.hf_model.modules()] == kinds
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize(
    "options", [{"padding_side": "left"}, {"pooling": "none"}, {"layers": [1]}]
)
def test_agrees_for_other_requests(
    backend: str, options: dict[str, Any], tiny: Any, zoo: Any
) -> None:
    for name in ("gpt2", "bert"):
        request = {"texts": zoo.texts(7), "sites": ["exit", "z"], "batch_tokens": 30, **options}
        a, b = (capture(tiny(name), backend=which, **request) for which in ("torch", backend))
        assert furthest(a, b) < 1e-5


def test_the_sites_differ_from_each_other(tiny: Any, zoo: Any) -> None:
    """The control: a backend that mixed up two sites or two layers would be far from the reference."""
    acts = capture(tiny("bert"), zoo.texts(7), ["resid_post", "attn_out", "mlp_out"])
    arrays = [acts[site, 1] for site in acts.sites()] + [acts["mlp_out", 2]]
    for i, a in enumerate(arrays):
        for b in arrays[:i]:
            assert np.abs(a - b).max() / np.abs(a).max() > 0.1


@pytest.mark.parametrize("backend", list(BACKENDS))
def test_stops_early_and_halves(
    backend: str, tiny: Any, zoo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from probes.capture import shard

    model, texts = tiny("llama"), zoo.texts(12)
    expected = capture(model, texts, layers=[1], pooling="mean")
    original, sizes = shard.Pooler.__call__, []

    def call(self: Any, states: torch.Tensor) -> torch.Tensor:
        sizes.append(len(states))
        if len(states) > 4:
            raise torch.OutOfMemoryError("no")
        return original(self, states)

    monkeypatch.setattr(shard.Pooler, "__call__", call)
    got = capture(model, texts, layers=[1], pooling="mean", backend=backend)
    assert max(sizes) == 12
    assert furthest(expected, got) < 1e-5


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tiny: Any) -> None:
    gone = Backend("gone", "no-such-distribution", lambda: pytest.fail("loaded"), "")
    monkeypatch.setitem(backends.BACKENDS._items, "gone", gone)
    with pytest.raises(InputError, match=r'pip install "fathometer\[backends\]"'):
        capture(tiny("gpt2"), ["a cat"], backend="gone")


@pytest.mark.models
@pytest.mark.usefixtures("users_cache")
@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("name", ["minilm", "smollm2"])
def test_agrees_on_real_models(backend: str, name: str) -> None:
    from probes import load_model

    model = load_model(name)
    texts = [
        "The capital of France is Paris.",
        "Gold is a metal; it does not rust, and it never did.",
        "A cat sleeps.",
    ]
    sites = ["resid_post", "exit", "attn_out", "mlp_out", "mlp_act", "z"]
    reference = capture(model, texts, sites, pooling="mean")
    assert furthest(reference, capture(model, texts, sites, pooling="mean", backend=backend)) < 1e-4
