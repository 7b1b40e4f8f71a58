"""Foreign text on a page. Names, messages and dataset texts never go through Markdown: Streamlit would fetch a remote
image in them. They are shown with `st.text`, `st.code`, `st.dataframe`, or here, escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

import streamlit as st

from probes.report.text import clean

_NOT_PLAIN = re.compile(r"[^\w .,=×+-]")


def heading(text: str, below: str = "") -> None:
    """The page's title, with a line below it."""
    line = f'<p style="margin:0;opacity:.75">{html.escape(clean(below, 400))}</p>' if below else ""
    size = "font-size:1.75rem;line-height:1.25;padding:0;margin:0;overflow-wrap:anywhere"
    st.html(f'<h1 style="{size}">{html.escape(clean(text, 200))}</h1>{line}')


def section(text: str) -> None:
    """A section's title."""
    style = "font-size:1.15rem;padding:0;margin:1rem 0 0"
    st.html(f'<h2 style="{style}">{html.escape(clean(text, 500))}</h2>')


def small(text: str) -> None:
    """A note in small print, below what it explains."""
    if text:
        style = "margin:0;font-size:.875rem;line-height:1.45;opacity:.75;overflow-wrap:anywhere"
        st.html(f'<p style="{style}">{html.escape(clean(text))}</p>')


def lines(sentences: Sequence[str]) -> None:
    """Sentences, a line each."""
    st.text("\n".join(sentences))


def points(sentences: Sequence[str]) -> None:
    """Sentences as the points of a list, with room between them."""
    style = "margin:0 0 .45rem;overflow-wrap:anywhere;line-height:1.45"
    held = "".join(f'<li style="{style}">{html.escape(clean(each))}</li>' for each in sentences)
    if held:
        st.html(f'<ul style="margin:.3rem 0 0;padding-left:1.2rem;max-width:60rem">{held}</ul>')


def tag(text: str) -> str:
    """A short name without any character that Markdown gives a meaning, for labels that interpret it.

    >>> tag("![x](http://a) translated")
    'x http a translated'
    """
    return " ".join(_NOT_PLAIN.sub(" ", clean(text, 60)).split()) or "unnamed"
