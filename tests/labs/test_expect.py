"""A check says one thing: exactly one verdict, whatever happens in it, and an error is never taken for one."""

from __future__ import annotations

import contextlib
import os

import pytest

from fixtures.expect import Expect, VerdictError
from tests.helpers.front_door import Finished, command, finished
from tests.helpers.paths import ROOT
from viacheck.diagnosis import Cause
from viacheck.diagnosis.remedy import Remedy
from viacheck.model.check import EVERYWHERE, Check
from viacheck.model.check_evidence import (
    CommandEvidence,
    PacketsEvidence,
    PacketSighting,
    StateEvidence,
    WatchedInterface,
)
from viacheck.model.result import CheckResult
from viacheck.model.snapshot import Problem
from viacheck.model.verdict import Verdict

CHECKS = """
import pytest
from fixtures.check import check


@pytest.fixture
def broken():
    raise ConnectionError("the tap\\x1b[31m is off")


@check("HOST-80", "It holds", guide="x")
def test_holds(expect):
    expect.holds(True, expected="a", observed="b")


@check("HOST-81", "It does not hold", guide="x")
def test_holds_not(expect):
    expect.holds(False, expected="a", observed="not a")


@check("HOST-82", "It hurts", guide="x")
def test_advises(expect):
    expect.advises(False, expected="a", observed="it will hurt")


@check("HOST-83", "It forgets", guide="x")
def test_forgets(expect):
    pass


@check("HOST-84", "It says two things", guide="x")
def test_says_two_things(expect):
    expect.holds(True, expected="a", observed="b")
    expect.holds(True, expected="c", observed="d")


@check("HOST-85", "It takes back what it said", guide="x")
def test_takes_back(expect):
    expect.holds(True, expected="a", observed="b")
    raise ValueError("too late")


@check("HOST-86", "It stumbles", guide="x")
def test_stumbles(expect):
    assert [1] == [2], "the lists"


@check("HOST-87", "Its fixture stumbles", guide="x")
def test_fixture_stumbles(broken, expect):
    expect.holds(True, expected="a", observed="b")


@check("HOST-88", "It is not run", guide="x")
def test_not_run(expect):
    expect.not_run("needs a ladder")


@check("HOST-89", "It does not apply", guide="x")
def test_not_applicable(expect):
    expect.not_applicable("there is no roof")


@check("HOST-90", "It cannot be told", guide="x")
def test_inconclusive(expect):
    expect.inconclusive("fog")


@check("HOST-91", "It stumbles after two things", guide="x")
def test_says_two_things_the_second_bad(expect):
    expect.holds(True, expected="a", observed="b")
    expect.holds(False, expected="c", observed="d")
"""


@pytest.fixture(scope="module", params=[(), ("-n", "2")], ids=["one process", "two workers"])
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("checks")
    (folder / "test_cases.py").write_text(CHECKS)
    report_dir = folder / "report"
    argv = [str(folder / "test_cases.py") if word == str(ROOT / "checks") else word for word in command()]
    argv += ["-p", "fixtures.plugin", "-p", "fixtures.checks", "-v", "--lab", "nat", *request.param]
    return finished([*argv, "--report-dir", str(report_dir)], report_dir, env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.fixture(scope="module")
def results(done: Finished) -> dict[str, CheckResult]:
    assert done.exit_code == 1, done.said
    found = {result.check: result for result in done.outcome.results}
    assert len(found) == len(done.outcome.results) == CHECKS.count("@check(")
    return found


@pytest.mark.parametrize(
    ("check", "verdict", "observed"),
    [
        ("HOST-80", Verdict.PASS, "b"),
        ("HOST-81", Verdict.FAIL, "not a"),
        ("HOST-82", Verdict.ADVISORY, "it will hurt"),
        ("HOST-83", Verdict.INCONCLUSIVE, "the check recorded no verdict; this is a defect of the check"),
        ("HOST-84", Verdict.INCONCLUSIVE, "VerdictError: HOST-84 recorded a second verdict: pass after pass"),
        ("HOST-85", Verdict.INCONCLUSIVE, "ValueError: too late"),
        ("HOST-86", Verdict.INCONCLUSIVE, "AssertionError: the lists"),
        ("HOST-87", Verdict.INCONCLUSIVE, "ConnectionError: the tap\x1b[31m is off"),
        ("HOST-88", Verdict.NOT_RUN, "needs a ladder"),
        ("HOST-89", Verdict.NOT_APPLICABLE, "there is no roof"),
        ("HOST-90", Verdict.INCONCLUSIVE, "fog"),
        ("HOST-91", Verdict.INCONCLUSIVE, "VerdictError: HOST-91 recorded a second verdict: fail after pass"),
    ],
)
def test_what_becomes_of_a_check(results: dict[str, CheckResult], check: str, verdict: Verdict, observed: str) -> None:
    assert results[check].verdict is verdict
    assert observed in results[check].observed


def test_an_internal_error_says_so_and_keeps_its_traceback(results: dict[str, CheckResult]) -> None:
    result = results["HOST-85"]
    assert result.observed.startswith("internal error, please report: ValueError: ")
    (evidence,) = result.evidence
    assert isinstance(evidence, StateEvidence)
    assert evidence.lines[-1].startswith("ValueError: ")
    assert any("test_cases.py" in line for line in evidence.lines)
    assert results["HOST-84"].observed.startswith("VerdictError: "), "a reason that is known"


def test_a_failure_without_a_known_cause_says_so_with_what_was_seen(results: dict[str, CheckResult]) -> None:
    diagnosis = results["HOST-81"].diagnosis
    assert diagnosis is not None
    assert (diagnosis.code, diagnosis.cause) == ("UNEXPLAINED", "none of the known causes accounts for this: not a")


def test_one_line_for_each_check_while_it_runs(done: Finished) -> None:
    for check, words in (("HOST-80", "pass"), ("HOST-81", "fail  not a"), ("HOST-88", "not-run"), ("HOST-90", "fog")):
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(f"{check} "))
        assert line.endswith(words), line


def test_tracebacks_are_shown_for_defects_alone_and_once(done: Finished) -> None:
    failures = done.stdout.partition("= FAILURES =")[2].partition("\nFAIL  lab:nat")[0]
    headlines = [line for line in failures.splitlines() if line.startswith("_") and "[nat]" in line]
    assert sorted(next(name for name in line.split() if name.startswith("test_")) for line in headlines) == [
        "test_fixture_stumbles[nat]", "test_says_two_things[nat]", "test_says_two_things_the_second_bad[nat]",
        "test_stumbles[nat]", "test_takes_back[nat]",
    ]  # fmt: skip


def test_what_a_check_says_steers_no_terminal(done: Finished) -> None:
    summary = done.stdout.partition("\nFAIL  lab:nat")[2]
    assert [c for c in summary if not c.isprintable() and c != "\n"] == []


# --- directly


class Subject:
    """A target with no known cause, or with one."""

    id = "lab:x"

    def __init__(self, cause: Cause | None = None) -> None:
        self.cause = cause

    def cause_of(self, check: Check) -> Cause | None:
        """The one that it was given."""
        return self.cause


def expect(cause: Cause | None = None) -> Expect:
    check = Check("EGRESS-01", "The way", "x", "capture", EVERYWHERE)
    return Expect(check, Subject(cause), "icmp")


def packets(
    left: dict[str, list[int]], *, sent: int = 3, unsound: tuple[str, ...] = (), refused: tuple[str, ...] = ()
) -> PacketsEvidence:
    """Probes seen leaving, and two watched uplinks."""
    return PacketsEvidence(
        sent=sent,
        answered=0,
        refused=list(refused),
        watched=[
            WatchedInterface(interface=name, state="up", fence_seen=name not in unsound, frames_lost=0)
            for name in ("eth0", "wlan0")
        ],
        sightings=[
            PacketSighting(
                time=0, interface=name, direction="out", probe=number, protocol="icmp", source="a", destination="b"
            )
            for name, numbers in left.items()
            for number in numbers
        ],
    )


@pytest.mark.parametrize(
    ("evidence", "verdict"),
    [
        (packets({"wlan0": [1, 2, 3]}), Verdict.PASS),
        (packets({"eth0": [1, 2, 3]}), Verdict.FAIL),
        (packets({"wlan0": [1, 2, 3], "eth0": [2]}), Verdict.FAIL),
        (packets({"wlan0": [1, 2]}), Verdict.FAIL),
        (packets({}), Verdict.FAIL),
        (packets({"wlan0": [1, 2, 3]}, unsound=("eth0",)), Verdict.INCONCLUSIVE),
        (packets({"wlan0": [1, 2, 3]}, unsound=("wlan0",)), Verdict.PASS),
        (packets({"wlan0": [1, 2]}, unsound=("wlan0",)), Verdict.INCONCLUSIVE),
        (packets({"eth0": [1]}, unsound=("eth0", "wlan0")), Verdict.FAIL),
        (packets({}, refused=("ENETUNREACH",) * 3), Verdict.FAIL),
        (packets({"wlan0": [1, 2]}, refused=("EPERM",)), Verdict.FAIL),
    ],
    ids=[
        "all by the uplink", "all by another", "one copied", "one missing", "none", "another one unwatched",
        "the uplink unwatched but seen", "one missing, unwatched", "seen elsewhere is enough", "refused", "one refused",
    ],
)  # fmt: skip
def test_presence_and_absence_are_both_needed(evidence: PacketsEvidence, verdict: Verdict) -> None:
    one = expect()
    with contextlib.suppress(pytest.fail.Exception):
        one.only_by("wlan0", evidence, ["eth0", "wlan0"], who="the agent")
    assert one.result is not None
    assert one.result.verdict is verdict, one.result.observed
    assert one.result.case == "icmp"


def test_a_failure_carries_its_cause_and_the_causes_evidence() -> None:
    seen = CommandEvidence(command="ip rule", exit_code=0)
    one = expect(
        Cause("RULE_MISSING", "ROUTE-02", "no rule", remedy=Remedy((("mend",),), (("undo",),)), evidence=(seen,))
    )
    with pytest.raises(pytest.fail.Exception):
        one.holds(False, expected="a", observed="b")
    assert one.result is not None
    assert one.result.diagnosis is not None
    assert (one.result.diagnosis.code, one.result.diagnosis.reported_by) == ("RULE_MISSING", "ROUTE-02")
    assert one.result.evidence == [seen]


def test_a_second_verdict_is_an_error_and_the_first_one_stands() -> None:
    one = expect()
    one.holds(True, expected="a", observed="b")
    with pytest.raises(VerdictError, match="recorded a second verdict: advisory after pass"):
        one.advises(False, expected="c", observed="d")
    assert one.result is not None
    assert one.result.verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("missing", "verdict", "observed"),
    [
        (None, Verdict.INCONCLUSIVE, "the rules could not be read: ip failed"),
        ("CAP_NET_ADMIN: run as root", Verdict.NOT_RUN, "needs CAP_NET_ADMIN: run as root"),
    ],
)
def test_what_could_not_be_read(missing: str | None, verdict: Verdict, observed: str) -> None:
    one = expect()
    with pytest.raises((pytest.fail.Exception, pytest.skip.Exception)):
        one.unread(Problem(what="rules", reason="ip failed", command="ip rule", exit_code=1, missing=missing))
    assert one.result is not None
    assert (one.result.verdict, one.result.observed) == (verdict, observed)
    assert len(one.result.evidence) == (1 if missing is None else 0)
