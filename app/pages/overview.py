"""Exit choice: what the budget buys, where quality comes from layer by layer, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Callable

import pandas as pd
import streamlit as st
from panels import figures, state
from panels.cards import decision_cards, picked_cell
from panels.head import head
from panels.quality import asks_for_quality, quality_figures, quality_found
from panels.sidebar import Choice
from panels.state import Outcome, Shown
from panels.studies import has_own_page, in_short
from panels.words import heading, section

from probes.report.data import Cell, RunData
from probes.report.figures import (
    FIGURES,
    FigureCard,
    Marks,
    latency_per_layer,
    layer_dim_heatmap,
    layer_metrics,
    quality_latency,
    quality_over_layers,
)
from probes.report.text import interval, level, number, percent
from probes.report.verdict import caveats, decision_table

_OWN = {"layer-dim", "quality-depth", "quality-latency", "latency", "layer-metrics"}


def page(choice: Choice) -> None:
    """The whole page for the sidebar's choice."""
    if choice.run is None:
        _no_runs()
        return
    shown = [run for run in (choice.run, choice.other) if run is not None]
    for run in shown:
        head(run)
        if has_own_page(run):
            in_short(run)
        elif run.view.problem is None and asks_for_quality(run):
            quality_found(run)
        elif run.view.problem is None:
            outcome = state.outcome(run, choice.budget)
            if run.data.decision is not None or outcome.walk is not None:
                decision_cards(run, outcome)
                _own_decision(run, outcome)
            elif run.status == "finished":
                st.info(
                    "This run has no exit decision: its figures are below.", icon=":material/info:"
                )
    readable = [run for run in shown if run.view.problem is None]
    studies = [run for run in readable if asks_for_quality(run)]
    if studies:
        quality_figures(studies)
    drawn = [run for run in readable if not (has_own_page(run) or asks_for_quality(run))]
    if any(not run.data.measurements.empty for run in drawn):
        _figures(drawn, choice)
    for run in readable:
        _files(run)


def _no_runs() -> None:
    heading("No runs yet")
    st.text(f"There is no run in {state.parent()}. Make one; it appears here by itself.")
    st.code("fathometer demo", language="bash")
    st.text("Or with your own model and data:")
    st.code("fathometer run exit-layers --model minilm --data pairs.csv", language="bash")


def _own_decision(run: Shown, outcome: Outcome) -> None:
    """What the run itself decided: the one look at the test part."""
    data = run.data
    if data.decision is None:
        return
    own = state.own_budget(data)
    target = (
        f"{level(own.min_quality)} of full" if own.max_loss is None else f"loss + {own.max_loss:g}"
    )
    asked = f"{target} at {level(own.confidence)} confidence"
    test = data.decision.get("test")
    if data.chosen is None or not isinstance(test, dict):
        st.text(f"The run itself asked for {asked}: no exit was found.")
        return
    span = interval(test.get("low"), test.get("high"))
    st.text(
        f"The run itself asked for {asked} and chose {data.chosen.words()}. On the untouched test part it keeps "
        f"{percent(data.decision.get('share'))}: {number(test.get('quality'))} {span}, full model "
        f"{number(test.get('quality_full'))}."
    )
    if outcome.budget != own:
        st.caption("The cards show another budget than the run’s own.")
    _baselines(data)


def _baselines(data: RunData) -> None:
    """Fixed depths and the full model beside the run's own choice, and what a reader must know of it all."""
    table, notes = decision_table(data), caveats(data)
    with st.expander("Baselines and notes: last layer and fixed depths on the test part"):
        names = [name or "exit" for name in table.columns]
        st.dataframe(pd.DataFrame(table.rows, columns=names), hide_index=True)
        for note in notes:
            st.text(note)


def _cells(data: RunData) -> dict[str, Cell]:
    return data.once(
        "cells by name", lambda: {figures.cell_id(cell): cell for cell in data.points_by_cell()}
    )


def _pick(key: str) -> None:
    """A click on the map: remember the cell; a click on nothing clears it."""
    points = st.session_state[key].selection.points
    st.session_state["cell"] = points[0]["customdata"][0] if points else None


def _clear() -> None:
    st.session_state["cell"] = None


def _figures(runs: list[Shown], choice: Choice) -> None:
    """All figures of one run, or of two side by side, with the same marks and colours."""
    first = runs[0]
    outcomes = {run.slug: state.outcome(run, choice.budget) for run in runs}
    variant, picked = "", None
    if not first.data.all.empty:
        section("Where to stop")
        variant, picked = _controls(first, outcomes[first.slug])
        if picked is not None:
            picked_cell(first, outcomes[first.slug], picked)
    budget = None if choice.budget.max_loss is not None else choice.budget.min_quality
    marks = {r.slug: Marks(_chosen(r, outcomes[r.slug]), picked, budget) for r in runs}
    limits = _limits(runs)
    with st.grid(2, min_column_width=440):
        for run in runs:
            _map(run, marks[run.slug], variant, limits, _name(run, runs))
        _row(runs, marks, quality_over_layers, "depth", "No quality by layer (yet).")
    section("What it costs")
    with st.grid(2, min_column_width=440):
        _row(runs, marks, quality_latency, "pareto", "No quality with a cost (yet).")
        _row(runs, marks, latency_per_layer, "latency", "No latency was measured (yet).")
    section("What the layers look like")
    _row(runs, marks, layer_metrics, "metrics", "No layer metrics in this run (yet).")
    for name in sorted(set(FIGURES) - _OWN):  # figures of other analyses
        for run in runs:
            card = FIGURES[name](run.data)
            if card is not None:
                figures.show(card, f"{name}-{run.slug}", "", _name(run, runs))


def _name(run: Shown, runs: list[Shown]) -> str:
    """The run's name where it must be told from another."""
    return run.slug if len(runs) > 1 else ""


def _row(
    runs: list[Shown],
    marks: dict[str, Marks],
    draw: Callable[[RunData, Marks], FigureCard | None],
    name: str,
    empty: str,
) -> None:
    """The same figure of every run."""
    for run in runs:
        card = draw(run.data, marks[run.slug])
        figures.show(card, f"{name}-{run.slug}", empty, _name(run, runs))


def _map(
    run: Shown, marks: Marks, variant: str, limits: tuple[float, float] | None, name: str
) -> None:
    """The heatmap of one state, clickable."""
    data, key = run.data, f"map-{run.slug}"
    shown = variant if variant in data.variants else (data.variants or [""])[0]
    card = layer_dim_heatmap(data, marks, variants=[shown], limits=limits)
    if card is None:
        figures.show(None, key, "No grid of layers and dimensions in this run (yet).")
    else:
        figures.show_clickable(card, data, shown, key, _pick, name)


def _controls(run: Shown, outcome: Outcome) -> tuple[str, Cell | None]:
    """Which state the map shows and which cell is picked; both by click, by keyboard and by URL."""
    data = run.data
    cells = _cells(data)
    _follow_choice(run, outcome, cells)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        variant = st.selectbox("State", data.variants, key="state", bind="query-params", width=180)
        name = st.selectbox(
            "Picked cell",
            list(cells),
            index=None,
            key="cell",
            bind="query-params",
            placeholder="Click the map, or choose",
            width=320,
        )
        st.button(
            "Clear selection", on_click=_clear, disabled=name is None, icon=":material/close:"
        )
    return variant, cells.get(name) if name is not None else None


def _cell_name() -> str:
    """The picked cell, from the URL as long as its widget has not been drawn."""
    held = st.session_state.get("cell", st.query_params.get("cell"))
    return held if isinstance(held, str) else ""


def _follow_choice(run: Shown, outcome: Outcome, cells: dict[str, Cell]) -> None:
    """Show the state of the cell that was picked, or of the chosen one, whenever one of them moves."""
    picked, chosen = cells.get(_cell_name()), _chosen(run, outcome)
    before = st.session_state.get("_followed")
    st.session_state["_followed"] = now = (run.slug, picked, chosen)
    if before == now or (before is None and "state" in st.query_params):
        return
    moved = picked if picked is not None and (before is None or before[1] != picked) else chosen
    if moved is not None and moved.variant in run.data.variants:
        st.session_state["state"] = moved.variant


def _chosen(run: Shown, outcome: Outcome) -> Cell | None:
    return outcome.cell if outcome.walk is not None else run.data.chosen


def _limits(runs: list[Shown]) -> tuple[float, float] | None:
    """The same colours for the same quality in every run shown."""
    values = [run.data.all["value"] for run in runs if not run.data.all.empty]
    return (
        (min(float(v.min()) for v in values), max(float(v.max()) for v in values))
        if values
        else None
    )


def _files(run: Shown) -> None:
    """What can be taken away, and what the run wrote on its way."""
    section(f"Files of {run.slug}")
    report = run.view.path / "report.html"
    with st.container(horizontal=True):
        if run.data.decision is not None:
            st.download_button(
                "Decision (JSON)",
                json.dumps(run.data.decision, indent=2, ensure_ascii=False),
                file_name=f"{run.slug}-decision.json",
                mime="application/json",
                key=f"json-{run.slug}",
                on_click="ignore",
                icon=":material/download:",
            )
        if report.is_file():
            st.download_button(
                "Report (HTML)",
                lambda: report.read_bytes() if report.is_file() else b"",
                file_name=f"{run.slug}.html",
                mime="text/html",
                key=f"html-{run.slug}",
                on_click="ignore",
                icon=":material/download:",
            )
    with st.expander("Log"):
        log = run.view.log
        st.code("\n".join(log.splitlines()[-200:]) or "empty", language=None)


page(st.session_state["choice"])
