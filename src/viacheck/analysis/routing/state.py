"""What both families' routing rests on: a snapshot's tables, rules and addresses, indexed when first needed."""

from __future__ import annotations

from viacheck.analysis.routing.decision import Decision, Exit, RoutingOutcome
from viacheck.analysis.routing.packet import Packet
from viacheck.analysis.routing.rules import RuleList, RuleLookup
from viacheck.analysis.routing.source_address import SourceSelection
from viacheck.analysis.routing.table import RoutingTable, read_address
from viacheck.model.snapshot import Family, NetworkState, Nexthop, Route


class FamilyRouting:
    """The routing of one address family in one namespace."""

    family: Family

    def __init__(self, state: NetworkState, sources: SourceSelection) -> None:
        """Take over a state, which must not change after."""
        self.state = state
        self.sources = sources
        self.rules = RuleList(state.rules_of(self.family), self.family)
        self.routes: dict[int, list[Route]] = {}
        for route in state.routes:
            if route.family == self.family:
                self.routes.setdefault(route.table, []).append(route)
        self._tables: dict[int, RoutingTable] = {}
        self._ignoring_linkdown = frozenset(link.name for link in state.links if self.ignores_linkdown(link.name))

    def ignores_linkdown(self, interface: str) -> bool:
        """Routes by this interface count as gone while it has no carrier."""
        raise NotImplementedError

    def sysctl(self, path: str, default: int = 0) -> int:
        """A switch's value; the default where the snapshot does not have it."""
        text = self.state.sysctls.get(path, "")
        return int(text) if text.strip().lstrip("-").isdigit() else default

    def table(self, number: int) -> RoutingTable:
        """A table, indexed; empty where there is none of that number."""
        table = self._tables.get(number)
        if table is None:
            table = RoutingTable(self.routes.get(number, ()), self.family)
            self._tables[number] = table
        return table

    def alive(self, hop: Nexthop) -> bool:
        """The nexthop is looked at: neither dead nor without a carrier that matters."""
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
    ) -> Decision:
        """Put a decision together; without an outcome it is what the rule or route that refuses makes of it."""
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
            steps=tuple(lookup.steps),
            rule=rule,
            table=hit.route.table if hit else None,
            route=hit.route if hit else None,
            exits=exits,
            runners_up=tuple(runners_up),
            note=note,
            certain=lookup.certain,
        )


def _refusal(lookup: RuleLookup) -> RoutingOutcome:
    """What becomes of a packet that no route takes."""
    word = lookup.hit.route.type if lookup.hit else lookup.rule.action if lookup.rule else ""
    refusals: dict[str, RoutingOutcome] = {
        "unreachable": "unreachable",
        "prohibit": "prohibit",
        "blackhole": "blackhole",
    }
    return refusals.get(word, "no-route")


def outcome_of(route: Route) -> RoutingOutcome:
    """What becomes of a packet that a route takes."""
    outcomes: dict[str, RoutingOutcome] = {
        "local": "local",
        "broadcast": "broadcast",
        "multicast": "multicast",
        "anycast": "anycast",
    }
    return outcomes.get(route.type, "unicast")
