"""Which remedies of a result can be verified in a lab, and what a second judgement of the lab says about them.

A remedy is verified if every check of its diagnosis has another verdict or another cause, and no other check got worse.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from viacheck.diagnosis.codes import NO_COMMAND
from viacheck.model.result import (
    CheckResult,
    Diagnosis,
    OtherCause,
    OutputOf,
    RemedyCheck,
    RemedyObstacle,
    RemedyStep,
    Verdict,
    VerdictChange,
)

Key = tuple[str, str | None]
_SEVERITY = {Verdict.ADVISORY: 1, Verdict.INCONCLUSIVE: 2, Verdict.FAIL: 3}
_OBSTACLES = {
    "needs-docker": "the remedy needs the host's Docker engine, which a replica does not have",
    "needs-systemd": "the remedy needs systemd, which this lab does not run",
    "runs-host-files": "the remedy runs a shell, or a program or lines of the host's own files, which a replica never "
    "executes",
}
REPLICA_PROGRAMS = frozenset(
    ("chmod", "conntrack", "install", "ip", "iptables", "nft", "nsenter", "rm", "sed", "sysctl", "systemctl", "tee")
)
"""The programs of remedies that read their arguments and standard input alone: no hook, script or unit of a host."""


@dataclass(frozen=True, slots=True)
class RemedyCandidate:
    """A remedy that can be verified in a lab."""

    code: str
    """The code of the diagnosis."""
    steps: tuple[RemedyStep, ...]
    rollback: tuple[RemedyStep, ...]
    text: str
    """The steps as shell text, for people."""


def candidates(results: Iterable[CheckResult], *, has_docker: bool) -> list[RemedyCandidate]:
    """Return the remedies of one target's results, in the order in which a user applies them.

    Those of failures come first: a failure may be in the way of what is only at risk.
    """
    results = list(results)
    remedies: dict[str, RemedyCandidate] = {}
    for verdict in (Verdict.FAIL, Verdict.ADVISORY):
        for result in results:
            diagnosis = result.diagnosis
            if result.verdict is not verdict or diagnosis is None or diagnosis.reported_by is not None:
                continue
            if obstacle_to(diagnosis, has_docker=has_docker) is None:
                candidate = RemedyCandidate(
                    diagnosis.code, tuple(diagnosis.remedy_steps), tuple(diagnosis.undo_steps),
                    "\n".join(diagnosis.remedy),
                )  # fmt: skip
                remedies.setdefault(diagnosis.code, candidate)
    return list(remedies.values())


def obstacle_to(diagnosis: Diagnosis, *, has_docker: bool) -> RemedyObstacle | None:
    """Return why a remedy cannot be run in a lab.

    Args:
        diagnosis: the diagnosis with the remedy.
        has_docker: the lab is of this checkout, where Docker's commands work; without it the lab is a replica.
    """
    if not diagnosis.remedy_steps:
        return "no-command"
    if not has_docker and _needs_docker(diagnosis.remedy_steps):
        return "needs-docker"
    if _needs_systemd(diagnosis.remedy_steps):
        return "needs-systemd"
    steps = (*diagnosis.remedy_steps, *diagnosis.undo_steps)
    if not has_docker and not all(runs_in_replica(step) for step in steps):
        return "runs-host-files"
    return None


def runs_in_replica(step: RemedyStep) -> bool:
    """Return whether a step's program, also behind ``nsenter``, executes nothing that a bundle brings."""
    if any(isinstance(argument, OutputOf) and argument.command[:1] == ["sh"] for argument in step.argv):
        return False
    arguments = [argument if isinstance(argument, str) else "" for argument in step.argv]
    while arguments[:1] == ["nsenter"]:
        arguments = arguments[1:]
        while arguments and arguments[0].startswith("--net="):
            arguments = arguments[1:]
    return bool(arguments) and arguments[0] in REPLICA_PROGRAMS


def not_verified(diagnosis: Diagnosis, obstacle: RemedyObstacle) -> RemedyCheck:
    """Return the check of a remedy that cannot be run in a lab."""
    reason = _OBSTACLES.get(obstacle) or diagnosis.decision or NO_COMMAND.get(diagnosis.code)
    return RemedyCheck(obstacle=obstacle, reason=reason)


def _needs_docker(steps: Sequence[RemedyStep]) -> bool:
    """Return whether steps ask the Docker engine; its name in a file that they write does not count."""
    return any(
        step.argv[:1] == ["docker"]
        or any(isinstance(argument, OutputOf) and argument.command[:1] == ["docker"] for argument in step.argv)
        or (step.argv[:1] == ["systemctl"] and "docker" in step.argv)
        for step in steps
    )


def _needs_systemd(steps: Sequence[RemedyStep]) -> bool:
    """Return whether steps need a running systemd; enabling and disabling a unit alone changes only files."""
    systemctl = [step.argv for step in steps if step.argv[:1] == ["systemctl"]]
    return any(argv[1:2] not in (["enable"], ["disable"]) or "--now" in argv for argv in systemctl)


def compare(before: Iterable[CheckResult], after: Iterable[CheckResult], code: str) -> RemedyCheck:
    """Compare the results of a target before and after the remedy of the diagnosis with this code.

    Checks that were not judged a second time do not count.
    """
    old = {(result.check, result.case): result for result in before}
    new = {(result.check, result.case): result for result in after}
    own = [key for key, result in old.items() if key in new and _code(result) == code]
    changed = [key for key in old if key in new and old[key].verdict is not new[key].verdict]
    unrepaired = [key for key in own if _code(new[key]) == code]
    worse = [key for key in changed if new[key].verdict.bad and _severity(new[key]) > _severity(old[key])]
    reasons = [f"{' '.join(filter(None, key))} {new[key].verdict.value}: {new[key].observed}"
               for key in (*unrepaired, *worse)]  # fmt: skip
    others = {(key[0], other) for key in own if (other := _code(new[key])) is not None and other != code}
    return RemedyCheck(
        verified=not reasons,
        reason="; ".join(reasons) or None,
        repaired=_changes([key for key in changed if key in own], old, new),
        side_effects=_changes([key for key in changed if key not in own], old, new),
        other_causes=[OtherCause(check=check, code=other) for check, other in sorted(others)],
    )


def _changes(keys: list[Key], old: dict[Key, CheckResult], new: dict[Key, CheckResult]) -> list[VerdictChange]:
    return [VerdictChange(check=key[0], case=key[1], before=old[key].verdict, after=new[key].verdict) for key in keys]


def _code(result: CheckResult) -> str | None:
    return result.diagnosis.code if result.diagnosis is not None else None


def _severity(result: CheckResult) -> int:
    return _SEVERITY.get(result.verdict, 0)
