"""What helps against collapse, in words: temperatures, remedies and late chunking; on quality and on the collapse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from probes.report.collapse_study import excludes_zero, held, of_dataset, records
from probes.report.collapse_table import at_layer, gain, remedies_of
from probes.report.data import RunData
from probes.report.figures.card import listed
from probes.report.figures.collapse_remedies import remedy_words
from probes.report.figures.collapse_temperature import chosen, measure_title, tested
from probes.report.frames import only
from probes.report.text import interval, is_number, number

Row = dict[str, Any]
_COLLAPSE = {"collapse_slope": "the rise per doubling", "anisotropy": "the mean cosine"}
_CHANCE = ", which may be chance"


def temperature_effects(data: RunData) -> str:
    """What the chosen temperature gives at the last layer read, and which one lessens the collapse most."""
    frame = held(data, "temperature")
    if frame is None:
        return ""
    rows = of_dataset(frame, None)
    best = chosen(rows)
    if best.empty:
        return ""
    row = records(best)[-1]
    place, quality = at_layer(data, row["layer"]), measure_title(data, best)
    own = records(only(tested(rows), layer=int(row["layer"])))
    plain = next((one for one in own if one["tau"] == 1), None)
    others = [one for one in own if one["tau"] != 1]
    less = lessening(others, plain, lambda one: f"τ = {number(one['tau'], 2)}", quality)
    if row["tau"] == 1:
        none = f"none of the {len(others)} other temperatures tried is better on the calibrate part than τ = 1"
        return f"At {place} {none}. {less}".strip()
    size = gain(row["difference"], row["difference_low"], row["difference_high"])
    doubt = "" if excludes_zero(row["difference_low"], row["difference_high"]) else _CHANCE
    return (
        f"Attention temperature τ = {number(row['tau'], 2)}, chosen on the calibrate part, changes {quality} at "
        f"{place} by {size} on the test part{doubt}. {less}"
    ).strip()


def remedy_effects(data: RunData) -> str:
    """Which remedies help or harm quality at the last layer read, and which lessens the collapse most."""
    rows = remedies_of(data)
    frame = held(data, "remedies")
    if not rows or frame is None:
        return ""
    sure = [r for r in rows if excludes_zero(r["difference_low"], r["difference_high"])]
    helps = [row for row in sure if row["difference"] > 0]
    harms = [remedy_words(row["remedy"]) for row in sure if row["difference"] < 0]
    best = (helps or rows)[0]
    size = gain(best["difference"], best["difference_low"], best["difference_high"])
    name, quality = remedy_words(best["remedy"]), measure_title(data, frame)
    place = at_layer(data, best["layer"])
    told = [
        f"None of {len(rows)} remedies is shown to help at {place}; the best, {name}: {size} {quality}."
    ]
    if helps:
        told = [
            f"Of {len(rows)} remedies {len(helps)} help{'s' if len(helps) == 1 else ''} at {place}, most {name}: "
            f"{size} {quality} (the best of several looks better than it is)."
        ]
    if harms:
        told.append(f"Shown to do harm: {listed(harms)}.")
    here = only(tested(of_dataset(frame, None)), layer=int(best["layer"]), remedy="none")
    plain = next(iter(records(here)), None)
    told.append(lessening(rows, plain, lambda one: remedy_words(one["remedy"]), quality))
    return " ".join(filter(None, told))


def lessening(
    rows: Sequence[Row], plain: Row | None, name: Callable[[Row], str], quality: str
) -> str:
    """What lessens the collapse most of several ways, by how much with its interval, and what it does to quality.

    Of the rise per doubling where there is one without any (`plain`), else of the mean cosine; empty where neither is
    above zero.
    """
    there = [name for name in _COLLAPSE if plain is not None and plain[name] > 0]
    known = {m: [row for row in rows if is_number(row[f"{m}_difference_high"])] for m in there}
    measure = next((m for m in there if known[m]), None)
    if measure is None:
        return ""
    words = _COLLAPSE[measure]
    value, low, high = (f"{measure}_difference{end}" for end in ("", "_low", "_high"))
    most = min(known[measure], key=lambda row: row[value])
    change = gain(most[value], most[low], most[high])
    if not most[high] < 0:
        return f"None is shown to lessen {words}; the most, {name(most)}: {change}."
    off = f"{number(-most[value])} {interval(-most[high], -most[low])}"
    ends = most["difference_low"], most["difference_high"]
    doubt = "" if excludes_zero(*ends) else _CHANCE
    return (
        f"Of those tried {name(most)} lessens the collapse most: it takes {off} off {words} "
        f"(leaving {number(most[measure])}) and changes {quality} by {gain(most['difference'], *ends)}{doubt}."
    )


def chunking_words(data: RunData) -> str:
    """Late chunking against chunking first at the last layer read."""
    frame = held(data, "chunking")
    late = None if frame is None else only(frame, method="late").sort_values("layer")
    if frame is None or late is None or late.empty or not is_number(late["difference"].iloc[-1]):
        return ""
    row = records(late)[-1]
    low, high = row["difference_low"], row["difference_high"]
    size = f"{gain(row['difference'], low, high)} {measure_title(data, frame)}"
    if not excludes_zero(low, high):
        return f"Late chunking is not shown to differ from chunking first at {at_layer(data, row['layer'])}: {size}."
    word = "better" if row["difference"] > 0 else "worse"
    return f"Late chunking is {word} than chunking first at {at_layer(data, row['layer'])}: {size}."
