"""Noise in texts: what a robust concept should survive (Exploring Concept Depth, arXiv 2404.07066).

Every text is corrupted with random numbers of its own, drawn from the seed and its key (by default the text itself):
the result depends neither on the other texts nor on the order, and equal texts stay equal.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from probes.errors import InputError, unknown_name
from probes.types import (
    Dataset,
    LabelledNumbers,
    LabelledPairs,
    LabelledTexts,
    MinimalPairs,
    TextPairs,
    check_texts,
)

PREPENDED = 20  # characters put in front at strength 1
_LETTERS = np.array(list(string.ascii_letters + string.digits))
_PIECES = re.compile(r"(\s+)")
Corrupt = Callable[[str, float, np.random.Generator], str]
D = TypeVar("D", bound=Dataset)


@dataclass(frozen=True)
class Noise:
    """A kind of noise: the strength it has by default, and what it does to one text."""

    strength: float
    apply: Corrupt


def _prepend(text: str, strength: float, rng: np.random.Generator) -> str:
    """A random string of letters and digits and a space in front."""
    n = round(strength * PREPENDED)
    return f"{''.join(rng.choice(_LETTERS, size=n))} {text}" if n else text


def _swap(text: str, strength: float, rng: np.random.Generator) -> str:
    """Each two neighbouring characters of a word trade places with probability `strength`, none moves twice."""
    characters = list(text)
    draws = rng.random(len(characters))
    i = 0
    while i + 1 < len(characters):
        a, b = characters[i : i + 2]
        if draws[i] < strength and not a.isspace() and not b.isspace():
            characters[i : i + 2] = b, a
            i += 1
        i += 1
    return "".join(characters)


def _shuffle(text: str, strength: float, rng: np.random.Generator) -> str:
    """The share `strength` of the words (at least two) trade places; the white space between words stays."""
    pieces = _PIECES.split(text)
    places = [i for i, piece in enumerate(pieces) if piece and not piece.isspace()]
    n = min(len(places), max(2, round(strength * len(places)))) if strength else 0
    chosen = sorted(rng.permutation(places)[:n].tolist())
    order = rng.permutation(chosen).tolist()
    if order == chosen:  # a permutation that moves nothing is no noise: move every word by one
        order = chosen[1:] + chosen[:1]
    words = [pieces[i] for i in order]
    for place, word in zip(chosen, words, strict=True):
        pieces[place] = word
    return "".join(pieces)


def _drop(text: str, strength: float, rng: np.random.Generator) -> str:
    """Each word is left out, with the white space before it, with probability `strength`; one always stays."""
    pieces = _PIECES.split(text)
    places = [i for i, piece in enumerate(pieces) if piece and not piece.isspace()]
    draws = rng.random(len(places))
    dropped = {i for i, draw in zip(places, draws, strict=True) if draw < strength}
    dropped.discard(places[int(draws.argmax())])
    spaces = {i - 1 for i in dropped}
    kept = "".join(p for i, p in enumerate(pieces) if i not in dropped and i not in spaces)
    return kept.lstrip() if dropped and min(dropped) == places[0] else kept


NOISES: dict[str, Noise] = {
    "prepend": Noise(1.0, _prepend),
    "swap": Noise(0.1, _swap),
    "shuffle": Noise(1.0, _shuffle),
    "drop": Noise(0.15, _drop),
}


def corrupt(
    texts: Sequence[str],
    kind: str,
    seed: int = 0,
    strength: float | None = None,
    *,
    keys: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """`texts` with noise of one kind, one corrupted text for each; no text becomes empty.

    * `prepend`: a random string of 20 · strength letters and digits in front (default strength 1);
    * `swap`: neighbouring characters within words trade places with probability `strength` (default 0.1);
    * `shuffle`: the share `strength` of the words (default 1) trade places; a text without white space stays;
    * `drop`: each word is left out with probability `strength` (default 0.15), all but one at most.

    `strength` lies in [0, 1]; 0 changes nothing. `keys` (n,) say which texts get the same random numbers, e.g. the
    two sides of a minimal pair. Raises `InputError` for an unknown kind or a strength out of range.

    >>> corrupt(["The city of Paris is in France."], "shuffle")
    ('in France. of The Paris is city',)
    >>> corrupt(["Paris"], "prepend", strength=0.2)[0].split()[1]
    'Paris'
    """
    if kind not in NOISES:
        raise unknown_name("noise", kind, NOISES)
    noise = NOISES[kind]
    amount = noise.strength if strength is None else strength
    if not 0 <= amount <= 1:
        raise InputError(f"noise strength {amount}: a number from 0 to 1 is needed")
    plain = check_texts(texts)
    owners = plain if keys is None else keys
    if len(owners) != len(plain):
        raise InputError(f"{len(plain)} texts but {len(owners)} keys: one per text is needed")
    return tuple(
        noise.apply(text, amount, _generator(seed, kind, key))
        for text, key in zip(plain, owners, strict=True)
    )


def _generator(seed: int, kind: str, key: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}\0{kind}\0{key}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def corrupt_dataset(dataset: D, kind: str, seed: int = 0, strength: float | None = None) -> D:
    """`dataset` with noise in its texts, labels and groups unchanged; see `corrupt`.

    The two sides of a minimal pair get the same random numbers, so that noise adds as little as can be to their
    difference. Raises `InputError` for data with spans or labelled words: noise would move what the labels are about.
    """
    spans = getattr(dataset, "spans", None)
    match dataset:
        case LabelledTexts() | LabelledNumbers() if spans is None:
            return replace(dataset, texts=corrupt(dataset.texts, kind, seed, strength))
        case LabelledPairs() | TextPairs() if spans is None:
            a = corrupt(dataset.texts_a, kind, seed, strength)
            b = corrupt(dataset.texts_b, kind, seed, strength)
            return replace(dataset, texts_a=a, texts_b=b)
        case MinimalPairs():
            good = corrupt(dataset.good, kind, seed, strength)
            bad = corrupt(dataset.bad, kind, seed, strength, keys=dataset.good)
            return replace(dataset, good=good, bad=bad)
        case _:
            what = f"{dataset.kind} data" if spans is None else "spans"
            raise InputError(
                f"dataset {dataset.name!r} holds {what}: noise is for labelled whole texts and pairs of texts, "
                "it would move single words"
            )
