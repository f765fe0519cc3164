"""Evaluates the packet filter for a forwarded packet: its source NAT, whether it passes, and its mark.

Chains are walked as the kernel walks them (nft(8), "CHAINS" and "VERDICT STATEMENT"). A condition or verdict that
the reader did not know splits the walk in two; the answer is certain only when every branch ends alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from socket import IPPROTO_UDP
from typing import Literal

from viacheck.analysis.packet_filter.conditions import FilteredPacket, drops_a_part
from viacheck.analysis.packet_filter.replica_filter import translated_port
from viacheck.analysis.packet_filter.walk import End, base_chains, joined, walk
from viacheck.model.filter_chains import FilterChain, FilterRule, PacketFilter

_NAT_PRIORITIES = {"prerouting": -100, "postrouting": 100}
"""NF_IP_PRI_NAT_DST and NF_IP_PRI_NAT_SRC: where all chains for NAT of a hook run, whatever their own priority."""
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
    partly: bool = False
    """The rule drops some of the packets, at random or by their rate; ``allowed`` stays None then."""

    @property
    def drops(self) -> bool:
        """Whether it drops such packets for certain: all of them, or a part."""
        return self.allowed is False or self.partly

    @property
    def decider(self) -> str | None:
        """The rule as its tool prints it, or the policy; None where nothing is known to decide."""
        if self.rule is not None:
            return self.rule.text
        return f"policy of {self.chain.name}" if self.chain is not None else None


@dataclass(frozen=True, slots=True)
class AfterHook:
    """A packet after all chains of a hook."""

    packet: FilteredPacket
    """Its marks are unknown where a chain may drop it."""
    translation: Translation
    dropped: Passage | None
    """The rule or policy that drops it for certain."""


def source_nat(packet_filter: PacketFilter, packet: FilteredPacket) -> Translation:
    """Return the source NAT of the first packet of a flow, as it is routed; later packets keep it."""
    forwarded = _after_hook(packet_filter, "forward", packet).packet
    return _after_hook(packet_filter, "postrouting", forwarded).translation


def destination_nat(packet_filter: PacketFilter, packet: FilteredPacket) -> Translation:
    """Return the destination NAT of the first packet of a flow, which comes before it is routed."""
    return _nat(packet_filter, replace(packet, oif=None), "prerouting")[0]


def _nat(packet_filter: PacketFilter, packet: FilteredPacket, hook: str) -> tuple[Translation, FilteredPacket]:
    """Return the NAT of a packet, and the packet with the marks that the rules of these chains set."""
    if packet.has_flow is False:
        # Without an entry of conntrack a packet passes by the chains for NAT.
        chain_of_it, rule = packet.untracked_by or (None, None)
        return Translation(kind="none", chain=chain_of_it, rule=rule), packet
    possible: list[Translation] = []
    doubt: End | None = None
    original = packet
    for chain in base_chains(packet_filter, packet.family, hook, "nat"):
        ends = walk(packet_filter, chain, packet)
        packet = joined([end.packet for end in ends])
        # The first uncertain end names the rule that cannot be evaluated; the ends behind it only follow from it.
        doubt = doubt or next((end for end in ends if not end.certain and end.rule is not None), None)
        possible += [translation for end in ends if (translation := _translation(end)) is not None]
        # accept and the policy end this base chain only: the next base chain may still translate.
        if all(_translation(end) is not None for end in ends):
            break
    else:
        if packet_filter.unread:
            possible.append(Translation(kind="unknown"))
        else:
            possible.append(_untranslated(packet_filter, original, hook))
    if original.has_flow is None:
        possible.append(Translation(kind="none"))
    first = possible[-1]
    if all((other.kind, other.address) == (first.kind, first.address) for other in possible):
        return first, packet
    unknown = Translation(kind="unknown", chain=doubt.chain if doubt else None, rule=doubt.rule if doubt else None)
    return unknown, packet


def _untranslated(packet_filter: PacketFilter, packet: FilteredPacket, hook: str) -> Translation:
    """Return that no rule translates a packet, with the rule that accepts it before a later rule can."""
    for chain in base_chains(packet_filter, packet.family, hook, "nat"):
        for end in walk(packet_filter, chain, packet):
            if end.rule is not None:
                return Translation(kind="none", chain=end.chain, rule=end.rule)
    return Translation(kind="none")


def state_of_answer(sent: FilteredPacket) -> str | None:
    """Return the state of the answer to a packet: without a flow it begins one, if its protocol lets it."""
    if sent.has_flow is not False:
        return "established" if sent.has_flow else None
    # Conntrack takes a SYN-ACK or an echo reply that it has seen no request of as invalid.
    return "new" if sent.protocol == IPPROTO_UDP else "invalid"


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
        ends = walk(packet_filter, chain, packet)
        passage = _passage(ends)
        packet = joined([end.packet for end in ends])
        if passage.allowed is False:
            return passage
        if passage.allowed is None:
            undecided = undecided or passage
        elif accepted.chain is None or not passage.policy:
            accepted = passage
    if undecided is not None:
        return undecided
    return Passage(allowed=None) if packet_filter.unread else accepted


def possible_drops(
    packet_filter: PacketFilter, packet: FilteredPacket, hook: str
) -> tuple[list[Passage], FilteredPacket]:
    """Return the rules and policies of a hook that may drop such packets, and the packet as it passes.

    Those are rules with a condition that the model cannot evaluate or that holds for a part of the packets, and what
    comes behind a rule that accepts up to a rate.
    """
    drops: dict[tuple[str, str, str | None], Passage] = {}
    for chain in base_chains(packet_filter, packet.family, hook, "filter"):
        ends = walk(packet_filter, chain, packet)
        for end in (*ends, *walk(packet_filter, chain, replace(packet, within_limits=False))):
            if end.verdict in ("drop", "reject"):
                drop = Passage(allowed=None, chain=end.chain, rule=end.rule, policy=end.rule is None)
                # A rule with a map is a rule for each of its entries.
                drops[end.chain.table, end.chain.name, drop.decider] = drop
        passing = [end.packet for end in ends if _allows(end.verdict)]
        packet = joined(passing) if passing else packet
    return list(drops.values()), packet


def after_prerouting(packet_filter: PacketFilter, packet: FilteredPacket) -> FilteredPacket:
    """Return a packet as it is routed, with the marks that prerouting leaves; its destination is the original one.

    Returns a mark of None where it is unknown, or the packet is dropped before.
    """
    routed = prerouting(packet_filter, packet).packet
    return replace(routed, destination=packet.destination, dport=packet.dport)


def prerouting(packet_filter: PacketFilter, packet: FilteredPacket, original_source: str | None = None) -> AfterHook:
    """Return a packet as it is routed, after marks and destination NAT, the NAT, and what drops it.

    Args:
        packet_filter: the host's.
        packet: as it arrives.
        original_source: for an answer, the address to which conntrack reverses the source NAT of its flow.
    """
    return _after_hook(packet_filter, "prerouting", packet, original_source)


def mark_of_flow(packet_filter: PacketFilter, packet: FilteredPacket) -> int | None:
    """Return the mark that a flow keeps for its answers, once its first packet has left; None when it is unknown.

    Args:
        packet_filter: the host's.
        packet: the first packet as it is routed, with the interface by which it leaves.
    """
    return as_it_leaves(packet_filter, packet).ctmark if packet.has_flow is not False else 0


def as_it_leaves(packet_filter: PacketFilter, packet: FilteredPacket) -> FilteredPacket:
    """Return a packet, given as the forward hook sees it, with what the rules of that hook and the next one change."""
    for hook in ("forward", "postrouting"):
        packet = _after_hook(packet_filter, hook, packet).packet
    return packet


def _after_hook(
    packet_filter: PacketFilter, hook: str, packet: FilteredPacket, original_source: str | None = None
) -> AfterHook:
    translation, drops = Translation(kind="none"), list[Passage]()
    chains = base_chains(packet_filter, packet.family, hook, "filter")
    nat_priority = _NAT_PRIORITIES.get(hook)
    before = [chain for chain in chains if nat_priority is None or (chain.priority or 0) < nat_priority]
    for chain in before:
        packet = _through_chain(packet_filter, chain, packet, drops)
    if nat_priority is not None and (packet.ctstate in ("new", None) or not packet.has_flow):
        # Only the first packet of a flow meets the chains for NAT.
        translation, packet = _nat(packet_filter, packet, hook)
        packet = translated(packet, translation) or packet
    elif original_source is not None and packet.has_flow:
        packet = replace(packet, destination=original_source)
    for chain in chains[len(before) :]:
        packet = _through_chain(packet_filter, chain, packet, drops)
    if drops or packet_filter.unread:
        packet = replace(packet, mark=None, ctmark=None)
    return AfterHook(packet, translation, next((drop for drop in drops if drop.allowed is False), None))


def _through_chain(
    packet_filter: PacketFilter, chain: FilterChain, packet: FilteredPacket, drops: list[Passage]
) -> FilteredPacket:
    """Return a packet after a base chain; where it may be dropped there, add that to ``drops``."""
    early = chain.hook == "prerouting" and (chain.priority or 0) < _CONNTRACK_PRIORITY
    # Conntrack has not seen the packet yet: it has neither a state nor a mark.
    entering = replace(packet, ctstate="invalid") if early and packet.ctstate not in ("untracked", None) else packet
    ends = walk(packet_filter, chain, entering)
    if any(end.verdict not in ("accept", "fall") for end in ends):
        drops.append(_passage(ends))
        return replace(packet, mark=None, ctmark=None)
    left = joined([end.packet for end in ends])
    if not early or left.ctstate == "untracked":
        return left
    return replace(left, ctmark=packet.ctmark, ctstate=packet.ctstate if left.ctstate == "invalid" else None)


def translated(packet: FilteredPacket, translation: Translation) -> FilteredPacket | None:
    """Return a packet after destination NAT; None when that cannot be evaluated, or is one of several addresses."""
    rule, address = translation.rule, translation.address or packet.destination
    if translation.kind != "dnat" or rule is None or "-" in address:
        return None
    return replace(packet, destination=address, dport=translated_port(rule) or packet.dport)


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
    partly = doubt.rule is not None and drops_a_part(doubt.rule, doubt.packet)
    return Passage(allowed=None, chain=doubt.chain, rule=doubt.rule, partly=partly)


def _allows(verdict: str) -> bool | None:
    return {"accept": True, "fall": True, "drop": False, "reject": False}.get(verdict)
