"""The attention of every architecture is seen once per block, and what is put in its place is what the model uses."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from zoo import TEXT_NAMES, WITHOUT_HEADS, hf_model

from probes.capture import capture
from probes.capture.attention import attention_calls
from probes.capture.attention_call import AttentionCall, FusedCall, SoftmaxCall, read_call
from probes.capture.hooks import TorchRunner, is_edited, run_backbone
from probes.capture.sites import Place
from probes.errors import DoesNotApply, InputError, ModelError
from probes.layers import temperature
from probes.models.structure import Heads

WITH_HEADS = [name for name in TEXT_NAMES if name not in WITHOUT_HEADS]
FOUND = torch.nn.functional.softmax  # before any test replaces it


@pytest.fixture(params=WITH_HEADS)
def model(request: pytest.FixtureRequest, tiny: Any) -> Any:
    return tiny(request.param)


@pytest.fixture(scope="session")
def words(zoo: Any) -> list[str]:
    return [*zoo.texts(5), "cat"]  # one of a single token


def _states(model: Any, texts: list[str], **options: Any) -> np.ndarray:
    """(layer, n, d) of all exits."""
    store = capture(model, texts, **options)
    return np.stack([store["exit", layer] for layer in range(model.n_layers + 1)])


def _hooks(model: Any) -> int:
    """How many hooks there are, those of the library itself included."""
    modules = model.structure.base.modules()
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


def _clean(model: Any, hooks: int) -> bool:
    modes = torch.overrides._get_current_function_mode_stack()
    return _hooks(model) == hooks and not modes and not is_edited(model)


def _inputs(model: Any, batch: int = 2, token: int = 6) -> dict[str, torch.Tensor]:
    ids = torch.randint(7, 90, (batch, token), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@functools.cache
def _eager(name: str) -> Any:
    """The same weights, attention computed by an explicit softmax."""
    from zoo import build

    model = build(name)
    model.config._attn_implementation = "eager"
    for module in model.hf_model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = "eager"
    return model


def _softmax_at(tau: float) -> Any:
    """Every softmax over four axes of the whole library, with logits divided where they are not masked."""

    def softmax(x: torch.Tensor, dim: int | None = None, **options: Any) -> torch.Tensor:
        if x.ndim == 4:
            x = torch.where(x < torch.finfo(x.dtype).min / 2, x, x / tau)
        return FOUND(x, dim=dim, dtype=options.get("dtype"))

    return softmax


@pytest.mark.parametrize("tau", [0.6, 1.7])
def test_temperature_is_a_softmax_of_divided_logits(
    model: Any, words: list[str], tau: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = _states(model, words)
    hooks = _hooks(model)
    with temperature(model, tau):
        found = _states(model, words)
    assert _clean(model, hooks)
    eager = _eager(model.name.removeprefix("tiny-"))
    monkeypatch.setattr(torch.nn.functional, "softmax", _softmax_at(tau))
    wanted = _states(eager, words)
    assert np.abs(found - plain).max() > 1e-2  # the control: it does something
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_array_equal(found[0], plain[0])


def test_at_one_it_is_the_model_itself_bit_for_bit(model: Any, words: list[str]) -> None:
    plain = _states(model, words)
    hooks = _hooks(model)
    with temperature(model, 1.0):
        assert not is_edited(model)
        np.testing.assert_array_equal(_states(model, words), plain)
    with attention_calls(model, lambda call: None):  # watched, and left alone
        np.testing.assert_array_equal(_states(model, words), plain)
    with attention_calls(model, lambda call: call.scaled(1.0)):  # computed anew, divided by 1
        np.testing.assert_allclose(_states(model, words), plain, atol=2e-6)
    assert _clean(model, hooks)


def test_padding_does_not_matter_at_another_temperature(model: Any, words: list[str]) -> None:
    with temperature(model, 0.5):
        bare = _states(model, words, padding_side="none")
        for side in model.padding_sides:
            np.testing.assert_allclose(_states(model, words, padding_side=side), bare, atol=1e-5)


def test_temperature_comes_after_alibi(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Falcon's position bias lies in the mask of its fused attention."""
    from transformers import FalconConfig, FalconForCausalLM
    from zoo import tokenizer

    from probes.models import wrap_model

    config = FalconConfig(
        hidden_size=32, num_attention_heads=4, num_hidden_layers=2, vocab_size=96, alibi=True
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bare = FalconForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in bare.parameters():
            parameter.mul_(8 if parameter.ndim == 2 else 1)
    model = wrap_model(bare, tokenizer("decoder"), name="alibi")
    plain = _states(model, words)
    with temperature(model, 0.6):
        found = _states(model, words)

    def explicit(q: Any, k: Any, v: Any, attn_mask: Any, **_: Any) -> torch.Tensor:
        hidden = attn_mask < torch.finfo(attn_mask.dtype).min / 2
        logits = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + attn_mask) / 0.6
        return FOUND(logits.masked_fill(hidden, -torch.inf), dim=-1) @ v

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", explicit)
    np.testing.assert_allclose(found, _states(model, words), atol=1e-5)
    assert np.abs(found - plain).max() > 1e-2


_DIVIDED = {  # where the logits' own factor lies, so that no softmax is touched at all
    "bert": "attention.self.query",
    "roberta": "attention.self.query",
    "opt": "self_attn.q_proj",
    "mistral": "self_attn.q_proj",
    "qwen2": "self_attn.q_proj",
    "distilbert": "attention.q_lin",
    "mpnet": "attention.attn.q",
    "t5-encoder": "SelfAttention.q",
}


@pytest.mark.parametrize("name", _DIVIDED)
def test_temperature_equals_smaller_query_weights(name: str, words: list[str]) -> None:
    from probes.models import wrap_model

    tau = 0.7
    bare: Any = hf_model(name)
    with torch.no_grad():
        for path, module in bare.named_modules():
            if path.endswith(_DIVIDED[name]):
                for parameter in module.parameters():
                    parameter.div_(tau)
            if path.endswith("relative_attention_bias"):  # T5 and MPNet add it to the logits
                module.weight.div_(tau)
    from zoo import build

    model = build(name)
    changed = wrap_model(bare, model.tokenizer, name="changed")
    with temperature(model, tau):
        found = _states(model, words)
    np.testing.assert_allclose(found, _states(changed, words), atol=1e-5)


def test_hot_attention_is_uniform_and_every_block_is_seen_once(model: Any) -> None:
    patterns: dict[int, torch.Tensor] = {}

    def look(call: AttentionCall) -> None:
        assert call.block not in patterns
        patterns[call.block] = call.pattern()

    with torch.inference_mode(), temperature(model, 1e6), attention_calls(model, look):
        run_backbone(model, _inputs(model))
    assert sorted(patterns) == list(range(model.n_layers))
    for pattern in patterns.values():
        assert pattern.shape == (2, model.n_heads, 6, 6)
        seen = torch.ones(6, 6).tril() if model.is_causal else torch.ones(6, 6)
        wanted = (seen / seen.sum(-1, keepdim=True)).expand_as(pattern)
        torch.testing.assert_close(pattern, wanted, atol=1e-4, rtol=0)


def test_patterns_are_those_that_the_library_itself_returns(model: Any) -> None:
    eager = _eager(model.name.removeprefix("tiny-"))
    inputs = _inputs(model, batch=3, token=7)
    inputs["attention_mask"][0, 4:] = 0  # padding, right
    found: dict[int, torch.Tensor] = {}
    some: dict[int, torch.Tensor] = {}

    def look(call: AttentionCall) -> None:
        found[call.block] = call.pattern()
        some[call.block] = call.pattern(rows=[5, 1], heads=[3, 0])
        assert call.shape == tuple(found[call.block].shape)

    with torch.inference_mode(), attention_calls(model, look):
        run_backbone(model, inputs)
    with torch.inference_mode():
        wanted = eager.structure.base(**inputs, output_attentions=True).attentions
    real = inputs["attention_mask"].bool()[:, None, :, None]
    for block, pattern in found.items():
        ours, theirs = (torch.where(real, p, 0.0) for p in (pattern, wanted[block]))
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
        torch.testing.assert_close(some[block], pattern[:, [3, 0]][:, :, [5, 1]])


def test_only_the_blocks_asked_for_change(tiny: Any, words: list[str]) -> None:
    model = tiny("gpt2")
    plain = _states(model, words)
    with temperature(model, 0.5, blocks=[1]):
        found = _states(model, words)
    np.testing.assert_array_equal(found[:2], plain[:2])
    assert np.abs(found[2] - plain[2]).max() > 1e-3


def test_temperatures_multiply_and_readers_inside_see_the_changed_pattern(tiny: Any) -> None:
    model, inputs = tiny("llama"), _inputs(tiny("llama"))
    seen: list[torch.Tensor] = []

    def look(call: AttentionCall) -> None:
        if call.block == 0:
            seen.append(call.pattern())

    with torch.inference_mode():
        with attention_calls(model, look):
            run_backbone(model, inputs)
        with temperature(model, 0.5), temperature(model, 3.0), attention_calls(model, look):
            run_backbone(model, inputs)
        with temperature(model, 1.5), attention_calls(model, look):
            run_backbone(model, inputs)
    torch.testing.assert_close(seen[1], seen[2])
    assert (seen[0] - seen[1]).abs().max() > 1e-3


def test_a_tensor_takes_the_place_of_the_result(tiny: Any) -> None:
    model, inputs = tiny("bert"), _inputs(tiny("bert"))
    z: list[torch.Tensor] = []

    def zeros(call: AttentionCall) -> torch.Tensor:
        return torch.zeros_like(call.result())

    with attention_calls(model, zeros, blocks=[1]):
        TorchRunner(model, [Place("z", 0), Place("z", 1)])(inputs, lambda _place, s: z.append(s))
    assert z[0].abs().max() > 0
    assert z[1].abs().max() == 0


@pytest.mark.parametrize("name", ["llama", "gpt2", "falcon"])
def test_generation_with_a_cache_is_changed_at_every_step(tiny: Any, name: str) -> None:
    """A step with a cache equals the last position of a pass over everything, at the same temperature.

    Transformers packs the single query of grouped heads in a layout of its own; a masked key is padding.
    """
    model = tiny(name)
    inputs = _inputs(model, token=5)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    mask[0, 0] = 0
    seen: list[torch.Tensor] = []

    def look(call: AttentionCall) -> None:
        if call.block == 2:
            assert call.shape[:2] == (2, 4)
            seen.append(call.pattern(rows=[call.shape[2] - 1], heads=[3, 1]))

    with torch.inference_mode(), temperature(model, 0.6), attention_calls(model, look):
        whole = model.hf_model(input_ids=ids, attention_mask=mask).logits[:, -1]
        cache = model.hf_model(
            input_ids=ids[:, :-1], attention_mask=mask[:, :-1], use_cache=True
        ).past_key_values
        step = model.hf_model(
            input_ids=ids[:, -1:], attention_mask=mask, past_key_values=cache
        ).logits[:, -1]
    torch.testing.assert_close(step[1], whole[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[2][1], seen[0][1], atol=1e-5, rtol=0)
    assert seen[2].shape == (2, 2, 1, 5)
    assert seen[2][0, ..., 0].abs().max() == 0  # the masked key
    torch.testing.assert_close(seen[2].sum(-1), torch.ones(2, 2, 1))


@pytest.mark.parametrize("name", ["bert", "llama", "gemma2", "t5-encoder"])
def test_half_precision_models(name: str, words: list[str]) -> None:
    from zoo import build

    single = build(name)
    with temperature(single, 0.6):
        wanted = _states(single, words)
    half = build(name)
    half.hf_model.to(torch.bfloat16)
    plain = _states(half, words)
    with temperature(half, 0.6):
        found = _states(half, words)
    error = np.abs(found - wanted).mean()
    assert error < 0.02 < np.abs(found - plain).mean()


def test_all_is_as_before_after_an_error_inside_a_pass(tiny: Any, words: list[str]) -> None:
    model = tiny("gemma2")
    plain = _states(model, words)
    hooks = _hooks(model)

    def fail(call: AttentionCall) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), attention_calls(model, fail):
        capture(model, words)
    with pytest.raises(RuntimeError, match="stop"), temperature(model, 0.5):
        raise RuntimeError("stop")
    assert _clean(model, hooks)
    np.testing.assert_array_equal(_states(model, words), plain)


def test_a_pass_that_broke_off_leaves_no_block_open(tiny: Any) -> None:
    model, inputs = tiny("bert"), _inputs(tiny("bert"))
    calls: list[int] = []

    def once(call: AttentionCall) -> None:
        calls.append(call.block)
        if len(calls) == 1:
            raise RuntimeError("out of memory, say")

    with attention_calls(model, once, blocks=[1]), torch.inference_mode():
        with pytest.raises(RuntimeError, match="memory"):
            run_backbone(model, inputs)
        run_backbone(model, inputs)
    assert calls == [1, 1]


@pytest.mark.parametrize("tau", [0.0, -1.0, float("nan"), float("inf"), True])
def test_wrong_temperatures_are_refused(tiny: Any, tau: float) -> None:
    with pytest.raises(InputError, match="tau is"), temperature(tiny("bert"), tau):
        pass


def test_models_without_heads_and_unknown_blocks_are_refused(tiny: Any) -> None:
    for tau in (0.5, 1.0):
        with (
            pytest.raises(
                DoesNotApply, match=r"attention of block 0 of tiny-mamba: .*no attention"
            ),
            temperature(tiny("mamba"), tau),
        ):
            pass
    with pytest.raises(InputError, match="block 9 does not"), temperature(tiny("bert"), 0.5, [9]):
        pass


def test_vision_models_work(tiny: Any) -> None:
    model = tiny("vit")
    pixels = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    plain = np.array(capture(model, pixel_values=pixels)["exit", 3])
    with temperature(model, 0.5):
        assert np.abs(capture(model, pixel_values=pixels)["exit", 3] - plain).max() > 1e-3


def test_states_at_a_temperature_are_not_kept_as_the_models_own(
    tiny: Any, words: list[str], tmp_path: Path
) -> None:
    model = tiny("bert")
    with temperature(model, 0.9):
        assert is_edited(model)
        for more in ({"out": tmp_path / "store"}, {"cache": True}, {"backend": "nnsight"}):
            with pytest.raises(InputError, match="an edit of tiny-bert is in force"):
                capture(model, words, **more)
    with temperature(model, 1.0):  # the model itself
        capture(model, words, out=tmp_path / "store")


def test_attention_that_cannot_be_seen_is_an_error(tiny: Any) -> None:
    """As with kernels outside of PyTorch: the block reaches its output projection and nothing was seen."""
    model, inputs = tiny("bert"), _inputs(tiny("bert"))
    attention = model.structure.blocks[1].module.attention.self

    class Hidden(nn.Module):
        def forward(self, states: torch.Tensor, *_: Any, **__: Any) -> Any:
            return states, None

    model.structure.blocks[1].module.attention.self = Hidden()
    try:
        with (
            torch.inference_mode(),
            temperature(model, 0.5),
            pytest.raises(ModelError, match=r'block 1 of .*attn_implementation="sdpa"'),
        ):
            run_backbone(model, inputs)
        with torch.inference_mode(), temperature(model, 0.5, blocks=[0, 2]):  # not asked about
            run_backbone(model, inputs)
    finally:
        model.structure.blocks[1].module.attention.self = attention


HEADS = Heads(4, 2, 3)


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _fused(**options: Any) -> AttentionCall:
    arguments = (_random(2, 4, 5, 3), _random(2, 2, 5, 3), _random(2, 2, 5, 3))
    call = read_call(
        0, HEADS, torch.nn.functional.scaled_dot_product_attention, arguments,
        {"enable_gqa": True, **options},
    )  # fmt: skip
    assert isinstance(call, FusedCall)
    return call


@pytest.mark.parametrize("tau", [1.0, 0.3, 2.5])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.2},
        {"attn_mask": _random(2, 1, 5, 5) > -0.5},
        {"attn_mask": _random(1, 4, 5, 5)},
        {"attn_mask": _random(5, 5)},
    ],
)
def test_result_is_the_pattern_times_the_values(options: dict[str, Any], tau: float) -> None:
    call = _fused(**options).scaled(tau)
    values = call.rest["value"].repeat_interleave(2, dim=1)  # type: ignore[attr-defined]
    torch.testing.assert_close(call.pattern() @ values, call.result(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tau", [0.01, 0.6, 1e4])
def test_masks_neither_overflow_nor_leak(dtype: torch.dtype, tau: float) -> None:
    lowest = torch.finfo(dtype).min
    mask = torch.zeros(1, 1, 5, 5, dtype=dtype)
    mask[..., 3:] = lowest
    mask[..., 0, :] = lowest  # a row that may attend to nothing
    logits = (_random(2, 4, 5, 5).to(dtype) + mask).clamp(min=lowest)
    soft = read_call(0, HEADS, torch.softmax, (logits,), {"dim": -1})
    states = [_random(2, 4, 5, 3).to(dtype) for _ in range(3)]
    fused = read_call(
        0, HEADS, torch.nn.functional.scaled_dot_product_attention, (*states, mask), {}
    )
    for call in (soft, fused):
        assert call is not None
        changed = call.scaled(tau)
        assert torch.isfinite(changed.result()).all()
        pattern = changed.pattern()
        assert pattern[..., 1:, 3:].abs().max() == 0
        assert pattern[..., 0, :].abs().max() == 0
    assert soft is not None
    assert soft.scaled(tau).result()[..., 1:, 3:].abs().max() == 0


def test_only_a_softmax_over_keys_is_attention() -> None:
    four = _random(2, 4, 5, 5)
    for function, args, kwargs in (
        (torch.softmax, (four, 1), {}),  # over heads
        (torch.softmax, (_random(10, 8), -1), {}),  # a router over experts
        (torch.relu, (four,), {}),
    ):
        assert read_call(0, HEADS, function, args, kwargs) is None
    flat = four.reshape(8, 5, 5)
    for given, function, args, kwargs in (
        (four, torch.Tensor.softmax, (four, -1), {}),
        (four, torch.nn.functional.softmax, (), {"input": four, "dim": 3}),
        (flat, torch.nn.functional.softmax, (flat,), {"dim": -1}),
    ):
        call = read_call(0, HEADS, function, args, kwargs)
        assert isinstance(call, SoftmaxCall)
        assert call.shape == (2, 4, 5, 5)
        torch.testing.assert_close(call.pattern(), torch.softmax(four, -1))
        assert torch.equal(call.result(), torch.softmax(given, -1))


def test_few_rows_of_long_inputs_are_computed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of token × token is made for one row."""
    call = read_call(
        0, Heads(4, 4, 3), torch.nn.functional.scaled_dot_product_attention,
        (_random(1, 4, 64, 3), _random(1, 4, 64, 3), _random(1, 4, 64, 3)), {"is_causal": True},
    )  # fmt: skip
    assert call is not None
    largest = 0

    class Sizes(torch.overrides.TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    with Sizes():
        row = call.pattern(rows=[63])
    assert row.shape == (1, 4, 1, 64)
    assert largest <= 4 * 64 * 3  # no more than the keys
