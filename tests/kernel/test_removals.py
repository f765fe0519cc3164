"""What a person removes in the middle of an event stays removed and is named; what the event removes is restored."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.guarded_host import GuardedHost, until
from tests.helpers.person_at_terminal import PersonAtTerminal
from viacheck.guard.guard import guard
from viacheck.guard.process_ancestry import ProcessAncestry
from viacheck.guard.removals import RUN_MARK
from viacheck.guard.restore import RestoreResult
from viacheck.guard.watchdog.fork_events import fork_events


@pytest.fixture
def host() -> Iterator[GuardedHost]:
    host = GuardedHost()
    yield host
    host.close()


REMOVED = {
    "rule": (
        "rule del priority 1000 from 172.17.0.0/16 lookup 200",
        ["rule del priority 1000 iif wl0 fwmark 0x5/0xff lookup 201",
         "rule add priority 1000 from 172.17.0.0/16 lookup 200",
         "rule add priority 1000 iif wl0 fwmark 0x5/0xff lookup 201"],
        "- rule: priority 1000 from 172.17.0.0/16 lookup 200",
    ),
    "IPv6 rule": (
        "-6 rule del priority 1000", ["-6 rule add priority 1000 from 2001:db8:17::/64 lookup 200"],
        "- rule: -6 priority 1000 from 2001:db8:17::/64 lookup 200",
    ),
    "route": (
        "route del 203.0.113.0/24", ["route add 203.0.113.0/24 via 10.10.99.1 dev wl0 onlink mtu lock 1400 proto 77"],
        "- route: 203.0.113.0/24 via 10.10.99.1 dev wl0",
    ),
    "route of several next hops": (
        "route del 198.18.0.0/16 table 200",
        ["route add 198.18.0.0/16 table 200 nexthop via 10.10.50.1 dev wl0 weight 3 nexthop via 10.10.50.2 dev wl0"],
        "- route: 198.18.0.0/16 ",
    ),
    "IPv6 route": (
        "-6 route del default table 200 via 2001:db8:50::1",
        ["-6 route add default via 2001:db8:50::1 dev wl0 table 200"],
        "- route: -6 default via 2001:db8:50::1 dev wl0",
    ),
    "address": (
        "address del 10.10.51.9 peer 10.10.51.1/32 dev wl0",
        # The order of the addresses is part of the state.
        ["address add 10.10.51.9 peer 10.10.51.1/32 dev wl0"],
        "- address: 10.10.51.9 peer 10.10.51.1/32 dev wl0",
    ),
    "neighbour": (
        "neighbour del 10.10.50.1 dev wl0",
        ["neighbour add 10.10.50.1 lladdr 02:00:00:00:50:01 dev wl0 nud permanent"],
        "- neighbour: 10.10.50.1 lladdr 02:00:00:00:50:01 dev wl0",
    ),
    "next hop": (
        "nexthop del id 5",
        ["nexthop add id 5 via 10.10.50.1 dev wl0", "route add 198.51.100.0/24 nhid 5"],
        "- nexthop: nexthop id 5 via 10.10.50.1 dev wl0",
    ),
}  # fmt: skip
"""By kind of object: what a person types, how it is undone, and the beginning of the line that names it."""


@pytest.mark.parametrize("reconfigures", [False, True], ids=["link flap", "manager restart"])
@pytest.mark.parametrize("kind", REMOVED)
def test_what_a_person_removes_stays_removed_and_is_named(
    host: GuardedHost, tmp_path: Path, kind: str, reconfigures: bool
) -> None:
    removal, undo, line = REMOVED[kind]
    if kind == "next hop":
        for arguments in undo:
            host.ip(arguments)
    before = host.state()
    options = ["-6"] if removal.startswith("-6 ") else []
    with PersonAtTerminal(host.namespace, *options) as person:
        result = _flapped(host, tmp_path, person, removal.removeprefix("-6 "), reconfigures=reconfigures)
        (named,) = [named for named in result.foreign if named.startswith(line)]
        assert ", removed by ip (pid " in named
        assert named.endswith("in another login session")
        assert result.unclear == ()
        assert set(before) - set(host.state()), "it is still removed"
    for arguments in undo:
        host.ip(arguments)
    # An address that is added again is the last of its interface.
    assert _by_object(host.state()) == _by_object(before)


def _flapped(
    host: GuardedHost, tmp_path: Path, person: PersonAtTerminal, removal: str, *, reconfigures: bool
) -> RestoreResult:
    unchanged = host.state()
    with guard(
        host.namespace, ["wl0"], timeout=60, state_dir=str(tmp_path / "state"), tables=[200, 201],
        reconfigures=reconfigures,
    ) as armed:  # fmt: skip
        person.types(removal)
        until(lambda: host.state() != unchanged, "the person's command took effect")
        host.ip("link set wl0 down")
        host.ip("link set wl0 up")
    assert armed.result is not None
    assert armed.result.equal, armed.result.difference
    return armed.result


def _by_object(lines: list[str]) -> list[str]:
    """Return the state without the order of the addresses."""
    return sorted("".join(sorted(line)) if line.startswith("addresses: ") else line for line in lines)


def test_an_address_takes_its_routes_along(host: GuardedHost, tmp_path: Path) -> None:
    with PersonAtTerminal(host.namespace) as person:
        result = _flapped(host, tmp_path, person, "address del 10.10.50.10/24 dev wl0", reconfigures=False)
    removed = [line for line in result.foreign if line.startswith("- ")]
    assert any(line.startswith("- route: default via 10.10.50.1 dev wl0 src 10.10.50.10") for line in removed)
    assert "10.10.50.10" not in host.ip("address show dev wl0") + host.ip("route show table all")
    assert "10.10.50.9/24" in host.ip("address show dev wl0")


def test_what_a_program_removes_is_restored_and_named(host: GuardedHost, tmp_path: Path) -> None:
    before = host.state()
    with guard(
        host.namespace, ["wl0"], timeout=60, state_dir=str(tmp_path / "state"), tables=[200], reconfigures=False
    ) as armed:
        # A hook of the link would do the same, and this command has no terminal either.
        environment = {name: value for name, value in os.environ.items() if name != RUN_MARK}
        program = host.start(["ip", "-batch", "/dev/stdin"], stdin=-1, start_new_session=True, env=environment)
        assert program.stdin is not None
        program.stdin.write("rule del priority 990\naddress del 2001:db8:50::9/64 dev wl0\n")
        program.stdin.flush()
        program.stdin.close()
        assert program.wait() == 0
    assert armed.result is not None
    assert armed.result.equal, armed.result.difference
    assert host.state() == before
    rule, address = sorted(armed.result.unclear, reverse=True)
    assert rule.startswith("rule: priority 990 from 172.17.0.0/16")
    assert " removed by " in rule
    assert address.startswith("address: -6 2001:db8:50::9/64 dev wl0")
    assert address.endswith("removed by a process that the kernel does not name")


def test_a_process_of_a_person_that_had_ended_is_a_persons(host: GuardedHost, tmp_path: Path) -> None:
    """The watchdog is stopped until the process is gone, as on a machine with more to do than it can."""
    before, gone = host.state(), tmp_path / "gone"
    # Outside of the initial namespaces the kernel announces no forks, and whose the process was stays unknown.
    with fork_events() as events:
        announced = events >= 0
    with PersonAtTerminal(host.namespace, shell=True) as person:
        with guard(
            host.namespace, ["wl0"], timeout=60, state_dir=str(tmp_path / "state"), tables=[200], reconfigures=False
        ) as armed:
            os.kill(armed.watchdog, signal.SIGSTOP)
            person.types("ip rule del priority 990")
            person.types(f"echo >{gone}")
            until(gone.exists, "the shell has waited for ip")
            # A hook of the link without a terminal would do the same.
            environment = {name: value for name, value in os.environ.items() if name != RUN_MARK}
            argv = ["ip", "rule", "del", "priority", "40000"]
            assert host.start(argv, start_new_session=True, env=environment).wait() == 0
            os.kill(armed.watchdog, signal.SIGCONT)
        assert armed.result is not None
        assert armed.result.equal, armed.result.difference
        hooks, *persons = sorted(armed.result.unclear)
        assert hooks.startswith("rule: priority 40000 not from all to 10.0.0.0/8")
        assert "removed by a process that had ended (port " in hooks
        if announced:
            (named,) = armed.result.foreign
            assert named.startswith("- rule: priority 990 from 172.17.0.0/16")
            assert ", removed by a process that had ended (pid " in named
            assert ", started from sh (pid " in named
            assert named.endswith("in another login session")
            assert not persons
            host.ip("rule add priority 990 from 172.17.0.0/16 lookup main suppress_prefixlength 0")
        else:
            assert len(persons) == 1
    assert host.state() == before


def test_an_ended_process_is_of_the_session_of_its_nearest_ancestor_that_runs() -> None:
    with fork_events() as events:
        announced = events >= 0
        ancestry = ProcessAncestry(os.dup(events) if announced else events)

        def pid_of(*argv: str) -> int:
            return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)

        child = pid_of("sh", "-c", "true & echo $!; wait")
        assert ancestry.living_ancestor(child) == (os.getpid() if announced else None)
        child = pid_of("setsid", "--wait", "sh", "-c", "true & echo $!; wait")
        assert ancestry.living_ancestor(child) is None
        assert ancestry.living_ancestor(1) is None
        ancestry.close()


def test_a_flap_alone_names_nobody(host: GuardedHost, tmp_path: Path) -> None:
    before = host.state()
    with PersonAtTerminal(host.namespace) as person:
        # A removal that is undone again is none.
        with guard(
            host.namespace, ["wl0"], timeout=60, state_dir=str(tmp_path / "state"), tables=[200], reconfigures=False
        ) as armed:
            person.types("rule del priority 990")
            until(lambda: host.state() != before, "the rule is removed")
            person.types("rule add priority 990 from 172.17.0.0/16 lookup main suppress_prefixlength 0")
            until(lambda: host.state() == before, "the rule is back")
            host.ip("link set wl0 down")
            host.ip("link set wl0 up")
        assert armed.result is not None
        assert (armed.result.equal, armed.result.foreign, armed.result.unclear) == (True, (), ())
    assert host.state() == before


def test_a_setting_that_changes_beside_a_network_manager_is_restored_and_named(
    host: GuardedHost, tmp_path: Path
) -> None:
    before = host.state()
    with guard(host.namespace, ["wl0"], timeout=60, state_dir=str(tmp_path / "state")) as armed:
        path = "/proc/sys/net/ipv4/conf/wl0/rp_filter"
        host.namespace.call(lambda: Path(path).write_text("2"))
    assert armed.result is not None
    assert armed.result.unclear == ("sysctl: net/ipv4/conf/wl0/rp_filter = 0, was set to 2",)
    assert host.state() == before
