"""Atomic replacement under injected faults, and safe names."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.errors import FathometerError, InputError
from probes.files import (
    bundled,
    canonical_json,
    make_dir,
    replace_file,
    safe_name,
    sha256_texts,
    write_json,
    write_text,
    writing,
)


def test_folders_of_the_project_are_found() -> None:
    assert (bundled("analyses") / "exit_layers.py").is_file()
    with pytest.raises(FathometerError, match="reinstall"):
        bundled("nothing")


@pytest.mark.parametrize("function", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_fault_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int
) -> None:
    path = tmp_path / "x.json"
    write_text(path, "old")

    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises((FathometerError, OSError)) as caught:
            write_text(path, "new", durable=True)
    assert isinstance(caught.value, FathometerError) == (number != errno.EIO)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    write_text(path, "new", durable=True)
    assert path.read_text() == "new"


def test_disk_full_says_how_much_was_needed(tmp_path: Path) -> None:
    def write(_handle: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(FathometerError, match="1,234 bytes were needed"):
        replace_file(tmp_path / "x", write, size=1234)


def test_nan_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=80))
def test_a_safe_name_stays_inside_its_folder(name: str) -> None:
    try:
        kept = safe_name(name)
    except InputError:
        return
    assert kept == name
    assert os.path.normpath(os.path.join("/parent", kept)) == f"/parent/{kept}"
    assert kept.isascii()


@given(st.lists(st.text(max_size=5), max_size=5), st.lists(st.text(max_size=5), max_size=5))
def test_hashes_of_texts_differ_when_the_texts_do(a: list[str], b: list[str]) -> None:
    assert (sha256_texts(a) == sha256_texts(b)) == (a == b)


def test_canonical_json_does_not_depend_on_order() -> None:
    assert canonical_json({"b": 1, "a": [1, 2]}) == canonical_json({"a": [1, 2], "b": 1})


def looping(tmp_path: Path) -> Path:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return tmp_path / "loop" / "a"


@pytest.mark.parametrize("place", ["long", "deep", "loop"])
def test_a_place_where_nothing_can_be_is_one_clear_line(tmp_path: Path, place: str) -> None:
    path = {
        "long": tmp_path / ("x" * 300),
        "deep": tmp_path.joinpath(*["y" * 200] * 30),
        "loop": looping(tmp_path),
    }[place]
    why = os.strerror(errno.ELOOP if place == "loop" else errno.ENAMETOOLONG)
    with pytest.raises(InputError, match=f"cannot be created: {why}: choose another folder") as c:
        make_dir(path)
    assert len(str(c.value)) < 300
    assert c.value.exit_code == 2


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc on this system")
def test_a_folder_that_takes_no_folders_is_one_clear_line() -> None:
    with pytest.raises(FathometerError, match="/proc/fathometer cannot be created"):
        make_dir(Path("/proc/fathometer"))


def test_a_missing_folder_is_named_when_a_file_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.json cannot be created: No such file"):
        write_text(tmp_path / "gone" / "x.json", "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be created: Not a directory"):
        write_text(tmp_path / "file" / "x.json", "a")


@pytest.mark.parametrize("where", [".", "elsewhere"])
def test_a_source_that_is_missing_is_not_taken_for_the_place(tmp_path: Path, where: str) -> None:
    with pytest.raises(FileNotFoundError, match="source"), writing(tmp_path / "goal"):
        (tmp_path / where / "source").read_text()
    with pytest.raises(FileNotFoundError, match="source"):
        replace_file(tmp_path / "goal", lambda _: (tmp_path / where / "source").read_text())
    assert list(tmp_path.iterdir()) == []
