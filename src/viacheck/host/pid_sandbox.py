"""A process namespace inside a lab's host: every process that is started in it ends with it, daemons included.

A process there cannot see or signal a process outside, and can write only to the lab's own files. The first process
reads from this one, so that the namespace ends with this process at the latest, SIGKILL included (pid_namespaces(7)).
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

STARTED_WITHIN = 20.0
ENDED_WITHIN, KILLED_WITHIN = 2.0, 20.0
OTHERS_REAP_WITHIN = 0.5
"""Seconds in which a thread that waits for an ended process has reaped it."""
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""The search path for programs there: the system's own folders, without those that a user puts before them."""
_READY = b"ready\n"
FIRST_PROCESS = ("sh", "-c", "echo ready; cat >/dev/null; exit 0")
"""A command that ends with its standard input. The shell waits for cat, and so for every orphan: a daemon that ended
does not stay as a zombie that looks alive. It is started in a process group of its own, as is every process that a lab
lives by: Ctrl-C at a terminal reaches the whole group, and the lab would be gone before the run that closes it."""


class PidSandboxFailed(Exception):
    """The system does not allow a sandbox; the message has its reason."""


class PidSandbox:
    """Processes that see only each other; a context manager that starts the namespace and ends it."""

    def __init__(self, host: Namespace, writable: Sequence[str]) -> None:
        """Prepare a sandbox without starting a process.

        Args:
            host: the namespace of a lab's host, whose network and files the processes share.
            writable: the host's private folders; a folder that is not a mount point stays read-only.
        """
        self._host, self._writable = host, writable
        self._first: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._killed = False

    def __enter__(self) -> PidSandbox:
        """Start the first process.

        Raises:
            PidSandboxFailed: when the system does not allow it.
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
                    argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    process_group=0,
                )
            )
        except OSError as error:
            raise PidSandboxFailed(f"unshare: {error.strerror}") from None
        line = read_line(self._first, STARTED_WITHIN)
        if line != _READY:
            end(self._first)
            raise PidSandboxFailed(line.decode(errors="replace").strip() or "unshare gave no answer")
        self._pid = child_of(self._first.pid)
        return self

    def _protect_files(self) -> None:
        """Make every mount read-only in the host's own mount namespace, except for the private mounts."""
        syscalls.mount_setattr("/", add=syscalls.MOUNT_ATTR_RDONLY, below=True)
        for path in filter(os.path.ismount, self._writable):
            syscalls.mount_setattr(path, clear=syscalls.MOUNT_ATTR_RDONLY)

    def __exit__(self, *_reason: object) -> None:
        """End every process."""
        assert self._first is not None
        end(self._first)

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        """Run a command there, without this process's environment.

        A command that does not exist has the exit code 127. A command that takes longer than ``timeout`` seconds has
        124, and every process of the namespace is killed with it, because its children could hold its streams open.
        """
        inside = ["nsenter", "--target", str(self._pid), "--mount", "--uts", "--ipc", "--pid"]
        command = [*inside, "env", "--ignore-environment", f"PATH={PATH}", *argv]
        process = self._host.call(lambda: start(command))
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
    """Return the next line that a process prints; empty when none arrives within ``timeout`` seconds."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline() if selector.select(timeout) else b""


def child_of(pid: int) -> int:
    """Return the only child of unshare(1) or nsenter(1), which wait for it outside of the process namespace."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


def namespace_of(pid: int | str) -> str | None:
    """Return the name of a process's process namespace, also of a zombie; None when the process is gone."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


def _reap(namespace: str) -> None:
    """Reap this process's own children that ended in a process namespace."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            for pid in (task / "children").read_text().split():
                if namespace_of(pid) == namespace:
                    os.waitpid(int(pid), os.WNOHANG)


def end(first: subprocess.Popen[bytes], timeout: float = KILLED_WITHIN, *, namespace: str | None = None) -> None:
    """End a process namespace. Its first process ends only after the kernel has ended all others in it.

    The kernel waits until each of them was reaped (pid_namespaces(7)), and an interrupt may have ended the thread that
    waited for a command.

    Args:
        first: the parent of the first process, which ends with its standard input.
        timeout: seconds that the end may take after the parent is killed.
        namespace: the namespace, where it has children of this process, which are then reaped.

    Raises:
        subprocess.TimeoutExpired: when the end takes longer.
    """
    assert first.stdin is not None
    assert first.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        first.stdin.close()
    try:
        if namespace is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                first.wait(OTHERS_REAP_WITHIN)
            if first.poll() is None:
                _reap(namespace)
        first.wait(ENDED_WITHIN)
    except subprocess.TimeoutExpired:
        first.kill()
        first.wait(timeout)
    first.stdout.close()
