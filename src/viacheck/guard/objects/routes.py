"""Routes of all tables: whatever type, with their ways, metrics, sources and owners, in the kernel's own messages.

Routes for the same packets (table, destination, TOS, metric) are looked at together: of several IPv4 ones the first
counts. Those that need others (a way by a gateway) are put back last, and tried again while anything moves.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from viacheck.guard.comparison import OWNED_PROTOCOLS, Comparison, InterfaceGone
from viacheck.guard.describe import describe
from viacheck.guard.difference import Difference, Entry, Request, mend_order, mend_set, tell
from viacheck.guard.objects.addresses import foreign_addresses, local
from viacheck.guard.objects.nexthops import own_nexthops
from viacheck.netlink import codec, rtnetlink
from viacheck.netlink.route_message import KernelRoute, RouteKey
from viacheck.netlink.rtnetlink import AF_INET6


def routes(both: Comparison) -> Difference:
    """Compare the routes."""
    found = Difference()
    concerned, others = _concerned(both), foreign_addresses(both)
    wanted, present = _by_key(both.old_routes), _by_key(both.new_routes)
    put_back: list[tuple[int, Request]] = []
    for key in dict.fromkeys((*wanted, *present)):
        before, after = wanted.get(key, []), present.get(key, [])
        if both.same_names and [route.message for route in before] == [route.message for route in after]:
            # Most of a large table, and cheaper to see than what follows.
            continue
        if [route.identity for route in before] == [route.identity for route in after]:
            continue
        if not any(concerned(route) for route in (*before, *after)):
            tell(found.foreign, "route", _entries(before), _entries(after))
            continue
        went, came = _owned(both, others, before, after)
        tell(found.foreign, "route", _entries(went), _entries(came))
        _restore(
            both,
            found,
            put_back,
            [route for route in before if route not in went],
            [route for route in after if route not in came],
        )
    found.mendings += [request for _rank, request in sorted(put_back, key=lambda pair: pair[0])]
    return found


def _by_key(all_routes: Iterable[KernelRoute]) -> dict[RouteKey, list[KernelRoute]]:
    found: dict[RouteKey, list[KernelRoute]] = {}
    for route in all_routes:
        found.setdefault(route.key, []).append(route)
    return found


def _concerned(both: Comparison) -> Callable[[KernelRoute], bool]:
    tables, nexthops = both.own_tables, own_nexthops(both)
    sources = {
        local(one)
        for addresses, names in ((both.saved.addresses, both.old_names), (both.now.addresses, both.new_names))
        for one in addresses
        if names.get(struct.unpack_from("=I", one.body, 4)[0]) in both.interfaces
    }
    return lambda route: (
        route.table in tables
        or not route.interfaces.isdisjoint(both.interfaces)
        or route.source in sources
        or route.nexthop in nexthops
    )


def _owned(
    both: Comparison, addresses: frozenset[bytes], before: list[KernelRoute], after: list[KernelRoute]
) -> tuple[list[KernelRoute], list[KernelRoute]]:
    """What others took away, and what they brought."""
    old, new = {route.identity for route in before}, {route.identity for route in after}
    came = [
        route
        for route in after
        if route.identity not in old and (route.protocol in OWNED_PROTOCOLS or route.follows(addresses))
    ]
    replaced = {route.protocol for route in came}
    went = []
    for route in before:
        ended = route.seconds_left is not None and route.seconds_left <= both.elapsed
        if route.identity not in new and (route.protocol in replaced or route.follows(addresses) or ended):
            went.append(route)
    return went, came


def _entries(some: Iterable[KernelRoute]) -> list[Entry]:
    return [Entry(route.identity, _text(route)) for route in some]


def _text(route: KernelRoute) -> str:
    """Return the route as ip(8) takes it."""
    return describe(route.message, route.names)


def _restore(
    both: Comparison,
    found: Difference,
    put_back: list[tuple[int, Request]],
    before: list[KernelRoute],
    after: list[KernelRoute],
) -> None:
    # In IPv6 the order is the kernel's own affair.
    ordered = any(route.family != AF_INET6 for route in (*before, *after))
    mend = mend_order if ordered else mend_set
    if mend([route.identity for route in before], [route.identity for route in after]) == ([], []):
        return
    tell(found.lines, "route", _entries(before), _entries(after))
    # For a way by an interface that is gone no other route is moved.
    before = [route for route in before if route.interfaces <= both.index.keys()]
    removed, missing = mend([route.identity for route in before], [route.identity for route in after])
    for at in removed:
        payload = _payload(both, after[at])
        if payload is not None:
            found.mendings.append(Request(f"removed route: {_text(after[at])}", rtnetlink.RTM_DELROUTE, 0, payload))
    for at in missing:
        if before[at].made_by_kernel_only:
            found.settling = True
            continue
        payload = _payload(both, before[at])
        if payload is not None:
            verb = codec.NLM_F_CREATE | codec.NLM_F_APPEND
            request = Request(f"put back route: {_text(before[at])}", rtnetlink.RTM_NEWROUTE, verb, payload)
            put_back.append((before[at].rank, request))


def _payload(both: Comparison, route: KernelRoute) -> bytes | None:
    try:
        return route.request(both.today, both.elapsed)
    except InterfaceGone:
        return None
