"""Files: durable replacement, safe names, and where the parts of Fathometer lie.

`app/`, `analyses/` and `data/` stand beside the package in a checkout and inside it in a wheel;
`bundled` finds them in both.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs

from probes.errors import FathometerError, InputError

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BAD_PLACE = (errno.ENOENT, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP)


def bundled(name: str) -> Path:
    """Folder `app`, `analyses` or `data`, in a checkout and in an installed wheel alike."""
    package = Path(__file__).resolve().parent
    for parent in (package / "_bundle", package.parent):
        if (parent / name).is_dir():
            return parent / name
    raise FathometerError(f"the folder {name!r} of Fathometer is missing: reinstall the package")


def cache_dir() -> Path:
    """Where models and activation stores are kept: `FATHOMETER_CACHE`, or the user's cache folder."""
    given = os.environ.get("FATHOMETER_CACHE")
    return Path(given).expanduser() if given else Path(platformdirs.user_cache_dir("fathometer"))


def runs_dir(given: str | Path | None = None) -> Path:
    """Parent of all run folders: the option, else `FATHOMETER_RUNS`, else `./runs`."""
    return Path(given or os.environ.get("FATHOMETER_RUNS") or "runs").expanduser()


def safe_name(name: str, kind: str = "name") -> str:
    """`name` itself if it may become a file name; raises `InputError` otherwise.

    >>> safe_name("my-run.1")
    'my-run.1'
    >>> safe_name("../etc")
    Traceback (most recent call last):
    ...
    probes.errors.InputError: bad name '../etc': 1 to 64 of the characters A-Z a-z 0-9 . _ - are allowed
    """
    if not _NAME.fullmatch(name) or set(name) == {"."}:
        shown = name if len(name) <= 64 else name[:61] + "..."
        raise InputError(
            f"bad {kind} {shown!r}: 1 to 64 of the characters A-Z a-z 0-9 . _ - are allowed"
        )
    return name


def _disk_error(path: Path, error: OSError, size: int | None = None) -> FathometerError | None:
    """What an `OSError` on writing means for the user; None when it is not theirs to mend."""
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        need = f" {size:,} bytes were needed." if size is not None else ""
        return FathometerError(
            f"disk full while writing {path}.{need} Free some space and try again"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return FathometerError(f"no write access to {path.parent}: choose another folder")
    if error.errno in _BAD_PLACE and _concerns(path, error):
        why = os.strerror(error.errno)
        return InputError(f"{_shown(path)} cannot be created: {why}: choose another folder")
    return None


def _concerns(path: Path, error: OSError) -> bool:
    """Whether the error names `path`, a folder above it or its temporary file, not a file that was only read."""
    named = [Path(os.fsdecode(n)) for n in (error.filename, error.filename2) if _is_path(n)]
    own = (path, *path.parents)
    temporary = str(path.parent / _temporary_prefix(path))
    return any(n in own or str(n).startswith(temporary) for n in named)


def _temporary_prefix(path: Path) -> str:
    return f".{path.name[:40]}."


def _is_path(name: object) -> bool:
    return isinstance(name, str | bytes | os.PathLike)


def _shown(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 200 else text[:197] + "..."


@contextlib.contextmanager
def writing(path: Path, size: int | None = None) -> Generator[None]:
    """Turn a full disk, a read-only folder or an impossible place into one clear line.

    Other errors pass unchanged, and so does a `FileNotFoundError` about another folder's file.
    """
    try:
        yield
    except OSError as error:
        friendly = _disk_error(path, error, size)
        if friendly is None:
            raise
        raise friendly from error


def make_dir(path: Path) -> Path:
    """Create `path` and its parents; a clear error when that is not allowed."""
    with writing(path):
        for part in (path, *path.parents):
            if part.exists() and not part.is_dir():
                raise InputError(f"{part} is a file, a folder is needed: choose another place")
        path.mkdir(parents=True, exist_ok=True)
    return path


def fsync_dir(path: Path) -> None:
    """Make a rename in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(temporary: str, path: Path) -> bool:
    """Give `temporary` the second name `path` unless that exists; False where hard links do not exist."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return True
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise
    return True


def replace_file(
    path: Path,
    write: Callable[[BinaryIO], Any],
    *,
    durable: bool = False,
    size: int | None = None,
    once: bool = False,
) -> None:
    """Write `path` so that a reader sees the old bytes or the new ones, never a part.

    `write` gets an open binary file. With `durable`, file and folder are synced before returning.
    On any failure the temporary file is removed and the old file is left as it was. With `once`, a file
    that is already there stays: of several writers one succeeds, and the others keep its bytes (where the
    file system has no hard links the last of several *simultaneous* writers succeeds).
    """
    with writing(path, size):
        descriptor, temporary = tempfile.mkstemp(
            prefix=_temporary_prefix(path), suffix=".tmp", dir=path.parent
        )
        try:
            with os.fdopen(descriptor, "wb") as handle:
                write(handle)
                handle.flush()
                if durable:
                    os.fsync(handle.fileno())
            os.chmod(temporary, 0o644)  # mkstemp gives 0600; a run folder is meant to be shared
            if once and (path.exists() or _link(temporary, path)):
                os.unlink(temporary)
            else:
                os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        if durable:
            fsync_dir(path.parent)


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Replace `path` atomically with UTF-8 text."""
    data = text.encode("utf-8")
    replace_file(path, lambda handle: handle.write(data), durable=durable, size=len(data))


def canonical_json(value: Any) -> str:
    """One spelling per value: sorted keys, no spaces, no NaN; what fingerprints are taken of."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def write_json(path: Path, value: Any, *, durable: bool = False) -> None:
    """Replace `path` atomically with indented JSON; NaN is refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", durable=durable)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_texts(texts: Iterable[str]) -> str:
    """Hex SHA-256 of a sequence of texts; their borders count, so ["ab"] differs from ["a", "b"]."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
