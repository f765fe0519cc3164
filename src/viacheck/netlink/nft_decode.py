"""What nftables holds in a namespace, read over netlink: every table's chains, their rules taken apart.

The kernel keeps a rule as a list of small expressions that work on registers (nft(8) calls this the virtual machine).
Reading one means to follow which field of the packet each register holds, and what it is compared with. What this
reader does not know becomes a condition ``unknown``, never a rule that is left out.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address, summarize_address_range
from typing import Literal, cast

from viacheck.host.namespace import Namespace
from viacheck.model.snapshot import FilterChain, FilterMatch, FilterRule
from viacheck.netlink.nfnetlink import (
    MessageType,
    NfnetlinkSocket,
    Protocol,
    as_number,
    as_string,
    attributes,
    elements,
    string,
)

IPTABLES_TABLES = ("raw", "mangle", "nat", "filter", "security")
"""The tables that iptables-nft keeps in the families ip and ip6."""
_ATTEMPTS = 5
_TABLE_DORMANT = 1
_SET_INTERVAL, _SET_MAP, _SET_CONCAT = 4, 8, 0x80
_ELEMENT_INTERVAL_END, _ELEMENT_CATCHALL = 1, 2
_EQ, _NEQ, _LT, _LTE, _GT, _GTE = range(6)
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_NETDEV_HOOKS = ("ingress", "egress")
_ARP_HOOKS = ("input", "output")
_L4_PROTOCOLS = {
    1: "icmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    47: "gre",
    50: "esp",
    51: "ah",
    58: "ipv6-icmp",
    132: "sctp",
}
_WITH_PORTS = frozenset({"6", "17", "33", "132", "136"})
_ETHERTYPES = {0x0800: 4, 0x86DD: 6}
_NFPROTOS: dict[int, int] = {Protocol.IP: 4, Protocol.IP6: 6}
_EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}
_ADDRESS_TYPES = (
    "unspec",
    "unicast",
    "local",
    "broadcast",
    "anycast",
    "multicast",
    "blackhole",
    "unreachable",
    "prohibit",
)
"""RTN_* of rtnetlink(7), by number."""
_CT_STATES = {1: "invalid", 2: "established", 4: "related", 8: "new", 64: "untracked"}
_VERDICTS = {0: "drop", 1: "accept", 3: "queue", -3: "jump", -4: "goto", -5: "return"}
_XT_CT_STATES = {1: "invalid", 2: "established", 4: "related", 8: "new", 256: "untracked"}
_WITHOUT_EFFECT = frozenset({"flow_offload", "last", "log", "notrack"})
_DECIDING = frozenset({"fwd", "synproxy", "tproxy"})
_TARGETS_WITHOUT_VERDICT = frozenset(
    {"AUDIT", "CHECKSUM", "CLASSIFY", "CONNSECMARK", "CT", "DSCP", "HL", "HMARK", "IDLETIMER", "LED", "LOG", "NFLOG"}
    | {"NOTRACK", "RATEEST", "SECMARK", "SET", "TCPMSS", "TCPOPTSTRIP", "TEE", "TOS", "TRACE", "TTL"}
)


@dataclass(frozen=True, slots=True)
class NftTable:
    """One table of nftables."""

    family: Literal["ip", "ip6", "inet", "arp", "bridge", "netdev"]
    name: str
    chains: tuple[FilterChain, ...]
    xtables: bool
    """It holds matches or targets of iptables, which the tool that wrote them can put into words."""


def read_nftables(namespace: Namespace) -> tuple[NftTable, ...]:
    """All tables of a namespace, as they were at one moment.

    Raises:
        OSError: with the kernel's errno: EPERM without CAP_NET_ADMIN over the namespace; EBUSY when the ruleset never
            held still.
    """
    for _ in range(_ATTEMPTS):
        try:
            with NfnetlinkSocket(namespace) as nfnetlink:
                before = nfnetlink.generation()
                tables = _Reader(nfnetlink, namespace).tables()
                if nfnetlink.generation() == before:
                    return tables
        except InterruptedError:
            continue
    raise OSError(errno.EBUSY, f"the ruleset changed during each of {_ATTEMPTS} attempts to read it")


@dataclass(frozen=True, slots=True)
class _Key:
    """A field of the packet in a register."""

    field: str
    words: str
    """The field in nft's words."""
    width: int
    """Octets that the whole field has; a register may hold fewer, from its beginning."""
    held: int
    host_order: bool = False
    mask: int | None = None
    """In the field's own order."""
    xor: int = 0

    def value(self, octets: bytes) -> int:
        """The number that some octets of the register are."""
        return int.from_bytes(octets, sys.byteorder if self.host_order else "big")


@dataclass(frozen=True, slots=True)
class _Set:
    """A set or map, with the elements that it held."""

    key_length: int
    flags: int
    elements: tuple[_Element, ...]


@dataclass(frozen=True, slots=True)
class _Element:
    key: bytes
    end: bytes | None = None
    verdict: tuple[str, str | None] | None = None
    catchall: bool = False


@dataclass(slots=True)
class _Registers:
    """The state of one rule while it is read."""

    family: int | None
    """The IP version that the rule is about by now."""
    keys: dict[int, _Key] = field(default_factory=dict)
    constants: dict[int, bytes] = field(default_factory=dict)
    matches: list[FilterMatch] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    alternatives: list[tuple[FilterMatch, str, str | None]] = field(default_factory=list)
    """The entries of a verdict map."""
    verdict: str | None = None
    argument: str | None = None
    set_mark: str | None = None
    packets: int | None = None
    octets: int | None = None
    xtables: bool = False

    def match(self, condition: FilterMatch, words: str) -> None:
        """Note one condition."""
        self.matches.append(condition)
        if words:
            self.words.append(words)

    def unknown(self, words: str) -> None:
        """Note a condition that cannot be evaluated."""
        self.match(FilterMatch(field="unknown", values=(words,)), words)

    def decide(self, verdict: str, argument: str | None = None, words: str | None = None) -> None:
        """Note what the rule decides."""
        self.verdict, self.argument = verdict, argument
        self.words.append(words or " ".join(filter(None, (verdict, argument))))


class _Reader:
    """Reads one namespace's tables; keeps the sets that rules refer to."""

    def __init__(self, nfnetlink: NfnetlinkSocket, namespace: Namespace) -> None:
        self._nfnetlink = nfnetlink
        self._namespace = namespace
        self._sets: dict[tuple[Protocol, str, str], _Set] = {}

    @cached_property
    def _interfaces(self) -> dict[int, str]:
        return dict(self._namespace.call(socket.if_nameindex))

    @cached_property
    def _set_descriptions(self) -> dict[tuple[Protocol, str, str], tuple[int, int]]:
        found = {}
        for message in self._nfnetlink.dump(MessageType.GETSET):
            parts = attributes(message.body)
            found[message.family, as_string(parts[1]), as_string(parts[2])] = (
                as_number(parts.get(5, b"")),
                as_number(parts.get(3, b"")),
            )
        return found

    def tables(self) -> tuple[NftTable, ...]:
        dormant: dict[tuple[Protocol, str], bool] = {}
        for message in self._nfnetlink.dump(MessageType.GETTABLE):
            parts = attributes(message.body)
            dormant[message.family, as_string(parts[1])] = bool(as_number(parts.get(2, b"")) & _TABLE_DORMANT)
        if not dormant:
            return ()
        chains: dict[tuple[Protocol, str, str], dict[int, bytes]] = {}
        for message in self._nfnetlink.dump(MessageType.GETCHAIN):
            parts = attributes(message.body)
            chains[message.family, as_string(parts[1]), as_string(parts[3])] = parts
        rules: dict[tuple[Protocol, str, str], list[FilterRule]] = {key: [] for key in chains}
        with_xtables: set[tuple[Protocol, str]] = set()
        for message in self._nfnetlink.dump(MessageType.GETRULE):
            parts = attributes(message.body)
            table, chain = as_string(parts[1]), as_string(parts[2])
            state = self._read_rule(message.family, table, parts.get(4, b""))
            rules.setdefault((message.family, table, chain), []).extend(
                _rules_of(state, as_number(parts[3]), _comment(parts.get(7, b"")))
            )
            if state.xtables:
                with_xtables.add((message.family, table))
        return tuple(
            NftTable(
                family=cast(Literal["ip", "ip6", "inet", "arp", "bridge", "netdev"], family.name.lower()),
                name=name,
                chains=tuple(
                    _chain(key, parts, tuple(rules[key]), asleep)
                    for key, parts in chains.items()
                    if key[:2] == (family, name)
                ),
                xtables=(family, name) in with_xtables,
            )
            for (family, name), asleep in dormant.items()
        )

    def _read_rule(self, family: Protocol, table: str, expressions: bytes) -> _Registers:
        state = _Registers(_NFPROTOS.get(family))
        for _, body in elements(expressions):
            expression = attributes(body)
            name = as_string(expression[1])
            parts = attributes(expression.get(2, b""))
            if name == "lookup":
                self._lookup(state, family, table, parts)
            elif name in _EXPRESSIONS:
                _EXPRESSIONS[name](state, parts, self._name_of)
            elif name in _WITHOUT_EFFECT:
                state.words.append(name)
            elif name in _DECIDING:
                state.decide("unknown", words=name)
            else:
                # It may have loaded any register: nothing that was in one can be relied on.
                state.keys.clear()
                state.constants.clear()
                state.unknown(name)
        return state

    def _name_of(self, index: int) -> str:
        return self._interfaces.get(index, f"if{index}")

    def _lookup(self, state: _Registers, family: Protocol, table: str, parts: dict[int, bytes]) -> None:
        name = as_string(parts[1])
        inverted = bool(as_number(parts.get(5, b"")) & 1)
        key = state.keys.get(_register(parts[2]))
        target = _register(parts[3]) if 3 in parts else None
        members = self._set(family, table, name)
        words = f"{key.words if key else '?'} {'!= ' if inverted else ''}@{name}"
        plain = [one for one in members.elements if not one.catchall] if members else []
        values = [self._element_values(key, members, one) for one in plain]
        known = [value for several in values if several for value in several]
        readable = members is not None and None not in values
        catchall = members is not None and any(one.catchall for one in members.elements)
        if target == 0 and members is not None:
            state.words.append(f"{words} vmap")
            for one, condition in zip(plain, values, strict=True):
                if one.verdict:
                    state.alternatives.append((_condition(key, condition, words), *one.verdict))
            for one in members.elements:
                if one.catchall and one.verdict:
                    condition = tuple(known) if readable else None
                    state.alternatives.append((_condition(key, condition, words, negated=True), *one.verdict))
        elif readable and key is not None and not catchall:
            state.match(
                FilterMatch(field=key.field, values=tuple(known), negated=inverted),
                f"{key.words} {'!= ' if inverted else ''}{{ {', '.join(known)} }}",
            )
        else:
            state.unknown(words)
        if target:
            state.constants.pop(target, None)
            state.keys.pop(target, None)

    def _element_values(self, key: _Key | None, members: _Set | None, one: _Element) -> tuple[str, ...] | None:
        if key is None or members is None or members.flags & _SET_CONCAT or members.key_length > (key.held + 3 & ~3):
            return None
        return _values_between(key, one.key, one.end, self._name_of)

    def _set(self, family: Protocol, table: str, name: str) -> _Set | None:
        if (family, table, name) not in self._set_descriptions:
            return None
        if (family, table, name) not in self._sets:
            length, flags = self._set_descriptions[family, table, name]
            found: list[tuple[bytes, int, bytes | None, tuple[str, str | None] | None]] = []
            for message in self._nfnetlink.dump(MessageType.GETSETELEM, family, string(1, table) + string(2, name)):
                for _, body in elements(attributes(message.body).get(3, b"")):
                    parts = attributes(body)
                    found.append(
                        (
                            attributes(parts.get(1, b"")).get(1, b""),
                            as_number(parts.get(3, b"")),
                            attributes(parts[10]).get(1) if 10 in parts else None,
                            _verdict(attributes(parts[2]).get(2)) if 2 in parts else None,
                        )
                    )
            self._sets[family, table, name] = _Set(length, flags, tuple(_elements_of(found, flags, length)))
        return self._sets[family, table, name]


def _elements_of(
    found: list[tuple[bytes, int, bytes | None, tuple[str, str | None] | None]], flags: int, length: int
) -> Iterator[_Element]:
    """Put the two ends of each interval together; an end is the first key that is outside."""
    catchall = [one for one in found if one[1] & _ELEMENT_CATCHALL]
    for _, _, _, verdict in catchall:
        yield _Element(b"", None, verdict, catchall=True)
    plain = sorted((one for one in found if not one[1] & _ELEMENT_CATCHALL), key=lambda one: (one[0], -one[1]))
    for position, (key, element_flags, end, verdict) in enumerate(plain):
        if element_flags & _ELEMENT_INTERVAL_END:
            continue
        if flags & _SET_INTERVAL and end is None:
            following = next((one[0] for one in plain[position + 1 :]), None)
            last = int.from_bytes(following, "big") - 1 if following else (1 << 8 * length) - 1
            end = last.to_bytes(length, "big")
        yield _Element(key, end, verdict)


def _chain(
    key: tuple[Protocol, str, str], parts: dict[int, bytes], rules: tuple[FilterRule, ...], asleep: bool
) -> FilterChain:
    family, table, name = key
    hook = priority = policy = kind = None
    if 4 in parts and not asleep:
        where = attributes(parts[4])
        names = {Protocol.NETDEV: _NETDEV_HOOKS, Protocol.ARP: _ARP_HOOKS}.get(family, _HOOKS)
        position = as_number(where[1])
        hook = names[position] if position < len(names) else str(position)
        priority = int.from_bytes(where[2], "big", signed=True)
        policy = "accept" if as_number(parts.get(5, b"\1")) else "drop"
        kind = as_string(parts.get(7, b"filter"))
    return FilterChain(
        backend="nft",
        family=cast(Literal["ip", "ip6", "inet", "arp", "bridge", "netdev"], family.name.lower()),
        table=table,
        name=name,
        type=kind,
        hook=hook,
        priority=priority,
        policy=policy,
        rules=rules,
    )


def _rules_of(state: _Registers, handle: int, comment: str) -> Iterator[FilterRule]:
    matches = list(state.matches)
    version = state.family
    if version and any(match.field == "version" for match in matches):
        matches = [match for match in matches if match.field != "version"]
        width = ":" if version == 6 else "."
        if not any(m.field in ("source", "destination") and not m.negated and width in m.values[0] for m in matches):
            matches.insert(0, FilterMatch(field="source", values=(_EVERYTHING[version],)))
    text = " ".join(state.words) + (f' comment "{comment}"' if comment else "")
    whole = FilterRule(
        matches=tuple(matches),
        verdict=state.verdict,
        argument=state.argument,
        set_mark=state.set_mark,
        packets=state.packets,
        bytes=state.octets,
        handle=handle,
        text=text,
    )
    if not state.alternatives:
        yield whole
    for condition, verdict, argument in state.alternatives:
        yield FilterRule(
            matches=(*matches, condition),
            verdict=verdict,
            argument=argument,
            set_mark=state.set_mark,
            packets=state.packets,
            bytes=state.octets,
            handle=handle,
            text=text,
        )


def _comment(user_data: bytes) -> str:
    """The comment that nft keeps in a rule's user data (type, length, value); empty where there is something else."""
    offset = 0
    while offset + 2 <= len(user_data):
        kind, length = user_data[offset], user_data[offset + 1]
        value = user_data[offset + 2 : offset + 2 + length]
        if kind == 0 and value.endswith(b"\0"):
            return value[:-1].decode(errors="replace")
        offset += 2 + length
    return ""


def _register(payload: bytes) -> int:
    """A register by its offset in 32-bit steps: the kernel has names for 128-bit and for 32-bit ones."""
    position = as_number(payload)
    return position * 4 if position <= 4 else position - 4


def _constant(payload: bytes) -> bytes:
    return attributes(payload).get(1, b"")


def _verdict(payload: bytes | None) -> tuple[str, str | None] | None:
    if payload is None:
        return None
    parts = attributes(payload)
    code = int.from_bytes(parts[1], "big", signed=True)
    name = _VERDICTS.get(code if code < 0 else code & 0xFF)
    return None if name is None else (name, as_string(parts[2]) if 2 in parts else None)


def _condition(key: _Key | None, values: tuple[str, ...] | None, words: str, negated: bool = False) -> FilterMatch:
    if key is None or values is None:
        return FilterMatch(field="unknown", values=(words,))
    return FilterMatch(field=key.field, values=values, negated=negated)


def _mark(value: int, mask: int) -> str:
    return f"0x{value:x}/0x{mask:x}"


def _address(octets: bytes) -> IPv4Address | IPv6Address:
    return ip_address(octets)


def _values_between(
    key: _Key, first: bytes, last: bytes | None, name_of: Callable[[int], str]
) -> tuple[str, ...] | None:
    """The values of a field from ``first`` to ``last``, both included; None when they cannot be put into words."""
    if last is None or first == last:
        return _values(key, first, name_of)
    if key.mask is not None or key.xor:
        return None
    if key.field in ("source", "destination"):
        low, high = _address(first.ljust(key.width, b"\0")), _address(last.ljust(key.width, b"\xff"))
        if isinstance(low, IPv4Address) and isinstance(high, IPv4Address):
            return tuple(str(network) for network in summarize_address_range(low, high))
        if isinstance(low, IPv6Address) and isinstance(high, IPv6Address):
            return tuple(str(network) for network in summarize_address_range(low, high))
    begin, end = key.value(first[: key.held]), key.value(last[: key.held])
    if key.field in ("sport", "dport"):
        return (f"{begin}-{end}",)
    if key.field == "protocol":
        return tuple(str(one) for one in range(begin, end + 1))
    return None


def _values(key: _Key, octets: bytes, name_of: Callable[[int], str]) -> tuple[str, ...] | None:
    """The values that a field has when its register equals ``octets``; None when they cannot be put into words."""
    if key.xor:
        return None
    if key.field in ("source", "destination"):
        held = octets[: key.held]
        bits = 8 * key.width
        mask = (1 << 8 * key.held) - 1 if key.mask is None else key.mask
        mask <<= 8 * (key.width - key.held)
        length = mask.bit_count()
        if mask != ((1 << bits) - 1) ^ ((1 << bits - length) - 1):
            return None
        return (f"{_address(held.ljust(key.width, bytes(1)))}/{length}",)
    if key.field in ("iif", "oif"):
        if key.mask is not None:
            return None
        if key.host_order:
            return (name_of(key.value(octets[:4])),)
        name = as_string(octets)
        return (name if b"\0" in octets or len(octets) >= key.width else f"{name}*",)
    value = key.value(octets[: key.held])
    if key.field == "mark":
        return (_mark(value, 0xFFFFFFFF if key.mask is None else key.mask),)
    if key.mask is not None:
        return None
    if key.field in ("protocol", "sport", "dport"):
        return (str(value),)
    if key.field in ("dst-type", "src-type"):
        return (_ADDRESS_TYPES[value],) if value < len(_ADDRESS_TYPES) else None
    if key.field == "ctstate":
        return (_CT_STATES[value],) if value in _CT_STATES else None
    return None


def _payload(state: _Registers, parts: dict[int, bytes], _: Callable[[int], str]) -> None:
    if 1 not in parts:
        state.words.append("payload set")
        return
    base, offset, length = (as_number(parts[kind]) for kind in (2, 3, 4))
    key = _Key("unknown", f"@{('ll', 'nh', 'th', 'ih')[base]},{offset * 8},{length * 8}", length, length)
    addresses = {4: ((12, 16), 4, "ip"), 6: ((8, 24), 16, "ip6")}
    if base == 0 and length == 6 and offset in (0, 6):
        key = _Key("unknown", f"ether {'saddr' if offset else 'daddr'}", 6, 6)
    elif base == 0 and (offset, length) == (12, 2):
        key = _Key("ethertype", "ether type", 2, 2)
    elif base == 1 and state.family:
        starts, width, words = addresses[state.family]
        for start, name, short in zip(starts, ("source", "destination"), ("saddr", "daddr"), strict=True):
            if offset == start and length <= width:
                key = _Key(name, f"{words} {short}", width, length)
        if (offset, length) == ((9, 1) if state.family == 4 else (6, 1)):
            key = _Key("protocol", f"{words} {'protocol' if state.family == 4 else 'nexthdr'}", 1, 1)
    elif base == 2 and length == 2 and offset in (0, 2):
        # The condition on the protocol that nft puts before it tells whether these octets are ports.
        last = next((match for match in reversed(state.matches) if match.field == "protocol"), None)
        if last and not last.negated and set(last.values) <= _WITH_PORTS:
            name = "sport" if offset == 0 else "dport"
            key = _Key(name, f"{_protocol_names(last.values) if len(last.values) == 1 else 'th'} {name}", 2, 2)
    elif base == 2 and length == 1 and offset in (0, 1):
        last = next((match for match in reversed(state.matches) if match.field == "protocol"), None)
        if last and last.values in (("1",), ("58",)):
            words = "icmp" if last.values == ("1",) else "icmpv6"
            key = _Key("unknown", f"{words} {('type', 'code')[offset]}", 1, 1)
    state.keys[_register(parts[1])] = key


def _meta(state: _Registers, parts: dict[int, bytes], _: Callable[[int], str]) -> None:
    key = as_number(parts[2])
    if 3 in parts:
        if key == 3:
            _set_mark(state, _register(parts[3]))
        else:
            state.words.append(f"meta {key} set")
        return
    state.keys[_register(parts[1])] = _META.get(key, _Key("unknown", f"meta {key}", 4, 4, host_order=True))


def _set_mark(state: _Registers, register: int) -> None:
    if register in state.constants:
        value = int.from_bytes(state.constants[register][:4], sys.byteorder)
        state.set_mark = _mark(value, 0xFFFFFFFF)
    elif register in state.keys and state.keys[register].field == "mark":
        key = state.keys[register]
        kept = 0xFFFFFFFF if key.mask is None else key.mask
        state.set_mark = _mark(key.xor, kept ^ 0xFFFFFFFF)
    else:
        state.set_mark = "unknown"
    state.words.append(f"meta mark set {state.set_mark}")


def _ct(state: _Registers, parts: dict[int, bytes], _: Callable[[int], str]) -> None:
    key = as_number(parts[2])
    if 1 not in parts:
        state.words.append(f"ct {key} set")
    elif key == 0:
        state.keys[_register(parts[1])] = _Key("ctstate", "ct state", 4, 4, host_order=True)
    else:
        state.keys[_register(parts[1])] = _Key("unknown", f"ct {key}", 4, 4, host_order=True)


def _fib(state: _Registers, parts: dict[int, bytes], _: Callable[[int], str]) -> None:
    result, flags = as_number(parts[2]), as_number(parts[3])
    name, words = {1: ("src-type", "saddr"), 2: ("dst-type", "daddr")}.get(flags, ("unknown", f"flags {flags}"))
    if result != 3:
        name, words = "unknown", f"flags {flags} result {result}"
    state.keys[_register(parts[1])] = _Key(name, f"fib {words} type", 4, 4, host_order=True)


def _bitwise(state: _Registers, parts: dict[int, bytes], _: Callable[[int], str]) -> None:
    key = state.keys.get(_register(parts[1]))
    source, target = _register(parts[1]), _register(parts[2])
    state.constants.pop(target, None)
    if key is None or as_number(parts.get(6, b"")) or 4 not in parts:
        state.keys[target] = _Key("unknown", key.words if key else f"register {source}", 4, 4)
        return
    mask, xor = key.value(_constant(parts[4])), key.value(_constant(parts[5]))
    state.keys[target] = _Key(key.field, key.words, key.width, key.held, key.host_order, mask, xor)


def _byteorder(state: _Registers, parts: dict[int, bytes], _: Callable[[int], str]) -> None:
    key = state.keys.get(_register(parts[1]))
    if key is not None:
        swapped = not key.host_order
        state.keys[_register(parts[2])] = _Key(key.field, key.words, key.width, key.held, swapped, key.mask, key.xor)


def _cmp(state: _Registers, parts: dict[int, bytes], name_of: Callable[[int], str]) -> None:
    operator, octets = as_number(parts[2]), _constant(parts[3])
    key = state.keys.get(_register(parts[1]), _Key("unknown", "?", len(octets), len(octets)))
    sign = ("", "!= ", "< ", "<= ", "> ", ">= ")[operator]
    if key.field in ("nfproto", "ethertype"):
        value = key.value(octets[: key.held])
        version = (_NFPROTOS if key.field == "nfproto" else _ETHERTYPES).get(value)
        if operator == _EQ and version:
            state.family = version
            name = f"ipv{version}" if key.field == "nfproto" else {4: "ip", 6: "ip6"}[version]
            state.match(FilterMatch(field="version", values=(str(version),)), f"{key.words} {name}")
        else:
            state.unknown(f"{key.words} {sign}0x{value:x}")
        return
    if key.field == "ctstate" and key.mask is not None and not key.xor and not any(octets):
        states = tuple(name for bit, name in _CT_STATES.items() if key.mask & bit)
        negated = operator == _EQ
        if not key.mask & ~sum(_CT_STATES) and operator in (_EQ, _NEQ):
            words = f"ct state {'!= ' if negated else ''}{','.join(states)}"
            state.match(FilterMatch(field="ctstate", values=states, negated=negated), words)
            return
    exact = operator in (_EQ, _NEQ)
    values = _values(key, octets, name_of) if exact else _compared(key, operator, octets, name_of)
    if values is None:
        state.unknown(f"{key.words} {sign}{_octets_in_words(key, octets)}")
        return
    condition = FilterMatch(field=key.field, values=values, negated=operator == _NEQ)
    if exact:
        state.match(condition, f"{key.words} {sign}{_in_words(condition)}")
    else:
        bound = str(_address(octets)) if key.field in ("source", "destination") else str(key.value(octets))
        state.match(condition, f"{key.words} {sign}{bound}")


def _compared(key: _Key, operator: int, octets: bytes, name_of: Callable[[int], str]) -> tuple[str, ...] | None:
    """The values below or above a bound."""
    if key.field not in ("source", "destination", "sport", "dport") or key.held != key.width:
        return None
    bound, highest = int.from_bytes(octets, "big"), (1 << 8 * key.width) - 1
    first, last = {
        _LT: (0, bound - 1),
        _LTE: (0, bound),
        _GT: (bound + 1, highest),
        _GTE: (bound, highest),
    }[operator]
    if first > last:
        return None
    return _values_between(key, first.to_bytes(key.width, "big"), last.to_bytes(key.width, "big"), name_of)


def _range(state: _Registers, parts: dict[int, bytes], name_of: Callable[[int], str]) -> None:
    first, last, negated = _constant(parts[3]), _constant(parts[4]), bool(as_number(parts[2]))
    key = state.keys.get(_register(parts[1]), _Key("unknown", "?", len(first), len(first)))
    values = _values_between(key, first, last, name_of)
    sign = "!= " if negated else ""
    if values is None:
        state.unknown(f"{key.words} {sign}0x{first.hex()}-0x{last.hex()}")
    else:
        condition = FilterMatch(field=key.field, values=values, negated=negated)
        state.match(condition, f"{key.words} {sign}{_in_words(condition)}")


def _immediate(state: _Registers, parts: dict[int, bytes], _: Callable[[int], str]) -> None:
    content = attributes(parts[2])
    if 2 in content:
        decided = _verdict(content[2])
        if decided:
            state.decide(*decided)
    else:
        state.keys.pop(_register(parts[1]), None)
        state.constants[_register(parts[1])] = content.get(1, b"")


def _counter(state: _Registers, parts: dict[int, bytes], _: Callable[[int], str]) -> None:
    state.octets, state.packets = as_number(parts[1]), as_number(parts[2])
    state.words.append(f"counter packets {state.packets} bytes {state.octets}")


def _nat(state: _Registers, parts: dict[int, bytes], _: Callable[[int], str]) -> None:
    ends = [state.constants.get(_register(parts[kind])) if kind in parts else None for kind in (3, 4)]
    addresses = [str(_address(end[:16] if len(end) >= 16 else end[:4])) for end in ends if end]
    argument = "-".join(dict.fromkeys(addresses)) or None
    verdict = "dnat" if as_number(parts[1]) else "snat"
    ports = state.constants.get(_register(parts[5])) if 5 in parts else None
    port = f":{as_number(ports[:2])}" if ports else ""
    state.decide(verdict, argument, f"{verdict} to {argument or '?'}{port}")


def _fixed(verdict: str) -> Callable[[_Registers, dict[int, bytes], Callable[[int], str]], None]:
    def read(state: _Registers, _: dict[int, bytes], __: Callable[[int], str]) -> None:
        state.decide(verdict)

    return read


def _reject(state: _Registers, _: dict[int, bytes], __: Callable[[int], str]) -> None:
    state.decide("reject")


def _duplicate(state: _Registers, parts: dict[int, bytes], name_of: Callable[[int], str]) -> None:
    octets = state.constants.get(_register(parts[2])) if 2 in parts else state.constants.get(_register(parts[1]))
    device = name_of(int.from_bytes(octets[:4], sys.byteorder)) if octets else "?"
    state.words.append(f'dup to "{device}"')


def _xt_match(state: _Registers, parts: dict[int, bytes], _: Callable[[int], str]) -> None:
    state.xtables = True
    name, revision, blob = as_string(parts[1]), as_number(parts[2]), parts.get(3, b"")
    if name == "comment":
        state.words.append(f'comment "{as_string(blob)}"')
        return
    found = list(_xt_conditions(name, revision, blob))
    for condition in found:
        state.match(condition, f"{condition.field} {'!= ' if condition.negated else ''}{_in_words(condition)}")
    if not found:
        state.unknown(f"xt match {name}")


def _xt_conditions(name: str, revision: int, blob: bytes) -> Iterator[FilterMatch]:
    """The conditions of those matches whose layout (linux/netfilter/xt_*.h) is simple; nothing for others."""
    if name == "addrtype" and revision == 1:
        source, destination, flags = struct.unpack_from("=HHI", blob)
        if flags & ~3:
            return
        for bits, inverted, side in ((source, flags & 1, "src-type"), (destination, flags & 2, "dst-type")):
            if bits:
                names = tuple(kind for bit, kind in enumerate(_ADDRESS_TYPES) if bits >> bit & 1)
                yield FilterMatch(field=side, values=names, negated=bool(inverted))
    elif name == "conntrack" and revision == 3:
        matched, inverted, bits = struct.unpack_from("=HHH", blob, 146)
        states = tuple(state for bit, state in _XT_CT_STATES.items() if bits & bit)
        if matched == 1 and not bits & ~sum(_XT_CT_STATES):
            yield FilterMatch(field="ctstate", values=states, negated=bool(inverted & 1))
    elif name == "mark" and revision == 1:
        value, mask, inverted = struct.unpack_from("=IIB", blob)
        yield FilterMatch(field="mark", values=(_mark(value, mask),), negated=bool(inverted))
    elif name in ("tcp", "udp") and revision == 0:
        ports = struct.unpack_from("=HHHH", blob)
        inverted = blob[11] if name == "tcp" else blob[8]
        if name == "tcp" and (blob[8] or blob[9] or inverted & 12):
            return
        for low, high, bit, side in ((*ports[:2], 1, "sport"), (*ports[2:], 2, "dport")):
            if (low, high) != (0, 65535) or inverted & bit:
                values = (str(low) if low == high else f"{low}-{high}",)
                yield FilterMatch(field=side, values=values, negated=bool(inverted & bit))


def _xt_target(state: _Registers, parts: dict[int, bytes], _: Callable[[int], str]) -> None:
    state.xtables = True
    name, revision, blob = as_string(parts[1]), as_number(parts[2]), parts.get(3, b"")
    if name in ("MASQUERADE", "REDIRECT", "REJECT"):
        state.decide(name.lower(), words=name)
    elif name in ("SNAT", "DNAT"):
        # SNAT and early DNAT count their ranges first; the address stands behind the range's flags, as in IPv6.
        offset = 8 if revision < 2 and len(blob) < 40 else 4
        width = 4 if state.family == 4 else 16
        argument = str(_address(blob[offset : offset + width]))
        state.decide(name.lower(), argument, f"{name} to {argument}")
    elif name == "MARK" and revision == 2:
        value, mask = struct.unpack_from("=II", blob)
        state.set_mark = _mark(value, mask)
        state.words.append(f"MARK xset {state.set_mark}")
    elif name == "CONNMARK":
        state.set_mark = "unknown"
        state.words.append(name)
    elif name == "NFQUEUE":
        state.decide("queue", words=name)
    elif name in _TARGETS_WITHOUT_VERDICT:
        state.words.append(name)
    else:
        state.decide("unknown", words=name)


def _protocol_names(values: tuple[str, ...]) -> str:
    return ", ".join(_L4_PROTOCOLS.get(int(value), value) for value in values)


def _in_words(condition: FilterMatch) -> str:
    if condition.field == "protocol":
        words = _protocol_names(condition.values)
    elif condition.field in ("iif", "oif"):
        words = ", ".join(f'"{value}"' for value in condition.values)
    elif condition.field in ("source", "destination"):
        words = ", ".join(value.removesuffix("/32").removesuffix("/128") for value in condition.values)
    else:
        words = ", ".join(condition.values)
    return words if len(condition.values) == 1 else f"{{ {words} }}"


def _octets_in_words(key: _Key, octets: bytes) -> str:
    if key.words.startswith("ether ") and len(octets) == 6:
        return octets.hex(":")
    if key.words.startswith("icmp"):
        return str(octets[0])
    mask = "" if key.mask is None else f"& 0x{key.mask:x} == "
    return f"{mask}0x{octets.hex()}"


_META = {
    1: _Key("ethertype", "meta protocol", 2, 2),
    3: _Key("mark", "meta mark", 4, 4, host_order=True),
    4: _Key("iif", "iif", 4, 4, host_order=True),
    5: _Key("oif", "oif", 4, 4, host_order=True),
    6: _Key("iif", "iifname", 16, 16),
    7: _Key("oif", "oifname", 16, 16),
    15: _Key("nfproto", "meta nfproto", 1, 1),
    16: _Key("protocol", "meta l4proto", 1, 1),
}
_EXPRESSIONS: dict[str, Callable[[_Registers, dict[int, bytes], Callable[[int], str]], None]] = {
    "bitwise": _bitwise,
    "byteorder": _byteorder,
    "cmp": _cmp,
    "counter": _counter,
    "ct": _ct,
    "dup": _duplicate,
    "fib": _fib,
    "immediate": _immediate,
    "masq": _fixed("masquerade"),
    "match": _xt_match,
    "meta": _meta,
    "nat": _nat,
    "payload": _payload,
    "queue": _fixed("queue"),
    "range": _range,
    "redir": _fixed("redirect"),
    "reject": _reject,
    "target": _xt_target,
}
