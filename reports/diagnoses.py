"""Causes: what is wrong, each told once, with the checks that fail only because of it and the targets that share it.

A diagnosis that names another check (``reported_by``) is no cause of its own; it is listed under the one that tells it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from reports.egress_summary import PROOF
from reports.text import check_order, ids_shortened, named, reason
from viacheck.model.result import CheckResult, Outcome, Verdict

TOLD = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ADVISORY)
"""Verdicts that have a cause worth telling, the worst first."""
MEASURED = "FLAP-"
"""Checks that measure what an event does: what they saw says more than their cause alone."""


@dataclass(slots=True)
class Cause:
    """One thing that is wrong, on one target or on several."""

    verdict: Verdict
    code: str | None
    """The diagnosis' code; None for a check that failed without one."""
    text: str
    remedy: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    mend: str = ""
    """What came of trying the remedy in a lab, where it was tried."""
    told: list[CheckResult] = field(default_factory=list)
    """The checks that tell it: several cases, several targets."""
    followers: list[CheckResult] = field(default_factory=list)
    """The checks that are bad only because of it."""

    @property
    def targets(self) -> list[str]:
        """Ids of the targets that have it, in the order of the results."""
        return list(dict.fromkeys(result.target for result in self.told))

    @property
    def checks(self) -> str:
        """The ids of the checks that tell it."""
        return ids_shortened(result.check for result in self.told)

    @property
    def following(self) -> list[str]:
        """The checks that are bad only because of it, with their cases."""
        return named(self.followers)

    @property
    def measurements(self) -> list[str]:
        """What the checks that go through an event saw of it on the first target, in the order of the checks."""
        results = [one for one in (*self.told, *self.followers) if one.target == self.targets[0]]
        seen = {one.check: one.observed for one in results if one.check.startswith(MEASURED)}
        return [f"{check}: {seen[check]}" for check in sorted(seen, key=check_order)]

    @property
    def moves_packets(self) -> bool:
        """It is why the agent's packets do not take the intended way."""
        return any(result.check == PROOF for result in (*self.told, *self.followers))


def causes(outcome: Outcome, verdict: Verdict) -> list[Cause]:
    """Find the causes of one verdict, those first that move the agent's packets, then those that explain most.

    A cause has the worst verdict among the checks that tell it and those that are bad because of it.
    """
    bad = [result for result in outcome.results if result.verdict in TOLD]
    tellers = _tellers(bad)
    worst: dict[tuple[str, str], Verdict] = {}
    for result in bad:
        place = (result.target, result.check)
        place = tellers.get(place, place)
        worst[place] = min(worst.get(place, result.verdict), result.verdict, key=TOLD.index)
    found: dict[tuple[object, ...], Cause] = {}
    told_by_check: dict[tuple[str, str], Cause] = {}
    for result in bad:
        place = (result.target, result.check)
        if place in tellers or worst[place] is not verdict:
            continue
        cause = _cause(result, verdict)
        # The wording is part of the key: the same code with other values takes other commands to mend.
        key = (cause.code, cause.text, cause.remedy)
        cause = found.setdefault(key, cause)
        cause.told.append(result)
        told_by_check.setdefault(place, cause)
    for result in bad:
        teller = tellers.get((result.target, result.check))
        if teller in told_by_check:
            told_by_check[teller].followers.append(result)
    return sorted(
        found.values(),
        key=lambda cause: (
            not cause.moves_packets,
            cause.code is None,
            -len({(result.target, result.check) for result in cause.followers}),
            check_order(cause.told[0].check),
        ),
    )


def _tellers(bad: Sequence[CheckResult]) -> dict[tuple[str, str], tuple[str, str]]:
    """Map a check of a target to the check that tells its cause, where that one is bad itself and tells its own."""
    present = {(result.target, result.check) for result in bad}
    direct = {
        (result.target, result.check): (result.target, result.diagnosis.reported_by)
        for result in bad
        if result.diagnosis and result.diagnosis.reported_by
    }
    tellers = {}
    for check, teller in direct.items():
        passed = {check}
        while teller in direct and teller not in passed:
            passed.add(teller)
            teller = direct[teller]
        # A ring of checks, or a teller that is not bad here, tells nothing: then the check speaks for itself.
        if teller in present and teller not in passed:
            tellers[check] = teller
    return tellers


def _cause(result: CheckResult, verdict: Verdict) -> Cause:
    if result.diagnosis is None:
        return Cause(verdict, None, reason(result))
    diagnosis = result.diagnosis
    return Cause(
        verdict,
        diagnosis.code,
        diagnosis.cause,
        tuple(diagnosis.remedy),
        tuple(diagnosis.undo),
        diagnosis.mend or "",
    )
