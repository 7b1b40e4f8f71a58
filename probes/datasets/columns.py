"""Which column means what: by name, by the user's word, never by guessing from the values.

Every kind of dataset needs certain *roles*. A role is filled by the column that an option names, else
by a column with the role's own name, else by one with a common other name. Two candidates of equal
standing are an error that shows the option to give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from probes.errors import DataError, InputError, unknown_name
from probes.types import Kind

# Per role: tiers of names, the better known first. Compared without case; "-" and " " count as "_".
ALIASES: dict[str, tuple[tuple[str, ...], ...]] = {
    "text": (
        ("text",),
        ("sentence", "statement", "utterance", "content", "review", "tweet", "comment", "body"),
        ("question", "document", "passage"),
    ),
    "label": (
        ("label",),
        ("labels", "class", "target", "category", "intent"),
        ("label_name", "label_text", "class_name"),
    ),
    "group": (("group",), ("groups", "group_id"), ("pair_id",)),
    "text_a": (
        ("text_a",),
        ("text1", "text_1", "sentence1", "sentence_1", "sentence_a", "question1", "sent1"),
        ("premise",),
    ),
    "text_b": (
        ("text_b",),
        ("text2", "text_2", "sentence2", "sentence_2", "sentence_b", "question2", "sent2"),
        ("hypothesis",),
    ),
    "score": (
        ("score",),
        ("similarity", "similarity_score", "relatedness", "relatedness_score", "gold_score"),
        ("label", "is_duplicate"),
    ),
    "query": (("query",), ("question", "anchor")),
    "document": (("document",), ("passage", "answer", "context", "doc")),
    "relevance": (("relevance",), ("rel", "grade"), ("score", "label")),
    "good": (("good",), ("sentence_good", "chosen")),
    "bad": (("bad",), ("sentence_bad", "rejected")),
    "words": (("words",), ("tokens",)),
    "tags": (("tags",), ("upos", "pos_tags", "ner_tags", "labels")),
    # Only by the user's word: what a column of numbers or positions means shows in no name.
    "target": (),
    "span": (),
    "word_a": (),
    "word_b": (),
}

NEEDED: dict[Kind, tuple[str, ...]] = {
    "labelled": ("text", "label"),
    "labelled-pairs": ("text_a", "text_b", "label"),
    "numbers": ("text", "target"),
    "pairs": ("text_a", "text_b", "score"),
    "retrieval": ("query", "document"),
    "minimal-pairs": ("good", "bad"),
    "token-labels": ("words", "tags"),
}
OPTIONAL: dict[Kind, tuple[str, ...]] = {
    "labelled": ("group", "span"),
    "labelled-pairs": ("group", "word_a", "word_b"),
    "numbers": ("group", "span"),
    "pairs": ("group",),
    "retrieval": ("relevance", "group"),
    "minimal-pairs": ("group",),
    "token-labels": ("group",),
}
# Pairs with a label are scored pairs unless one of these is named.
CLASSES_ASKED = {"label", "word_a", "word_b"}
NEED_TEXT = (
    "text,label or text_a,text_b,score or query,document[,relevance] or good,bad or words,tags "
    "or (named) text,target or text_a,text_b,label"
)


@dataclass(frozen=True)
class Choice:
    """The kind of a table and the column of each of its roles; `targets` are the columns of numbers to be told."""

    kind: Kind
    columns: Mapping[str, str]
    targets: tuple[str, ...] = ()

    def told(self) -> str:
        """The roles and columns as the user would name them."""
        named = {**self.columns, **({"target": "+".join(self.targets)} if self.targets else {})}
        return ", ".join(f"{role}={column}" for role, column in named.items())


def _norm(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _listed(columns: Sequence[str]) -> str:
    shown = [name if len(name) <= 40 else name[:37] + "..." for name in columns[:20]]
    more = f" and {len(columns) - 20} more" if len(columns) > 20 else ""
    return ", ".join(shown) + more


def find_column(
    role: str, columns: Sequence[str], given: Mapping[str, str], origin: str
) -> tuple[str, int] | None:
    """(column, tier) of `role`: tier -1 when named by the user, None when there is none."""
    if role in given:
        return _named(given[role], columns), -1
    # A group may be a text or any other column: it only says what stays together.
    taken = {c for r, given_column in given.items() if r != "group" for c in _parts(given_column)}
    for tier, names in enumerate(ALIASES[role]):
        hits = [c for c in columns if _norm(c) in names and c not in taken]
        if len(hits) > 1:
            raise DataError(
                f"{origin}: {' and '.join(repr(h) for h in hits)} could both be the {role}: "
                f"say which, e.g. {name_columns({**given, role: hits[0]})}"
            )
        if hits:
            return hits[0], tier
    return None


def _parts(name: str) -> list[str]:
    """The columns in `lat+lon`, and the whole, which may be a column's name itself."""
    return [name, *(part.strip() for part in name.split("+"))] if "+" in name else [name]


def target_columns(name: str, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns named by `lat+lon`; a column that has this very name goes first.

    >>> target_columns("lat+lon", ["city", "Lat", "lon"])
    ('Lat', 'lon')
    """
    if name in columns or "+" not in name:
        return (_named(name, columns),)
    found = tuple(_named(part.strip(), columns) for part in name.split("+"))
    if len(set(found)) < len(found):
        raise InputError(f"target={name}: a column comes twice")
    return found


def _named(name: str, columns: Sequence[str]) -> str:
    if name in columns:
        return name
    same = [c for c in columns if _norm(c) == _norm(name)]
    if len(same) == 1:
        return same[0]
    raise unknown_name("column", name, columns)


def _match(
    kind: Kind, columns: Sequence[str], given: Mapping[str, str], origin: str
) -> tuple[int, Choice] | None:
    """The columns of `kind` with the worst tier that had to be used; None when a role is empty."""
    if kind == "labelled-pairs" and not CLASSES_ASKED & set(given):
        return None
    chosen: dict[str, str] = {}
    targets: tuple[str, ...] = ()
    worst = -1
    for role in NEEDED[kind]:
        if role == "target" and role in given:
            targets = target_columns(given[role], columns)
            continue
        found = find_column(role, columns, given, origin)
        if found is None or found[0] in chosen.values():
            return None
        chosen[role] = found[0]
        worst = max(worst, found[1])
    for role in OPTIONAL[kind]:
        found = find_column(role, columns, given, origin)
        if found is not None and (role in given or found[0] not in chosen.values()):
            chosen[role] = found[0]
    return worst, Choice(kind, chosen, targets)


def _kinds_for(given: Mapping[str, str]) -> list[Kind]:
    """The kinds that use every option given."""
    kinds: list[Kind] = []
    for kind in NEEDED:
        if set(given) <= {*NEEDED[kind], *OPTIONAL[kind]}:
            kinds.append(kind)
    if not kinds:
        raise InputError(
            f"the options {', '.join(sorted(given))} do not belong to one kind of dataset: {NEED_TEXT}"
        )
    return kinds


def recognise(columns: Sequence[str], given: Mapping[str, str], origin: str) -> Choice:
    """The kind of a table with these columns.

    Raises `DataError` when nothing or more than one thing is recognised; `InputError` for an option
    that names no column.

    >>> recognise(["Sentence1", "Sentence2", "Score", "genre"], {}, "a.csv").columns["text_b"]
    'Sentence2'
    >>> recognise(["id", "body"], {}, "a.csv")
    Traceback (most recent call last):
    ...
    probes.errors.DataError: a.csv: the columns are id, body; needed are text,label or ...
    """
    for role, name in given.items():
        if role not in ALIASES:
            raise unknown_name("column role", role, ALIASES)
        if role == "target":
            target_columns(name, columns)
        else:
            _named(name, columns)
    matches = [m for kind in _kinds_for(given) if (m := _match(kind, columns, given, origin))]
    if not matches:
        raise DataError(
            f"{origin}: the columns are {_listed(columns)}; needed are {NEED_TEXT}: "
            f"name yours, e.g. {name_columns(_example(columns, given))}"
        )
    best = min(worst for worst, _ in matches)
    choices = [choice for worst, choice in matches if worst == best]
    if len(choices) > 1:
        ways = " or ".join(
            ",".join(c.columns[r] for r in NEEDED[c.kind] if r in c.columns) for c in choices
        )
        first = choices[0]
        role = NEEDED[first.kind][0]
        chosen = {**given, role: first.columns[role]}
        raise DataError(f"{origin}: this could be {ways}: say which, e.g. {name_columns(chosen)}")
    return choices[0]


def _example(columns: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """Roles and columns that would do, the table's own columns where possible."""
    kind = _kinds_for(given)[0]
    taken = {part for name in given.values() for part in _parts(name)}
    free = iter([c for c in columns if c not in taken])
    return {role: given.get(role) or next(free, role.upper()) for role in NEEDED[kind]}


def name_columns(columns: Mapping[str, str]) -> str:
    """How to name columns, by role, on the command line and in Python; both can be copied.

    >>> print(name_columns({"text": "Satz", "label": "Güte"}))
    --columns "text=Satz,label=Güte" (in Python text='Satz', label='Güte')
    """
    python = ", ".join(f"{role}={column!r}" for role, column in columns.items())
    # A comma ends a pair in --columns; the others mean something to a shell between double quotes.
    if any(c.strip() != c or set(c) & set(',"$`\\!') for c in columns.values()):
        return f"in Python {python}"
    shell = ",".join(f"{role}={column}" for role, column in columns.items())
    return f'--columns "{shell}" (in Python {python})'
