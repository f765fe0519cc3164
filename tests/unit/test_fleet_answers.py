"""A host of a fleet may answer anything: it is not judged, with the reason, and the other hosts have their report."""

from __future__ import annotations

import html
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.paths import RECORDED
from viacheck.cli.fleet import report_of
from viacheck.fleet.fleet_run import FleetRun, HostDone
from viacheck.fleet.inventory import FleetHost
from viacheck.fleet.remote_host import RemoteProgram, SSHConnections, judge
from viacheck.fleet.site_files import HostSite
from viacheck.model.exit_status import ExitStatus
from viacheck.model.result import RunResult
from viacheck.model.site_agents import parse_agents

GOOD: dict[str, Any] = json.loads((RECORDED / "result-rule-missing.json").read_text())
TARGET, RESULT = GOOD["targets"][0], GOOD["results"][0]
SITE = """\
schema = 1
[site]
name = "berlin-7"
[agent]
container = "te-agent"
[agent.attach]
mode = "nat"
network = "bridge"
[uplinks.eth0]
gateway = "10.10.40.1"
[uplinks.wlan0]
gateway = "10.10.50.1"
[egress]
uplink = "wlan0"
table = 200
"""
SNAPSHOT = TARGET["snapshot"]
ANSWERS: dict[str, tuple[Any, str]] = {
    "good": (GOOD, "The agent's packets leave by eth0 instead of wlan0"),
    "wrong-table": (
        {**GOOD, "targets": [{**TARGET, "snapshot": {**SNAPSHOT, "host": {"rules": [{"table": "1e5"}]}}}]},
        "targets.0.snapshot.host.rules.0.",
    ),
    "wrong-state": ({**GOOD, "targets": [{**TARGET, "snapshot": {**SNAPSHOT, "host": [1]}}]}, "targets.0.snapshot."),
    "wrong-intent": ({**GOOD, "targets": [{**TARGET, "intent": {"uplinks": 7}}]}, "targets.0.intent.uplinks: "),
    "wrong-target": ({**GOOD, "results": [{**RESULT, "target": "other"}]}, "whose targets and results do not belong"),
    "other-agents": (
        {**GOOD, "targets": [TARGET, {**TARGET, "id": "b", "agent": "b"}]},
        "the host sent a result of 2 targets, not of the 1 agent of its site file",
    ),
    "escapes": (
        {**GOOD, "targets": [{**TARGET, "notes": ["\x1b]0;x\x07\x9b2J"]}], "results": []}, "\u2039U+001B\u203a]0;x",
    ),
}  # fmt: skip
"""What hosts answer, by their name, and what is said of each."""
STREAMS = {
    "floods-stdout": ("cat /dev/zero", "the host sent more than 1 MiB"),
    "floods-the-answer": ("echo viacheck-fleet status 0; cat /dev/zero", "the host sent more than 1 MiB"),
    "floods-stderr": ("exec cat /dev/zero >&2", "the host printed more than 16 MiB on standard error"),
    "escapes-on-stderr": ("printf '\\033[2J bad\\n' >&2; exit 255", "\u2039U+001B\u203a[2J bad."),
    "hangs": ("sleep 1000", "no result within 2 s"),
}


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ``ssh`` that hands on what hostile hosts write: OpenSSH changes nothing of it."""
    (tmp_path / "answers").mkdir()
    for name, (answer, _said) in ANSWERS.items():
        (tmp_path / "answers" / name).write_text(json.dumps(answer))
    hosts = "".join(
        f"{name}) echo viacheck-fleet have; cat >/dev/null; {does};;\n" for name, (does, _) in STREAMS.items()
    )
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\ncase $2 in\n{hosts}'
        "*) echo viacheck-fleet have; cat >/dev/null; echo viacheck-fleet status 0\n"
        f"cat {tmp_path}/answers/$2;;\nesac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/sbin:/usr/bin:/sbin:/bin")
    return tmp_path


def test_hostile_answers_cost_their_own_host_its_verdict_and_no_other(
    ssh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [*ANSWERS, *STREAMS]
    sites = dict.fromkeys(names, HostSite(SITE, parse_agents(tomllib.loads(SITE), source="site")))
    connections = SSHConnections()

    def judged(host: FleetHost, site: str, _folder: Path) -> RunResult:
        seconds = 2.0 if host.name == "hangs" else 120.0
        return judge(host, site, RemoteProgram(packed=b"", digest="", seconds=seconds, largest=1 << 20), connections)

    fleet = FleetRun(ssh, sites, judged, connections, list[HostDone]().append)
    fleet.run([FleetHost(name=name, address=name) for name in names], 4)
    assert report_of(ssh, known=fleet.hosts) is ExitStatus.FAILED
    printed = capsys.readouterr()
    assert (printed.err, "\x1b" in printed.out) == ("", False)
    assert f"0 of {len(names)} hosts pass" in printed.out
    for name, (_does, said) in {**ANSWERS, **STREAMS}.items():
        page = (ssh / "hosts" / name / "report.html").read_text()
        assert "\x1b" not in page
        assert said in html.unescape(page), name
