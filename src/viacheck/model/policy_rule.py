"""A policy routing rule, and its text as ip(8) writes it: the line that it prints and the arguments that it takes.

Every report, remedy and comparison gets its text here. The module needs the standard library alone, because the
watchdog runs without site-packages.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Literal

from viacheck.model.address_family import Family, IPNetwork, ip_command
from viacheck.model.routing_names import TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN, TABLE_NAMES

_ALL_BITS = 0xFFFFFFFF
IP_PROTOCOLS = {
    1: "icmp", 2: "igmp", 4: "ipencap", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah",
    58: "ipv6-icmp", 89: "ospf", 112: "vrrp", 132: "sctp", 136: "udplite",
}  # fmt: skip
"""Protocols as ``ip rule`` prints them, by the names of Debian's /etc/protocols."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRange:
    """An inclusive range of ports (FRA_SPORT_RANGE, FRA_DPORT_RANGE)."""

    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One policy routing rule (ip-rule(8), fib_rules.h). None means that the selector is absent."""

    family: Family
    priority: int
    action: Literal["lookup", "goto", "nop", "unreachable", "blackhole", "prohibit"] = "lookup"
    table: int | None = None
    goto: int | None = None
    invert: bool = False
    """``not``: the rule applies to what its selectors do not match."""
    source: str | None = None
    """Prefix in CIDR form; None for ``from all``."""
    destination: str | None = None
    iif: str | None = None
    iif_detached: bool = False
    oif: str | None = None
    oif_detached: bool = False
    fwmark: int | None = None
    fwmask: int | None = None
    tos: int | None = None
    ipproto: int | None = None
    sport: PortRange | None = None
    dport: PortRange | None = None
    uid_first: int | None = None
    uid_last: int | None = None
    tun_id: int | None = None
    l3mdev: bool = False
    suppress_prefixlength: int | None = None
    suppress_ifgroup: int | None = None
    protocol: str | None = None
    """The origin: ``kernel``, ``boot``, ``static``, or a number."""
    unread: tuple[str, ...] = ()
    """Selectors that the reader does not know, as ``name value``: whether they match is unknown."""

    @property
    def source_network(self) -> IPNetwork | None:
        """The sources that it selects; the kernel keeps the host's bits of the prefix, and does not compare them."""
        return ip_network(self.source, strict=False) if self.source is not None else None

    @property
    def kernels_own(self) -> bool:
        """Whether the rule is a default rule of every new network namespace."""
        return (
            self.priority in (0, 32766, 32767)
            and self.source is None
            and self.table in (TABLE_LOCAL, TABLE_MAIN, TABLE_DEFAULT)
        )

    @property
    def narrowed(self) -> bool:
        """The rule selects by more than addresses, interfaces and mark: it leaves out some packets of a sender."""
        return bool(
            self.invert
            or self.destination
            or self.tos
            or self.ipproto
            or self.sport
            or self.dport
            or self.uid_first is not None
            or self.tun_id
            or self.l3mdev
            or self.unread
        )

    def __str__(self) -> str:
        """The rule as ``ip rule`` prints it, without the family."""
        return rule_text(self)


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
    return [*ip_command(rule.family), "rule", verb, *rule_arguments(rule), *origin]


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
        known = TABLE_NAMES.get(rule.table) if rule.table is not None else None
        yield from ("lookup", table or known or str(rule.table))
        if rule.suppress_prefixlength is not None:
            yield from ("suppress_prefixlength", str(rule.suppress_prefixlength))
        if rule.suppress_ifgroup is not None:
            yield from ("suppress_ifgroup", str(rule.suppress_ifgroup))
