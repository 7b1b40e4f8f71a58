"""What is measured: one `Measure` per registered name, known without loading any code that computes it.

A run folder carries a copy of these entries (`measures.json`), so that reports and the dashboard can
label axes and draw chance lines without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Generic, Literal, TypeVar

from probes.errors import InputError, unknown_name

T = TypeVar("T")
Direction = Literal["up", "down", "none"]


class Registry(Generic[T], Mapping[str, T]):
    """Names to things, each registered once; a misspelt name is an error that lists the right ones.

    >>> fruits = Registry[int]("fruit")
    >>> fruits.add("apple", 3)
    3
    >>> fruits["appel"]
    Traceback (most recent call last):
    ...
    probes.errors.InputError: unknown fruit 'appel': did you mean 'apple'? Allowed: apple.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def add(self, name: str, item: T) -> T:
        if name in self._items:
            raise InputError(f"{self.kind} {name!r} is registered twice")
        self._items[name] = item
        return item

    def __getitem__(self, name: str) -> T:
        try:
            return self._items[name]
        except KeyError:
            raise unknown_name(self.kind, name, self._items) from None

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


@dataclass(frozen=True)
class Measure:
    """What a number in the tidy table means.

    `low` and `high` bound the value (None: unbounded); `chance` is the level of a guess where one exists.
    """

    name: str
    title: str
    unit: str
    low: float | None
    high: float | None
    better: Direction
    summary: str
    paper: str = ""
    chance: float | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


MEASURES: Registry[Measure] = Registry("measure")


def register_measure(measure: Measure) -> Measure:
    """Add `measure` to the list that tables, reports and conformance tests go by."""
    return MEASURES.add(measure.name, measure)


@dataclass(frozen=True)
class LayerMetric:
    """A label-free number of one layer's states: `compute(X)` takes (n, d) and gives a float.

    `invariances` names what must not change the value: "rotation" (X @ Q for orthogonal Q), "scale" (c·X, c > 0),
    "translation" (X + 1vᵀ), "permutation" (rows reordered). The conformance tests hold every metric to them.
    `compute` raises `DoesNotApply` with the reason where the value is undefined.
    """

    measure: Measure
    compute: Callable[..., float]
    invariances: frozenset[str]
    influence: Callable[..., Any] | None = None  # (n, d) -> (n,): each row's share in the value
    limit: int | None = None  # rows that a table uses at most (a seeded sample): work grows with n²


LAYER_METRICS: Registry[LayerMetric] = Registry("layer metric")


def register_layer_metric(
    measure: Measure,
    invariances: set[str],
    influence: Callable[..., Any] | None = None,
    limit: int | None = None,
) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Decorator that registers a plain function on (n, d) arrays as a layer metric."""

    def decorate(function: Callable[..., float]) -> Callable[..., float]:
        register_measure(measure)
        LAYER_METRICS.add(
            measure.name, LayerMetric(measure, function, frozenset(invariances), influence, limit)
        )
        return function

    return decorate


@dataclass(frozen=True)
class PairMetric:
    """A label-free number of two views of the same texts: `compute(A, B)` takes two (n, d) and gives a float.

    Row i of A and row i of B come from one text (crops, rephrasings, dropout). `influence(A, B)` gives (n,),
    each text's share in the value. `compute` raises `DoesNotApply` with the reason where the value is undefined.
    """

    measure: Measure
    compute: Callable[..., float]
    influence: Callable[..., Any] | None = None
    limit: int | None = None  # rows that a table uses at most (a seeded sample): work grows with n²


PAIR_METRICS: Registry[PairMetric] = Registry("pair metric")


def register_pair_metric(
    measure: Measure, influence: Callable[..., Any] | None = None, limit: int | None = None
) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Decorator that registers a plain function on two (n, d) arrays as a metric of two views."""

    def decorate(function: Callable[..., float]) -> Callable[..., float]:
        register_measure(measure)
        PAIR_METRICS.add(measure.name, PairMetric(measure, function, influence, limit))
        return function

    return decorate


@dataclass(frozen=True)
class TokenMetric:
    """A number of one text's token states: `compute(tokens)` takes (T, d) and gives a float.

    `batch(states, keep)` is the same on torch tensors, for use while the model runs: states (batch, token, d),
    keep (batch, token) True at real tokens, answer (batch,) in float64, NaN where the value is undefined
    for that text. `compute` raises `DoesNotApply` with the reason there.
    """

    measure: Measure
    compute: Callable[..., float]
    batch: Callable[..., Any]


TOKEN_METRICS: Registry[TokenMetric] = Registry("token metric")


def register_token_metric(
    measure: Measure, batch: Callable[..., Any]
) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Decorator that registers a plain function on (T, d) arrays, with its torch twin, as a token metric."""

    def decorate(function: Callable[..., float]) -> Callable[..., float]:
        register_measure(measure)
        TOKEN_METRICS.add(measure.name, TokenMetric(measure, function, batch))
        return function

    return decorate


def _quality(name: str, title: str, summary: str, *, low: float = 0.0, paper: str = "") -> None:
    register_measure(Measure(name, title, "", low, 1.0, "up", summary, paper))


_quality(
    "spearman",
    "Spearman correlation",
    "Rank correlation between cosine similarity and the given score.",
    low=-1.0,
    paper="Spearman 1904",
)
_quality(
    "ndcg_at_10",
    "nDCG@10",
    "Normalised discounted cumulative gain of the first ten documents.",
    paper="Järvelin & Kekäläinen 2002",
)
_quality("recall_at_1", "Recall@1", "Share of the relevant documents found at rank one.")
_quality("recall_at_10", "Recall@10", "Share of the relevant documents among the first ten.")
_quality("mrr", "MRR", "Mean reciprocal rank of the first relevant document.")
_quality("accuracy", "Accuracy", "Share of examples classified rightly by a linear probe.")
_quality(
    "balanced_accuracy", "Balanced accuracy", "Mean over classes of the share classified rightly."
)
register_measure(
    Measure(
        "auroc",
        "AUROC",
        "",
        0.0,
        1.0,
        "up",
        "Chance that a positive example scores above a negative one.",
        "Hanley & McNeil 1982",
        0.5,
    )
)
register_measure(
    Measure(
        "latency_p50_ms",
        "Median latency",
        "ms",
        0.0,
        None,
        "down",
        "Median wall time from text to embedding, tokenising included, on the machine of the run.",
    )
)
register_measure(
    Measure(
        "latency_p95_ms",
        "95th percentile of latency",
        "ms",
        0.0,
        None,
        "down",
        "95th percentile of wall time from text to embedding, tokenising included.",
    )
)
register_measure(
    Measure(
        "relative_cost",
        "Share of the full model's time",
        "",
        0.0,
        None,
        "down",
        "Time to embed a text with the cut model over that of the full model, measured side by side.",
    )
)
