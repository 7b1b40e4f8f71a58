"""Temporary folders for stores nobody asked to keep: removed with the store, and swept after a crash.

Each lies in the cache folder under a lock that ends with its process, however that ends; a folder whose lock is free
was left behind and is removed by the next capture.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import weakref
from pathlib import Path

from probes.files import cache_dir, make_dir, writing

if sys.platform != "win32":
    import fcntl


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None when another process holds it."""
    descriptor = os.open(folder / "LOCK", os.O_RDWR | os.O_CREAT, 0o600)
    if sys.platform == "win32":  # pragma: no cover
        return descriptor
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def sweep(parent: Path) -> int:
    """Remove what killed processes left in `parent`; gives how many folders that were."""
    removed = 0
    for folder in parent.glob("capture-*"):
        try:
            descriptor = _lock(folder)
        except OSError:  # removed meanwhile, or somebody else's
            continue
        if descriptor is None:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)
        removed += 1
    return removed


def _remove(folder: Path, descriptor: int, pid: int) -> None:
    if os.getpid() != pid:  # a forked child must not take away its parent's files
        return
    shutil.rmtree(folder, ignore_errors=True)
    os.close(descriptor)


class TemporaryFolder:
    """A new folder; `keep_with(thing)` ties its life to an object's. Removed at the latest when the process ends."""

    def __init__(self) -> None:
        parent = make_dir(cache_dir() / "temporary")
        if sys.platform != "win32":
            sweep(parent)
        with writing(parent / "capture"):
            # Made under a name that the sweep does not match, so that nobody finds it before it is locked.
            made = Path(tempfile.mkdtemp(prefix="new-", dir=parent))
            descriptor = _lock(made)
            assert descriptor is not None
            self.path = made.rename(parent / made.name.replace("new-", "capture-", 1))
        self._finalizer = weakref.finalize(self, _remove, self.path, descriptor, os.getpid())
        self._descriptor = descriptor

    def keep_with(self, thing: object) -> None:
        """From now on the folder lives as long as `thing`."""
        self._finalizer.detach()
        weakref.finalize(thing, _remove, self.path, self._descriptor, os.getpid())

    def remove(self) -> None:
        self._finalizer()
