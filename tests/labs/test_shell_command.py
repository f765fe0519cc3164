"""``./viacheck shell``: where one is, what one can do there, and that the lab goes with the shell."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from netns_lab.docker_engine.requirements import missing_requirement
from tests.helpers.front_door import VIACHECK
from tests.helpers.namespaces import assert_nobody_holds, pinned

PATIENCE = 60.0
NO_ENGINE = missing_requirement()
CONNECT = "import socket; print(socket.create_connection(('198.51.100.1', 33434), 5).getsockname()[0])"


def words(*arguments: str) -> list[str]:
    return [*VIACHECK, "shell", *arguments]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "TERM": "dumb", **(more or {})}


def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words(*arguments), capture_output=True, text=True, check=False, timeout=PATIENCE, env=environment()
    )


def test_a_command_runs_on_the_labs_host() -> None:
    healthy, broken = shell("policy-routing", "ip", "rule"), shell("policy-routing+rule-missing", "ip", "rule")
    assert (healthy.returncode, broken.returncode) == (0, 0)
    assert "32765:\tfrom 172.17.0.0/16 lookup wlan0rt" in healthy.stdout
    assert "wlan0rt" not in broken.stdout
    assert (healthy.stderr, broken.stderr) == ("", "")


def test_a_commands_exit_status_is_the_shells() -> None:
    assert shell("nat", "sh", "-c", "exit 7").returncode == 7


def test_a_command_by_the_agent() -> None:
    done = shell("nat", "agent", sys.executable, "-c", CONNECT)
    assert (done.returncode, done.stdout) == (0, "172.17.0.2\n"), done.stderr


def test_a_command_in_quotes_is_a_line_for_the_shell() -> None:
    done = shell("nat", "agent ip -4 -o address show dev eth0 | wc -l; exit 7")
    assert (done.returncode, done.stdout) == (7, "1\n"), done.stderr


def test_what_is_written_in_the_lab_stays_there() -> None:
    mine, state = Path("/etc/viacheck-was-here"), Path("/var/lib/viacheck/was-here")
    line = f"echo lab | tee {mine} {state} && cat {mine} {state} && echo 300 x >>/etc/iproute2/rt_tables && ls /var/lib"
    beside = {path.name for path in Path("/var/lib").iterdir()}
    done = shell("nat", "sh", "-c", line)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("lab\n" * 3)
    assert beside <= set(done.stdout.splitlines()), "the folders beside its own are the machine's"
    assert not mine.exists()
    assert not state.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("polcy-routing",), "viacheck shell: --lab: unknown lab 'polcy-routing'; did you mean policy-routing or "),
        (
            ("nat+rule-missing",),
            "viacheck shell: --lab: fault 'rule-missing' does not belong to lab 'nat'; it ",
        ),
        (("nat,policy-routing",), "viacheck shell: takes one lab, not 2"),
        ((), "viacheck shell: the following arguments are required: LAB"),
        (("--map",), "viacheck shell: unknown option '--map'"),
    ],
)
def test_what_is_no_lab_is_refused_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    done = shell(*arguments)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


def test_a_command_that_does_not_exist_is_told_in_one_line() -> None:
    done = shell("nat", "no-such-program")
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr == "viacheck shell: no-such-program: No such file or directory\n"


class Terminal:
    """A shell at a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self._terminal, theirs = pty.openpty()
        self.process = subprocess.Popen(
            words(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=environment(),
            # Its controlling terminal, so that the interrupt key reaches what runs in it.
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
        )  # fmt: skip
        os.close(theirs)
        self.prompt = rf"\[viacheck {re.escape(arguments[0])} host\] [^\n]*# $"

    def type(self, text: str) -> None:
        """Type this."""
        os.write(self._terminal, text.encode())

    def read_until(self, pattern: str) -> str:
        """What is shown until it matches a pattern."""
        shown, deadline = "", time.monotonic() + PATIENCE
        while not re.search(pattern, shown):
            ready, _, _ = select.select([self._terminal], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"no {pattern!r} in:\n{shown}"
            shown += os.read(self._terminal, 4096).decode()
        return shown

    def close(self) -> None:
        """Hang up."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._terminal)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    one = Terminal("policy-routing+rule-missing")
    yield one
    one.close()


def test_a_shell_shows_a_map_and_says_where_one_is(terminal: Terminal) -> None:
    shown = terminal.read_until(terminal.prompt)
    assert "lab policy-routing+rule-missing: Policy routing exactly as in the guide" in shown
    for line in (
        r"eth0@if\d+ +UP +10\.10\.40\.9/24",
        r"docker0 +\w+ +172\.17\.0\.1/16",
        r"gateway by eth0: 10\.10\.40\.1\r\n",
        r"gateway by wlan0: 10\.10\.50\.1  <- the agent's packets must leave here",
        r"eth0@if\d+ +UP +172\.17\.0\.2/16",
        r"'agent CMD' runs CMD as the agent",
        r"the lab is removed when this shell ends",
    ):
        assert re.search(line, shown), f"{line}\n{shown}"


def test_a_session_at_a_terminal(terminal: Terminal) -> None:
    terminal.read_until(terminal.prompt)
    with pinned([str(terminal.process.pid)]) as held:
        assert held
        terminal.type("ip rule add priority 1000 from 172.17.0.0/16 lookup 200; ip rule\n")
        assert "from 172.17.0.0/16 lookup wlan0rt" in terminal.read_until(terminal.prompt)
        terminal.type("agent ip -br address\n")
        assert "172.17.0.2/16" in terminal.read_until(terminal.prompt)
        terminal.type("sh -c 'echo waits $((6 * 7)); exec cat'\n")
        terminal.read_until("waits 42")
        terminal.type("\x03")
        terminal.read_until(terminal.prompt)
        terminal.type("exit 3\n")
        assert terminal.process.wait(PATIENCE) == 3
        assert_nobody_holds(held, PATIENCE)


def test_the_lab_goes_when_the_terminal_hangs_up(terminal: Terminal) -> None:
    terminal.read_until(terminal.prompt)
    with pinned([str(terminal.process.pid)]) as held:
        assert held
        os.killpg(terminal.process.pid, signal.SIGHUP)
        terminal.process.wait(PATIENCE)
        assert_nobody_holds(held, PATIENCE)


@pytest.mark.skipif(NO_ENGINE is not None, reason=str(NO_ENGINE))
def test_an_engine_labs_shell_knows_its_engine() -> None:
    script = "echo $DOCKER_HOST; agent ip -br address show eth0"
    done = shell("engine:nat", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    address, agent = done.stdout.splitlines()
    assert address.startswith("unix://")
    assert "172.17.0.2/16" in agent
