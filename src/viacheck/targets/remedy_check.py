"""Which remedies of a result can be verified in a lab, and what a second judgement of the lab says about them.

A remedy is verified if every check of its diagnosis has another verdict or another cause, and no other check got worse.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from viacheck.model.diagnosis_codes import NO_COMMAND
from viacheck.model.diagnosis_record import (
    Diagnosis,
    OtherCause,
    OutputOf,
    RemedyCheck,
    RemedyObstacle,
    RemedyOutcome,
    RemedyStep,
    VerdictChange,
)
from viacheck.model.fix_order import fix_order, reporters_of
from viacheck.model.result import CheckResult, overall
from viacheck.model.verdict import Verdict

Key = tuple[str, str | None]
_SEVERITY = {Verdict.ADVISORY: 1, Verdict.INCONCLUSIVE: 2, Verdict.FAIL: 3}
_OBSTACLES = {
    "needs-docker": "the remedy needs the host's Docker engine, which a replica does not have",
    "needs-systemd": "the remedy needs systemd, which this lab does not run",
    "runs-host-files": "the remedy runs a shell, or a program or lines of the host's own files, which a replica never "
    "executes",
}
_CHANGES_FILES_ONLY = ("enable", "disable", "mask", "unmask")
"""Verbs of systemctl."""
_ENGINE_PROGRAMS = (["docker"], ["podman"])
REPLICA_PROGRAMS = frozenset(
    ("chmod", "conntrack", "install", "ip", "iptables", "nft", "nsenter", "patch", "rm", "sed", "sysctl", "systemctl")
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


def candidates(results: Iterable[CheckResult], *, has_docker: bool, has_systemd: bool = False) -> list[RemedyCandidate]:
    """Return the remedies of one target's results, in the order in which a user applies them.

    Those of failures come first: a failure may be in the way of what is only at risk.
    """
    bad = [result for result in results if result.verdict in _SEVERITY]
    reporters = reporters_of(bad)
    own: dict[str, list[CheckResult]] = {}
    affected: dict[str, list[CheckResult]] = {}
    for result in bad:
        diagnosis = result.diagnosis
        if diagnosis is not None:
            is_affected = (result.target, result.check) in reporters
            (affected if is_affected else own).setdefault(diagnosis.code, []).append(result)

    def place(code: str) -> tuple[object, ...]:
        related = affected.get(code, [])
        worst = max(_severity(result) for result in (*own[code], *related))
        return worst is not _SEVERITY[Verdict.FAIL], fix_order(code, own[code], related)

    remedies: list[RemedyCandidate] = []
    for code in sorted(own, key=place):
        diagnoses = [result.diagnosis for result in own[code] if result.verdict is not Verdict.INCONCLUSIVE]
        for diagnosis in diagnoses:
            if (
                diagnosis is not None
                and diagnosis.reported_by is None
                and obstacle_to(diagnosis, has_docker=has_docker, has_systemd=has_systemd) is None
            ):
                steps, rollback = tuple(diagnosis.remedy_steps), tuple(diagnosis.undo_steps)
                remedies.append(RemedyCandidate(code, steps, rollback, "\n".join(diagnosis.remedy)))
                break
    return remedies


def obstacle_to(diagnosis: Diagnosis, *, has_docker: bool, has_systemd: bool = False) -> RemedyObstacle | None:
    """Return why a remedy cannot be run in a lab.

    Args:
        diagnosis: the diagnosis with the remedy.
        has_docker: the lab is of this checkout, where Docker's commands work; without it the lab is a replica.
        has_systemd: the lab is a whole host.
    """
    if not diagnosis.remedy_steps:
        return "no-command"
    if not has_docker and _needs_docker(diagnosis.remedy_steps):
        return "needs-docker"
    if not has_systemd and _needs_systemd(diagnosis.remedy_steps):
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
    decided = "a person must decide first" if diagnosis.decision is not None else None
    reason = _OBSTACLES.get(obstacle) or decided or NO_COMMAND.get(diagnosis.code)
    return RemedyCheck(obstacle=obstacle, reason=reason)


def _needs_docker(steps: Sequence[RemedyStep]) -> bool:
    """Return whether steps ask the Docker engine; its name in a file that they write does not count."""
    return any(
        step.argv[:1] in _ENGINE_PROGRAMS
        or any(isinstance(argument, OutputOf) and argument.command[:1] in _ENGINE_PROGRAMS for argument in step.argv)
        or (step.argv[:1] == ["systemctl"] and "docker" in step.argv)
        for step in steps
    )


def _needs_systemd(steps: Sequence[RemedyStep]) -> bool:
    """Return whether steps need a running systemd; enabling or masking a unit alone changes only files."""
    systemctl = [step.argv for step in steps if step.argv[:1] == ["systemctl"]]
    return any("".join(map(str, argv[1:2])) not in _CHANGES_FILES_ONLY or "--now" in argv for argv in systemctl)


def compare(before: Iterable[CheckResult], after: Iterable[CheckResult], code: str) -> RemedyCheck:
    """Compare the results of a target before and after the remedy of the diagnosis with this code.

    Checks that were not judged a second time do not count. A check that is not run then is not repaired, and is worse
    than one that passed.
    """
    old, new = _by_case(before), _by_case(after)
    own = [key for key, result in old.items() if key in new and _code(result) == code]
    changed = [key for key in old if key in new and old[key].verdict is not new[key].verdict]
    unrepaired = [key for key in own if _code(new[key]) == code or new[key].verdict is Verdict.NOT_RUN]
    worse = [key for key in changed if _is_worse(old[key], new[key]) and key not in unrepaired]
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


def outcome_of(before: Iterable[CheckResult], after: Iterable[CheckResult]) -> RemedyOutcome:
    """Return what a second judgement of a target shows, after one remedy or after all of them."""
    old, new = _by_case(before), _by_case(after)
    common = [key for key in old if key in new]
    repaired = [key for key in common if old[key].verdict in _SEVERITY and new[key].verdict is Verdict.PASS]
    return RemedyOutcome(
        verdict=overall([result.verdict for result in new.values()]),
        repaired=_changes(repaired, old, new),
        worse=_changes([key for key in common if _is_worse(old[key], new[key])], old, new),
    )


def _by_case(results: Iterable[CheckResult]) -> dict[Key, CheckResult]:
    return {(result.check, result.case): result for result in results}


def _is_worse(before: CheckResult, after: CheckResult) -> bool:
    if after.verdict is Verdict.NOT_RUN:
        return before.verdict in (Verdict.PASS, Verdict.ADVISORY)
    return after.verdict.bad and _severity(after) > _severity(before)


def _changes(keys: list[Key], old: dict[Key, CheckResult], new: dict[Key, CheckResult]) -> list[VerdictChange]:
    return [VerdictChange(check=key[0], case=key[1], before=old[key].verdict, after=new[key].verdict) for key in keys]


def _code(result: CheckResult) -> str | None:
    return result.diagnosis.code if result.diagnosis is not None else None


def _severity(result: CheckResult) -> int:
    return _SEVERITY.get(result.verdict, 0)
