"""Whether a model does a task, where its answer appears, and where that is taken back."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probes.report.collapse_study import last_layer, records
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.focus import ZERO, Along, Look, line, whiskers
from probes.report.figures.marks import across, upright
from probes.report.figures.panels import Panel, Sheet, arranged, layer_axis
from probes.report.frames import column, names, only, where
from probes.report.head_tables import HeadFocus, held, is_circuits, tasks_of
from probes.report.text import clean, count, interval, label, number, percent
from probes.report.theme import NEUTRAL, PALETTE, SELECTED, style_at

WORDS = {
    "ioi": "indirect object",
    "greater_than": "greater than",
    "docstring": "docstring",
    "subject_verb": "subject and verb",
    "factual_recall": "factual recall",
    "coloured_objects": "coloured objects",
    "list_recall": "list recall",
}
HOW_TO_READ = (
    "Left: share of pairs in which the right answer is more likely than the wrong one; at the dotted 0.5 the model "
    "guesses, and what then carries the task means nothing. Right: log-odds of right against wrong answer, in the "
    "clean text (blue) and in the corrupted one (orange); patching moves between the two. Whiskers are 95 % "
    "intervals."
)


def task_words(task: str) -> str:
    """A task in words."""
    return WORDS.get(task, clean(task, 40).replace("_", " "))


def circuit_tasks(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Accuracy and logit differences of every task; None when none was measured."""
    frame = held(data, "tasks") if is_circuits(data) else None
    return None if frame is None else data.once("circuit-tasks", lambda: _tasks_card(frame))


def _tasks_card(frame: pd.DataFrame) -> FigureCard:
    rows = frame.drop_duplicates("task")
    tasks = names(rows, "task")
    y = np.arange(len(tasks))
    value, low, high = (column(rows, c) for c in ("accuracy", "low", "high"))
    spans = [interval(a, b) for a, b in zip(low, high, strict=True)]
    share: Spec = {
        "type": "bar",
        "orientation": "h",
        "x": value,
        "y": y,
        "width": 0.6,
        "marker": {"color": [PALETTE[0] if a > 0.5 else NEUTRAL for a in low]},
        "error_x": {**whiskers(value, low, high), "color": NEUTRAL, "thickness": 1.8},
        "customdata": [
            f"<b>{label(task_words(task), 40)}</b><br>{number(v)} {span}<br>n = {count(n)}"
            for task, v, span, n in zip(tasks, value, spans, column(rows, "n"), strict=True)
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
        "showlegend": False,
    }
    panels = [
        Panel(
            "share of pairs with the right answer ahead",
            [share],
            [upright(0.5, ZERO)],
            axes={"x": {"range": [0, 1.05]}},
        )
    ]
    ends = [
        _spots(rows, tasks, f"logit_difference_{kind}", (kind, colour, symbol))
        for kind, colour, symbol in (
            ("clean", PALETTE[0], "circle"),
            ("corrupted", PALETTE[1], "square"),
        )
    ]
    if any(np.isfinite(spots["x"]).any() for spots in ends):
        panels.append(Panel("logit difference, right − wrong", ends, [upright(0.0, ZERO)]))
    sheet = Sheet(
        {},
        {
            "range": [len(tasks) - 0.4, -0.6],
            "tickvals": y,
            "ticktext": [label(task_words(task), 24) for task in tasks],
            "showgrid": False,
        },
        columns=2,
        height=max(90, 30 * len(tasks)),
        left=132,
    )
    told = [
        f"{task_words(t)} {percent(v, 0)} {s}".strip()
        for t, v, s in zip(tasks, value, spans, strict=True)
    ]
    return FigureCard(
        "circuit-tasks",
        "Does the model do the tasks?",
        arranged(panels, sheet),
        HOW_TO_READ,
        f"Bars by task ({len(tasks)}), share of pairs with the right answer ahead: {'; '.join(told)}.",
        frame.drop(columns="dataset"),
    )


def _spots(rows: pd.DataFrame, tasks: list[str], name: str, look: tuple[str, str, str]) -> Spec:
    words, colour, symbol = look
    return {
        "type": "scatter",
        "name": words,
        "legendgroup": words,
        "x": column(rows, name),
        "y": np.arange(len(tasks)),
        "mode": "markers",
        "marker": {"size": 11, "color": colour, "symbol": symbol},
        "customdata": [
            f"<b>{label(task_words(task), 40)}</b>, {words}<br>{number(v)}"
            for task, v in zip(tasks, column(rows, name), strict=True)
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


LENS_HOW = (
    "What the model would answer if it stopped after a layer (logit lens: final norm and unembedding on the state of "
    "that layer). Log-probability and rank of the right answer, its log-odds against the wrong one, and the share of "
    "texts in which it is the first guess; bands are 95 % intervals. Early layers speak another language than the "
    "last, so that a low rank there says little. A fall at the end is an answer that the last blocks take back."
)
_LENS = (
    ("logprob", "log-probability of the answer"),
    ("rank", "rank of the answer (median)"),
    ("logit_difference", "logit difference, right − wrong"),
    ("top1", "answer is the first guess"),
)


def answer_lens(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Logit lens over layers, a line per task; None when it was not measured."""
    frame = held(data, "lens") if is_circuits(data) else None
    if frame is None:
        return None
    task = None if focus is None else focus.task
    return data.once(("circuit-lens", task), lambda: _lens_card(data, frame, task))


def _lens_card(data: RunData, frame: pd.DataFrame, picked: str | None) -> FigureCard:
    last = last_layer(data, frame)
    tasks = tasks_of(data)
    shown = [task for task in tasks if task in set(names(frame, "task"))]
    panels: list[Panel] = []
    for name, title in _LENS:
        traces: list[Spec] = []
        for task in [t for t in shown if t != picked] + [t for t in shown if t == picked]:
            rows = only(frame, task=task).sort_values("layer")
            rows = where(rows, np.isfinite(column(rows, name)))
            if rows.empty:
                continue
            style = style_at(tasks.index(task))
            colour = SELECTED if task == picked else style["color"]
            width = 2.8 if task == picked else 1.8
            look = Look(
                label(task_words(task), 30), colour, style["dash"], style["symbol"], width, 4
            )
            traces += line(
                rows,
                Along("layer", "layer"),
                look,
                value=name,
                ends=(f"{name}_low", f"{name}_high"),
            )
        if traces:
            axes = {"y": {"type": "log", "dtick": 1}} if name == "rank" else {}
            panels.append(Panel(title, traces, axes=axes))
    told: list[str] = []
    for task in shown:
        rows = records(only(frame, task=task).sort_values("layer"))
        best = max(rows, key=lambda row: row["logprob"])
        told.append(
            f"{task_words(task)} best at layer {best['layer']:.0f} with {number(best['logprob'], 2)}"
        )
    return FigureCard(
        "circuit-lens",
        "Where the answer appears",
        arranged(panels, Sheet(layer_axis(last), {}, columns=2, height=190, own_y=True)),
        LENS_HOW,
        f"{len(panels)} panels over layers 0 to {last}. Log-probability of the answer: {'; '.join(told)}.",
        frame.drop(columns="dataset"),
    )


def zero_line() -> list[Spec]:
    """A dotted line at zero."""
    return [across(0.0, ZERO, layer="below")]


@figure("circuit-tasks", 400)
def _(data: RunData) -> FigureCard | None:
    return circuit_tasks(data)


@figure("circuit-lens", 402)
def _(data: RunData) -> FigureCard | None:
    return answer_lens(data)
