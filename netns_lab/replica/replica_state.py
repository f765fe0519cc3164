"""Brings a namespace, whose interfaces exist already, to the state of a snapshot.

The kernel makes prefix routes, link-local addresses and default rules by itself. So the present state is read, and only
the differences are changed. A part that the kernel refuses is left out and named.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from netns_lab import rtnetlink_batch
from netns_lab.nft_replay import replay
from netns_lab.rtnetlink_batch import LabRequest, request
from viacheck.analysis.packet_filter.replica_filter import rebuilt
from viacheck.host.namespace import Namespace
from viacheck.host.snapshot_reader import INTERFACE_SYSCTLS, SYSCTLS, network_state
from viacheck.host.sysctl import read_sysctl, write_sysctl
from viacheck.model.namespace_state import Address, NetworkState
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Route
from viacheck.model.routing_names import TABLE_LOCAL

T = TypeVar("T")
SHORTEST_LIFETIME = 600
"""Seconds: a lease that is about to end must outlive the checks."""


def restore_state(namespace: Namespace, wanted: NetworkState, *, add_only: bool = False) -> list[str]:
    """Give a namespace a snapshot's addresses, routes, rules, sysctls and packet filter.

    Args:
        namespace: of the interfaces.
        wanted: the snapshot's state.
        add_only: keep what the kernel has made by itself, as the wanted state is not complete.

    Returns:
        A note for each part that could not be restored.
    """
    notes = _sysctls(namespace, wanted)
    rtnetlink_batch.settle(namespace, [link for link in wanted.links if link.name != "lo"])
    present, problems = network_state(namespace)
    notes += [f"{problem.what}: {problem.reason}" for problem in problems if problem.what != "packet filter"]
    notes += _mtus(namespace, present, wanted)
    notes += _addresses(namespace, present, _union(present, wanted) if add_only else wanted)
    # New addresses bring routes of the kernel's own.
    present, _ = network_state(namespace)
    if add_only:
        wanted = _union(present, wanted)
    notes += _routes(namespace, present, wanted)
    notes += _rules(namespace, present, wanted)
    chains, left_out = rebuilt(wanted.packet_filter)
    return [*notes, *left_out, *replay(namespace, chains)]


def _union(present: NetworkState, wanted: NetworkState) -> NetworkState:
    return replace(
        wanted,
        addresses=(*present.addresses, *wanted.addresses),
        rules=(*present.rules, *wanted.rules),
        routes=(*present.routes, *wanted.routes),
    )


def known_sysctls(state: NetworkState) -> dict[str, str]:
    """Return the sysctls of a state in the order of writing: those for all interfaces first."""
    names = ["all", "default", *(link.name for link in state.links)]
    paths = [*SYSCTLS, *(pattern.format(name) for name in names for pattern in INTERFACE_SYSCTLS)]
    return {path: state.sysctls[path] for path in paths if path in state.sysctls}


def _sysctls(namespace: Namespace, wanted: NetworkState) -> list[str]:
    values = known_sysctls(wanted)

    def write() -> list[str]:
        refused = []
        for path, value in values.items():
            try:
                if read_sysctl(path) != value:
                    write_sysctl(path, value)
            except OSError as error:
                refused.append(f"sysctl {path} = {value}: {error.strerror}")
        return refused

    return namespace.call(write)


@dataclass(frozen=True, slots=True)
class _Changes(Generic[T]):
    """The differences of two lists, each object as often as it differs, in order."""

    missing: list[T]
    extra: list[T]


def _changes(present: Iterable[T], wanted: Iterable[T], key: Callable[[T], object]) -> _Changes[T]:
    present, wanted = list(present), list(wanted)
    return _Changes(missing=_difference(wanted, present, key), extra=_difference(present, wanted, key))


def _difference(these: Iterable[T], those: Iterable[T], key: Callable[[T], object]) -> list[T]:
    remaining = Counter(map(key, those))
    difference = []
    for item in these:
        if remaining[key(item)]:
            remaining[key(item)] -= 1
        else:
            difference.append(item)
    return difference


def _mtus(namespace: Namespace, present: NetworkState, wanted: NetworkState) -> list[str]:
    """Set the MTUs: a bridge takes the smallest MTU of its ports until it gets an MTU of its own."""
    requests = [
        request("link", "set", index=link.index, mtu=target.mtu)
        for link in present.links
        if (target := wanted.link(link.name)) is not None and target.mtu != link.mtu and link.name != "lo"
    ]
    return _send(namespace, requests, [str(change) for change in requests])


def _addresses(namespace: Namespace, present: NetworkState, wanted: NetworkState) -> list[str]:
    indexes = {link.name: link.index for link in present.links}

    def key(address: Address) -> tuple[str, str, int]:
        return address.interface, address.address, address.prefixlen

    changes = _changes(present.addresses, wanted.addresses, key)
    missing = [replace(address, valid_lifetime=_lifetime(address)) for address in changes.missing]
    missing = [address for address in missing if address.interface in indexes]
    requests = [
        rtnetlink_batch.address_request("del", address, indexes[address.interface]) for address in changes.extra
    ]
    requests += [rtnetlink_batch.address_request("add", address, indexes[address.interface]) for address in missing]
    names = [
        f"address {address.address}/{address.prefixlen} dev {address.interface}"
        for address in (*changes.extra, *missing)
    ]
    return _send(namespace, requests, names)


def _lifetime(address: Address) -> int | None:
    return None if address.valid_lifetime is None else max(address.valid_lifetime, SHORTEST_LIFETIME)


def _routes(namespace: Namespace, present: NetworkState, wanted: NetworkState) -> list[str]:
    indexes = {link.name: link.index for link in present.links}
    changes = _changes(present.routes, wanted.routes, _route_key)
    extra = [route for route in changes.extra if _has_interfaces(route, indexes)]
    # The kernel makes its own routes of the local table from addresses; other routes there come from a command.
    missing = [route for route in changes.missing if not (route.table == TABLE_LOCAL and route.protocol == "kernel")]
    notes = [f"route {route}: its interface does not exist" for route in missing if not _has_interfaces(route, indexes)]
    notes += [
        f"route {route}: uses nexthop object {route.nexthop_id} on the host, and its own nexthop here"
        for route in missing
        if route.nexthop_id is not None
    ]
    notes += _send(
        namespace,
        [rtnetlink_batch.route_request("del", route, indexes) for route in extra],
        [f"extra route {route}" for route in extra],
    )
    # Routes by a gateway come after the routes that lead to the gateway.
    missing = sorted((route for route in missing if _has_interfaces(route, indexes)), key=_has_gateway)
    return notes + _add_routes(namespace, missing, indexes)


def _add_routes(namespace: Namespace, routes: Sequence[Route], indexes: dict[str, int]) -> list[str]:
    requests = [rtnetlink_batch.route_request("add", route, indexes) for route in routes]
    refused = [(routes[place], code) for place, code in rtnetlink_batch.attempt(namespace, requests)]
    notes = [
        f"route {route}: the kernel refuses it: {os.strerror(code)}"
        for route, code in refused
        if not _has_gateway(route)
    ]
    # The host may have lost the subnet of a gateway after it had added the route.
    onlink = [route for route, _code in refused if _has_gateway(route)]
    notes += [f"route {route}: its gateway is in no subnet, so the route is onlink here" for route in onlink]
    requests = [rtnetlink_batch.route_request("add", _onlink(route), indexes) for route in onlink]
    return notes + _send(namespace, requests, [f"route {route}" for route in onlink])


def _route_key(route: Route) -> tuple[object, ...]:
    hops = frozenset((hop.gateway, hop.interface, hop.weight) for hop in route.nexthops)
    return (
        route.family, route.table, route.destination, route.type, hops, route.metric, route.tos, route.protocol,
        route.source, route.mtu, route.source_prefix, route.preference, route.scope,
    )  # fmt: skip


def _has_interfaces(route: Route, indexes: dict[str, int]) -> bool:
    return all(hop.interface is None or hop.interface in indexes for hop in route.nexthops)


def _has_gateway(route: Route) -> bool:
    return any(hop.gateway is not None for hop in route.nexthops)


def _onlink(route: Route) -> Route:
    hops = (replace(hop, flags=("onlink",)) if hop.gateway is not None else hop for hop in route.nexthops)
    return replace(route, nexthops=tuple(hops))


def _rules(namespace: Namespace, present: NetworkState, wanted: NetworkState) -> list[str]:
    def key(rule: Rule) -> tuple[int, str]:
        return rule.family, str(replace(rule, iif_detached=False, oif_detached=False))

    changes = _changes(present.rules, wanted.rules, key)
    known = [rule for rule in changes.missing if not rule.unread]
    notes = [f"rule {rule}: {', '.join(rule.unread)} cannot be written" for rule in changes.missing if rule.unread]
    # Add rules before deleting: without any rule no route is found, not even for a moment.
    requests = [rtnetlink_batch.rule_request("add", rule) for rule in known]
    requests += [rtnetlink_batch.rule_request("del", rule) for rule in changes.extra]
    return notes + _send(namespace, requests, [f"rule {rule}" for rule in (*known, *changes.extra)])


def _send(namespace: Namespace, requests: Sequence[LabRequest], names: Sequence[str]) -> list[str]:
    refused = rtnetlink_batch.attempt(namespace, requests)
    return [f"{names[place]}: the kernel refuses it: {os.strerror(code)}" for place, code in refused]
