"""Writing a run folder: created in place with status `running`, every file replaced atomically."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd

from probes.errors import FathometerError, RunError
from probes.files import make_dir, safe_name, write_json, write_text, writing
from probes.locks import DriverLock
from probes.runs import layout
from probes.runs.environment import hardware, versions
from probes.runs.read import RunView
from probes.tables import measures_json, validate, write_table

_SECONDS_BETWEEN_WRITES = 0.5


def now() -> str:
    """This moment as ISO 8601 in UTC, whatever the time zone of the machine."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def slug_for(*parts: str) -> str:
    """A folder name out of free text: the parts' last path components, joined by dashes.

    >>> slug_for("exit-layers", "/models/My Model", "data/stsb dev.csv")
    'exit-layers-my-model-stsb-dev'
    """
    names = [re.sub(r"[^a-z0-9._]+", "-", Path(part).stem.lower()).strip("-.") for part in parts]
    return "-".join(name[:20] for name in names if name)[:56].strip("-.") or "run"


class Run:
    """An open run folder; use it in `with`, so that a failure or an interruption is written down.

    The folder's lock is held until `finish` or `fail`, or the end of the process: a run has one writer.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with Run.create(Path(parent), "exit-layers", {"seed": 0}, slug="try") as run:
    ...         run.progress(1, 2, "half way")
    ...     RunView(run.path).info["status"]
    'finished'
    """

    def __init__(self, path: Path, info: dict[str, Any], lock: DriverLock) -> None:
        self.path = path
        self.info = info
        self._lock = lock  # held
        self._before: dict[str, Any] = {}  # `run.json` as it was when the run was continued
        self._frames: list[pd.DataFrame] = []
        self._last_write = 0.0
        self._started = time.monotonic()

    @classmethod
    def create(
        cls, parent: Path, analysis: str, options: Mapping[str, Any], slug: str | None = None
    ) -> Run:
        """A new folder `parent/slug`; a number is appended when no slug was asked for and the name is taken."""
        make_dir(parent)
        base = (
            safe_name(slug, "run name")
            if slug
            else slug_for(analysis, *(str(options.get(k) or "") for k in ("model", "data")))
        )
        path = _claim(parent, base, exact=slug is not None)
        info: dict[str, Any] = {
            "schema": layout.SCHEMA_VERSION,
            "analysis": analysis,
            "options": dict(options),
            "model": None,
            "datasets": [],
            "seed": options.get("seed"),
            "versions": versions(),
            "hardware": hardware(),
            "status": "running",
            "progress": {"done": 0, "total": None, "text": "starting"},
            "created": now(),
            "updated": now(),
            "finished": None,
            "seconds": None,
            "message": None,
        }
        run = cls(path, info, _locked(path))
        with writing(path):
            (path / layout.TABLES).mkdir()
        run._write()
        return run

    @classmethod
    def reopen(cls, path: Path) -> Run:
        """Continue a run that did not finish: same folder, same options. Captured activations are reused by
        fingerprint, so only what was lost is computed again. Refused while another process writes the run."""
        _continuable(
            RunView(path)
        )  # before the lock, which would make a file in a folder that is no run
        lock = _locked(path)
        info = _continuable(RunView(path))  # once more: the first writer may have ended meanwhile
        run = cls(path, info, lock)
        run._before = dict(info)
        info.update(status="running", message=None, versions=versions(), hardware=hardware())
        run._write()
        return run

    def describe(
        self, *, model: Mapping[str, Any] | None = None, dataset: Mapping[str, Any] | None = None
    ) -> None:
        """Write down what the run works on; datasets are appended, one entry per name.

        Raises `RunError` when a run is continued with other data or other weights than it was begun with.
        """
        if model is not None:
            old = self._before.get("model") or {}
            self._refuse_change(
                "weights_hash", f"weights of model {model.get('name')!r}", old, model
            )
            self.info["model"] = dict(model)
        if dataset is not None:
            name = dataset.get("name")
            for old in self._before.get("datasets") or []:
                if old.get("name") == name:
                    self._refuse_change("hash", f"data of {name!r}", old, dataset)
            others = [d for d in self.info["datasets"] if d.get("name") != dataset.get("name")]
            self.info["datasets"] = [*others, dict(dataset)]
        self.info["hardware"] = hardware()
        self._write()

    def _refuse_change(
        self, key: str, what: str, old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> None:
        before, after = old.get(key), new.get(key)
        if before is not None and before != after:
            raise RunError(
                f"run {self.path.name!r} cannot be continued: the {what} changed since it was begun "
                f"({key} {str(before)[:12]}, now {str(after)[:12]}): start a new run instead"
            )

    def progress(self, done: int, total: int | None, text: str) -> None:
        """Tell readers how far the run is; written at most twice a second, except when the text changes."""
        new_text = text != self.info["progress"]["text"]
        self.info["progress"] = {"done": done, "total": total, "text": text}
        if new_text:
            self.log(text)
        if new_text or time.monotonic() - self._last_write >= _SECONDS_BETWEEN_WRITES:
            self._write()

    def note(self, text: str) -> None:
        """Something a reader of the results must know: kept in `run.json`, shown in the report."""
        told: list[str] = self.info.get("warnings", [])
        if text not in told:  # a continued run comes by the same place twice
            self.info["warnings"] = [*told, text]
        self._write()

    def log(self, text: str) -> None:
        """Append one line to `log.txt`."""
        with writing(self.path), (self.path / layout.LOG).open("a", encoding="utf-8") as handle:
            handle.write(f"{now()} {text}\n")

    def add(self, rows: pd.DataFrame) -> None:
        """Add tidy rows; `measurements.parquet` and `measures.json` are replaced at once."""
        self._frames.append(validate(rows))
        frame = pd.concat(self._frames, ignore_index=True)
        write_table(self.path / layout.MEASUREMENTS, frame)
        write_json(self.path / layout.MEASURES, measures_json(frame))

    def write_table(self, name: str, frame: pd.DataFrame) -> None:
        """Replace `tables/<name>.parquet`."""
        write_table(self.path / layout.TABLES / f"{safe_name(name, 'table name')}.parquet", frame)

    def write_decision(self, decision: Mapping[str, Any]) -> None:
        """Replace `decision.json`."""
        write_json(self.path / layout.DECISION, dict(decision))

    def write_text(self, name: str, text: str) -> None:
        """Replace a text file of the run folder."""
        write_text(self.path / safe_name(name, "file name"), text)

    def finish(self) -> None:
        """Mark the run as finished."""
        self._close("finished", None)

    def fail(self, message: str, status: layout.Status = "failed") -> None:
        """Mark the run as failed or interrupted; the message says why."""
        try:
            self.log(f"{status}: {message}")
            self._close(status, message)
        finally:
            self._lock.release()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish()
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            self.fail(
                f"stopped; continue with: fathometer run --resume {self.path.name}", "interrupted"
            )
        elif isinstance(error, FathometerError):
            self.fail(str(error))
        else:
            self.fail(f"{type(error).__name__}: {error}")

    def _close(self, status: layout.Status, message: str | None) -> None:
        self.info.update(
            status=status,
            message=message,
            finished=now(),
            seconds=round(time.monotonic() - self._started, 3),
        )
        try:
            self._write()
        finally:
            self._lock.release()

    def _write(self) -> None:
        self.info["updated"] = now()
        write_json(self.path / layout.RUN, self.info)
        self._last_write = time.monotonic()


def _locked(path: Path) -> DriverLock:
    """The folder's lock, taken; `RunError` with the writer's process number when somebody has it."""
    lock = DriverLock(path / layout.LOCK, RunError)
    with writing(path / layout.LOCK):
        lock.acquire()
    return lock


def _continuable(view: RunView) -> dict[str, Any]:
    """What `run.json` says of a run that can go on; `RunError` for any other."""
    if view.problem:
        raise RunError(f"run {view.slug!r} cannot be continued: {view.problem}")
    if view.info["status"] == "finished":
        raise RunError(f"run {view.slug!r} is finished: start a new run instead")
    return dict(view.info)


def _claim(parent: Path, base: str, *, exact: bool) -> Path:
    """Create the folder; mkdir is atomic, so two runs that start together get two names."""
    for number in range(1, 10_000):
        path = parent / (base if number == 1 else f"{base}-{number}")
        try:
            with writing(path):
                path.mkdir()
        except FileExistsError:
            if exact:
                raise RunError(
                    f"a run named {base!r} is already in {parent}: choose another --name"
                ) from None
            continue
        return path
    raise RunError(f"{parent} holds 10,000 runs named {base!r}: choose another folder with --runs")
