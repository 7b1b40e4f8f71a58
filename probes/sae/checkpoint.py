"""A training on disk: tensors in safetensors, everything else in JSON; a killed writer leaves the old one.

checkpoint.json names its tensor file with a checksum and is replaced last: it is the commit.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from probes.errors import FathometerError, InputError
from probes.files import canonical_json, make_dir, replace_file, safe_name, sha256_file, write_json

MANIFEST = "checkpoint.json"
VERSION = 1

Row = dict[str, float]


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: tensors by name, the step, the rows of the history, and whose training it was."""

    tensors: dict[str, Tensor]
    step: int
    history: list[Row]
    identity: dict[str, Any]


def save_checkpoint(
    folder: Path,
    tensors: Mapping[str, Tensor],
    identity: Mapping[str, Any],
    step: int,
    history: Sequence[Row],
) -> None:
    """Replace what lies in `folder` by this; a crash at any moment leaves the old or the new one."""
    make_dir(folder)
    name = f"step-{step:08d}.safetensors"
    ready = {key: t.detach().cpu().contiguous() for key, t in tensors.items()}
    data = safetensors.torch.save(ready)
    replace_file(folder / name, lambda handle: handle.write(data), durable=True, size=len(data))
    manifest = {
        "version": VERSION,
        "step": step,
        "file": name,
        "sha256": sha256_file(folder / name),
        "identity": dict(identity),
        "history": list(history),
    }
    write_json(folder / MANIFEST, manifest, durable=True)
    for old in folder.glob("step-*.safetensors"):
        if old.name != name:
            with contextlib.suppress(OSError):
                old.unlink()


def load_checkpoint(folder: Path, identity: Mapping[str, Any]) -> Checkpoint | None:
    """What `folder` holds, None if nothing; an error for damage and for the training of another autoencoder."""
    if not (folder / MANIFEST).exists():
        return None
    found = read_checkpoint(folder)
    if canonical_json(found.identity) != canonical_json(json.loads(json.dumps(identity))):
        raise InputError(
            f"{folder} holds the training of another autoencoder or of other data: choose another folder or delete it"
        )
    return found


def read_checkpoint(folder: Path) -> Checkpoint:
    """What `folder` holds, whatever it is of; `FathometerError` where that is nothing, or damaged."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        file, digest = folder / safe_name(found["file"], "tensor file"), found["sha256"]
        made = found["version"], dict(found["identity"]), int(found["step"]), list(found["history"])
    except (OSError, ValueError, KeyError, TypeError, InputError) as error:
        raise FathometerError(
            f"{path} cannot be read ({type(error).__name__}): an autoencoder saved in {folder} is needed; "
            "delete a damaged folder to begin anew"
        ) from error
    if made[0] != VERSION:
        raise FathometerError(f"{path} has version {made[0]}, {VERSION} is needed")
    if not file.is_file() or sha256_file(file) != digest:
        raise FathometerError(f"{file} is missing or damaged: delete {folder} to begin anew")
    return Checkpoint(safetensors.torch.load_file(file), made[2], made[3], made[1])
