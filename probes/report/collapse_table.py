"""The numbers of a study of collapse layer by layer, as words and the summary table need them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from probes.report.collapse_study import held, last_layer, numbers_of, of_dataset, records
from probes.report.data import RunData
from probes.report.figures.collapse_remedies import remedy_words
from probes.report.figures.collapse_temperature import chosen, tested
from probes.report.frames import column, names, only
from probes.report.tables import Table
from probes.report.text import NOTHING, count, interval, is_number, number

MODES = {
    "cut": "the same documents, cut",
    "natural": "texts as they are: content may differ with length",
}


def mode(data: RunData) -> str:
    """The texts that the slopes are of: “cut” where those were measured, else “natural”; readers are told which."""
    held_ = set(names(of_dataset(numbers_of(data, "collapse_slope"), None), "variant"))
    return next((kind for kind in MODES if kind in held_), "")


def slopes(data: RunData, variant: str | None = None) -> list[dict[str, Any]]:
    """Rows of the slope by layer, of the texts that `mode` names unless a variant is asked for."""
    rows = of_dataset(numbers_of(data, "collapse_slope"), None)
    return records(only(rows, variant=variant or mode(data)).drop_duplicates("layer"))


def at_layer(data: RunData, layer: float) -> str:
    """A layer in a sentence: “the last layer” where it is that of the model, else its number."""
    return "the last layer" if int(layer) == data.n_layers else f"layer {int(layer)}"


def onsets(data: RunData) -> dict[int, float]:
    """Shortest length, by layer, from which on the mean cosine is shown to be above that of the shortest one."""
    rows = of_dataset(numbers_of(data, "collapse_onset_tokens"), None)
    return {row["layer"]: row["value"] for row in records(rows.drop_duplicates("layer"))}


def rise_at(data: RunData, layer: int, tokens: float) -> str:
    """The mean cosine of cut documents less that of the shortest cut, with its interval; empty where not known."""
    frame = held(data, "length")
    if frame is None:
        return ""
    rows = only(
        of_dataset(frame, None), mode="cut", measure="anisotropy", layer=layer, tokens=tokens
    )
    row = next(iter(records(rows)), None)
    if row is None or not is_number(row["difference"]):
        return ""
    return gain(row["difference"], row["difference_low"], row["difference_high"])


def lengths(data: RunData) -> tuple[float, float] | None:
    """The shortest and the longest text that was measured, in tokens."""
    frame = held(data, "length")
    if frame is None:
        return None
    cut = only(frame, mode="cut")
    tokens = column(frame if cut.empty else cut, "tokens")
    return float(tokens.min()), float(tokens.max())


def remedies_of(data: RunData, layer: int | None = None) -> list[dict[str, Any]]:
    """Remedies at a layer (by default the last), the best first, without “none”."""
    frame = held(data, "remedies")
    if frame is None:
        return []
    rows = of_dataset(frame, None)
    rows = tested(rows) if "split" in rows.columns else rows
    at = int(column(rows, "layer").max()) if layer is None else layer
    found = [row for row in records(only(rows, layer=at)) if row["remedy"] != "none"]
    found = [row for row in found if is_number(row["difference"])]
    return sorted(found, key=lambda row: -row["difference"])


def gain(value: Any, low: Any, high: Any) -> str:
    """A difference with its sign and interval.

    >>> gain(0.05, 0.04, 0.06), gain(-0.05, None, None)
    ('+0.050 [0.040, 0.060]', '−0.050')
    """
    sign = "+" if is_number(value) and float(value) > 0 else ""
    return f"{sign}{number(value)} {interval(low, high)}".strip()


def layer_table(data: RunData) -> Table | None:
    """One row per layer: its collapse, where that begins, the best temperature and remedy; None without any layer."""
    by_slope = {row["layer"]: row for row in slopes(data)}
    temperature = held(data, "temperature")
    best = pd.DataFrame() if temperature is None else chosen(of_dataset(temperature, None))
    taus = {int(row["layer"]): row for row in records(best)}
    treated = held(data, "remedies")
    layers = {*by_slope, *taus}
    layers |= set() if treated is None else {int(k) for k in column(treated, "layer")}
    if not layers:
        return None
    starts, means = onsets(data), _means(data)
    rows: list[tuple[str, ...]] = []
    for layer in sorted(layers):
        slope, tau, remedy = by_slope.get(layer), taus.get(layer), remedies_of(data, layer)[:1]
        rows.append((
            str(layer),
            *means.get(layer, (NOTHING, NOTHING)),
            NOTHING if slope is None else gain(slope["value"], slope["low"], slope["high"]),
            count(starts.get(layer)),
            NOTHING if tau is None else number(tau["tau"], 2),
            NOTHING if tau is None or tau["tau"] == 1 else _difference(tau),
            remedy_words(remedy[0]["remedy"]) if remedy else NOTHING,
            _difference(remedy[0]) if remedy else NOTHING,
        ))  # fmt: skip
    ends = lengths(data) or (None, None)
    columns = (
        "layer", f"cosine at {count(ends[0])}", f"at {count(ends[1])}", "per doubling", "from tokens", "τ",
        "gain by τ", "best remedy", "gain by it",
    )  # fmt: skip
    texts = f" ({MODES[mode(data)]})" if mode(data) else ""
    note = (
        f"Of layers 0 to {last_layer(data)}. Cosine: mean over pairs of texts of as many tokens{texts}. Per doubling: "
        "its change, with a 95 % interval. From tokens: the shortest length from which on the mean cosine stays above "
        "that of the shortest, by paired 95 % intervals. τ: attention temperature that the calibrate part chose; "
        "gains are on the test part, against no remedy at the same layer; the best remedy is the best of several on "
        "that part and looks better than it is. "
        "A dash: not measured, or not shown."
    )
    # What was not measured at any layer takes no room.
    kept = [at for at in range(len(columns)) if any(row[at] != NOTHING for row in rows)]
    numeric = frozenset(at for at, old in enumerate(kept) if columns[old] != "best remedy")
    body = tuple(tuple(row[at] for at in kept) for row in rows)
    return Table("", tuple(columns[at] for at in kept), body, numeric, note)


def _difference(row: dict[str, Any]) -> str:
    return gain(row["difference"], row["difference_low"], row["difference_high"])


def _means(data: RunData) -> dict[int, tuple[str, str]]:
    """Mean cosine at the shortest and at the longest text, by layer."""
    frame, ends = held(data, "length"), lengths(data)
    if frame is None or ends is None:
        return {}
    rows = only(of_dataset(frame, None), measure="anisotropy")
    cut = only(rows, mode="cut")
    rows = only(rows, mode="natural") if cut.empty else cut
    found: dict[int, dict[float, float]] = {}
    for row in records(rows):
        found.setdefault(int(row["layer"]), {})[row["tokens"]] = row["value"]
    return {k: (number(v.get(ends[0])), number(v.get(ends[1]))) for k, v in found.items()}
