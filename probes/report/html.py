"""report.html: one file, no network, a strict Content-Security-Policy, foreign text inert.

Every script is allowed by the hash of its text; nothing may be fetched from anywhere. Text reaches the page
through Jinja2's autoescape only; figures reach it as JSON in data blocks in which no `<` is left.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from probes import __version__
from probes.report.content import Report
from probes.report.figures import FigureCard
from probes.report.figures.wide import is_wide
from probes.report.text import clean, count
from probes.report.theme import template

_TEMPLATES = Path(__file__).parent / "templates"


def render_html(report: Report) -> str:
    """The whole page."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    plotly, js = _plotly(), _asset("report.js")
    return environment.get_template("report.html.j2").render(
        title=report.head.title,
        eyebrow=report.head.eyebrow,
        byline=report.head.byline,
        version=__version__,
        csp=policy(plotly, js),
        css=Markup(_asset("report.css")),
        js=Markup(js),
        plotly=Markup(plotly),
        templates=data_block({"light": template("light"), "dark": template("dark")}),
        verdict=report.verdict,
        caveats=report.caveats,
        figures=[_figure(card) for card in report.figures],
        tables=report.tables,
        command=report.command,
        provenance=report.provenance,
        measurements=csv_uri(report.measurements),
        n_rows=count(len(report.measurements)),
    )


def policy(*scripts: str) -> str:
    """The Content-Security-Policy that lets exactly these inline scripts run and nothing be fetched."""
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    # Plotly sets style attributes and draws heatmaps as data: images; figures export through blob:.
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def data_block(value: Any) -> Markup:
    """JSON for a `<script type="application/json">`: no `<`, `>` or `&` is left that could end or open anything.

    >>> print(data_block({"a": "</script>"}))
    {"a": "\\u003c/script\\u003e"}
    """
    text = json.dumps(value, allow_nan=False)
    for sign, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(sign, code)
    return Markup(text)


def csv_text(frame: pd.DataFrame) -> str:
    """CSV of a table. Texts that a spreadsheet would run as a formula get a leading apostrophe."""
    safe = frame.copy()
    for name in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[name]):
            safe[name] = safe[name].map(_harmless, na_action="ignore")
    return safe.to_csv(index=False, lineterminator="\n")


def csv_uri(frame: pd.DataFrame) -> str:
    """A download link that carries the CSV itself."""
    encoded = base64.b64encode(csv_text(frame).encode("utf-8", "replace")).decode("ascii")
    return f"data:text/csv;charset=utf-8;base64,{encoded}"


def _harmless(value: Any) -> Any:
    text = clean(value) if isinstance(value, str) else value
    return f"'{text}" if isinstance(text, str) and text[:1] in ("=", "+", "-", "@", "\t") else text


def _figure(card: FigureCard) -> dict[str, Any]:
    spec = json.loads(str(card.figure.to_json(validate=False)))
    spec.get("layout", {}).pop("template", None)  # the page brings its own, light and dark
    return {
        "id": card.id,
        "title": clean(card.title, 400),
        "alt": clean(card.alt, 8000),
        "how_to_read": card.how_to_read,
        "wide": is_wide(spec),
        "json": data_block(spec),
        "csv": csv_uri(card.data),
    }


@cache
def _plotly() -> str:
    script = get_plotlyjs().replace("\r", "")
    if "</script" in script.lower() or "<!--" in script:
        raise AssertionError("this Plotly cannot be embedded in a page")
    return script


@cache
def _asset(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8").replace("\r", "")


@cache
def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
