"""States of spans: those of the span's own tokens, whatever the padding, the prompt, the backend or the shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes import capture, open_store
from probes.capture import plan
from probes.capture import shard as shard_module
from probes.capture.pooling import Pooler
from probes.capture.span_pooling import SpanPooler
from probes.capture.spans import word_spans
from probes.errors import DataError, DoesNotApply, InputError, StoreError

POOLINGS = ("mean", "last", "first", "max", "weighted")
LOOP = {
    "mean": lambda rows: rows.mean(0),
    "last": lambda rows: rows[-1],
    "first": lambda rows: rows[0],
    "max": lambda rows: rows.max(0),
    "weighted": lambda rows: (
        np.arange(1, len(rows) + 1)
        @ rows.reshape(len(rows), -1)
        / (len(rows) * (len(rows) + 1) / 2)
    ).reshape(rows.shape[1:]),
}


def some_spans(texts: list[str], seed: int = 0) -> tuple[list[Any], list[list[tuple[int, int]]]]:
    """0 to 4 spans per text, overlapping ones too: in characters, and in words [first, last)."""
    rng = np.random.default_rng(seed)
    spans: list[Any] = []
    words: list[list[tuple[int, int]]] = []
    for text in texts:
        _, places = word_spans(text.split())
        picks = [sorted(rng.integers(0, len(places), 2).tolist()) for _ in range(rng.integers(5))]
        spans.append([(places[a][0], places[b][1]) for a, b in picks])
        words.append([(a, b + 1) for a, b in picks])
    return spans, words


def expected(every: Any, words: Any, pooling: str, place: Any, before: int) -> np.ndarray:
    """By hand from the states of every token; `before` tokens stand before the first word."""
    found = []
    for start, row in zip(every.offsets, words, strict=False):
        for first, last in row:
            tokens = every[place][start + before + first : start + before + last]
            found.append(LOOP[pooling](tokens.astype(np.float64)))
    return np.stack(found)


# -- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("side", ["left", "right", "none"])
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_equal_the_spans_own_tokens(
    name: str, side: Any, pooling: str, tiny: Any, zoo: Any
) -> None:
    model, texts = tiny(name), zoo.texts(30)
    spans, words = some_spans(texts)
    options: dict[str, Any] = {"sites": ["exit", "z"], "padding_side": side, "batch_tokens": 40}
    every = capture(model, texts, pooling="none", **options)
    acts = capture(model, texts, pooling=pooling, spans=spans, shard_rows=7, **options)
    assert len(acts.shards) > 1
    assert acts.offsets.tolist() == np.cumsum([0, *map(len, spans)]).tolist()
    assert acts["z", 1].shape[1:] == (model.n_heads, model.d_head)
    for place in (("exit", 0), ("exit", 2), ("z", 1)):
        assert acts[place].dtype == np.float32
        by_hand = expected(every, words, pooling, place, before=name == "bert")
        np.testing.assert_allclose(acts[place], by_hand, rtol=1e-4, atol=1e-5)


def test_other_spans_of_the_same_texts_have_other_states(tiny: Any, zoo: Any) -> None:
    """The control: the comparison above would see it if spans were ignored."""
    text = ["the cat sees two birds"]
    a, b = (capture(tiny("bert"), text, spans=[[span]]) for span in ((4, 7), (8, 12)))
    assert np.abs(a["exit", 2] - b["exit", 2]).max() > 1e-2


@pytest.mark.parametrize("special", [True, False])
def test_special_tokens_and_a_prompt_do_not_shift_a_span(
    special: bool, tiny: Any, zoo: Any
) -> None:
    model, texts = tiny("bert"), zoo.texts(9)
    spans, words = some_spans(texts, seed=1)
    options: dict[str, Any] = {"prompt": "find the ", "special_tokens": special}
    every = capture(model, texts, pooling="none", **options)
    acts = capture(model, texts, pooling="mean", spans=spans, **options)
    by_hand = expected(every, words, "mean", ("exit", 3), before=2 + special)
    np.testing.assert_allclose(acts["exit", 3], by_hand, rtol=1e-4, atol=1e-5)


def test_a_span_over_the_whole_text_is_the_text_without_special_tokens(tiny: Any, zoo: Any) -> None:
    model, texts = tiny("bert"), zoo.texts(12)
    whole = np.array([[0, len(text)] for text in texts])
    acts = capture(model, texts, spans=whole)
    plain = capture(model, texts, special_tokens=False)
    for layer in (0, 3):
        np.testing.assert_allclose(acts["exit", layer], plain["exit", layer], rtol=1e-4, atol=1e-5)


def test_half_precision_is_summed_in_float32(tiny: Any, zoo: Any) -> None:
    model, texts = tiny("llama"), zoo.texts(8)
    spans, words = some_spans(texts, seed=2)
    every = capture(model, texts, pooling="none", dtype="bfloat16")
    acts = capture(model, texts, pooling="mean", dtype="bfloat16", spans=spans)
    by_hand = expected(every, words, "mean", ("exit", 3), before=0)
    np.testing.assert_allclose(acts["exit", 3], by_hand, rtol=1e-6, atol=1e-6)
    assert acts["exit", 3].dtype == np.float32
    rounded = torch.from_numpy(by_hand).to(torch.bfloat16).double().numpy()
    assert np.abs(rounded - by_hand).max() > 1e-4  # a store in half precision would show


@pytest.mark.parametrize("backend", ["transformer_lens", "nnsight"])
@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_every_backend(backend: str, name: str, tiny: Any, zoo: Any) -> None:
    model, texts = tiny(name), zoo.texts(8)
    spans, _ = some_spans(texts, seed=3)
    request: dict[str, Any] = {"sites": ["exit", "mlp_out"], "pooling": "mean", "spans": spans}
    reference = capture(model, texts, **request)
    other = capture(model, texts, backend=backend, **request)
    assert other.offsets.tolist() == reference.offsets.tolist()
    for place in (("exit", 1), ("exit", 3), ("mlp_out", 2)):
        np.testing.assert_allclose(other[place], reference[place], rtol=1e-4, atol=1e-4)


def test_a_batch_that_does_not_fit_is_halved_with_its_spans(
    tiny: Any, zoo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, texts = tiny("llama"), zoo.texts(16)
    spans, _ = some_spans(texts, seed=4)
    whole = capture(model, texts, pooling="last", spans=spans)
    original, sizes = shard_module.run_batch, []

    def narrow(job: Any, runner: Any, batch: Any, put: Any) -> None:
        if len(batch.rows) > 3:
            raise torch.OutOfMemoryError("out of memory")
        sizes.append(len(batch.rows))
        original(job, runner, batch, put)

    monkeypatch.setattr(shard_module, "run_batch", narrow)
    halved = capture(model, texts, pooling="last", spans=spans)
    assert max(sizes) <= 3 < len(sizes)
    np.testing.assert_allclose(halved["exit", 3], whole["exit", 3], rtol=1e-4, atol=1e-5)


# -- the store ------------------------------------------------------------------------------------------------------


def test_broken_off_it_goes_on_to_the_same_bytes(
    tiny: Any, zoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, texts = tiny("bert"), zoo.texts(30)
    spans, _ = some_spans(texts, seed=5)
    request: dict[str, Any] = {"spans": spans, "shard_rows": 6}
    whole = capture(model, texts, out=tmp_path / "whole", **request)
    original, done = shard_module.RaggedRows.write, 0

    def write(self: Any, store: Any, index: int) -> Any:
        nonlocal done
        done += 1
        if done == 3:
            raise KeyboardInterrupt
        return original(self, store, index)

    with monkeypatch.context() as patched:
        patched.setattr(shard_module.RaggedRows, "write", write)
        with pytest.raises(KeyboardInterrupt):
            capture(model, texts, out=tmp_path / "cut", **request)
    assert len(open_store(tmp_path / "cut").pending()) == 3
    resumed = capture(model, texts, out=tmp_path / "cut", **request)
    assert resumed.verify(deep=True).ok
    hashes = [[record.sha256 for record in store._committed()] for store in (resumed, whole)]
    assert hashes[0] == hashes[1]
    assert resumed.offsets.tolist() == whole.offsets.tolist()


def test_spans_are_part_of_the_identity_and_no_spans_are_as_before(
    tiny: Any, zoo: Any, tmp_path: Path
) -> None:
    model, texts = tiny("bert"), ["the cat sees two birds", "a fish"]
    first = capture(model, texts, out=tmp_path, spans=[[(4, 7)], [(2, 6)]])
    capture(model, texts, out=tmp_path, spans=[[(3, 8)], [(1, 6)]])  # the same but for white space
    for other in ([[(4, 7)], []], [[(8, 12)], [(2, 6)]], [[(4, 7), (2, 6)], []], None):
        with pytest.raises(StoreError, match="spans"):
            capture(model, texts, out=tmp_path, spans=other)
    assert "spans" not in capture(model, texts).identity
    assert first.rows()["tokens"].tolist() == [7, 4]


def test_a_shard_is_bounded_by_its_spans_too(
    tiny: Any, zoo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, texts = tiny("bert"), ["the cat sees"] * 40
    numbers = 4 * model.d_model
    monkeypatch.setattr(plan, "_SHARD_BYTES", 4 * numbers * 50)  # room for 50 rows
    acts = capture(model, texts, spans=[[(0, 3)] * (20 if i < 10 else 1) for i in range(40)])
    rows = [acts.offsets[hi] - acts.offsets[lo] for lo, hi in acts.shards]
    assert max(rows) <= 50
    assert rows[0] == 40  # two texts with 20 spans each, and the third would be too many


# -- refusals -------------------------------------------------------------------------------------------------------


def test_a_bad_span_stops_it_before_the_first_pass(tiny: Any, zoo: Any, tmp_path: Path) -> None:
    model, passes = tiny("bert"), 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    texts = [*zoo.texts(20), "the cat " * 20]
    spans: list[Any] = [[(0, 1)]] * 20 + [[(0, 3), (120, 123)]]
    handle = model.structure.base.register_forward_pre_hook(count)
    try:
        with pytest.raises(
            DataError, match=r"text 20, span 1 \(120, 123\) lies beyond the 12 tokens"
        ):
            capture(model, texts, spans=spans, max_length=12, shard_rows=5)
        assert passes == 0
        with pytest.warns(UserWarning, match="2 of 21 texts"):  # cut, but the span is not
            capture(model, texts, spans=[*spans[:20], [(0, 3)]], max_length=12)
        assert passes > 0
    finally:
        handle.remove()


def test_what_does_not_go_with_spans(tiny: Any, zoo: Any) -> None:
    with pytest.raises(InputError, match="pooling 'none' keeps every token"):
        capture(tiny("bert"), ["a cat"], spans=[[(0, 1)]], pooling="none")
    with pytest.raises(InputError, match="spans do not apply to images"):
        capture(tiny("vit"), pixel_values=torch.zeros(1, 3, 12, 12), spans=[[(0, 1)]])
    with pytest.raises(DataError, match="no text has a span"):
        capture(tiny("bert"), ["a cat"], spans=[[]])


def test_a_slow_tokenizer_is_refused(tiny: Any) -> None:
    from dataclasses import replace

    class Slow:
        is_fast = False
        model_max_length = 64
        all_special_ids: tuple[int, ...] = ()
        unk_token_id = None

    with pytest.raises(DoesNotApply, match="spans need a fast tokenizer"):
        capture(replace(tiny("bert"), tokenizer=Slow()), ["a cat"], spans=[[(0, 1)]])


# -- pooling alone --------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(POOLINGS), st.booleans(), st.booleans())
def test_pooling_equals_a_loop_and_nothing_outside_of_a_span_matters(
    seed: int, name: str, heads: bool, spoil: bool
) -> None:
    rng = np.random.default_rng(seed)
    states = torch.from_numpy(rng.normal(size=(3, 6, *((2, 4) if heads else (8,))))).float()
    spans = []
    for _ in range(3):
        edges = [sorted(rng.choice(7, 2, replace=False).tolist()) for _ in range(rng.integers(4))]
        spans.append(np.asarray(edges, np.int64).reshape(-1, 2))
    pooler = SpanPooler(name, spans, "cpu")
    assert pooler.counts == [len(row) for row in spans]
    flat = [(row, first, last) for row in range(3) for first, last in spans[row]]
    by_hand = [LOOP[name](states[r, a:b].double().numpy()) for r, a, b in flat]
    found = pooler(states)
    assert found.dtype == torch.float32
    assert found.shape == (len(flat), *states.shape[2:])
    if spoil:
        inside = torch.zeros(3, 6, dtype=torch.bool)
        for row, first, last in flat:
            inside[row, first:last] = True
        states[~inside] = float("nan")
        torch.testing.assert_close(pooler(states), found, rtol=0, atol=0)
    if flat:
        np.testing.assert_allclose(found, np.stack(by_hand), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", POOLINGS)
def test_one_span_over_all_tokens_is_the_plain_pooling(name: str) -> None:
    states = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    plain = Pooler(name, torch.ones(4, 5, dtype=torch.bool))(states)
    found = SpanPooler(name, [np.array([[0, 5]])] * 4, "cpu")(states)
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-6)


def test_a_nan_spoils_its_own_span_only() -> None:
    states = torch.ones(1, 4, 2)
    states[0, 1, 1] = float("nan")
    spans = [np.array([[0, 2], [2, 4]])]
    for name in ("mean", "max", "weighted", "last"):
        found = SpanPooler(name, spans, "cpu")(states)
        assert torch.isnan(found[0, 1])
        assert torch.isfinite(found[1]).all()


def test_pooler_refusals() -> None:
    with pytest.raises(InputError, match="pooling 'none'"):
        SpanPooler("none", [np.array([[0, 1]])], "cpu")
    with pytest.raises(InputError, match="did you mean 'mean'"):
        SpanPooler("maen", [np.array([[0, 1]])], "cpu")
    with pytest.raises(DataError, match="no token"):
        SpanPooler("mean", [np.array([[1, 1]])], "cpu")


# -- real models ----------------------------------------------------------------------------------------------------


@pytest.mark.models
@pytest.mark.parametrize("name", ["minilm", "smollm2"])
def test_real_models_give_the_state_of_the_last_piece_of_a_word(
    name: str, users_cache: None
) -> None:
    """Against transformers alone: hidden states at the token whose decoded prefix ends with the word."""
    from probes import load_model

    model = load_model(name, device="cpu")
    texts = ["The capital of France is Paris.", "Élodie unbelievably liked the café in Łódź."]
    targets = ["Paris", "unbelievably"]
    spans = [[(t.index(w), t.index(w) + len(w))] for t, w in zip(texts, targets, strict=True)]
    acts = capture(model, texts, layers=[2], pooling="last", spans=spans, padding_side="left")
    for row, (text, word) in enumerate(zip(texts, targets, strict=True)):
        ids = model.tokenizer(text)["input_ids"]
        ends = [
            i
            for i in range(len(ids))
            if word.lower()
            in model.tokenizer.decode(ids[: i + 1], skip_special_tokens=True).lower()
        ]
        with torch.no_grad():
            states = model.structure.base(
                input_ids=torch.tensor([ids]), output_hidden_states=True
            ).hidden_states[2]
            state = model.structure.apply_tail(states)[0, ends[0]]
        np.testing.assert_allclose(acts["exit", 2][row], state.numpy(), rtol=1e-3, atol=1e-4)
