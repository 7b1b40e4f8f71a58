"""Features that a person can read: picked by a rule on some texts, checked on others.

**Rule.** A feature is eligible if it is active in 0.01 to 1 % of tokens, at least ten times, in five texts or more, and
not mostly at first tokens. Its *sign* is the one of these that covers most of its activation in the fit texts (lower
Wilson bound, over texts): up to three token types that it is active on ("token"), or right after ("before"), or one of
its promoted types that comes next ("next"); or a concept that it tells by being active ("concept", AUROC less 0.5,
doubled). The sign must cover half of the activation (a quarter for "next") and be twice as frequent there as in all
tokens, in the fit texts and once more in held-out texts, where the lower bound counts (half of the share is enough
for it). Features are taken from the best score down, with no two that share a sign or whose decoder rows have a cosine
above 0.5, few of one kind, and at most two whose tokens have no letters; what is left free by the limits is filled
without them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.linalg import normalise_rows
from probes.probing.scores import Resamples, Terms
from probes.sae.examples import Collector
from probes.sae.token_states import TokenReader, TokenStates
from probes.sae.token_text import SpelledTexts, Types
from probes.stats import Estimate, wilson_interval

IntArray = NDArray[np.integer[Any]]
FloatArray = NDArray[np.floating[Any]]

DENSITY = (1e-4, 1e-2)
FEWEST_TOKENS, FEWEST_TEXTS, FIRST_TOKENS = 10, 5, 0.5
CHECKED = 100  # candidates that are looked at in held-out texts
MEMBERS, MEMBER_SHARE = 3, 0.05
OFFSETS = {"token": 0, "before": -1, "next": 1}
LEAST = {"token": 0.5, "before": 0.5, "next": 0.25}
LIFT = 2.0
CONCEPT_AUROC = 0.7
MOST_OF_KIND = {"token": 4, "before": 3, "next": 3, "concept": 3}
MOST_WITHOUT_LETTERS = 2
ALIKE = 0.5


@dataclass(frozen=True)
class Sign:
    """What a feature is recognised by: token types `members` at `offset` from where it is active, or a concept."""

    feature: int
    kind: str
    members: tuple[int, ...]
    score: float
    held: Estimate | None = None  # share of the activation in held-out texts
    base: float = 0.0  # share of all tokens there

    def says(self, types: Types, concept: dict[str, Any] | None) -> str:
        """One sentence."""
        if concept is not None and self.kind == "concept":
            return (
                f"Active where “{concept['concept']}” is{_in(concept['dataset'])}: AUROC {concept['auroc']:.2f} "
                f"[{concept['auroc_low']:.2f}, {concept['auroc_high']:.2f}] on examples that did not pick it."
            )
        assert self.held is not None
        named = ", ".join(f"“{types.names[i]}”" for i in self.members)
        start = {
            "token": f"Active on {named}",
            "before": f"Active right after {named}",
            "next": f"Active where one of its promoted tokens comes next, such as {named}",
        }[self.kind]
        low, high = self.held.low, self.held.high
        ends = "" if low is None or high is None else f" [{100 * low:.0f}, {100 * high:.0f}]"
        return (
            f"{start}: {100 * self.held.value:.0f} %{ends} of its activation in held-out texts, "
            f"where {_percent(self.base)} of all tokens are like that."
        )


def _in(dataset: Any) -> str:
    return f" ({dataset})" if isinstance(dataset, str) else ""


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def find_signs(
    collector: Collector,
    spelled: SpelledTexts,
    types: Types,
    promoted: NDArray[np.int64] | None,
    concepts: pd.DataFrame,
) -> list[Sign]:
    """The best sign of every eligible feature in the texts of the collector, the best first.

    `promoted` (m, tokens) ids or None; `concepts` has feature, auroc_low and fit_auroc.
    """
    density = collector.count / max(1, collector.tokens)
    likely = (density >= DENSITY[0]) & (density <= DENSITY[1]) & (collector.count >= FEWEST_TOKENS)
    frequency = np.bincount(types.of[spelled.ids], minlength=len(types.names)) / len(spelled.ids)
    told = concepts.set_index("feature") if len(concepts) else None
    found: list[Sign] = []
    for feature in np.flatnonzero(likely).tolist():
        sample = _Sample.of(collector, feature)
        if sample.texts < FEWEST_TEXTS or sample.share(sample.position == 0) > FIRST_TOKENS:
            continue
        signs = _signs(feature, sample, spelled, types, frequency, promoted)
        if told is not None and feature in told.index:
            row: Any = told.loc[feature]
            if (
                pd.notna(row["auroc_low"])
                and min(row["auroc_low"], row["fit_auroc"]) >= CONCEPT_AUROC
            ):
                signs.append(Sign(feature, "concept", (), 2 * float(row["auroc_low"]) - 1))
        if signs:
            found.append(max(signs, key=lambda sign: sign.score))
    return sorted(found, key=lambda sign: -sign.score)


@dataclass(frozen=True)
class _Sample:
    """Kept activations of one feature, with weights that sum to 1."""

    text: IntArray
    position: IntArray
    weight: FloatArray
    texts: int

    @classmethod
    def of(cls, collector: Collector, feature: int) -> _Sample:
        kept = collector.sample
        chosen = kept.filled[feature] & (kept.value[feature] > 0)
        value = kept.value[feature, chosen].astype(np.float64)
        text = kept.text[feature, chosen]
        return cls(
            text,
            kept.position[feature, chosen],
            value / max(float(value.sum()), 1e-300),
            len(np.unique(text)),
        )

    def share(self, mask: NDArray[np.bool_]) -> float:
        return min(1.0, float(self.weight[mask].sum()))


def _signs(
    feature: int,
    sample: _Sample,
    spelled: SpelledTexts,
    types: Types,
    frequency: FloatArray,
    promoted: NDArray[np.int64] | None,
) -> list[Sign]:
    found: list[Sign] = []
    for kind, offset in OFFSETS.items():
        own = _types_at(spelled, types, sample.text, sample.position + offset)
        if kind == "next":
            if promoted is None:
                continue
            wanted = np.unique(types.of[promoted[feature]])
            members = _heaviest(own[np.isin(own, wanted)], sample.weight[np.isin(own, wanted)])
        else:
            wanted = members = _heaviest(own, sample.weight)
        share = sample.share(np.isin(own, wanted))
        low = wilson_interval(share * sample.texts, sample.texts)[0]
        if not len(members) or low < LEAST[kind] or low < LIFT * frequency[wanted].sum():
            continue
        found.append(Sign(feature, kind, tuple(members.tolist()), low))
    return found


def _types_at(spelled: SpelledTexts, types: Types, text: IntArray, position: IntArray) -> IntArray:
    """Types at those places, −1 outside of the text."""
    ids = spelled.at(text, position)
    return np.where(ids >= 0, types.of[np.maximum(ids, 0)], -1)


def _heaviest(own: IntArray, weight: FloatArray) -> IntArray:
    """The few types that carry most of the weight, the heaviest first."""
    names, place = np.unique(own, return_inverse=True)
    mass = np.bincount(place, weight, len(names))
    mass[names < 0] = 0
    order = np.argsort(-mass, kind="stable")[:MEMBERS]
    return names[order[mass[order] >= MEMBER_SHARE]]


def check_signs(
    signs: Sequence[Sign],
    collector: Collector,
    reader: TokenReader,
    types: Types,
    promoted: NDArray[np.int64] | None,
) -> list[Sign]:
    """Those of the signs that hold in the texts of `reader` too, with their share there; order as given."""
    spelled = SpelledTexts(reader.reading)
    n = len(spelled.starts) - 1
    covered, mass = np.zeros((n, len(signs))), np.zeros((n, len(signs)))
    like, tokens = np.zeros(len(signs)), 0
    features = [sign.feature for sign in signs]

    def each(batch: TokenStates) -> None:
        nonlocal tokens
        codes: Any = collector.coder.transform(batch.states)
        own = np.maximum(np.asarray(codes.tocsc()[:, features].toarray(), np.float64), 0)
        tokens += len(own)
        for number, sign in enumerate(signs):
            here = _covers(sign, spelled, types, promoted, batch)
            like[number] += here.sum()
            mass[:, number] += np.bincount(batch.text, own[:, number], n)
            covered[:, number] += np.bincount(batch.text, own[:, number] * here, n)

    reader.run(each)
    if not tokens:
        return []
    draws = Resamples(n, None, 1000, 0.95, np.random.default_rng((collector.plan.seed, 6)))
    found: list[Sign] = []
    for number, sign in enumerate(signs):
        if not mass[:, number].any():
            continue
        if sign.kind == "concept":
            found.append(sign)
            continue
        terms = Terms("share", covered[:, [number]], mass[:, [number]], 1.0, 0.0, 1.0)
        ((_, held),) = draws.estimates([terms], collector.plan.seed)
        base = float(like[number] / tokens)
        if (
            held.value >= LEAST[sign.kind]
            and held.low is not None
            and held.low >= max(LIFT * base, LEAST[sign.kind] / 2)
        ):
            found.append(replace(sign, held=held, base=base))
    return found


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
    return np.isin(_types_at(spelled, types, batch.text, there), members)


def choose(signs: Sequence[Sign], types: Types, decoder: Any, n: int) -> list[Sign]:
    """Up to n signs, the best first, that differ from each other; see the rule above."""
    rows = normalise_rows(np.asarray(decoder)[[sign.feature for sign in signs]])
    chosen: list[int] = []
    for limits in (True, False):
        for i, sign in enumerate(signs):
            if len(chosen) == n:
                break
            if i in chosen or (limits and _too_many([signs[j] for j in chosen], sign, types)):
                continue
            new = not any(
                float(rows[i] @ rows[j]) > ALIKE
                or (signs[j].kind == sign.kind and set(signs[j].members) & set(sign.members))
                for j in chosen
            )
            if new:
                chosen.append(i)
    return [signs[i] for i in sorted(chosen)]


def _too_many(chosen: Sequence[Sign], sign: Sign, types: Types) -> bool:
    kinds = Counter(one.kind for one in chosen)
    if kinds[sign.kind] >= MOST_OF_KIND[sign.kind]:
        return True
    mute = sum(_mute(one, types) for one in chosen)
    return _mute(sign, types) and mute >= MOST_WITHOUT_LETTERS


def _mute(sign: Sign, types: Types) -> bool:
    """Whether its tokens hold no letter."""
    return bool(sign.members) and not any(
        character.isalpha() for i in sign.members for character in types.names[i]
    )
