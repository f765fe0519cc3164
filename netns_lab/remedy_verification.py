"""Verifies remedies in labs: apply the remedy, judge the lab again, roll the remedy back, and compare the states.

All remedies of a target are verified in one lab: each is applied on top of those before it, and all are rolled back in
reverse order. Several labs run in processes of their own.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from netns_lab.apply_script import ScriptFailed
from netns_lab.comparable_state import comparable
from netns_lab.lab import Lab
from netns_lab.lab_specs import REPLICA, LabSpec, ReplicaSpec, Script, lab_of, replica_of
from netns_lab.open_lab import open_lab
from netns_lab.remedy_steps import run_steps
from viacheck.model.diff import changes
from viacheck.model.result import CheckResult, Diagnosis, RemedyCheck, RunResult, TargetRecord
from viacheck.model.snapshot import Snapshot
from viacheck.targets.base import Target
from viacheck.targets.remedy_check import RemedyCandidate, candidates, compare, not_verified, obstacle_to
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


def verify_remedies(run_result: RunResult, judge: Judge) -> None:
    """Verify the remedies of every lab and replica in a run, and fill in ``remedy_check`` of each diagnosis.

    Args:
        run_result: the results of a run.
        judge: runs the checks again. It is sent to other processes, so it must be picklable.
    """
    labs = [lab for target in run_result.targets if (lab := _remedies_of(target, run_result)) is not None]
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
    for result in run_result.results:
        diagnosis = result.diagnosis
        if diagnosis is None or (diagnosis.remedy_check is not None and diagnosis.remedy_check.was_tried):
            continue
        obstacle = obstacle_to(diagnosis, has_docker=not result.target.startswith(REPLICA))
        if obstacle is not None:
            _add_verification(diagnosis, not_verified(diagnosis, obstacle))


def _add_verification(diagnosis: Diagnosis, verification: RemedyCheck | None) -> None:
    """Add what was verified to what the model predicted."""
    if verification is not None:
        predicted = diagnosis.remedy_check.predicted if diagnosis.remedy_check is not None else None
        diagnosis.remedy_check = verification.model_copy(update={"predicted": predicted})


def _remedies_of(target: TargetRecord, run_result: RunResult) -> RemedyLab | None:
    """Return the remedies of a target; None if it is not a lab, or has no remedy that a lab can run."""
    if target.kind != "lab":
        return None
    is_replica = target.id.startswith(REPLICA)
    results = tuple(result for result in run_result.results if result.target == target.id)
    remedies = tuple(candidates(results, has_docker=not is_replica))
    if not remedies:
        return None
    spec = replica_of(target, "this run") if is_replica else lab_of(target)
    assert spec is not None, "a replica that was judged has a snapshot"
    return RemedyLab(spec, results, remedies)


def verify_lab(remedy_lab: RemedyLab, judge: Judge) -> dict[str, RemedyCheck]:
    """Verify the remedies of one target in one lab; return the verifications by the code of the diagnosis."""
    try:
        lab = open_lab(remedy_lab.spec)
    except (TargetUnavailable, TargetNotOpened) as error:
        return {remedy.code: RemedyCheck(reason=str(error)) for remedy in remedy_lab.remedies}
    try:
        with tempfile.TemporaryDirectory(prefix="viacheck-remedies-") as captures:
            return _verify_in(lab, remedy_lab, judge, Path(captures))
    finally:
        lab.close()


def _verify_in(lab: Lab, remedy_lab: RemedyLab, judge: Judge, captures: Path) -> dict[str, RemedyCheck]:
    """Apply one remedy after another and judge the lab after each; then roll them back, the last one first."""
    checks: dict[str, RemedyCheck] = {}
    applied: list[Script] = []
    states: list[Snapshot] = []
    for remedy in remedy_lab.remedies:
        states.append(_state(lab, remedy_lab.spec))
        script = Script(f"remedy of {remedy.code}", remedy.text)
        try:
            run_steps(lab, script.name, remedy.steps)
        except ScriptFailed as error:
            # The script may have changed the lab in part: neither the next remedies nor a rollback prove anything.
            return _not_applied(remedy_lab.remedies, checks, str(error))
        applied.append(script)
        target = remedy_lab.spec.with_scripts(*applied).target_of(lab, ends_lab=False)
        try:
            checks[remedy.code] = compare(remedy_lab.results, judge(target, captures), remedy.code)
        finally:
            target.close()
    failure: str | None = None
    for remedy, before in reversed(list(zip(remedy_lab.remedies, states, strict=True))):
        failure = failure or _rollback_failure(lab, remedy_lab.spec, remedy, before)
        rollback = {"rollback_verified": failure is None, "rollback_reason": failure}
        checks[remedy.code] = checks[remedy.code].model_copy(update=rollback)
    return checks


def _not_applied(
    remedies: Sequence[RemedyCandidate], checks: Mapping[str, RemedyCheck], reason: str
) -> dict[str, RemedyCheck]:
    """Return the checks of the remedies that were applied, and of those from the one that failed on."""
    failed = RemedyCheck(verified=False, reason=reason)
    no_rollback = {"rollback_verified": False, "rollback_reason": f"a remedy after it failed: {reason}"}
    return {
        remedy.code: checks[remedy.code].model_copy(update=no_rollback) if remedy.code in checks else failed
        for remedy in remedies
    }


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
