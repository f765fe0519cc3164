"""Which changes of a host during a run may change where the agent's packets go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from viacheck.model.diff import changes, moving_packets
from viacheck.model.snapshot import Address, Link, NetworkState, Nexthop, Route, Rule, Snapshot

NEEDED = {"eth0", "docker0"}
LINKS = (Link(index=2, name="eth0", flags=("UP",)), Link(index=6, name="vethc28fc46"))
HOST = NetworkState(
    links=LINKS,
    addresses=(Address(interface="vethc28fc46", family=6, address="fe80::1", prefixlen=64),),
    rules=(Rule(family=4, priority=100, source="172.17.0.0/16", table=200),),
    routes=(Route(family=4, table=200, destination="0.0.0.0/0", nexthops=(Nexthop(interface="eth0"),)),),
    sysctls={"net/ipv4/conf/vethc28fc46/rp_filter": "0", "net/ipv4/conf/eth0/rp_filter": "0"},
)
RESTARTED = replace(
    HOST,
    links=(LINKS[0], Link(index=8, name="vethbbb2446")),
    addresses=(Address(interface="vethbbb2446", family=6, address="fe80::2", prefixlen=64),),
    sysctls={"net/ipv4/conf/vethbbb2446/rp_filter": "0", "net/ipv4/conf/eth0/rp_filter": "0"},
)
CHANGED = {
    "a rule is gone": replace(HOST, rules=()),
    "a route is new": replace(HOST, routes=(*HOST.routes, Route(family=4, table=254, destination="203.0.113.0/24"))),
    "an uplink is gone": replace(HOST, links=LINKS[1:]),
    "an uplink is down": replace(HOST, links=(replace(LINKS[0], flags=()), LINKS[1])),
    "a value of an uplink": replace(HOST, sysctls={**HOST.sysctls, "net/ipv4/conf/eth0/rp_filter": "1"}),
    "a value of the host": replace(HOST, sysctls={**HOST.sysctls, "net/ipv4/ip_forward": "0"}),
}


def moved(host: NetworkState) -> list[str]:
    before, after = (
        Snapshot(taken="2026-01-01T00:00:00+00:00", hostname="h", kernel="6", host=state) for state in (HOST, host)
    )
    assert changes(before, after)
    return list(map(str, moving_packets(changes(before, after), NEEDED)))


def test_the_interface_of_a_container_that_restarts_moves_no_packets() -> None:
    assert moved(RESTARTED) == []


@pytest.mark.parametrize("state", CHANGED.values(), ids=CHANGED)
def test_a_change_of_the_path_counts(state: NetworkState) -> None:
    assert moved(state)
