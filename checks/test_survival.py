"""Survival: each event is carried out while the agent's packets are watched, those of an old flow and of new flows."""

from __future__ import annotations

from collections.abc import Sequence

from fixtures.check import check
from fixtures.expect import Expect
from viacheck.analysis.disruption_text import disruption_text, leak_text
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.sightings import departures_text, left_by
from viacheck.disruption.disruption_tests import DisruptionTests
from viacheck.disruption.event_registry import EventName, NotApplicable, NotPossible
from viacheck.disruption.runner import EgressNotAsIntended
from viacheck.model.check import CONTAINER
from viacheck.model.intent import Intent, Survivable
from viacheck.model.intent_values import seconds
from viacheck.model.measurements import DisruptionResult
from viacheck.model.result import Evidence, StateEvidence
from viacheck.packets.traffic_tests import TrafficTests

GUIDE = "NAT, step 6"


@check(
    "FLAP-01",
    "The agent's egress recovers after its uplink is set down and up",
    guide=GUIDE,
    needs="disruptive",
)
def test_it_survives_a_link_flap(
    disruptions: DisruptionTests, traffic: TrafficTests, resolved: ResolvedIntent, intent: Intent, expect: Expect
) -> None:
    _survives("link-flap", disruptions, traffic, resolved, intent, expect)


@check("FLAP-02", "The agent's egress recovers after a loss of carrier", guide=GUIDE, needs="disruptive")
def test_it_survives_a_loss_of_carrier(
    disruptions: DisruptionTests, traffic: TrafficTests, resolved: ResolvedIntent, intent: Intent, expect: Expect
) -> None:
    _survives("carrier-loss", disruptions, traffic, resolved, intent, expect)


@check(
    "FLAP-03",
    "The agent's egress recovers after ifdown and ifup, several times, and no duplicate rule is left",
    guide=GUIDE,
    needs="disruptive",
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
)
def test_nothing_leaks_while_the_uplink_is_away(
    disruptions: DisruptionTests, traffic: TrafficTests, resolved: ResolvedIntent, intent: Intent, expect: Expect
) -> None:
    others = [way for way in resolved.egress_interfaces if way != resolved.uplink]
    if not others:
        expect.not_applicable(f"{resolved.uplink} is the only way out of this host")
    _leaves_as_intended(traffic, resolved, expect)
    away: tuple[Survivable, ...] = ("link-flap", "carrier-loss", "ifupdown")
    attempts = [_attempt(event, disruptions) for event in away]
    made = [one for one in attempts if isinstance(one, DisruptionResult)]
    if not made:
        reasons = "; ".join(dict.fromkeys(one for one in attempts if isinstance(one, str)))
        expect.not_run(f"{resolved.uplink} could not be taken away: {reasons}")
    expected = f"while {resolved.uplink} is away none of the agent's packets leaves by {' or '.join(others)}"
    told = "; ".join(f"{disruption_result.title}: {leak_text(disruption_result)}" for disruption_result in made)
    evidence: list[Evidence] = [disruption_result.timeline for disruption_result in made]
    leaked = any(disruption_result.leaked for disruption_result in made)
    unproven = {
        way: why for disruption_result in made for way, why in disruption_result.unproven.items() if way in others
    }
    if not leaked and unproven:
        reasons = "; ".join(f"{way}: {why}" for way, why in unproven.items())
        expect.inconclusive(f"absence is not proven: {reasons}", expected=expected, evidence=evidence)
    judge = expect.holds if intent.egress.leak == "forbid" else expect.advises
    judge(not leaked, expected=expected, observed=told, evidence=evidence)


@check(
    "FLAP-07",
    "The agent's egress recovers after DHCP changes the uplink's address or gateway",
    guide=GUIDE,
    needs="disruptive",
)
def test_it_survives_a_change_of_its_lease(
    disruptions: DisruptionTests, traffic: TrafficTests, resolved: ResolvedIntent, intent: Intent, expect: Expect
) -> None:
    _survives("dhcp-renew", disruptions, traffic, resolved, intent, expect, also="address-change")


@check("FLAP-08", "The agent's egress recovers after a reboot", guide=GUIDE, needs="disruptive")
def test_it_survives_a_reboot(disruptions: DisruptionTests, intent: Intent, expect: Expect) -> None:
    try:
        disruption_result = disruptions.after_reboot()
    except NotApplicable as reason:
        expect.not_applicable(str(reason))
    except NotPossible as reason:
        expect.not_run(str(reason))
    _judge([disruption_result], "reboot", intent, expect)


@check("FLAP-09", "The agent's egress recovers after a restart of systemd-networkd", guide=GUIDE, needs="disruptive")
def test_it_survives_a_restart_of_networkd(
    disruptions: DisruptionTests, traffic: TrafficTests, resolved: ResolvedIntent, intent: Intent, expect: Expect
) -> None:
    _survives("networkd-restart", disruptions, traffic, resolved, intent, expect)


@check(
    "FLAP-10",
    "The agent's egress recovers after its uplink's device is recreated or renamed",
    guide=GUIDE,
    needs="disruptive",
)
def test_it_survives_a_change_of_its_device(
    disruptions: DisruptionTests, traffic: TrafficTests, resolved: ResolvedIntent, intent: Intent, expect: Expect
) -> None:
    if "device-change" not in (intent.egress.survives or ()):
        expect.not_run('skipped: add "device-change" to egress.survives')
    _survives("device-change", disruptions, traffic, resolved, intent, expect, also="rename")


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
    """The verdict on one event: a failure where the intent demands that it is survived, else an advisory.

    ``also`` is another side of the same event.
    """
    _leaves_as_intended(traffic, resolved, expect)
    try:
        made = [disruptions.through(one) for one in (event, also) if one is not None]
    except NotApplicable as reason:
        expect.not_applicable(str(reason))
    except (NotPossible, EgressNotAsIntended) as reason:
        expect.not_run(str(reason))
    _judge(made, event, intent, expect)


def _judge(made: Sequence[DisruptionResult], event: Survivable, intent: Intent, expect: Expect) -> None:
    uplink, within = intent.egress.uplink, intent.egress.recover_within
    survived = all(disruption_result.survived(seconds(within)) for disruption_result in made)
    expected = (
        f"after {' and after '.join(disruption_result.title for disruption_result in made)} the agent's packets leave by {uplink} again within "
        f"{within}, of the old flow and of new ones, and rules and routes are as before"
    )
    observed = "; ".join(
        f"{disruption_result.title}: {disruption_text(disruption_result)}" for disruption_result in made
    )
    evidence = [one for disruption_result in made for one in _evidence(disruption_result)]
    doubts = [
        f"{way}: {why}"
        for disruption_result in made
        for way, why in disruption_result.unproven.items()
        if way != uplink
    ]
    if survived and doubts:
        expect.inconclusive(
            f"{observed}; that nothing left elsewhere is not proven: {'; '.join(doubts)}",
            expected=expected,
            evidence=evidence,
        )
    judge = expect.holds if intent.egress.must_survive(event) else expect.advises
    judge(survived, expected=expected, observed=observed, evidence=evidence)


def _attempt(event: Survivable, disruptions: DisruptionTests) -> DisruptionResult | str:
    """What became of the agent's packets, or why the event was not made."""
    try:
        return disruptions.through(event)
    except (NotApplicable, NotPossible, EgressNotAsIntended) as reason:
        return str(reason)


def _leaves_as_intended(traffic: TrafficTests, resolved: ResolvedIntent, expect: Expect) -> None:
    """End the check if the agent's packets do not leave as intended: an event cannot break their egress then."""
    protocol = "icmp" if "icmp" in resolved.intent.probe.protocols else resolved.intent.probe.protocols[0]
    packets = traffic.agent(protocol)
    left = left_by(packets, resolved.egress_interfaces)
    if set(left) != {resolved.uplink}:
        expect.not_run(
            "the agent's packets do not leave as intended before anything has happened (EGRESS-01): "
            + departures_text(left, packets.sent)
        )


def _evidence(disruption_result: DisruptionResult) -> list[Evidence]:
    states = [StateEvidence(title=f"rules and routes {_when(state.moment)}", lines=state.lines or ["none"])
              for state in disruption_result.states]  # fmt: skip
    return [disruption_result.timeline, *states, *disruption_result.failed_commands]


def _when(moment: str) -> str:
    return f"{moment} the event" if moment in ("before", "after") else f"after: {moment}"
