"""Reads the packet filter of a live namespace: nftables over netlink, and iptables-save where only it prints rules."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

from viacheck.host.command import NOT_FOUND
from viacheck.host.namespace import Namespace
from viacheck.model.filter_chains import PacketFilter
from viacheck.netlink.codec import MalformedMessage
from viacheck.netlink.nft_decode import NftTable, read_nftables
from viacheck.netlink.packet_filter import IPTABLES_FAMILIES, IptablesSave, NftRuleset, merge_packet_filter
from viacheck.parsers.ipset_save import NotIpsetSave, SavedSets, parse_ipset_save
from viacheck.parsers.iptables_save import written_by_nft_backend

_NO_NFTABLES = (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)
"""The kernel's answers when it does not have nf_tables, and thus no rules in it."""


class _NotSaved(Exception):
    """No tool could print the tables; the message says why."""


def read_packet_filter(namespace: Namespace) -> PacketFilter:
    """Read all chains of a namespace. Sources that cannot be read are listed in ``unread``; none raises an error."""
    unread: list[str] = []
    tables: tuple[NftTable, ...] = ()
    try:
        tables = read_nftables(namespace)
    except OSError as error:
        if error.errno not in _NO_NFTABLES:
            unread.append(f"nftables: {error.strerror}")
    except MalformedMessage as error:
        unread.append(f"nftables: {error}")
    saves = [save for family, prefix in IPTABLES_FAMILIES for save in _saves(namespace, family, prefix, tables, unread)]
    chains = tuple(chain for table in tables for chain in table.chains)
    return merge_packet_filter(
        NftRuleset(chains, "netlink") if tables else None, saves, unread, partial(_sets, namespace)
    )


def _sets(namespace: Namespace) -> SavedSets:
    """Return the sets of ipset, which rules of iptables name."""
    result = namespace.run(["ipset", "save"])
    if not result.ok:
        missing = result.exit_code == NOT_FOUND
        why = "is missing" if missing else f"save ended with {result.exit_code}: {result.stderr.strip()}"
        return SavedSets(problem=f"ipset {why}")
    try:
        return SavedSets(parse_ipset_save(result.stdout))
    except NotIpsetSave as error:
        return SavedSets(problem=str(error))


def _saves(
    namespace: Namespace,
    family: Literal["ip", "ip6"],
    prefix: str,
    tables: Sequence[NftTable],
    unread: list[str],
) -> Iterator[IptablesSave]:
    """Yield the texts of a family's tools; add to ``unread`` where a tool is needed and no tool works."""
    if any(table.xtables for table in tables if table.family == family):
        # Without the tool no rule is lost: in netlink's reading a condition that only iptables-save prints is unknown.
        with contextlib.suppress(_NotSaved):
            yield _save(namespace, family, prefix, "nft")
    try:
        if _has_legacy_tables(namespace, family):
            yield _save(namespace, family, prefix, "legacy")
    except _NotSaved as error:
        unread.append(f"{prefix}-legacy: {error}")
    except OSError as error:
        unread.append(f"{prefix}-legacy: {error.filename}: {error.strerror}")


def _has_legacy_tables(namespace: Namespace, family: str) -> bool:
    """Return whether legacy tables exist, without a request for a table: the kernel would load and register it."""

    def read() -> bool:
        with open(f"/proc/thread-self/net/{family}_tables_names") as names:
            return bool(names.read().strip())

    try:
        return namespace.call(read)
    except FileNotFoundError:
        return False


def _save(
    namespace: Namespace, family: Literal["ip", "ip6"], prefix: str, variant: Literal["nft", "legacy"]
) -> IptablesSave:
    """Return the text of the first tool that prints a variant's tables.

    Raises:
        _NotSaved: when every tool is missing or fails.
    """
    refused = []
    for tool in (f"{prefix}-{variant}-save", f"{prefix}-save"):
        result = namespace.run([tool, "-c"])
        if result.ok and written_by_nft_backend(result.stdout) == (variant == "nft"):
            return IptablesSave(tool, family, result.stdout)
        if result.ok:
            refused.append(f"{tool} reads the other backend")
        elif result.exit_code == NOT_FOUND:
            refused.append(f"{tool} is missing")
        else:
            refused.append(f"{tool} ended with {result.exit_code}: {result.stderr.strip()}")
    raise _NotSaved("; ".join(refused))
