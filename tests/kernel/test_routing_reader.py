"""Rules, routes and addresses read by rtnetlink are those that ``ip`` prints, in a namespace of the test's own."""

from __future__ import annotations

import contextlib
import dataclasses
import struct
from collections.abc import Iterator

import pytest

from viacheck.host.namespace import Namespace
from viacheck.model.address_family import Family
from viacheck.model.route import Route
from viacheck.netlink.routing_objects import rule_of
from viacheck.netlink.routing_reader import RoutingReader
from viacheck.netlink.rtnetlink import RTM_NEWRULE, RtnetlinkMessage
from viacheck.parsers import iproute

COMMANDS = """
link add d0 type veth peer name p0
link add d1 type veth peer name p1
link set lo up
link set d0 up
link set p0 up
link set d1 up
link set p1 up
address add 10.1.0.2/24 dev d0
address add 10.1.0.3/24 dev d0
address add 10.9.0.1 peer 10.9.0.2/32 dev d0
address add 192.0.2.9/24 dev d0 scope link
-6 address add 2001:db8::2/64 dev d0 nodad
address add 10.2.0.2/24 dev d1
route add default via 10.1.0.1
route add default via 10.1.0.1 table 200
route add unreachable default metric 4278198272 table 200
route add 10.55.0.0/16 table 200 nexthop via 10.1.0.7 weight 3 nexthop via 10.2.0.8 dev d1 onlink
route add 10.56.0.0/16 via 10.1.0.9 mtu 1400 src 10.1.0.3 proto 186 table 200
route add 10.57.0.0/16 via inet6 fe80::1 dev d0 table 200
route add throw 10.59.0.0/16 tos 0x10 table 200
nexthop add id 7 via 10.1.0.9 dev d0
route add 10.60.0.0/16 nhid 7 table 200
-6 route add unreachable default metric 42 table 200
-6 route add default via 2001:db8::1 table 200
-6 route add 2001:db8:5::/48 table 200 nexthop via 2001:db8::7 weight 2 nexthop via 2001:db8::8
rule add from 172.17.0.0/16 lookup 200 priority 1000
rule add from 172.17.0.0/16 lookup main suppress_prefixlength 0 priority 999
rule add fwmark 0x1/0xff iif d0 ipproto tcp dport 80-90 lookup 200
rule add not from 10.0.0.5 tos 0x10 uidrange 1-5 goto 32766
rule add from 192.0.2.1 prohibit
rule add sport 53 oif gone lookup 201 protocol 11
-6 rule add from 2001:db8:9::/48 lookup 200
"""
FAMILIES: tuple[Family, ...] = (4, 6)


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    with contextlib.closing(Namespace.create("host")) as namespace:
        for command in COMMANDS.strip().splitlines():
            result = namespace.run(["ip", *command.split()])
            assert result.ok, f"{result.command}: {result.stderr}"
        yield namespace


@pytest.fixture(params=["filtered by the kernel", "all sent by the kernel"])
def kernel(host: Namespace, request: pytest.FixtureRequest) -> Iterator[RoutingReader]:
    """A reader; the second one has all objects sent, as a kernel before 4.20 does."""
    with contextlib.closing(host.call(RoutingReader)) as reader:
        if "all" in request.param:
            reader._socket.setsockopt(270, 12, 0)
        yield reader


def printed(host: Namespace, *arguments: str) -> str:
    """Return what ``ip`` prints; an empty list where it does not know the table."""
    result = host.run(["ip", "-N", "-j", "-d", *arguments])
    return result.stdout if result.ok else "[]"


@pytest.mark.parametrize("family", FAMILIES)
def test_rules(host: Namespace, kernel: RoutingReader, family: Family) -> None:
    assert kernel.rules(family) == iproute.parse_rules(printed(host, f"-{family}", "rule", "show"), family)


@pytest.mark.parametrize("table", [200, 254, 255, 999])
@pytest.mark.parametrize("family", FAMILIES)
def test_routes_of_a_table(host: Namespace, kernel: RoutingReader, family: Family, table: int) -> None:
    text = printed(host, f"-{family}", "route", "show", "table", str(table))
    # When asked for one table, ip does not print its number.
    wanted = tuple(dataclasses.replace(route, table=table) for route in iproute.parse_routes(text, family))
    routes: tuple[Route, ...] = host.call(lambda: kernel.routes(family, table))
    assert routes == wanted
    assert bool(routes) == (table != 999)


def test_global_addresses(host: Namespace, kernel: RoutingReader) -> None:
    addresses = host.call(lambda: kernel.global_addresses("d0"))
    assert addresses == ("10.1.0.2", "10.9.0.1", "10.1.0.3", "2001:db8::2")
    assert host.call(lambda: kernel.global_addresses("gone")) == ()


@pytest.mark.parametrize(("mask", "unread"), [(0xFFFF, False), (0xFFF0, True)])
def test_a_mask_of_ports_is_a_condition_unless_it_is_whole(mask: int, unread: bool) -> None:
    """FRA_SPORT_MASK and FRA_DPORT_MASK of linux/fib_rules.h, from Linux 6.15 on."""
    body = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 0, 0, 1, 0)
    ports = struct.pack("=HH", 53, 53)
    message = RtnetlinkMessage(RTM_NEWRULE, body, ((23, ports), (24, ports), (28, b"\xff\xff"), (29, _u16(mask))))
    assert bool(rule_of(message).unread) is unread


def _u16(number: int) -> bytes:
    return struct.pack("=H", number)
