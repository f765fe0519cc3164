"""The base of both families' routing: a snapshot's tables, rules and addresses, indexed when first needed."""

from __future__ import annotations

from viacheck.analysis.routing.decision import Decision, Exit, RoutingOutcome
from viacheck.analysis.routing.packet import Packet
from viacheck.analysis.routing.rules import RuleLookup, rule_list
from viacheck.analysis.routing.source_address import SourceSelection
from viacheck.analysis.routing.table import read_address, route_index
from viacheck.model.address_family import Family
from viacheck.model.namespace_state import NetworkState
from viacheck.model.route import Nexthop, Route


class FamilyRouting:
    """The routing of one address family in one namespace."""

    family: Family

    def __init__(self, state: NetworkState, sources: SourceSelection) -> None:
        """Hold a state, which must not change afterwards."""
        self.state = state
        self.sources = sources
        self.rules = rule_list(state.rules, self.family, _in_vrf(state))
        index = route_index(state.routes, self.family)
        self.routes, self.table = index.routes, index.table
        self._ignoring_linkdown = frozenset(link.name for link in state.links if self.ignores_linkdown(link.name))

    def ignores_linkdown(self, interface: str) -> bool:
        """Return whether routes by this interface are dead while it has no carrier."""
        raise NotImplementedError

    def sysctl(self, path: str, default: int = 0) -> int:
        """Return the value of a sysctl; the default where the snapshot does not have it."""
        text = self.state.sysctls.get(path, "")
        return int(text) if text.strip().lstrip("-").isdigit() else default

    def alive(self, hop: Nexthop) -> bool:
        """Return whether the nexthop can be used: neither dead nor without a carrier that counts."""
        return not hop.flags or not (
            "dead" in hop.flags or ("linkdown" in hop.flags and hop.interface in self._ignoring_linkdown)
        )

    def decision(
        self,
        packet: Packet,
        lookup: RuleLookup,
        outcome: RoutingOutcome | None = None,
        exits: tuple[Exit, ...] = (),
        note: str = "",
        refused_exits: tuple[str, ...] = (),
    ) -> Decision:
        """Return a decision; without an outcome, the rule or route that refuses gives the outcome."""
        hit, rule = lookup.hit, lookup.rule
        if outcome is None:
            outcome = _refusal(lookup)
        runners_up: list[Route] = []
        if hit is not None:
            destination = read_address(packet.destination, self.family)
            covering = self.table(hit.route.table).covering(destination)
            runners_up = [route for routes in covering for route in routes if route is not hit.route]
        return Decision(
            packet=packet,
            outcome=outcome,
            walk=tuple(lookup.walk),
            rule=rule,
            table=hit.route.table if hit else None,
            route=hit.route if hit else None,
            exits=exits,
            runners_up=tuple(runners_up),
            note=note,
            refused_exits=refused_exits,
            certain=lookup.certain,
        )


def _in_vrf(state: NetworkState) -> frozenset[str]:
    """Return the names of VRFs and of the interfaces that belong to one."""
    vrfs = {link.name for link in state.links if link.kind == "vrf"}
    return frozenset(link.name for link in state.links if link.name in vrfs or link.master in vrfs)


def _refusal(lookup: RuleLookup) -> RoutingOutcome:
    """Return the outcome for a packet that no route takes."""
    refusal = lookup.hit.route.type if lookup.hit else lookup.rule.action if lookup.rule else ""
    refusals: dict[str, RoutingOutcome] = {
        "unreachable": "unreachable",
        "prohibit": "prohibit",
        "blackhole": "blackhole",
    }
    return refusals.get(refusal, "no-route")


def outcome_of(route: Route) -> RoutingOutcome:
    """Return the outcome for a packet that takes a route."""
    outcomes: dict[str, RoutingOutcome] = {
        "local": "local",
        "broadcast": "broadcast",
        "multicast": "multicast",
        "anycast": "anycast",
    }
    return outcomes.get(route.type, "unicast")
