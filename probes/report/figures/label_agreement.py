"""Which label-free diagnostics go with quality on this model: their rank correlation over layers."""

from __future__ import annotations

from typing import Any

import pandas as pd

from probes.report.collapse_study import excludes_zero, numbers_of, of_dataset, records
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.focus import ZERO, Focus, whiskers
from probes.report.figures.marks import upright
from probes.report.figures.panels import Panel, Sheet, arranged
from probes.report.frames import column, names, only, where
from probes.report.study import plain_table
from probes.report.text import clean, count, interval, label, number
from probes.report.theme import NEUTRAL, PALETTE, faded

HOW_TO_READ = (
    "For every label-free measure how its order of the layers goes with their order by labels (Spearman’s rank "
    "correlation over layers): at 1 the measure rises with quality layer by layer, at −1 it falls with it. The "
    "whisker (95 %) says how stable that is under other examples and texts at these same layers, not whether it is "
    "chance: smooth curves over few layers often agree. Blue: a random curve with the same steps agrees as strongly in "
    "less than 5 % of cases (of twenty such measures one does by chance). “Layer number” knows only the depth: what "
    "does no better tells no more than that."
)
DEPTH = "layer number"
LEVEL = 0.05


def agreements(data: RunData, dataset: str | None = None, *, depth: bool = False) -> pd.DataFrame:
    """Agreement of every measure on one dataset, strongest first: columns variant (its name), value, low, high, n, p.

    p is NaN where the run does not say. The layer number is no diagnostic: it is left out unless `depth` is asked for.
    """
    rows = of_dataset(with_p(data), dataset)
    if not depth:
        rows = where(rows, rows["variant"].ne(DEPTH).to_numpy(dtype=bool))
    ranked = rows.assign(size=rows["value"].abs()).sort_values("size", ascending=False)
    return ranked.drop(columns="size").drop_duplicates("variant").reset_index(drop=True)


def with_p(data: RunData) -> pd.DataFrame:
    """All agreements of the run, with the chance of a random curve doing as well."""
    rows = numbers_of(data, "label_agreement", by="")
    told = plain_table(data, "agreement", ("metric", "dataset"), ("p",), needs=("p",))
    known = {} if told is None else {(r["metric"], r["dataset"]): r["p"] for r in records(told)}
    keys = zip(names(rows, "variant"), names(rows, "dataset"), strict=True)
    return rows.assign(p=[known.get(key, float("nan")) for key in keys])


def beats_chance(row: dict[str, Any]) -> bool:
    """Whether a random curve rarely agrees as strongly, and other examples would not turn the sign."""
    return row["p"] < LEVEL and excludes_zero(row["low"], row["high"])


def label_agreement(data: RunData, focus: Focus | None = None) -> FigureCard | None:
    """Bars of rank correlation with quality, a panel per dataset; None when none was computed."""
    frame = with_p(data)
    if frame.empty:
        return None
    focus = focus or Focus()
    return data.once(("label-agreement", focus.dataset), lambda: _card(data, frame, focus))


def _card(data: RunData, frame: pd.DataFrame, focus: Focus) -> FigureCard:
    found = list(dict.fromkeys(names(frame, "dataset")))
    lead = agreements(data, focus.dataset, depth=True)
    first = names(lead, "dataset")[0]
    order = sorted(
        names(lead, "variant"), key=lambda n: -float(only(lead, variant=n)["value"].iloc[0])
    )
    order += [name for name in dict.fromkeys(names(frame, "variant")) if name not in order]
    shown = [first, *(name for name in found if name != first)]
    panels = [
        _panel(only(frame, dataset=name), name, order, len(found) > 1, data) for name in shown
    ]
    y = {
        "range": [len(order) - 0.4, -0.6],
        "tickvals": list(range(len(order))),
        "ticktext": [label(diagnostic(data, name)[0], 30) for name in order],
    }
    x = {"title": "rank correlation with quality", "range": [-1.05, 1.05], "tickformat": ".1~f"}
    sheet = Sheet(x, y, columns=min(3, len(panels)), height=21 * len(order) + 8, left=200)
    sure = [row for row in records(lead) if beats_chance(row)]
    told = [
        f"{diagnostic(data, row['variant'])[0]} {number(row['value'], 2)} {interval(row['low'], row['high'], 2)}"
        for row in records(lead)
    ]
    return FigureCard(
        "label-agreement",
        "Which diagnostics go with quality",
        arranged(panels, sheet),
        HOW_TO_READ,
        f"Bars for {len(order)} measures, {len(sure)} of them rarely matched by a random curve. Strongest first: "
        f"{'; '.join(told)}.",
        frame.drop(columns="head"),
    )


def diagnostic(data: RunData, name: str) -> tuple[str, str, str]:
    """A diagnostic of the agreement: its title, its measure, and the variant it was measured in.

    A measure of two views is named with its view, as in `infonce, crop`.
    """
    measure, comma, view = name.partition(", ")
    title = clean(data.measure(measure).get("title") or measure, 40)
    if name == DEPTH:
        return "Layer number (knows the depth only)", name, "raw"
    if not comma:
        return title, measure, "raw"
    return f"{title}, {clean(view, 30)}", measure, f"view={view}"


def _panel(
    rows: pd.DataFrame, dataset: str, order: list[str], several: bool, data: RunData
) -> Panel:
    rows = rows.drop_duplicates("variant")
    value, low, high, n = (column(rows, c) for c in ("value", "low", "high", "n"))
    spans = list(zip(low, high, strict=True))
    bars: Spec = {
        "type": "bar",
        "orientation": "h",
        "x": value,
        "y": [order.index(name) for name in names(rows, "variant")],
        "width": 0.62,
        "marker": {
            "color": [
                faded(PALETTE[0] if beats_chance(row) else NEUTRAL, 0.6) for row in records(rows)
            ]
        },
        "error_x": {**whiskers(value, low, high), "color": NEUTRAL, "thickness": 1.8},
        "customdata": [
            f"<b>{label(diagnostic(data, name)[0], 40)}</b><br>{number(v, 2)} {interval(*span, 2)}"
            f"<br>random curves: p = {number(p, 3)}<br>n = {count(size)} layers"
            for name, v, span, p, size in zip(
                names(rows, "variant"), value, spans, column(rows, "p"), n, strict=True
            )
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
        "showlegend": False,
    }
    title = label(dataset, 40) if several else ""
    return Panel(title, [bars], [upright(0.0, {**ZERO, "dash": "solid"})])


@figure("label-agreement", 45)
def _(data: RunData) -> FigureCard | None:
    return label_agreement(data)
