"""The commit record of a shard: the one file whose presence says that the shard counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from probes.store.layout import ITEM_BYTES, OFFSETS, Layout, TensorSpec, plan_layout, split_name
from probes.store.sealed import BrokenSealError, content_hash, read_sealed

FORMAT = 1
SHARDS = "shards"
_FILE = re.compile(r"(\d{6,})-([0-9a-f]{16})\.safetensors")


@dataclass(frozen=True)
class TensorRecord:
    """What was committed of one tensor; `texts` are the first texts (rows of the store) with a non-finite number."""

    spec: TensorSpec
    xxh3: str
    nonfinite: int = 0
    texts: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "dtype": self.spec.dtype,
            "shape": list(self.spec.shape),
            "xxh3": self.xxh3,
            "nonfinite": self.nonfinite,
            "nonfinite_texts": list(self.texts),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TensorRecord:
        spec = TensorSpec(value["dtype"], tuple(value["shape"]))
        if spec.dtype not in ITEM_BYTES or any(type(s) is not int or s < 0 for s in spec.shape):
            raise ValueError("unknown type or shape")
        return cls(spec, value["xxh3"], value["nonfinite"], tuple(value["nonfinite_texts"]))


@dataclass(frozen=True)
class Record:
    """One shard: texts `lo` ≤ row < `hi`, the file that holds them, and the hashes of its bytes."""

    index: int
    lo: int
    hi: int
    file: str
    nbytes: int
    sha256: str
    fingerprint: str
    tensors: dict[str, TensorRecord]

    def as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "index": self.index,
            "rows": [self.lo, self.hi],
            "file": self.file,
            "bytes": self.nbytes,
            "sha256": self.sha256,
            "fingerprint": self.fingerprint,
            "tensors": {name: tensor.as_json() for name, tensor in self.tensors.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Record:
        """From JSON; `ValueError` when it is no record of this format."""
        try:
            lo, hi = value["rows"]
            tensors = {name: TensorRecord.from_json(t) for name, t in value["tensors"].items()}
            record = cls(value["index"], lo, hi, value["file"], value["bytes"], value["sha256"],
                         value["fingerprint"], tensors)  # fmt: skip
            if value["format"] != FORMAT or record.file != shard_file(record.index, record.sha256):
                raise ValueError("another format, or a file name that is not its own")
            for name in tensors:
                if name != OFFSETS:
                    split_name(name)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("a field is missing or of another type") from error
        return record

    @property
    def specs(self) -> dict[str, TensorSpec]:
        return {name: tensor.spec for name, tensor in self.tensors.items()}

    @property
    def ragged(self) -> bool:
        return OFFSETS in self.tensors

    @cached_property
    def layout(self) -> Layout:
        return plan_layout(self.specs)

    def shape_key(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """What all shards of a store must share: names, types and all but the first dimension."""
        return {name: (s.dtype, s.shape[1:]) for name, s in sorted(self.specs.items())}

    def hash(self) -> str:
        return content_hash(self.as_json())


def shard_file(index: int, sha256: str) -> str:
    """Name of a shard's file: its number and the first 16 digits of its own hash."""
    return f"{index:06d}-{sha256[:16]}.safetensors"


def record_file(index: int) -> str:
    return f"{index:06d}.json"


def is_shard_file(name: str) -> bool:
    return _FILE.fullmatch(name) is not None


def load_record(folder: Path, index: int, rows: tuple[int, int], fingerprint: str) -> Record:
    """The record of shard `index` in `folder`; `FileNotFoundError` or `BrokenSealError` when it does not count."""
    content = read_sealed(folder / record_file(index))
    try:
        record = Record.from_json(content)
    except ValueError as error:
        raise BrokenSealError(str(error)) from error
    if (record.index, record.lo, record.hi) != (index, *rows):
        raise BrokenSealError(
            f"it belongs to shard {record.index}, rows {record.lo} to {record.hi}"
        )
    if record.fingerprint != fingerprint:
        raise BrokenSealError("it belongs to a store of another identity")
    return record
