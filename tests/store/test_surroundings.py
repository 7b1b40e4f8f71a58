"""Paths, time zone, locale and a clock that moves back change nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from probes.store import open_store

WRITER = Path(__file__).with_name("writer.py")
ROOT = WRITER.parents[2]


def _run(path, **variables):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        [sys.executable, str(WRITER), str(path)], env=environment, capture_output=True, check=False
    )


@pytest.mark.parametrize(
    "variables",
    [
        {"TZ": "Pacific/Kiritimati", "LC_ALL": "de_DE.UTF-8"},
        {"TZ": "America/Los_Angeles", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["de_DE", "not UTF-8"],
)
def test_time_zone_and_locale_do_not_count(tmp_path, writer, reference, variables):
    path = tmp_path / "Maße für Bär & Co" / "s"
    done = _run(path, **variables)
    assert done.returncode == 0, done.stderr.decode()
    assert writer.tree(path) == reference


@pytest.mark.parametrize(
    "name", ["mit Leerzeichen", "äöüß", "日本語", "a'b\"c", "x" * 200, "line\nbreak"]
)
def test_odd_folder_names(tmp_path, writer, reference, name):
    path = tmp_path / name / "s"
    writer.capture(path)
    assert writer.tree(path) == reference
    assert open_store(str(path)).verify(deep=True)


def test_a_relative_path_works_after_creation_elsewhere(tmp_path, writer, reference, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = writer.capture(Path("s"))
    monkeypatch.chdir("/")
    assert writer.lost_rows(store, writer.Job()) == 0


def test_a_moved_store_still_reads(tmp_path, writer):
    writer.capture(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert writer.lost_rows(writer.capture(tmp_path / "b"), writer.Job()) == 0


def test_a_clock_that_moved_back_does_not_count(tmp_path, writer, reference):
    job = writer.Job()
    path = tmp_path / "s"
    store = writer.Store.create(path, job.identity, job.plan)
    store.write_shard(0, job.tensors(0))
    for file in path.rglob("*"):
        os.utime(file, (4e9, 4e9))  # written "in the future"
    writer.capture(path, job)
    assert writer.tree(path) == reference


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP])
def test_a_file_system_without_hard_links(tmp_path, writer, reference, monkeypatch, code):
    def refuse(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    writer.capture(tmp_path / "s")
    assert writer.tree(tmp_path / "s") == reference


def test_importing_and_reading_needs_no_torch(tmp_path, writer):
    writer.capture(tmp_path / "s")
    code = (
        "import sys; from probes.store import open_store; "
        f"x = open_store({str(tmp_path / 's')!r})['exit', 0]; "
        "assert x.shape == (23, 3); assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
