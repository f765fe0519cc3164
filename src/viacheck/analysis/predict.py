"""Predicts where the agent's packets leave: routing, packet filter and source NAT over a snapshot, without a packet.

A prediction proves nothing. It is useful where it shows that packets cannot leave as intended.
"""

from __future__ import annotations

from dataclasses import dataclass

from viacheck.analysis.agent_network import no_own_route, own_path
from viacheck.analysis.explain import explain
from viacheck.analysis.explanation_text import passage_text
from viacheck.analysis.paths import PathTracer, probe_traffic
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS, ResolvedIntent
from viacheck.analysis.traced_path import PathEnd, Traffic
from viacheck.model.intent import TransportProtocol
from viacheck.model.path import IntendedEgress, PathClass, PathEvidence


@dataclass(frozen=True, slots=True)
class Prediction:
    """Where packets would leave."""

    as_intended: bool | None
    """None when it cannot be predicted."""
    text: str
    """``leaves by wlan0, source 10.10.50.9``, for people."""


def predict(resolved: ResolvedIntent, protocol: TransportProtocol) -> Prediction:
    """Predict where the agent's packets of one protocol to the probe target leave."""
    if resolved.bridged and resolved.snapshot.agent is None:
        return Prediction(None, "not predicted: the state of the agent's namespace is not known (HOST-07)")
    if not resolved.bridged and resolved.agent_source is None:
        return Prediction(None, "not predicted: the agent's subnet is not known (HOST-07)")
    port = None if protocol == "icmp" else resolved.intent.probe.port
    if resolved.bridged or resolved.sent_by_host:
        return _by_own_routing(resolved, probe_traffic(resolved, protocol))
    if (refused := no_own_route(resolved)) is not None:
        return Prediction(False, f"leaves by no interface: {refused}")
    drawn = own_path(resolved, protocol)
    if (drawn.random_rules or drawn.depends_on_packet) and drawn.depends_on_flow:
        return Prediction(False, f"leaves by {drawn.egress_text}, depending on the packet: {drawn.reason}")
    explanation = explain(resolved, resolved.target, PROTOCOL_NUMBERS[protocol], port)
    decision = resolved.agent_decision(protocol)
    if not decision.certain:
        return Prediction(None, "not predicted: the model skipped a rule it cannot evaluate")
    if len(decision.interfaces) > 1:
        return Prediction(False, f"leaves by {' or '.join(sorted(decision.interfaces))}")
    if explanation.decision.outcome != "unicast" or explanation.uplink is None:
        return Prediction(False, f"leaves by no interface: {explanation.decision.outcome}")
    passage = explanation.traversal.passage if explanation.traversal is not None else None
    if passage is not None and passage.allowed is False:
        return Prediction(False, f"leaves by no interface: {passage_text(passage)}")
    if drawn.end is PathEnd.DROPPED:
        return Prediction(False, f"leaves by no interface: {drawn.reason}")
    if drawn.destination is not None:
        return Prediction(drawn.egress == {resolved.uplink}, f"leaves by {drawn.egress_text}: {drawn.reason}")
    source = f", source {explanation.source_on_wire}" if explanation.source_on_wire else ""
    text = f"leaves by {explanation.uplink}{source}"
    if explanation.uplink != resolved.uplink:
        return Prediction(False, text)
    if passage is not None and passage.allowed is None:
        return Prediction(True, f"{text}, unless a rule drops it that cannot be evaluated")
    return Prediction(True, text)


def predicted_path(resolved: ResolvedIntent, protocol: TransportProtocol) -> PathEvidence:
    """Return the path of the agent's probe by the model, as evidence."""
    path = own_path(resolved, protocol)
    as_intended = path.end is PathEnd.LEAVES and path.all_egress == {resolved.uplink}
    return PathEvidence(
        traffic_class=PathClass(to=path.traffic.destination, protocol=protocol, source=path.traffic.source),
        intended=IntendedEgress(uplink=resolved.uplink),
        out=list(path.out),
        departs_at=None if as_intended or not path.out else len(path.out) - 1,
    )


def _by_own_routing(resolved: ResolvedIntent, traffic: Traffic) -> Prediction:
    """Predict by the agent's own routing and its real attachment, which alone decide for an agent without NAT."""
    path = PathTracer(resolved, answers=False).trace(traffic)
    if path.end is PathEnd.UNKNOWN:
        return Prediction(None, f"not predicted: {path.reason}")
    if path.end is not PathEnd.LEAVES:
        return Prediction(False, f"leaves by no interface: {path.reason}")
    text = f"leaves by {path.egress_text}" + (f", source {path.source}" if path.source else "")
    if path.egress != {resolved.uplink}:
        return Prediction(False, f"{text}: {path.reason}")
    if resolved.bridged and path.source != resolved.agent_address:
        return Prediction(False, f"{text}, not the agent's own {resolved.agent_address}: {path.reason}")
    return Prediction(True, text)


def other_gateway(resolved: ResolvedIntent) -> str | None:
    """Return the router that the agent's own routing sends its packets to in place of the intended gateway.

    None where it is the intended one, or the agent does not choose the gateway.
    """
    if not resolved.bridged or resolved.snapshot.agent is None:
        return None
    path = PathTracer(resolved, answers=False).trace(Traffic(destination=resolved.target))
    if path.end is not PathEnd.LEAVES or path.source != resolved.agent_address:
        return None
    return path.gateway if path.gateway not in (None, resolved.lan_gateway) else None
