"""The finite-sample rule keeps its promise over many resamples; picking the cheapest that looks good does not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from probes.exits.walk import Budget, walk_chains

EPSILON, DELTA = 0.1, 0.1

# True excess risks down the chains, dearest first. Many candidates just above ε are what a naive rule falls for.
WORLDS = {
    "monotone": {
        "raw": [0.02, 0.06, 0.105, 0.12, 0.2],
        "translated": [0.05, 0.08, 0.102, 0.11, 0.13],
    },
    "not monotone": {
        "raw": [0.05, 0.12, 0.04, 0.11, 0.102],
        "translated": [0.11, 0.02, 0.105, 0.05, 0.103],
    },
    "all bad": {"raw": [0.102, 0.101, 0.104, 0.103], "translated": [0.101, 0.105, 0.102, 0.101]},
}


def chains_of(world):
    rows = []
    for chain, risks in world.items():
        for order in range(len(risks) + 1):
            name = "raw:full" if order == 0 else f"{chain}:{9 - order}x8"
            place = {
                "chain": chain,
                "order": order,
                "name": name,
                "variant": None,
                "layer": 9 - order,
                "dim": 8,
            }
            rows.append(
                {**place, "tune_quality": 1.0, "calibrate_quality": 1.0, "calibrate_share": 1.0}
            )
    return pd.DataFrame(rows)


def draw_losses(world, n, rng):
    """0/1 losses that share their difficulty within an example, so candidates are strongly dependent."""
    luck = rng.uniform(size=n)
    table = {"cluster": np.arange(n), "full": np.zeros(n), "raw:full": np.zeros(n)}
    for chain, risks in world.items():
        for order, risk in enumerate(risks, start=1):
            mixed = np.where(rng.uniform(size=n) < 0.5, luck, rng.uniform(size=n))
            table[f"{chain}:{9 - order}x8"] = (mixed < risk).astype(float)
    return pd.DataFrame(table)


def failures(world, n, trials, seed):
    """How often the choice's true risk exceeds ε: by the walk, and by the cheapest with mean loss ≤ ε."""
    rng = np.random.default_rng(seed)
    chains = chains_of(world)
    risk = {f"{c}:{9 - o}x8": r for c, risks in world.items() for o, r in enumerate(risks, start=1)}
    draws = pd.DataFrame({"full": np.ones(100)})
    budget = Budget(max_loss=EPSILON, confidence=1 - DELTA)
    names = sorted(risk, key=lambda name: int(name.split(":")[1][0]))
    walked = naive = 0
    for _ in range(trials):
        losses = draw_losses(world, n, rng)
        chosen = walk_chains(chains, draws, losses, budget).chosen
        walked += chosen is not None and risk[chosen] > EPSILON
        means = losses.mean()
        cheapest = next((name for name in names if means[name] <= EPSILON), None)
        naive += cheapest is not None and risk[cheapest] > EPSILON
    return walked, naive


def check(n, trials):
    most = binom.ppf(0.999, trials, DELTA)
    for number, (name, world) in enumerate(WORLDS.items()):
        walked, naive = failures(world, n, trials, seed=number)
        assert walked <= most, f"{name}: {walked} of {trials}"
        assert naive > most, f"{name}: the control fails in {naive} of {trials} only"


def test_true_risk_exceeds_the_limit_as_seldom_as_promised():
    check(n=300, trials=300)


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 300, 1000])
def test_true_risk_over_a_thousand_resamples(n):
    check(n=n, trials=1000)


def test_the_rule_is_not_empty_handed():
    """Power: with room below ε and enough data the walk does choose, and chooses right."""
    rng = np.random.default_rng(5)
    world = {"raw": [0.01, 0.02, 0.3], "translated": [0.02, 0.03, 0.04]}
    budget = Budget(max_loss=EPSILON, confidence=1 - DELTA)
    draws = pd.DataFrame({"full": np.ones(100)})
    picks = [
        walk_chains(chains_of(world), draws, draw_losses(world, 500, rng), budget).chosen
        for _ in range(50)
    ]
    assert np.mean([pick == "translated:6x8" for pick in picks]) > 0.9
