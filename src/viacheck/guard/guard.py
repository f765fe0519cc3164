"""A change to a live host, guarded: whatever becomes of the change or of this process, the state is put back.

Nothing is changed before the state is saved and a watchdog is armed::

    with guard(namespace, ["wlan0"], timeout=30) as armed:
        ...  # take wlan0 down, and up again
    assert armed.outcome.equal, armed.outcome.difference
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from viacheck.guard.lock import Lock, NoStateDirectory, acquire, default_state_dir
from viacheck.guard.restore import RESTORE_BOUND, Outcome, restore
from viacheck.guard.saved_state import LOG, UNFINISHED, SavedState, save, take_state
from viacheck.guard.watchdog import ARMED, END, RUN_MARK, finish
from viacheck.host.namespace import Namespace
from viacheck.netlink.rtnetlink import RouteSocket

_ARMING_BOUND = 10.0
"""Seconds in which the watchdog must say that it is armed; it takes a tenth of one."""
_CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class GuardRefused(Exception):
    """The change must not be made, since it could not be undone; the message is one line that says why."""


@dataclass(slots=True)
class Armed:
    """A guard that watches.

    Attributes:
        state_file: the saved state, for ``./viacheck restore``.
        watchdog: process id of the watchdog.
        saved: the state that is put back.
        outcome: how that went; None until the guarded block has ended.
    """

    state_file: str
    watchdog: int
    saved: SavedState
    outcome: Outcome | None = None


@contextlib.contextmanager
def guard(
    namespace: Namespace,
    interfaces: Collection[str],
    *,
    timeout: float,
    tables: Collection[int] = (),
    state_dir: str | None = None,
    command: str | None = None,
) -> Iterator[Armed]:
    """Save a namespace's state, arm a watchdog, and put the state back when the block ends.

    Args:
        namespace: the host's.
        interfaces: what the change may touch; what is stacked on them is added.
        timeout: seconds after which the watchdog restores although the block has not ended.
        tables: routing tables that the change is about, besides those with a way by the interfaces.
        state_dir: where state, log and lock are kept; None for :func:`viacheck.guard.lock.default_state_dir`.
        command: what a second run is told about this one; None for this process's own command line.

    Raises:
        GuardRefused: when there is nothing to fall back on; nothing has been changed then.
        LockHeld: when another run is changing this host.
    """
    folder = state_dir or default_state_dir()
    words = command or shlex.join(sys.orig_argv)
    try:
        lock = acquire(folder, words)
    except NoStateDirectory as error:
        raise GuardRefused(f"no state can be saved: {error}") from None
    try:
        path = os.path.join(folder, UNFINISHED)
        if os.path.exists(path):
            raise GuardRefused(f"{path}: an earlier run was not put back; './viacheck restore' does it")
        saved = _read(namespace, interfaces, tables, words)
        watchdog = _arm(namespace, lock, saved, path, timeout)
        lock.tell(pid=os.getpid(), command=words, since=saved.saved, watchdog=watchdog.pid)
        armed = Armed(path, watchdog.pid, saved)
        try:
            # By this the watchdog knows the commands of a run that was killed before they ended.
            os.environ[RUN_MARK] = str(saved.boottime)
            yield armed
        finally:
            del os.environ[RUN_MARK]
            armed.outcome = watchdog.end() or _restore_here(namespace, saved, path)
    finally:
        lock.release()


def _read(namespace: Namespace, interfaces: Collection[str], tables: Collection[int], command: str) -> SavedState:
    def read() -> SavedState:
        with RouteSocket() as netlink:
            return take_state(netlink, interfaces, tables, command)

    try:
        saved = namespace.call(read)
    except OSError as error:
        raise GuardRefused(f"the state cannot be read: {error}") from None
    missing = set(interfaces) - {link.name for link in saved.links}
    if missing:
        raise GuardRefused(f"there is no interface {', '.join(sorted(missing))} whose state could be saved")
    return saved


def _arm(namespace: Namespace, lock: Lock, saved: SavedState, path: str, timeout: float) -> _Watchdog:
    try:
        save(saved, path)
        return _Watchdog(namespace, lock, path, timeout)
    except (OSError, NotArmed) as error:
        # Nothing was changed, so nothing is unfinished.
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise GuardRefused(f"the watchdog cannot be armed: {error}") from None


def _restore_here(namespace: Namespace, saved: SavedState, path: str) -> Outcome:
    """Do what the watchdog would have done, had it not been ended."""
    outcome = namespace.call(lambda: restore(saved, "the watchdog is gone"))
    if outcome.equal:
        finish(path)
    return outcome


class NotArmed(Exception):
    """The watchdog's process did not say that it watches."""


class _Watchdog:
    """The watchdog's process, seen from the run."""

    def __init__(self, namespace: Namespace, lock: Lock, path: str, timeout: float) -> None:
        """Start it, and wait until it watches.

        Raises:
            NotArmed: when it does not.
            OSError: when it cannot even be started.
        """
        log_path = os.path.join(os.path.dirname(path), LOG)
        self._channel, other = socket.socketpair()
        with other, _own_pidfd() as run, open(log_path, "ab") as log:
            # Only the standard library is needed, so neither site-packages nor the caller's folder is looked at.
            argv = [sys.executable, "-S", "-P", "-m", "viacheck.guard.watchdog", path]
            argv += [str(other.fileno()), str(run), str(timeout)]
            inherited = [other.fileno(), lock.fd, *([run] if run >= 0 else [])]
            # Started by the namespace's own thread, so that it lives in that namespace.
            self._process = namespace.call(lambda: _start(argv, inherited, log.fileno()))
        self.pid = self._process.pid
        self._channel.settimeout(_ARMING_BOUND)
        try:
            armed = self._channel.recv(len(ARMED), socket.MSG_WAITALL) == ARMED
        except OSError:
            armed = False
        if not armed:
            self._give_up()
            raise NotArmed(f"{log_path} says why")

    def end(self) -> Outcome | None:
        """Have it restore; returns how that went, or None when it is gone."""
        deadline = time.monotonic() + RESTORE_BOUND + _ARMING_BOUND
        told = b""
        try:
            self._channel.sendall(END)
            while True:
                self._channel.settimeout(max(0.001, deadline - time.monotonic()))
                part = self._channel.recv(1 << 16)
                if not part:
                    break
                told += part
            outcome = Outcome.from_json(told.decode())
        except (OSError, ValueError, KeyError, TypeError):
            # Two must not restore at once.
            self._give_up()
            return None
        self._process.wait()
        self._channel.close()
        return outcome

    def _give_up(self) -> None:
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
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONDONTWRITEBYTECODE") if name in os.environ}
    return {**kept, "PYTHONPATH": _CHECKOUT}


@contextlib.contextmanager
def _own_pidfd() -> Iterator[int]:
    """A descriptor that becomes readable when this process ends, also while a child still holds the channel open."""
    try:
        fd = os.pidfd_open(os.getpid())
    except OSError:
        # Before Linux 5.3 the channel's closing must do.
        yield -1
        return
    try:
        yield fd
    finally:
        os.close(fd)
