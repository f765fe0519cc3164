"""An event of a host with several agents: it is made once, and the packets of each agent that it concerns are watched.

One agent leads: the event is carried out in its run. The others follow: each has a probe stream, captures and states of
its own, begins when all are ready, and is judged as if the event were made for it alone.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from viacheck.model.measurements import DisruptionResult, EventName, EventNotRun

if TYPE_CHECKING:
    from viacheck.disruption.controls import Event, EventContext

SHARED: tuple[EventName, ...] = ("link-flap", "ifupdown", "networkd-restart", "networkmanager-restart", "netplan-apply")
"""The events that touch no agent's container: restarts are made for each agent in turn."""
READY_WITHIN = 10.0
"""Seconds for the packets of all agents to leave as intended before the event; those of a slower agent are left out."""

FollowerResult = DisruptionResult | EventNotRun


@dataclass(slots=True)
class SharedResults:
    """The results that followers got, by agent and event, until their own targets are judged."""

    by_agent: dict[str, dict[str, FollowerResult]] = field(default_factory=dict)

    def of(self, agent: str) -> dict[str, FollowerResult]:
        """Return the results of an agent by event."""
        return self.by_agent.setdefault(agent, {})


@dataclass(slots=True)
class _Gate:
    """When the event begins and ends, for those that follow it."""

    begun: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class _LeadingEvent:
    """The event, which begins when every follower is ready or has given up."""

    event: Event
    gate: _Gate
    followers: Sequence[Follower]
    name: str
    title: str
    touches: Sequence[str]

    def apply(self, context: EventContext) -> None:
        """Carry the event out."""
        try:
            for follower in self.followers:
                follower.ready.wait(READY_WITHIN)
            self.gate.begun.set()
            self.event.apply(context)
        finally:
            self.gate.begun.set()
            self.gate.ended.set()


@dataclass(slots=True)
class _FollowedEvent:
    """The same event as a follower sees it: something else makes it."""

    name: str
    title: str
    touches: Sequence[str]
    gate: _Gate
    ready: threading.Event

    def apply(self, context: EventContext) -> None:
        """Wait until the event is over."""
        self.ready.set()
        self.gate.begun.wait()
        context.act(self.title, self.gate.ended.wait)


@dataclass(slots=True)
class Follower:
    """Another agent that an event concerns."""

    agent: str
    judge: Callable[[Event], FollowerResult]
    """Runs the event's watch for this agent, and returns the result."""
    within: float
    """Seconds after the event in which this agent's egress must recover."""
    ready: threading.Event = field(default_factory=threading.Event)
    result: FollowerResult | None = None
    """None until the event is over."""

    def run(self, event: _FollowedEvent) -> FollowerResult:
        """Watch the agent through the event."""
        try:
            return self.judge(event)
        finally:
            # Also when its packets did not leave as intended, so that the event need not wait.
            self.ready.set()


@contextlib.contextmanager
def made_once(event: Event, followers: Sequence[Follower]) -> Iterator[Event]:
    """Return the event to carry out, while the followers are watched; they have results when the block succeeds."""
    if not followers:
        yield event
        return
    gate = _Gate()
    with ThreadPoolExecutor(len(followers), thread_name_prefix="follower") as pool:
        watching: list[tuple[Follower, Future[FollowerResult]]] = []
        try:
            for follower in followers:
                followed = _FollowedEvent(event.name, event.title, event.touches, gate, follower.ready)
                watching.append((follower, pool.submit(follower.run, followed)))
            yield _LeadingEvent(event, gate, followers, event.name, event.title, event.touches)
        finally:
            gate.begun.set()
            gate.ended.set()
        for follower, result in watching:
            follower.result = result.result()
