"""The tidy table holds its schema."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.errors import DataError, InputError, NonFiniteError
from probes.registry import MEASURES
from probes.tables import COLUMNS, measures_json, read_table, tidy, typed, validate, write_table

ROWS = st.fixed_dictionaries(
    {"measure": st.sampled_from(sorted(MEASURES))},
    optional={
        "layer": st.integers(0, 99),
        "dim": st.integers(1, 4096),
        "variant": st.text(max_size=10),
        "value": st.floats(allow_nan=False, allow_infinity=False),
        "n": st.integers(0, 10**9),
    },
)


@settings(max_examples=40)
@given(rows=st.lists(ROWS, max_size=8))
def test_a_table_survives_the_disk(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict]
) -> None:
    frame = tidy(rows)
    path = tmp_path_factory.mktemp("t") / "x.parquet"
    write_table(path, frame)
    pd.testing.assert_frame_equal(validate(read_table(path)), frame)
    assert list(frame.columns) == list(COLUMNS)
    assert set(measures_json(frame)) == {row["measure"] for row in rows}


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ({"measure": "accuracy", "value": float("nan")}, NonFiniteError, "accuracy"),
        ({"measure": "accuracy", "high": float("inf")}, NonFiniteError, "high of measure"),
        ({"measure": "acuracy", "value": 1.0}, DataError, "not registered"),
        ({"measure": "accuracy", "layer": 1, "block": 0}, DataError, "never both"),
        ({"value": 1.0}, DataError, "without a measure"),
        ({"measure": "accuracy", "score": 1.0}, InputError, "unknown column 'score'"),
    ],
)
def test_what_is_not_tidy_is_refused(row: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tidy([row])


def test_missing_columns_are_named() -> None:
    with pytest.raises(DataError, match="missing columns"):
        validate(pd.DataFrame({"measure": ["accuracy"]}))


def test_a_missing_table_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        read_table(tmp_path / "no.parquet")


def test_no_table_of_a_run_takes_nan() -> None:
    kinds = {"integers": ["layer"], "words": ["part"], "truths": ["applies"]}
    with pytest.raises(NonFiniteError, match="'value'"):
        typed(pd.DataFrame({"value": [1.0, float("nan")]}), **kinds)
    frame = pd.DataFrame(
        {"layer": [1, None], "value": [1.0, None], "part": ["a", None]}, dtype=object
    )
    made = typed(frame, **kinds)
    assert made.dtypes.astype(str).to_dict() == {
        "layer": "Int64",
        "value": "Float64",
        "part": "string",
    }
    assert made.isna().sum().tolist() == [1, 1, 1]
