"""The cause that a VPN shows when it goes down: it removes a rule of the host that reads as its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.cause import Cause
from viacheck.diagnosis.disruption import CHECK_OF, state_changes
from viacheck.diagnosis.remedy import NO_REMEDY, Remedy, remedy_of
from viacheck.model.measurements import Measurements
from viacheck.model.policy_rule import Rule, rule_argv
from viacheck.model.routing_names import TABLE_MAIN
from viacheck.persistence.assess import assess_persistence
from viacheck.persistence.file_edit import in_diffs, insert_lines

VPN = "vpn"
RESTART = ("systemctl", "restart", "systemd-networkd.service")


def removed_with_vpn(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that wg-quick(8) removed the host's rule for local networks, which reads as its own."""
    result = measurements.disruptions.get(VPN)
    lost = [rule for rule in result.rules_lost if _reads_as_the_vpns(rule)] if result is not None else []
    if result is None or not lost or resolved.agent_subnet is None:
        return
    remedy = _with_source(resolved, lost[0])
    yield Cause(
        "RULE_LOST", CHECK_OF[VPN],
        f"after {result.title} the rule '{lost[0]}' is missing: wg-quick removes every rule 'from all lookup main "
        f"suppress_prefixlength 0', as its own reads the same; with 'from {resolved.agent_subnet}' it stays",
        remedy, evidence=(state_changes(result),),
        decision=None if remedy else f"write 'from {resolved.agent_subnet}' to the rule, in the file that sets it",
    )  # fmt: skip


def _reads_as_the_vpns(rule: Rule) -> bool:
    own = Rule(family=rule.family, priority=rule.priority, table=TABLE_MAIN, suppress_prefixlength=0)
    return replace(rule, protocol=None) == own


def _with_source(resolved: ResolvedIntent, lost: Rule) -> Remedy:
    """Return the remedy that gives the rule a source in systemd-networkd's file; none where another manager sets it.

    The rule as it was is deleted first: a networkd that keeps foreign rules keeps it, and to the kernel a rule without
    a source is there already as long as one with a source is.
    """
    for written in assess_persistence(resolved).configs["networkd"].rules:
        rule = written.rule
        if _reads_as_the_vpns(rule) and (rule.family, rule.priority) == (lost.family, lost.priority):
            change = insert_lines(written.place.path, written.place.line, f"From={resolved.agent_subnet}\n")
            with_source = replace(lost, source=str(resolved.agent_subnet))
            return remedy_of(
                in_diffs(resolved.snapshot, [change]),
                [tuple(rule_argv("del", lost)), RESTART],
                [tuple(rule_argv("del", with_source)), RESTART],
            )
    return NO_REMEDY
