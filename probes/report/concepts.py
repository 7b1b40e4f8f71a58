"""What a concept-depth run found, in plain words and one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from probes.report.data import RunData
from probes.report.figures.card import listed
from probes.report.frames import Point, only, points
from probes.report.study import Concept, Study, depth_tests, plain_table
from probes.report.tables import Table
from probes.report.text import NOTHING, clean, count, interval, is_number, number, sentence
from probes.report.verdict import Verdict, conclusion, unfinished

_COLUMNS = (
    "concept",
    "family",
    "n",
    "chance",
    "bag of words",
    "peak",
    "at layer",
    "robust depth",
    "selectivity",
    "MDL depth",
    "compression",
)
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_NAMED = 4  # concepts that a sentence names one by one
_SHOWN = 20  # pairs in the table of tests


@conclusion("concepts")
def concept_verdict(data: RunData) -> Verdict | None:
    """The headline, what stands out, and the summary table; None for a run without concepts."""
    study = Study.of(data)
    if study is None:
        return None
    table = summary_table(study)
    partial = unfinished(data)
    if partial is not None:
        return replace(partial, table=table)
    return Verdict("found", headline(study), tuple(findings(study)), table)


def headline(study: Study) -> str:
    """How many concepts can be read early, and how many the words alone give away.

    A concept is readable before the last layer when its robust depth is smaller than L.
    """
    early = [c for c in study.concepts if (d := study.depth(c)) and d.value < study.n_layers]
    below = given_away(study)
    total = len(study.concepts)
    are = _are(len(early), total)
    words = f"{len(early)} of {_concepts(total)} {are} readable before the last layer"
    if not any(study.bag_of_words(concept) for concept in study.concepts):
        return words
    if not below:
        return f"{words}; every one rises above a bag of words"
    return f"{words}; {len(below)} never rise{'s' if len(below) == 1 else ''} above a bag of words"


def given_away(study: Study) -> list[Concept]:
    """Concepts whose curve nowhere rises above their bag of words."""
    return [concept for concept in study.concepts if study.given_away(concept)]


def findings(study: Study) -> list[str]:
    """Sentences in the order of interest; each is left out where it has nothing to say."""
    told = (_extremes, _text_alone, _no_depth, _untrained, _tests, _used)
    return [words for tell in told if (words := tell(study))]


def _extremes(study: Study) -> str:
    ranked = sorted(
        (
            (depth.value, concept.name)
            for concept in study.concepts
            if (depth := study.depth(concept))
        ),
    )
    if len(ranked) < 2:
        return ""
    (first, earliest), (last, deepest) = ranked[0], ranked[-1]
    return (
        f"Readable earliest is {clean(earliest, 60)} (robust depth {number(first, 0)} of {study.n_layers}), "
        f"latest {clean(deepest, 60)} ({number(last, 0)})."
    )


def _text_alone(study: Study) -> str:
    below = given_away(study)
    if not below:
        return ""
    return f"No layer rises above a bag of words for {_names(below)}."


def _no_depth(study: Study) -> str:
    none = [c for c in study.concepts if study.depth(c) is None]
    if not none or len(none) == len(study.concepts):
        return ""
    return f"No depth could be given to {_names(none)}."


def _untrained(study: Study) -> str:
    """Concepts that a model with fresh weights shows as well, its best layer within the interval of the peak."""
    same: list[Concept] = []
    measured = 0
    for concept in study.concepts:
        fresh = max(
            (p.value for p in points(study.curve(concept, variant="untrained"))), default=None
        )
        peak = study.peak(concept)
        if fresh is None or peak is None or study.depth(concept) is None:
            continue
        measured += 1
        if fresh >= (peak.low if peak.low == peak.low else peak.value):
            same.append(concept)
    if not measured:
        return ""
    if not same:
        return "Untrained weights reach none of the peaks."
    return f"Untrained weights come within the interval of the peak for {_names(same)}."


def _tests(study: Study) -> str:
    tests = depth_tests(study.data)
    if not tests:
        return ""
    apart = sum(1 for test in tests if test["deeper"])
    differ = f"{count(apart)} differ{'s' if apart == 1 else ''}" if apart else "none differs"
    return (
        f"Of {count(len(tests))} pairs of concepts, {differ} in depth (bootstrap, Holm-corrected)."
    )


def _used(study: Study) -> str:
    """What erasing a concept costs the model’s own answers beyond random directions, where it costs most."""
    wanted = ("layer", "over_random", "over_random_low", "over_random_high")
    frame = plain_table(study.data, "causal", ("concept", "treatment"), wanted, needs=wanted[:2])
    if frame is None:
        return ""
    rows = [row for row in frame.to_dict("records") if row["treatment"] == "leace"]
    words: list[str] = []
    for concept in dict.fromkeys(str(row["concept"]) for row in rows):
        held = [row for row in rows if row["concept"] == concept]
        most = min(held, key=lambda row: float(row["over_random"]))
        shown = most["over_random_high"] < 0
        span = interval(most["over_random_low"], most["over_random_high"], 2)
        words.append(
            f"{clean(concept, 60)} {'is' if shown else 'is not shown to be'} used by the model itself: erased by LEACE "
            f"at layer {count(most['layer'])} (the strongest of {count(len(held))} layers) its preference for the "
            f"truth changes by {number(most['over_random'], 2)} nats {span} beyond random directions"
        )
    return sentence("; ".join(words)) if words else ""


def summary_table(study: Study) -> Table:
    """One row per concept, families together; what else is to be said of a concept stands below, by number."""
    shown = study.by_family()
    notes = list(dict.fromkeys(note for concept in shown if (note := note_of(study, concept))))
    rows = tuple(_row(study, concept, notes) for concept in shown)
    note = (
        f"Peak: best layer of the probe with its 95 % interval. Robust depth: first layer, of {study.n_layers}, from "
        "which on the curve stays within the interval of its peak, with its own interval. Selectivity: accuracy minus "
        "that on the control task, at the peak. MDL depth: layer with the shortest code; compression: uniform code "
        "over that code. R²: concepts that are numbers. A dash: not measured, or not defined."
    )
    told = " ".join(f"{_raised(at)} {sentence(text)}" for at, text in enumerate(notes, 1))
    return Table("", _COLUMNS, rows, frozenset(range(2, 11)), f"{told} {note}".strip())


def _raised(number: int) -> str:
    return "".join(_RAISED[int(digit)] for digit in str(number))


def _row(study: Study, concept: Concept, notes: list[str]) -> tuple[str, ...]:
    bag, peak, depth = study.bag_of_words(concept), study.peak(concept), study.depth(concept)
    code = study.level(concept, "mdl_depth")
    at_code = _at(study, concept, "compression", code)
    gain = _at(study, concept, "selectivity", peak)
    name = clean(concept.name, 40) + (" (R²)" if concept.measure == "r2" else "")
    note = note_of(study, concept)
    return (
        f"{name} {_raised(notes.index(note) + 1)}" if note else name,
        clean(concept.family, 30) or NOTHING,
        count(concept.n),
        number(concept.chance, 2),
        _value(bag, 2),
        NOTHING
        if peak is None
        else f"{number(peak.value, 2)} {interval(peak.low, peak.high, 2)}".strip(),
        NOTHING if peak is None else count(peak.layer),
        NOTHING
        if depth is None
        else f"{number(depth.value, 0)} {interval(depth.low, depth.high, 0)}".strip(),
        _value(gain, 2),
        _value(code, 0),
        f"{_value(at_code, 1)}×" if at_code else NOTHING,
    )


def note_of(study: Study, concept: Concept) -> str:
    """What the run says of a concept, else what its curve says."""
    told = ["not above bag of words"] if study.given_away(concept) else []
    if concept.note:
        told.append(clean(concept.note, 240))
    if not told and study.peak(concept) is None:
        return "no curve yet"
    return "; ".join(told)


def _at(study: Study, concept: Concept, measure: str, place: Point | None) -> Point | None:
    """A measure at the layer of another number: that of a peak, or the one a depth names."""
    if place is None:
        return None
    layer = place.layer if place.layer >= 0 else round(place.value)
    found = points(only(study.curve(concept, measure), layer=layer))
    return found[0] if found else None


def _value(point: Point | None, digits: int) -> str:
    return NOTHING if point is None else number(point.value, digits)


def depth_test_table(data: RunData) -> Table | None:
    """Pairs of concepts of which one was shown to be deeper, the surest first; None where no pair was tested."""
    tests = depth_tests(data)
    if not tests:
        return None
    apart = sorted(
        (t for t in tests if t["deeper"]), key=lambda t: (t["p_holm"], -abs(t["difference"]))
    )
    columns = ("deeper", "depth", "than", "depth", "layers apart", "95 % interval", "p (Holm)")
    note = (
        f"Of {count(len(tests))} pairs, {count(len(apart))} differ after Holm’s correction at 5 %."
    )
    if len(apart) > _SHOWN:
        note += f" Showing {_SHOWN}; all pairs are in tables/depth_tests.parquet."
    rows = tuple(_test_row(test) for test in apart[:_SHOWN])
    return Table("Which concept is deeper", columns, rows, frozenset({1, 3, 4, 5, 6}), note)


def _test_row(test: dict[str, Any]) -> tuple[str, ...]:
    """One test, turned so that the deeper concept comes first."""
    turned = test["deeper"] == test["b"]
    names, depths = (test["a"], test["b"]), (test["depth_a"], test["depth_b"])
    span = (test["low"], test["high"])
    if turned:
        names, depths, span = names[::-1], depths[::-1], (-span[1], -span[0])
    p = test["p_holm"]
    return (
        clean(names[0], 40),
        number(depths[0], 0),
        clean(names[1], 40),
        number(depths[1], 0),
        number(abs(test["difference"]), 0),
        interval(*span, 0) or NOTHING,
        "< 0.001" if is_number(p) and p < 0.001 else number(p),
    )


def _names(concepts: Sequence[Concept]) -> str:
    """Up to four names, else how many they are beside the first."""
    shown = [clean(concept.name, 40) for concept in concepts[:_NAMED]]
    more = len(concepts) - len(shown)
    return listed([*shown, f"{more} more"] if more else shown)


def _concepts(n: int) -> str:
    return f"{n} concept{'' if n == 1 else 's'}"


def _are(n: int, total: int) -> str:
    return "is" if 1 in (n, total) else "are"
