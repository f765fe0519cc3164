"""Causes of packets and answers that are lost on the host itself: a TTL that ends, a rule that drops a part of them."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.local_networks import drops_of_own
from viacheck.analysis.nat_facts import Direction, drops_on_the_way
from viacheck.analysis.packet_filter.evaluate import Passage
from viacheck.analysis.paths import PathTracer, probe_traffic
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS, ResolvedIntent
from viacheck.analysis.sightings import answers_seen, departures, left_by
from viacheck.analysis.traced_path import PathEnd
from viacheck.diagnosis.accept_remedy import accept_before
from viacheck.diagnosis.cause import ANSWERS, EGRESS, Cause
from viacheck.diagnosis.remedy import rule_removal
from viacheck.model.check_evidence import PacketsEvidence
from viacheck.model.intent import TransportProtocol
from viacheck.model.measurements import Measurements


def ttl_expires(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find a rule that lowers the TTL of the agent's packets, or of the answers, so that they expire."""
    tracer = PathTracer(resolved)
    for protocol in resolved.intent.probe.protocols:
        path = tracer.trace(probe_traffic(resolved, protocol))
        packets = measurements.traffic.packets.get(protocol)
        by, is_answered = path.expires_by or path.answer_expires_by, packets is not None and packets.answered
        if by is None or is_answered:
            continue
        chain, rule = by
        what = f"the rule '{rule.text}' of chain {chain.name} of table {chain.table} ({chain.backend})"
        ends = "end on this host, which drops them instead of forwarding them"
        sentence = f"{what} lowers the TTL of the answers, so that they {ends}"
        reported_by, also_affects = "EGRESS-03", ANSWERS
        if path.end is PathEnd.DROPPED:
            sentence = f"{what} lowers the TTL of the agent's packets, so that they {ends}"
            reported_by, also_affects = "EGRESS-01", EGRESS | {"ROUTE-06"}
        elif path.expires_by is not None:
            sentence = (
                f"{what} lowers the TTL of the agent's packets to {path.ttl}: they leave by {resolved.uplink}, and the "
                "next router drops them"
            )
        yield Cause("TTL_EXPIRES", reported_by, sentence, rule_removal(chain, rule), also_affects)
        return


def filter_may_drop(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find packets or answers that this host loses, and the rules on their way that may drop them.

    The model cannot say whether such a rule drops a packet: its condition is one that it cannot evaluate, or holds for
    a part of the packets.
    """
    measured: dict[TransportProtocol, PacketsEvidence] = {
        protocol: measurements.traffic.packets[protocol]
        for protocol in PROTOCOL_NUMBERS
        if protocol in measurements.traffic.packets
    }
    elsewhere = set(resolved.egress_interfaces) - {resolved.uplink}
    if any(left_by(packets, elsewhere) for packets in measured.values()):
        return
    for direction, reported_by, also_affects in (
        (Direction.OUT, "EGRESS-01", EGRESS | {"HOST-04", "ROUTE-06"}),
        (Direction.ANSWER, "EGRESS-03", ANSWERS | {"HOST-04"}),
    ):
        lost = {
            protocol: numbers
            for protocol, packets in measured.items()
            if (numbers := _through_host(resolved, direction, packets)) is not None
        }
        drops = drops_on_the_way(resolved, direction, lost)
        if not drops:
            continue
        came, went = {
            Direction.OUT: ("were sent", f"left by {resolved.uplink}"),
            Direction.ANSWER: (f"came in on {resolved.uplink}", "reached the agent"),
        }[direction]
        figures = ", ".join(f"{protocol}: {of} {came}, {some} {went}" for protocol, (of, some) in lost.items())
        remedy = accept_before(resolved, direction, tuple(lost), drops)
        yield Cause(
            "FORWARD_DROPPED", reported_by,
            f"this host loses the agent's {direction} ({figures}); on their way may drop them: "
            f"{'; '.join(_text(hook, drop) for hook, drop in drops)}",
            remedy, also_affects - {reported_by},
            decision=None if remedy.steps else "except the agent's traffic from the rule that drops it",
        )  # fmt: skip
        return


def own_address_silent(resolved: ResolvedIntent, _measurements: Measurements) -> Iterator[Cause]:
    """Find a rule of the input hook that drops the agent's pings to the host's own address on the bridge."""
    drops = drops_of_own(resolved)
    if drops:
        yield Cause(
            "FORWARD_DROPPED", "ROUTE-06",
            f"the agent's pings to this host's address on {resolved.bridge} are dropped by "
            f"{'; '.join(_text('input', drop) for drop in drops)}",
            decision="accept the agent's subnet there, if the agent is to reach this host",
        )  # fmt: skip


def _through_host(resolved: ResolvedIntent, direction: Direction, packets: PacketsEvidence) -> tuple[int, int] | None:
    """Return how many packets came to the host, and how many of them left it; None where none is missing."""
    if direction is Direction.OUT:
        of, some = packets.sent, len({sighting.probe for sighting in departures(packets, resolved.uplink)})
    else:
        of, some = len(answers_seen(packets, resolved.uplink)), packets.answered
    return (of, some) if some < of else None


def _text(hook: str, drop: Passage) -> str:
    assert drop.chain is not None
    what = f"the rule '{drop.rule.text}'" if drop.rule is not None else "the policy"
    return f"{what} of chain {drop.chain.name} of table {drop.chain.table} ({drop.chain.backend}, {hook})"
