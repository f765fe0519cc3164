"""The packet filter model, on chains written down here."""

from __future__ import annotations

import time

from viacheck.analysis.packet_filter.conditions import FilteredPacket
from viacheck.analysis.packet_filter.evaluate import forwarding, source_nat
from viacheck.analysis.packet_filter.filter_trace import rules_met
from viacheck.model.filter_chains import FilterChain, FilterMatch, FilterRule, PacketFilter

FLOW = FilteredPacket(family=4, source="172.17.0.2", destination="198.51.100.1", iif="docker0", oif="wlan0")
MOST_SECONDS = 1.0


def chain(name: str, *rules: FilterRule, hook: str | None = None, kind: str = "filter") -> FilterChain:
    return FilterChain(
        backend="nft", family="ip", table="t", name=name, type=kind if hook else None, hook=hook, policy="accept",
        rules=rules,
    )  # fmt: skip


def jump(target: str, *matches: FilterMatch) -> FilterRule:
    return FilterRule(verdict="jump", argument=target, matches=matches, text=f"jump {target}")


def test_chains_that_jump_to_each_other_take_no_exponential_time() -> None:
    """Three jumps in each of 20 chains are 3^20 walks for a model that repeats each of them."""
    unreadable = FilterMatch(field="unknown", values=("xt match u32",))
    for conditions in ((), (unreadable,)):
        for hook, kind in (("forward", "filter"), ("postrouting", "nat")):
            chains = [chain("base", jump("c0"), hook=hook, kind=kind)]
            chains += [chain(f"c{n}", *(jump(f"c{n + 1}", *conditions) for _ in range(3))) for n in range(20)]
            chains.append(chain("c20", FilterRule(verdict="return", matches=conditions)))
            packet_filter = PacketFilter(chains=tuple(chains))
            began = time.process_time()
            forwarding(packet_filter, FLOW)
            source_nat(packet_filter, FLOW)
            rules_met(packet_filter, FLOW, hook, kind)
            assert time.process_time() - began < MOST_SECONDS


def test_chains_that_jump_in_a_circle_end() -> None:
    """The kernel refuses such chains, and a bundle may hold them."""
    circle = [chain("a", *(jump("b") for _ in range(3))), chain("b", *(jump("a") for _ in range(3)))]
    packet_filter = PacketFilter(chains=(chain("base", jump("a"), hook="forward"), *circle))
    began = time.process_time()
    assert forwarding(packet_filter, FLOW).allowed is None
    rules_met(packet_filter, FLOW, "forward", "filter")
    assert time.process_time() - began < MOST_SECONDS


def test_a_rule_before_the_masquerade_excludes_the_packet() -> None:
    excluding = FilterRule(verdict="return", matches=(FilterMatch(field="destination", values=("198.51.100.0/24",)),))
    packet_filter = PacketFilter(
        chains=(chain("post", excluding, FilterRule(verdict="masquerade"), hook="postrouting", kind="nat"),)
    )
    translation = source_nat(packet_filter, FLOW)
    assert (translation.kind, translation.rule) == ("none", excluding)
