"""Checkpoints of the library's trainer, made safe against a kill in the middle of writing one.

The trainer writes a folder file by file. A mark with the checksums of all files is written last; a folder without its
mark, or with other bytes than it says, is never gone on from.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probes.errors import FathometerError
from probes.files import sha256_file, write_json

MARK = "complete.json"
_ARGUMENTS = "training_args.bin"  # a pickle that nothing here reads


def mark_complete(checkpoint: Path) -> None:
    """Say that every file of `checkpoint` is there."""
    (checkpoint / _ARGUMENTS).unlink(missing_ok=True)
    write_json(checkpoint / MARK, {"sha256": _digests(checkpoint)}, durable=True)


def latest_checkpoint(folder: Path) -> Path | None:
    """The last complete checkpoint in `folder`; incomplete and damaged ones are removed.

    >>> latest_checkpoint(Path("no such folder")) is None
    True
    """
    found = sorted(folder.glob("checkpoint-*"), key=_step, reverse=True)
    for path in found:
        if _is_whole(path):
            return path
        shutil.rmtree(path, ignore_errors=True)
    return None


def require_same(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether `folder` holds an earlier start of this training; `FathometerError` where it is of another one."""
    path = folder / "training.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise FathometerError(f"{path} cannot be read ({error}): delete {folder}") from error
    if told != json.loads(json.dumps(dict(identity))):
        raise FathometerError(
            f"{folder} holds the training of another model, other data or other options: choose another folder"
        )
    return True


def _step(path: Path) -> int:
    with contextlib.suppress(ValueError):
        return int(path.name.rpartition("-")[2])
    return -1


def _is_whole(checkpoint: Path) -> bool:
    try:
        told = json.loads((checkpoint / MARK).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return told == _digests(checkpoint)


def _digests(checkpoint: Path) -> dict[str, str]:
    files = (path for path in sorted(checkpoint.rglob("*")) if path.is_file())
    return {
        path.relative_to(checkpoint).as_posix(): sha256_file(path)
        for path in files
        if path.name != MARK
    }
