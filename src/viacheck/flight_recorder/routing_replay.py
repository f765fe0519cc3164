"""Replays the kernel's announcements on the routing model, so that no change is missed, however late they are read.

A rule that was gone for 300 ms is there again when a busy machine gets to ask the kernel. The announcements, applied in
order to the state before them, show where the model sends each class of traffic in between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from viacheck.analysis.routing.model import Packet, RoutingModel, without_interface
from viacheck.model.namespace_state import Link, NetworkState
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Route
from viacheck.netlink import codec, rtnetlink
from viacheck.netlink.codec import NetlinkMessage
from viacheck.netlink.routing_objects import route_of, rule_of
from viacheck.netlink.rtnetlink import IFF_LOWER_UP, IFF_UP, LinkChange, RtnetlinkMessage

MOST_ROUTES = 20_000
"""Routes of a namespace that is replayed: with more of them, indexing the routes would cost too much at each change."""


@dataclass(frozen=True, slots=True)
class ModelledWay:
    """Where the model sends a packet."""

    interface: str | None
    """None where it goes nowhere, or by several interfaces."""
    text: str


class RoutingReplay:
    """One namespace's routing state, as of the latest announcement that was applied."""

    def __init__(self, state: NetworkState, packets: Sequence[Packet]) -> None:
        """Begin with a state that was read.

        Args:
            state: links, addresses, rules, routes and sysctls.
            packets: the packets that are asked about; routes to other destinations are left out.
        """
        self._destinations = [ip_address(packet.destination) for packet in packets]
        self._state = state
        self._model = RoutingModel(state)
        self._running = {link.name: link.carrier for link in state.links}

    def decide(self, packet: Packet) -> ModelledWay:
        """Return where the model sends a packet now."""
        decision = self._model.decide(packet)
        sent = decision.outcome == "unicast" and len(decision.interfaces) == 1
        return ModelledWay(decision.interface if sent else None, str(decision))

    def apply(self, message: NetlinkMessage, decoded: RtnetlinkMessage, names: dict[int, str]) -> bool:
        """Apply an announcement; return whether it may have changed where a packet goes.

        Args:
            message: as received.
            decoded: its payload.
            names: the interfaces' names by index.
        """
        match message.type:
            case rtnetlink.RTM_NEWRULE | rtnetlink.RTM_DELRULE:
                rule = rule_of(decoded)
                self._set(rules=_rules_after(self._state.rules, rule, gone=message.type == rtnetlink.RTM_DELRULE))
            case rtnetlink.RTM_NEWROUTE | rtnetlink.RTM_DELROUTE:
                route = route_of(decoded, names)
                if not self._concerns(route):
                    return False
                replaces = bool(message.flags & codec.NLM_F_REPLACE)
                gone = message.type == rtnetlink.RTM_DELROUTE
                self._set(routes=_routes_after(self._state.routes, route, gone=gone, replaces=replaces))
            case rtnetlink.RTM_NEWLINK | rtnetlink.RTM_DELLINK:
                return self._link(LinkChange.of(decoded), names)
            case _:
                return False
        return True

    def _concerns(self, route: Route) -> bool:
        network = ip_network(route.destination)
        return any(address.version == network.version and address in network for address in self._destinations)

    def _link(self, change: LinkChange, names: dict[int, str]) -> bool:
        """Apply a link that goes down or comes up: the kernel announces none of the IPv4 routes that go with it."""
        name = change.name or names.get(change.index, "")
        running = not change.gone and bool(change.flags & IFF_UP and change.flags & IFF_LOWER_UP)
        if self._running.get(name) == running:
            return False
        self._running[name] = running
        up = not change.gone and bool(change.flags & IFF_UP)
        if not up:
            self._state = without_interface(self._state, name)
        links = self._state.links
        self._set(
            links=tuple(_link_after(link, up=up, running=running) if link.name == name else link for link in links)
        )
        return True

    def _set(
        self,
        rules: tuple[Rule, ...] | None = None,
        routes: tuple[Route, ...] | None = None,
        links: tuple[Link, ...] | None = None,
    ) -> None:
        state = self._state
        self._state = dataclasses.replace(
            state,
            rules=state.rules if rules is None else rules,
            routes=state.routes if routes is None else routes,
            links=state.links if links is None else links,
        )
        self._model = RoutingModel(self._state)


def _rules_after(rules: tuple[Rule, ...], rule: Rule, *, gone: bool) -> tuple[Rule, ...]:
    """Return the rules with one more, behind those of the same priority, or with one less."""
    if gone:
        place = next((number for number, other in enumerate(rules) if _same_rule(other, rule)), None)
        return rules if place is None else (*rules[:place], *rules[place + 1 :])
    later = [
        number for number, other in enumerate(rules) if other.family == rule.family and other.priority > rule.priority
    ]
    place = min(later, default=len(rules))
    return (*rules[:place], rule, *rules[place:])


def _same_rule(rule: Rule, other: Rule) -> bool:
    return dataclasses.replace(rule, protocol=None) == dataclasses.replace(other, protocol=None)


def _routes_after(routes: tuple[Route, ...], route: Route, *, gone: bool, replaces: bool) -> tuple[Route, ...]:
    if gone:
        return tuple(other for other in routes if _key(other) != _key(route) or not _same_hops(other, route))
    if replaces:
        routes = tuple(other for other in routes if _key(other) != _key(route))
    return (*routes, route)


def _key(route: Route) -> tuple[object, ...]:
    """Return what the kernel finds a route by (fib_table_lookup): of several with one key, the first one counts."""
    return (route.family, route.table, route.destination, route.metric, route.tos, route.source_prefix)


def _same_hops(route: Route, other: Route) -> bool:
    hops, others = ([(hop.gateway, hop.interface) for hop in nexthops] for nexthops in (route.nexthops, other.nexthops))
    return route.type == other.type and hops == others


def _link_after(link: Link, *, up: bool, running: bool) -> Link:
    flags = [flag for flag in link.flags if flag not in ("UP", "LOWER_UP", "NO-CARRIER")]
    flags += ["UP", "LOWER_UP"] if running else ["UP", "NO-CARRIER"] if up else []
    return dataclasses.replace(link, flags=tuple(flags), operstate="UP" if running else "DOWN")
