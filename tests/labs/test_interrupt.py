"""A run that is cut short says what was judged until then, and leaves nothing: no process, no namespace."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_lab.docker_engine.requirements import missing_requirement
from reports.report_files import read_outcome
from tests.helpers.front_door import VIACHECK, command
from tests.helpers.namespaces import holders, pinned
from tests.helpers.terminal import at_a_terminal
from viacheck.model.result import RunResult

LABS = "nat,nat-multihomed,policy-routing,policy-routing-networkd"
ENDS_WITHIN = 120.0
"""Seconds that a busy machine may need to close the labs and to write the report."""
ANSWERED_WITHIN = 20.0
"""Seconds after its start until which a run is over that was interrupted in its first two seconds."""
GONE_WITHIN = 30.0
"""Seconds after which what should be gone is a leftover."""
MARK = "VIACHECK_TEST_RUN"
NO_ENGINE = missing_requirement()
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
INTERRUPT_KEY = "\x03"
WORKERS = pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "two workers"])


class Started:
    """A run that was started, marked so that whatever comes from it can be told."""

    def __init__(self, report_dir: Path, *arguments: str) -> None:
        self.report_dir = report_dir
        self.mark = f"{MARK}={uuid.uuid4()}".encode()
        name, _, value = self.mark.decode().partition("=")
        self.process = subprocess.Popen(
            [*command(*arguments), "--report-dir", str(report_dir)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, name: value},
            start_new_session=True,
        )  # fmt: skip
        self.said = ""
        self._pins = contextlib.ExitStack()

    def wait_for(self, start: str) -> None:
        """Read until a line begins so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if line.startswith(start):
                return
        pytest.fail(f"no line begins with {start!r}:\n{self.said}")

    def interrupt(self, number: int, *, everybody: bool = False) -> set[str]:
        """Send a signal, to all of its processes as a terminal does or to the first alone, and wait for the end.

        Returns the namespaces that the run had held before.
        """
        held = self._pins.enter_context(pinned(self._processes()))
        assert held, self.said
        if everybody:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        assert self.process.stdout is not None
        self._read_until_it_ends(self.process.stdout.fileno())
        return held

    def _read_until_it_ends(self, stream: int) -> None:
        """Not communicate(): a leftover that holds the pipe open is to be found, not waited for."""
        deadline = time.monotonic() + ENDS_WITHIN
        end = os.pidfd_open(self.process.pid)
        try:
            while True:
                ready, _, _ = select.select([stream, end], [], [], max(0.0, deadline - time.monotonic()))
                text = os.read(stream, 1 << 16).decode() if stream in ready else ""
                self.said += text
                if not text:
                    break
        finally:
            os.close(end)
        self.process.wait(max(0.0, deadline - time.monotonic()))

    def _processes(self) -> Iterator[str]:
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if self.mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    yield name

    def leftovers(self, held: set[str]) -> list[str]:
        """Its processes, and whoever still holds one of its namespaces."""
        return [f"process {pid}" for pid in self._processes()] + holders(held)

    def forget(self) -> None:
        """Let the namespaces go that :meth:`interrupt` pinned."""
        self._pins.close()

    @property
    def outcome(self) -> RunResult:
        """Its result.json."""
        return read_outcome(self.report_dir / "result.json")


def nothing_is_left(run: Started, held: set[str]) -> None:
    deadline = time.monotonic() + GONE_WITHIN
    try:
        while left := run.leftovers(held):
            assert time.monotonic() < deadline, left
            time.sleep(0.01)
    finally:
        run.forget()


@WORKERS
@pytest.mark.parametrize(("number", "status"), SIGNALS, ids=["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_run_that_is_cut_short_tells_what_it_knows(
    number: signal.Signals, status: int, workers: tuple[str, ...], tmp_path: Path
) -> None:
    run = Started(tmp_path / "report", "-v", "--lab", LABS, *workers)
    run.wait_for("HOST-02")
    nothing_is_left(run, run.interrupt(number))
    assert run.process.returncode == status, run.said
    assert run.outcome.run.interrupted == number.name
    judged = {result.check for result in run.outcome.results}
    assert "HOST-02" in judged
    assert "inconclusive" in {target.verdict for target in run.outcome.targets}
    assert {target.id for target in run.outcome.targets} >= {result.target for result in run.outcome.results}
    assert f"This run was interrupted by {number.name}" in run.said
    assert re.search(rf"note: the run was interrupted by {number.name}: [1-9]\d* checks? not judged\n", run.said)
    assert "!!!" not in run.said
    assert f"report: {tmp_path / 'report' / 'report.html'}\n" in run.said
    assert number.name in (tmp_path / "report" / "report.html").read_text()
    if not workers:
        targets = {result.target for result in run.outcome.results}
        assert targets < {f"lab:{name}" for name in LABS.split(",")}
        assert len(run.outcome.targets) == len(targets)


@WORKERS
def test_what_a_terminals_interrupt_key_does(workers: tuple[str, ...], tmp_path: Path) -> None:
    run = Started(tmp_path / "report", "-v", "--lab", LABS, *workers)
    run.wait_for("HOST-02")
    nothing_is_left(run, run.interrupt(signal.SIGINT, everybody=True))
    assert run.process.returncode == 130, run.said
    assert "This run was interrupted by SIGINT" in run.said
    assert "Traceback" not in run.said


@pytest.mark.parametrize(
    ("prompt", "after"), [("", 0.2), ("", 0.4), ("collecting", 0), *[(" of ", n / 8) for n in range(8)]]
)
def test_the_interrupt_key_is_answered_at_any_moment(prompt: str, after: float, tmp_path: Path) -> None:
    """A lab with a network manager: the processes that it lives by are at the same terminal."""
    argv = [*VIACHECK, "--lab", "policy-routing-networkd", "--report-dir", str(tmp_path / "report")]
    begun = time.monotonic()
    status, said = at_a_terminal(argv, prompt, INTERRUPT_KEY, after=after)
    # What the interrupt has left behind was waited for, for 22 s, or for ever.
    assert time.monotonic() - begun < ANSWERED_WITHIN
    if status == -signal.SIGINT and not prompt:
        # A busy machine: Python itself was still starting, and no line of this program had run.
        assert "main.py" not in said, said
        return
    assert status == 130, said
    assert "Traceback" not in said
    assert re.search(r"viacheck: interrupted\r\n|interrupted by SIGINT", said), said
    assert (tmp_path / "report" / "report.html").exists() == ("report: " in said)


def test_a_lost_terminal_leaves_a_report(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    argv = [*VIACHECK, "--lab", "nat,policy-routing", "--report-dir", str(tmp_path / "report")]
    process = subprocess.Popen(["setsid", "--ctty", "--wait", *argv], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    while b" of " not in said:
        said += os.read(ours, 1 << 16)
    os.close(ours)
    assert process.wait(ENDS_WITHIN) == 129
    assert read_outcome(tmp_path / "report" / "result.json").run.interrupted == "SIGHUP"


@WORKERS
def test_nothing_stays_after_sigkill(workers: tuple[str, ...], tmp_path: Path) -> None:
    run = Started(tmp_path / "report", "-v", "--lab", LABS, *workers)
    run.wait_for("HOST-02")
    nothing_is_left(run, run.interrupt(signal.SIGKILL))
    assert run.process.returncode == -signal.SIGKILL


@pytest.mark.skipif(NO_ENGINE is not None, reason=str(NO_ENGINE))
@pytest.mark.parametrize(("number", "status"), [*SIGNALS[:2], (signal.SIGKILL, -signal.SIGKILL)])
def test_an_engine_ends_with_its_run(number: signal.Signals, status: int, tmp_path: Path) -> None:
    run = Started(tmp_path / "report", "-v", "--lab", "engine:policy-routing")
    run.wait_for("HOST-02")
    nothing_is_left(run, run.interrupt(number))
    assert run.process.returncode == status, run.said
