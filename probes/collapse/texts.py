"""The texts whose length is studied: as they are, long ones to be cut, and controls with their words at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WORDS = 220  # of a built-in long document: about 300 tokens


@dataclass(frozen=True)
class StudyTexts:
    """`natural` are the texts as they are, `long` those to be cut (the same ones, unless made of short ones)."""

    name: str
    natural: tuple[str, ...]
    long: tuple[str, ...]


def study_texts(spec: str | None = None) -> StudyTexts:
    """Texts behind a name or path; None: the built-in language reference, its paragraphs joined to long documents.

    >>> texts = study_texts()
    >>> len(texts.natural) > 1000, min(len(text.split()) for text in texts.long) >= 220
    (True, True)
    """
    from pathlib import Path

    from probes.datasets import load_texts
    from probes.datasets.load import short_name

    if spec is None or spec == "reference":
        paragraphs = load_texts("reference")
        return StudyTexts("reference", paragraphs, joined(paragraphs, WORDS))
    texts = load_texts(spec)
    return StudyTexts(short_name(Path(spec).stem), texts, texts)


def joined(paragraphs: Sequence[str], words: int) -> tuple[str, ...]:
    """Neighbouring paragraphs joined until each document has at least so many words; what is left over is dropped.

    >>> joined(["a b", "c", "d e f", "g"], 3)
    ('a b c', 'd e f')
    """
    found: list[str] = []
    held: list[str] = []
    for paragraph in paragraphs:
        held.append(paragraph)
        if sum(len(part.split()) for part in held) >= words:
            found.append(" ".join(held))
            held = []
    return tuple(found)


def random_words(texts: Sequence[str], length: int, seed: int) -> tuple[str, ...]:
    """For each text one of `length` words drawn at random from all of them: no content, the same vocabulary.

    >>> [len(text.split()) for text in random_words(["a b c", "d e"], 4, 0)]
    [4, 4]
    """
    words = np.asarray(" ".join(texts).split(), dtype=object)
    rng = np.random.default_rng(seed)
    return tuple(" ".join(rng.choice(words, size=length)) for _ in texts)
