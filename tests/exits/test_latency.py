"""Time per layer: what is measured, in which order, and what is made of it (no assertion on speed)."""

from __future__ import annotations

import numpy as np
import pytest

from probes.errors import InputError
from probes.exits import latency
from probes.exits.latency import Latency, LatencyPlan, measure_latency, run_rounds
from probes.tables import tidy


class Clock:
    """A clock that only the timed calls move."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(latency, "time", made)
    return made


def test_relative_cost_is_the_median_of_ratios_within_a_round(clock):
    """The machine is three times slower in every other round: ratios do not notice."""
    calls = {"n": 0}

    def call(seconds):
        def run(texts):
            slow = 3 if (calls["n"] // 3) % 2 else 1
            calls["n"] += 1
            clock.now += slow * seconds * len(texts)

        return run

    plan = LatencyPlan(seconds=1e9, batch_size=2, max_rounds=9, warmup=0)
    found = run_rounds({0: call(0.001), 1: call(0.006), 2: call(0.010)}, lambda r: ["a", "b"], plan)
    assert found.relative_cost() == pytest.approx({0: 0.1, 1: 0.6, 2: 1.0})
    assert found.times.shape == (9, 3)
    np.testing.assert_allclose(found.times[0], [1, 6, 10])  # milliseconds per text
    np.testing.assert_allclose(found.times[1], [3, 18, 30])


def test_order_is_rotated_and_all_layers_share_the_texts(clock):
    seen = []
    calls = {k: (lambda texts, k=k: seen.append((k, tuple(texts)))) for k in range(3)}
    run_rounds(calls, lambda r: [f"text {r}"], LatencyPlan(max_rounds=3, warmup=0))
    assert [k for k, _ in seen] == [0, 1, 2, 2, 0, 1, 1, 2, 0]
    assert [t for _, t in seen] == [(f"text {r}",) for r in range(3) for _ in range(3)]


def test_time_budget_drops_rounds_not_layers(clock):
    def call(texts):
        clock.now += 1.0

    plan = LatencyPlan(seconds=10, min_rounds=2, max_rounds=100, warmup=0)
    found = run_rounds(dict.fromkeys(range(3), call), lambda r: ["a"], plan)
    assert found.times.shape == (4, 3)  # 12 s: the first round end beyond 10 s
    short = LatencyPlan(seconds=0.1, min_rounds=2, max_rounds=100, warmup=0)
    assert run_rounds(dict.fromkeys(range(3), call), lambda r: ["a"], short).times.shape == (2, 3)


def test_nothing_is_smoothed_and_rows_are_tidy():
    found = Latency((0, 1, 2), np.array([[2.0, 1.0, 4.0], [2.0, 1.0, 4.0], [2.0, 1.5, 4.0]]), 1)
    assert found.table()["relative_cost"].tolist() == [0.5, 0.25, 1.0]
    table = tidy(found.rows("d", "mean", 0))
    assert len(table) == 9
    p95 = table[(table["measure"] == "latency_p95_ms") & (table["layer"] == 1)]
    assert p95["value"].iloc[0] == pytest.approx(np.quantile([1, 1, 1.5], 0.95))


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_every_layer_of_a_model_is_timed_and_embeds_what_capture_gives(zoo, own_cache, name):
    from probes.capture import capture
    from probes.exits.translate import fit_translator

    model, texts = zoo.build(name), zoo.texts(24)
    store = capture(model, texts, sites=["exit"])
    translator = fit_translator(store["exit", 1], store["exit", 3])
    found = measure_latency(
        model, texts, translators={1: translator}, plan=LatencyPlan(seconds=1, max_rounds=4)
    )
    assert found.layers == (0, 1, 2, 3)
    assert (found.times > 0).all()
    assert found.relative_cost()[3] == 1
    plain = latency._embedder(model, 2, None, None, None)(texts)
    np.testing.assert_allclose(plain, model.embed(store["exit", 2]), atol=1e-4)
    moved = latency._embedder(model, 1, None, translator, None)(texts[:5])
    np.testing.assert_allclose(moved, translator(store["exit", 1][:5]), atol=1e-3)


def test_no_texts(zoo):
    with pytest.raises(InputError, match="no texts"):
        measure_latency(zoo.build("bert"), [])
