"""Evaluates the packet filter for a forwarded packet: its source NAT, whether it passes, and its mark.

Chains are walked as the kernel walks them (nft(8), "CHAINS" and "VERDICT STATEMENT"). A condition or verdict that
the reader did not know splits the walk in two; the answer is certain only when every branch ends alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from viacheck.analysis.packet_filter.conditions import FilteredPacket
from viacheck.analysis.packet_filter.walk import End, base_chains, walk
from viacheck.model.snapshot import FilterChain, FilterRule, PacketFilter

_CONNTRACK_PRIORITY = -200
"""NF_IP_PRI_CONNTRACK: before it a packet has no flow yet, and no mark of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """The source or destination NAT of a packet, and the rule that decides.

    For ``unknown`` that is the rule that cannot be evaluated; for ``none`` a rule that excludes the packet, if any.
    """

    kind: Literal["none", "masquerade", "snat", "dnat", "redirect", "unknown"]
    address: str | None = None
    chain: FilterChain | None = None
    rule: FilterRule | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """Whether a packet passes the forward hook, and the rule or policy that decides."""

    allowed: bool | None
    """None when it cannot be evaluated; ``rule`` is then the cause, where it is a single rule."""
    chain: FilterChain | None = None
    rule: FilterRule | None = None
    policy: bool = False
    """The chain's policy decides, and no rule."""


def source_nat(packet_filter: PacketFilter, packet: FilteredPacket) -> Translation:
    """Return the source NAT of the first packet of a flow; later packets keep it."""
    return _nat(packet_filter, packet, "postrouting")


def destination_nat(packet_filter: PacketFilter, packet: FilteredPacket) -> Translation:
    """Return the destination NAT of the first packet of a flow, which comes before it is routed."""
    return _nat(packet_filter, replace(packet, oif=None), "prerouting")


def _nat(packet_filter: PacketFilter, packet: FilteredPacket, hook: str) -> Translation:
    possible: list[Translation] = []
    doubt: End | None = None
    for chain in base_chains(packet_filter, packet.family, hook, "nat"):
        ends = walk(packet_filter, chain, packet)
        for end in ends:
            translation = _translation(end)
            if translation is not None:
                possible.append(translation)
                doubt = doubt or (None if end.certain else end)
        # accept and the policy end this base chain only: the next base chain may still translate.
        if all(_translation(end) is not None for end in ends):
            break
    else:
        if packet_filter.unread:
            possible.append(Translation(kind="unknown"))
        else:
            possible.append(_untranslated(packet_filter, packet, hook))
    first = possible[-1]
    if all((other.kind, other.address) == (first.kind, first.address) for other in possible):
        return first
    return Translation(kind="unknown", chain=doubt.chain if doubt else None, rule=doubt.rule if doubt else None)


def _untranslated(packet_filter: PacketFilter, packet: FilteredPacket, hook: str) -> Translation:
    """Return that no rule translates a packet, with the rule that accepts it before a later rule can."""
    for chain in base_chains(packet_filter, packet.family, hook, "nat"):
        for end in walk(packet_filter, chain, packet):
            if end.rule is not None:
                return Translation(kind="none", chain=end.chain, rule=end.rule)
    return Translation(kind="none")


def forwarding(packet_filter: PacketFilter, packet: FilteredPacket) -> Passage:
    """Return whether a packet passes the forward hook: every base chain must accept, and each drop is final.

    A packet that is not new is taken as an answer: NAT of its flow is that of the packet in the other direction.
    """
    passage = _forwarding(packet_filter, packet)
    if passage.allowed is not None or packet.destination_translated is not None or packet_filter.unread:
        return passage
    # The status of NAT is evaluated only where a rule may ask for it.
    first = packet if packet.ctstate == "new" else _other_direction(packet)
    return _forwarding(
        packet_filter,
        replace(
            packet,
            destination_translated=_is_translated(destination_nat(packet_filter, first)),
            source_translated=_is_translated(source_nat(packet_filter, first)),
        ),
    )


def _other_direction(packet: FilteredPacket) -> FilteredPacket:
    return replace(
        packet, source=packet.destination, destination=packet.source, iif=packet.oif, oif=packet.iif,
        sport=packet.dport, dport=packet.sport, ctstate="new",
    )  # fmt: skip


def _is_translated(translation: Translation) -> bool | None:
    return None if translation.kind == "unknown" else translation.kind != "none"


def _forwarding(packet_filter: PacketFilter, packet: FilteredPacket) -> Passage:
    undecided: Passage | None = None
    accepted = Passage(allowed=True)
    for chain in base_chains(packet_filter, packet.family, "forward", "filter"):
        passage = _passage(walk(packet_filter, chain, packet))
        if passage.allowed is False:
            return passage
        if passage.allowed is None:
            undecided = undecided or passage
        elif accepted.chain is None or not passage.policy:
            accepted = passage
    if undecided is not None:
        return undecided
    return Passage(allowed=None) if packet_filter.unread else accepted


def after_prerouting(packet_filter: PacketFilter, packet: FilteredPacket) -> FilteredPacket:
    """Return a packet as it is routed, with the marks that prerouting leaves.

    Returns a mark of None where it is unknown, or the packet is dropped before.
    """
    return _after_hook(packet_filter, "prerouting", packet)


def mark_of_flow(packet_filter: PacketFilter, packet: FilteredPacket) -> int | None:
    """Return the mark that a flow keeps for its answers, once its first packet has left; None when it is unknown.

    Args:
        packet_filter: the host's.
        packet: the first packet as it is routed, with the interface by which it leaves.
    """
    for hook in ("forward", "postrouting"):
        packet = _after_hook(packet_filter, hook, packet)
    return packet.ctmark


def _after_hook(packet_filter: PacketFilter, hook: str, packet: FilteredPacket) -> FilteredPacket:
    for chain in base_chains(packet_filter, packet.family, hook, "filter"):
        early = hook == "prerouting" and (chain.priority or 0) < _CONNTRACK_PRIORITY
        ends = walk(packet_filter, chain, replace(packet, ctmark=None) if early else packet)
        if any(end.verdict not in ("accept", "fall") for end in ends):
            return replace(packet, mark=None, ctmark=None)
        marks, ctmarks = {end.mark for end in ends}, {end.ctmark for end in ends}
        packet = replace(
            packet,
            mark=marks.pop() if len(marks) == 1 else None,
            ctmark=packet.ctmark if early else ctmarks.pop() if len(ctmarks) == 1 else None,
        )
    return replace(packet, mark=None, ctmark=None) if packet_filter.unread else packet


def _translation(end: End) -> Translation | None:
    """Return the NAT of an end; None when this base chain translates nothing."""
    if end.verdict in ("accept", "fall"):
        return None
    if end.verdict == "masquerade":
        return Translation(kind="masquerade", chain=end.chain, rule=end.rule)
    if end.verdict == "redirect":
        return Translation(kind="redirect", chain=end.chain, rule=end.rule)
    if end.verdict in ("snat", "dnat"):
        address = end.rule.argument if end.rule else None
        return Translation(
            kind="snat" if end.verdict == "snat" else "dnat", address=address, chain=end.chain, rule=end.rule
        )
    kind: Literal["none", "unknown"] = "none" if end.verdict in ("drop", "reject") else "unknown"
    return Translation(kind=kind, chain=end.chain, rule=end.rule)


def _passage(ends: list[End]) -> Passage:
    verdicts = {_allows(end.verdict) for end in ends}
    last = ends[-1]
    if len(verdicts) == 1 and None not in verdicts:
        by_policy = last.rule is None or last.verdict == "fall"
        rule = None if by_policy else last.rule
        return Passage(allowed=verdicts.pop(), chain=last.chain, rule=rule, policy=by_policy)
    # Where the ends differ, the first uncertain end names the rule that a person must look at.
    doubt = next((end for end in ends if not end.certain), last)
    return Passage(allowed=None, chain=doubt.chain, rule=doubt.rule)


def _allows(verdict: str) -> bool | None:
    return {"accept": True, "fall": True, "drop": False, "reject": False}.get(verdict)
