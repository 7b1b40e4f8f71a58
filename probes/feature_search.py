"""Finding features by words, with one score for tables in memory, finished runs and the page alike.

Each word or phrase scores in (0, 1] by where it stands: a concept (or its dataset) of that name 1, one that holds the
words ½; promoted tokens 1, 0.95, 0.9, … by rank where the token is the words, ½ of that where it begins with them, ¼
where it holds them elsewhere; examples the share of the activation that lies on the tokens of the words, in the mean
over the examples ("fires on"), or next to nothing where they merely stand in an example ("text").

A query of several words counts as one phrase, or else as half of the score of its worst word: all must be found. A
query that is the number of a feature finds it first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CONCEPT, PROMOTES, FIRES_ON, TEXT, NUMBER = "concept", "promotes", "fires on", "text", "number"
MERELY_THERE = 0.01
LEAST_ON = 0.02  # share of the activation from which a feature fires on the words
_WORDS = 8  # of a query that are looked for


@dataclass(frozen=True)
class Excerpt:
    """An example as one text, whose tokens begin at `starts` and have `values`; `folded` is as long, without case."""

    text: str
    folded: str
    starts: tuple[int, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, tokens: Sequence[str], values: Sequence[float]) -> Excerpt:
        """Tokens with their activations, those below 0 as 0."""
        text, starts = "", [0]
        for token in tokens:
            text += token
            starts.append(len(text))
        # where a letter folds into two, places would be wrong
        folded = next((t for t in (text.casefold(), text.lower()) if len(t) == len(text)), text)
        return cls(text, folded, tuple(starts), tuple(max(0.0, float(v)) for v in values))

    def share(self, wanted: str) -> tuple[float, str] | None:
        """Share of the activation on tokens that overlap an occurrence, and the first occurrence; None without one."""
        at = first = self.folded.find(wanted)
        if first < 0:
            return None
        hit = [False] * len(self.values)
        while at >= 0:
            for i, (begin, end) in enumerate(zip(self.starts, self.starts[1:], strict=False)):
                if begin < at + len(wanted) and end > at:
                    hit[i] = True
            at = self.folded.find(wanted, at + 1)
        total = sum(self.values)
        on = sum(value for value, here in zip(self.values, hit, strict=True) if here)
        return (on / total if total else 0.0), self.text[first : first + len(wanted)]


@dataclass(frozen=True)
class Described:
    """What is known of a feature: names of its concept and dataset, promoted tokens by rank, its strongest examples."""

    feature: int
    names: tuple[str, ...]
    promoted: tuple[str, ...]
    excerpts: tuple[Excerpt, ...]


@dataclass(frozen=True)
class Hit:
    """A feature that a query found: how well, in (0, 1], where, and the concept, token or piece of text there."""

    feature: int
    score: float
    where: str
    found: str


def search(features: Iterable[Described], query: str) -> list[Hit]:
    """The features that a query finds, the best first; none for an empty query.

    >>> cats = Described(7, ("animals",), (" cat", " dog"), (Excerpt.of([" a", " cow"], [0.0, 2.0]),))
    >>> [(hit.feature, hit.score, hit.where) for q in ("Cat", "DOG", "cow", "7") for hit in search([cats], q)]
    [(7, 1.0, 'promotes'), (7, 0.95, 'promotes'), (7, 1.0, 'fires on'), (7, 1.0, 'number')]
    """
    words = query.casefold().split()
    if not words:
        return []
    hits = [hit for each in features if (hit := _asked(each, words)) is not None]
    return sorted(hits, key=lambda hit: (hit.where != NUMBER, -hit.score, hit.feature))


def _asked(each: Described, words: list[str]) -> Hit | None:
    if words == [str(each.feature)]:
        return Hit(each.feature, 1.0, NUMBER, words[0])
    whole = _best(each, " ".join(words))
    if len(words) == 1 or len(words) > _WORDS:
        return whole
    apart = [_best(each, word) for word in words]
    found = [hit for hit in apart if hit is not None]
    if len(found) < len(words):
        return whole
    worst = min(found, key=lambda hit: hit.score)
    best = max(found, key=lambda hit: hit.score)
    half = Hit(each.feature, worst.score / 2, best.where, best.found)
    return half if whole is None or half.score > whole.score else whole


def _best(each: Described, wanted: str) -> Hit | None:
    """The place where the words score most."""
    found = [
        *((1.0 if name.casefold() == wanted else 0.5, CONCEPT, name)
          for name in each.names if wanted in name.casefold()),
        *((_token_score(token.strip().casefold(), wanted) * max(0.05, 1 - rank / 20), PROMOTES, token)
          for rank, token in enumerate(each.promoted)),
    ]  # fmt: skip
    shares = [excerpt.share(wanted) for excerpt in each.excerpts]
    there = [share for share in shares if share is not None]
    if there:
        mean = sum(on for on, _ in there) / len(shares)
        fires = mean >= LEAST_ON
        found.append((mean if fires else MERELY_THERE, FIRES_ON if fires else TEXT, max(there)[1]))
    score, where, text = max(found, key=lambda one: one[0], default=(0.0, "", ""))
    return Hit(each.feature, score, where, text) if score > 0 else None


def _token_score(token: str, wanted: str) -> float:
    if token == wanted:
        return 1.0
    return 0.5 if token.startswith(wanted) else 0.25 if wanted in token else 0.0
