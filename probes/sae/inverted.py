"""Search over sparse codes: for every feature the texts that have it, so that a query reads only what it shares."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from probes.errors import InputError, NonFiniteError, unknown_name

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

VALUES = {"float32": np.float32, "int16": np.int16}
STEPS = 32767  # of int16: codes at unit length lie within ±1
CELLS = 2**22  # scores held at once: a block of queries against all texts


class InvertedIndex:
    """Codes of a corpus by feature (CSC), searched by exact cosine in code space.

    Codes are brought to unit length; codes of zeros have cosine 0 with everything. `values` "int16" keeps each number
    as a whole multiple of 1/32767 (half the bytes, cosines off by at most 1.6e-5 · √k); the cosine is then that of the
    numbers kept with the query's own.

    Cost: a query with k features reads about k · n · k' / m numbers, for n texts with k' of m features each, where a
    dense index of width w reads n · w.

    Raises `InputError` for codes that are no finite (n, m) matrix, and for k, widths and names that do not apply.
    Reference: Wen et al. 2025, arXiv 2503.01776; see also `CSRCoder`.

    >>> index = InvertedIndex(sparse.csr_array(np.array([[1.0, 0, 0], [0, 2, 0], [1, 1, 0]])))
    >>> ids, scores = index.search(sparse.csr_array(np.array([[0.0, 3.0, 0.0]])), top=2)
    >>> ids.tolist(), [round(s, 3) for s in scores[0].tolist()]
    ([[1, 2]], [1.0, 0.707])
    """

    def __init__(self, codes: Any, values: str = "float32") -> None:
        if values not in VALUES:
            raise unknown_name("values", str(values), VALUES)
        kept: Any = unit_codes(codes)
        if values == "int16":
            kept.data = np.rint(kept.data * STEPS).astype(np.int16)
            kept.eliminate_zeros()
        self.n, self.m = kept.shape
        self.values = values
        by_feature: Any = sparse.csc_array(kept)
        if (
            max(by_feature.nnz, self.n) < 2**31
        ):  # scipy keeps the wider type of what it was made from
            by_feature.indices = by_feature.indices.astype(np.int32)
            by_feature.indptr = by_feature.indptr.astype(np.int32)
        self._by_feature = by_feature

    @property
    def nnz(self) -> int:
        """Numbers kept in all."""
        return int(self._by_feature.nnz)

    @property
    def nbytes(self) -> int:
        """Bytes held: a value and a text's number per entry, and where each feature begins."""
        held = self._by_feature
        return int(held.data.nbytes + held.indices.nbytes + held.indptr.nbytes)

    @property
    def bytes_per_text(self) -> float:
        """8 (float32) or 6 (int16) per active feature, and each text's share of where the features begin."""
        return self.nbytes / self.n

    def scores(self, queries: Any) -> NDArray[np.float32]:
        """Cosines (queries, n) of codes (queries, m) with every text: dense, so ask in blocks of a few thousand."""
        asked = self._checked(queries)
        return np.stack([self._scores(asked, row) for row in range(asked.shape[0])])

    def search(self, queries: Any, top: int = 10) -> tuple[IntArray, FloatArray]:
        """The `top` texts with the largest cosines, best first, and these: both (queries, min(top, n)).

        Equal cosines come in the order of the texts' numbers.
        """
        if top < 1:
            raise InputError(f"top is {top}: 1 or more texts can be asked for")
        asked = self._checked(queries)
        count = min(int(top), self.n)
        ids = np.empty((asked.shape[0], count), dtype=np.int64)
        found = np.empty((asked.shape[0], count), dtype=np.float32)
        for row in range(len(ids)):
            line = self._scores(asked, row)
            ids[row] = best_first(line, count)
            found[row] = line[ids[row]]
        return ids, found

    def _checked(self, queries: Any) -> Any:
        asked: Any = unit_codes(queries)
        if asked.shape[1] != self.m:
            raise InputError(
                f"queries have {asked.shape[1]} features, this index {self.m}: encode both with one coder"
            )
        return asked

    def _scores(self, asked: Any, row: int) -> NDArray[np.float32]:
        """Cosines of query `row` with every text (n,): only the features that it has are read."""
        mine = slice(asked.indptr[row], asked.indptr[row + 1])
        line = self._by_feature[:, asked.indices[mine]] @ asked.data[mine]
        return line if self.values == "float32" else line / np.float32(STEPS)


def unit_codes(codes: Any) -> sparse.csr_array:
    """Codes (n, m), sparse or dense, as float32 rows of unit length; rows of zeros stay."""
    table: Any = sparse.csr_array(codes).astype(np.float32)
    if len(table.shape) != 2 or 0 in table.shape:
        raise InputError(f"codes have shape {table.shape}: (n, m) is needed, with n and m above 0")
    if not np.isfinite(table.data).all():
        raise NonFiniteError("codes hold NaN or infinity")
    lengths = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
    inverse = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    table.data = table.data * np.repeat(inverse, np.diff(table.indptr)).astype(np.float32)
    return table


def best_first(scores: FloatArray, count: int) -> IntArray:
    """Places of the `count` largest of scores (n,), largest first, equal ones by place.

    >>> best_first(np.array([0.0, 2.0, 1.0, 2.0]), 3).tolist()
    [1, 3, 2]
    """
    places = np.flatnonzero(
        scores > 0
    )  # most codes share nothing, and so many equal numbers are slow to sort
    if len(places) < count:
        places = np.arange(len(scores))
    held = scores[places]
    if count < len(held):
        least = np.partition(held, len(held) - count)[len(held) - count]
        above = np.flatnonzero(held > least)
        equal = np.flatnonzero(held == least)[: count - len(above)]
        chosen = np.sort(np.concatenate([above, equal]))
        places, held = places[chosen], held[chosen]
    return places[np.argsort(-held, kind="stable")]
