"""Words and figure of the graph: nothing is said of what any model does, untrained ones included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from probes.report import RunData
from probes.report.content import verdict
from probes.report.figures import graph_energy
from probes.tables import tidy


def _run(differences: dict[int, tuple[float, float, float]], **more: Any) -> RunData:
    """A run whose energy lies surely below 1 at every layer, with these differences to the rewired walk."""
    rows: list[dict[str, Any]] = []
    for layer in range(3):
        for context in (50, 400):
            row = {
                "layer": layer,
                "context": context,
                "energy": 0.9,
                "low": 0.85,
                "high": 0.95,
                "permuted": 1.0,
            }
            names = ("difference", "difference_low", "difference_high")
            beside = (
                dict(zip(names, differences[layer], strict=True)) if layer in differences else {}
            )
            rows.append({**row, "variant": None, **(beside if context == 400 else {})})
            if beside and context == 400:
                rows.append({**row, "variant": "rewired", "energy": 0.9 - beside["difference"]})
    tables = {"graph": pd.DataFrame(rows)}
    return RunData(
        tidy([]), info={"analysis": "circuits", "status": "finished"}, table_names=("graph",), read_table=tables.get
    )  # fmt: skip


def _words(data: RunData) -> str:
    return next(s for s in verdict(data).sentences if "graph of words" in s)


def test_a_graph_below_the_rewired_walk_is_told() -> None:
    told = _words(_run({0: (0, 0, 0), 1: (-0.2, -0.3, -0.1), 2: (-0.05, -0.09, -0.01)}))
    assert "forms in the states: after 400 tokens the energy at layer 1 is 0.90" in told
    assert "−0.200 [−0.300, −0.100]" in told or "-0.200" in told


@pytest.mark.parametrize(
    "last",
    [(-0.2, -0.5, 0.1), (-0.005, -0.006, -0.004), (0.1, 0.05, 0.15)],
    ids=["may be chance", "as small as in untrained models", "above"],
)
def test_an_energy_below_one_alone_is_no_graph(last: tuple[float, float, float]) -> None:
    assert "is not shown to form" in _words(_run({0: (0, 0, 0), 1: (0.0, -0.1, 0.1), 2: last}))


def test_a_run_without_the_control_claims_nothing() -> None:
    assert "is not known" in _words(_run({}))


def test_the_control_is_drawn_apart_from_the_lines() -> None:
    card = graph_energy(_run({0: (0, 0, 0), 1: (-0.2, -0.3, -0.1), 2: (0, -0.1, 0.1)}))
    assert card is not None
    control = next(t for t in card.spec["data"] if t.get("name") == "after another graph")
    np.testing.assert_allclose(control["y"], [0.9, 1.1, 0.9])
    assert all(
        max(t["y"]) <= 0.95
        for t in card.spec["data"]
        if t is not control and t.get("y") is not None
    )
