"""Reading run folders as they are: whole, half-written, damaged or gone."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from probes.errors import DataError, RunError, unknown_name
from probes.runs import layout
from probes.tables import COLUMNS, read_table


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path.name} is missing") from None
    except (OSError, ValueError, RecursionError) as error:  # a stranger's file may nest without end
        raise DataError(f"{path.name} cannot be read: {error}") from None


class RunView:
    """A run folder for reading. Nothing here raises for a missing part: `problem` says what is wrong with the folder,
    and absent tables are empty. Parts are read once, on first use; make a new view to see changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.slug = path.name
        self.problem: str | None = None
        self.info: dict[str, Any] = {}
        try:
            info = _read_json(path / layout.RUN)
            self.problem = _problem_of(info)
            self.info = info if self.problem is None else {}
        except DataError as error:
            self.problem = str(error)

    @property
    def status(self) -> str:
        """One of `layout.STATUSES`, or "broken"."""
        return "broken" if self.problem else str(self.info["status"])

    @property
    def modified(self) -> float:
        """Modification time of `run.json` in seconds, 0 when it is missing: a key for caches."""
        try:
            return (self.path / layout.RUN).stat().st_mtime
        except OSError:
            return 0.0

    @cached_property
    def measurements(self) -> pd.DataFrame:
        """The tidy table; empty, with the right columns, when there is none yet or it holds other types."""
        try:
            return _tidy_types(read_table(self.path / layout.MEASUREMENTS))
        except (DataError, ValueError, TypeError, NotImplementedError, ArithmeticError):
            return _tidy_types(pd.DataFrame({name: [] for name in COLUMNS}))

    @cached_property
    def measures(self) -> dict[str, dict[str, Any]]:
        """The registry entries that the run carries, by name."""
        return self._json_or(layout.MEASURES, {})

    @cached_property
    def decision(self) -> dict[str, Any] | None:
        """`decision.json`, or None."""
        return self._json_or(layout.DECISION, None)

    @property
    def log(self) -> str:
        """The text of `log.txt`, empty when there is none."""
        try:
            return (self.path / layout.LOG).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def tables(self) -> list[str]:
        """Names of the tables in `tables/`."""
        return sorted(path.stem for path in (self.path / layout.TABLES).glob("*.parquet"))

    def table(self, name: str) -> pd.DataFrame:
        """One table of `tables/`; an unknown name is an error that lists the right ones."""
        if name not in self.tables():
            raise unknown_name("table", name, self.tables())
        return read_table(self.path / layout.TABLES / f"{name}.parquet")

    def size(self) -> int:
        """Bytes of all files in the folder."""
        total = 0
        for file in self.path.rglob("*"):
            try:
                total += file.stat().st_size if file.is_file() and not file.is_symlink() else 0
            except OSError:  # replaced or deleted while we look
                continue
        return total

    def _json_or(self, name: str, default: Any) -> Any:
        try:
            value = _read_json(self.path / name)
        except DataError:
            return default
        return value if isinstance(value, dict) else default


def _tidy_types(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` in the tidy columns and types; pandas and Arrow raise all kinds of errors when that cannot be."""
    return frame.reindex(columns=list(COLUMNS)).astype(COLUMNS)  # type: ignore[arg-type]


def _problem_of(info: Any) -> str | None:
    if not isinstance(info, dict):
        return "run.json is not an object"
    if info.get("schema") != layout.SCHEMA_VERSION:
        return f"run.json has schema {info.get('schema')!r}, this version reads {layout.SCHEMA_VERSION}"
    if info.get("status") not in layout.STATUSES:
        return f"run.json has status {info.get('status')!r}"
    missing = [key for key in ("analysis", "options", "created") if key not in info]
    return f"run.json has no {missing[0]!r}" if missing else None


def list_runs(parent: Path) -> list[RunView]:
    """All run folders in `parent`, newest first; broken ones are included and carry their `problem`."""
    if not parent.is_dir():
        return []
    folders = [
        p
        for p in parent.iterdir()
        if p.is_dir() and not p.is_symlink() and not p.name.startswith(".")
    ]
    views = [RunView(path) for path in folders]
    return sorted(
        views, key=lambda view: (str(view.info.get("created", "")), view.slug), reverse=True
    )


def find_run(parent: Path, name: str) -> RunView:
    """The run with this slug in `parent`, or the run folder at this path."""
    slugs = {view.slug: view for view in list_runs(parent)}
    if name in slugs:
        return slugs[name]
    if (Path(name) / layout.RUN).is_file():
        return RunView(Path(name))
    if not slugs:
        raise RunError(
            f"no run named {name!r}: {parent} holds no runs yet; make one with: fathometer demo"
        )
    raise unknown_name("run", name, slugs)
