"""The watchdog's process, which outlives the run and restores the state.

The run starts it before the change, in its own session, inside the network namespace, with the state in its memory. It
holds one end of a socket. It restores the state when the word ``end`` arrives on the socket, when the socket closes,
when the run's process ends, or when the time limit passes, whichever comes first. No signal that ends the run, and no
lost terminal, reaches it.

    python -m viacheck.guard.watchdog.process STATE-FILE CHANNEL-FD RUN-PIDFD FORK-EVENTS-FD SECONDS
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
from viacheck.guard.process_ancestry import ProcessAncestry
from viacheck.guard.removals import RUN_MARK, RemovalListener
from viacheck.guard.restore import RestoreResult, finish, restore
from viacheck.guard.saved_state import MODE, OUTCOME, SavedState, load

ARMED, END = b"armed\n", b"end\n"
RUN_ENDED, RUN_GONE, TIMED_OUT = "the run ended", "the run is gone", "the time limit has passed"
LINGER = 10
"""After the time limit a run that was only stopped may continue. Its end is awaited for this many limits more, and the
state is restored once again."""

_COMMANDS_TIMEOUT = 10.0
"""Seconds for the commands of a run that is gone; a command that lives longer was meant to stay (a DHCP client)."""

_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE, signal.SIGTSTP)


def main(argv: list[str]) -> int:
    """Wait and restore; return 0 when the state equals the saved state, else 1."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    path, seconds = argv[0], float(argv[4])
    channel, run = socket.socket(fileno=int(argv[1])), int(argv[2])
    saved, ancestry = load(path), ProcessAncestry(int(argv[3]))
    listener = RemovalListener(os.getppid(), ancestry)
    _log(f"armed for {', '.join(saved.interfaces)}, {seconds:g} s")
    channel.sendall(ARMED)
    reason = _wait(channel, run, seconds, listener)
    if reason == TIMED_OUT:
        _restore(saved, path, TIMED_OUT, listener)
        reason = _wait(channel, run, LINGER * seconds, listener)
        reason = TIMED_OUT if reason == RUN_ENDED else reason
    mark = str(saved.boottime)
    # One that ends while the state is restored may change what was just compared.
    any_before = reason == RUN_GONE and bool(_commands(mark))
    result = _restore(saved, path, reason, listener)
    if reason == RUN_GONE and (_wait_for_commands(mark) or any_before):
        result = _restore(saved, path, "the commands of the run have ended", listener)
    ancestry.close()
    result = finish(result, path)
    if result.unmarked:
        _log(f"restored, but not marked as restored: {result.unmarked}")
    try:
        channel.sendall(result.to_json().encode())
    except OSError:
        _log("the run does not wait for the result")
    return 0 if result.equal else 1


def _wait(channel: socket.socket, run: int, seconds: float, listener: RemovalListener) -> str:
    """Wait for the end of the run, at most ``seconds``; return the reason to restore."""
    poll, deadline = select.poll(), time.monotonic() + seconds
    poll.register(channel, select.POLLIN | select.POLLHUP)
    for descriptor in listener.descriptors:
        poll.register(descriptor, select.POLLIN)
    if run >= 0:
        poll.register(run, select.POLLIN)
    while True:
        ready = dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
        announced = [ready.pop(descriptor) for descriptor in listener.descriptors if descriptor in ready]
        if not announced or ready:
            break
        listener.read()
    if channel.fileno() in ready:
        try:
            return RUN_ENDED if channel.recv(len(END)) == END else RUN_GONE
        except OSError:
            return RUN_GONE
    return RUN_GONE if ready else TIMED_OUT


def _wait_for_commands(mark: str) -> bool:
    """Wait for the commands that outlive the run that started them; return whether there were any."""
    deadline, any_commands = time.monotonic() + _COMMANDS_TIMEOUT, False
    while (remaining := deadline - time.monotonic()) > 0 and (commands := _commands(mark)):
        any_commands = True
        poll = select.poll()
        for pid in commands:
            with contextlib.suppress(OSError):
                poll.register(os.pidfd_open(pid), select.POLLIN)
        poll.poll(remaining * 1000)
    return any_commands


def _commands(mark: str) -> list[int]:
    """Return the processes that have the run's mark in their environment."""
    pids, variable = [], f"{RUN_MARK}={mark}".encode()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
            if variable in file.read().split(b"\0"):
                pids.append(int(name))
    return pids


def _restore(saved: SavedState, path: str, reason: str, listener: RemovalListener) -> RestoreResult:
    _log(f"{reason}: restoring")
    result = restore(saved, reason, listener.removals({link.index: link.name for link in saved.links}))
    listener.forget()
    foreign = (f"foreign {line}" for line in (*result.foreign, *result.unclear))
    for line in (*result.actions, *foreign, *result.difference):
        _log(line)
    _log(f"{'equal to the saved state' if result.equal else 'NOT EQUAL'} after {result.seconds:g} s")
    try:
        write_file(os.path.join(os.path.dirname(path), OUTCOME), result.to_json(), mode=MODE)
    except OSError as error:
        _log(f"{error.filename}: {error.strerror}")
    return result


def _log(text: str) -> None:
    # A disk that is full or read-only by now ends the log, but must not end the restore.
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), f"{time.strftime('%H:%M:%S')} {text}\n".encode(errors="backslashreplace"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
