"""The hard end of a connection: an ssh that does not end by SIGTERM is killed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from viacheck.fleet.inventory import FleetHost
from viacheck.fleet.remote_host import HostNotJudged, RemoteProgram, SSHConnections, judge

HOST = FleetHost(name="a", address="a")


@pytest.fixture(autouse=True)
def stubborn_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an ssh first on PATH that ignores SIGTERM."""
    program = tmp_path / "ssh"
    program.write_text("#!/bin/sh\ntrap '' TERM\necho viacheck-fleet have\nexec sleep 1000\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def test_the_time_limit_ends_any_ssh() -> None:
    program = RemoteProgram(packed=b"", digest="", seconds=0.2)
    with pytest.raises(HostNotJudged, match=r"no result within 0\.2 s"):
        judge(HOST, "", program, SSHConnections())


def test_a_signal_ends_any_ssh() -> None:
    connections = SSHConnections()
    threading.Timer(0.2, connections.stop).start()
    with pytest.raises(HostNotJudged, match="interrupted while this host was judged"):
        judge(HOST, "", RemoteProgram(packed=b"", digest=""), connections)
