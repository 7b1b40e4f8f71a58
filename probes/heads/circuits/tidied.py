"""Tables of label words, graphs and neurons as tidy rows, one for each number."""

from __future__ import annotations

from typing import Any

import pandas as pd

from probes.heads.circuits.measures import GRAPH_LEARNED
from probes.heads.flow.measures import GRAPH_ENERGY, LABEL_FLOW
from probes.heads.neurons.measures import ACTIVATION_SPARSITY, CORE_SIMILARITY, CORE_STABILITY

Row = dict[str, Any]
GRAPH = "walks-on-a-grid"  # the dataset of the graph part
MEASURES = {
    "flow": (LABEL_FLOW.name,),
    "graph": (GRAPH_ENERGY.name, GRAPH_LEARNED.name),
    "neurons": (ACTIVATION_SPARSITY.name, CORE_STABILITY.name, CORE_SIMILARITY.name),
}
_SPAN = ("value", "low", "high", "n", "seed")


def saliency_rows(table: pd.DataFrame) -> list[Row]:
    """Measure label_flow by block; `concept` is the flow (wp, pq, ww), `variant` the control."""
    return [
        {"measure": LABEL_FLOW.name, "concept": row["flow"], **_kept(row, "dataset", "block", "variant", *_SPAN)}
        for row in _records(table)
    ]  # fmt: skip


def energy_rows(table: pd.DataFrame) -> list[Row]:
    """Measure graph_energy by layer; `concept` is the context ("400 tokens"), `variant` "permuted" or another control.

    Beside the energy every number of the table that has bounds of its own (`permuted`, `permuted_low`, …) is a row,
    unless it is unknown.
    """
    ends = {name: (f"{name}_low", f"{name}_high") for name in map(str, table.columns)}
    numbers = {"energy": ("low", "high")}
    numbers |= {name: pair for name, pair in ends.items() if {*pair} <= {*table.columns}}
    found: list[Row] = []
    for row in _records(table):
        for name, (low, high) in numbers.items():
            if row[name] is None:
                continue
            learned = name == "difference"
            words = [row.get("variant"), None if learned or name == "energy" else name]
            found.append(
                {
                    "measure": GRAPH_LEARNED.name if learned else GRAPH_ENERGY.name,
                    "dataset": GRAPH, "concept": f"{row['context']} tokens", "value": row[name], "low": row[low],
                    "high": row[high], "variant": ", ".join(word for word in words if word) or None,
                    **_kept(row, "layer", "n", "seed"),
                }
            )  # fmt: skip
    return found


def neuron_rows(table: pd.DataFrame, dataset: str) -> list[Row]:
    """The measures of neurons by block; `variant` is the control."""
    return [
        {"dataset": dataset, **_kept(row, "measure", "block", "variant", *_SPAN)}
        for row in _records(table)
    ]


def _records(table: pd.DataFrame) -> list[Row]:
    """Rows as dictionaries in which what is unknown is None."""
    return [
        {str(name): None if value is pd.NA or value != value else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]  # fmt: skip


def _kept(row: Row, *names: str) -> Row:
    return {name: row.get(name) for name in names}
