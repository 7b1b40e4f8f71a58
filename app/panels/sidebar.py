"""The sidebar of every page: run, run to compare with, budget, and how the run is doing. All of it lives in the URL."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from panels import state
from panels.state import Shown
from panels.words import tag
from probes.exits.walk import Budget

_COLOURS = {"finished": "green", "running": "blue", "failed": "red", "interrupted": "orange"}
CONFIDENCES = (80, 90, 95, 99)  # percent


@dataclass(frozen=True)
class Choice:
    """What the sidebar says: the run, the run beside it, and the budget for both."""

    run: Shown | None
    other: Shown | None
    budget: Budget


def sidebar() -> Choice:
    """Draw the sidebar and read it."""
    with st.sidebar:
        views = state.runs()
        if not views:
            st.caption("No runs yet.")
            return Choice(None, None, Budget())
        names = [view.slug for view in views]
        slug = st.selectbox(
            "Run",
            names,
            index=_first_good([view.status for view in views]),
            key="run",
            bind="query-params",
        )
        others = [name for name in names if name != slug]
        beside = st.selectbox(
            "Compare with",
            others,
            index=None,
            key="with",
            bind="query-params",
            placeholder="nothing" if others else "no other run",
            disabled=not others,
        )
        run = state.load(slug)
        other = state.load(beside) if beside in others else None
        asked = next((r for r in (run, other) if r is not None and state.has_budget(r)), None)
        if asked is None:  # there is nothing to choose; a run that has a budget starts from its own
            st.session_state["_budget_of"] = slug
        budget = Budget() if asked is None else _budget(asked)
        _badge(run)
        return Choice(run, other, budget)


def _first_good(statuses: list[str]) -> int:
    """The newest run worth opening: one that is done or on its way, else one that can at least be read."""
    wanted = (("finished", "running"), ("failed", "interrupted"))
    found = (at for kinds in wanted for at, status in enumerate(statuses) if status in kinds)
    return next(found, 0)


def _budget(run: Shown) -> Budget:
    """Sliders for what must be kept and how sure; they start at the run's own budget."""
    own = state.own_budget(run.data)
    st.subheader("Budget", anchor=False)
    if st.session_state.get("_budget_of") != run.slug:  # another run: start from its own budget
        came_by_url = "_budget_of" not in st.session_state
        for key, value in _defaults(own).items():
            if not (came_by_url and _usable(key, st.query_params.get(key))):
                st.session_state[key] = value
        st.session_state["_budget_of"] = run.slug
    if own.max_loss is None:
        kept = st.slider(
            "Keep at least this share of full quality (%)",
            50.0,
            100.0,
            step=0.5 if own.min_quality * 200 % 1 < 1e-9 else 0.1,
            format="%.1f",
            key="keep",
            bind="query-params",
        )
        budget = {"min_quality": kept / 100}
    else:
        lost = st.slider(
            "Lose at most this much mean loss",
            0.005,
            0.5,
            step=0.005,
            format="%.3f",
            key="lose",
            bind="query-params",
        )
        budget = {"max_loss": lost}
    sure = st.select_slider(
        "Confidence (%)",
        CONFIDENCES,
        key="sure",
        bind="query-params",
    )
    st.caption(
        "A guarantee holds for a budget fixed beforehand. Moving the slider until something fits does not carry it."
    )
    return Budget(**budget, confidence=sure / 100)


def _defaults(own: Budget) -> dict[str, float]:
    """Slider positions of a budget; in the URL they are plain numbers."""
    sure = min(CONFIDENCES, key=lambda value: abs(value / 100 - own.confidence))
    keep = min(100.0, max(50.0, round(own.min_quality * 1000) / 10))
    lose = min(0.5, max(0.005, round((own.max_loss or 0.05) * 200) / 200))
    return {"sure": sure, **({"keep": keep} if own.max_loss is None else {"lose": lose})}


def _usable(key: str, given: str | None) -> bool:
    """Whether the URL gives this slider a value that it can take."""
    try:
        value = float(given or "")
    except ValueError:
        return False
    low, high = {"keep": (50, 100), "lose": (0.005, 0.5), "sure": (80, 99)}[key]
    return low <= value <= high and (key != "sure" or value in CONFIDENCES)


def _badge(run: Shown) -> None:
    status = run.status
    st.badge(tag(status), color=_COLOURS.get(status, "red"))  # type: ignore[arg-type]
    if status == "running":
        st.caption("Pages refresh while it runs.")
