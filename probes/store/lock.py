"""The lock of a store's one driver.

Nothing in the store is wrong without it. It only saves two drivers from doing the same work, and tells when
leftovers may be removed.
"""

from __future__ import annotations

from pathlib import Path

from probes import locks
from probes.errors import StoreError


class DriverLock(locks.DriverLock):
    """Held by at most one process for one store."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, StoreError)
