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
    sentence,
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
        st.text(sentence(outcome.reason))
        return
    numbers = outcome.numbers
    time, beside, speed, cost = _times(shown, cell)
    full = data.at(data.full, "calibrate")
    wide = "" if data.full is None else f"of {data.n_layers} × {data.full.dim}"
    with st.grid(6, min_column_width=140):
        card(
            f"Exit ({tag(cell.variant)})",
            f"{cell.layer} × {cell.dim}",
            wide,
            "",
        )
        card(
            "Quality kept",
            percent(numbers.get("calibrate_share")),
            _kept(outcome),
            "Share of the full model’s quality on the calibrate part, with its one-sided lower limit.",
        )
        card(
            "Quality",
            number(numbers.get("calibrate_quality")),
            "" if full is None else f"full {number(full.value)}",
            f"{_title(shown)} on the calibrate part, which the test was made on.",
        )
        card(
            "Time per text",
            time,
            beside,
            "Median from text to embedding, tokenising included, on the machine of the run.",
        )
        card("Speed-up", speed, cost, "Time of the full model over time of this exit.")
        card(
            "Confidence",
            level(outcome.budget.confidence),
            outcome.budget.guarantee,
            "finite-sample: holds at this sample size. asymptotic: rests on a bootstrap.",
        )


def card(label: str, value: str, below: str, explained: str) -> None:
    """One number with what it is to be compared with."""
    st.metric(
        label,
        value,
        border=True,
        delta=below or None,
        delta_arrow="off",
        delta_color="off",
        help=explained or None,
        height="stretch",
    )


def _title(shown: Shown) -> str:
    data = shown.data
    return tag(str(data.measure(data.quality)["title"])) if data.quality else "Quality"


def _kept(outcome: Outcome) -> str:
    bound = outcome.numbers.get("bound")
    if is_number(bound):
        return f"at least {percent(bound)}"
    excess = outcome.numbers.get("estimate")
    return f"mean loss + {number(excess)}" if is_number(excess) else ""


def _times(shown: Shown, cell: Cell) -> tuple[str, str, str, str]:
    """Time per text, the full model's, the speed-up, and the share of the full time."""
    latency, share = shown.data.cost("latency_p50_ms"), shown.data.cost("relative_cost")
    full = latency.get(max(latency)) if latency else None
    beside = "" if full is None else f"full {milliseconds(full)}"
    cost = share.get(cell.layer)
    part = "" if cost is None else f"{percent(cost, 0)} of the time"
    return milliseconds(latency.get(cell.layer)), beside, times(1 / cost if cost else None), part


def picked_cell(shown: Shown, outcome: Outcome, cell: Cell) -> None:
    """The numbers of the cell the reader picked."""
    data = shown.data
    point, full = data.at(cell), data.at(data.full)
    if point is None:
        st.text("This run has no such cell.")
        return
    share = None if full is None or full.value <= 0 else point.value / full.value
    time, _, speed, _ = _times(shown, cell)
    with st.grid(5, min_column_width=140):
        st.metric("Picked", f"{cell.layer} × {cell.dim}")
        span = interval(point.low, point.high)
        st.metric(
            "Quality", number(point.value), delta=span or None, delta_arrow="off", delta_color="off"
        )
        st.metric("Of full", percent(share))
        st.metric("Time per text", time)
        st.metric("Speed-up", speed)
    st.text(f"State: {cell.variant}. {outcome.result_of(cell)}")
