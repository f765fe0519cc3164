"""The walk of a packet through the chains of a table, as the kernel walks them (nft(8), "CHAINS").

A condition or verdict that the reader did not know splits the walk in two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from viacheck.analysis.packet_filter.chain_index import rules_to_evaluate
from viacheck.analysis.packet_filter.conditions import FilteredPacket, drawn_change, matches
from viacheck.model.address_family import Family
from viacheck.model.filter_chains import FilterChain, FilterRule, PacketFilter
from viacheck.model.mark_change import changed, is_copy
from viacheck.model.ttl import changed_ttl

_FAMILIES: dict[Family, tuple[str, ...]] = {4: ("ip", "inet"), 6: ("ip6", "inet")}
TERMINAL = frozenset({"accept", "drop", "reject", "masquerade", "snat", "dnat", "redirect", "queue"})
"""Verdicts after which no later rule of the chain is evaluated."""
_DEPTH = 16
"""The kernel's own limit on jumps (NFT_JUMP_STACK_SIZE)."""


def base_chains(packet_filter: PacketFilter, family: Family, hook: str, kind: str) -> list[FilterChain]:
    """Return the base chains of a hook and type for packets of a family, in the order of their priority."""
    chains = [
        chain
        for chain in packet_filter.chains
        if chain.hook == hook and chain.type == kind and chain.family in _FAMILIES[family]
    ]
    return sorted(chains, key=lambda chain: chain.priority or 0)


@dataclass(frozen=True, slots=True)
class End:
    """A possible end of the walk through a chain."""

    verdict: str
    """A terminal verdict; ``unknown``; ``fall`` when the chain ended without a verdict."""
    chain: FilterChain
    rule: FilterRule | None
    packet: FilteredPacket
    """The packet with what the rules changed."""
    certain: bool
    """False when a condition or verdict before this end could not be evaluated."""


def walk(packet_filter: PacketFilter, base: FilterChain, packet: FilteredPacket) -> list[End]:
    """Return all possible ends of a base chain, in order; its policy replaces an end without a verdict."""
    ends = []
    for end in _TableWalk(chains_of_table(packet_filter, base)).ends(base, packet):
        if end.verdict == "fall" and base.policy not in (None, "accept"):
            ends.append(replace(end, verdict=base.policy, chain=base, rule=None))
        elif end.rule is None:
            ends.append(replace(end, chain=base))
        else:
            ends.append(end)
    return ends


def chains_of_table(packet_filter: PacketFilter, base: FilterChain) -> dict[str, FilterChain]:
    """Return the chains of a chain's table by name: those that it can jump to."""
    return {
        chain.name: chain
        for chain in packet_filter.chains
        if (chain.backend, chain.family, chain.table) == (base.backend, base.family, base.table)
    }


_WalkState = tuple[str, FilteredPacket, bool, int]
"""A chain, the packet that enters it, whether the walk is certain so far, and the depth of the jumps."""


class _TableWalk:
    """The walk of one packet through the chains of a table.

    Each chain is walked once for each state of the packet: chains that jump to each other several times would take a
    time that grows exponentially.
    """

    def __init__(self, chains: dict[str, FilterChain]) -> None:
        self._chains = chains
        self._walked: dict[_WalkState, list[End]] = {}

    def ends(self, chain: FilterChain, packet: FilteredPacket, certain: bool = True, depth: int = 0) -> list[End]:
        """Return the possible ends of a chain, in order, each once."""
        state = (chain.name, packet, certain, depth)
        if state not in self._walked:
            distinct = {
                (end.verdict, end.chain.name, id(end.rule), _changeable(end.packet), end.certain): end
                for end in self._through(chain, packet, certain, depth)
            }
            self._walked[state] = list(distinct.values())
        return self._walked[state]

    def _through(self, chain: FilterChain, packet: FilteredPacket, certain: bool, depth: int) -> Iterator[End]:
        for rule in rules_to_evaluate(chain, packet):
            answer = matches(rule, packet)
            if answer is False:
                continue
            if packet.has_flow is False and rule.set_mark is not None and is_copy(rule.set_mark):
                # There is no mark of a flow to copy: nft leaves the rule, iptables changes nothing.
                continue
            sure = certain and answer is True
            if rule.changes_packet:
                changed_packet = _changed(packet, chain, rule)
                changed_packet = changed_packet if answer else joined([changed_packet, packet])
                if packet.mark is not None and changed_packet.mark is None:
                    changed_packet = replace(changed_packet, mark_unknown_by=(chain, rule))
                packet = changed_packet
            if rule.verdict is None:
                continue
            if rule.verdict in ("jump", "goto"):
                called = self._chains.get(rule.argument or "")
                if called is None or depth >= _DEPTH:
                    yield End("unknown", chain, rule, packet, False)
                    continue
                fallen, decided = [], False
                for end in self.ends(called, packet, sure, depth + 1):
                    if end.verdict == "fall":
                        fallen.append(end)
                    else:
                        decided = True
                        yield end
                if rule.verdict == "goto":
                    yield from fallen
                    decided = decided or bool(fallen)
                elif fallen:
                    packet = joined([*(end.packet for end in fallen), *([packet] if answer is None else [])])
                if answer and (rule.verdict == "goto" or not fallen):
                    return
                certain = certain and not decided
                continue
            if rule.verdict == "return":
                yield End("fall", chain, rule, packet, sure)
            elif rule.verdict in TERMINAL:
                yield End(rule.verdict, chain, rule, packet, sure)
            else:
                yield End("unknown", chain, rule, packet, False)
                certain = False
                continue
            if answer:
                return
            certain = False
        yield End("fall", chain, None, packet, certain)


def _changed(packet: FilteredPacket, chain: FilterChain, rule: FilterRule) -> FilteredPacket:
    """Return a packet after what a rule changes: its mark, that of its flow, and whether it is tracked."""
    mark, ctmark, ctstate, ttl = _changeable(packet)
    if rule.set_mark is not None:
        mark = changed(mark, ctmark, drawn_change(rule, rule.set_mark, packet))
    if rule.set_ctmark is not None and packet.has_flow is not False:
        ctmark = changed(ctmark, mark, drawn_change(rule, rule.set_ctmark, packet))
    if rule.untracks and packet.has_flow is not True:
        ctstate = "untracked" if packet.has_flow is False else None
        packet = replace(packet, untracked_by=packet.untracked_by or (chain, rule))
    if rule.set_ttl is not None:
        ttl = changed_ttl(ttl, rule.set_ttl)
        packet = replace(packet, ttl_set_by=(chain, rule))
    return replace(packet, mark=mark, ctmark=ctmark, ctstate=ctstate, ttl=ttl)


def joined(packets: Sequence[FilteredPacket]) -> FilteredPacket:
    """Return a packet that is one of these: what rules changed is unknown where they differ."""
    marks, ctmarks, states, ttls = (set(values) for values in zip(*map(_changeable, packets), strict=True))
    return replace(
        packets[0],
        mark=marks.pop() if len(marks) == 1 else None,
        ctmark=ctmarks.pop() if len(ctmarks) == 1 else None,
        ctstate=states.pop() if len(states) == 1 else None,
        ttl=ttls.pop() if len(ttls) == 1 else None,
    )


def _changeable(packet: FilteredPacket) -> tuple[int | None, int | None, str | None, int | None]:
    return packet.mark, packet.ctmark, packet.ctstate, packet.ttl
