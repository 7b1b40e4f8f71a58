"""`export_exit`: the exit that a run chose, as a model folder that works without Fathometer, and the proof of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from probes.errors import FathometerError, InputError, unknown_name
from probes.exits.export.card import write_card
from probes.exits.export.source import Exit, open_exit, promise_of
from probes.exits.export.stock import write_stock
from probes.exits.export.verify import Timing, Verification, Writer, verify_export
from probes.files import make_dir, runs_dir, write_json, write_text, writing
from probes.runs import RunView, find_run

FORMATS = ("sentence-transformers", "transformers")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """Where the model lies, which candidate it is, and what the checks found (None: not asked for)."""

    path: Path
    candidate: str
    verification: Verification | None


def export_exit(
    run: str | Path | RunView,
    to: str | Path,
    candidate: str | None = None,
    *,
    format: str = "sentence-transformers",
    with_code: bool = False,
    verify: bool = True,
    timing: Timing | None = None,
    runs: str | Path | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write an exit of a finished exit-layers run as a model folder, and check it in a process without Fathometer.

    Args:
        run: name or path of the run.
        to: folder to make; it must not exist, or be empty.
        candidate: such as "translated:3x64"; default the chosen one. Kept are the chosen one and the alternatives that
            passed; raw ones can always be exported.
        format: `sentence-transformers` (stock modules; for classification `encode` gives the scores of the classes) or
            `transformers` (for classification a sequence classifier).
        with_code: allow a small Python file of its own in the folder, where stock classes cannot express the exit.
        verify: embeddings against captured ones, quality on the test part, share of time; see `verification.json`.
        timing: how long the time is measured.
        runs: parent of the runs.
        progress: is told each stage.

    Returns an `Exported`; `verification.passed` says how it went, and the folder stays where it is either way.

    Raises `InputError` for an unknown run, candidate or format, a folder that is not empty, or nothing chosen;
    `DoesNotApply` where the format cannot express the candidate; `RunError` where model or data have changed.

    >>> export_exit("exit-layers-minilm-pairs", to="small-model").path  # doctest: +SKIP
    PosixPath('small-model')
    """
    tell = progress or (lambda text: None)
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    target = Path(to).expanduser()
    _check_target(target)
    view = run if isinstance(run, RunView) else find_run(runs_dir(runs), str(run))
    tell("reading run and model")
    exit_ = open_exit(view, candidate)
    write = _writer(format, with_code)
    tell(f"writing {exit_.name}")
    _place(target, exit_, write)
    write_text(target / "README.md", write_card(target, exit_, format, None))
    if not verify:
        return Exported(target, exit_.name, None)
    tell("checking it in a process of its own")
    code = (target / "modeling_exit.py").exists()
    try:
        found = verify_export(target, exit_, format, code, write, timing)
    except FathometerError as error:
        raise type(error)(f"{target} was written, but not verified: {error}") from error
    write_text(target / "README.md", write_card(target, exit_, format, found))
    return Exported(target, exit_.name, found)


def _writer(format: str, with_code: bool) -> Writer:
    if format == "sentence-transformers":
        return write_stock
    from probes.exits.export.classes import write_transformers

    return partial(write_transformers, with_code=with_code)


def _check_target(target: Path) -> None:
    if target.is_dir() and any(target.iterdir()):
        raise InputError(f"{target} is not empty: name a folder that does not exist yet")
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file: name a folder that does not exist yet")


def _place(target: Path, exit_: Exit, write: Writer) -> None:
    """Written beside the target and moved there when it is whole, so that half a model never lies there."""
    parent = make_dir(target.absolute().parent)
    with writing(target):
        partial_folder = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}.", dir=parent))
        try:
            write(partial_folder, exit_)
            write_json(partial_folder / "decision.json", _decision(exit_))
            for path in [partial_folder, *partial_folder.rglob("*")]:
                path.chmod(0o755 if path.is_dir() else 0o644)  # a model is meant to be shared
            os.replace(partial_folder, target)
        except BaseException:
            shutil.rmtree(partial_folder, ignore_errors=True)
            raise


def _decision(exit_: Exit) -> dict[str, object]:
    """The run's decision, and which candidate lies here."""
    promise = promise_of(exit_.view, exit_.candidate)
    exported = {
        **vars(exit_.candidate),
        "name": exit_.name,
        "quality": promise.quality,
        "measure": promise.measure,
    }
    return {**(exit_.view.decision or {}), "exported": exported}
