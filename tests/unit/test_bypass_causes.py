"""The lines of the site file that allow what leaves by another uplink: as wide as what leaves there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.test_remedy import AGENT, EARLIER, MAIN, RULE, SUBNET, link, nat, with_rules
from viacheck.diagnosis.traffic_classes import bypasses_uplink
from viacheck.model.measurements import Measurements
from viacheck.model.policy_rule import PortRange, Rule
from viacheck.model.route import Nexthop, Route

PORT = link(14, "veth1", kind="veth", master="docker0", peer_index=2, peer_netnsid=0)
CONNECTED = replace(
    AGENT, rules=(MAIN,), links=(link(2, "eth9", kind="veth", peer_index=14, peer_netnsid=0, mtu=9000),)
)
LOCAL = Rule(family=4, priority=0, table=255)
OWN_ADDRESS = Route(
    family=4, table=255, type="local", destination="172.17.0.1/32",
    nexthops=(Nexthop(gateway=None, interface="docker0"),),
)  # fmt: skip
ON_LINK = Route(family=4, table=254, destination=SUBNET, nexthops=(Nexthop(gateway=None, interface="docker0"),))
FORWARDING = {f"net/ipv4/conf/{name}/forwarding": "1" for name in ("all", "eth0", "wlan0", "docker0")}
TCP = 6


@pytest.mark.parametrize(
    ("protocol", "said", "condition"),
    [(None, "all packets", []), (TCP, "tcp to any destination", ['protocol = "tcp"'])],
)
def test_an_exception_names_a_protocol_where_others_leave_as_intended(
    protocol: int | None, said: str, condition: list[str]
) -> None:
    host = with_rules(LOCAL, replace(EARLIER, ipproto=protocol), RULE)
    host = replace(host, links=(*host.links, PORT), routes=(*host.routes, OWN_ADDRESS, ON_LINK), sysctls=FORWARDING)
    (cause,) = bypasses_uplink(nat(host, CONNECTED), Measurements())
    assert cause.sentence.startswith(f"{said}: by eth0 instead of wlan0")
    assert list(cause.site_file) == ["[[egress.except]]", *condition, 'uplink = "eth0"']
    assert cause.of_agent("home").site_file[0] == "[[agents.home.egress.except]]"


def test_each_rule_is_named_with_its_own_classes() -> None:
    udp = replace(EARLIER, priority=EARLIER.priority - 1, ipproto=17, dport=PortRange(first=5000, last=6000))
    host = with_rules(LOCAL, udp, replace(EARLIER, ipproto=TCP, dport=PortRange(first=443, last=443)), RULE)
    host = replace(host, links=(*host.links, PORT), routes=(*host.routes, OWN_ADDRESS, ON_LINK), sysctls=FORWARDING)
    (cause,) = bypasses_uplink(nat(host, CONNECTED), Measurements())
    tcp, of_udp = sorted(cause.sentence.split("; "))
    assert tcp.startswith("tcp to port 443: by eth0 instead of wlan0, because of rule priority ")
    assert "ipproto tcp dport 443" in tcp
    assert of_udp.startswith("udp to ports 5000-6000: by eth0")
    assert "ipproto udp dport 5000-6000" in of_udp
    assert list(cause.site_file) == ["[[egress.except]]", 'protocol = "tcp"', "ports = [443]", 'uplink = "eth0"'], (
        "1001 ports are no line of the site file"
    )
