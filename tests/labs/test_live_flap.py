"""A live host's link is flapped only with both consents, under the guard, which restores the state."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reports.report_files import read_outcome
from tests.helpers.front_door import Finished, command, finished
from tests.helpers.guarded_host import until
from tests.helpers.hand_made import SITE, HandMadeHost, apply_the_guides_recipe, hand_made_host, write_site
from tests.helpers.person_at_terminal import PersonAtTerminal
from tests.helpers.terminal import at_a_terminal
from viacheck.model.check_evidence import TimelineEvidence
from viacheck.model.result import CheckResult, RunResult
from viacheck.model.verdict import Verdict

CONSENTING = SITE.replace("schema = 1\n", "schema = 1\nallow_disruptive = true\n")


@pytest.fixture
def host() -> Iterator[HandMadeHost]:
    with hand_made_host() as host:
        apply_the_guides_recipe(host)
        yield host


def state(host: HandMadeHost) -> list[str]:
    """Return addresses, rules and the routes of every table, as ``ip`` prints them."""
    return [host.ip("-br address"), host.ip("rule"), host.ip("route show table all")]


def link_flap(outcome: RunResult) -> CheckResult:
    return judged(outcome, "FLAP-01")


def judged(outcome: RunResult, check: str) -> CheckResult:
    return next(result for result in outcome.results if result.check == check)


def planned(done: Finished) -> list[str]:
    """Return the events of the plan that was printed."""
    plan = done.stdout.partition("restored to its present state:\n")[2].partition("  a watchdog")[0]
    return [line.partition(": ")[2].rpartition(", at most ")[0] for line in plan.splitlines()]


def test_the_flap_is_shown_and_the_host_restored(host: HandMadeHost, tmp_path: Path) -> None:
    before = state(host)
    site = write_site(tmp_path, CONSENTING)
    select = ("-k", "FLAP-01 or FLAP-10")
    done = host.viacheck("--allow-disruptive", *select, site=site, report_dir=tmp_path / "report")
    assert done.exit_code == 0, done.said
    assert judged(done.outcome, "FLAP-10").observed == "the device of wlan0 must be removed and added by hand"
    flap = link_flap(done.outcome)
    assert flap.verdict is Verdict.ADVISORY, flap.observed
    assert "leak" in flap.observed
    assert any(isinstance(evidence, TimelineEvidence) for evidence in flap.evidence)
    assert planned(done) == ["link down, then up"], "the checks that -k leaves out interrupt nothing"
    (target,) = done.outcome.targets
    assert any("the host was restored" in note and "equals its saved state" in note for note in target.notes)
    assert done.outcome.run.disruptive
    assert state(host) == before


def test_what_a_person_removes_meanwhile_is_not_blamed_on_the_flap(host: HandMadeHost, tmp_path: Path) -> None:
    site = write_site(tmp_path, CONSENTING)
    rule = "from 172.17.0.0/16 lookup wlan0rt"
    run = ThreadPoolExecutor(1).submit(
        host.viacheck, "--allow-disruptive", "-k", "FLAP-01", site=site, report_dir=tmp_path / "report"
    )
    with PersonAtTerminal(host.namespace) as person:
        until(lambda: "DOWN" in host.ip("-br link show dev wlan0"), "wlan0 is set down", 60)
        person.types("rule del from 172.17.0.0/16 table 200")
        done = run.result()
    flap = link_flap(done.outcome)
    assert flap.verdict is Verdict.INCONCLUSIVE, flap.observed
    assert "during wlan0 is set down and up again something else acted, and this may be its effect" in flap.observed
    assert (
        "a person removed something: rule: priority 32765 from 172.17.0.0/16 lookup 200, removed by ip (pid "
        in flap.observed
    )
    assert flap.diagnosis is None
    assert rule not in host.ip("rule"), "what the person removed is not restored"
    assert "default via 10.10.50.1" in host.ip("route show table 200"), "what the flap removed is restored"


LEAVE_UNDONE = """\
from viacheck.guard.lock import acquire, default_state_dir
from viacheck.guard.saved_state import UNFINISHED, save, take_state
from viacheck.netlink.rtnetlink import RouteSocket
acquire(default_state_dir(), "a run that is killed together with its watchdog").release()
with RouteSocket() as netlink:
    save(take_state(netlink, ["wlan0"], [200], "./viacheck --local"), f"{default_state_dir()}/{UNFINISHED}")
"""


def test_a_pending_restore_is_said_before_anything_else(host: HandMadeHost, tmp_path: Path) -> None:
    host.run(sys.executable, "-c", LEAVE_UNDONE)
    site = write_site(tmp_path, CONSENTING)
    viacheck = (sys.executable, "-m", "viacheck.cli.main")
    local = [*host.inside(*viacheck), "--local", "--site", str(site), "-q", "-k", "ROUTE-02", "--report-dir"]
    done = finished([*local, str(tmp_path / "first")], tmp_path / "first")
    line = "an earlier run that changed wlan0 was not undone: 'viacheck restore' restores the state saved at "
    assert done.stderr.startswith(f"viacheck: {line}")
    assert done.exit_code == 1
    assert done.outcome.targets[0].alerts[0].startswith(line)
    assert "was not undone" in (tmp_path / "first" / "report.html").read_text()
    assert host.run(*viacheck, "restore").startswith("the network equals the state saved at ")
    done = finished([*local, str(tmp_path / "second")], tmp_path / "second")
    assert (done.exit_code, done.stderr, done.outcome.targets[0].alerts) == (0, "", [])


def test_without_the_option_nothing_is_interrupted(host: HandMadeHost, tmp_path: Path) -> None:
    site = write_site(tmp_path, CONSENTING)
    done = host.viacheck("-k", "FLAP-01 or ROUTE-02", site=site, report_dir=tmp_path / "report")
    flap = link_flap(done.outcome)
    assert (flap.verdict, flap.observed) == (
        Verdict.NOT_RUN,
        "it interrupts this host's network: add --allow-disruptive",
    )


def test_the_operators_own_session_is_not_cut(host: HandMadeHost, tmp_path: Path) -> None:
    site = write_site(tmp_path, CONSENTING)
    session = {"SSH_CONNECTION": "10.10.50.1 40000 10.10.50.9 22"}
    done = host.viacheck(
        "--allow-disruptive", "-k", "FLAP-01 or ROUTE-02", site=site, report_dir=tmp_path / "report", env=session
    )
    flap = link_flap(done.outcome)
    assert flap.verdict is Verdict.NOT_RUN
    assert "wlan0 carries the SSH session from 10.10.50.1" in flap.observed
    assert "--flap-management" in flap.observed


def test_the_command_line_chooses_the_events(host: HandMadeHost, tmp_path: Path) -> None:
    site = write_site(tmp_path, CONSENTING)
    events = ("--allow-disruptive", "--events", "networkd-restart", "-k", "FLAP-01 or FLAP-09 or ROUTE-02")
    done = host.viacheck(*events, site=site, report_dir=tmp_path / "report")
    assert planned(done) == ["restart of the service, if systemd runs it and it manages a link"]
    flap = link_flap(done.outcome)
    assert (flap.verdict, flap.observed) == (
        Verdict.NOT_RUN, "not chosen by --events or egress.survives; --events link-flap tries it",
    )  # fmt: skip


def test_what_must_be_survived_is_what_is_tried(host: HandMadeHost, tmp_path: Path) -> None:
    site = write_site(tmp_path, CONSENTING.replace("survives = []", 'survives = ["ifupdown"]'))
    done = host.viacheck("--allow-disruptive", "-k", "FLAP", site=site, report_dir=tmp_path / "report")
    assert planned(done) == ["ifdown and ifup, three times, if ifupdown manages the interface"]
    assert link_flap(done.outcome).verdict is Verdict.NOT_RUN


def test_the_command_line_demands_what_must_be_survived(host: HandMadeHost, tmp_path: Path) -> None:
    site = write_site(tmp_path, CONSENTING)
    demand = ("--allow-disruptive", "--survives", "networkd-restart", "-k", "FLAP-01 or FLAP-09 or ROUTE-02")
    done = host.viacheck(*demand, site=site, report_dir=tmp_path / "report")
    assert planned(done) == ["restart of the service, if systemd runs it and it manages a link"]
    assert done.exit_code == 1, "nothing has shown that the egress survives it"
    (target,) = done.outcome.targets
    assert target.intent["egress"]["survives"] == ["networkd-restart"]
    (restart,) = (result for result in done.outcome.results if result.check == "FLAP-09")
    assert restart.verdict is Verdict.INCONCLUSIVE
    assert restart.observed.startswith("demanded by --survives, not tried: ")
    assert link_flap(done.outcome).verdict is Verdict.NOT_RUN


def test_a_selection_without_events_interrupts_nothing(host: HandMadeHost, tmp_path: Path) -> None:
    site = write_site(tmp_path, CONSENTING)
    done = host.viacheck("--allow-disruptive", "-k", "ROUTE-02", site=site, report_dir=tmp_path / "report")
    assert done.exit_code == 0, done.said
    assert "no selected check interrupts this host's network\n" in done.stdout


@pytest.mark.parametrize(("key", "status"), [("n", 1), ("\x03", 130), ("y", 0)], ids=["n", "Ctrl-C", "y"])
def test_a_person_at_the_terminal_can_refuse(host: HandMadeHost, key: str, status: int, tmp_path: Path) -> None:
    site = write_site(tmp_path, CONSENTING)
    words = ["--local", "--site", str(site), "--allow-disruptive", "-k", "FLAP-01"]
    argv = host.inside(*command(*words, "--report-dir", str(tmp_path / "report")))
    ended, written = at_a_terminal(argv, "starting in 5 s", key)
    assert ended == status, written
    assert "starting in 5 s: press n or Ctrl-C to refuse, y to start now" in written
    assert ("nothing was interrupted" in written) == (key == "n")
    result = tmp_path / "report" / "result.json"
    assert (result.exists() and read_outcome(result).results != []) == (key == "y")
