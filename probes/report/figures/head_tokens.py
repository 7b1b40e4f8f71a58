"""Where one head looks in one example while it writes a token of the answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from probes.report.collapse_study import records
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.head_grid import heads_in
from probes.report.frames import column, names, only
from probes.report.head_tables import HeadFocus, HeadId, head_name, held, is_heads, ranking
from probes.report.text import clean, label, number, percent
from probes.report.theme import ACCENT, NEUTRAL, PALETTE, faded

NEEDLE, SENTENCE = (
    "needle",
    "needle sentence",
)  # roles: the answer inside the needle, and the rest of its sentence
_NAMED = 4  # tokens that the figure names
HOW_TO_READ = (
    "How much attention each token gets while one token of the answer is written, over its place in the text. "
    "Orange: the answer inside the needle. A retrieval head puts its highest bar on the very token it is about to "
    "write."
)


@dataclass(frozen=True)
class TokenRow:
    """An attention row: the example's tokens with their roles and weights, for the token `emitted`."""

    tokens: list[str]
    roles: list[str]
    weights: np.ndarray  # (token,)
    emitted: str
    row: int


def examples(data: RunData) -> list[int]:
    """Examples whose tokens and attention rows were kept."""
    tokens, rows = _tables(data)
    if tokens is None or rows is None:
        return []
    kept = {int(e) for e in column(rows, "example")}
    return sorted({int(e) for e in column(tokens, "example")} & kept)


def kept_heads(data: RunData, example: int) -> list[HeadId]:
    """Heads whose attention rows were kept for an example, the best retrieval heads first."""
    _, rows = _tables(data)
    if rows is None:
        return []
    found = set(heads_in(only(rows, example=example)))
    order = [(int(r["block"]), int(r["head"])) for r in ranking(data)]
    return [h for h in order if h in found] + sorted(found - set(order))


def answer_rows(data: RunData, example: int, head: HeadId) -> dict[int, str]:
    """Tokens of the answer that were written, by row."""
    _, rows = _tables(data)
    if rows is None:
        return {}
    own = only(rows, example=example, block=head[0], head=head[1]).drop_duplicates("row")
    return {int(row["row"]): row["emitted"] for row in records(own.sort_values("row"))}


def token_row(data: RunData, example: int, head: HeadId, row: int) -> TokenRow | None:
    """The attention row of a head in an example, None where it was not kept."""
    key = ("token row", example, head, row)
    return data.once(key, lambda: _token_row(data, example, head, row))


def _token_row(data: RunData, example: int, head: HeadId, row: int) -> TokenRow | None:
    tokens, rows = _tables(data)
    if tokens is None or rows is None:
        return None
    own = only(rows, example=example, block=head[0], head=head[1], row=row)
    text = only(tokens, example=example).drop_duplicates("position").sort_values("position")
    if own.empty or text.empty:
        return None
    weights = dict(zip(column(own, "position").astype(int), column(own, "weight"), strict=True))
    places = column(text, "position").astype(int)
    return TokenRow(
        names(text, "token"),
        names(text, "role"),
        np.array([weights.get(at, 0.0) for at in places]),
        names(own, "emitted")[0],
        row,
    )


def _tables(data: RunData) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    if not is_heads(data):
        return None, None
    return held(data, "attention_tokens"), held(data, "attention_rows")


def attention_on_tokens(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Bars of attention over the tokens of an example, of the picked or the best head; None when none was kept."""
    found = examples(data)
    if not found:
        return None
    focus = focus or HeadFocus()
    example = next((e for e in found if e == focus.example), found[0])
    heads = kept_heads(data, example)
    if not heads:
        return None
    head = next((h for h in heads if h == focus.head), heads[0])
    rows = list(answer_rows(data, example, head))
    shown = token_row(data, example, head, next((r for r in rows if r == focus.row), rows[0]))
    return None if shown is None else _card(shown, head, example)


def _card(shown: TokenRow, head: HeadId, example: int) -> FigureCard:
    needle = np.array([role == NEEDLE for role in shown.roles], dtype=bool)
    place = np.arange(len(shown.tokens))
    hover = [
        f"<b>{label(token, 30)}</b> ({label(role, 20)}), token {at}<br>{number(w)}"
        for at, (token, role, w) in enumerate(
            zip(shown.tokens, shown.roles, shown.weights, strict=True)
        )
    ]
    traces: list[Spec] = []
    for name, keep, colour in (("other tokens", ~needle, PALETTE[0]), ("needle", needle, ACCENT)):
        traces.append({
            "type": "bar", "name": name, "x": place[keep], "y": shown.weights[keep],
            "marker": {"color": colour, "line": {"width": 1, "color": faded(colour, 0.9)}},
            "customdata": [text for text, k in zip(hover, keep, strict=True) if k],
            "hovertemplate": "%{customdata}<extra></extra>",
        })  # fmt: skip
    best = [int(at) for at in np.argsort(-shown.weights, kind="stable")[:_NAMED]]
    notes = [
        {
            "x": at, "y": float(shown.weights[at]), "text": f"“{label(shown.tokens[at].strip(), 18)}”",
            "showarrow": False, "yanchor": "bottom", "font": {"size": 12, "color": NEUTRAL},
        }
        for at in best
        if shown.weights[at] > 0.05
    ]  # fmt: skip
    layout: Spec = {
        "height": 280,
        "barmode": "overlay",
        "margin": {"l": 60, "r": 24, "t": 44, "b": 50},
        "legend": {"orientation": "h", "x": 0, "y": 1.03, "yanchor": "bottom"},
        "xaxis": {"title": {"text": "token of the text"}, "showgrid": False},
        "yaxis": {"range": [0, max(0.1, 1.14 * float(shown.weights.max()))]},
        "annotations": notes,
    }
    written = clean(shown.emitted, 30).strip()
    return FigureCard(
        "head-tokens",
        f"Attention of head {head_name(*head)} while “{written}” is written",
        {"data": traces, "layout": layout},
        HOW_TO_READ,
        f"Bars over {len(shown.tokens)} tokens of example {example}: {percent(shown.weights[needle].sum(), 0)} of the "
        f"attention lies on the needle’s answer, most on token {best[0]} ({shown.roles[best[0]] or 'no role'}).",
        _frame(shown),
    )


def _frame(shown: TokenRow) -> pd.DataFrame:
    return pd.DataFrame({"token": shown.tokens, "role": shown.roles, "weight": shown.weights})


@figure("head-tokens", 316)
def _(data: RunData) -> FigureCard | None:
    return attention_on_tokens(data)
