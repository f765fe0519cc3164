"""The routing decision for IPv4, for packets that the host sends and for packets that it forwards.

Follows ip_route_output_key_hash_rcu and ip_route_input_slow (net/ipv4/route.c), fib_validate_source
(net/ipv4/fib_frontend.c) and fib_select_default (net/ipv4/fib_semantics.c).
"""

from __future__ import annotations

from functools import cached_property
from ipaddress import IPv4Address

from viacheck.analysis.routing.decision import Decision, Exit, RoutingOutcome
from viacheck.analysis.routing.packet import LOOPBACK, ROOT, LookupKey, Packet
from viacheck.analysis.routing.rules import RuleLookup, RuleStep, explain
from viacheck.analysis.routing.source_address import LINK_SCOPE, SourceSelection, scope_number
from viacheck.analysis.routing.state import FamilyRouting, outcome_of
from viacheck.analysis.routing.table import Hit, RoutingTable, read_address, same_tos
from viacheck.model.address_family import Family
from viacheck.model.namespace_state import NetworkState
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Nexthop, Route
from viacheck.model.routing_names import TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN

_LIMITED_BROADCAST = 0xFFFFFFFF
_LOCAL_MULTICAST = 0xE00000
"""224.0.0.0/24, shifted right by the host's bits."""


class IPv4Routing(FamilyRouting):
    """The IPv4 routing of one namespace."""

    family: Family = 4

    def __init__(self, state: NetworkState, sources: SourceSelection) -> None:
        """Hold a state, which must not change afterwards."""
        super().__init__(state, sources)
        # Until a rule changes, the kernel keeps local and main in one trie and reads no rules (fib_unmerge).
        self._untouched = list(state.rules_of(4)) in (_default_rules("kernel"), _default_rules(None))
        self._merged: RoutingTable | None = None

    @cached_property
    def _custom_local(self) -> bool:
        """Whether a person or a program added a local route."""
        return any(
            route.type == "local" and route.protocol != "kernel" for routes in self.routes.values() for route in routes
        )

    def ignores_linkdown(self, interface: str) -> bool:
        """Return the sysctl of the interface or of all interfaces (IN_DEV_ORCONF)."""
        return bool(self._conf(interface, "ignore_routes_with_linkdown"))

    def decide(self, packet: Packet, key: LookupKey) -> Decision:
        """Decide the route of one packet."""
        return self._send(packet, key) if key.local else self._forward(packet, key)

    def _conf(self, interface: str, name: str, default: int = 0) -> int:
        return max(self.sysctl(f"net/ipv4/conf/{scope}/{name}", default) for scope in ("all", interface))

    def _look_up(self, key: LookupKey) -> RuleLookup:
        if not self._untouched:
            return self.rules.ask(key, lambda number: self.table(number).search_ipv4(key, self.alive))
        hit = self._local_table().search_ipv4(key, self.alive)
        if hit is None or hit.route.type == "throw":
            hit = self.table(TABLE_DEFAULT).search_ipv4(key, self.alive)
        lookup = RuleLookup()
        for rule in self.state.rules_of(4):
            here = hit if hit is not None and hit.route.table == rule.table else None
            chosen = here is not None and here.route.type != "throw"
            lookup.walk.append(RuleStep(rule, explain(rule, here), matched=True, chosen=chosen))
            if chosen:
                lookup.rule, lookup.hit = rule, hit
                break
        return lookup

    def _local_table(self) -> RoutingTable:
        """Return the local table, with main in it while the kernel keeps them in one trie."""
        if not self._untouched:
            return self.table(TABLE_LOCAL)
        if self._merged is None:
            self._merged = RoutingTable(
                [route for number in (TABLE_LOCAL, TABLE_MAIN) for route in self.routes.get(number, ())], 4
            )
        return self._merged

    def _send(self, packet: Packet, key: LookupKey) -> Decision:
        """ip_route_output_key_hash_rcu, net/ipv4/route.c."""
        if key.source is not None:
            if _is_multicast(key.source) or key.source >> 24 == 0 or key.source == _LIMITED_BROADCAST:
                return Decision(packet=packet, outcome="martian", note=f"{packet.source} is not a valid source")
            owner = self._owner(key.source)
            if owner is None:
                note = f"no interface of the host has {packet.source}"
                return Decision(packet=packet, outcome="foreign-source", note=note)
            if key.oif is None and (_is_multicast(key.destination) or key.destination == _LIMITED_BROADCAST):
                return self._straight_out(packet, key, RuleLookup(), owner)
        if key.oif is not None:
            link = self.state.link(key.oif)
            if link is None or not link.up:
                return Decision(packet=packet, outcome="no-route", note=f"{key.oif} is not up")
            if key.destination == _LIMITED_BROADCAST or key.destination >> 8 == _LOCAL_MULTICAST:
                return self._straight_out(packet, key, RuleLookup(), key.oif)
        lookup = self._look_up(key)
        hit = lookup.hit
        if hit is None or hit.rejects:
            if key.oif is not None:
                note = f"no route by {key.oif}: the kernel assumes that the destination is on its link"
                return self._straight_out(packet, key, RuleLookup(lookup.walk), key.oif, note)
            return self.decision(packet, lookup)
        if hit.route.type == "local":
            source = packet.source or hit.route.source or packet.destination
            exit_ = Exit(interface=LOOPBACK, source=source, route=hit.route)
            return self.decision(packet, lookup, _sent_as(key, hit.route), (exit_,))
        exits = tuple(
            self._exit(packet, key, route, hop, hit.length) for route, hops in self._choices(key, hit) for hop in hops
        )
        if key.source is not None and key.source >> 24 == 127 and any(exit_.interface != LOOPBACK for exit_ in exits):
            return self.decision(packet, lookup, "martian", note=f"{packet.source} cannot leave the host")
        return self.decision(packet, lookup, _sent_as(key, hit.route), exits)

    def _owner(self, source: int) -> str | None:
        """Return the interface of a source address, by address or by a route of the local table (__ip_dev_find)."""
        owner = self.sources.ipv4_owner(source)
        if owner is not None:
            return owner
        key = LookupKey.of(Packet(None, str(IPv4Address(source))))
        hit = self._local_table().search_ipv4(key, self.alive)
        return hit.nexthops[0].interface if hit is not None and hit.route.type == "local" else None

    def _straight_out(self, packet: Packet, key: LookupKey, lookup: RuleLookup, oif: str, note: str = "") -> Decision:
        scope = LINK_SCOPE
        if key.destination != _LIMITED_BROADCAST and _is_multicast(key.destination):
            scope = LINK_SCOPE if key.destination >> 8 == _LOCAL_MULTICAST else 0
        source = packet.source or self.sources.ipv4(oif, 0, scope)
        outcome: RoutingOutcome = (
            "broadcast"
            if key.destination == _LIMITED_BROADCAST
            else "multicast"
            if _is_multicast(key.destination)
            else "unicast"
        )
        return self.decision(packet, lookup, outcome, (Exit(interface=oif, source=source),), note)

    def _choices(self, key: LookupKey, hit: Hit) -> list[tuple[Route, tuple[Nexthop, ...]]]:
        """Return the routes that the kernel chooses from: several only for equal default routes (fib_select_default).

        The choice depends on the state of the gateways' neighbour entries.
        """
        only = [(hit.route, hit.nexthops)]
        single = len(hit.route.nexthops) == 1
        if key.oif is not None or hit.length or hit.route.type != "unicast" or not single:
            return only
        chosen: list[tuple[Route, tuple[Nexthop, ...]]] = []
        metric, tos = hit.route.metric, hit.route.tos
        for route in hit.siblings:
            if route.table != hit.route.table or not same_tos(route.tos, key.tos):
                continue
            if route.metric > metric and route.tos == tos:
                if tos:
                    continue
                break
            metric, tos = route.metric, route.tos
            if route.scope != hit.route.scope or route.type != "unicast" or not route.nexthops[0].gateway:
                continue
            if not chosen and route is not hit.route:
                break
            # The kernel does not check this route's carrier again, and looks at the first of several nexthops only.
            chosen.append((route, route.nexthops[:1]))
        return chosen or only

    def _exit(self, packet: Packet, key: LookupKey, route: Route, hop: Nexthop, length: int) -> Exit:
        interface = hop.interface or LOOPBACK
        source = packet.source or route.source
        if source is None:
            near = 0 if hop.gateway is None else read_address(hop.gateway, 4) if ":" not in hop.gateway else 0
            source = self.sources.ipv4(interface, near, scope_number(route.scope))
        gateway = hop.gateway
        if _sent_as(key, route) == "broadcast" or (_is_multicast(key.destination) and length < 4):
            gateway = None
        return Exit(interface=interface, gateway=gateway, source=source, route=route)

    def _forward(self, packet: Packet, key: LookupKey) -> Decision:
        """ip_route_input_slow, net/ipv4/route.c."""
        nothing = RuleLookup()
        iif = key.iif
        if key.source is None or _is_multicast(key.source) or key.source >> 24 == 0 or key.source == _LIMITED_BROADCAST:
            return self.decision(packet, nothing, "martian", note=f"{packet.source} is not a valid source")
        if key.destination == _LIMITED_BROADCAST:
            complaint = self._martian_source(packet, key, None, broadcast=True)
            if complaint:
                return self.decision(packet, nothing, "martian", note=complaint)
            return self.decision(packet, nothing, "broadcast", (Exit(interface=LOOPBACK, source=packet.source),))
        if _is_multicast(key.destination):
            note = "delivered to members of the group without a look-up"
            return self.decision(packet, nothing, "multicast", note=note)
        if key.destination >> 24 == 0:
            return self.decision(packet, nothing, "martian", note=f"{packet.destination} is not a valid destination")
        if 127 in (key.source >> 24, key.destination >> 24) and not self._conf(iif, "route_localnet"):
            return self.decision(packet, nothing, "martian", note="127.0.0.0/8 is not accepted from outside")
        lookup = self._look_up(key)
        hit = lookup.hit
        forwarding = self.sysctl(f"net/ipv4/conf/{iif}/forwarding", self.sysctl("net/ipv4/ip_forward", 1))
        if hit is None or hit.rejects:
            return self.decision(packet, lookup, None if forwarding else "not-forwarded")
        if hit.route.type in ("local", "broadcast"):
            outcome = outcome_of(hit.route)
            complaint = self._martian_source(packet, key, None, broadcast=outcome == "broadcast")
            if complaint:
                return self.decision(packet, lookup, "martian", note=complaint)
            exit_ = Exit(interface=LOOPBACK, source=packet.source, route=hit.route)
            return self.decision(packet, lookup, outcome, (exit_,))
        if not forwarding:
            return self.decision(packet, lookup, "not-forwarded", note=f"forwarding is off on {iif}")
        if hit.route.type != "unicast":
            note = f"{packet.destination} cannot be forwarded to: it has a {hit.route.type} route"
            return self.decision(packet, lookup, "martian", note=note)
        exits = tuple(self._exit(packet, key, hit.route, hop, hit.length) for hop in hit.nexthops)
        complaints = {name: self._martian_source(packet, key, name) for name in {exit_.interface for exit_ in exits}}
        note = "; ".join(f"not by {name}: {complaint}" for name, complaint in sorted(complaints.items()) if complaint)
        refused = tuple(name for name, complaint in sorted(complaints.items()) if complaint)
        allowed = tuple(exit_ for exit_ in exits if not complaints[exit_.interface])
        return self.decision(packet, lookup, "unicast" if allowed else "martian", allowed, note, refused)

    def _martian_source(
        self, packet: Packet, key: LookupKey, out: str | None, *, broadcast: bool = False
    ) -> str | None:
        """Return why the source cannot arrive on its interface (fib_validate_source, RFC 3704); None when it can."""
        assert key.source is not None
        iif = key.iif
        rp_filter = self._conf(iif, "rp_filter")
        accept_local = bool(self._conf(iif, "accept_local"))
        if not rp_filter and not (out == iif and self._conf(iif, "send_redirects", 1)):
            if accept_local:
                return None
            if self._untouched and not self._custom_local:
                own = self.sources.ipv4_owner(key.source) is not None
                return f"{packet.source} is an address of the host" if own else None
        mark = key.mark if self._conf(iif, "src_valid_mark") else 0
        # The kernel looks up the reverse route as if the answer arrived where the packet leaves.
        reverse = LookupKey(
            family=4,
            source=None if broadcast else key.destination,
            destination=key.source,
            iif=out or LOOPBACK,
            oif=None,
            mark=mark,
            protocol=key.protocol,
            sport=key.dport,
            dport=key.sport,
            tos=key.tos,
            uid=ROOT,
        )
        hit = self._look_up(reverse).hit
        if hit is None or hit.rejects:
            return f"no route back to {packet.source} (rp_filter {rp_filter})" if rp_filter else None
        if hit.route.type != "unicast" and not (hit.route.type == "local" and accept_local):
            return f"{packet.source} is a {hit.route.type} address of the host"
        if any(hop.interface == iif for hop in hit.route.nexthops):
            return None
        if rp_filter and not self.sources.has_ipv4(iif):
            return f"no route back to {packet.source} by {iif}, which has no address (rp_filter {rp_filter})"
        if rp_filter == 1:
            return f"the route back to {packet.source} is not by {iif} (rp_filter 1)"
        return None


def _default_rules(protocol: str | None) -> list[Rule]:
    return [
        Rule(family=4, priority=priority, table=table, protocol=protocol)
        for priority, table in ((0, TABLE_LOCAL), (32766, TABLE_MAIN), (32767, TABLE_DEFAULT))
    ]


def _is_multicast(number: int) -> bool:
    return number >> 28 == 0xE


def _sent_as(key: LookupKey, route: Route) -> RoutingOutcome:
    """Return the outcome by the destination address first, and by the route second (__mkroute_output)."""
    if key.destination == _LIMITED_BROADCAST:
        return "broadcast"
    return "multicast" if _is_multicast(key.destination) else outcome_of(route)
