"""What features do in the model: ablated or steered, beside random features of about the same size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from probes.report.collapse_study import excludes_zero, ordered, records
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.focus import ZERO, whiskers
from probes.report.figures.marks import marked, upright
from probes.report.figures.panels import Panel, Sheet, arranged
from probes.report.frames import column
from probes.report.sae_examples import quoted, texts_in
from probes.report.sae_tables import SaeFocus, features_of, of_sae, shown_features
from probes.report.text import (
    clean,
    count,
    counted,
    interval,
    is_number,
    label,
    number,
    significant,
)
from probes.report.theme import ACCENT, NEUTRAL, PALETTE, SELECTED

HOW_TO_READ = (
    "Each feature taken out of the state, or added to it, while the model reads. Ablated: change of the "
    "log-probability of the next token where the feature is active. Steered: rise of the logits of the tokens that the "
    "feature promotes, against all other tokens. Grey: random features that fire about as often and as strongly, "
    "changed by as much at the same tokens, steered ones judged by the tokens that they promote themselves; the "
    "whiskers are where a further random feature would lie (95 %). Whiskers of the feature: 95 % interval over texts. "
    "Orange: the difference from random ones is shown. A feature with an effect beyond its size lies clear of grey. "
    "Not shown: that the model uses the feature so, or that it stands for its tokens."
)
FEW_TOKENS = 30
FEW_HOW = f" Open: active at fewer than {FEW_TOKENS} tokens, too few to tell."
MEASURES = {
    "logprob_change": "log-probability (nats per token)",
    "up_tokens_logit": "logits of promoted tokens",
}
_MODES = ("ablate", "steer")


def measure_words(measure: str) -> str:
    """A measure of an intervention in words."""
    return MEASURES.get(measure, clean(measure, 40).replace("_", " "))


def effects(
    data: RunData, focus: SaeFocus | None = None
) -> list[tuple[str, float, list[dict[str, Any]]]]:
    """Interventions with their rows: the mode with its measure, the strength (NaN where there is none), the rows."""
    found = of_sae(data, "sae_effects", focus or SaeFocus())
    if found is None:
        return []
    groups: dict[tuple[str, str, float | None], list[dict[str, Any]]] = {}
    for row in records(found[0]):
        strength = row["strength"] if row["strength"] == row["strength"] else None
        groups.setdefault((row["mode"], row["measure"], strength), []).append(row)
    modes = ordered([mode for mode, _, _ in groups], _MODES)
    order = sorted(groups, key=lambda key: (modes.index(key[0]), key[1], key[2] or 0.0))
    return [(key[0], np.nan if key[2] is None else key[2], groups[key]) for key in order]  # fmt: skip


def feature_effects(data: RunData, focus: SaeFocus | None = None) -> FigureCard | None:
    """Effects of features against their controls, a panel per intervention; None when not measured."""
    focus = focus or SaeFocus()
    found = of_sae(data, "sae_effects", focus)
    if found is None:
        return None
    key = ("sae-effects", found[1])
    card = data.once(key, lambda: _card(data, found[0], SaeFocus(found[1])))
    return with_feature(card, focus.feature)


def with_feature(card: FigureCard, feature: int | None) -> FigureCard:
    """The card with a ring round every dot of the picked feature; the card itself where it has none."""
    rings: list[Spec] = []
    for trace in card.spec["data"]:
        held = (trace.get("meta") or {}).get("features", ())
        spots = [at for at, found in enumerate(held) if feature is not None and found == feature]
        if spots:
            place = {side: [float(trace[side][at]) for at in spots] for side in "xy"}
            axes = {k: trace[k] for k in ("xaxis", "yaxis") if k in trace}
            mark = {"symbol": "circle-open", "size": 17, "color": SELECTED, "line": {"width": 3}}
            name = {"name": "picked feature", "hoverinfo": "skip", "showlegend": False}
            rings.append(
                {"type": "scatter", "mode": "markers", "marker": mark, **place, **axes, **name}
            )
    return replace(card, drawn=marked(card.spec, traces=rings)) if rings else card


def _card(data: RunData, frame: pd.DataFrame, focus: SaeFocus) -> FigureCard:
    picked = [int(row["feature"]) for row in shown_features(data, focus)]
    found = dict.fromkeys(int(f) for f in column(frame, "feature"))
    order = [*(f for f in picked if f in found), *(f for f in found if f not in picked)]
    shown = order[:20]
    groups = effects(data, focus)
    strongest = {mode: at for at, (mode, _, _) in enumerate(groups)}.values()
    panels: list[Panel] = []
    told: list[str] = []
    for at, (mode, strength, rows) in enumerate(groups):
        sure, known_rows = [row for row in rows if differs(row)], comparable(rows)
        found_differences = [row["difference"] for row in known_rows]
        middle = f", median difference {number(np.median(found_differences))}" if known_rows else ""
        size = "" if strength != strength else f" by {significant(strength, 2)}"
        verb = "ablated" if mode == "ablate" else "steered" if mode == "steer" else clean(mode, 20)
        what = f"{verb}{size}"
        told.append(
            f"{what}, {measure_words(rows[0]['measure'])}: {count(len(sure))} of {counted(len(known_rows), 'feature')} "
            f"{'differs' if len(known_rows) == 1 else 'differ'} from random ones{middle}{left_out(rows)}"
        )
        kept = [row for row in rows if int(row["feature"]) in shown]
        if at in strongest and kept:
            panels.append(Panel(f"{what}: {label(measure_words(rows[0]['measure']), 34)}", _traces(kept, shown),
                                [upright(0.0, ZERO)]))  # fmt: skip
    known = features_of(data, focus)
    y = {
        "range": [len(shown) - 0.4, -0.6],
        "tickvals": list(range(len(shown))),
        "ticktext": [label(_name(known.get(f), f), 26) for f in shown],
    }
    sheet = Sheet({"title": "change"}, y, columns=2, height=max(120, 26 * len(shown)), left=180)
    cut = "" if len(shown) == len(order) else f", {len(shown)} of {len(order)} features"
    return FigureCard(
        "sae-effects",
        f"What features do in the model, against random ones{cut}",
        arranged(panels, sheet),
        HOW_TO_READ
        + (FEW_HOW if any(few_tokens(row) for _, _, rows in groups for row in rows) else ""),
        f"{counted(len(panels), 'panel')} of {counted(len(shown), 'feature')}. {'; '.join(told)}.",
        frame.drop(columns="dataset"),
    )


def differs(row: dict[str, Any]) -> bool:
    """Whether a feature is shown to do something else than a random one."""
    return not few_tokens(row) and excludes_zero(row["difference_low"], row["difference_high"])


def few_tokens(row: dict[str, Any]) -> bool:
    """Whether a feature is active at too few tokens to tell: ablation changes nothing but these."""
    return row["mode"] == "ablate" and is_number(row["n"]) and row["n"] < FEW_TOKENS


def comparable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The features that can be told from random ones: active at enough tokens, with an interval of the difference."""
    return [row for row in rows if is_number(row["difference_low"]) and not few_tokens(row)]


def left_out(rows: list[dict[str, Any]]) -> str:
    """How many others there are, and why nothing is said of them."""
    few = sum(few_tokens(row) for row in rows)
    rest = len(rows) - len(comparable(rows)) - few
    told = f", too few tokens to tell (under {FEW_TOKENS}): {count(few)}" if few else ""
    return told + (f", no control: {count(rest)}" if rest else "")


def _name(row: dict[str, Any] | None, feature: int) -> str:
    promoted = "" if row is None else quoted(texts_in(row["up_tokens"]), 1)
    return f"{feature} {promoted}".strip()


def _traces(rows: list[dict[str, Any]], shown: list[int]) -> list[Spec]:
    place = [shown.index(int(row["feature"])) for row in rows]
    colours = [ACCENT if differs(row) else PALETTE[0] for row in rows]
    own = _dots(rows, ("value", "low", "high"), place, -0.12)
    symbols = ["circle-open" if few_tokens(row) else "circle" for row in rows]
    own |= {
        "marker": {"size": 9, "color": colours, "symbol": symbols},
        "meta": {"features": [int(row["feature"]) for row in rows]},
        "name": "feature",
        "customdata": [
            f"<b>feature {row['feature']:.0f}</b><br>{number(row['value'])} {interval(row['low'], row['high'])}"
            f"<br>less random: {number(row['difference'])} {interval(row['difference_low'], row['difference_high'])}"
            f"<br>n = {count(row['n'])}{', too few tokens to tell' if few_tokens(row) else ''}"
            for row in rows
        ],
    }
    control = _dots(rows, ("control_value", "control_low", "control_high"), place, 0.18)
    control |= {
        "marker": {"size": 8, "color": NEUTRAL, "symbol": "diamond"},
        "name": "random feature",
        "customdata": [
            f"<b>random features beside {row['feature']:.0f}</b><br>{number(row['control_value'])} "
            f"{interval(row['control_low'], row['control_high'])}"
            for row in rows
        ],
    }
    return [control, own]


def _dots(
    rows: list[dict[str, Any]], held: tuple[str, str, str], place: list[int], shift: float
) -> Spec:
    value, low, high = (np.array([row[name] for row in rows], dtype=float) for name in held)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": value,
        "y": [at + shift for at in place],
        "error_x": {**whiskers(value, low, high), "color": NEUTRAL},
        "hovertemplate": "%{customdata}<extra></extra>",
    }


@figure("sae-effects", 506)
def _(data: RunData) -> FigureCard | None:
    return feature_effects(data)
