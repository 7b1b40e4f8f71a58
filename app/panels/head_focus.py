"""The head, the measure and the task that a reader picked: one choice for lists, tables, every figure and the URL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import streamlit as st

from panels.drawing import draw, picked_by_point
from panels.linked import squares
from panels.state import Shown
from probes.report.figures import FigureCard
from probes.report.figures.circuit_tasks import task_words
from probes.report.figures.head_grid import HeadFocused
from probes.report.head_tables import (
    HeadFocus,
    head_measures,
    head_name,
    head_of,
    heads_of,
    tasks_of,
)
from probes.report.text import clean

HEAD, MEASURE, TASK = "head", "measure", "task"  # of the session and of the URL


def pick(name: str | None) -> None:
    """Make a head the picked one everywhere; None clears it. To be called before the list is drawn."""
    st.session_state[HEAD] = name


def picked() -> str | None:
    """The picked head, from the URL as long as the list has not been drawn."""
    return _held(HEAD)


def pick_task(name: str | None) -> None:
    """Make a task the picked one; there is always one, so that None changes nothing."""
    if name is not None:
        st.session_state[TASK] = name


def picked_task(tasks: Sequence[str]) -> str | None:
    """The picked task, the first by default."""
    held = _held(TASK)  # the URL holds what the list shows
    named = (task for task in tasks if held in (task, _task_shown(task)))
    return next(named, next(iter(tasks), None))


def _task_shown(task: str) -> str:
    return clean(task_words(task), 40)


def _held(key: str) -> str | None:
    held = st.session_state.get(key, st.query_params.get(key))
    return held if isinstance(held, str) else None


def controls(runs: Sequence[Shown]) -> HeadFocus:
    """The lists of tasks, where there are any, and of heads, with a way to clear the choice."""
    heads = list(dict.fromkeys(head_name(*h) for run in runs for h in heads_of(run.data)))
    tasks = list(dict.fromkeys(task for run in runs for task in tasks_of(run.data)))
    for key, options in ((HEAD, heads), (TASK, tasks)):
        if st.session_state.get(key) not in (None, *options):  # of a run that was shown before
            st.session_state[key] = None if key == HEAD else next(iter(options), None)
    task = None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if tasks:
            task = st.selectbox(
                "Task",
                tasks,
                key=TASK,
                bind="query-params",
                width=220,
                format_func=_task_shown,
            )
        head = st.selectbox(
            "Head",
            heads,
            index=None,
            key=HEAD,
            bind="query-params",
            placeholder="Choose, or click a cell",
            width=220,
        )
        st.button(
            "Clear selection",
            on_click=pick,
            args=(None,),
            disabled=head is None,
            icon=":material/close:",
            key="clear-head",
        )
    return HeadFocus(head_of(head), None, task)


def measure_asked(runs: Sequence[Shown]) -> str | None:
    """The measure of heads that the map shows, the retrieval score by default."""
    found = list(dict.fromkeys(name for run in runs for name in head_measures(run.data)))
    if len(found) < 2:
        return next(iter(found), None)
    if st.session_state.get(MEASURE) not in (None, *found):
        st.session_state[MEASURE] = found[0]
    data = runs[0].data
    return st.selectbox(
        "Measure on the map",
        found,
        key=MEASURE,
        bind="query-params",
        width=320,
        format_func=lambda name: clean(data.title(name), 60),
    )


def drawn(runs: Sequence[Shown], builders: Sequence[HeadFocused], focus: HeadFocus) -> bool:
    """These figures of every run; a click on a cell or dot picks its head. Whether any could be drawn."""
    made = [lambda data, build=build: build(data, focus) for build in builders]
    return draw(runs, made, lambda card: picked_by_point(card, "heads", _pick_head), clickable)


def _pick_head(head: Sequence[int] | None) -> None:
    pick(None if head is None else head_name(*head))


def clickable(card: FigureCard) -> FigureCard:
    """A map of heads with an invisible square over every cell, which means its head."""
    heat = card.spec["data"][0]
    if not (heat.get("meta") or {}).get("grid"):
        return card
    rows, columns = np.nonzero(np.asarray(heat["customdata"], dtype=object) != "")
    over = squares(heat, size=min(22.0, 560 / len(heat["x"])))
    over["meta"] = {"heads": [[int(b), int(h)] for h, b in zip(rows, columns, strict=True)]}
    quiet = {k: v for k, v in heat.items() if k != "hovertemplate"} | {"hoverinfo": "skip"}
    return replace(
        card, drawn={"data": [quiet, over, *card.spec["data"][1:]], "layout": card.spec["layout"]}
    )
