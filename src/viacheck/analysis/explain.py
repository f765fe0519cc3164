"""Explains the path of a packet: rules, table, route, packet filter, NAT, wire, and the loss of each uplink.

It works from a resolved intent alone, so it explains a live host, a lab and a saved bundle alike. What it returns is
typed; the command that shows it makes the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from viacheck.analysis.packet_filter.conditions import FilteredPacket
from viacheck.analysis.packet_filter.evaluate import Passage, Translation, after_prerouting, forwarding, source_nat
from viacheck.analysis.packet_filter.filter_trace import RuleMet, rules_met
from viacheck.analysis.packet_filter.icmp import echo_request
from viacheck.analysis.paths import PathTracer
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.routing.model import Decision, Packet, RoutingModel
from viacheck.analysis.traced_path import Path, Traffic
from viacheck.model.filter_chains import PacketFilter
from viacheck.model.intent import NatAttach
from viacheck.model.measurements import KernelAnswer
from viacheck.model.namespace_state import NetworkState


class Agreement(StrEnum):
    """Whether the routing model and the kernel decide alike."""

    AGREE = "agree"
    DIFFER = "differ"
    NOT_ASKED = "not-asked"


class LossEffect(StrEnum):
    """The effect of an uplink's loss on a packet."""

    REROUTED = "rerouted"
    """The host decides again, without the routes by the uplink."""
    NOTHING_LEAVES = "nothing-leaves"
    """The agent sits on the uplink."""
    NO_DIFFERENCE = "no-difference"
    """The agent sits on another interface."""


@dataclass(frozen=True, slots=True)
class Traversal:
    """What the host's packet filter does to a forwarded packet."""

    passage: Passage
    translation: Translation
    source: str | None
    """The source address on the wire; None when it cannot be known."""


@dataclass(frozen=True, slots=True)
class UplinkLoss:
    """What becomes of the packet while one uplink is down."""

    effect: LossEffect
    decision: Decision | None = None
    """The routing decision, where the host decides again."""
    traversal: Traversal | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The path of one packet, step by step."""

    packet: Packet
    decided_in: Literal["host", "agent"]
    """``agent`` for a bridged agent, whose packets the host does not route."""
    decision: Decision
    traversal: Traversal | None
    """None when the packet is not forwarded. A dropped packet comes to no NAT and to no wire."""
    uplink: str | None
    losses: dict[str, UplinkLoss]
    """By uplink."""
    own_path: Path | None = None
    """The whole path of a packet that the agent's own routing decides; None where the host decides."""
    kernel: KernelAnswer | None = None
    """The kernel's own answer; None where no kernel was asked."""
    filtered: FilteredPacket | None = None
    """The packet as the host's packet filter sees it; None when it is not forwarded."""
    packet_filter: PacketFilter = field(default_factory=PacketFilter, repr=False)

    @property
    def forward_rules(self) -> list[RuleMet]:
        """The rules of the forward hook that the packet meets, in order."""
        return rules_met(self.packet_filter, self.filtered, "forward", "filter") if self.filtered else []

    @property
    def nat_rules(self) -> list[RuleMet]:
        """The rules of source NAT that the packet meets, in order."""
        return rules_met(self.packet_filter, self.filtered, "postrouting", "nat") if self.filtered else []

    @property
    def dropped(self) -> bool:
        """Whether the packet filter drops the packet for certain."""
        return self.traversal is not None and self.traversal.passage.allowed is False

    @property
    def source_on_wire(self) -> str | None:
        """The source address that the packet leaves with; None when it cannot be known."""
        if self.own_path is not None and self.own_path.source is not None:
            return self.own_path.source
        return self.traversal.source if self.traversal is not None else self.decision.source

    @property
    def gateway(self) -> str | None:
        """The gateway on the uplink."""
        return self.decision.gateway if self.own_path is None else self.own_path.gateway

    @property
    def agreement(self) -> Agreement:
        """Whether the model and the kernel decide alike."""
        if self.kernel is None:
            return Agreement.NOT_ASKED
        return Agreement.AGREE if self.decision.agrees_with(self.kernel) else Agreement.DIFFER


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
    filtered = _filtered_packet(packet, decision) if not in_agent else None
    own_path = _own_path(resolved, packet) if in_agent else None
    egress = own_path.egress_interface if own_path is not None else None
    return Explanation(
        packet=packet,
        decided_in="agent" if in_agent else "host",
        decision=decision,
        traversal=_traversal(resolved, filtered),
        uplink=egress if in_agent else decision.interface,
        losses=_losses_for_parent(resolved, egress) if in_agent else _losses(resolved, packet),
        own_path=own_path,
        filtered=filtered,
        packet_filter=resolved.snapshot.host.packet_filter,
    )


def packet_from(
    resolved: ResolvedIntent, destination: str, protocol: int | None, dport: int | None, sender: str
) -> Packet:
    """Return the packet in question, as the deciding namespace sees it."""
    values: dict[str, Any] = {"destination": destination, "protocol": protocol, "dport": dport}
    if sender == "host" or (sender == "agent" and not isinstance(resolved.intent.agent.attach, NatAttach)):
        return Packet(source=None, **values)
    source = sender
    if sender == "agent":
        source = (resolved.agent_address6 if ":" in destination else resolved.agent_source) or ""
    return Packet(source=source or None, iif=resolved.bridge, mark=_mark(resolved, source, values), **values)


def _mark(resolved: ResolvedIntent, source: str, values: Mapping[str, Any]) -> int:
    """Return the mark that the host's packet filter gives to a packet from its bridge; 0 where that is unknown."""
    if not source:
        return 0
    message_type = echo_request(values["protocol"])
    arriving = FilteredPacket(
        family=6 if ":" in values["destination"] else 4, source=source, iif=resolved.bridge, oif=None,
        icmp_type=message_type, icmp_code=None if message_type is None else 0, ttl=resolved.agent_ttl, **values,
    )  # fmt: skip
    return after_prerouting(resolved.snapshot.host.packet_filter, arriving).mark or 0


def _own_path(resolved: ResolvedIntent, packet: Packet) -> Path:
    """Return the path of a bridged agent's packet, for which its own routing and its real attachment decide."""
    traffic = Traffic(destination=packet.destination, protocol=packet.protocol, dport=packet.dport)
    return PathTracer(resolved, answers=False).trace(traffic)


def _traversal(resolved: ResolvedIntent, filtered: FilteredPacket | None) -> Traversal | None:
    """Return the effect of forward and NAT rules on a packet; None when it is not forwarded."""
    if filtered is None or filtered.oif is None:
        return None
    filters = resolved.snapshot.host.packet_filter
    translation = source_nat(filters, filtered)
    source: str | None = filtered.source
    if translation.kind == "masquerade":
        source = resolved.uplink_address(filtered.oif, filtered.family)
    elif translation.kind == "snat":
        source = translation.address
    elif translation.kind == "unknown":
        source = None
    return Traversal(forwarding(filters, filtered), translation, source)


def _filtered_packet(packet: Packet, decision: Decision) -> FilteredPacket | None:
    """Return the packet as the filter's chains see it; None when it is not forwarded."""
    if decision.outcome != "unicast" or decision.interface is None or packet.source is None:
        return None
    message_type = echo_request(packet.protocol)
    return FilteredPacket(
        family=6 if ":" in packet.destination else 4, source=packet.source, destination=packet.destination,
        iif=packet.iif, oif=decision.interface, protocol=packet.protocol, dport=packet.dport, mark=packet.mark,
        icmp_type=message_type, icmp_code=None if message_type is None else 0,
    )  # fmt: skip


def _losses(resolved: ResolvedIntent, packet: Packet) -> dict[str, UplinkLoss]:
    losses = {}
    for name in resolved.intent.uplinks:
        decision = resolved.model_without_uplink(name).decide(packet)
        traversal = _traversal(resolved, _filtered_packet(packet, decision))
        losses[name] = UplinkLoss(LossEffect.REROUTED, decision, traversal)
    return losses


def _losses_for_parent(resolved: ResolvedIntent, egress: str | None) -> dict[str, UplinkLoss]:
    """Return the same for a bridged agent, whose packets leave by its parent alone."""
    return {
        name: UplinkLoss(LossEffect.NOTHING_LEAVES if name == egress else LossEffect.NO_DIFFERENCE)
        for name in resolved.intent.uplinks
    }
