"""Writes a rule that nft printed as JSON (libnftables-json(5)) in nft's own language, as a person types it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_BARE = frozenset({"iif", "oif", "iifname", "oifname"})
"""Keys of ``meta`` that nft prints without that word."""
_NAMES = frozenset({"iifname", "oifname", "ibrname", "obrname"})
"""Keys of ``meta`` whose values are names, which nft quotes."""
_WORDS = frozenset({"accept", "drop", "continue", "return", "notrack"})


class _NotKnown(Exception):
    """An expression or statement that this module does not write."""


def rule_text(rule: Mapping[str, Any]) -> str:
    """Return a rule as nft prints it without ``-j``; its JSON where it holds what this module does not know."""
    try:
        words = [_statement(statement) for statement in rule.get("expr", ())]
    except (_NotKnown, LookupError, TypeError, AttributeError, ValueError):
        return json.dumps(rule.get("expr", ()), ensure_ascii=False)
    if "comment" in rule:
        words.append(f"comment {_quoted(str(rule['comment']))}")
    return " ".join(words)


def _statement(statement: Mapping[str, Any]) -> str:
    ((kind, value),) = statement.items()
    if kind in _WORDS:
        return kind
    writer = _STATEMENTS.get(kind)
    if writer is None:
        raise _NotKnown(kind)
    return writer(value)


def _match(value: Mapping[str, Any]) -> str:
    left, operator = value["left"], value["op"]
    key = left.get("meta", {}).get("key") if isinstance(left, dict) else None
    right = _expression(value["right"], named=key in _NAMES)
    if isinstance(left, dict) and "&" in left:
        # nft needs the sign behind an operation, and takes flags as numbers or joined by "|".
        bits, mask = (_bits(part) for part in (value["right"], left["&"][1]))
        return f"{_expression(left['&'][0])} & {mask} {operator} {bits}"
    return " ".join([_expression(left), *([operator] if operator not in ("==", "in") else []), right])


def _bits(value: Any) -> str:
    names = value if isinstance(value, list) else [value]
    text = " | ".join(_expression(name) for name in names)
    return f"({text})" if len(names) > 1 else text


def _counter(value: Any) -> str:
    return f"counter packets {value['packets']} bytes {value['bytes']}" if isinstance(value, dict) else "counter"


def _translation(kind: str) -> Callable[[Any], str]:
    def write(value: Any) -> str:
        if value is None:
            return kind
        if set(value) - {"addr", "port", "family"}:
            raise _NotKnown(kind)
        family = f" {value['family']}" if "family" in value else ""
        address = _expression(value["addr"]) if "addr" in value else ""
        port = f":{_expression(value['port'])}" if "port" in value else ""
        return f"{kind}{family} to {address}{port}"

    return write


def _mangle(value: Mapping[str, Any]) -> str:
    return f"{_expression(value['key'])} set {_expression(value['value'])}"


def _reject(value: Any) -> str:
    if value is None:
        return "reject"
    return f"reject with {value['type']} {value['expr']}" if "expr" in value else f"reject with {value['type']}"


def _log(value: Any) -> str:
    if value is None:
        return "log"
    if set(value) - {"prefix"}:
        raise _NotKnown("log")
    return f"log prefix {_quoted(value['prefix'])}"


def _vmap(value: Mapping[str, Any]) -> str:
    return f"{_expression(value['key'])} vmap {_map_data(value['data'], _statement)}"


def _map_data(data: Any, value_text: Callable[[Any], str]) -> str:
    """Write the data of a map: the name of one, or its entries."""
    if isinstance(data, str):
        return data
    return "{ " + ", ".join(f"{_expression(key)} : {value_text(value)}" for key, value in data["set"]) + " }"


def _target(kind: str) -> Callable[[Any], str]:
    return lambda value: f"{kind} {value['target']}"


_STATEMENTS: dict[str, Callable[[Any], str]] = {
    "match": _match,
    "counter": _counter,
    "mangle": _mangle,
    "reject": _reject,
    "log": _log,
    "vmap": _vmap,
    "jump": _target("jump"),
    "goto": _target("goto"),
    **{kind: _translation(kind) for kind in ("snat", "dnat", "masquerade", "redirect")},
}


def _expression(value: Any, *, named: bool = False) -> str:
    if isinstance(value, str):
        return _quoted(value) if named and not value.startswith("@") else value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Sequence):
        return ",".join(_expression(part, named=named) for part in value)
    ((kind, content),) = value.items()
    match kind:
        case "prefix":
            return f"{_expression(content['addr'])}/{content['len']}"
        case "range":
            return f"{_expression(content[0])}-{_expression(content[1])}"
        case "set":
            parts = content if isinstance(content, list) else [content]
            return "{ " + ", ".join(_expression(part, named=named) for part in parts) + " }"
        case "concat":
            return " . ".join(_expression(part) for part in content)
        case "&" | "|" | "^":
            return f" {kind} ".join(_expression(part) for part in content)
        case "payload" if "field" in content:
            return f"{content['protocol']} {content['field']}"
        case "meta":
            return content["key"] if content["key"] in _BARE else f"meta {content['key']}"
        case "ct" if set(content) == {"key"}:
            return f"ct {content['key']}"
        case "map":
            return f"{_expression(content['key'])} map {_map_data(content['data'], _expression)}"
        case "jhash" | "symhash":
            source = f" {_expression(content['expr'])}" if kind == "jhash" else ""
            seed = f" seed {content['seed']:#x}" if "seed" in content else ""
            offset = f" offset {content['offset']}" if content.get("offset") else ""
            return f"{kind}{source} mod {content['mod']}{seed}{offset}"
        case "numgen":
            offset = f" offset {content['offset']}" if content.get("offset") else ""
            return f"numgen {content['mode']} mod {content['mod']}{offset}"
        case "fib":
            flags = content["flags"] if isinstance(content["flags"], list) else [content["flags"]]
            return f"fib {' . '.join(flags)} {content['result']}"
    raise _NotKnown(kind)


def _quoted(text: str) -> str:
    if '"' in text:
        # nft has no way to write a quote within a text.
        raise _NotKnown(text)
    return f'"{text}"'
