"""What the macvlan checks tell of labs that are broken in known ways, read from result.json as a person reads it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest

from netns_lab.lab_specs import LabSpec
from tests.helpers.front_door import by_check
from viacheck.model.check_evidence import PacketsEvidence, StateEvidence
from viacheck.model.measurements import AddressHolder, SecondMAC
from viacheck.model.result import CheckResult, RunResult
from viacheck.model.verdict import Verdict
from viacheck.packets.probes import Prober
from viacheck.packets.segment_tests import SegmentTests
from viacheck.packets.tokens import TokenSpace

AGENT_MAC, AGENT, GATEWAY, HOST = "02:42:0a:0a:28:c0", "10.10.40.192", "10.10.40.1", "10.10.40.9"
BUSY = 5.0
"""Seconds by which a busy machine may be late."""
BROKEN = (
    "wrong-parent", "gateway-mismatch", "wireless-parent", "foreign-source-dropped", "delivery-filtered",
    "foreign-data-dropped", "dhcp-in-pool", "dhcp-beside-pool", "address-conflict", "mac-conflict", "parent-down",
    "mtu-kept",
)  # fmt: skip


@pytest.fixture(scope="module")
def outcome(judged_labs: Callable[[Sequence[str]], RunResult]) -> RunResult:
    return judged_labs(["macvlan", *(f"macvlan+{fault}" for fault in BROKEN)])


def told(outcome: RunResult, check: str, fault: str = "") -> CheckResult:
    return by_check(outcome, f"lab:macvlan{'+' if fault else ''}{fault}")[check][0]


def state(result: CheckResult, title: str) -> list[str]:
    return next(one.lines for one in result.evidence if isinstance(one, StateEvidence) and one.title == title)


# Healthy


def test_everything_that_applies_is_decided(outcome: RunResult) -> None:
    results = by_check(outcome, "lab:macvlan")
    verdicts = {check: {one.verdict for one in found} for check, found in results.items()}
    for number in range(1, 7):
        assert verdicts[f"MACVLAN-0{number}"] == {Verdict.PASS}
    for check in ("EGRESS-01", "EGRESS-02", "EGRESS-03", "EGRESS-04", "EGRESS-05", "EGRESS-06", "HOST-02", "HOST-03"):
        assert verdicts[check] == {Verdict.PASS}, check
    for check in ("NAT-01", "NAT-02", "ROUTE-02", "HOST-04", "HOST-05", "PIPEWORK-01", "PIPEWORK-05"):
        assert verdicts[check] == {Verdict.NOT_APPLICABLE}, check


def test_silence_proves_no_dhcp_server_after_the_sites_wait(outcome: RunResult) -> None:
    (target,) = (one for one in outcome.targets if one.id == "lab:macvlan")
    assert target.intent["probe"]["dhcp_wait"] == "6s"
    observed = told(outcome, "MACVLAN-04").observed
    seconds = re.fullmatch(
        r"no answer to DHCPDISCOVER \(listened for (.+) s, DHCPDISCOVER sent at 0 and 4 s\)", observed
    )
    assert seconds is not None, observed
    assert 6.0 <= float(seconds[1]) < 6.0 + BUSY


def test_four_pings_leave_the_parent_as_the_agents_own(outcome: RunResult) -> None:
    result = told(outcome, "MACVLAN-03")
    (packets,) = (one for one in result.evidence if isinstance(one, PacketsEvidence))
    assert (packets.sent, packets.answered) == (4, 4)
    left = [one for one in packets.sightings if one.direction == "out" and one.role == "probe"]
    assert {(one.interface, one.source_mac, one.source, one.destination) for one in left} == {
        ("eth0", AGENT_MAC, AGENT, GATEWAY)
    }
    assert all(one.fence_seen for one in packets.watched)


def test_the_agents_packets_carry_its_own_address_and_mac(outcome: RunResult) -> None:
    for result in by_check(outcome, "lab:macvlan")["EGRESS-02"]:
        assert AGENT_MAC in result.observed
        assert AGENT in result.observed


def test_host_and_agent_apart_is_a_fact_and_no_failure(outcome: RunResult) -> None:
    (line,) = state(told(outcome, "MACVLAN-03"), "host and agent")
    assert line.startswith(f"ping of the agent to eth0's {HOST}: no answer")
    assert "not a failure" in line


# The network


def test_a_wrong_parent_is_named_with_the_intended_one(outcome: RunResult) -> None:
    result = told(outcome, "MACVLAN-01", "wrong-parent")
    assert result.diagnosis is not None
    assert "wlan0" in result.diagnosis.cause
    assert "not eth0" in result.diagnosis.cause


def test_a_wrong_gateway_is_named_and_mended_by_a_command(outcome: RunResult) -> None:
    result = told(outcome, "MACVLAN-01", "gateway-mismatch")
    assert result.diagnosis is not None
    assert "10.10.40.77" in result.diagnosis.cause
    assert result.diagnosis.remedy == [
        "nsenter --net=/run/netns/agent ip route replace default via 10.10.40.1 dev eth0"
    ]
    assert told(outcome, "MACVLAN-03", "gateway-mismatch").verdict is Verdict.PASS


def test_a_parent_that_is_down_is_told_once(outcome: RunResult) -> None:
    codes = {
        result.diagnosis.code
        for results in by_check(outcome, "lab:macvlan+parent-down").values()
        for result in results
        if result.diagnosis is not None
    }
    assert codes == {"PARENT_DOWN"}
    for check in ("MACVLAN-04", "MACVLAN-05", "MACVLAN-06"):
        assert told(outcome, check, "parent-down").verdict is Verdict.NOT_RUN


def test_a_kept_mtu_is_an_advisory_with_both_sizes(outcome: RunResult) -> None:
    result = told(outcome, "EGRESS-06", "mtu-kept")
    assert result.verdict is Verdict.ADVISORY
    assert result.diagnosis is not None
    assert "MTU 1400" in result.diagnosis.cause
    assert "1500" in result.diagnosis.cause
    assert "EMSGSIZE" in result.observed


# The segment


def test_a_server_inside_the_pool_fails_and_says_what_it_offers(outcome: RunResult) -> None:
    result = told(outcome, "MACVLAN-04", "dhcp-in-pool")
    assert result.verdict is Verdict.FAIL
    assert f"{GATEWAY} (" in result.observed
    assert "10.10.40.208" in result.observed, "a server offers what it is asked for by name"


def test_a_server_beside_the_pool_is_an_advisory(outcome: RunResult) -> None:
    result = told(outcome, "MACVLAN-04", "dhcp-beside-pool")
    assert result.verdict is Verdict.ADVISORY
    assert "outside of 10.10.40.192/27" in result.observed


def test_both_holders_of_the_address_are_named(outcome: RunResult) -> None:
    result = told(outcome, "MACVLAN-05", "address-conflict")
    assert result.diagnosis is not None
    assert AGENT_MAC in result.diagnosis.cause
    (line,) = state(result, f"ARP answers for {AGENT}")
    other = line.partition(" ")[0]
    assert other in result.diagnosis.cause
    assert other != AGENT_MAC
    assert "that the side of the parent and of the agent heard" in line
    assert other in told(outcome, "MACVLAN-05", "address-conflict").observed


def test_a_machine_with_the_agents_own_mac_is_found(outcome: RunResult) -> None:
    result = told(outcome, "MACVLAN-05", "mac-conflict")
    assert result.verdict is Verdict.FAIL
    assert result.diagnosis is not None
    assert result.diagnosis.code == "ADDRESS_CONFLICT"
    assert "both its address and its MAC address" in result.diagnosis.cause
    assert "answered an ARP request that the agent cannot hear" in result.observed


def test_an_address_without_conflict_is_asked_for_at_the_times_of_the_rfc(outcome: RunResult) -> None:
    observed = told(outcome, "MACVLAN-05").observed
    assert observed.startswith("no answer to 3 ARP requests from the side of parent and agent, listened for ")
    # RFC 5227: up to one second, three probes one to two seconds apart, and two seconds for an answer to the last.
    assert 4.0 <= float(observed.split()[-2]) <= 7.0 + BUSY


@pytest.mark.parametrize(
    ("fault", "words", "answered"),
    [
        ("foreign-source-dropped", "frames from a second MAC address are dropped", [True, True, False, False]),
        ("delivery-filtered", "frames to a second MAC address are not delivered", [True, False, True, False]),
        ("foreign-data-dropped", "IP from a second MAC address is dropped", [True, True, True, True]),
    ],
)
def test_what_is_dropped_upstream_is_told_apart(
    outcome: RunResult, fault: str, words: str, answered: list[bool]
) -> None:
    result = told(outcome, "MACVLAN-06", fault)
    assert result.diagnosis is not None
    assert words in result.diagnosis.cause
    lines = state(result, f"ARP probes for {GATEWAY}")
    assert [line.endswith(": answered") for line in lines] == answered


def test_a_wireless_parent_fails_before_anything_is_sent_with_the_guides_advice(outcome: RunResult) -> None:
    result = told(outcome, "MACVLAN-06", "wireless-parent")
    assert result.diagnosis is not None
    assert result.diagnosis.code == "PARENT_SINGLE_MAC"
    assert "NAT" in result.diagnosis.cause
    assert not any(isinstance(one, PacketsEvidence) for one in result.evidence)


# The four probes, in theory


P: AddressHolder = "parent"
F: AddressHolder = "agent"


@pytest.mark.parametrize(
    ("answered", "upstream"),
    [
        ({(P, P), (P, F), (F, P), (F, F)}, "accepted"),
        ({(P, P), (P, F)}, "foreign-source"),
        ({(P, P), (F, P)}, "delivery"),
        ({(P, P)}, "foreign-source"),
        (set(), "unknown"),
        ({(P, F), (F, P), (F, F)}, "unknown"),
    ],
)
def test_the_four_answers_together_say_what_is_dropped(
    answered: set[tuple[AddressHolder, AddressHolder]], upstream: str
) -> None:
    assert SecondMAC("p", "f", GATEWAY, frozenset(answered)).upstream == upstream


def test_measuring_changes_nobodys_neighbour_table() -> None:
    target = LabSpec("macvlan").open()
    try:
        gateway = target.gateways["eth0"]
        tokens = TokenSpace()
        assert target.agent is not None
        segment = SegmentTests(target.resolved, Prober(target.host, tokens), Prober(target.agent, tokens), 0.2)
        facts = segment.measure()
        assert facts.second_mac is not None
        assert facts.second_mac.upstream == "accepted"
        assert (facts.gateway_answers_host, facts.host_answers_agent) == (True, False)
        known = gateway.run(["ip", "-4", "neigh", "show"]).stdout
        assert AGENT not in known, "the gateway learned of the agent from a probe with an empty sender"
    finally:
        target.close()
