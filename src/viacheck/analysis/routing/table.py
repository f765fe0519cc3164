"""One routing table, indexed by prefix, and the kernel's search in it for IPv4 and IPv6.

IPv4 follows fib_table_lookup (net/ipv4/fib_trie.c): longest prefix, then TOS, then metric, past nexthops that are dead,
on to shorter prefixes. IPv6 follows fib6_table_lookup (net/ipv6/route.c): longest destination, longest source, lowest
metric, best score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import attrgetter, is_
from socket import AF_INET, AF_INET6, inet_pton

from viacheck.analysis.routing.identity import SameTuple
from viacheck.analysis.routing.packet import LookupKey
from viacheck.model.address_family import Family
from viacheck.model.route import Nexthop, Route

BITS: dict[Family, int] = {4: 32, 6: 128}
ADDRESS_FAMILY = {4: AF_INET, 6: AF_INET6}
REJECTS = frozenset({"unreachable", "prohibit", "blackhole", "throw"})
TOS_OF_IPV4_ROUTING = 0x1C
"""IPTOS_RT_MASK: the bits of the TOS byte that IPv4 routes, and rules with ``tos``, compare."""
REJECT_NEXTHOP = (Nexthop(interface="lo"),)
"""IPv6 keeps its rejecting routes on the loopback interface."""
PREFERENCE = {"low": 1, "medium": 2, "high": 3}
_FAMILY_AND_TABLE = attrgetter("family", "table")

Alive = Callable[[Nexthop], bool]


@dataclass(slots=True)
class Hit:
    """The result of a search: a route, and its nexthops that are alive."""

    route: Route
    nexthops: tuple[Nexthop, ...]
    siblings: list[Route]
    """All routes with this prefix, in the kernel's order."""

    @property
    def length(self) -> int:
        """Length of the prefix that matched."""
        return int(self.route.destination.rpartition("/")[2])

    @property
    def rejects(self) -> bool:
        """The route refuses the packet, or sends it back to the rules (throw)."""
        return self.route.type in REJECTS


def read_address(text: str, family: Family) -> int:
    """Return an address as an integer.

    Raises:
        OSError: if the address is not of the family.
    """
    return int.from_bytes(inet_pton(ADDRESS_FAMILY[family], text), "big")


@lru_cache(maxsize=1 << 18)
def read_prefix(text: str, family: Family) -> tuple[int, int]:
    """Return the address and the length of a prefix in CIDR form; each analysis of a host reads its routes' again.

    Raises:
        OSError: if the address is not of the family.
    """
    address, _, length = text.partition("/")
    return read_address(address, family), int(length) if length else BITS[family]


def mask(length: int, bits: int) -> int:
    """Return the netmask of a prefix length."""
    return ((1 << length) - 1) << (bits - length)


def same_tos(selector: int, tos: int) -> bool:
    """Return whether an IPv4 route or rule with this TOS applies; 0 applies to all."""
    return not selector or selector == tos & TOS_OF_IPV4_ROUTING


class RouteIndex:
    """The routes of one family by table; a table is indexed when it is first searched."""

    def __init__(self, routes: Iterable[Route], family: Family) -> None:
        """Sort the routes by table."""
        self.family = family
        self.routes: dict[int, list[Route]] = {}
        for (of_family, table), run in groupby(routes, _FAMILY_AND_TABLE):
            if of_family == family:
                self.routes.setdefault(table, []).extend(run)
        self._tables: dict[int, RoutingTable] = {}

    def table(self, number: int) -> RoutingTable:
        """Return a table by its number; an empty table when it has no route."""
        table = self._tables.get(number)
        if table is None:
            table = self._tables[number] = _routing_table(_SameRoutes(self.routes.get(number, [])), self.family)
        return table


@dataclass(frozen=True, slots=True, eq=False)
class _SameRoutes:
    """A table's routes as the key of its index: another list of the same objects is equal."""

    routes: list[Route]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _SameRoutes)
            and len(self.routes) == len(other.routes)
            and all(map(is_, self.routes, other.routes))
        )

    def __hash__(self) -> int:
        return hash((len(self.routes), *map(id, self.routes[:1]), *map(id, self.routes[-1:])))


@lru_cache(maxsize=16)
def _routing_table(same: _SameRoutes, family: Family) -> RoutingTable:
    """Return the index of a table; states that differ by other tables alone share it."""
    return RoutingTable(same.routes, family)


@lru_cache(maxsize=4)
def _route_index(same: SameTuple[Route], family: Family) -> RouteIndex:
    return RouteIndex(same.entries, family)


def route_index(routes: tuple[Route, ...], family: Family) -> RouteIndex:
    """Return the index of routes; states that differ by their rules alone share it."""
    return _route_index(SameTuple(routes), family)


class RoutingTable:
    """The routes of one table, indexed for searches."""

    def __init__(self, routes: Iterable[Route], family: Family) -> None:
        """Index the routes; their order counts among routes that are equal to the kernel."""
        self._bits = bits = BITS[family]
        lengths: dict[int, dict[int, list[Route]]] = {}
        shared: list[list[Route]] = []
        for route in routes:
            address, length = read_prefix(route.destination, family)
            same_length = lengths.get(length)
            if same_length is None:
                same_length = lengths[length] = {}
            same_prefix = same_length.get(address)
            if same_prefix is None:
                same_length[address] = [route]
            else:
                if len(same_prefix) == 1:
                    shared.append(same_prefix)
                same_prefix.append(route)
        for same_prefix in shared:
            same_prefix.sort(key=_rank)
        self._lengths = [(length, mask(length, bits), lengths[length]) for length in sorted(lengths, reverse=True)]

    def covering(self, destination: int) -> Iterator[list[Route]]:
        """Yield the routes whose prefix covers a destination, by prefix, the longest prefix first."""
        for _, netmask, prefixes in self._lengths:
            routes = prefixes.get(destination & netmask)
            if routes is not None:
                yield routes

    def overlapping(self, address: int, length: int) -> Iterator[Route]:
        """Yield the routes whose prefix shares an address with a prefix, in no order."""
        own_mask = mask(length, self._bits)
        for route_length, netmask, prefixes in self._lengths:
            if route_length <= length:
                yield from prefixes.get(address & netmask, ())
            else:
                for first, routes in prefixes.items():
                    if first & own_mask == address:
                        yield from routes

    def defaults(self) -> list[Route]:
        """Return the table's default routes."""
        return next((prefixes[0] for length, _, prefixes in self._lengths if length == 0), [])

    def search_ipv4(self, key: LookupKey, alive: Alive) -> Hit | None:
        """Return the route that IPv4 takes; None sends the packet back to the rules."""
        for routes in self.covering(key.destination):
            for route in routes:
                if not same_tos(route.tos, key.tos):
                    continue
                if route.type in REJECTS:
                    return Hit(route, (), routes)
                living = tuple(
                    hop for hop in route.nexthops if alive(hop) and (key.oif is None or key.oif == hop.interface)
                )
                if living:
                    return Hit(route, living if key.oif is None else living[:1], routes)
        return None

    def search_ipv6(
        self, key: LookupKey, alive: Alive, *, device: str | None, only_device: bool, reachable: Alive | None
    ) -> Hit | None:
        """Return the route that IPv6 takes; None sends the packet back to the rules.

        ``device`` is preferred, and with ``only_device`` required. ``reachable`` counts first where the host is not a
        router (RFC 4861, 6.3.6); when no gateway is reachable, the search is repeated without it.
        """
        nodes = self._ipv6_nodes(key.destination, key.source or 0)
        for judge in (reachable, None) if reachable else (None,):
            for routes in nodes:
                # The routes with the lowest metric are scored first; when none can be used, all others together.
                first = [route for route in routes if route.metric == routes[0].metric]
                for group in (first, routes[len(first) :]):
                    hit = _best(group, alive, judge, device, only_device)
                    if hit is not None:
                        hit.siblings = routes
                        return hit
        return None

    def _ipv6_nodes(self, destination: int, source: int) -> list[list[Route]]:
        """Return the groups of routes in the order of the search: longest destination, then longest source.

        A prefix that has routes for certain sources hides its routes for all sources from a packet of another source,
        unless the search comes back to it from a longer prefix (fib6_node_lookup_1, fib6_backtrack).
        """
        nodes: list[list[Route]] = []
        for routes in self.covering(destination):
            for_all = [route for route in routes if route.source_prefix is None]
            matching = _by_source(routes, source) if len(for_all) < len(routes) else []
            hidden = not nodes and len(for_all) < len(routes) and not matching
            nodes += matching
            if for_all and not (hidden and not routes[0].is_default):
                nodes.append(for_all)
        return nodes


def _rank(route: Route) -> tuple[int, int, int]:
    # Local and main share a trie until a rule changes; in it the table with the higher number comes first.
    return (-route.table, -route.tos, route.metric)


def _by_source(routes: list[Route], source: int) -> list[list[Route]]:
    """Return the routes for certain sources that cover this source, the longest prefix first."""
    groups: dict[tuple[int, int], list[Route]] = {}
    for route in routes:
        if route.source_prefix is not None:
            address, length = read_prefix(route.source_prefix, 6)
            if source & mask(length, 128) == address:
                groups.setdefault((length, address), []).append(route)
    return [groups[key] for key in sorted(groups, reverse=True)]


def _best(
    routes: list[Route], alive: Alive, reachable: Alive | None, device: str | None, only_device: bool
) -> Hit | None:
    best: Hit | None = None
    best_score = -1
    for route in routes:
        hops = REJECT_NEXTHOP if route.type in REJECTS else route.nexthops
        living = tuple(hop for hop in hops if alive(hop))
        usable = [
            hop
            for hop in living
            if (not only_device or device is None or hop.interface == device)
            and (reachable is None or hop.gateway is None or reachable(hop))
        ]
        if not usable:
            continue
        on_device = any(device is None or hop.interface == device for hop in usable)
        score = (2 if on_device else 0) | PREFERENCE[route.preference] << 2
        if score > best_score:
            # Among the nexthops of a route a hash decides, over all that can be used.
            best, best_score = Hit(route, tuple(usable), routes), score
    return best
