"""Run folders: what an analysis writes, and what reports and the dashboard read."""

from __future__ import annotations

from probes.runs.keep import Findings, Keep, Progress
from probes.runs.parts import Previous, do_parts
from probes.runs.read import RunView, find_run, list_runs
from probes.runs.write import Run

__all__ = [
    "Findings",
    "Keep",
    "Previous",
    "Progress",
    "Run",
    "RunView",
    "do_parts",
    "find_run",
    "list_runs",
]
