"""The verdicts of a run beside those of an accepted run: what got worse, what got better.

An accepted failure that is still there is neither. A run with a baseline fails only for what got worse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from reports.run_diff import paired_targets, results_by_check, verdict_text
from reports.text import one_line, reason
from viacheck.model.chapters import check_order
from viacheck.model.result import CheckResult, RunResult
from viacheck.model.verdict import Verdict

_RANKS = {Verdict.PASS: 0, Verdict.ADVISORY: 1, Verdict.INCONCLUSIVE: 2, Verdict.FAIL: 3}


@dataclass(frozen=True, slots=True)
class VerdictShift:
    """A check whose verdict, or the cause of whose failure, is another one than in the accepted run."""

    target: str
    check: str
    case: str | None
    before: str
    after: str
    kind: Literal["worse", "better", "not judged"]
    """``not judged``: the check has no verdict in this run, so that it is neither worse nor better."""
    why: str = ""

    @property
    def is_worse(self) -> bool:
        """Whether the run fails because of it."""
        return self.kind == "worse"

    def __str__(self) -> str:
        name = f"{self.check} ({self.case})" if self.case else self.check
        why = f": {self.why}" if self.why else ""
        return one_line(f"{self.target}: {name}: {self.before} -> {self.after}{why}")


def compare_with_baseline(accepted: RunResult, outcome: RunResult) -> list[VerdictShift]:
    """Return what is different from the accepted run, worse first. A waived result is never worse.

    A target is compared with the target of the same id; single targets are compared whatever their ids. A check that
    the accepted run did not judge is worse when it is bad.
    """
    shifts = [
        shift
        for old, new in paired_targets(accepted.targets, outcome.targets)
        if new is not None
        for shift in _shifts(
            results_by_check(accepted, old.id) if old is not None else {}, results_by_check(outcome, new.id), new.id
        )
    ]
    kinds = ("worse", "better", "not judged")
    return sorted(shifts, key=lambda shift: (kinds.index(shift.kind), shift.target, check_order(shift.check)))


def _shifts(
    before: dict[tuple[str, str | None], CheckResult], after: dict[tuple[str, str | None], CheckResult], target: str
) -> Iterator[VerdictShift]:
    for key in dict.fromkeys([*before, *after]):
        was, now = before.get(key), after.get(key)
        kind = _kind(was, now)
        if kind is not None:
            why = reason(now) if now is not None and kind == "worse" else ""
            yield VerdictShift(target, *key, verdict_text(was), verdict_text(now), kind, why)


def _kind(was: CheckResult | None, now: CheckResult | None) -> Literal["worse", "better", "not judged"] | None:
    old = None if was is None else _RANKS.get(was.verdict)
    new = None if now is None else _RANKS.get(now.verdict)
    if now is None or new is None:
        return "not judged" if old is not None else None
    bad = now.verdict.bad and now.waiver is None
    if old is None:
        return "worse" if bad else None
    if new < old:
        return "better"
    other_cause = was is not None and now.verdict is Verdict.FAIL and _code(was) != _code(now)
    if new > old or other_cause:
        return "worse" if now.waiver is None else None
    return None


def _code(result: CheckResult) -> str | None:
    return result.diagnosis.code if result.diagnosis is not None else None


def worse_text(shifts: Sequence[VerdictShift]) -> list[str]:
    """Return the lines that a person reads: what got worse, what got better, what was not judged this time."""
    if not shifts:
        return ["since the accepted run: no check got worse or better"]
    return [f"{shift.kind}: {shift}" for shift in shifts]
