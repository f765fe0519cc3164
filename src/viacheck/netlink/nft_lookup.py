"""Look-ups of rules in sets and maps: the condition that a field, or several fields in a row, stands in a set."""

from __future__ import annotations

from viacheck.model.filter_chains import FilterMatch
from viacheck.model.set_element import element_values
from viacheck.netlink.nft_conditions import Values, values_between, values_text
from viacheck.netlink.nft_expressions import LookupExpression
from viacheck.netlink.nft_packet_fields import PacketField
from viacheck.netlink.nft_rule_state import Alternative, MappedData, RuleState
from viacheck.netlink.nft_sets import NftSet, SetElement

_WORD = 4
"""Octets of a register: each field of a concatenation begins one."""


def look_up(state: RuleState, lookup: LookupExpression) -> None:
    """Read a look-up: a condition, the entries of a verdict map, or the data of a map."""
    members = state.find_set(lookup.set_name)
    fields = _fields(state, lookup.source, members.description.key_length if members else 1)
    key_text = " . ".join(key.text for key in fields) or "?"
    sign = "!= " if lookup.inverted else ""
    if members is None:
        state.unknown(f"{key_text} {sign}@{lookup.set_name}")
        if lookup.target:
            state.load(lookup.target, None)
        return
    values = [_element_values(state, fields, element) for element in members.values]
    name = fields[0].field if len(fields) == 1 else "set"
    if lookup.target == 0:
        _verdict_map(state, name, key_text, members, values)
        return
    text = f"{key_text} {sign}@{lookup.set_name}"
    if fields and members.catchall is None and None not in values:
        known = tuple(value for element in values if element for value in element)
        match = FilterMatch(field=name, values=known, negated=lookup.inverted)
        if members.description.anonymous:
            text = f"{key_text} {sign}{{ {_values_text(match)} }}"
        # A map has no text of its own: the statement that uses its data has it.
        state.match(match, "" if lookup.target else text)
    else:
        state.unknown(text)
    if lookup.target:
        state.load(lookup.target, None)
        state.mapped[lookup.target] = MappedData(
            f"{key_text} map",
            lookup.set_name if not members.description.anonymous else None,
            tuple(
                (_condition(name, element, text), member.data or b"")
                for member, element in zip(members.values, values, strict=True)
            ),
        )


def _fields(state: RuleState, register: int, key_length: int) -> list[PacketField]:
    """Return the field in a register; for a key of more octets also those in the registers behind it."""
    fields: list[PacketField] = []
    end = register + _registers(key_length)
    while register < end:
        key = state.fields.get(register)
        if key is None or key.held < 1:
            # Of a field without octets the next register is this one again.
            return []
        fields.append(key)
        register += _registers(key.held)
    # Fields that reach beyond the key are not those that it is made of.
    return fields if register == end else []


def _registers(octets: int) -> int:
    return -(-octets // _WORD)


def _element_values(state: RuleState, fields: list[PacketField], element: SetElement) -> Values | None:
    """Return the values that an element stands for; None where one of its fields cannot be read."""
    if len(fields) == 1:
        return values_between(fields[0], element.key, element.end, state.name_of)
    parts: list[tuple[str, Values]] = []
    offset = 0
    for key in fields:
        octets = slice(offset, offset + key.held)
        last = element.end[octets] if element.end is not None else None
        values = values_between(key, element.key[octets], last, state.name_of)
        if values is None:
            return None
        parts.append((key.field, values))
        offset += _registers(key.held) * _WORD
    return element_values(parts) if parts else None


def _condition(name: str, values: Values | None, text: str, *, negated: bool = False) -> FilterMatch:
    if values is None:
        return FilterMatch(field="unknown", values=(text,))
    return FilterMatch(field=name, values=values, negated=negated)


def _verdict_map(state: RuleState, name: str, key_text: str, members: NftSet, values: list[Values | None]) -> None:
    """Add one alternative for each entry of a verdict map."""
    text = f"{key_text} vmap @{members.description.name}"
    conditions = [_condition(name, listed, text) for listed in values]
    for element, match in zip(members.values, conditions, strict=True):
        _alternative(state, match, element)
    entries = [
        f"{_values_text(match)} : {_verdict_text(element)}"
        for element, match in zip(members.values, conditions, strict=True)
    ]
    if members.catchall is not None:
        known = None if None in values else tuple(value for listed in values if listed for value in listed)
        _alternative(state, _condition(name, known, text, negated=True), members.catchall)
        entries.append(f"* : {_verdict_text(members.catchall)}")
    state.parts.append(f"{key_text} vmap {{ {', '.join(entries)} }}" if members.description.anonymous else text)


def _alternative(state: RuleState, match: FilterMatch, element: SetElement) -> None:
    if element.verdict is not None and element.verdict.name is not None:
        state.alternatives.append(Alternative(match, verdict=element.verdict.name, argument=element.verdict.chain))


def _verdict_text(element: SetElement) -> str:
    verdict = element.verdict
    return " ".join(filter(None, (verdict.name, verdict.chain))) if verdict is not None else "?"


def _values_text(match: FilterMatch) -> str:
    return values_text(match).removeprefix("{ ").removesuffix(" }")
