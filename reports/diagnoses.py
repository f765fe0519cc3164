"""The causes of a run, each reported once, with the checks that it also affects and the targets that share it.

A diagnosis that names another check (``reported_by``) adds no cause; its check is listed under the cause of that check.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from reports.text import ids_shortened, named, reason
from viacheck.model.chapters import chapter, check_order
from viacheck.model.diagnosis_record import OutputOf, RemedyStep
from viacheck.model.fix_order import Place, fix_order, reporters_of
from viacheck.model.result import CheckResult, RunResult
from viacheck.model.verdict import Verdict

REPORTED = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ADVISORY)
"""Verdicts whose cause is reported, the worst first."""
RUNTIME_PROGRAMS = frozenset({"conntrack", "ip", "ip6tables", "iptables", "kill", "nft", "sysctl"})
"""Programs that change the running system and, with the options that remedies give them, no file."""
EVENT_CHECKS = "FLAP"
"""The chapter of checks that measure an event: their observation says more than their cause alone."""

_CauseKey = tuple[str | None, str, tuple[str, ...]]
"""The code, the text and the remedy of a cause."""


@dataclass(slots=True)
class ReportedCause:
    """One cause, on one target or on several."""

    verdict: Verdict
    code: str | None
    """The code of the diagnosis; None for a check that failed without a diagnosis."""
    text: str
    remedy: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    site_file: tuple[str, ...] = ()
    decision: str = ""
    """What a person must decide; empty when the commands can be typed as they are."""
    needs: tuple[str, ...] = ()
    """What must be there before the remedy can be typed."""
    runtime_only: bool = False
    """The remedy changes the running system and no file: a reboot undoes it."""
    verification: str = ""
    """The verification of the remedy as text; empty if the run did not verify remedies."""
    alone: str = ""
    """What the remedy achieves without the others of its target; empty if there are no others, or it is not known."""
    results: list[CheckResult] = field(default_factory=list)
    """The results that report it: several cases, several targets."""
    affected: list[CheckResult] = field(default_factory=list)
    """The results that are bad only because of it."""

    @property
    def targets(self) -> list[str]:
        """Ids of the targets that have this cause, in the order of the results."""
        return list(dict.fromkeys(result.target for result in self.results))

    @property
    def checks(self) -> str:
        """The ids of the checks that report it."""
        return ids_shortened(result.check for result in self.results)

    @property
    def also_affects(self) -> list[str]:
        """The checks that are bad only because of it, with their cases."""
        return named(self.affected)

    @property
    def event_observations(self) -> list[str]:
        """The observations of event checks on the first target that are not its text, in the order of the checks."""
        results = [result for result in (*self.results, *self.affected) if result.target == self.targets[0]]
        observed = {result.check: result.observed for result in results if chapter(result.check) == EVENT_CHECKS}
        ordered = sorted(observed, key=check_order)
        return [f"{check}: {observed[check]}" for check in ordered if observed[check].strip() != self.text]


def reported_causes(outcome: RunResult, verdict: Verdict) -> list[ReportedCause]:
    """Return the causes of one verdict, in the order in which to type their fixes.

    A cause has the worst verdict among the results that report it and those that it also affects: two cases of one
    check may have two causes, of different verdicts. Waived results are left out.
    """
    bad = [result for result in outcome.results if result.verdict in REPORTED and result.waiver is None]
    reporters = reporters_of(bad)
    reported: dict[Place, set[_CauseKey]] = {}
    for result in bad:
        if (place := (result.target, result.check)) not in reporters:
            reported.setdefault(place, set()).add(_cause_key(result))
    worst: dict[tuple[Place, _CauseKey], Verdict] = {}
    for result in bad:
        place = reporters.get((result.target, result.check), (result.target, result.check))
        key = _cause_key(result)
        # A chain of checks ends at one whose own cause is another: whichever it reports is as bad then.
        for cause_key in {key} if key in reported[place] else reported[place]:
            before = worst.get((place, cause_key), result.verdict)
            worst[place, cause_key] = min(before, result.verdict, key=REPORTED.index)
    distinct: dict[_CauseKey, ReportedCause] = {}
    by_check: dict[Place, ReportedCause] = {}
    for result in bad:
        place, key = (result.target, result.check), _cause_key(result)
        if place in reporters or worst[place, key] is not verdict:
            continue
        cause = distinct.setdefault(key, _cause(result, verdict))
        cause.results.append(result)
        by_check.setdefault(place, cause)
    for result in bad:
        reporter = reporters.get((result.target, result.check))
        if reporter is None:
            continue
        key = _cause_key(result)
        known = distinct.get(key) if key in reported[reporter] else by_check.get(reporter)
        if known is not None:
            known.affected.append(result)
    causes = sorted(distinct.values(), key=lambda cause: fix_order(cause.code, cause.results, cause.affected))
    fixes = Counter(target for cause in causes if cause.remedy for target in cause.targets)
    for cause in causes:
        cause.alone = _alone(cause, several=any(fixes[target] > 1 for target in cause.targets))
    return causes


def _cause_key(result: CheckResult) -> _CauseKey:
    """Return what makes a cause distinct: the same code with other values takes other commands to fix."""
    if result.diagnosis is None:
        return None, reason(result), ()
    return result.diagnosis.code, result.diagnosis.cause, tuple(result.diagnosis.remedy)


def _alone(cause: ReportedCause, *, several: bool) -> str:
    """Return what a remedy alone achieves, as a lab showed it, else by the model; empty where no other is beside it."""
    diagnosis = cause.results[0].diagnosis
    check = diagnosis.remedy_check if diagnosis is not None else None
    if not cause.remedy or check is None:
        return ""
    if check.alone is not None:
        return f"this fix alone: {check.alone.text}" if check.together != check.alone else ""
    if not several or check.predicted is None:
        return ""
    leave = "leave" if check.predicted else "do not leave"
    return f"this fix alone: by the model, the agent's packets {leave} as intended"


def fixes_together(outcome: RunResult) -> Iterator[str]:
    """Yield what all fixes of a target achieve together, for each target on which a run tried several."""
    for target in outcome.targets:
        tried = [
            (result.verdict, result.diagnosis.remedy_check)
            for result in outcome.results
            if result.target == target.id and result.diagnosis is not None and result.diagnosis.remedy_check is not None
        ]
        checks = [check for _verdict, check in tried]
        at_risk = any(verdict is Verdict.ADVISORY and check.order for verdict, check in tried)
        number = max((check.order or 0 for check in checks), default=0)
        together = next((check.together for check in checks if check.together is not None), None)
        if number > 1 and together is not None:
            where = f" of {target.id}" if len(outcome.targets) > 1 else ""
            included = " (those of what is at risk included)" if at_risk else ""
            yield f"all {number} fixes{where} together{included}, in this order: {together.text}"


def _cause(result: CheckResult, verdict: Verdict) -> ReportedCause:
    if result.diagnosis is None:
        return ReportedCause(verdict, None, reason(result))
    diagnosis = result.diagnosis
    return ReportedCause(
        verdict,
        diagnosis.code,
        diagnosis.cause,
        tuple(diagnosis.remedy),
        tuple(diagnosis.undo),
        tuple(diagnosis.site_file),
        diagnosis.decision or "",
        tuple(diagnosis.needs),
        _is_runtime_only(diagnosis.remedy_steps),
        diagnosis.mend or "",
    )


def _is_runtime_only(steps: Sequence[RemedyStep]) -> bool:
    programs = [_program(step.argv) for step in steps]
    return bool(programs) and all(isinstance(program, str) and program in RUNTIME_PROGRAMS for program in programs)


def _program(argv: Sequence[str | OutputOf]) -> str | OutputOf | None:
    """Return the program of a command, for ``nsenter`` the one that it starts."""
    if argv[:1] != ["nsenter"]:
        return argv[0] if argv else None
    # Options of nsenter come first; a process id that follows one is the output of a command.
    return next((text for text in argv[1:] if isinstance(text, str) and not text.startswith("--")), None)
