"""The way of the answers: the host looks it up by the same rules, and a rule for all packets may take them as well."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.agent_rules import LOCAL_PRIORITY, free_priority
from viacheck.analysis.answers import misrouted_answer, untracked_answers
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS, ResolvedIntent
from viacheck.diagnosis.cause import Cause
from viacheck.diagnosis.remedy import NO_REMEDY, Remedy, command, rule_removal
from viacheck.diagnosis.remedy_effect import after_steps
from viacheck.model.measurements import Measurements


def answers_misrouted(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that the host's look-up of the way to the agent sends the answers elsewhere."""
    if any(packets.answered for name, packets in measurements.traffic.packets.items() if name in PROTOCOL_NUMBERS):
        return
    path = misrouted_answer(resolved)
    if path is not None:
        yield Cause(
            "ANSWERS_MISROUTED", "EGRESS-03",
            f"the answers come in on {resolved.uplink}, and this host does not send them on to the agent: "
            f"{path.answer_reason}",
            to_agent(resolved), frozenset({"EGRESS-05", "EGRESS-06", "ROUTE-06"}),
        )  # fmt: skip


def answers_untracked(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find a rule that keeps conntrack from the answers: they stay at the host, whose address they are for."""
    packets = measurements.traffic.packets
    paths = {
        protocol: path
        for protocol, path in untracked_answers(resolved).items()
        if protocol not in packets or not packets[protocol].answered
    }
    path = next(iter(paths.values()), None)
    if path is None or path.answer_untracked_by is None:
        return
    chain, rule = path.answer_untracked_by
    yield Cause(
        "ANSWERS_MISROUTED", "EGRESS-03",
        f"the answers ({', '.join(paths)}) come in on {resolved.uplink}, and the rule '{rule.text}' of chain "
        f"{chain.name} keeps conntrack from tracking them: their NAT is not reversed, so they stay at this host, whose "
        f"{path.source} they are for",
        rule_removal(chain, rule), frozenset({"EGRESS-05", "EGRESS-06"}),
    )  # fmt: skip


def correcting_answers(resolved: ResolvedIntent, remedy: Remedy) -> Remedy:
    """Return a remedy that corrects the way of the answers as well, where the remedy alone leaves them misrouted."""
    after = after_steps(resolved, remedy.steps)
    if after is None or misrouted_answer(after) is None:
        return remedy
    answers = to_agent(after)
    return Remedy((*answers.steps, *remedy.steps), (*remedy.rollback, *answers.rollback))


def to_agent(resolved: ResolvedIntent) -> Remedy:
    """Return the rule that sends packets to the agent's subnet by the main table, before the rule that takes them.

    It is empty where that rule is the first of all, or where the main table does not lead to the agent either.
    """
    path = misrouted_answer(resolved)
    if path is None or resolved.agent_source is None:
        return NO_REMEDY
    by_rule = path.misrouted.rule if path.misrouted is not None else None
    if by_rule is None or by_rule.priority <= 1:
        return NO_REMEDY
    priority = free_priority(resolved, min(LOCAL_PRIORITY - 1, by_rule.priority - 1))
    selector = ("priority", priority, "to", resolved.agent_subnet or resolved.agent_source, "lookup", "main")
    remedy = Remedy((command("ip", "rule", "add", *selector),), (command("ip", "rule", "del", *selector),))
    after = after_steps(resolved, remedy.steps)
    return remedy if after is not None and misrouted_answer(after) is None else NO_REMEDY
