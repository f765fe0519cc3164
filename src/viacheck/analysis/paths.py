"""The path of one packet of the agent: from the agent's own routing to the wire, and of its answer back to the agent.

The attachment is resolved from what the kernel says of the agent's interface (its peer, its parent), never from what
the intent says. Every hop is decided by the model; a hop that the model cannot evaluate is unknown, and so is the path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from viacheck.analysis.bridged_frames import CALLS_IPTABLES, bridge_passages
from viacheck.analysis.packet_filter.conditions import FilteredPacket
from viacheck.analysis.packet_filter.evaluate import (
    Translation,
    after_prerouting,
    destination_nat,
    forwarding,
    mark_of_flow,
    source_nat,
)
from viacheck.analysis.packet_filter.replica_filter import translated_port
from viacheck.analysis.path_hops import deciders, hop, nat_text, route_hop
from viacheck.analysis.resolved_intent import ON_PARENT, PROTOCOL_NUMBERS, ResolvedIntent
from viacheck.analysis.routing.decision import Decision
from viacheck.analysis.routing.model import RoutingModel
from viacheck.analysis.routing.packet import Packet
from viacheck.model.intent import TransportProtocol
from viacheck.model.path import PathHop
from viacheck.model.snapshot import Family, Link

TUNNEL_KINDS = frozenset({"tun", "wireguard", "ipip", "gre", "sit", "vti", "xfrm", "ppp", "geneve", "vxlan"})
"""Kinds of interfaces behind which the agent's own packets continue inside other packets."""


class PathEnd(StrEnum):
    """Where the path of a packet out of the agent ends."""

    LEAVES = "leaves"
    LOCAL = "local"
    """Delivered to the agent itself or to the host."""
    TUNNEL = "tunnel"
    """Enters a tunnel inside the agent's namespace."""
    DROPPED = "dropped"
    NO_ROUTE = "no-route"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """One packet of the agent, as the agent's process sends it."""

    destination: str
    protocol: int | None = None
    dport: int | None = None
    source: str | None = None
    """An address of the agent; None: the agent's routing chooses."""
    device: str | None = None
    """The agent's interface that the socket is bound to."""

    @property
    def family(self) -> Family:
        """The address family of the packet."""
        return 6 if ":" in self.destination else 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """The path of a packet out, and of its answer back."""

    traffic: Traffic
    end: PathEnd
    out: tuple[PathHop, ...]
    egress: frozenset[str] = frozenset()
    """The host's interfaces by which it leaves; several where the choice depends on the flow."""
    source: str | None = None
    """The source address on the wire."""
    gateway: str | None = None
    destination: str | None = None
    """The destination address on the wire, where the host's NAT changes it."""
    reason: str = ""
    """The reason for the end: the rule, route or filter that decides."""
    answer: tuple[PathHop, ...] = ()
    answer_returns: bool | None = None
    """Whether the answer reaches the agent; None where the model cannot say, or no answer is expected."""
    answer_reason: str = ""
    misrouted: Decision | None = None
    """The host's look-up for the answer, where it does not lead to the agent."""

    @property
    def egress_interface(self) -> str | None:
        """The host's interface by which it leaves; None where it does not leave, or depends on the flow."""
        return next(iter(self.egress)) if self.end is PathEnd.LEAVES and len(self.egress) == 1 else None

    @property
    def depends_on_flow(self) -> bool:
        """Whether different flows of the class leave by different interfaces."""
        return len(self.egress) > 1


def probe_traffic(resolved: ResolvedIntent, protocol: TransportProtocol) -> Traffic:
    """Return the packet of a probe of one protocol."""
    port = None if protocol == "icmp" else resolved.intent.probe.port
    return Traffic(destination=resolved.target, protocol=PROTOCOL_NUMBERS[protocol], dport=port)


@dataclass
class PathTracer:
    """Traces packets through one host, whose models are indexed once."""

    resolved: ResolvedIntent
    answers: bool = True
    """Whether the answers are traced as well."""

    @cached_property
    def _agent_model(self) -> RoutingModel | None:
        agent = self.resolved.snapshot.agent
        return RoutingModel(agent) if agent is not None else None

    def trace(self, traffic: Traffic) -> Path:
        """Return the path of one packet and of its answer.

        Raises:
            ValueError: when an address of the traffic is invalid.
        """
        hops: list[PathHop] = []
        if self._agent_model is None:
            hops.append(hop("agent", None, "route", None, "unknown"))
            return Path(
                traffic=traffic, end=PathEnd.UNKNOWN, out=tuple(hops), reason="the agent's routing is not known"
            )
        packet = Packet(
            source=traffic.source, destination=traffic.destination, oif=traffic.device, protocol=traffic.protocol,
            dport=traffic.dport,
        )  # fmt: skip
        decision = self._agent_model.decide(packet)
        hops.append(route_hop("agent", decision))
        if (ended := _undelivered(decision, "the agent's")) is not None:
            return Path(traffic=traffic, end=ended[0], out=tuple(hops), reason=ended[1])
        agent = self.resolved.snapshot.agent
        assert agent is not None
        interfaces = {exit_.interface for exit_ in decision.exits}
        if len(interfaces) > 1:
            reason = f"the agent's route {decision.route} chooses among interfaces by flow"
            return Path(traffic=traffic, end=PathEnd.UNKNOWN, out=tuple(hops), reason=reason)
        link = agent.link(decision.interface or "")
        traffic = replace(traffic, source=decision.source or traffic.source)
        if link is None:
            return Path(traffic=traffic, end=PathEnd.UNKNOWN, out=tuple(hops), reason="its interface is not known")
        return self._attached(traffic, link, decision, hops)

    def _attached(self, traffic: Traffic, link: Link, decision: Decision, hops: list[PathHop]) -> Path:
        """Continue behind the agent's interface."""
        if self.resolved.shares_host_network:
            hops.append(hop("wire", link.name, "link", None, f"leaves by {link.name}"))
            return Path(
                traffic=traffic, end=PathEnd.LEAVES, out=tuple(hops), egress=frozenset({link.name}),
                source=decision.source, gateway=decision.gateway,
                reason=f"the agent shares the host's network: {'; '.join(deciders(decision))}",
            )  # fmt: skip
        if link.kind in ON_PARENT:
            return self._on_parent(traffic, link, decision, hops)
        if link.kind == "veth":
            arriving = self._arrival(link)
            if arriving is None:
                reason = f"the other end of the agent's {link.name} is not on this host"
                return Path(traffic=traffic, end=PathEnd.UNKNOWN, out=tuple(hops), reason=reason)
            if (uplink := self._bridged_to(arriving, decision)) is not None:
                if (dropped := self._dropped_on(arriving, traffic)) is not None:
                    hops.append(hop("host", arriving, "forward", dropped, "dropped"))
                    return Path(traffic=traffic, end=PathEnd.DROPPED, out=tuple(hops), reason=dropped)
                hops.append(hop("wire", uplink, "link", f"bridge {arriving}", f"leaves by {uplink}"))
                return Path(
                    traffic=traffic, end=PathEnd.LEAVES, out=tuple(hops), egress=frozenset({uplink}),
                    source=traffic.source, gateway=decision.gateway, reason=f"the agent is a port of {arriving}",
                )  # fmt: skip
            unanswered = self._unanswered_arp(traffic, arriving, link, decision)
            if unanswered is not None:
                hops.append(hop("host", arriving, "link", unanswered, "no ARP answer"))
                reason = f"the host does not answer the agent's ARP request for {decision.gateway}: {unanswered}"
                return Path(traffic=traffic, end=PathEnd.DROPPED, out=tuple(hops), reason=reason)
            return self._through_host(traffic, arriving, hops)
        if link.kind is not None:
            tunnel = link.kind in TUNNEL_KINDS
            hops.append(hop("agent", link.name, "link", None, f"enters {link.name}" if tunnel else "unknown"))
            reason = f"the agent's own route {decision.route} leads into {link.name} ({link.kind})"
            return Path(
                traffic=traffic, end=PathEnd.TUNNEL if tunnel else PathEnd.UNKNOWN, out=tuple(hops), reason=reason
            )
        hops.append(hop("wire", link.name, "link", None, f"leaves by {link.name}"))
        return Path(
            traffic=traffic, end=PathEnd.LEAVES, out=tuple(hops), egress=frozenset({link.name}), source=decision.source,
            gateway=decision.gateway, reason=f"{link.name} is an interface of the agent's own",
        )  # fmt: skip

    def _unanswered_arp(self, traffic: Traffic, arriving: str, link: Link, decision: Decision) -> str | None:
        """Return why the host leaves the agent's ARP request unanswered; None when it answers, or none is sent.

        The kernel answers a request only if routing accepts it as a packet for the host (arp_process, net/ipv4/arp.c):
        the same rules and reverse-path check apply to it.
        """
        gateway, agent = decision.gateway, self.resolved.snapshot.agent
        if gateway is None or traffic.family != 4 or agent is None or not self._is_hosts_own(gateway):
            return None
        permanent = any(
            entry.address == gateway and entry.interface == link.name and entry.state == "PERMANENT"
            for entry in agent.neighbours
        )
        if permanent:
            return None
        request = self.resolved.model.decide(Packet(source=traffic.source, destination=gateway, iif=arriving))
        if request.outcome == "local" or not request.certain:
            return None
        return "; ".join([*deciders(request), *([request.note] if request.note else [])]) or request.outcome

    def _on_parent(self, traffic: Traffic, link: Link, decision: Decision, hops: list[PathHop]) -> Path:
        parent = self.resolved.parent_of(link)
        if parent is None:
            reason = f"the parent of the agent's {link.name} is not on this host"
            return Path(traffic=traffic, end=PathEnd.UNKNOWN, out=tuple(hops), reason=reason)
        if self._is_hosts_own(traffic.destination):
            reason = f"{link.kind} on {parent.name} isolates the agent from its own host's {traffic.destination}"
            hops.append(hop("host", None, "link", link.kind, "dropped"))
            return Path(traffic=traffic, end=PathEnd.DROPPED, out=tuple(hops), reason=reason)
        hops.append(hop("wire", parent.name, "link", f"{link.kind} on {parent.name}", f"leaves by {parent.name}"))
        return Path(
            traffic=traffic, end=PathEnd.LEAVES, out=tuple(hops), egress=frozenset({parent.name}),
            source=decision.source, gateway=decision.gateway, answer_returns=True,
            reason=f"the agent's {link.name} is a {link.kind} on {parent.name}",
        )  # fmt: skip

    def _arrival(self, link: Link) -> str | None:
        """Return the host's interface on which packets of the agent's veth arrive: its bridge, else its other end."""
        if link.peer_index is None:
            return None
        port = self.resolved.snapshot.host.link_by_index(link.peer_index)
        return None if port is None or port.kind != "veth" else port.master or port.name

    def _bridged_to(self, bridge: str, decision: Decision) -> str | None:
        """Return the uplink behind a bridge whose frames reach the agent's gateway without the host's routing."""
        gateway = decision.gateway or decision.packet.destination
        if self._is_hosts_own(gateway):
            return None
        ports = [link.name for link in self.resolved.snapshot.host.links if link.master == bridge]
        uplinks = [name for name in self.resolved.intent.uplinks if name == bridge or name in ports]
        return uplinks[0] if uplinks else None

    def _dropped_on(self, bridge: str, traffic: Traffic) -> str | None:
        """Return the rule or policy of the forward hook that drops frames which a bridge forwards; None without one."""
        if traffic.family != 4 or traffic.source is None:
            return None
        protocols = (traffic.protocol,)
        host = self.resolved.snapshot.host
        for passage in bridge_passages(host, bridge, traffic.source, traffic.destination, protocols):
            if passage.allowed is False and passage.chain is not None:
                what = f"the rule '{passage.rule.text}'" if passage.rule is not None else "the policy"
                return f"{what} of chain {passage.chain.name} drops what {bridge} forwards ({CALLS_IPTABLES} = 1)"
        return None

    def _is_hosts_own(self, address: str) -> bool:
        return any(own.address == address for own in self.resolved.snapshot.host.addresses)

    def _through_host(self, traffic: Traffic, arriving: str, hops: list[PathHop]) -> Path:
        """Route, filter and translate the packet on the host."""
        host = self.resolved.snapshot.host
        if traffic.source is None:
            reason = "the agent has no source address for it"
            return Path(traffic=traffic, end=PathEnd.UNKNOWN, out=tuple(hops), reason=reason)
        filtered = FilteredPacket(
            family=traffic.family, source=traffic.source, destination=traffic.destination, iif=arriving, oif=None,
            protocol=traffic.protocol, dport=traffic.dport,
        )  # fmt: skip
        filtered = after_prerouting(host.packet_filter, filtered)
        mark = filtered.mark
        hops.append(hop("host", arriving, "mangle", None, "unknown" if mark is None else f"mark 0x{mark:x}"))
        if mark is None:
            reason = "the mark that prerouting sets cannot be evaluated"
            return Path(traffic=traffic, end=PathEnd.UNKNOWN, out=tuple(hops), reason=reason)
        translation = destination_nat(host.packet_filter, filtered)
        if translation.kind != "none":
            rule = translation.rule
            redirected = _with_destination(filtered, translation)
            known = "destination becomes the host's own" if translation.kind == "redirect" else "unknown"
            model = known if redirected is None else f"destination becomes {redirected.destination}"
            hops.append(hop("host", arriving, "nat", rule.text if rule else None, model))
            if translation.kind == "redirect":
                reason = f"destination NAT redirects it to the host itself: {rule.text if rule else ''}"
                return Path(traffic=traffic, end=PathEnd.LOCAL, out=tuple(hops), reason=reason)
            if redirected is None:
                reason = "destination NAT cannot be evaluated"
                return Path(traffic=traffic, end=PathEnd.UNKNOWN, out=tuple(hops), reason=reason)
            filtered = redirected
        packet = Packet(
            source=traffic.source, destination=filtered.destination, iif=arriving, mark=mark,
            protocol=traffic.protocol, dport=filtered.dport,
        )  # fmt: skip
        decision = self.resolved.model.decide(packet)
        hops.append(route_hop("host", decision))
        if not decision.certain:
            reason = "a rule has a selector that the model cannot evaluate"
            return Path(traffic=traffic, end=PathEnd.UNKNOWN, out=tuple(hops), reason=reason)
        if (ended := _undelivered(decision, "the host's")) is not None:
            return Path(traffic=traffic, end=ended[0], out=tuple(hops), reason=ended[1])
        return self._filtered(traffic, arriving, filtered, decision, hops)

    def _filtered(
        self, traffic: Traffic, arriving: str, filtered: FilteredPacket, decision: Decision, hops: list[PathHop]
    ) -> Path:
        """Apply the forward hook and source NAT for each exit; several exits must end alike."""
        host = self.resolved.snapshot.host
        sources: set[str | None] = set()
        for exit_ in decision.exits:
            packet = replace(filtered, oif=exit_.interface)
            passage = forwarding(host.packet_filter, packet)
            decider = (
                passage.rule.text if passage.rule else f"policy of {passage.chain.name}" if passage.chain else None
            )
            if passage.allowed is not True:
                model = "unknown" if passage.allowed is None else "dropped"
                hops.append(hop("host", exit_.interface, "forward", decider, model))
                end = PathEnd.UNKNOWN if passage.allowed is None else PathEnd.DROPPED
                reason = f"the forward hook: {decider or 'not readable'}"
                egress = decision.interfaces if end is PathEnd.UNKNOWN else frozenset()
                return Path(traffic=traffic, end=end, out=tuple(hops), egress=egress, reason=reason)
            hops.append(hop("host", exit_.interface, "forward", decider, "accepted"))
            translation = source_nat(host.packet_filter, packet)
            if translation.kind == "unknown":
                hops.append(hop("host", exit_.interface, "source-nat", None, "unknown"))
                reason = "source NAT cannot be evaluated"
                return Path(
                    traffic=traffic, end=PathEnd.UNKNOWN, out=tuple(hops), egress=decision.interfaces, reason=reason
                )
            source = {
                "none": traffic.source,
                "snat": translation.address,
                "masquerade": self.resolved.uplink_address(exit_.interface, traffic.family),
            }[translation.kind]
            sources.add(source)
            text = translation.rule.text if translation.rule else None
            hops.append(hop("host", exit_.interface, "source-nat", text, f"source {source}"))
            hops.append(hop("wire", exit_.interface, "link", None, f"leaves by {exit_.interface}"))
        by = f"rule {decision.rule}, " if decision.rule is not None else ""
        path = Path(
            traffic=traffic, end=PathEnd.LEAVES, out=tuple(hops), egress=decision.interfaces,
            source=sources.pop() if len(sources) == 1 else None, gateway=decision.gateway,
            destination=filtered.destination if filtered.destination != traffic.destination else None,
            reason=f"{nat_text(hops)}{by}route {decision.route}",
        )  # fmt: skip
        if len(decision.interfaces) != 1 or not self.answers:
            return path
        return self._answered(path, arriving, packet)

    def _answered(self, path: Path, arriving: str, sent: FilteredPacket) -> Path:
        """Trace the answer: it arrives where the packet left, conntrack reverses NAT, and the host routes it.

        Args:
            path: of the packet.
            arriving: the interface by which the packet came from the agent.
            sent: the packet as the forward hook sees it.
        """
        (uplink,) = path.egress
        host, traffic = self.resolved.snapshot.host, path.traffic
        assert traffic.source is not None
        hops = [hop("wire", uplink, "link", None, f"arrives by {uplink}")]
        translated = traffic.source != path.source
        # Conntrack reverses NAT after these chains: until then the answer is one to the translated source, which is
        # one of several where a rule translates to a range.
        destination = path.source if path.source and "-" not in path.source else traffic.source
        reply = FilteredPacket(
            family=traffic.family, source=sent.destination, destination=destination, iif=uplink, oif=None,
            protocol=traffic.protocol, sport=sent.dport, ctmark=mark_of_flow(host.packet_filter, sent),
            ctstate="established",
        )  # fmt: skip
        reply = replace(after_prerouting(host.packet_filter, reply), destination=traffic.source)
        mark = reply.mark
        if mark is None:
            hops.append(hop("host", uplink, "mangle", None, "unknown"))
            return replace(path, answer=tuple(hops), answer_reason="the answer's mark cannot be evaluated")
        if translated:
            hops.append(hop("host", uplink, "nat", None, f"destination becomes {traffic.source}"))
        decision = self.resolved.model.decide(
            Packet(
                source=sent.destination,
                destination=traffic.source,
                iif=uplink,
                mark=mark,
                protocol=traffic.protocol,
                sport=sent.dport,
            )
        )
        hops.append(route_hop("host", decision))
        if not decision.certain:
            return replace(path, answer=tuple(hops), answer_reason="a rule cannot be evaluated for the answer")
        if decision.outcome != "unicast" or decision.interfaces != {arriving}:
            reason = f"the host's look-up for the answer: {decision}"
            return replace(
                path, answer=tuple(hops), answer_returns=False, answer_reason=reason,
                misrouted=decision if decision.outcome != "martian" else None,
            )  # fmt: skip
        passage = forwarding(host.packet_filter, replace(reply, oif=arriving))
        decider = passage.rule.text if passage.rule else f"policy of {passage.chain.name}" if passage.chain else None
        model = {True: "accepted", False: "dropped", None: "unknown"}[passage.allowed]
        hops.append(hop("host", arriving, "forward", decider, model))
        reason = "" if passage.allowed else f"the forward hook for the answer: {decider or 'not readable'}"
        return replace(path, answer=tuple(hops), answer_returns=passage.allowed, answer_reason=reason)


def _with_destination(packet: FilteredPacket, translation: Translation) -> FilteredPacket | None:
    """Return a packet after destination NAT; None when that cannot be evaluated, or is one of several addresses."""
    rule, address = translation.rule, translation.address or packet.destination
    if translation.kind != "dnat" or rule is None or "-" in address:
        return None
    return replace(packet, destination=address, dport=translated_port(rule) or packet.dport)


def _undelivered(decision: Decision, whose: str) -> tuple[PathEnd, str] | None:
    """Return the end of a packet that routing does not send on, and why; None for a packet that is sent on."""
    if decision.outcome == "unicast":
        return None
    by = "; ".join(deciders(decision)) or "no route"
    if decision.outcome in ("local", "broadcast", "multicast", "anycast"):
        return PathEnd.LOCAL, f"{whose} routing delivers it locally: {by}"
    note = f" ({decision.note})" if decision.note else ""
    return PathEnd.NO_ROUTE, f"{whose} routing: {decision.outcome}, {by}{note}"
