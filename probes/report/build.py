"""Writing a run's report: report.html, report.md and measurements.csv, each replaced atomically."""

from __future__ import annotations

from pathlib import Path

from probes.errors import RunError
from probes.files import write_text
from probes.report.content import compose
from probes.report.data import RunData
from probes.report.html import csv_text, render_html
from probes.report.markdown import render_markdown
from probes.runs import RunView, layout


def build_report(run_path: Path | str) -> Path:
    """Write the report of the run folder at `run_path` and give the path of report.html.

    Works for every run whose run.json can be read, finished or not: what is absent is left out.
    Raises `RunError` when the folder is no run.
    """
    view = RunView(Path(run_path))
    if view.problem:
        raise RunError(f"no report of {view.path.name!r}: {view.problem}")
    report = compose(RunData.of(view), view.slug)
    target = view.path / layout.REPORT_HTML
    write_text(target, render_html(report))
    write_text(view.path / layout.REPORT_MD, render_markdown(report))
    write_text(view.path / "measurements.csv", csv_text(report.measurements))
    return target
