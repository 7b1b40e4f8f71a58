"""Starting the dashboard: a Streamlit server on this machine only, which ends with the command."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from probes.errors import FathometerError, InputError
from probes.files import bundled

HOST = "127.0.0.1"
_START_SECONDS = 60.0
_STOP_SECONDS = 5.0


def launch(runs: Path, port: int | None) -> int:
    """Serve the dashboard on `runs` until SIGINT or SIGTERM; gives the exit code (130, 143, or the server's own).

    Binds 127.0.0.1 only, at a free port when none is given, and opens no browser. Raises `InputError` when the
    port is taken, `FathometerError` when the server does not come up.
    """
    if port is not None and not _is_free(port):
        raise InputError(f"port {port} is taken: choose another with --port, or leave it out")
    chosen = port or _free_port()
    stop = _StopSignal()
    server = subprocess.Popen(
        command(chosen), env=_environment(runs), start_new_session=True, stdin=subprocess.DEVNULL
    )
    try:
        _wait_until_up(server, chosen, stop)
        if stop.code is None:
            print(f"dashboard: http://{HOST}:{chosen}  (runs: {runs}; end with Ctrl-C)", flush=True)
        while stop.code is None and server.poll() is None:
            time.sleep(0.1)
    finally:
        _end(server)
        stop.restore()
    return stop.code if stop.code is not None else server.returncode


def command(port: int) -> list[str]:
    """The server's command line, with every setting of the dashboard's config.toml as a flag."""
    start = bundled("app") / "start"
    config = tomllib.loads((start / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    flags = [f"--{name}={value}" for name, value in settings(config)]
    script = str(start / "main.py")
    return [sys.executable, "-m", "streamlit", "run", script, *flags, f"--server.port={port}"]


def settings(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings as flag names and values; a list gives its flag several times.

    >>> list(settings({"server": {"headless": True, "allowedHosts": ["a", "b"]}}))
    [('server.headless', 'true'), ('server.allowedHosts', 'a'), ('server.allowedHosts', 'b')]
    """
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from settings(value, f"{name}.")
            continue
        for item in value if isinstance(value, list) else [value]:
            yield name, str(item).lower() if isinstance(item, bool) else str(item)


class _StopSignal:
    """Remembers SIGINT or SIGTERM as an exit code, instead of dying with the server left behind."""

    def __init__(self) -> None:
        self.code: int | None = None
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.code = 128 + number

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _environment(runs: Path) -> dict[str, str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STREAMLIT_")}
    environment["FATHOMETER_RUNS"] = str(runs.resolve())
    environment["PYTHONUNBUFFERED"] = "1"
    package_parent = str(Path(__file__).resolve().parents[2])  # a checkout that is not installed
    known = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (package_parent, known)))
    return environment


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _wait_until_up(server: subprocess.Popen[bytes], port: int, stop: _StopSignal) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot see us
    deadline = time.monotonic() + _START_SECONDS
    while stop.code is None:
        if server.poll() is not None:
            raise FathometerError(f"the dashboard did not start (exit code {server.returncode})")
        try:
            with opener.open(f"http://{HOST}:{port}/_stcore/health", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        if time.monotonic() > deadline:
            raise FathometerError(f"the dashboard did not answer within {_START_SECONDS:.0f} s")


def _end(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
