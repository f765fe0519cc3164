"""Brings a namespace, whose interfaces are there already, to the state that a snapshot tells.

The kernel makes much by itself: prefix routes, link-local addresses, its default rules. So the state that came about is
read, and only what differs is changed. What the kernel refuses is told and left out.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from netns_lab import rtnetlink_batch
from netns_lab.nft_replay import replay
from netns_lab.rtnetlink_batch import LabRequest, request
from viacheck.analysis.packet_filter.replica_filter import rebuilt
from viacheck.host.namespace import Namespace
from viacheck.host.snapshot_reader import INTERFACE_SYSCTLS, SYSCTLS, network_state
from viacheck.host.sysctl import read_sysctl, write_sysctl
from viacheck.model.snapshot import TABLE_LOCAL, Address, NetworkState, Route, Rule

T = TypeVar("T")
SHORTEST_LIFETIME = 600
"""Seconds: a lease that is about to end must outlive the checks."""


def complete(namespace: Namespace, wanted: NetworkState, *, add_only: bool = False) -> list[str]:
    """Make a namespace hold a snapshot's addresses, routes, rules, sysctls and packet filter.

    Args:
        namespace: where the interfaces are.
        wanted: what is to be there.
        add_only: leave what the kernel has made by itself, as the state is not known whole.

    Returns:
        What could not be made, in words.
    """
    told = _sysctls(namespace, wanted)
    rtnetlink_batch.settle(namespace, [link for link in wanted.links if link.name != "lo"])
    found, problems = network_state(namespace)
    told += [f"{problem.what}: {problem.reason}" for problem in problems if problem.what != "packet filter"]
    told += _mtus(namespace, found, wanted)
    told += _addresses(namespace, found, _both(found, wanted) if add_only else wanted)
    found, _ = network_state(namespace)
    if add_only:
        wanted = _both(found, wanted)
    told += _routes(namespace, found, wanted)
    told += _rules(namespace, found, wanted)
    chains, left_out = rebuilt(wanted.packet_filter)
    return [*told, *left_out, *replay(namespace, chains)]


def _both(found: NetworkState, wanted: NetworkState) -> NetworkState:
    return replace(
        wanted,
        addresses=(*found.addresses, *wanted.addresses),
        rules=(*found.rules, *wanted.rules),
        routes=(*found.routes, *wanted.routes),
    )


def known_sysctls(state: NetworkState) -> dict[str, str]:
    """The sysctls of a state, in the order in which they must be written: those for all interfaces first."""
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


def _mtus(namespace: Namespace, found: NetworkState, wanted: NetworkState) -> list[str]:
    """A bridge takes the smallest MTU of its ports until it is told another one."""
    requests = [
        request("link", "set", index=link.index, mtu=there.mtu)
        for link in found.links
        if (there := wanted.link(link.name)) is not None and there.mtu != link.mtu and link.name != "lo"
    ]
    return _send(namespace, requests, [str(one) for one in requests])


def _addresses(namespace: Namespace, found: NetworkState, wanted: NetworkState) -> list[str]:
    indexes = {link.name: link.index for link in found.links}

    def key(address: Address) -> tuple[str, str, int]:
        return address.interface, address.address, address.prefixlen

    missing = [replace(one, valid_lifetime=_lifetime(one)) for one in _without(wanted.addresses, found.addresses, key)]
    extra = _without(found.addresses, wanted.addresses, key)
    known = [one for one in missing if one.interface in indexes]
    requests = [rtnetlink_batch.address_request("del", one, indexes[one.interface]) for one in extra]
    requests += [rtnetlink_batch.address_request("add", one, indexes[one.interface]) for one in known]
    words = [f"address {one.address}/{one.prefixlen} dev {one.interface}" for one in (*extra, *known)]
    return _send(namespace, requests, words)


def _lifetime(address: Address) -> int | None:
    return None if address.valid_lifetime is None else max(address.valid_lifetime, SHORTEST_LIFETIME)


def _routes(namespace: Namespace, found: NetworkState, wanted: NetworkState) -> list[str]:
    indexes = {link.name: link.index for link in found.links}
    extra = [one for one in _without(found.routes, wanted.routes, _route_key) if _can_be_sent(one, indexes)]
    missing = [
        one
        for one in _without(wanted.routes, found.routes, _route_key)
        # What is in the local table the kernel makes of addresses; what somebody else wrote there is not its.
        if not (one.table == TABLE_LOCAL and one.protocol == "kernel")
    ]
    told = [f"route {one}: its interface is not there" for one in missing if not _can_be_sent(one, indexes)]
    told += [
        f"route {one}: goes by nexthop object {one.nexthop_id} on the host, and here by itself"
        for one in missing
        if one.nexthop_id is not None
    ]
    missing = sorted((one for one in missing if _can_be_sent(one, indexes)), key=_needs_others)
    gone = [rtnetlink_batch.route_request("del", one, indexes) for one in extra]
    told += _send(namespace, gone, [f"extra route {one}" for one in extra])
    refused = rtnetlink_batch.attempt(
        namespace, [rtnetlink_batch.route_request("add", one, indexes) for one in missing]
    )
    told += [
        f"route {missing[place]}: the kernel refuses it: {os.strerror(code)}"
        for place, code in refused
        if not _needs_others(missing[place])
    ]
    # The gateway may have been in a subnet when the route was made, and no longer be.
    again = [missing[place] for place, _code in refused if _needs_others(missing[place])]
    told += [f"route {one}: its gateway is in no subnet, so the route says that it is on link" for one in again]
    requests = [rtnetlink_batch.route_request("add", _on_link(one), indexes) for one in again]
    return told + _send(namespace, requests, [f"route {one}" for one in again])


def _route_key(route: Route) -> tuple[object, ...]:
    hops = frozenset((hop.gateway, hop.interface, hop.weight) for hop in route.nexthops)
    return (
        route.family, route.table, route.destination, route.type, hops, route.metric, route.tos, route.protocol,
        route.source, route.mtu, route.source_prefix, route.preference, route.scope,
    )  # fmt: skip


def _can_be_sent(route: Route, indexes: dict[str, int]) -> bool:
    return all(hop.interface is None or hop.interface in indexes for hop in route.nexthops)


def _needs_others(route: Route) -> bool:
    """Routes by a gateway come after those that tell how to reach it."""
    return any(hop.gateway is not None for hop in route.nexthops)


def _on_link(route: Route) -> Route:
    hops = (replace(hop, flags=("onlink",)) if hop.gateway is not None else hop for hop in route.nexthops)
    return replace(route, nexthops=tuple(hops))


def _rules(namespace: Namespace, found: NetworkState, wanted: NetworkState) -> list[str]:
    def key(rule: Rule) -> tuple[int, str]:
        return rule.family, str(replace(rule, iif_detached=False, oif_detached=False))

    extra = _without(found.rules, wanted.rules, key)
    missing = _without(wanted.rules, found.rules, key)
    known = [one for one in missing if not one.unread]
    told = [f"rule {one}: {', '.join(one.unread)} cannot be told" for one in missing if one.unread]
    # First what is new: without any rule nothing finds its way, not even meanwhile.
    requests = [rtnetlink_batch.rule_request("add", one) for one in known]
    requests += [rtnetlink_batch.rule_request("del", one) for one in extra]
    return told + _send(namespace, requests, [f"rule {one}" for one in (*known, *extra)])


def _without(these: Iterable[T], those: Iterable[T], key: Callable[[T], object]) -> list[T]:
    """What is in one list and not in the other, each as often as it is there more often, in order."""
    rest = Counter(map(key, those))
    left = []
    for one in these:
        if rest[key(one)]:
            rest[key(one)] -= 1
        else:
            left.append(one)
    return left


def _send(namespace: Namespace, requests: Sequence[LabRequest], words: Sequence[str]) -> list[str]:
    refused = rtnetlink_batch.attempt(namespace, requests)
    return [f"{words[place]}: the kernel refuses it: {os.strerror(code)}" for place, code in refused]
