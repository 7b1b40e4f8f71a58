"""Names of the files in a run folder, and the states a run can be in."""

from __future__ import annotations

from typing import Literal

SCHEMA_VERSION = 1

RUN = "run.json"
MEASUREMENTS = "measurements.parquet"
MEASURES = "measures.json"
DECISION = "decision.json"
REPORT_HTML = "report.html"
REPORT_MD = "report.md"
LOG = "log.txt"
TABLES = "tables"
LOCK = "LOCK"  # held by the process that writes the run; no part of its results

Status = Literal["running", "finished", "failed", "interrupted"]
STATUSES: tuple[Status, ...] = ("running", "finished", "failed", "interrupted")
