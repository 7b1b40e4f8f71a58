"""One head: its numbers, what ablating it does, and where it looks while the answer is written."""

from __future__ import annotations

import streamlit as st

from panels.state import Shown
from panels.token_strip import token_strip
from panels.words import section, small, tag
from probes.report.collapse_table import gain
from probes.report.figures.head_ablation import measure_words
from probes.report.figures.head_tokens import answer_rows, examples, kept_heads, token_row
from probes.report.head_list import effects
from probes.report.head_tables import (
    RETRIEVAL,
    HeadFocus,
    HeadId,
    head_measures,
    head_name,
    head_rows,
    ranking,
    values_of,
)
from probes.report.text import clean, count, interval, number, percent

EXAMPLE, TOKEN = "example", "token"  # of the session and of the URL


def one_head(run: Shown, focus: HeadFocus, named: bool) -> None:
    """The picked head of a run, the best one where none is picked."""
    best = next(((int(r["block"]), int(r["head"])) for r in ranking(run.data)), None)
    head = focus.head or best
    if head is None:
        return
    what = f"Head {head_name(*head)}"
    section(
        (what if focus.head else f"{what}, the best one") + (f" of {run.slug}" if named else "")
    )
    _numbers(run, head)
    _looks(run, head)


def _numbers(run: Shown, head: HeadId) -> None:
    """Everything that was measured of the head, in one line per kind."""
    data = run.data
    told: list[str] = []
    order = [(int(r["block"]), int(r["head"])) for r in ranking(data)]
    if head in order:
        row = ranking(data)[order.index(head)]
        span = interval(row["low"], row["high"])
        rank = f"rank {count(order.index(head) + 1)} of {count(len(order))}"
        told.append(f"Retrieval score {number(row['value'])} {span}: {rank}.")
    alone = effects(data).get(head)
    if alone is not None:
        size = gain(alone["difference"], alone["low"], alone["high"])
        told.append(f"Ablated alone: {size} {measure_words(alone['measure'])}.")
    others: list[str] = []
    for measure in head_measures(data):
        row = values_of(head_rows(data, measure)).get(head)
        if row is not None and measure != RETRIEVAL:
            others.append(f"{clean(data.title(measure), 60)} {number(row['value'])}")
    if others:
        told.append(f"{'; '.join(others)}.")
    st.text("\n".join(told) or "Nothing was measured of this head.")


def _looks(run: Shown, head: HeadId) -> None:
    data = run.data
    found = examples(data)
    if not found:
        small("No attention rows were kept in this run (yet).")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        example = _example(run, found)
        rows = answer_rows(data, example, head)
        if not rows:
            kept = len(kept_heads(data, example))
            small(f"The attention of this head was not kept; that of {count(kept)} heads was.")
            return
        asked = _asked(f"{TOKEN}-{run.slug}", [str(row) for row in rows])
        chosen = st.segmented_control(
            "While this token is written",
            [str(row) for row in rows],
            default=None if asked in st.session_state else str(next(iter(rows))),
            required=True,
            key=asked,
            format_func=lambda row: tag(rows[int(row)]),
        )
    shown = token_row(data, example, head, int(chosen or next(iter(rows))))
    if shown is None:
        return
    token_strip(shown, f"Attention of head {head_name(*head)} over the tokens of example {example}")
    needle = sum(w for w, role in zip(shown.weights, shown.roles, strict=True) if role == "needle")
    small(
        f"Blue: attention of the head, darker is more (hover for the number). Outlined: the answer inside the needle, "
        f"which gets {percent(needle, 0)} of it; dotted: the rest of the needle’s sentence."
    )


def _example(run: Shown, found: list[int]) -> int:
    if len(found) < 2:
        return found[0]
    key = _asked(f"{EXAMPLE}-{run.slug}", [str(e) for e in found])
    return int(st.selectbox("Example", [str(e) for e in found], key=key, width=140))


def _asked(key: str, options: list[str]) -> str:
    """The key of a widget, whose value is forgotten where it is none of the options."""
    if key in st.session_state and st.session_state[key] not in options:
        del st.session_state[key]
    return key
