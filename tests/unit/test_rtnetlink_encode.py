"""The lab's own messages of rtnetlink, compared with those that pyroute2 makes of the same values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pyroute2 import IPBatch

from netns_lab.rtnetlink_batch import route_request
from netns_lab.rtnetlink_encode import VethPeer, encode_request
from viacheck.model.route import Route
from viacheck.model.routing_names import PROTOCOLS
from viacheck.netlink import codec
from viacheck.netlink.rtnetlink import RtnetlinkMessage

V4, V6 = 2, 10
TABLE = 15
"""RTA_TABLE and FRA_TABLE."""
PEER = VethPeer(index=7, name="lan0", mac="02:00:00:00:00:07", mtu=1400, net_fd=9)
PEER_ATTRIBUTES = {
    "attrs": [
        ("IFLA_INFO_KIND", "veth"),
        ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", {"index": 7, "attrs": [
            ("IFLA_IFNAME", "lan0"), ("IFLA_MTU", 1400), ("IFLA_ADDRESS", PEER.mac), ("IFLA_NET_NS_FD", 9),
        ]})]}),
    ]
}  # fmt: skip
HOPS = ({"hops": 1, "oif": 3, "gateway": "192.0.2.1"}, {"hops": 0, "oif": 4, "via": "fe80::1", "flags": 4})

# What is asked of the encoder, and what pyroute2 calls differently.
REQUESTS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("link", "set", {"index": 3, "state": "up"}, {}),
    ("link", "set", {"index": 3, "state": "down"}, {}),
    ("link", "set", {"index": 3, "master": 4}, {}),
    ("link", "set", {"index": 3, "mtu": 1300}, {}),
    ("link", "add", {"index": 3, "ifname": "br0", "kind": "bridge", "address": PEER.mac, "mtu": 1500}, {}),
    ("link", "add", {"index": 3, "ifname": "m0", "kind": "macvlan", "link": 2, "macvlan_mode": "bridge",
                     "net_ns_fd": 9}, {}),
    ("link", "add", {"index": 3, "ifname": "eth0", "mtu": 1400, "veth_peer": PEER},
     {"veth_peer": None, "linkinfo": PEER_ATTRIBUTES}),
    ("addr", "add", {"index": 3, "address": "192.0.2.9", "prefixlen": 24, "flags": 0x200}, {}),
    ("addr", "add", {"index": 3, "address": "192.0.2.1", "local": "192.0.2.9", "prefixlen": 32, "scope": 253}, {}),
    ("addr", "add", {"index": 3, "address": "2001:db8::9", "prefixlen": 64, "flags": 2}, {}),
    ("addr", "replace", {"index": 3, "address": "192.0.2.9", "prefixlen": 24, "lifetime": 60},
     {"lifetime": None, "valid": 60, "preferred": 60}),
    ("addr", "del", {"index": 3, "address": "192.0.2.9", "prefixlen": 24}, {}),
    ("route", "add", {"dst": "0.0.0.0/0", "table": 254, "type": 1, "oif": 3, "gateway": "192.0.2.1"}, {}),
    ("route", "add", {"dst": "198.51.100.0/24", "table": 1000, "type": 7, "priority": 5, "proto": 16, "tos": 8}, {}),
    ("route", "add", {"dst": "::/0", "table": 200, "oif": 3, "gateway": "fe80::1", "src": "2001:db8::/64",
                      "prefsrc": "2001:db8::9", "pref": 1, "mtu": 1400}, {"mtu": None, "metrics": {"mtu": 1400}}),
    ("route", "add", {"dst": "198.51.100.0/24", "table": 254, "oif": 3, "via": "fe80::1", "flags": 4, "scope": 253},
     {"via": {"family": V6, "addr": "fe80::1"}}),
    ("route", "replace", {"dst": "198.51.100.7/32", "table": 254, "multipath": tuple(tuple(h.items()) for h in HOPS)},
     {"multipath": [HOPS[0], HOPS[1] | {"via": {"family": V6, "addr": "fe80::1"}}]}),
    ("route", "del", {"dst": "198.51.100.0/24", "table": 254, "type": 1, "oif": 3}, {}),
    ("rule", "add", {"family": V4, "priority": 0, "action": 1, "table": 1000, "src": "172.17.0.0/16"},
     {"src": "172.17.0.0", "src_len": 16}),
    ("rule", "add", {
        "family": V4, "priority": 9, "action": 1, "table": 200, "flags": 2, "iifname": "eth0", "oifname": "eth1",
        "fwmark": 3, "fwmask": 255, "tos": 8, "ip_proto": 6, "sport_range": "1:2", "dport_range": "3:4",
        "uid_range": "5:6", "l3mdev": 1, "suppress_prefixlen": 0, "suppress_ifgroup": 1, "protocol": 4, "tun_id": 5,
    }, {}),
    ("rule", "del", {"family": V6, "priority": 5, "action": 2, "goto": 7, "dst": "fe80::/10"},
     {"dst": "fe80::", "dst_len": 10}),
    ("neigh", "add", {"ifindex": 3, "dst": "192.0.2.1", "lladdr": PEER.mac, "state": 0x80}, {"family": V4}),
]  # fmt: skip


@pytest.mark.parametrize(("noun", "verb", "values", "otherwise"), REQUESTS)
def test_a_message_says_what_pyroute2_says(
    noun: str, verb: str, values: dict[str, Any], otherwise: Mapping[str, Any]
) -> None:
    with IPBatch() as compiler:
        terms = {key: value for key, value in (values | dict(otherwise)).items() if value is not None}
        getattr(compiler, noun)(verb, **terms)
        expected = bytes(compiler.batch)
    assert _content(encode_request(noun, verb, values)) == _content(expected)


def _content(datagram: bytes) -> object:
    """Return the type, flags and fixed part of a message, and its attributes in any order."""
    (message,) = codec.decode_messages(datagram)
    decoded = RtnetlinkMessage.decode(message.type, message.payload)
    body = decoded.body
    if decoded.get(TABLE) is not None and decoded.number(TABLE) > 255:
        # The number is in the attribute; each program has its own placeholder in the octet of the header.
        body = body[:4] + body[5:]
    return message.type, message.flags, body, sorted(decoded.attributes)


@pytest.mark.parametrize(("number", "name"), [*PROTOCOLS.items(), (77, "77")])
def test_a_routes_origin_is_sent_as_the_number_that_it_was_read_from(number: int, name: str) -> None:
    route = Route(family=4, table=254, destination="198.51.100.0/24", protocol=name)
    assert dict(route_request("add", route, {}).values)["proto"] == number
