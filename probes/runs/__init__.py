"""Run folders: what an analysis writes, and what reports and the dashboard read."""

from __future__ import annotations

from probes.runs.read import RunView, find_run, list_runs
from probes.runs.write import Run

__all__ = ["Run", "RunView", "find_run", "list_runs"]
