"""Examples of a concept: which ones the full depth reads rightly and an earlier layer does not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import streamlit as st

from panels.state import Shown, Stamp
from panels.words import tag
from probes.report.frames import column
from probes.report.study import Concept, Study
from probes.report.text import clean, count
from probes.runs.layout import TABLES

LIMIT = 500  # rows shown at once
_LATE, _LOST, _NEVER, _ALL = "right only later", "right only earlier", "never right", "all"
_KINDS = (_LATE, _LOST, _NEVER, _ALL)


@dataclass(frozen=True)
class Predicted:
    """One concept's examples and, layer by layer, whether the probe was right: `right` is (layer, example)."""

    examples: pd.DataFrame  # example, text, label
    layers: list[int]
    right: np.ndarray


def predicted(run: Shown, concept: str) -> Predicted | None:
    """The examples of a concept joined with their predictions; None where the run holds none that fit."""
    return _predicted(str(run.view.path), run.stamp, concept)


@st.cache_resource(max_entries=32, show_spinner=False)
def _predicted(path: str, stamp: Stamp, concept: str) -> Predicted | None:
    folder = Path(path) / TABLES
    try:
        texts = _rows(folder / "examples.parquet", ["example", "text", "label"], concept)
        made = _rows(folder / "predictions.parquet", ["layer", "example", "correct"], concept)
        texts = texts.drop_duplicates("example").set_index("example")
        wide = made.drop_duplicates(["layer", "example"]).pivot(
            index="layer", columns="example", values="correct"
        )
        wide = wide.loc[:, wide.columns.isin(texts.index)].dropna().sort_index()
        layers = [int(layer) for layer in wide.index]
        right = wide.to_numpy(dtype=bool)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None
    if right.size == 0 or len(layers) < 2:
        return None
    return Predicted(texts.loc[wide.columns].reset_index(), layers, right)


def _rows(path: Path, columns: list[str], concept: str) -> pd.DataFrame:
    """The rows of one concept, read without the others."""
    where = [("concept", "==", concept)]
    return pq.read_table(
        path, columns=columns, filters=where, page_checksum_verification=True
    ).to_pandas()


def examples_of(run: Shown, study: Study, concept: Concept, layer: int | None, name: str) -> None:
    """The table of examples, and what can be asked of it; `name` of the run where two are shown."""
    held = predicted(run, concept.name)
    with st.container(border=True):
        if name:
            st.caption(tag(name))
        if held is None:
            st.caption("No examples with predictions were kept for this concept (yet).")
            return
        early = _layer_shown(held, study, concept, layer)
        last = held.layers[-1]
        kind = st.segmented_control(
            "Examples",
            _KINDS,
            key=f"examples-{run.slug}",
            default=_LATE,
            required=True,
            format_func=lambda kind: _words(kind, early, last),
        )
        keep = _kept(held, kind or _LATE, early)
        table = run.data.once(
            ("examples", concept.name, kind, early), lambda: _table(held, keep, early)
        )
        st.text(_said(held, keep, early, len(table)))
        if not table.empty:
            st.dataframe(
                table,
                hide_index=True,
                height=min(420, 38 + 35 * len(table)),
                column_config={
                    "text": st.column_config.TextColumn("text", width="large"),
                    "layers right": st.column_config.ProgressColumn(
                        "layers right", min_value=0, max_value=100, format="%d %%"
                    ),
                },
                key=f"examples-table-{run.slug}",
                alt=f"Table of {len(table)} examples",
            )


def early_layer(held: Predicted, study: Study, concept: Concept) -> int:
    """Where the difference is worth a look: the last layer before the curve has risen half way, else half depth."""
    curve = study.curve(concept)
    layers, values = column(curve, "layer"), column(curve, "value")
    low = concept.chance if concept.chance is not None else float(values.min(initial=np.inf))
    risen = layers[values >= (low + float(values.max(initial=-np.inf))) / 2]
    wanted = held.layers[-1] // 2 if len(risen) == 0 else int(risen[0]) - 1
    return min(max(wanted, held.layers[0]), held.layers[-2])


def _layer_shown(held: Predicted, study: Study, concept: Concept, layer: int | None) -> int:
    wanted = early_layer(held, study, concept) if layer is None else layer
    return min(held.layers, key=lambda known: abs(known - wanted))


def _words(kind: str, early: int, last: int) -> str:
    return {
        _LATE: f"Wrong at layer {early}, right at {last}",
        _LOST: f"Right at layer {early}, wrong at {last}",
        _NEVER: "Never right",
        _ALL: "All",
    }[kind]


def _kept(held: Predicted, kind: str, early: int) -> np.ndarray:
    """Which examples are of a kind, (example,)."""
    at, full = held.right[held.layers.index(early)], held.right[-1]
    return {
        _LATE: full & ~at,
        _LOST: at & ~full,
        _NEVER: ~held.right.any(axis=0),
        _ALL: np.ones(len(full), dtype=bool),
    }[kind]


def _table(held: Predicted, keep: np.ndarray, early: int) -> pd.DataFrame:
    """The first rows that are kept, those that are learnt last on top."""
    right = held.right[:, keep]
    settled = _right_from(held, right)
    texts = held.examples[keep].reset_index(drop=True)
    table = pd.DataFrame(
        {
            "text": [clean(text, 1000) for text in texts["text"]],
            "label": [clean(label, 60) for label in texts["label"]],
            "right from layer": settled,
            "layers right": 100 * right.mean(axis=0),
            f"at {early}": right[held.layers.index(early)],
            f"at {held.layers[-1]}": right[-1],
            "example": list(texts["example"]),
        }
    )
    table = table.sort_values(["layers right", "example"], kind="stable").head(LIMIT)
    return table.astype({"right from layer": "Int64"})


def _right_from(held: Predicted, right: np.ndarray) -> list[int | None]:
    """The layer from which on an example is right up to the last; None where the last is wrong."""
    ends = right[::-1].cumprod(axis=0).sum(axis=0)  # right layers at the end
    return [held.layers[len(held.layers) - int(n)] if n else None for n in ends]


def _said(held: Predicted, keep: np.ndarray, early: int, shown: int) -> str:
    first = f"{count(keep.sum())} of {count(len(keep))} examples"
    cut = "" if shown == keep.sum() else f"; showing the {count(shown)} that are right least often"
    at = held.right[held.layers.index(early)].mean()
    return (
        f"{first}{cut}. The probe is right on {100 * at:.0f} % of them all at layer {early} and on "
        f"{100 * held.right[-1].mean():.0f} % at layer {held.layers[-1]}."
    )
