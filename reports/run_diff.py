"""The differences between two saved runs: verdicts first, then the state of the host.

It needs the two results alone. A target is compared with the target of the same id; if each run has a single target,
these two are compared whatever their ids. What is another value after every boot is left out, see
:mod:`viacheck.model.lasting_state`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from viacheck.model.diff import changes, value_text
from viacheck.model.lasting_state import lasting
from viacheck.model.result import CheckResult, RunResult, TargetRecord
from viacheck.model.snapshot_json import read_snapshot


@dataclass(frozen=True, slots=True)
class RunDifference:
    """A verdict or a fact that differs between the runs."""

    target: str
    what: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.target}: {self.what}: {self.before} -> {self.after}"


def differences(before: RunResult, after: RunResult) -> list[RunDifference]:
    """Return all differences, verdicts before state.

    Verdicts are compared only where both runs have results; a bundle may have been collected without a run.
    """
    pairs = paired_targets(before.targets, after.targets)
    result: list[RunDifference] = []
    for old, new in pairs:
        if old is None or new is None:
            known = new or old
            assert known is not None
            sides = ("judged", "not judged") if new is None else ("not judged", "judged")
            result.append(RunDifference(known.id, "target", *sides))
            continue
        if before.results and after.results:
            result += _verdicts(before, after, old, new)
        result += _states(old, new)
    return result


def paired_targets(
    before: list[TargetRecord], after: list[TargetRecord]
) -> list[tuple[TargetRecord | None, TargetRecord | None]]:
    """Return the targets that are compared with each other; None where a run has no such target."""
    if len(before) == len(after) == 1:
        return [(before[0], after[0])]
    old, new = {target.id: target for target in before}, {target.id: target for target in after}
    return [(old.get(name), new.get(name)) for name in dict.fromkeys([*old, *new])]


def _verdicts(before: RunResult, after: RunResult, old: TargetRecord, new: TargetRecord) -> Iterator[RunDifference]:
    first, second = results_by_check(before, old.id), results_by_check(after, new.id)
    for key in dict.fromkeys([*first, *second]):
        was, now = verdict_text(first.get(key)), verdict_text(second.get(key))
        if was != now:
            yield RunDifference(new.id, " ".join(filter(None, key)), was, now)


def results_by_check(outcome: RunResult, target: str) -> dict[tuple[str, str | None], CheckResult]:
    """Return the results of a target by check and case."""
    return {(result.check, result.case): result for result in outcome.results if result.target == target}


def verdict_text(result: CheckResult | None) -> str:
    """Return a verdict with its diagnosis as text."""
    if result is None:
        return "no result"
    code = f" ({result.diagnosis.code})" if result.diagnosis is not None else ""
    return f"{result.verdict.value}{code}"


def _states(old: TargetRecord, new: TargetRecord) -> Iterator[RunDifference]:
    if old.snapshot is None or new.snapshot is None:
        return
    for change in changes(lasting(read_snapshot(old.snapshot)), lasting(read_snapshot(new.snapshot))):
        yield RunDifference(new.id, change.heading, value_text(change.before), value_text(change.after))
