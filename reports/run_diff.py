"""The differences between two saved runs: verdicts first, then the state of the host.

It needs the two results alone. A target is compared with the target of the same id; if each run has a single target,
these two are compared whatever their ids. What is another value after every boot is left out, see
:mod:`viacheck.model.lasting_state`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from viacheck.model.diff import Change, Changed, Subject, SysctlValue, changes, passing_interfaces, value_text
from viacheck.model.lasting_state import lasting
from viacheck.model.namespace_state import Link
from viacheck.model.result import CheckResult, RunResult, TargetRecord
from viacheck.model.snapshot import HostFile
from viacheck.model.snapshot_json import read_snapshot


@dataclass(frozen=True, slots=True)
class RunDifference:
    """A verdict or a fact that differs between the runs."""

    target: str
    what: str
    before: str
    after: str

    text: str
    """The whole difference as a sentence."""

    def __str__(self) -> str:
        return f"{self.target}: {self.text}"


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
            if new is None:
                sides = "judged", "not judged", "was judged in the first run only."
            else:
                sides = "not judged", "judged", "was judged in the second run only."
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
            check, case = key
            name = f"{check} ({case})" if case else check
            text = f"{name} changed from {was} to {now}."
            if key not in first or key not in second:
                run = "second" if key not in first else "first"
                text = f"{name} was judged in the {run} run only: {now if key not in first else was}."
            yield RunDifference(new.id, " ".join(filter(None, key)), was, now, text)


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
    changed = changes(lasting(read_snapshot(old.snapshot)), lasting(read_snapshot(new.snapshot)))
    passing = passing_interfaces(changed)
    for change in _paired(changed):
        if change.subject is Subject.SYSCTL and any((change.where, name) in passing for name in change.interfaces):
            # The link that came or went says it.
            continue
        was, now = value_text(change.before), value_text(change.after)
        yield RunDifference(new.id, change.heading, was, now, _state_text(change, was, now))


def _state_text(change: Change, was: str, now: str) -> str:
    what = f"The {change.where}'s {change.subject}" if change.where else change.heading.capitalize()
    match change.before, change.after:
        case None, _:
            return f"{what} {now} is new."
        case _, None:
            return f"{what} {was} is gone."
        case HostFile() as before, HostFile():
            return f"The text of {before.path} changed."
        case SysctlValue() as before, SysctlValue() as after:
            return f"{what} {before.path} changed from {before.value} to {after.value}."
        case Link() as before, Link():
            return f"{what} {before.name} changed from '{was}' to '{now}'."
    return f"{what}: {was} before, {now} now."


def _paired(changed: Iterable[Change]) -> list[Change]:
    """Return the changes with the two sides of one interface, and of one value below /proc/sys, as one change."""
    result: list[Change] = []
    gone: dict[object, int] = {}
    for change in changed:
        key = (change.where, _key(change.before)), (change.where, _key(change.after))
        if change.after is None and key[0][1] is not None:
            gone[key[0]] = len(result)
        elif change.before is None and key[1] in gone:
            place = gone.pop(key[1])
            result[place] = replace(result[place], after=change.after)
            continue
        result.append(change)
    return result


def _key(value: Changed | None) -> str | None:
    """Return the name of an object that stays the same object when it changes; None for any other."""
    if isinstance(value, Link):
        return f"link {value.name}"
    return f"sysctl {value.path}" if isinstance(value, SysctlValue) else None
