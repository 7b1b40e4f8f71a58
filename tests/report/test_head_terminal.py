"""What the terminal says of a run of heads: the best ones; the report has the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
import synthetic_heads
from rich.console import Console

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


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_narrow_terminal_loses_columns_from_the_right_and_no_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    view = RunView(synthetic_heads.write_heads_run(tmp_path))
    monkeypatch.setattr(findings, "console", Console(width=width))
    with findings.console.capture() as told:
        findings.print_findings(view)
    (row,) = [line for line in told.get().splitlines() if line.split()[:2] == ["1", "16.3"]]
    assert "0.620" in row
    (head,) = [line for line in told.get().splitlines() if line.split()[:2] == ["rank", "head"]]
    assert ("induction" in head) == (width == 200)
