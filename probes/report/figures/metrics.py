"""Small multiples: every label-free measure that a run holds by layer, one panel each, by family."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probes.report.collapse_study import of_first
from probes.report.data import COST, QUALITY_ORDER, RunData
from probes.report.figures.card import (
    FigureCard,
    Marks,
    Spec,
    figure,
    listed,
)
from probes.report.figures.marks import chance_line, depth_lines, marked, styled_traces
from probes.report.figures.panels import Panel, Sheet, arranged, layer_axis
from probes.report.frames import column, names, only
from probes.report.sae_tables import MEASURES as SAE_MEASURES
from probes.report.text import clean, label, significant
from probes.report.theme import NEUTRAL, series_style

_WARNING = "These are diagnostics and choose nothing: over tasks and model sizes they are poor predictors of quality."
_OWN_FIGURES = ("collapse_slope", "collapse_onset_tokens", *SAE_MEASURES)
FAMILIES = {
    "Directions in use": (
        "effective_rank",
        "effective_rank_uncentred",
        "spectral_entropy_rank",
        "participation_ratio",
        "intrinsic_dimension",
        "top_share_1",
        "top_share_3",
        "top_share_10",
    ),
    "Spread and information": (
        "anisotropy",
        "isoscore",
        "uniformity",
        "centroid_distance",
        "dataset_entropy",
        "coding_rate",
    ),
    "Two views of a text": ("alignment", "infonce", "dime", "lidar"),
    "Tokens within a text": (
        "prompt_entropy",
        "prompt_entropy_without_first",
        "curvature",
        "smoothness",
        "dc_share",
    ),
}
_OTHER = "Other measures"
_FEW = 4  # panels that need no headings


def layer_metrics(data: RunData, marks: Marks | None = None) -> FigureCard | None:
    """Panels of label-free measures over layers; None without any. Of several datasets it shows the first."""
    skipped = {*COST, *QUALITY_ORDER, *_OWN_FIGURES, data.quality}
    tables = {
        name: table
        for name in by_family([m for m in data.by_measure if m not in skipped])
        if not (table := data.by_layer(name)).empty
    }
    if not tables:
        return None
    marks = marks or Marks.of(data)
    base, rows, alt, summaries = data.once("layer-metrics", lambda: _base(data, tables))
    return FigureCard(
        "layer-metrics",
        f"Label-free measures by layer{of_first(data)}",
        marked(base, shapes=depth_lines(marks, len(tables))),
        f"What each layer’s states look like without any labels. {summaries} {_WARNING}",
        alt,
        rows,
    )


def by_family(measures: list[str]) -> list[str]:
    """Measures with families together, each family in its own order, others last.

    >>> by_family(["zeta", "anisotropy", "effective_rank"])
    ['effective_rank', 'anisotropy', 'zeta']
    """
    known = [name for family in FAMILIES.values() for name in family]
    return [*(n for n in known if n in measures), *(n for n in measures if n not in known)]


def family_of(measure: str) -> str:
    """The family of a measure, “Other measures” where it has none."""
    return next((name for name, held in FAMILIES.items() if measure in held), _OTHER)


def _base(data: RunData, tables: dict[str, pd.DataFrame]) -> tuple[Spec, pd.DataFrame, str, str]:
    """The panels without the reader's marks, their table, what they show in words, and what the measures are."""
    found = {variant for table in tables.values() for variant in names(table, "variant")}
    series = sorted(found, key=lambda name: (name != "raw", name))
    last = int(max(column(table, "layer").max() for table in tables.values()))
    panels = [
        _panel(data, name, table, series, grouped=len(tables) > _FEW)
        for name, table in tables.items()
    ]
    height = 130 if len(tables) > _FEW else 170
    sheet = Sheet(layer_axis(last), {"nticks": 4}, columns=4, height=height, own_y=True)
    summaries = " ".join(_summary(data, name) for name in tables)
    trends = listed([_trend(data, name, table) for name, table in tables.items()])
    table = pd.concat([table.assign(measure=name) for name, table in tables.items()])
    alt = f"{len(tables)} panels over layers 0 to {last}: {trends}."
    return arranged(panels, sheet), table, alt, summaries


def _panel(
    data: RunData, name: str, table: pd.DataFrame, series: list[str], *, grouped: bool
) -> Panel:
    """One measure in all its variants, the trained one on top."""
    traces: list[Spec] = []
    for variant in reversed(series):
        style = _UNTRAINED if variant == "untrained" else series_style(variant, series)
        size = 6 if len(table) <= 28 else 3
        rows = only(table, variant=variant)
        traces += styled_traces(rows, _words(variant), style, size=size, width=2)
    title = label(_title(data, name, 30))
    group = family_of(name) if grouped else ""
    return Panel(
        title, traces, chance_line(data, name), group, axes={"y": {"range": _range(table)}}
    )


# Grey in all panels: the colour that it has in studies of concepts is that of the picked layer's upright.
_UNTRAINED = {"color": NEUTRAL, "dash": "dot", "symbol": "diamond"}
_WORDS = {"raw": "trained", "untrained": "untrained weights"}


def _words(variant: str) -> str:
    """A variant in the legend."""
    return _WORDS.get(variant, label(variant.replace("view=", "view: "), 30))


def _title(data: RunData, name: str, most: int) -> str:
    """A measure with its unit while there is room for it."""
    title = data.title(name)
    return title if len(title) <= most else clean(data.measure(name).get("title") or name, 60)


def _range(table: pd.DataFrame) -> list[float]:
    """Room for all values and their intervals."""
    held = np.concatenate([column(table, name) for name in ("value", "low", "high")])
    known = held[np.isfinite(held)]
    air = 0.06 * max(float(known.max() - known.min()), 1e-3 * float(np.abs(known).max()), 1e-9)
    return [float(known.min()) - air, float(known.max()) + air]


def _summary(data: RunData, name: str) -> str:
    entry = data.measure(name)
    return f"{clean(entry.get('title') or name, 80)}: {clean(entry.get('summary') or '', 300)}"


def _trend(data: RunData, name: str, table: pd.DataFrame) -> str:
    variants = set(names(table, "variant"))
    plain = "raw" if "raw" in variants else min(variants)  # never the control's line
    values = column(only(table, variant=plain), "value")
    return f"{data.title(name)} from {significant(values[0])} to {significant(values[-1])}"


@figure("layer-metrics", 50)
def _(data: RunData) -> FigureCard | None:
    return layer_metrics(data)
