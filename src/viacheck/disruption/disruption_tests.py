"""The disruption tests of a target: each event is carried out once, while the agent's packets are watched.

A lab that is judged is never touched: each event happens to a clone of it, which is thrown away. On a live host a guard
restores the state after the event.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from viacheck.disruption.controls import (
    DisruptionTarget,
    Disturbance,
    EgressNotAsIntended,
    Event,
    EventContext,
    EventDisturbed,
    EventNotApplicable,
    EventNotPossible,
    Guard,
    NoClone,
    NoGuard,
)
from viacheck.disruption.event_registry import event_for
from viacheck.disruption.events import REBOOT, Reboot
from viacheck.disruption.runner import DisruptionRun, HostUnderTest
from viacheck.disruption.shared_clone import SharedClone
from viacheck.disruption.shared_events import Follower, FollowerResult, SharedResults, made_once
from viacheck.model.intent import SIDE_EVENTS
from viacheck.model.intent_values import seconds
from viacheck.model.measurements import DisruptionResult, EventName, EventNotRun, EventObstacle
from viacheck.packets.capture import Watch
from viacheck.packets.tokens import TokenSpace

AT_ONCE = 3
"""Events that happen beside each other, each to a clone of its own: they wait for most of their time."""
SIDE_BY_SIDE = ("netns", "engine", "host")
"""Flavours of labs of which several clones run at once; a virtual machine takes too much memory."""
CLONES_OF_THEIR_OWN: tuple[EventName, ...] = ("netplan-apply", "dhcp-renew", "address-change")
"""The events of a whole host that share no clone: netplan adds rules of one priority in another order, and the others
give the host another router or address."""
FIRST_ON_CLONE: tuple[EventName, ...] = ("networkd-reload",)
"""The events that come before all others on the clone that events share: a reload shows what changed in files that are
not read yet, and a restart of the same program reads them."""
LAST_ON_CLONE: tuple[EventName, ...] = ("rename", "device-change", REBOOT)
"""The events that come after all others on that clone, in this order: the first two give the uplink another name and
device, and a reboot ends what was changed and not written down."""
WHOLE_HOSTS_AT_ONCE = 1
"""Of the events with a clone of their own: a whole host takes much memory, and the clone that events share runs too."""
_OBSTACLES = {
    EventNotApplicable: EventObstacle.NOT_APPLICABLE,
    EventNotPossible: EventObstacle.NOT_POSSIBLE,
    EgressNotAsIntended: EventObstacle.EGRESS_NOT_AS_INTENDED,
    EventDisturbed: EventObstacle.DISTURBED,
    NoClone: EventObstacle.NO_CLONE,
}


class Peers(Protocol):
    """The other agents of a live host, as far as their events are this agent's."""

    @property
    def agent(self) -> str:
        """Return the name of the agent that is judged."""

    @property
    def shared(self) -> SharedResults:
        """Return the results that other agents' events gave."""

    def concerned_by(self, event: str) -> Sequence[tuple[str, DisruptionTarget]]:
        """Open the other agents that an event of this agent concerns, by name; the caller closes them."""


class DisruptionTests:
    """The disruption tests of one target, each carried out when it is first asked for.

    Attributes:
        target: the target that is judged.
        results: the results so far, by the event's name.
    """

    def __init__(
        self,
        target: DisruptionTarget,
        guard: Guard | None = None,
        peers: Peers | None = None,
    ) -> None:
        """Carry out nothing yet.

        Args:
            target: the target that is judged.
            guard: restores a live host.
            peers: the other agents of a live host.
        """
        self.target, self._peers = target, peers
        self._guard: Guard = guard or NoGuard()
        self.results: dict[str, DisruptionResult] = {}
        self._not_run: dict[str, EventNotRun] = {}
        self._shared_clone = SharedClone(lambda: self._watched(self._clone()))
        self._expected: tuple[EventName, ...] = ()
        self._begun: dict[EventName, Future[DisruptionResult]] = {}
        for name, result in (peers.shared.of(peers.agent) if peers is not None else {}).items():
            if isinstance(result, EventNotRun):
                self._not_run[name] = result
            else:
                self.results[name] = result

    def expect(self, events: Iterable[EventName]) -> None:
        """Say which events checks will ask for: in a lab all of them begin with the first, beside each other."""
        if self.target.services.clone is not None and self.target.flavour in SIDE_BY_SIDE:
            self._expected = tuple(events)

    def through(self, name: EventName) -> DisruptionResult | EventNotRun:
        """Return the result of an event that the intent names, or why the event was not carried out."""
        if not self._begun:
            self._begin_all()
        return self._once(name)

    def after_reboot(self) -> DisruptionResult | EventNotRun:
        """Return the result of a boot from the host's files alone, or why none was carried out."""
        return self._once(REBOOT)

    def _begin_all(self) -> None:
        missing = [event for event in self._expected if event not in self.results and event not in self._not_run]
        shared = [event for event in missing if self._shares_clone(event)]
        shared.sort(key=_place_on_clone)
        own = [event for event in missing if event not in shared]
        at_once = WHOLE_HOSTS_AT_ONCE if self._is_whole_host else AT_ONCE
        for events, workers_at_once in ((own, at_once), (shared, 1)):
            workers = ThreadPoolExecutor(workers_at_once, thread_name_prefix="disruption")
            self._begun |= {event: workers.submit(self._through, event) for event in events}
            workers.shutdown(wait=False)

    @property
    def _is_whole_host(self) -> bool:
        return self.target.services.clone is not None and self.target.services.power is not None

    def _shares_clone(self, name: EventName) -> bool:
        """Return whether an event happens to the clone of other events, if they left that clone as it was."""
        if self.target.services.clone is None:
            return False
        return name in SIDE_EVENTS or (self._is_whole_host and name not in CLONES_OF_THEIR_OWN)

    def _once(self, name: EventName) -> DisruptionResult | EventNotRun:
        if name not in self.results and name not in self._not_run:
            try:
                self.results[name] = self._begun[name].result() if name in self._begun else self._through(name)
            except tuple(_OBSTACLES) as reason:
                self._not_run[name] = EventNotRun(_OBSTACLES[type(reason)], str(reason))
        return self.results[name] if name in self.results else self._not_run[name]

    def _through(self, name: EventName) -> DisruptionResult:
        if name == REBOOT:
            return self._after_reboot()
        if (obstacle := self.target.obstacle_to(name)) is not None:
            raise EventNotPossible(obstacle)
        if self.target.services.clone is not None:
            # An event that is not possible on the target is not possible on its clone, which need not be built then.
            event_for(name, self.target)
            if self._shares_clone(name):
                return self._shared_clone.carry_out(
                    lambda host: DisruptionRun(host, self.target, event_for(name, host.target, self.target)).result()
                )
        return self.run(lambda target: event_for(name, target, self.target))

    def _clone(self) -> DisruptionTarget:
        assert self.target.services.clone is not None
        return self.target.services.clone()

    def close(self) -> None:
        """End the clone that events share, and wait for events that no check has asked for; no more begin."""
        for begun in self._begun.values():
            begun.cancel()
        for begun in self._begun.values():
            if not begun.cancelled():
                begun.exception()
        self._shared_clone.close()

    def _after_reboot(self) -> DisruptionResult:
        if self.target.intent.egress.persist == "none":
            raise EventNotApplicable("rule and route are typed by hand on purpose (egress.persist)")
        if (obstacle := self.target.obstacle_to(REBOOT)) is not None:
            raise EventNotPossible(obstacle)
        if self._is_whole_host:
            return self._shared_clone.carry_out(
                lambda host: DisruptionRun(host, self.target, _reboot(host.target)).result(), ends_clone=True
            )
        if self.target.services.rebooted is None:
            raise EventNotPossible("only labs of NAT whose host runs a network manager replay a boot")
        host = self._watched(self.target.services.rebooted())
        try:
            return DisruptionRun(host, self.target, _ReplayedBoot()).after_boot()
        finally:
            host.close()

    def run(self, make: Callable[[DisruptionTarget], Event]) -> DisruptionResult:
        """Carry out any event, on a clone of the lab or on the guarded live host.

        Args:
            make: returns the event, for the target that it happens to.

        Raises:
            EventNotApplicable: the event does not belong to this target.
            EventNotPossible: the event cannot be carried out here.
            EgressNotAsIntended: the packets do not leave as intended before the event.
            EventDisturbed: the result may be the effect of something else that acted meanwhile.
            NoClone: no clone of the lab can take the event.
        """
        clone = self.target.services.clone
        host = self._watched(clone() if clone is not None else self.target)
        try:
            event = make(host.target)
            with self._guard.around(event) as disturbances:
                result, followers = self._with_followers(host, event)
        finally:
            host.close()
        if self._peers is not None:
            for follower in followers:
                self._peers.shared.of(follower.agent)[event.name] = _undisturbed(
                    follower.result, event, disturbances, follower.within
                )
        judged = _undisturbed(result, event, disturbances, seconds(self.target.intent.egress.recover_within))
        if isinstance(judged, EventNotRun):
            raise EventDisturbed(judged.text)
        return judged

    def _with_followers(self, host: HostUnderTest, event: Event) -> tuple[DisruptionResult, list[Follower]]:
        """Carry the event out; return its result, and the other agents that it concerned, with theirs."""
        if self._peers is None:
            return DisruptionRun(host, self.target, event).result(), []
        with contextlib.ExitStack() as opened:
            followers = [
                Follower(
                    agent,
                    self._judge_of(opened.enter_context(contextlib.closing(target))),
                    seconds(target.intent.egress.recover_within),
                )
                for agent, target in self._peers.concerned_by(event.name)
                if target.agent is not None
            ]
            with made_once(event, followers) as leading:
                result = DisruptionRun(host, self.target, leading).result()
        return result, followers

    def _judge_of(self, target: DisruptionTarget) -> Callable[[Event], FollowerResult]:
        """Return the function that watches another agent of the host through an event."""
        resolved = target.resolved

        def judge(event: Event) -> FollowerResult:
            assert target.agent is not None, "left out above"
            tokens = TokenSpace()
            follower = HostUnderTest(
                target, target.agent, tokens, Watch(target.host, resolved.watchable, tokens), own=False
            )
            try:
                return DisruptionRun(follower, target, event).result()
            except tuple(_OBSTACLES) as reason:
                return EventNotRun(_OBSTACLES[type(reason)], str(reason))
            finally:
                follower.close()

        return judge

    def _watched(self, target: DisruptionTarget) -> HostUnderTest:
        own, tokens = target is not self.target, TokenSpace()
        if target.agent is None:
            reasons = "; ".join(problem.reason for problem in target.snapshot.problems)
            if own:
                target.close()
            raise NoClone(f"the agent of the lab's clone cannot be opened: {reasons or 'no reason is known'}")
        try:
            watch = Watch(target.host, self.target.resolved.watchable, tokens)
        except BaseException:
            if own:
                target.close()
            raise
        return HostUnderTest(target, target.agent, tokens, watch, own)


def _undisturbed(
    result: FollowerResult | None, event: Event, disturbances: Sequence[Disturbance], within: float
) -> FollowerResult:
    """Return a result, or that it may be the effect of something else; ``within``: seconds to recover."""
    assert result is not None, "its event is over"
    if isinstance(result, EventNotRun):
        return result
    effective = [disturbance.text for disturbance in disturbances if disturbance.may_cause(result, within)]
    if not effective:
        return result
    text = f"not judged: during {event.title} something else acted, and this may be its effect: {'; '.join(effective)}"
    return EventNotRun(EventObstacle.DISTURBED, text)


def _place_on_clone(event: EventName) -> int:
    """Return the sort key of an event on the clone that events share."""
    if event in LAST_ON_CLONE:
        return 1 + LAST_ON_CLONE.index(event)
    return -1 if event in FIRST_ON_CLONE else 0


def _reboot(target: DisruptionTarget) -> Event:
    assert target.services.power is not None
    return Reboot(target.services.power)


@dataclass(frozen=True, slots=True)
class _ReplayedBoot:
    """The host boots from its files alone. The boot has happened when the run begins."""

    name: str = REBOOT
    title: str = "a reboot, replayed from the host's files alone"
    touches: Sequence[str] = ()

    def apply(self, context: EventContext) -> None:
        """Do nothing more."""
