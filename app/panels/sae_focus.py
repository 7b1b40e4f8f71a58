"""The autoencoder and the feature that a reader picked: one choice for lists, tables, every figure and the URL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from panels import figures
from panels.limits import equal_limits
from panels.state import Shown
from probes.report.data import RunData
from probes.report.figures import FigureCard
from probes.report.sae_tables import SaeFocus, features_of, models, saes_of
from probes.report.text import clean, is_number

SAE, FEATURE, FIND = "sae", "feature", "find"  # of the session and of the URL
Drawn = Callable[[RunData, SaeFocus], FigureCard | None]


def pick(feature: int | str | None) -> None:
    """Make a feature the picked one everywhere; None clears it. To be called before its field is drawn."""
    st.session_state[FEATURE] = None if feature is None else int(feature)


def picked() -> int | None:
    """The picked feature, from the URL as long as its field has not been drawn."""
    held = st.session_state.get(FEATURE, st.query_params.get(FEATURE))
    return int(held) if _whole(held) else None


def _whole(held: object) -> bool:
    if isinstance(held, int):
        return held >= 0
    return isinstance(held, str) and held.isascii() and held.isdigit() and len(held) < 9


def controls(runs: Sequence[Shown]) -> SaeFocus:
    """The list of autoencoders where there are several, the number of a feature, and a way to clear it."""
    names = list(dict.fromkeys(name for run in runs for name in saes_of(run.data)))
    last = max((_last(run.data) for run in runs), default=-1)
    _forget(names, last)
    sae = names[0] if names else None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if len(names) > 1:
            sae = st.selectbox(
                "Autoencoder",
                names,
                key=SAE,
                bind="query-params",
                width=260,
                format_func=lambda name: clean(name, 60),
            )
        if last < 0:
            return SaeFocus(sae)
        feature = st.number_input(
            "Feature",
            min_value=0,
            max_value=last,
            value=None,
            step=1,
            key=FEATURE,
            bind="query-params",
            placeholder=f"0 to {last:,}, or click",
            width=220,
        )
        st.button(
            "Clear selection",
            on_click=pick,
            args=(None,),
            disabled=feature is None,
            icon=":material/close:",
            key="clear-feature",
        )
    return SaeFocus(sae, feature)


def _forget(names: list[str], last: int) -> None:
    """Choices of a run that was shown before and are none of this one's."""
    if st.session_state.get(SAE) not in (None, *names):
        st.session_state[SAE] = names[0] if names else None
    held = st.session_state.get(FEATURE)
    if held is not None and not (_whole(held) and int(held) <= last):
        st.session_state[FEATURE] = None


def _last(data: RunData) -> int:
    """The highest number of a feature of any autoencoder, −1 where none is known."""
    sizes = [row["n_features"] - 1 for row in models(data).values() if is_number(row["n_features"])]
    known = [max(found) for name in saes_of(data) if (found := features_of(data, SaeFocus(name)))]
    return int(max(known or sizes, default=-1))


def drawn(runs: Sequence[Shown], builders: Sequence[Drawn], focus: SaeFocus) -> bool:
    """These figures of every run, one run's below the other's with equal axes; whether any could be drawn."""
    found = False
    for build in builders:
        held = equal_limits([build(run.data, focus) for run in runs])
        name = next((card.id for card in held if card is not None), None)
        if name is None:
            continue
        found = True
        for run, card in zip(runs, held, strict=True):
            _one(run, card, run.slug if len(runs) > 1 else "", name)
    return found


def _one(run: Shown, card: FigureCard | None, named: str, what: str) -> None:
    key = f"{what}-{run.slug}"
    if card is None:
        figures.show(None, key, "Not measured in this run (yet).", named)
        return
    linked = any("features" in (trace.get("meta") or {}) for trace in card.spec["data"])
    room = figures.PAGE if figures.is_wide(card.spec) else figures.COLUMN
    figures.show(card, key, "", named, _clicked(card) if linked else None, room)


def _clicked(card: FigureCard) -> Callable[[Sequence[Any]], None]:
    """What a click means: the feature of the dot; on nothing, none."""
    traces = card.spec["data"]

    def clicked(points: Sequence[Any]) -> None:
        if not points:
            return pick(None)
        at, index = points[0].get("curve_number"), points[0].get("point_index")
        if not (isinstance(at, int) and at < len(traces) and isinstance(index, int)):
            return None
        features = (traces[at].get("meta") or {}).get("features", ())
        found = features[index] if index < len(features) else None
        return None if found is None else pick(found)

    return clicked
