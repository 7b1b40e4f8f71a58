"""The decision in plain words and one table, from decision.json as it is; and the words for a run without one.

What else a run can conclude registers itself with `@conclusion`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from probes.registry import Registry
from probes.report.collapse_study import reasons
from probes.report.data import Cell, RunData, cell_of, mapping, sequence
from probes.report.figures.card import listed
from probes.report.tables import Table
from probes.report.text import (
    NOTHING,
    clean,
    count,
    interval,
    is_number,
    level,
    milliseconds,
    number,
    percent,
    sentence,
    times,
)

GUARANTEES = {
    "finite-sample": "this holds at this sample size, whatever the losses look like (Hoeffding–Bentkus)",
    "asymptotic": "this rests on a paired bootstrap: accurate for large samples, approximate for small ones",
}
_COLUMNS = ("", "layer", "dims", "state", "quality", "of full", "ms per text", "speed-up")
_NUMERIC = frozenset({1, 2, 4, 5, 6, 7})


@dataclass(frozen=True)
class Verdict:
    """What a run concluded: `kind` is chosen, infeasible, found, failed, running or none."""

    kind: str
    headline: str
    sentences: tuple[str, ...] = ()
    table: Table | None = None


Conclusion = Callable[[RunData], Verdict | None]
CONCLUSIONS: Registry[Conclusion] = Registry("conclusion")


def conclusion(name: str) -> Callable[[Conclusion], Conclusion]:
    """Decorator: a kind of conclusion, None for runs that hold no such thing."""
    return lambda function: CONCLUSIONS.add(name, function)


def verdict(data: RunData) -> Verdict:
    """What the run concluded; for a run that did not finish, how it ended, beside what it found so far."""
    found = next((v for conclude in CONCLUSIONS.values() if (v := conclude(data))), None)
    return found or unfinished(data) or Verdict("none", "")


@conclusion("decision")
def _decided(data: RunData) -> Verdict | None:
    if data.decision is None:
        return None
    if data.chosen is not None:
        return _chosen(data, data.decision, data.chosen)
    return _infeasible(data, data.decision)


def where(cell: Cell, data: RunData) -> str:
    """A cell in a sentence: layer 3 of 6 and keep 128 of 384 dimensions."""
    of_layers = "" if data.n_layers is None else f" of {data.n_layers}"
    of_dims = "" if data.full is None else f" of {data.full.dim}"
    return f"layer {cell.layer}{of_layers} and keep {cell.dim}{of_dims} dimensions"


def progress_text(data: RunData) -> str:
    """Progress of a run in words."""
    progress = data.part("progress")
    if not progress:
        return "no progress written"
    total = f" of {count(progress.get('total'))}" if is_number(progress.get("total")) else ""
    return f"{clean(progress.get('text') or 'working', 200)} ({count(progress.get('done'))}{total})"


def not_measured(data: RunData) -> list[str]:
    """Parts that do not apply, one sentence per reason."""
    by_reason: dict[str, list[str]] = {}
    for part, why in reasons(data).items():
        by_reason.setdefault(clean(why, 240), []).append(clean(part, 40))
    return [
        sentence(f"not measured: {listed(parts)}" + (f" ({why})" if why else ""))
        for why, parts in by_reason.items()
    ]


def unfinished(data: RunData) -> Verdict | None:
    """How far a run came that did not finish; None for one that did."""
    status = data.info.get("status")
    message = clean(data.info.get("message") or "")
    if status == "running":
        return Verdict(
            "running", "This run is not finished", (sentence(f"so far: {progress_text(data)}"),)
        )
    if status in ("failed", "interrupted"):
        headline = "This run failed" if status == "failed" else "This run was interrupted"
        return Verdict("failed", headline, (sentence(message),) if message else ())
    return None


def _chosen(data: RunData, decision: Mapping[str, Any], cell: Cell) -> Verdict:
    how = "" if cell.variant == "raw" else f" ({cell.variant})"
    title = clean(data.measure(data.quality)["title"], 80) if data.quality else "quality"
    test = mapping(decision.get("test"))
    span = interval(test.get("low"), test.get("high"))
    quality = f"{number(decision.get('quality'))} {span}".strip()
    examples = f" ({count(test.get('n'))} examples)" if is_number(test.get("n")) else ""
    words = [
        f"On the untouched test part{examples} it keeps {percent(decision.get('share'))} of the full model’s {title}: "
        f"{quality} against {number(decision.get('quality_full'))}."
    ]
    promise = promised(data, decision)
    if promise:
        words.append(promise)
    words += _savings(data, decision, cell)
    return Verdict("chosen", f"{_headline(cell, data)}{how}", tuple(words), decision_table(data))


def _headline(cell: Cell, data: RunData) -> str:
    if cell.layer != data.n_layers:
        return f"Stop after {where(cell, data)}"
    of_dims = "" if data.full is None else f" of {data.full.dim}"
    return f"No layer can be left out; keep {cell.dim}{of_dims} dimensions"


def _savings(data: RunData, decision: Mapping[str, Any], cell: Cell) -> list[str]:
    """What the exit saves: time where blocks are left out, and the size of a vector."""
    words: list[str] = []
    if cell.layer == data.n_layers:
        words.append(
            "Every block is kept, so it is no faster; no earlier layer could be shown to do."
        )
    elif is_number(decision.get("relative_cost")):
        faster = times(decision.get("speedup")).replace("×", " times as fast")
        measured = "" if decision.get("cost_measured", True) else " (counted in blocks)"
        share = percent(decision.get("relative_cost"), 0)
        words.append(f"A text takes {share} of the full model’s time: {faster}{measured}.")
    if data.full is not None and cell.dim < data.full.dim:
        words.append(
            f"Its vectors are {times(data.full.dim / cell.dim).replace('×', ' times')} smaller."
        )
    return words


def promised(data: RunData, decision: Mapping[str, Any]) -> str:
    """What the calibrate part certifies, and on what that rests."""
    sure = level(decision.get("confidence"))
    proof = mapping(decision.get("calibrate"))
    low = proof.get("share_low", None if proof else decision.get("share_low"))
    largest = mapping(decision.get("budget")).get("max_loss")
    if is_number(largest):
        text = (
            f"The calibrate part, which chose nothing, shows with {sure} confidence that examples get worse by at most "
            f"{number(largest)} on average, gains not counted"
        )
    elif is_number(low):
        asked = "" if data.budget is None else f" ({level(data.budget)} was asked for)"
        text = (
            f"The calibrate part, which chose nothing, shows with {sure} confidence that it keeps at least "
            f"{percent(low)}{asked}"
        )
    else:
        return ""
    basis = GUARANTEES.get(str(decision.get("guarantee")))
    return f"{text}; {basis}." if basis else f"{text}."


def _infeasible(data: RunData, decision: Mapping[str, Any]) -> Verdict:
    confidence = decision.get("confidence")
    sure = f" with {level(confidence)} confidence" if is_number(confidence) else ""
    asked = "what was asked" if data.budget is None else f"{level(data.budget)} of the full quality"
    reason = sentence(clean(decision.get("reason") or ""))
    told = tuple(part for part in (reason, "Use the full model, or ask for less.") if part)
    return Verdict("infeasible", f"No exit keeps {asked}{sure}", told, decision_table(data))


def decision_table(data: RunData) -> Table:
    """Chosen exit, full model and fixed-depth baselines side by side, all on the test part."""
    decision = mapping(data.decision)
    rows: list[tuple[str, ...]] = []
    if data.chosen is not None:
        entry = {**mapping(decision.get("test")), **decision}
        rows.append(_row("chosen", entry, data))
    for held in sequence(decision.get("baselines")):
        entry = mapping(held)
        name = clean(entry.get("name") or f"layer {entry.get('layer')}", 60).split(",")[0]
        rows.append(_row(name, entry, data))
    guarantee = clean(decision.get("guarantee") or "", 40)
    sure = level(decision.get("confidence"))
    note = f"Brackets: intervals at {sure}. ≥: one-sided lower limit at {sure}. Guarantee: {guarantee}."
    note = note if guarantee else ""
    strong = None if data.chosen is None else 0
    return Table("", _COLUMNS, tuple(rows), _NUMERIC, note, strong)


def alternatives(data: RunData, limit: int = 12) -> Table | None:
    """Other candidates that passed, with what the calibrate part says of them."""
    held = [mapping(entry) for entry in sequence(mapping(data.decision).get("alternatives"))]
    if not held:
        return None
    rows: list[tuple[str, ...]] = []
    for entry in held[:limit]:
        renamed = {key.removeprefix("calibrate_"): value for key, value in entry.items()}
        rows.append(_row(f"{len(rows) + 1}", renamed, data))
    note = "Quality on the calibrate part, cheapest first."
    if len(held) > limit:
        note += f" Showing {limit} of {len(held)}; all are in decision.json."
    return Table("Other candidates that passed", _COLUMNS, tuple(rows), _NUMERIC, note)


def _row(name: str, entry: Mapping[str, Any], data: RunData) -> tuple[str, ...]:
    cell = cell_of(entry)
    latency = None if cell is None else data.cost("latency_p50_ms").get(cell.layer)
    share = percent(entry.get("share"))
    if is_number(entry.get("share_low")):
        share += f" (≥ {percent(entry.get('share_low'))})"
    cost = entry.get("relative_cost")
    speed = 1 / float(str(cost)) if is_number(cost) and float(str(cost)) > 0 else None
    span = interval(entry.get("low"), entry.get("high"))
    return (
        name,
        NOTHING if cell is None else count(cell.layer),
        NOTHING if cell is None else count(cell.dim),
        NOTHING if cell is None else cell.variant,
        f"{number(entry.get('quality'))} {span}".strip(),
        share,
        milliseconds(latency),
        times(speed),
    )


def caveats(data: RunData) -> list[str]:
    """The decision's caveats and the run's warnings, as sentences."""
    held = [
        *sequence(mapping(data.decision).get("caveats")),
        *sequence(data.info.get("warnings")),
    ]
    return [sentence(clean(item)) for item in held]
