"""Chains and rules from the output of ``nft -j list ruleset``.

The format is libnftables-json(5). A condition that is not known here becomes ``unknown``, in nft's own JSON; a rule is
never left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

from viacheck.model.filter_chains import FilterChain, FilterMatch, FilterRule
from viacheck.model.mark_change import ALL_BITS, UNKNOWN, copied, drawn, is_copy, mark_text
from viacheck.model.set_element import is_about_marks
from viacheck.parsers.nft_json_conditions import (
    DRAWS,
    FLOW_MARK,
    PACKET_MARK,
    NotReadable,
    conditions,
    is_draw,
    is_ttl,
    networks_of,
    number_of,
    of_rule,
    unknown_condition,
)
from viacheck.parsers.nft_rule_text import rule_text

_FAMILIES = ("ip", "ip6", "inet", "arp", "bridge", "netdev")
_SIMPLE = ("accept", "drop", "reject", "return", "queue", "masquerade", "redirect")
_WITHOUT_EFFECT = frozenset({"counter", "log", "quota", "vmap", "notrack", "flow"})
_PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}


class NotARuleset(ValueError):
    """The text is not what nft prints with ``-j``."""


def parse_nft_json(text: str) -> tuple[FilterChain, ...]:
    """Read ``nft -j list ruleset``: every chain, its rules in order.

    Raises:
        NotARuleset: when the text is something else.
    """
    try:
        entries = json.loads(text)["nftables"]
        elements: dict[tuple[str, str], dict[str, list[Any]]] = {}
        for listed in (entry[kind] for entry in entries for kind in ("set", "map") if kind in entry):
            named = elements.setdefault((listed["family"], listed["table"]), {})
            named[f"@{listed['name']}"] = [_element(element) for element in listed.get("elem", [])]
        rules: dict[tuple[str, str, str], list[FilterRule]] = {}
        for rule in (entry["rule"] for entry in entries if "rule" in entry):
            named = elements.get((rule["family"], rule["table"]), {})
            rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).extend(_rules(rule, named))
        return tuple(
            _chain(chain, tuple(rules.get((chain["family"], chain["table"], chain["name"]), ())))
            for chain in (entry["chain"] for entry in entries if "chain" in entry)
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise NotARuleset(f"not what nft prints with -j: {type(error).__name__}: {error}") from None


def _chain(chain: dict[str, Any], rules: tuple[FilterRule, ...]) -> FilterChain:
    if chain["family"] not in _FAMILIES:
        raise NotARuleset(f"unknown family {chain['family']!r}")
    priority = chain.get("prio")
    return FilterChain(
        backend="nft",
        family=chain["family"],
        table=str(chain["table"]),
        name=str(chain["name"]),
        type=chain.get("type"),
        hook=chain.get("hook"),
        priority=_PRIORITIES.get(priority, 0) if isinstance(priority, str) else priority,
        policy=chain.get("policy"),
        rules=rules,
    )


def _element(listed: Any) -> Any:
    """Return an element of a set or a map without its timeout, counter and comment."""
    if isinstance(listed, list):
        return [_element(listed[0]), *listed[1:]]
    return listed["elem"]["val"] if isinstance(listed, dict) and "elem" in listed else listed


def _rules(rule: dict[str, Any], elements: dict[str, list[Any]]) -> Iterator[FilterRule]:
    """Yield a rule; for a map one rule for each entry. Sets and maps of the table stand by their names."""
    whole = _rule(rule, elements)
    mapped = [entry for statement in rule.get("expr", ()) if (entry := _map_of(statement)) is not None]
    if not mapped:
        yield whole
        return
    (kind, mapping), *others = mapped
    entries = elements.get(mapping["data"]) if isinstance(mapping["data"], str) else mapping["data"]["set"]
    if entries is None or others:
        yield replace(whole, matches=(*whole.matches, unknown_condition({"map": mapping})), verdict="unknown")
        return
    keys = [_element(key) for key, _ in entries if key != "*"]
    for key, data in entries:
        condition = {"left": mapping["key"], "op": "==", "right": _element(key)}
        if key == "*":
            condition = {**condition, "op": "!=", "right": {"set": keys}}
        matches = tuple(conditions(condition)) if key != "*" or keys else ()
        if kind in ("mark", "ctmark") and any(is_about_marks(match) for match in matches):
            # The entries are evaluated one after the other: the mark that one sets must not choose another.
            data = None
        yield _entry(replace(whole, matches=(*whole.matches, *matches)), kind, data)


def _map_of(statement: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return what a statement takes out of a map, and the map; None without a map, or with a draw as its key."""
    (kind, value), *_ = statement.items()
    if kind == "vmap":
        return kind, value
    taken = value.get({"mangle": "value"}.get(kind, "addr")) if isinstance(value, dict) else None
    if kind == "mangle":
        kind = {_key_text(PACKET_MARK): "mark", _key_text(FLOW_MARK): "ctmark"}.get(_key_text(value.get("key")), "")
    if kind not in ("mark", "ctmark", "snat", "dnat") or not isinstance(taken, dict) or "map" not in taken:
        return None
    (by, draw), *_ = taken["map"]["key"].items()
    is_drawn = kind in ("mark", "ctmark") and by in DRAWS and is_draw(by, draw)
    return None if is_drawn else (kind, taken["map"])


def _key_text(key: Any) -> str:
    return json.dumps(key, sort_keys=True)


def _entry(rule: FilterRule, kind: str, data: Any) -> FilterRule:
    """Return the rule of one entry of a map."""
    if kind == "vmap":
        (verdict, target), *_ = data.items()
        return replace(rule, verdict=verdict, argument=str(target["target"]) if verdict in ("jump", "goto") else None)
    if kind in ("snat", "dnat"):
        # Where the map has the port as well, that stands nowhere else.
        return replace(rule, verdict=kind, argument=data) if isinstance(data, str) else replace(rule, verdict="unknown")
    change = mark_text(data, ALL_BITS) if isinstance(data, int) else UNKNOWN
    return replace(rule, set_mark=change) if kind == "mark" else replace(rule, set_ctmark=change)


def _rule(rule: dict[str, Any], elements: dict[str, list[Any]]) -> FilterRule:
    matches: list[FilterMatch] = []
    verdict = argument = set_mark = set_ctmark = set_ttl = packets = octets = None
    for statement in rule.get("expr", ()):
        (kind, value), *_ = statement.items()
        if kind == "match":
            named = elements.get(value["right"]) if isinstance(value["right"], str) else None
            matches += conditions(value if named is None else {**value, "right": {"set": named}})
        elif kind == "counter" and isinstance(value, dict):
            packets, octets = value.get("packets"), value.get("bytes")
        elif kind in _SIMPLE:
            verdict = kind
        elif kind in ("jump", "goto"):
            verdict, argument = kind, str(value["target"])
        elif kind in ("snat", "dnat"):
            verdict, argument = _translated(kind, value)
            matches += _in_map(value.get("addr"), elements)
        elif kind == "mangle":
            set_mark, set_ctmark = _marks_set(value, set_mark, set_ctmark)
            if is_ttl(value.get("key")) and isinstance(value.get("value"), int):
                set_ttl = f"={value['value']}"
            matches += _in_map(value.get("value"), elements)
        elif kind == "limit":
            over = isinstance(value, dict) and bool(value.get("inv"))
            matches.append(FilterMatch(field="limit", values=("over" if over else "within",)))
        elif kind == "xt" or kind not in _WITHOUT_EFFECT:
            matches.append(unknown_condition(statement))
    return FilterRule(
        matches=tuple(of_rule(matches)),
        verdict=verdict,
        argument=argument,
        set_mark=set_mark,
        set_ctmark=set_ctmark,
        untracks=any("notrack" in statement for statement in rule.get("expr", ())),
        set_ttl=set_ttl,
        packets=packets,
        bytes=octets,
        handle=rule.get("handle"),
        text=rule_text(rule),
    )


def _marks_set(value: dict[str, Any], set_mark: str | None, set_ctmark: str | None) -> tuple[str | None, str | None]:
    """Return the changes of the packet's and the flow's mark after one more statement of the rule."""
    if value.get("key") == PACKET_MARK:
        change = _mark_change(value.get("value"), other=FLOW_MARK)
        if set_ctmark is not None and (is_copy(set_ctmark) or is_copy(change)):
            # A rule is evaluated as setting the packet's mark first.
            return UNKNOWN, UNKNOWN
        return change, set_ctmark
    if value.get("key") == FLOW_MARK:
        return set_mark, _mark_change(value.get("value"), other=PACKET_MARK)
    return set_mark, set_ctmark


def _mark_change(value: Any, *, other: dict[str, Any]) -> str:
    if isinstance(value, int):
        return mark_text(value, ALL_BITS)
    if value == other:
        return copied(ALL_BITS, ALL_BITS)
    if isinstance(value, dict) and isinstance(operands := value.get("&"), list) and operands[0] == other:
        return copied(operands[1], ALL_BITS) if isinstance(operands[1], int) else UNKNOWN
    try:
        return _drawn_mark(value)
    except (NotReadable, KeyError, TypeError, ValueError, AttributeError):
        return UNKNOWN


def _in_map(value: Any, elements: dict[str, list[Any]]) -> Iterator[FilterMatch]:
    """Yield the condition that the key of a map stands in it: the rule goes on only then."""
    if not isinstance(value, dict) or "map" not in value:
        return
    data = value["map"]["data"]
    entries = elements.get(data) if isinstance(data, str) else data["set"]
    keys = [_element(key) for key, _ in entries or ()]
    right: Any = data if entries is None else {"set": keys}
    yield from conditions({"left": value["map"]["key"], "op": "==", "right": right})


def _translated(kind: str, value: Any) -> tuple[str, str | None]:
    """Return the verdict of a NAT statement, and its address; a port alone keeps the address."""
    address = value.get("addr")
    if isinstance(address, dict):
        networks = networks_of(address) if address.keys() & {"range", "prefix"} else ()
        if not networks:
            return "unknown", None
        first, last = ip_network(networks[0])[0], ip_network(networks[-1])[-1]
        return kind, f"{first}-{last}"
    known = isinstance(value.get("port"), int | None) and isinstance(address, str | None)
    return (kind, address) if known else ("unknown", None)


def _drawn_mark(value: dict[str, Any]) -> str:
    """Return the change to a mark that is drawn, by itself or out of a map."""
    (kind, draw), *_ = value.items()
    if kind == "map":
        (by, number), *_ = draw["key"].items()
        entries = draw["data"]["set"] if isinstance(draw["data"], dict) else []
        return drawn(number_of(mark) for _, mark in entries) if by in DRAWS and is_draw(by, number) else UNKNOWN
    if not is_draw(kind, draw):
        return UNKNOWN
    offset = draw.get("offset") or 0
    return drawn(range(offset, offset + number_of(draw["mod"])))
