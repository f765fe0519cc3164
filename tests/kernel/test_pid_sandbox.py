"""A process in the sandbox ends with it, cannot see processes outside, and writes only to the lab's own files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_lab.builder import build
from netns_lab.lab import Lab
from netns_lab.pid_namespace import contain_processes
from netns_lab.scenarios import SCENARIOS
from tests.helpers.paths import ROOT
from viacheck.host.namespace import Namespace
from viacheck.host.pid_sandbox import PidSandbox

WRITABLE = ("/run", "/etc", "/proc")
DAEMON = "sleep 654321 >/dev/null 2>&1 </dev/null & echo $!"
KILLED = """
import sys
from viacheck.host.namespace import Namespace
from viacheck.host.pid_sandbox import PidSandbox
host = Namespace.create("host", lambda: None)
space = PidSandbox(host, ()).__enter__()
space.run(["sh", "-c", sys.argv[1]], 5)
print("started", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with contextlib.closing(build(SCENARIOS["nat"]())) as built:
        yield built


def daemons() -> list[int]:
    """Return the daemons of these tests that run, by the machine's own process numbers."""
    pgrep = subprocess.run(["pgrep", "-f", "^sleep 654321"], capture_output=True, text=True, check=False)
    return [int(number) for number in pgrep.stdout.split()]


def gone(within: float = 30.0) -> bool:
    deadline = time.monotonic() + within
    while daemons():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_daemon_goes_on_between_commands_and_ends_with_the_space(lab: Lab) -> None:
    with PidSandbox(lab.host.namespace, WRITABLE) as space:
        pid = space.run(["sh", "-c", DAEMON], 5).stdout.strip()
        assert space.run(["kill", "-0", pid], 5).ok
        assert len(daemons()) == 1
        assert not space.run(["kill", "-9", str(os.getpid())], 5).ok
        assert space.run(["kill", pid], 5).ok
        assert gone()
        space.run(["sh", "-c", DAEMON], 5)
    assert not daemons()


def test_it_ends_with_a_run_that_is_killed() -> None:
    argv = [sys.executable, "-P", "-c", KILLED, DAEMON]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"started\n"
        assert len(daemons()) == 1
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert gone()


def test_only_the_labs_own_files_can_be_written(lab: Lab, tmp_path: Path) -> None:
    here = tmp_path / "x"
    with PidSandbox(lab.host.namespace, WRITABLE) as space:
        for path in (str(here), "/root/viacheck-x", "/usr/local/viacheck-x", "/var/lib/viacheck-x"):
            refused = space.run(["touch", path], 5)
            assert "Read-only file system" in refused.stderr, path
        for path in ("/run/x", "/etc/x"):
            assert space.run(["touch", path], 5).ok, path
        assert space.run(["env"], 5).stdout.startswith("PATH=")
    assert not here.exists()
    here.touch()
    assert not Path("/etc/x").exists()


def test_it_has_the_network_of_the_lab(lab: Lab) -> None:
    with PidSandbox(lab.host.namespace, WRITABLE) as space:
        assert "docker0" in space.run(["ip", "link"], 5).stdout
        assert space.run(["no-such-program"], 5).exit_code == 127


def test_a_command_that_does_not_end_has_exit_code_124(lab: Lab) -> None:
    with PidSandbox(lab.host.namespace, WRITABLE) as space:
        assert space.run(["sleep", "654321"], 0.2).exit_code == 124
    assert gone()


def test_this_process_stays_where_it_is(lab: Lab) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    with PidSandbox(lab.host.namespace, WRITABLE), contextlib.closing(Namespace.current()) as own:
        assert own.run(["true"]).ok
    assert Path("/proc/self/mountinfo").read_text() == before


def test_a_command_that_nobody_waits_for_does_not_hold_up_the_end_of_a_lab() -> None:
    with contextlib.closing(Namespace.create("host", lambda: None)) as host:
        end_processes = contain_processes(host)
        host.begin(["sleep", "600"])
        begun = time.monotonic()
        end_processes()
        # The kernel waits for it to be reaped: this took 22 s, and ended in an error.
        assert time.monotonic() - begun < 10
