"""A clone of a whole host that takes one event after another: the host takes longer to boot than most events take.

Each event must leave the clone as it was: its egress, the links, addresses, rules, routes, packet filter and sysctls of
its network namespace, and the files that a boot reads. After any other event the next one gets a new clone. What an
event breaks on a clone that earlier events had is seen once more on a clone of its own, so that no event is blamed for
another one. A reboot ends the clone: what was changed and not written down is gone then, and a fault may be gone with
it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from viacheck.disruption.controls import EgressNotAsIntended
from viacheck.disruption.runner import HostUnderTest
from viacheck.host.snapshot_reader import network_state
from viacheck.model.diff import network_changes
from viacheck.model.lasting_state import lasting_network
from viacheck.model.measurements import DisruptionResult
from viacheck.model.namespace_state import NetworkState


@dataclass(frozen=True, slots=True)
class _CloneState:
    """What each event must leave as it was."""

    network: NetworkState
    files: Mapping[str, str]
    """What the next boot finds, see :meth:`viacheck.disruption.controls.PowerControl.files_for_next_boot`."""


class SharedClone:
    """The clone that events share, booted when the first of them begins; they happen to it in turn."""

    def __init__(self, clone: Callable[[], HostUnderTest]) -> None:
        """Boot nothing yet; ``clone`` returns a new clone with captures on it."""
        self._clone = clone
        self._in_turn = threading.Lock()
        self._host: HostUnderTest | None = None
        self._state: _CloneState | None = None
        """The clone's state before its first event; None when it could not be read in full."""

    def carry_out(
        self, run: Callable[[HostUnderTest], DisruptionResult], *, ends_clone: bool = False
    ) -> DisruptionResult:
        """Carry an event out, and return its result.

        Args:
            run: carries the event out on the clone.
            ends_clone: no event may happen to the clone after it.

        Raises:
            EgressNotAsIntended: the packets do not leave as intended before the event, on a new clone either.
            EventNotPossible: the event cannot be carried out.
        """
        with self._in_turn:
            if self._host is not None:
                try:
                    result = self._on_present_clone(self._host, run, ends_clone)
                except EgressNotAsIntended:
                    pass
                else:
                    if _broke_nothing(result):
                        return result
            host = self._clone()
            try:
                self._state = _state_of(host)
            except BaseException:
                host.close()
                raise
            return self._on_present_clone(host, run, ends_clone)

    def _on_present_clone(
        self, host: HostUnderTest, run: Callable[[HostUnderTest], DisruptionResult], ends_clone: bool
    ) -> DisruptionResult:
        """Carry an event out on a clone, and keep the clone if the event has left it as it was."""
        self._host = None
        try:
            result = run(host)
            if not ends_clone and _left_egress(result) and self._is_as_before(host):
                self._host = host
            return result
        finally:
            if self._host is None:
                host.close()

    def _is_as_before(self, host: HostUnderTest) -> bool:
        if self._state is None or (state := _state_of(host)) is None:
            return False
        return state.files == self._state.files and not network_changes(self._state.network, state.network)

    def close(self) -> None:
        """End the clone."""
        with self._in_turn:
            if self._host is not None:
                self._host.close()
                self._host = None


def _broke_nothing(result: DisruptionResult) -> bool:
    """Return whether the egress survived an event, with the same rules, routes and addresses in any order.

    A manager that adds its rules again, as at a boot, may add those of one priority in another order.
    """
    return result.survived(math.inf) and sorted(result.states[0].lines) == sorted(result.states[-1].lines)


def _left_egress(result: DisruptionResult) -> bool:
    """Return whether an event left rules, routes, addresses and flows of the egress as they were before it."""
    return result.survived(math.inf) and result.states[0].lines == result.states[-1].lines


def _state_of(host: HostUnderTest) -> _CloneState | None:
    """Return the state of a clone's host without names that are drawn; None when a part of it could not be read."""
    network, problems = network_state(host.target.host)
    if problems:
        return None
    power = host.target.services.power
    return _CloneState(lasting_network(network), power.files_for_next_boot() if power is not None else {})
