"""Where a head looks, on the text itself: every token shaded by its attention, the needle outlined."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import streamlit as st

from probes.report.figures.head_tokens import NEEDLE, SENTENCE, TokenRow
from probes.report.text import clean, number, percent

_NEAR = 8  # tokens shown on either side of what is worth seeing
_SEEN = 0.02  # attention from which a token is worth seeing
_FAINT = 0.03  # of the highest attention: less is not shaded
_PLAIN = ("context", "")  # roles of tokens that may be left out
_BOX = (
    "max-height:22rem;overflow-y:auto;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.75;"
    "border:1px solid rgba(127,135,144,.4);border-radius:.5rem;padding:.6rem .8rem;font-size:.95rem"
)
_OUTLINE = "outline:2px solid #D55E00;border-radius:2px;font-weight:600"
_UNDERLINE = "border-bottom:2px dotted #D55E00"


def token_strip(shown: TokenRow, name: str) -> None:
    """The text with every token escaped; long stretches that get no attention are counted, not shown."""
    weights = np.clip(shown.weights, 0.0, 1.0)
    top = max(float(weights.max(initial=0.0)), 1e-9)
    parts: list[str] = []
    for first, last, keep in stretches(shown.roles, weights):
        if keep:
            parts += [
                _token(shown.tokens[at], shown.roles[at], float(weights[at]), top)
                for at in range(first, last)
            ]
        else:
            left = percent(weights[first:last].sum(), 0)
            parts.append(
                f'<span style="opacity:.65"> ⋯ {last - first} tokens with {left} of the attention ⋯ </span>'
            )
    title = html.escape(clean(name, 120), quote=True)
    st.html(
        f'<div role="figure" aria-label="{title}" tabindex="0" style="{_BOX}">{"".join(parts)}</div>'
    )


def stretches(roles: Sequence[str], weights: np.ndarray) -> list[tuple[int, int, bool]]:
    """Ranges of tokens (first, end) with whether they are shown: what gets attention or is no plain context, and its
    neighbours."""
    seen = np.array([role not in _PLAIN for role in roles], dtype=bool) | (weights >= _SEEN)
    near = seen.copy()
    for at in np.flatnonzero(seen):
        near[max(0, at - _NEAR) : at + _NEAR + 1] = True
    edges = [0, *(np.flatnonzero(near[1:] != near[:-1]) + 1).tolist(), len(near)]
    found = [(a, b, bool(near[a])) for a, b in pairwise(edges) if b > a]
    return [(a, b, keep or b - a <= 2 * _NEAR) for a, b, keep in found]


def _token(token: str, role: str, weight: float, top: float) -> str:
    text = html.escape(clean(token, 60))
    looks: list[str] = []
    if weight >= _FAINT * top:
        looks.append(f"background:rgba(0,114,178,{0.65 * weight / top:.2f})")
    if role == NEEDLE:
        looks.append(_OUTLINE)
    elif role == SENTENCE:
        looks.append(_UNDERLINE)
    if not looks:
        return text
    told = html.escape(f"{clean(role, 30)}: {number(weight)}", quote=True)
    return f'<span title="{told}" style="{";".join(looks)}">{text}</span>'
