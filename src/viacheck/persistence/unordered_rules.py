"""Lines that add a rule without a priority, which the kernel would put before a rule that is written beside them.

The kernel gives such a rule the priority below that of the first rule after 0 (net/core/fib_rules.c,
fib_default_rule_pref): it comes before every rule that is there already. Beside a rule with a priority of its own that
changes at boot, and with each run of the line, which of the two decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.config_entry import ConfigEntry, Place, WrittenRule
from viacheck.model.policy_rule import Rule
from viacheck.model.routing_names import TABLE_MAIN
from viacheck.persistence.file_edit import replace_line
from viacheck.persistence.unified_diff import LineChange

TABLE_MAIN_PRIORITY = 32766
"""The priority of the kernel's own rule for the main table."""

_ADD = re.compile(
    r"(?P<before>(?:\w[\w-]*\s+)?)(?P<command>ip\s+(?:-\S+\s+)*ru\w*\s+a\w*)(?P<rest>\s[^;&|<>$`\\]*)"
    r"(?:2>\s*/dev/null\s*)?(?:\|\|\s*(?:true|:))?"
)
"""A line that is one command, after the word that begins a hook of interfaces(5), and may fail."""
_MAY_FAIL = " 2>/dev/null || true"


@dataclass(frozen=True, slots=True)
class UnorderedRule:
    """A line that adds a rule without a priority."""

    place: Place
    edit: LineChange | None
    """Gives the rule a priority; None where the line does more than add the rule."""


def unordered_rules(
    resolved: ResolvedIntent, entries: Iterable[ConfigEntry], written: Sequence[Rule]
) -> Iterator[UnorderedRule]:
    """Yield the lines whose rules would come before rules that are about to be written.

    A rule gets the priority that it has now. One that stands before the written ones now stays as it is.

    Args:
        resolved: the host.
        entries: of all files that the host reads at boot.
        written: the rules for the agent, in the order of their priorities.
    """
    present = tuple(resolved.snapshot.host.rules_of(4))
    used = {rule.priority for rule in (*present, *written)}
    given = dict[Rule, int]()
    for entry in entries:
        if not isinstance(entry, WrittenRule) or entry.has_priority or not entry.typed or entry.place.volatile:
            continue
        if not _may_take(resolved, entry, written[-1]):
            continue
        there = [rule.priority for rule in present if _without_priority(rule) == entry.rule]
        if there and min(there) < written[-1].priority:
            continue
        if entry.rule not in given:
            free = (number for number in range(written[-1].priority + 1, TABLE_MAIN_PRIORITY) if number not in used)
            given[entry.rule] = max(there) if there else next(free)
            used.add(given[entry.rule])
        yield UnorderedRule(entry.place, _with_priority(resolved, entry, given[entry.rule]))


def _without_priority(rule: Rule) -> Rule:
    """Return a rule of the kernel as a line without a priority has it."""
    return replace(rule, priority=0, protocol=None)


def _may_take(resolved: ResolvedIntent, entry: WrittenRule, written: Rule) -> bool:
    """Return whether a line's rule selects packets that the written rule selects too, and leads them elsewhere."""
    source, sources = entry.rule.source_network, written.source_network
    rule = entry.rule
    if rule.family != 4 or rule.table == resolved.table or entry.phase not in ("pre-up", "up"):
        return False
    keeps_local = rule.table == TABLE_MAIN and rule.suppress_prefixlength is not None
    overlap = source is None or sources is None or source.overlaps(sources)
    return overlap and not keeps_local


def _with_priority(resolved: ResolvedIntent, entry: WrittenRule, priority: int) -> LineChange | None:
    """Return the edit of one line; None where the line does more than add the rule."""
    file = resolved.snapshot.file(entry.place.path)
    lines = file.text.split("\n") if file is not None else []
    if entry.place.line > len(lines):
        return None
    old = lines[entry.place.line - 1]
    text = old.strip()
    match = _ADD.fullmatch(text)
    if match is None:
        return None
    indent = old[: len(old) - len(old.lstrip())]
    # The kernel refuses a second rule of the same priority, and the commands after a failed one do not run.
    new = f"{match['before']}{match['command']} priority {priority}{match['rest'].rstrip()}{_MAY_FAIL}"
    return replace_line(entry.place.path, entry.place.line, f"{indent}{new}")
