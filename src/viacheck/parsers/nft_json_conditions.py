"""The conditions of rules in the JSON of nft (libnftables-json(5)).

A condition that is not known here becomes ``unknown``, in nft's own JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from viacheck.model.address_range import networks_between
from viacheck.model.filter_chains import PACKET_TYPES, FilterMatch
from viacheck.model.mark_change import ALL_BITS, mark_text
from viacheck.model.set_element import PORTS_OF_ANY_PROTOCOL, PROTOCOLS_WITH_PORTS, addresses_of, element_values
from viacheck.model.ttl import ttl_values

_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58, "icmpv6": 58,
              "sctp": 132, "udplite": 136}  # fmt: skip
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
_BEYOND = ("<", "<=", ">", ">=")
_EVERYTHING = {"ip": "0.0.0.0/0", "ip6": "::/0"}
_FAMILY_VALUES = tuple((network,) for network in _EVERYTHING.values())
DRAWS = ("numgen", "jhash", "symhash")
_TCP_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}
_TCP_FLAGS_FIELD = {"payload": {"protocol": "tcp", "field": "flags"}}
_PACKET_TYPES = {**{kind: kind for kind in PACKET_TYPES}, "host": "unicast", "other": "otherhost"}
PACKET_MARK = {"meta": {"key": "mark"}}
FLOW_MARK = {"ct": {"key": "mark"}}


class NotReadable(Exception):
    """A condition that this reader does not know."""


def conditions(condition: dict[str, Any]) -> Iterator[FilterMatch]:
    """Yield what a condition asks for: ``left``, ``op`` and ``right`` of a statement ``match``."""
    try:
        yield from _known(condition)
        yield from _of_family(condition["left"], negated=condition["op"] == "!=")
    except (NotReadable, KeyError, TypeError, ValueError):
        yield unknown_condition({"match": condition})


def of_rule(matches: list[FilterMatch]) -> Iterator[FilterMatch]:
    """Yield the conditions of a rule as they stand together.

    ``th dport`` is a port behind a condition that the protocol is one with ports; and an address of a family says what
    a condition on the whole family would.
    """
    families = {
        ":" in address
        for match in matches
        if not match.negated and match.values not in _FAMILY_VALUES
        for address in addresses_of(match)
    }
    with_port = False
    for match in matches:
        if match.field == "source" and match.values in _FAMILY_VALUES and (":" in match.values[0]) in families:
            continue
        if match.field == "protocol":
            with_port = not match.negated and PROTOCOLS_WITH_PORTS.issuperset(match.values)
        port = PORTS_OF_ANY_PROTOCOL.get(match.field) if with_port else None
        yield match if port is None else replace(match, field=port)


def _of_family(left: dict[str, Any], *, negated: bool = False) -> Iterator[FilterMatch]:
    """Yield the family of a header field, which packets of the other one do not have; an address says it by itself."""
    payload = left.get("payload", {})
    if payload.get("protocol") in _EVERYTHING and (negated or payload.get("field") not in ("saddr", "daddr")):
        yield FilterMatch(field="source", values=(_EVERYTHING[payload["protocol"]],))


def unknown_condition(statement: Any) -> FilterMatch:
    """Return a statement as a condition that cannot be evaluated."""
    return FilterMatch(field="unknown", values=(json.dumps(statement, ensure_ascii=False),))


def _known(condition: dict[str, Any]) -> Iterator[FilterMatch]:
    left, right, op = condition["left"], condition["right"], condition["op"]
    (kind, key), *_ = left.items()
    if kind in DRAWS:
        yield _drawn_numbers(kind, key, op, right)
        return
    if kind == "concat":
        yield from _concatenation(key, right, op)
        return
    if is_ttl(left):
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
        raise NotReadable
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
        yield FilterMatch(field="ctmark", values=(mark_text(number_of(right), ALL_BITS),), negated=negated)
    elif kind == "&" and key[0] in (PACKET_MARK, FLOW_MARK):
        field = "mark" if key[0] == PACKET_MARK else "ctmark"
        yield FilterMatch(field=field, values=(mark_text(number_of(right), number_of(key[1])),), negated=negated)
    else:
        raise NotReadable


def _concatenation(keys: list[Any], right: Any, op: str) -> Iterator[FilterMatch]:
    """Yield what a concatenation implies (``tcp dport``: the protocol), and that it stands among some elements."""
    if op not in ("==", "!="):
        raise NotReadable
    values: list[str] = []
    implied: dict[FilterMatch, None] = {}
    for element in _values(right):
        parts: list[tuple[str, tuple[str, ...]]] = []
        for key, value in zip(keys, element["concat"], strict=True):
            *others, match = _known({"left": key, "op": "==", "right": value})
            implied.update(dict.fromkeys((*others, *_of_family(key, negated=op == "!="))))
            parts.append((match.field, match.values))
        alternatives = element_values(parts)
        if alternatives is None:
            raise NotReadable
        values += alternatives
    yield from implied
    yield FilterMatch(field="set", values=tuple(values), negated=op == "!=")


def _tcp_flags(mask: int | None, op: str, right: Any) -> FilterMatch:
    """Return the condition on the flags of TCP; ``in`` asks for one of them at least."""
    if op == "in":
        return FilterMatch(field="tcp-flags", values=(mark_text(0, _flags(right)),), negated=True)
    if op not in ("==", "!="):
        raise NotReadable
    wanted = right["set"] if isinstance(right, dict) else [right]
    values = tuple(mark_text(_flags(flags), 0xFF if mask is None else mask) for flags in wanted)
    return FilterMatch(field="tcp-flags", values=values, negated=op == "!=")


def _flags(names: Any) -> int:
    """Return the bits of flags of TCP by the names of nft."""
    flags = names if isinstance(names, list) else [names]
    return sum(flag if isinstance(flag, int) else _TCP_FLAGS[flag] for flag in flags)


def is_ttl(key: Any) -> bool:
    """Whether a key of nft is the TTL of IPv4, or the hop limit of IPv6."""
    field = key.get("payload", {}) if isinstance(key, dict) else {}
    return (field.get("protocol"), field.get("field")) in (("ip", "ttl"), ("ip6", "hoplimit"))


def _ttl(op: str, right: Any) -> FilterMatch:
    if op in _BEYOND:
        comparison, beyond = {"<": ("lt", 0), "<=": ("lt", 1), ">": ("gt", 0), ">=": ("gt", -1)}[op]
        values = ttl_values(comparison, number_of(right) + beyond)
        if values is None:
            raise NotReadable
        return FilterMatch(field="ttl", values=values)
    return FilterMatch(field="ttl", values=tuple(_ports(value) for value in _values(right)), negated=op == "!=")


def is_draw(kind: str, draw: Any) -> bool:
    """Whether it chooses by the flow or at random; a hash of the source alone is the same for all packets of one."""
    if kind == "jhash":
        hashed = draw.get("expr", {})
        return not (isinstance(hashed, dict) and hashed.get("payload", {}).get("field") == "saddr")
    return kind in DRAWS


def _drawn_numbers(kind: str, draw: dict[str, Any], op: str, right: Any) -> FilterMatch:
    """Return the condition that one of some numbers is drawn, counted from the lowest."""
    if not is_draw(kind, draw):
        raise NotReadable
    modulus, offset = number_of(draw["mod"]), draw.get("offset") or 0
    ranges = [
        value["range"] if isinstance(value, dict) else (number_of(value), number_of(value)) for value in _values(right)
    ]
    if op in _BEYOND:
        bound, highest = ranges[0][0], offset + modulus - 1
        ranges = [{"<": (0, bound - 1), "<=": (0, bound), ">": (bound + 1, highest), ">=": (bound, highest)}[op]]
    numbers = [(max(first - offset, 0), min(last - offset, modulus - 1)) for first, last in ranges]
    if any(first > last for first, last in numbers):
        raise NotReadable
    texts = tuple(f"{first}-{last}/{modulus}" for first, last in numbers)
    return FilterMatch(field="random", values=texts, negated=op == "!=")


def _meta(key: str, right: Any, negated: bool) -> FilterMatch:
    if key in ("iif", "iifname", "oif", "oifname"):
        return FilterMatch(field=key.removesuffix("name"), values=_texts(right), negated=negated)
    if key == "mark":
        return FilterMatch(field="mark", values=(mark_text(number_of(right), ALL_BITS),), negated=negated)
    if key == "pkttype":
        return FilterMatch(
            field="pkttype", values=tuple(_PACKET_TYPES[kind] for kind in _texts(right)), negated=negated
        )
    if key == "l4proto":
        return FilterMatch(field="protocol", values=_protocols(right), negated=negated)
    raise NotReadable


def _payload(protocol: str, field: str, right: Any, negated: bool) -> Iterator[FilterMatch]:
    if protocol in ("ip", "ip6") and field in ("saddr", "daddr"):
        values = tuple(network for value in _values(right) for network in networks_of(value))
        yield FilterMatch(field="source" if field == "saddr" else "destination", values=values, negated=negated)
    elif (protocol, field) == ("ether", "saddr"):
        yield FilterMatch(field="mac", values=tuple(text.lower() for text in _texts(right)), negated=negated)
    elif protocol in ("ip", "ip6") and field in ("protocol", "nexthdr"):
        yield FilterMatch(field="protocol", values=_protocols(right), negated=negated)
    elif field in ("sport", "dport") and (protocol in _PROTOCOLS or protocol == "th"):
        if protocol != "th":
            yield FilterMatch(field="protocol", values=(str(_PROTOCOLS[protocol]),))
        field = f"th-{field}" if protocol == "th" else field
        yield FilterMatch(field=field, values=tuple(_ports(value) for value in _values(right)), negated=negated)
    elif protocol in _ICMP_TYPES and field in ("type", "code"):
        names = _ICMP_TYPES[protocol] if field == "type" else {}
        numbers = tuple(str(value if isinstance(value, int) else names[value]) for value in _values(right))
        yield FilterMatch(field="protocol", values=(str(_PROTOCOLS[protocol]),))
        yield FilterMatch(field=f"icmp-{field}", values=numbers, negated=negated)
    else:
        raise NotReadable


def _values(right: Any) -> list[Any]:
    if isinstance(right, dict) and "set" in right:
        right = right["set"]
    return list(right) if isinstance(right, list) else [right]


def _texts(right: Any) -> tuple[str, ...]:
    texts = _values(right)
    if not all(isinstance(text, str) and not text.startswith("@") for text in texts):
        raise NotReadable
    return tuple(texts)


def _protocols(right: Any) -> tuple[str, ...]:
    return tuple(str(protocol if isinstance(protocol, int) else _PROTOCOLS[protocol]) for protocol in _values(right))


def number_of(value: Any) -> int:
    """Return a number.

    Raises:
        NotReadable: when it is something else.
    """
    if not isinstance(value, int):
        raise NotReadable
    return value


def networks_of(value: Any) -> tuple[str, ...]:
    """Return the networks that an address, a prefix or a range is; an element of a set may have a timeout."""
    if isinstance(value, dict) and "elem" in value:
        return networks_of(value["elem"]["val"])
    if isinstance(value, dict) and "prefix" in value:
        return (f"{value['prefix']['addr']}/{value['prefix']['len']}",)
    if isinstance(value, dict) and "range" in value:
        return networks_between(*value["range"])
    if not isinstance(value, str) or value.startswith("@"):
        raise NotReadable
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
        return f"{number_of(first)}-{number_of(last)}"
    return str(number_of(value))
