"""Runs as zip files: export, strict import, deletion. What comes in is a stranger's until every name is checked."""

from __future__ import annotations

import io
import lzma
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from probes.errors import FathometerError, InputError, RunError
from probes.files import make_dir, safe_name, writing
from probes.report.build import build_report
from probes.runs import RunView

LIMIT_BYTES = 200_000_000
_LIMIT_MEMBERS = 200
_FILES = {"run.json", "measurements.parquet", "measures.json", "decision.json", "log.txt"}
_MADE = {
    "report.html",
    "report.md",
    "measurements.csv",
}  # made again here: a stranger's page is never kept
_LOCK = "LOCK"  # of the machine the run was written on: left out on the way out and in
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, EOFError)
_TABLE = re.compile(r"tables/[A-Za-z0-9._-]{1,64}\.parquet")


def export_run(path: Path) -> bytes:
    """A zip of the run folder's own files, below one folder named like the run."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(path.rglob("*")):
            name = file.relative_to(path).as_posix()
            if file.is_file() and not file.is_symlink() and _kind(name) in ("kept", "made"):
                archive.write(file, f"{path.name}/{name}")
    return held.getvalue()


def import_run(parent: Path, data: bytes) -> str:
    """Unpack one exported run into `parent` and give its name.

    Refused, with nothing left behind: other files than a run has, absolute or climbing names, links, doubled names,
    more than 200 MB unpacked, a damaged zip or run, and a name that is already taken. The report is made anew.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            slug, members = _checked(archive)
            make_dir(parent)
            return _place(parent, slug, archive, members)
    except (*_DAMAGED, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's; the one without a number is bzip2's word for damaged data
        raise InputError(
            f"the file is no zip that can be read ({error}): export the run again"
        ) from None


def delete_run(parent: Path, slug: str) -> None:
    """Remove the run folder `slug`, a name from the listing of `parent`; it disappears at once or not at all."""
    listed = {entry.name: entry for entry in os.scandir(parent)} if parent.is_dir() else {}
    entry = listed.get(slug)
    if entry is None or entry.is_symlink() or not entry.is_dir():
        raise RunError(f"no run named {slug[:80]!r} in {parent}")
    path = Path(entry.path)
    with writing(path):
        doomed = tempfile.mkdtemp(prefix=".deleted-", dir=parent)
        try:
            os.replace(path, Path(doomed) / "run")
        except FileNotFoundError:
            os.rmdir(doomed)
            raise RunError(f"run {slug!r} is gone: somebody else deleted it") from None
        shutil.rmtree(doomed)


def _kind(name: str) -> str | None:
    """`kept`, `made` or `lock` for a file that a run has, None for any other."""
    if name == _LOCK:
        return "lock"
    if name in _FILES or _TABLE.fullmatch(name):
        return "kept"
    return "made" if name in _MADE else None


def _checked(archive: zipfile.ZipFile) -> tuple[str, list[tuple[zipfile.ZipInfo, str]]]:
    """The run's name and the members to unpack, once all of them are allowed."""
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > _LIMIT_MEMBERS:
        raise InputError(f"the zip holds {len(infos)} files, a run has at most {_LIMIT_MEMBERS}")
    slug = ""
    seen: set[str] = set()
    members: list[tuple[zipfile.ZipInfo, str]] = []
    for info in infos:
        shown = info.filename[:80]
        folder, _, name = info.filename.partition("/")
        kind = _kind(name)
        if kind is None or ".." in PurePosixPath(info.filename).parts or "\\" in info.filename:
            raise InputError(f"the zip holds {shown!r}, which is no file of a run")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise InputError(f"the zip holds the link {shown!r}: links are not allowed")
        if info.filename in seen or (slug and folder != slug):
            raise InputError(
                f"the zip holds {shown!r} twice or beside another run: one run per zip"
            )
        slug = safe_name(folder, "run name")
        seen.add(info.filename)
        if kind == "kept":
            members.append((info, name))
    if f"{slug}/run.json" not in seen:
        raise InputError("the zip holds no run: <name>/run.json is missing")
    if slug.startswith("."):
        raise InputError(f"bad run name {slug!r}: it must not begin with a dot")
    if sum(info.file_size for info, _ in members) > LIMIT_BYTES:
        raise InputError(f"the run is larger than {LIMIT_BYTES // 1_000_000} MB unpacked")
    return slug, members


def _place(
    parent: Path, slug: str, archive: zipfile.ZipFile, members: list[tuple[zipfile.ZipInfo, str]]
) -> str:
    """Unpack into a hidden folder, look whether it is a run, then give it its name in one step."""
    if (parent / slug).exists():
        raise InputError(f"a run named {slug!r} is already there: delete or rename it first")
    with writing(parent):
        staging = Path(tempfile.mkdtemp(prefix=".import-", dir=parent))
    try:
        folder = staging / slug
        (folder / "tables").mkdir(parents=True)
        budget = LIMIT_BYTES
        for info, name in members:
            with archive.open(info) as source, writing(folder / name):
                budget -= _copy(source, folder / name, budget)
        problem = RunView(folder).problem
        if problem:
            raise InputError(f"the zip holds no readable run: {problem}")
        build_report(folder)
        (parent / slug).mkdir()  # claims the name: fails when somebody else took it meanwhile
        os.replace(folder, parent / slug)
    except FileExistsError:
        raise InputError(
            f"a run named {slug!r} is already there: delete or rename it first"
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return slug


def _copy(source: object, target: Path, budget: int) -> int:
    """Write at most `budget` bytes, whatever the zip's directory claims about their number."""
    written = 0
    with target.open("xb") as handle:
        while block := source.read(1 << 20):  # type: ignore[attr-defined]
            written += len(block)
            if written > budget:
                raise FathometerError("the run is larger unpacked than the zip says: refused")
            handle.write(block)
    return written
