"""The Runs page: the table, opening, deleting with confirmation, many runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest


def _button(at: AppTest, key: str) -> Any:
    return next(button for button in at.button if button.key == key)


def test_the_table_lists_good_and_bad_runs(synthetic: Any, runs: Path, runs_page: Any) -> None:
    synthetic.make_run(runs, "good")
    synthetic.make_run(runs, "bad", status="failed", parts=())
    synthetic.break_run(synthetic.make_run(runs, "ugly", parts=()))
    table = runs_page().dataframe[0].value
    assert dict(zip(table["run"], table["status"], strict=True)) == {
        "good": "finished", "bad": "failed", "ugly": "broken",
    }  # fmt: skip
    assert table.set_index("run").loc["bad", "note"].startswith("out of memory")
    assert (table["MB"] > 0).all()


def test_no_runs(runs: Path, runs_page: Any) -> None:
    at = runs_page()
    assert any("fathometer demo" in code.value for code in at.code)
    assert not at.dataframe


def test_the_current_run_is_the_one_to_act_on(synthetic: Any, runs: Path, runs_page: Any) -> None:
    synthetic.make_run(runs, "one")
    synthetic.make_run(runs, "two")
    at = runs_page(run="one")
    assert at.code[0].value == "one"
    at.selectbox(key="run").set_value("two").run()
    assert at.code[0].value == "two"


def test_delete_asks_first(synthetic: Any, runs: Path, runs_page: Any) -> None:
    synthetic.make_run(runs, "keep")
    synthetic.make_run(runs, "drop")
    at = runs_page(run="drop")
    _button(at, "delete").click().run()
    assert (runs / "drop").is_dir()
    _button(at, "keep_it").click().run()
    assert (runs / "drop").is_dir()
    assert not [button for button in at.button if button.key == "really"]
    _button(at, "delete").click().run()
    _button(at, "really").click().run()
    assert not at.exception
    assert not (runs / "drop").exists()
    assert (runs / "keep").is_dir()


def test_a_live_run_cannot_be_deleted(synthetic: Any, runs: Path, runs_page: Any) -> None:
    synthetic.make_run(runs, "live", status="running", parts=())
    at = runs_page(run="live")
    _button(at, "delete").click().run()
    assert "still running" in at.warning[0].value
    assert not [button for button in at.button if button.key == "really"]


def test_two_hundred_runs(synthetic: Any, runs: Path, runs_page: Any) -> None:
    synthetic.many_runs(runs, 200)
    at = runs_page()
    assert len(at.dataframe[0].value) == 200
    assert len(at.selectbox(key="run").options) == 200
    assert any(text.value.startswith("200 runs use") for text in at.text)


def test_odd_folder_names_are_harmless(synthetic: Any, runs: Path, runs_page: Any) -> None:
    synthetic.make_run(runs, "fine", parts=())
    for name in ("![x](http:evil)", "<b>", "umläut und leer", ".hidden"):
        (runs / name).mkdir()
    (runs / "a file").write_text("x")
    at = runs_page()
    assert set(at.dataframe[0].value["run"]) == {
        "fine",
        "![x](http:evil)",
        "<b>",
        "umläut und leer",
    }
