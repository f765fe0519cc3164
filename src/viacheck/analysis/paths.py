"""The path of one packet of the agent: from the agent's own routing to the wire, and of its answer back to the agent.

The attachment is resolved from what the kernel says of the agent's interface (its peer, its parent), never from what
the intent says. Every hop is decided by the model; a hop that the model cannot evaluate is unknown, and so is the path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from socket import IPPROTO_TCP

from viacheck.analysis.agent_attachment import arrival, bridged_to, dropped_on, is_hosts_own, unanswered_arp
from viacheck.analysis.packet_filter.conditions import FilteredPacket, expires, forwarded
from viacheck.analysis.packet_filter.draws import Draws
from viacheck.analysis.packet_filter.evaluate import (
    as_it_leaves,
    forwarding,
    mark_of_flow,
    prerouting,
    source_nat,
    state_of_answer,
    translated,
)
from viacheck.analysis.packet_filter.icmp import type_of_answer
from viacheck.analysis.path_hops import deciders, hop, nat_text, route_hop
from viacheck.analysis.resolved_intent import ON_PARENT, PROTOCOL_NUMBERS, ResolvedIntent
from viacheck.analysis.routing.decision import Decision
from viacheck.analysis.routing.model import RoutingModel
from viacheck.analysis.routing.packet import Packet
from viacheck.analysis.traced_path import Path, PathEnd, Traffic, of_all_outcomes
from viacheck.model.intent import TransportProtocol
from viacheck.model.namespace_state import Link
from viacheck.model.path import PathHop

TUNNEL_KINDS = frozenset({"tun", "wireguard", "ipip", "gre", "sit", "vti", "xfrm", "ppp", "geneve", "vxlan"})
"""Kinds of interfaces behind which the agent's own packets continue inside other packets."""


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
        """Return the path of one packet and of its answer; where a rule draws at random, that of all outcomes.

        Raises:
            ValueError: when an address of the traffic is invalid.
        """
        draws = Draws()
        outcomes = [self._trace(traffic, draws)]
        while draws.next_outcome() and len(outcomes) < draws.most_outcomes:
            outcomes.append(self._trace(traffic, draws))
        return of_all_outcomes(outcomes, tuple(draws.rules), complete=len(outcomes) < draws.most_outcomes)

    def _trace(self, traffic: Traffic, draws: Draws) -> Path:
        """Return the path in one outcome of all draws."""
        hops: list[PathHop] = []
        if self._agent_model is None:
            hops.append(hop("agent", None, "route", None, "unknown"))
            return Path(
                traffic=traffic, end=PathEnd.UNKNOWN, out=tuple(hops), reason="the agent's routing is not known"
            )
        decision = self._agent_model.decide(traffic.packet)
        if traffic.protocol == IPPROTO_TCP and traffic.source is None and decision.source is not None:
            # connect(2) looks the route up again with the source that the first look-up chose (ip_route_connect()).
            decision = self._agent_model.decide(replace(traffic, source=decision.source).packet)
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
        return self._attached(traffic, link, decision, hops, draws)

    def _attached(self, traffic: Traffic, link: Link, decision: Decision, hops: list[PathHop], draws: Draws) -> Path:
        """Continue behind the agent's interface."""
        if self.resolved.shares_host_network:
            hops.append(hop("wire", link.name, "link", None, f"leaves by {link.name}"))
            return Path(
                traffic=traffic, end=PathEnd.LEAVES, out=tuple(hops), egress=frozenset({link.name}),
                source=decision.source, gateway=decision.gateway,
                reason=f"the agent shares the host's network: {'; '.join(deciders(decision))}",
            )  # fmt: skip
        if self.resolved.snapshot.carrier is not None:
            return self._carried(traffic, link, self.resolved.snapshot.carrier, hops)
        if link.kind in ON_PARENT:
            return self._on_parent(traffic, link, decision, hops)
        if link.kind == "veth":
            arriving = arrival(self.resolved, link)
            if arriving is None:
                reason = f"the other end of the agent's {link.name} is not on this host"
                return Path(traffic=traffic, end=PathEnd.UNKNOWN, out=tuple(hops), reason=reason)
            if (uplink := bridged_to(self.resolved, arriving, decision)) is not None:
                if (dropped := dropped_on(self.resolved, arriving, traffic.packet)) is not None:
                    hops.append(hop("host", arriving, "forward", dropped, "dropped"))
                    return Path(traffic=traffic, end=PathEnd.DROPPED, out=tuple(hops), reason=dropped)
                hops.append(hop("wire", uplink, "link", f"bridge {arriving}", f"leaves by {uplink}"))
                return Path(
                    traffic=traffic, end=PathEnd.LEAVES, out=tuple(hops), egress=frozenset({uplink}),
                    source=traffic.source, gateway=decision.gateway, reason=f"the agent is a port of {arriving}",
                )  # fmt: skip
            unanswered = unanswered_arp(self.resolved, traffic.packet, arriving, link, decision)
            if unanswered is not None:
                hops.append(hop("host", arriving, "link", unanswered, "no ARP answer"))
                asked = decision.gateway or traffic.destination
                reason = f"the host does not answer the agent's ARP request for {asked}: {unanswered}"
                return Path(traffic=traffic, end=PathEnd.DROPPED, out=tuple(hops), reason=reason)
            return self._through_host(traffic, arriving, link.mac, hops, draws)
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

    def _carried(self, traffic: Traffic, link: Link, carrier: str, hops: list[PathHop]) -> Path:
        """Continue with the packets that a program of the host sends in the agent's place: routed as the host's own."""
        hops.append(hop("agent", link.name, "link", None, f"enters {carrier}"))
        packet = Packet(
            source=None, destination=traffic.destination, protocol=traffic.protocol, dport=traffic.dport
        )  # fmt: skip
        decision = self.resolved.model.decide(packet)
        hops.append(route_hop("host", decision))
        if (ended := _undelivered(decision, "the host's")) is not None:
            return Path(traffic=traffic, end=ended[0], out=tuple(hops), reason=ended[1])
        egress = frozenset(exit_.interface for exit_ in decision.exits)
        hops += [hop("wire", interface, "link", None, f"leaves by {interface}") for interface in sorted(egress)]
        return Path(
            traffic=traffic, end=PathEnd.LEAVES, out=tuple(hops), egress=egress, source=decision.source,
            gateway=decision.gateway,
            reason=f"{carrier} sends them as the host's own: {'; '.join(deciders(decision))}",
        )  # fmt: skip

    def _on_parent(self, traffic: Traffic, link: Link, decision: Decision, hops: list[PathHop]) -> Path:
        parent = self.resolved.parent_of(link)
        if parent is None:
            reason = f"the parent of the agent's {link.name} is not on this host"
            return Path(traffic=traffic, end=PathEnd.UNKNOWN, out=tuple(hops), reason=reason)
        if is_hosts_own(self.resolved, traffic.destination):
            reason = f"{link.kind} on {parent.name} isolates the agent from its own host's {traffic.destination}"
            hops.append(hop("host", None, "link", link.kind, "dropped"))
            return Path(traffic=traffic, end=PathEnd.DROPPED, out=tuple(hops), reason=reason)
        hops.append(hop("wire", parent.name, "link", f"{link.kind} on {parent.name}", f"leaves by {parent.name}"))
        return Path(
            traffic=traffic, end=PathEnd.LEAVES, out=tuple(hops), egress=frozenset({parent.name}),
            source=decision.source, gateway=decision.gateway, answer_returns=True,
            reason=f"the agent's {link.name} is a {link.kind} on {parent.name}",
        )  # fmt: skip

    def _through_host(
        self, traffic: Traffic, arriving: str, mac: str | None, hops: list[PathHop], draws: Draws
    ) -> Path:
        """Route, filter and translate the packet on the host."""
        host = self.resolved.snapshot.host
        if traffic.source is None:
            reason = "the agent has no source address for it"
            return Path(traffic=traffic, end=PathEnd.UNKNOWN, out=tuple(hops), reason=reason)
        arrived = FilteredPacket(
            family=traffic.family, source=traffic.source, destination=traffic.destination, iif=arriving, oif=None,
            protocol=traffic.protocol, dport=traffic.dport, draws=draws, icmp_type=traffic.message_type,
            icmp_code=_code(traffic.message_type), ttl=self.resolved.agent_ttl, mac=mac,
        )  # fmt: skip
        routed = prerouting(host.packet_filter, arrived)
        filtered, translation = routed.packet, routed.translation
        if (dropped := routed.dropped) is not None:
            hops.append(hop("host", arriving, "mangle", dropped.decider, "dropped"))
            reason = f"the prerouting hook: {dropped.decider}"
            return Path(traffic=traffic, end=PathEnd.DROPPED, out=tuple(hops), reason=reason)
        mark = filtered.mark
        hops.append(hop("host", arriving, "mangle", None, "unknown" if mark is None else f"mark 0x{mark:x}"))
        if mark is None:
            because = f": {filtered.mark_unknown_by[1].text}" if filtered.mark_unknown_by else ""
            reason = f"the mark that prerouting sets cannot be evaluated{because}"
            return Path(traffic=traffic, end=PathEnd.UNKNOWN, out=tuple(hops), reason=reason)
        if translation.kind != "none":
            rule = translation.rule
            redirected = translated(filtered, translation)
            known = "destination becomes the host's own" if translation.kind == "redirect" else "unknown"
            model = known if redirected is None else f"destination becomes {redirected.destination}"
            hops.append(hop("host", arriving, "nat", rule.text if rule else None, model))
            if translation.kind == "redirect":
                reason = f"destination NAT redirects it to the host itself: {rule.text if rule else ''}"
                return Path(traffic=traffic, end=PathEnd.LOCAL, out=tuple(hops), reason=reason)
            if redirected is None:
                reason = "destination NAT cannot be evaluated"
                return Path(traffic=traffic, end=PathEnd.UNKNOWN, out=tuple(hops), reason=reason)
        packet = Packet(
            source=traffic.source, destination=filtered.destination, iif=arriving, mark=mark,
            protocol=traffic.protocol, dport=filtered.dport,
        )  # fmt: skip
        decision = self.resolved.model.decide(packet)
        hops.append(route_hop("host", decision))
        if not decision.certain:
            reason = decision.doubt
            return Path(traffic=traffic, end=PathEnd.UNKNOWN, out=tuple(hops), reason=reason)
        if (ended := _undelivered(decision, "the host's")) is not None:
            return Path(traffic=traffic, end=ended[0], out=tuple(hops), reason=ended[1])
        if expires(filtered):
            by = filtered.ttl_set_by[1].text if filtered.ttl_set_by else None
            hops.append(hop("host", arriving, "forward", by, "dropped"))
            reason = f"its TTL of {filtered.ttl} ends here" + (f": {by}" if by else "")
            return Path(
                traffic=traffic, end=PathEnd.DROPPED, out=tuple(hops), reason=reason, expires_by=filtered.ttl_set_by
            )
        path = self._filtered(traffic, arriving, filtered, decision, hops)
        return self._with_later_packets(path, arrived, forwarded(filtered, decision.interface), packet)

    def _with_later_packets(self, path: Path, arrived: FilteredPacket, sent: FilteredPacket, packet: Packet) -> Path:
        """Add where later packets of the flow leave, if a mark that only the first one has sends them elsewhere.

        Args:
            path: of the first packet.
            arrived: the first packet before the packet filter.
            sent: the same as it leaves.
            packet: the same as it is routed.
        """
        filters = self.resolved.snapshot.host.packet_filter
        drawn = arrived.draws is not None and arrived.draws.rules
        if path.end is not PathEnd.LEAVES or not sent.has_flow or not self._sets_marks or drawn:
            return path
        following = replace(arrived, ctstate="established", ctmark=mark_of_flow(filters, sent))
        later = prerouting(filters, following).packet
        if later.mark is None or later.mark == packet.mark:
            return path
        decision = self.resolved.model.decide(replace(packet, mark=later.mark))
        if not decision.certain or decision.interfaces == path.egress:
            return path
        # Masquerade drops a packet that leaves by another interface than its flow has the address of, and forgets the
        # flow, so that the next packet is a first one (nf_nat_oif_changed, net/netfilter/nf_nat_core.c).
        dropped = source_nat(filters, sent).kind == "masquerade"
        by = " or ".join(sorted(decision.interfaces)) or decision.outcome
        what = f"masquerade drops them, as they would leave by {by}" if dropped else f"leave by {by}"
        reason = (
            f"the first packet of a flow has mark 0x{packet.mark:x} ({path.reason}); later ones have mark "
            f"0x{later.mark:x}, and {what}: {'; '.join(deciders(decision))}"
        )
        later_egress = frozenset() if dropped else decision.interfaces
        return replace(path, later_egress=later_egress, later_dropped=dropped, reason=reason)

    @cached_property
    def _sets_marks(self) -> bool:
        """Whether a rule of the host sets a mark."""
        chains = self.resolved.snapshot.host.packet_filter.chains
        return any(rule.set_mark is not None for chain in chains for rule in chain.rules)

    def _filtered(
        self, traffic: Traffic, arriving: str, filtered: FilteredPacket, decision: Decision, hops: list[PathHop]
    ) -> Path:
        """Apply the forward hook and source NAT for each exit; several exits must end alike."""
        host = self.resolved.snapshot.host
        sources: set[str | None] = set()
        by = f"rule {decision.rule}, " if decision.rule is not None else ""
        for exit_ in decision.exits:
            packet = forwarded(filtered, exit_.interface)
            passage = forwarding(host.packet_filter, packet)
            decider = passage.decider
            if passage.allowed is not True:
                model = "unknown" if passage.allowed is None else "dropped"
                hops.append(hop("host", exit_.interface, "forward", decider, model))
                end = PathEnd.UNKNOWN if passage.allowed is None else PathEnd.DROPPED
                reason = f"the forward hook: {decider or 'not readable'}"
                egress = frozenset[str]()
                if end is PathEnd.UNKNOWN:
                    egress, reason = decision.interfaces, f"{by}route {decision.route} ({reason}, cannot be evaluated)"
                return Path(traffic=traffic, end=end, out=tuple(hops), egress=egress, reason=reason)
            hops.append(hop("host", exit_.interface, "forward", decider, "accepted"))
            translation = source_nat(host.packet_filter, packet)
            if translation.kind == "unknown":
                hops.append(hop("host", exit_.interface, "source-nat", None, "unknown"))
                reason = f"{by}route {decision.route} (source NAT cannot be evaluated)"
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
        path = Path(
            traffic=traffic, end=PathEnd.LEAVES, out=tuple(hops), egress=decision.interfaces,
            source=sources.pop() if len(sources) == 1 else None, gateway=decision.gateway,
            destination=filtered.destination if filtered.destination != traffic.destination else None,
            reason=f"{nat_text(hops)}{by}route {decision.route}",
        )  # fmt: skip
        if len(decision.interfaces) != 1 or not self.answers:
            return path
        leaving = as_it_leaves(host.packet_filter, packet)
        # The next router drops it, unless it is the destination itself.
        expiring = leaving.ttl_set_by if expires(leaving) and decision.gateway is not None else None
        return self._answered(replace(path, ttl=leaving.ttl, expires_by=expiring), arriving, packet)

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
        was_translated = traffic.source != path.source
        # Conntrack reverses NAT after these chains: until then the answer is one to the translated source, which is
        # one of several where a rule translates to a range.
        destination = path.source if path.source and "-" not in path.source else traffic.source
        answer_type = type_of_answer(traffic.protocol, sent.icmp_type)
        reply = FilteredPacket(
            family=traffic.family, source=sent.destination, destination=destination, iif=uplink, oif=None,
            protocol=traffic.protocol, sport=sent.dport, ctmark=mark_of_flow(host.packet_filter, sent),
            ctstate=state_of_answer(sent), draws=sent.draws, icmp_type=answer_type, icmp_code=_code(answer_type),
            mac=self.resolved.snapshot.mac_of(uplink, path.gateway),
        )  # fmt: skip
        routed = prerouting(host.packet_filter, reply, traffic.source)
        if (dropped := routed.dropped) is not None:
            hops.append(hop("host", uplink, "mangle", dropped.decider, "dropped"))
            reason = f"the prerouting hook for the answer: {dropped.decider}"
            return replace(path, answer=tuple(hops), answer_returns=False, answer_reason=reason)
        reply = routed.packet
        mark = reply.mark
        if mark is None:
            hops.append(hop("host", uplink, "mangle", None, "unknown"))
            return replace(path, answer=tuple(hops), answer_reason="the answer's mark cannot be evaluated")
        if was_translated and not reply.has_flow:
            hops.append(hop("host", uplink, "nat", "notrack", f"destination stays {path.source}"))
            reason = f"a rule keeps conntrack from tracking the answer, so its destination stays {path.source}"
            returns = False if reply.has_flow is False else None
            return replace(
                path, answer=tuple(hops), answer_returns=returns, answer_reason=reason,
                answer_untracked_by=reply.untracked_by,
            )  # fmt: skip
        reply = replace(reply, destination=traffic.source)
        if was_translated:
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
            return replace(path, answer=tuple(hops), answer_reason=f"for the answer, {decision.doubt}")
        if decision.outcome != "unicast" or decision.interfaces != {arriving}:
            reason = f"the host's look-up for the answer: {decision}"
            return replace(
                path, answer=tuple(hops), answer_returns=False, answer_reason=reason,
                misrouted=decision if decision.outcome != "martian" else None,
            )  # fmt: skip
        if expires(reply):
            by = reply.ttl_set_by[1].text if reply.ttl_set_by else None
            hops.append(hop("host", uplink, "forward", by, "dropped"))
            reason = f"the answer's TTL of {reply.ttl} ends here" + (f": {by}" if by else "")
            return replace(
                path, answer=tuple(hops), answer_returns=False, answer_reason=reason, answer_expires_by=reply.ttl_set_by
            )
        passage = forwarding(host.packet_filter, forwarded(reply, arriving))
        decider = passage.decider
        model = {True: "accepted", False: "dropped", None: "unknown"}[passage.allowed]
        hops.append(hop("host", arriving, "forward", decider, model))
        reason = "" if passage.allowed else f"the forward hook for the answer: {decider or 'not readable'}"
        return replace(path, answer=tuple(hops), answer_returns=passage.allowed, answer_reason=reason)


def _code(message_type: int | None) -> int | None:
    """Return the code of a request of ICMP and of the answer to it."""
    return None if message_type is None else 0


def _undelivered(decision: Decision, whose: str) -> tuple[PathEnd, str] | None:
    """Return the end of a packet that routing does not send on, and why; None for a packet that is sent on."""
    if decision.outcome == "unicast":
        return None
    by = "; ".join(deciders(decision)) or "no route"
    if decision.outcome in ("local", "broadcast", "multicast", "anycast"):
        return PathEnd.LOCAL, f"{whose} routing delivers it locally: {by}"
    note = f" ({decision.note})" if decision.note else ""
    return PathEnd.NO_ROUTE, f"{whose} routing: {decision.outcome}, {by}{note}"
