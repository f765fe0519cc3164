"""The signals that end a run, which then writes its report: Ctrl-C, kill(1), and the loss of the terminal."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from viacheck.model.exit_status import STATUS_BY_SIGNAL

TERMINALS = ("/dev/pts/", "/dev/tty", "/dev/console")
"""The beginnings of terminals' names."""
Handler = Callable[[int, FrameType | None], object]


def handle_ending_signals(handler: Handler, *, interrupts: bool = True) -> Callable[[], None]:
    """Have a function called at each of these signals; return the function that puts back what was there.

    A signal that is ignored stays so: nohup(1) protects a program from the loss of its terminal.

    Args:
        handler: the function. Where the terminal is gone, what is written to it goes nowhere from then on.
        interrupts: also at SIGINT, for which Python raises KeyboardInterrupt otherwise.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _drop_lost_terminal()
        handler(number, frame)

    numbers = [getattr(signal, name) for name in STATUS_BY_SIGNAL if interrupts or name != "SIGINT"]
    before = {
        number: signal.signal(number, handle) for number in numbers if signal.getsignal(number) is not signal.SIG_IGN
    }

    def put_back() -> None:
        for number, previous in before.items():
            signal.signal(number, previous)

    return put_back


@contextlib.contextmanager
def ending_signals(handler: Handler) -> Iterator[None]:
    """Have a function called at each of these signals, for the time of a block."""
    put_back = handle_ending_signals(handler)
    try:
        yield
    finally:
        put_back()


def _drop_lost_terminal() -> None:
    """Lead every descriptor nowhere that a terminal was: each write to one that hung up is an error (EIO).

    pytest captures the standard streams, and writes to the terminal by a descriptor of its own.
    """
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            is_terminal = os.readlink(f"/proc/self/fd/{descriptor}").startswith(TERMINALS)
        except OSError:
            # The descriptor by which the folder was listed.
            continue
        try:
            if is_terminal:
                os.write(descriptor, b"")
        except OSError:
            os.dup2(nowhere, descriptor, os.get_inheritable(descriptor))
    os.close(nowhere)
