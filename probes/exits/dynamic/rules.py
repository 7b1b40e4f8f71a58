"""Confidence rules: when is an input sure enough to stop here? Each gives a number per input; the larger, the surer.

An input stops at the first layer at which its confidence reaches the threshold, at the last one at the latest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from probes.errors import InputError
from probes.exits.dynamic.looks import Look, Top, row_cosines
from probes.registry import Registry

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]


class Confidence(Protocol):
    """A rule ready for use; `needs_top`: it reads `look.top`."""

    @property
    def name(self) -> str: ...

    @property
    def needs_top(self) -> bool: ...

    def __call__(self, look: Look) -> Array:
        """(n,) the larger, the surer; −inf where nothing can be said yet."""
        ...


@dataclass(frozen=True)
class Rule:
    """A rule without parameters. `kinds`: the data it has a meaning for; `needs_top`: whether it reads `look.top`."""

    name: str
    summary: str
    kinds: tuple[str, ...]
    needs_top: bool
    confidence: Callable[[Look], Array]

    def __call__(self, look: Look) -> Array:
        """(n,) confidence; `InputError` where the best answers are needed and there is no index to find them in."""
        return self.confidence(look)


def _top(look: Look) -> Top:
    if look.top is None:
        raise InputError(
            "this rule compares the best answers: it needs classes, or an index of documents"
        )
    return look.top


def _max_prob(look: Look) -> Array:
    return _top(look).best


def _margin(look: Look) -> Array:
    top = _top(look)
    return top.best - top.second


def _entropy(look: Look) -> Array:
    p = look.answers
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    return 1 + (p * logs).sum(axis=1) / np.log(p.shape[1])


def _state_cosine(look: Look) -> Array:
    if look.before is None:
        return np.full(len(look.states), -np.inf)
    return row_cosines(look.states, look.before.states)


def _answer_cosine(look: Look) -> Array:
    if look.before is None:
        return np.full(len(look.states), -np.inf)
    return row_cosines(look.answers, look.before.answers)


def _patience(look: Look) -> Array:
    _top(look)
    return look.streak.astype(np.float64)


_CLASSES = ("classification",)
_TOPS = ("classification", "retrieval")
_SPACE = ("retrieval", "similarity")
_ALL = ("classification", "retrieval", "similarity")

RULES: Registry[Rule] = Registry("rule")
for _rule in (
    Rule("max-prob", "probability of the best class (CALM, LGViT)", _CLASSES, True, _max_prob),
    Rule("margin", "best minus second best class or document (CALM)", _TOPS, True, _margin),
    Rule("entropy", "1 − entropy / log classes (BranchyNet, LGViT)", _CLASSES, False, _entropy),
    Rule(
        "state-cosine",
        "cosine of the state to that of the exit before (CALM)",
        _ALL,
        False,
        _state_cosine,
    ),
    Rule(
        "answer-cosine",
        "cosine of the embedding to that of the exit before",
        _SPACE,
        False,
        _answer_cosine,
    ),
    Rule("patience", "exits in a row with the same best answer (PABEE)", _TOPS, True, _patience),
):
    RULES.add(_rule.name, _rule)


def rules_for(kind: str) -> tuple[Rule, ...]:
    """The rules that mean something for data of `kind`.

    >>> [rule.name for rule in rules_for("similarity")]
    ['state-cosine', 'answer-cosine']
    """
    return tuple(rule for rule in RULES.values() if kind in rule.kinds)


def exit_places(confidence: Array, threshold: float) -> IntArray:
    """Which exit every input takes (n,), given its confidence (exits − 1, n) at all exits but the last.

    >>> exit_places(np.array([[0.2, 0.9, 0.1], [0.8, 0.1, 0.3]]), 0.5).tolist()
    [1, 0, 2]
    """
    sure = confidence >= threshold
    return np.where(sure.any(axis=0), sure.argmax(axis=0), len(confidence))
