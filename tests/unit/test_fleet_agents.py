"""A host of a fleet with several agents: each is a target of the host, and has a row on the page."""

from __future__ import annotations

import tomllib
from pathlib import Path

from reports.fleet_report import summarise
from reports.report_files import read_outcome
from viacheck.fleet.fleet_run import FleetRun, HostDone, result_path
from viacheck.fleet.inventory import FleetHost
from viacheck.fleet.remote_host import HostNotJudged, SSHConnections
from viacheck.fleet.site_files import HostSite
from viacheck.model.result import CheckResult, Run, RunResult, TargetRecord
from viacheck.model.site_agents import parse_agents
from viacheck.model.verdict import Verdict

SITE = """\
schema = 1
[site]
name = "berlin-7"
[agents.home]
container = "home"
attach = { mode = "nat", network = "bridge" }
egress = { uplink = "eth0" }
[agents.mobile]
container = "mobile"
attach = { mode = "nat", network = "bridge" }
egress = { uplink = "wlan0" }
[uplinks.eth0]
gateway = "10.10.40.1"
[uplinks.wlan0]
gateway = "10.10.50.1"
[probe]
target = "198.51.100.1"
"""
SITES = {"b7": HostSite(SITE, parse_agents(tomllib.loads(SITE), source="b7"))}
HOST = FleetHost(name="b7", address="b7", variables={})


def judged(_host: FleetHost, _site: str, _folder: Path) -> RunResult:
    """Return what a host answers: the second of its agents fails."""
    targets = [
        TargetRecord(id=f"local:berlin-7:{name}", kind="local", verdict=verdict, agent=name, intent=intent.as_json())
        for (name, intent), verdict in zip(SITES["b7"].intents.items(), ("pass", "fail"), strict=True)
    ]
    results = [
        CheckResult(
            check="HOST-02", target=target.id, title="", verdict=Verdict(target.verdict), expected="", observed=""
        )
        for target in targets
    ]
    return RunResult(run=Run(id="1", started="", finished="", command=""), targets=targets, results=results)


def not_judged(_host: FleetHost, _site: str, _folder: Path) -> RunResult:
    raise HostNotJudged("its Python is too old")


def test_each_agent_of_a_host_is_a_target(tmp_path: Path) -> None:
    done = list[HostDone]()
    FleetRun(tmp_path, SITES, judged, SSHConnections(), done.append).run([HOST], 1)
    outcome = read_outcome(result_path(tmp_path, "b7"))
    assert [(target.id, target.kind) for target in outcome.targets] == [
        ("remote:b7:home", "remote"), ("remote:b7:mobile", "remote"),
    ]  # fmt: skip
    assert [result.target for result in outcome.results] == ["remote:b7:home", "remote:b7:mobile"]
    assert [(host.name, host.verdict) for host in done] == [("b7", "fail")]
    assert {(row.name, row.verdict) for row in summarise(tmp_path)} == {("b7: home", "pass"), ("b7: mobile", "fail")}


def test_a_host_that_is_not_judged_has_all_its_agents(tmp_path: Path) -> None:
    FleetRun(tmp_path, SITES, not_judged, SSHConnections(), list[HostDone]().append).run([HOST], 1)
    outcome = read_outcome(result_path(tmp_path, "b7"))
    assert [(target.id, target.agent) for target in outcome.targets] == [
        ("remote:b7:home", "home"), ("remote:b7:mobile", "mobile"),
    ]  # fmt: skip
    assert all(target.notes == ["its Python is too old"] for target in outcome.targets)
