"""The tables of embedding-collapse and layer-quality runs as figures, verdicts and pages ask for them.

Every table may be absent, half-written or damaged: what cannot be read is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd

from probes.report.data import RunData
from probes.report.frames import column, names, only, where
from probes.report.study import plain_table
from probes.report.text import clean, is_number

COLLAPSE, QUALITY = "embedding-collapse", "layer-quality"  # the analyses
CONTROL = "random-words"
_SPAN = ("low", "high", "n")
_GAIN = ("difference", "difference_low", "difference_high")
_LEFT = ("anisotropy", "collapse_slope")
_SCORE = (
    "quality", *_SPAN, *_GAIN, *_LEFT, *(f"{name}_{end}" for name in _LEFT for end in _GAIN),
)  # fmt: skip


@dataclass(frozen=True)
class Schema:
    """Columns of a table: `texts` and `needs` are there in every row that is kept, other `numbers` may be absent,
    and so may `blanks`, texts that are empty then."""

    texts: tuple[str, ...]
    needs: tuple[str, ...]
    numbers: tuple[str, ...] = ()
    blanks: tuple[str, ...] = ()


TABLES = {
    "length": Schema(("mode", "measure"), ("layer", "tokens", "value"), (*_SPAN, *_GAIN)),
    "temperature": Schema(("split", "measure"), ("tau", "layer", "quality"), _SCORE),
    "remedies": Schema(("remedy", "measure"), ("layer", "quality"), _SCORE),
    "chunking": Schema(
        ("method", "measure"),
        ("layer", "value"),
        (*_SPAN, "difference", "difference_low", "difference_high"),
    ),
    "bottleneck": Schema((), ("rank", "loss_bits"), (*_SPAN, *_GAIN)),
    "head_spectrum": Schema((), ("rank", "singular_value")),
    "mask": Schema(
        (),
        ("layer", "with_mask", "without"),
        (
            "with_low",
            "with_high",
            "without_low",
            "without_high",
            "ratio",
            "ratio_low",
            "ratio_high",
            "n",
        ),
    ),
    "index_size": Schema((), ("layer", "dim", "distractors", "k", "recall"), _SPAN),
    "index_breaks": Schema((), ("layer", "dim", "k"), ("distractors", "difference", *_SPAN)),
    "cka": Schema((), ("layer_a", "layer_b", "value")),
    "spectra": Schema((), ("layer", "rank", "singular_value"), ("share",)),
    "drops": Schema(
        ("measure",),
        ("first", "count", "quality", "share", "relative_cost"),
        ("influence", *_SPAN, "share_low", "share_high"),
    ),
    "applies": Schema(("part",), (), (), ("reason",)),
}


def held(data: RunData, name: str) -> pd.DataFrame | None:
    """A table of the run with plain numpy columns and a text `dataset` (empty where it names none); None if absent."""
    return data.once(("held", name), lambda: read_schema(data, name, TABLES[name]))


def read_schema(data: RunData, name: str, schema: Schema) -> pd.DataFrame | None:
    """A table with the columns of its schema as plain numpy columns; None where it or what it needs is absent."""
    frame = data.table(name)
    if frame is None:
        return None
    numbers = list(dict.fromkeys((*schema.needs, *schema.numbers)))
    gaps = {column: np.nan for column in schema.numbers if column not in frame.columns}
    full = frame.assign(**gaps)
    known = RunData(data.measurements, table_names=(name,), read_table=lambda _: full)
    plain = plain_table(known, name, schema.texts, numbers, needs=schema.needs)
    if plain is None:
        return None
    for text in ("dataset", *schema.blanks):
        plain[text] = texts_of(plain, text)
    return plain


def texts_of(frame: pd.DataFrame, name: str) -> list[str]:
    """A column as text, empty where it is absent or null."""
    if name not in frame.columns:
        return [""] * len(frame)
    return ["" if v is None or v is pd.NA or v != v else str(v) for v in list(frame[name])]


def of_dataset(frame: pd.DataFrame, dataset: str | None) -> pd.DataFrame:
    """The rows of a dataset; of the first where the table does not hold it."""
    found = list(dict.fromkeys(names(frame, "dataset")))
    if len(found) < 2:
        return frame
    return only(frame, dataset=dataset if dataset in found else found[0])


def datasets(data: RunData) -> list[str]:
    """Datasets between which a reader may choose: those of tables and measures that hold several."""
    return data.once("datasets", lambda: _datasets(data))


def _datasets(data: RunData) -> list[str]:
    groups: dict[str, dict[str, None]] = {}
    frame = data.measurements
    for measure, name in zip(names(frame, "measure"), texts_of(frame, "dataset"), strict=True):
        groups.setdefault(measure, {})[name] = None
    for table in TABLES:
        rows = held(data, table)
        groups[f"table {table}"] = dict.fromkeys([] if rows is None else names(rows, "dataset"))
    several = [[name for name in group if name] for group in groups.values()]
    return list(dict.fromkeys(name for group in several if len(group) > 1 for name in group))


def of_first(data: RunData) -> str:
    """What a title adds where a figure shows the first of several datasets."""
    found = [name for name in dict.fromkeys(texts_of(data.measurements, "dataset")) if name]
    return f", {clean(found[0], 30)}" if len(found) > 1 and is_quality(data) else ""


def with_dataset(data: RunData, dataset: str | None) -> RunData:
    """The run as if it had been made on this dataset only; the run itself where it holds no number of it."""
    if dataset is None:
        return data
    return data.once(("with dataset", dataset), lambda: _with_dataset(data, dataset))


def _with_dataset(data: RunData, dataset: str) -> RunData:
    held = texts_of(data.measurements, "dataset")
    if dataset not in held:
        return data
    keep = np.array([name in ("", dataset) for name in held], dtype=bool)
    return replace(data, measurements=where(data.measurements, keep).reset_index(drop=True))


def numbers_of(data: RunData, measure: str, by: str = "layer") -> pd.DataFrame:
    """A measure of the run by layer, block or nothing: columns dataset, variant, layer (or block), head, value, low,
    high, n."""
    return data.once(("numbers", measure, by), lambda: _numbers(data, measure, by))


def _numbers(data: RunData, measure: str, by: str) -> pd.DataFrame:
    rows = only(data.measurements, measure=measure)
    keep = rows["value"].notna()
    if by:
        keep &= rows[by].notna()
    rows = where(rows, keep.to_numpy(dtype=bool))
    plain = pd.DataFrame(
        {"dataset": texts_of(rows, "dataset"), "variant": texts_of(rows, "variant")}
    )
    for name in (*((by,) if by else ()), "head", "value", *_SPAN):
        plain[name] = column(rows, name)
    if by:
        plain[by] = plain[by].astype(int)
        plain = plain.sort_values(by, kind="stable", ignore_index=True)
    return plain


def last_layer(data: RunData, *frames: pd.DataFrame | None) -> int:
    """The last layer of the model; of the tables where the run does not say."""
    if data.n_layers is not None:
        return data.n_layers
    layers = [column(frame, "layer").max() for frame in frames if frame is not None and len(frame)]
    return int(max(layers, default=0))


def reasons(data: RunData) -> dict[str, str]:
    """Parts that do not apply to the model or its data, with the reason."""
    frame = held(data, "applies")
    if frame is None or "applies" not in frame.columns:
        return {}
    rows = zip(names(frame, "part"), list(frame["applies"]), names(frame, "reason"), strict=True)
    return {part: reason for part, applies, reason in rows if applies is not None and not applies}


def is_collapse(data: RunData) -> bool:
    """Whether the run is a study of collapse."""
    return data.info.get("analysis") == COLLAPSE


def is_quality(data: RunData) -> bool:
    """Whether the run is a study of layer quality."""
    return data.info.get("analysis") == QUALITY


def excludes_zero(low: Any, high: Any) -> bool:
    """Whether an interval is known and lies on one side of zero.

    >>> excludes_zero(0.1, 0.3), excludes_zero(-0.1, 0.3), excludes_zero(None, 1.0)
    (True, False, False)
    """
    return is_number(low) and is_number(high) and (float(low) > 0 or float(high) < 0)


def ordered(values: Sequence[str], first: Sequence[str]) -> list[str]:
    """Distinct values, those of `first` in its order, then the others as they come.

    >>> ordered(["b", "x", "a"], ["a", "b"])
    ['a', 'b', 'x']
    """
    found = list(dict.fromkeys(values))
    known = [name for name in first if name in found]
    return [*known, *(name for name in found if name not in known)]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries."""
    return cast("list[dict[str, Any]]", frame.to_dict("records"))
