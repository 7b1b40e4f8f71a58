"""report.md: the same content as plain Markdown, for a repository or an issue; figures as their descriptions."""

from __future__ import annotations

import re

from probes.report.content import Report
from probes.report.tables import Table
from probes.report.text import clean

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|<>~$&])")


def escape(text: str) -> str:
    """Text that Markdown shows as it is: on one line, no markup, no HTML, no link.

    >>> print(escape("![x](http://a) <b>"))
    \\!\\[x\\]\\(http:&#47;&#47;a\\) \\<b\\>
    """
    one_line = " ".join(clean(text).split())
    return _SPECIAL.sub(r"\\\1", one_line).replace("//", "&#47;&#47;")


def render_markdown(report: Report) -> str:
    """The whole report."""
    head = report.head
    lines = [f"# {escape(head.title)}", "", escape(f"{head.eyebrow} · {head.byline}"), ""]
    if report.verdict.headline:
        lines += [f"## {escape(report.verdict.headline)}", ""]
        lines += [f"{escape(sentence)}  " for sentence in report.verdict.sentences]
        lines.append("")
        if report.verdict.table is not None and report.verdict.table.rows:
            lines += _table(report.verdict.table)
    if report.caveats:
        lines += ["## Caveats", "", *(f"* {escape(caveat)}" for caveat in report.caveats), ""]
    if report.figures:
        lines += ["## Figures", "", "Drawn in report.html.", ""]
        for card in report.figures:
            lines += [f"### {escape(card.title)}", "", escape(card.alt), ""]
    for table in report.tables:
        lines += _table(table)
    lines += ["## How this was made", ""]
    if report.command:
        lines += ["```", report.command.replace("```", "'''").replace("\n", " "), "```", ""]
    for table in report.provenance:
        lines += _table(table)
    return "\n".join(lines).rstrip() + "\n"


def _table(table: Table) -> list[str]:
    rule = ["---:" if at in table.numeric else "---" for at in range(len(table.columns))]
    lines = [f"### {escape(table.title)}", ""] if table.title else []
    lines += [_row(list(table.columns)), f"|{'|'.join(rule)}|"]
    for at, row in enumerate(table.rows):
        cells = [escape(cell) for cell in row]
        lines.append(_row([f"**{c}**" if c and at == table.strong else c for c in cells]))
    return [*lines, "", *([escape(table.note), ""] if table.note else [])]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
