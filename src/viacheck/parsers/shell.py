"""``ip rule`` and ``ip route`` commands in lines of shell: what they install or take away, and what guards them.

Scripts are not run and conditions are not evaluated: a command counts wherever it stands. Words are taken as iproute2
takes them: objects, verbs and some selectors may be abbreviated (ip(8), ip-rule(8), ip-route(8)).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Literal

from viacheck.model.config_entry import (
    ConfigEntry,
    Phase,
    Place,
    TableNumber,
    WrittenRemoval,
    WrittenRoute,
    WrittenRule,
)
from viacheck.model.snapshot import Family, Nexthop, Route, Rule

_OPERATORS = re.compile(r"[;&|()]+")
_REDIRECTION = re.compile(r"(?<!\S)(?:\d*|&)>{1,2}\s*(?:&\d|&-|[^\s;|&<>()]+)")
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
_KEYWORDS = frozenset(
    {"if", "then", "else", "elif", "fi", "do", "done", "while", "until", "!", "{", "}", "exec", "sudo"}
)
_CONDITION = frozenset({"if", "elif", "while", "until", "!"})
_VERBS = {"rule": ("add", "delete"), "route": ("add", "append", "change", "chg", "prepend", "replace", "delete")}
_ROUTE_TYPES = ("unicast", "unreachable", "blackhole", "prohibit", "throw", "local")
_RULE_ACTIONS = ("unreachable", "blackhole", "prohibit", "nop")


class ShellError(ValueError):
    """The line is no shell that could be split into words; the message says why."""


@dataclass(frozen=True, slots=True)
class IPCommand:
    """One ``ip rule`` or ``ip route`` command that changes something."""

    kind: Literal["rule", "route"]
    verb: str
    family: Family
    words: tuple[str, ...]
    """What comes after the verb."""
    failure_tolerated: bool
    guarded: bool


def ip_commands(line: str, variables: Mapping[str, str] | None = None) -> list[IPCommand]:
    """Every command of a line that changes rules or routes.

    Raises:
        ShellError: when quotes are not closed.
    """
    commands = list(_commands(line))
    found = []
    for number, (words, after, condition) in enumerate(commands):
        expanded = [_expand(word, variables or {}) for word in words]
        parsed = _ip(expanded)
        if parsed is None:
            continue
        kind, verb, family, rest = parsed
        asked_before = number > 0 and commands[number - 1][1] == "||" and _asks(commands[:number])
        last = number == len(commands) - 1
        found.append(
            IPCommand(
                kind, verb, family, rest,
                failure_tolerated=condition or after == "||" or (not last and after in (";", "&")),
                guarded=asked_before,
            )
        )  # fmt: skip
    return found


def assignments(line: str) -> Iterator[tuple[str, str]]:
    """The plain assignments of a line, as name and value."""
    try:
        for words, _after, _condition in _commands(line):
            for word in words if words[0] not in ("export", "local", "readonly") else words[1:]:
                name, equals, value = word.partition("=")
                if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
                    break
                yield name, value
    except ShellError:
        return


def _asks(before: Sequence[tuple[list[str], str, bool]]) -> bool:
    """Whether the commands before an ``||`` only look: ``ip rule show | grep -q …``."""
    return all(words[0] == "grep" or not _changes(words) for words, _after, _condition in before) and any(
        words[0] in ("grep", "[", "test") or words[0].endswith("ip") for words, _after, _condition in before
    )


def _changes(words: list[str]) -> bool:
    return _ip(words) is not None


def _commands(line: str) -> Iterator[tuple[list[str], str, bool]]:
    """Split a line into commands: their words, the operator behind them, and whether they stand as a condition."""
    lexer = shlex.shlex(_REDIRECTION.sub(" ", line), posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        tokens = list(lexer)
    except ValueError as error:
        raise ShellError(str(error).lower()) from None
    words: list[str] = []
    condition = False
    for token in tokens:
        if token.startswith("#"):
            break
        if _OPERATORS.fullmatch(token):
            if words:
                yield words, token, condition
            words, condition = [], False
        elif not words and token in _KEYWORDS:
            condition = condition or token in _CONDITION
        else:
            words.append(token)
    if words:
        yield words, "", condition


def _expand(word: str, variables: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda match: variables.get(match[1], match[0]), word)


def _full(word: str, names: Sequence[str], shortest: int = 1) -> str | None:
    """The first name that a word abbreviates."""
    return next((name for name in names if len(word) >= shortest and name.startswith(word)), None)


def _ip(words: list[str]) -> tuple[Literal["rule", "route"], str, Family, tuple[str, ...]] | None:
    if not words or words[0].rpartition("/")[2] != "ip":
        return None
    family: Family = 4
    rest = words[1:]
    while rest and rest[0].startswith("-"):
        option = rest.pop(0).lstrip("-")
        if option in ("6", "inet6"):
            family = 6
        elif _full(option, ("family", "netns", "batch", "rcvbuf"), 1) or option == "f":
            value = rest.pop(0) if rest else ""
            family = 6 if value == "inet6" else family
    if len(rest) < 2:
        return None
    kind: Literal["rule", "route"]
    if _full(rest[0], ("route",)):
        kind = "route"
    elif _full(rest[0], ("rule",), 2):
        kind = "rule"
    else:
        return None
    if rest[1] == "flush":
        return kind, "flush", family, tuple(rest[2:])
    verb = _full(rest[1], _VERBS[kind])
    return (kind, verb, family, tuple(rest[2:])) if verb else None


def entries(
    commands: Sequence[IPCommand], place: Place, interface: str | None, phase: Phase, table_number: TableNumber
) -> Iterator[ConfigEntry]:
    """What the commands of one line install or take away.

    Raises:
        ShellError: when a command's words make no rule or route; ``ip`` would refuse it as well.
    """
    for command in commands:
        if command.verb in ("delete", "flush"):
            named = rule_of(command, table_number)[0] if command.kind == "rule" and command.verb == "delete" else None
            yield WrittenRemoval(
                place=place, interface=interface, phase=phase, kind=command.kind, rule=named,
                by_priority=named is not None and _has_priority(command.words),
                by_table=named is not None and any(_full(word, ("table", "lookup")) for word in command.words),
                failure_tolerated=command.failure_tolerated,
            )  # fmt: skip
        elif command.kind == "rule":
            rule, table = rule_of(command, table_number)
            yield WrittenRule(
                place=place, interface=interface, rule=rule, table=table, phase=phase, typed=True,
                has_priority=_has_priority(command.words), failure_tolerated=command.failure_tolerated,
                guarded=command.guarded,
            )  # fmt: skip
        else:
            route, table, computed = route_of(command, table_number)
            yield WrittenRoute(
                place=place, interface=interface, route=route, table=table, verb=command.verb, phase=phase, typed=True,
                gateway_computed=computed, failure_tolerated=command.failure_tolerated, guarded=command.guarded,
            )  # fmt: skip


def _has_priority(words: Sequence[str]) -> bool:
    return any(_full(word, ("preference", "priority", "order"), 2) for word in words)


def rule_of(command: IPCommand, table_number: TableNumber) -> tuple[Rule, str]:
    """The rule that ``ip rule add`` makes of its words, and the table as it is written.

    Raises:
        ShellError: when a selector is not known or lacks its value.
    """
    found: dict[str, str] = {}
    flags: set[str] = set()
    action = "lookup"
    words = list(command.words)
    while words:
        word = words.pop(0)
        if word in ("not", "l3mdev"):
            flags.add(word)
            continue
        if word in _RULE_ACTIONS:
            action = word
            continue
        name = _full(word, ("from", "to", "iif", "dev", "oif", "fwmark", "goto", "suppress_prefixlength", "type"), 2)
        name = name or _full(word, ("preference", "priority", "order"), 2) or _full(word, ("table", "lookup"))
        if name == "type":
            continue
        if name is None:
            name = word if words else None
        if name is None or not words:
            raise ShellError(f"'{word}' is no selector of a rule with a value")
        if name not in found:
            found[name] = words.pop(0)
    table = found.get("table") or found.get("lookup") or "main"
    priority = found.get("preference") or found.get("priority") or found.get("order")
    mark, _slash, mask = found.get("fwmark", "").partition("/")
    known = {"from", "to", "iif", "dev", "oif", "fwmark", "goto", "suppress_prefixlength",
             "preference", "priority", "order", "table", "lookup"}  # fmt: skip
    rule = Rule(
        family=6 if ":" in found.get("from", "") + found.get("to", "") else command.family,
        priority=_number(priority) or 0,
        action=action if "goto" not in found else "goto",  # type: ignore[arg-type]
        table=table_number(table) if action == "lookup" and "goto" not in found else None,
        goto=_number(found.get("goto")),
        invert="not" in flags,
        l3mdev="l3mdev" in flags,
        source=_prefix(found.get("from")),
        destination=_prefix(found.get("to")),
        iif=found.get("iif") or found.get("dev"),
        oif=found.get("oif"),
        fwmark=_number(mark),
        fwmask=_number(mask),
        suppress_prefixlength=_number(found.get("suppress_prefixlength")),
        unread=tuple(f"{name} {value}" for name, value in found.items() if name not in known),
    )
    return rule, table


def route_of(command: IPCommand, table_number: TableNumber) -> tuple[Route, str, bool]:
    """The route that ``ip route add`` makes of its words, the table as written, and whether its gateway is computed.

    Raises:
        ShellError: when there is no destination.
    """
    words = list(command.words)
    kind = words.pop(0) if words and words[0] in _ROUTE_TYPES else "unicast"
    destination = None
    found: dict[str, str] = {}
    while words:
        word = words.pop(0)
        exact = word in ("via", "dev", "oif", "to", "src", "metric", "proto", "scope")
        name = word if exact else _full(word, ("table",), 2) or _full(word, ("metric", "priority", "preference"), 4)
        if word in ("onlink", "pervasive"):
            continue
        if name is None and destination is None and (word in ("default", "any", "all") or _looks_like_prefix(word)):
            destination = word
        elif words and (name or word).isidentifier():
            value = words.pop(0)
            # 'via inet 10.0.0.1' names the family first (ip-route(8)).
            if name == "via" and value in ("inet", "inet6") and words:
                value = words.pop(0)
            found[name or word] = value
    destination = found.get("to", destination)
    if destination is None:
        raise ShellError("a route without a destination")
    gateway = found.get("via")
    computed = gateway is not None and not _is_address(gateway)
    interface = found.get("dev") or found.get("oif")
    if interface is not None and "$" in interface:
        # Scripts are handed the interface that they run for.
        interface = None
    table = found.get("table", "main" if kind != "local" else "local")
    family: Family = 6 if ":" in destination or (gateway and ":" in gateway) else command.family
    everything = "::/0" if family == 6 else "0.0.0.0/0"
    number = table_number(table)
    hops = (Nexthop(gateway=None if computed else gateway, interface=interface),) if gateway or interface else ()
    route = Route(
        family=family,
        table=number if number is not None else 0,
        destination=_prefix(destination) or everything,
        type=kind,
        nexthops=hops,
        metric=_number(found.get("metric") or found.get("priority") or found.get("preference")) or 0,
        source=found.get("src"),
    )
    return route, table, computed


def _looks_like_prefix(word: str) -> bool:
    return bool(re.match(r"[0-9a-fA-F:.$]", word)) and (word[0] == "$" or any(c in word for c in ".:/"))


def _is_address(word: str) -> bool:
    try:
        return ip_network(word).num_addresses == 1 and "/" not in word
    except ValueError:
        return False


def _prefix(word: str | None) -> str | None:
    """A prefix in CIDR form; None for one that selects everything.

    Raises:
        ShellError: when it is none.
    """
    if word is None or word in ("all", "any", "default", "0/0"):
        return None
    if "$" in word:
        raise ShellError(f"'{word}' is known only when the command runs")
    address, slash, length = word.partition("/")
    if ":" not in address and re.fullmatch(r"[0-9]+(\.[0-9]+){0,2}", address) and slash:
        # iproute2 fills up what is left out of an IPv4 prefix: 172.17/16.
        address += ".0" * (3 - address.count("."))
    try:
        network = ip_network(f"{address}{slash}{length}", strict=False)
    except ValueError:
        raise ShellError(f"'{word}' is no prefix") from None
    return None if network.prefixlen == 0 else str(network)


def _number(word: str | None) -> int | None:
    if not word:
        return None
    try:
        return int(word, 0)
    except ValueError:
        raise ShellError(f"'{word}' is no number") from None
