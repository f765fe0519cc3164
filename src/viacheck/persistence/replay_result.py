"""What came of running what is written down: a boot, then the uplink taken down and up again and again (PERSIST-02)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from viacheck.model.measurements import EgressState, NotReplayed, ReplayFault, ReplayResult
from viacheck.model.result import CommandEvidence, Evidence, StateEvidence
from viacheck.model.snapshot import Route, Rule

_TOLD = 3
"""Lines of a command's error that a sentence has room for."""


@dataclass(frozen=True, slots=True)
class Step:
    """The boot, or one time that the uplink was taken down and up."""

    commands: tuple[CommandEvidence, ...]
    not_up: tuple[str, ...]
    """Interfaces that ifupdown does not call up afterwards, of those that rule and route hang on."""
    state: EgressState


Replay = Callable[[], ReplayResult | NotReplayed]
"""Runs what is written, once for each target."""


def judge_rounds(
    boot: Step, rounds: Sequence[Step], uplink: str, left_out: Sequence[str], *, route_written: bool
) -> ReplayResult:
    """Compare the state after each round with the one after the boot.

    Args:
        boot: everything brought up for the first time.
        rounds: the uplink taken down and up; at least one.
        uplink: which one.
        left_out: what of the host's files was not run, and why, one line each.
        route_written: a default route by the uplink is among what was run, and must be there.
    """
    figures = (
        f"run in a lab with this host's addresses, after boot and {len(rounds)} rounds of ifdown and ifup of {uplink}: "
        f"rules {', '.join(str(len(step.state.rules)) for step in (boot, *rounds))}; "
        f"routes {', '.join(str(len(step.state.routes)) for step in (boot, *rounds))}"
    )
    failed = [one for step in (boot, *rounds) for one in step.commands if one.exit_code]
    # 'ifup -a' fails for any interface; what counts is whether those came up that matter here.
    refused = [one for step in rounds for one in step.commands if one.exit_code]
    not_up = [name for step in (boot, *rounds) for name in step.not_up]
    evidence: list[Evidence] = [
        StateEvidence(title=step.state.moment, lines=step.state.lines or ["no rule, no route, no address"])
        for step in (boot, *rounds)
    ]
    evidence += failed[:_TOLD]
    if left_out:
        evidence.append(StateEvidence(title="left out of what was run", lines=list(left_out)))
    shown, sentence = _shown(boot, rounds, uplink, failed if refused or not_up else [], route_written=route_written)
    words = [figures, f"{len(refused) or 'no'} command{'' if len(refused) < 2 else 's'} failed"]
    if boot.not_up:
        words.append(f"{', '.join(boot.not_up)} did not come up at boot")
    if left_out:
        words.append(f"left out as more than ip commands: {len(left_out)}")
    return ReplayResult(shown is None, "; ".join(words), tuple(evidence), shown, sentence)


def _shown(
    boot: Step, rounds: Sequence[Step], uplink: str, failed: Sequence[CommandEvidence], *, route_written: bool
) -> tuple[ReplayFault | None, str]:
    """The code of what was seen, and the sentence that tells it; what lies deeper first."""
    # An uplink that nothing brings up at boot is there for the first time after the first round.
    first_time, last = (boot if uplink not in boot.not_up else rounds[0]).state, rounds[-1].state
    if failed:
        first = failed[0]
        said = " / ".join([line.strip() for line in first.stderr.splitlines() if line.strip()][:_TOLD])
        return "NOT_IDEMPOTENT", (
            f"run in a lab, '{first.command}' ends with {first.exit_code}, and what stands behind the line that failed "
            f"is not done: {said or 'it said nothing'}"
        )
    more, fewer = _beyond(last.rules, first_time.rules), _beyond(first_time.rules, last.rules)
    counts = ", ".join(str(len(step.state.rules)) for step in (boot, *rounds))
    if more:
        return "RULES_ACCUMULATE", (
            f"run in a lab, each ifup of {uplink} leaves one more rule ({counts} one after the other), and each "
            f"succeeds; '{more[0]}' is one of them"
        )
    if fewer:
        return "RULE_LOST", (
            f"run in a lab, the rule '{fewer[0]}' is gone after ifdown and ifup of {uplink}, and nothing brings it back"
        )
    there = {str(route) for route in last.routes}
    gone = [route for route in first_time.routes if str(route) not in there]
    if gone or (route_written and not any(_leads_out(route, uplink) for route in last.routes)):
        what = f"'{gone[0]}'" if gone else f"a default route by {uplink}"
        when = f"gone after ifdown and ifup of {uplink}" if gone else "there neither after a boot nor after an ifup"
        return "ROUTE_NOT_RESTORED", f"run in a lab, {what} is {when}"
    return None, ""


def _leads_out(route: Route, uplink: str) -> bool:
    return route.is_default and any(hop.interface == uplink for hop in route.nexthops)


def _beyond(these: Sequence[Rule], those: Sequence[Rule]) -> list[Rule]:
    """The rules that are there more often than among the others, whatever priority the kernel gave them."""
    left, more = Counter(replace(rule, priority=0) for rule in those), []
    for rule in these:
        key = replace(rule, priority=0)
        left[key] -= 1
        if left[key] < 0:
            more.append(rule)
    return more
