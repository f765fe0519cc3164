"""The names of routing tables that a host has registered, and whether they clash."""

from __future__ import annotations

from collections.abc import Iterable

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.policy_rule import Rule, rule_text
from viacheck.model.snapshot import Snapshot
from viacheck.parsers.rt_tables import TableEntry, registered


def table_entries(snapshot: Snapshot) -> list[TableEntry]:
    """Return every entry of the host's rt_tables files."""
    return registered(snapshot.files)


def number_of(entries: Iterable[TableEntry], name: str) -> int | None:
    """Return the number that a name stands for; the last entry wins."""
    numbers = [entry.number for entry in entries if entry.name == name]
    return numbers[-1] if numbers else None


def named_rule(resolved: ResolvedIntent, rule: Rule | None) -> str:
    """Return a rule as ``ip rule`` prints it on the host, whose files may name its table."""
    names = {entry.number: entry.name for entry in table_entries(resolved.snapshot)}
    return rule_text(rule, table=names.get(rule.table or 0)) if rule is not None else "none"


def clashes(entries: Iterable[TableEntry], name: str, number: int) -> list[TableEntry]:
    """Return the entries that give the number another name, or the name another number."""
    return [entry for entry in entries if (entry.name == name) != (entry.number == number)]
