"""What is written for ifupdown is run in a lab: real ifupdown, real leases, and nothing of the host is touched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.front_door import Finished, viacheck
from tests.helpers.hand_made import SITE, HandMadeHost, apply_the_guides_recipe, hand_made_host, write_site
from viacheck.model.check_evidence import CommandEvidence, StateEvidence
from viacheck.model.egress_changes import EgressState
from viacheck.model.policy_rule import Rule
from viacheck.model.result import CheckResult
from viacheck.model.route import Nexthop, Route
from viacheck.model.verdict import Verdict
from viacheck.persistence.replay_result import ReplayCycle, judge_replay

needs_ifupdown = pytest.mark.skipif(shutil.which("ifup") is None, reason="ifupdown is not installed")
needs_dhclient = pytest.mark.skipif(shutil.which("dhclient") is None, reason="isc-dhcp-client is not installed")
CANARY = Path("/tmp/viacheck-proof-canary")
INTERFACES = "/etc/network/interfaces"
WRITTEN = SITE.replace('persist = "none"\n', "")
LOOPBACK = """\
auto lo
iface lo inet loopback
"""
RULES = """\
    post-up ip rule del priority 1000 2>/dev/null || true
    post-up ip rule add priority 1000 from 172.17.0.0/16 lookup wlan0rt
    post-up ip route replace unreachable default metric 4278198272 table wlan0rt
"""
ETH0 = """\
auto eth0
iface eth0 inet static
    address 10.10.40.9/24
    gateway 10.10.40.1
"""
WLAN0 = """\
auto wlan0
iface wlan0 inet static
    address 10.10.50.9/24
"""
ROUTE = "    post-up ip route replace default via 10.10.50.1 dev wlan0 table wlan0rt\n"
GUIDE = """\
    post-up ip rule add from 172.17.0.0/16 lookup wlan0rt
    post-up ip route add default via 10.10.50.1 dev wlan0 table wlan0rt
"""


@pytest.fixture
def host() -> Iterator[HandMadeHost]:
    with hand_made_host() as made:
        made.run("mount", "-t", "tmpfs", "none", "/etc/network")
        apply_the_guides_recipe(made)
        yield made


def written(host: HandMadeHost, text: str, path: str = INTERFACES, mode: str = "644") -> None:
    host.run("sh", "-c", 'mkdir -p "${1%/*}"; printf %s "$2" >"$1"; chmod "$3" "$1"', "sh", path, text, mode)


# Of this host's network namespace alone: other labs of this machine may have clients of their own.
CLIENTS = """
for one in /proc/[0-9]*; do
    [ "$(readlink $one/ns/net)" != "$(readlink /proc/self/ns/net)" ] || cat $one/comm
done 2>/dev/null | grep -c dhclient || true
"""


def judged(host: HandMadeHost, folder: Path) -> CheckResult:
    done = host.viacheck("-k", "PERSIST-02", site=write_site(folder, WRITTEN), report_dir=folder / "report")
    return proof_of(done)


def proof_of(done: Finished) -> CheckResult:
    return next(result for result in done.outcome.results if result.check == "PERSIST-02")


def left_out(result: CheckResult) -> list[str]:
    states = [one for one in result.evidence if isinstance(one, StateEvidence)]
    return next((one.lines for one in states if one.title == "left out of the replay"), [])


def touched(host: HandMadeHost) -> list[str]:
    """Everything of a host that running its stanzas would change."""
    return [
        host.ip("address"), host.ip("rule"), host.ip("-6 rule"), host.ip("route show table all"),
        host.run("sh", "-c", "find /etc/network /etc/iproute2 /run /var/lib/dhcp | sort; cat /etc/network/interfaces"),
        host.run("sh", "-c", "ls -l --time-style=full-iso /etc /var/lib/dhcp; cat /proc/self/mountinfo"),
        host.run("sh", "-c", CLIENTS),
    ]  # fmt: skip


@needs_ifupdown
def test_the_guides_stanza_adds_a_rule_at_each_ifup_and_the_host_has_none_more(
    host: HandMadeHost, tmp_path: Path
) -> None:
    written(host, f"{LOOPBACK}{ETH0}{WLAN0}    post-up touch {CANARY}\n{GUIDE}")
    before = touched(host)
    found = judged(host, tmp_path)
    assert found.verdict is Verdict.FAIL
    assert "rules 1, 2, 3, 4; routes 1, 1, 1, 1; no command failed" in found.observed
    assert found.diagnosis is not None
    assert found.diagnosis.code == "RULES_ACCUMULATE"
    assert left_out(found) == [f"{INTERFACES}:10: not run: it runs a program other than ip"]
    assert not CANARY.exists()
    assert touched(host) == before


@needs_ifupdown
@needs_dhclient
def test_leases_are_taken_from_the_labs_own_gateway(host: HandMadeHost, tmp_path: Path) -> None:
    leased = "auto eth0\niface eth0 inet dhcp\nallow-hotplug wlan0\niface wlan0 inet dhcp\n"
    written(host, f"{LOOPBACK}{RULES}{leased}{ROUTE}")
    before = touched(host)
    found = judged(host, tmp_path)
    assert found.verdict is Verdict.PASS, found.observed
    assert "rules 1, 1, 1, 1; routes 2, 2, 2, 2; no command failed" in found.observed
    states = [one for one in found.evidence if isinstance(one, StateEvidence)]
    assert [one.lines[-1] for one in states] == ["address 10.10.50.9"] * 4
    assert touched(host) == before


@needs_ifupdown
def test_a_script_is_run_when_it_is_ip_alone(host: HandMadeHost, tmp_path: Path) -> None:
    written(host, f"{LOOPBACK}{RULES}{ETH0}{WLAN0}")
    written(host, f'#!/bin/sh\n[ "$IFACE" = wlan0 ] || exit 0\n{ROUTE.strip().removeprefix("post-up ")}\n',
            "/etc/network/if-up.d/agent", "755")  # fmt: skip
    found = judged(host, tmp_path)
    assert found.verdict is Verdict.PASS, found.observed
    assert "routes 2, 2, 2, 2" in found.observed
    assert not left_out(found)


@needs_ifupdown
@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"{LOOPBACK}{RULES}{ETH0}{WLAN0}{ROUTE.rstrip()} && touch {CANARY}\n",
         f"{INTERFACES}:13 concerns rules or routes, and is left out (not run: it runs a program other than ip)"),
        (f"{LOOPBACK}{ETH0}{WLAN0}{ROUTE}iface wlan0 inet6 auto\n{RULES}",
         f"{INTERFACES}:12 concerns rules or routes, and is left out (the stanza is left out: "
         "the effect of 'inet6 auto'"),
        (f"{LOOPBACK}{RULES}{ETH0}{WLAN0.replace('static', 'ppp')}{ROUTE}",
         "the effect of 'inet ppp' may leave the lab"),
        (f"{LOOPBACK}{RULES}{ETH0}auto wlan0\niface wlan0 inet manual\n{ROUTE}",
         "wlan0 gets its address from something other than ifupdown"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_whole_is_read_and_why_is_told(
    host: HandMadeHost, tmp_path: Path, text: str, why: str
) -> None:
    written(host, text)
    found = judged(host, tmp_path)
    assert not found.verdict.bad, found.observed
    assert "read, not run: " in found.observed
    assert why in found.observed
    assert not CANARY.exists()


@needs_ifupdown
def test_an_interface_that_has_nothing_to_do_with_it_decides_nothing(host: HandMadeHost, tmp_path: Path) -> None:
    broken = ETH0.replace("gateway 10.10.40.1", "gateway 10.99.0.1")
    written(host, f"{LOOPBACK}{RULES}{broken}auto eth7\niface eth7 inet dhcp\n{WLAN0}{ROUTE}")
    found = judged(host, tmp_path)
    assert found.verdict is Verdict.PASS, found.observed
    assert left_out(found) == [f"{INTERFACES}:11: the stanza is left out: eth7 does not exist"]


@needs_ifupdown
def test_a_bundle_is_never_run(host: HandMadeHost, tmp_path: Path) -> None:
    written(host, f"{LOOPBACK}{RULES}{ETH0}{WLAN0}{ROUTE}")
    assert judged(host, tmp_path).verdict is Verdict.PASS
    bundle = tmp_path / "report" / "bundle.tar.gz"
    done = viacheck("--bundle", str(bundle), "-k", "PERSIST-02", report_dir=tmp_path / "read")
    found = proof_of(done)
    assert found.verdict is Verdict.PASS
    assert "read, not run: the lines of a bundle are not run on its reader's machine" in found.observed


@needs_ifupdown
def test_the_twin_of_a_bundle_is_read_as_well(host: HandMadeHost, tmp_path: Path) -> None:
    written(host, f"{LOOPBACK}{ETH0}{WLAN0}    post-up touch {CANARY}\n{GUIDE}")
    judged(host, tmp_path)
    bundle = tmp_path / "report" / "bundle.tar.gz"
    found = proof_of(viacheck("--twin", str(bundle), "-k", "PERSIST-02", report_dir=tmp_path / "twin"))
    assert found.diagnosis is not None
    assert found.diagnosis.code == "RULES_ACCUMULATE"
    assert (
        "read, not run: a boot runs the commands in the host's files, and a replica executes nothing" in found.observed
    )
    assert not CANARY.exists()


RULE = Rule(family=4, priority=1000, source="172.17.0.0/16", table=200)
DEFAULT = Route(
    family=4, table=200, destination="0.0.0.0/0", nexthops=(Nexthop(gateway="10.10.50.1", interface="wlan0"),)
)
BACKSTOP = Route(family=4, table=200, destination="0.0.0.0/0", type="unreachable", metric=4278198272)
FAILED = CommandEvidence(command="ifup wlan0", exit_code=1, stderr="RTNETLINK answers: File exists\n")
DONE = CommandEvidence(command="ifup wlan0", exit_code=0)


def step(rules: int = 1, *routes: Route, command: CommandEvidence = DONE, not_up: tuple[str, ...] = ()) -> ReplayCycle:
    state = EgressState(time=0.0, moment="", rules=(RULE,) * rules, routes=routes)
    return ReplayCycle((command,), not_up, state)


@pytest.mark.parametrize(
    ("boot", "last", "shown"),
    [
        (step(1, DEFAULT), step(1, DEFAULT), None),
        (step(0, not_up=("wlan0",)), step(1, DEFAULT), None),
        (step(1, DEFAULT), step(2, DEFAULT), "RULES_ACCUMULATE"),
        (step(1, DEFAULT), step(0, DEFAULT), "RULE_LOST"),
        (step(1, DEFAULT, BACKSTOP), step(1, DEFAULT), "ROUTE_NOT_RESTORED"),
        (step(1, DEFAULT, BACKSTOP), step(1, BACKSTOP), "ROUTE_NOT_RESTORED"),
        (step(1, BACKSTOP), step(1, BACKSTOP), "ROUTE_NOT_RESTORED"),
        (step(1, DEFAULT), step(2, command=FAILED), "NOT_IDEMPOTENT"),
        (step(1, DEFAULT, command=FAILED), step(1, DEFAULT), None),
        (step(0, command=FAILED, not_up=("wlan0",)), step(0, not_up=("wlan0",)), "NOT_IDEMPOTENT"),
    ],
)
def test_what_was_seen_has_its_code(boot: ReplayCycle, last: ReplayCycle, shown: str | None) -> None:
    proof = judge_replay(boot, [last, last], "wlan0", [], route_written=True)
    assert (proof.fault, proof.holds) == (shown, shown is None)
    assert bool(proof.sentence) == (shown is not None)


def test_a_route_that_is_written_elsewhere_is_not_missed() -> None:
    assert judge_replay(step(), [step()], "wlan0", [], route_written=False).holds


@needs_ifupdown
def test_a_diff_says_that_the_host_has_no_patch(host: HandMadeHost, tmp_path: Path) -> None:
    """A minimal Debian has no patch: nobody is given a command that is not found without a word of it."""
    written(host, LOOPBACK + ETH0 + WLAN0)
    site = write_site(tmp_path, WRITTEN)
    said = "first: this host has no patch: install the package patch, or change the file by hand"
    with_patch = host.viacheck("-k", "PERSIST-01", site=site, report_dir=tmp_path / "with")
    assert "patch -u" in with_patch.stdout
    assert "first:" not in with_patch.stdout
    host.run("mount", "--bind", "/dev/null", str(shutil.which("patch")))
    without = host.viacheck("-k", "PERSIST-01", site=site, report_dir=tmp_path / "without")
    assert said in without.stdout.replace("\n       ", " "), without.stdout
    assert "This host has no patch: install the package patch" in (tmp_path / "without" / "report.html").read_text()
    assert said in (tmp_path / "without" / "junit.xml").read_text()
