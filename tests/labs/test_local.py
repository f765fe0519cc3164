"""A live host, judged from inside by ``--local``: the verdicts are those of a lab, and nothing is changed by it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_lab.docker_engine.requirements import missing_requirement
from netns_lab.lab import Lab
from netns_lab.lab_specs import LabSpec
from netns_lab.open_lab import open_lab
from tests.helpers.front_door import Finished, command, finished, viacheck
from tests.helpers.hand_made import (
    NOBODY,
    SITE,
    HandMadeHost,
    apply_the_guides_recipe,
    hand_made_host,
    nobodys_folder,
    write_site,
)
from viacheck.cli.docs import all_checks
from viacheck.model.check_evidence import CommandEvidence
from viacheck.model.result import CheckResult, RunResult
from viacheck.model.verdict import Verdict

NO_ENGINE = missing_requirement()
needs_engine = pytest.mark.skipif(NO_ENGINE is not None, reason=str(NO_ENGINE))
CONTAINER_SITE = SITE.replace('netns = "/run/netns/agent"', 'container = "te-agent"').replace(
    'bridge = "docker0"', 'network = "bridge"'
)
TWO_CONTAINERS_SITE = (
    CONTAINER_SITE.replace("[agent", "[agents.mobile").replace("[egress]", "[agents.mobile.egress]")
    + """
[agents.home]
container = "te-home"
attach = {mode = "nat", network = "home"}
egress = {uplink = "eth0", persist = "none", survives = []}
"""
)
SILENT_TARGET_SITE = SITE.replace("198.51.100.1", "203.0.113.77").replace("400ms", "1s")


DISRUPTIVE = {check.id for check in all_checks() if check.needs == "disruptive"}


@pytest.fixture(scope="module")
def host() -> Iterator[HandMadeHost]:
    with hand_made_host() as made:
        apply_the_guides_recipe(made)
        yield made


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_site(tmp_path)


def told(outcome: RunResult) -> dict[tuple[str, str | None], tuple[Verdict, str | None]]:
    """Verdict and code by check and case, of the checks that change nothing: those alone run on any host."""
    return {
        (r.check, r.case): (r.verdict, r.diagnosis.code if r.diagnosis else None)
        for r in outcome.results
        if r.check not in DISRUPTIVE
    }


def only(outcome: RunResult, check: str) -> CheckResult:
    (result,) = (result for result in outcome.results if result.check == check)
    return result


def test_the_verdicts_are_those_of_the_lab(host: HandMadeHost, site: Path, tmp_path: Path) -> None:
    live = host.viacheck(site=site, report_dir=tmp_path / "live")
    lab = viacheck("--lab", "policy-routing", report_dir=tmp_path / "lab")
    assert live.exit_code == lab.exit_code == 0, live.said
    assert told(live.outcome) == told(lab.outcome)
    (target,) = live.outcome.targets
    assert (target.id, target.kind, target.flavour, target.verdict) == ("local:by-hand", "local", None, "pass")
    assert "The agent's packets leave by wlan0: proven by 9 of 9 probes, none elsewhere" in " ".join(
        live.stdout.split()
    )


def test_without_the_rule_it_fails_as_the_lab_does(host: HandMadeHost, site: Path, tmp_path: Path) -> None:
    host.ip("rule del from 172.17.0.0/16")
    try:
        live = host.viacheck(site=site, report_dir=tmp_path / "live")
    finally:
        host.ip("rule add from 172.17.0.0/16 lookup wlan0rt")
    lab = viacheck("--lab", "policy-routing+rule-missing", report_dir=tmp_path / "lab")
    assert live.exit_code == lab.exit_code == 1, live.said
    assert told(live.outcome) == told(lab.outcome)
    rule = only(live.outcome, "ROUTE-02")
    assert rule.diagnosis is not None
    assert rule.diagnosis.code == "RULE_MISSING"
    assert f"       {rule.diagnosis.remedy[0]}\n" in live.stdout


def test_the_remedy_mends_it_and_its_undo_brings_the_failure_back(
    host: HandMadeHost, site: Path, tmp_path: Path
) -> None:
    host.ip("rule del from 172.17.0.0/16")
    try:
        broken = only(host.viacheck(site=site, report_dir=tmp_path / "broken").outcome, "ROUTE-02").diagnosis
        assert broken is not None
        host.run("sh", "-c", "\n".join(broken.remedy))
        assert host.viacheck(site=site, report_dir=tmp_path / "mended").exit_code == 0
        host.run("sh", "-c", "\n".join(broken.undo))
        assert host.viacheck(site=site, report_dir=tmp_path / "undone").exit_code == 1
    finally:
        host.ip("rule add from 172.17.0.0/16 lookup wlan0rt")


def test_it_changes_nothing_and_says_so(host: HandMadeHost, site: Path, tmp_path: Path) -> None:
    def state() -> list[str]:
        words = ("link", "address", "rule", "route show table all", "-n agent route", "-6 route show table all")
        return [host.ip(one) for one in words]

    before = state()
    done = host.viacheck(site=site, report_dir=tmp_path / "report")
    assert state() == before
    assert done.outcome.targets[0].notes == ["nothing on this host was changed"]


@pytest.mark.parametrize("more", [(), ("-q",), ("-n", "2"), ("--no-header",)], ids=" ".join)
def test_it_says_beforehand_what_it_sends(
    host: HandMadeHost, site: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    said = host.viacheck(*more, site=site, report_dir=tmp_path / "report").stdout
    announced, _first_target, _rest = said.partition("by-hand  ")
    assert f"viacheck judges this host for site 'by-hand' ({site}); it changes nothing, and sends:\n" in announced
    assert "to 198.51.100.1: 3 each of ICMP, UDP port 33434, TCP port 33434\n" in announced
    assert "1 to 3 ARP requests each for 10.10.40.1 on eth0, 10.10.50.1 on wlan0" in announced


def test_a_change_during_the_run_is_told(host: HandMadeHost, tmp_path: Path) -> None:
    # Nobody answers at this site's probe target, so that the run waits long enough for somebody to interfere.
    site = write_site(tmp_path, SILENT_TARGET_SITE)
    argv = host.inside(*command("-v", "--local", "--site", str(site), "--report-dir", str(tmp_path / "report")))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("HOST-02"):
                host.ip("route add 203.0.113.128/25 via 10.10.40.1")
                break
        said = process.stdout.read()
    host.ip("route del 203.0.113.128/25")
    (target,) = Finished(process.returncode, said, "", tmp_path / "report").outcome.targets
    change = "the state changed during the run: + host route: 203.0.113.128/25 via 10.10.40.1 dev eth0"
    assert target.alerts[0].startswith(change), said
    assert (target.verdict, process.returncode) == ("inconclusive", 1)
    assert f"  {change}"[2:] in said.partition("INCONCLUSIVE  ")[2].replace("The state", "the state")


def test_a_silent_probe_target_proves_the_way_and_leaves_the_answers_open(host: HandMadeHost, tmp_path: Path) -> None:
    site = write_site(tmp_path, SILENT_TARGET_SITE)
    done = host.viacheck(site=site, report_dir=tmp_path / "report")
    assert done.exit_code == 1
    verdicts = told(done.outcome)
    assert {verdicts["EGRESS-01", protocol][0] for protocol in ("icmp", "udp", "tcp")} == {Verdict.PASS}
    assert {verdicts["EGRESS-03", protocol][0] for protocol in ("icmp", "udp", "tcp")} == {Verdict.INCONCLUSIVE}
    assert "name a host that does (probe.target)" in " ".join(done.stdout.split())


def test_a_silent_resolver_is_waited_for_beside_a_silent_gateway(host: HandMadeHost, tmp_path: Path) -> None:
    resolvers = host.run("cat", "/run/resolv.conf")
    host.run("sh", "-c", "echo nameserver 203.0.113.53 >/run/resolv.conf")
    host.ip("netns exec gw1 sysctl -q -w net.ipv4.icmp_echo_ignore_all=1")
    try:
        site = write_site(tmp_path, SITE.replace("400ms", "2s"))
        outcome = host.viacheck(site=site, report_dir=tmp_path / "report").outcome
    finally:
        host.ip("netns exec gw1 sysctl -q -w net.ipv4.icmp_echo_ignore_all=0")
        host.run("sh", "-c", f"echo '{resolvers.strip()}' >/run/resolv.conf")
    pings, queries = only(outcome, "ROUTE-06"), only(outcome, "EGRESS-05")
    assert (pings.verdict.decided, queries.verdict) == (True, Verdict.PASS)
    assert pings.seconds >= 2 > queries.seconds, "the queries were under way while the pings were waited for"


def test_what_begins_early_is_what_selected_checks_need(host: HandMadeHost, site: Path, tmp_path: Path) -> None:
    host.viacheck("-k", "HOST-03 or EGRESS-05", site=site, report_dir=tmp_path / "report")
    captures = (tmp_path / "report" / "captures").iterdir()
    assert [capture.name for capture in captures] == ["local-by-hand-dns.pcapng"]


def test_without_root_what_can_be_judged_is_and_the_rest_names_what_it_needs(host: HandMadeHost) -> None:
    with nobodys_folder() as folder:
        done = host.viacheck(site=write_site(folder), report_dir=folder / "report", by=NOBODY)
        outcome = done.outcome
    assert done.exit_code == 0, done.said
    verdicts = {check: verdict for (check, _case), (verdict, _code) in told(outcome).items()}
    judged = {check for check, verdict in verdicts.items() if verdict.decided}
    assert judged == {
        "HOST-02", "HOST-05", "HOST-06", "NAT-01", "ROUTE-01", "ROUTE-02", "ROUTE-03", "ROUTE-04", "ROUTE-07",
    }  # fmt: skip
    left_out = [result for result in outcome.results if result.verdict is Verdict.NOT_RUN]
    reasons = {result.observed for result in left_out if result.check not in DISRUPTIVE}
    assert reasons == {"needs CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN: run as root"}
    assert "it changes nothing, and sends nothing: probes and captures need CAP_NET_ADMIN" in done.stdout


def test_without_root_a_missing_rule_is_still_found(host: HandMadeHost) -> None:
    host.ip("rule del from 172.17.0.0/16")
    try:
        with nobodys_folder() as folder:
            done = host.viacheck(site=write_site(folder), report_dir=folder / "report", by=NOBODY)
            verdicts = told(done.outcome)
    finally:
        host.ip("rule add from 172.17.0.0/16 lookup wlan0rt")
    assert done.exit_code == 1
    assert verdicts["ROUTE-02", None] == (Verdict.FAIL, "RULE_MISSING")


def test_without_iproute2_nothing_is_decided_and_the_reason_is_told_once(
    host: HandMadeHost, site: Path, tmp_path: Path
) -> None:
    # BusyBox's ip knows no JSON.
    (tmp_path / "ip").write_text("#!/bin/sh\necho 'ip: invalid option -- N' >&2\nexit 1\n")
    (tmp_path / "ip").chmod(0o755)
    path = f"PATH={tmp_path}:{os.environ['PATH']}"
    done = host.viacheck(site=site, report_dir=tmp_path / "report", by=("env", path))
    assert done.exit_code == 1
    assert not any(result.verdict.decided for result in done.outcome.results)
    _progress, _, summary = done.stdout.rpartition("\nINCONCLUSIVE")
    assert summary.count("could not be read") == 1, summary
    evidence = only(done.outcome, "ROUTE-02").evidence[0]
    assert isinstance(evidence, CommandEvidence)
    assert (evidence.command, evidence.exit_code, evidence.stderr) == (
        "ip -N -j -d link show", 1, "ip: invalid option -- N\n",
    )  # fmt: skip


@pytest.fixture(scope="module")
def engine_lab() -> Iterator[Lab]:
    with contextlib.closing(open_lab(LabSpec("policy-routing", "engine"))) as lab:
        yield lab


def judge_by_container(lab: Lab, text: str, folder: Path) -> Finished:
    """Judge an engine lab's host from inside the engine's namespaces, where its process numbers are true."""
    assert lab.engine is not None
    site = write_site(folder, text)
    inside = ["nsenter", "--target", str(lab.engine.pid), "--mount", "--pid", "--net"]
    argv = [*inside, *command("--local", "--site", str(site), "--report-dir", str(folder / "report"))]
    return finished(argv, folder / "report", env={"DOCKER_HOST": "unix:///run/docker.sock"})


@needs_engine
def test_an_agent_by_container_name(engine_lab: Lab, tmp_path: Path) -> None:
    done = judge_by_container(engine_lab, CONTAINER_SITE, tmp_path)
    assert done.exit_code == 0, done.said
    verdicts = told(done.outcome)
    for check in ("HOST-01", "HOST-07", "NAT-02"):
        assert verdicts[check, None] == (Verdict.PASS, None)
    assert {verdicts["EGRESS-01", protocol][0] for protocol in ("icmp", "udp", "tcp")} == {Verdict.PASS}
    assert "nothing on this host was changed" in done.outcome.targets[0].notes


@needs_engine
def test_two_containers_on_one_host(engine_lab: Lab, tmp_path: Path) -> None:
    """One is on Docker's own bridge and leaves by wlan0, the other on a network of its own by the default route."""
    assert engine_lab.engine is not None
    containers, networks = engine_lab.engine.containers, engine_lab.engine.networks
    networks.create_bridge("home", "172.18.0.0/16", bridge="br-home")
    containers.run("te-home", network="home")
    try:
        done = judge_by_container(engine_lab, TWO_CONTAINERS_SITE, tmp_path)
    finally:
        containers.remove("te-home")
        networks.remove("home")
    assert done.exit_code == 0, done.said
    assert [target.id for target in done.outcome.targets] == ["local:by-hand:mobile", "local:by-hand:home"]
    for target, uplink in (("local:by-hand:mobile", "wlan0"), ("local:by-hand:home", "eth0")):
        of_agent = [result for result in done.outcome.results if result.target == target]
        probes = [result.observed for result in of_agent if result.check == "EGRESS-01"]
        assert [text.startswith(f"3 of 3 left by {uplink}, none elsewhere") for text in probes] == [True] * 3, probes
        for check in ("HOST-01", "HOST-07", "NAT-02", "NAT-03"):
            assert {result.verdict for result in of_agent if result.check == check} == {Verdict.PASS}, check


@needs_engine
def test_a_container_that_does_not_exist_is_told_with_the_nearest_names(engine_lab: Lab, tmp_path: Path) -> None:
    done = judge_by_container(engine_lab, CONTAINER_SITE.replace("te-agent", "te-agnet"), tmp_path)
    assert done.exit_code == 1
    assert told(done.outcome)["HOST-07", None] == (Verdict.FAIL, "AGENT_NOT_RUNNING")
    assert "no container is called 'te-agnet'; there are: te-agent" in only(done.outcome, "HOST-07").observed
    assert {r.verdict for r in done.outcome.results if r.check == "EGRESS-01"} == {Verdict.NOT_RUN}


@needs_engine
def test_a_stopped_container_is_told(engine_lab: Lab, tmp_path: Path) -> None:
    assert engine_lab.engine is not None
    engine_lab.engine.containers.stop("te-agent")
    try:
        done = judge_by_container(engine_lab, CONTAINER_SITE, tmp_path)
    finally:
        engine_lab.engine.containers.start("te-agent")
    assert done.exit_code == 1
    result = only(done.outcome, "HOST-07")
    assert result.diagnosis is not None
    assert result.diagnosis.code == "AGENT_NOT_RUNNING"
    assert result.diagnosis.remedy == ["docker start te-agent"]
