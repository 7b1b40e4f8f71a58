"""Examples of one feature, read without those of the others; and the text in which a search looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import streamlit as st

from panels.state import Shown, Stamp
from probes.report.collapse_study import Schema, read_schema
from probes.report.data import RunData
from probes.report.sae_examples import Example, examples_in
from probes.report.sae_search import SearchIndex
from probes.report.sae_tables import TABLES as SCHEMAS
from probes.report.sae_tables import SaeFocus, features_of
from probes.runs.layout import TABLES

_NAME = "sae_examples"


def examples_of(run: Shown, sae: str, feature: int) -> dict[str, list[Example]]:
    """Examples of a feature by quantile; none where the run kept none that can be read."""
    return _examples(str(run.view.path), run.stamp, sae, feature)


@st.cache_resource(max_entries=256, show_spinner=False)
def _examples(path: str, stamp: Stamp, sae: str, feature: int) -> dict[str, list[Example]]:
    return examples_in(_rows(path, [("sae", "==", sae), ("feature", "==", feature)]))


def search_index(run: Shown, sae: str) -> SearchIndex:
    """What a search looks through: promoted tokens, concepts and the strongest examples of every feature."""
    return _index(str(run.view.path), run.stamp, sae, run.data)


@st.cache_resource(max_entries=8, show_spinner="Reading the examples")
def _index(path: str, stamp: Stamp, sae: str, _data: RunData) -> SearchIndex:
    strongest = _rows(path, [("sae", "==", sae), ("quantile", "==", "top")])
    return SearchIndex.of(features_of(_data, SaeFocus(sae)), strongest)


def _rows(path: str, where: list[tuple[str, str, Any]]) -> pd.DataFrame | None:
    """The rows of the table of examples for which `where` holds; None where it is absent or damaged."""
    schema: Schema = SCHEMAS[_NAME]
    try:
        frame = pq.read_table(
            Path(path) / TABLES / f"{_NAME}.parquet", filters=where, page_checksum_verification=True
        ).to_pandas()
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None
    held = RunData(pd.DataFrame(), table_names=(_NAME,), read_table=lambda _: frame)
    return read_schema(held, _NAME, schema)
