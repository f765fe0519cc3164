"""hypothesis strategies of rules and routes that a kernel can hold."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TypeVar

from hypothesis import strategies as st

from viacheck.model.address_family import Family
from viacheck.model.policy_rule import PortRange, Rule
from viacheck.model.route import Nexthop, Route, implied_scope
from viacheck.model.routing_names import TABLE_LOCAL, TABLE_MAIN

T = TypeVar("T")
FAMILIES: st.SearchStrategy[Family] = st.sampled_from((4, 6))
INTERFACES = st.sampled_from(("eth0", "wlan0", "docker0", "br-0123456789ab", "eth0.40"))
TABLES = st.one_of(st.sampled_from((TABLE_MAIN, TABLE_LOCAL)), st.integers(1, 0xFFFFFFFF))
NUMBERS = st.integers(1, 0xFFFFFFFF)
PROTOCOLS = st.sampled_from(("kernel", "static", "ra", "dhcp", "99"))


def addresses(family: Family) -> st.SearchStrategy[str]:
    """An address of a family."""
    if family == 4:
        return st.integers(0x01000000, 0xDFFFFFFF).map(lambda number: str(IPv4Address(number)))
    return st.integers(1, (1 << 112) - 1).map(lambda number: str(IPv6Address(0x2001 << 112 | number)))


@st.composite
def prefixes(draw: st.DrawFn, family: Family) -> str:
    """A prefix in CIDR form that does not cover everything."""
    length = draw(st.integers(1, 32 if family == 4 else 128))
    return str(ip_network(f"{draw(addresses(family))}/{length}", strict=False))


@st.composite
def port_ranges(draw: st.DrawFn) -> PortRange:
    """A range of ports."""
    first, last = sorted(draw(st.tuples(st.integers(1, 65535), st.integers(1, 65535))))
    return PortRange(first=first, last=last)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """A rule with any selectors and any action."""
    family = draw(FAMILIES)

    def maybe(strategy: st.SearchStrategy[T]) -> T | None:
        return draw(st.none() | strategy)

    action = draw(st.sampled_from(("lookup", "goto", "nop", "unreachable", "blackhole", "prohibit")))
    looks_up = action == "lookup"
    mark, users = maybe(NUMBERS), maybe(st.tuples(st.integers(0, 1000), st.integers(1001, 2000)))
    source, destination = maybe(prefixes(family)), maybe(prefixes(family))
    return Rule(
        # Without a prefix, the family of a rule stands in an option of ip and not in its arguments.
        family=family,
        priority=draw(st.integers(0, 0xFFFFFFFF)),
        action=action,  # type: ignore[arg-type]
        table=draw(TABLES) if looks_up else None,
        goto=draw(NUMBERS) if action == "goto" else None,
        invert=draw(st.booleans()),
        source=source,
        destination=destination,
        iif=maybe(INTERFACES),
        oif=maybe(INTERFACES),
        fwmark=mark,
        fwmask=maybe(st.integers(0, 0xFFFFFFFE)) if mark is not None else None,
        tos=maybe(st.sampled_from((4, 8, 16))),
        ipproto=maybe(st.integers(1, 255)),
        sport=maybe(port_ranges()),
        dport=maybe(port_ranges()),
        uid_first=users[0] if users else None,
        uid_last=users[1] if users else None,
        suppress_prefixlength=maybe(st.integers(0, 32)) if looks_up else None,
        suppress_ifgroup=maybe(st.integers(0, 100)) if looks_up else None,
    )


@st.composite
def routes(draw: st.DrawFn) -> Route:
    """A route that leads out by one or several nexthops, or that refuses."""
    family = draw(FAMILIES)
    type_ = draw(st.sampled_from(("unicast", "unicast", "local", "unreachable", "blackhole", "prohibit", "throw")))

    def nexthop() -> Nexthop:
        gateway = draw(st.none() | addresses(family) | (addresses(6) if family == 4 else st.nothing()))
        on_link = gateway is not None and draw(st.booleans())
        return Nexthop(gateway=gateway, interface=draw(INTERFACES), flags=("onlink",) if on_link else ())

    count = draw(st.integers(1, 3)) if type_ == "unicast" else int(type_ == "local")
    nexthops = tuple(nexthop() for _ in range(count))
    if type_ == "local":
        nexthops = (Nexthop(interface="lo"),)
    if count > 1:
        nexthops = tuple(
            Nexthop(gateway=hop.gateway, interface=hop.interface, flags=hop.flags, weight=draw(st.integers(1, 256)))
            for hop in nexthops
        )
    route = Route(
        family=family,
        table=draw(TABLES),
        destination=draw(st.sampled_from(("0.0.0.0/0" if family == 4 else "::/0",)) | prefixes(family)),
        type=type_,
        nexthops=nexthops,
        metric=draw(st.just(0) | NUMBERS),
        tos=draw(st.sampled_from((0, 8, 16))) if family == 4 else 0,
        protocol=draw(st.just("boot") | PROTOCOLS),
        source=draw(st.none() | addresses(family)) if type_ == "unicast" else None,
        mtu=draw(st.none() | st.integers(68, 9000)),
        source_prefix=draw(st.none() | prefixes(6)) if family == 6 else None,
        preference=draw(st.sampled_from(("low", "medium", "high"))) if family == 6 else "medium",
    )
    scope = implied_scope(route) if family == 4 else "global"
    return Route(**{name: getattr(route, name) for name in Route.__dataclass_fields__} | {"scope": scope})
