"""Compare and restore the routes of all tables: every type, with next hops, metrics, sources and origins.

Routes for the same packets (table, destination, TOS, metric) are compared together: of several IPv4 routes the first
counts. Routes that need other routes (those by a gateway) are restored last, and again while the state changes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Hashable, Iterable

from viacheck.guard.comparison import DAEMON_PROTOCOLS, InterfaceGone, StateComparison
from viacheck.guard.difference import ListEntry, StateDifference, add_lines, ordered_changes, unordered_changes
from viacheck.guard.object_text import object_text
from viacheck.guard.objects.address_repair import foreign_addresses, local_address
from viacheck.guard.objects.nexthop_repair import concerned_nexthops, nexthops_removed_by_person
from viacheck.guard.repair import RouteSocketRepair
from viacheck.netlink import codec, rtnetlink
from viacheck.netlink.route_message import KernelRoute, RouteKey
from viacheck.netlink.rtnetlink import AF_INET6


def compare_routes(comparison: StateComparison) -> StateDifference:
    """Compare the routes."""
    difference = StateDifference()
    concerned, others = _concerned(comparison), foreign_addresses(comparison)
    saved, current = _by_key(comparison.saved_routes), _by_key(comparison.current_routes)
    restored: list[tuple[int, RouteSocketRepair]] = []
    replaced, lost_nexthops = _destinations_with_a_loss(comparison), nexthops_removed_by_person(comparison)
    for key in dict.fromkeys((*saved, *current)):
        before, after = saved.get(key, []), current.get(key, [])
        if comparison.same_names and [route.message for route in before] == [route.message for route in after]:
            # Most of a large table, and cheaper to compare than the identities.
            continue
        if [route.identity for route in before] == [route.identity for route in after]:
            continue
        if not any(concerned(route) for route in (*before, *after)):
            add_lines(difference.foreign, "route", _entries(before), _entries(after))
            continue
        removed, added = _foreign_changes(comparison, others, before, after, replaced)
        present = {route.identity for route in after}
        removed += [
            route
            for route in before
            if route.identity not in present
            and route not in removed
            and (route.nexthop in lost_nexthops or comparison.removed_by_person(route.message))
        ]
        add_lines(
            difference.foreign, "route",
            _entries(removed, lambda route: comparison.person_text(route.message)), _entries(added),
        )  # fmt: skip
        restored += _restore(
            comparison,
            difference,
            [route for route in before if route not in removed],
            [route for route in after if route not in added],
        )
    difference.repairs += [repair for _rank, repair in sorted(restored, key=lambda pair: pair[0])]
    return difference


def _by_key(routes: Iterable[KernelRoute]) -> dict[RouteKey, list[KernelRoute]]:
    groups: dict[RouteKey, list[KernelRoute]] = {}
    for route in routes:
        groups.setdefault(route.key, []).append(route)
    return groups


def _concerned(comparison: StateComparison) -> Callable[[KernelRoute], bool]:
    """Return the test whether the change is about a route."""
    nexthops = concerned_nexthops(comparison)
    sides = (
        (comparison.saved.addresses, comparison.saved_names),
        (comparison.current.addresses, comparison.current_names),
    )
    sources = {
        local_address(address)
        for addresses, names in sides
        for address in addresses
        if names.get(struct.unpack_from("=I", address.body, 4)[0]) in comparison.interfaces
    }
    return lambda route: (
        route.table in comparison.tables
        or not route.interfaces.isdisjoint(comparison.interfaces)
        or route.source in sources
        or route.nexthop in nexthops
    )


def _foreign_changes(
    comparison: StateComparison,
    addresses: frozenset[bytes],
    before: list[KernelRoute],
    after: list[KernelRoute],
    replaced: Collection[Hashable],
) -> tuple[list[KernelRoute], list[KernelRoute]]:
    """Return the routes that something else removed, and those that it added.

    ``replaced``: the destinations that lost a route; the programs that react to the change may have added another.
    """
    saved, current = {route.identity for route in before}, {route.identity for route in after}
    added = [
        route
        for route in after
        if route.identity not in saved
        and (
            route.protocol in DAEMON_PROTOCOLS
            or route.follows(addresses)
            or _by_another_interface(comparison, route, known=comparison.saved_names.values())
        )
    ]
    protocols = {route.protocol for route in added}
    if not comparison.saved.reconfigures:
        added += [
            route
            for route in after
            if route.identity not in saved | {other.identity for other in added}
            and not (route.made_by_kernel or _destination(route) in replaced)
        ]
    removed = []
    for route in before:
        expired = route.seconds_left is not None and route.seconds_left <= comparison.elapsed
        gone = _by_another_interface(comparison, route, known=comparison.index)
        if route.identity not in current and (
            route.protocol in protocols or route.follows(addresses) or expired or gone
        ):
            removed.append(route)
    return removed, added


def _destination(route: KernelRoute) -> Hashable:
    """Return the packets that a route is for, whatever its metric."""
    return route.key[:-1]


def _destinations_with_a_loss(comparison: StateComparison) -> frozenset[Hashable]:
    if comparison.saved.reconfigures:
        return frozenset()
    current = {route.identity for route in comparison.current_routes}
    return frozenset(_destination(route) for route in comparison.saved_routes if route.identity not in current)


def _by_another_interface(comparison: StateComparison, route: KernelRoute, known: Collection[str]) -> bool:
    """Whether a route is by an interface that is not known, and not one of the change's.

    A container's restart removes the veth of its old namespace, whose routes by fe80::/64 are under the same key as
    those of the uplink, and brings another one.
    """
    unknown = route.interfaces - set(known)
    return bool(unknown) and unknown.isdisjoint(comparison.interfaces)


def _entries(routes: Iterable[KernelRoute], more: Callable[[KernelRoute], str] = lambda _route: "") -> list[ListEntry]:
    return [ListEntry(route.identity, _text(route) + more(route)) for route in routes]


def _text(route: KernelRoute) -> str:
    return object_text(route.message, route.names)


def _restore(
    comparison: StateComparison, difference: StateDifference, before: list[KernelRoute], after: list[KernelRoute]
) -> list[tuple[int, RouteSocketRepair]]:
    """Add the lines and the removals for one key; return the repairs that add routes, each with its rank."""
    # The order of IPv6 routes is the kernel's own.
    ordered = any(route.family != AF_INET6 for route in (*before, *after))
    changes = ordered_changes if ordered else unordered_changes
    if changes([route.identity for route in before], [route.identity for route in after]) == ([], []):
        return []
    add_lines(difference.lines, "route", _entries(before), _entries(after))
    # A route by a missing interface cannot be restored, and no other route is moved for it.
    before = [route for route in before if route.interfaces <= comparison.index.keys()]
    removed, missing = changes([route.identity for route in before], [route.identity for route in after])
    for route in (after[place] for place in removed):
        payload = _payload(comparison, route)
        if payload is not None:
            text = f"removed route: {_text(route)}"
            difference.repairs.append(RouteSocketRepair(text, rtnetlink.RTM_DELROUTE, 0, payload))
    restored = []
    for route in (before[place] for place in missing):
        if route.made_by_kernel_only:
            difference.settling = True
            continue
        payload = _payload(comparison, route)
        if payload is not None:
            difference.unclear += comparison.unclear("route", _text(route), route.message)
            verb = codec.NLM_F_CREATE | codec.NLM_F_APPEND
            repair = RouteSocketRepair(f"restored route: {_text(route)}", rtnetlink.RTM_NEWROUTE, verb, payload)
            restored.append((route.rank, repair))
    return restored


def _payload(comparison: StateComparison, route: KernelRoute) -> bytes | None:
    try:
        return route.request(comparison.current_index, comparison.elapsed)
    except InterfaceGone:
        return None
