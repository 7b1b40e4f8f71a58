"""Token states of texts at some layers: which are trained on, which are held out, and which text each belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from probes.errors import DataError
from probes.sae.data import StoreRows, blocks
from probes.sae.select import SelectedRows

if TYPE_CHECKING:
    from probes.features.plan import SaePlan
    from probes.models import Model
    from probes.store import Store

MAX_TOKENS = 256  # of a text, unless the plan says otherwise
HELD_OUT = 0.1  # share of the texts
LONG = 5.0  # times the median length: above it a state is a sink's
FEWEST_TEXTS = 20
FEWEST_TOKENS = 2000
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Material:
    """A store of token states of `texts` at `site`, of which `train` and `held_out` are text numbers.

    Left out are the `first` tokens of each text, and `longest` gives for each layer the length above which states are:
    attention sinks are a constant, tens of times as long as other states. The mean square error would see little else.
    """

    texts: tuple[str, ...]
    store: Store
    site: str
    train: IntArray
    held_out: IntArray
    first: int
    longest: dict[int, float]

    def rows(self, layer: int, texts: IntArray) -> SelectedRows:
        """States of those texts' tokens."""
        return SelectedRows(StoreRows(self.store, self.site, layer), self._numbers(layer, texts))

    def groups(self, layer: int, texts: IntArray) -> IntArray:
        """Which text each of `rows` belongs to."""
        return np.searchsorted(self._offsets, self._numbers(layer, texts), side="right") - 1

    def chosen(self, texts: IntArray) -> list[str]:
        return [self.texts[i] for i in texts.tolist()]

    def left_out(self, layer: int) -> int:
        """Tokens, beside first ones, whose states are too long."""
        return int((~self._kept[layer]).sum())

    @cached_property
    def _offsets(self) -> IntArray:
        offsets = self.store.offsets
        assert offsets is not None
        return offsets

    @cached_property
    def _kept(self) -> dict[int, NDArray[np.bool_]]:
        """(tokens,) for each layer: whether a state is of ordinary length; first tokens count as ordinary."""
        found: dict[int, NDArray[np.bool_]] = {}
        for layer, longest in self.longest.items():
            kept = lengths_of(self.store, self.site, layer) <= longest
            kept[first_tokens(self._offsets, self.first)] = True
            found[layer] = kept
        return found

    def _numbers(self, layer: int, texts: IntArray) -> IntArray:
        begin, end = self._offsets[texts] + self.first, self._offsets[texts + 1]
        length = np.maximum(end - begin, 0)
        inside = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        numbers = np.repeat(begin, length) + inside
        return numbers[self._kept[layer][numbers]]


def first_tokens(offsets: IntArray, first: int) -> IntArray:
    """Numbers of the first tokens of each text.

    >>> first_tokens(np.array([0, 3, 4]), 2).tolist()
    [0, 1, 3]
    """
    every = (offsets[:-1, None] + np.arange(first)).ravel()
    return every[every < np.repeat(offsets[1:], first)]


def lengths_of(store: Store, site: str, layer: int) -> NDArray[np.float64]:
    """Length of every token's state, (tokens,)."""
    found = [
        torch.linalg.vector_norm(block.double(), dim=1).numpy()
        for block in blocks(StoreRows(store, site, layer))
    ]
    return np.concatenate(found)


def text_length(model: Model, plan: SaePlan) -> int:
    """Tokens of a text that are read."""
    return min(plan.max_length or MAX_TOKENS, model.max_length)


def gather(
    model: Model, texts: Sequence[str], layers: Sequence[int], plan: SaePlan, progress: Any = False
) -> Material:
    """Capture every token of a sample of `texts` at `layers`, and divide the texts.

    Texts are drawn until the plan's number of tokens is reached. Raises `DataError` where the texts are too few.
    """
    length = text_length(model, plan)
    chosen = _sample(model, texts, plan, length)
    store = capture_tokens(model, chosen, plan.training.site, layers, length, progress)
    order = np.random.default_rng((plan.seed, 11)).permutation(len(chosen))
    held = max(FEWEST_TEXTS // 2, round(HELD_OUT * len(chosen)))
    first = int(model.is_causal)
    made = Material(
        chosen, store, plan.training.site, np.sort(order[held:]), np.sort(order[:held]), first,
        {n: LONG * ordinary_length(store, plan.training.site, n) for n in layers},
    )  # fmt: skip
    have = made.rows(layers[0], made.train).n
    if have < FEWEST_TOKENS:
        raise DataError(
            f"the texts have {have:,} tokens to train on, {FEWEST_TOKENS:,} are needed: "
            "give more or longer texts with --data"
        )
    return made


def ordinary_length(store: Store, site: str, layer: int) -> float:
    """The median length of a state."""
    return float(np.median(lengths_of(store, site, layer)))


def capture_tokens(
    model: Model, texts: Sequence[str], site: str, layers: Sequence[int], length: int, progress: Any
) -> Store:
    """All tokens' states, kept in the cache."""
    from probes.capture import capture

    return capture(
        model,
        list(texts),
        sites=[site],
        layers={site: list(layers)},
        pooling="none",
        max_length=length,
        cache=True,
        progress=progress,
    )


def different_texts(texts: Sequence[str]) -> list[str]:
    """Each text once, in order; `DataError` where they are too few to be divided."""
    found = list(dict.fromkeys(texts))
    if len(found) < FEWEST_TEXTS:
        raise DataError(
            f"{len(found)} different texts came: at least {FEWEST_TEXTS} are needed, most to train on, some to judge by"
        )
    return found


def _sample(model: Model, texts: Sequence[str], plan: SaePlan, length: int) -> tuple[str, ...]:
    """Different texts in random order, until their tokens are enough."""
    different = different_texts(texts)
    order = np.random.default_rng((plan.seed, 10)).permutation(len(different)).tolist()
    tokenizer: Any = model.require_tokenizer()
    wanted, have = plan.training.tokens, 0
    chosen: list[str] = []
    for i in order:
        if have >= wanted and len(chosen) >= FEWEST_TEXTS:
            break
        text = different[i]
        have += min(length, len(tokenizer(text, add_special_tokens=True)["input_ids"]))
        chosen.append(text)
    return tuple(chosen)
