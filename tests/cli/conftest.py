"""A small analysis in a folder of its own, found by the command line like the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

SCRIPT = """
from probes.analysis import Analysis, Option
from probes.errors import DataError
from probes.tables import tidy


def run(run, options, progress):
    marker = run.path / "attempts.txt"
    marker.write_text(marker.read_text() + "x" if marker.exists() else "x")
    progress(0, 2, "counting")
    if options["break_with"] == "data":
        raise DataError("line 7 of data.csv is empty: remove it")
    if options["break_with"] == "defect":
        raise ZeroDivisionError("a defect")
    if options["break_with"] == "ctrl-c" and marker.read_text() == "x":
        raise KeyboardInterrupt
    run.add(tidy([{"measure": "accuracy", "layer": 0, "value": options["share"], "n": 10}]))
    progress(2, 2, "counting")


ANALYSIS = Analysis(
    name="toy-count",
    title="Counting",
    question="How much is there?",
    options=(
        Option("share", float, 0.5, "Share to report.", low=0, high=1),
        Option("break_with", str, "nothing", "How to fail.", ("nothing", "data", "defect", "ctrl-c")),
        Option("limit", int, None, "A number or nothing."),
        Option("careful", bool, False, "A switch."),
    ),
    run=run,
    summary=lambda view: f"share {view.info['options']['share']} [not markup]",
)
"""


@pytest.fixture
def toy_analysis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of runs, with `toy-count` as the only analysis."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "toy_count.py").write_text(SCRIPT)
    monkeypatch.setattr("probes.analysis.load.bundled", lambda name: scripts)
    return tmp_path / "runs"
