"""What the pipework checks tell: of labs that are broken in known ways, and of files as operators write them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence

import pytest

from tests.helpers.front_door import by_check
from viacheck.model.namespace_state import NetworkState
from viacheck.model.result import CheckResult, RunResult
from viacheck.model.snapshot import HostFile, Snapshot
from viacheck.model.verdict import Verdict
from viacheck.persistence.pipework import Reruns, arguments_of, redact_to_pipework_lines, reruns

STATIC = (
    "pipework-run-twice", "pipework-wrong-address", "pipework-wrong-gateway", "default-network-present",
    "pipework-not-executable", "rc-local-without-line", "rc-local-after-exit", "rc-local-not-executable",
    "interfaces-without-line", "restart-hook-missing", "post-up-unguarded",
)  # fmt: skip
DHCP = ("lease-without-client",)


@pytest.fixture(scope="module")
def outcome(judged_labs: Callable[[Sequence[str]], RunResult]) -> RunResult:
    labs = ["pipework-static", *(f"pipework-static+{fault}" for fault in STATIC)]
    return judged_labs([*labs, "pipework-dhcp", *(f"pipework-dhcp+{fault}" for fault in DHCP)])


def told(outcome: RunResult, check: str, lab: str) -> CheckResult:
    return by_check(outcome, f"lab:{lab}")[check][0]


# Labs


@pytest.mark.parametrize("lab", ["pipework-static", "pipework-dhcp"])
def test_everything_that_applies_is_decided(outcome: RunResult, lab: str) -> None:
    results = by_check(outcome, f"lab:{lab}")
    for number in range(1, 6):
        assert {one.verdict for one in results[f"PIPEWORK-0{number}"]} == {Verdict.PASS}
    for check in ("MACVLAN-05", "MACVLAN-06", "EGRESS-01", "EGRESS-02", "EGRESS-03"):
        assert {one.verdict for one in results[check]} == {Verdict.PASS}, check
    for check in ("MACVLAN-01", "MACVLAN-02", "MACVLAN-03", "MACVLAN-04", "NAT-02"):
        assert {one.verdict for one in results[check]} == {Verdict.NOT_APPLICABLE}, check


def test_a_lease_is_named_with_what_renews_it(outcome: RunResult) -> None:
    assert "leased, renewed by" in told(outcome, "PIPEWORK-03", "pipework-dhcp").observed


def test_the_end_of_a_lease_without_a_client_is_predicted_to_the_minute(outcome: RunResult) -> None:
    lab = "pipework-dhcp+lease-without-client"
    result = told(outcome, "PIPEWORK-03", lab)
    assert result.verdict is Verdict.FAIL
    assert result.diagnosis is not None
    assert result.diagnosis.code == "LEASE_WITHOUT_CLIENT"
    target = next(one for one in outcome.targets if one.id == f"lab:{lab}")
    assert target.snapshot is not None
    taken = datetime.datetime.fromisoformat(target.snapshot["taken"])
    predicted = re.search(r"expire at (\d{4}-\d\d-\d\d \d\d:\d\d)", result.diagnosis.cause)
    assert predicted is not None
    end = datetime.datetime.strptime(predicted[1], "%Y-%m-%d %H:%M").replace(tzinfo=taken.tzinfo)
    assert abs(end - taken - datetime.timedelta(hours=1)) <= datetime.timedelta(minutes=1)


def test_a_leftover_works_but_will_hurt(outcome: RunResult) -> None:
    result = told(outcome, "PIPEWORK-03", "pipework-static+pipework-run-twice")
    assert result.verdict is Verdict.ADVISORY
    assert re.search(r"ph\d+eth1", result.observed)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("rc-local-without-line", "none after a reboot"),
        ("rc-local-after-exit", "/etc/rc.local:3: it stands after 'exit'"),
        ("rc-local-not-executable", "/etc/rc.local:2: the file is not executable"),
        ("interfaces-without-line", "none after a change of the parent"),
        ("restart-hook-missing", "none after a restart of the container"),
    ],
)
def test_which_of_the_three_is_missing_is_said(outcome: RunResult, fault: str, words: str) -> None:
    result = told(outcome, "PIPEWORK-05", f"pipework-static+{fault}")
    assert result.verdict is Verdict.FAIL
    assert words in result.observed


def test_the_guides_own_post_up_line_gets_a_guarded_one_instead(outcome: RunResult) -> None:
    result = told(outcome, "PIPEWORK-05", "pipework-static+post-up-unguarded")
    assert result.verdict is Verdict.ADVISORY
    assert result.diagnosis is not None
    assert result.diagnosis.code == "NOT_IDEMPOTENT"
    (remedy,) = result.diagnosis.remedy
    assert "ip link show dev eth1 >/dev/null 2>&1 || pipework eth0 te-agent 10.10.40.200/24@10.10.40.1" in remedy


def test_a_gateway_that_nobody_is_is_told_with_the_intended_one(outcome: RunResult) -> None:
    result = told(outcome, "PIPEWORK-04", "pipework-static+pipework-wrong-gateway")
    assert result.diagnosis is not None
    assert "10.10.40.77" in result.diagnosis.cause
    assert "10.10.40.1" in result.diagnosis.cause


# Files

LINE = "pipework eth0 te-agent 10.10.40.200/24@10.10.40.1"
UNIT = "/etc/systemd/system/keep.service"
ENABLED = "/etc/systemd/system/multi-user.target.wants/keep.service"


def judge(*files: HostFile, container: str | None = "te-agent", address: str | None = "10.10.40.200/24") -> Reruns:
    snapshot = Snapshot(taken="", hostname="h", kernel="k", host=NetworkState(), files=files)
    return reruns(snapshot, "eth0", container, address)


def file(path: str, text: str = "", mode: int = 0o644) -> HostFile:
    return HostFile(
        path=path, exists=True, text=redact_to_pipework_lines(path, text) if "/network" not in path else text, mode=mode
    )


def rc_local(*lines: str, mode: int = 0o755) -> HostFile:
    return HostFile(path="/etc/rc.local", exists=True, text="\n".join(["#!/bin/sh -e", *lines]), mode=mode)


def interfaces(*lines: str) -> HostFile:
    return file("/etc/network/interfaces", "\n".join(["auto eth0", "iface eth0 inet dhcp", *lines]))


def test_nothing_written_down_misses_everything() -> None:
    assert judge().missing == ("reboot", "interface", "restart")


@pytest.mark.parametrize(
    "line", [LINE, f"  {LINE}", f"/usr/local/sbin/{LINE}", f"{LINE} &", f"sleep 5; {LINE}", f"{LINE} || true",
             "pipework eth0 -i eth1 te-agent 10.10.40.200/24@10.10.40.1 02:11:22:33:44:55"]
)  # fmt: skip
def test_a_line_of_rc_local_covers_the_reboot(line: str) -> None:
    assert judge(rc_local(line, "exit 0")).missing == ("interface", "restart")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("pipework eth0 te-other 10.10.40.200/24@10.10.40.1", "attaches te-other"),
        ("pipework wlan0 te-agent 10.10.40.200/24@10.10.40.1", "attaches to wlan0"),
        ("pipework eth0 te-agent 10.10.40.201/24@10.10.40.1", "10.10.40.201/24"),
        ("pipework eth0 te-agent dhclient", "dhclient"),
        ("pipework eth0 te-agent", "lacks"),
    ],
)
def test_a_line_for_something_else_is_named_and_does_not_count(line: str, reason: str) -> None:
    found = judge(rc_local(line, "exit 0"))
    assert "reboot" in found.missing
    ((place, why),) = found.ineffective
    assert str(place) == "/etc/rc.local:2"
    assert reason in why


def test_comments_and_other_programs_do_not_count() -> None:
    found = judge(rc_local(f"# {LINE}", "apt-get install pipework-tools", "cat /usr/local/sbin/pipework-notes"))
    assert (found.missing, found.ineffective) == (("reboot", "interface", "restart"), [])


def test_an_exit_inside_a_condition_does_not_end_the_script() -> None:
    assert "reboot" not in judge(rc_local("if true; then", "    exit 0", "fi", LINE, "exit 0")).missing


@pytest.mark.parametrize(("word", "counts"), [("dhclient", True), ("udhcpc:x", True), ("10.0.0.1/24", False)])
def test_a_lease_is_asked_for_by_any_of_pipeworks_words(word: str, counts: bool) -> None:
    assert ("reboot" not in judge(rc_local(f"pipework eth0 te-agent {word}"), address=None).missing) is counts


def test_an_agent_that_is_no_container_may_have_any_name() -> None:
    assert "reboot" not in judge(rc_local("pipework eth0 anything 10.10.40.200/24"), container=None).missing


@pytest.mark.parametrize(
    ("hook", "guarded"),
    [
        (f"post-up {LINE}", False),
        (f"up {LINE} || true", False),
        (f"post-up ip link show dev eth1 || {LINE}", True),
        (f"post-up … || {LINE}", True),
        (f"post-up [ -e /run/there ] && {LINE}", True),
        (f"post-up if ! grep -q eth1 /run/x; then {LINE}; fi", True),
    ],
)
def test_a_hook_of_the_parent_covers_its_change_and_must_be_guarded(hook: str, guarded: bool) -> None:
    found = judge(interfaces(f"    {hook}"))
    assert found.missing == ("reboot", "restart")
    assert bool(found.not_idempotent) is not guarded


def test_a_hook_of_another_interface_or_moment_does_not_count() -> None:
    assert "interface" in judge(interfaces(f"    pre-down {LINE}")).missing
    found = judge(interfaces("iface wlan0 inet dhcp", f"    post-up {LINE}"))
    assert "interface" in found.missing
    assert "wlan0" in found.ineffective[0][1]


def test_what_the_interfaces_file_sources_counts() -> None:
    more = file("/etc/network/interfaces.d/eth0", f"iface eth0 inet dhcp\n    post-up … || {LINE}\n")
    assert "interface" in judge(more).missing
    assert "interface" not in judge(file("/etc/network/interfaces", "source interfaces.d/*\n"), more).missing


def test_a_watcher_covers_the_restart_when_it_is_enabled() -> None:
    watch = file("/usr/local/sbin/keep-agent", f"#!/bin/sh\ndocker events |\nwhile read -r _; do {LINE}; done\n", 0o755)
    unit = file(UNIT, "[Unit]\n[Service]\nExecStart=/usr/local/sbin/keep-agent\n[Install]\n")
    found = judge(unit, watch)
    assert "restart" in found.missing
    assert "not enabled" in found.ineffective[0][1]
    assert judge(unit, watch, HostFile(path=ENABLED, exists=True)).missing == ("reboot", "interface")


def test_a_watcher_that_may_not_be_executed_does_not_count() -> None:
    watch = file("/usr/local/sbin/keep-agent", f"docker events | while read -r _; do {LINE}; done\n", 0o644)
    unit = file(UNIT, "[Service]\nExecStart=/usr/local/sbin/keep-agent\n")
    found = judge(unit, watch, HostFile(path=ENABLED, exists=True))
    assert "restart" in found.missing
    assert "is not executable" in found.ineffective[0][1]


def test_a_unit_that_runs_the_container_covers_reboot_and_restart() -> None:
    start = "ExecStart=/usr/bin/docker start -a te-agent"
    text = f"[Service]\n{start}\nExecStartPost=/usr/local/sbin/{LINE}\nRestart=always\n"
    assert judge(file(UNIT, text), HostFile(path=ENABLED, exists=True)).missing == ("interface",)


def test_a_unit_that_runs_once_covers_the_reboot() -> None:
    unit = file(UNIT, f"[Service]\nType=oneshot\nExecStart=/usr/local/sbin/{LINE}\n")
    assert judge(unit, HostFile(path=ENABLED, exists=True)).missing == ("interface", "restart")


def test_a_unit_of_the_parents_device_covers_its_change() -> None:
    unit = file(UNIT, f"[Service]\nExecStart=/bin/sh -c 'ip link show dev eth1 || {LINE}'\n")
    wants = "/etc/systemd/system/sys-subsystem-net-devices-eth0.device.wants/keep.service"
    assert judge(unit, HostFile(path=wants, exists=True)).missing == ("reboot", "restart")


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        (f"@reboot root {LINE}", ("interface", "restart")),
        (f"* * * * * root ip link show dev eth1 || {LINE}", ()),
    ],
)
def test_cron_covers_what_its_schedule_does(line: str, missing: tuple[str, ...]) -> None:
    found = judge(file("/etc/cron.d/agent", f"MAILTO=root\n{line}\n"))
    assert found.missing == missing
    assert not found.not_idempotent


def test_what_is_kept_of_files_holds_no_secrets() -> None:
    unit = redact_to_pipework_lines(
        UNIT, f"[Service]\nEnvironment=TOKEN=s3cret\nExecStart=/bin/run -e TOKEN=s3cret\nExecStartPost=/x/{LINE}\n"
    )
    script = redact_to_pipework_lines(
        "/x/run", f"TOKEN=s3cret\ncurl -H s3cret && {LINE}\ndocker events --filter s3cret | while :; do :; done\n"
    )
    cron = redact_to_pipework_lines("/etc/cron.d/x", f"SECRET=s3cret\n* * * * * root curl s3cret || {LINE}\n")
    for kept in (unit, script, cron):
        assert "s3cret" not in kept
    assert [len(text.split("\n")) for text in (unit, script, cron)] == [5, 4, 3], "lines keep their numbers"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (LINE, ["eth0", "te-agent", "10.10.40.200/24@10.10.40.1"]),
        ("pipework eth0 'te agent' 10.0.0.2/24 >/dev/null 2>&1", ["eth0", "te agent", "10.0.0.2/24"]),
        ('pipework eth0 "unclosed 10.0.0.2/24', ["eth0", '"unclosed', "10.0.0.2/24"]),
        ("pipework-watch eth0 te-agent", None),
        ("", None),
    ],
)
def test_the_words_of_a_line(line: str, words: list[str] | None) -> None:
    assert arguments_of(line) == words
