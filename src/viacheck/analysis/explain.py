"""Explains where a packet of the agent goes: every rule, the table, the route, filter and NAT, the wire, and what if.

Pure reasoning over a situation, so it explains a live host, a lab and a saved bundle alike.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from viacheck.analysis.packet_filter.evaluate import FilteredPacket, forwarding, source_nat
from viacheck.analysis.packet_filter.filter_trace import rules_met
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.routing.model import Decision, Packet, RoutingModel, without_interface
from viacheck.model.intent import NatAttach
from viacheck.model.result import DecisionStep
from viacheck.model.snapshot import NetworkState


class Explanation(BaseModel):
    """The decision for one packet, step by step."""

    question: str
    decided_in: str
    """``host``, or ``agent`` for a bridged agent, whose packets the host does not route."""
    steps: list[DecisionStep]
    outcome: str
    table: int | None
    route: str | None
    runners_up: list[str]
    forward: str | None
    """What the packet filter does with it on its way through the host; None where it is not forwarded. What is dropped
    comes to no NAT and to no wire."""
    forward_rules: list[str] = []
    """The rules of the forward hook that it comes to, one after the other, and whether each is for it."""
    nat: str | None
    nat_rules: list[str] = []
    """The same of source NAT."""
    uplink: str | None
    gateway: str | None
    source_on_wire: str | None
    without: dict[str, str]
    """What would happen with each uplink away."""
    kernel: str | None = None
    """The kernel's own answer, where it could be asked."""
    agree: bool | None = None


def explain(
    resolved: ResolvedIntent,
    destination: str,
    protocol: int | None = None,
    dport: int | None = None,
    sender: str = "agent",
) -> Explanation:
    """Explain where a packet goes.

    Args:
        resolved: the host that it crosses.
        destination: an IPv4 or IPv6 address.
        protocol: IP protocol number; None for any.
        dport: destination port; None for any.
        sender: ``agent``, ``host``, or an address that stands for a sender behind the agent's bridge.
    """
    packet = packet_from(resolved, destination, protocol, dport, sender)
    in_agent = sender == "agent" and not isinstance(resolved.intent.agent.attach, NatAttach)
    state = resolved.snapshot.agent if in_agent else resolved.snapshot.host
    decision = RoutingModel(state or NetworkState()).decide(packet)
    way = decision.interface
    forward, nat, source = _through_the_filter(resolved, packet, decision) if not in_agent else (None, None, None)
    filtered = _filtered_packet(packet, decision) if not in_agent else None
    filters = resolved.snapshot.host.packet_filter
    evidence = decision.evidence()
    return Explanation(
        question=str(packet),
        decided_in="agent" if in_agent else "host",
        steps=evidence.steps,
        outcome=decision.outcome,
        table=decision.table,
        route=str(decision.route) if decision.route else None,
        runners_up=[str(route) for route in decision.runners_up],
        forward=forward,
        forward_rules=list(map(str, rules_met(filters, filtered, "forward", "filter"))) if filtered else [],
        nat=nat,
        nat_rules=list(map(str, rules_met(filters, filtered, "postrouting", "nat"))) if filtered else [],
        uplink=_parent_of(resolved) if in_agent and decision.delivered else way,
        gateway=decision.gateway,
        source_on_wire=source or decision.source,
        without=_without(resolved, packet) if not in_agent else _without_parent(resolved),
    )


def packet_from(
    resolved: ResolvedIntent, destination: str, protocol: int | None, dport: int | None, sender: str
) -> Packet:
    """The packet that is asked about, as the deciding namespace sees it."""
    values: dict[str, Any] = {"destination": destination, "protocol": protocol, "dport": dport}
    if sender == "host" or (sender == "agent" and not isinstance(resolved.intent.agent.attach, NatAttach)):
        return Packet(source=None, **values)
    source = sender
    if sender == "agent":
        source = (resolved.agent_address6 if ":" in destination else resolved.agent_source) or ""
    return Packet(source=source or None, iif=resolved.bridge, mark=resolved.agent_mark, **values)


def _parent_of(resolved: ResolvedIntent) -> str | None:
    attach = resolved.intent.agent.attach
    return None if isinstance(attach, NatAttach) else attach.parent


def _through_the_filter(
    resolved: ResolvedIntent, packet: Packet, decision: Decision
) -> tuple[str | None, str | None, str | None]:
    """What forward and NAT rules make of a packet, and the source that it has on the wire."""
    filtered = _filtered_packet(packet, decision)
    if filtered is None or filtered.oif is None:
        return None, None, None
    filters = resolved.snapshot.host.packet_filter
    passage = forwarding(filters, filtered)
    by = f" by {passage.chain.name}: {passage.rule.text if passage.rule else 'policy'}" if passage.chain else ""
    forward = {True: "accepted", False: "dropped", None: "cannot be told from the rules' text"}[passage.allowed] + by
    translated = source_nat(filters, filtered)
    rule = f" by {translated.rule.text}" if translated.rule else ""
    if translated.kind == "masquerade":
        return forward, f"masquerade{rule}", resolved.uplink_address(filtered.oif, filtered.family)
    if translated.kind == "snat":
        return forward, f"source becomes {translated.address}{rule}", translated.address
    return forward, "none" if translated.kind == "none" else f"cannot be told{rule}", packet.source


def _filtered_packet(packet: Packet, decision: Decision) -> FilteredPacket | None:
    """The packet as the filter's chains see it; None where it is not forwarded."""
    if decision.outcome != "unicast" or decision.interface is None or packet.source is None:
        return None
    return FilteredPacket(
        family=6 if ":" in packet.destination else 4, source=packet.source, destination=packet.destination,
        iif=packet.iif, oif=decision.interface, protocol=packet.protocol, dport=packet.dport, mark=packet.mark,
    )  # fmt: skip


def _without(resolved: ResolvedIntent, packet: Packet) -> dict[str, str]:
    """By uplink, what becomes of the packet while that uplink is down."""
    found = {}
    for name in resolved.intent.uplinks:
        decision = RoutingModel(without_interface(resolved.snapshot.host, name)).decide(packet)
        forward, _nat, source = _through_the_filter(resolved, packet, decision)
        found[name] = str(decision)
        if forward is not None and not forward.startswith("accepted"):
            found[name] += f"; forward: {forward}"
        elif source is not None and source != decision.source:
            found[name] += f", on the wire with source {source}"
    return found


def _without_parent(resolved: ResolvedIntent) -> dict[str, str]:
    """The same for a bridged agent, which has no way but its parent."""
    parent = _parent_of(resolved)
    words = {True: "nothing leaves: the agent sits on it", False: "no difference: the agent does not sit on it"}
    return {name: words[name == parent] for name in resolved.intent.uplinks}
