"""One situation, judged in three places: on the live host, from its bundle, and in its replica."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.helpers.front_door import Finished, viacheck
from viacheck.model.result import CheckResult
from viacheck.model.verdict import Verdict

Judgement = tuple[Verdict, str | None]
"""A verdict, and the code of its diagnosis."""
PASS: Judgement = (Verdict.PASS, None)
DECIDED = frozenset({Verdict.PASS, Verdict.FAIL, Verdict.ADVISORY})
NOT_RUN: Judgement = (Verdict.NOT_RUN, None)
BY_PACKETS_ALONE = frozenset({
    "HOST-03", "ROUTE-06", "EGRESS-02", "EGRESS-03", "EGRESS-04", "EGRESS-06", "EGRESS-07", "EGRESS-09", "MACVLAN-03",
    "MACVLAN-04", "MACVLAN-05", "MACVLAN-06", "PIPEWORK-04",
})  # fmt: skip
"""Checks whose fault a bundle may not show, as no model of the host decides it."""
_NO_DIFFERENCE: Mapping[str, Judgement] = {}


def judgements(done: Finished) -> dict[str, Judgement]:
    """Return the worst verdict of each check, and its code."""
    worst: dict[str, CheckResult] = {}
    for result in done.outcome.results:
        if result.check not in worst or result.verdict.bad:
            worst[result.check] = result
    return {
        check: (result.verdict, result.diagnosis.code if result.diagnosis else None) for check, result in worst.items()
    }


def decided(done: Finished) -> dict[str, Judgement]:
    """Return the judgement of each check that a run decided."""
    return {check: found for check, found in judgements(done).items() if found[0] in DECIDED}


def assert_bundle_and_replica_agree(
    done: Finished,
    expected: Mapping[str, Judgement],
    folder: Path,
    *,
    in_bundle: Mapping[str, Judgement] = _NO_DIFFERENCE,
    in_replica: Mapping[str, Judgement] = _NO_DIFFERENCE,
    replica_notes: tuple[str, ...] = (),
) -> None:
    """Judge the bundle of a live run, and the replica that is built from it, by the checks of the live run.

    A bundle shows faults and proves nothing: a check that needs packets is not run where its model finds no fault.

    Args:
        done: the live run.
        expected: the verdict and the code of each check on the live host.
        folder: an empty folder for the reports.
        in_bundle: the checks that a bundle judges otherwise.
        in_replica: the checks that a replica judges otherwise.
        replica_notes: texts of the notes by which a replica says what it cannot copy.
    """
    bundle = str(done.report_dir / "bundle.tar.gz")
    chosen = ("-q", "-k", f"({' or '.join(expected)}) and not FLAP")
    of_bundle = viacheck("--bundle", bundle, *chosen, report_dir=folder / "bundle")
    shown = judgements(of_bundle)
    for check, live in expected.items():
        unproven = {NOT_RUN} if live == PASS or check in BY_PACKETS_ALONE else set()
        allowed = {in_bundle[check]} if check in in_bundle else {live} | unproven
        assert shown[check] in allowed, f"{check}: {of_bundle.said}"
    of_replica = viacheck("--twin", bundle, *chosen, report_dir=folder / "replica")
    built = judgements(of_replica)
    assert {check: built[check] for check in expected} == {**expected, **in_replica}, of_replica.said
    notes = "\n".join(of_replica.outcome.targets[0].notes)
    for text in replica_notes:
        assert text in notes, notes


def assert_saved_state_agrees(
    done: Finished,
    *,
    in_bundle: Mapping[str, Judgement] = _NO_DIFFERENCE,
    in_replica: Mapping[str, Judgement] = _NO_DIFFERENCE,
    replica_notes: tuple[str, ...] = (),
) -> None:
    """Judge the bundle of a live run and its replica by every check that the run decided."""
    folder = done.report_dir.parent / "saved"
    assert_bundle_and_replica_agree(
        done, decided(done), folder, in_bundle=in_bundle, in_replica=in_replica, replica_notes=replica_notes
    )
