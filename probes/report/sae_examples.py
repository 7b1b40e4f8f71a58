"""Texts on which a feature is active, and lists of tokens, as tables hold them: JSON of unknown origin."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from probes.report.collapse_study import ordered, records
from probes.report.frames import names, only
from probes.report.text import clean, is_number

QUANTILES = ("top", "75–100 %", "50–75 %", "25–50 %", "0–25 %")
_LONGEST = 96  # tokens of an example that are read
_NO_SPACE = {"\n": "↵", "\r": "↵", "\t": "→"}


@dataclass(frozen=True)
class Example:
    """A stretch of text with the feature's activation at every token; `peak` is the place of the highest."""

    quantile: str
    tokens: tuple[str, ...]
    values: tuple[float, ...]
    peak: int
    activation: float

    @property
    def shares(self) -> tuple[float, ...]:
        """Activation of every token, as a share of the highest in this example."""
        top = max(self.values, default=0.0)
        return tuple(max(v, 0.0) / top if top > 0 else 0.0 for v in self.values)


def texts_in(held: Any) -> tuple[str, ...]:
    """The texts of a JSON list; none where it is something else.

    >>> texts_in('[" a", "b"]'), texts_in("{"), texts_in(None), texts_in("[1]")
    ((' a', 'b'), (), (), ())
    """
    return tuple(clean(item, 60) for item in _listed(held) if isinstance(item, str))


def _listed(held: Any) -> list[Any]:
    if not isinstance(held, str):
        return []
    try:
        found = json.loads(held)
    except (ValueError, RecursionError):
        return []
    return cast("list[Any]", found) if isinstance(found, list) else []


def examples_in(frame: pd.DataFrame | None) -> dict[str, list[Example]]:
    """Examples by quantile, the highest first; rows that cannot be read are left out."""
    if frame is None or frame.empty:
        return {}
    found: dict[str, list[Example]] = {}
    by_rank = frame.sort_values("rank", kind="stable")
    for quantile in ordered(names(frame, "quantile"), QUANTILES):
        rows = records(only(by_rank, quantile=quantile))
        held = [example for row in rows if (example := example_in(row)) is not None]
        if held:
            found[clean(quantile, 40)] = held
    return found


def example_in(row: dict[str, Any]) -> Example | None:
    """The example of a row, None where its lists cannot be read or do not fit each other."""
    tokens, values = texts_in(row["tokens"]), _listed(row["values"])
    if not tokens or len(tokens) != len(values) or len(tokens) > _LONGEST:
        return None
    numbers = tuple(float(v) if is_number(v) else 0.0 for v in values)
    peak = row.get("peak")
    at = int(cast("float", peak)) if is_number(peak) else -1
    if not 0 <= at < len(tokens):
        at = max(range(len(numbers)), key=numbers.__getitem__)
    size = row.get("activation")
    return Example(
        str(row["quantile"]),
        tokens,
        numbers,
        at,
        float(cast("float", size)) if is_number(size) else numbers[at],
    )


def visible(token: str) -> str:
    """A token on one line: what ends a line becomes a sign.

    >>> visible("a\\n b")
    'a↵ b'
    """
    return "".join(_NO_SPACE.get(sign, sign) for sign in token)


def quoted(tokens: tuple[str, ...], most: int = 5) -> str:
    """Tokens in a sentence.

    >>> quoted((" a", "b", ""), 2)
    '“a” “b”'
    """
    shown = [f"“{clean(visible(token.strip()) or visible(token), 24)}”" for token in tokens[:most]]
    return " ".join(shown)


def around(
    example: Example, before: int = 24, after: int = 44, centre: int | None = None
) -> list[tuple[str, float, bool]]:
    """The tokens round the peak (or round `centre`) that fit into so many characters, with share and whether it is the
    peak.

    A token that is left out at either end is marked by "…".
    """
    shares = example.shares
    first = last = example.peak if centre is None else centre
    room = before
    while first > 0 and (room := room - len(example.tokens[first - 1])) >= 0:
        first -= 1
    room = after
    while last + 1 < len(example.tokens) and (room := room - len(example.tokens[last + 1])) >= 0:
        last += 1
    shown = [
        (visible(example.tokens[at]), shares[at], at == example.peak)
        for at in range(first, last + 1)
    ]
    start = [("…", 0.0, False)] if first > 0 else []
    return [*start, *shown, *([("…", 0.0, False)] if last + 1 < len(example.tokens) else [])]


def in_words(example: Example, before: int = 20, after: int = 28, centre: int | None = None) -> str:
    """The text round the peak (or round the token `centre`), with the peak between guillemets.

    >>> in_words(Example("top", ("the", " cat", " sat"), (0.0, 2.0, 0.0), 1, 2.0))
    'the «cat» sat'
    """
    parts = [
        f"{token[: len(token) - len(token.lstrip())]}«{token.strip()}»" if peak else token
        for token, _, peak in around(example, before, after, centre)
    ]
    return clean("".join(parts).strip(), 200)
