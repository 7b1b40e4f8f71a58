"""The activation store: created or resumed by identity, written shard by shard, read one layer at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import InputError, StoreError, unknown_name
from probes.files import make_dir
from probes.store import folder as disk
from probes.store.finite import nonfinite_table
from probes.store.identity import check_identity, difference
from probes.store.layers import Layers
from probes.store.layout import OFFSETS, split_name, tensor_name
from probes.store.lock import DriverLock
from probes.store.read import gather, map_tensor, read_only, take_rows
from probes.store.record import SHARDS, Record
from probes.store.rows import read_rows, rows_bytes
from probes.store.shard import Place, prepare, write_shard
from probes.store.verify import Report, verify_store

if TYPE_CHECKING:
    from probes.store.shard import Tensors

FloatArray = NDArray[np.float32]


class Store:
    """Activations of texts on disk: one float array per (site, layer), row i is text i.

    Made by `Store.create` (write, resume, reuse) or `open_store` (read). Arrays come as read-only float32, each
    byte verified; a single float32 shard is mapped, several shards are gathered into memory, one layer at a time.

    Writing needs no lock to be correct. `with store.writing():` takes the driver's lock, refuses a second driver
    and removes what a killed one left behind; workers of that driver call `write_shard` without it.

    >>> import tempfile
    >>> states = np.arange(6, dtype=np.float32).reshape(3, 2)
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     store = Store.create(f"{parent}/acts", {"model": "toy"}, shards=[(0, 2), (2, 3)])
    ...     with store.writing():
    ...         for index in store.pending():
    ...             lo, hi = store.shards[index]
    ...             _ = store.write_shard(index, {("exit", 0): states[lo:hi]})
    ...         store.finish()
    ...     store["exit", 0].sum(axis=1), store.sites(), store.layers("exit")
    (array([1., 5., 9.], dtype=float32), ('exit',), (0,))
    """

    def __init__(self, path: Path, plan: disk.Plan) -> None:
        self.path = path
        self._plan = plan
        self._lock = DriverLock(path / disk.LOCK)
        self._records: tuple[Record, ...] | None = None  # once known to be complete
        self._verified: set[tuple[str, str]] = (
            set()
        )  # (file, tensor) whose mapped bytes were hashed

    @classmethod
    def create(
        cls,
        path: str | Path,
        identity: Mapping[str, Any],
        shards: Sequence[tuple[int, int]],
        texts_n: int | None = None,
    ) -> Store:
        """A new store at `path`, or the one that lies there if it has the same identity and shards.

        `identity` is everything that decides the bytes (plain JSON values); `shards` are contiguous text ranges
        [(lo, hi), …] from 0 to `texts_n`. Another identity raises `StoreError` with the difference in one line.
        """
        plan = disk.Plan.make(check_identity(identity), shards, texts_n)
        root = Path(path).absolute()
        with disk.storing(root):
            make_dir(root)
            there = disk.write_plan(root, plan)
        if there.fingerprint != plan.fingerprint:
            raise StoreError(
                f"{root} holds activations of another identity: "
                f"{difference(there.as_json(), plan.as_json())}. Choose another folder or delete this one"
            )
        return cls(root, plan)

    @property
    def identity(self) -> dict[str, Any]:
        return self._plan.identity

    @property
    def shards(self) -> tuple[tuple[int, int], ...]:
        """Text ranges (lo, hi) of the shards, `lo` ≤ row < `hi`."""
        return self._plan.shards

    @property
    def texts_n(self) -> int:
        return self._plan.texts_n

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of identity and shards."""
        return self._plan.fingerprint

    @property
    def complete(self) -> bool:
        """Whether every shard is committed, in place, and the manifest agrees with all of them."""
        with disk.storing(self.path):
            return disk.is_complete(self.path, self._plan)

    def pending(self) -> list[int]:
        """Shards still to be written: without a valid record, or whose file is missing or of a wrong size."""
        with disk.storing(self.path):
            return disk.pending(self.path, self._plan)

    @contextmanager
    def writing(self) -> Generator[Store]:
        """Hold the driver's lock; a second driver is refused with the pid of the first. Leftovers are removed.

        Inside another `writing()` of the same object it does nothing.
        """
        if self._lock.held:
            yield self
            return
        with disk.storing(self.path):
            self._lock.acquire()
        try:
            with disk.storing(self.path):
                disk.remove_orphans(self.path, self._plan)
            yield self
        finally:
            self.close()

    def close(self) -> None:
        """Give the driver's lock back; done by `writing()` in any case."""
        self._lock.release()

    def write_shard(
        self, index: int, tensors: Tensors, offsets: NDArray[Any] | None = None
    ) -> Record:
        """Write shard `index` durably and commit it; doing it again with the same tensors changes nothing.

        `tensors`: {(site, layer): (rows, d) or (rows, heads, d_head)}, float32, float16 or bfloat16, numpy or
        torch. Rows are the texts of the shard; with `offsets` (texts + 1,) they are tokens, and text t of
        the shard has rows offsets[t] to offsets[t + 1].
        """
        if not 0 <= index < len(self.shards):
            raise StoreError(f"shard {index}: the store has shards 0 to {len(self.shards) - 1}")
        place = Place(index, *self.shards[index], self.fingerprint)
        payloads = prepare(tensors, offsets, place)
        with disk.storing(self.path):
            disk.check_same_tensors(self.path, self._plan, index, payloads)
            self._records = None
            return write_shard(self.path / SHARDS, place, payloads)

    def finish(self, rows: pd.DataFrame | None = None) -> None:
        """Write rows.parquet and the manifest; `StoreError` when a shard is still pending.

        `rows` has one row per text (ids, labels, …); the columns `row`, `shard` and, for ragged stores,
        `token_offset` are added.
        """
        with disk.storing(self.path):
            records = disk.records_to_finish(self.path, self._plan)
            offsets = self._offsets_of(records)
            data = rows_bytes(rows, self._plan, offsets)
            disk.write_manifest(self.path, self._plan, records, data)
            if self._lock.held:
                disk.remove_orphans(self.path, self._plan)

    def _committed(self) -> tuple[Record, ...]:
        if self._records is None:
            with disk.storing(self.path):
                self._records = disk.committed(self.path, self._plan)
        return self._records

    def _offsets_of(self, records: tuple[Record, ...]) -> NDArray[np.int64] | None:
        if not records[0].ragged:
            return None
        with disk.storing(self.path):
            joined = gather(self.path, records, OFFSETS)
        starts = np.cumsum([0] + [record.hi - record.lo + 1 for record in records])
        counts = [np.diff(joined[a:b]) for a, b in pairwise(starts)]
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(counts))])

    @property
    def ragged(self) -> bool:
        """Whether rows are tokens (pooling "none") and not texts."""
        return self._committed()[0].ragged

    @property
    def offsets(self) -> NDArray[np.int64] | None:
        """(texts_n + 1,): text t has rows offsets[t] to offsets[t + 1]; None when row i is text i."""
        return self._offsets_of(self._committed())

    def sites(self) -> tuple[str, ...]:
        """Names of the sites, sorted."""
        return tuple(sorted({site for site, _ in self._keys()}))

    def layers(self, site: str) -> tuple[int, ...]:
        """Layers (or blocks) of `site`, ascending."""
        found = tuple(sorted(layer for name, layer in self._keys() if name == site))
        if not found:
            raise unknown_name("site", site, self.sites())
        return found

    def _keys(self) -> list[tuple[str, int]]:
        return [split_name(name) for name in self._committed()[0].tensors if name != OFFSETS]

    def _name(self, site: str, layer: int) -> str:
        layers = self.layers(site)
        if layer not in layers:
            raise InputError(f"site {site!r} has no layer {layer}: {_listed(layers)} are stored")
        return tensor_name(site, int(layer))

    @overload
    def __getitem__(self, key: tuple[str, int]) -> FloatArray: ...
    @overload
    def __getitem__(self, key: str) -> Layers: ...
    def __getitem__(self, key: tuple[str, int] | str) -> FloatArray | Layers:
        """`store[site, layer]` is an array (n, d) or (n, heads, d_head); `store[site]` maps layers to arrays."""
        if isinstance(key, str):
            return Layers(self, key, self.layers(key))
        site, layer = key
        name, records = self._name(site, layer), self._committed()
        with disk.storing(self.path):
            if len(records) == 1 and records[0].tensors[name].spec.dtype == "F32":
                return self._mapped(records[0], name)
            return read_only(gather(self.path, records, name))

    def _mapped(self, record: Record, name: str) -> NDArray[Any]:
        key = (record.file, name)
        array = map_tensor(self.path, record, name, verified=key in self._verified)
        self._verified.add(key)
        return array

    def take(self, site: str, layer: int, rows: Sequence[int] | NDArray[np.integer]) -> FloatArray:
        """Rows `rows` (m,) of one layer, in that order: (m, …) float32, without reading the layer into memory.

        The first call on a shard hashes its tensor once; later ones read only the pages that are asked for.
        """
        name, records = self._name(site, layer), self._committed()
        with disk.storing(self.path):
            parts = (
                (record.tensors[name].spec, lambda r=record: self._mapped(r, name))
                for record in records
            )
            return take_rows(list(parts), np.asarray(rows))

    def __contains__(self, key: object) -> bool:
        return key in self._keys() or key in self.sites()

    def __iter__(self) -> Iterator[str]:
        return iter(self.sites())

    def rows(self) -> pd.DataFrame:
        """One row per text: `row`, `shard`, `token_offset` if ragged, and what `finish` was given."""
        with disk.storing(self.path):
            return read_rows(self.path, disk.load_manifest(self.path, self._plan)["rows_sha256"])

    def nonfinite(self) -> pd.DataFrame:
        """NaN and infinities counted at writing: site, layer, count, rows (the first texts that hold one)."""
        return nonfinite_table(self._committed())

    def verify(self, deep: bool = False) -> Report:
        """Look for damage: records, sizes, headers, manifest; with `deep` every byte is hashed again."""
        with disk.storing(self.path):
            return verify_store(self.path, self._plan, deep=deep)

    def redo(self, shards: Sequence[int] | None = None) -> tuple[int, ...]:
        """Forget `shards`, or all that a deep check finds bad; gives their numbers, which are pending afterwards.

        The store is unfinished then (also when only the manifest or rows.parquet was bad) until `finish`.
        """
        report = self.verify(deep=True) if shards is None else None
        chosen = tuple(shards or ()) if report is None else report.bad_shards
        if not chosen and (report is None or report.ok):
            return ()
        unknown = [index for index in chosen if not 0 <= index < len(self.shards)]
        if unknown:
            raise StoreError(
                f"shard {unknown[0]}: the store has shards 0 to {len(self.shards) - 1}"
            )
        self._records = None
        self._verified.clear()
        with self.writing(), disk.storing(self.path):
            disk.forget(self.path, self._plan, chosen)
        return chosen

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, {self.texts_n} texts, {len(self.shards)} shards)"


def open_store(path: str | Path) -> Store:
    """The store at `path`, for reading; `StoreError` when there is none or its store.json is damaged.

    An unfinished store opens too: `complete` is False, `pending()` lists what is missing, and reading an array raises.
    """
    root = Path(path).absolute()
    with disk.storing(root, "read"):
        return Store(root, disk.load_plan(root))


def _listed(layers: tuple[int, ...]) -> str:
    whole = layers == tuple(range(layers[0], layers[-1] + 1))
    return (
        f"{layers[0]} to {layers[-1]}" if whole and len(layers) > 1 else ", ".join(map(str, layers))
    )
