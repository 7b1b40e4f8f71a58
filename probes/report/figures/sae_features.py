"""Features to read: what each promotes, and the texts on which it fires, with every token coloured by activation."""

from __future__ import annotations

import pandas as pd

from probes.report.collapse_study import ordered
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.frames import only
from probes.report.sae_examples import (
    QUANTILES,
    Example,
    around,
    examples_in,
    in_words,
    quoted,
    texts_in,
)
from probes.report.sae_tables import Row, SaeFocus, of_sae, shown_features
from probes.report.text import clean, counted, inert, interval, label, number, percent, significant
from probes.report.theme import ACCENT

HOW_TO_READ = (
    "Features that the run picked to be read, by a rule that looked at texts it was not judged on. Below each: "
    "texts on which it fires most, then weaker ones, down to the lowest quarter of its activations. Tokens are "
    "coloured by activation, the strongest is bold. A feature means one thing if weak examples look like strong "
    "ones; its top examples alone flatter it. “Promotes”: tokens that it makes more likely."
)
_LINE = 19  # pixels
_FROM = (150, 133, 110)  # colour of a token that hardly fires; one that fires most is ACCENT
_FAINT = 0.05
_EACH = {"top": 2}  # examples of a quantile; one of every other


def features_to_read(data: RunData, focus: SaeFocus | None = None) -> FigureCard | None:
    """Up to ten features with their examples as text; None where none was picked or no example was kept."""
    focus = focus or SaeFocus()
    shown = shown_features(data, focus)[:10]
    found = of_sae(data, "sae_examples", SaeFocus(shown[0]["sae"])) if shown else None
    if found is None or found[1] != shown[0]["sae"]:
        return None
    return data.once(("sae-read", found[1]), lambda: _card(found[0], shown))


def _card(frame: pd.DataFrame, shown: list[Row]) -> FigureCard:
    notes: list[Spec] = []
    rows: list[tuple[Row, Example]] = []
    places: list[int] = []
    told: list[str] = []
    at = 0
    for row in shown:
        notes.append(_note(at, _title(row), 13))
        at += 1
        kept = examples_in(only(frame, feature=row["feature"]))
        for quantile in ordered(list(kept), QUANTILES):
            for example in kept[quantile][: _EACH.get(quantile, 1)]:
                notes.append(_note(at, _coloured(example), 12.5, indent=12))
                rows.append((row, example))
                places.append(at)
                at += 1
        at += 1  # air
        first = next((e for held in kept.values() for e in held), None)
        seen = f", as in {in_words(first)}" if first else ""
        told.append(f"{row['feature']:.0f} ({feature_words(row)}){seen}")
    height = max(at - 1, 1) * _LINE
    dots: Spec = {
        "type": "scatter",
        "x": [0.0] * len(rows),
        "y": places,
        "mode": "markers",
        "cliponaxis": False,
        "marker": {
            "size": [3 + 6 * _share(row, example) for row, example in rows],
            "color": ACCENT,
        },
        "customdata": [
            f"<b>feature {row['feature']:.0f}</b>, {label(example.quantile, 20)}<br>activation "
            f"{significant(example.activation)}"
            for row, example in rows
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
        "showlegend": False,
    }
    layout: Spec = {
        "height": int(height + 20),
        "margin": {"l": 12, "r": 8, "t": 10, "b": 10},
        "xaxis": {"visible": False, "range": [0, 1], "fixedrange": True},
        "yaxis": {"visible": False, "range": [at - 0.5, -0.7], "fixedrange": True},
        "annotations": notes,
        "meta": {"wide": True},  # lines of text, which a figure cannot break
    }
    return FigureCard(
        "sae-features",
        f"{counted(len(shown), 'feature')} to read, {clean(shown[0]['sae'], 60)}",
        {"data": [dots], "layout": layout},
        HOW_TO_READ,
        f"{counted(len(shown), 'feature')} with examples: {'; '.join(told)}.",
        _frame(rows),
    )


def feature_words(row: Row) -> str:
    """What is known of a feature in a few words: what it promotes, its concept, how often it fires."""
    parts: list[str] = []
    promoted = quoted(texts_in(row["up_tokens"]), 4)
    if promoted:
        parts.append(f"promotes {promoted}")
    if concept_words(row):
        parts.append(concept_words(row))
    if row["density"] == row["density"]:
        parts.append(f"fires on {percent(row['density'], 2)} of tokens")
    return ", ".join(parts) or "nothing more is known of it"


def concept_words(row: Row) -> str:
    """The concept that a feature goes with best, and how well; empty where none was asked."""
    if not row["concept"] or row["auroc"] != row["auroc"]:
        return ""
    span = interval(row["auroc_low"], row["auroc_high"], 2)
    return f"{clean(row['concept'], 40)} AUROC {number(row['auroc'], 2)} {span}".strip()


def _title(row: Row) -> str:
    promoted = label(quoted(texts_in(row["up_tokens"]), 4), 70)
    parts = [f"<b>{row['feature']:.0f}</b>", f"promotes {promoted}" if promoted else ""]
    parts.append(label(concept_words(row), 70))
    return "  ·  ".join(part for part in parts if part)


def _coloured(example: Example) -> str:
    """A line of tokens for Plotly, each escaped and coloured by its activation."""
    return "".join(_token(token, share, peak) for token, share, peak in around(example))


def _token(token: str, share: float, peak: bool) -> str:
    text = inert(clean(token, 40))
    if share < _FAINT and not peak:
        return text
    full = tuple(int(ACCENT[i : i + 2], 16) for i in (1, 3, 5))
    mixed = [round(a + (b - a) * share) for a, b in zip(_FROM, full, strict=True)]
    span = f'<span style="color:#{"".join(f"{c:02x}" for c in mixed)}">{text}</span>'
    return f"<b>{span}</b>" if peak else span


def _note(at: int, text: str, size: float, indent: int = 0) -> Spec:
    return {
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "xshift": indent,
        "y": at,
        "yanchor": "middle",
        "align": "left",
        "showarrow": False,
        "text": text,
        "font": {"size": size},
        "bgcolor": "rgba(0,0,0,0)",
    }


def _share(row: Row, example: Example) -> float:
    top = row["max_active"]
    share = example.activation / top if top == top and top > 0 else 0.5
    return min(max(share, 0.0), 1.0)


def _frame(rows: list[tuple[Row, Example]]) -> pd.DataFrame:
    return pd.DataFrame([
        {
            "feature": int(row["feature"]), "density": row["density"],
            "promotes": quoted(texts_in(row["up_tokens"]), 10), "concept": row["concept"],
            "auroc": row["auroc"], "quantile": example.quantile, "activation": example.activation,
            "text": in_words(example, 200, 200),
        }
        for row, example in rows
    ], columns=["feature", "density", "promotes", "concept", "auroc", "quantile", "activation", "text"])  # fmt: skip


@figure("sae-features", 500)
def _(data: RunData) -> FigureCard | None:
    return features_to_read(data)
