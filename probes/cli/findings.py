"""What a run without a decision found, on the terminal: a few sentences and a table that fits into 80 columns."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from probes.cli.shell import console
from probes.report.data import RunData
from probes.report.tables import Table as Lines
from probes.report.verdict import verdict
from probes.runs import RunView

# The report has them.
_LEFT_OUT = frozenset(
    {"family", "n", "selectivity", "MDL depth", "compression", "layers", "highest at", "lowest at"}
)
MOST_ROWS = 10  # of a table on the terminal
_FEWEST = 3  # columns that are always there
_NAME = 10  # characters of a name that are never given up


def print_findings(view: RunView) -> None:
    """Print what the run concluded, nothing if it concluded nothing."""
    found = verdict(RunData.of(view))
    if found.kind == "none":
        return
    console.print(f"\n{found.headline}", style="bold", markup=False)
    for words in found.sentences:
        console.print(words, markup=False)
    if found.table is not None:
        console.print(_table(found.table))
        more = len(found.table.rows) - MOST_ROWS
        if more > 0:
            console.print(f"and {more} more rows in the report\n", markup=False)
        console.print(found.table.note, style="dim", markup=False)
    console.print()


def _table(lines: Lines) -> Table:
    """The table in the width of the terminal: columns that do not fit are left out from the right."""
    shown = [at for at, name in enumerate(lines.columns) if name not in _LEFT_OUT]
    rows = lines.rows[:MOST_ROWS]
    widths = {
        at: max(len(lines.columns[at].split()[0]), *(len(row[at]) for row in rows)) for at in shown
    }
    while len(shown) > _FEWEST and sum(widths[at] + 2 for at in shown) > console.width:
        shown.pop()
    table = Table(box=box.SIMPLE, pad_edge=False, collapse_padding=True)
    for at in shown:
        right = at in lines.numeric
        table.add_column(
            lines.columns[at],
            justify="right" if right else "left",
            no_wrap=right,
            min_width=min(widths[at], _NAME),
        )
    for row in rows:
        table.add_row(*(Text(row[at]) for at in shown))
    return table
