"""The state that decides the agent's egress at the moments of an event, and what the event changed in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from viacheck.model.address_family import Family
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Nexthop, Route


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressState:
    """The rules and routes that decide the agent's egress, and the uplink's addresses, at one moment of an event."""

    time: float
    """Seconds since the event began."""
    moment: str
    """The step of the event after which the state was read, as text."""
    rules: tuple[Rule, ...] = ()
    routes: tuple[Route, ...] = ()
    addresses: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """Return the state as text, one line for each rule, route and address."""
        return [
            *(f"{_six(rule.family)}rule {rule}" for rule in self.rules),
            *(f"{_six(route.family)}route {route}" for route in self.routes),
            *(f"address {address}" for address in self.addresses),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressChanges:
    """The states before, during and after an event, compared."""

    states: tuple[EgressState, ...]
    moved_router: tuple[str, str] | None = None
    """A router's address before the event and after it: routes must follow."""
    only_table: int | None = None
    """After a reboot, the table of the agent's egress: its rules are compared at any priority, and its routes that
    have a next hop. PERSIST-02 judges everything else that was typed and not written down."""

    @property
    def changed(self) -> bool:
        """Return whether rules or routes are not as they were before the event."""
        return bool(self.rules_lost or self.rules_added or self.routes_lost or self.stale_routes)

    @property
    def rules_lost(self) -> list[Rule]:
        """Return the rules that were present before the event and are missing after it."""
        return self._missing(self.states[0].rules, self.states[-1].rules) if self.states else []

    @property
    def rules_added(self) -> list[Rule]:
        """Return the rules that the event left behind: copies of others, at whatever priority.

        An event that repeats its steps added no rules if they are the same after the first cycle and after the last:
        the rules that the host's files make may differ, once, from the rules that were present. A rule that is a copy
        of none was added by something else meanwhile, such as an operator.
        """
        if not self.states or not self._missing(self.states[-1].rules, self._first_cycle.rules):
            return []
        copies = Counter(replace(rule, priority=0) for rule in self.states[-1].rules)
        added = self._missing(self.states[-1].rules, self.states[0].rules)
        return [rule for rule in added if copies[replace(rule, priority=0)] > 1]

    @property
    def routes_lost(self) -> list[Route]:
        """Return the routes that were present before the event and are missing after it, moved routers considered.

        A route may have another metric, in the same place among the routes to its destination: NetworkManager counts
        its devices from 100 on, in the order in which a boot or its restart activates them.
        """
        if not self.states:
            return []
        present = {_route_identity(route) for route in self.states[-1].routes}
        return [
            route
            for route in self.states[0].routes
            if not present & {_route_identity(route), _route_identity(self._follow_router(route))}
            and (self.only_table is None or route.nexthops)
            and not self._has_another_metric(route)
        ]

    def _has_another_metric(self, route: Route) -> bool:
        before, after = self.states[0].routes, self.states[-1].routes
        present = {_route_identity(kept) for kept in after}
        others = [
            other.metric
            for other in before
            if (other.family, other.table, other.destination) == (route.family, route.table, route.destination)
            and _route_identity(other) in present
        ]
        wanted = {_route_identity(route), _route_identity(self._follow_router(route))}
        return any(
            _route_identity(replace(candidate, metric=route.metric)) in wanted
            and all((candidate.metric < other) == (route.metric < other) for other in others)
            for candidate in after
        )

    @property
    def stale_routes(self) -> list[Route]:
        """Return the routes whose gateway is the router's address from before the event."""
        return [route for state in self.states[-1:] for route in state.routes if self._follow_router(route) != route]

    def _follow_router(self, route: Route) -> Route:
        """Return the route with the router's new address as its gateway."""
        if self.moved_router is None:
            return route
        old, new = self.moved_router
        hops = tuple(replace(hop, gateway=new) if hop.gateway == old else hop for hop in route.nexthops)
        return replace(route, nexthops=hops)

    @property
    def _first_cycle(self) -> EgressState:
        moments = [state.moment for state in self.states[1:-1]]
        repeated = moments and moments.count(moments[-1]) > 1
        return self.states[1 + moments.index(moments[-1])] if repeated else self.states[0]

    def _missing(self, wanted: Sequence[Rule], present: Sequence[Rule]) -> list[Rule]:
        """Return the wanted rules that are not present, counting duplicates."""
        remaining, missing = Counter(map(self._rule_identity, present)), []
        for rule in wanted:
            if self.only_table is not None and rule.table != self.only_table:
                continue
            remaining[self._rule_identity(rule)] -= 1
            if remaining[self._rule_identity(rule)] < 0:
                missing.append(rule)
        return missing

    def _rule_identity(self, rule: Rule) -> Rule:
        return rule if self.only_table is None else replace(rule, priority=0, protocol=None)


def _route_identity(route: Route) -> Route:
    """Return the part of a route by which it is the same before and after an event.

    The flags of its next hops, its origin and its MTU may differ. A connected route's source goes with its address.
    """
    hops = tuple(Nexthop(gateway=hop.gateway, interface=hop.interface, weight=hop.weight) for hop in route.nexthops)
    return Route(
        family=route.family,
        table=route.table,
        destination=route.destination,
        type=route.type,
        nexthops=hops,
        metric=route.metric,
        source=None if route.protocol == "kernel" else route.source,
        source_prefix=route.source_prefix,
    )


def _six(family: Family) -> str:
    return "-6 " if family == 6 else ""
