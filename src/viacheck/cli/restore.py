"""``viacheck restore``: restores the network from the state that an interrupted run saved."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from viacheck.cli.command import CommandFailed
from viacheck.guard.lock import LockHeld, NoStateDirectory, acquire, default_state_dir
from viacheck.guard.network_state import boot_id, namespace_inode
from viacheck.guard.restore import finish, restore
from viacheck.guard.saved_state import FINISHED, UNFINISHED, NoSavedState, SavedState, load
from viacheck.model.exit_status import ExitStatus, UsageError
from viacheck.user_file import special_kind_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("--state", metavar="FILE", help="the saved state (default: the state that a run left behind)")
    parser.add_argument("--forget", action="store_true", help="leave the network as it is, and delete the saved state")


def run(options: argparse.Namespace) -> ExitStatus:
    """Restore the network; return OK when it equals the saved state, FAILED when it does not.

    Raises:
        UsageError: when there is no saved state of this host.
        CommandFailed: when another run holds the lock.
    """
    folder = os.path.dirname(os.path.abspath(options.state)) if options.state else default_state_dir()
    path = options.state or os.path.join(folder, UNFINISHED)
    if not os.path.exists(path):
        return _nothing_to_restore(path, folder)
    if (kind := special_kind_of(path)) is not None:
        raise UsageError(f"{path}: is {kind}, not a regular file")
    try:
        lock = acquire(folder, "viacheck restore")
    except LockHeld as error:
        raise CommandFailed(str(error)) from None
    except NoStateDirectory as error:
        raise UsageError(str(error)) from None
    try:
        if options.forget:
            if os.path.basename(path) != UNFINISHED:
                # Only a run's own file is deleted whatever is in it: a path that was mistyped names another file.
                load(path)
            os.unlink(path)
            sys.stdout.write(f"{path}: deleted; the network stays as it is\n")
            return ExitStatus.OK
        return _restore(path)
    except (NoSavedState, FileNotFoundError) as error:
        raise UsageError(str(error)) from None
    finally:
        lock.release()


def _nothing_to_restore(path: str, folder: str) -> ExitStatus:
    with contextlib.suppress(NoSavedState):
        if os.path.basename(path) == UNFINISHED:
            finished = load(os.path.join(folder, FINISHED))
            sys.stdout.write(f"nothing to restore; the last run already restored the state saved at {finished.saved}\n")
            return ExitStatus.OK
    raise UsageError(f"{path}: there is no saved state")


def _restore(path: str) -> ExitStatus:
    saved = _checked(load(path), path)
    result = finish(restore(saved, "started by hand"), path)
    repairs = [*result.actions, *(f"not touched: changed by something else: {line}" for line in result.foreign)]
    repairs += [f"restored, although something else may have set it: {line}" for line in result.unclear]
    sys.stdout.writelines(f"  {line}\n" for line in repairs)
    if result.equal:
        sys.stdout.write(f"the network equals the state saved at {saved.saved}\n")
        if result.unmarked:
            raise CommandFailed(f"{result.unmarked}: the saved state stays there")
        return ExitStatus.OK
    sys.stdout.write(f"the network differs from the state saved at {saved.saved} ('--forget' leaves it as it is):\n")
    sys.stdout.writelines(f"  {line}\n" for line in result.difference)
    return ExitStatus.FAILED


def _checked(saved: SavedState, path: str) -> SavedState:
    """Return a state that was saved since this system's start, in this namespace.

    Raises:
        NoSavedState: when it was not.
    """
    if saved.boot_id != boot_id():
        raise NoSavedState(f"{path}: was saved at {saved.saved}, before this system's last start")
    if saved.namespace != namespace_inode():
        raise NoSavedState(f"{path}: was saved in another network namespace, net:[{saved.namespace}]")
    return saved
