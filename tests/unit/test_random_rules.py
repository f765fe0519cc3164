"""What the packet filter draws at random: all outcomes are traced, and only those that the draws allow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.test_bypass_causes import CONNECTED, FORWARDING, LOCAL, ON_LINK, OWN_ADDRESS, PORT
from tests.unit.test_remedy import MAIN, default, nat, with_rules
from viacheck.analysis.classes import ClassVerdict, class_partition
from viacheck.analysis.packet_filter.draws import Draws
from viacheck.analysis.paths import PathTracer, probe_traffic
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.traced_path import Path, PathEnd
from viacheck.model.filter_chains import FilterChain, FilterMatch, FilterRule, PacketFilter
from viacheck.model.policy_rule import Rule
from viacheck.parsers.iptables_save import parse_iptables_save

BY_MARK = Rule(family=4, priority=900, fwmark=2, fwmask=0xFFFFFFFF, table=200)
STATISTIC = "-A PREROUTING -i docker0 -m statistic --mode"
NFT = FilterChain(backend="nft", family="ip", table="t", name="pre", type="filter", hook="prerouting", priority=-150)


def balanced(*lines: str, table: str = "mangle", nft: tuple[FilterRule, ...] = ()) -> ResolvedIntent:
    """An agent behind docker0 on a host that sends mark 2 by wlan0 and everything else by eth0."""
    host = with_rules(LOCAL, BY_MARK, MAIN)
    text = "\n".join([f"*{table}", ":PREROUTING ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", *lines, "COMMIT"])
    chains = (*parse_iptables_save(text, "ip", "iptables-legacy"), replace(NFT, rules=nft))
    return nat(
        replace(
            host, links=(*host.links, PORT), routes=(*host.routes, OWN_ADDRESS, ON_LINK, default("10.10.40.1", "eth0")),
            sysctls=FORWARDING, packet_filter=PacketFilter(chains=chains),
        ),
        CONNECTED,
    )  # fmt: skip


def path_of(resolved: ResolvedIntent) -> Path:
    return PathTracer(resolved).trace(probe_traffic(resolved, "udp"))


def numbers(text: str, **effect: str) -> FilterRule:
    return FilterRule(matches=(FilterMatch(field="random", values=(text,)),), handle=7, text="numgen", **effect)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line",
    [
        f"{STATISTIC} random --probability 0.50000000000 -j MARK --set-xmark 0x2/0xffffffff",
        f"{STATISTIC} random ! --probability 0.50000000000 -j MARK --set-xmark 0x2/0xffffffff",
        f"{STATISTIC} nth --every 3 --packet 1 -j MARK --set-xmark 0x2/0xffffffff",
        "-A PREROUTING -j HMARK --hmark-tuple src,dst,sport,dport --hmark-mod 2 --hmark-offset 1 --hmark-rnd 0x1234",
    ],
)
def test_a_drawn_mark_makes_the_way_depend_on_the_flow(line: str) -> None:
    resolved = balanced(line)
    path = path_of(resolved)
    assert (path.end, set(path.egress), path.depends_on_flow) == (PathEnd.LEAVES, {"eth0", "wlan0"}, True)
    assert line in path.reason
    classes = class_partition(resolved).classes
    assert {c.verdict for c in classes if c.verdict is not ClassVerdict.LOCAL} == {ClassVerdict.DEPENDS}


def test_a_draw_that_changes_nothing_is_no_doubt() -> None:
    path = path_of(balanced(f"{STATISTIC} random --probability 0.5 -j MARK --set-xmark 0x7/0xffffffff"))
    assert (path.end, set(path.egress), path.depends_on_flow) == (PathEnd.LEAVES, {"eth0"}, False)


def test_a_part_that_is_dropped_does_not_leave_elsewhere() -> None:
    resolved = balanced("-A FORWARD -m statistic --mode random --probability 0.1 -j DROP", table="filter")
    path = path_of(resolved)
    assert (path.end, set(path.egress), path.egress_text) == (PathEnd.LEAVES, {"eth0"}, "eth0 or no interface")
    assert path.depends_on_flow


def test_the_entries_of_a_map_are_drawn_once() -> None:
    both = (numbers("0-6/10", set_mark="0x2/0xffffffff"), numbers("7-9/10", set_mark="0x2/0xffffffff"))
    assert path_of(balanced(nft=both)).egress == {"wlan0"}
    # The second entry has the numbers that are left, so it takes the mark of 1 away never after the first.
    other = (numbers("0-6/10", set_mark="0x2/0xffffffff"), numbers("0-6/10", set_mark="0x1/0xffffffff"))
    assert path_of(balanced(nft=other)).egress == {"eth0"}


def test_more_outcomes_than_are_traced_are_unknown() -> None:
    dice = [
        f"{STATISTIC} random --probability 0.5 -j MARK --set-xmark 0x{1 << bit:x}/0x{1 << bit:x}"
        for bit in range(9, 19)
    ]
    assert path_of(balanced(*dice)).end is PathEnd.UNKNOWN


def test_all_outcomes_of_draws_are_visited_once() -> None:
    draws, seen = Draws(), []
    while True:
        first = draws.is_drawn("a", frozenset({0}), 3, "a")
        second = first or draws.is_drawn("a", frozenset({1}), 3, "a")
        seen.append((first, second, draws.is_drawn("b", frozenset({1}), 2, "b")))
        if not draws.next_outcome():
            break
    assert seen == [
        (True, True, True), (True, True, False), (False, True, True), (False, True, False), (False, False, True),
        (False, False, False),
    ]  # fmt: skip
    assert list(draws.rules) == ["a", "b"]
