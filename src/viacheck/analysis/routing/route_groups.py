"""The IPv4 routes of a state that end alike: those of one table and type that lead by the same interfaces.

A host with 100,000 routes has few such groups. They are found once for each state's routes, whatever else of the state
is different.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from heapq import nsmallest
from itertools import groupby
from operator import attrgetter

from viacheck.analysis.routing.identity import SameTuple
from viacheck.analysis.routing.table import read_prefix
from viacheck.model.route import Route

_WHAT_DECIDES = attrgetter("family", "table", "type", "nexthops")


@dataclass(eq=False)
class RouteGroup:
    """Routes of one table and type that lead by the same interfaces."""

    table: int
    type: str
    interfaces: tuple[str | None, ...]
    routes: list[Route] = field(default_factory=list)
    """In the order of the state."""

    @cached_property
    def _prefixes(self) -> list[tuple[int, int]]:
        return [read_prefix(route.destination, 4) for route in self.routes]

    @cached_property
    def by_length(self) -> dict[int, set[int]]:
        """The first addresses of the routes' destinations, by the length of the prefix."""
        by_length: dict[int, set[int]] = {}
        for first, length in self._prefixes:
            same_length = by_length.get(length)
            if same_length is None:
                same_length = by_length[length] = set()
            same_length.add(first)
        return by_length

    def widest(self, count: int) -> list[Route]:
        """Return that many of the routes with the shortest prefixes."""
        lengths = [length for _, length in self._prefixes]
        return [self.routes[place] for place in nsmallest(count, range(len(lengths)), key=lengths.__getitem__)]


def route_groups(routes: tuple[Route, ...]) -> tuple[RouteGroup, ...]:
    """Return the groups of a state's IPv4 routes, in the order of their first routes."""
    return _route_groups(SameTuple(routes))


@lru_cache(maxsize=4)
def _route_groups(same: SameTuple[Route]) -> tuple[RouteGroup, ...]:
    groups: dict[tuple[object, ...], RouteGroup] = {}
    for (family, table, type_, nexthops), run in groupby(same.entries, _WHAT_DECIDES):
        if family != 4:
            continue
        interfaces = tuple(hop.interface for hop in nexthops)
        group = groups.get((table, type_, interfaces))
        if group is None:
            group = groups[table, type_, interfaces] = RouteGroup(table, type_, interfaces)
        group.routes.extend(run)
    return tuple(groups.values())
