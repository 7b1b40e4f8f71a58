"""The folder of a store: its plan, records, manifest, and what may be removed from it."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.errors import StoreError
from probes.files import fsync_dir, make_dir, replace_file
from probes.store.read import corrupt
from probes.store.record import FORMAT, SHARDS, Record, is_shard_file, load_record, record_file
from probes.store.rows import ROWS, load_rows
from probes.store.sealed import BrokenSealError, content_hash, read_sealed, seal
from probes.store.shard import Payload

STORE, MANIFEST, LOCK = "store.json", "manifest.json", "LOCK"
_TEMPORARY = re.compile(r"\..+\.tmp")  # as replace_file names them
_AGAIN = "run the same capture again: finished shards are kept"


@dataclass(frozen=True)
class Plan:
    """What store.json says: identity and text ranges; never changes."""

    identity: dict[str, Any]
    shards: tuple[tuple[int, int], ...]
    fingerprint: str

    @classmethod
    def make(
        cls, identity: dict[str, Any], shards: Sequence[tuple[int, int]], texts_n: int | None = None
    ) -> Plan:
        ranges = tuple((int(lo), int(hi)) for lo, hi in shards)
        end = 0
        for index, (lo, hi) in enumerate(ranges):
            if lo != end or hi <= lo:
                raise StoreError(
                    f"shard {index} is texts {lo} to {hi}: it must begin at {end} and not be empty"
                )
            end = hi
        if not ranges:
            raise StoreError("no shards came: at least one range of texts is needed")
        if texts_n is not None and end != texts_n:
            raise StoreError(f"{len(ranges)} shards hold {end} texts, {texts_n} are needed")
        content = {"format": FORMAT, "identity": identity, "shards": [list(r) for r in ranges]}
        return cls(identity, ranges, content_hash(content))

    @property
    def texts_n(self) -> int:
        return self.shards[-1][1]

    def as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "identity": self.identity,
            "shards": [list(r) for r in self.shards],
        }


@contextlib.contextmanager
def storing(root: Path, verb: str = "write or read") -> Generator[None]:
    """Turn what the operating system refuses into one line that says nothing is lost."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot {verb} the store {root}: {error}. When that is mended, {_AGAIN}"
        ) from error


def write_plan(root: Path, plan: Plan) -> Plan:
    """The plan that lies at `root` afterwards: the one that was there, else `plan`, written once."""
    if not (root / STORE).exists():
        _refuse_foreign(root)
        make_dir(root / SHARDS)
        data = seal({**plan.as_json(), "fingerprint": plan.fingerprint})
        replace_file(root / STORE, lambda h: h.write(data), durable=True, size=len(data), once=True)
        fsync_dir(root.parent)
    return load_plan(root)


def _refuse_foreign(root: Path) -> None:
    own = {STORE, MANIFEST, LOCK, ROWS, SHARDS}
    foreign = [
        p.name for p in root.iterdir() if p.name not in own and not _TEMPORARY.fullmatch(p.name)
    ]
    if foreign:
        raise StoreError(f"{root} holds other files ({sorted(foreign)[0]}): choose an empty folder")


def load_plan(root: Path) -> Plan:
    """The plan of the store at `root`."""
    try:
        content = read_sealed(root / STORE)
        plan = Plan.make(content["identity"], content["shards"])
        if plan.fingerprint != content["fingerprint"] or content["format"] != FORMAT:
            raise BrokenSealError(f"it has another format than {FORMAT}")
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{root} is no activation store: {STORE} is missing") from None
    except (BrokenSealError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{root / STORE} is damaged ({error}): delete that one file and {_AGAIN}"
        ) from error
    return plan


def find_record(root: Path, plan: Plan, index: int) -> Record | None:
    """The record of a shard if it is there and valid; nothing is said about the shard's bytes."""
    try:
        return load_record(root / SHARDS, index, plan.shards[index], plan.fingerprint)
    except (FileNotFoundError, BrokenSealError):
        return None


def in_place(root: Path, record: Record) -> bool:
    """Whether the shard's file is there with the committed size."""
    try:
        return (root / SHARDS / record.file).stat().st_size == record.nbytes
    except FileNotFoundError:
        return False


def _present(root: Path, plan: Plan) -> list[Record | None]:
    """Per shard its record, None where it is pending."""
    found = [find_record(root, plan, index) for index in range(len(plan.shards))]
    return [record if record and in_place(root, record) else None for record in found]


def pending(root: Path, plan: Plan) -> list[int]:
    return [index for index, record in enumerate(_present(root, plan)) if record is None]


def check_same_tensors(root: Path, plan: Plan, index: int, payloads: Mapping[str, Payload]) -> None:
    """Refuse a shard whose tensors, types or widths differ from those of a shard already there."""
    now = {name: (p.spec.dtype, p.spec.shape[1:]) for name, p in sorted(payloads.items())}
    for other in range(len(plan.shards)):
        record = find_record(root, plan, other) if other != index else None
        if record is not None:
            _compare(record.shape_key(), now, other, index)
            return


def _compare(
    there: Mapping[str, object], now: Mapping[str, object], other: int, index: int
) -> None:
    names = [name for name in sorted({*there, *now}) if there.get(name) != now.get(name)]
    if names:
        name = names[0]
        raise StoreError(
            f"tensor {name} is {now.get(name, 'absent')} in shard {index} but {there.get(name, 'absent')} in "
            f"shard {other}: all shards of a store hold the same tensors"
        )


def records_to_finish(root: Path, plan: Plan) -> tuple[Record, ...]:
    """All records; `StoreError` when a shard is pending or differs from the others in its tensors."""
    present = _present(root, plan)
    records = tuple(record for record in present if record is not None)
    if len(records) < len(present):
        missing = [index for index, record in enumerate(present) if record is None]
        raise StoreError(
            f"{root} cannot be finished: {_name_shards(missing)} of {len(present)} not written"
        )
    for record in records[1:]:
        _compare(records[0].shape_key(), record.shape_key(), 0, record.index)
    return records


def write_manifest(root: Path, plan: Plan, records: Sequence[Record], rows: bytes) -> None:
    """rows.parquet, then manifest.json: every record and a root hash over all of them."""
    listed = [record.as_json() for record in records]
    content = {
        "format": FORMAT,
        "fingerprint": plan.fingerprint,
        "root": content_hash({"fingerprint": plan.fingerprint, "records": listed}),
        "records": listed,
        "rows_sha256": hashlib.sha256(rows).hexdigest(),
    }
    data = seal(content)
    replace_file(root / ROWS, lambda h: h.write(rows), durable=True, size=len(rows))
    replace_file(root / MANIFEST, lambda h: h.write(data), durable=True, size=len(data))


def load_manifest(root: Path, plan: Plan) -> dict[str, Any]:
    """The manifest; `StoreError` when the store is not finished or the file is damaged."""
    try:
        content = read_sealed(root / MANIFEST)
        if content["fingerprint"] != plan.fingerprint or len(content["records"]) != len(
            plan.shards
        ):
            raise BrokenSealError("it belongs to another store")
    except FileNotFoundError:
        left = pending(root, plan)
        what = (
            f"{_name_shards(left)} of {len(plan.shards)} missing"
            if left
            else f"{MANIFEST} is missing"
        )
        raise StoreError(f"{root} is not finished ({what}): {_AGAIN}") from None
    except (BrokenSealError, KeyError, TypeError) as error:
        raise StoreError(f"{root / MANIFEST} is damaged ({error}): {_AGAIN}") from error
    return content


def committed(root: Path, plan: Plan) -> tuple[Record, ...]:
    """All records of a finished store, each read from its own file and equal to its copy in the manifest."""
    copies = load_manifest(root, plan)["records"]
    records: list[Record] = []
    for index, copy in enumerate(copies):
        try:
            record = load_record(root / SHARDS, index, plan.shards[index], plan.fingerprint)
        except FileNotFoundError:
            raise corrupt(root, record_file(index), "the record is missing") from None
        except BrokenSealError as error:
            raise corrupt(root, record_file(index), f"the record is damaged ({error})") from error
        if record.as_json() != copy:
            raise corrupt(root, record_file(index), "the record differs from the manifest")
        records.append(record)
    return tuple(records)


def is_complete(root: Path, plan: Plan) -> bool:
    try:
        records = committed(root, plan)
        load_rows(root, load_manifest(root, plan)["rows_sha256"])
    except StoreError:
        return False
    return all(in_place(root, record) for record in records)


def remove_orphans(root: Path, plan: Plan) -> None:
    """Delete temporary files and shards that no valid record names; other people's files stay."""
    named = {record.file for record in _present(root, plan) if record is not None}
    for path in [*root.iterdir(), *(root / SHARDS).iterdir()]:
        orphan = is_shard_file(path.name) and path.name not in named and path.parent.name == SHARDS
        if orphan or _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def forget(root: Path, plan: Plan, shards: Sequence[int]) -> None:
    """Make `shards` pending: the manifest goes first, then each record, so that nothing half-true remains.

    The manifest also goes when no shard is named but it or rows.parquet itself is bad: `finish` writes both anew.
    """
    (root / MANIFEST).unlink(missing_ok=True)
    fsync_dir(root)
    for index in shards:
        (root / SHARDS / record_file(index)).unlink(missing_ok=True)
    fsync_dir(root / SHARDS)
    remove_orphans(root, plan)


def _name_shards(indices: Sequence[int]) -> str:
    shown = ", ".join(map(str, indices[:8])) + (", …" if len(indices) > 8 else "")
    return f"shard{'s' if len(indices) > 1 else ''} {shown}"
