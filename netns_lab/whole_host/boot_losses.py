"""The configuration that a host has now and that its files do not bring back at boot."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from netns_lab.whole_host.stacked_uplinks import MadeLink, missing_links
from viacheck.host.namespace import Namespace
from viacheck.host.snapshot_reader import network_state
from viacheck.model.namespace_state import NetworkState
from viacheck.model.policy_rule import rule_argv, rule_command, rule_text
from viacheck.model.route import Route, route_argv, route_text

ASK_AGAIN_AFTER = 0.1
READ_AT_LEAST = 12
"""How often the state is read before something counts as lost: a busy machine is slow in setting it, too."""
_IN_NO_FILE = ("kernel", "ra", "dhcp")
"""Origins of routes that the kernel, a router or a DHCP server decides (ip-route(8), protocol)."""

Loss = tuple[str, Sequence[str]]
"""What a copy lacks, as text, and the command that adds it."""


def restore_what_the_boot_lost(
    host: Namespace, now: NetworkState, cards: Sequence[str], made: Sequence[MadeLink], within: float
) -> list[str]:
    """Add the addresses, rules and routes that a booted copy lacks; return the notes about all differences.

    Args:
        host: the copy.
        now: the state of the host that it is a copy of.
        cards: the copy's network cards.
        made: what the host's files make of them, each after those that it stands on.
        within: seconds to wait for what a manager sets after the boot.
    """
    deadline, reads, pause = time.monotonic() + within, 0, threading.Event()
    while True:
        reads += 1
        booted, _problems = network_state(host)
        lost: list[Loss] = list(missing_links(booted, made))
        links = {*cards, *(link.name for link in made)}
        lost += [*_lost_on_links(now, booted, links), *_lost_rules(now, booted), *_lost_routes(now, booted, links)]
        if not lost or (time.monotonic() > deadline and reads >= READ_AT_LEAST):
            break
        pause.wait(ASK_AGAIN_AFTER)
    notes = []
    if lost:
        listed = "; ".join(dict.fromkeys(text for text, _argv in lost))
        notes.append(
            f"rebooted, this host would lack: {listed} (not set within {within:g} s of the boot; added to the copy "
            "then, as the host has it now)"
        )
    for text, argv in lost:
        result = host.run(argv)
        if not result.ok:
            notes.append(f"the copy does not take {text}: {result.stderr.strip()}")
    known = {rule_command("add", rule) for rule in now.rules}
    if more := [rule_text(rule) for rule in booted.rules if rule_command("add", rule) not in known]:
        notes.append(f"rebooted, this host would also have: {'; '.join(more)}")
    routes = {_key(route): route for route in now.routes}
    for route in booted.routes:
        other = routes.get(_key(route), route)
        if route.protocol not in _IN_NO_FILE and _identity(other) != _identity(route):
            notes.append(f"rebooted, this host would have {_identity(route)} and not {_identity(other)}")
    return notes


def _lost_on_links(now: NetworkState, booted: NetworkState, names: Collection[str]) -> Iterator[Loss]:
    up = {link.name for link in booted.links if link.up}
    for link in now.links:
        if link.name in names and link.up and link.name not in up:
            yield f"{link.name} up", ["ip", "link", "set", "dev", link.name, "up"]
    present = {(address.interface, address.address) for address in booted.addresses}
    for address in now.addresses:
        if address.interface in names and address.family == 4 and (address.interface, address.address) not in present:
            text = f"{address.address}/{address.prefixlen} dev {address.interface}"
            yield text, ["ip", "address", "add", *text.split()]


def _lost_rules(now: NetworkState, booted: NetworkState) -> Iterator[Loss]:
    present = {rule_command("add", rule) for rule in booted.rules}
    for rule in now.rules:
        if rule_command("add", rule) not in present:
            yield rule_text(rule), rule_argv("add", rule)


def _lost_routes(now: NetworkState, booted: NetworkState, links: Collection[str]) -> Iterator[Loss]:
    present, interfaces = {_key(route) for route in booted.routes}, {*links, *(link.name for link in booted.links)}
    # NetworkManager counts the metrics of its devices in the order in which a boot activates them.
    at_any_metric = {_identity(replace(route, metric=0)) for route in booted.routes}
    for route in now.routes:
        on_copy = all(hop.interface in interfaces for hop in route.nexthops)
        there = _key(route) in present or _identity(replace(route, metric=0)) in at_any_metric
        if on_copy and route.protocol not in _IN_NO_FILE and not there:
            yield route_text(route), route_argv("add", route)


def _key(route: Route) -> tuple[object, ...]:
    """Return what a table holds one route for."""
    return route.family, route.table, route.destination, route.tos, route.metric, route.source_prefix


def _identity(route: Route) -> str:
    """Return a route without its origin and scope, which depend on the program that set it."""
    return route_text(replace(route, protocol=None, scope="global"))
