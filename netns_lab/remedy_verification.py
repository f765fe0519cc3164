"""Verifies remedies in labs: apply the remedy, judge the lab again, roll the remedy back, and compare the states.

Each remedy of a target is tried alone. Then all of them are applied in the order in which a user types them, the lab is
judged once more, and all are rolled back in reverse order. Several labs run in processes of their own.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from netns_lab.apply_script import ScriptFailed
from netns_lab.comparable_state import comparable
from netns_lab.lab import Lab
from netns_lab.lab_specs import REPLICA, LabSpec, ReplicaSpec, lab_of, replica_of
from netns_lab.open_lab import open_lab
from netns_lab.remedy_steps import run_steps
from netns_lab.script import Script
from viacheck.model.diagnosis_record import Diagnosis, RemedyCheck, RemedyOutcome
from viacheck.model.diff import changes
from viacheck.model.result import CheckResult, RunResult, TargetRecord
from viacheck.model.snapshot import Snapshot
from viacheck.targets.base import Target
from viacheck.targets.remedy_check import RemedyCandidate, candidates, compare, not_verified, obstacle_to, outcome_of
from viacheck.targets.specs import TargetNotOpened, TargetUnavailable

Judge = Callable[[Target, Path], list[CheckResult]]
"""Runs checks on a target and returns their results; the path is the folder for pcapng files."""
LABS_PER_CORE = 2
"""Labs in which remedies are verified at the same time: a lab mostly waits for answers that do not come."""


@dataclass(frozen=True, slots=True)
class RemedyLab:
    """The remedies of one lab or replica that was judged."""

    spec: LabSpec | ReplicaSpec
    results: tuple[CheckResult, ...]
    """The results of the first judgement."""
    remedies: tuple[RemedyCandidate, ...]


def verify_remedies(run_result: RunResult, judge: Judge, scripts: Sequence[Script] = ()) -> None:
    """Verify the remedies of every lab and replica in a run, and fill in ``remedy_check`` of each diagnosis.

    Args:
        run_result: the results of a run.
        judge: runs the checks again. It is sent to other processes, so it must be picklable.
        scripts: the scripts that ran on each lab before its checks; a replica's state is that after them.
    """
    labs = [lab for target in run_result.targets if (lab := _remedies_of(target, run_result, scripts)) is not None]
    processes = min(LABS_PER_CORE * len(os.sched_getaffinity(0)), len(labs))
    if processes > 1:
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            verified = list(pool.map(verify_lab, labs, [judge] * len(labs)))
    else:
        verified = [verify_lab(lab, judge) for lab in labs]
    for lab, checks in zip(labs, verified, strict=True):
        for result in run_result.results:
            if result.target == lab.spec.id and result.diagnosis is not None:
                _add_verification(result.diagnosis, checks.get(result.diagnosis.code))
    whole_hosts = {target.id for target in run_result.targets if target.flavour == "host"}
    for result in run_result.results:
        diagnosis = result.diagnosis
        if diagnosis is None or (diagnosis.remedy_check is not None and diagnosis.remedy_check.was_tried):
            continue
        obstacle = obstacle_to(
            diagnosis, has_docker=not result.target.startswith(REPLICA), has_systemd=result.target in whole_hosts
        )
        if obstacle is not None:
            _add_verification(diagnosis, not_verified(diagnosis, obstacle))


def _add_verification(diagnosis: Diagnosis, verification: RemedyCheck | None) -> None:
    """Add what was verified to what the model predicted."""
    if verification is not None:
        predicted = diagnosis.remedy_check.predicted if diagnosis.remedy_check is not None else None
        diagnosis.remedy_check = verification.model_copy(update={"predicted": predicted})


def _remedies_of(target: TargetRecord, run_result: RunResult, scripts: Sequence[Script]) -> RemedyLab | None:
    """Return the remedies of a target; None if it is not a lab, or has no remedy that a lab can run."""
    if target.kind != "lab":
        return None
    is_replica = target.id.startswith(REPLICA)
    results = tuple(result for result in run_result.results if result.target == target.id)
    remedies = tuple(candidates(results, has_docker=not is_replica, has_systemd=target.flavour == "host"))
    if not remedies:
        return None
    spec = replica_of(target, "this run") if is_replica else lab_of(target).with_scripts(*scripts)
    assert spec is not None, "a replica that was judged has a snapshot"
    return RemedyLab(spec, results, remedies)


def verify_lab(remedy_lab: RemedyLab, judge: Judge) -> dict[str, RemedyCheck]:
    """Verify the remedies of one target in one lab; return the verifications by the code of the diagnosis."""
    remedies = remedy_lab.remedies
    tests = _RemedyTests(remedy_lab, judge)
    try:
        checks = {remedy.code: tests.alone(remedy) for remedy in remedies}
        if len(remedies) > 1:
            tests.together(checks)
        else:
            checks = {code: check.model_copy(update={"together": check.alone}) for code, check in checks.items()}
    except (TargetUnavailable, TargetNotOpened) as error:
        return {remedy.code: RemedyCheck(reason=str(error)) for remedy in remedies}
    finally:
        tests.close()
    return {
        code: check.model_copy(update={"order": number}) for number, (code, check) in enumerate(checks.items(), start=1)
    }


class _RemedyTests:
    """The tests of one target's remedies, in one lab as long as each rollback restores it."""

    def __init__(self, remedy_lab: RemedyLab, judge: Judge) -> None:
        self._remedy_lab, self._judge_target = remedy_lab, judge
        self._lab: Lab | None = None

    def close(self) -> None:
        if self._lab is not None:
            self._lab.close()
            self._lab = None

    def alone(self, remedy: RemedyCandidate) -> RemedyCheck:
        """Apply one remedy, judge the lab, and roll the remedy back."""
        lab, results = self._open(), self._remedy_lab.results
        before = _state(lab, self._remedy_lab.spec)
        failure = _application_failure(lab, remedy)
        if failure is not None:
            # The remedy may have changed the lab in part.
            self.close()
            return RemedyCheck(
                verified=False, reason=failure, alone=RemedyOutcome(verdict="inconclusive", reason=failure)
            )  # fmt: skip
        after = self._judge(lab, [remedy])
        failure = _rollback_failure(lab, self._remedy_lab.spec, remedy, before)
        if failure is not None:
            self.close()
        return compare(results, after, remedy.code).model_copy(
            update={
                "alone": outcome_of(results, after),
                "rollback_verified": failure is None,
                "rollback_reason": failure,
            }
        )

    def together(self, checks: dict[str, RemedyCheck]) -> None:
        """Apply all remedies in order, judge the lab, and roll all back; complete the checks of those tried alone."""
        lab, (spec, results, remedies) = self._open(), self._target
        states: list[Snapshot] = []
        for remedy in remedies:
            states.append(_state(lab, spec))
            failure = _application_failure(lab, remedy)
            if failure is not None:
                outcome = RemedyOutcome(verdict="inconclusive", reason=f"{remedy.code}: {failure}")
                for code, check in checks.items():
                    checks[code] = check.model_copy(update={"together": outcome})
                self.close()
                return
        after = self._judge(lab, remedies)
        outcome, failure = outcome_of(results, after), None
        for remedy, before in reversed(list(zip(remedies, states, strict=True))):
            failure = failure or _rollback_failure(lab, spec, remedy, before)
            rollback = {"rollback_verified": failure is None, "rollback_reason": failure}
            check = checks[remedy.code]
            if not check.verified:
                # A remedy that needs another one is judged with all of them.
                check = compare(results, after, remedy.code).model_copy(update={"alone": check.alone, **rollback})
            elif check.rollback_verified:
                check = check.model_copy(update=rollback)
            checks[remedy.code] = check.model_copy(update={"together": outcome})

    @property
    def _target(self) -> tuple[LabSpec | ReplicaSpec, tuple[CheckResult, ...], tuple[RemedyCandidate, ...]]:
        return self._remedy_lab.spec, self._remedy_lab.results, self._remedy_lab.remedies

    def _open(self) -> Lab:
        if self._lab is None:
            self._lab = open_lab(self._remedy_lab.spec)
        return self._lab

    def _judge(self, lab: Lab, applied: Sequence[RemedyCandidate]) -> list[CheckResult]:
        scripts = [Script(f"remedy of {remedy.code}", remedy.text) for remedy in applied]
        target = self._remedy_lab.spec.with_scripts(*scripts).target_of(lab, ends_lab=False)
        try:
            with tempfile.TemporaryDirectory(prefix="viacheck-remedies-") as captures:
                return self._judge_target(target, Path(captures))
        finally:
            target.close()


def _application_failure(lab: Lab, remedy: RemedyCandidate) -> str | None:
    """Apply a remedy; return why it could not be applied, None if it was."""
    try:
        run_steps(lab, f"remedy of {remedy.code}", remedy.steps)
    except ScriptFailed as error:
        return str(error)
    return None


def _rollback_failure(lab: Lab, spec: LabSpec | ReplicaSpec, remedy: RemedyCandidate, before: Snapshot) -> str | None:
    """Roll a remedy back; return why the lab's state is not the one before the remedy, None if it is."""
    try:
        run_steps(lab, f"rollback of {remedy.code}", remedy.rollback)
    except ScriptFailed as error:
        return str(error)
    return "; ".join(_differences(before, _state(lab, spec))) or None


def _state(lab: Lab, spec: LabSpec | ReplicaSpec) -> Snapshot:
    target = spec.target_of(lab, ends_lab=False)
    try:
        return target.snapshot
    finally:
        target.close()


def _differences(before: Snapshot, after: Snapshot) -> Sequence[str]:
    return [str(difference) for difference in changes(comparable(before), comparable(after))]
