"""The parsers of what ip prints, on recorded output of iproute2 6.1 (``ip -N -j -d``), odd cases included.

The recordings are wrapped, and of links what no reader looks at is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viacheck.model.namespace_state import Address, Link, Neighbour
from viacheck.model.policy_rule import PortRange, Rule
from viacheck.model.route import Nexthop, Route
from viacheck.parsers.iproute import (
    ParseError,
    RouteAnswer,
    parse_addresses,
    parse_links,
    parse_neighbours,
    parse_route_get,
    parse_routes,
    parse_rules,
)

LINKS = """[
{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"],"mtu":65536,"operstate":"UNKNOWN","group":"0",
  "link_type":"[772]","address":"00:00:00:00:00:00","broadcast":"00:00:00:00:00:00"},
{"ifindex":3,"link":"v0","ifname":"p0","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"mtu":1500,
  "master":"br0","operstate":"UP","group":"0","link_type":"[1]","address":"02:00:00:00:00:21",
  "broadcast":"ff:ff:ff:ff:ff:ff","linkinfo":{"info_kind":"veth","info_slave_kind":"bridge"}},
{"ifindex":4,"link":"p0","ifname":"v0","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"mtu":1500,
  "operstate":"UP","group":"0","link_type":"[1]","address":"02:00:00:00:00:20","broadcast":"ff:ff:ff:ff:ff:ff",
  "linkinfo":{"info_kind":"veth"}},
{"ifindex":5,"link":"v0","ifname":"mv0","flags":["BROADCAST","MULTICAST"],"mtu":1500,"operstate":"DOWN",
  "group":"0","link_type":"[1]","address":"02:00:00:00:00:40","broadcast":"ff:ff:ff:ff:ff:ff",
  "linkinfo":{"info_kind":"macvlan","info_data":{"mode":"bridge","bcqueuelen":1000,"usedbcqueuelen":1000}}},
{"ifindex":6,"ifname":"t0","flags":["POINTOPOINT","MULTICAST","NOARP"],"mtu":1500,"operstate":"DOWN",
  "group":"0","link_type":"[65534]","linkinfo":{"info_kind":"tun","info_data":{"type":"tun","pi":false,
  "vnet_hdr":false,"multi_queue":false,"persist":true}}},
{"ifindex":20,"link_index":7,"ifname":"v1","flags":["NO-CARRIER","BROADCAST","MULTICAST","UP"],"mtu":1500,
  "operstate":"DOWN","group":"0","link_type":"[1]","address":"02:00:00:00:00:30",
  "broadcast":"ff:ff:ff:ff:ff:ff","link_netnsid":0,"linkinfo":{"info_kind":"veth"}}
]"""

ADDRESSES = """[
{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"],"mtu":65536,"operstate":"UNKNOWN","group":"0",
  "link_type":"[772]","address":"00:00:00:00:00:00","broadcast":"00:00:00:00:00:00",
  "addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"254","label":"lo",
  "valid_life_time":4294967295,"preferred_life_time":4294967295},{"family":"inet6","local":"::1",
  "prefixlen":128,"scope":"254","valid_life_time":4294967295,"preferred_life_time":4294967295}]},
{"ifindex":4,"link":"p0","ifname":"v0","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"mtu":1500,
  "operstate":"UP","group":"0","link_type":"[1]","address":"02:00:00:00:00:20","broadcast":"ff:ff:ff:ff:ff:ff",
  "addr_info":[{"family":"inet","local":"10.1.0.1","prefixlen":24,"scope":"0","label":"v0",
  "valid_life_time":4294967295,"preferred_life_time":4294967295},{"family":"inet","local":"10.1.0.2",
  "prefixlen":24,"scope":"0","secondary":true,"label":"v0","valid_life_time":4294967295,
  "preferred_life_time":4294967295},{"family":"inet6","local":"2001:db8::1","prefixlen":64,"scope":"0",
  "deprecated":true,"valid_life_time":4294967295,"preferred_life_time":0},{"family":"inet6",
  "local":"fe80::ff:fe00:20","prefixlen":64,"scope":"253","valid_life_time":4294967295,
  "preferred_life_time":4294967295}]},
{"ifindex":20,"link_index":7,"ifname":"v1","flags":["NO-CARRIER","BROADCAST","MULTICAST","UP"],"mtu":1500,
  "operstate":"DOWN","group":"0","link_type":"[1]","address":"02:00:00:00:00:30",
  "broadcast":"ff:ff:ff:ff:ff:ff","link_netnsid":0,"addr_info":[{"family":"inet","local":"10.9.0.1",
  "address":"10.9.0.2","prefixlen":32,"scope":"0","label":"v1","valid_life_time":4294967295,
  "preferred_life_time":4294967295},{"family":"inet","local":"10.8.0.1","prefixlen":24,"scope":"0",
  "dynamic":true,"label":"v1","valid_life_time":100,"preferred_life_time":50}]}
]"""

RULES = """[
{"priority":0,"src":"all","table":"255","protocol":"2"},
{"priority":100,"src":"10.1.0.0","srclen":16,"dst":"10.2.0.0","dstlen":24,"fwmark":"0x10","fwmask":"0xff",
  "iif":"v0","oif":"nope","oif_detached":null,"uid_start":0,"uid_end":10,"ipproto":"ipproto-6","sport_start":10,
  "sport_end":20,"dport":80,"table":"200","suppress_prefixlen":0,"suppress_ifgroup":"3","protocol":"0"},
{"priority":101,"not":null,"src":"10.1.0.1","tos":"0x10","table":"254","protocol":"0"},
{"priority":102,"src":"all","goto":105,"protocol":"0"},
{"priority":103,"src":"all","goto":200,"unresolved":null,"protocol":"0"},
{"priority":104,"src":"all","fwmark":"0","fwmask":"0xff","table":"5","protocol":"0"},
{"priority":105,"src":"1.1.1.1","action":"7","protocol":"0"},
{"priority":105,"src":"1.1.1.2","action":"6","protocol":"0"},
{"priority":105,"src":"1.1.1.3","action":"8","protocol":"0"},
{"priority":106,"src":"all","nop":null,"protocol":"0"},
{"priority":107,"src":"all","iif":"nothere","iif_detached":null,"ipproto":"ipproto-17","dport":53,
  "table":"12345","protocol":"4"},
{"priority":108,"src":"all","l3mdev":null,"protocol":"0"},
{"priority":109,"src":"all","fwmark":"0x5","iif":"lo","tun_id":7,"table":"200","flow_from":"5","flow_to":"6",
  "protocol":"0"},
{"priority":32766,"src":"all","table":"254","protocol":"2"},
{"priority":32767,"src":"all","table":"253","protocol":"2"}
]"""

RULES6 = """[
{"priority":0,"src":"all","table":"255","protocol":"2"},
{"priority":100,"src":"fd00::","srclen":8,"table":"201","protocol":"0"},
{"priority":32766,"src":"all","table":"254","protocol":"2"}
]"""

ROUTES = """[
{"type":"1","dst":"default","tos":"0x10","gateway":"10.1.0.9","dev":"v0","table":"200","protocol":"3",
  "scope":"0","metric":5,"flags":[],"metrics":[{"mtu":1400}]},
{"type":"7","dst":"default","table":"200","protocol":"3","scope":"0","metric":4278198272,"flags":[]},
{"type":"9","dst":"1.2.5.0/24","table":"200","protocol":"3","scope":"0","flags":[]},
{"type":"1","dst":"default","table":"201","protocol":"3","scope":"0","flags":[],
  "nexthops":[{"gateway":"10.1.0.9","dev":"v0","weight":3,"flags":[]},{"gateway":"10.8.0.9","dev":"v1",
  "weight":1,"flags":["onlink","linkdown"]}]},
{"type":"1","dst":"10.66.0.0/16","via":{"family":"inet6","host":"fe80::1"},"dev":"v0","table":"201",
  "protocol":"3","scope":"0","flags":[]},
{"type":"1","dst":"10.1.0.0/24","dev":"v0","table":"254","protocol":"2","scope":"253","prefsrc":"10.1.0.1",
  "flags":[]},
{"type":"1","dst":"10.8.0.0/24","dev":"v1","table":"254","protocol":"2","scope":"253","prefsrc":"10.8.0.1",
  "flags":["linkdown"]},
{"type":"1","dst":"10.9.0.2","dev":"v1","table":"254","protocol":"2","scope":"253","prefsrc":"10.9.0.1",
  "flags":["linkdown"]},
{"type":"1","dst":"10.67.0.0/16","dev":"v0","table":"254","protocol":"99","scope":"253","prefsrc":"10.1.0.2",
  "flags":[]},
{"type":"1","dst":"10.70.0.0/16","nhid":3,"table":"254","protocol":"3","scope":"0","flags":[],"nh_info":{"id":3,
  "group":[{"id":1,"weight":2},{"id":5}],"scope":"0","protocol":"0","flags":[]},
  "nexthops":[{"gateway":"10.1.0.8","dev":"v0","weight":2,"flags":[]},{"gateway":"10.1.0.7","dev":"v0",
  "weight":1,"flags":[]}]},
{"type":"6","dst":"10.72.0.0/16","nhid":4,"dev":"lo","table":"254","protocol":"3","scope":"0","flags":[],
  "nh_info":{"id":4,"scope":"0","blackhole":null,"protocol":"0","flags":[]}},
{"type":"2","dst":"10.1.0.1","dev":"v0","table":"255","protocol":"2","scope":"254","prefsrc":"10.1.0.1",
  "flags":[]},
{"type":"2","dst":"10.1.0.2","dev":"v0","table":"255","protocol":"2","scope":"254","prefsrc":"10.1.0.1",
  "flags":[]},
{"type":"2","dst":"10.8.0.1","dev":"v1","table":"255","protocol":"2","scope":"254","prefsrc":"10.8.0.1",
  "flags":[]},
{"type":"2","dst":"10.9.0.1","dev":"v1","table":"255","protocol":"2","scope":"254","prefsrc":"10.9.0.1",
  "flags":[]},
{"type":"2","dst":"10.68.0.0/16","dev":"lo","table":"255","protocol":"3","scope":"254","flags":[]}
]"""

ROUTES6 = """[
{"type":"1","dst":"2001:db8:9::/48","table":"201","protocol":"3","scope":"0","metric":1024,"flags":[],
  "pref":"medium","nexthops":[{"gateway":"fe80::2","dev":"v0","weight":1,"flags":[]},{"gateway":"fe80::5",
  "dev":"v1","weight":1,"flags":["linkdown"]}]},
{"type":"7","dst":"2001:dba::/32","dev":"lo","table":"202","protocol":"3","scope":"0","metric":1024,"flags":[],
  "pref":"medium"},
{"type":"1","dst":"2001:db8::/64","dev":"v0","table":"254","protocol":"2","scope":"0","metric":256,"flags":[],
  "pref":"medium"},
{"type":"1","dst":"2001:db9::/32","from":"2001:db7::/48","gateway":"fe80::1","dev":"v0","table":"254",
  "protocol":"3","scope":"0","metric":1024,"flags":[],"pref":"medium"},
{"type":"1","dst":"default","gateway":"fe80::1","dev":"v0","table":"254","protocol":"3","scope":"0","metric":10,
  "flags":[],"metrics":[{"mtu":1300}],"pref":"high"},
{"type":"2","dst":"::1","dev":"lo","table":"255","protocol":"2","scope":"0","metric":0,"flags":[],
  "pref":"medium"},
{"type":"2","dst":"2001:db8::1","dev":"v0","table":"255","protocol":"2","scope":"0","metric":0,"flags":[],
  "pref":"medium"}
]"""

NEIGHBOURS = """[
{"dst":"10.1.0.9","dev":"v0","lladdr":"02:00:00:00:00:01","state":["PERMANENT"]},
{"dst":"10.1.0.8","dev":"v0","state":["FAILED"]}
]"""

GET_OWN = """[
{"dst":"10.1.0.5","dev":"v0","prefsrc":"10.1.0.1","flags":[],"mark":3,"uid":4,"cache":[]}
]"""

GET_FORWARDED = """[
{"type":"1","dst":"10.70.0.1","from":"10.1.0.5","gateway":"10.1.0.7","dev":"v0","table":"254","flags":[],
  "cache":["redirect"],"iif":"v0"}
]"""

GET_IPV6 = """[
{"type":"1","dst":"2001:db8::9","from":"::","dev":"v0","table":"254","protocol":"2","scope":"0",
  "prefsrc":"2001:db8::1","metric":256,"flags":[],"pref":"medium"}
]"""


def test_links_have_kind_master_peer_and_mode() -> None:
    links = {link.name: link for link in parse_links(LINKS)}
    assert list(links) == ["lo", "p0", "v0", "mv0", "t0", "v1"]
    assert links["p0"] == Link(
        index=3,
        name="p0",
        kind="veth",
        flags=("BROADCAST", "MULTICAST", "UP", "LOWER_UP"),
        operstate="UP",
        mac="02:00:00:00:00:21",
        mtu=1500,
        master="br0",
        peer_index=4,
    )
    assert (links["lo"].kind, links["lo"].mtu, links["lo"].peer_index) == (None, 65536, None)
    assert (links["mv0"].kind, links["mv0"].mode, links["mv0"].peer_index) == ("macvlan", "bridge", 4)
    assert (links["t0"].mac, links["t0"].mode) == (None, None)


def test_a_link_whose_other_end_is_in_another_namespace_has_its_index_and_that_namespace() -> None:
    link = next(link for link in parse_links(LINKS) if link.name == "v1")
    assert (link.peer_index, link.peer_netnsid, link.up, link.carrier) == (7, 0, True, False)


def test_addresses_of_both_families_keep_order_flags_lifetime_and_peer() -> None:
    addresses = parse_addresses(ADDRESSES)
    assert [(a.interface, a.family, a.address, a.prefixlen, a.scope, a.flags) for a in addresses] == [
        ("lo", 4, "127.0.0.1", 8, "host", ()),
        ("lo", 6, "::1", 128, "host", ()),
        ("v0", 4, "10.1.0.1", 24, "global", ()),
        ("v0", 4, "10.1.0.2", 24, "global", ("secondary",)),
        ("v0", 6, "2001:db8::1", 64, "global", ("deprecated",)),
        ("v0", 6, "fe80::ff:fe00:20", 64, "link", ()),
        ("v1", 4, "10.9.0.1", 32, "global", ()),
        ("v1", 4, "10.8.0.1", 24, "global", ("dynamic",)),
    ]
    assert [address.valid_lifetime for address in addresses] == [None] * 7 + [100]
    assert addresses[6] == Address(interface="v1", family=4, address="10.9.0.1", prefixlen=32, peer="10.9.0.2")
    assert str(addresses[6].network) == "10.9.0.2/32"


def test_rules_keep_the_kernels_order_and_every_selector() -> None:
    rules = parse_rules(RULES, 4)
    assert rules == (
        Rule(family=4, priority=0, table=255, protocol="kernel"),
        Rule(
            family=4,
            priority=100,
            source="10.1.0.0/16",
            destination="10.2.0.0/24",
            fwmark=0x10,
            fwmask=0xFF,
            iif="v0",
            oif="nope",
            oif_detached=True,
            uid_first=0,
            uid_last=10,
            ipproto=6,
            sport=PortRange(first=10, last=20),
            dport=PortRange(first=80, last=80),
            table=200,
            suppress_prefixlength=0,
            suppress_ifgroup=3,
        ),
        Rule(family=4, priority=101, invert=True, source="10.1.0.1/32", tos=0x10, table=254),
        Rule(family=4, priority=102, action="goto", goto=105),
        Rule(family=4, priority=103, action="goto", goto=200),
        Rule(family=4, priority=104, fwmark=0, fwmask=0xFF, table=5),
        Rule(family=4, priority=105, source="1.1.1.1/32", action="unreachable"),
        Rule(family=4, priority=105, source="1.1.1.2/32", action="blackhole"),
        Rule(family=4, priority=105, source="1.1.1.3/32", action="prohibit"),
        Rule(family=4, priority=106, action="nop"),
        Rule(
            family=4,
            priority=107,
            iif="nothere",
            iif_detached=True,
            ipproto=17,
            dport=PortRange(first=53, last=53),
            table=12345,
            protocol="static",
        ),
        Rule(family=4, priority=108, l3mdev=True),
        Rule(family=4, priority=109, fwmark=5, iif="lo", tun_id=7, table=200),
        Rule(family=4, priority=32766, table=254, protocol="kernel"),
        Rule(family=4, priority=32767, table=253, protocol="kernel"),
    )


def test_ipv6_rules_have_ipv6_prefixes() -> None:
    assert parse_rules(RULES6, 6)[1] == Rule(family=6, priority=100, source="fd00::/8", table=201)


def test_a_goto_rule_without_its_target_has_no_target() -> None:
    (rule,) = parse_rules('[{"priority":5,"src":"0","srclen":1,"goto":"none","unresolved":null}]', 4)
    assert (rule.action, rule.goto, rule.source) == ("goto", None, "0.0.0.0/1")


def test_selectors_of_a_newer_iproute2_are_kept_as_unread() -> None:
    text = '[{"priority":5,"src":"all","sport":8,"sport_mask":"0xfff8","table":"200","dscp":"10"}]'
    (rule,) = parse_rules(text, 4)
    assert rule.unread == ("dscp 10", "sport_mask 0xfff8")
    assert str(rule) == "priority 5 from all sport 8 dscp 10 sport_mask 0xfff8 lookup 200"


def by_destination(routes: tuple[Route, ...]) -> dict[tuple[int, str, int], Route]:
    return {(route.table, route.destination, route.metric): route for route in routes}


def test_routes_have_prefix_type_scope_protocol_and_metrics() -> None:
    routes = by_destination(parse_routes(ROUTES, 4))
    assert routes[200, "0.0.0.0/0", 5] == Route(
        family=4,
        table=200,
        destination="0.0.0.0/0",
        tos=0x10,
        metric=5,
        mtu=1400,
        protocol="boot",
        nexthops=(Nexthop(gateway="10.1.0.9", interface="v0"),),
    )
    assert routes[254, "10.67.0.0/16", 0] == Route(
        family=4,
        table=254,
        destination="10.67.0.0/16",
        scope="link",
        protocol="99",
        source="10.1.0.2",
        nexthops=(Nexthop(interface="v0"),),
    )
    own = routes[255, "10.1.0.2/32", 0]
    assert (own.type, own.scope, own.protocol, own.source) == ("local", "host", "kernel", "10.1.0.1")
    assert routes[254, "10.9.0.2/32", 0].nexthops == (Nexthop(interface="v1", flags=("linkdown",)),)


def test_routes_that_reject_have_no_way_out_in_either_family() -> None:
    ipv4, ipv6 = by_destination(parse_routes(ROUTES, 4)), by_destination(parse_routes(ROUTES6, 6))
    backstop = ipv4[200, "0.0.0.0/0", 4278198272]
    assert (backstop.type, backstop.nexthops) == ("unreachable", ())
    assert str(backstop) == "unreachable default metric 4278198272 table 200"
    assert (ipv4[200, "1.2.5.0/24", 0].type, ipv4[200, "1.2.5.0/24", 0].nexthops) == ("throw", ())
    by_nexthop_object = ipv4[254, "10.72.0.0/16", 0]
    assert (by_nexthop_object.type, by_nexthop_object.nexthops) == ("blackhole", ())
    assert ipv6[202, "2001:dba::/32", 1024].nexthops == (), "the kernel shows it on lo"


def test_routes_with_several_ways_have_them_all() -> None:
    routes = by_destination(parse_routes(ROUTES, 4))
    assert routes[201, "0.0.0.0/0", 0].nexthops == (
        Nexthop(gateway="10.1.0.9", interface="v0", weight=3),
        Nexthop(gateway="10.8.0.9", interface="v1", flags=("onlink", "linkdown")),
    )
    assert routes[254, "10.70.0.0/16", 0].nexthops == (
        Nexthop(gateway="10.1.0.8", interface="v0", weight=2),
        Nexthop(gateway="10.1.0.7", interface="v0"),
    ), "a group of nexthop objects"
    assert routes[201, "10.66.0.0/16", 0].nexthops == (Nexthop(gateway="fe80::1", interface="v0"),)
    ipv6 = by_destination(parse_routes(ROUTES6, 6))
    assert [hop.gateway for hop in ipv6[201, "2001:db8:9::/48", 1024].nexthops] == ["fe80::2", "fe80::5"]


def test_ipv6_routes_have_their_preference_and_the_sources_they_are_for() -> None:
    routes = by_destination(parse_routes(ROUTES6, 6))
    default = routes[254, "::/0", 10]
    assert (default.preference, default.mtu, default.protocol) == ("high", 1300, "boot")
    assert routes[254, "2001:db9::/32", 1024].source_prefix == "2001:db7::/48"
    assert routes[255, "::1/128", 0].type == "local"


def test_neighbours_have_their_state() -> None:
    assert parse_neighbours(NEIGHBOURS, 4) == (
        Neighbour(interface="v0", family=4, address="10.1.0.9", mac="02:00:00:00:00:01", state="PERMANENT"),
        Neighbour(interface="v0", family=4, address="10.1.0.8", state="FAILED"),
    )


def test_the_kernels_answer_is_read_for_own_and_for_forwarded_packets() -> None:
    assert parse_route_get(GET_OWN) == RouteAnswer(
        destination="10.1.0.5", interface="v0", source="10.1.0.1", mark=3, uid=4
    )
    assert parse_route_get(GET_FORWARDED) == RouteAnswer(
        destination="10.70.0.1", interface="v0", gateway="10.1.0.7", asked_source="10.1.0.5", iif="v0"
    )
    assert parse_route_get(GET_IPV6) == RouteAnswer(destination="2001:db8::9", interface="v0", source="2001:db8::1")


@pytest.mark.parametrize("reader", [parse_links, parse_addresses])
def test_nothing_to_read_is_an_empty_list(reader: Callable[[str], tuple[Any, ...]]) -> None:
    assert reader("[ ]\n") == ()
    assert reader("[{},{}]") == (), "what a filter of ip left out"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a JSON list, as iproute2 prints with -j; found nothing"),
        ("[", "found '\\['"),
        ("0:\tfrom all lookup local\n", "expected a JSON list.*'0: from all lookup local"),
        ('{"priority":0}', "expected a JSON list of objects"),
        ("[1,2]", "expected a JSON list of objects"),
        ('[{"src":"all"}]', "'priority' is missing.* in entry 1"),
        ('[{"priority":0,"src":"all","table":"main"}]', "entry 1 is not as expected .*'main'"),
        ('[{"priority":0,"src":"all","action":"nat"}]', "'nat' is missing or not a value of -N"),
    ],
)
def test_a_text_that_is_no_list_of_rules_is_refused_with_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=f"ip rule: .*{message}" if message[0] != "e" else message):
        parse_rules(text, 4)


@pytest.mark.parametrize(
    ("reader", "entry"),
    [
        (parse_links, {"ifname": "v0"}),
        (parse_links, {"ifindex": "x", "ifname": "v0", "mtu": 1500}),
        (parse_addresses, {"ifname": "v0", "addr_info": [{"family": "inet", "prefixlen": 8}]}),
        (lambda text: parse_routes(text, 4), {"type": "unicast", "dst": "default"}),
        (lambda text: parse_routes(text, 4), {"type": "1", "dst": "default", "table": "main"}),
        (lambda text: parse_neighbours(text, 4), {"dst": "10.0.0.1"}),
        (parse_route_get, {"dev": "v0"}),
    ],
)
def test_an_entry_of_another_shape_is_refused_and_shown(reader: Callable[[str], Any], entry: dict[str, Any]) -> None:
    with pytest.raises(ParseError, match=r"entry 1"):
        reader(json.dumps([entry]))


def test_entries_that_differ_by_their_destination_alone_are_the_routes_that_each_entry_is() -> None:
    hop = {
        "type": "1",
        "gateway": "10.0.0.1",
        "dev": "v0",
        "table": "300",
        "protocol": "186",
        "scope": "0",
        "flags": [],
    }
    other = {**hop, "flags": ["onlink"], "metric": 5}
    entries = [
        {**hop, "dst": "11.0.0.0/24"}, {**hop, "dst": "11.0.1.1"}, {**hop, "dst": "default"},
        {**other, "dst": "default"},
        {**other, "dst": "11.0.2.0/24"}, {**hop, "dst": "11.0.3.0/24"},
    ]  # fmt: skip
    alone = [route for entry in entries for route in parse_routes(json.dumps([entry]), 4)]
    assert list(parse_routes(json.dumps(entries), 4)) == alone
    assert [route.destination for route in alone[1:3]] == ["11.0.1.1/32", "0.0.0.0/0"]


@pytest.mark.parametrize("destination", [{}, {"dst": 7}, {"dst": None}])
def test_an_entry_without_a_destination_is_refused_by_its_number(destination: dict[str, Any]) -> None:
    hop = {"type": "1", "dev": "v0", "flags": []}
    with pytest.raises(ParseError, match=r"entry 3"):
        parse_routes(json.dumps([{**hop, "dst": "11.0.0.1"}, {**hop, "dst": "11.0.0.2"}, {**hop, **destination}]), 4)


def test_a_route_get_without_an_answer_is_refused() -> None:
    with pytest.raises(ParseError, match="expected a single answer, found 0"):
        parse_route_get("[]")


SCALARS = st.none() | st.booleans() | st.integers(-1, 300) | st.floats() | st.sampled_from(("all", "254", "inet", "x"))
KEYS = st.sampled_from(
    ("ifname", "ifindex", "mtu", "link", "flags", "linkinfo", "addr_info", "family", "local", "prefixlen", "scope",
     "priority", "src", "srclen", "dst", "table", "type", "dev", "nexthops", "metrics", "via", "gateway", "state",
     "tos", "fwmark", "goto", "protocol", "sport_start", "ipproto", "flags")
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=5
)
READERS: tuple[Callable[[str], Any], ...] = (
    parse_links,
    parse_addresses,
    lambda text: parse_rules(text, 4),
    lambda text: parse_routes(text, 6),
    lambda text: parse_neighbours(text, 4),
    parse_route_get,
)


@settings(max_examples=60)
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=5), max_size=2) | VALUES | st.text(max_size=30))
def test_any_output_is_read_or_refused_with_the_declared_error(document: Any) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    for reader in READERS:
        try:
            reader(text)
        except ParseError:
            continue


@settings(max_examples=60)
@given(st.lists(st.fixed_dictionaries({"priority": st.integers(0, 9), "src": st.just("all")}, optional={
    "table": st.integers(1, 300).map(str), "realms": st.just("5"), "dscp": st.text(max_size=3), "not": st.none(),
}), max_size=5))  # fmt: skip
def test_no_rule_is_dropped(entries: list[dict[str, Any]]) -> None:
    rules = parse_rules(json.dumps(entries), 4)
    assert [rule.priority for rule in rules] == [entry["priority"] for entry in entries]
    assert [rule.invert for rule in rules] == ["not" in entry for entry in entries]
