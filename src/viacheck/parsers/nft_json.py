"""Chains and rules from the output of ``nft -j list ruleset``.

The format is libnftables-json(5). A condition that is not known here becomes ``unknown``, in nft's own JSON; a rule is
never left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from viacheck.model.address_range import networks_between
from viacheck.model.mark_change import ALL_BITS, UNKNOWN, copied, drawn, is_copy, mark_text
from viacheck.model.snapshot import PACKET_TYPES, FilterChain, FilterMatch, FilterRule
from viacheck.model.ttl import ttl_values
from viacheck.parsers.nft_rule_text import rule_text

_FAMILIES = ("ip", "ip6", "inet", "arp", "bridge", "netdev")
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58, "icmpv6": 58,
              "sctp": 132, "udplite": 136}  # fmt: skip
_SIMPLE = ("accept", "drop", "reject", "return", "queue", "masquerade", "redirect")
_WITHOUT_EFFECT = frozenset({"counter", "log", "quota", "vmap", "notrack", "flow"})
_ICMP_TYPES = {
    "icmp": {
        "echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8,
        "router-advertisement": 9, "router-solicitation": 10, "time-exceeded": 11, "parameter-problem": 12,
        "timestamp-request": 13, "timestamp-reply": 14,
    },
    "icmpv6": {
        "destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4,
        "echo-request": 128, "echo-reply": 129, "mld-listener-query": 130, "mld-listener-report": 131,
        "nd-router-solicit": 133, "nd-router-advert": 134, "nd-neighbor-solicit": 135, "nd-neighbor-advert": 136,
        "nd-redirect": 137,
    },
}  # fmt: skip
"""By protocol, the types of ICMP by the names of nft."""
_PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
_BEYOND = ("<", "<=", ">", ">=")
_EVERYTHING = {"ip": "0.0.0.0/0", "ip6": "::/0"}
_DRAWS = ("numgen", "jhash", "symhash")
_TCP_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}
_TCP_FLAGS_FIELD = {"payload": {"protocol": "tcp", "field": "flags"}}
_PACKET_TYPES = {**{kind: kind for kind in PACKET_TYPES}, "host": "unicast", "other": "otherhost"}
_PACKET_MARK = {"meta": {"key": "mark"}}
_FLOW_MARK = {"ct": {"key": "mark"}}


class NotARuleset(ValueError):
    """The text is not what nft prints with ``-j``."""


class _Unknown(Exception):
    """A condition that this reader does not know."""


def parse_nft_json(text: str) -> tuple[FilterChain, ...]:
    """Read ``nft -j list ruleset``: every chain, its rules in order.

    Raises:
        NotARuleset: when the text is something else.
    """
    try:
        entries = json.loads(text)["nftables"]
        elements: dict[tuple[str, str], dict[str, list[Any]]] = {}
        for listed in (entry[kind] for entry in entries for kind in ("set", "map") if kind in entry):
            elements.setdefault((listed["family"], listed["table"]), {})[f"@{listed['name']}"] = listed.get("elem", [])
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


def _rules(rule: dict[str, Any], elements: dict[str, list[Any]]) -> Iterator[FilterRule]:
    """Yield a rule; for a verdict map one rule for each entry. Sets and maps of the table stand by their names."""
    whole = _rule(rule, elements)
    verdict_map = next((statement["vmap"] for statement in rule.get("expr", ()) if "vmap" in statement), None)
    if verdict_map is None:
        yield whole
        return
    data = verdict_map["data"]
    entries = elements.get(data) if isinstance(data, str) else data["set"]
    if entries is None:
        yield replace(whole, matches=(*whole.matches, _unknown({"vmap": verdict_map})), verdict="unknown")
        return
    for key, verdict in entries:
        (kind, target), *_ = verdict.items()
        argument = str(target["target"]) if kind in ("jump", "goto") else None
        others = [other for other, _ in entries if other != "*"]
        condition = {"left": verdict_map["key"], "op": "==", "right": key}
        if key == "*":
            condition = {**condition, "op": "!=", "right": {"set": others}}
        matches = tuple(_matches(condition)) if key != "*" or others else ()
        yield replace(whole, matches=(*whole.matches, *matches), verdict=kind, argument=argument)


def _rule(rule: dict[str, Any], elements: dict[str, list[Any]]) -> FilterRule:
    matches: list[FilterMatch] = []
    verdict = argument = set_mark = set_ctmark = set_ttl = packets = octets = None
    for statement in rule.get("expr", ()):
        (kind, value), *_ = statement.items()
        if kind == "match":
            named = elements.get(value["right"]) if isinstance(value["right"], str) else None
            matches += _matches(value if named is None else {**value, "right": {"set": named}})
        elif kind == "counter" and isinstance(value, dict):
            packets, octets = value.get("packets"), value.get("bytes")
        elif kind in _SIMPLE:
            verdict = kind
        elif kind in ("jump", "goto"):
            verdict, argument = kind, str(value["target"])
        elif kind in ("snat", "dnat"):
            verdict, argument = kind, value["addr"] if isinstance(value.get("addr"), str) else None
        elif kind == "mangle":
            set_mark, set_ctmark = _marks_set(value, set_mark, set_ctmark)
            if _is_ttl(value.get("key")) and isinstance(value.get("value"), int):
                set_ttl = f"={value['value']}"
            if isinstance(value.get("value"), dict) and "map" in value["value"]:
                mapped = value["value"]["map"]
                matches += _matches({"left": mapped["key"], "op": "==", "right": _keys(mapped["data"])})
        elif kind == "limit":
            over = isinstance(value, dict) and bool(value.get("inv"))
            matches.append(FilterMatch(field="limit", values=("over" if over else "within",)))
        elif kind == "xt" or kind not in _WITHOUT_EFFECT:
            matches.append(_unknown(statement))
    return FilterRule(
        matches=tuple(matches),
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
    if value.get("key") == _PACKET_MARK:
        change = _mark_change(value.get("value"), other=_FLOW_MARK)
        if set_ctmark is not None and (is_copy(set_ctmark) or is_copy(change)):
            # A rule is evaluated as setting the packet's mark first.
            return UNKNOWN, UNKNOWN
        return change, set_ctmark
    if value.get("key") == _FLOW_MARK:
        return set_mark, _mark_change(value.get("value"), other=_PACKET_MARK)
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
    except (_Unknown, KeyError, TypeError, ValueError, AttributeError):
        return UNKNOWN


def _matches(condition: dict[str, Any]) -> Iterator[FilterMatch]:
    try:
        yield from _known(condition)
        yield from _of_family(condition["left"])
    except (_Unknown, KeyError, TypeError, ValueError):
        yield _unknown({"match": condition})


def _of_family(left: dict[str, Any]) -> Iterator[FilterMatch]:
    """Yield the family of a header field: the field exists in packets of that family alone."""
    payload = left.get("payload", {})
    if payload.get("field") not in ("saddr", "daddr") and payload.get("protocol") in _EVERYTHING:
        yield FilterMatch(field="source", values=(_EVERYTHING[payload["protocol"]],))


def _unknown(statement: Any) -> FilterMatch:
    return FilterMatch(field="unknown", values=(json.dumps(statement, ensure_ascii=False),))


def _known(condition: dict[str, Any]) -> Iterator[FilterMatch]:
    left, right, op = condition["left"], condition["right"], condition["op"]
    (kind, key), *_ = left.items()
    if kind in _DRAWS:
        yield _drawn_numbers(kind, key, op, right)
        return
    if _is_ttl(left):
        yield _ttl(op, right)
        return
    if _TCP_FLAGS_FIELD in (left, key[0] if kind == "&" else None):
        yield FilterMatch(field="protocol", values=("6",))
        yield _tcp_flags(_flags(key[1]) if kind == "&" else None, op, right)
        return
    if kind == "meta" and key["key"] in ("skuid", "skgid"):
        # Packets without a socket meet no such condition, a negated one neither.
        yield FilterMatch(field="owner", values=(f"meta {key['key']} {op} {right}",))
        return
    if op in _BEYOND and kind == "payload" and key["field"] in ("saddr", "daddr"):
        yield FilterMatch(field="source" if key["field"] == "saddr" else "destination", values=_beyond(op, right))
        return
    if op not in ("==", "!=", "in"):
        raise _Unknown
    negated = op == "!="
    if kind == "meta":
        yield _meta(key["key"], right, negated)
    elif kind == "payload":
        yield from _payload(key["protocol"], key["field"], right, negated)
    elif kind == "ct" and key.get("key") in ("state", "status"):
        yield FilterMatch(field=f"ct{key['key']}", values=tuple(map(str, _values(right))), negated=negated)
    elif kind == "fib" and key.get("result") == "type" and key.get("flags") in ("daddr", ["daddr"], "saddr", ["saddr"]):
        side = "dst-type" if "daddr" in key["flags"] else "src-type"
        yield FilterMatch(field=side, values=tuple(map(str, _values(right))), negated=negated)
    elif kind == "ct" and key.get("key") == "mark":
        yield FilterMatch(field="ctmark", values=(mark_text(_number(right), ALL_BITS),), negated=negated)
    elif kind == "&" and key[0] in (_PACKET_MARK, _FLOW_MARK):
        field = "mark" if key[0] == _PACKET_MARK else "ctmark"
        yield FilterMatch(field=field, values=(mark_text(_number(right), _number(key[1])),), negated=negated)
    else:
        raise _Unknown


def _tcp_flags(mask: int | None, op: str, right: Any) -> FilterMatch:
    """Return the condition on the flags of TCP; ``in`` asks for one of them at least."""
    if op == "in":
        return FilterMatch(field="tcp-flags", values=(mark_text(0, _flags(right)),), negated=True)
    if op not in ("==", "!="):
        raise _Unknown
    wanted = right["set"] if isinstance(right, dict) else [right]
    values = tuple(mark_text(_flags(flags), 0xFF if mask is None else mask) for flags in wanted)
    return FilterMatch(field="tcp-flags", values=values, negated=op == "!=")


def _flags(names: Any) -> int:
    """Return the bits of flags of TCP by the names of nft."""
    flags = names if isinstance(names, list) else [names]
    return sum(flag if isinstance(flag, int) else _TCP_FLAGS[flag] for flag in flags)


def _is_ttl(key: Any) -> bool:
    """Whether a key of nft is the TTL of IPv4, or the hop limit of IPv6."""
    field = key.get("payload", {}) if isinstance(key, dict) else {}
    return (field.get("protocol"), field.get("field")) in (("ip", "ttl"), ("ip6", "hoplimit"))


def _ttl(op: str, right: Any) -> FilterMatch:
    if op in _BEYOND:
        comparison, beyond = {"<": ("lt", 0), "<=": ("lt", 1), ">": ("gt", 0), ">=": ("gt", -1)}[op]
        values = ttl_values(comparison, _number(right) + beyond)
        if values is None:
            raise _Unknown
        return FilterMatch(field="ttl", values=values)
    return FilterMatch(field="ttl", values=tuple(_ports(value) for value in _values(right)), negated=op == "!=")


def _keys(data: Any) -> Any:
    """Return the keys of an anonymous map, each of which the rule goes on for; of a named map its name."""
    return {"set": [key for key, _ in data["set"]]} if isinstance(data, dict) else data


def _is_draw(kind: str, draw: Any) -> bool:
    """Whether it chooses by the flow or at random; a hash of the source alone is the same for all packets of one."""
    if kind == "jhash":
        hashed = draw.get("expr", {})
        return not (isinstance(hashed, dict) and hashed.get("payload", {}).get("field") == "saddr")
    return kind in _DRAWS


def _drawn_numbers(kind: str, draw: dict[str, Any], op: str, right: Any) -> FilterMatch:
    """Return the condition that one of some numbers is drawn, counted from the lowest."""
    if not _is_draw(kind, draw):
        raise _Unknown
    modulus, offset = _number(draw["mod"]), draw.get("offset") or 0
    ranges = [
        value["range"] if isinstance(value, dict) else (_number(value), _number(value)) for value in _values(right)
    ]
    if op in _BEYOND:
        bound, highest = ranges[0][0], offset + modulus - 1
        ranges = [{"<": (0, bound - 1), "<=": (0, bound), ">": (bound + 1, highest), ">=": (bound, highest)}[op]]
    numbers = [(max(first - offset, 0), min(last - offset, modulus - 1)) for first, last in ranges]
    if any(first > last for first, last in numbers):
        raise _Unknown
    texts = tuple(f"{first}-{last}/{modulus}" for first, last in numbers)
    return FilterMatch(field="random", values=texts, negated=op == "!=")


def _drawn_mark(value: dict[str, Any]) -> str:
    """Return the change to a mark that is drawn, by itself or out of a map."""
    (kind, draw), *_ = value.items()
    if kind == "map":
        (by, number), *_ = draw["key"].items()
        entries = draw["data"]["set"] if isinstance(draw["data"], dict) else []
        return drawn(_number(mark) for _, mark in entries) if by in _DRAWS and _is_draw(by, number) else UNKNOWN
    if not _is_draw(kind, draw):
        return UNKNOWN
    offset = draw.get("offset") or 0
    return drawn(range(offset, offset + _number(draw["mod"])))


def _meta(key: str, right: Any, negated: bool) -> FilterMatch:
    if key in ("iif", "iifname", "oif", "oifname"):
        return FilterMatch(field=key.removesuffix("name"), values=_texts(right), negated=negated)
    if key == "mark":
        return FilterMatch(field="mark", values=(mark_text(_number(right), ALL_BITS),), negated=negated)
    if key == "pkttype":
        return FilterMatch(
            field="pkttype", values=tuple(_PACKET_TYPES[kind] for kind in _texts(right)), negated=negated
        )
    if key == "l4proto":
        return FilterMatch(field="protocol", values=_protocols(right), negated=negated)
    raise _Unknown


def _payload(protocol: str, field: str, right: Any, negated: bool) -> Iterator[FilterMatch]:
    if protocol in ("ip", "ip6") and field in ("saddr", "daddr"):
        values = tuple(network for value in _values(right) for network in _networks(value))
        yield FilterMatch(field="source" if field == "saddr" else "destination", values=values, negated=negated)
    elif (protocol, field) == ("ether", "saddr"):
        yield FilterMatch(field="mac", values=tuple(text.lower() for text in _texts(right)), negated=negated)
    elif protocol in ("ip", "ip6") and field in ("protocol", "nexthdr"):
        yield FilterMatch(field="protocol", values=_protocols(right), negated=negated)
    elif field in ("sport", "dport") and (protocol in _PROTOCOLS or protocol == "th"):
        if protocol != "th":
            yield FilterMatch(field="protocol", values=(str(_PROTOCOLS[protocol]),))
        yield FilterMatch(field=field, values=tuple(_ports(value) for value in _values(right)), negated=negated)
    elif protocol in _ICMP_TYPES and field in ("type", "code"):
        names = _ICMP_TYPES[protocol] if field == "type" else {}
        numbers = tuple(str(value if isinstance(value, int) else names[value]) for value in _values(right))
        yield FilterMatch(field="protocol", values=(str(_PROTOCOLS[protocol]),))
        yield FilterMatch(field=f"icmp-{field}", values=numbers, negated=negated)
    else:
        raise _Unknown


def _values(right: Any) -> list[Any]:
    if isinstance(right, dict) and "set" in right:
        right = right["set"]
    return list(right) if isinstance(right, list) else [right]


def _texts(right: Any) -> tuple[str, ...]:
    texts = _values(right)
    if not all(isinstance(text, str) and not text.startswith("@") for text in texts):
        raise _Unknown
    return tuple(texts)


def _protocols(right: Any) -> tuple[str, ...]:
    return tuple(str(protocol if isinstance(protocol, int) else _PROTOCOLS[protocol]) for protocol in _values(right))


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise _Unknown
    return value


def _networks(value: Any) -> tuple[str, ...]:
    """Return the networks that an address, a prefix or a range is; an element of a set may have a timeout."""
    if isinstance(value, dict) and "elem" in value:
        return _networks(value["elem"]["val"])
    if isinstance(value, dict) and "prefix" in value:
        return (f"{value['prefix']['addr']}/{value['prefix']['len']}",)
    if isinstance(value, dict) and "range" in value:
        return networks_between(*value["range"])
    if not isinstance(value, str) or value.startswith("@"):
        raise _Unknown
    return (f"{value}/{128 if ':' in value else 32}",)


def _beyond(op: str, bound: str) -> tuple[str, ...]:
    """Return the networks below or above an address."""
    address = ip_address(bound)
    lowest, highest = ip_network(f"{address}/0", strict=False)[0], ip_network(f"{address}/0", strict=False)[-1]
    strictly = 0 if "=" in op else 1
    first, last = (lowest, address - strictly) if op.startswith("<") else (address + strictly, highest)
    return networks_between(str(first), str(last))


def _ports(value: Any) -> str:
    if isinstance(value, dict) and "range" in value:
        first, last = value["range"]
        return f"{_number(first)}-{_number(last)}"
    return str(_number(value))
