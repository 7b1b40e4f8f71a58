"""Write one shard: tensors to bytes, one pass of hashing and counting, then two durable replacements.

The shard's file is complete on disk before its record is; only the record commits. The same tensors give the
same bytes under the same name, so that two workers doing one shard end in the same state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import xxhash
from numpy.typing import NDArray

from probes.errors import StoreError
from probes.files import replace_file
from probes.store.layout import OFFSETS, STORED, TensorSpec, plan_layout, tensor_name
from probes.store.record import Record, TensorRecord, record_file, shard_file
from probes.store.sealed import seal

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = Mapping[tuple[str, int], NDArray[Any] | Tensor]

_CHUNK = 1 << 20  # bytes hashed and counted at a time: stays in the processor's cache
_LISTED = 8  # texts named per tensor with non-finite numbers
_CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True)
class Place:
    """Which shard of which store: its number, its texts `lo` ≤ row < `hi`, the store's fingerprint."""

    index: int
    lo: int
    hi: int
    fingerprint: str


@dataclass(frozen=True)
class Payload:
    """One tensor ready to be written: `data` is contiguous; bfloat16 lies in it as uint16 bits."""

    spec: TensorSpec
    data: NDArray[Any]  # (rows, …)


def prepare(tensors: Tensors, offsets: NDArray[Any] | None, place: Place) -> dict[str, Payload]:
    """Checked payloads by tensor name; `StoreError` says which tensor does not fit and why."""
    texts = place.hi - place.lo
    payloads: dict[str, Payload] = {}
    rows = texts
    if offsets is not None:
        checked = _check_offsets(offsets, texts, place.index)
        payloads[OFFSETS] = Payload(TensorSpec("I64", checked.shape), checked)
        rows = int(checked[-1])
    if not tensors:
        raise StoreError(
            f"shard {place.index} came without tensors: one per site and layer is needed"
        )
    for (site, layer), tensor in tensors.items():
        name = tensor_name(site, layer)
        payload = _payload(tensor, f"tensor {name} of shard {place.index}")
        if len(payload.spec.shape) < 2 or payload.spec.shape[0] != rows:
            raise StoreError(
                f"tensor {name} of shard {place.index} has shape {payload.spec.shape}: {rows} rows "
                f"(texts {place.lo} to {place.hi}) and at least two dimensions are needed"
            )
        payloads[name] = payload
    return payloads


def _check_offsets(offsets: NDArray[Any], texts: int, index: int) -> NDArray[np.int64]:
    given = np.asarray(offsets)
    if given.dtype.kind not in "iu" or given.shape != (texts + 1,):
        raise StoreError(
            f"offsets of shard {index} are {given.dtype} of shape {given.shape}: "
            f"integers of shape ({texts + 1},) are needed, one more than texts"
        )
    plain = np.ascontiguousarray(given, dtype="<i8")
    if plain[0] != 0 or np.any(np.diff(plain) < 0):
        raise StoreError(f"offsets of shard {index} must begin at 0 and never fall")
    return plain


def _payload(tensor: Any, what: str) -> Payload:
    isnumpy = isinstance(tensor, np.ndarray)
    kind = tensor.dtype.name if isnumpy else str(tensor.dtype).removeprefix("torch.")
    if kind not in _CODES:
        raise StoreError(f"{what} is {kind}: float32, float16 or bfloat16 is needed")
    code = _CODES[kind]
    if isnumpy:
        array = np.ascontiguousarray(tensor).reshape(tensor.shape)
        if code == "BF16":
            array = array.view(np.uint16)  # ml_dtypes' bfloat16: same bits
    else:
        import torch

        plain = tensor.detach().cpu().contiguous()
        array = (plain.view(torch.int16) if code == "BF16" else plain).numpy()
        array = array.view(np.uint16) if code == "BF16" else array
    if array.dtype.byteorder == ">":
        array = array.astype(STORED[code])
    return Payload(TensorSpec(code, tuple(int(s) for s in tensor.shape)), array)


def write_shard(folder: Path, place: Place, payloads: Mapping[str, Payload]) -> Record:
    """Write a shard's file and then its record into `folder`, both durably; gives the record."""
    layout = plan_layout({name: payload.spec for name, payload in payloads.items()})
    whole = hashlib.sha256(layout.header)
    tensors = {name: _digest(payloads[name], name, place, payloads, whole) for name in layout.start}
    sha256 = whole.hexdigest()
    file = shard_file(place.index, sha256)

    def write(handle: BinaryIO) -> None:
        handle.write(layout.header)
        for name in layout.start:
            handle.write(_bytes(payloads[name].data))

    replace_file(folder / file, write, durable=True, size=layout.total)
    record = Record(place.index, place.lo, place.hi, file, layout.total, sha256, place.fingerprint,
                    tensors)  # fmt: skip
    data = seal(record.as_json())
    replace_file(
        folder / record_file(place.index), lambda h: h.write(data), durable=True, size=len(data)
    )
    return record


def _bytes(array: NDArray[Any]) -> memoryview:
    """The bytes of a contiguous array, not copied."""
    return array.reshape(-1).view(np.uint8).data


def _digest(
    payload: Payload, name: str, place: Place, payloads: Mapping[str, Payload], whole: Any
) -> TensorRecord:
    """Hash and count one tensor in one pass over its bytes; `whole` is fed along the way."""
    tensor_hash = xxhash.xxh3_128()
    flat = payload.data.reshape(-1)
    step = max(1, _CHUNK // payload.data.itemsize)
    raw, size = _bytes(payload.data), payload.data.itemsize
    count = 0
    for start in range(0, len(flat), step):
        piece = raw[start * size : (start + step) * size]
        whole.update(piece)
        tensor_hash.update(piece)
        count += _count_nonfinite(flat[start : start + step], payload.spec.dtype)
    texts = _bad_texts(payload, place, payloads.get(OFFSETS)) if count else ()
    return TensorRecord(payload.spec, tensor_hash.hexdigest(), count, texts)


def _nonfinite(values: NDArray[Any], dtype: str) -> NDArray[np.bool_]:
    if dtype == "BF16":
        return (values & np.uint16(0x7F80)) == 0x7F80  # all exponent bits set: infinity or NaN
    return ~np.isfinite(values)


def _count_nonfinite(values: NDArray[Any], dtype: str) -> int:
    return int(np.count_nonzero(_nonfinite(values, dtype)))


def _bad_texts(payload: Payload, place: Place, offsets: Payload | None) -> tuple[int, ...]:
    """The first few texts, as rows of the whole store, that hold a non-finite number."""
    found: list[int] = []
    for row, values in enumerate(payload.data):
        if not _nonfinite(values, payload.spec.dtype).any():
            continue
        text = row if offsets is None else int(np.searchsorted(offsets.data, row, "right")) - 1
        if place.lo + text not in found:
            found.append(place.lo + text)
        if len(found) == _LISTED:
            break
    return tuple(found)
