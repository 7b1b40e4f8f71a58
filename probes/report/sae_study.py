"""What the parts of a run of autoencoders found, a sentence each: reading, concepts, effects, circuits, codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from probes.report.collapse_study import ordered, records
from probes.report.data import RunData
from probes.report.figures.circuit_tasks import task_words
from probes.report.figures.sae_circuits import auc_rows, difference_rows
from probes.report.figures.sae_concepts import concept_key, concept_title
from probes.report.figures.sae_effects import comparable, differs, left_out, measure_words
from probes.report.figures.sae_effects import effects as effect_groups
from probes.report.figures.sae_features import feature_words
from probes.report.figures.sae_looks import said
from probes.report.frames import column, only, where
from probes.report.sae_tables import SaeFocus, features_of, held, of_sae, shown_features
from probes.report.text import (
    clean,
    count,
    counted,
    interval,
    is_number,
    number,
    percent,
    significant,
    size,
)

Row = dict[str, Any]
_NAMED = 3
_DOING = {"ablate": "ablating", "steer": "steering"}
_ASKED = 10  # features to read that a run looks for
_FEW_READ = (
    "it must fire on 0.01 to 1 % of tokens, in five texts or more, and there mostly on a few tokens or where a concept "
    "is, in held-out texts too; more tokens, more steps or more features help"
)


def readable(data: RunData) -> str:
    """Features that can be read: the first of those that were picked; and why there are not more."""
    rows = shown_features(data, SaeFocus())
    known = features_of(data, SaeFocus())
    if not rows:
        return f"No feature of {count(len(known))} can be read: {_FEW_READ}." if known else ""
    told = [f"{row['feature']:.0f} ({feature_words(row)})" for row in rows[:_NAMED]]
    rest = len(rows) - _NAMED
    more = (
        f"; {count(rest)} more {'stands' if rest == 1 else 'stand'} in the table"
        if rest > 0
        else ""
    )
    words = f"{counted(len(rows), 'feature')} to read: {'; '.join(told)}{more}."
    if len(rows) < _ASKED:
        words += f" Only {count(len(rows))} of {count(len(known))} can be read: {_FEW_READ}."
    return words


def concepts(data: RunData) -> str:
    """In how many concepts the best single feature beats the best neuron and a random feature, and falls short."""
    found = of_sae(data, "sae_concepts", SaeFocus())
    if found is None:
        return ""
    by_key: dict[tuple[str, str], dict[str, Row]] = {}
    for row in records(found[0]):
        by_key.setdefault(concept_key(row), {}).setdefault(row["coder"], row)
    known = {key: rows for key, rows in by_key.items() if "sae" in rows}
    if not known:
        return ""
    parts: list[str] = []
    for kind, words in (
        ("neurons", "the best neuron"),
        ("pca", "the best principal component"),
        ("random", "the best random feature"),
    ):
        pairs = [(rows["sae"], rows[kind]) for rows in known.values() if kind in rows]
        if pairs:
            above = sum(_above(own, other) for own, other in pairs)
            parts.append(f"{words} in {count(above)}")
    several = len({dataset for dataset, _ in known}) > 1
    best = max(known, key=lambda key: known[key]["sae"]["auroc"])
    row = known[best]["sae"]
    named = f"best {concept_title(best, several)}, {number(row['auroc'], 2)} {interval(row['low'], row['high'], 2)}"
    below = sum(_above(rows["dense"], rows["sae"]) for rows in known.values() if "dense" in rows)
    dense = (
        f"; a probe of all dimensions is clearly better in {count(below)}"
        if any("dense" in r for r in known.values())
        else ""
    )
    beats = f" lies clearly above {', '.join(parts)}" if parts else " has no baseline beside it"
    of = f"Of {counted(len(known), 'concept')}"
    return f"{of}, the best single feature{beats}{dense} ({named} AUROC)."


def _above(row: Row, other: Row) -> bool:
    return is_number(row["low"]) and is_number(other["high"]) and row["low"] > other["high"]


def probing(data: RunData) -> str:
    """How many features come near a probe of all dimensions, over concepts."""
    found = of_sae(data, "sae_probing", SaeFocus())
    if found is None:
        return ""
    frame = found[0]
    dense = column(only(frame, coder="dense"), "value")
    plain = where(frame, np.isfinite(column(frame, "features")))
    own = only(plain, coder="sae")
    if own.empty:
        return ""
    ks = sorted({float(k) for k in column(own, "features")})
    shown = [k for k in (ks[0], 5.0, ks[-1]) if k in ks]
    parts = []
    for k in dict.fromkeys(shown):
        values = [f"{number(np.median(column(only(own, features=k), 'value')), 2)}"]
        for kind in ("neurons", "random"):
            other = column(only(plain, coder=kind, features=k), "value")
            if len(other):
                values.append(f"{said(kind)} {number(np.median(other), 2)}")
        parts.append(
            f"{counted(k, 'feature')} {values[0]}"
            + (f" ({', '.join(values[1:])})" if values[1:] else "")
        )
    whole = f"; all dimensions {number(np.median(dense), 2)}" if len(dense) else ""
    return f"Median AUROC of a probe on few features, without intervals: {', '.join(parts)}{whole}."


def effects(data: RunData) -> str:
    """In how many features ablating and steering do more than in random features, and on how many tokens."""
    told: list[str] = []
    last: dict[str, tuple[float, list[Row]]] = {}
    for mode, strength, rows in effect_groups(data):
        last[mode] = (strength, rows)  # strengths ascend: the strongest is told
    for mode in ordered(list(last), ("ablate", "steer")):
        strength, rows = last[mode]
        known = comparable(rows)
        if not known:
            told.append(
                f"{_DOING.get(mode, clean(mode, 20))} cannot be told from random features{left_out(rows)}"
            )
            continue
        by = "" if strength != strength else f" by {significant(strength, 2)}"
        measure = measure_words(rows[0]["measure"])
        what = {
            "ablate": f"ablating changes {measure} otherwise than taking as much away along random features does",
            "steer": f"steering{by} moves a feature's own promoted tokens otherwise than random features move theirs",
        }.get(mode, f"{clean(mode, 20)}{by} changes {measure} otherwise than random features do")
        told.append(
            f"{what}, for {count(sum(map(differs, rows)))} of {counted(len(known), 'feature')}{_tokens(known)}"
            f"{left_out(rows)}"
        )
    if not told:
        return ""
    limits = (
        "; steering shows no more than that a direction moves the tokens that it points at"
        if "steer" in last
        else ""
    )
    return f"In the model: {'; '.join(told)} (intervals one feature at a time{limits})."


def _tokens(rows: Sequence[Row]) -> str:
    """On how many tokens each of the rows rests."""
    sizes = sorted(row["n"] for row in rows if is_number(row["n"]))
    if not sizes:
        return ""
    ends = dict.fromkeys((count(sizes[0]), count(sizes[-1])))
    return f" ({' to '.join(ends)} tokens each)"


def circuits(data: RunData) -> str:
    """How well codes of heads find a task's heads, against the best baseline."""
    rows = [row for row in auc_rows(data) if not row["variant"].endswith(" edges")]
    by_task: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_task.setdefault(row["dataset"], {})[row["variant"]] = row
    paired = {(row["dataset"], row["variant"]): row for row in difference_rows(data)}
    told: list[str] = []
    for task, methods in by_task.items():
        own = methods.pop("sae", None)
        if own is None:
            continue
        span = f"{number(own['value'], 2)} {interval(own['low'], own['high'], 2)}".strip()
        best = max(methods.values(), key=lambda row: row["value"], default=None)
        other = ""
        if best is not None:
            verb = _side(paired.get((task, best["variant"])))
            other = f", {verb} {said(best['variant'])} ({number(best['value'], 2)})"
        told.append(f"{task_words(task)} {span}{other}")
    what = "Codes of heads find the heads that patching finds with ROC AUC"
    return f"{what} {'; '.join(told)}." if told else ""


def _side(difference: Row | None) -> str:
    """Where a number lies beside another, by the interval of their difference, paired by seed."""
    if difference is None or not (is_number(difference["low"]) and is_number(difference["high"])):
        return "not shown to differ from"
    if difference["low"] > 0:
        return "above"
    return "below" if difference["high"] < 0 else "not shown to differ from"


def codes(data: RunData) -> str:
    """Sparse codes of embeddings beside truncation of the same size, dataset by dataset."""
    frame = held(data, "csr")
    if frame is None:
        return ""
    rows = records(frame)
    sets = dict.fromkeys((row["dataset"], row["measure"]) for row in rows)
    told = [words for key in sets if (words := _code_words(_of_set(rows, key), key[0]))]
    return f"Sparse codes of embeddings: {'; '.join(told)}." if told else ""


def _of_set(rows: Sequence[Row], key: tuple[str, str]) -> list[Row]:
    return [row for row in rows if (row["dataset"], row["measure"]) == key]


def _code_words(rows: Sequence[Row], dataset: str) -> str:
    own = [row for row in rows if row["coder"] == "csr" and is_number(row["active"])]
    if not own:
        return ""
    row = min(own, key=lambda r: abs(np.log(max(r["active"], 1) / 32)))
    span = f"{number(row['value'])} {interval(row['low'], row['high'])}".strip()
    parts: list[str] = []
    for comparison in ("active", "bytes"):
        other = _compared(rows, row, comparison)
        if other is not None:
            verb = (
                "above"
                if _above(row, other)
                else "below"
                if _above(other, row)
                else "not shown to differ from"
            )
            words = "numbers" if comparison == "active" else f"bytes, {size(row['bytes'])}"
            parts.append(f"{verb} truncation to as many {words} ({number(other['value'])})")
    share = f", {percent(row['share'])} of the full vectors" if is_number(row["share"]) else ""
    name = clean(dataset, 30)
    beside = "".join(f", {part}" for part in parts)
    return f"on {name} {count(row['active'])} active numbers give {span}{share}{beside}"


def _compared(rows: Sequence[Row], row: Row, comparison: str) -> Row | None:
    """The truncation that the run set beside a sparse code."""
    same = [r for r in rows if r["coder"] == "matryoshka" and r["comparison"] == comparison]
    own = next((r for r in same if r["csr_k"] == row["active"]), None)
    if own is None and comparison == "active":
        cut = [r for r in rows if r["coder"] == "matryoshka" and r["active"] == row["active"]]
        return next(iter(cut), None)
    return own
