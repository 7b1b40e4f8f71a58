"""What the terminal says of a run of heads: the best ones; the report has the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
import synthetic_heads

from probes.cli import findings
from probes.report import RunData
from probes.report.content import verdict
from probes.runs import RunView


def test_the_terminal_shows_ten_heads_and_the_report_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = RunView(synthetic_heads.write_heads_run(tmp_path, parts=("retrieval",)))
    table = verdict(RunData.of(view)).table
    assert table is not None
    assert len(table.rows) == 40
    with findings.console.capture() as told:
        findings.print_findings(view)
    printed = [
        line for line in told.get().splitlines() if line.split()[:1] and line.split()[0].isdigit()
    ]
    ranks = [line.split()[0] for line in printed if "." in line.split()[1]]
    assert ranks[:10] == [str(n) for n in range(1, 11)]
    assert "11" not in ranks
    assert "and 30 more rows in the report" in told.get()
