"""Token metrics: closed forms, arrays against batches, every side of padding, and the table over layers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from probes.capture import capture
from probes.errors import DoesNotApply, InputError, NonFiniteError
from probes.layers.curvature import curvature
from probes.layers.dc_share import dc_share
from probes.layers.prompt_entropy import prompt_entropy, prompt_entropy_without_first
from probes.layers.smoothness import smoothness
from probes.layers.tokens import token_metrics
from probes.registry import TOKEN_METRICS

METRICS = sorted(TOKEN_METRICS)


@pytest.fixture(scope="module")
def zoo() -> Any:
    if "zoo" not in sys.modules:
        spec = importlib.util.spec_from_file_location("zoo", Path(__file__).parents[1] / "zoo.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules["zoo"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["zoo"])
    return sys.modules["zoo"]


def _random(tokens: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(tokens, d)) + 0.3


def test_curvature_of_known_paths() -> None:
    line = np.outer(np.arange(6.0) ** 2, [1.0, -2, 0.5])
    assert curvature(line) == pytest.approx(0, abs=1e-12)
    steps = np.eye(8)
    walk = np.vstack([np.zeros(8), steps.cumsum(0)])
    assert curvature(walk) == pytest.approx(np.pi / 2, abs=1e-12)
    assert curvature(walk * 1e-200) == pytest.approx(np.pi / 2, abs=1e-12)
    assert curvature([[0.0], [1], [0], [1]]) == pytest.approx(np.pi)
    angle = 0.01
    path = [[0.0, 0], [1, 0], [1 + np.cos(angle), np.sin(angle)]]
    assert curvature(path) == pytest.approx(angle, abs=1e-12)
    assert curvature(_random(400, 500)) == pytest.approx(2 * np.pi / 3, abs=0.01)


def test_curvature_leaves_out_steps_without_a_direction() -> None:
    path = [[0.0, 0], [1, 0], [1, 0], [1, 1], [2, 1], [3, 1]]
    assert curvature(path) == pytest.approx(
        (np.pi / 2 + 0) / 2
    )  # of the angles 0, 0, π/2, 0 the last two
    with pytest.raises(DoesNotApply, match="no two steps"):
        curvature([[1.0, 2]] * 5)
    with pytest.raises(DoesNotApply, match="2 tokens: at least three"):
        curvature([[1.0, 2], [3, 4]])


def test_smoothness_and_the_share_of_the_mean() -> None:
    assert smoothness(np.tile([1.0, 2, 3], (4, 1))) == pytest.approx(1)
    assert smoothness(np.eye(5)) == 0
    assert smoothness([[1.0, 0], [-2, 0]]) == -1
    assert dc_share(np.tile([1.0, 2, 3], (4, 1))) == pytest.approx(1)
    assert dc_share(np.eye(5)) == pytest.approx(1 / 5)
    assert dc_share([[1.0, 0], [-1, 0]]) == 0
    states = _random(
        7, 4
    )  # Parseval: the share of frequency zero in the discrete Fourier transform
    power = np.abs(np.fft.fft(states, axis=0)) ** 2
    assert dc_share(states) == pytest.approx(power[0].sum() / power.sum(), abs=1e-12)
    assert dc_share(states * 1e200) == pytest.approx(dc_share(states))


def test_prompt_entropy_of_known_grams() -> None:
    assert prompt_entropy(np.eye(5)) == pytest.approx(1)
    assert prompt_entropy(3 * np.eye(3)[[0, 1, 2, 0, 1, 2]]) == pytest.approx(1)  # n > d
    assert prompt_entropy(np.tile([1.0, 2, 3], (4, 1))) == pytest.approx(0, abs=1e-12)
    states = _random(6, 4)
    units = states / np.linalg.norm(states, axis=1, keepdims=True)
    eigenvalues = np.clip(np.linalg.eigvalsh(units @ units.T / 6), 1e-300, None)
    brute = -(eigenvalues * np.log(eigenvalues)).sum() / np.log(4)
    assert prompt_entropy(states) == pytest.approx(brute, abs=1e-10)
    assert prompt_entropy_without_first(np.vstack([[9.0] * 4, states])) == pytest.approx(brute)


@pytest.mark.parametrize("name", METRICS)
def test_one_token_and_zero_states_do_not_apply(name: str) -> None:
    metric = TOKEN_METRICS[name]
    for tokens in (_random(1, 4), np.zeros((5, 4))):
        with pytest.raises(DoesNotApply):
            metric.compute(tokens)
        batch = torch.from_numpy(tokens)[None]
        assert metric.batch(batch, torch.ones(batch.shape[:2], dtype=torch.bool)).isnan().all()


@pytest.mark.parametrize("name", METRICS)
def test_values_lie_in_the_range_that_is_declared(name: str) -> None:
    metric = TOKEN_METRICS[name]
    rng = np.random.default_rng(0)
    assert metric.measure.low is not None
    assert metric.measure.high is not None
    for seed in range(20):
        states = _random(int(rng.integers(3, 9)), int(rng.integers(2, 9)), seed)
        found = metric.compute(states * 10.0 ** rng.integers(-20, 20))
        assert metric.measure.low <= found <= metric.measure.high
        assert found == pytest.approx(metric.compute(states), rel=1e-6)  # scale does not matter


def _padded(texts: list[np.ndarray], place: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """One batch with junk in the padding: left, right, or between the tokens."""
    width = max(map(len, texts)) + 2
    states = torch.full((len(texts), width, texts[0].shape[1]), torch.nan, dtype=dtype)
    keep = torch.zeros(len(texts), width, dtype=torch.bool)
    for i, text in enumerate(texts):
        n = len(text)
        at = {"left": range(width - n, width), "right": range(n), "inside": [0, *range(3, n + 2)]}
        keep[i, list(at[place])] = True
        states[i, list(at[place])] = torch.from_numpy(text).to(dtype)
    return states, keep


@pytest.mark.parametrize("place", ["left", "right", "inside"])
@pytest.mark.parametrize("name", METRICS)
def test_batches_equal_arrays_wherever_the_padding_lies(name: str, place: str) -> None:
    texts = [_random(n, 6, n) for n in (3, 5, 11, 4)]  # more and fewer tokens than dimensions
    metric = TOKEN_METRICS[name]
    wanted = [metric.compute(text) for text in texts]
    for dtype, exact in ((torch.float64, 1e-9), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
        found = metric.batch(*_padded(texts, place, dtype))
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found, wanted, atol=exact)


@pytest.mark.parametrize("name", METRICS)
def test_a_text_where_it_is_undefined_does_not_touch_the_others(name: str) -> None:
    metric = TOKEN_METRICS[name]
    texts = [_random(6, 4), _random(1, 4), np.zeros((5, 4))]
    found = metric.batch(*_padded(texts, "right", torch.float64))
    assert found[0].item() == pytest.approx(metric.compute(texts[0]))
    assert found[1:].isnan().all()


@pytest.fixture(scope="module")
def bert(zoo: Any) -> Any:
    return zoo.build("bert")


@pytest.mark.parametrize("site", ["exit", "resid_post"])
@pytest.mark.parametrize("special", [True, False])
def test_the_table_is_the_mean_over_captured_tokens(zoo: Any, site: str, special: bool) -> None:
    model, texts = zoo.build("gpt2"), [*zoo.texts(12), "cat"]
    if special:
        model = zoo.build("roberta")
    table = token_metrics(model, texts, site=site, special_tokens=special, batch_tokens=40)
    store = capture(model, texts, [site], "none", special_tokens=special)
    assert len(table) == len(METRICS) * 4
    assert set(table["site"]) == {site}
    for row in table.to_dict("records"):
        states = np.asarray(store[site, row["layer"]])
        values = []
        for start, end in zip(store.offsets[:-1], store.offsets[1:], strict=True):
            try:
                values.append(TOKEN_METRICS[row["measure"]].compute(states[start:end]))
            except DoesNotApply:
                continue
        assert row["n"] == len(values)
        assert row["value"] == pytest.approx(np.mean(values), abs=1e-5)
        half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
        assert row["low"] == pytest.approx(max(row["value"] - half, _low(row)), abs=1e-5)
        missing = len(texts) - len(values)
        notes = [
            n for n in table.attrs["notes"] if n.startswith(f"{site} at layer {row['layer']}:")
        ]
        said = [n for n in notes if f": {row['measure']} is undefined for {missing} of 13" in n]
        assert bool(said) == bool(missing)


def _low(row: dict[str, Any]) -> float:
    low = TOKEN_METRICS[row["measure"]].measure.low
    return -np.inf if low is None else low


def test_padding_and_batches_do_not_matter(zoo: Any) -> None:
    texts = zoo.texts(10)
    for name in ("bert", "llama", "t5-encoder"):
        model = zoo.build(name)
        bare = token_metrics(model, texts, padding_side="none")
        for side in model.padding_sides:
            for size in (20, 4096):
                found = token_metrics(model, texts, padding_side=side, batch_tokens=size)
                np.testing.assert_allclose(
                    found["value"].astype(float), bare["value"].astype(float), atol=1e-5
                )


def test_texts_of_one_group_are_one_draw(zoo: Any, bert: Any) -> None:
    texts = zoo.texts(6)
    single = token_metrics(bert, texts, ["smoothness"], layers=[2])
    triple = token_metrics(
        bert, texts * 3, ["smoothness"], layers=[2], groups=np.tile(np.arange(6), 3)
    )
    careless = token_metrics(bert, texts * 3, ["smoothness"], layers=[2])
    for column in ("value", "low", "high"):
        assert triple[column][0] == pytest.approx(single[column][0], abs=1e-6)
    assert careless["low"][0] > single["low"][0]
    with pytest.raises(InputError, match="groups have shape"):
        token_metrics(bert, texts, groups=[1, 2])


def test_null_with_a_reason_where_no_text_is_long_enough(zoo: Any) -> None:
    table = token_metrics(zoo.build("llama"), ["cat", "dog"], ["curvature"], layers=[1])
    assert table["value"].isna().all()
    assert table["n"][0] == 0
    assert table.attrs["notes"] == [
        "exit at layer 1: curvature is undefined for 2 of 2 texts (too few tokens, or states without a direction)"
    ]


def test_cut_texts_are_counted(zoo: Any, bert: Any) -> None:
    table = token_metrics(bert, ["cat dog bird fish tree", "sun"], ["dc_share"], max_length=5)
    assert "1 of 2 texts are longer" in table.attrs["notes"][0]


def test_the_median_number_of_tokens_and_progress_are_told(zoo: Any, bert: Any) -> None:
    seen: list[tuple[int, int]] = []
    table = token_metrics(
        bert, ["cat", "dog runs", "the sun sings"], ["dc_share"], layers=0,
        batch_tokens=5, progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert table.attrs["tokens"] == 4
    assert seen[-1] == (3, 3)
    assert len(seen) > 1


def test_states_that_are_not_finite_are_an_error(zoo: Any) -> None:
    model = zoo.build("bert")
    with torch.no_grad():
        model.structure.blocks[1].module.output.dense.weight[0, 0] = float("inf")
    token_metrics(model, zoo.texts(3), layers=[1])
    with pytest.raises(NonFiniteError, match="exit at layer 2: the states of text 0"):
        token_metrics(model, zoo.texts(3))


def test_what_is_not_allowed_is_refused(zoo: Any, bert: Any) -> None:
    texts = zoo.texts(2)
    with pytest.raises(InputError, match="did you mean 'curvature'"):
        token_metrics(bert, texts, ["curvture"])
    with pytest.raises(InputError, match="no metric"):
        token_metrics(bert, texts, [])
    with pytest.raises(InputError, match="'exit' or 'resid_post'"):
        token_metrics(bert, texts, site="z")
    with pytest.raises(InputError, match="has no layer 9"):
        token_metrics(bert, texts, layers=[9])
    with pytest.raises(InputError, match="confidence"):
        token_metrics(bert, texts, confidence=95)


def test_memory_that_runs_out_halves_the_batch_and_changes_nothing(
    zoo: Any, bert: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from probes.capture.hooks import TorchRunner

    texts = zoo.texts(9)
    whole = token_metrics(bert, texts)
    real_call = TorchRunner.__call__

    def small(self: Any, inputs: Any, receive: Any) -> None:
        real_call(self, inputs, receive)  # numbers were handed over before it failed
        if len(inputs["input_ids"]) > 2:
            raise MemoryError

    monkeypatch.setattr(TorchRunner, "__call__", small)
    parts = token_metrics(bert, texts)
    np.testing.assert_allclose(
        parts["value"].astype(float), whole["value"].astype(float), atol=1e-6
    )


def test_a_temperature_shows_in_the_metrics(zoo: Any, bert: Any) -> None:
    from probes.layers import temperature

    texts = zoo.texts(8)
    plain = token_metrics(bert, texts, ["smoothness"], layers=[0, 3])["value"]
    with temperature(bert, 100.0):
        hot = token_metrics(bert, texts, ["smoothness"], layers=[0, 3])["value"]
    assert hot[0] == plain[0]
    assert abs(hot[1] - plain[1]) > 1e-3
