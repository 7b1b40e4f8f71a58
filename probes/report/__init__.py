"""Reports: a run folder in, one self-contained page out; and the figures that the dashboard shares."""

from __future__ import annotations

from probes.report.build import build_report
from probes.report.data import Cell, RunData
from probes.report.figures import FigureCard

__all__ = ["Cell", "FigureCard", "RunData", "build_report"]
