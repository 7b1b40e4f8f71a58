"""The decision on the terminal: a few sentences, a small table, and the notes a user should read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from probes.cli.shell import console
from probes.report.data import RunData, cell_of, mapping, sequence
from probes.report.text import NOTHING, is_number, number, percent, times
from probes.report.verdict import verdict
from probes.runs import RunView


def print_decision(view: RunView) -> None:
    """Print what `decision.json` says, chosen exit first, baselines below it."""
    data = RunData.of(view)
    decision = mapping(data.decision)
    found = verdict(data)
    console.print(f"\n{found.headline}", style="bold", markup=False)
    for words in found.sentences:
        console.print(words, markup=False)
    console.print(_table(data, decision))
    confidence = percent(decision.get("confidence"), 0)
    console.print(
        f"exit: layer × dimensions; quality: {data.title(data.quality or 'quality')} on the test part; "
        f"of full: share of the full model's, with its lower {confidence} limit (the promise was tested "
        "on another part); ms: per text, median; "
        "speed: against the full model",
        style="dim",
        markup=False,
    )
    for caveat in sequence(decision.get("caveats")):
        console.print(f"note: {caveat}", style="dim", markup=False)
    console.print()


def _table(data: RunData, decision: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    for name in ("exit", "quality", "of full", "ms", "speed"):
        table.add_column(name, justify="right", no_wrap=True)
    if data.chosen is not None:
        chosen = {**mapping(decision.get("test")), **decision}
        name = "chosen" if data.chosen.variant == "raw" else f"chosen, {data.chosen.variant}"
        table.add_row(*_cells(name, chosen, data), style="bold")
    for entry in map(mapping, sequence(decision.get("baselines"))):
        if "centred" not in str(entry.get("name")):  # beside raw it adds a line and no news
            table.add_row(*_cells(_short(str(entry.get("name"))), entry, data))
    return table


def _short(name: str) -> str:
    """`depth 1/2, translated` as `½ depth, translated`: the table has to fit into 80 columns."""
    for fraction, sign in (("1/2", "½"), ("2/3", "⅔"), ("3/4", "¾")):
        name = name.replace(f"depth {fraction}", f"{sign} depth")
    return name


def _cells(name: str, entry: Mapping[str, Any], data: RunData) -> list[Text]:
    cell = cell_of(entry)
    latency = None if cell is None else data.cost("latency_p50_ms").get(cell.layer)
    cost = entry.get("relative_cost")
    share = percent(entry.get("share"))
    if is_number(entry.get("share_low")):
        share += f" (≥ {100 * float(entry['share_low']):.1f})"
    return [
        Text(name),
        Text(NOTHING if cell is None else f"{cell.layer} × {cell.dim}"),
        Text(number(entry.get("quality"))),
        Text(share),
        Text(NOTHING if latency is None else f"{latency:.1f}"),
        Text(times(1 / cost) if isinstance(cost, float) and cost > 0 else NOTHING),
    ]
