"""Matches and targets of iptables inside nftables rules, as far as their private layout is simple.

The layouts are those of linux/netfilter/xt_*.h. iptables-save prints all of them; this reader serves where the tool is
missing, and everything that it does not know becomes ``unknown``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from viacheck.model.address_range import networks_between
from viacheck.model.filter_chains import PACKET_TYPES, FilterMatch
from viacheck.model.mark_change import UNKNOWN, copied, mark_text
from viacheck.model.ttl import ttl_values
from viacheck.netlink.nft_conditions import ADDRESS_TYPES
from viacheck.netlink.nft_expressions import MatchExpression, TargetExpression

_CT_STATES = {
    1: "invalid", 2: "established", 4: "related", 8: "new", 64: "snat", 128: "dnat", 256: "untracked",
}  # fmt: skip
_WITHOUT_VERDICT = frozenset(
    {"AUDIT", "CHECKSUM", "CLASSIFY", "CONNSECMARK", "CT", "DSCP", "HL", "IDLETIMER", "LED", "LOG", "NFLOG"}
    | {"NOTRACK", "RATEEST", "SECMARK", "SET", "TCPMSS", "TCPOPTSTRIP", "TEE", "TOS", "TRACE", "TTL"}
)
_CONNMARK_SET, _CONNMARK_SAVE = 0, 1
_CT_NOTRACK = 1
_OVER_THE_RATE, _BY_RATE_ALONE = 16, 64
"""XT_HASHLIMIT_INVERT and XT_HASHLIMIT_RATE_MATCH."""
_AT_RANDOM = 0
"""XT_STATISTIC_MODE_RANDOM."""
_VERDICTS = {"MASQUERADE": "masquerade", "REDIRECT": "redirect", "REJECT": "reject", "NFQUEUE": "queue"}


@dataclass(frozen=True, slots=True)
class TargetEffect:
    """What a target of iptables does with the packet."""

    text: str
    verdict: str | None = None
    argument: str | None = None
    set_mark: str | None = None
    set_ctmark: str | None = None
    untracks: bool = False
    set_ttl: str | None = None


def match_conditions(match: MatchExpression) -> tuple[FilterMatch, ...]:
    """Return the conditions of a match; empty for a match that this reader does not know.

    Raises:
        struct.error: when the match is shorter than its layout.
    """
    read = _MATCHES.get((match.name, match.revision))
    return tuple(read(match.blob)) if read is not None else ()


def target_effect(target: TargetExpression, version: int | None) -> TargetEffect:
    """Return what a target does; its verdict is ``unknown`` for a target that this reader does not know.

    Args:
        target: the target.
        version: the IP version that the rule is about.

    Raises:
        ValueError: when the target is shorter than its layout.
        struct.error: the same.
    """
    name, revision, blob = target.name, target.revision, target.blob
    if name in _VERDICTS:
        return TargetEffect(name, _VERDICTS[name])
    if name in ("SNAT", "DNAT"):
        # SNAT and early DNAT count their ranges first; the address follows the range's flags, as in IPv6.
        offset = 8 if revision < 2 and len(blob) < 40 else 4
        address = str(ip_address(blob[offset : offset + (4 if version == 4 else 16)]))
        return TargetEffect(f"{name} to {address}", name.lower(), address)
    if name == "MARK" and revision == 2:
        mark = mark_text(*struct.unpack_from("=II", blob))
        return TargetEffect(f"MARK xset {mark}", set_mark=mark)
    if name == "CONNMARK":
        return _connection_mark(revision, blob)
    if name in ("TTL", "HL"):
        # struct ipt_TTL_info, ip6t_HL_info: the mode (set, increment, decrement), and the number.
        mode, number = struct.unpack_from("=BB", blob)
        change = f"{'=+-'[mode]}{number}" if mode < 3 else None
        return TargetEffect(f"{name} {change}", set_ttl=change)
    # struct xt_ct_target_info begins with its flags (linux/netfilter/xt_CT.h).
    untracks = name == "NOTRACK" or (name == "CT" and bool(struct.unpack_from("=H", blob)[0] & _CT_NOTRACK))
    return TargetEffect(name, None if name in _WITHOUT_VERDICT else "unknown", untracks=untracks)


def _connection_mark(revision: int, blob: bytes) -> TargetEffect:
    """Read struct xt_connmark_tginfo1, or 2, which adds a shift before the mode (linux/netfilter/xt_connmark.h)."""
    value, mask_of_flow, mask = struct.unpack_from("=III", blob)
    shift, mode = struct.unpack_from("=13xBB", blob) if revision == 2 else (0, *struct.unpack_from("=12xB", blob))
    is_known = revision in (1, 2) and not shift
    if mode == _CONNMARK_SET:
        change = mark_text(value, mask_of_flow) if is_known else UNKNOWN
        return TargetEffect(f"CONNMARK xset {change}", set_ctmark=change)
    if mode == _CONNMARK_SAVE:
        change = copied(mask, mask_of_flow) if is_known else UNKNOWN
        return TargetEffect("CONNMARK save", set_ctmark=change)
    change = copied(mask_of_flow, mask) if is_known else UNKNOWN
    return TargetEffect("CONNMARK restore", set_mark=change)


def _address_type(blob: bytes) -> Iterator[FilterMatch]:
    source, destination, flags = struct.unpack_from("=HHI", blob)
    if flags & ~3:
        return
    for bits, inverted, side in ((source, flags & 1, "src-type"), (destination, flags & 2, "dst-type")):
        if bits:
            names = tuple(kind for bit, kind in enumerate(ADDRESS_TYPES) if bits >> bit & 1)
            yield FilterMatch(field=side, values=names, negated=bool(inverted))


def _connection_tracking(blob: bytes) -> Iterator[FilterMatch]:
    matched, inverted, bits = struct.unpack_from("=HHH", blob, 146)
    states = tuple(state for bit, state in _CT_STATES.items() if bits & bit)
    if matched == 1 and not bits & ~sum(_CT_STATES):
        yield FilterMatch(field="ctstate", values=states, negated=bool(inverted & 1))


def _limit(_blob: bytes) -> Iterator[FilterMatch]:
    yield FilterMatch(field="limit", values=("within",))


def _mark(blob: bytes) -> Iterator[FilterMatch]:
    value, mask, inverted = struct.unpack_from("=IIB", blob)
    yield FilterMatch(field="mark", values=(mark_text(value, mask),), negated=bool(inverted))


def _flow_mark(blob: bytes) -> Iterator[FilterMatch]:
    value, mask, inverted = struct.unpack_from("=IIB", blob)
    yield FilterMatch(field="ctmark", values=(mark_text(value, mask),), negated=bool(inverted))


def _statistic(blob: bytes) -> Iterator[FilterMatch]:
    """Read struct xt_statistic_info (linux/netfilter/xt_statistic.h)."""
    mode, flags, every, packet = struct.unpack_from("=HHII", blob)
    number = "0-0/2" if mode == _AT_RANDOM else f"{packet}-{packet}/{every + 1}"
    yield FilterMatch(field="random", values=(number,), negated=bool(flags & 1))


def _tcp(blob: bytes) -> Iterator[FilterMatch]:
    first_source, last_source, first, last, option, mask, compared, inverted = struct.unpack_from("=HHHHBBBB", blob)
    if not (option or inverted & 8):
        yield from _ports((first_source, last_source), (first, last), inverted)
        if mask:
            yield FilterMatch(field="tcp-flags", values=(mark_text(compared, mask),), negated=bool(inverted & 4))


def _hash_limit(blob: bytes) -> Iterator[FilterMatch]:
    """Read struct xt_hashlimit_mtinfo2 and 3: name, rate, burst, mode (linux/netfilter/xt_hashlimit.h)."""
    (mode,) = struct.unpack_from("=I", blob, 272)
    if not mode & _BY_RATE_ALONE:
        yield FilterMatch(field="limit", values=("over" if mode & _OVER_THE_RATE else "within",))


def _ranges(blob: bytes) -> Iterator[FilterMatch]:
    """Read struct xt_iprange_mtinfo: the ranges of the source and of the destination, each of 16 octets, and flags."""
    (flags,) = struct.unpack_from("=B", blob, 64)
    for side, offset, asked, inverted in (("source", 0, 1, 16), ("destination", 32, 2, 32)):
        # An IPv4 address takes the first four octets; the unused ones are zero.
        width = 4 if not any(blob[offset + 4 : offset + 16] + blob[offset + 20 : offset + 32]) else 16
        first, last = (str(ip_address(blob[start : start + width])) for start in (offset, offset + 16))
        if flags & asked:
            yield FilterMatch(field=side, values=networks_between(first, last), negated=bool(flags & inverted))


def _multiport(blob: bytes) -> Iterator[FilterMatch]:
    """Read struct xt_multiport_v1 (linux/netfilter/xt_multiport.h)."""
    flags, count = struct.unpack_from("=BB", blob)
    ports = struct.unpack_from("=15H", blob, 2)[:count]
    begins_range = struct.unpack_from("=15B", blob, 32)
    values: list[str] = []
    for number, port in enumerate(ports):
        if not (number and begins_range[number - 1]):
            values.append(f"{port}-{ports[number + 1]}" if begins_range[number] else str(port))
    sides = {0: ("sport",), 1: ("dport",), 2: ("sport", "dport")}.get(flags, ())
    negated = bool(blob[47])
    if len(sides) == 1:
        yield FilterMatch(field=sides[0], values=tuple(values), negated=negated)
    elif sides:
        alternatives = tuple(f"{side}={value}" for side in sides for value in values)
        yield FilterMatch(field="set", values=alternatives, negated=negated)


def _owner(blob: bytes) -> Iterator[FilterMatch]:
    """Read struct xt_owner_match_info (linux/netfilter/xt_owner.h)."""
    *numbers, asked, inverted = struct.unpack_from("=IIIIBB", blob)
    for bit, name, (first, last) in ((1, "uid-owner", numbers[:2]), (2, "gid-owner", numbers[2:]), (4, "", (0, 0))):
        if asked & bit:
            text = f"{name} {first}" + (f"-{last}" if last != first else "") if name else "socket-exists"
            yield FilterMatch(field="owner", values=(text,), negated=bool(inverted & bit))


def _packet_type(blob: bytes) -> Iterator[FilterMatch]:
    """Read struct xt_pkttype_info (linux/netfilter/xt_pkttype.h)."""
    kind, inverted = struct.unpack_from("=II", blob)
    if kind < len(PACKET_TYPES):
        yield FilterMatch(field="pkttype", values=(PACKET_TYPES[kind],), negated=bool(inverted))


def _ttl(blob: bytes) -> Iterator[FilterMatch]:
    """Read struct ipt_ttl_info, ip6t_hl_info: the comparison, and the number."""
    mode, number = struct.unpack_from("=BB", blob)
    values = ttl_values({0: "eq", 1: "eq", 2: "lt", 3: "gt"}.get(mode, ""), number)
    if values is not None:
        yield FilterMatch(field="ttl", values=values, negated=mode == 1)


def _udp(blob: bytes) -> Iterator[FilterMatch]:
    first_source, last_source, first, last, inverted = struct.unpack_from("=HHHHB", blob)
    yield from _ports((first_source, last_source), (first, last), inverted)


def _ports(source: tuple[int, int], destination: tuple[int, int], inverted: int) -> Iterator[FilterMatch]:
    for (low, high), bit, side in ((source, 1, "sport"), (destination, 2, "dport")):
        if (low, high) != (0, 65535) or inverted & bit:
            values = (str(low) if low == high else f"{low}-{high}",)
            yield FilterMatch(field=side, values=values, negated=bool(inverted & bit))


_MATCHES: dict[tuple[str, int], Callable[[bytes], Iterator[FilterMatch]]] = {
    ("addrtype", 1): _address_type,
    ("connmark", 1): _flow_mark,
    ("conntrack", 3): _connection_tracking,
    ("hashlimit", 2): _hash_limit,
    ("hashlimit", 3): _hash_limit,
    ("iprange", 1): _ranges,
    ("limit", 0): _limit,
    ("mark", 1): _mark,
    ("multiport", 1): _multiport,
    ("owner", 1): _owner,
    ("pkttype", 0): _packet_type,
    ("statistic", 0): _statistic,
    ("hl", 0): _ttl,
    ("tcp", 0): _tcp,
    ("ttl", 0): _ttl,
    ("udp", 0): _udp,
}
"""By name and revision, because another revision has another layout."""
