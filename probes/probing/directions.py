"""Is a concept's direction the same in different contexts, beyond what chance and noise allow?

The cosine of two *estimated* directions is pulled towards zero by the noise of both: with the same
true direction in both contexts its expectation is about √(r₁ r₂), r the reliability |θ|² / (|θ|² + noise).
So three numbers stand side by side: the cosine, the same for shuffled labels (what anisotropic states
give by themselves), and the ceiling √(r₁ r₂) by split halves, with which a high cosine must be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import DataError, InputError, unknown_name
from probes.probing.agreement import Seen, compared
from probes.probing.base import FloatArray, IntArray
from probes.probing.massmean import shrunk_inverse
from probes.probing.questions import concept as as_concept
from probes.probing.questions import group_codes
from probes.probing.rows import Place, States, read_layer, shared_layers
from probes.stats import Estimate, check_confidence
from probes.tables import tidy

INTERVAL = (
    "for the cosine: Fisher's z and Student's t with the delta method over examples (whole groups where given); for "
    "random labels: the central band of draws"
)


def direction_agreement(
    states_by_context: Mapping[str, States],
    labels_by_context: Mapping[str, Any],
    *,
    groups: Mapping[str, Any] | None = None,
    covariance: bool = False,
    layers: Sequence[int] | None = None,
    draws: int = 200,
    each_pair: bool = False,
    seed: int = 0,
    confidence: float = 0.95,
    site: str = "exit",
    dataset: str | None = None,
    concept: str | None = None,
    pooling: str | None = None,
    split: str | None = None,
) -> pd.DataFrame:
    """Cosine between the directions θ = μ⁺ − μ⁻ of one concept in different contexts, per layer.

    Parameters
    ----------
    states_by_context : context (a data set, a template) -> layer -> (n, d) states of one model.
    labels_by_context : context -> (n,) two classes, the same everywhere; θ points to the second.
    groups : context -> (n,) names of rows that belong together: halves keep them whole, intervals are
    over them. A single context is halved by group: the cosine is then between its random halves.
    covariance : take Σ⁻¹θ, Σ the pooled within-class covariance of each context (shrunk as in
    `MassMeanProbe`); Σ of the true labels serves the shuffled ones too, so only the labels differ.
    layers : some layers, all if None. draws : shuffles and splits.
    each_pair : with more than two contexts, one row per pair too, `split` = "A ~ B".

    Returns
    -------
    Tidy rows of `direction_cosine` in [−1, 1], the mean over all pairs of contexts. Variants:
    null     the cosine, with its interval;
    "random" labels permuted within each context: mean and central band over draws;
    "split-half" the ceiling: the cosine to expect if the true directions were the same, √(r₁ r₂) with
             r = 2h / (1 + h) (Spearman–Brown), h the mean cosine of random halves of a context, taken
             as 0 where negative; a little low where hardly anything is reliable. Absent for a single
             context, whose cosine *is* h.
    With `covariance` the variants are "covariance", "covariance random", "covariance split-half".

    A cosine far below its ceiling says that the contexts' directions differ; one within the random band
    says nothing is shared. n counts the rows of all contexts. Raises `InputError` or `DataError` for
    contexts, classes or states that do not fit. See also `transfer_matrix`. Paper: On the Origins of
    Linear Representations (arXiv 2403.03867).

    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(200) % 2
    >>> def context(): return {0: rng.normal(size=(200, 20)) + 3 * y[:, None] * np.eye(20)[0]}
    >>> table = direction_agreement({"a": context(), "b": context()}, {"a": y, "b": y}, draws=50)
    >>> (table.set_index("variant", drop=False).value > 0.8).tolist(), table.variant.tolist()
    ([True, False, True], [<NA>, 'random', 'split-half'])
    """
    check_confidence(confidence)
    if draws < 2:
        raise InputError(f"draws is {draws}: at least 2 are needed")
    numbers = shared_layers(states_by_context, layers)
    rng = np.random.default_rng(seed)
    contexts = _contexts(states_by_context, labels_by_context, dict(groups or {}), draws, rng)
    place = Place(site, dataset, concept, pooling, split)
    rows: list[dict[str, Any]] = []
    for layer in numbers:
        seen = {
            name: context.seen(
                read_layer(states_by_context[name], layer, repr(name), context.n), covariance
            )
            for name, context in contexts.items()
        }
        widths = {name: len(s.theta) for name, s in seen.items()}
        if len(set(widths.values())) > 1:
            raise DataError(
                f"layer {layer}: states of different widths {widths}: one model is needed"
            )
        for found in compared(seen, each_pair, confidence):
            own = (
                place if found.pair is None else Place(site, dataset, concept, pooling, found.pair)
            )
            for variant, (value, low, high) in found.values.items():
                estimate = Estimate(value, low, high, found.n, seed)
                rows.append(
                    own.row("direction_cosine", layer, _named(variant, covariance), estimate)
                )
    table = tidy(rows)
    table.attrs.update(interval=INTERVAL, draws=draws, contexts=list(contexts))
    return table


def _named(variant: str | None, covariance: bool) -> str | None:
    if not covariance:
        return variant
    return "covariance" if variant is None else f"covariance {variant}"


@dataclass(frozen=True)
class _Context:
    """Everything about one context's rows; the weights turn states into directions by one product."""

    y: IntArray  # (n,)
    unit: IntArray  # (n,) codes of the groups
    shuffled: NDArray[np.float32]  # (draws, n) weights of differences of class means
    halves: tuple[
        NDArray[np.float32], ...
    ]  # four of (draws, n): halves of the true, of the shuffled labels
    first: NDArray[np.bool_]  # (draws, groups)

    @property
    def n(self) -> int:
        return len(self.y)

    def seen(self, X: FloatArray, covariance: bool) -> Seen:
        wide = X.astype(np.float64)
        wide -= wide.mean(axis=0)  # weights sum to zero: changes nothing but rounding
        weights = _contrast(self.y[None])[0]
        means = np.stack([wide[self.y == k].mean(axis=0) for k in (0, 1)])
        each = weights[:, None] * (wide - means[self.y])  # (n, d)
        parts = np.zeros((int(self.unit.max()) + 1, X.shape[1]))
        np.add.at(parts, self.unit, each)
        found = [
            weights[None] @ wide,
            parts,
            self.shuffled @ wide,
            *(h @ wide for h in self.halves),
        ]
        if covariance:
            turn = _inverse_covariance(wide, self.y)
            found = [part @ turn for part in found]
        theta, influence, shuffled, *halves = found
        true, random = (halves[0], halves[1]), (halves[2], halves[3])
        return Seen(self.n, theta[0], influence, shuffled, true, random, self.first)


def _inverse_covariance(X: FloatArray, y: IntArray) -> FloatArray:
    """Σ⁻¹ (d, d), as `MassMeanProbe(covariance=True)` takes it."""
    means = np.stack([X[y == k].mean(axis=0) for k in (0, 1)])
    return shrunk_inverse(X - means[y], "auto")[1]


def _contrast(y: IntArray, member: NDArray[np.bool_] | None = None) -> FloatArray:
    """Weights (draws, n) whose product with states is the difference of the class means.

    y (draws, n) classes 0 and 1; `member` (draws, n) the rows that count.
    """
    inside = np.ones(y.shape, dtype=bool) if member is None else member
    high, low = inside & (y == 1), inside & (y == 0)
    return high / high.sum(axis=1, keepdims=True) - low / low.sum(axis=1, keepdims=True)


def _contexts(
    states: Mapping[str, States],
    labels: Mapping[str, Any],
    groups: dict[str, Any],
    draws: int,
    rng: np.random.Generator,
) -> dict[str, _Context]:
    for other, what in ((labels, "labels"), (groups, "groups")):
        extra = sorted(set(other) - set(states))
        if extra:
            raise unknown_name(f"context of {what}", extra[0], states)
    contexts: dict[str, _Context] = {}
    classes: dict[str, list[Any]] = {}
    for name in states:
        if name not in labels:
            raise InputError(f"context {name!r} has states but no labels")
        found = as_concept(name, labels[name])
        if found.n_classes != 2:
            raise DataError(
                f"context {name!r} has {found.n_classes} classes: a direction needs two"
            )
        classes[name] = np.unique(np.asarray(labels[name])).tolist()
        first = next(iter(classes))
        if classes[name] != classes[first]:
            raise DataError(
                f"classes of {first!r} are {classes[first]}, those of {name!r} {classes[name]}: the same are needed"
            )
        own = group_codes(groups.get(name), len(found.y))
        unit = np.arange(len(found.y)) if own is None else own.astype(np.int64)
        first = _halves(name, found.y, unit, draws, rng)
        member = first[:, unit]
        shuffles = np.stack([_permuted(found.y, side, rng) for side in member])
        y = np.broadcast_to(found.y, member.shape)
        halves = [_contrast(each, side) for each in (y, shuffles) for side in (member, ~member)]
        contexts[name] = _Context(
            found.y,
            unit,
            _contrast(shuffles).astype(np.float32),
            tuple(weights.astype(np.float32) for weights in halves),
            first,
        )
    return contexts


def _permuted(y: IntArray, member: NDArray[np.bool_], rng: np.random.Generator) -> IntArray:
    """y (n,) permuted inside each half, so that both halves keep both classes."""
    mixed = y.copy()
    for side in (member, ~member):
        mixed[side] = rng.permutation(y[side])
    return mixed


def _halves(
    name: str, y: IntArray, unit: IntArray, draws: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """(draws, groups) one half of the groups, at random, both classes on both sides."""
    units = int(unit.max()) + 1
    kept: list[NDArray[np.bool_]] = []
    for _ in range(20 * draws):
        side = np.zeros(units, dtype=bool)
        side[rng.permutation(units)[: units // 2]] = True
        member = side[unit]
        if min(np.bincount(2 * member + y, minlength=4)) > 0:
            kept.append(side)
        if len(kept) == draws:
            return np.stack(kept)
    raise DataError(
        f"context {name!r} cannot be halved so that both classes lie on both sides ({units} groups): "
        "more groups of both classes are needed"
    )
