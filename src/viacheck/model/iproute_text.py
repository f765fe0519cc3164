"""Policy routing rules and routes as ip(8) writes them: the line that it prints and the arguments that it takes.

Every report, remedy and comparison gets its text here. The module needs the standard library alone, because the
watchdog runs without site-packages.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from viacheck.model.snapshot import Nexthop, PortRange, Route, Rule

FAMILY_OPTION = {4: "", 6: "-6 "}
"""What ``ip`` needs before the object for each family."""
_ALL_BITS = 0xFFFFFFFF
_TABLE_MAIN = 254
_TABLE_NAMES = {253: "default", 254: "main", 255: "local"}
"""The tables that every ``ip`` knows by name, whatever rt_tables says."""
IP_PROTOCOLS = {
    1: "icmp", 2: "igmp", 4: "ipencap", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah",
    58: "ipv6-icmp", 89: "ospf", 112: "vrrp", 132: "sctp", 136: "udplite",
}  # fmt: skip
"""Protocols as ``ip rule`` prints them, by the names of Debian's /etc/protocols."""
_IMPLIED_SCOPES = {"local": "host", "nat": "host", "broadcast": "link", "multicast": "link", "anycast": "link"}
"""Scopes that ``ip route add`` gives to an IPv4 route of these types when none is written."""
_LOCAL_TABLE_TYPES = frozenset({"local", "broadcast", "anycast", "nat"})
"""Types of routes that ``ip route add`` puts in the local table when no table is written."""


def rule_text(rule: Rule, *, table: str | None = None, with_priority: bool = True) -> str:
    """Return a rule as ``ip rule`` prints it, without the family.

    Args:
        rule: the rule.
        table: the table as a file names it; left out, the table's number, or the name that every ``ip`` knows.
        with_priority: begin with the rule's priority.
    """
    priority = f"priority {rule.priority} " if with_priority else ""
    return priority + " ".join([*_selectors(rule, printed=True), *_action(rule, table)])


def rule_arguments(rule: Rule, *, table: str | None = None) -> list[str]:
    """Return a rule as ``ip rule add`` and ``ip rule del`` take it."""
    arguments = ["priority", str(rule.priority), *_selectors(rule, printed=False)]
    if not rule.l3mdev:
        arguments += _action(rule, table)
    return arguments


def rule_argv(verb: Literal["add", "del"], rule: Rule) -> list[str]:
    """Return the command that adds or deletes a rule, as an argument list; the origin of an added rule is kept."""
    origin = ["protocol", rule.protocol] if verb == "add" and rule.protocol else []
    return [*_ip(rule.family), "rule", verb, *rule_arguments(rule), *origin]


def rule_command(verb: Literal["add", "del"], rule: Rule) -> str:
    """Return the command that adds or deletes a rule, as shell text."""
    return shlex.join(rule_argv(verb, rule))


def _selectors(rule: Rule, *, printed: bool) -> Iterator[str]:
    """Yield the selectors; only ``printed`` ones have marks and names that ``ip`` may not take as arguments."""
    if rule.invert:
        yield "not"
    yield from ("from", rule.source or "all")
    if rule.destination:
        yield from ("to", rule.destination)
    if rule.tos:
        yield from ("tos", f"0x{rule.tos:x}")
    if rule.fwmark is not None:
        mask = "" if rule.fwmask in (None, _ALL_BITS) else f"/0x{rule.fwmask:x}"
        yield from ("fwmark", f"0x{rule.fwmark:x}{mask}")
    for keyword, interface, detached in (("iif", rule.iif, rule.iif_detached), ("oif", rule.oif, rule.oif_detached)):
        if interface:
            yield from (keyword, interface)
            if detached and printed:
                yield "[detached]"
    if rule.l3mdev:
        yield "l3mdev"
    if rule.uid_first is not None:
        yield from ("uidrange", f"{rule.uid_first}-{rule.uid_last}")
    if rule.ipproto is not None:
        number = str(rule.ipproto)
        yield from ("ipproto", IP_PROTOCOLS.get(rule.ipproto, number) if printed else number)
    for keyword, ports in (("sport", rule.sport), ("dport", rule.dport)):
        if ports is not None:
            yield from (keyword, _ports(ports))
    if rule.tun_id is not None:
        yield from ("tun_id", str(rule.tun_id))
    for selector in rule.unread:
        yield from selector.split(" ", 1)


def _ports(ports: PortRange) -> str:
    return str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"


def _action(rule: Rule, table: str | None) -> Iterator[str]:
    if rule.action == "goto":
        yield from ("goto", "none" if rule.goto is None else str(rule.goto))
    elif rule.action != "lookup":
        yield rule.action
    elif rule.l3mdev and rule.table is None:
        yield from ("lookup", "[l3mdev-table]")
    else:
        known = _TABLE_NAMES.get(rule.table) if rule.table is not None else None
        yield from ("lookup", table or known or str(rule.table))
        if rule.suppress_prefixlength is not None:
            yield from ("suppress_prefixlength", str(rule.suppress_prefixlength))
        if rule.suppress_ifgroup is not None:
            yield from ("suppress_ifgroup", str(rule.suppress_ifgroup))


def route_text(route: Route) -> str:
    """Return a route as a person writes it for ``ip route``, without the family, its origin and its scope."""
    return " ".join([*_key(route), *_several(route)])


def route_details(route: Route) -> str:
    """Return a route as ``ip -details route`` shows it, without the family: with its origin, scope and metrics."""
    details = ["proto", route.protocol] if route.protocol is not None else []
    if route.scope != "global":
        details += ["scope", route.scope]
    if route.nexthop_id is not None:
        details += ["nhid", str(route.nexthop_id)]
    return " ".join([*_key(route), *details, *_metrics(route), *_several(route)])


def route_arguments(route: Route) -> list[str]:
    """Return a route as ``ip route add`` and its like take it, with nothing of it left out."""
    origin = ["proto", route.protocol] if route.protocol not in (None, "boot") else []
    if route.family == 4 and route.scope != implied_scope(route):
        origin += ["scope", route.scope]
    several = [] if route.nexthop_id is not None else _several(route)
    return [*_key(route, by_nexthop_object=True), *map(str, origin), *_metrics(route), *several]


def route_argv(verb: Literal["add", "append", "del", "replace"], route: Route) -> list[str]:
    """Return the command that adds, replaces or deletes a route, as an argument list."""
    family = _ip(route.family)
    if route.family == 4 and any(":" in (hop.gateway or "") for hop in route.nexthops):
        # Without -4, ip takes the family of a default route from its gateway.
        family.append("-4")
    return [*family, "route", verb, *route_arguments(route)]


def route_command(verb: Literal["add", "append", "del", "replace"], route: Route) -> str:
    """Return the command that adds, replaces or deletes a route, as shell text."""
    return shlex.join(route_argv(verb, route))


def _key(route: Route, *, by_nexthop_object: bool = False) -> Iterator[str]:
    if route.type != "unicast":
        yield route.type
    yield "default" if route.is_default else route.destination
    if route.source_prefix:
        yield from ("from", route.source_prefix)
    if route.tos:
        yield from ("tos", f"0x{route.tos:x}")
    if by_nexthop_object and route.nexthop_id is not None:
        yield from ("nhid", str(route.nexthop_id))
    elif len(route.nexthops) == 1:
        yield from _nexthop(route.nexthops[0], route.family)
    if route.source:
        yield from ("src", route.source)
    if route.metric:
        yield from ("metric", str(route.metric))
    if route.table != _TABLE_MAIN or route.type in _LOCAL_TABLE_TYPES:
        yield from ("table", str(route.table))


def _metrics(route: Route) -> Iterator[str]:
    if route.mtu is not None:
        yield from ("mtu", str(route.mtu))
    if route.preference != "medium":
        yield from ("pref", route.preference)


def _several(route: Route) -> list[str]:
    # ip-route(8) takes several nexthops last.
    if len(route.nexthops) < 2:
        return []
    return [
        word for hop in route.nexthops for word in ("nexthop", *_nexthop(hop, route.family), "weight", str(hop.weight))
    ]


def _nexthop(hop: Nexthop, family: int) -> Iterator[str]:
    if hop.gateway:
        yield "via"
        if family == 4 and ":" in hop.gateway:
            yield "inet6"
        yield hop.gateway
    if hop.interface:
        yield from ("dev", hop.interface)
    if "onlink" in hop.flags:
        yield "onlink"


def implied_scope(route: Route) -> str:
    """Return the scope that ``ip route add`` gives to an IPv4 route when none is written."""
    if route.type == "unicast":
        leads_on = route.nexthop_id is not None or len(route.nexthops) > 1 or any(h.gateway for h in route.nexthops)
        return "global" if leads_on else "link"
    return _IMPLIED_SCOPES.get(route.type, "global")


def _ip(family: int) -> list[str]:
    return ["ip", *FAMILY_OPTION[family].split()]
