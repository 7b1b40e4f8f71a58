"""Names of controls and parts of a concept study: what the command line offers, known without loading any of it."""

from __future__ import annotations

from collections.abc import Sequence

from probes.errors import unknown_name

CONTROLS = ("shuffled", "control-task", "untrained", "bag-of-words")
PARTS = (
    "mdl",
    "few-shot",
    "scalar-mix",
    "magnitude",
    "preference",
    "over-time",
    "transfer",
    "directions",
    "depth-tests",
    "erasure",
    "causal",
)


def parse_names(text: str, allowed: Sequence[str], what: str) -> frozenset[str]:
    """Names separated by commas, `all` or `none`.

    >>> sorted(parse_names("mdl, erasure", PARTS, "--parts"))
    ['erasure', 'mdl']
    """
    names = [name for name in (part.strip() for part in text.split(",")) if name]
    if names in (["all"], ["none"]):
        return frozenset(allowed if names == ["all"] else ())
    for name in names:
        if name not in allowed:
            raise unknown_name(what, name, (*allowed, "all", "none"))
    return frozenset(names)
