"""Which label-free diagnostics go with quality on this model: their rank correlation over layers."""

from __future__ import annotations

import pandas as pd

from probes.report.collapse_study import excludes_zero, numbers_of, of_dataset, records
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.focus import ZERO, Focus, whiskers
from probes.report.figures.marks import upright
from probes.report.figures.panels import Panel, Sheet, arranged
from probes.report.frames import column, names, only
from probes.report.text import clean, count, interval, label, number
from probes.report.theme import NEUTRAL, PALETTE, faded

HOW_TO_READ = (
    "For every label-free measure how its order of the layers goes with their order by labels (Spearman’s rank "
    "correlation over layers, 95 % interval): at 1 the measure rises with quality layer by layer, at −1 it falls "
    "with it. Blue: the interval excludes zero, the measure says something about quality on this model and these "
    "data. Grey: it may be chance. Layers are few and alike, so intervals are wide, and of twenty such intervals "
    "one excludes zero by chance. Both signs can be of use: what counts is the distance from zero."
)


def agreements(data: RunData, dataset: str | None = None) -> pd.DataFrame:
    """Agreement of every measure on one dataset, strongest first: columns variant (its name), value, low, high, n."""
    rows = of_dataset(numbers_of(data, "label_agreement", by=""), dataset)
    ranked = rows.assign(size=rows["value"].abs()).sort_values("size", ascending=False)
    return ranked.drop(columns="size").drop_duplicates("variant").reset_index(drop=True)


def label_agreement(data: RunData, focus: Focus | None = None) -> FigureCard | None:
    """Bars of rank correlation with quality, a panel per dataset; None when none was computed."""
    frame = numbers_of(data, "label_agreement", by="")
    if frame.empty:
        return None
    focus = focus or Focus()
    return data.once(("label-agreement", focus.dataset), lambda: _card(data, frame, focus))


def _card(data: RunData, frame: pd.DataFrame, focus: Focus) -> FigureCard:
    found = list(dict.fromkeys(names(frame, "dataset")))
    lead = agreements(data, focus.dataset)
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
    sure = [name for name in order if _sure(only(lead, variant=name))]
    told = [
        f"{diagnostic(data, row['variant'])[0]} {number(row['value'], 2)} {interval(row['low'], row['high'], 2)}"
        for row in records(lead)
    ]
    return FigureCard(
        "label-agreement",
        "Which diagnostics go with quality",
        arranged(panels, sheet),
        HOW_TO_READ,
        f"Bars for {len(order)} measures, {len(sure)} with an interval that excludes zero. Strongest first: "
        f"{'; '.join(told)}.",
        frame.drop(columns="head"),
    )


def _sure(rows: pd.DataFrame) -> bool:
    return bool(len(rows)) and excludes_zero(column(rows, "low")[0], column(rows, "high")[0])


def diagnostic(data: RunData, name: str) -> tuple[str, str, str]:
    """A diagnostic of the agreement: its title, its measure, and the variant it was measured in.

    A measure of two views is named with its view, as in `infonce, crop`.
    """
    measure, comma, view = name.partition(", ")
    title = clean(data.measure(measure).get("title") or measure, 40)
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
            "color": [faded(PALETTE[0] if excludes_zero(*s) else NEUTRAL, 0.6) for s in spans]
        },
        "error_x": {**whiskers(value, low, high), "color": NEUTRAL, "thickness": 1.8},
        "customdata": [
            f"<b>{label(diagnostic(data, name)[0], 40)}</b><br>{number(v, 2)} {interval(*span, 2)}"
            f"<br>n = {count(size)} layers"
            for name, v, span, size in zip(names(rows, "variant"), value, spans, n, strict=True)
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
        "showlegend": False,
    }
    title = label(dataset, 40) if several else ""
    return Panel(title, [bars], [upright(0.0, {**ZERO, "dash": "solid"})])


@figure("label-agreement", 45)
def _(data: RunData) -> FigureCard | None:
    return label_agreement(data)
