"""The way of the answers through the host, by the model."""

from __future__ import annotations

from viacheck.analysis.loss import loss_text, loss_verdict
from viacheck.analysis.paths import PathTracer, probe_traffic
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS, ResolvedIntent
from viacheck.analysis.sightings import answers_by_other_interface, answers_seen, departures
from viacheck.analysis.traced_path import Path, PathEnd
from viacheck.model.check_evidence import LossVerdict, PacketsEvidence
from viacheck.model.intent import TransportProtocol
from viacheck.model.intent_values import share
from viacheck.model.measurements import TrafficMeasurements

TO_GATEWAY = "gateway"
"""The name of a bridged agent's pings to its gateway among the measured packets."""


def misrouted_answer(resolved: ResolvedIntent) -> Path | None:
    """Return the path of a probe that leaves as intended, and whose answer the host sends elsewhere; None without."""
    tracer = PathTracer(resolved)
    for protocol in resolved.intent.probe.protocols:
        path = tracer.trace(probe_traffic(resolved, protocol))
        if path.end is PathEnd.LEAVES and path.egress == {resolved.uplink} and path.misrouted is not None:
            return path
    return None


def expiring_path(resolved: ResolvedIntent) -> Path | None:
    """Return the path of a probe whose TTL ends beyond the uplink, or whose answer's TTL ends here; None without."""
    tracer = PathTracer(resolved)
    for protocol in resolved.intent.probe.protocols:
        path = tracer.trace(probe_traffic(resolved, protocol))
        if path.end is PathEnd.LEAVES and (path.expires_by or path.answer_expires_by) is not None:
            return path
    return None


def answers_come_in_by(resolved: ResolvedIntent, traffic: TrafficMeasurements) -> str | None:
    """Return the egress interface by which answers came in to probes that left by the uplink.

    None where all of them came in by the uplink. A snapshot of an earlier run holds what its packets showed.
    """
    for packets in traffic.packets.values():
        astray = answers_by_other_interface(packets, resolved.uplink)
        for name in resolved.egress_interfaces:
            if name in astray:
                return name
    return resolved.snapshot.answers_by if not traffic.packets else None


def silent_beyond(resolved: ResolvedIntent, traffic: TrafficMeasurements) -> tuple[str, ...]:
    """Return the interfaces, but the uplinks of the intent, by which probes left and no answer came in: tunnels, often.

    A snapshot of an earlier run holds what its packets showed.
    """
    if not traffic.packets:
        return resolved.snapshot.silent_beyond
    others = [name for name in resolved.egress_interfaces if name not in resolved.intent.uplinks]
    measured = [packets for name, packets in traffic.packets.items() if name in PROTOCOL_NUMBERS]
    return tuple(
        name
        for name in others
        if any(departures(packets, name) for packets in measured)
        and not any(answers_seen(packets, name) for packets in measured)
    )


def lossy_probes(resolved: ResolvedIntent, traffic: TrafficMeasurements) -> dict[str, PacketsEvidence]:
    """Return the probes of which more than the intent allows had no answer, and some had one, by their name."""
    allowed = share(resolved.intent.probe.loss_allowed)
    return {
        name: packets
        for name in (*PROTOCOL_NUMBERS, TO_GATEWAY)
        if (packets := traffic.packets.get(name)) is not None
        and packets.answered
        and loss_verdict(packets, allowed) is LossVerdict.TOO_MUCH
    }


def answers_lost(resolved: ResolvedIntent, traffic: TrafficMeasurements) -> str | None:
    """Return the loss of each protocol's probes, and how many of them and of their answers were seen on the uplink.

    None where it is no more than the intent allows. A snapshot of an earlier run holds what its packets showed.
    """
    if not traffic.packets:
        return resolved.snapshot.answers_lost
    return "; ".join(_loss_by_place(resolved, *lossy) for lossy in lossy_probes(resolved, traffic).items()) or None


def lost_beyond_host(resolved: ResolvedIntent, traffic: TrafficMeasurements) -> str | None:
    """Return the same; None where the host itself loses answers, which come in on the uplink and reach no agent."""
    for packets in lossy_probes(resolved, traffic).values():
        if len(answers_seen(packets, resolved.uplink)) > packets.answered:
            return None
    return answers_lost(resolved, traffic)


def _loss_by_place(resolved: ResolvedIntent, name: str, packets: PacketsEvidence) -> str:
    assert packets.loss is not None
    left = {probe.probe for probe in departures(packets, resolved.uplink)}
    what = "pings to the gateway" if name == TO_GATEWAY else name
    return (
        f"{what}: {loss_text(packets.loss)}; {len(left)} probes left by {resolved.uplink}, "
        f"{len(answers_seen(packets, resolved.uplink))} answers came in on it"
    )


def strict_reverse_path(resolved: ResolvedIntent, interface: str) -> bool:
    """Return whether an interface drops packets to whose source it would not reply (RFC 3704).

    The larger of the two sysctls counts: that of all interfaces and its own.
    """
    sysctls = resolved.snapshot.host.sysctls
    return max(int(sysctls.get(f"net/ipv4/conf/{name}/rp_filter", "0")) for name in ("all", interface)) == 1


def untracked_answers(resolved: ResolvedIntent) -> dict[TransportProtocol, Path]:
    """Return the paths of probes whose answers conntrack does not see, so that their NAT is not reversed."""
    tracer = PathTracer(resolved)
    paths = {protocol: tracer.trace(probe_traffic(resolved, protocol)) for protocol in resolved.intent.probe.protocols}
    return {protocol: path for protocol, path in paths.items() if path.answer_untracked_by is not None}


def unknown_answer_route(resolved: ResolvedIntent, protocol: TransportProtocol) -> str:
    """Return why the routing model cannot follow the answers of one protocol, as in a VRF; empty where it can."""
    path = PathTracer(resolved).trace(probe_traffic(resolved, protocol))
    unknown = any(hop.stage == "route" and hop.model == "unknown" for hop in path.answer)
    return path.answer_reason if unknown else ""
