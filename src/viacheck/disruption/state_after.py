"""The state of the host after an event, read again when the kernel announces a change, or after a while."""

from __future__ import annotations

import time
from collections.abc import Callable

from viacheck.model.egress_changes import EgressState

READ_AGAIN_TICKS = 50
"""Ticks after which rules and routes that are not as before the event are read again, although no change was announced:
the host's kernel announces none of the agent's namespace."""


class StateAfter:
    """The last state that was read since the packets had recovered.

    Attributes:
        first_read_at: the tick of the stream at which a state was read first.
    """

    def __init__(self, read: Callable[[], EgressState]) -> None:
        """Read nothing yet; ``read`` returns the state of the moment."""
        self._read = read
        self._state: EgressState | None = None
        self._read_at = self._read_ns = self.first_read_at = 0

    @property
    def was_read(self) -> bool:
        """Whether a state was read by now."""
        return self._state is not None

    def at(self, tick: int, *, announced_ns: int) -> EgressState:
        """Return the state at a tick of the stream; the kernel announced its last change at ``announced_ns``."""
        if self._state is None:
            self.first_read_at = tick
        if self._state is None or announced_ns > self._read_ns or tick >= self._read_at + READ_AGAIN_TICKS:
            # Before it is read: a change meanwhile has it read once more.
            self._read_at, self._read_ns = tick, time.time_ns()
            self._state = self._read()
        return self._state

    def last(self, enough: Callable[[EgressState], bool]) -> EgressState:
        """Return the state at the end: the last one that was read if it is enough, or that of this moment."""
        return self._state if self._state is not None and enough(self._state) else self._read()
