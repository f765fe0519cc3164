"""The interface of the operator's own SSH session is found, and interrupting a live host needs both consents."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.guarded_host import GuardedHost, until
from viacheck.disruption.consent import consent_missing, cuts_management
from viacheck.disruption.events import LinkFlap
from viacheck.disruption.live import DisruptionPlan, LiveDisruption, PlannedEvent
from viacheck.guard.saved_state import OUTCOME
from viacheck.guard.ssh_sessions import SshSession, ssh_sessions
from viacheck.model.intent_file import parse_intent


@pytest.fixture
def host() -> Iterator[GuardedHost]:
    host = GuardedHost()
    yield host
    host.close()


def sessions(host: GuardedHost, **environ: str) -> dict[str, set[str]]:
    return {session.peer: set(session.interfaces) for session in ssh_sessions(host.namespace, environ, pid=1)}


@pytest.mark.parametrize(
    ("connection", "peer", "interfaces"),
    [
        ("10.10.50.77 50000 10.10.50.9 22", "10.10.50.77", {"wl0"}),
        ("10.10.40.77 50000 10.10.40.9 22", "10.10.40.77", {"up0"}),
        # It arrives by wl0 and is answered by up0: it needs both.
        ("198.51.100.7 50000 10.10.50.9 22", "198.51.100.7", {"wl0", "up0"}),
        ("2001:db8:50::77 50000 2001:db8:50::9 22", "2001:db8:50::77", {"wl0"}),
    ],
)
def test_ssh_connection_names_the_session(host: GuardedHost, connection: str, peer: str, interfaces: set[str]) -> None:
    assert sessions(host, SSH_CONNECTION=connection) == {peer: interfaces}


def test_a_session_of_another_namespace_does_not_count(host: GuardedHost) -> None:
    assert sessions(host, SSH_CONNECTION="192.0.2.1 50000 192.0.2.2 22") == {}


@pytest.mark.parametrize("connection", ["", "10.10.50.77", "a b c d", "10.10.50.77 50000 10.10.50.9"])
def test_an_invalid_connection_is_ignored(host: GuardedHost, connection: str) -> None:
    assert sessions(host, SSH_CONNECTION=connection) == {}


def test_a_bridges_session_needs_its_port(host: GuardedHost) -> None:
    for arguments in ("link add br9 type bridge", "link set br9 up", "link set wl0 master br9"):
        host.ip(arguments)
    host.ip("address add 10.10.70.9/24 dev br9")
    assert sessions(host, SSH_CONNECTION="10.10.70.77 50000 10.10.70.9 22") == {"10.10.70.77": {"br9", "wl0"}}


def test_a_macvlans_session_needs_its_parent(host: GuardedHost) -> None:
    host.ip("link add link wl0 name mv0 type macvlan mode bridge")
    host.ip("link set mv0 up")
    host.ip("address add 10.10.70.9/24 dev mv0")
    assert sessions(host, SSH_CONNECTION="10.10.70.77 50000 10.10.70.9 22") == {"10.10.70.77": {"mv0", "wl0"}}


SSHD = """\
import socket, subprocess, sys
listener = socket.socket({family})
listener.bind(({address!r}, 0))
listener.listen()
print(listener.getsockname()[1], flush=True)
connection = listener.accept()[0]
with open("/proc/self/comm", "w") as file:
    file.write("sshd")
ask = "from viacheck.host.namespace import Namespace; from viacheck.guard.ssh_sessions import ssh_sessions; " \\
      "print([(s.peer, sorted(s.interfaces), s.found_by) for s in ssh_sessions(Namespace.current(), dict())])"
# Two processes on, as behind a login shell and sudo.
subprocess.run(["sh", "-c", '"$0" -c "$1"; true', sys.executable, ask])
"""


@pytest.mark.parametrize(
    ("address", "peer"),
    [("10.10.50.9", "10.10.50.77"), ("2001:db8:50::9", "2001:db8:50::77"), ("::", "10.10.50.77")],
)
def test_without_the_variable_the_sshd_above_is_found(host: GuardedHost, address: str, peer: str) -> None:
    length = "64" if ":" in peer else "24"
    argv = ["ip", "address", "add", f"{peer}/{length}", "dev", "wl0-far", *(["nodad"] if ":" in peer else [])]
    assert host.far.run(argv).ok
    family = "socket.AF_INET6" if ":" in address else "socket.AF_INET"
    source = SSHD.format(family=family, address=address)
    daemon = host.start([sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert daemon.stdout is not None
    port = int(daemon.stdout.readline())
    target = "2001:db8:50::9" if ":" in peer else "10.10.50.9"
    dial = f"import socket, sys; connection = socket.create_connection(({target!r}, {port})); sys.stdin.read()"
    client = host.far.call(lambda: subprocess.Popen([sys.executable, "-c", dial], stdin=subprocess.PIPE))
    output, errors = daemon.communicate(timeout=30)
    client.communicate(timeout=30)
    assert output.strip() == f"[({peer!r}, ['wl0'], 'the sshd above')]", errors


WLAN = SshSession("10.10.50.77", frozenset({"wl0"}), "SSH_CONNECTION")


def test_the_interface_of_a_session_is_refused_without_consent() -> None:
    assert cuts_management(["up0", "wl0"], [WLAN], flap_management=False) == (
        "wl0 carries the SSH session from 10.10.50.77 (SSH_CONNECTION): the event would cut it; "
        "use --flap-management to do it anyway"
    )
    assert cuts_management(["up0", "wl0"], [WLAN], flap_management=True) is None
    assert cuts_management(["up0"], [WLAN], flap_management=False) is None


@pytest.mark.parametrize(
    ("site_allows", "asked", "line"),
    [
        (True, True, None),
        (True, False, "it interrupts this host's network: add --allow-disruptive"),
        (
            False,
            True,
            "site.toml: allow_disruptive: found false; --allow-disruptive needs 'allow_disruptive = true' there",
        ),
        (
            False,
            False,
            "it interrupts this host's network: needs 'allow_disruptive = true' in site.toml, and --allow-disruptive",
        ),
    ],
)
def test_both_consents_are_needed(site_allows: bool, asked: bool, line: str | None) -> None:
    assert consent_missing("site.toml", site_allows, asked) == line


def test_a_plan_names_event_interface_and_time() -> None:
    plan = DisruptionPlan(
        (
            PlannedEvent("link-flap", "link down, then up", "wl0", 5),
            PlannedEvent("ifupdown", "ifdown and ifup, three times", "wl0", 30),
        )
    )
    assert plan.timeout(0) == 45
    assert plan.lines() == [
        "this host's network will be interrupted and then restored to its present state:",
        "  wl0: link down, then up, at most 5 s",
        "  wl0: ifdown and ifup, three times, at most 30 s",
        "  a watchdog restores it after 45 s at the latest (later with thousands of routes), "
        "'viacheck restore' by hand",
    ]


def test_a_watchdog_that_ended_an_event_by_its_limit_is_an_alert(
    host: GuardedHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("viacheck.disruption.live._PLAN_MARGIN", 0.5)
    monkeypatch.setattr("viacheck.guard.guard.default_state_dir", lambda: str(tmp_path / "state"))
    intent = parse_intent(tomllib.loads(SITE.format(allow="")), source="site.toml")
    target: Any = SimpleNamespace(
        host=host.namespace, intent=intent, notes=[], alerts=[],
        snapshot=SimpleNamespace(host=SimpleNamespace(routes=(), rules=(), addresses=())),
    )  # fmt: skip
    live = LiveDisruption(target, "site.toml", (), asked=True, flap_management=True)
    with live.around(LinkFlap("wl0")):
        host.ip("link set wl0 down")
        until((tmp_path / "state" / OUTCOME).exists, "the limit has passed")
    assert target.notes == []
    (alert,) = target.alerts
    assert alert.startswith(
        "after wl0 is set down and up again: the watchdog's limit of 0.5 s passed before the event had ended, and it "
        "restored the host in the middle of it: its results are not those of the event; the host was restored within "
    )


SITE = """\
schema = 1
{allow}
[site]
name = "one"
[agent]
netns = "/proc/self/ns/net"
[agent.attach]
mode = "nat"
network = "bridge"
[uplinks.wl0]
gateway = "10.10.50.1"
[egress]
uplink = "wl0"
[probe]
target = "198.51.100.1"
"""


def run_local(host: GuardedHost, site: Path, *words: str) -> tuple[int, str]:
    argv = [sys.executable, "-m", "pytest", "checks", "--local", "--site", str(site), "--collect-only", "-q", *words]
    process = host.start(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def test_the_option_alone_does_not_make_a_run_disruptive(host: GuardedHost, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text(SITE.format(allow=""))
    status, said = run_local(host, site, "--allow-disruptive")
    assert status == 4
    assert f"{site}: allow_disruptive: found false; --allow-disruptive needs 'allow_disruptive = true' there" in said
    site.write_text(SITE.format(allow="allow_disruptive = true"))
    assert run_local(host, site, "--allow-disruptive")[0] == 0
