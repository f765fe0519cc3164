"""Evaluates the packet filter for a forwarded packet: its source NAT, whether it passes, and its mark.

Chains are walked as the kernel walks them (nft(8), "CHAINS" and "VERDICT STATEMENT"). A condition or verdict that
the reader did not know splits the walk in two; the answer is certain only when every branch ends alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Literal

from viacheck.model.mark_change import changed, value_and_mask
from viacheck.model.snapshot import Family, FilterChain, FilterMatch, FilterRule, PacketFilter

_FAMILIES: dict[Family, tuple[str, ...]] = {4: ("ip", "inet"), 6: ("ip6", "inet")}
TERMINAL = frozenset({"accept", "drop", "reject", "masquerade", "snat", "dnat", "redirect", "queue"})
"""Verdicts after which no later rule of the chain is evaluated."""
_WITH_PORTS = frozenset({6, 17, 33, 132, 136})
_ICMP = frozenset({1, 58})
_CONNTRACK_PRIORITY = -200
"""NF_IP_PRI_CONNTRACK: before it a packet has no flow yet, and no mark of it."""
_DEPTH = 16
"""The kernel's own limit on jumps (NFT_JUMP_STACK_SIZE)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilteredPacket:
    """A forwarded packet as the chains of one hook see it: the first of its flow, unless ``ctstate`` says otherwise."""

    family: Family
    source: str
    destination: str
    iif: str | None
    """None for a packet that the host sends."""
    oif: str | None
    """None when it is not known yet, as before routing."""
    protocol: int | None = None
    """None, as for ports and mark: not given, and a condition on it cannot be evaluated."""
    sport: int | None = None
    dport: int | None = None
    mark: int | None = 0
    ctmark: int | None = 0
    """The mark of its flow: 0 for the first packet."""
    ctstate: str = "new"
    icmp_type: int | None = None
    icmp_code: int | None = None
    destination_translated: bool | None = None
    """Whether the flow has destination NAT; None until it is evaluated."""
    source_translated: bool | None = None


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
    doubt: _End | None = None
    for chain in base_chains(packet_filter, packet.family, hook, "nat"):
        ends = _walk(packet_filter, chain, packet)
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
        for end in _walk(packet_filter, chain, packet):
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
        passage = _passage(_walk(packet_filter, chain, packet))
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
        ends = _walk(packet_filter, chain, replace(packet, ctmark=None) if early else packet)
        if any(end.verdict not in ("accept", "fall") for end in ends):
            return replace(packet, mark=None, ctmark=None)
        marks, ctmarks = {end.mark for end in ends}, {end.ctmark for end in ends}
        packet = replace(
            packet,
            mark=marks.pop() if len(marks) == 1 else None,
            ctmark=packet.ctmark if early else ctmarks.pop() if len(ctmarks) == 1 else None,
        )
    return replace(packet, mark=None, ctmark=None) if packet_filter.unread else packet


def base_chains(packet_filter: PacketFilter, family: Family, hook: str, kind: str) -> list[FilterChain]:
    """Return the base chains of a hook and type for packets of a family, in the order of their priority."""
    chains = [
        chain
        for chain in packet_filter.chains
        if chain.hook == hook and chain.type == kind and chain.family in _FAMILIES[family]
    ]
    return sorted(chains, key=lambda chain: chain.priority or 0)


def matches(rule: FilterRule, packet: FilteredPacket) -> bool | None:
    """Return whether every condition of a rule holds for a packet; None when that cannot be evaluated."""
    answers = [_holds(match, packet) for match in rule.matches]
    if False in answers:
        return False
    if rule.verdict in ("drop", "reject") and any(match.field == "limit" for match in rule.matches):
        # A rule that drops up to a rate drops some packets and lets the others pass.
        return None
    return None if None in answers else True


@dataclass(frozen=True, slots=True)
class _End:
    """A possible end of the walk through a chain."""

    verdict: str
    """A terminal verdict; ``unknown``; ``fall`` when the chain ended without a verdict."""
    chain: FilterChain
    rule: FilterRule | None
    mark: int | None
    ctmark: int | None
    certain: bool
    """False when a condition or verdict before this end could not be evaluated."""


def _walk(packet_filter: PacketFilter, base: FilterChain, packet: FilteredPacket) -> list[_End]:
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
        self._walked: dict[_WalkState, list[_End]] = {}

    def ends(self, chain: FilterChain, packet: FilteredPacket, certain: bool = True, depth: int = 0) -> list[_End]:
        """Return the possible ends of a chain, in order, each once."""
        state = (chain.name, packet, certain, depth)
        if state not in self._walked:
            distinct = {
                (end.verdict, end.chain.name, id(end.rule), end.mark, end.ctmark, end.certain): end
                for end in self._through(chain, packet, certain, depth)
            }
            self._walked[state] = list(distinct.values())
        return self._walked[state]

    def _through(self, chain: FilterChain, packet: FilteredPacket, certain: bool, depth: int) -> Iterator[_End]:
        for rule in chain.rules:
            answer = matches(rule, packet)
            if answer is False:
                continue
            sure = certain and answer is True
            if rule.set_mark is not None or rule.set_ctmark is not None:
                packet = _marked(packet, rule, answer)
            if rule.verdict is None:
                continue
            if rule.verdict in ("jump", "goto"):
                called = self._chains.get(rule.argument or "")
                if called is None or depth >= _DEPTH:
                    yield _End("unknown", chain, rule, packet.mark, packet.ctmark, False)
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
                    after = {(end.mark, end.ctmark) for end in fallen}
                    packet = _joined(packet, after | ({(packet.mark, packet.ctmark)} if answer is None else set()))
                if answer and (rule.verdict == "goto" or not fallen):
                    return
                certain = certain and not decided
                continue
            if rule.verdict == "return":
                yield _End("fall", chain, rule, packet.mark, packet.ctmark, sure)
            elif rule.verdict in TERMINAL:
                yield _End(rule.verdict, chain, rule, packet.mark, packet.ctmark, sure)
            else:
                yield _End("unknown", chain, rule, packet.mark, packet.ctmark, False)
                certain = False
                continue
            if answer:
                return
            certain = False
        yield _End("fall", chain, None, packet.mark, packet.ctmark, certain)


def _translation(end: _End) -> Translation | None:
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


def _passage(ends: list[_End]) -> Passage:
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


def _marked(packet: FilteredPacket, rule: FilterRule, answer: bool | None) -> FilteredPacket:
    """Return a packet with the marks that a rule sets; for an ``answer`` of None it may not match it."""
    mark, ctmark = packet.mark, packet.ctmark
    if rule.set_mark is not None:
        mark = changed(mark, ctmark, rule.set_mark)
    if rule.set_ctmark is not None:
        ctmark = changed(ctmark, mark, rule.set_ctmark)
    return _joined(packet, {(mark, ctmark)} | ({(packet.mark, packet.ctmark)} if answer is None else set()))


def _joined(packet: FilteredPacket, marks: set[tuple[int | None, int | None]]) -> FilteredPacket:
    """Return a packet that has one of these pairs of marks: where they differ, a mark is unknown."""
    own, of_flow = {mark for mark, _ in marks}, {ctmark for _, ctmark in marks}
    return replace(
        packet,
        mark=own.pop() if len(own) == 1 else None,
        ctmark=of_flow.pop() if len(of_flow) == 1 else None,
    )


def _holds(match: FilterMatch, packet: FilteredPacket) -> bool | None:
    answer = _any(_value_holds(match.field, value, packet) for value in match.values)
    return answer if answer is None else answer != match.negated


def _any(answers: Iterable[bool | None]) -> bool | None:
    listed = list(answers)
    if True in listed:
        return True
    return None if None in listed else False


def _value_holds(field: str, value: str, packet: FilteredPacket) -> bool | None:
    if field in ("source", "destination"):
        address = ip_address(packet.source if field == "source" else packet.destination)
        network = ip_network(value)
        return address.version == network.version and address in network
    if field == "iif":
        return packet.iif is not None and _is_named(packet.iif, value)
    if field == "oif":
        return None if packet.oif is None else _is_named(packet.oif, value)
    if field == "protocol":
        return None if packet.protocol is None else packet.protocol == int(value)
    if field in ("sport", "dport"):
        return _port_holds(packet.protocol, packet.sport if field == "sport" else packet.dport, value)
    if field in ("mark", "ctmark"):
        number, mask = value_and_mask(value)
        mark = packet.mark if field == "mark" else packet.ctmark
        return None if mark is None else mark & mask == number
    if field == "ctstate":
        return _status_holds(value, packet) if value in ("snat", "dnat") else packet.ctstate == value
    if field == "ctstatus":
        return _status_holds(value, packet)
    if field in ("icmp-type", "icmp-code"):
        return _icmp_holds(packet.protocol, packet.icmp_type if field == "icmp-type" else packet.icmp_code, value)
    if field == "limit":
        # A few packets stay within every rate.
        return value == "within"
    if field == "dst-type":
        return _destination_type(packet) == value
    if field == "src-type":
        return value == ("local" if packet.iif is None else "unicast")
    return None


def _status_holds(status: str, packet: FilteredPacket) -> bool | None:
    """Return whether conntrack has set a status bit of the packet's flow when the packet is forwarded."""
    if packet.ctstate not in ("new", "established"):
        return None
    is_answered = packet.ctstate == "established"
    if status == "dnat":
        return packet.destination_translated
    if status == "snat":
        # The first packet is forwarded before source NAT.
        return packet.source_translated if is_answered else False
    if status == "assured":
        return None if is_answered else False
    return {"seen-reply": is_answered, "confirmed": is_answered, "expected": False, "dying": False}.get(status)


def _icmp_holds(protocol: int | None, number: int | None, value: str) -> bool | None:
    if protocol is not None and protocol not in _ICMP:
        return False
    return None if number is None else number == int(value)


def _is_named(interface: str, value: str) -> bool:
    return interface.startswith(value[:-1]) if value.endswith("*") else interface == value


def _port_holds(protocol: int | None, port: int | None, value: str) -> bool | None:
    if protocol is not None and protocol not in _WITH_PORTS:
        return False
    if port is None:
        return None
    first, _, last = value.partition("-")
    return int(first) <= port <= int(last or first)


def _destination_type(packet: FilteredPacket) -> str:
    """Return the type of the route to the destination of a forwarded packet, which is never the host itself."""
    if ip_address(packet.destination).is_multicast:
        return "multicast"
    return "broadcast" if packet.destination == "255.255.255.255" else "unicast"
