"""Look through a store for damage and name it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from probes.errors import ShardCorrupt, StoreError
from probes.files import sha256_file
from probes.store.folder import MANIFEST, Plan, load_manifest
from probes.store.read import open_shard, read_into
from probes.store.record import SHARDS, Record, load_record, record_file
from probes.store.rows import ROWS, load_rows
from probes.store.sealed import BrokenSealError


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; `shard` is None where it is the manifest or rows.parquet."""

    shard: int | None
    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass(frozen=True)
class Report:
    """What `verify` found; true when nothing is wrong."""

    path: Path
    shards_n: int
    deep: bool
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def bad_shards(self) -> tuple[int, ...]:
        """Numbers of the shards to be computed again, ascending."""
        return tuple(sorted({p.shard for p in self.problems if p.shard is not None}))

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        kind = "every byte hashed" if self.deep else "records, sizes and headers"
        head = (
            f"{self.path}: {self.shards_n} shards checked ({kind}), {len(self.problems)} problems"
        )
        return "\n".join([head, *(f"  {problem}" for problem in self.problems)])


def verify_store(root: Path, plan: Plan, *, deep: bool) -> Report:
    """Check all of a store; damage is reported, not raised."""
    problems: list[Problem] = []
    records: list[Record | None] = []
    for index in range(len(plan.shards)):
        record, found = _check_shard(root, plan, index, deep=deep)
        records.append(record)
        problems.extend(found)
    problems.extend(_check_manifest(root, plan, records))
    return Report(root, len(plan.shards), deep, tuple(problems))


def _check_shard(
    root: Path, plan: Plan, index: int, *, deep: bool
) -> tuple[Record | None, list[Problem]]:
    name = f"{SHARDS}/{record_file(index)}"
    try:
        record = load_record(root / SHARDS, index, plan.shards[index], plan.fingerprint)
    except FileNotFoundError:
        return None, [Problem(index, name, "the record is missing")]
    except BrokenSealError as error:
        return None, [Problem(index, name, f"the record is damaged ({error})")]
    file = f"{SHARDS}/{record.file}"
    try:
        with open_shard(root, record):
            pass
        if deep and sha256_file(root / file) != record.sha256:
            bad = _bad_tensors(root, record)
            return record, [Problem(index, file, f"its bytes differ from its hash ({bad})")]
    except StoreError as error:
        return record, [Problem(index, file, str(error))]
    return record, []


def _bad_tensors(root: Path, record: Record) -> str:
    """Which tensors of a shard fail their own checksum."""
    bad: list[str] = []
    for name, tensor in record.tensors.items():
        dtype = np.int64 if tensor.spec.dtype == "I64" else np.float32
        try:
            read_into(root, record, name, np.empty(tensor.spec.shape, dtype=dtype))
        except ShardCorrupt:
            bad.append(name)
    return "tensors " + ", ".join(bad) if bad else "no tensor names itself"


def _check_manifest(root: Path, plan: Plan, records: list[Record | None]) -> Iterator[Problem]:
    try:
        manifest = load_manifest(root, plan)
    except StoreError as error:
        yield Problem(None, MANIFEST, str(error))
        return
    for index, (record, copy) in enumerate(zip(records, manifest["records"], strict=True)):
        if record is not None and record.as_json() != copy:
            yield Problem(index, f"{SHARDS}/{record_file(index)}", "it differs from the manifest")
    try:
        load_rows(root, manifest["rows_sha256"])
    except StoreError as error:
        yield Problem(None, ROWS, str(error))
