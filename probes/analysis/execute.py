"""Running an analysis into a folder: warnings become notes, SIGTERM a clean stop, the end a report."""

from __future__ import annotations

import shlex
import signal
import threading
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from probes.analysis.declare import Analysis, Progress
from probes.errors import FathometerError, RunError
from probes.files import runs_dir
from probes.report import build_report
from probes.runs import Run, RunView

NOTE = "note: "  # how a progress text begins that is a remark and no stage of the work


@contextmanager
def _stoppable() -> Generator[None]:
    """SIGTERM ends the work like Ctrl-C does, at the next safe point, with exit code 143."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _warnings_as_notes(run: Run, progress: Progress) -> Generator[None]:
    """Warnings meant for users (texts that were cut, values that overflowed) go to the run's log and to the terminal as
    one line each, without the place in our code that raised them."""
    seen: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_rest: Any, **_more: Any) -> None:
        text = f"{NOTE}{message}"
        if issubclass(category, UserWarning) and text not in seen:
            seen.add(text)
            run.note(str(message))
            progress(0, None, text)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


def resume_command(path: Path) -> str:
    """The command that continues the run in `path`, to be pasted into a shell.

    >>> resume_command(Path("my runs/one"))
    "fathometer run --resume one --runs 'my runs'"
    """
    words = ["fathometer", "run", "--resume", path.name]
    if path.parent.resolve() != runs_dir().resolve():
        words += ["--runs", str(path.parent)]
    return shlex.join(words)


def execute(
    analysis: Analysis,
    given: Mapping[str, Any],
    *,
    runs: Path,
    name: str | None = None,
    resume: RunView | None = None,
    progress: Progress | None = None,
) -> Path:
    """Run `analysis` into a new folder (or continue `resume`), write its report, and return the folder.

    Options and names are checked before the folder is made, so that a misspelt one leaves nothing behind.
    """
    if resume is not None:
        if resume.info.get("analysis") != analysis.name:
            raise RunError(f"run {resume.slug!r} belongs to {resume.info.get('analysis')!r}")
        options = analysis.check(resume.info["options"])
        run = Run.reopen(resume.path)
    else:
        options = analysis.check(given)
        analysis.precheck(options)
        run = Run.create(runs, analysis.name, options, name)

    def tell(done: int, total: int | None, text: str) -> None:
        run.progress(done, total, text)
        if progress is not None:
            progress(done, total, text)

    try:
        with _stoppable(), _warnings_as_notes(run, tell), run:
            analysis.run(run, options, tell)
            tell(0, None, "writing the report")
            build_report(run.path)
    except FathometerError:
        if RunView(run.path).tables():
            build_report(run.path)  # what had been found, and why there is no more
        raise
    except (KeyboardInterrupt, SystemExit):
        if progress is not None:
            progress(0, None, f"{NOTE}stopped; continue with: {resume_command(run.path)}")
        raise
    build_report(run.path)  # once more, so that the report itself says that the run is finished
    return run.path
