"""An earlier run whose change of this host was not undone: any later run says so before anything else."""

from __future__ import annotations

import contextlib
import fcntl
import os

from viacheck.guard.lock import LOCK, default_state_dir


def pending_restore(state_dir: str | None = None) -> str | None:
    """Return in one line that this host was not restored, and how to do it; None when nothing is pending.

    While a run or its watchdog holds the lock, nothing is: that run restores the host itself.
    """
    folder = state_dir or default_state_dir()
    if not os.path.isdir(folder):
        return None
    # Imported here because it costs 150 ms, which a command on a host that was never changed does not need.
    from viacheck.guard.saved_state import UNFINISHED, NoSavedState, load

    path = os.path.join(folder, UNFINISHED)
    if not os.path.exists(path) or _locked(os.path.join(folder, LOCK)):
        return None
    try:
        saved = load(path)
    except NoSavedState as error:
        return f"an earlier run was not undone, and its state cannot be read: {error}"
    return (
        f"an earlier run that changed {', '.join(saved.interfaces)} was not undone: 'viacheck restore' restores the "
        f"state saved at {saved.saved}, 'viacheck restore --forget' leaves the network as it is"
    )


def _locked(path: str) -> bool:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
