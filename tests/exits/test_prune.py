"""Pruning keeps the chains that make the common front, by the tune part alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.errors import InputError
from probes.exits.prune import chains_left_out, prune_chains


def table(chains):
    """Chains of (cost, tune quality) after a full model of cost 1 and quality 0.8."""
    rows = []
    for name, points in chains.items():
        for order, (cost, quality) in enumerate([(1.0, 0.8), *points]):
            rows.append({"chain": name, "order": order, "cost": cost, "tune_quality": quality})
    return pd.DataFrame(rows)


def kept(chains, most):
    return list(dict.fromkeys(prune_chains(table(chains), most)["chain"]))


CHAINS = {
    "poor": [(0.9, 0.5), (0.5, 0.3)],
    "good": [(0.7, 0.79), (0.4, 0.75)],
    "dominated": [(0.8, 0.78), (0.5, 0.74)],
    "shallow": [(0.05, 0.70)],
    "empty": [],
}


def test_the_front_is_kept_and_what_is_dominated_goes_first():
    assert kept(CHAINS, 2) == ["good", "shallow", "empty"]
    # Above 0.64, areas are 0.3 · 0.15 + 0.3 · 0.11 = 0.078 for good, 0.95 · 0.06 = 0.057 for shallow.
    assert kept(CHAINS, 1) == ["good", "empty"]
    assert kept(CHAINS, 4) == list(CHAINS)
    assert kept(CHAINS, 99) == list(CHAINS)
    before = table(CHAINS)
    assert chains_left_out(before, prune_chains(before, 2)) == ["poor", "dominated"]


def test_whole_chains_stay_as_they_are():
    before = table(CHAINS)
    after = prune_chains(before, 2)
    same = before[before["chain"].isin(["good", "shallow", "empty"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(after, same)


def brute_area(points, floor, cells=20000):
    grid = (np.arange(cells) + 0.5) / cells
    best = [max((q - floor for c, q in points if c <= x), default=0) for x in grid]
    return float(np.mean(np.maximum(best, 0)))


@given(st.lists(st.lists(st.tuples(st.floats(0, 0.99), st.floats(0.65, 0.8)), min_size=1, max_size=3),
                min_size=3, max_size=4))  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_the_first_taken_has_the_largest_area(lists):
    chains = {str(number): points for number, points in enumerate(lists)}
    first = kept(chains, 1)[0]
    areas = {name: brute_area(points, 0.64, 2000) for name, points in chains.items()}
    assert areas[first] >= max(areas.values()) - 1e-3


def test_no_chain_at_all_is_refused():
    with pytest.raises(InputError, match="at least one chain"):
        prune_chains(table(CHAINS), 0)
