"""``ip rule`` and ``ip route`` commands in lines of shell: the rule or route that each installs or removes.

Scripts are not run and conditions are not evaluated: a command counts wherever it stands. Keywords are read as iproute2
reads them: objects, verbs and some selectors may be abbreviated (ip(8), ip-rule(8), ip-route(8)).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any, Literal

from viacheck.model.address_family import Family
from viacheck.model.config_entry import (
    ConfigEntry,
    Phase,
    Place,
    TableNumberOf,
    WrittenRemoval,
    WrittenRoute,
    WrittenRule,
)
from viacheck.model.policy_rule import IP_PROTOCOLS, PortRange, Rule
from viacheck.model.route import Nexthop, Route, implied_scope
from viacheck.parsers.iproute import EVERYTHING, PROTOCOLS, SCOPES
from viacheck.parsers.shell import Operator, ShellError, Word, tokens

_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
_KEYWORDS = frozenset(
    {"if", "then", "else", "elif", "fi", "do", "done", "while", "until", "!", "{", "}", "exec", "sudo"}
)
_CONDITION = frozenset({"if", "elif", "while", "until", "!"})
_VERBS = {"rule": ("add", "delete"), "route": ("add", "append", "change", "chg", "prepend", "replace", "delete")}
_ROUTE_TYPES = (
    "unicast",
    "unreachable",
    "blackhole",
    "prohibit",
    "throw",
    "local",
    "broadcast",
    "multicast",
    "anycast",
)
_RULE_ACTIONS = ("unreachable", "blackhole", "prohibit", "nop")
_ROUTE_FLAGS = ("onlink", "pervasive")
_LARGEST = 0xFFFFFFFF
Fields = dict[str, Any]
"""Fields of a :class:`Rule` or :class:`Route`, by name."""


@dataclass(frozen=True, slots=True)
class IPCommand:
    """One ``ip rule`` or ``ip route`` command that changes something."""

    kind: Literal["rule", "route"]
    verb: str
    family: Family
    arguments: tuple[str, ...]
    """The words after the verb."""
    failure_tolerated: bool
    guarded: bool
    family_given: bool = False
    """An option of ``ip`` names the family."""


@dataclass(frozen=True, slots=True)
class _SimpleCommand:
    """A command of a line."""

    words: list[str]
    operator: str
    """The operator behind the command; empty at the end of the line."""
    condition: bool
    """The command is the condition of an ``if`` or a loop."""


def ip_commands(line: str, variables: Mapping[str, str] | None = None) -> list[IPCommand]:
    """Return every command of a line that changes rules or routes.

    Raises:
        ShellError: when quotes are not closed.
    """
    commands = list(_commands(line))
    changing = []
    for number, command in enumerate(commands):
        parsed = _ip([_expand(word, variables or {}) for word in command.words])
        if parsed is None:
            continue
        last = number == len(commands) - 1
        tolerated = command.condition or command.operator == "||" or (not last and command.operator in (";", "&"))
        guarded = number > 0 and commands[number - 1].operator == "||" and _only_query(commands[:number])
        changing.append(replace(parsed, failure_tolerated=tolerated, guarded=guarded))
    return changing


def assignments(line: str) -> Iterator[tuple[str, str]]:
    """Return the plain assignments of a line, as name and value."""
    try:
        for command in _commands(line):
            words = command.words
            for word in words if words[0] not in ("export", "local", "readonly") else words[1:]:
                name, equals, value = word.partition("=")
                if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
                    break
                yield name, value
    except ShellError:
        return


def _only_query(before: Sequence[_SimpleCommand]) -> bool:
    """Whether the commands before an ``||`` change nothing: ``ip rule show | grep -q …``."""
    names = [command.words[0] for command in before]
    return all(command.words[0] == "grep" or _ip(command.words) is None for command in before) and any(
        name in ("grep", "[", "test") or name.endswith("ip") for name in names
    )


def _commands(line: str) -> Iterator[_SimpleCommand]:
    """Split a line into commands, without keywords and redirections."""
    words: list[str] = []
    condition = False
    for token in tokens(line):
        if isinstance(token, Operator):
            if words:
                yield _SimpleCommand(words, token.text, condition)
            words, condition = [], False
        elif isinstance(token, Word):
            if not words and token.text in _KEYWORDS:
                condition = condition or token.text in _CONDITION
            else:
                words.append(token.text)
    if words:
        yield _SimpleCommand(words, "", condition)


def _expand(word: str, variables: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda match: variables.get(match[1], match[0]), word)


def _full(word: str, names: Sequence[str], shortest: int = 1) -> str | None:
    """Return the first name that a word abbreviates."""
    return next((name for name in names if len(word) >= shortest and name.startswith(word)), None)


def _ip(words: list[str]) -> IPCommand | None:
    """Return an ``ip`` command that changes rules or routes; None for every other command."""
    if not words or words[0].rpartition("/")[2] != "ip":
        return None
    family: Family | None = None
    rest = words[1:]
    while rest and rest[0].startswith("-"):
        option = rest.pop(0).lstrip("-")
        if option in ("4", "6"):
            family = 6 if option == "6" else 4
        elif _full(option, ("family", "netns", "batch")) or _full(option, ("rcvbuf",), 2):
            value = rest.pop(0) if rest else ""
            family = {"inet": 4, "inet6": 6}.get(value, family)  # type: ignore[assignment]
    if len(rest) < 2:
        return None
    kind: Literal["rule", "route"]
    if _full(rest[0], ("route",)):
        kind = "route"
    elif _full(rest[0], ("rule",), 2):
        kind = "rule"
    else:
        return None
    verb = "flush" if rest[1] == "flush" else _full(rest[1], _VERBS[kind])
    if verb is None:
        return None
    return IPCommand(kind, verb, family or 4, tuple(rest[2:]), False, False, family_given=family is not None)


def entries(
    commands: Sequence[IPCommand], place: Place, interface: str | None, phase: Phase, table_number: TableNumberOf
) -> Iterator[ConfigEntry]:
    """Return the rules and routes that the commands of one line install or remove.

    Raises:
        ShellError: when a command's arguments make no rule or route; ``ip`` would refuse it as well.
    """
    for command in commands:
        if command.verb in ("delete", "flush"):
            named = rule_of(command, table_number)[0] if command.kind == "rule" and command.verb == "delete" else None
            yield WrittenRemoval(
                place=place, interface=interface, phase=phase, kind=command.kind, rule=named,
                by_priority=named is not None and _has_priority(command.arguments),
                by_table=named is not None and any(_full(word, ("table", "lookup")) for word in command.arguments),
                failure_tolerated=command.failure_tolerated,
            )  # fmt: skip
        elif command.kind == "rule":
            rule, table = rule_of(command, table_number)
            yield WrittenRule(
                place=place, interface=interface, rule=rule, table=table, phase=phase, typed=True,
                has_priority=_has_priority(command.arguments), failure_tolerated=command.failure_tolerated,
                guarded=command.guarded,
            )  # fmt: skip
        else:
            route, table, computed = route_of(command, table_number)
            yield WrittenRoute(
                place=place, interface=interface, route=route, table=table, verb=command.verb, phase=phase, typed=True,
                gateway_computed=computed, failure_tolerated=command.failure_tolerated, guarded=command.guarded,
            )  # fmt: skip


def _has_priority(arguments: Sequence[str]) -> bool:
    return any(_full(word, ("preference", "priority", "order"), 2) for word in arguments)


def _protocol(text: str) -> int:
    return next((number for number, name in IP_PROTOCOLS.items() if name == text.lower()), None) or _number(text)


def _number(text: str) -> int:
    # int() alone would take 1_000.
    if re.fullmatch(r"0[xX][0-9a-fA-F]+|0|[1-9][0-9]*", text, re.ASCII):
        number = int(text, 0)
        if number <= _LARGEST:
            return number
    raise ShellError(f"'{text}' is not a number from 0 to {_LARGEST}")


def _prefix(text: str) -> str | None:
    """Return a prefix in CIDR form; None for a prefix that selects everything.

    Raises:
        ShellError: when the text is not a prefix.
    """
    if text in ("all", "any", "default", "0/0"):
        return None
    if "$" in text:
        raise ShellError(f"'{text}' is known only when the command runs")
    address, slash, length = text.partition("/")
    if ":" not in address and re.fullmatch(r"[0-9]+(\.[0-9]+){0,2}", address) and slash:
        # iproute2 completes a short IPv4 prefix: 172.17/16.
        address += ".0" * (3 - address.count("."))
    try:
        network = ip_network(f"{address}{slash}{length}", strict=False)
    except ValueError:
        raise ShellError(f"'{text}' is not a prefix") from None
    return None if network.prefixlen == 0 else str(network)


def _mark(text: str) -> Fields:
    mark, slash, mask = text.partition("/")
    return {"fwmark": _number(mark), **({"fwmask": _number(mask)} if slash else {})}


def _ports(text: str) -> PortRange:
    first, dash, last = text.partition("-")
    return PortRange(first=_number(first), last=_number(last if dash else first))


def _users(text: str) -> Fields:
    first, _dash, last = text.partition("-")
    return {"uid_first": _number(first), "uid_last": _number(last)}


_RULE_KEYWORDS: dict[str, Callable[[str], Fields]] = {
    "from": lambda value: {"source": _prefix(value)},
    "to": lambda value: {"destination": _prefix(value)},
    "iif": lambda value: {"iif": value},
    "dev": lambda value: {"iif": value},
    "oif": lambda value: {"oif": value},
    "fwmark": _mark,
    "goto": lambda value: {"action": "goto", "goto": _number(value)},
    "suppress_prefixlength": lambda value: {"suppress_prefixlength": _number(value)},
    "preference": lambda value: {"priority": _number(value)},
    "priority": lambda value: {"priority": _number(value)},
    "order": lambda value: {"priority": _number(value)},
    "protocol": lambda value: {"protocol": value},
}
"""The selectors of ``ip rule add`` that take a value, and the fields of a rule that each sets (ip-rule(8))."""
_NAMED_RULE_KEYWORDS: dict[str, Callable[[str], Fields]] = {
    "suppress_ifgroup": lambda value: {"suppress_ifgroup": _number(value)},
    "tos": lambda value: {"tos": _number(value)},
    "dsfield": lambda value: {"tos": _number(value)},
    "uidrange": _users,
    "ipproto": lambda value: {"ipproto": _protocol(value)},
    "sport": lambda value: {"sport": _ports(value)},
    "dport": lambda value: {"dport": _ports(value)},
    "tun_id": lambda value: {"tun_id": _number(value)},
}
"""The same for selectors whose value may be a name that only the host's files explain: then they stay unread."""
_ALL_RULE_KEYWORDS = (*_RULE_KEYWORDS, *_NAMED_RULE_KEYWORDS)


def rule_of(command: IPCommand, table_number: TableNumberOf) -> tuple[Rule, str]:
    """Return the rule that ``ip rule add`` makes of its arguments, and the table as it is written.

    Raises:
        ShellError: when a selector has no value, or a value that it cannot have.
    """
    fields: Fields = {}
    unread: dict[str, str] = {}
    written_table = None
    arguments = list(command.arguments)
    while arguments:
        word = arguments.pop(0)
        if word in ("not", "l3mdev"):
            fields["invert" if word == "not" else word] = True
        elif word in _RULE_ACTIONS:
            fields["action"] = word
        elif word == "type":
            continue
        elif not arguments:
            raise ShellError(f"'{word}' is not a selector of a rule with a value")
        elif _full(word, ("table", "lookup")):
            written_table = written_table or arguments.pop(0)
        else:
            keyword, value = _full(word, _ALL_RULE_KEYWORDS, 2), arguments.pop(0)
            try:
                reader = _RULE_KEYWORDS.get(keyword or "") or _NAMED_RULE_KEYWORDS[keyword or ""]
                fields = {**reader(value), **fields}
            except (KeyError, ShellError):
                if keyword in _RULE_KEYWORDS:
                    raise
                unread.setdefault(word, value)
    table = written_table or "main"
    looks_up = fields.get("action", "lookup") == "lookup" and (written_table is not None or "l3mdev" not in fields)
    six = any(":" in (fields.get(name) or "") for name in ("source", "destination"))
    return Rule(
        family=6 if six else command.family,
        table=table_number(table) if looks_up else None,
        unread=tuple(f"{name} {value}" for name, value in unread.items()),
        **{"priority": 0, **fields},
    ), table


_ROUTE_KEYWORDS: dict[str, Callable[[str], Fields]] = {
    "from": lambda value: {"source_prefix": _prefix(value)},
    "src": lambda value: {"source": value},
    "metric": lambda value: {"metric": _number(value)},
    "priority": lambda value: {"metric": _number(value)},
    "preference": lambda value: {"metric": _number(value)},
    "protocol": lambda value: {"protocol": PROTOCOLS.get(value, value)},
    "scope": lambda value: {"scope": SCOPES.get(value, value)},
    "pref": lambda value: {"preference": value},
    "nhid": lambda value: {"nexthop_id": _number(value)},
    "mtu": lambda value: {"mtu": _number(value)} if value.isdecimal() else {},
    "tos": lambda value: {"tos": _number(value)} if value[:1].isdecimal() else {},
    "dsfield": lambda value: {"tos": _number(value)} if value[:1].isdecimal() else {},
}
"""What ``ip route add`` takes with a value beside destination, table and nexthops, and the field that it sets."""
_ABBREVIATED = {"metric": 4, "priority": 4, "protocol": 5, "table": 2}
"""Keywords of a route that may be abbreviated, with the fewest letters."""
_NEXTHOP_KEYWORDS = ("via", "dev", "oif", "weight")
_LOCAL_TABLE_TYPES = frozenset({"local", "broadcast", "anycast", "nat"})


def _route_keyword(word: str) -> str:
    return next((name for name, least in _ABBREVIATED.items() if len(word) >= least and name.startswith(word)), word)


def route_of(command: IPCommand, table_number: TableNumberOf) -> tuple[Route, str, bool]:
    """Return the route that ``ip route add`` makes of its arguments, and its table as it is written.

    The third value says whether a gateway is known only when the command runs.

    Raises:
        ShellError: when the destination, or the value of a keyword, is missing.
    """
    arguments = list(command.arguments)
    kind = arguments.pop(0) if arguments and arguments[0] in _ROUTE_TYPES else "unicast"
    table = "local" if kind in _LOCAL_TABLE_TYPES else "main"
    destination = None
    fields: Fields = {}
    hops: list[dict[str, str]] = [{}]
    while arguments:
        keyword = _route_keyword(word := arguments.pop(0))
        if word in _ROUTE_FLAGS:
            hops[-1][word] = word
        elif word == "nexthop":
            hops.append({})
        elif keyword in (*_NEXTHOP_KEYWORDS, *_ROUTE_KEYWORDS, "table", "to"):
            if not arguments:
                raise ShellError(f"'{word}' lacks its value")
            value = arguments.pop(0)
            if keyword == "via" and value in ("inet", "inet6") and arguments:
                # 'via inet6 fe80::1' names the family first (ip-route(8)).
                value = arguments.pop(0)
            elif keyword == "mtu" and value == "lock" and arguments:
                value = arguments.pop(0)
            if keyword in _NEXTHOP_KEYWORDS:
                hops[-1][keyword] = value
            elif keyword == "table":
                table = value
            elif keyword == "to":
                destination = value
            else:
                fields |= _ROUTE_KEYWORDS[keyword](value)
        elif destination is None and (word in ("default", "any", "all") or _looks_like_prefix(word)):
            destination = word
        elif arguments and word.isidentifier():
            # Another metric of the route, with its value.
            arguments.pop(0)
    if destination is None:
        raise ShellError("a route without a destination")
    gateways = [hop["via"] for hop in hops if "via" in hop]
    family = _route_family(command, destination, gateways)
    number = table_number(table)
    route = Route(
        family=family,
        table=number if number is not None else 0,
        destination=_prefix(destination) or EVERYTHING[family],
        type=kind,
        nexthops=tuple(_nexthop(hop) for hop in hops if hop.keys() & {"via", "dev", "oif"}),
        **{"protocol": "boot", **fields},
    )
    if "scope" not in fields and family == 4:
        route = replace(route, scope=implied_scope(route))
    return route, table, any(not _is_address(gateway) for gateway in gateways)


def _route_family(command: IPCommand, destination: str, gateways: Sequence[str]) -> Family:
    if ":" in destination:
        return 6
    if command.family_given or "." in destination:
        return command.family
    return 6 if any(":" in gateway for gateway in gateways) else command.family


def _nexthop(hop: Mapping[str, str]) -> Nexthop:
    gateway, interface = hop.get("via"), hop.get("dev") or hop.get("oif")
    return Nexthop(
        gateway=gateway if gateway is not None and _is_address(gateway) else None,
        # A script gets the interface that it runs for in a variable.
        interface=None if interface is not None and "$" in interface else interface,
        weight=_number(hop.get("weight", "1")),
        flags=tuple(flag for flag in _ROUTE_FLAGS if flag in hop),
    )


def _looks_like_prefix(word: str) -> bool:
    return bool(re.match(r"[0-9a-fA-F:.$]", word)) and (word[0] == "$" or any(c in word for c in ".:/"))


def _is_address(word: str) -> bool:
    try:
        return ip_network(word).num_addresses == 1 and "/" not in word
    except ValueError:
        return False
