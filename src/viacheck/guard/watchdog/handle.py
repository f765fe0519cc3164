"""The watchdog as the run sees it: start the process, and ask it for the restore."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import viacheck
from viacheck.guard.restore import RestoreResult
from viacheck.guard.saved_state import LOG
from viacheck.guard.watchdog import process
from viacheck.guard.watchdog.fork_events import fork_events

_ARMING_TIMEOUT = 10.0
"""Seconds in which the watchdog must report that it is armed; it takes a tenth of a second."""
_PACKAGES = os.path.dirname(os.path.dirname(os.path.abspath(viacheck.__file__)))
"""The folder that the watchdog imports this package from."""
T = TypeVar("T")


class ThreadInNamespace(Protocol):
    """A network namespace that can call a function in a thread of its own."""

    def call(self, function: Callable[[], T]) -> T:
        """Return what the function returns inside the namespace."""


class NotArmed(Exception):
    """The watchdog's process did not report that it is armed."""


class Watchdog:
    """The watchdog's process, started by the run."""

    def __init__(
        self, namespace: ThreadInNamespace, lock_fd: int, path: str, timeout: float, restore_timeout: float
    ) -> None:
        """Start the process, and wait until it is armed.

        Args:
            namespace: the namespace to restore.
            lock_fd: the run's lock, which the process then holds too.
            path: the saved state.
            timeout: seconds after which the process restores the state although the run has not ended.
            restore_timeout: seconds that a restore may take.

        Raises:
            NotArmed: when the process does not report that it is armed.
            OSError: when it cannot be started.
        """
        self._restore_timeout = restore_timeout
        log_path = os.path.join(os.path.dirname(path), LOG)
        self._channel, other = socket.socketpair()
        with other, _own_pidfd() as run, fork_events() as forks, open(log_path, "ab") as log:
            # The standard library is enough, so neither site-packages nor the caller's folder is searched.
            argv = [sys.executable, "-S", "-P", "-m", process.__name__, path]
            argv += [str(other.fileno()), str(run), str(forks), str(timeout)]
            inherited = [other.fileno(), lock_fd, *(descriptor for descriptor in (run, forks) if descriptor >= 0)]
            # The namespace's own thread starts it, so that it runs in that namespace.
            self._process = namespace.call(lambda: _start(argv, inherited, log.fileno()))
        self.pid = self._process.pid
        self._channel.settimeout(_ARMING_TIMEOUT)
        try:
            armed = self._channel.recv(len(process.ARMED), socket.MSG_WAITALL) == process.ARMED
        except OSError:
            armed = False
        if not armed:
            self._kill()
            raise NotArmed(f"{log_path} says why")

    def end(self) -> RestoreResult | None:
        """Make the watchdog restore the state; return the result, or None when its process is gone."""
        deadline = time.monotonic() + self._restore_timeout + _ARMING_TIMEOUT
        answer = b""
        try:
            self._channel.sendall(process.END)
            while True:
                self._channel.settimeout(max(0.001, deadline - time.monotonic()))
                part = self._channel.recv(1 << 16)
                if not part:
                    break
                answer += part
            result = RestoreResult.from_json(answer.decode())
        except (OSError, ValueError, KeyError, TypeError):
            # Two processes must not restore at the same time.
            self._kill()
            return None
        self._process.wait()
        self._channel.close()
        return result

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._channel.close()


def _start(argv: list[str], inherited: list[int], log: int) -> subprocess.Popen[bytes]:
    nothing = subprocess.DEVNULL
    return subprocess.Popen(
        argv, env=_environment(), cwd="/", start_new_session=True, pass_fds=inherited,
        stdin=nothing, stdout=nothing, stderr=log,
    )  # fmt: skip


def _environment() -> dict[str, str]:
    names = ("PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
    return {**{name: os.environ[name] for name in names if name in os.environ}, "PYTHONPATH": _PACKAGES}


@contextlib.contextmanager
def _own_pidfd() -> Iterator[int]:
    """Open a descriptor that becomes readable when this process ends, also while a child still holds the channel."""
    try:
        fd = os.pidfd_open(os.getpid())
    except OSError:
        # Before Linux 5.3 only the closing of the channel shows it.
        yield -1
        return
    try:
        yield fd
    finally:
        os.close(fd)
