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
}

NEEDED: dict[Kind, tuple[str, ...]] = {
    "labelled": ("text", "label"),
    "pairs": ("text_a", "text_b", "score"),
    "retrieval": ("query", "document"),
    "minimal-pairs": ("good", "bad"),
    "token-labels": ("words", "tags"),
}
OPTIONAL: dict[Kind, tuple[str, ...]] = {
    "labelled": ("group",),
    "pairs": ("group",),
    "retrieval": ("relevance", "group"),
    "minimal-pairs": ("group",),
    "token-labels": ("group",),
}
NEED_TEXT = (
    "text,label or text_a,text_b,score or query,document[,relevance] or good,bad or words,tags"
)


@dataclass(frozen=True)
class Choice:
    """The kind of a table and the column of each of its roles."""

    kind: Kind
    columns: Mapping[str, str]


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
    taken = set(given.values())
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
    chosen: dict[str, str] = {}
    worst = -1
    for role in NEEDED[kind]:
        if kind == "pairs" and role == "score" and "label" in given and "score" not in given:
            given = {**given, "score": given["label"]}
        found = find_column(role, columns, given, origin)
        if found is None or found[0] in chosen.values():
            return None
        chosen[role] = found[0]
        worst = max(worst, found[1])
    for role in OPTIONAL[kind]:
        found = find_column(role, columns, given, origin)
        if found is not None and found[0] not in chosen.values():
            chosen[role] = found[0]
    return worst, Choice(kind, chosen)


def _kinds_for(given: Mapping[str, str]) -> list[Kind]:
    """The kinds that use every option given."""
    kinds: list[Kind] = []
    for kind in NEEDED:
        roles = {*NEEDED[kind], *OPTIONAL[kind], *(("label",) if kind == "pairs" else ())}
        if set(given) <= roles:
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
    for name in given.values():
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
        ways = " or ".join(",".join(c.columns[r] for r in NEEDED[c.kind]) for c in choices)
        first = choices[0]
        role = NEEDED[first.kind][0]
        chosen = {**given, role: first.columns[role]}
        raise DataError(f"{origin}: this could be {ways}: say which, e.g. {name_columns(chosen)}")
    return choices[0]


def _example(columns: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """Roles and columns that would do, the table's own columns where possible."""
    kind = _kinds_for(given)[0]
    free = iter([c for c in columns if c not in given.values()])
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
