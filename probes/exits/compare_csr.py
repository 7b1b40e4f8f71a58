"""Sparse codes beside dense vectors of as many numbers or bytes: what each keeps, and how fast it is searched."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.exits.evidence import ratio
from probes.exits.material import Material
from probes.exits.resample import Resamples
from probes.exits.retrieval import RetrievalTask
from probes.exits.sparse_codes import fit_coders
from probes.linalg import check_matrix, normalise_rows
from probes.stats import percentile_interval

if TYPE_CHECKING:
    from probes.sae.csr import CSRCoder
    from probes.sae.inverted import InvertedIndex

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Progress = Callable[[int, int, str], None]
Cut = Callable[[Array], Array]  # embeddings (…, d) to (…, width)
Sides = tuple[Array, Array]  # embeddings of the documents and of the queries
Search = Callable[[int], Any]  # number of a query to its ten nearest documents

TOP = 10
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Way:
    """One way to keep vectors: `states` (texts, width) are judged, `search` is timed.

    `active` are the numbers kept per vector, `bytes` what they take as stored; `comparison` says in what it equals the
    sparse code of `csr_k` active numbers.
    """

    coder: str
    states: Array
    active: int
    bytes: float
    search: Search | None = None
    comparison: str | None = None
    csr_k: int | None = None


def compare_csr(
    material: Material,
    embeddings: Array,
    ks: Sequence[int] = (8, 16, 32, 64),
    *,
    draws: int = 1000,
    seed: int = 0,
    rounds: int = 200,
    coders: Mapping[int, CSRCoder] | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Quality and time of sparse codes against Matryoshka truncation and PCA at equal active numbers and equal bytes.

    Parameters: `material` is a prepared dataset, `embeddings` (texts, d) the full model's, of its texts in their order.
    Coders (unless given) and PCA are fitted to the rows that translators may use; examples outside the fit part are
    judged. `rounds` queries are timed one by one, the ways taking turns; 0 leaves time unmeasured, and so does data
    without documents.

    Quality is the task's primary measure by cosine; intervals are percentile bootstraps over clusters of examples, one
    set of resamples for all. `share` is of the full embeddings. Bytes are those of the index, values in float32: 8 per
    active number of a sparse code (value, text) and its share of where the features begin, 4 per dense number. Equal
    bytes are rounded up for the dense vectors, and cut to d. `query_ms` is of the search: scoring all documents and
    choosing ten. Coding the query comes before it, and is one product of d × n_features whatever the corpus holds.

    Returns rows with dataset, coder, active, width, bytes, measure, value, low, high, share, n, seed, query_ms,
    comparison, csr_k.
    """
    from probes.sae.inverted import InvertedIndex

    full = normalise_rows(check_matrix(embeddings, "embeddings").astype(np.float32))
    task = material.task
    sides = (full[task.documents], full[task.queries]) if isinstance(task, RetrievalTask) else None
    made = coders or fit_coders(full, material.fit_rows, ks, seed, progress)
    d = full.shape[1]
    ways = [Way("full", full, d, FLOAT_BYTES * d, dense_search(sides, lambda x: x))]
    components = leading_components(full[material.fit_rows])
    for k, coder in sorted(made.items()):
        codes = coder.transform(full)
        index = InvertedIndex(codes[task.documents] if isinstance(task, RetrievalTask) else codes)
        size = index.bytes_per_text
        search = (
            sparse_search(index, codes[task.queries]) if isinstance(task, RetrievalTask) else None
        )
        ways.append(Way("csr", codes.toarray(), k, size, search))
        wide = min(d, int(np.ceil(size / FLOAT_BYTES)))
        for comparison, m in (("active", k), ("bytes", wide)):
            for name, cut in (("matryoshka", first_coordinates), ("pca", components)):
                ways.append(_cut(name, full, sides, cut(m), comparison, k))
    n = len(sides[1]) if sides else 0
    times = time_searches([way.search for way in ways], n, rounds, seed)
    return _judge(material, ways, times, draws, seed)


def _cut(coder: str, full: Array, sides: Sides | None, cut: Cut, comparison: str, k: int) -> Way:
    """Dense vectors: what `cut` leaves of the embeddings."""
    states = cut(full)
    width = states.shape[1]
    return Way(coder, states, width, FLOAT_BYTES * width, dense_search(sides, cut), comparison, k)


def first_coordinates(m: int) -> Cut:
    """Matryoshka truncation to m coordinates."""
    return lambda x: x[..., :m]


def leading_components(X: Array) -> Callable[[int], Cut]:
    """Projections to the m leading principal components of the rows of X (n, d), about their mean."""
    from probes.sae.baselines import PCACoder

    fitted = PCACoder(X.shape[1]).fit(X)
    axes = fitted.decoder_.T.astype(np.float32)  # (d, d), most variance first
    offset = (fitted.mean_ @ fitted.decoder_.T).astype(np.float32)

    def components(m: int) -> Cut:
        kept = np.ascontiguousarray(axes[:, :m])
        return lambda x: x @ kept - offset[:m]

    return components


def dense_search(sides: Sides | None, cut: Cut) -> Search | None:
    """Exact search by cosine among documents (documents, d), after `cut`; None without documents."""
    from probes.sae.inverted import best_first

    if sides is None:
        return None
    held, asked = (np.ascontiguousarray(normalise_rows(cut(side))) for side in sides)
    return lambda i: best_first(held @ asked[i], TOP)


def sparse_search(index: InvertedIndex, queries: Any) -> Search:
    """Search in the index by the codes of queries (queries, features)."""
    asked = [queries[[i]] for i in range(queries.shape[0])]
    return lambda i: index.search(asked[i], TOP)


def time_searches(
    searches: Sequence[Search | None], queries: int, rounds: int, seed: int = 0
) -> list[float | None]:
    """Median milliseconds per query of each way; they take turns on the same queries, in an order that rotates."""
    running = [i for i, search in enumerate(searches) if search is not None]
    if not rounds or not queries or not running:
        return [None] * len(searches)
    rng = np.random.default_rng(seed)
    taken: dict[int, list[float]] = {i: [] for i in running}
    for number in range(-1, rounds):  # the first one warms up
        query = int(rng.integers(queries))
        turn = number % len(running)
        for i in running[turn:] + running[:turn]:
            search = searches[i]
            assert search is not None
            start = time.perf_counter()
            search(query)
            if number >= 0:
                taken[i].append((time.perf_counter() - start) * 1000)
    return [statistics.median(taken[i]) if i in taken else None for i in range(len(searches))]


def _judge(
    material: Material, ways: Sequence[Way], times: Sequence[float | None], draws: int, seed: int
) -> list[dict[str, Any]]:
    """One row per way, its quality over the examples outside the fit part."""
    task, fit = material.task, material.parts["fit"]
    rows = np.sort(np.concatenate([part for name, part in material.parts.items() if name != "fit"]))
    resamples = Resamples.make(len(rows), draws, seed, task.clusters[rows])
    found: list[dict[str, Any]] = []
    for way, ms in zip(ways, times, strict=True):
        cells = task.score(way.states, [way.states.shape[1]], fit)[task.primary]
        value = float(task.estimate(task.primary, cells, rows)[0])
        drawn = task.draws(task.primary, cells, rows, resamples)
        low, high = (float(bound[0]) for bound in percentile_interval(drawn, 0.95, axis=1))
        first = found[0]["value"] if found else value
        share = float(ratio(np.array([value]), np.array([first]))[0]) if first > 0 else None
        about = {"dataset": task.name, "coder": way.coder, "active": way.active}
        size = {"width": way.states.shape[1], "bytes": way.bytes, "measure": task.primary}
        judged = {"value": value, "low": low, "high": high, "share": share}
        against = {"query_ms": ms, "comparison": way.comparison, "csr_k": way.csr_k}
        found.append({**about, **size, **judged, "n": len(rows), "seed": seed, **against})
    return found
