"""Coverage: what probes meet of the rules and routes on the agent's paths, and the packets that reach the rest."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.test_remedy import AGENT, HOST, LINKS, MAIN, RULE, default, link, nat
from viacheck.analysis.classes import class_partition
from viacheck.analysis.coverage import coverage
from viacheck.analysis.paths import probe_traffic
from viacheck.analysis.traced_path import Traffic
from viacheck.model.filter_chains import FilterChain, FilterRule, PacketFilter
from viacheck.model.namespace_state import Neighbour, NetworkState
from viacheck.model.path import CoverageEvidence
from viacheck.model.policy_rule import PortRange, Rule

BRANCH = replace(default("10.10.50.1", "wlan0", table=200), destination="203.0.113.0/24")
DNS_RULE = Rule(family=4, priority=900, ipproto=17, dport=PortRange(first=53, last=53), table=254)
IN_TABLE = (default("10.10.40.1", "eth0"), default("10.10.50.1", "wlan0", table=200), BRANCH)


def covered_by(host: NetworkState, *more: Traffic, after: PacketFilter | None = None) -> CoverageEvidence:
    port = link(14, "veth1", kind="veth", master="docker0", peer_index=2, peer_netnsid=1)
    known = Neighbour(family=4, address="172.17.0.1", interface="eth9", state="PERMANENT", mac="02:00:00:00:00:01")
    agent = replace(AGENT, rules=(MAIN,), links=(replace(AGENT.links[0], peer_index=14),), neighbours=(known,))
    resolved = nat(host=replace(host, links=(*LINKS, port)), agent=agent)
    probes = [probe_traffic(resolved, protocol) for protocol in ("icmp", "udp", "tcp")]
    return coverage(class_partition(resolved), [*probes, *more], after)


def test_a_route_that_no_probe_takes_is_named_with_a_packet_that_does() -> None:
    host = replace(HOST, routes=IN_TABLE)
    found = covered_by(host)
    assert [(decision.stage, decision.reached_by) for decision in found.uncovered] == [
        ("route", "icmp to 203.0.113.0/24")
    ]
    assert "203.0.113.0/24 via 10.10.50.1" in found.uncovered[0].what
    assert found.covered == found.of - 1 > 0
    assert covered_by(host, Traffic(destination="203.0.113.7", protocol=1)).uncovered == []


def test_a_rule_for_one_port_is_reached_by_packets_to_that_port_alone() -> None:
    host = replace(HOST, rules=(DNS_RULE, RULE, MAIN))
    found = covered_by(host)
    assert {decision.reached_by for decision in found.uncovered} == {"udp to port 53"}
    assert any("dport 53" in decision.what for decision in found.uncovered)


def counting(packets: int, text: str = "oifname wlan0 counter accept") -> PacketFilter:
    rule = FilterRule(verdict="accept", packets=packets, bytes=0, handle=7, text=text)
    chain = FilterChain(
        backend="nft", family="ip", table="t", name="pass", type="filter", hook="forward", priority=0, rules=(rule,)
    )
    return PacketFilter(chains=(chain,))


def test_a_counter_that_did_not_move_is_a_disagreement() -> None:
    host = replace(HOST, routes=IN_TABLE, packet_filter=counting(3))
    confirmed = covered_by(host, after=counting(12, "the text of nftables holds the counter"))
    assert (confirmed.counted, confirmed.confirmed, confirmed.unmoved) == (1, 1, [])
    silent = covered_by(host, after=counting(3))
    assert (silent.counted, silent.confirmed, silent.unmoved) == (1, 0, ["oifname wlan0 counter accept"])


def test_a_counter_that_was_reset_or_not_read_again_says_nothing() -> None:
    host = replace(HOST, routes=IN_TABLE, packet_filter=counting(3))
    assert covered_by(host, after=counting(1)).counted == 0
    assert covered_by(host, after=PacketFilter()).counted == 0
    assert covered_by(host).counted == 0
