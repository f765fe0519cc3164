"""Writes the packet filter of a snapshot into a namespace: every chain with its rules, in a transaction for each table.

The rules come from :mod:`viacheck.analysis.packet_filter.replica_filter`, each condition with a single value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netns_lab import nft_encode as nft
from viacheck.analysis.packet_filter.replica_filter import (
    ADDRESS_TYPES,
    CONNECTION_STATES,
    CONNECTION_STATUS,
    HOOKS,
    drawn_marks,
    raw_condition,
    translated_port,
)
from viacheck.host.namespace import Namespace
from viacheck.model.filter_chains import PACKET_TYPES, FilterChain, FilterMatch, FilterRule
from viacheck.model.mark_change import is_copy, value_and_mask
from viacheck.netlink.codec import NLM_F_APPEND, NLM_F_CREATE, nested, string
from viacheck.netlink.nfnetlink import NfnetlinkSocket, NftFamily, NftMessage, NftMessageType, number

_VERDICTS = {"accept": nft.ACCEPT, "drop": nft.DROP, "return": nft.RETURN, "jump": nft.JUMP, "goto": nft.GOTO}
_PORT_UNREACHABLE = {"ip": (3, 0), "ip6": (4, 0), "inet": (1, 2)}
"""Code and kind of a reject's answer: ICMP's, ICMPv6's, and nft's own for both (NFT_REJECT_ICMPX)."""


def replay(namespace: Namespace, chains: Sequence[FilterChain]) -> list[str]:
    """Add the tables of these chains; return a line for each table that the kernel refused, with the reason."""
    tables: dict[tuple[str, str], list[FilterChain]] = {}
    for chain in chains:
        tables.setdefault((chain.family, chain.table), []).append(chain)
    refused = []
    with NfnetlinkSocket(namespace) as nfnetlink:
        for (family, table), members in tables.items():
            try:
                nfnetlink.commit(list(_messages(NftFamily[family.upper()], table, members)))
            except OSError as error:
                refused.append(f"packet filter, table {family} {table}: the kernel refuses it: {error.strerror}")
            except (OverflowError, ValueError) as error:
                refused.append(f"packet filter, table {family} {table}: a value does not fit into a table: {error}")
    return refused


def _messages(family: NftFamily, table: str, chains: Sequence[FilterChain]) -> Iterator[NftMessage]:
    yield NftMessage(NftMessageType.NEWTABLE, family, string(1, table), NLM_F_CREATE)
    for chain in chains:
        body = [string(1, table), string(3, chain.name)]
        if chain.hook is not None:
            body.append(nested(4, number(1, HOOKS.index(chain.hook)), number(2, chain.priority or 0)))
            body.append(string(7, chain.type or "filter"))
            body.append(number(5, nft.DROP if chain.policy == "drop" else nft.ACCEPT))
        yield NftMessage(NftMessageType.NEWCHAIN, family, b"".join(body), NLM_F_CREATE)
    for chain in chains:
        for rule in chain.rules:
            expressions = nft.rule(*_conditions(rule, family), nft.counter(), *_effects(rule, family))
            body = [string(1, table), string(2, chain.name), expressions]
            yield NftMessage(NftMessageType.NEWRULE, family, b"".join(body), NLM_F_CREATE | NLM_F_APPEND)


def _conditions(rule: FilterRule, family: NftFamily) -> Iterator[bytes]:
    for match in rule.matches:
        yield from _condition(match, family)


def _condition(match: FilterMatch, family: NftFamily) -> Iterator[bytes]:
    operator, value = nft.NEQ if match.negated else nft.EQ, match.values[0]
    match match.field:
        case "source" | "destination" as side:
            yield from nft.prefix(side, value, operator, one_version=family is not NftFamily.INET)
        case "iif" | "oif" as side:
            yield from nft.interface(side, value, operator)
        case "protocol":
            yield from nft.protocol(int(value), operator)
        case "sport" | "dport" as side:
            first, _, last = value.partition("-")
            yield from nft.port(side, int(first), int(last or first), operator)
        case "mark":
            yield from nft.mark(*value_and_mask(value), operator)
        case "ctmark":
            yield from nft.flow_mark(*value_and_mask(value), operator)
        case "ctstate":
            yield from nft.connection_state(sum(CONNECTION_STATES[state] for state in match.values), match.negated)
        case "ctstatus":
            bits_set = sum(CONNECTION_STATUS[status] for status in match.values)
            yield from nft.connection_status(bits_set, match.negated)
        case "tcp-flags":
            flags, bits = value_and_mask(value)
            yield nft.payload(nft.TRANSPORT, 13, 1)
            yield nft.mask(bytes((bits,)))
            yield nft.compare(bytes((flags,)), operator)
        case "pkttype":
            yield nft.meta(nft.META_PKTTYPE)
            yield nft.compare(bytes((PACKET_TYPES.index(value),)), operator)
        case "icmp-type" | "icmp-code" as part:
            yield nft.payload(nft.TRANSPORT, 0 if part == "icmp-type" else 1, 1)
            yield nft.compare(bytes((int(value),)), operator)
        case "mac":
            yield nft.payload(nft.LINK, 6, 6)
            yield nft.compare(bytes.fromhex(value.replace(":", "")), operator)
        case "ttl":
            first, _, last = value.partition("-")
            yield from nft.ttl(int(first), int(last or first), operator, version=6 if family is NftFamily.IP6 else 4)
        case "src-type" | "dst-type" as side:
            yield from nft.address_type(side, ADDRESS_TYPES[value], operator)
        case _:
            raw = raw_condition(value)
            assert raw is not None, "replica_filter leaves out conditions that nftables cannot express"
            yield nft.payload(raw.header, raw.offset, len(raw.value))
            if raw.mask is not None:
                yield nft.mask(raw.mask)
            yield nft.compare(raw.value, nft.NEQ if raw.negated else nft.EQ)


def _effects(rule: FilterRule, family: NftFamily) -> Iterator[bytes]:
    for change, set_to, copy in (
        (rule.set_mark, nft.set_mark, nft.restore_mark),
        (rule.set_ctmark, nft.set_flow_mark, nft.save_mark),
    ):
        if change is not None and (marks := drawn_marks(change)):
            yield from nft.draw_mark(marks.start, len(marks))
        elif change is not None:
            value, bits = value_and_mask(change)
            yield from copy(value) if is_copy(change) else set_to(value, bits)
    if rule.untracks:
        yield nft.expression("notrack")
    if rule.set_ttl is not None:
        yield from nft.set_ttl(int(rule.set_ttl[1:]), version=6 if family is NftFamily.IP6 else 4)
    match rule.verdict:
        case None:
            return
        case "masquerade":
            yield nft.expression("masq")
        case "snat" | "dnat" as kind:
            assert rule.argument is not None, "replica_filter leaves out translations without an address"
            yield from nft.nat(kind, rule.argument, translated_port(rule))
        case "redirect":
            yield from nft.redirect(translated_port(rule))
        case "reject":
            yield nft.reject(*_PORT_UNREACHABLE[family.name.lower()])
        case verdict:
            yield nft.verdict(_VERDICTS[verdict], rule.argument if verdict in ("jump", "goto") else None)
