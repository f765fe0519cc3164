"""A process namespace inside a lab's host: whatever is started in it ends with it, daemons included.

What runs there sees, and can signal, no process outside, and can write to no file that is not the lab's own. As its
first process reads from this one, it ends at the latest when this process does, SIGKILL included (pid_namespaces(7)).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import selectors
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from viacheck.host import syscalls
from viacheck.host.command import TIMED_OUT, CommandResult, finish, start
from viacheck.host.namespace import Namespace

STARTED_WITHIN = 5.0
ENDED_WITHIN, KILLED_WITHIN = 2.0, 20.0
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for there: the system's own, and none that somebody has put before them."""
_READY = b"ready\n"
FIRST_PROCESS = ("sh", "-c", "echo ready; cat >/dev/null; exit 0")
"""What ends with its standard input. The shell waits for cat, and so for every orphan: a daemon that was ended is gone,
not a zombie that looks alive."""


class PidSandboxFailed(Exception):
    """The system forbids it; the message says what was said."""


class PidSandbox:
    """Processes that see only one another. Made by entering it, ended by leaving it."""

    def __init__(self, host: Namespace, writable: Sequence[str]) -> None:
        """Nothing is started yet.

        Args:
            host: a lab's, whose network and files the processes have.
            writable: its private folders; where nothing is mounted on one, it stays as it is.
        """
        self._host, self._writable = host, writable
        self._first: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._killed = False

    def __enter__(self) -> PidSandbox:
        """Start the first process.

        Raises:
            NoProcessSpace: when there can be none.
        """
        try:
            self._host.call(self._protect_files)
        except OSError as error:
            raise PidSandboxFailed(f"the machine's files cannot be protected: {error}") from None
        argv = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        argv += FIRST_PROCESS
        try:
            self._first = self._host.call(
                lambda: subprocess.Popen(
                    argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
                )
            )
        except OSError as error:
            raise PidSandboxFailed(f"unshare: {error.strerror}") from None
        said = read_line(self._first, STARTED_WITHIN)
        if said != _READY:
            end(self._first)
            raise PidSandboxFailed(said.decode(errors="replace").strip() or "unshare gave no answer")
        self._pid = child_of(self._first.pid)
        return self

    def _protect_files(self) -> None:
        """Make every mount read-only in the host's own mount namespace, but for the private ones."""
        syscalls.mount_setattr("/", add=syscalls.MOUNT_ATTR_RDONLY, below=True)
        for path in filter(os.path.ismount, self._writable):
            syscalls.mount_setattr(path, clear=syscalls.MOUNT_ATTR_RDONLY)

    def __exit__(self, *_reason: object) -> None:
        """End every process."""
        assert self._first is not None
        end(self._first)

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        """Run a command there, with nothing of this process's environment.

        One that does not exist is told as exit code 127. One that takes longer than ``timeout`` seconds is told as 124,
        and every process of the namespace has ended then: killed alone, it could leave others that hold its streams.
        """
        inside = ["nsenter", "--target", str(self._pid), "--mount", "--uts", "--ipc", "--pid"]
        words = [*inside, "env", "--ignore-environment", f"PATH={PATH}", *argv]
        process = self._host.call(lambda: start(words))
        watchdog = threading.Timer(timeout, self._kill)
        watchdog.start()
        try:
            result = finish(argv, process, timeout + ENDED_WITHIN)
        finally:
            watchdog.cancel()
        return dataclasses.replace(result, exit_code=TIMED_OUT) if self._killed else result

    def _kill(self) -> None:
        assert self._first is not None
        self._killed = True
        self._first.kill()


def read_line(process: subprocess.Popen[bytes], timeout: float) -> bytes:
    """The next line that a process says; empty when none comes within ``timeout`` seconds."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline() if selector.select(timeout) else b""


def child_of(pid: int) -> int:
    """The only child of unshare(1) or nsenter(1), which stay outside of the process namespace and wait for it."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


def end(first: subprocess.Popen[bytes], timeout: float = KILLED_WITHIN) -> None:
    """End a process namespace. Its first process is gone only after the kernel has ended all others in it.

    Args:
        first: what the first process is the child of; it ends with its standard input.
        timeout: seconds that its end may take after it was killed.

    Raises:
        subprocess.TimeoutExpired: when it takes longer.
    """
    assert first.stdin is not None
    assert first.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        first.stdin.close()
    try:
        first.wait(ENDED_WITHIN)
    except subprocess.TimeoutExpired:
        first.kill()
        first.wait(timeout)
    first.stdout.close()
