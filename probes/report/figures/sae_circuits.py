"""Circuits from the codes of heads: how well scores find the heads that patching finds, against baselines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from probes.report.collapse_study import numbers_of, ordered, records
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.circuit_tasks import task_words
from probes.report.figures.focus import ZERO, whiskers
from probes.report.figures.head_grid import block_axis
from probes.report.figures.marks import across, outlines
from probes.report.figures.panels import Panel, Sheet, arranged
from probes.report.figures.sae_looks import look_of, said
from probes.report.frames import column, names, only, where
from probes.report.head_tables import head_name
from probes.report.sae_tables import SaeFocus, held, is_sae
from probes.report.text import count, counted, interval, label, number
from probes.report.theme import DIFFERENCE, MAGNITUDE

AUC_HOW = (
    "Which heads carry a task, read off the codes of an autoencoder over the outputs of heads: a head scores by how "
    "many codes only the task’s own prompts use. Area under the ROC curve against the heads that activation patching "
    "finds on the same model; 0.5 (dotted) is a guess. Small dots are seeds, the large mark is their mean with a 95 % "
    "interval (Student’s, over seeds; differences, at the marks, are paired by seed). Beside it: the same with random "
    "weights, with k-means in place of the autoencoder, and the plain difference of means, as far as they were asked "
    "for."
)
PAIRS_HOW = " Right of the gap: pairs of heads."
METHODS = ("sae", "random", "clusters", "mean difference")
_EDGES = " edges"
_MAPS = {"sae": "sae", "random": "random"}  # scores that have a map, and their columns


def auc_rows(data: RunData, task: str | None = None) -> list[dict[str, Any]]:
    """Mean ROC AUC by task and method (with “ edges” for pairs), with its interval over seeds."""
    if not is_sae(data):
        return []
    rows = records(numbers_of(data, "circuit_auc", ""))
    return [row for row in rows if task in (None, row["dataset"])]


def difference_rows(data: RunData) -> list[dict[str, Any]]:
    """The autoencoder's ROC AUC less that of each baseline, by task, with its interval over paired seeds."""
    return records(numbers_of(data, "circuit_auc_difference", "")) if is_sae(data) else []


def circuit_auc(data: RunData, focus: SaeFocus | None = None) -> FigureCard | None:
    """ROC AUC by method, a panel per task; None when not measured."""
    frame = held(data, "sae_circuits")
    means, differences = auc_rows(data), difference_rows(data)
    if frame is None and not means:
        return None
    return data.once("sae-circuits", lambda: _auc_card(frame, means, differences))


def _auc_card(
    frame: pd.DataFrame | None, means: list[dict[str, Any]], differences: list[dict[str, Any]]
) -> FigureCard:
    seeds = [] if frame is None else records(frame)
    for row in seeds:
        row["variant"] = row["method"] + (_EDGES if row["level"] == "edge" else "")
        row["dataset"] = row["task"]
    tasks = list(dict.fromkeys(row["dataset"] for row in (*means, *seeds)))
    found = [row["variant"] for row in (*means, *seeds)]
    order = ordered(found, [method + more for more in ("", _EDGES) for method in METHODS])
    place = {name: at + (0.6 if name.endswith(_EDGES) else 0.0) for at, name in enumerate(order)}
    panels: list[Panel] = []
    told: list[str] = []
    for task in tasks:
        beyond = {row["variant"]: row for row in differences if row["dataset"] == task}
        traces = [
            *_seeds([row for row in seeds if row["dataset"] == task], place),
            *_means([row for row in means if row["dataset"] == task], place, beyond),
        ]
        panels.append(Panel(label(task_words(task), 30), traces, [across(0.5, ZERO)]))
        parts = [
            f"{_words(row['variant'])} {number(row['value'], 2)} {interval(row['low'], row['high'], 2)}".strip()
            for row in means
            if row["dataset"] == task
        ]
        told.append(f"{task_words(task)}: {', '.join(parts) or 'no mean over seeds'}")
    x = {
        "title": "",
        "range": [-0.6, max(place.values()) + 0.6],
        "tickvals": list(place.values()),
        "ticktext": [label(_short(name), 20) for name in order],
        "tickangle": -40,
        "showgrid": False,
    }
    spec = arranged(panels, Sheet(x, {"range": [0, 1.03]}, columns=3, height=230))
    for name in [n for n in spec["layout"] if n.startswith("xaxis")]:
        spec["layout"][name]["tickfont"] = {"size": 10}
    spec["layout"]["margin"]["b"] += 34
    spec["layout"]["height"] += 34
    return FigureCard(
        "sae-circuits",
        "How well codes of heads find the heads that patching finds (ROC AUC)",
        spec,
        AUC_HOW + (PAIRS_HOW if any(name.endswith(_EDGES) for name in order) else ""),
        f"{counted(len(panels), 'panel')} of {counted(len(order), 'method')}. {'; '.join(told)}.",
        pd.DataFrame(means) if frame is None else frame.drop(columns="dataset", errors="ignore"),
    )


def _words(variant: str) -> str:
    kind = variant.removesuffix(_EDGES)
    return said(kind) + (" (pairs)" if variant.endswith(_EDGES) else "")


def _short(variant: str) -> str:
    kind = variant.removesuffix(_EDGES)
    word = {"sae": "SAE", "mean difference": "means", "clusters": "k-means"}.get(kind, kind)
    return f"{word} pairs" if variant.endswith(_EDGES) else word


def _seeds(rows: list[dict[str, Any]], place: dict[str, float]) -> list[Spec]:
    if not rows:
        return []
    seen: dict[str, int] = {}
    x: list[float] = []
    for row in rows:
        turn = seen[row["variant"]] = seen.get(row["variant"], -1) + 1
        x.append(place[row["variant"]] + 0.06 * ((turn % 7) - 3))
    return [{
        "type": "scatter",
        "name": "one seed",
        "mode": "markers",
        "x": x,
        "y": [row["auc"] for row in rows],
        "marker": {
            "size": 5, "opacity": 0.5, "color": [look_of(row["method"]).colour for row in rows],
        },
        "customdata": [
            f"<b>{label(_words(row['variant']), 40)}</b>, seed {number(row['seed'], 0)}<br>{number(row['auc'])}"
            for row in rows
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
        "showlegend": False,
    }]  # fmt: skip


def _means(
    rows: list[dict[str, Any]], place: dict[str, float], beyond: dict[str, dict[str, Any]]
) -> list[Spec]:
    if not rows:
        return []
    value, low, high = (np.array([row[k] for row in rows]) for k in ("value", "low", "high"))
    looks = [look_of(row["variant"].removesuffix(_EDGES)) for row in rows]
    return [{
        "type": "scatter",
        "name": "mean over seeds",
        "mode": "markers",
        "x": [place[row["variant"]] for row in rows],
        "y": value,
        "marker": {"size": 11, "symbol": [k.symbol for k in looks], "color": [k.colour for k in looks]},
        "error_y": {**whiskers(value, low, high), "thickness": 2},
        "customdata": [
            f"<b>{label(_words(row['variant']), 40)}</b><br>{number(v)} {interval(a, b)}<br>{count(row['n'])} seeds"
            + _beyond(beyond.get(row["variant"]))
            for row, v, a, b in zip(rows, value, low, high, strict=True)
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
        "showlegend": False,
    }]  # fmt: skip


def _beyond(row: dict[str, Any] | None) -> str:
    """A line of the label of a baseline: how far the autoencoder lies above it."""
    if row is None:
        return ""
    return f"<br>autoencoder less this: {number(row['value'], 2)} {interval(row['low'], row['high'], 2)}".rstrip()


MAP_HOW = (
    "Heads of the model, block on x and head on y. Left: what patching each head alone brings back of the answer "
    "(blue: helps, red: works against it); framed heads count as the task’s circuit. Then the score of each head by "
    "the codes of the autoencoder and by those of random weights, as a share of the highest. A good score is bright "
    "where the frames are and dark elsewhere."
)


def circuit_maps(data: RunData, focus: SaeFocus | None = None) -> FigureCard | None:
    """Maps of heads: the effect by patching beside the scores, a row per task; None when not measured."""
    frame = held(data, "sae_circuit_heads")
    return None if frame is None else data.once("sae-circuit-heads", lambda: _maps(frame))


def _maps(frame: pd.DataFrame) -> FigureCard:
    shape = int(column(frame, "head").max()) + 1, int(column(frame, "block").max()) + 1
    tasks = list(dict.fromkeys(names(frame, "task")))
    panels: list[Panel] = []
    told: list[str] = []
    most = float(np.abs(column(frame, "effect")).max()) or 1.0
    for task in tasks:
        rows = only(frame, task=task)
        inside = [
            (int(row["block"]), int(row["head"]))
            for row in records(rows)
            if row.get("in_circuit") in (True, 1)
        ]
        frames = [shape_ for b, h in inside for shape_ in outlines(b, h)]
        name = task_words(task)
        panels.append(
            Panel(
                f"{label(name, 24)}: patching", [_heat(rows, "effect", shape, "coloraxis")], frames
            )
        )
        for method, held_column in _MAPS.items():
            known = where(rows, np.isfinite(column(rows, held_column)))
            if len(known):
                title = f"{label(name, 24)}: {look_of(method).name}"
                panels.append(
                    Panel(title, [_heat(known, held_column, shape, "coloraxis2")], frames)
                )
        listed = ", ".join(head_name(b, h) for b, h in inside[:12])
        told.append(
            f"{name}: {counted(len(inside), 'head')} in the circuit"
            + (f" ({listed})" if listed else "")
        )
    x = {**block_axis(shape[1] - 1, 8), "title": "block"}
    y = {"range": [shape[0] - 0.5, -0.5], "showgrid": False, "dtick": max(1, shape[0] // 6)}
    columns = max(1, min(3, len(panels) // max(len(tasks), 1)))
    sheet = Sheet(x, y, columns=columns, height=max(90, min(16 * shape[0], 260)), right=16)
    spec = arranged(panels, sheet)
    spec["layout"]["coloraxis"] = {
        "colorscale": DIFFERENCE, "cmin": -most, "cmax": most, "showscale": False,
    }  # fmt: skip
    spec["layout"]["coloraxis2"] = {
        "colorscale": MAGNITUDE, "cmin": 0.0, "cmax": 1.0, "showscale": False,
    }  # fmt: skip
    return FigureCard(
        "sae-circuit-heads",
        "Heads of each task by patching, and by the codes of an autoencoder",
        spec,
        MAP_HOW,
        f"{counted(len(panels), 'map')} of {counted(shape[1], 'block')} by {counted(shape[0], 'head')}. "
        f"{'; '.join(told)}.",
        frame.drop(columns="dataset"),
    )  # fmt: skip


def _heat(rows: pd.DataFrame, name: str, shape: tuple[int, int], colours: str) -> Spec:
    z = np.full(shape, np.nan)
    hover = np.full(shape, "", dtype=object)
    value = column(rows, name)
    top = float(np.abs(value).max()) or 1.0
    for row, v in zip(records(rows), value, strict=True):
        at = int(row["head"]), int(row["block"])
        z[at] = v if name == "effect" else max(v, 0.0) / top
        span = f" {interval(row['low'], row['high'])}" if name == "effect" else ""
        hover[at] = f"<b>head {head_name(row['block'], row['head'])}</b><br>{number(v)}{span}"
    return {
        "type": "heatmap",
        "x": np.arange(shape[1]),
        "y": np.arange(shape[0]),
        "z": z,
        "coloraxis": colours,
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "xgap": 1,
        "ygap": 1,
        "showlegend": False,
    }


@figure("sae-circuits", 520)
def _(data: RunData) -> FigureCard | None:
    return circuit_auc(data)


@figure("sae-circuit-heads", 522)
def _(data: RunData) -> FigureCard | None:
    return circuit_maps(data)
