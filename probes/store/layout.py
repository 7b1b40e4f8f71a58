"""How tensors lie in a shard: a safetensors file whose header follows from the tensors' names and shapes.

The header is `<8-byte length><JSON><spaces>` padded so that the data begin at a multiple of 64 bytes and can be
mapped. Because the same tensors always give the same header, a reader rebuilds it from the commit record and
compares the bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from probes.errors import StoreError

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}
STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}  # numpy's view of the bytes
OFFSETS = "offsets"  # the one tensor that is no (site, layer): token offsets of a ragged shard
_ALIGN = 64
_SITE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class TensorSpec:
    """Type and shape of one tensor; `dtype` is a safetensors code (F32, F16, BF16, I64)."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Layout:
    """Header bytes and the byte position of each tensor, in file order."""

    header: bytes
    start: dict[str, int]
    total: int  # size of the whole file


def tensor_name(site: str, layer: int) -> str:
    """Name of a (site, layer) inside a shard.

    >>> tensor_name("exit", 3)
    'exit.3'
    """
    if not _SITE.fullmatch(site) or site == OFFSETS:
        raise StoreError(f"bad site {site!r}: letters, digits, _ and - are allowed, a letter first")
    if layer < 0:
        raise StoreError(f"layer {layer} of site {site!r}: 0 or more is needed")
    return f"{site}.{layer}"


def split_name(name: str) -> tuple[str, int]:
    """The (site, layer) of a tensor name.

    >>> split_name("attn_out.11")
    ('attn_out', 11)
    """
    site, _, layer = name.rpartition(".")
    return site, int(layer)


def _order(name: str, spec: TensorSpec) -> tuple[int, str, int]:
    site, layer = ("", 0) if name == OFFSETS else split_name(name)
    return -ITEM_BYTES[spec.dtype], site, layer  # wide items first keeps all of them aligned


def plan_layout(specs: Mapping[str, TensorSpec]) -> Layout:
    """Where each tensor goes; depends on nothing but names, types and shapes."""
    names = sorted(specs, key=lambda name: _order(name, specs[name]))
    entries: dict[str, object] = {}
    relative: dict[str, int] = {}
    position = 0
    for name in names:
        spec = specs[name]
        end = position + spec.nbytes
        entries[name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [position, end],
        }
        relative[name], position = position, end
    text = json.dumps(entries, separators=(",", ":")).encode("ascii")
    text += b" " * (-(8 + len(text)) % _ALIGN)
    header = len(text).to_bytes(8, "little") + text
    start = {name: len(header) + offset for name, offset in relative.items()}
    return Layout(header, start, len(header) + position)
