"""The process that puts a saved state back when the run that made the change cannot.

It is started before the change, in a session of its own, inside the network namespace, with the state in its memory. It
holds one end of a socket: the word ``end`` on it, its closing, the end of the run's process or the time limit make it
restore, whichever comes first. No signal that ends the run, and no lost terminal, reaches it.

    python -m viacheck.guard.watchdog STATE-FILE CHANNEL-FD RUN-PIDFD SECONDS
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time

from viacheck.atomic_file import write_file
from viacheck.guard.restore import Outcome, restore
from viacheck.guard.saved_state import FINISHED, OUTCOME, UNFINISHED, SavedState, load

ARMED, END = b"armed\n", b"end\n"
ENDED, GONE, LATE = "the run asked for it", "the run is gone", "the time limit has passed"
LINGER = 10
"""After the time limit a run that was only stopped may still go on; for this many limits more its end is awaited, and
the state put back once again."""

RUN_MARK = "VIACHECK_GUARDED_RUN"
"""Environment variable of every command that the run starts while it is guarded."""
_COMMANDS_BOUND = 10.0
"""Seconds that commands of a run that is gone are waited for; what lives longer was meant to stay (a DHCP client)."""

_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE, signal.SIGTSTP)


def main(argv: list[str]) -> int:
    """Wait and restore; returns 0 when the state is equal to the saved one, else 1."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    path, seconds = argv[0], float(argv[3])
    channel, run = socket.socket(fileno=int(argv[1])), int(argv[2])
    saved = load(path)
    _say(f"armed for {', '.join(saved.interfaces)}, {seconds:g} s")
    channel.sendall(ARMED)
    reason = _wait(channel, run, seconds)
    if reason == LATE:
        _restore(saved, path, LATE)
        reason = _wait(channel, run, LINGER * seconds)
        reason = LATE if reason == ENDED else reason
    outcome = _restore(saved, path, reason)
    if reason == GONE and _wait_for_commands(str(saved.boottime)):
        outcome = _restore(saved, path, "what the run had begun has ended")
    if outcome.equal:
        finish(path)
    try:
        channel.sendall(outcome.to_json().encode())
    except OSError:
        _say("nobody is there to be told")
    return 0 if outcome.equal else 1


def finish(path: str) -> None:
    """Mark a state as put back, so that no later run takes it for unfinished."""
    folder, name = os.path.split(path)
    if name == UNFINISHED:
        os.replace(path, os.path.join(folder, FINISHED))


def _wait(channel: socket.socket, run: int, seconds: float) -> str:
    """Wait for the end of the run, at most ``seconds``; says which end it was."""
    poll = select.poll()
    poll.register(channel, select.POLLIN | select.POLLHUP)
    if run >= 0:
        poll.register(run, select.POLLIN)
    ready = dict(poll.poll(seconds * 1000))
    if channel.fileno() in ready:
        try:
            return ENDED if channel.recv(len(END)) == END else GONE
        except OSError:
            return GONE
    return GONE if ready else LATE


def _wait_for_commands(mark: str) -> bool:
    """Wait for commands that outlive the run that started them; says whether there were any."""
    deadline, any_at_all = time.monotonic() + _COMMANDS_BOUND, False
    while (left := deadline - time.monotonic()) > 0 and (commands := _commands(mark)):
        any_at_all = True
        poll = select.poll()
        for pid in commands:
            with contextlib.suppress(OSError):
                poll.register(os.pidfd_open(pid), select.POLLIN)
        poll.poll(left * 1000)
    return any_at_all


def _commands(mark: str) -> list[int]:
    found, words = [], f"{RUN_MARK}={mark}".encode()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
            if words in file.read().split(b"\0"):
                found.append(int(name))
    return found


def _restore(saved: SavedState, path: str, reason: str) -> Outcome:
    _say(f"{reason}: restoring")
    try:
        outcome = restore(saved, reason)
    except OSError as error:
        outcome = Outcome(equal=False, difference=(f"the state cannot be read: {error.strerror}",), reason=reason)
    for line in (*outcome.actions, *(f"foreign {line}" for line in outcome.foreign), *outcome.difference):
        _say(line)
    _say(f"{'equal to the saved state' if outcome.equal else 'NOT EQUAL'} after {outcome.seconds:g} s")
    write_file(os.path.join(os.path.dirname(path), OUTCOME), outcome.to_json(), mode=0o600)
    return outcome


def _say(words: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {words}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
