"""Runs as zip files: what was exported comes back equal; anything else is refused and leaves nothing behind."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from probes.errors import FathometerError, InputError, RunError
from probes.report.archive import delete_run, export_run, import_run
from probes.runs import RunView

GOOD = json.dumps(
    {
        "schema": 1,
        "analysis": "exit-layers",
        "options": {},
        "created": "2025-01-01",
        "status": "finished",
    }
)


def _zip(members: dict[str, str | bytes], links: tuple[str, ...] = ()) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o120777 if name in links else 0o100644) << 16
            archive.writestr(info, content)
    return held.getvalue()


def test_a_run_survives_the_round_trip(full_run: Path, tmp_path: Path) -> None:
    slug = import_run(tmp_path, export_run(full_run))
    before, after = RunView(full_run), RunView(tmp_path / slug)
    assert slug == full_run.name
    assert after.problem is None
    assert after.measurements.equals(before.measurements)
    assert after.decision == before.decision
    assert after.tables() == before.tables()
    assert (tmp_path / slug / "report.html").is_file()


def test_the_lock_of_a_writer_stays_at_home(full_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "x"
    shutil.copytree(full_run, copy)
    (copy / "LOCK").write_text("1\n")
    data = export_run(copy)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert "x/LOCK" not in archive.namelist()
        assert "x/run.json" in archive.namelist()
    import_run(tmp_path / "a", _zip({"x/run.json": GOOD, "x/LOCK": "1\n"}))  # zipped by hand
    assert not (tmp_path / "a" / "x" / "LOCK").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_flipped_byte_is_one_clear_refusal(tmp_path: Path, method: int) -> None:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", method) as archive:
        archive.writestr("x/run.json", GOOD)
    data = held.getvalue()
    body = range(len("x/run.json") + 30, data.index(b"PK\x01\x02"))
    refused = padding = 0
    for at in body:
        damaged = bytearray(data)
        damaged[at] ^= 0xFF
        try:
            import_run(tmp_path, bytes(damaged))
        except InputError as error:
            refused += "no zip that can be read" in str(error)
            assert not list(tmp_path.iterdir())
        else:  # bits of padding, that say nothing
            assert (tmp_path / "x" / "run.json").read_text() == GOOD
            shutil.rmtree(tmp_path / "x")
            padding += 1
    assert refused == len(body) - padding > 50


def test_a_run_deleted_by_somebody_else_meanwhile(
    synthetic: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic.make_run(tmp_path, "a", parts=())
    real = tempfile.mkdtemp

    def quicker(**given: Any) -> str:
        shutil.rmtree(tmp_path / "a")
        return real(**given)

    monkeypatch.setattr(tempfile, "mkdtemp", quicker)
    with pytest.raises(RunError, match="somebody else"):
        delete_run(tmp_path, "a")
    assert not list(tmp_path.iterdir())


def test_a_strangers_page_is_made_anew(full_run: Path, tmp_path: Path) -> None:
    data = _zip({"x/run.json": GOOD, "x/report.html": "<script>alert(1)</script>"})
    import_run(tmp_path, data)
    assert b"alert(1)" not in (tmp_path / "x" / "report.html").read_bytes()


@pytest.mark.parametrize("members", [
    {"../x/run.json": GOOD},
    {"/x/run.json": GOOD},
    {"x/../../y/run.json": GOOD},
    {"x/run.json": GOOD, "x/../evil.txt": "a"},
    {"x/run.json": GOOD, "x/evil.py": "a"},
    {"x/run.json": GOOD, "x/tables/../run.json": "a"},
    {"x/run.json": GOOD, "x/tables/a/b.parquet": "a"},
    {"x/run.json": GOOD, "y/log.txt": "a"},
    {"x\\run.json": GOOD},
    {"run.json": GOOD},
    {".hidden/run.json": GOOD},
    {"ü/run.json": GOOD},
    {"x" * 80 + "/run.json": GOOD},
    {"x/log.txt": "no run here"},
    {"x/run.json": "{"},
    {"x/run.json": json.dumps({"schema": 99})},
    {},
])  # fmt: skip
def test_strange_zips_are_refused(tmp_path: Path, members: dict[str, str | bytes]) -> None:
    with pytest.raises(InputError):
        import_run(tmp_path / "runs", _zip(members))
    assert not [p for p in tmp_path.rglob("*") if p.name != "runs"]


def test_links_are_refused(tmp_path: Path) -> None:
    data = _zip({"x/run.json": GOOD, "x/log.txt": "/etc/passwd"}, links=("x/log.txt",))
    with pytest.raises(InputError, match="link"):
        import_run(tmp_path, data)


def test_a_taken_name_is_not_overwritten(synthetic: Any, tmp_path: Path) -> None:
    path = synthetic.make_run(tmp_path, "x", parts=())
    before = (path / "run.json").read_bytes()
    with pytest.raises(InputError, match="already there"):
        import_run(tmp_path, _zip({"x/run.json": GOOD}))
    assert (path / "run.json").read_bytes() == before


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probes.report.archive.LIMIT_BYTES", 10_000)
    with pytest.raises(InputError, match="larger"):
        import_run(tmp_path, _zip({"x/run.json": GOOD, "x/log.txt": b"0" * 20_000}))
    assert not list(tmp_path.iterdir())


def test_a_lying_directory_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(_zip({"x/run.json": GOOD, "x/log.txt": b"0" * 20_000}))
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (10).to_bytes(4, "little")
    monkeypatch.setattr("probes.report.archive.LIMIT_BYTES", 10_000)
    with pytest.raises(FathometerError):
        import_run(tmp_path, bytes(data))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x03\x04" + b"\0" * 40])
def test_no_zip_at_all(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError, match="no zip"):
        import_run(tmp_path, data)


def test_delete_removes_exactly_one_run(synthetic: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        synthetic.make_run(tmp_path, name, parts=())
    delete_run(tmp_path, "a")
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("name", ["..", ".", "", "../b", "/", "b/tables", "missing", "b\0"])
def test_delete_takes_names_from_the_listing_only(
    synthetic: Any, tmp_path: Path, name: str
) -> None:
    parent = tmp_path / "runs"
    synthetic.make_run(parent, "b", parts=())
    with pytest.raises(RunError):
        delete_run(parent, name)
    assert (parent / "b" / "run.json").is_file()


def test_delete_does_not_follow_links(synthetic: Any, tmp_path: Path) -> None:
    target = synthetic.make_run(tmp_path / "elsewhere", "real", parts=())
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "linked").symlink_to(target)
    with pytest.raises(RunError):
        delete_run(runs, "linked")
    assert (target / "run.json").is_file()
