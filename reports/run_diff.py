"""What changed between two saved runs, in words: verdicts first, then the state of the host.

Works from two results alone; a target is compared with the one of the same id, or, where each run has but one, with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import TypeAdapter

from viacheck.model.diff import changes
from viacheck.model.result import CheckResult, Outcome, TargetRecord
from viacheck.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same in both runs."""

    target: str
    what: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.target}: {self.what}: {self.before} -> {self.after}"


def differences(before: Outcome, after: Outcome) -> list[Difference]:
    """Everything that is not the same, verdicts before state; empty when nothing changed.

    Where nobody judged (a bundle that was collected without a run) there are no verdicts to compare.
    """
    pairs = _pairs(before.targets, after.targets)
    found = []
    for old, new in pairs:
        if old is None or new is None:
            known = new or old
            assert known is not None
            there = ("judged", "not judged") if new is None else ("not judged", "judged")
            found.append(Difference(known.id, "target", *there))
            continue
        if before.results and after.results:
            found += _verdicts(before, after, old, new)
        found += _states(old, new)
    return found


def _pairs(
    before: list[TargetRecord], after: list[TargetRecord]
) -> list[tuple[TargetRecord | None, TargetRecord | None]]:
    if len(before) == len(after) == 1:
        return [(before[0], after[0])]
    old, new = {one.id: one for one in before}, {one.id: one for one in after}
    return [(old.get(name), new.get(name)) for name in dict.fromkeys([*old, *new])]


def _verdicts(before: Outcome, after: Outcome, old: TargetRecord, new: TargetRecord) -> Iterator[Difference]:
    first, second = _by_check(before, old.id), _by_check(after, new.id)
    for key in dict.fromkeys([*first, *second]):
        was, now = _told(first.get(key)), _told(second.get(key))
        if was != now:
            yield Difference(new.id, " ".join(filter(None, key)), was, now)


def _by_check(outcome: Outcome, target: str) -> dict[tuple[str, str | None], CheckResult]:
    return {(result.check, result.case): result for result in outcome.results if result.target == target}


def _told(result: CheckResult | None) -> str:
    if result is None:
        return "not there"
    code = f" ({result.diagnosis.code})" if result.diagnosis is not None else ""
    return f"{result.verdict.value}{code}"


def _states(old: TargetRecord, new: TargetRecord) -> Iterator[Difference]:
    if old.snapshot is None or new.snapshot is None:
        return
    reader = TypeAdapter(Snapshot)
    for line in changes(reader.validate_python(old.snapshot), reader.validate_python(new.snapshot)):
        sign, _, text = line.partition(" ")
        what, _, value = text.partition(": ")
        yield Difference(new.id, what, value if sign == "-" else "absent", "absent" if sign == "-" else value)
