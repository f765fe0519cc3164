"""The packet filter of a replica: every rule of the host, as far as a snapshot holds it.

Sets become one rule for each of their values, iptables-legacy becomes nftables. A condition that a snapshot does not
hold, such as a limit, a device or a program for queued packets, cannot be rebuilt, and is reported.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from viacheck.model.filter_chains import FilterChain, FilterMatch, FilterRule, PacketFilter
from viacheck.model.mark_change import ALL_BITS, UNKNOWN, drawn_changes, is_copy, value_and_mask

HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
ADDRESS_TYPES = {
    "unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5, "blackhole": 6, "unreachable": 7,
    "prohibit": 8,
}  # fmt: skip
"""RTN_* of rtnetlink(7)."""
CONNECTION_STATES = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}
"""Bits of nft's ct state."""
CONNECTION_STATUS = {
    "expected": 1, "seen-reply": 2, "assured": 4, "confirmed": 8, "snat": 16, "dnat": 32, "dying": 512,
}  # fmt: skip
"""Bits of nft's ct status."""
HEADERS = {"ll": 0, "nh": 1, "th": 2}
MOST_VALUES = 256
"""Most rules that a rule with sets may become."""
_IP_FAMILIES = ("ip", "ip6", "inet")
_RAW = re.compile(r"@(ll|nh|th),(\d+),(\d+) (!= )?(?:& 0x([0-9a-f]+) == )?0x([0-9a-f]+)")
_NOT_ICMP = re.compile(r"'!' --icmp(?:v6)?-type (\d+)/(\d+)")
"""The condition of iptables that a packet has not both a type and a code."""
_BEYOND_VERDICT = re.compile(
    r"\b(dup to|TEE|TCPMSS|TTL|HL|DSCP|TOS|CLASSIFY|CT|NOTRACK|notrack|(payload|ct|meta) \d* ?set)\b"
)
_PORT = re.compile(r":(\d+)(?:-\d+)?\b|--to-ports (\d+)")


@dataclass(frozen=True, slots=True)
class RawCondition:
    """Octets of a packet that must have, or must not have, a value."""

    header: int
    offset: int
    mask: bytes | None
    value: bytes
    negated: bool


def raw_condition(text: str) -> RawCondition | None:
    """Return the condition of nft's raw expression; None for other text."""
    raw = _RAW.fullmatch(text)
    if raw is None:
        return None
    header, offset, length = HEADERS[raw[1]], int(raw[2]), int(raw[3])
    if offset % 8 or length % 8 or not 8 <= length <= 128 or len(raw[6]) != length // 4:
        return None
    mask = int(raw[5], 16) if raw[5] else None
    if mask is not None and mask >> length:
        return None
    octets = mask.to_bytes(length // 8, "big") if mask is not None else None
    return RawCondition(header, offset // 8, octets, bytes.fromhex(raw[6]), bool(raw[4]))


def translated_port(rule: FilterRule) -> int | None:
    """Return the port that a rule translates to, which stands in its text alone."""
    port = _PORT.search(rule.text) if rule.verdict in ("snat", "dnat", "redirect") else None
    return int(port[1] or port[2]) if port is not None else None


def rebuilt(packet_filter: PacketFilter) -> tuple[tuple[FilterChain, ...], tuple[str, ...]]:
    """Return the chains of a replica, and a line for each part of the host's filter that is left out."""
    names = {(chain.backend, chain.family, chain.table, chain.name) for chain in packet_filter.chains}
    chains: list[FilterChain] = []
    left_out = [f"packet filter: {reason}" for reason in packet_filter.unread]
    for chain in packet_filter.chains:
        where = f"packet filter, {chain.family} {chain.table} {chain.name}"
        if chain.family not in _IP_FAMILIES or chain.hook not in (None, *HOOKS):
            left_out += [f"{where}: {rule.text or rule.verdict}" for rule in chain.rules]
            continue
        rules: list[FilterRule] = []
        for rule in chain.rules:
            reason = _obstacle(rule, chain)
            if reason is None and rule.verdict in ("jump", "goto"):
                known = (chain.backend, chain.family, chain.table, rule.argument) in names
                reason = None if known else f"the snapshot has no chain {rule.argument}"
            variants = list(itertools.islice(_variants(rule), MOST_VALUES + 1)) if reason is None else []
            if reason is None and len(variants) > MOST_VALUES:
                reason = "its sets have too many values"
            if reason is not None:
                left_out.append(f"{where}: {rule.text or rule.verdict} ({reason})")
                continue
            rules += variants
            is_rebuilt = rule.verdict is not None or rule.changes_packet
            beyond = None if is_rebuilt else _BEYOND_VERDICT.search(rule.text)
            if beyond is not None:
                left_out.append(f"{where}: {beyond[1]} of {rule.text}")
        legacy = chain.backend == "iptables-legacy"
        chains.append(
            replace(
                chain, rules=tuple(rules), backend="nft" if legacy else chain.backend,
                table=f"{chain.table}-legacy" if legacy else chain.table,
            )
        )  # fmt: skip
    return tuple(chains), tuple(left_out)


def _obstacle(rule: FilterRule, chain: FilterChain) -> str | None:
    """Return why a rule cannot be rebuilt; None when it can."""
    changes = [change for change in (rule.set_mark, rule.set_ctmark) if change is not None]
    if rule.verdict in ("queue", "unknown") or UNKNOWN in changes:
        return "a snapshot does not hold its action"
    if any(drawn_changes(change) and (change == rule.set_ctmark or not drawn_marks(change)) for change in changes):
        return "it draws a mark for each packet"
    if any(is_copy(change) and value_and_mask(change)[1] != ALL_BITS for change in changes):
        return "nftables cannot copy a part of a mark"
    if rule.set_ttl is not None and rule.set_ttl[0] != "=":
        return "nftables cannot count a TTL up or down"
    if rule.verdict in ("snat", "dnat") and rule.argument is None:
        return "a snapshot does not hold its address"
    for match in rule.matches:
        known = {
            "ctstate": CONNECTION_STATES.keys(), "ctstatus": CONNECTION_STATUS.keys(), "limit": frozenset[str](),
            "random": frozenset[str](), "owner": frozenset[str](), "th-sport": frozenset[str](),
            "th-dport": frozenset[str](),
            "src-type": ADDRESS_TYPES.keys(), "dst-type": ADDRESS_TYPES.keys(),
        }.get(match.field)  # fmt: skip
        if match.field == "unknown" and raw_condition(_nft_text(match.values[0])) is None:
            return f"condition {match.values[0]}"
        if known is not None and not known >= set(match.values):
            return f"condition {match.field} {', '.join(match.values)}"
        foreign = {"ip": ":", "ip6": "."}.get(chain.family)
        if match.field in ("source", "destination") and foreign and any(foreign in value for value in match.values):
            return f"condition {match.field} {', '.join(match.values)}"
    return None


def drawn_marks(change: str) -> range:
    """Return the marks of which a change draws one; empty where they are no range of whole marks."""
    marks = [value_and_mask(one_of) for one_of in drawn_changes(change)]
    drawn = range(marks[0][0], marks[0][0] + len(marks)) if marks else range(0)
    return drawn if marks == [(mark, ALL_BITS) for mark in drawn] else range(0)


def _variants(rule: FilterRule) -> Iterator[FilterRule]:
    """Yield the rule with a single value in each condition, for each combination of values."""
    alternatives: list[list[tuple[FilterMatch, ...]]] = []
    for match in rule.matches:
        single = [replace(match, values=(value,)) for value in match.values]
        if match.field == "unknown":
            alternatives.append([(replace(match, values=(_nft_text(match.values[0]),)),)])
        elif match.field in ("ctstate", "ctstatus"):
            # A condition may hold several states; their order does not count.
            known = CONNECTION_STATES if match.field == "ctstate" else CONNECTION_STATUS
            states = tuple(state for state in known if state in match.values)
            alternatives.append([(replace(match, values=states),)])
        elif match.field == "set":
            alternatives.append(_of_elements(match))
        elif match.negated:
            alternatives.append([tuple(single)])
        else:
            alternatives.append([(condition,) for condition in single])
    for chosen in itertools.product(*alternatives):
        yield replace(rule, matches=tuple(itertools.chain.from_iterable(chosen)))


def _of_elements(match: FilterMatch) -> list[tuple[FilterMatch, ...]]:
    """Return the conditions of each element of a set; of a negated one, each way in which no element holds."""
    elements = [
        [
            FilterMatch(field=name.removeprefix("!"), values=(value,), negated=name.startswith("!"))
            for name, _, value in (part.partition("=") for part in element.split())
        ]
        for element in match.values
    ]
    if not match.negated:
        return [tuple(element) for element in elements]
    failing = [[replace(part, negated=not part.negated) for part in element] for element in elements]
    return list(itertools.islice(itertools.product(*failing), MOST_VALUES + 1))


def _nft_text(text: str) -> str:
    """Return a negated ICMP type and code of iptables as nft writes them; other text as it is."""
    icmp = _NOT_ICMP.fullmatch(text)
    if icmp is None or max(int(icmp[1]), int(icmp[2])) > 255:
        return text
    return f"@th,0,16 != 0x{int(icmp[1]):02x}{int(icmp[2]):02x}"
