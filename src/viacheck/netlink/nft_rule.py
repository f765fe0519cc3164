"""One rule of nftables, from its expressions to conditions and a verdict.

The kernel keeps a rule as a list of small expressions that work on registers (nft(8) calls this the virtual machine).
Reading a rule means following which field of the packet each register holds, and what the field is compared with. An
expression that this reader does not know becomes a condition ``unknown``; a rule is never left out.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

from viacheck.model.filter_chains import FilterMatch, FilterRule
from viacheck.model.mark_change import ALL_BITS, UNKNOWN, copied, drawn, is_copy, mark_text, value_and_mask
from viacheck.model.set_element import addresses_of, is_about_marks
from viacheck.netlink import nft_expressions as nft
from viacheck.netlink.codec import MalformedMessage, as_string
from viacheck.netlink.nfnetlink import as_number
from viacheck.netlink.nft_conditions import (
    CT_BITS,
    EQ,
    GTE,
    IP_VERSIONS,
    LTE,
    NEQ,
    SIGNS,
    InterfaceName,
    Values,
    bound_text,
    condition,
    octets_text,
    values_between,
    values_beyond,
    values_equal,
    values_text,
)
from viacheck.netlink.nft_lookup import look_up
from viacheck.netlink.nft_packet_fields import (
    CT_MARK,
    ICMP_TYPE_AND_CODE,
    META_MARK,
    TTL_IN_WORD,
    PacketField,
    drawn_field,
    lookup_field,
    meta_field,
    payload_field,
    tracking_field,
    unknown_field,
)
from viacheck.netlink.nft_rule_state import Alternative, FindSet, MappedData, RuleState
from viacheck.netlink.nft_xtables import match_conditions, target_effect

_ETHERNET = 1
"""ARPHRD_ETHER."""
_EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}
_WITHOUT_EFFECT = frozenset({"flow_offload", "last", "log", "notrack"})
_DECIDING = frozenset({"fwd", "synproxy", "tproxy"})


def read_rule(version: int | None, expressions: bytes, name_of: InterfaceName, find_set: FindSet) -> RuleState:
    """Read the expressions of one rule.

    Args:
        version: the IP version of the table's family; None for a family of both.
        expressions: NFTA_RULE_EXPRESSIONS.
        name_of: returns the name of an interface by its index.
        find_set: returns a set of the rule's table by its name.

    Raises:
        MalformedMessage: when the expressions are not those of a rule.
    """
    state = RuleState(version, name_of, find_set)
    try:
        for expression in nft.decode_expressions(expressions):
            _apply(state, expression)
    except (ValueError, struct.error) as error:
        raise MalformedMessage(f"not the expressions of a rule: {error}") from error
    return state


def filter_rules(state: RuleState, handle: int, comment: str) -> Iterator[FilterRule]:
    """Yield the rules that were read: one, or for a map one for each entry."""
    matches = _with_version(state.matches, state.version)
    whole = FilterRule(
        matches=tuple(matches),
        verdict=state.verdict,
        argument=state.argument,
        set_mark=state.set_mark,
        set_ctmark=state.set_ctmark,
        untracks=state.untracks,
        set_ttl=state.set_ttl,
        packets=state.packets,
        bytes=state.octets,
        handle=handle,
        text=" ".join(state.parts) + (f' comment "{comment}"' if comment else ""),
    )
    if not state.alternatives:
        yield whole
    for other in state.alternatives:
        yield replace(
            whole,
            matches=tuple(_with_version([*state.matches, other.match], state.version)),
            verdict=other.verdict or whole.verdict,
            argument=other.argument if other.verdict else whole.argument,
            set_mark=other.set_mark or whole.set_mark,
            set_ctmark=other.set_ctmark or whole.set_ctmark,
        )


def _with_version(matches: list[FilterMatch], version: int | None) -> list[FilterMatch]:
    """Replace the condition on the IP version by a condition on the source, unless an address implies the version."""
    if not version or not any(match.field == "version" for match in matches):
        return matches
    matches = [match for match in matches if match.field != "version"]
    separator = ":" if version == 6 else "."
    if not any(not match.negated and any(separator in address for address in addresses_of(match)) for match in matches):
        matches.insert(0, FilterMatch(field="source", values=(_EVERYTHING[version],)))
    return matches


def _apply(state: RuleState, expression: nft.Expression) -> None:
    match expression:
        case nft.BitwiseExpression():
            _bitwise(state, expression)
        case nft.ByteorderExpression(source=source, target=target):
            if (key := state.fields.get(source)) is not None:
                state.load(target, replace(key, host_order=not key.host_order))
        case nft.CmpExpression():
            _compare(state, expression)
        case nft.CounterExpression(octets=octets, packets=packets):
            state.octets, state.packets = octets, packets
            state.parts.append(f"counter packets {packets} bytes {octets}")
        case nft.CtExpression(target=None, key=key_number, source=source):
            if key_number == CT_MARK:
                _set_flow_mark(state, source)
            else:
                state.parts.append(f"ct {key_number} set")
        case nft.CtExpression(target=int(target)):
            state.load(target, tracking_field(expression))
        case nft.DupExpression():
            _duplicate(state, expression)
        case nft.FibExpression(target=target):
            state.load(target, lookup_field(expression))
        case nft.HashExpression(target=target, source=source):
            state.load(target, drawn_field(expression, state.fields.get(source)))
        case nft.NumgenExpression(target=target):
            state.load(target, drawn_field(expression))
        case nft.ImmediateExpression(target=target, data=data):
            if data.verdict is None:
                state.load(target, None)
                state.constants[target] = data.constant
            elif data.verdict.name is not None:
                state.decide(data.verdict.name, data.verdict.chain)
        case nft.LookupExpression():
            look_up(state, expression)
        case nft.MasqExpression():
            state.decide("masquerade")
        case nft.MatchExpression():
            _xtables_match(state, expression)
        case nft.MetaExpression():
            _meta(state, expression)
        case nft.NatExpression():
            _translate(state, expression)
        case nft.PayloadExpression(target=None):
            _write(state, expression)
        case nft.PayloadExpression(target=int(target)):
            state.load(target, payload_field(expression, state.version, state.last_protocol()))
        case nft.QueueExpression():
            state.decide("queue")
        case nft.RangeExpression():
            _range(state, expression)
        case nft.RedirExpression():
            state.decide("redirect")
        case nft.RejectExpression():
            state.decide("reject", text=f"reject{nft.reject_text(expression)}")
        case nft.LimitExpression(flags=flags):
            rate = "over" if flags & nft.LIMIT_INVERTED else "within"
            state.match(FilterMatch(field="limit", values=(rate,)), f"limit rate {rate}")
        case nft.TargetExpression():
            _xtables_target(state, expression)
        case nft.OtherExpression(name=name):
            _other(state, name)


def _other(state: RuleState, name: str) -> None:
    state.untracks = state.untracks or name == "notrack"
    if name in _WITHOUT_EFFECT:
        state.parts.append(name)
    elif name in _DECIDING:
        state.decide("unknown", text=name)
    else:
        # It may have loaded any register, so that no register can be relied on.
        state.fields.clear()
        state.constants.clear()
        state.mapped.clear()
        state.unknown(name)


def _meta(state: RuleState, meta: nft.MetaExpression) -> None:
    if meta.source is None:
        state.load(meta.target, meta_field(meta))
    elif meta.key == META_MARK:
        _set_mark(state, meta.source)
    else:
        state.parts.append(f"meta {meta.key} set")


def _write(state: RuleState, write: nft.PayloadExpression) -> None:
    """Follow a change of the packet's octets: of the TTL alone, which nft changes within two octets."""
    key = state.fields.get(write.source)
    if state.version and key is not None and key.field == "ttl-in-word":
        offset, _, kept, shift = TTL_IN_WORD[state.version]
        if (write.base, write.offset, write.length, key.mask) == (1, offset, 2, kept) and not key.xor & kept:
            state.set_ttl = f"={key.xor >> shift}"
            state.parts.append(f"{'ip ttl' if state.version == 4 else 'ip6 hoplimit'} set {key.xor >> shift}")
            return
    state.parts.append("payload set")


def _set_mark(state: RuleState, register: int) -> None:
    change = _mark_change(state, register, own="mark", other="ctmark")
    if state.set_ctmark is not None:
        # A rule is evaluated as setting the packet's mark first; here the flow's was set before.
        if is_copy(change):
            whole = change == copied(ALL_BITS, ALL_BITS) and _is_whole(state.set_ctmark)
            change = state.set_ctmark if whole else UNKNOWN
        if is_copy(state.set_ctmark):
            state.set_ctmark = UNKNOWN
    state.set_mark = change
    state.parts.append(f"meta mark set {_change_text(state, register, change)}")


def _set_flow_mark(state: RuleState, register: int) -> None:
    state.set_ctmark = _mark_change(state, register, own="ctmark", other="mark")
    state.parts.append(f"ct mark set {_change_text(state, register, state.set_ctmark)}")


def _change_text(state: RuleState, register: int, change: str) -> str:
    mapped = state.mapped.get(register)
    if mapped is None:
        return change
    return mapped.text_with(f"0x{int.from_bytes(octets[:4], sys.byteorder):x}" for _, octets in mapped.entries)


def _mark_change(state: RuleState, register: int, *, own: str, other: str) -> str:
    """Return what a mark becomes that is set to a register, as :class:`FilterRule` holds it."""
    key = state.fields.get(register)
    if register in state.mapped:
        return _mapped_mark(state, state.mapped[register], own)
    if register in state.constants:
        return mark_text(int.from_bytes(state.constants[register][:4], sys.byteorder), ALL_BITS)
    if key is None:
        return UNKNOWN
    if key.field == "random" and key.mask is None:
        return drawn(range(key.offset, key.offset + key.modulus))
    kept = ALL_BITS if key.mask is None else key.mask
    if key.field == own:
        return mark_text(key.xor, kept ^ ALL_BITS)
    return copied(kept, ALL_BITS) if key.field == other and not key.xor else UNKNOWN


def _mapped_mark(state: RuleState, mapped: MappedData, own: str) -> str:
    """Return the mark out of a map; for a key that is not drawn, each entry becomes an alternative of the rule."""
    marks = [int.from_bytes(octets[:4], sys.byteorder) for _, octets in mapped.entries]
    if mapped.is_drawn:
        return drawn(marks)
    if state.alternatives or any(is_about_marks(match) for match, _ in mapped.entries):
        # The alternatives are evaluated one after the other: the mark that one sets must not choose another.
        return UNKNOWN
    for (match, _), mark in zip(mapped.entries, marks, strict=True):
        change = mark_text(mark, ALL_BITS)
        state.alternatives.append(
            Alternative(match, set_mark=change) if own == "mark" else Alternative(match, set_ctmark=change)
        )
    return UNKNOWN


def _is_whole(change: str) -> bool:
    """Return whether a change sets all bits to a constant."""
    return not is_copy(change) and change != UNKNOWN and value_and_mask(change)[1] == ALL_BITS


def _bitwise(state: RuleState, bitwise: nft.BitwiseExpression) -> None:
    key = state.fields.get(bitwise.source)
    if key is None or bitwise.operation or bitwise.mask is None:
        text = key.text if key else f"register {bitwise.source}"
        state.load(bitwise.target, unknown_field(text, 4))
    else:
        mask, xor = key.value(bitwise.mask), key.value(bitwise.xor)
        state.load(bitwise.target, replace(key, mask=mask, xor=xor))


def _compare(state: RuleState, comparison: nft.CmpExpression) -> None:
    key, operator = state.field_in(comparison.source, comparison.constant), comparison.operator
    if operator > GTE:
        state.unknown(f"{key.text} operator {operator}")
    elif key.field == "iiftype" and operator == EQ and key.value(comparison.constant) == _ETHERNET:
        # nft asks for it before each condition on a MAC address, which no other frame has.
        state.parts.append("meta iiftype ether")
    elif key.field in IP_VERSIONS:
        _compare_version(state, key, operator, comparison.constant)
    elif key.field == ICMP_TYPE_AND_CODE and operator == EQ and key.mask is None and not key.xor:
        for part, value in zip(("type", "code"), comparison.constant, strict=False):
            state.match(FilterMatch(field=f"icmp-{part}", values=(str(value),)), f"icmp {part} {value}")
    elif (names := _ct_names(key, operator, comparison.constant)) is not None:
        state.match(names, f"{key.text} {'!= ' if names.negated else ''}{','.join(names.values)}")
    elif operator in (EQ, NEQ):
        values = values_equal(key, comparison.constant, state.name_of)
        _add(state, key, operator, values, octets_text(key, comparison.constant))
    elif operator == LTE and (first := state.lower_bound(comparison.source)) is not None:
        # nft before 1.1 writes a range as its two bounds.
        del state.matches[-1], state.parts[-1]
        _between(state, key, first, comparison.constant)
    else:
        values = values_beyond(key, operator, comparison.constant, state.name_of)
        bound = bound_text if values is not None else octets_text
        text = f"{key.text} {SIGNS[operator]}{bound(key, comparison.constant)}"
        state.match(condition(key, values, text), text)
        if operator == GTE:
            state.bound = (comparison.source, comparison.constant, len(state.matches))


def _add(state: RuleState, key: PacketField, operator: int, values: Values | None, otherwise: str) -> None:
    """Add the condition that a field has one of these values; ``otherwise`` is the text for a field without values."""
    sign = SIGNS[operator]
    if key.field == "owner":
        # Packets without a socket meet no such condition, a negated one neither.
        text = f"{key.text} {sign}{otherwise}"
        state.match(FilterMatch(field="owner", values=(text,)), text)
        return
    match = condition(key, values, f"{key.text} {sign}{otherwise}", negated=operator == NEQ)
    state.match(match, match.values[0] if values is None else f"{key.text} {sign}{values_text(match)}")


def _compare_version(state: RuleState, key: PacketField, operator: int, octets: bytes) -> None:
    value = key.value(octets[: key.held])
    version = IP_VERSIONS[key.field].get(value)
    if operator == EQ and version:
        state.version = version
        name = f"ipv{version}" if key.field == "nfproto" else {4: "ip", 6: "ip6"}[version]
        state.match(FilterMatch(field="version", values=(str(version),)), f"{key.text} {name}")
    else:
        state.unknown(f"{key.text} {SIGNS[operator]}0x{value:x}")


def _ct_names(key: PacketField, operator: int, octets: bytes) -> FilterMatch | None:
    """Return the condition that conntrack has set one of the masked bits; None for another comparison."""
    bits = CT_BITS.get(key.field)
    if bits is None or key.mask is None or key.xor or any(octets) or operator not in (EQ, NEQ):
        return None
    if key.mask & ~sum(bits):
        return None
    names = tuple(name for bit, name in bits.items() if key.mask & bit)
    return FilterMatch(field=key.field, values=names, negated=operator == EQ)


def _range(state: RuleState, bounds: nft.RangeExpression) -> None:
    key = state.field_in(bounds.source, bounds.first)
    _between(state, key, bounds.first, bounds.last, NEQ if bounds.operator else EQ)


def _between(state: RuleState, key: PacketField, first: bytes, last: bytes, operator: int = EQ) -> None:
    values = values_between(key, first, last, state.name_of)
    if values is None or key.held != key.width or not len(first) == len(last) == key.width:
        _add(state, key, operator, values, f"0x{first.hex()}-0x{last.hex()}")
        return
    text = f"{key.text} {SIGNS[operator]}{bound_text(key, first)}-{bound_text(key, last)}"
    state.match(condition(key, values, text, negated=operator == NEQ), text)


def _translate(state: RuleState, translation: nft.NatExpression) -> None:
    verdict = "dnat" if translation.kind else "snat"
    ports = None if translation.first_port is None else state.constants.get(translation.first_port, b"")
    mapped = None if translation.first_address is None else state.mapped.get(translation.first_address)
    if mapped is not None:
        addresses = [_constant_address(octets) for _, octets in mapped.entries if len(octets) >= 4]
        state.parts.append(f"{verdict} to {mapped.text_with(addresses)}")
        # Where the map has the port as well, that stands nowhere else.
        known = verdict if ports != b"" and len(addresses) == len(mapped.entries) else "unknown"
        state.alternatives += [
            Alternative(match, verdict=known, argument=_constant_address(octets) if known == verdict else None)
            for match, octets in mapped.entries
        ]
        return
    registers = (translation.first_address, translation.last_address)
    constants = [state.constants.get(register) for register in registers if register is not None]
    addresses = [_constant_address(constant) for constant in constants if constant]
    argument = "-".join(dict.fromkeys(addresses)) or None
    port = f":{as_number(ports[:2])}" if ports else ""
    if len(addresses) < len(constants) or ports == b"":
        state.decide("unknown", text=f"{verdict} to {argument or '?'}{port or ':?'}")
    else:
        state.decide(verdict, argument, f"{verdict} to {argument or ''}{port}")


def _constant_address(constant: bytes) -> str:
    return str(ip_address(constant[:16] if len(constant) >= 16 else constant[:4]))


def _duplicate(state: RuleState, duplicate: nft.DupExpression) -> None:
    octets = state.constants.get(duplicate.address if duplicate.device is None else duplicate.device)
    device = state.name_of(int.from_bytes(octets[:4], sys.byteorder)) if octets else "?"
    state.parts.append(f'dup to "{device}"')


def _xtables_match(state: RuleState, match: nft.MatchExpression) -> None:
    state.xtables = True
    if match.name == "comment":
        state.parts.append(f'comment "{as_string(match.blob)}"')
        return
    conditions = match_conditions(match)
    for known in conditions:
        state.match(known, f"{known.field} {'!= ' if known.negated else ''}{values_text(known)}")
    if not conditions:
        state.unknown(f"xt match {match.name}")


def _xtables_target(state: RuleState, target: nft.TargetExpression) -> None:
    state.xtables = True
    effect = target_effect(target, state.version)
    state.set_mark = effect.set_mark or state.set_mark
    state.set_ctmark = effect.set_ctmark or state.set_ctmark
    state.untracks = state.untracks or effect.untracks
    state.set_ttl = effect.set_ttl or state.set_ttl
    if effect.verdict is None:
        state.parts.append(effect.text)
    else:
        state.decide(effect.verdict, effect.argument, effect.text)
