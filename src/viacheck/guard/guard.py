"""A guarded change to a live host: the state is restored after the change, whatever becomes of it or of this process.

Nothing is changed before the state is saved and a watchdog is armed::

    with guard(namespace, ["wlan0"], timeout=30) as armed:
        ...  # set wlan0 down, and up again
    assert armed.result.equal, armed.result.difference
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from viacheck.guard.lock import Lock, NoStateDirectory, acquire, default_state_dir
from viacheck.guard.removals import RUN_MARK
from viacheck.guard.restore import RestoreResult, finish, restore, restore_timeout
from viacheck.guard.saved_state import UNFINISHED, SavedState, discard, save, take_state
from viacheck.guard.watchdog.handle import NotArmed, Watchdog
from viacheck.host.namespace import Namespace
from viacheck.netlink.rtnetlink import RouteSocket


class GuardRefused(Exception):
    """The change must not be made, because it could not be undone; the message is one line with the reason."""


@dataclass(slots=True)
class Armed:
    """A guard with an armed watchdog.

    Attributes:
        state_file: the saved state, for ``./viacheck restore``.
        watchdog: process id of the watchdog.
        saved: the state to restore.
        result: the result of the restore; None until the guarded block has ended.
    """

    state_file: str
    watchdog: int
    saved: SavedState
    result: RestoreResult | None = None


@contextlib.contextmanager
def guard(
    namespace: Namespace,
    interfaces: Collection[str],
    *,
    timeout: float,
    tables: Collection[int] = (),
    reconfigures: bool = True,
    state_dir: str | None = None,
    command: str | None = None,
) -> Iterator[Armed]:
    """Save a namespace's state, arm a watchdog, and restore the state when the block ends.

    Args:
        namespace: the host's.
        interfaces: the interfaces that the change may touch; those above them are added.
        timeout: seconds after which the watchdog restores the state although the block has not ended.
        tables: routing tables that the change is about, besides those with a route by the interfaces.
        reconfigures: the change runs a network manager, which adds and sets what its files say.
        state_dir: the folder for state, log and lock; None for :func:`viacheck.guard.lock.default_state_dir`.
        command: the command line of this run, which a second run reports; None for this process's own.

    Raises:
        GuardRefused: when the state cannot be saved or watched; nothing has been changed then.
        LockHeld: when another run is changing this host.
    """
    folder = state_dir or default_state_dir()
    command = command or shlex.join(sys.orig_argv)
    try:
        lock = acquire(folder, command)
    except NoStateDirectory as error:
        raise GuardRefused(f"no state can be saved: {error}") from None
    try:
        path = os.path.join(folder, UNFINISHED)
        if os.path.exists(path):
            raise GuardRefused(f"{path}: an earlier run was not undone; 'viacheck restore' does it")
        saved = _read(namespace, interfaces, tables, command, reconfigures)
        watchdog = _arm(namespace, lock, saved, path, timeout)
        lock.write_holder(pid=os.getpid(), command=command, since=saved.saved, watchdog=watchdog.pid)
        armed = Armed(path, watchdog.pid, saved)
        try:
            # The watchdog finds by this mark the commands of a run that was killed before they ended.
            os.environ[RUN_MARK] = str(saved.boottime)
            yield armed
        finally:
            del os.environ[RUN_MARK]
            armed.result = watchdog.end() or _restore_here(namespace, saved, path)
    finally:
        lock.release()


def _read(
    namespace: Namespace, interfaces: Collection[str], tables: Collection[int], command: str, reconfigures: bool
) -> SavedState:
    def read() -> SavedState:
        with RouteSocket() as netlink:
            return take_state(netlink, interfaces, tables, command, reconfigures=reconfigures)

    try:
        saved = namespace.call(read)
    except OSError as error:
        raise GuardRefused(f"the state cannot be read: {error}") from None
    missing = set(interfaces) - {link.name for link in saved.links}
    if missing:
        raise GuardRefused(f"there is no interface {', '.join(sorted(missing))} whose state could be saved")
    return saved


def _arm(namespace: Namespace, lock: Lock, saved: SavedState, path: str, timeout: float) -> Watchdog:
    try:
        save(saved, path)
        return Watchdog(namespace, lock.fd, path, timeout, restore_timeout(saved))
    except (OSError, NotArmed) as error:
        # Nothing was changed, so there is nothing to restore.
        discard(path)
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise GuardRefused(f"the watchdog cannot be armed: {reason}") from None


def _restore_here(namespace: Namespace, saved: SavedState, path: str) -> RestoreResult:
    """Restore the state in this process, after the watchdog's process was killed."""
    return finish(namespace.call(lambda: restore(saved, "the watchdog is gone")), path)
