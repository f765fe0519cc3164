"""Survival: each event is carried out while the agent's packets are watched, those of an old flow and of new flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fixtures.check import check
from fixtures.expect import Expect
from viacheck.analysis.disruption_text import disruption_text, leak_text
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.sightings import departures_text, left_by
from viacheck.model.check import CONTAINER
from viacheck.model.check_evidence import Evidence, StateEvidence
from viacheck.model.intent import SIDE_EVENTS, Intent, SideEvent, Survivable
from viacheck.model.intent_values import seconds
from viacheck.model.measurements import DisruptionResult, EventName, EventNotRun, EventObstacle

if TYPE_CHECKING:
    from viacheck.disruption.disruption_tests import DisruptionTests
    from viacheck.packets.traffic_tests import TrafficTests

GUIDE = "NAT, step 6"
NOT_KNOWN = (EventObstacle.DISTURBED, EventObstacle.NO_CLONE)
"""Why an event has no result although it should have one."""


@check(
    "FLAP-01",
    "The agent's egress recovers after its uplink is set down and up",
    guide=GUIDE,
    needs="disruptive",
    event="link-flap",
)
def test_it_survives_a_link_flap(
    disruptions: DisruptionTests, traffic: TrafficTests, resolved: ResolvedIntent, intent: Intent, expect: Expect
) -> None:
    _survives("link-flap", disruptions, traffic, resolved, intent, expect)


@check(
    "FLAP-02",
    "The agent's egress recovers after a loss of carrier",
    guide=GUIDE,
    needs="disruptive",
    event="carrier-loss",
)
def test_it_survives_a_loss_of_carrier(
    disruptions: DisruptionTests, traffic: TrafficTests, resolved: ResolvedIntent, intent: Intent, expect: Expect
) -> None:
    _survives("carrier-loss", disruptions, traffic, resolved, intent, expect)


@check(
    "FLAP-03",
    "The agent's egress recovers after ifdown and ifup, several times, and no duplicate rule is left",
    guide=GUIDE,
    needs="disruptive",
    event="ifupdown",
)
def test_it_survives_ifdown_and_ifup(
    disruptions: DisruptionTests, traffic: TrafficTests, resolved: ResolvedIntent, intent: Intent, expect: Expect
) -> None:
    _survives("ifupdown", disruptions, traffic, resolved, intent, expect)


@check(
    "FLAP-04",
    "The agent's egress recovers after a restart of its container",
    guide=GUIDE,
    needs="disruptive",
    event="container-restart",
    applies=CONTAINER,
)
def test_it_survives_a_restart_of_the_container(
    disruptions: DisruptionTests, traffic: TrafficTests, resolved: ResolvedIntent, intent: Intent, expect: Expect
) -> None:
    _survives("container-restart", disruptions, traffic, resolved, intent, expect)


@check(
    "FLAP-05",
    "The agent's egress recovers after a restart of the Docker engine",
    guide=GUIDE,
    needs="disruptive",
    event="engine-restart",
    applies=CONTAINER,
)
def test_it_survives_a_restart_of_the_engine(
    disruptions: DisruptionTests, traffic: TrafficTests, resolved: ResolvedIntent, intent: Intent, expect: Expect
) -> None:
    _survives("engine-restart", disruptions, traffic, resolved, intent, expect)


@check(
    "FLAP-06",
    "While the uplink is down, none of the agent's packets leaks by another interface",
    guide=GUIDE,
    needs="disruptive",
    event="link-flap",
    judges=(),
)
def test_nothing_leaks_while_the_uplink_is_down(
    disruptions: DisruptionTests, traffic: TrafficTests, resolved: ResolvedIntent, intent: Intent, expect: Expect
) -> None:
    others = [interface for interface in resolved.egress_interfaces if interface != resolved.uplink]
    if not others:
        expect.not_applicable(f"{resolved.uplink} is the only egress interface of this host")
    _leaves_as_intended(traffic, resolved, expect)
    events: tuple[Survivable, ...] = ("link-flap", "carrier-loss", "ifupdown")
    attempts = [disruptions.through(event) for event in events]
    made = [attempt for attempt in attempts if isinstance(attempt, DisruptionResult)]
    if not made:
        obstacles = [attempt for attempt in attempts if isinstance(attempt, EventNotRun)]
        reasons = "; ".join(dict.fromkeys(attempt.text for attempt in obstacles))
        reason = f"{resolved.uplink} could not be taken down: {reasons}"
        if any(attempt.obstacle in NOT_KNOWN for attempt in obstacles):
            expect.inconclusive(reason)
        expect.not_run(reason)
    expected = f"while {resolved.uplink} is down, none of the agent's packets leaves by {' or '.join(others)}"
    observed = "; ".join(f"{result.title}: {leak_text(result)}" for result in made)
    evidence: list[Evidence] = [result.timeline for result in made]
    leaked = any(result.leaked for result in made)
    unproven = {
        interface: reason for result in made for interface, reason in result.unproven.items() if interface in others
    }
    if not leaked and unproven:
        reasons = "; ".join(f"{interface}: {reason}" for interface, reason in unproven.items())
        expect.inconclusive(f"absence is not proven: {reasons}", expected=expected, evidence=evidence)
    judge = expect.holds if intent.egress.leak == "forbid" else expect.advises
    judge(not leaked, expected=expected, observed=observed, evidence=evidence)


@check(
    "FLAP-07",
    "The agent's egress recovers after DHCP changes the uplink's address or gateway",
    guide=GUIDE,
    needs="disruptive",
    event="dhcp-renew",
)
def test_it_survives_a_change_of_its_lease(
    disruptions: DisruptionTests, traffic: TrafficTests, resolved: ResolvedIntent, intent: Intent, expect: Expect
) -> None:
    _survives("dhcp-renew", disruptions, traffic, resolved, intent, expect, also="address-change")


@check("FLAP-08", "The agent's egress recovers after a reboot", guide=GUIDE, needs="disruptive", event="reboot")
def test_it_survives_a_reboot(disruptions: DisruptionTests, intent: Intent, expect: Expect) -> None:
    fails_closed = intent.egress.leak == "forbid"
    _judge([_carried_out(disruptions.after_reboot(), expect)], "reboot", intent, expect, fails_closed=fails_closed)


@check(
    "FLAP-09",
    "The agent's egress recovers after a restart of systemd-networkd",
    guide=GUIDE,
    needs="disruptive",
    event="networkd-restart",
)
def test_it_survives_a_restart_of_networkd(
    disruptions: DisruptionTests, traffic: TrafficTests, resolved: ResolvedIntent, intent: Intent, expect: Expect
) -> None:
    _survives("networkd-restart", disruptions, traffic, resolved, intent, expect)


@check(
    "FLAP-10",
    "The agent's egress recovers after its uplink's device is recreated or renamed",
    guide=GUIDE,
    needs="disruptive",
    event="device-change",
)
def test_it_survives_a_change_of_its_device(
    disruptions: DisruptionTests, traffic: TrafficTests, resolved: ResolvedIntent, intent: Intent, expect: Expect
) -> None:
    by_hand = disruptions.target.services.control is None
    if "device-change" not in (intent.egress.survives or ()) and not by_hand:
        expect.not_run("skipped: --survives device-change tries it")
    _survives("device-change", disruptions, traffic, resolved, intent, expect, also="rename")


@check(
    "FLAP-11",
    "The agent's egress recovers after a restart of NetworkManager, and after netplan is applied",
    guide=GUIDE,
    needs="disruptive",
    judges=("networkmanager-restart", "netplan-apply"),
)
def test_it_survives_a_restart_of_its_manager(
    disruptions: DisruptionTests, traffic: TrafficTests, resolved: ResolvedIntent, intent: Intent, expect: Expect
) -> None:
    _leaves_as_intended(traffic, resolved, expect)
    events: tuple[Survivable, ...] = ("networkmanager-restart", "netplan-apply")
    attempts = [disruptions.through(event) for event in events]
    # A host may have both: netplan can generate NetworkManager's profiles.
    made = {
        event: result for event, result in zip(events, attempts, strict=True) if isinstance(result, DisruptionResult)
    }
    if not made:
        obstacles = [attempt for attempt in attempts if isinstance(attempt, EventNotRun)]
        possible = [attempt for attempt in obstacles if attempt.obstacle is not EventObstacle.NOT_APPLICABLE]
        _carried_out((possible or obstacles)[0], expect)
    required = [event for event in made if intent.egress.must_survive(event)]
    _judge(list(made.values()), (required or list(made))[0], intent, expect)


@check(
    "FLAP-12",
    "The agent's egress recovers after what others do on the side",
    guide=GUIDE,
    needs="disruptive",
    judges=SIDE_EVENTS,
)
def test_it_survives_what_others_do_on_the_side(
    disruptions: DisruptionTests,
    traffic: TrafficTests,
    resolved: ResolvedIntent,
    intent: Intent,
    expect: Expect,
    side_event: SideEvent,
) -> None:
    _survives(side_event, disruptions, traffic, resolved, intent, expect)


def _survives(
    event: Survivable,
    disruptions: DisruptionTests,
    traffic: TrafficTests,
    resolved: ResolvedIntent,
    intent: Intent,
    expect: Expect,
    *,
    also: EventName | None = None,
) -> None:
    """Record the verdict on one event: a failure if the intent says that it must be survived, else an advisory.

    ``also`` is a second event of the same kind.
    """
    _leaves_as_intended(traffic, resolved, expect)
    names: list[EventName] = [event] if also is None else [event, also]
    _judge([_carried_out(disruptions.through(name), expect) for name in names], event, intent, expect)


def _carried_out(result: DisruptionResult | EventNotRun, expect: Expect) -> DisruptionResult:
    """Return the result of an event that was carried out, and end the check for one that was not."""
    if isinstance(result, EventNotRun):
        if result.obstacle in NOT_KNOWN:
            expect.inconclusive(result.text)
        judge = expect.not_applicable if result.obstacle is EventObstacle.NOT_APPLICABLE else expect.not_run
        judge(result.text)
    return result


def _judge(
    made: Sequence[DisruptionResult], event: Survivable, intent: Intent, expect: Expect, *, fails_closed: bool = False
) -> None:
    """Record the verdict on events that were carried out; with ``fails_closed``, no packet may leak meanwhile."""
    uplink, within = intent.egress.uplink, intent.egress.recover_within
    survived = all(result.survived(seconds(within)) and not (fails_closed and result.leaked) for result in made)
    events = " and after ".join(result.title for result in made)
    expected = (
        f"after {events} the agent's packets leave by {uplink} again within {within}, those of the old flow and of new "
        "flows, and rules and routes are as before"
    )
    if fails_closed:
        expected += "; meanwhile none leaves by another interface"
    observed = "; ".join(f"{result.title}: {disruption_text(result)}" for result in made)
    evidence = [evidence for result in made for evidence in _evidence(result)]
    if any(result.host_away for result in made) and not expect.has_cause("BOOT_WAITS_FOR_ENGINE"):
        expect.inconclusive(observed, expected=expected, evidence=evidence)
    doubts = [
        f"{interface}: {reason}"
        for result in made
        for interface, reason in result.unproven.items()
        if interface != uplink
    ]
    if survived and doubts:
        expect.inconclusive(
            f"{observed}; that nothing left elsewhere is not proven: {'; '.join(doubts)}",
            expected=expected,
            evidence=evidence,
        )
    judge = expect.holds if intent.egress.must_survive(event) else expect.advises
    judge(survived, expected=expected, observed=observed, evidence=evidence)


def _leaves_as_intended(traffic: TrafficTests, resolved: ResolvedIntent, expect: Expect) -> None:
    """End the check if the agent's packets do not leave as intended: an event cannot break their egress then."""
    protocol = "icmp" if "icmp" in resolved.intent.probe.protocols else resolved.intent.probe.protocols[0]
    packets = traffic.agent(protocol)
    left = left_by(packets, resolved.egress_interfaces)
    if set(left) != {resolved.uplink}:
        expect.not_run(
            "the agent's packets do not leave as intended before the event (EGRESS-01): "
            + departures_text(left, packets.sent)
        )


def _evidence(disruption_result: DisruptionResult) -> list[Evidence]:
    states = [StateEvidence(title=f"rules and routes {_when(state.moment)}", lines=state.lines or ["none"])
              for state in disruption_result.states]  # fmt: skip
    return [disruption_result.timeline, *states, *disruption_result.failed_commands]


def _when(moment: str) -> str:
    return f"{moment} the event" if moment in ("before", "after") else f"after: {moment}"
