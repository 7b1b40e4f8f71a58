"""The walk over given evidence, and what it must not depend on."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.errors import InputError
from probes.exits.walk import Budget, walk_chains
from probes.stats import hoeffding_bentkus


def evidence(shares, rng, draws=1999, n=500, spread=0.01):
    """One chain per key of `shares`; each value lists the true shares down the chain."""
    rows, columns = [], {"full": 0.8 + 0.01 * rng.normal(size=draws)}
    losses = {"cluster": np.arange(n), "full": np.full(n, 0.2)}
    top = max(len(v) for v in shares.values()) + 1
    for chain, values in shares.items():
        for order, share in enumerate([1.0, *values]):
            layer = top - order
            name = "raw:full" if order == 0 else f"{chain}:{layer}x8"
            columns[name] = (
                np.ones(draws) if order == 0 else share + spread * rng.normal(size=draws)
            )
            losses[name] = losses["full"] if order == 0 else 1 - 0.8 * np.full(n, share)
            variant = None if chain == "raw" or order == 0 else chain
            place = {
                "chain": chain,
                "order": order,
                "name": name,
                "variant": variant,
                "layer": layer,
                "dim": 8,
            }
            rows.append(
                {
                    **place,
                    "tune_quality": share,
                    "calibrate_quality": share,
                    "calibrate_share": share,
                }
            )
    return pd.DataFrame(rows), pd.DataFrame(columns), pd.DataFrame(losses)


def test_cheapest_of_the_last_before_the_first_failure(rng):
    tables = evidence({"raw": [0.99, 0.8, 0.99], "translated": [0.99, 0.985, 0.98]}, rng)
    assert walk_chains(*tables, Budget(0.95)).chosen == "translated:1x8"
    walk = walk_chains(*tables, Budget(0.7))
    assert walk.chosen in ("translated:1x8", "raw:1x8")
    assert walk.chosen == "raw:1x8"  # equally cheap, better on the tune part
    assert walk_chains(*evidence({"raw": [0.99, 0.8, 0.99]}, rng), Budget(0.95)).chosen == "raw:3x8"


def test_bound_and_p_agree(rng):
    chains, draws, losses = evidence({"raw": [0.99, 0.97, 0.9, 0.6]}, rng, draws=999)
    for share in np.linspace(0.5, 1, 101):
        steps = walk_chains(chains, draws, losses, Budget(float(share))).steps
        below = steps["bound"].astype(float) >= share
        np.testing.assert_array_equal(below, steps["p"] <= 0.05)


def test_error_is_shared_by_the_chains_that_can_choose(rng):
    one = evidence({"raw": [0.97]}, rng, spread=0.0115)
    assert (
        walk_chains(*one, Budget(0.95)).chosen is not None
    )  # 0.02 / 0.0115 is 1.74 standard errors: δ = 0.05
    rng = np.random.default_rng(0)
    two = evidence({"raw": [0.97], "translated": [0.5]}, rng, spread=0.0115)
    assert walk_chains(*two, Budget(0.95)).chosen is None  # δ = 0.025 asks for 1.96
    full_only = pd.concat([one[0], one[0].iloc[[0]].assign(chain="centred")])
    assert walk_chains(full_only, one[1], one[2], Budget(0.95)).chosen is not None


@given(st.floats(0.05, 1), st.floats(0.05, 1), st.floats(0.5, 0.99))
@settings(max_examples=40, deadline=None)
def test_asking_for_more_never_gives_something_cheaper(low, high, confidence):
    tables = evidence(
        {"raw": [0.95, 0.7, 0.3], "centred": [0.9, 0.85, 0.2]}, np.random.default_rng(1), draws=400
    )
    less, more = sorted([low, high])
    layer = {
        c: (9 if c is None else int(c.split(":")[1][0]))
        for c in [None, *tables[0]["name"][1:].unique()]
        if c != "raw:full"
    }
    easy = walk_chains(*tables, Budget(less, confidence=confidence)).chosen
    hard = walk_chains(*tables, Budget(more, confidence=confidence)).chosen
    assert layer[easy] <= layer[hard]


def test_too_few_draws_for_the_confidence(rng):
    tables = evidence({"raw": [0.99]}, rng, draws=50)
    walk = walk_chains(*tables, Budget(0.5, confidence=0.99))
    assert walk.chosen is None
    assert "chance" in walk.reason or "draws cannot show" in walk.reason


def test_largest_loss_uses_hoeffding_bentkus_on_clipped_excess(rng):
    chains, draws, losses = evidence({"raw": [0.97]}, rng)
    losses["raw:1x8"] = np.where(
        np.arange(500) < 20, 1.0, 0.0
    )  # better than the full model elsewhere: not offset
    steps = walk_chains(chains, draws, losses, Budget(max_loss=0.08)).steps
    assert steps["estimate"].tolist() == pytest.approx([0, 20 * 0.8 / 500])
    assert steps["p"].iloc[1] == pytest.approx(hoeffding_bentkus(20 * 0.8 / 500, 500, 0.08))
    grouped = losses.assign(cluster=np.arange(500) // 10)  # examples that hang together count once
    steps = walk_chains(chains, draws, grouped, Budget(max_loss=0.08)).steps
    assert steps["p"].iloc[1] == pytest.approx(hoeffding_bentkus(20 * 0.8 / 500, 50, 0.08))


@given(st.floats(0.01, 0.9), st.integers(5, 400))
@settings(max_examples=60, deadline=None)
def test_an_estimate_above_the_limit_never_passes(epsilon, n):
    tables = evidence({"raw": [0.97]}, np.random.default_rng(0), draws=200, n=n)
    losses = tables[2].assign(full=0.0)
    losses["raw:1x8"] = np.where(np.arange(n) < np.ceil(epsilon * n), 1.0, 0.0)
    steps = walk_chains(
        tables[0], tables[1], losses, Budget(max_loss=epsilon, confidence=0.5)
    ).steps
    assert not steps["passed"].iloc[1]


@pytest.mark.parametrize(
    "bad", [{"min_quality": 0}, {"min_quality": 1.1}, {"max_loss": 0.0}, {"confidence": 1.0}]
)
def test_bad_budgets_are_refused(bad):
    with pytest.raises(InputError):
        Budget(**bad)


def test_missing_columns_are_named(rng):
    chains, draws, losses = evidence({"raw": [0.9]}, rng)
    with pytest.raises(InputError, match="'dim'"):
        walk_chains(chains.drop(columns="dim"), draws, losses, Budget())


def test_the_walk_needs_no_torch():
    code = "import sys, probes.exits.walk, probes.exits; probes.exits.Budget; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
