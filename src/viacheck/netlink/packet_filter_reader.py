"""The packet filter of a namespace as one value: nftables over netlink, iptables in the words of its own tools.

iptables-nft keeps its rules in nftables' tables, with parts that only iptables can put into words; iptables-legacy
keeps them elsewhere. Whichever tool reads a table, it is told once.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Literal

from viacheck.host.command import NOT_FOUND
from viacheck.host.namespace import Namespace
from viacheck.model.snapshot import FilterChain, FilterRule, PacketFilter
from viacheck.netlink.nft_decode import IPTABLES_TABLES, NftTable, read_nftables
from viacheck.parsers.iptables_save import parse_iptables_save, written_by_nft_backend

_NO_NFTABLES = (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)
"""What the kernel answers when it has no nf_tables, and thus no rules in it."""
_IPTABLES_CHAINS = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})
_PREFIXES: tuple[tuple[Literal["ip", "ip6"], str], ...] = (("ip", "iptables"), ("ip6", "ip6tables"))


class _NotSaved(Exception):
    """No tool could tell the tables; the message says why."""


def read_packet_filter(namespace: Namespace) -> PacketFilter:
    """Read all chains of a namespace. What cannot be read is told in ``unread``; nothing is raised for it."""
    chains: list[FilterChain] = []
    read_with: list[str] = []
    unread: list[str] = []
    tables: tuple[NftTable, ...] = ()
    try:
        tables = read_nftables(namespace)
    except OSError as error:
        if error.errno not in _NO_NFTABLES:
            unread.append(f"nftables: {error.strerror}")
    if tables:
        read_with.append("netlink")
    for family, prefix in _PREFIXES:
        of_iptables = [table for table in tables if table.family == family and _is_iptables(table)]
        saved: dict[tuple[str, str], FilterChain] = {}
        if any(table.xtables for table in of_iptables):
            try:
                tool, text = _save(namespace, prefix, "nft")
                saved = {(one.table, one.name): one for one in parse_iptables_save(text, family, "iptables")}
                read_with.append(tool)
            except _NotSaved:
                # Nothing is lost but words: what netlink told has each such condition as unknown.
                saved = {}
            except ValueError as error:
                unread.append(f"{prefix}-nft: {error}")
        for table in of_iptables:
            chains += [_in_words(chain, saved.get((table.name, chain.name))) for chain in table.chains]
        try:
            if _has_legacy_tables(namespace, prefix):
                tool, text = _save(namespace, prefix, "legacy")
                chains += parse_iptables_save(text, family, "iptables-legacy")
                read_with.append(tool)
        except (_NotSaved, ValueError) as error:
            unread.append(f"{prefix}-legacy: {error}")
        except OSError as error:
            unread.append(f"{prefix}-legacy: {error.filename}: {error.strerror}")
    for table in tables:
        if not _is_iptables(table):
            chains += table.chains
    return PacketFilter(chains=tuple(chains), read_with=tuple(read_with), unread=tuple(unread))


def _is_iptables(table: NftTable) -> bool:
    """Its names are those that iptables-nft gives; who wrote it, the kernel does not know."""
    hooked = {chain.name for chain in table.chains if chain.hook}
    return table.family in ("ip", "ip6") and table.name in IPTABLES_TABLES and hooked <= _IPTABLES_CHAINS


def _in_words(chain: FilterChain, saved: FilterChain | None) -> FilterChain:
    """The kernel's chain with the rules as iptables-nft-save tells them, where it told the same ones."""
    if saved is None or len(saved.rules) != len(chain.rules):
        return replace(chain, backend="iptables")
    rules = tuple(_told(rule, told) for rule, told in zip(chain.rules, saved.rules, strict=True))
    return replace(chain, backend="iptables", rules=rules)


def _told(rule: FilterRule, told: FilterRule) -> FilterRule:
    return replace(told, handle=rule.handle)


def _has_legacy_tables(namespace: Namespace, prefix: str) -> bool:
    """Whether legacy tables exist, without asking for one: asking makes the kernel load and register them."""
    family = "ip6" if prefix == "ip6tables" else "ip"

    def read() -> bool:
        with open(f"/proc/thread-self/net/{family}_tables_names") as names:
            return bool(names.read().strip())

    try:
        return namespace.call(read)
    except FileNotFoundError:
        return False


def _save(namespace: Namespace, prefix: str, variant: Literal["nft", "legacy"]) -> tuple[str, str]:
    """The tool that told a variant's tables, and what it said.

    Raises:
        _NotSaved: when no tool is there, or it failed.
    """
    refused = []
    for tool in (f"{prefix}-{variant}-save", f"{prefix}-save"):
        result = namespace.run([tool, "-c"])
        if result.ok and written_by_nft_backend(result.stdout) == (variant == "nft"):
            return tool, result.stdout
        if result.ok:
            refused.append(f"{tool} reads the other backend")
        elif result.exit_code == NOT_FOUND:
            refused.append(f"{tool} is missing")
        else:
            refused.append(f"{tool} ended with {result.exit_code}: {result.stderr.strip()}")
    raise _NotSaved("; ".join(refused))
