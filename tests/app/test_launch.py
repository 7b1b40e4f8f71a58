"""The launcher: this machine only, every setting as a flag, and an end with its server."""

from __future__ import annotations

import os
import signal
import socket
import time
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from probes.cli import dashboard
from probes.errors import InputError


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def test_every_setting_travels_as_a_flag() -> None:
    command = dashboard.command(1234)
    for flag in (
        "--browser.gatherUsageStats=false",
        "--server.address=127.0.0.1",
        "--browser.serverAddress=127.0.0.1",
        "--server.allowedHosts=127.0.0.1",
        "--server.allowedHosts=localhost",
        "--server.headless=true",
        "--server.fileWatcherType=none",
        "--server.maxUploadSize=20",
        "--client.toolbarMode=viewer",
        "--client.showErrorDetails=type",
        "--client.showErrorLinks=false",
        "--runner.magicEnabled=false",
        "--server.port=1234",
    ):
        assert flag in command
    assert any(flag.startswith("--theme.dark.") for flag in command)
    config = tomllib.loads(
        (dashboard.bundled("app") / "start" / ".streamlit" / "config.toml").read_text()
    )
    assert (
        len([c for c in command if c.startswith("--")]) == len(list(dashboard.settings(config))) + 1
    )


def test_the_users_own_streamlit_settings_do_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STREAMLIT_SERVER_ADDRESS", "0.0.0.0")
    environment = dashboard._environment(tmp_path)
    assert "STREAMLIT_SERVER_ADDRESS" not in environment
    assert environment["FATHOMETER_RUNS"] == str(tmp_path)


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} is taken"):
            dashboard.launch(tmp_path, port)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_it_ends_with_its_server(serve: Any, tmp_path: Path, number: int, code: int) -> None:
    with serve(tmp_path / "runs ü", tmp_path / "home") as server:
        children = _children(server.process.pid)
        assert children
        assert server.end(number) == code
        deadline = time.monotonic() + 10
        while any(_alive(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(_alive(pid) for pid in children)
        assert "Traceback" not in server.log.read_text()


def test_only_this_machine_and_only_its_own_name(serve: Any, tmp_path: Path) -> None:
    with serve(tmp_path / "runs", tmp_path / "home") as server:
        port = int(server.url.rsplit(":", 1)[1])
        listening = Path("/proc/net/tcp").read_text() if Path("/proc/net/tcp").exists() else ""
        mine = [
            line.split()[1]
            for line in listening.splitlines()
            if f":{port:04X} 00000000:0000 0A" in line
        ]
        assert all(address.startswith("0100007F") for address in mine)
        for origin, host in (
            ("http://evil.example", f"127.0.0.1:{port}"),
            (server.url, "evil.example"),
        ):
            assert _handshake(port, origin, host) != 101, (origin, host)
        assert _handshake(port, server.url, f"127.0.0.1:{port}") == 101


def _handshake(port: int, origin: str, host: str) -> int:
    """Status of a WebSocket handshake."""
    request = (
        f"GET /_stcore/stream HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Protocol: streamlit\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
        wire.sendall(request.encode())
        return int(wire.recv(100).split()[1])


def test_health_answers(serve: Any, tmp_path: Path) -> None:
    with (
        serve(tmp_path / "runs", tmp_path / "home") as server,
        urllib.request.urlopen(f"{server.url}/_stcore/health") as answer,
    ):
        assert answer.status == 200
