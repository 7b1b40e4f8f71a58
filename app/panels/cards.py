"""Decision cards: what the budget buys, in six numbers."""

from __future__ import annotations

import streamlit as st

from panels.state import Outcome, Shown
from panels.words import tag
from probes.report.data import Cell
from probes.report.text import (
    interval,
    is_number,
    level,
    milliseconds,
    number,
    percent,
    times,
)


def decision_cards(shown: Shown, outcome: Outcome) -> None:
    """The chosen exit for the sidebar's budget, recomputed from the run's test tables."""
    data, cell = shown.data, outcome.cell
    if cell is None:
        if outcome.walk is None:
            st.info("No decision can be computed for this run.", icon=":material/info:")
        else:
            st.warning(
                "No exit keeps this budget. Use the full model, or ask for less.",
                icon=":material/do_not_disturb_on:",
            )
        st.text(outcome.reason)
        return
    numbers = outcome.numbers
    time, speed = _times(shown, cell)
    with st.grid(min_column_width=165):
        st.metric("Stop after layer", f"{cell.layer} of {data.n_layers}", border=True)
        of = "" if data.full is None else f" of {data.full.dim}"
        st.metric(
            "Keep dimensions", f"{cell.dim}{of}", border=True, help=f"State: {tag(cell.variant)}"
        )
        st.metric(
            "Quality kept",
            percent(numbers.get("calibrate_share")),
            border=True,
            delta=_kept(outcome),
            delta_arrow="off",
            delta_color="off",
            help="Share of the full model’s quality on the calibrate part, with its one-sided lower limit.",
        )
        full = data.at(data.full, data.grid("calibrate"))
        st.metric(
            _title(shown),
            number(numbers.get("calibrate_quality")),
            border=True,
            delta=None if full is None else f"full model {number(full.value)}",
            delta_arrow="off",
            delta_color="off",
            help="On the calibrate part, which the test was made on.",
        )
        st.metric(
            "Time per text",
            time[0],
            border=True,
            delta=time[1],
            delta_arrow="off",
            delta_color="off",
            help="Median from text to embedding, tokenising included, on the machine of the run.",
        )
        st.metric(
            "Speed-up", speed, border=True, help="Time of the full model over time of this exit."
        )
        st.metric(
            "Confidence",
            level(outcome.budget.confidence),
            border=True,
            delta=outcome.budget.guarantee,
            delta_arrow="off",
            delta_color="off",
            help="finite-sample: holds at this sample size. asymptotic: rests on a bootstrap.",
        )


def _title(shown: Shown) -> str:
    data = shown.data
    return tag(str(data.measure(data.quality)["title"])) if data.quality else "Quality"


def _kept(outcome: Outcome) -> str | None:
    bound = outcome.numbers.get("bound")
    if is_number(bound):
        return f"at least {percent(bound)}"
    excess = outcome.numbers.get("estimate")
    return f"mean loss + {number(excess)}" if is_number(excess) else None


def _times(shown: Shown, cell: Cell) -> tuple[tuple[str, str | None], str]:
    latency, share = shown.data.cost("latency_p50_ms"), shown.data.cost("relative_cost")
    full = latency.get(max(latency)) if latency else None
    time = milliseconds(latency.get(cell.layer))
    beside = None if full is None else f"full model {milliseconds(full)}"
    cost = share.get(cell.layer)
    return (time, beside), times(1 / cost if cost else None)


def picked_cell(shown: Shown, outcome: Outcome, cell: Cell) -> None:
    """The numbers of the cell the reader picked."""
    data = shown.data
    point, full = data.at(cell), data.at(data.full)
    if point is None:
        st.text("This run has no such cell.")
        return
    share = None if full is None or full.value <= 0 else point.value / full.value
    time, speed = _times(shown, cell)
    with st.grid(min_column_width=150):
        st.metric("Picked", f"{cell.layer} × {cell.dim}")
        span = interval(point.low, point.high)
        st.metric(
            "Quality", number(point.value), delta=span or None, delta_arrow="off", delta_color="off"
        )
        st.metric("Of full", percent(share))
        st.metric("Time per text", time[0])
        st.metric("Speed-up", speed)
    st.text(f"{cell.variant}, at this budget: {outcome.result_of(cell)}.")
