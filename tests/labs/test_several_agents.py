"""Several agents on one host, in one site file: one run judges all of them, each by its own uplink.

The host is made by hand: the agent ``mobile`` behind docker0 leaves by wlan0 by the guide's recipe, the agent ``home``
behind a second bridge by the host's own default route, eth0.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers.front_door import VIACHECK, Finished, by_check, sub_command, viacheck
from tests.helpers.guarded_host import until
from tests.helpers.hand_made import HandMadeHost, apply_the_guides_recipe, hand_made_host, write_site
from tests.helpers.person_at_terminal import PersonAtTerminal
from viacheck.analysis.predict import predict
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.bundle.reader import bundle_outcome, read_bundles
from viacheck.bundle.script_file import SCRIPT
from viacheck.model.result import CheckResult
from viacheck.model.verdict import Verdict

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


def test_the_host_is_read_and_its_gateways_are_asked_once(judged: Finished) -> None:
    states = [json.dumps(target.snapshot and target.snapshot["host"]) for target in judged.outcome.targets]
    assert states[0] == states[1]
    written = json.loads((judged.report_dir / "result.json").read_text())["targets"]
    assert written[1]["snapshot"]["same_as"] == MOBILE
    assert not {"host", "files", "kernel"} & written[1]["snapshot"].keys()
    assert written[1]["snapshot"]["agent"] != written[0]["snapshot"]["agent"]
    assert judged.stdout.count("ARP requests each for") == 1
    assert {result.verdict for result in by_check(judged.outcome, HOME)["EGRESS-09"]} == {Verdict.PASS}
    (bundle,) = judged.report_dir.glob("bundle.tar.gz")
    with tarfile.open(bundle) as archive:
        heads = [archive.extractfile(member) for member in archive if member.name.endswith(".command")]
        commands = [head.read().decode().splitlines()[:2] for head in heads if head is not None]
    for place in ("host", "agent mobile", "agent home"):
        assert commands.count([f"place: {place}", "command: ip -N -j -4 rule show"]) == 1, commands


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


def test_an_event_is_made_for_each_agent_in_turn(host: HandMadeHost, tmp_path: Path) -> None:
    def state() -> list[str]:
        return [host.ip("rule"), host.ip("route show table all")]

    before = state()
    text = SEVERAL.replace("schema = 1\n", "schema = 1\nallow_disruptive = true\n")
    text = text.replace("survives = []", 'survives = []\nrecover_within = "500ms"')
    done = host.viacheck(
        "--allow-disruptive", "--events", "link-flap", "--yes", "-k", "FLAP-01",
        site=write_site(tmp_path, text), report_dir=tmp_path / "report",
    )  # fmt: skip
    for agent in ("mobile", "home"):
        assert f"agent {agent}: this host's network will be interrupted" in done.stdout
    assert "  wlan0: link down, then up, at most 15.5 s" in done.stdout
    assert "  eth0: link down, then up, at most 15.5 s" in done.stdout
    # The guide's recipe leaks by the other uplink; a default route that was typed by hand is lost.
    for target, what in ((MOBILE, "leak"), (HOME, "default via 10.10.40.1 dev eth0")):
        (flap,) = by_check(done.outcome, target)["FLAP-01"]
        assert flap.verdict is Verdict.ADVISORY, flap.observed
        assert flap.diagnosis is not None
        assert what in flap.observed + flap.diagnosis.cause
    for record in done.outcome.targets:
        assert any("equals its saved state" in note for note in record.notes), record.notes
    assert state() == before


def test_an_event_of_two_agents_is_made_once_and_judged_for_each(host: HandMadeHost, tmp_path: Path) -> None:
    """Both leave by wlan0. One has a backstop, so that nothing leaks while wlan0 is down."""
    host.ip("rule add from 172.18.0.0/16 lookup 201")
    host.ip("route add default via 10.10.50.1 dev wlan0 table 201")
    host.ip("route add unreachable default metric 4278198272 table 201")
    before = [host.ip("rule"), host.ip("route show table all")]
    home = 'uplink = "eth0"\npersist', 'uplink = "wlan0"\ntable = 201\npersist'
    text = SEVERAL.replace(*home).replace("survives = []", 'survives = []\nrecover_within = "500ms"')
    changes = int(host.run("cat", "/sys/class/net/wlan0/carrier_changes"))
    try:
        done = host.viacheck(
            "--allow-disruptive", "--events", "link-flap", "--yes", "-k", "FLAP-01",
            site=write_site(tmp_path, text.replace("schema = 1\n", "schema = 1\nallow_disruptive = true\n")),
            report_dir=tmp_path / "report",
        )  # fmt: skip
        assert [host.ip("rule"), host.ip("route show table all")] == before
    finally:
        host.ip("rule del from 172.18.0.0/16")
        host.ip("route flush table 201")
    assert int(host.run("cat", "/sys/class/net/wlan0/carrier_changes")) == changes + 2, "down once, and up once"
    assert done.stdout.count("wlan0: link down, then up") == 1
    flaps = {target: by_check(done.outcome, target)["FLAP-01"][0] for target in (MOBILE, HOME)}
    for flap in flaps.values():
        assert flap.verdict is Verdict.ADVISORY, flap.observed
        assert "wlan0 is set down and up again" in flap.observed
    assert "leak" in flaps[MOBILE].observed
    assert "leak" not in flaps[HOME].observed
    assert "no traffic recovered" in flaps[HOME].observed


def test_what_a_person_removes_meanwhile_is_blamed_on_the_event_for_no_agent(
    host: HandMadeHost, tmp_path: Path
) -> None:
    """Both leave by wlan0, whose flap costs both their route; the person removes the rule of one."""
    host.ip("rule add from 172.18.0.0/16 lookup 201")
    host.ip("route add default via 10.10.50.1 dev wlan0 table 201")
    text = SEVERAL.replace('uplink = "eth0"\npersist', 'uplink = "wlan0"\ntable = 201\npersist')
    text = text.replace("survives = []", 'survives = ["link-flap"]\nrecover_within = "500ms"')
    site = write_site(tmp_path, text.replace("schema = 1\n", "schema = 1\nallow_disruptive = true\n"))
    options = ("--allow-disruptive", "--yes", "-k", "FLAP-01")
    try:
        # The run has ended when the pool is closed.
        with ThreadPoolExecutor(1) as pool, PersonAtTerminal(host.namespace) as person:
            run = pool.submit(host.viacheck, *options, site=site, report_dir=tmp_path / "report")
            until(lambda: run.done() or "DOWN" in host.ip("-br link show dev wlan0"), "wlan0 is set down", 120)
            assert not run.done(), run.result().said
            person.types("rule del from 172.17.0.0/16 table 200")
            done = run.result()
    finally:
        host.ip("rule add priority 32765 from 172.17.0.0/16 lookup wlan0rt")
        host.ip("rule del from 172.18.0.0/16")
        host.ip("route flush table 201")
    for target in (MOBILE, HOME):
        (flap,) = by_check(done.outcome, target)["FLAP-01"]
        assert flap.verdict is Verdict.INCONCLUSIVE, (target, flap.observed)
        assert "a person removed something: rule: priority 32765 from 172.17.0.0/16 lookup 200" in flap.observed
        assert flap.diagnosis is None


def test_a_restore_that_did_not_finish_is_an_alert_of_every_later_agent(tmp_path: Path) -> None:
    """A program removes the uplink's device during the flap of one agent."""
    text = SEVERAL.replace("schema = 1\n", "schema = 1\nallow_disruptive = true\n")
    text = text.replace("survives = []", 'survives = []\nrecover_within = "500ms"')
    site, options = write_site(tmp_path, text), ("--allow-disruptive", "--events", "link-flap", "--yes")
    # The run has ended when the pool is closed, before the host is.
    with hand_made_host() as made, ThreadPoolExecutor(1) as pool:
        apply_the_guides_recipe(made)
        made.agent("home", "br1", "172.18.0")
        run = pool.submit(
            made.viacheck, *options, "-k", "FLAP-01 or ROUTE-05", site=site, report_dir=tmp_path / "report"
        )
        until(lambda: run.done() or "DOWN" in made.ip("-br link show dev wlan0"), "wlan0 is set down", 120)
        assert not run.done(), run.result().said
        made.ip("link del wlan0")
        done = run.result()
    assert done.exit_code == 1
    mobile, home = done.outcome.targets
    assert any("could NOT be restored" in alert for alert in mobile.alerts), mobile
    assert any("was not undone" in alert for alert in home.alerts), home
    assert {mobile.verdict, home.verdict} <= {"fail", "inconclusive"}


@pytest.mark.parametrize("way", ["collect", "script"])
def test_a_bundle_without_a_run_holds_every_agent(host: HandMadeHost, tmp_path: Path, way: str) -> None:
    site, bundle = write_site(tmp_path, SEVERAL), tmp_path / "case.tar.gz"
    if way == "script":
        host.run("sh", str(SCRIPT), "--site", str(site), "-o", str(bundle))
    else:
        host.run(*VIACHECK, "collect", "--site", str(site), "--redact", "strict", "-o", str(bundle))
    bundles = read_bundles(bundle)
    names = ["mobile", "home"] if way == "script" else ["agent-1", "agent-2"]
    assert [of_agent.agent for of_agent in bundles] == names
    for of_agent in bundles:
        prediction = predict(ResolvedIntent(of_agent.intent, of_agent.snapshot), "icmp")
        assert prediction.as_intended, prediction.text
        assert of_agent.snapshot.agent is not None
        assert {command.place for command in of_agent.commands} == {"host", "agent"}
    assert [target.agent for target in bundle_outcome(bundles).targets] == names


def test_an_agent_that_the_rule_of_another_takes_gets_a_rule_of_its_own(host: HandMadeHost, tmp_path: Path) -> None:
    """Both are behind docker0, whose whole subnet the rule of ``mobile`` sends to wlan0."""
    host.agent_on("docker0", "near", "172.17.0", 3)
    text = SEVERAL.replace("/run/netns/home", "/run/netns/near").replace('"br1"', '"docker0"')
    site, before = write_site(tmp_path, text), host.ip("rule")
    checks = "ROUTE-05 or ROUTE-06 or EGRESS-01 or EGRESS-05 or EGRESS-08"
    try:
        done = host.viacheck("-k", checks, site=site, report_dir=tmp_path / "report")
        wrong = [r for r in by_target(done, HOME) if r.verdict in (Verdict.FAIL, Verdict.ADVISORY)]
        assert {r.check for r in wrong} == set(checks.split(" or ")), done.said
        assert {r.diagnosis and r.diagnosis.code for r in wrong} == {"RULE_SHADOWED"}, done.said
        (cause,) = (r.diagnosis for r in wrong if r.diagnosis and r.diagnosis.reported_by is None)
        assert "from 172.17.0.0/16 lookup wlan0rt' selects 172.17.0.3 as well" in cause.cause
        host.run("sh", "-ec", "\n".join(cause.remedy))
        host.ip("rule add priority 500 from 172.17.0.3 to 203.0.113.0/24 lookup 200")
        mended = host.viacheck("-k", checks, site=site, report_dir=tmp_path / "mended")
        for target in (MOBILE, HOME):
            assert {r.verdict for r in by_check(mended.outcome, target)["EGRESS-01"]} == {Verdict.PASS}, mended.said
        (astray,) = (r for r in by_target(mended, HOME) if r.verdict is not Verdict.PASS)
        assert (astray.check, astray.verdict) == ("EGRESS-08", Verdict.ADVISORY), mended.said
        assert astray.diagnosis is not None
        assert astray.diagnosis.site_file == [
            "[[agents.home.egress.except]]", 'to = "203.0.113.0/24"', 'uplink = "wlan0"'
        ]  # fmt: skip
        host.ip("rule del priority 500")
        host.run("sh", "-ec", "\n".join(cause.undo))
        assert host.ip("rule") == before
    finally:
        host.ip("netns del near")


def by_target(done: Finished, target: str) -> list[CheckResult]:
    """Return the results of one target."""
    return [result for result in done.outcome.results if result.target == target]


SOURCES = """\
[[agents.home.source]]
interface = "eth1"
uplink = "wlan0"
[[agents.home.source]]
interface = "eth2"
uplink = "wlan0"
[[agents.home.source]]
address = "172.17.0.9"
[agents.home.egress]
"""


def test_each_source_of_an_agent_is_judged(host: HandMadeHost, tmp_path: Path) -> None:
    """The second interface is behind docker0, and so leaves by wlan0: its address, by the intent, does not.

    The third interface has an address there too, and a route for that address alone: a socket that is bound to the
    interface sends nothing, but for TCP, for which the kernel looks the route up again with the address.
    """
    for name, interface in (("veth-second", "eth1"), ("veth-third", "eth2")):
        host.ip(f"link add {name} type veth peer name {interface} netns home")
        host.ip(f"link set {name} up master docker0")
    for words in (
        "address add 172.17.0.10/16 dev eth2", "link set eth2 up", "rule add from 172.17.0.10 lookup 101",
        "route add default via 172.17.0.1 dev eth2 table 101",
        "address add 172.17.0.9/16 dev eth1", "link set eth1 up", "route add default via 172.17.0.1 dev eth1 table 100",
        "rule add from 172.17.0.9 lookup 100", "rule add oif eth1 lookup 100",
    ):  # fmt: skip
        host.ip(f"-n home {words}")
    try:
        done = host.viacheck(
            "--agent", "home", "-k", "EGRESS-10 or EGRESS-01",
            site=write_site(tmp_path, SEVERAL.replace("[agents.home.egress]\n", SOURCES)),
            report_dir=tmp_path / "report",
        )  # fmt: skip
        bundle = viacheck(
            "--bundle", str(tmp_path / "report" / "bundle.tar.gz"), "-k", "EGRESS-10", report_dir=tmp_path / "bundle"
        )
    finally:
        host.ip("link del veth-second")
        host.ip("link del veth-third")
        host.ip("-n home rule del from 172.17.0.9")
        host.ip("-n home rule del oif eth1")
        host.ip("-n home rule del from 172.17.0.10")
    checks = by_check(done.outcome, HOME)
    assert {result.verdict for result in checks["EGRESS-01"]} == {Verdict.PASS}, done.said
    of_source = {result.case: result for result in checks["EGRESS-10"]}
    assert of_source.keys() == {
        f"{protocol} from {source}" for protocol in ("icmp", "udp", "tcp") for source in ("eth1", "eth2", "172.17.0.9")
    }
    for case, result in of_source.items():
        if "eth1" in str(case) or case == "tcp from eth2":
            assert result.verdict is Verdict.PASS, result.observed
            assert result.observed.startswith("3 of 3 left by wlan0, none elsewhere")
        else:
            assert result.verdict is Verdict.FAIL, result.observed
            assert result.diagnosis is not None
            assert result.diagnosis.code == "SOURCE_BYPASSES_UPLINK"
            assert "from 172.17.0.9 by wlan0 instead of eth0: rule priority 32765" in result.diagnosis.cause
            assert "from eth2 by no interface instead of wlan0: the host does not answer" in result.diagnosis.cause
            assert "no route by eth2: the kernel assumes that the destination is on its link" in result.diagnosis.cause
    predicted = {result.case: result for result in bundle.outcome.results}
    assert predicted["udp from 172.17.0.9"].verdict is Verdict.FAIL
    assert predicted["udp from eth1"].verdict is Verdict.NOT_RUN
    assert predicted["udp from eth1"].observed.startswith("predicted, not proven: ")
