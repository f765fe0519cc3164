"""A real systemd-networkd in a lab: what it takes away when it starts, and with a link that goes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from netns_lab import open_lab as opening
from netns_lab.lab import Lab
from netns_lab.lab_specs import parse_labs
from netns_lab.networkd_daemon import PACKAGES, NetworkdDaemon
from netns_lab.open_lab import open_lab
from netns_lab.scenarios.networkd import CONF
from tests.helpers.disruptions import carried_out, through
from tests.helpers.guarded_host import until
from tests.helpers.paths import ROOT
from viacheck.analysis.disruption_text import disruption_text
from viacheck.disruption.controls import Disturbance, Event, EventNotApplicable, EventNotPossible
from viacheck.disruption.disruption_tests import DisruptionTests
from viacheck.disruption.event_registry import event_for
from viacheck.disruption.timeline_evidence import EVENT_LANE
from viacheck.guard.guard import Armed, guard
from viacheck.host import syscalls
from viacheck.model.diff import changes
from viacheck.model.measurements import FlowKind
from viacheck.targets.namespace_target import NamespaceTarget
from viacheck.targets.specs import TargetUnavailable

NAME = "policy-routing-networkd"
pytestmark = pytest.mark.skipif(
    None in (shutil.which(program, path=opening.PATH) for program in ("ifup", *PACKAGES)),
    reason="systemd, dbus-daemon and ifupdown are not installed",
)
MS_REMOUNT = 32
FOREIGN_RULES = (("555",), ("556", "protocol", "static"), ("557", "protocol", "kernel"))
ON_A_LINK, ON_NONE = "10.77.0.0/24", "10.78.0.0/24"
"""Routes of table 201, that nobody has in a file."""
SLOW = 1.0
"""Seconds between the start of a networkd and its work, on a machine with other work."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with contextlib.closing(open_lab(*parse_labs(NAME))) as made:
        yield made


def restart(lab: Lab) -> None:
    assert lab.networkd is not None
    lab.networkd.restart()


def left_by(lab: Lab, happens: Callable[[Lab], object] = restart) -> tuple[set[str], set[str]]:
    """Add what is foreign to networkd, let something happen: the priorities of rules that are left, and the routes."""
    for priority, *protocol in FOREIGN_RULES:
        lab.host.ip("rule", "add", "priority", priority, "from", "10.99.0.0/16", "lookup", "201", *protocol)
    lab.host.ip("route", "add", ON_A_LINK, "via", "10.10.50.1", "dev", "wlan0", "table", "201")
    lab.host.ip("route", "add", "unreachable", ON_NONE, "table", "201")
    happens(lab)
    assert lab.networkd is not None
    lab.networkd.settle()
    rules = {line.partition(":")[0] for line in lab.host.ip("rule", "show", "from", "10.99.0.0/16").stdout.splitlines()}
    routes = lab.host.namespace.run(["ip", "route", "show", "table", "201"]).stdout
    return rules, {one for one in (ON_A_LINK, ON_NONE) if one in routes}


def test_by_its_defaults_it_removes_all_but_what_the_kernel_set(lab: Lab) -> None:
    lab.host.remove(CONF)
    assert left_by(lab) == ({"557"}, set())


def test_it_can_be_told_to_leave_rules_and_routes_alone(lab: Lab) -> None:
    # It takes its links' addresses away and sets them again, and with them the kernel drops the routes on them.
    assert left_by(lab) == ({"555", "556", "557"}, {ON_NONE})


def test_an_address_that_it_keeps_keeps_the_routes(lab: Lab) -> None:
    radio = "/etc/systemd/network/10-wlan0.network"
    lab.host.write(radio, lab.host.read(radio).replace("[Network]\n", "[Network]\nKeepConfiguration=static\n"))
    assert left_by(lab) == ({"555", "556", "557"}, {ON_A_LINK, ON_NONE})


def test_where_sys_is_read_only_as_in_a_container_it_removes_no_rule(lab: Lab) -> None:
    lab.host.remove(CONF)
    flags = syscalls.MS_RDONLY | syscalls.MS_BIND | MS_REMOUNT
    lab.host.namespace.call(lambda: syscalls.mount("none", "/sys", flags=flags))
    rules, _routes = left_by(lab)
    assert rules == {"555", "556", "557"}


def reload(lab: Lab) -> None:
    lab.host.run("networkctl", "reload")


def change_and_reload(lab: Lab) -> None:
    radio = "/etc/systemd/network/10-wlan0.network"
    lab.host.write(radio, lab.host.read(radio) + "\n[Route]\nDestination=10.79.0.0/24\nGateway=10.10.50.1\n")
    reload(lab)


def reconfigure(lab: Lab) -> None:
    lab.host.run("networkctl", "reconfigure", "wlan0")


@pytest.mark.parametrize(
    ("happens", "left"),
    [(reload, ({"555", "556", "557"}, {ON_A_LINK, ON_NONE})), (change_and_reload, ({"557"}, set())),
     (reconfigure, ({"557"}, set()))],
)  # fmt: skip
def test_a_reload_is_a_start_for_links_whose_files_have_changed(
    lab: Lab, happens: Callable[[Lab], None], left: tuple[set[str], set[str]]
) -> None:
    lab.host.remove(CONF)
    restart(lab)
    assert lab.networkd is not None
    lab.networkd.settle()
    assert left_by(lab, happens) == left


def test_the_recipe_survives_everything_and_nothing_leaks(opened: Callable[[str], NamespaceTarget]) -> None:
    disruptions = DisruptionTests(opened(NAME))
    events = [through(disruptions, name) for name in ("link-flap", "carrier-loss", "networkd-restart")]
    for disruption_result in (*events, carried_out(disruptions.after_reboot())):
        assert disruption_result.survived(30), disruption_text(disruption_result)
        assert disruption_result.leaked == 0, disruption_text(disruption_result)
        assert not disruption_result.unproven


def test_rules_under_the_uplink_are_gone_while_it_has_no_carrier(opened: Callable[[str], NamespaceTarget]) -> None:
    disruption_result = through(DisruptionTests(opened(f"{NAME}+rules-under-uplink")), "carrier-loss")
    assert disruption_result.kind is FlowKind.LEAKS_THEN_RECOVERS, disruption_text(disruption_result)
    assert disruption_result.leaked > 10


def test_a_host_is_put_back_that_networkd_has_taken_rules_from(
    opened: Callable[[str], NamespaceTarget], tmp_path: Path
) -> None:
    class Guard:
        """The guard of a live host, with its state where the lab's host sees it."""

        armed: Armed

        @contextlib.contextmanager
        def around(self, event: Event) -> Iterator[list[Disturbance]]:
            with guard(target.host, event.touches, timeout=30, tables=(200,), state_dir=str(tmp_path)) as self.armed:
                yield []

    target, guarding = opened(f"{NAME}+foreign-rules-purged"), Guard()
    before = target.snapshot
    target.services = replace(target.services, clone=None)
    disruption_result = through(DisruptionTests(target, guarding), "networkd-restart")
    assert [rule.priority for rule in disruption_result.rules_lost] == [990, 1000]
    assert guarding.armed.result is not None
    assert guarding.armed.result.equal, guarding.armed.result
    assert changes(before, target.read_state()) == []


def test_a_restart_is_judged_when_it_has_configured_its_links(
    opened: Callable[[str], NamespaceTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine networkd is up long before it configures anything; here it is stopped for that time."""
    start = NetworkdDaemon._run
    waiting: list[threading.Timer] = []

    def start_slowly(daemon: NetworkdDaemon) -> None:
        start(daemon)
        assert daemon._process is not None
        daemon._process.send_signal(signal.SIGSTOP)
        waiting.append(threading.Timer(SLOW, daemon._process.send_signal, [signal.SIGCONT]))
        waiting[-1].start()

    target = opened(f"{NAME}+foreign-rules-purged")
    target.services = replace(target.services, clone=None)
    monkeypatch.setattr(NetworkdDaemon, "_run", start_slowly)
    disruption_result = through(DisruptionTests(target), "networkd-restart")
    waiting[0].join()
    assert [rule.priority for rule in disruption_result.rules_lost] == [990, 1000]
    steps = [event.time for event in disruption_result.timeline.events if event.lane == EVENT_LANE]
    assert disruption_result.ended < steps[1], "the event is over when the service is up, before the wait"


def test_where_it_cannot_be_restarted_the_reason_is_told(opened: Callable[[str], NamespaceTarget]) -> None:
    with pytest.raises(EventNotApplicable, match="manages no link of this host"):
        event_for("networkd-restart", opened("policy-routing"))
    target = opened(NAME)
    assert event_for("networkd-restart", target).touches == ("lo", "eth0", "wlan0")
    target.services = replace(target.services, control=None)
    with pytest.raises(EventNotPossible, match="systemd does not run systemd-networkd here"):
        event_for("networkd-restart", target)


def test_without_the_programs_the_lab_is_not_hosted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(opening, "PATH", str(tmp_path))
    with pytest.raises(TargetUnavailable, match="apt-get install dbus-daemon ifupdown systemd"):
        open_lab(*parse_labs(NAME))


HELD = f"""
import sys
from netns_lab.lab_specs import parse_labs
from netns_lab.open_lab import open_lab
lab = open_lab(*parse_labs({NAME!r}))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [None, signal.SIGKILL], ids=["closed", "killed"])
def test_nothing_is_left_of_it(number: signal.Signals | None) -> None:
    text = HELD if number is not None else f"{HELD}lab.close()\n"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", text],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    with process.stdout, process.stdin:
        assert process.stdout.readline() == b"ready\n"
        ours = {pid: name for pid, name in running() if pid in of(process.pid)}
        assert {"systemd-network", "dbus-daemon"} <= set(ours.values())
        if number is not None:
            process.send_signal(number)
    process.wait()
    until(lambda: not ours.items() & set(running()), "networkd and its bus end with their lab")


def running() -> Iterator[tuple[str, str]]:
    """Each process of the machine with the first 15 characters of its program's name."""
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            yield path.parent.name, path.read_text().strip()


def of(parent: int) -> set[str]:
    """The processes that a process has started."""
    found = set[str]()
    for path in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if f"\nPPid:\t{parent}\n" in path.read_text():
                found.add(path.parent.name)
    return found
