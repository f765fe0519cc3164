"""The packet filter of a namespace as one value, merged from the nftables ruleset and the texts of iptables-save.

iptables-nft keeps its rules in nftables' tables, with parts that only iptables-save prints in full; iptables-legacy
keeps its rules elsewhere. A live host and a bundle read these sources in different ways and merge them here, so that
every table appears once, whichever tool read it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from viacheck.model.filter_chains import FilterChain, PacketFilter
from viacheck.parsers.comments import without_rule_comment
from viacheck.parsers.ipset_save import SavedSets, asks_for_sets, with_sets
from viacheck.parsers.iptables_save import parse_iptables_save, written_by_nft_backend

IPTABLES_TABLES = frozenset({"raw", "mangle", "nat", "filter", "security"})
"""The tables that iptables-nft keeps in the families ip and ip6."""
_IPTABLES_HOOKS = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})
IPTABLES_FAMILIES: tuple[tuple[Literal["ip", "ip6"], str], ...] = (("ip", "iptables"), ("ip6", "ip6tables"))
"""The families that iptables serves, each with the prefix of its tools."""

_TableKey = tuple[str, str]
"""Family and table."""


@dataclass(frozen=True, slots=True)
class NftRuleset:
    """The chains of nftables, and the program or protocol that read them."""

    chains: tuple[FilterChain, ...]
    read_with: str


@dataclass(frozen=True, slots=True)
class IptablesSave:
    """The text that one iptables-save printed."""

    tool: str
    family: Literal["ip", "ip6"]
    text: str

    @property
    def backend(self) -> Literal["iptables", "iptables-legacy"]:
        """The backend that the tool read, by its own header."""
        return "iptables" if written_by_nft_backend(self.text) else "iptables-legacy"


def merge_packet_filter(
    nft: NftRuleset | None,
    saves: Sequence[IptablesSave],
    unread: Sequence[str] = (),
    read_sets: Callable[[], SavedSets] = lambda: SavedSets(problem="not read"),
) -> PacketFilter:
    """Merge what was read into one packet filter.

    A chain of iptables-nft has the rules as iptables-save prints them, as long as both sources have the same number of
    rules; else nftables' own reading stands. A table that only one source has is never left out.

    Args:
        nft: the ruleset of nftables; None when it could not be read.
        saves: the texts of iptables-save, of both families and backends. Of two texts of the same family and backend
            the first counts.
        unread: what could not be read, with the reason.
        read_sets: returns the sets of ipset; it is called where a rule asks for one.
    """
    problems = list(unread)
    read_with = [nft.read_with] if nft is not None and nft.chains else []
    by_table = _by_table(nft.chains if nft is not None else ())
    merged: list[FilterChain] = []
    for family, _prefix in IPTABLES_FAMILIES:
        saved: dict[str, tuple[FilterChain, ...]] = {}
        for save in saves:
            if save.family != family:
                continue
            try:
                chains = parse_iptables_save(save.text, family, save.backend)
            except ValueError as error:
                problems.append(f"{save.tool}: {error}")
                continue
            read_with.append(save.tool)
            saved.setdefault(save.backend, chains)
        kernel = [table for table in by_table if table[0] == family and _of_iptables(table, by_table[table])]
        printed = _by_table(saved.get("iptables", ()))
        for table in kernel:
            merged += _as_printed(by_table.pop(table), printed.pop(table, []))
        # A table of that name that is not iptables' own stands as nftables has it.
        merged += [chain for table in printed if table not in by_table for chain in printed[table]]
        merged += saved.get("iptables-legacy", ())
    merged += [chain for chains_of_table in by_table.values() for chain in chains_of_table]
    if asks_for_sets(merged):
        merged = list(with_sets(merged, read_sets()))
    return PacketFilter(chains=tuple(merged), read_with=tuple(read_with), unread=tuple(problems))


def without_rule_comments(packet_filter: PacketFilter) -> PacketFilter:
    """Return the packet filter without the comments of its rules, which may hold anything."""
    chains = (
        replace(chain, rules=tuple(replace(rule, text=without_rule_comment(rule.text)) for rule in chain.rules))
        for chain in packet_filter.chains
    )
    return replace(packet_filter, chains=tuple(chains))


def _by_table(chains: Sequence[FilterChain]) -> dict[_TableKey, list[FilterChain]]:
    tables: dict[_TableKey, list[FilterChain]] = {}
    for chain in chains:
        tables.setdefault((chain.family, chain.table), []).append(chain)
    return tables


def _of_iptables(table: _TableKey, chains: Sequence[FilterChain]) -> bool:
    """Return whether the names are those that iptables-nft gives; the kernel does not know which tool wrote a table."""
    family, name = table
    hooked = {chain.name for chain in chains if chain.hook}
    return family in ("ip", "ip6") and name in IPTABLES_TABLES and hooked <= _IPTABLES_HOOKS


def _as_printed(chains: Sequence[FilterChain], printed: Sequence[FilterChain]) -> list[FilterChain]:
    """Return nftables' chains with the rules as iptables-save prints them, where it prints the same rules."""
    by_name = {chain.name: chain for chain in printed}
    merged = []
    for chain in chains:
        rules = chain.rules
        other = by_name.get(chain.name)
        if other is not None and len(other.rules) == len(rules):
            rules = tuple(replace(text, handle=rule.handle) for rule, text in zip(rules, other.rules, strict=True))
        merged.append(replace(chain, backend="iptables", rules=rules))
    return merged
