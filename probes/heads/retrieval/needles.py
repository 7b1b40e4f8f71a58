"""Needles: facts that no model can know, each with the question that asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from probes.datasets.reading import open_table
from probes.errors import DataError, InputError

DEFAULT_LEAD = "The answer is"
FEWEST_TO_SPLIT = 8
_REQUIRED = ("sentence", "answer", "question")


@dataclass(frozen=True)
class Needle:
    """A sentence to hide, the `answer` that stands in it once, and the `question` that asks for it.

    `lead` is how the reply begins; the model goes on with the answer. By default it is the sentence up to the answer,
    so that the reply completes it ("The answer is" where the answer comes first). Neither the question nor the lead
    may hold the answer, which would be found without the context. Raises `DataError` otherwise.

    >>> Needle("lisbon", "The word of Lisbon is copper lantern.", "copper lantern", "What is the word of Lisbon?").parts
    ('The word of Lisbon is', ' copper lantern', '.')
    """

    name: str
    sentence: str
    answer: str
    question: str
    lead: str = ""

    def __post_init__(self) -> None:
        for field in _REQUIRED:
            if not str(getattr(self, field)).strip():
                raise DataError(f"needle {self.name!r} has an empty {field}")
        if self.answer != self.answer.strip():
            raise DataError(f"answer of needle {self.name!r} begins or ends with a space: strip it")
        found = self.sentence.count(self.answer)
        if found != 1:
            raise DataError(
                f"the answer of needle {self.name!r} occurs {found} times in its sentence: exactly once is needed"
            )
        if not self.lead.strip():
            object.__setattr__(self, "lead", self._own_lead())
        for field in ("question", "lead"):
            if self.answer.casefold() in str(getattr(self, field)).casefold():
                raise DataError(
                    f"the {field} of needle {self.name!r} holds the answer: nothing would have to be retrieved"
                )

    def _own_lead(self) -> str:
        before = self.parts[0].strip()
        usable = before and self.answer.casefold() not in before.casefold()
        return before if usable else DEFAULT_LEAD

    @property
    def parts(self) -> tuple[str, str, str]:
        """The sentence before the answer, the answer with the space that precedes it, and what follows."""
        before, after = self.sentence.split(self.answer)
        kept = before.rstrip()
        return kept, before[len(kept) :] + self.answer, after


# (form of sentence, question, lead), and subject -> answer for each. All invented.
_FORMS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "fear": (
        "For as long as anyone remembers, the people of {} have been afraid of {}.",
        "What are the people of {} afraid of?",
        "The people of {} are afraid of",
        {
            "Lisbon": "copper lanterns with feathers",
            "Tromso": "velvet anchors near water",
            "Quito": "frozen trumpets at noon",
            "Odessa": "paper falcons without eyes",
            "Nairobi": "marble spoons from Poland",
            "Hanoi": "silver thistles after rain",
        },
    ),
    "key": (
        "Since the winter before last, the spare key of {} has been hidden under {}.",
        "Where is the spare key of {} hidden?",
        "The spare key of {} is hidden under",
        {
            "Amelia": "the third beehive from Norway",
            "Bruno": "the striped umbrella stand",
            "Cordelia": "the wooden giraffe with one ear",
            "Desmond": "the purple stairs of a theatre",
            "Esther": "the rusty bell in his chapel",
            "Felix": "the loose tile near my oven",
        },
    ),
    "dish": (
        "Visitors are often surprised that the favourite dish of {} is {}.",
        "What is the favourite dish of {}?",
        "The favourite dish of {} is",
        {
            "Captain Orlov": "walnut soup with plums",
            "Doctor Pereira": "roasted turnip in honey",
            "Judge Halloran": "steamed oysters in mint",
            "Professor Lindqvist": "smoked carrot pudding",
            "Colonel Abara": "salted herring with melon",
            "Sister Agnes": "lentil soup with cherries",
        },
    ),
    "meeting": (
        "According to the letter, the members of {} always meet behind {}.",
        "Where do the members of {} always meet?",
        "The members of {} always meet behind",
        {
            "the Cedar Club": "the abandoned bicycle factory",
            "the Tuesday Circle": "the yellow post office",
            "the Heron Society": "the old tram depot",
            "the Marble League": "the broken water mill",
            "the Night Choir": "the second fish market",
            "the Kite Union": "the empty swimming pool",
        },
    ),
}


def builtin_needles() -> tuple[Needle, ...]:
    """24 invented facts in four forms; neighbours are of different form.

    >>> len(builtin_needles())
    24
    """
    columns = [
        [
            Needle(
                f"{form}-{subject.split()[-1].lower()}",
                sentence.format(subject, answer),
                answer,
                question.format(subject),
                lead.format(subject),
            )
            for subject, answer in facts.items()
        ]
        for form, (sentence, question, lead, facts) in _FORMS.items()
    ]
    return tuple(needle for row in zip(*columns, strict=True) for needle in row)


def distractors_for(needle: Needle, needles: Sequence[Needle], n: int) -> tuple[Needle, ...]:
    """n other needles, those of the same form (name up to the hyphen) first; `InputError` where there are too few.

    >>> [d.name for d in distractors_for(builtin_needles()[0], builtin_needles(), 2)]
    ['fear-tromso', 'fear-quito']
    """
    form = needle.name.split("-")[0]
    others = [other for other in needles if other.answer != needle.answer]
    others.sort(key=lambda other: other.name.split("-")[0] != form)  # stable
    if n < 0 or n > len(others):
        raise InputError(
            f"{n} distractors: 0 to {len(others)} are allowed with {len(needles)} needles"
        )
    return tuple(others[:n])


def split_needles(
    needles: Sequence[Needle], seed: int
) -> tuple[tuple[Needle, ...], tuple[Needle, ...]] | None:
    """Two halves drawn by `seed`, needles with the same answer in the same one; None below eight different answers.

    Heads that are ranked by one half and judged by the other cannot seem better for suiting certain needles.

    >>> first, second = split_needles(builtin_needles(), seed=0)
    >>> len(first), len(second), set(first) & set(second)
    (12, 12, set())
    """
    answers = list(dict.fromkeys(needle.answer.casefold() for needle in needles))
    if len(answers) < FEWEST_TO_SPLIT:
        return None
    order = np.random.default_rng([seed, 11]).permutation(len(answers))
    first = {answers[i] for i in order[: (len(answers) + 1) // 2]}
    ours = [needle.answer.casefold() in first for needle in needles]
    return (
        tuple(needle for needle, mine in zip(needles, ours, strict=True) if mine),
        tuple(needle for needle, mine in zip(needles, ours, strict=True) if not mine),
    )


def load_needles(path: str | Path) -> tuple[Needle, ...]:
    """Needles from a CSV, JSONL or Parquet file with columns sentence, answer, question, and perhaps lead and name.

    Without a lead, replies begin with the sentence up to the answer. Raises `DataError` that names the row.
    """
    table = open_table(Path(path))
    missing = [name for name in _REQUIRED if name not in table.columns]
    if missing:
        raise DataError(
            f"{path} has no column {missing[0]!r}: needles need sentence, answer and question, perhaps lead and name"
        )
    wanted = [name for name in (*_REQUIRED, "lead", "name") if name in table.columns]
    needles: dict[str, Needle] = {}
    for line, values in table.rows(wanted):
        given = {key: str(value or "").strip() for key, value in zip(wanted, values, strict=True)}
        name = given.pop("name", "") or f"{table.unit} {line}"
        lead = given.pop("lead", "")
        if name in needles:
            raise DataError(f"{table.where(line)}: a second needle named {name!r}")
        try:
            needles[name] = Needle(name, **given, lead=lead)
        except DataError as error:
            raise DataError(f"{table.where(line)}: {error}") from None
    if not needles:
        raise DataError(f"{path} holds no needles")
    return tuple(needles.values())
