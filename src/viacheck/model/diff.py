"""What changed between two snapshots of one host, in words.

What changes by itself is left out: neighbours, counters, the lifetimes of addresses.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

from viacheck.model.snapshot import Address, DockerEngine, FilterChain, Link, NetworkState, Route, Rule, Snapshot

T = TypeVar("T")


def changes(before: Snapshot, after: Snapshot) -> list[str]:
    """One line for each difference: ``-`` for what is gone, ``+`` for what is new."""
    found = list(_network(before.host, after.host, "host"))
    if before.agent is not None and after.agent is not None:
        found += _network(before.agent, after.agent, "agent")
    elif (before.agent is None) != (after.agent is None):
        found.append("agent: can no longer be entered" if after.agent is None else "agent: can be entered now")
    found += _difference(tuple(_engine(before.engine)), tuple(_engine(after.engine)), str, "engine")
    texts = {file.path: file.text for file in before.files}
    found += [f"file {file.path} changed" for file in after.files if texts.get(file.path, file.text) != file.text]
    return found


def _network(before: NetworkState, after: NetworkState, where: str) -> Iterator[str]:
    yield from _difference(before.links, after.links, _link, f"{where} link")
    yield from _difference(before.addresses, after.addresses, _address, f"{where} address")
    yield from _difference(before.rules, after.rules, _rule, f"{where} rule")
    yield from _difference(before.routes, after.routes, _route, f"{where} route")
    yield from _difference(tuple(_sysctls(before)), tuple(_sysctls(after)), str, f"{where} sysctl")
    yield from _difference(tuple(_filter(before)), tuple(_filter(after)), str, f"{where} packet filter")


def _difference(before: tuple[T, ...], after: tuple[T, ...], tell: Callable[[T], str], what: str) -> Iterator[str]:
    # 100,000 routes are compared much sooner than they are put into words.
    if before == after:
        return
    old, new = Counter(map(tell, before)), Counter(map(tell, after))
    yield from (f"- {what}: {one}" for one in (old - new).elements())
    yield from (f"+ {what}: {one}" for one in (new - old).elements())


def _link(link: Link) -> str:
    flags = ",".join(sorted(link.flags))
    return f"{link.name} index {link.index} <{flags}> mtu {link.mtu} mac {link.mac} master {link.master}"


def _address(address: Address) -> str:
    return f"{address.address}/{address.prefixlen} dev {address.interface}"


def _rule(rule: Rule) -> str:
    return f"{'-6 ' if rule.family == 6 else ''}{rule}"


def _route(route: Route) -> str:
    flags = {flag for hop in route.nexthops for flag in hop.flags}
    words = f"{'-6 ' if route.family == 6 else ''}{route} proto {route.protocol}"
    words += f" nhid {route.nexthop_id}" if route.nexthop_id is not None else ""
    return words + (f" {sorted(flags)}" if flags else "")


def _sysctls(state: NetworkState) -> Iterator[str]:
    return (f"{path} = {value}" for path, value in state.sysctls.items())


def _filter(state: NetworkState) -> Iterator[str]:
    for chain in state.packet_filter.chains:
        if not chain.rules and chain.policy in (None, "accept"):
            # An empty chain does nothing; iptables leaves one behind wherever a rule once stood.
            continue
        yield f"{_chain(chain)} policy {chain.policy}"
        for rule in chain.rules:
            bare = dataclasses.replace(rule, packets=None, bytes=None, text="")
            yield f"{_chain(chain)}: {bare.matches} {bare.verdict} {bare.argument} {bare.set_mark}"


def _engine(engine: DockerEngine | None) -> Iterator[str]:
    if engine is None:
        return
    yield f"version {engine.version}"
    yield from (f"network {network.name} {network.driver} on {network.bridge}" for network in engine.networks)
    if engine.container is not None:
        yield f"container {engine.container.name}, process {engine.container.pid}"


def _chain(chain: FilterChain) -> str:
    return f"{chain.backend} {chain.family} {chain.table} {chain.name}"
