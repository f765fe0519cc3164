"""The hard end of a connection: an ssh that does not end by SIGTERM is killed, and no other is started."""

from __future__ import annotations

import threading
import tomllib
from pathlib import Path

import pytest

from reports.fleet_report import summarise
from tests.helpers.hand_made import SITE
from viacheck.fleet.fleet_run import FleetRun, HostDone
from viacheck.fleet.inventory import FleetHost
from viacheck.fleet.remote_host import HostNotJudged, RemoteProgram, SSHConnections, judge
from viacheck.fleet.site_files import HostSite
from viacheck.model.site_agents import parse_agents

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


def test_a_host_that_was_not_reached_has_a_row_and_no_file(tmp_path: Path) -> None:
    """With thousands of them, the end of an interrupted run would wait for the disk."""
    connections, done = SSHConnections(), list[HostDone]()
    connections.stop()
    program = RemoteProgram(packed=b"", digest="")
    fleet = FleetRun(
        tmp_path / "report", {"a": HostSite(SITE, parse_agents(tomllib.loads(SITE), source=""))},
        lambda host, site, _folder: judge(host, site, program, connections), connections, done.append,
    )  # fmt: skip
    assert fleet.run([HOST], 1) is None
    assert done == []
    assert not (tmp_path / "report").exists()
    (row,) = summarise(tmp_path, known=fleet.hosts)
    assert (row.name, row.verdict, row.sentence) == ("a", "not-run", "Interrupted before this host was reached.")
