"""Read one tensor of one shard, verified: size and header against the record, bytes against their xxh3.

Bytes go straight to where they are wanted, hashed piece by piece on the way; nothing else of the shard is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash
from numpy.typing import NDArray

from probes.errors import InputError, ShardCorrupt, StoreError
from probes.store.layout import STORED, TensorSpec
from probes.store.record import SHARDS, Record

_CHUNK = 1 << 20


def corrupt(root: Path, file: str, what: str) -> ShardCorrupt:
    """The error for damaged or missing bytes: names the shard and says how to mend it."""
    return ShardCorrupt(
        f"{SHARDS}/{file} of {root}: {what}. Forget it with open_store(path).redo() and capture again: "
        "only what is bad is computed anew"
    )


@contextmanager
def open_shard(root: Path, record: Record) -> Generator[BinaryIO]:
    """The shard's file, open for reading, with size and header checked."""
    try:
        handle = open(root / SHARDS / record.file, "rb", buffering=0)  # noqa: SIM115
    except FileNotFoundError:
        raise corrupt(root, record.file, "the file is missing") from None
    except OSError as error:
        raise StoreError(f"cannot read {SHARDS}/{record.file} of {root}: {error}") from error
    with handle:
        size = os.fstat(handle.fileno()).st_size
        if size != record.nbytes:
            raise corrupt(
                root, record.file, f"it has {size:,} bytes, {record.nbytes:,} were committed"
            )
        header = record.layout.header
        if handle.read(len(header)) != header:
            raise corrupt(root, record.file, "its header differs from its record")
        yield handle


def read_into(root: Path, record: Record, name: str, out: NDArray[Any]) -> None:
    """Read tensor `name` of a shard into `out` (rows, …) and verify it on the way.

    `out` is C-contiguous: float32 for F32, F16 and BF16 tensors, int64 for I64. What `out` holds after an error is
    not to be used.
    """
    tensor = record.tensors[name]
    flat = out.reshape(-1)
    with open_shard(root, record) as handle:
        handle.seek(record.layout.start[name])
        if tensor.spec.dtype in ("F32", "I64"):
            digest = _straight(handle, flat)
        else:
            digest = _widening(handle, flat, tensor.spec.dtype)
    if digest != tensor.xxh3:
        raise corrupt(root, record.file, f"tensor {name} differs from its checksum")


def _straight(handle: BinaryIO, flat: NDArray[Any]) -> str:
    digest = xxhash.xxh3_128()
    view = flat.view(np.uint8).data
    for start in range(0, len(view), _CHUNK):
        piece = view[start : start + _CHUNK]
        _fill(handle, piece)
        digest.update(piece)
    return digest.hexdigest()


def _widening(handle: BinaryIO, flat: NDArray[np.float32], dtype: str) -> str:
    """Two-byte floats to float32, through a buffer that stays in the processor's cache."""
    digest = xxhash.xxh3_128()
    scratch = np.empty(_CHUNK // 2, dtype="<u2")
    for start in range(0, len(flat), len(scratch)):
        part = scratch[: len(flat) - start]
        piece = part.view(np.uint8).data
        _fill(handle, piece)
        digest.update(piece)
        stored = part if dtype == "BF16" else part.view("<f2")
        widen(stored, dtype, flat[start : start + len(part)])
    return digest.hexdigest()


def _fill(handle: BinaryIO, view: memoryview) -> None:
    """Fill `view` from an unbuffered file; a file that ends early leaves zeros, which the checksum refuses."""
    done = 0
    while done < len(view):
        got = handle.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            view[done:] = bytes(len(view) - done)
            return
        done += got


def map_tensor(root: Path, record: Record, name: str, *, verified: bool) -> NDArray[Any]:
    """A read-only memory map of a float tensor, as it is stored; hashed first unless it was `verified` before.

    bfloat16 comes as its bits in uint16: `widen` makes float32 of it.
    """
    spec = record.tensors[name].spec
    dtype = STORED[spec.dtype]
    if not spec.nbytes:
        return read_only(np.empty(spec.shape, dtype=dtype))
    with open_shard(root, record) as handle:
        start = record.layout.start[name]
        mapped = np.memmap(handle, dtype=dtype, mode="r", offset=start, shape=spec.shape)
    if not verified:
        view = np.asarray(mapped).reshape(-1).view(np.uint8).data
        digest = xxhash.xxh3_128()
        for position in range(0, len(view), _CHUNK):
            digest.update(view[position : position + _CHUNK])
        if digest.hexdigest() != record.tensors[name].xxh3:
            raise corrupt(root, record.file, f"tensor {name} differs from its checksum")
    return mapped


def widen(stored: NDArray[Any], dtype: str, out: NDArray[np.float32]) -> None:
    """Stored numbers to float32, into `out` of the same shape; exact for all three types."""
    if dtype == "BF16":
        bits = out.view(np.uint32)
        bits[...] = stored  # bfloat16 is the upper half of a float32
        bits <<= np.uint32(16)
    else:
        out[...] = stored


Part = tuple[TensorSpec, Callable[[], NDArray[Any]]]  # one shard's tensor and how to map it


def take_rows(parts: Sequence[Part], rows: NDArray[Any]) -> NDArray[np.float32]:
    """Rows of a tensor that is spread over shards; only shards that hold one of them are opened."""
    starts = np.cumsum([0] + [spec.shape[0] for spec, _ in parts])
    if rows.ndim != 1 or (rows.dtype.kind not in "iu" and rows.size):
        raise InputError(
            f"rows are {rows.dtype} of shape {rows.shape}: a list of row numbers is needed"
        )
    wanted = rows.astype(np.int64)
    outside = wanted[(wanted < 0) | (wanted >= starts[-1])]
    if len(outside):
        raise InputError(f"row {outside[0]} is not in the store: rows 0 to {starts[-1] - 1} are")
    out = np.empty((len(wanted), *parts[0][0].shape[1:]), dtype=np.float32)
    shard = np.searchsorted(starts, wanted, "right") - 1
    for index in np.unique(shard):
        spec, mapped = parts[index]
        here = np.flatnonzero(shard == index)
        stored = mapped()[wanted[here] - starts[index]]
        block = np.empty(stored.shape, dtype=np.float32)
        widen(stored, spec.dtype, block)
        out[here] = block
    return out


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Mark `array` read-only: a gathered layer and a mapped one behave alike."""
    array.flags.writeable = False
    return array


def gather(root: Path, records: tuple[Record, ...], name: str) -> NDArray[Any]:
    """Tensor `name` of all shards, one below the other, read straight into one array (total rows, …)."""
    specs: list[TensorSpec] = [record.tensors[name].spec for record in records]
    total = sum(spec.shape[0] for spec in specs)
    dtype = np.int64 if specs[0].dtype == "I64" else np.float32
    out = np.empty((total, *specs[0].shape[1:]), dtype=dtype)
    row = 0
    for record, spec in zip(records, specs, strict=True):
        read_into(root, record, name, out[row : row + spec.shape[0]])
        row += spec.shape[0]
    return out
