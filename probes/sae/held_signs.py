"""Signs of features in held-out texts: one half decides which of them hold, the other says how well.

A number that decided whether it is shown would be too high in those that are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.sae.examples import Collector
from probes.sae.readable import LEAST, LIFT, OFFSETS, Sign, types_at
from probes.sae.token_states import TokenReader, TokenStates
from probes.sae.token_text import SpelledTexts, Types
from probes.stats import Estimate, wilson_interval

IntArray = NDArray[np.integer[Any]]
FloatArray = NDArray[np.floating[Any]]


def check_signs(
    signs: Sequence[Sign],
    collector: Collector,
    reader: TokenReader,
    types: Types,
    promoted: NDArray[np.int64] | None,
) -> list[Sign]:
    """Those of the signs that hold in one half of the texts of `reader`, with their share in the other; order as given.

    A concept holds if its feature is active at all: what it tells was picked and judged on labelled texts.
    """
    spelled = SpelledTexts(reader.reading)
    seen = _Seen.nothing(len(spelled.starts) - 1, len(signs))
    features = [sign.feature for sign in signs]

    def each(batch: TokenStates) -> None:
        codes: Any = collector.coder.transform(batch.states)
        own = np.maximum(np.asarray(codes.tocsc()[:, features].toarray(), np.float64), 0)
        like = [_covers(sign, spelled, types, promoted, batch) for sign in signs]
        seen.add(batch.text, own, np.stack(like, 1))

    reader.run(each)
    if not seen.tokens.any():
        return []
    deciding = halves_of_texts(spelled, collector.plan.seed)
    found: list[Sign] = []
    for number, sign in enumerate(signs):
        if sign.kind == "concept":
            found += [sign] if seen.mass[:, number].any() else []
            continue
        decided, told = seen.share(number, deciding), seen.share(number, ~deciding)
        if decided is not None and told is not None and _holds(sign, *decided):
            found.append(replace(sign, held=told[0], base=told[1]))
    return found


def halves_of_texts(spelled: SpelledTexts, seed: int) -> NDArray[np.bool_]:
    """Which texts are in the first of two halves, drawn by `seed`; texts of equal tokens are in one of them."""
    ends = zip(spelled.starts[:-1].tolist(), spelled.starts[1:].tolist(), strict=True)
    numbers: dict[bytes, int] = {}
    own = [numbers.setdefault(spelled.ids[a:b].tobytes(), len(numbers)) for a, b in ends]
    order = np.random.default_rng((seed, 6)).permutation(len(numbers))
    return (order < (len(numbers) + 1) // 2)[own]


@dataclass(frozen=True)
class _Seen:
    """Sums over each text: tokens (n,), and by sign the activation, its part and the tokens that are like the sign."""

    tokens: FloatArray
    mass: FloatArray  # (n, signs)
    covered: FloatArray  # (n, signs)
    like: FloatArray  # (n, signs)

    @classmethod
    def nothing(cls, n: int, signs: int) -> _Seen:
        mass, covered, like = np.zeros((3, n, signs))
        return cls(np.zeros(n), mass, covered, like)

    def add(self, text: IntArray, own: FloatArray, like: NDArray[np.bool_]) -> None:
        """Take in tokens: their texts (tokens,), activations and likeness (tokens, signs)."""
        np.add.at(self.tokens, text, 1)
        np.add.at(self.mass, text, own)
        np.add.at(self.covered, text, own * like)
        np.add.at(self.like, text, like)

    def share(self, number: int, rows: NDArray[np.bool_]) -> tuple[Estimate, float] | None:
        """Share of the activation that is covered, and of tokens; None where the sign's feature is not active."""
        found = covered_share(self.covered[rows, number], self.mass[rows, number])
        tokens = self.tokens[rows].sum()
        return None if found is None else (found, float(self.like[rows, number].sum() / tokens))


def covered_share(covered: FloatArray, mass: FloatArray) -> Estimate | None:
    """Σ covered / Σ mass over texts, and its Wilson interval for as many texts as the weights amount to.

    (Σ mass)² / Σ mass² texts, Kish's effective size: texts that are active for the most part count, and a few do not
    make an interval of no width. `n` is the number of texts with any activation; None without one.
    Paper: Kish 1965, Survey Sampling.

    >>> covered_share(np.array([2.0, 0, 2]), np.array([2.0, 0, 2])).n
    2
    """
    total = float(mass.sum())
    if total <= 0:
        return None
    share = min(1.0, float(covered.sum()) / total)
    texts: Any = max(1.0, total**2 / float((mass**2).sum()))
    low, high = wilson_interval(share * texts, texts)
    return Estimate(share, low, high, int((mass > 0).sum()))


def _holds(sign: Sign, held: Estimate, base: float) -> bool:
    assert held.low is not None
    least = LEAST[sign.kind]
    return held.value >= least and held.low >= max(LIFT * base, least / 2)


def _covers(
    sign: Sign,
    spelled: SpelledTexts,
    types: Types,
    promoted: NDArray[np.int64] | None,
    batch: TokenStates,
) -> NDArray[np.bool_]:
    """Which tokens of a batch are like the sign: (tokens,)."""
    if sign.kind == "concept":
        return np.zeros(len(batch.text), bool)
    members: Any = sign.members
    if sign.kind == "next":
        assert promoted is not None
        members = types.of[promoted[sign.feature]]
    there = batch.position + OFFSETS[sign.kind]
    return np.isin(types_at(spelled, types, batch.text, there), members)
