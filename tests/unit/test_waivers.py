"""[[waive]] of a site file: what it accepts, until when, and how its mistakes are reported."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from reports.console import summary
from reports.junit import junit
from reports.report_page import render
from tests.helpers.hand_made import SITE
from tests.helpers.sample_outcomes import intent, rule_missing
from viacheck.cli.docs import all_checks
from viacheck.flight_recorder.flight_result import TITLES
from viacheck.model.exit_status import ExitStatus
from viacheck.model.intent_file import IntentError, parse_intent
from viacheck.model.known_checks import CHECK_IDS
from viacheck.model.result import CheckResult, RunResult, exit_status, overall
from viacheck.model.site_agents import load_agents
from viacheck.model.waivers import ended_waivers, waiver_of

UNTIL = datetime.date(2026, 12, 31)


def waiving(**keys: Any) -> dict[str, Any]:
    return intent() | {"waive": [{"reason": "the new cable comes in January", "until": UNTIL, **keys}]}


def judged(document: dict[str, Any], today: datetime.date) -> RunResult:
    """A run with a missing rule, with the waivers of a site file."""
    outcome, site = rule_missing(), parse_intent(document, source="site.toml")
    for result in outcome.results:
        result.waiver = waiver_of(result, site, today)
    return outcome


def bad(outcome: RunResult) -> list[CheckResult]:
    return [result for result in outcome.results if result.counted.bad]


def test_a_diagnosis_is_waived_wherever_it_shows_until_its_date() -> None:
    document = waiving(diagnosis="RULE_MISSING")
    outcome = judged(document, UNTIL)
    assert bad(outcome) == []
    assert exit_status(outcome) is ExitStatus.OK
    assert overall([result.counted for result in outcome.results]) == "pass"
    later = judged(document, UNTIL + datetime.timedelta(days=1))
    assert exit_status(later) is ExitStatus.FAILED
    assert bad(later)


def test_a_check_is_waived_alone() -> None:
    outcome = judged(waiving(check="ROUTE-02"), UNTIL)
    assert {result.check for result in outcome.results if result.waiver} == {"ROUTE-02"}
    assert exit_status(outcome) is ExitStatus.FAILED


def test_a_waived_result_is_shown_as_waived() -> None:
    outcome = judged(waiving(diagnosis="RULE_MISSING"), UNTIL)
    text = "waived until 2026-12-31: the new cable comes in January"
    console = " ".join(summary(outcome, None, colour=False, width=None).split())
    assert text in console
    assert "Fix first" not in console
    page = render(outcome)
    assert text in page
    assert 'id="fixes"' not in page
    assert text in junit(outcome)
    assert "<failure" not in junit(outcome)


def test_an_ended_waiver_is_named() -> None:
    saved = parse_intent(waiving(check="ROUTE-02"), source="site.toml").as_json()
    assert list(ended_waivers(saved, UNTIL)) == []
    (line,) = ended_waivers(saved, UNTIL + datetime.timedelta(days=1))
    assert line == "the waiver of ROUTE-02 ended on 2026-12-31; it counts again"


@pytest.mark.parametrize(
    ("keys", "mistake"),
    [
        ({}, "site.toml: waive[1]: neither check nor diagnosis is given; allowed: exactly one of them"),
        ({"check": "ROUTE-02", "diagnosis": "X"}, "site.toml: waive[1]: both check and diagnosis are given"),
        ({"check": "route-2"}, "waive[1].check: found 'route-2'; allowed: the id of a check, such as 'ROUTE-07'"),
        ({"check": "ROUTE-02", "until": 20261231}, "a date is year, month and day: 2026-12-31"),
        ({"check": "ROUTE-02", "until": datetime.datetime(2026, 12, 31, 9)}, "a date is year, month and day"),
        ({"check": "ROUTE-02", "reason": ""}, "allowed: 1 to 500 characters"),
    ],
)
def test_a_wrong_waiver_is_one_line(keys: dict[str, Any], mistake: str) -> None:
    with pytest.raises(IntentError) as raised:
        parse_intent(waiving(**keys), source="site.toml")
    assert [line for line in raised.value.mistakes if mistake in line], raised.value.mistakes


@pytest.mark.parametrize(
    ("entry", "mistake"),
    [
        ('check = "ROUTE-7"', "check: found 'ROUTE-7'; no check has this id, did you mean 'ROUTE-07'?"),
        (
            'diagnosis = "FAIL_OPNE"',
            "diagnosis: found 'FAIL_OPNE'; no diagnosis has this code, did you mean 'FAIL_OPEN'?",
        ),
        ('check = "EGRES-01"', "check: found 'EGRES-01'; no check has this id, did you mean 'EGRESS-01'?"),
        (
            'check = "XYZ-01"',
            "check: found 'XYZ-01'; no check has this id; a check of your own also takes 'own = true'",
        ),
        (
            'check = "ROUTE-99"\nown = true',
            "check: found 'ROUTE-99'; no check has this id, did you mean 'ROUTE-07'?",
        ),
        ('check = "DSCP-01"\nown = true', None),
        ('check = "WATCH-02"', None),
    ],
)
def test_a_mistyped_waiver_is_refused_and_a_users_own_check_is_not(
    entry: str, mistake: str | None, tmp_path: Path
) -> None:
    site = tmp_path / "site.toml"
    site.write_text(f'{SITE}[[waive]]\n{entry}\nreason = "the new cable comes"\nuntil = 2026-12-31\n')
    if mistake is None:
        assert load_agents(site)
        return
    with pytest.raises(IntentError) as raised:
        load_agents(site)
    assert raised.value.mistakes == [f"{site}: waive[1].{mistake}"]


def test_the_known_ids_are_those_of_the_checks() -> None:
    assert {check.id for check in all_checks()} | set(TITLES) == CHECK_IDS
