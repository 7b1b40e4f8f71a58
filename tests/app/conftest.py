"""A dashboard on synthetic runs: as a script under AppTest, and as a real server with a guarded browser."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import browsing_guard
import pytest
import synthetic_concepts
import synthetic_runs
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).parents[2]
MAIN = ROOT / "app" / "start" / "main.py"


@pytest.fixture(scope="session")
def synthetic() -> Any:
    return synthetic_runs


@pytest.fixture(scope="session")
def studies() -> Any:
    return synthetic_concepts


@pytest.fixture(scope="session")
def browsing() -> Any:
    return browsing_guard


@pytest.fixture(scope="module")
def chrome(browsing: Any) -> Iterator[Any]:
    with browsing.chromium() as browser:
        yield browser


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of runs that the dashboard reads."""
    folder = tmp_path / "runs"
    folder.mkdir()
    monkeypatch.setenv("FATHOMETER_RUNS", str(folder))
    return folder


Opener = Callable[..., AppTest]


@pytest.fixture
def overview(runs: Path) -> Opener:
    """Opens the Overview page, with query parameters where some are given; fails on any exception."""

    def open_page(**query: str) -> AppTest:
        at = AppTest.from_file(str(MAIN), default_timeout=120)
        for key, value in query.items():
            at.query_params[key] = value
        return checked(at.run())

    return open_page


@pytest.fixture
def runs_page(overview: Opener) -> Opener:
    """Opens the Runs page."""
    return lambda **query: checked(overview(**query).switch_page("../pages/runs.py").run())


@pytest.fixture
def concepts_page(overview: Opener) -> Opener:
    """Opens the Concepts page."""
    return lambda **query: checked(overview(**query).switch_page("../pages/concepts.py").run())


def checked(at: AppTest) -> AppTest:
    assert not at.exception, [e.message for e in at.exception]
    return at


@dataclass
class Server:
    """A running `fathometer dashboard`."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture(scope="session")
def serve() -> Callable[..., Any]:
    """Starts the launcher as its own process, with a private home."""

    @contextmanager
    def start(runs: Path, home: Path, extra: str = "") -> Iterator[Server]:
        code = (
            "import sys; from pathlib import Path; from probes.cli import dashboard\n"
            f"{extra}\nsys.exit(dashboard.launch(Path({str(runs)!r}), None))"
        )
        home.mkdir(parents=True, exist_ok=True)
        log = home / "server.log"
        environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                found = re.search(r"http://127\.0\.0\.1:\d+", line)
                assert found, f"no address in {line!r}: {log.read_text()}"
                yield Server(process, found.group(0), log)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait(30)

    return start
