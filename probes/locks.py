"""The lock of a folder's one driver: an advisory `flock` that ends with its process, however that ends.

The lock file stays when the lock is released: removing it would let two drivers lock two files of one name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from pathlib import Path

from probes.errors import FathometerError

if sys.platform != "win32":
    import fcntl

_held: set[int] = set()  # descriptors of this process; a forked child must not keep them alive


def _forget_in_child() -> None:
    for descriptor in _held:
        os.close(descriptor)  # the parent's lock lives on in the parent's own descriptor
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


class DriverLock:
    """Held by at most one owner for the folder of `path`; `acquire` refuses at once, with `error`, and names the
    holder's process. Given back by `release`, with the object, or when the process ends.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lock = DriverLock(Path(folder) / "LOCK")
    ...     lock.acquire()
    ...     print(lock.held)
    ...     lock.release()
    True
    """

    def __init__(self, path: Path, error: type[FathometerError] = FathometerError) -> None:
        self._path = path
        self._error = error
        self._descriptor: int | None = None

    def __del__(self) -> None:
        self.release()

    @property
    def held(self) -> bool:
        """Whether this object holds the lock in this process."""
        return self._descriptor is not None and self._descriptor in _held

    def acquire(self) -> None:
        """Take the lock; raises the error class given when another driver holds it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._flock(descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _held.add(descriptor)

    def _flock(self, descriptor: int) -> None:
        if sys.platform == "win32":  # pragma: no cover
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            raise self._error(
                f"{self._path.parent} is being written by process {holder}: "
                "wait until it ends, or choose another folder"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
            raise self._error(
                f"{self._path.parent} is on a file system without locks: choose a local folder"
            ) from error

    def release(self) -> None:
        """Give the lock back; without effect when it is not held."""
        if self.held and self._descriptor is not None:
            _held.discard(self._descriptor)
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)  # a courtesy: no stale pid is left to read
            os.close(self._descriptor)  # the last descriptor: this unlocks
        self._descriptor = None


def _holder(descriptor: int) -> str:
    """The pid that the holder wrote; it may be a moment late, and a dead process's may still stand there."""
    pid = b""
    for _ in range(50):
        pid = os.pread(descriptor, 32, 0).strip()
        if pid.isdigit() and _alive(int(pid)):
            break
        time.sleep(0.01)
    return pid.decode("ascii", "replace") or "unknown"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
