"""Clean and corrupted prompts as text: generators of the built-in tasks, seeded, each of its own making.

A generator gets a random generator and `one`, which keeps of a list of words those that are one token to the model
at hand (all of them where too few are), and gives pairs without end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes.heads.circuits import words as w
from probes.registry import Registry

One = Callable[[Sequence[str]], list[str]]
Rng = np.random.Generator


@dataclass(frozen=True)
class Pair:
    """A prompt, the same with what decides the answer changed, and what may follow the clean one.

    `answers` and `wrongs` are written as they would follow the prompt, with a space in front where one is due.
    Prompts of one `form` differ in words only, so that their tokens mean the same place by place.
    """

    clean: str
    corrupted: str
    answers: tuple[str, ...]
    wrongs: tuple[str, ...]
    form: str = ""


@dataclass(frozen=True)
class Source:
    """A built-in task: what it asks in one sentence, and where its pairs come from."""

    name: str
    summary: str
    draw: Callable[[Rng, One], Iterator[Pair]]


SOURCES: Registry[Source] = Registry("task")


def _source(name: str, summary: str) -> Callable[[Callable[[Rng, One], Iterator[Pair]]], Any]:
    def decorate(draw: Callable[[Rng, One], Iterator[Pair]]) -> Any:
        SOURCES.add(name, Source(name, summary, draw))
        return draw

    return decorate


def _some(rng: Rng, words: Sequence[str], n: int) -> list[str]:
    """n different words."""
    return [words[int(i)] for i in rng.choice(len(words), size=n, replace=False)]


_IOI = (
    "When {A} and {B} went to the {place}, {S} gave a {thing} to",
    "After {A} and {B} left the {place}, {S} handed a {thing} to",
    "While {A} and {B} were talking at the {place}, {S} offered a {thing} to",
    "Yesterday {A} and {B} met near the {place}. {S} brought a {thing} to",
    "Once {A} and {B} had found the {place}, {S} decided to give a {thing} to",
    "{A} and {B} spent the whole day at the {place}. In the evening {S} passed a {thing} to",
)


@_source(
    "ioi", "Two people are named, one again as giver: who receives? (the giver's name is swapped)"
)
def ioi(rng: Rng, one: One) -> Iterator[Pair]:
    """Indirect object identification (Wang et al. 2022): corrupted, the other one gives."""
    names, places, things = one(w.NAMES), one(w.PLACES), one(w.OBJECTS)
    while True:
        A, B = _some(rng, names, 2)
        form = int(rng.integers(len(_IOI)))
        given = {
            "A": A, "B": B, "place": _some(rng, places, 1)[0], "thing": _some(rng, things, 1)[0],
        }  # fmt: skip
        giver, other = (A, B) if rng.random() < 0.5 else (B, A)
        clean, corrupted = (_IOI[form].format(**given, S=name) for name in (giver, other))
        yield Pair(clean, corrupted, (f" {other}",), (f" {giver}",), str(form))


@_source(
    "greater_than",
    "A period that began in a year ends in a later one (the year is moved to the century's start)",
)
def greater_than(rng: Rng, one: One) -> Iterator[Pair]:
    """Greater-than (Hanna et al. 2023): years after the start against years up to it.

    A tokenizer of digits decides by the next digit: larger ones against smaller ones, the digit of the start left out,
    since after it both are possible.
    """
    nouns = one(w.PERIODS)
    while True:
        noun, century = _some(rng, nouns, 1)[0], int(rng.integers(11, 20))
        year = int(rng.integers(11, 89))
        clean, corrupted = (
            f"The {noun} lasted from the year {century}{start:02d} to the year {century}"
            for start in (year, 1)
        )
        later = tuple(f"{other:02d}" for other in range(year + 1, 100))
        earlier = tuple(f"{other:02d}" for other in range(year + 1))
        yield Pair(clean, corrupted, later, earlier)


@_source(
    "docstring",
    "The next parameter in a docstring, from the function's head (its arguments are renamed)",
)
def docstring(rng: Rng, one: One) -> Iterator[Pair]:
    """Docstring completion (Heimersheim & Janiak 2023)."""
    names, functions, plain = one(w.ARGUMENTS), one(w.FUNCTIONS), one(w.PLAIN)
    while True:
        chosen = _some(rng, names, 8)
        own, others = chosen[:4], chosen[4:]
        text = _some(rng, plain, 7)
        body = (
            f'    """{" ".join(text[:3])}\n\n    :param {own[1]}: {text[3]} {text[4]}\n'
            f"    :param {own[2]}: {text[5]} {text[6]}\n    :param"
        )
        head = f"def {_some(rng, functions, 1)[0]}(self, "
        clean, corrupted = (f"{head}{', '.join(args)}):\n{body}" for args in (own, others))
        yield Pair(
            clean, corrupted, (f" {own[3]}",), tuple(f" {name}" for name in own[:3] + others)
        )


_AGREEMENT = (
    "The {N} near the {M}",
    "The {N} behind the {M}",
    "The {N} with the {M}",
    "The {N} that the {M} saw",
    "The {N} beside the {M}",
)
_VERBS = ((" is", " was", " has"), (" are", " were", " have"))


@_source(
    "subject_verb",
    "Number of the verb after a subject and another noun (the subject's number is changed)",
)
def subject_verb(rng: Rng, one: One) -> Iterator[Pair]:
    """Subject-verb agreement across another noun, whose number is drawn."""
    known = set(one([word for pair in w.NOUNS for word in pair]))
    nouns = [pair for pair in w.NOUNS if set(pair) <= known] or list(w.NOUNS)
    while True:
        subject, other = (nouns[int(i)] for i in rng.choice(len(nouns), size=2, replace=False))
        number, form = int(rng.integers(2)), int(rng.integers(len(_AGREEMENT)))
        between = other[int(rng.integers(2))]
        clean, corrupted = (
            _AGREEMENT[form].format(N=noun, M=between)
            for noun in (subject[number], subject[1 - number])
        )
        yield Pair(clean, corrupted, _VERBS[number], _VERBS[1 - number], str(form))


@_source("factual_recall", "Capital, language or continent of a country (another country is named)")
def factual_recall(rng: Rng, one: One) -> Iterator[Pair]:
    """Facts about countries; the wrong answer is that of the other country."""
    continent = {c: name for name, countries in w.CONTINENTS.items() for c in countries}
    relations = (
        ("The capital of {} is the city of", w.CAPITALS),
        ("The language that most people in {} speak is called", w.LANGUAGES),
        ("The country of {} lies on the continent of", continent),
    )
    known = [set(one(list(facts))) for _, facts in relations]
    while True:
        form = int(rng.integers(len(relations)))
        template, facts = relations[form]
        own, other = _some(rng, sorted(known[form]), 2)
        if facts[own] != facts[other]:
            yield Pair(
                template.format(own), template.format(other), (f" {facts[own]}",),
                (f" {facts[other]}",), str(form),
            )  # fmt: skip


@_source("coloured_objects", "Colour of one of three things (another of them is asked for)")
def coloured_objects(rng: Rng, one: One) -> Iterator[Pair]:
    """Reasoning about coloured objects (Merullo et al. 2023, arXiv 2310.08744), in our own words."""
    colours, things = one(w.COLOURS), one(w.THINGS)
    while True:
        hue, thing = _some(rng, colours, 3), _some(rng, things, 3)
        asked, other = (int(i) for i in rng.choice(3, size=2, replace=False))
        seen = "On the table there are three things: the {} {}, the {} {} and the {} {}."
        table = seen.format(*(word for pair in zip(hue, thing, strict=True) for word in pair))
        clean, corrupted = (
            f"{table}\nQuestion: What colour is the {thing[i]}?\nAnswer: The {thing[i]} is"
            for i in (asked, other)
        )
        yield Pair(clean, corrupted, (f" {hue[asked]}",), (f" {hue[other]}",))


@_source("list_recall", "Who holds what, from a list (another name of the list is asked for)")
def list_recall(rng: Rng, one: One) -> Iterator[Pair]:
    """Recall from a list of four names and things."""
    names, things = one(w.NAMES), one(w.OBJECTS)
    while True:
        who, what = _some(rng, names, 4), _some(rng, things, 4)
        listed = ". ".join(f"{n} has the {t}" for n, t in zip(who, what, strict=True))
        asked, other = (int(i) for i in rng.choice(4, size=2, replace=False))
        clean, corrupted = (f"{listed}. Therefore {who[i]} has the" for i in (asked, other))
        yield Pair(clean, corrupted, (f" {what[asked]}",), (f" {what[other]}",))
