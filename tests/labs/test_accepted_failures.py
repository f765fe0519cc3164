"""Accepted failures through the front door: waivers of the site file, a baseline, and the files of other tools."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.front_door import Finished, viacheck
from tests.helpers.hand_made import SITE, HandMadeHost, hand_made_host, write_site

TODAY = datetime.date.today()
ROUTING = ("-q", "-k", "ROUTE-01 or ROUTE-02 or ROUTE-04 or HOST-02")


@pytest.fixture(scope="module")
def host() -> Iterator[HandMadeHost]:
    """A host on which no rule was typed."""
    with hand_made_host() as made:
        made.run("sh", "-c", "echo 200 wlan0rt >> /etc/iproute2/rt_tables")
        made.ip("route add default via 10.10.50.1 dev wlan0 table wlan0rt")
        yield made


def waiving(until: datetime.date) -> str:
    return SITE + f'[[waive]]\ndiagnosis = "RULE_MISSING"\nreason = "ticket 7"\nuntil = {until.isoformat()}\n'


@pytest.fixture(scope="module")
def waived(host: HandMadeHost, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("waived")
    return host.viacheck(*ROUTING, report_dir=folder / "report", site=write_site(folder, waiving(TODAY)))


def test_a_waived_failure_is_shown_and_does_not_count(waived: Finished) -> None:
    assert waived.exit_code == 0, waived.said
    (rule,) = [result for result in waived.outcome.results if result.check == "ROUTE-02"]
    assert (rule.verdict, rule.counted) == ("fail", "advisory")
    assert waived.outcome.targets[0].verdict == "pass"
    assert f"waived until {TODAY}: ticket 7" in waived.stdout


def test_it_counts_again_after_the_date(host: HandMadeHost, tmp_path: Path) -> None:
    yesterday = TODAY - datetime.timedelta(days=1)
    done = host.viacheck(*ROUTING, report_dir=tmp_path / "report", site=write_site(tmp_path, waiving(yesterday)))
    assert done.exit_code == 1, done.said
    assert f"note: the waiver of RULE_MISSING ended on {yesterday}; it counts again" in done.stdout


def test_a_waiver_of_no_check_is_one_line_and_no_run(host: HandMadeHost, tmp_path: Path) -> None:
    site = write_site(tmp_path, waiving(TODAY).replace('diagnosis = "RULE_MISSING"', 'check = "XYZ-01"'))
    done = host.viacheck(*ROUTING, report_dir=tmp_path / "report", site=site)
    (line,) = done.stderr.strip().splitlines()
    assert line.endswith(
        "waive[1].check: found 'XYZ-01'; no check has this id; a check of your own also takes 'own = true'"
    )
    assert (done.exit_code, (tmp_path / "report").exists()) == (4, False)


def test_a_run_fails_only_for_what_got_worse(waived: Finished, tmp_path: Path) -> None:
    broken = viacheck("--lab", "policy-routing+rule-missing", "-q", "-k", "ROUTE", report_dir=tmp_path / "broken")
    assert broken.exit_code == 1
    again = ("--lab", "policy-routing+rule-missing", "-q", "-k", "ROUTE", "--format", "sarif,tap")
    same = viacheck(*again, "--baseline", str(tmp_path / "broken" / "result.json"), report_dir=tmp_path / "same")
    assert same.exit_code == 0, same.said
    assert "since the accepted run: no check got worse or better" in same.stdout
    assert json.loads((tmp_path / "same" / "report.sarif").read_text())["version"] == "2.1.0"
    assert (tmp_path / "same" / "results.tap").stat().st_mode & 0o777 == 0o600
    worse = viacheck(*again, "--baseline", str(waived.report_dir / "result.json"), report_dir=tmp_path / "worse")
    assert worse.exit_code == 1, worse.said
    assert "worse: lab:policy-routing+rule-missing: ROUTE-05: no result -> fail (RULE_MISSING)" in worse.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--format", "pdf"), "--format: unknown format 'pdf'; allowed: markdown, sarif"),
        (("--baseline", "none.json"), "--baseline: "),
    ],
)
def test_a_wrong_option_is_one_line(arguments: tuple[str, str], line: str, tmp_path: Path) -> None:
    done = viacheck("--lab", "nat", *arguments, report_dir=tmp_path)
    assert done.exit_code == 4
    assert line in done.stderr
