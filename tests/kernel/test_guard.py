"""The guard of a live host: real changes in a hand-made namespace, and every manner in which a run can end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.helpers.guarded_host import STEPS, WITHIN, GuardedHost, guarded_run, locked_by_another, until, wait_for_end
from tests.helpers.paths import ROOT
from viacheck.guard.guard import GuardRefused, guard
from viacheck.guard.lock import LockHeld, NoStateDirectory, acquire
from viacheck.guard.saved_state import OUTCOME, UNFINISHED
from viacheck.host.syscalls import mount


@pytest.fixture
def host() -> Iterator[GuardedHost]:
    host = GuardedHost()
    yield host
    host.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_to_the_whole_process_group_leaves_the_host_as_it_was(
    host: GuardedHost, folder: Path, number: signal.Signals
) -> None:
    before = host.state()
    with guarded_run(host, folder, pause_at=4, process_group=0) as run:
        run.reach(4)
        os.killpg(run.process.pid, number)
        wait_for_end(run.watchdog, WITHIN, "the watchdog has restored the state")
        assert host.state() == before, run.log()


def test_signals_do_not_end_the_watchdog(host: GuardedHost, folder: Path) -> None:
    before = host.state()
    with guarded_run(host, folder, pause_at=0) as run:
        run.reach(0)
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
            os.kill(run.watchdog, number)
        run.end_with(signal.SIGKILL)
        assert host.state() == before, run.log()


def test_a_child_that_keeps_the_channel_open_does_not_keep_the_watchdog_waiting(
    host: GuardedHost, folder: Path
) -> None:
    before = host.state()
    # The child ends with the pipe, whose other end is this test's.
    reader, writer = os.pipe()
    try:
        fork = f"os.fork() or os.read({reader}, 1) or os._exit(0)"
        with guarded_run(host, folder, pause_at=1, before=fork, pass_fds=[reader]) as run:
            run.reach(1)
            run.end_with(signal.SIGKILL)
            assert host.state() == before, run.log()
    finally:
        os.close(reader)
        os.close(writer)


def test_a_run_that_hangs_past_the_limit_is_undone_and_its_own_end_undone_again(
    host: GuardedHost, folder: Path
) -> None:
    before = host.state()
    with guarded_run(host, folder, timeout=0.5, pause_at=0) as run:
        run.reach(0)
        run.process.send_signal(signal.SIGSTOP)
        until((folder / OUTCOME).exists, "the limit has passed")
        assert host.state() == before, run.log()
        run.process.send_signal(signal.SIGCONT)
        run.go_on()
        assert run.outcome()["reason"] == "the time limit has passed"
        assert host.state() == before, run.log()


def test_a_run_that_goes_on_after_the_limit_and_is_killed_is_undone_again(host: GuardedHost, folder: Path) -> None:
    before = host.state()
    with guarded_run(host, folder, timeout=0.5, pause_at=4) as run:
        until((folder / OUTCOME).exists, "the limit has passed")
        host.ip("link set wl0 down")
        run.end_with(signal.SIGKILL)
        assert host.state() == before, run.log()


def test_without_its_watchdog_the_run_itself_restores_the_state(host: GuardedHost, folder: Path) -> None:
    before = host.state()
    with guarded_run(host, folder, pause_at=4) as run:
        run.reach(4)
        os.kill(run.watchdog, signal.SIGKILL)
        run.go_on()
        outcome = run.outcome()
        assert outcome["equal"]
        assert outcome["reason"] == "the watchdog is gone"
        assert host.state() == before


def test_the_result_names_the_repairs(host: GuardedHost, folder: Path) -> None:
    before = host.state()
    with guard(host.namespace, ["wl0"], timeout=60, state_dir=str(folder)) as armed:
        host.ip("link set wl0 down")
        host.ip("link set wl0 up")
        assert host.state() != before
    assert armed.result is not None
    assert armed.result.equal, armed.result.difference
    assert "restored route: default via 10.10.50.1 dev wl0 src 10.10.50.10 table 200 proto boot" in armed.result.actions
    assert armed.result.foreign == ()
    assert host.state() == before


def test_a_change_that_raises_is_undone(host: GuardedHost, folder: Path) -> None:
    before = host.state()
    with contextlib.suppress(ZeroDivisionError), guard(host.namespace, ["wl0"], timeout=60, state_dir=str(folder)):
        host.ip("address flush dev wl0")
        raise ZeroDivisionError
    assert host.state() == before


def test_an_unchanged_host_is_not_touched(host: GuardedHost, folder: Path) -> None:
    with guard(host.namespace, ["wl0"], timeout=60, state_dir=str(folder)) as armed:
        pass
    assert armed.result is not None
    assert armed.result.equal
    assert armed.result.actions == ()


CHANGES = {
    "rename": ["link set wl0 down", "link set wl0 name radio", "link set radio up"],
    "mtu-below-ipv6": ["link set wl0 mtu 1200", "link set wl0 mtu 1500"],
    "ipv6-off": ["#net/ipv6/conf/wl0/disable_ipv6=1"],
    "sysctls": ["#net/ipv4/conf/wl0/rp_filter=1", "#net/ipv6/conf/all/forwarding=1", "#net/ipv4/ip_forward=0"],
    "order-of-addresses": ["address del 10.10.50.9/24 dev wl0", "address add 10.10.50.9/24 dev wl0"],
    "order-of-ipv6-addresses": ["address del 2001:db8:50::9/64 dev wl0", "address add 2001:db8:50::9/64 dev wl0 nodad"],
    "order-of-routes": ["route del 192.0.2.0/24 dev wl0", "route append 192.0.2.0/24 dev wl0"],
    "order-of-rules": [
        "rule del priority 1000 from 172.17.0.0/16 lookup 200",
        "rule add priority 1000 from 172.17.0.0/16 lookup 200",
    ],
    "rules-piled-up": ["rule add from 172.17.0.0/16 lookup 200", "rule add from 172.17.0.0/16 lookup 200"],
    "all-rules": ["rule flush", "rule add priority 32000 lookup 201"],
    "local-rule-moved": ["rule add priority 5 lookup local", "rule del priority 0"],
    "addresses-added": ["address add 10.10.60.9/24 dev wl0", "address add 2001:db8:60::9/64 dev wl0"],
    "neighbour-changed": ["neighbour replace 10.10.50.1 lladdr 02:00:00:00:50:99 dev wl0 nud permanent"],
    "down": ["link set wl0 down"],
    "enslaved": ["link add br9 type bridge", "link set wl0 master br9"],
}


def type_in(host: GuardedHost, lines: Sequence[str]) -> None:
    """Change the host: arguments of ip(8), or ``#`` and a setting below /proc/sys."""
    for arguments in lines:
        if arguments.startswith("#"):
            path, value = arguments[1:].split("=")
            host.namespace.call(lambda: Path("/proc/sys", path).write_text(value))  # noqa: B023 - called at once
        else:
            host.ip(arguments)


@pytest.mark.parametrize("change", CHANGES)
def test_an_events_change_is_restored(host: GuardedHost, folder: Path, change: str) -> None:
    before = host.state()
    with guard(host.namespace, ["wl0"], timeout=60, state_dir=str(folder), tables=[201]) as armed:
        type_in(host, CHANGES[change])
    assert armed.result is not None
    assert armed.result.equal, armed.result.difference
    if change == "enslaved":
        assert armed.result.foreign == ("+ link: br9",)
        host.ip("link del br9")
    assert host.state() == before


def test_next_hop_objects_are_restored_with_their_routes(host: GuardedHost, folder: Path) -> None:
    for arguments in (
        "nexthop add id 5 via 10.10.50.1 dev wl0",
        "nexthop add id 6 via 10.10.40.1 dev up0",
        "nexthop add id 7 group 5,3/6",
        "route add 198.51.100.0/24 nhid 7",
        "route add 198.51.101.0/24 nhid 5",
    ):
        host.ip(arguments)
    before = host.state(), host.ip("nexthop show")
    with guard(host.namespace, ["wl0"], timeout=60, state_dir=str(folder)) as armed:
        host.ip("link set wl0 down")
        host.ip("link set wl0 up")
    assert armed.result is not None
    assert armed.result.equal, armed.result.difference
    assert (host.state(), host.ip("nexthop show")) == before


FOREIGN = {
    "another interface": ["address add 10.10.41.9/24 dev up0"],
    "another interface's route": ["route add 198.51.100.0/24 via 10.10.40.1 dev up0"],
    "a rule for another table": ["rule add priority 700 from 10.66.0.0/16 lookup 66"],
    "another table": ["route add 198.51.100.0/24 via 10.10.40.1 dev up0 table 66"],
    "a new interface": ["link add vpn0 type bridge"],
    "a lease": ["address add 10.10.53.9/24 dev wl0 valid_lft 3600 preferred_lft 3600"],
    "a routing daemon's route": ["route add 198.51.100.0/24 via 10.10.50.1 dev wl0 proto bgp"],
    "a lease's router": ["route add 198.51.100.0/24 via 10.10.50.1 dev wl0 proto dhcp table 200"],
}


OPERATORS = {
    "a rule for the change's table": ("rule add priority 700 from 172.17.0.99 lookup 200", "rule del priority 700"),
    "a rule for the change's interface": ("rule add priority 700 iif wl0 lookup 66", "rule del priority 700"),
    "a route in the change's table": (
        "route add 198.51.100.0/24 via 10.10.50.1 dev wl0 table 200", "route del 198.51.100.0/24 table 200",
    ),
    "a route by the change's interface": (
        "route add 198.51.100.0/24 via 10.10.50.1 dev wl0", "route del 198.51.100.0/24",
    ),
    "an address": ("address add 10.10.60.9/24 dev wl0", "address del 10.10.60.9/24 dev wl0"),
    "an IPv6 address": ("address add 2001:db8:60::9/64 dev wl0 nodad", "address del 2001:db8:60::9/64 dev wl0"),
    "a neighbour": (
        "neighbour add 10.10.50.66 lladdr 02:00:00:00:50:66 dev wl0 nud permanent",
        "neighbour del 10.10.50.66 dev wl0",
    ),
    "a next hop": ("nexthop add id 5 via 10.10.50.1 dev wl0", "nexthop del id 5"),
    "the MTU": ("link set wl0 mtu 1400", "link set wl0 mtu 1500"),
    "a setting": ("#net/ipv4/conf/wl0/rp_filter=2", "#net/ipv4/conf/wl0/rp_filter=0"),
}  # fmt: skip
"""What an operator types, and how it is undone."""


@pytest.mark.parametrize("change", OPERATORS)
def test_what_an_operator_did_during_a_flap_is_reported_and_not_touched(
    host: GuardedHost, folder: Path, change: str
) -> None:
    before = host.state()
    with guard(host.namespace, ["wl0"], timeout=60, state_dir=str(folder), tables=[200], reconfigures=False) as armed:
        host.ip("link set wl0 down")
        host.ip("link set wl0 up")
        host.ip("rule add from 172.17.0.0/16 lookup 200")
        type_in(host, OPERATORS[change][:1])
    assert armed.result is not None
    assert armed.result.equal, armed.result.difference
    assert armed.result.foreign, "it is named"
    assert host.state() != before
    type_in(host, OPERATORS[change][1:])
    assert host.state() == before


@pytest.mark.parametrize("change", FOREIGN)
def test_a_foreign_change_is_reported_and_not_touched(host: GuardedHost, folder: Path, change: str) -> None:
    with guard(host.namespace, ["wl0"], timeout=60, state_dir=str(folder)) as armed:
        for arguments in FOREIGN[change]:
            host.ip(arguments)
        meanwhile = host.state()
        host.ip("rule del priority 990")
    assert armed.result is not None
    assert armed.result.equal, armed.result.difference
    assert armed.result.actions == (
        "restored rule: priority 990 from 172.17.0.0/16 lookup main suppress_prefixlength 0",
    )
    assert any(line.startswith("+ ") for line in armed.result.foreign)
    assert host.state() == meanwhile


def test_the_veth_of_a_restarted_container_is_not_restored(host: GuardedHost, folder: Path) -> None:
    """Its routes by fe80::/64 are under the same key as those of the uplink."""
    host.ip("link add veth1 type veth peer name inner1")
    host.ip("address add fe80::1:1/64 dev veth1 nodad")
    host.ip("address add fe80::9:9/64 dev wl0 nodad")
    for name in ("veth1", "inner1"):
        host.ip(f"link set {name} up")
    with guard(host.namespace, ["wl0"], timeout=60, state_dir=str(folder)) as armed:
        host.ip("link del veth1")
        host.ip("link add veth2 type veth peer name inner2")
        host.ip("address add fe80::2:2/64 dev veth2 nodad")
        # The kernel checks an address that it makes itself, and says some time later that a link has its carrier.
        for name in ("veth2", "inner2"):
            host.ip(f"link set {name} addrgenmode none up")
        for name in ("veth2", "inner2"):
            until(lambda name=name: " state UP " in host.ip(f"link show {name}"), f"{name} is up")  # type: ignore[misc]
        meanwhile = host.state()
    assert armed.result is not None
    assert armed.result.equal, armed.result.difference
    assert {f"{sign} route: -6 fe80::/64 dev {name} metric 256 proto kernel"
            for sign, name in (("-", "veth1"), ("+", "veth2"))} <= set(armed.result.foreign)  # fmt: skip
    assert host.state() == meanwhile


def test_another_lease_stays(host: GuardedHost, folder: Path) -> None:
    with guard(host.namespace, ["wl0"], timeout=60, state_dir=str(folder)) as armed:
        host.ip("address del 10.10.52.9/24 dev wl0")
        host.ip("address add 10.10.52.33/24 dev wl0 valid_lft 3600 preferred_lft 3600")
        meanwhile = host.state()
    assert armed.result is not None
    assert armed.result.equal, armed.result.difference
    foreign = [line.split(" scope")[0] for line in armed.result.foreign if "address" in line]
    assert foreign == ["- address: 10.10.52.9/24 dev wl0", "+ address: 10.10.52.33/24 dev wl0"]
    assert host.state() == meanwhile


def test_a_missing_interface_is_reported_and_the_state_stays_unfinished(host: GuardedHost, folder: Path) -> None:
    with guard(host.namespace, ["wl0"], timeout=60, state_dir=str(folder)) as armed:
        host.ip("link del wl0")
    assert armed.result is not None
    assert not armed.result.equal
    assert "- link: wl0 is missing and is not recreated" in armed.result.difference
    assert (folder / UNFINISHED).exists()
    with (
        pytest.raises(GuardRefused, match=r"an earlier run was not undone; 'viacheck restore' does it"),
        guard(host.namespace, ["up0"], timeout=60, state_dir=str(folder)),
    ):
        raise AssertionError("the change must not be made")


def test_a_recreated_interface_gets_the_old_ones_routes_and_rules(host: GuardedHost, folder: Path) -> None:
    with guard(host.namespace, ["wl0"], timeout=60, state_dir=str(folder)) as armed:
        before = host.ip("route show table all"), host.ip("rule show")
        host.ip("link del wl0")
        host.ip("link add wl0 type veth peer name other")
        host.ip("link set other up")
    assert armed.result is not None
    assert armed.result.equal, armed.result.difference
    routes = [line for line in host.ip("route show table all").splitlines(keepends=True) if " dev other " not in line]
    assert ("".join(routes), host.ip("rule show")) == before


def test_a_second_run_names_the_holder_of_the_lock(host: GuardedHost, folder: Path) -> None:
    with (
        guard(host.namespace, ["wl0"], timeout=60, state_dir=str(folder), command="./viacheck --local"),
        pytest.raises(LockHeld, match=rf"pid {os.getpid()} \(\./viacheck --local\), since 20"),
    ):
        acquire(str(folder), "another")
    acquire(str(folder), "another").release()


def test_the_watchdog_holds_the_lock_of_a_run_that_is_gone(host: GuardedHost, folder: Path) -> None:
    with guarded_run(host, folder, pause_at=0) as run:
        run.reach(0)
        os.kill(run.watchdog, signal.SIGSTOP)
        run.process.kill()
        run.process.wait()
        with pytest.raises(LockHeld, match=rf"that run is gone, and its watchdog \(pid {run.watchdog}\) is restoring"):
            acquire(str(folder), "another")
        os.kill(run.watchdog, signal.SIGCONT)
        wait_for_end(run.watchdog, WITHIN, "the watchdog has restored the state")
        acquire(str(folder), "another").release()


def test_a_lock_without_a_named_holder_is_held(folder: Path) -> None:
    with (
        locked_by_another(folder),
        pytest.raises(LockHeld, match="another run that has not yet written its process id"),
    ):
        acquire(str(folder), "another")


def test_a_state_directory_that_others_can_write_to_is_refused(host: GuardedHost, folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(NoStateDirectory, match="must be a folder that only its owner"):
        acquire(str(folder), "run")
    with pytest.raises(GuardRefused), guard(host.namespace, ["wl0"], timeout=60, state_dir=str(folder)):
        raise AssertionError("the change must not be made")


def test_a_missing_interface_is_refused(host: GuardedHost, folder: Path) -> None:
    with (
        pytest.raises(GuardRefused, match="there is no interface wl9"),
        guard(host.namespace, ["wl9"], timeout=60, state_dir=str(folder)),
    ):
        raise AssertionError("the change must not be made")
    assert not (folder / UNFINISHED).exists()


def test_the_watchdog_needs_the_standard_library_only() -> None:
    ask = "import sys, viacheck.guard.watchdog.process; print(*sys.modules)"
    # -S leaves site-packages out, as for the watchdog itself.
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", ask],
        env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours = {name for name in done.stdout.split() if name.partition(".")[0] == "viacheck"}
    foreign = {name for name in done.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names} - ours
    assert not foreign - {"__main__"}
    rooms = {".".join(name.split(".")[:2]) for name in ours}
    assert rooms == {
        "viacheck",
        "viacheck.atomic_file",
        "viacheck.guard",
        "viacheck.host",
        "viacheck.model",
        "viacheck.netlink",
        "viacheck.private_folder",
        "viacheck.user_file",
    }


def test_the_saved_file_is_readable_by_its_owner_and_for_people(host: GuardedHost, folder: Path) -> None:
    with guard(host.namespace, ["wl0"], timeout=60, state_dir=str(folder)) as armed:
        path = Path(armed.state_file)
        assert path.stat().st_mode & 0o777 == 0o600
        assert '"text": "priority 1000 from 172.17.0.0/16 lookup 200"' in path.read_text()


FULL = "sh -c 'cat /dev/zero >{folder}/filler 2>/dev/null; true'"
READ_ONLY = "sh -c 'mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}'"


@pytest.fixture
def on_small_disk(folder: Path) -> Iterator[GuardedHost]:
    """A host whose state directory is a small disk of its own."""
    folder.mkdir(mode=0o700)
    host = GuardedHost(prepare=lambda: mount("tmpfs", str(folder), "tmpfs", options="size=192k,mode=700"))
    yield host
    host.close()


@pytest.mark.parametrize("disk", [FULL, READ_ONLY], ids=["full", "read-only"])
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "ended"])
def test_a_disk_that_cannot_be_written_any_more_keeps_nothing_from_being_restored(
    on_small_disk: GuardedHost, folder: Path, disk: str, killed: bool
) -> None:
    host, before = on_small_disk, on_small_disk.state()
    with guarded_run(host, folder, pause_at=2, steps=[disk.format(folder=folder), *STEPS]) as run:
        run.reach(2)
        assert host.state() != before
        if killed:
            run.end_with(signal.SIGKILL)
        else:
            run.go_on()
            outcome = run.outcome()
            assert outcome["equal"]
            assert bool(outcome["unmarked"]) == (disk == READ_ONLY)
            wait_for_end(run.process.pid, WITHIN, "the run ends")
    assert host.state() == before
    assert host.namespace.run(["flock", "--nonblock", f"{folder}/lock", "true"]).ok
    restore = [sys.executable, "-m", "viacheck.cli.main", "restore", "--state", f"{folder}/{UNFINISHED}"]
    done = host.namespace.run(restore)
    assert (done.exit_code, done.stderr.count("\n")) == ((0, 0) if disk == FULL else (4, 1)), done.stderr


@pytest.mark.parametrize("disk", [FULL, READ_ONLY], ids=["full", "read-only"])
def test_on_a_disk_that_cannot_be_written_nothing_is_changed(
    on_small_disk: GuardedHost, folder: Path, disk: str
) -> None:
    host, before = on_small_disk, on_small_disk.state()
    assert host.namespace.run(["sh", "-c", disk.format(folder=folder)]).ok
    with pytest.raises(AssertionError, match=r"GuardRefused: .*(No space left on device|Read-only file system)\n$"):
        guarded_run(host, folder).__enter__()
    assert host.state() == before
    lock = folder / "lock"
    assert host.namespace.run(["sh", "-c", f"[ ! -e {lock} ] || flock --nonblock {lock} true"]).ok
