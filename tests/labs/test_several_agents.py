"""Several agents on one host, in one site file: one run judges all of them, each by its own uplink.

The host is made by hand: the agent ``mobile`` behind docker0 leaves by wlan0 by the guide's recipe, the agent ``home``
behind a second bridge by the host's own default route, eth0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.front_door import Finished, by_check, sub_command, viacheck
from tests.helpers.hand_made import HandMadeHost, apply_the_guides_recipe, hand_made_host, write_site
from viacheck.model.result import Verdict

SEVERAL = """\
schema = 1
[site]
name = "by-hand"
[agents.mobile]
netns = "/run/netns/agent"
[agents.mobile.attach]
mode = "nat"
bridge = "docker0"
[agents.mobile.egress]
uplink = "wlan0"
table = 200
table_name = "wlan0rt"
persist = "none"
survives = []
[agents.home]
netns = "/run/netns/home"
[agents.home.attach]
mode = "nat"
bridge = "br1"
[agents.home.egress]
uplink = "eth0"
persist = "none"
survives = []
[uplinks.eth0]
gateway = "10.10.40.1"
[uplinks.wlan0]
gateway = "10.10.50.1"
[host]
default_exit = "eth0"
[probe]
target = "198.51.100.1"
timeout = "400ms"
"""
MOBILE, HOME = "local:by-hand:mobile", "local:by-hand:home"
OF_HOST = ("HOST-02", "HOST-03", "HOST-06", "EGRESS-04")


@pytest.fixture(scope="module")
def host() -> Iterator[HandMadeHost]:
    with hand_made_host() as made:
        apply_the_guides_recipe(made)
        made.agent("home", "br1", "172.18.0")
        yield made


@pytest.fixture(scope="module")
def judged(host: HandMadeHost, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run over both agents while the rule of one is missing."""
    site = write_site(tmp_path_factory.mktemp("site"), SEVERAL)
    host.ip("rule del from 172.17.0.0/16")
    try:
        return host.viacheck("--with-captures", site=site, report_dir=tmp_path_factory.mktemp("report"))
    finally:
        host.ip("rule add from 172.17.0.0/16 lookup wlan0rt")


def test_only_the_agent_that_is_wrong_fails(judged: Finished) -> None:
    assert judged.exit_code == 1, judged.said
    assert [(target.id, target.agent, target.verdict) for target in judged.outcome.targets] == [
        (MOBILE, "mobile", "fail"), (HOME, "home", "pass"),
    ]  # fmt: skip
    wrong = {(r.target, r.diagnosis.code) for r in judged.outcome.results if r.verdict.bad and r.diagnosis}
    assert wrong == {(MOBILE, "RULE_MISSING")}
    for target, uplink in ((MOBILE, "eth0"), (HOME, "eth0")):
        (udp,) = (r for r in by_check(judged.outcome, target)["EGRESS-01"] if r.case == "udp")
        assert f"3 of 3 left by {uplink}" in udp.observed, udp.observed
    said = " ".join(judged.stdout.split())
    assert f"FAIL {MOBILE} The agent's packets leave by eth0 instead of wlan0" in said
    assert f"PASS {HOME}: The agent's packets leave by eth0: proven by 9 of 9 probes, none elsewhere" in said


def test_what_concerns_the_host_is_judged_once(judged: Finished) -> None:
    first, second = by_check(judged.outcome, MOBILE), by_check(judged.outcome, HOME)
    for check in OF_HOST:
        assert {result.verdict for result in first[check]} == {Verdict.PASS}, first[check]
        assert {result.verdict for result in second[check]} == {Verdict.NOT_APPLICABLE}, second[check]
        assert second[check][0].observed == f"it concerns the host alone: judged once, with {MOBILE}"


def test_the_bundle_holds_every_agent(judged: Finished, tmp_path: Path) -> None:
    bundle = judged.report_dir / "bundle.tar.gz"
    done = viacheck("--bundle", str(bundle), "-q", report_dir=tmp_path / "report")
    assert [(target.id, target.verdict) for target in done.outcome.targets] == [
        ("bundle:bundle.tar.gz:mobile", "fail"), ("bundle:bundle.tar.gz:home", "pass"),
    ]  # fmt: skip
    wrong = {(r.target, r.diagnosis.code) for r in done.outcome.results if r.verdict.bad and r.diagnosis}
    assert wrong == {("bundle:bundle.tar.gz:mobile", "RULE_MISSING")}
    refused = sub_command("explain", "--bundle", bundle, "--to", "203.0.113.9")
    assert refused.returncode == 4
    assert f"{bundle} has several agents: choose one by --agent: mobile, home" in refused.stderr
    for agent, packet in (("mobile", "from 172.17.0.2 iif docker0"), ("home", "from 172.18.0.2 iif br1")):
        explained = sub_command("explain", "--bundle", bundle, "--agent", agent, "--to", "203.0.113.9", "--json")
        assert json.loads(explained.stdout)["question"] == f"203.0.113.9 {packet}"


def test_the_replicas_show_the_same(judged: Finished, tmp_path: Path) -> None:
    checks = "EGRESS-01 or ROUTE-02 or HOST-02"
    done = viacheck(
        "--twin", str(judged.report_dir / "bundle.tar.gz"), "-q", "-k", checks, report_dir=tmp_path / "report"
    )
    assert [(target.id, target.verdict) for target in done.outcome.targets] == [
        ("twin:by-hand:mobile", "fail"), ("twin:by-hand:home", "pass"),
    ], done.said  # fmt: skip


def test_one_agent_can_be_chosen(host: HandMadeHost, tmp_path: Path) -> None:
    site = write_site(tmp_path, SEVERAL)
    done = host.viacheck("--agent", "home", "-k", "EGRESS-01 or HOST-02", site=site, report_dir=tmp_path / "report")
    assert done.exit_code == 0, done.said
    assert [target.id for target in done.outcome.targets] == [HOME]
    assert {result.verdict for result in done.outcome.results} == {Verdict.PASS}
