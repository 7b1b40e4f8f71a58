"""What a study of layer quality found, in plain words and one table: layers, diagnostics, blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from probes.report.collapse_study import (
    held,
    is_quality,
    numbers_of,
    of_dataset,
    records,
    with_dataset,
)
from probes.report.data import QUALITY_ORDER, RunData
from probes.report.figures.card import listed
from probes.report.figures.label_agreement import (
    DEPTH,
    LEVEL,
    agreements,
    beats_chance,
    diagnostic,
)
from probes.report.figures.layer_drops import drop_words, least_influence
from probes.report.frames import Point, column, names, only, points, where
from probes.report.tables import Table
from probes.report.text import NOTHING, clean, count, interval, number, percent
from probes.report.verdict import Verdict, conclusion, unfinished

KEPT = 0.95  # share of quality that a run of blocks must keep, at the lower end of its interval, to be called droppable
_NAMED = 4  # diagnostics that a sentence names
_FEW_LAYERS = 12  # layers below which a random curve often does as well as any


@conclusion("quality")
def quality_verdict(data: RunData) -> Verdict | None:
    """The headline, what stands out, and the table of diagnostics; None for a run of another analysis."""
    if not is_quality(data):
        return None
    table = diagnostics_table(data)
    partial = unfinished(data)
    if partial is not None:
        return replace(partial, table=table)
    told = (_others, _near, _drops, _trusted, _depth)
    found = tuple(words for tell in told if (words := tell(data)))
    return Verdict("found", headline(data), found, table)


def labelled(data: RunData) -> list[str]:
    """Datasets on which quality was measured, in the order of the run."""
    rows = data.measurements
    measured = rows["measure"].isin(QUALITY_ORDER) & rows["layer"].notna()
    held_names = names(where(rows, measured.to_numpy(dtype=bool)), "dataset")
    return [name for name in dict.fromkeys(held_names) if name != "<NA>"]


def _quality_title(data: RunData, dataset: str | None) -> str:
    """What quality is on a dataset."""
    measure = with_dataset(data, dataset).quality or ""
    return clean(data.measure(measure).get("title") or measure, 60)


def curve(data: RunData, dataset: str | None = None) -> list[Point]:
    """Quality by labels at full width, layer by layer."""
    own = with_dataset(data, dataset)
    return points(only(own.all, dim=own.dims[-1], variant="raw")) if own.dims else []


def best_of(held_points: list[Point]) -> Point | None:
    """The layer with the highest quality, the earliest of several."""
    return max(held_points, key=lambda p: (p.value, -p.layer), default=None)


def headline(data: RunData) -> str:
    """Which layer is best by labels, beside the last one."""
    first = (labelled(data) or [None])[0]
    line = curve(data, first)
    best = best_of(line)
    if best is None:
        return "No quality by labels was measured: diagnostics only"
    span = interval(best.low, best.high)
    quality = _quality_title(data, first)
    of = "" if data.n_layers is None else f" of {data.n_layers}"
    where = f" on {clean(first, 60)}" if first and len(labelled(data)) > 1 else ""
    words = f"Layer {best.layer}{of} is best by labels{where}: {quality} {number(best.value)} {span}".strip()
    if best.layer == line[-1].layer:
        return f"{words}, the last one"
    return f"{words}, the last layer {number(line[-1].value)}"


def _others(data: RunData) -> str:
    """The best layers on the other datasets."""
    told: list[str] = []
    for name in labelled(data)[1:]:
        best = best_of(curve(data, name))
        if best is not None:
            told.append(
                f"on {clean(name, 60)} it is layer {best.layer} ({_quality_title(data, name)} {number(best.value)})"
            )
    return f"Elsewhere: {listed(told)}." if told else ""


def _near(data: RunData) -> str:
    """Layers that the best one's interval does not tell apart from it."""
    line = curve(data, (labelled(data) or [None])[0])
    best = best_of(line)
    if best is None or best.low != best.low:
        return ""
    near = [p.layer for p in line if p.value >= best.low and p is not best]
    if not near:
        return "No other layer reaches the interval of the best."
    reach = "other layer reaches" if len(near) == 1 else "other layers reach"
    return f"{count(len(near))} {reach} its interval, the earliest layer {near[0]}."


def _trusted(data: RunData) -> str:
    """Diagnostics that follow the labels beyond what a random curve does, on every dataset."""
    several = len(labelled(data)) > 1
    told = [
        _on_dataset(data, name, f" on {clean(name, 60)}" if several else "")
        for name in labelled(data) or [None]
    ]
    return " ".join(words for words in told if words)


def _on_dataset(data: RunData, dataset: str | None, where_: str) -> str:
    rows = records(agreements(data, dataset))
    sure = [row for row in rows if beats_chance(row)]
    if not rows:
        return ""
    if not sure:
        few = "; with so few layers hardly any could be" if rows[0]["n"] < _FEW_LAYERS else ""
        return (
            f"None of {len(rows)} diagnostics is shown to go with quality{where_}: a random curve with the same steps "
            f"does as well in {percent(LEVEL, 0)} of cases or more{few}."
        )
    shown = [f"{_title(data, row)} {_signed(row)}" for row in sure[:_NAMED]]
    more = [f"{len(sure) - _NAMED} more"] if len(sure) > _NAMED else []
    go = "goes" if len(sure) == 1 else "go"
    return (
        f"Of {len(rows)} diagnostics {len(sure)} {go} with quality{where_} over layers more strongly than random "
        f"curves with the same steps (p < {LEVEL:g}; {number(LEVEL * len(rows), 1)} would by chance): "
        f"{listed([*shown, *more])}."
    )


def _depth(data: RunData) -> str:
    """What the depth alone tells: a diagnostic that does no better is no diagnostic."""
    every = records(agreements(data, depth=True))
    alone = next((row for row in every if row["variant"] == DEPTH), None)
    if alone is None:
        return ""
    better = sum(abs(row["value"]) > abs(alone["value"]) for row in every if row is not alone)
    return (
        f"The layer number alone has a rank correlation of {_signed(alone)} with quality; {count(better)} of "
        f"{count(len(every) - 1)} diagnostics are stronger."
    )


def _title(data: RunData, row: dict[str, Any]) -> str:
    title = diagnostic(data, row["variant"])[0]
    # "Effective rank" within a sentence is small, "DiME" and "CKA" are not.
    return title if title[1:] != title[1:].lower() else title[:1].lower() + title[1:]


def _signed(row: dict[str, Any]) -> str:
    sign = "+" if row["value"] > 0 else ""
    return f"{sign}{number(row['value'], 2)} {interval(row['low'], row['high'], 2)}"


def _drops(data: RunData) -> str:
    """How many blocks of least influence can go, and at what cost."""
    frame = held(data, "drops")
    if frame is None:
        return ""
    ranked = least_influence(of_dataset(frame, None))
    gone = [row for row in records(ranked) if row["count"] > 0]
    if not gone:
        return ""
    kept = [row for row in gone if row["share_low"] >= KEPT]
    row = max(kept, key=lambda r: r["count"]) if kept else gone[0]
    cost = (
        f"{percent(row['share'])} [{percent(row['share_low'])}, {percent(row['share_high'])}] of quality with "
        f"{percent(row['relative_cost'], 0)} of the blocks"
    )
    which = drop_words(row["first"], row["count"])
    if kept:
        have = "has" if row["count"] == 1 else "have"
        return f"The model {which}, which {have} the least influence, keeps {cost}."
    return f"No run of blocks can surely go and leave {percent(KEPT, 0)} of quality: the model {which} keeps {cost}."


def diagnostics_table(data: RunData) -> Table | None:
    """One row per diagnostic: how it goes with quality, and where it is highest and lowest; None without any."""
    rows = records(agreements(data, depth=True))
    if not rows:
        return None
    own = with_dataset(data, (labelled(data) or [None])[0])
    body = tuple(_row(own, row) for row in rows)
    columns = (
        "diagnostic", "rank correlation", "95 % interval", "p", "layers", "with quality",
        "highest at", "lowest at",
    )  # fmt: skip
    first = next(
        (name for name in names(numbers_of(data, "label_agreement", by=""), "dataset") if name), ""
    )
    where = f" Dataset: {clean(first, 60)}." if len(labelled(data)) > 1 else ""
    note = (
        "Spearman’s rank correlation between a diagnostic and quality by labels, over layers; the interval is for "
        "other examples at these layers, p the chance of a random curve with the same steps. Highest and lowest: "
        f"layers at which the diagnostic is largest and smallest.{where}"
    )
    return Table("", columns, body, frozenset({1, 2, 3, 4, 6, 7}), note)


def _row(data: RunData, row: dict[str, Any]) -> tuple[str, ...]:
    title, measure, variant = diagnostic(data, row["variant"])
    line = only(data.by_layer(measure), variant=variant)
    ends = (NOTHING, NOTHING)
    if len(line):
        value, layer = column(line, "value"), column(line, "layer")
        ends = (number(layer[value.argmax()], 0), number(layer[value.argmin()], 0))
    word = NOTHING
    if beats_chance(row):
        word = "rises" if row["value"] > 0 else "falls"
    return (
        title,
        number(row["value"], 2),
        interval(row["low"], row["high"], 2) or NOTHING,
        number(row["p"], 3) if row["p"] == row["p"] else NOTHING,
        count(row["n"]),
        word,
        *ends,
    )
