"""Studies of several parts: each part is done or leaves its reason, and a broken-off study goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from probes.errors import FathometerError, InputError, RunError, StoreError
from probes.runs.keep import Progress
from probes.runs.read import RunView
from probes.runs.write import Run

Outcome = dict[str, Any]  # part, applies, reason: a row of the table `applies`


@dataclass(frozen=True)
class Previous:
    """What a broken-off run left: parts that were done need not be done again, nor what another part had written."""

    measurements: pd.DataFrame
    tables: dict[str, pd.DataFrame]

    @classmethod
    def of(cls, run: Run) -> Previous | None:
        """What an earlier start of this run wrote down, unfinished parts included; None where there is no table.

        `applies` is always among the tables, and empty where no part was finished.
        """
        view = RunView(run.path)
        tables = {name: view.table(name) for name in view.tables()}
        if not tables:
            return None
        tables.setdefault("applies", pd.DataFrame(columns=["part", "applies", "reason"]))
        return cls(view.measurements, tables)

    @property
    def done(self) -> dict[str, Outcome]:
        """The rows of `applies` by part."""
        rows = self.tables.get("applies", pd.DataFrame())
        return {str(row["part"]): dict(row) for row in rows.to_dict("records")}

    def rows_of(self, measures: Iterable[str]) -> pd.DataFrame:
        """The tidy rows of these measures."""
        rows: Any = self.measurements
        return rows[rows["measure"].isin(list(measures))]


def do_parts(
    parts: Sequence[str],
    done: dict[str, Outcome],
    do: Callable[[str], None],
    write: Callable[[list[Outcome]], None],
    progress: Progress,
) -> None:
    """Do each of `parts` that is not in `done` yet, and write all outcomes down after each.

    A part that does not apply leaves its reason, and the rest goes on; an option that is wrong for every part
    (`InputError`), or a disk that is full, ends the study.

    >>> def do(part):
    ...     if part == "mask":
    ...         raise FathometerError("no [MASK]")
    >>> do_parts(["length", "mask"], {}, do, lambda rows: print(rows[-1]), lambda *_: None)
    {'part': 'length', 'applies': True, 'reason': None}
    {'part': 'mask', 'applies': False, 'reason': 'no [MASK]'}
    """
    for at, name in enumerate(parts):
        if name in done:
            continue
        progress(at, len(parts), name)
        try:
            do(name)
        except (InputError, StoreError, RunError):
            raise
        except FathometerError as error:
            done[name] = {"part": name, "applies": False, "reason": str(error)}
        else:
            done[name] = {"part": name, "applies": True, "reason": None}
        write([done[part] for part in parts if part in done])
