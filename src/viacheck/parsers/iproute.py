"""Links, addresses, rules, routes and neighbours from the output of ``ip -N -j -d``.

With ``-N`` tables, protocols, scopes and route types are numbers, whatever the host's files call them; here the
kernel's own ones get their names back (rtnetlink(7), linux/rtnetlink.h). Nothing is guessed: output of another form
is an error, and a selector that this reader does not know is kept as unread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from viacheck.model import routing_names
from viacheck.model.address_family import Family
from viacheck.model.like_routes import like_routes
from viacheck.model.namespace_state import Address, Link, Neighbour
from viacheck.model.policy_rule import PortRange, Rule
from viacheck.model.route import Nexthop, Route
from viacheck.model.routing_names import TABLE_MAIN, WITHOUT_NEXTHOP

T = TypeVar("T")
Entry = dict[str, Any]

ROUTE_TYPES = {str(number): name for number, name in enumerate(routing_names.ROUTE_TYPES)}
SCOPES, PROTOCOLS = (
    {str(number): name for number, name in names.items()} for names in (routing_names.SCOPES, routing_names.PROTOCOLS)
)
RULE_ACTIONS: dict[str, Literal["blackhole", "unreachable", "prohibit"]] = {
    "6": "blackhole",
    "7": "unreachable",
    "8": "prohibit",
}
RULE_KEYS = frozenset(
    {
        "priority",
        "not",
        "src",
        "srclen",
        "dst",
        "dstlen",
        "tos",
        "fwmark",
        "fwmask",
        "iif",
        "iif_detached",
        "oif",
        "oif_detached",
        "l3mdev",
        "uid_start",
        "uid_end",
        "ipproto",
        "sport",
        "sport_start",
        "sport_end",
        "dport",
        "dport_start",
        "dport_end",
        "tun_id",
        "table",
        "suppress_prefixlen",
        "suppress_ifgroup",
        "goto",
        "unresolved",
        "nop",
        "action",
        "protocol",
        "flow_from",
        "flow_to",
    }
)
"""Every key of ``ip -j rule`` up to iproute2 6.1; the realms are not a selector, and are left out on purpose."""
FOREVER = 0xFFFFFFFF
EVERYTHING: dict[Family, str] = {4: "0.0.0.0/0", 6: "::/0"}
HOST_LENGTH: dict[Family, int] = {4: 32, 6: 128}


class ParseError(Exception):
    """The text is not output of ``ip``; the message says what was expected instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteAnswer:
    """The kernel's own routing decision, as ``ip route get`` prints it."""

    destination: str
    type: str = "unicast"
    interface: str | None = None
    gateway: str | None = None
    source: str | None = None
    """The preferred source of a packet that the host itself sends."""
    asked_source: str | None = None
    """The source in the question; a forwarded packet keeps it."""
    iif: str | None = None
    table: int = TABLE_MAIN
    mark: int = 0
    uid: int | None = None


def parse_links(text: str) -> tuple[Link, ...]:
    """Read ``ip -N -j -d link show``; ``wireless`` is not in it and stays False.

    Raises:
        ParseError: when the text is something else.
    """
    entries = [entry for entry in _entries(text, "ip link") if entry]
    index_of = {str(entry.get("ifname")): entry.get("ifindex") for entry in entries}

    def link(entry: Entry) -> Link:
        kind: Entry = entry.get("linkinfo") or {}
        return Link(
            index=int(entry["ifindex"]),
            name=entry["ifname"],
            kind=kind.get("info_kind"),
            flags=tuple(entry.get("flags", ())),
            operstate=entry.get("operstate", "UNKNOWN"),
            mac=entry.get("address"),
            mtu=int(entry["mtu"]),
            master=entry.get("master"),
            # ip names the other end in the same namespace, and gives the index of an end in another namespace.
            peer_index=entry["link_index"] if "link_index" in entry else index_of.get(str(entry.get("link"))),
            peer_netnsid=entry.get("link_netnsid"),
            mode=(kind.get("info_data") or {}).get("mode") if kind.get("info_kind") in ("macvlan", "macvtap") else None,
        )

    return _read(entries, link, "ip link")


def parse_addresses(text: str) -> tuple[Address, ...]:
    """Read ``ip -N -j -d address show``: the IPv4 and IPv6 addresses of every interface, in the kernel's order.

    Raises:
        ParseError: when the text is something else.
    """
    families: dict[str, Family] = {"inet": 4, "inet6": 6}

    def of_interface(entry: Entry) -> list[Entry]:
        return [
            {"interface": entry.get("ifname"), **info}
            for info in entry.get("addr_info", ())
            if info and str(info.get("family")) in families
        ]

    pairs = [pair for pairs in _read(_entries(text, "ip address"), of_interface, "ip address") for pair in pairs]

    def address(entry: Entry) -> Address:
        lifetime = entry.get("valid_life_time", FOREVER)
        scope = _text(entry["scope"])
        return Address(
            interface=_text(entry["interface"]),
            family=families[entry["family"]],
            address=_text(entry["local"]),
            prefixlen=int(entry["prefixlen"]),
            scope=SCOPES.get(scope, scope),
            flags=tuple(key for key, value in entry.items() if value is True),
            valid_lifetime=None if lifetime == FOREVER else int(lifetime),
            peer=entry.get("address"),
        )

    return _read(pairs, address, "ip address")


def parse_rules(text: str, family: Family) -> tuple[Rule, ...]:
    """Read ``ip -N -j -d -4|-6 rule show``; the order is kept, it is the order in which the kernel asks (ip-rule(8)).

    Raises:
        ParseError: when the text is something else.
    """

    def rule(entry: Entry) -> Rule:
        action: Literal["lookup", "goto", "nop", "unreachable", "blackhole", "prohibit"] = "lookup"
        if "goto" in entry:
            action = "goto"
        elif "nop" in entry:
            action = "nop"
        elif "action" in entry:
            action = RULE_ACTIONS[entry["action"]]
        fwmark, fwmask, tos = entry.get("fwmark"), entry.get("fwmask"), entry.get("tos")
        goto, table, ipproto = entry.get("goto"), entry.get("table"), entry.get("ipproto")
        group = entry.get("suppress_ifgroup")
        protocol = entry.get("protocol", "0")
        unread = entry.keys() - RULE_KEYS
        return Rule(
            family=family,
            priority=int(entry["priority"]),
            action=action,
            table=None if table is None else int(table),
            goto=None if goto in (None, "none") else int(goto),
            invert="not" in entry,
            source=_selector(entry["src"], entry.get("srclen"), family),
            destination=_selector(entry["dst"], entry.get("dstlen"), family) if "dst" in entry else None,
            iif=entry.get("iif"),
            iif_detached="iif_detached" in entry,
            oif=entry.get("oif"),
            oif_detached="oif_detached" in entry,
            fwmark=None if fwmark is None else int(fwmark, 16),
            fwmask=None if fwmask is None else int(fwmask, 16),
            tos=None if tos is None else int(tos, 16),
            # -N makes "ipproto-6" of the 6 (inet_proto_n2a, iproute2's lib/inet_proto.c).
            ipproto=None if ipproto is None else int(str(ipproto).removeprefix("ipproto-")),
            sport=_ports(entry, "sport"),
            dport=_ports(entry, "dport"),
            uid_first=entry.get("uid_start"),
            uid_last=entry.get("uid_end"),
            tun_id=entry.get("tun_id"),
            l3mdev="l3mdev" in entry,
            suppress_prefixlength=entry.get("suppress_prefixlen"),
            suppress_ifgroup=None if group is None else int(group),
            protocol=None if protocol == "0" else PROTOCOLS.get(protocol, protocol),
            unread=tuple(f"{key} {entry[key]}" for key in sorted(unread)) if unread else (),
        )

    return _read(_entries(text, "ip rule"), rule, "ip rule")


def parse_routes(text: str, family: Family) -> tuple[Route, ...]:
    """Read ``ip -N -j -d -4|-6 route show table all``; among equal prefixes the order is the kernel's.

    Raises:
        ParseError: when the text is something else.
    """
    host = f"/{HOST_LENGTH[family]}"
    # On a large table most routes share their nexthop: a single object for each keeps the reading fast.
    shared: dict[tuple[str | None, str | None, str], tuple[Nexthop, ...]] = {}
    tables: dict[str, int] = {}

    def prefix(destination: str) -> str:
        return EVERYTHING[family] if destination == "default" else _prefix(destination, host)

    def route(entry: Entry) -> Route:
        type_ = ROUTE_TYPES[entry.get("type", "1")]
        nexthops: tuple[Nexthop, ...] = ()
        if type_ not in WITHOUT_NEXTHOP:
            if "nexthops" in entry:
                nexthops = tuple(_nexthop(hop) for hop in entry["nexthops"])
            elif "dev" in entry:
                gateway = entry["via"]["host"] if "via" in entry else entry.get("gateway")
                key = (gateway, entry["dev"], " ".join(entry["flags"]))
                known = shared.get(key)
                nexthops = known if known is not None else shared.setdefault(key, (_nexthop(entry),))
        table = entry.get("table", "254")
        number = tables.get(table)
        source_prefix = entry.get("from")
        scope: str = entry.get("scope", "0")
        protocol = entry.get("protocol", "3")
        return Route(
            family=family,
            table=number if number is not None else tables.setdefault(table, int(table)),
            destination=prefix(entry["dst"]),
            type=type_,
            nexthops=nexthops,
            metric=entry.get("metric", 0),
            scope=SCOPES.get(scope, scope),
            tos=int(entry["tos"], 16) if "tos" in entry else 0,
            protocol=PROTOCOLS.get(protocol, protocol),
            source=entry.get("prefsrc"),
            mtu=_mtu(entry["metrics"]) if "metrics" in entry else None,
            source_prefix=None if source_prefix is None else _prefix(source_prefix, host),
            preference=entry.get("pref", "medium"),
            nexthop_id=entry.get("nhid"),
        )

    runs = _runs(_entries(text, "ip route"))
    firsts = _read([run.first for run in runs], route, "ip route", [run.number for run in runs])
    routes: list[Route] = []
    for run, first in zip(runs, firsts, strict=True):
        routes.append(first)
        if run.others:
            routes += like_routes(first, list(map(prefix, run.others)))
    return tuple(routes)


@dataclass(slots=True)
class _Run:
    """Entries in a row that differ by their destination alone; on a large table they are many, and each is not read."""

    number: int
    """The number of the first entry, from 1."""
    first: Entry
    others: list[str] = field(default_factory=list)
    """The destinations of the entries after the first one."""


def _runs(entries: list[Entry]) -> list[_Run]:
    """Group the entries of ``ip route``; one without a destination is a run of its own."""
    runs: list[_Run] = []
    alike: Entry | None = None
    for number, entry in enumerate(entries, start=1):
        destination = entry.pop("dst", None)
        if entry == alike and type(destination) is str:
            runs[-1].others.append(destination)
            continue
        alike = entry if type(destination) is str else None
        runs.append(_Run(number, entry if destination is None else {**entry, "dst": destination}))
    return runs


def parse_neighbours(text: str, family: Family) -> tuple[Neighbour, ...]:
    """Read ``ip -N -j -4|-6 neigh show`` (ip-neighbour(8)).

    Raises:
        ParseError: when the text is something else.
    """

    def neighbour(entry: Entry) -> Neighbour:
        states = entry.get("state") or ("NONE",)
        return Neighbour(
            interface=entry["dev"], family=family, address=entry["dst"], mac=entry.get("lladdr"), state=states[0]
        )

    return _read([entry for entry in _entries(text, "ip neigh") if entry], neighbour, "ip neigh")


def parse_route_get(text: str) -> RouteAnswer:
    """Read ``ip -N -j route get …`` (with or without ``-d``).

    Raises:
        ParseError: when the text is something else, or does not hold exactly one answer.
    """

    def answer(entry: Entry) -> RouteAnswer:
        asked = entry.get("from")
        return RouteAnswer(
            destination=_text(entry["dst"]),
            type=ROUTE_TYPES[entry.get("type", "1")],
            interface=entry.get("dev"),
            gateway=entry["via"]["host"] if "via" in entry else entry.get("gateway"),
            source=entry.get("prefsrc"),
            asked_source=None if asked == "::" else asked,
            iif=entry.get("iif"),
            table=int(entry.get("table", TABLE_MAIN)),
            mark=entry.get("mark", 0),
            uid=entry.get("uid"),
        )

    answers = _read(_entries(text, "ip route get"), answer, "ip route get")
    if len(answers) != 1:
        raise ParseError(f"ip route get: expected a single answer, found {len(answers)}")
    return answers[0]


def _entries(text: str, command: str) -> list[Entry]:
    try:
        document = json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        raise ParseError(
            f"{command}: expected a JSON list, as iproute2 prints with -j; found {_excerpt(text)}: {error}"
        ) from None
    if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
        raise ParseError(f"{command}: expected a JSON list of objects, found {_excerpt(text)}")
    return document


def _read(
    entries: list[Entry], reader: Callable[[Entry], T], command: str, numbers: Sequence[int] | None = None
) -> tuple[T, ...]:
    """Read each entry; ``numbers`` are the entries' numbers in the output when they are not all of it."""
    done: list[T] = []
    try:
        for entry in entries:
            done.append(reader(entry))
    except KeyError as error:
        number = numbers[len(done)] if numbers is not None else len(done) + 1
        place = f"in entry {number}: {entry}"
        raise ParseError(f"{command}: {error} is missing or not a value of -N {place}") from None
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        number = numbers[len(done)] if numbers is not None else len(done) + 1
        raise ParseError(f"{command}: entry {number} is not as expected ({error}): {entry}") from None
    return tuple(done)


def _excerpt(text: str) -> str:
    return repr(re.sub(r"\s+", " ", text[:60])) if text.strip() else "nothing"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    return value


def _prefix(text: str, host: str) -> str:
    return text if "/" in text else text + host


def _selector(address: str, length: int | None, family: Family) -> str | None:
    if address == "all":
        return None
    if address == "0":
        address = EVERYTHING[family].removesuffix("/0")
    length = HOST_LENGTH[family] if length is None else length
    return f"{address}/{length}"


def _ports(entry: Entry, name: str) -> PortRange | None:
    if name in entry:
        return PortRange(first=entry[name], last=entry[name])
    first = entry.get(f"{name}_start")
    return None if first is None else PortRange(first=first, last=entry[f"{name}_end"])


def _mtu(metrics: list[Entry]) -> int | None:
    return next((metric["mtu"] for metric in metrics if "mtu" in metric), None)


def _nexthop(entry: Entry) -> Nexthop:
    return Nexthop(
        gateway=entry["via"]["host"] if "via" in entry else entry.get("gateway"),
        interface=entry.get("dev"),
        weight=entry.get("weight", 1),
        flags=tuple(entry.get("flags", ())),
    )
