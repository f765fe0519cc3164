"""Sets of ipset from the output of ``ipset save``, and the conditions of iptables that ask for them.

The format is that of ipset(8), "SET TYPES". A set that this reader does not know makes its condition ``unknown``, with
the name of the set; a condition is never left out.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

from viacheck.model.filter_chains import FilterChain, FilterMatch, FilterRule

MOST_ELEMENTS = 10_000
"""A set with more elements is not evaluated: a snapshot would hold each of them."""
MOST_NETWORKS = 500
"""The same for a set whose elements are compared with each other."""
_PROTOCOLS = {"tcp": "6", "udp": "17", "sctp": "132", "udplite": "136"}
_ICMP = "icmp:"
_MESSAGES = {
    "echo-reply": "0/0", "pong": "0/0", "echo-request": "8/0", "ping": "8/0", "timestamp-request": "13/0",
    "timestamp-reply": "14/0",
}  # fmt: skip
"""Types and codes of ICMP by the names that ipset prints."""
_OPTIONS_WITH_VALUE = frozenset({"timeout", "packets", "bytes", "comment", "skbmark", "skbprio", "skbqueue"})
_SIDES = {"src": ("source", "sport", "iif"), "dst": ("destination", "dport", "oif")}
"""By direction, the fields of an address, a port and an interface."""
_DEEPEST = 8


class NotIpsetSave(ValueError):
    """The text is not the output of ``ipset save``; the message names the line."""


class _Unknown(Exception):
    """A set that cannot be evaluated; the message says why."""


@dataclass(frozen=True, slots=True)
class IPSet:
    """One set with its elements, as ``ipset save`` prints them."""

    name: str
    kind: str
    options: tuple[str, ...] = ()
    elements: list[tuple[str, ...]] = field(default_factory=list)
    """For each element its text, then its options."""


@dataclass(frozen=True, slots=True)
class SavedSets:
    """The sets of a namespace, or why they could not be read."""

    sets: Mapping[str, IPSet] = field(default_factory=dict)
    problem: str | None = None


def parse_ipset_save(text: str) -> dict[str, IPSet]:
    """Return all sets by their names.

    Raises:
        NotIpsetSave: when a line is not a line of ``ipset save``.
    """
    sets: dict[str, IPSet] = {}
    for number, line in enumerate(text.split("\n"), 1):
        try:
            words = shlex.split(line)
        except ValueError:
            words = ["?"]
        match words:
            case []:
                continue
            case ["create", name, kind, *options]:
                sets[name] = IPSet(name, kind, tuple(options))
            case ["add", name, element, *options] if name in sets:
                sets[name].elements.append((element, *options))
            case _:
                raise NotIpsetSave(f"line {number} is not a line of ipset save: {line!r}")
    return sets


def asks_for_sets(chains: Iterable[FilterChain]) -> bool:
    """Return whether a rule has a condition that is a set of ipset."""
    return any(
        match.field == "unknown" and match.values[0].startswith("-m set ")
        for chain in chains
        for rule in chain.rules
        for match in rule.matches
    )


def with_sets(chains: Iterable[FilterChain], saved: SavedSets) -> Iterator[FilterChain]:
    """Yield the chains with the elements of sets in place of conditions that ask for a set."""
    for chain in chains:
        yield replace(chain, rules=tuple(_with_sets(rule, saved) for rule in chain.rules))


def _with_sets(rule: FilterRule, saved: SavedSets) -> FilterRule:
    matches = tuple(
        _condition(match.values[0], saved)
        if match.field == "unknown" and match.values[0].startswith("-m set ")
        else match
        for match in rule.matches
    )
    return rule if matches == rule.matches else replace(rule, matches=matches)


def _condition(text: str, saved: SavedSets) -> FilterMatch:
    """Return what ``-m set [!] --match-set NAME FLAGS`` asks for."""
    words = shlex.split(text)[2:]
    negated = words[:1] == ["!"]
    match words[negated:]:
        case ["--match-set", name, flags]:
            try:
                values = list(_alternatives(saved, name, flags.split(","), _DEEPEST))
            except _Unknown as reason:
                return FilterMatch(field="unknown", values=(f"{text} (set {name}: {reason})",))
        case _:
            return FilterMatch(field="unknown", values=(text,))
    fields = {part.partition("=")[0] for value in values for part in value.split()}
    if len(fields) == 1 and fields < {"source", "destination"} and all(" " not in value for value in values):
        return FilterMatch(field=fields.pop(), values=tuple(v.partition("=")[2] for v in values), negated=negated)
    return FilterMatch(field="set", values=tuple(values), negated=negated)


def _alternatives(saved: SavedSets, name: str, flags: list[str], depth: int) -> Iterator[str]:
    """Yield what an element stands for: conditions ``FIELD=VALUE`` that all hold; ``!`` before one: it does not.

    Raises:
        _Unknown: when the set is not known, or one of its elements.
    """
    if saved.problem is not None:
        raise _Unknown(saved.problem)
    members = saved.sets.get(name)
    if members is None or not depth:
        raise _Unknown("no such set")
    if len(members.elements) > MOST_ELEMENTS:
        raise _Unknown(f"it has {len(members.elements)} elements")
    if members.kind == "list:set":
        for member, *_ in members.elements:
            yield from _alternatives(saved, member, flags, depth - 1)
        return
    parts = members.kind.partition(":")[2].split(",")
    if "bitmask" in members.options:
        raise _Unknown("it has a bitmask")
    if len(flags) < len(parts):
        # The kernel finds no element by fewer fields than the set has.
        return
    if parts == ["net", "iface"]:
        yield from _longest_networks(members, parts, flags)
        return
    excepted = [_element(members, element, parts, flags) for element in members.elements if "nomatch" in element]
    for element in members.elements:
        if "nomatch" not in element:
            text = _element(members, element, parts, flags)
            yield " ".join([text, *(f"!{other}" for other in excepted if _is_inside(other, text))])


def _longest_networks(members: IPSet, parts: list[str], flags: list[str]) -> Iterator[str]:
    """Yield the elements of a set of networks and interfaces: the kernel looks at the longest network alone.

    Raises:
        _Unknown: for an exception, and for a large set.
    """
    if len(members.elements) > MOST_NETWORKS or any("nomatch" in element for element in members.elements):
        raise _Unknown(f"a set of {members.kind} with exceptions, or with many elements, is not evaluated")
    texts = [_element(members, element, parts, flags) for element in members.elements]
    networks = dict.fromkeys(text.partition(" ")[0] for text in texts)
    for text in texts:
        narrower = [f"!{other}" for other in networks if _is_inside(other, text.partition(" ")[0])]
        yield " ".join([text, *narrower])


def _is_inside(inner: str, outer: str) -> bool:
    """Whether an exception narrows an element; only sets of networks alone are compared."""
    (inner_field, _, inner_value), (field_, _, value) = inner.partition("="), outer.partition("=")
    if " " in inner or " " in outer or inner_field != field_:
        raise _Unknown("it has exceptions (nomatch)")
    narrow, wide = ip_network(inner_value), ip_network(value)
    return narrow.version == wide.version and narrow != wide and narrow.subnet_of(wide)  # type: ignore[arg-type]


def _element(members: IPSet, element: tuple[str, ...], parts: list[str], flags: list[str]) -> str:
    values = element[0].split(",")
    options = iter(element[1:])
    for option in options:
        if option in _OPTIONS_WITH_VALUE:
            next(options, None)
        elif option != "nomatch":
            raise _Unknown(f"an element has the option {option}")
    if len(values) != len(parts):
        raise _Unknown(f"its element {element[0]} is not one of {members.kind}")
    return " ".join(_part(members, *which) for which in zip(parts, values, flags[: len(parts)], strict=True))


def _part(members: IPSet, part: str, value: str, flag: str) -> str:
    """Return the condition of one field of an element."""
    if flag not in _SIDES:
        raise _Unknown(f"its direction {flag} is not known")
    address, port, interface = _SIDES[flag]
    if part == "mac" and flag != "src":
        raise _Unknown("it asks for the destination's MAC address")
    if part in ("ip", "net"):
        options = dict(zip(members.options, members.options[1:], strict=False))
        mask = f"/{options['netmask']}" if "netmask" in options and "/" not in value else ""
        try:
            return f"{address}={ip_network(value + mask, strict=False)}"
        except ValueError:
            raise _Unknown(f"its element {value} is not an address") from None
    if part == "mac":
        return f"mac={value.lower()}"
    if part == "port" and value.startswith(_ICMP):
        name = value.removeprefix(_ICMP)
        kind, _, code = _MESSAGES.get(name, name).partition("/")
        if not (kind.isdigit() and code.isdigit()):
            raise _Unknown(f"its element {value} is not a type of ICMP")
        return f"protocol=1 icmp-type={kind} icmp-code={code}"
    if part == "port":
        protocol, _, number = value.rpartition(":")
        if not number.isdigit() or protocol not in ("", *_PROTOCOLS):
            raise _Unknown(f"its element {value} is not a port")
        return f"protocol={_PROTOCOLS[protocol]} {port}={number}" if protocol else f"{port}={number}"
    if part == "iface" and ":" not in value:
        return f"{interface}={value}"
    raise _Unknown(f"a set of {members.kind} is not evaluated")
