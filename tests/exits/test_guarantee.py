"""The finite-sample rule keeps its promise over thousands of resamples; picking the cheapest that looks good does not.

The simulations are vectorised: losses are 0 or 1, so an excess risk is a count, and p-values are looked up by count.
That this is the walk itself is tested on a number of the same samples.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from probes.exits.bounds import weighted_p
from probes.exits.walk import Budget, walk_chains
from probes.stats import hoeffding_bentkus

EPSILON, DELTA = 0.1, 0.1
TRIALS = 2000
DEPTH = 9  # layer of the full model

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
    "up and down": {"raw": [0.03, 0.101, 0.02, 0.102], "translated": [0.101, 0.03, 0.103, 0.102]},
}


def name_of(chain, order):
    return "raw:full" if order == 0 else f"{chain}:{DEPTH - order}x8"


def chains_of(world):
    rows = []
    for chain, risks in world.items():
        for order in range(len(risks) + 1):
            place = {"chain": chain, "order": order, "name": name_of(chain, order)}
            size = {"variant": None, "layer": DEPTH - order, "dim": 8}
            numbers = {"tune_quality": 1.0, "calibrate_quality": 1.0, "calibrate_share": 1.0}
            rows.append({**place, **size, **numbers})
    return pd.DataFrame(rows)


def draw_wrong(world, n, trials, rng):
    """Losses of 0 and 1 that share their difficulty within an example, so candidates are strongly dependent.

    Returns (trials, chains, steps, n) bool.
    """
    risks = np.array(list(world.values()))[None, :, :, None]
    luck = rng.uniform(size=(trials, 1, 1, n))
    shape = (trials, *risks.shape[1:3], n)
    own = rng.uniform(size=shape)
    return np.where(rng.uniform(size=shape) < 0.5, luck, own) < risks


def counts_of(world, n, trials, rng, block=100):
    """How many of n examples go wrong: (trials, chains, steps)."""
    pieces = [
        draw_wrong(world, n, min(block, trials - low), rng).sum(axis=-1)
        for low in range(0, trials, block)
    ]
    return np.concatenate(pieces)


def p_by_count(n, epsilon=EPSILON):
    return np.array([hoeffding_bentkus(k / n, n, epsilon) for k in range(n + 1)])


def walk_all(p, risks):
    """(trials,) True risk of what every trial's walk chooses, 0 for nothing; `p` (trials, chains, steps)."""
    passed = np.logical_and.accumulate(p <= DELTA / p.shape[1], axis=2)
    return cheapest(passed, risks)


def cheapest(allowed, risks):
    """True risk of the deepest step allowed, the first chain's where two are equally cheap."""
    steps = allowed.shape[2]
    found = np.zeros(len(allowed))
    for order, chain in itertools.product(range(steps), reversed(range(allowed.shape[1]))):
        found = np.where(allowed[:, chain, order], risks[chain, order], found)
    return found


def losses_frame(world, wrong):
    """The table of one trial, `wrong` (chains, steps, n)."""
    n = wrong.shape[-1]
    table = {"cluster": np.arange(n), "full": np.zeros(n), "raw:full": np.zeros(n)}
    for c, chain in enumerate(world):
        for order in range(wrong.shape[1]):
            table[name_of(chain, order + 1)] = wrong[c, order].astype(float)
    return pd.DataFrame(table)


def slack(trials=TRIALS, delta=DELTA):
    return binom.ppf(0.999, trials, delta)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("n", [100, 300, 1000])
def test_true_risk_exceeds_the_limit_as_seldom_as_promised(n, world):
    given = WORLDS[world]
    risks = np.array(list(given.values()))
    counts = counts_of(given, n, TRIALS, np.random.default_rng(n))
    walked = (walk_all(p_by_count(n)[counts], risks) > EPSILON).sum()
    naive = (cheapest(counts / n <= EPSILON, risks) > EPSILON).sum()
    assert walked <= slack(), f"{walked} of {TRIALS}"
    assert naive > 2 * slack(), f"the control fails in {naive} of {TRIALS} only"


@pytest.mark.parametrize("world", WORLDS)
def test_the_simulation_is_the_walk(world):
    given = WORLDS[world]
    risks = np.array(list(given.values()))
    wrong = draw_wrong(given, 200, 12, np.random.default_rng(3))
    risk = {name_of(c, o): r for c, rs in given.items() for o, r in enumerate(rs, start=1)}
    expected = walk_all(p_by_count(200)[wrong.sum(axis=-1)], risks)
    budget = Budget(max_loss=EPSILON, confidence=1 - DELTA)
    draws = pd.DataFrame({"full": np.ones(100)})
    for trial, true in zip(wrong, expected, strict=True):
        chosen = walk_chains(chains_of(given), draws, losses_frame(given, trial), budget).chosen
        assert (0.0 if chosen is None else risk[chosen]) == true


def test_the_rule_is_not_empty_handed():
    """Power: with room below ε and enough data the walk does choose, and chooses right."""
    world = {"raw": [0.01, 0.02, 0.3], "translated": [0.02, 0.03, 0.04]}
    counts = counts_of(world, 500, 500, np.random.default_rng(5))
    found = walk_all(p_by_count(500)[counts], np.array(list(world.values())))
    assert (found == 0.04).mean() > 0.9


@pytest.mark.parametrize("n", [100, 300, 1000])
def test_the_worst_of_two_datasets(n):
    """Each candidate breaks its promise on one dataset only; pooling both hides it."""
    worlds = [{"raw": [0.03, 0.102, 0.02, 0.101]}, {"raw": [0.04, 0.02, 0.103, 0.02]}]
    risks = np.maximum(*(np.array(list(w.values())) for w in worlds))
    counts = [counts_of(w, n, TRIALS, np.random.default_rng([n, i])) for i, w in enumerate(worlds)]
    lookup = p_by_count(n)
    walked = walk_all(np.maximum(lookup[counts[0]], lookup[counts[1]]), risks) > EPSILON
    pooled = walk_all(p_by_count(2 * n)[counts[0] + counts[1]], risks) > EPSILON
    assert walked.sum() <= slack()
    if n >= 300:
        assert pooled.mean() > 0.5


@pytest.mark.parametrize(("n", "m"), [(100, 100), (100, 400), (300, 1000)])
def test_the_weighted_mean_of_two_datasets(n, m):
    """At the limit of the null: the weighted mean of the true risks is ε, in several ways."""
    rng = np.random.default_rng(n + m)
    weights = np.array([0.7, 0.3])
    held = {}
    for share in (0.2, 0.5, 0.9):
        risks = np.array([share, 1 - share]) * EPSILON / weights
        counts = rng.binomial([n, m], risks, size=(TRIALS, 2))
        for key in set(map(tuple, counts)) - set(held):
            means = (key[0] / n, key[1] / m)
            held[key] = weighted_p(means, (n, m), weights, EPSILON)
        p = np.array([held[tuple(row)] for row in counts])
        assert (p <= DELTA).sum() <= slack()
        naive = (counts / [n, m] @ weights <= EPSILON).sum()
        assert naive > 2 * slack()


def test_the_walk_takes_the_worst_or_the_weighted_mean():
    """The same through `walk_chains`, from tables with the columns `task` and `weight`."""
    world = {"raw": [0.01, 0.01]}
    chains, budget = chains_of(world), Budget(max_loss=0.15)
    draws = pd.DataFrame({"full": np.ones(100)})
    good, bad = np.zeros(300), (np.arange(300) < 60).astype(float)

    def table(name, second):
        columns = {"cluster": np.arange(300), "full": 0.0, "raw:full": 0.0, "raw:8x8": good}
        return pd.DataFrame({**columns, "raw:7x8": second, "task": name})

    losses = pd.concat([table("a", good), table("b", bad)], ignore_index=True)
    worst = walk_chains(chains, draws, losses, budget)
    assert worst.chosen == "raw:8x8"
    assert worst.steps["estimate"].tolist() == pytest.approx([0, 0, 0.2])
    weights = losses.assign(weight=np.where(losses["task"] == "a", 0.75, 0.25))
    mean = walk_chains(chains, draws, weights, budget)
    assert mean.chosen == "raw:7x8"
    assert mean.row("raw:7x8")["estimate"] == pytest.approx(0.05)
    assert mean.row("raw:7x8")["p"] == pytest.approx(
        weighted_p([0, 0.2], [300, 300], [0.75, 0.25], 0.15)
    )
    few = walk_chains(chains, draws, losses[losses["cluster"] < 15], Budget(max_loss=0.15))
    assert few.chosen is None
    assert set(few.needed) == {"a", "b"}
    assert "a: 15, about" in few.reason
