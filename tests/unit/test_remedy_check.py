"""Which remedies can be verified, what a second judgement says about them, and how result.json holds it."""

from __future__ import annotations

import json
import shlex

import pytest

from reports.diagnoses import reported_causes
from tests.helpers.sample_outcomes import healthy
from viacheck.model.diagnosis_codes import NO_COMMAND
from viacheck.model.diagnosis_record import (
    Diagnosis,
    OtherCause,
    OutputOf,
    RemedyCheck,
    RemedyOutcome,
    RemedyStep,
    VerdictChange,
)
from viacheck.model.result import CheckResult, add_affected_checks
from viacheck.model.verdict import Verdict
from viacheck.targets.remedy_check import candidates, compare, not_verified, obstacle_to, outcome_of, runs_in_replica

FIX = ["ip rule add priority 1000 from 172.17.0.0/16 lookup 200"]
ROLLBACK = ["ip rule del priority 1000 from 172.17.0.0/16 lookup 200"]


def steps_of(commands: list[str]) -> list[RemedyStep]:
    return [RemedyStep(argv=list(shlex.split(command))) for command in commands]


def result(
    check: str,
    verdict: Verdict = Verdict.PASS,
    code: str | None = None,
    *,
    case: str | None = None,
    reported_by: str | None = None,
    remedy: list[str] | None = None,
    target: str = "lab:nat",
) -> CheckResult:
    diagnosis = None
    if code is not None:
        commands = FIX if remedy is None else remedy
        diagnosis = Diagnosis(
            code=code, cause="a cause", remedy=commands, undo=ROLLBACK, remedy_steps=steps_of(commands),
            undo_steps=steps_of(ROLLBACK), reported_by=reported_by,
        )  # fmt: skip
    return CheckResult(
        check=check, target=target, case=case, title="a title", verdict=verdict, observed=f"{check} seen",
        diagnosis=diagnosis,
    )  # fmt: skip


BROKEN = [
    result("ROUTE-02", Verdict.FAIL, "RULE_MISSING"),
    result("EGRESS-01", Verdict.FAIL, "RULE_MISSING", case="icmp", reported_by="ROUTE-02"),
    result("EGRESS-01", Verdict.FAIL, "RULE_MISSING", case="udp", reported_by="ROUTE-02"),
    result("ROUTE-03", Verdict.NOT_APPLICABLE),
    result("HOST-02"),
]


def test_a_remedy_is_verified_when_its_checks_pass_and_no_other_check_gets_worse() -> None:
    after = [
        result("ROUTE-02"), result("EGRESS-01", case="icmp"), result("EGRESS-01", case="udp"), result("ROUTE-03"),
        result("HOST-02"),
    ]  # fmt: skip
    check = compare(BROKEN, after, "RULE_MISSING")
    assert check.verified is True
    assert check.reason is None
    assert VerdictChange(check="EGRESS-01", case="udp", before=Verdict.FAIL, after=Verdict.PASS) in check.repaired
    assert [change.check for change in check.side_effects] == ["ROUTE-03"]
    text = check.model_copy(update={"rollback_verified": True}).text
    assert text == (
        "fix verified: ROUTE-02 fail -> pass, EGRESS-01 (icmp, udp) fail -> pass, and with it ROUTE-03 not-applicable "
        "-> pass; rollback verified: the state is as before"
    )


def test_a_remedy_is_not_verified_while_a_check_has_the_same_cause() -> None:
    after = [result("ROUTE-02"), result("EGRESS-01", Verdict.FAIL, "RULE_MISSING", case="icmp")]
    check = compare(BROKEN, after, "RULE_MISSING")
    assert check.verified is False
    assert check.reason == "EGRESS-01 icmp fail: EGRESS-01 seen"


def test_a_remedy_is_not_verified_when_another_check_gets_worse() -> None:
    after = [result("ROUTE-02"), result("HOST-02", Verdict.FAIL, "NO_CARRIER")]
    check = compare(BROKEN, after, "RULE_MISSING")
    assert (check.verified, check.reason) == (False, "HOST-02 fail: HOST-02 seen")


def test_a_check_that_has_another_cause_too_does_not_count_against_the_remedy() -> None:
    after = [result("ROUTE-02"), result("EGRESS-01", Verdict.FAIL, "NO_SOURCE_NAT", case="icmp")]
    check = compare(BROKEN, after, "RULE_MISSING")
    assert check.verified is True
    assert check.other_causes == [OtherCause(check="EGRESS-01", code="NO_SOURCE_NAT")]
    assert "another cause remains for EGRESS-01 (NO_SOURCE_NAT)" in check.text


def test_a_check_that_is_not_judged_again_is_no_success() -> None:
    after = [result("ROUTE-02", Verdict.NOT_RUN), result("HOST-02", Verdict.NOT_RUN)]
    check = compare(BROKEN, after, "RULE_MISSING")
    assert (check.verified, check.reason) == (False, "ROUTE-02 not-run: ROUTE-02 seen; HOST-02 not-run: HOST-02 seen")
    outcome = outcome_of(BROKEN, after)
    assert outcome.verdict == "inconclusive"
    assert outcome.repaired == []
    assert outcome.worse == [VerdictChange(check="HOST-02", before=Verdict.PASS, after=Verdict.NOT_RUN)]
    assert outcome.text == "verdict inconclusive; makes worse HOST-02 pass -> not-run"


def test_an_outcome_names_what_passes_then() -> None:
    after = [result("ROUTE-02"), result("EGRESS-01", Verdict.FAIL, "TABLE_EMPTY", case="icmp"), result("HOST-02")]
    assert outcome_of(BROKEN, after).text == "verdict fail; repairs ROUTE-02 fail -> pass"
    assert outcome_of(BROKEN, BROKEN).text == "verdict fail; repairs no check"
    assert RemedyOutcome(verdict="inconclusive", reason="ip: exit 2").text == "could not be applied: ip: exit 2"


def test_a_remedy_that_needs_the_others_says_so() -> None:
    alone = RemedyOutcome(verdict="inconclusive", reason="Network is unreachable")
    check = RemedyCheck(verified=True, rollback_verified=True, alone=alone, together=RemedyOutcome(verdict="pass"))
    assert check.text.startswith("fix verified together with the other fixes: ")
    assert not check.model_copy(update={"together": None}).needs_others


def test_the_remedies_of_a_target_are_in_the_order_of_the_fix_list() -> None:
    results = [
        result("ROUTE-07", Verdict.ADVISORY, "FAIL_OPEN"),
        result("PERSIST-01", Verdict.FAIL, "NOT_PERSISTENT"),
        result("HOST-04", Verdict.FAIL, "FORWARDING_OFF"),
        *BROKEN,
        result("HOST-02", Verdict.FAIL, "UPLINK_DOWN"),
    ]
    ordered = [remedy.code for remedy in candidates(results, has_docker=True)]
    assert ordered == ["UPLINK_DOWN", "RULE_MISSING", "FORWARDING_OFF", "NOT_PERSISTENT", "FAIL_OPEN"]
    outcome = healthy().model_copy(update={"results": results})
    printed = [
        cause.code for verdict in (Verdict.FAIL, Verdict.ADVISORY) for cause in reported_causes(outcome, verdict)
    ]
    assert printed == ordered


def test_failures_are_repaired_before_advisories_and_each_diagnosis_once() -> None:
    results = [
        result("ROUTE-07", Verdict.ADVISORY, "FAIL_OPEN"),
        *BROKEN,
        result("ROUTE-05", Verdict.FAIL, "RULE_MISSING"),
        result("HOST-03", Verdict.FAIL, "GATEWAY_SILENT", remedy=[]),
        result("HOST-01", Verdict.FAIL, "ENGINE_UNREACHABLE", remedy=["systemctl start docker"]),
    ]
    assert [remedy.code for remedy in candidates(results, has_docker=True)] == ["RULE_MISSING", "FAIL_OPEN"]


@pytest.mark.parametrize(
    ("commands", "has_docker", "obstacle"),
    [
        (FIX, False, None),
        ([], True, "no-command"),
        (["systemctl restart systemd-networkd"], True, "needs-systemd"),
        (["systemctl unmask NetworkManager.service", "systemctl enable NetworkManager.service"], True, None),
        (["docker start te-agent"], True, None),
        (["docker start te-agent"], False, "needs-docker"),
        (["systemctl start docker"], False, "needs-docker"),
        (["patch -u 'docker start te-agent'"], False, None),
        (["ifdown wlan0", "ifup wlan0"], True, None),
        (["ifdown wlan0", "ifup wlan0"], False, "runs-host-files"),
        (["kill 4711"], False, "runs-host-files"),
        (["nsenter --net=/run/netns/agent ip link set dev eth0 up"], False, None),
        (["nsenter --net=/run/netns/agent sh -c id"], False, "runs-host-files"),
        (["nsenter --mount=/proc/1/ns/mnt ip link"], False, "runs-host-files"),
    ],
)
def test_a_remedy_that_a_lab_cannot_run_has_an_obstacle(
    commands: list[str], has_docker: bool, obstacle: str | None
) -> None:
    diagnosis = Diagnosis(code="RULE_MISSING", cause="a cause", remedy_steps=steps_of(commands))
    assert obstacle_to(diagnosis, has_docker=has_docker) == obstacle


def test_a_whole_host_runs_systemd() -> None:
    steps = steps_of(["systemctl restart systemd-networkd"])
    diagnosis = Diagnosis(code="RULE_MISSING", cause="a cause", remedy_steps=steps)
    assert obstacle_to(diagnosis, has_docker=True, has_systemd=True) is None


def test_the_output_of_docker_needs_docker() -> None:
    step = RemedyStep(argv=["nsenter", "--net", "--target", OutputOf(command=["docker", "inspect", "x"]), "ip", "link"])
    diagnosis = Diagnosis(code="RULE_MISSING", cause="a cause", remedy_steps=[step])
    assert obstacle_to(diagnosis, has_docker=False) == "needs-docker"
    assert not runs_in_replica(step)


def test_the_rollback_of_a_replica_runs_no_file_of_the_host_either() -> None:
    diagnosis = Diagnosis(
        code="RULE_MISSING", cause="a cause", remedy_steps=steps_of(FIX), undo_steps=steps_of(["kill 4711"])
    )
    assert obstacle_to(diagnosis, has_docker=False) == "runs-host-files"


def test_an_obstacle_says_why_the_remedy_is_not_verified() -> None:
    check = not_verified(Diagnosis(code="GATEWAY_SILENT", cause="a cause"), "no-command")
    assert (check.verified, check.rollback_verified, check.reason) == (None, None, NO_COMMAND["GATEWAY_SILENT"])
    assert check.text.startswith("not verified: ")


def test_a_decision_is_said_once() -> None:
    diagnosis = Diagnosis(code="SOURCE_BYPASSES_UPLINK", cause="a cause", decision="add a rule, or correct the file")
    assert not_verified(diagnosis, "no-command").text == "not verified: a person must decide first"


def test_result_json_holds_the_verification_as_values_and_as_text() -> None:
    check = RemedyCheck(verified=False, reason="line 1: ip rule: exit 2", rollback_verified=False, rollback_reason="-")
    diagnosis = Diagnosis(code="RULE_MISSING", cause="a cause", reported_by="ROUTE-02", remedy_check=check)
    saved = json.loads(diagnosis.model_dump_json())
    assert saved["remedy_check"]["verified"] is False
    assert saved["mend"] == "fix not verified: line 1: ip rule: exit 2; rollback not verified: -"
    assert saved["told_by"] == saved["reported_by"] == "ROUTE-02"
    assert Diagnosis.model_validate(saved) == diagnosis


def test_a_result_from_before_version_0_2_is_read() -> None:
    old = {"code": "RULE_MISSING", "cause": "a cause", "told_by": "ROUTE-02", "mend": None}
    assert Diagnosis.model_validate(old).reported_by == "ROUTE-02"


def test_a_diagnosis_names_the_other_checks_that_its_cause_affects() -> None:
    results = [*(entry.model_copy(deep=True) for entry in BROKEN), result("EGRESS-02", Verdict.FAIL, "SNAT_WRONG")]
    elsewhere = result("EGRESS-05", Verdict.FAIL, "RULE_MISSING", reported_by="ROUTE-02", target="lab:other")
    add_affected_checks([*results, elsewhere])
    affected = {entry.check: entry.diagnosis.also_affects for entry in results if entry.diagnosis is not None}
    assert affected == {"ROUTE-02": ["EGRESS-01"], "EGRESS-01": [], "EGRESS-02": []}


def test_a_replica_runs_no_shell_for_a_part_of_a_step() -> None:
    handle = OutputOf(command=["sh", "-c", "nft -a list chain inet t c | sed -n 's/x//p'"])
    assert not runs_in_replica(RemedyStep(argv=["nft", "delete", "rule", "inet", "t", "c", "handle", handle]))
    assert runs_in_replica(RemedyStep(argv=["nft", "delete", "rule", "inet", "t", "c", "handle", "4"]))
