"""The nftables ruleset of a network namespace, read over netlink: every table with its chains and rules.

nft(8) can print the same as JSON, but takes 5 ms for a small ruleset (0.6 ms here), and may be missing on a host whose
rules matter all the same.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, cast

from viacheck.model.filter_chains import FilterChain, FilterRule
from viacheck.netlink.codec import MalformedMessage, as_string, attribute_table, string
from viacheck.netlink.nfnetlink import (
    EnterableNamespace,
    NfnetlinkSocket,
    NftFamily,
    NftMessage,
    NftMessageType,
    as_number,
)
from viacheck.netlink.nft_rule import filter_rules, read_rule
from viacheck.netlink.nft_sets import NftSet, SetDescription, decode_set

_ATTEMPTS = 5
_TABLE_DORMANT = 1
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_HOOKS_OF = {NftFamily.NETDEV: ("ingress", "egress"), NftFamily.ARP: ("input", "output")}
_IP_VERSIONS: dict[NftFamily, int] = {NftFamily.IP: 4, NftFamily.IP6: 6}
_COMMENT = 0
"""NFTNL_UDATA_RULE_COMMENT of libnftnl."""

FamilyName = Literal["ip", "ip6", "inet", "arp", "bridge", "netdev"]
ChainKey = tuple[NftFamily, str, str]
"""Family, table and chain."""


@dataclass(frozen=True, slots=True)
class NftTable:
    """One table of nftables."""

    family: FamilyName
    name: str
    chains: tuple[FilterChain, ...]
    xtables: bool
    """The table holds matches or targets of iptables, which iptables-save prints in full."""


def read_nftables(namespace: EnterableNamespace) -> tuple[NftTable, ...]:
    """Return all tables of a namespace, as they were at one moment.

    Raises:
        OSError: with the kernel's errno: EPERM without CAP_NET_ADMIN over the namespace; EBUSY when the ruleset changed
            during every attempt.
        MalformedMessage: when the kernel's answer is not a ruleset.
    """
    for _ in range(_ATTEMPTS):
        try:
            with NfnetlinkSocket(namespace) as nfnetlink:
                before = nfnetlink.generation()
                tables = _RulesetReader(nfnetlink, namespace).tables()
                if nfnetlink.generation() == before:
                    return tables
        except InterruptedError:
            continue
    raise OSError(errno.EBUSY, f"the ruleset changed during each of {_ATTEMPTS} attempts to read it")


class _RulesetReader:
    """Reads the tables of one namespace; keeps the sets that rules refer to."""

    def __init__(self, nfnetlink: NfnetlinkSocket, namespace: EnterableNamespace) -> None:
        self._nfnetlink = nfnetlink
        self._namespace = namespace
        self._sets: dict[tuple[NftFamily, str, str], NftSet] = {}

    @cached_property
    def _interfaces(self) -> dict[int, str]:
        return dict(self._namespace.call(socket.if_nameindex))

    @cached_property
    def _set_descriptions(self) -> dict[tuple[NftFamily, str, str], SetDescription]:
        messages = self._nfnetlink.dump(NftMessageType.GETSET)
        described = ((message.family, SetDescription.decode(message.body)) for message in messages)
        return {(family, members.table, members.name): members for family, members in described}

    def tables(self) -> tuple[NftTable, ...]:
        dormant: dict[tuple[NftFamily, str], bool] = {}
        for message in self._nfnetlink.dump(NftMessageType.GETTABLE):
            (name,), parts = _named(message, 1)
            dormant[message.family, name] = bool(as_number(parts.get(2, b"")) & _TABLE_DORMANT)
        if not dormant:
            return ()
        chains: dict[ChainKey, dict[int, bytes]] = {}
        for message in self._nfnetlink.dump(NftMessageType.GETCHAIN):
            (table, chain), parts = _named(message, 1, 3)
            chains[message.family, table, chain] = parts
        rules, with_xtables = self._rules()
        return tuple(
            NftTable(
                family=_family_name(family),
                name=name,
                chains=tuple(
                    decode_chain(key, parts, tuple(rules.get(key, ())), dormant=asleep)
                    for key, parts in chains.items()
                    if key[:2] == (family, name)
                ),
                xtables=(family, name) in with_xtables,
            )
            for (family, name), asleep in dormant.items()
        )

    def _rules(self) -> tuple[dict[ChainKey, list[FilterRule]], set[tuple[NftFamily, str]]]:
        """Return the rules of every chain, and the tables that hold parts of iptables."""
        rules: dict[ChainKey, list[FilterRule]] = {}
        with_xtables: set[tuple[NftFamily, str]] = set()
        for message in self._nfnetlink.dump(NftMessageType.GETRULE):
            (table, chain), parts = _named(message, 1, 2)
            state = read_rule(
                _IP_VERSIONS.get(message.family),
                parts.get(4, b""),
                self._interface_name,
                partial(self._set, message.family, table),
            )
            read = filter_rules(state, as_number(parts.get(3, b"")), decode_comment(parts.get(7, b"")))
            rules.setdefault((message.family, table, chain), []).extend(read)
            if state.xtables:
                with_xtables.add((message.family, table))
        return rules, with_xtables

    def _interface_name(self, index: int) -> str:
        return self._interfaces.get(index, f"if{index}")

    def _set(self, family: NftFamily, table: str, name: str) -> NftSet | None:
        key = (family, table, name)
        description = self._set_descriptions.get(key)
        if description is None:
            return None
        if key not in self._sets:
            request = string(1, table) + string(2, name)
            messages = self._nfnetlink.dump(NftMessageType.GETSETELEM, family, request)
            self._sets[key] = decode_set(description, (message.body for message in messages))
        return self._sets[key]


def _named(message: NftMessage, *numbers: int) -> tuple[tuple[str, ...], dict[int, bytes]]:
    """Return the names in some attributes of an object, and all of its attributes.

    Raises:
        MalformedMessage: when a name is missing.
    """
    parts = attribute_table(message.body)
    if not parts.keys() >= set(numbers):
        raise MalformedMessage(f"an object of nf_tables (type {message.type}) without a name")
    return tuple(as_string(parts[number]) for number in numbers), parts


def _family_name(family: NftFamily) -> FamilyName:
    return cast(FamilyName, family.name.lower())


def decode_chain(
    key: ChainKey, parts: dict[int, bytes], rules: tuple[FilterRule, ...], *, dormant: bool
) -> FilterChain:
    """Return a chain; a chain of a dormant table is at no hook.

    Raises:
        MalformedMessage: when the hook has no number or no priority.
    """
    family, table, name = key
    hook = priority = policy = kind = None
    if 4 in parts and not dormant:
        where = attribute_table(parts[4])
        if not {1, 2} <= where.keys():
            raise MalformedMessage("a hook without a number or a priority")
        names = _HOOKS_OF.get(family, _HOOKS)
        position = as_number(where[1])
        hook = names[position] if position < len(names) else str(position)
        priority = int.from_bytes(where[2], "big", signed=True)
        policy = "accept" if as_number(parts.get(5, b"\1")) else "drop"
        kind = as_string(parts.get(7, b"filter"))
    return FilterChain(
        backend="nft",
        family=_family_name(family),
        table=table,
        name=name,
        type=kind,
        hook=hook,
        priority=priority,
        policy=policy,
        rules=rules,
    )


def decode_comment(user_data: bytes) -> str:
    """Return the comment that nft keeps in a rule's user data (type, length, value); empty for other user data."""
    offset = 0
    while offset + 2 <= len(user_data):
        kind, length = user_data[offset], user_data[offset + 1]
        value = user_data[offset + 2 : offset + 2 + length]
        if kind == _COMMENT and value.endswith(b"\0"):
            return value[:-1].decode(errors="replace")
        offset += 2 + length
    return ""
