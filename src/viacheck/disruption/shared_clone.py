"""A clone of a whole host that takes one event after another: the host takes longer to boot than most events take.

Each event must leave the clone as it was: its egress, and the links, addresses, rules, routes, packet filter and
sysctls of its network namespace. After any other event the next one gets a new clone. What an event breaks on a clone
that earlier events had is seen once more on a clone of its own, so that no event is blamed for another one.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from viacheck.disruption.controls import EgressNotAsIntended
from viacheck.disruption.runner import HostUnderTest
from viacheck.host.snapshot_reader import network_state
from viacheck.model.diff import network_changes
from viacheck.model.lasting_state import lasting_network
from viacheck.model.measurements import DisruptionResult
from viacheck.model.snapshot import NetworkState


class SharedClone:
    """The clone that events share, booted when the first of them begins; they happen to it in turn."""

    def __init__(self, clone: Callable[[], HostUnderTest]) -> None:
        """Boot nothing yet; ``clone`` returns a new clone with captures on it."""
        self._clone = clone
        self._in_turn = threading.Lock()
        self._host: HostUnderTest | None = None
        self._state: NetworkState | None = None
        """The clone's state before its first event; None when it could not be read in full."""

    def carry_out(self, run: Callable[[HostUnderTest], DisruptionResult]) -> DisruptionResult:
        """Carry an event out, and return its result.

        Raises:
            EgressNotAsIntended: the packets do not leave as intended before the event, on a new clone either.
            EventNotPossible: the event cannot be carried out.
        """
        with self._in_turn:
            if self._host is not None:
                try:
                    result = self._on_present_clone(self._host, run)
                except EgressNotAsIntended:
                    pass
                else:
                    if _left_egress(result):
                        return result
            host = self._clone()
            try:
                self._state = _state_of(host)
            except BaseException:
                host.close()
                raise
            return self._on_present_clone(host, run)

    def _on_present_clone(
        self, host: HostUnderTest, run: Callable[[HostUnderTest], DisruptionResult]
    ) -> DisruptionResult:
        """Carry an event out on a clone, and keep the clone if the event has left it as it was."""
        self._host = None
        try:
            result = run(host)
            if _left_egress(result) and self._state is not None and self._is_as_before(host):
                self._host = host
            return result
        finally:
            if self._host is None:
                host.close()

    def _is_as_before(self, host: HostUnderTest) -> bool:
        state = _state_of(host)
        return state is not None and self._state is not None and not network_changes(self._state, state)

    def close(self) -> None:
        """End the clone."""
        with self._in_turn:
            if self._host is not None:
                self._host.close()
                self._host = None


def _left_egress(result: DisruptionResult) -> bool:
    """Return whether an event left rules, routes, addresses and flows of the egress as they were before it."""
    return result.survived(math.inf) and result.states[0].lines == result.states[-1].lines


def _state_of(host: HostUnderTest) -> NetworkState | None:
    """Return the state of a clone's host without names that are drawn; None when a part of it could not be read."""
    state, problems = network_state(host.target.host)
    return None if problems else lasting_network(state)
