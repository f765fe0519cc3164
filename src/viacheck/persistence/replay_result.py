"""The outcome of a replay of ifupdown's files in a lab: a boot, then several cycles of ifdown and ifup (PERSIST-02)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from viacheck.model.check_evidence import CommandEvidence, Evidence, StateEvidence
from viacheck.model.egress_changes import EgressState
from viacheck.model.measurements import NotReplayed, ReplayFault, ReplayResult
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Route

_MOST_LINES = 3
"""Lines of a command's error that a sentence quotes, and commands that the evidence holds."""


@dataclass(frozen=True, slots=True)
class ReplayCycle:
    """The boot, or one cycle of ifdown and ifup of the uplink."""

    commands: tuple[CommandEvidence, ...]
    not_up: tuple[str, ...]
    """The interfaces of rule and route that are not up afterwards by ifupdown's own state."""
    state: EgressState


Replay = Callable[[], ReplayResult | NotReplayed]
"""Replays the host's files, once for each target."""


def judge_replay(
    boot: ReplayCycle, cycles: Sequence[ReplayCycle], uplink: str, left_out: Sequence[str], *, route_written: bool
) -> ReplayResult:
    """Compare the state after each cycle with the state after the boot.

    Args:
        boot: everything brought up for the first time.
        cycles: the uplink taken down and up; at least one.
        uplink: the interface that was taken down and up.
        left_out: the parts of the host's files that were not run, with the reasons, one line each.
        route_written: a default route by the uplink is in the files, so it must exist.
    """
    steps = (boot, *cycles)
    figures = (
        f"run in a lab with this host's addresses, after boot and {len(cycles)} cycles of ifdown and ifup of {uplink}: "
        f"rules {', '.join(str(len(step.state.rules)) for step in steps)}; "
        f"routes {', '.join(str(len(step.state.routes)) for step in steps)}"
    )
    failed = [command for step in steps for command in step.commands if command.exit_code]
    # 'ifup -a' fails for any interface; only the interfaces of rule and route count.
    failed_in_cycles = [command for step in cycles for command in step.commands if command.exit_code]
    not_up = [name for step in steps for name in step.not_up]
    evidence: list[Evidence] = [
        StateEvidence(title=step.state.moment, lines=step.state.lines or ["no rule, no route, no address"])
        for step in steps
    ]
    evidence += failed[:_MOST_LINES]
    if left_out:
        evidence.append(StateEvidence(title="left out of the replay", lines=list(left_out)))
    relevant = failed if failed_in_cycles or not_up else []
    fault, sentence = _fault(boot, cycles, uplink, relevant, route_written=route_written)
    count = len(failed_in_cycles)
    parts = [figures, f"{count or 'no'} command{'' if count < 2 else 's'} failed"]
    if boot.not_up:
        parts.append(f"{', '.join(boot.not_up)} did not come up at boot")
    if left_out:
        parts.append(f"left out because they are more than ip commands: {len(left_out)}")
    return ReplayResult(fault is None, "; ".join(parts), tuple(evidence), fault, sentence)


def _fault(
    boot: ReplayCycle,
    cycles: Sequence[ReplayCycle],
    uplink: str,
    failed: Sequence[CommandEvidence],
    *,
    route_written: bool,
) -> tuple[ReplayFault | None, str]:
    """Return the code of the deepest fault, and its sentence."""
    # An uplink that nothing brings up at boot exists for the first time after the first cycle.
    first, last = (boot if uplink not in boot.not_up else cycles[0]).state, cycles[-1].state
    if failed:
        command = failed[0]
        stderr = " / ".join([line.strip() for line in command.stderr.splitlines() if line.strip()][:_MOST_LINES])
        return "NOT_IDEMPOTENT", (
            f"run in a lab, '{command.command}' ends with {command.exit_code}, and the commands after the failing line "
            f"do not run: {stderr or 'no error message'}"
        )
    added, lost = _surplus(last.rules, first.rules), _surplus(first.rules, last.rules)
    counts = ", ".join(str(len(step.state.rules)) for step in (boot, *cycles))
    if added:
        return "RULES_ACCUMULATE", (
            f"run in a lab, each ifup of {uplink} adds one more rule ({counts} in sequence), and each succeeds, for "
            f"example '{added[0]}'"
        )
    if lost:
        return "RULE_LOST", (
            f"run in a lab, the rule '{lost[0]}' is missing after ifdown and ifup of {uplink}, and nothing restores it"
        )
    present = {str(route) for route in last.routes}
    missing = [route for route in first.routes if str(route) not in present]
    if missing:
        return "ROUTE_NOT_RESTORED", f"run in a lab, '{missing[0]}' is missing after ifdown and ifup of {uplink}"
    if route_written and not any(_is_default_by(route, uplink) for route in last.routes):
        return "ROUTE_NOT_RESTORED", (
            f"run in a lab, a default route by {uplink} exists neither after a boot nor after an ifup"
        )  # fmt: skip
    return None, ""


def _is_default_by(route: Route, uplink: str) -> bool:
    return route.is_default and any(hop.interface == uplink for hop in route.nexthops)


def _surplus(rules: Sequence[Rule], others: Sequence[Rule]) -> list[Rule]:
    """Return the rules that occur more often than among the others, whatever priority the kernel gave them."""
    remaining, surplus = Counter(replace(rule, priority=0) for rule in others), []
    for rule in rules:
        key = replace(rule, priority=0)
        remaining[key] -= 1
        if remaining[key] < 0:
            surplus.append(rule)
    return surplus
