"""The commands of a killed run that live on: what they change is undone, whenever they end."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.guarded_host import WITHIN, GuardedHost, guarded_run, until, wait_for_end
from viacheck.guard.saved_state import LOG
from viacheck.guard.watchdog.process import RUN_GONE

SMALLEST_PIPE = 4096
"""Octets; the kernel rounds up to a page."""


@pytest.fixture
def host() -> Iterator[GuardedHost]:
    host = GuardedHost()
    yield host
    host.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_the_commands_of_a_killed_run_are_undone_when_they_have_ended(host: GuardedHost, folder: Path) -> None:
    before = host.state()
    reader, writer = os.pipe()
    slow = f"subprocess.Popen(['sh', '-c', 'read line; ip link set wl0 down'], stdin={reader})"
    with guarded_run(host, folder, pause_at=0, before=slow, pass_fds=[reader]) as run:
        os.close(reader)
        run.reach(0)
        run.process.kill()
        until(lambda: host.state() == before, "the state was restored for the first time", WITHIN)
        os.close(writer)
        wait_for_end(run.watchdog, WITHIN, "the watchdog has restored the state again")
        assert host.state() == before, run.log()
        assert "removed" in run.log()


def test_a_command_that_ends_after_the_comparison_and_before_the_search_for_commands_is_undone(
    host: GuardedHost, folder: Path
) -> None:
    """The watchdog's log is a pipe without room for a line of the restore, so it waits right after the comparison."""
    before = host.state()
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / LOG)
    go_on, start = os.pipe()
    ended, running = os.pipe()
    slow = f"subprocess.Popen(['sh', '-c', 'read line; ip link set wl0 down'], stdin={go_on}, stdout={running})"
    with contextlib.ExitStack() as closing:
        log = os.open(folder / LOG, os.O_RDWR | os.O_NONBLOCK)
        closing.callback(os.close, log)
        room = fcntl.fcntl(log, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
        closing.callback(os.close, ended)
        run = closing.enter_context(guarded_run(host, folder, pause_at=0, before=slow, pass_fds=[go_on, running]))
        os.close(go_on)
        os.close(running)
        run.reach(0)
        assert b"armed" in os.read(log, room)
        os.write(log, b"." * (room - len(f"00:00:00 {RUN_GONE}: restoring\n")))
        run.process.kill()
        until(lambda: _writes_its_log(run.watchdog), "the watchdog has compared the restored state", WITHIN)
        assert host.state() == before
        os.close(start)
        assert os.read(ended, 1) == b""
        assert host.state() != before, "the command has changed the host, and ended"
        room = fcntl.fcntl(log, fcntl.F_SETPIPE_SZ, 16 * SMALLEST_PIPE)
        said = os.read(log, room).lstrip(b".")
        wait_for_end(run.watchdog, WITHIN, "the watchdog has restored the state again")
        said += os.read(log, room)
        assert host.state() == before, said.decode()
        assert b"the commands of the run have ended: restoring" in said


def _writes_its_log(pid: int) -> bool:
    """Return whether a process waits in a system call whose first argument is standard error (proc_pid_syscall(5))."""
    fields = Path(f"/proc/{pid}/syscall").read_text().split()
    return len(fields) > 1 and fields[1] == "0x2"
