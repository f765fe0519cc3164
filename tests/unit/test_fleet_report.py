"""The report of many hosts: from results alone, safe to open, small, and with every host's own page linked."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import pytest

from reports.fleet_page import SIGNS, age_text, render_fleet
from reports.fleet_report import HostSummary, cause_groups, outliers, result_files, summarise
from tests.helpers.front_door import sub_command
from tests.helpers.sample_outcomes import HOSTILE, healthy, hostile, nothing_decided, rule_missing
from viacheck.model.result import RunResult
from viacheck.model.verdict import Verdict

NOW = datetime(2025, 3, 4, 5, 0, tzinfo=UTC)


def save(path: Path, outcome: RunResult, **snapshot: object) -> None:
    """Write a result as some other program brought it."""
    state = outcome.targets[0].snapshot
    if state is not None:
        state.update(snapshot)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(outcome.model_dump_json(by_alias=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five good hosts, two without a rule, one that was not judged, and a file that is no result."""
    top = tmp_path_factory.mktemp("fleet")
    for number in range(5):
        save(top / f"good-{number}" / "result.json", healthy(), kernel="6.1.0" if number else "5.10.0")
    save(top / "hosts" / "broken" / "result.json", rule_missing(), kernel="6.1.0")
    save(top / "site b" / "broken:2.json", hostile())  # not read: a NAME.json stands in the folder itself
    save(top / "broken:2.json", rule_missing(), kernel="6.1.0")
    save(top / "silent" / "result.json", nothing_decided(), kernel="6.1.0")
    (top / "bad.json").write_text("{}")
    (top / "latest").symlink_to("good-0")
    return top


@pytest.fixture(scope="module")
def hosts(folder: Path) -> list[HostSummary]:
    return summarise(folder, processes=1)


def test_every_result_is_a_host_worst_first(folder: Path, hosts: list[HostSummary]) -> None:
    assert len(result_files(folder)) == 9
    assert [(host.name, host.verdict) for host in hosts] == [
        ("broken", "fail"), ("broken:2", "fail"), ("bad", "inconclusive"), ("silent", "not-run"),
        *((f"good-{number}", "pass") for number in range(5)),
    ]  # fmt: skip
    assert "not a result of viacheck.result/1" in hosts[2].sentence
    assert (hosts[0].uplink, hosts[4].uplink) == ("eth0", "wlan0")
    assert hosts[0].leading == "RULE_MISSING"


def test_several_processes_read_the_same(folder: Path, hosts: list[HostSummary]) -> None:
    assert summarise(folder, processes=2) == hosts


def test_a_diagnosis_is_one_group_with_its_remedy_once(hosts: list[HostSummary]) -> None:
    groups = {group.code: group for group in cause_groups(hosts)}
    assert [host.name for host in groups["RULE_MISSING"].hosts] == ["broken", "broken:2"]
    assert len(groups["FAIL_OPEN"].hosts) == 7
    page = render_fleet(hosts, NOW)
    assert page.count("ip rule add priority 1000 from 172.17.0.0/16 lookup 200") == 1
    assert "<code>FAIL_OPEN</code> on 7 hosts" in page


def test_a_host_with_another_kernel_is_an_outlier(hosts: list[HostSummary]) -> None:
    kernels = [group for group in outliers(hosts) if group.fact == "kernel"]
    assert [([host.name for host in group.hosts], group.value, group.common) for group in kernels] == [
        (["good-0"], "5.10.0", "6.1.0")
    ]
    page = render_fleet(hosts, NOW)
    assert '<th scope="row">kernel</th><td>5.10.0</td><td>6.1.0 (86&nbsp;%)</td>' in page
    assert outliers([hosts[0], hosts[-1]]) == []


def test_the_matrix_shows_each_hosts_verdicts(hosts: list[HostSummary]) -> None:
    page = render_fleet(hosts, NOW)
    for verdict, sign in SIGNS.items():
        wanted = sum(list(host.verdicts.values()).count(verdict) for host in hosts)
        assert page.count(f'<td class="{verdict.value}">{sign}</td>') == wanted
    assert hosts[0].verdicts["ROUTE-02"] is Verdict.FAIL


def test_every_host_has_a_page_of_its_own(folder: Path, hosts: list[HostSummary]) -> None:
    page = render_fleet(hosts, NOW)
    links = {unquote(link) for link in re.findall(r'href="(\./[^"]+)"', page)}
    assert len(links) == 8
    assert all((folder / link).is_file() for link in links)
    assert not re.findall(r'href="(?!\./|#)', page)


def test_a_page_that_is_newer_than_its_result_is_kept(folder: Path, hosts: list[HostSummary]) -> None:
    page = folder / "good-1" / "report.html"
    page.write_text("brought by the host")
    assert summarise(folder, processes=1) == hosts
    assert page.read_text() == "brought by the host"


def test_names_from_outside_are_text(tmp_path: Path) -> None:
    save(tmp_path / "<img src=x onerror=alert(1)>" / "result.json", hostile())
    save(tmp_path / "javascript:alert(1)" / "result.json", hostile())
    page = render_fleet(summarise(tmp_path, processes=1), NOW, notes=[HOSTILE])
    assert not re.search(r"<(script|img|iframe|object)\b", page, re.IGNORECASE)
    assert not re.search(r'href="(?!\./|#)', page)
    assert [c for c in page if not c.isprintable() and c != "\n"] == []
    assert "default-src 'none'" in page


def test_500_hosts_fit_into_3_mb(hosts: list[HostSummary]) -> None:
    base = [host for host in hosts if host.verdicts]
    many = [replace(base[n % len(base)], name=f"site-{n:03}.example.net", page=f"h/{n}.html") for n in range(500)]
    page = render_fleet(many, NOW)
    assert len(page.encode()) < 3_000_000
    assert page.count('<tr><th scope="row">') == 1000 + len(outliers(many))
    assert len(render_fleet(many[:1], NOW).encode()) < 60_000


@pytest.mark.parametrize(
    ("finished", "age"),
    [
        ("2025-03-04T04:59:30+00:00", "30 s"),
        ("2025-03-04T04:30:00+00:00", "30 min"),
        ("2025-03-03T05:00:00+01:00", "25 h"),
        ("2025-02-01T05:00:00+00:00", "31 days"),
        ("yesterday", ""),
        ("2025-03-04T05:00:00", ""),
    ],
)
def test_the_age_of_a_result(finished: str, age: str) -> None:
    assert age_text(finished, NOW) == age


def test_the_command_writes_the_index_and_fails_for_a_bad_host(folder: Path, tmp_path: Path) -> None:
    done = sub_command("fleet", "report", folder)
    assert done.returncode == 1, done.stderr
    assert "RULE_MISSING on 2 hosts (fail)" in done.stdout
    assert "5 of 9 hosts pass" in done.stdout
    assert (folder / "index.html").stat().st_mode & 0o777 == 0o600
    save(tmp_path / "good" / "result.json", healthy())
    assert sub_command("fleet", "report", tmp_path).returncode == 0
    empty = tmp_path / "empty"
    empty.mkdir()
    nothing = sub_command("fleet", "report", empty)
    assert (nothing.returncode, nothing.stderr.count("\n")) == (4, 1)
