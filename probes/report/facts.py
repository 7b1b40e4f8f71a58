"""What a run says in words and small tables, before any page is laid out: the report's content without its form."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from probes.report.data import Cell, RunData
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
    size,
    times,
    variant_name,
)


@dataclass(frozen=True)
class Table:
    """A small table of finished strings; `numeric` columns are set flush right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    note: str = ""
    strong: int | None = None  # row to emphasise


@dataclass(frozen=True)
class Verdict:
    """The decision in plain words: `kind` is chosen, infeasible, failed, running or none."""

    kind: str
    headline: str
    sentences: tuple[str, ...]
    table: Table | None = None


GUARANTEES = {
    "finite-sample": "The statement holds for this sample size, without assumptions on the losses (Hoeffding–Bentkus).",
    "asymptotic": "The statement rests on a paired bootstrap: it is accurate for large samples, approximate for small ones.",
}


def verdict(data: RunData) -> Verdict:
    """What the run decided, or why there is no decision."""
    status = str(data.info.get("status", ""))
    decision = data.decision
    if decision is None:
        return _undecided(data, status)
    if decision.get("status") == "chosen" and data.chosen is not None:
        return _chosen(data, decision, data.chosen)
    return _infeasible(data, decision)


def _undecided(data: RunData, status: str) -> Verdict:
    message = clean(data.info.get("message") or "")
    if status == "running":
        return Verdict("running", "This run is not finished", (f"So far: {progress_text(data)}.",))
    if status in ("failed", "interrupted"):
        told = (message,) if message else ()
        return Verdict(
            "failed",
            f"This run was {status}" if status == "interrupted" else "This run failed",
            told,
        )
    return Verdict("none", "", ())


def progress_text(data: RunData) -> str:
    """Progress of a run in words."""
    progress = data.info.get("progress")
    if not isinstance(progress, Mapping):
        return "no progress written"
    of = f" of {count(progress.get('total'))}" if is_number(progress.get("total")) else ""
    return (
        f"{clean(progress.get('text') or 'working', 200)}, {count(progress.get('done'))}{of} steps"
    )


def where(cell: Cell, data: RunData) -> str:
    """A cell in a sentence: layer 3 of 6, 128 of 384 dimensions."""
    of_layers = f" of {data.n_layers}" if data.n_layers is not None else ""
    of_dims = f" of {data.full.dim}" if data.full is not None else ""
    return f"layer {cell.layer}{of_layers} and keep {cell.dim}{of_dims} dimensions"


def _chosen(data: RunData, decision: Mapping[str, Any], cell: Cell) -> Verdict:
    title = clean(data.measure(data.quality)["title"], 80) if data.quality else "quality"
    how = "" if cell.variant == "raw" else f" ({cell.variant})"
    share, low = decision.get("share"), decision.get("share_low")
    sentences = [
        f"It keeps {percent(share)} of the full model’s {title}: {number(decision.get('quality'))} against "
        f"{number(decision.get('quality_full'))}."
    ]
    if is_number(low):
        sentences.append(
            f"With {level(decision.get('confidence'))} confidence it keeps at least {percent(low)}"
            + (f"; {level(data.budget)} was asked for." if data.budget is not None else ".")
        )
    if is_number(decision.get("relative_cost")):
        sentences.append(
            f"A text takes {percent(decision.get('relative_cost'), 0)} of the full model’s time: "
            f"{times(decision.get('speedup')).replace('×', ' times')} as fast."
        )
    guarantee = str(decision.get("guarantee") or "")
    if guarantee:
        sentences.append(
            f"Guarantee: {clean(guarantee, 60)}. {GUARANTEES.get(guarantee, '')}".strip()
        )
    return Verdict(
        "chosen", f"Stop after {where(cell, data)}{how}", tuple(sentences), decision_table(data)
    )


def _infeasible(data: RunData, decision: Mapping[str, Any]) -> Verdict:
    asked = (
        f"keeps {level(data.budget)} of the full quality"
        if data.budget is not None
        else "keeps what was asked"
    )
    sure = (
        f" with {level(decision.get('confidence'))} confidence"
        if is_number(decision.get("confidence"))
        else ""
    )
    reasons = [
        clean(decision[key])
        for key in ("reason", "message", "needed")
        if isinstance(decision.get(key), str)
    ]
    wanted = next(
        (decision[k] for k in ("n_needed", "sample_size_needed") if is_number(decision.get(k))),
        None,
    )
    if wanted is not None:
        reasons.append(f"About {count(wanted)} calibration examples would be needed.")
    if not reasons:
        reasons.append("Use the full model, lower the budget, or bring more labelled examples.")
    return Verdict("infeasible", f"No exit {asked}{sure}", tuple(reasons), decision_table(data))


def baselines(decision: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The decision's baselines as (name, entry), whether it holds them as a list or by name."""
    held = decision.get("baselines")
    if isinstance(held, Mapping):
        return [(clean(k, 60), dict(v)) for k, v in held.items() if isinstance(v, Mapping)]
    if isinstance(held, list):
        entries = [dict(e) for e in held if isinstance(e, Mapping)]
        return [
            (clean(e.get("name") or e.get("label") or f"layer {e.get('layer')}", 60), e)
            for e in entries
        ]
    return []


def decision_table(data: RunData) -> Table:
    """Chosen exit, full model and fixed-depth baselines side by side."""
    decision = data.decision or {}
    rows: list[tuple[str, ...]] = []
    strong = None
    if data.chosen is not None:
        strong = 0
        rows.append(_decision_row("chosen", dict(decision), data, guarantee=True))
    rows += [_decision_row(name, entry, data) for name, entry in baselines(decision)]
    columns = (
        "",
        "layer",
        "dims",
        "state",
        "quality",
        "of full",
        "ms per text",
        "speed-up",
        "guarantee",
    )
    return Table("", columns, tuple(rows), frozenset({1, 2, 4, 5, 6, 7}), strong=strong)


def _decision_row(
    name: str, entry: dict[str, Any], data: RunData, *, guarantee: bool = False
) -> tuple[str, ...]:
    layer, dim = entry.get("layer"), entry.get("dim")
    latency = data.cost("latency_p50_ms").get(int(float(str(layer)))) if is_number(layer) else None
    low, high = entry.get("quality_low"), entry.get("quality_high")
    if not is_number(low) and is_number(layer) and is_number(dim):
        cell = Cell(
            variant_name(entry.get("variant")), int(float(str(layer))), int(float(str(dim)))
        )
        row = data.at(cell, data.grid("test"))
        if row is not None and is_number(row["value"]) and is_number(entry.get("quality")):
            same = abs(float(row["value"]) - float(str(entry["quality"]))) < 5e-4
            low, high = (row["low"], row["high"]) if same else (None, None)
    span = interval(low, high)
    share = percent(entry.get("share"))
    if is_number(entry.get("share_low")):
        share += f" (≥ {percent(entry.get('share_low'))})"
    speed = entry.get("speedup")
    if (
        not is_number(speed)
        and is_number(entry.get("relative_cost"))
        and float(str(entry["relative_cost"])) > 0
    ):
        speed = 1 / float(str(entry["relative_cost"]))
    promise = clean(decision_guarantee(entry), 60) if guarantee else NOTHING
    return (
        name,
        count(layer),
        count(dim),
        variant_name(entry.get("variant")),
        f"{number(entry.get('quality'))} {span}".strip(),
        share,
        milliseconds(latency) if is_number(latency) else NOTHING,
        times(speed),
        promise,
    )


def decision_guarantee(entry: Mapping[str, Any]) -> str:
    """`95 %, asymptotic`."""
    parts = [level(entry.get("confidence"))] if is_number(entry.get("confidence")) else []
    return (
        ", ".join([*parts, str(entry.get("guarantee"))] if entry.get("guarantee") else parts)
        or NOTHING
    )


def caveats(data: RunData) -> list[str]:
    """The decision's caveats and the run's warnings."""
    found: list[str] = []
    for source, key in ((data.decision or {}, "caveats"), (data.info, "warnings")):
        held = source.get(key)
        found += [clean(item) for item in held] if isinstance(held, list) else []
    return found


def alternatives(data: RunData) -> Table | None:
    """Other candidates the decision names."""
    held = (data.decision or {}).get("alternatives")
    entries = [dict(e) for e in held if isinstance(e, Mapping)] if isinstance(held, list) else []
    if not entries:
        return None
    rows = [
        _decision_row(clean(e.get("name") or e.get("why") or f"alternative {i + 1}", 80), e, data)[
            :-1
        ]
        for i, e in enumerate(entries[:20])
    ]
    note = f"Showing {len(rows)} of {len(entries)}." if len(entries) > len(rows) else ""
    columns = ("", "layer", "dims", "state", "quality", "of full", "ms per text", "speed-up")
    return Table("Alternatives", columns, tuple(rows), frozenset({1, 2, 4, 5, 6, 7}), note)


def chain_table(data: RunData, limit: int = 40) -> Table | None:
    """The candidates in the order in which they were tested."""
    frame = data.table("chains")
    if frame is None or frame.empty:
        return None
    shown = frame.head(limit)
    rows = tuple(
        tuple(_cell_text(column, row[column]) for column in frame.columns)
        for row in shown.to_dict("records")
    )
    numeric = frozenset(
        i for i, name in enumerate(frame.columns) if pd.api.types.is_numeric_dtype(frame[name])
    )
    note = (
        f"Showing {len(rows)} of {len(frame)}; all are in tables/chains.parquet."
        if len(frame) > len(rows)
        else ""
    )
    return Table(
        "Order of the test",
        tuple(str(c).replace("_", " ") for c in frame.columns),
        rows,
        numeric,
        note,
    )


def _cell_text(column: str, value: Any) -> str:
    if isinstance(value, bool) or str(value) in ("True", "False"):
        return "yes" if bool(value) else "no"
    if column in ("layer", "dim", "order", "chain", "step", "n") and is_number(value):
        return count(value)
    if column == "variant":
        return variant_name(None if pd.isna(value) else value)
    if is_number(value):
        return "< 0.001" if 0 < float(value) < 0.001 else number(value)
    return NOTHING if value is None or pd.isna(value) else clean(value, 120)


def pairs(title: str, held: Mapping[str, Any]) -> Table | None:
    """A two-column table of names and values."""
    rows = tuple(
        (clean(k, 60).replace("_", " "), plain_value(v, k))
        for k, v in held.items()
        if v is not None
    )
    return Table(title, ("", ""), rows) if rows else None


def plain_value(value: Any, key: str = "") -> str:
    """A setting's value in short."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.endswith("bytes"):
        return size(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain_value(v) for v in value) or NOTHING
    if isinstance(value, Mapping):
        return ", ".join(f"{clean(k, 40)} {plain_value(v)}" for k, v in value.items()) or NOTHING
    return NOTHING if value is None or value == "" else clean(value, 400)


def provenance(data: RunData) -> list[Table]:
    """Settings, model, data, versions and hardware, as far as the run holds them."""
    info = data.info
    tables = [
        pairs("Settings", info["options"]) if isinstance(info.get("options"), Mapping) else None,
        pairs("Model", info["model"]) if isinstance(info.get("model"), Mapping) else None,
    ]
    held = info.get("datasets")
    for entry in held if isinstance(held, list) else []:
        if isinstance(entry, Mapping):
            tables.append(pairs("Data", entry))
    tables.append(
        pairs("Versions", info["versions"]) if isinstance(info.get("versions"), Mapping) else None
    )
    tables.append(
        pairs("Machine", info["hardware"]) if isinstance(info.get("hardware"), Mapping) else None
    )
    return [table for table in tables if table is not None]


def command(data: RunData) -> str | None:
    """The command line that makes this run again."""
    analysis, options = data.info.get("analysis"), data.info.get("options")
    if not analysis or not isinstance(options, Mapping):
        return None
    words = ["fathometer", "run", clean(analysis, 64)]
    for key, value in options.items():
        flag = "--" + str(key).replace("_", "-")
        if value is None or value is False or value == "":
            continue
        if value is True:
            words.append(flag)
        elif isinstance(value, list | tuple):
            words += [part for v in value for part in (flag, clean(v))]
        elif isinstance(value, str | int | float):
            words += [flag, clean(value)]
    return shlex.join(words)
