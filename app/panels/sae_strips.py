"""Examples of a feature on the text itself: every token shaded by its activation, the strongest outlined."""

from __future__ import annotations

import html
from collections.abc import Sequence

import streamlit as st

from probes.report.sae_examples import Example, visible
from probes.report.text import clean, significant

_FAINT = 0.04  # of the highest activation: less is not shaded
_BOX = (
    "max-height:30rem;overflow-y:auto;overflow-wrap:anywhere;line-height:1.7;font-size:.95rem;"
    "border:1px solid rgba(127,135,144,.4);border-radius:.5rem;padding:.4rem .8rem"
)
_ROW = "display:flex;gap:.8rem;padding:.2rem 0;border-bottom:1px solid rgba(127,135,144,.18)"
_SIZE = "flex:none;width:3.6rem;text-align:right;opacity:.7;font-variant-numeric:tabular-nums"
_TEXT = "white-space:pre-wrap;min-width:0"
_HEAD = "font-size:.85rem;opacity:.75;padding:.45rem 0 .1rem"
_PEAK = "outline:1.5px solid #D55E00;border-radius:2px;font-weight:600"


def strips(kept: dict[str, Sequence[Example]], name: str, top: float) -> None:
    """Examples by quantile, each on a line of its own with its activation; every text is escaped.

    `top` is the highest activation of the feature: a token is shaded by its share in that.
    """
    parts: list[str] = []
    for quantile, examples in kept.items():
        parts.append(f'<div style="{_HEAD}">{html.escape(_quantile(quantile))}</div>')
        parts += [_line(example, top) for example in examples]
    title = html.escape(clean(name, 120), quote=True)
    st.html(
        f'<div role="figure" aria-label="{title}" tabindex="0" style="{_BOX}">{"".join(parts)}</div>'
    )


def _quantile(name: str) -> str:
    return "Highest activations" if name == "top" else f"{clean(name, 30)} of its activations"


def _line(example: Example, top: float) -> str:
    spans = "".join(
        _token(token, value, top, at == example.peak)
        for at, (token, value) in enumerate(zip(example.tokens, example.values, strict=True))
    )
    size = html.escape(significant(example.activation))
    return f'<div style="{_ROW}"><span style="{_SIZE}">{size}</span><span style="{_TEXT}">{spans}</span></div>'


def _token(token: str, value: float, top: float, peak: bool) -> str:
    text = html.escape(clean(visible(token), 60))
    share = min(max(value, 0.0) / top, 1.0) if top > 0 else 0.0
    looks: list[str] = []
    if share >= _FAINT:
        looks.append(f"background:rgba(0,114,178,{0.12 + 0.5 * share:.2f})")
    if peak:
        looks.append(_PEAK)
    if not looks:
        return text
    told = html.escape(significant(value), quote=True)
    return f'<span title="{told}" style="{";".join(looks)}">{text}</span>'
