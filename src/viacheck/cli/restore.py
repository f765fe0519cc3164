"""``./viacheck restore``: finishes what a run and its watchdog left undone, from the state that they saved."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import NoReturn

from viacheck.guard.lock import LockHeld, NoStateDirectory, acquire, default_state_dir
from viacheck.guard.restore import restore
from viacheck.guard.saved_state import (
    FINISHED,
    UNFINISHED,
    NoSavedState,
    SavedState,
    current_boot,
    current_namespace,
    load,
)
from viacheck.guard.watchdog import finish

RESTORED, NOT_RESTORED, USAGE_ERROR = 0, 1, 4


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message}\n")


def main(argv: list[str]) -> int:
    """Restore; returns 0 when the state is as it was saved, 1 when not, 4 when there is nothing to restore from."""
    parser = _Arguments(prog="viacheck restore", description="Put this host's network back as it was before a run.")
    parser.add_argument("--state", metavar="FILE", help="the saved state (default: the one that a run left behind)")
    parser.add_argument("--forget", action="store_true", help="leave the network as it is, and drop the saved state")
    words = parser.parse_args(argv)
    folder = os.path.dirname(os.path.abspath(words.state)) if words.state else default_state_dir()
    path = words.state or os.path.join(folder, UNFINISHED)
    try:
        if not os.path.exists(path):
            return _nothing_unfinished(path, folder)
        lock = acquire(folder, "./viacheck restore")
    except LockHeld as error:
        sys.stderr.write(f"viacheck: {error}\n")
        return NOT_RESTORED
    except NoStateDirectory as error:
        sys.stderr.write(f"viacheck: {error}\n")
        return USAGE_ERROR
    try:
        if words.forget:
            os.unlink(path)
            sys.stdout.write(f"{path}: dropped; the network stays as it is\n")
            return RESTORED
        return _restore(path)
    except (NoSavedState, FileNotFoundError) as error:
        sys.stderr.write(f"viacheck: {error}\n")
        return USAGE_ERROR
    finally:
        lock.release()


def _nothing_unfinished(path: str, folder: str) -> int:
    with contextlib.suppress(NoSavedState):
        if os.path.basename(path) == UNFINISHED:
            done = load(os.path.join(folder, FINISHED))
            sys.stdout.write(f"nothing is unfinished: the state of {done.saved} was put back\n")
            return RESTORED
    sys.stderr.write(f"viacheck: {path}: there is no saved state\n")
    return USAGE_ERROR


def _restore(path: str) -> int:
    saved = _of_this_place(load(path), path)
    try:
        outcome = restore(saved, "asked for by hand")
    except OSError as error:
        sys.stderr.write(f"viacheck: the state cannot be read: {error.strerror}\n")
        return NOT_RESTORED
    told = [*outcome.actions, *(f"left alone, changed by others: {line}" for line in outcome.foreign)]
    sys.stdout.writelines(f"  {line}\n" for line in told)
    if outcome.equal:
        finish(path)
        sys.stdout.write(f"the network equals the state saved at {saved.saved}\n")
        return RESTORED
    sys.stdout.write(f"the network differs from the state saved at {saved.saved} ('--forget' leaves it so):\n")
    sys.stdout.writelines(f"  {line}\n" for line in outcome.difference)
    return NOT_RESTORED


def _of_this_place(saved: SavedState, path: str) -> SavedState:
    """See that a state is of this system's present run, and of this namespace.

    Raises:
        NoSavedState: when it is not.
    """
    if saved.boot_id != current_boot():
        raise NoSavedState(f"{path}: was saved at {saved.saved}, before this system's last start")
    if saved.namespace != current_namespace():
        raise NoSavedState(f"{path}: was saved in another network namespace, net:[{saved.namespace}]")
    return saved
