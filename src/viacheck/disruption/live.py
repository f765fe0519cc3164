"""Events on a live host: refused where they would cut the operator's session, and always under a guard."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from viacheck.disruption.consent import consent_missing, cuts_management
from viacheck.disruption.controls import DisruptionTarget, Event, EventNotPossible
from viacheck.disruption.shared_events import SHARED
from viacheck.guard.comparison import REMOVED_BY
from viacheck.guard.guard import GuardRefused, guard
from viacheck.guard.lock import LockHeld
from viacheck.guard.restore import RestoreResult, time_for
from viacheck.guard.ssh_sessions import ManagementUnknown, ssh_sessions
from viacheck.guard.watchdog.process import TIMED_OUT
from viacheck.model.intent import Intent, Survivable
from viacheck.model.intent_values import seconds

_EVENT_MARGIN = 15.0
"""Seconds beyond the time to recover for one event."""
_PLAN_MARGIN = 10.0
"""Seconds beyond the events' own limits after which the watchdog restores the state of a run that hangs."""


@dataclass(frozen=True, slots=True)
class PlannedEvent:
    """One event of a live host's plan."""

    name: Survivable
    text: str
    """The event for people: ``link down, then up``."""
    subject: str
    """The interface, the container or the service."""
    seconds: float
    """The longest time that the event takes."""


@dataclass(frozen=True, slots=True)
class DisruptionPlan:
    """The events of a live host, in their order. The plan is printed before the first event."""

    events: tuple[PlannedEvent, ...]

    def timeout(self, objects: int) -> float:
        """Return the seconds after which the state is restored whether the events have ended or not.

        ``objects``: the host's routes, rules and addresses. Each state that is read before, in and after an event takes
        as long as they are many.
        """
        return sum(event.seconds + time_for(objects) for event in self.events) + _PLAN_MARGIN

    def lines(self, agent: str = "") -> list[str]:
        """Return the plan for people: each event, its interface and its longest time; ``agent`` is one of several."""
        whose = f"agent {agent}: " if agent else ""
        if not self.events:
            return [f"{whose}no selected check interrupts this host's network"]
        return [
            f"{whose}this host's network will be interrupted and then restored to its present state:",
            *(f"  {event.subject}: {event.text}, at most {event.seconds:g} s" for event in self.events),
            f"  a watchdog restores it after {self.timeout(0):g} s at the latest (later with thousands of routes), "
            "'viacheck restore' by hand",
        ]


def same_events(plan: DisruptionPlan, other: DisruptionPlan) -> set[str]:
    """Return the names of the events that are one event for two agents of a host."""
    made = {(event.name, event.subject) for event in plan.events if event.name in SHARED}
    return {event.name for event in other.events if (event.name, event.subject) in made}


LIVE_EVENTS: tuple[Survivable, ...] = (
    "link-flap", "ifupdown", "networkd-restart", "networkmanager-restart", "netplan-apply", "container-restart",
    "engine-restart",
)  # fmt: skip
"""The events that can be carried out on a live host, in their order."""


def plan_of(intent: Intent, events: Container[str] = LIVE_EVENTS) -> DisruptionPlan:
    """Return the plan for a host: those of the events that are possible on it, and the longest time of each."""
    limit = seconds(intent.egress.recover_within) + _EVENT_MARGIN
    uplink, container = intent.egress.uplink, intent.agent.container
    texts: dict[Survivable, tuple[str, str | None]] = {
        "link-flap": ("link down, then up", uplink),
        "ifupdown": ("ifdown and ifup, three times, if ifupdown manages the interface", uplink),
        "networkd-restart": ("restart of the service, if systemd runs it and it manages a link", "systemd-networkd"),
        "networkmanager-restart": (
            "restart of the service, and nmcli device reapply, if it manages a link", f"NetworkManager, {uplink}"
        ),
        "netplan-apply": ("netplan apply, if its files name a link", "netplan"),
        "container-restart": ("docker restart", container),
        "engine-restart": (
            "restart of the service and of every container, if systemd runs it", "docker" if container else None
        ),
    }  # fmt: skip
    planned = [
        PlannedEvent(name, text, subject, limit)
        for name in LIVE_EVENTS
        for text, subject in [texts[name]]
        if subject is not None and name in events
    ]
    return DisruptionPlan(tuple(planned))


def events_chosen(intent: Intent, named: Sequence[str]) -> tuple[str, ...]:
    """Return the events to carry out on a live host: those of ``--events``, else those that must be survived.

    A site file that names no event in ``egress.survives`` leaves the choice open: all of them.
    """
    wanted = named or intent.egress.survives or LIVE_EVENTS
    return tuple(name for name in LIVE_EVENTS if name in wanted)


_RECONFIGURING = frozenset({"ifupdown", "networkd-restart", "networkmanager-restart", "netplan-apply"})
"""The events in which a network manager adds and sets what its files say."""
_REMOVALS_SHOWN = 10


class LiveDisruption:
    """The consent to interrupt a live host, and the guard around each event."""

    def __init__(
        self,
        target: DisruptionTarget,
        site: str,
        events: Container[str],
        *,
        asked: bool,
        flap_management: bool,
        tables: Sequence[int] = (),
    ) -> None:
        """Interrupt nothing yet.

        Args:
            target: the host.
            site: path of the site file.
            events: the names of the events that may be carried out.
            asked: whether ``--allow-disruptive`` was given.
            flap_management: whether ``--flap-management`` was given.
            tables: the routing tables of the host's other agents.
        """
        self._tables = tables
        self._target, self._site, self._events = target, site, events
        self._asked, self._flap_management = asked, flap_management

    def refused(self) -> str | None:
        """Return why nothing may be interrupted, in one line with the missing consent; None when it may."""
        return consent_missing(self._site, self._target.intent.allow_disruptive, self._asked)

    def obstacle_to(self, event: str) -> str | None:
        """Return why an event is not carried out here; None if it is chosen, or cannot be chosen."""
        if event in self._events or event not in LIVE_EVENTS:
            return None
        return f"not chosen by --events or egress.survives; --events {event} tries it"

    def _cuts_operator_off(self, interfaces: Sequence[str]) -> str | None:
        try:
            sessions = ssh_sessions(self._target.host)
        except ManagementUnknown as error:
            return None if self._flap_management else f"{error}; use --flap-management to do it anyway"
        return cuts_management(interfaces, sessions, self._flap_management)

    @contextlib.contextmanager
    def around(self, event: Event) -> Iterator[list[str]]:
        """Save the host's state under a watchdog while the event happens, and restore it after the event.

        Yields:
            A list that is filled when the event is over: what a person removed meanwhile.

        Raises:
            EventNotPossible: the event would cut the operator's session, the state cannot be saved, or another run is
                changing this host.
        """
        intent = self._target.intent
        if event.touches and (cut := self._cuts_operator_off(event.touches)) is not None:
            raise EventNotPossible(cut)
        # A restart touches none of the host's interfaces, but it may change the agent's egress, which is restored too.
        interfaces = event.touches or (intent.egress.uplink,)
        own = (intent.egress.table,) if intent.egress.table is not None else ()
        tables = tuple(dict.fromkeys([*own, *self._tables]))
        host = self._target.snapshot.host
        objects = len(host.routes) + len(host.rules) + len(host.addresses)
        timeout = plan_of(intent, self._events).timeout(objects)
        removed_by_person: list[str] = []
        try:
            with guard(
                self._target.host, interfaces, timeout=timeout, reconfigures=event.name in _RECONFIGURING, tables=tables
            ) as armed:
                yield removed_by_person
        except (GuardRefused, LockHeld) as error:
            raise EventNotPossible(str(error)) from None
        if armed.result is not None:
            removed_by_person += [
                line.removeprefix("- ") for line in armed.result.foreign if f", {REMOVED_BY} " in line
            ]
            in_time = armed.result.reason != TIMED_OUT
            remarks = self._target.notes if armed.result.equal and in_time else self._target.alerts
            remarks.append(f"after {event.title}: {_restore_text(armed.result, timeout)}")


def _restore_text(result: RestoreResult, timeout: float) -> str:
    if result.reason == TIMED_OUT:
        expired = (
            f"the watchdog's limit of {timeout:g} s passed before the event had ended, and it restored the host in the "
            "middle of it: its results are not those of the event; "
        )
        return expired + _restore_text(dataclasses.replace(result, reason=""), timeout)
    removals = [action for action in result.actions if action.startswith("removed ")]
    more = [f"and {len(removals) - _REMOVALS_SHOWN} more"] if len(removals) > _REMOVALS_SHOWN else []
    added = "; ".join([*removals[:_REMOVALS_SHOWN], *more])
    foreign = f"; added during the event: {added}" if added else ""
    foreign += f"; not touched: changed by something else: {'; '.join(result.foreign)}" if result.foreign else ""
    if result.unclear:
        foreign += f"; restored, although something else may have removed or set it: {'; '.join(result.unclear)}"
    if result.equal:
        unmarked = f"; {result.unmarked}: '--forget' of 'viacheck restore' deletes it" if result.unmarked else ""
        return f"the host was restored within {result.seconds:.1f} s and equals its saved state{unmarked}{foreign}"
    difference = "; ".join(result.difference)
    return f"the host could NOT be restored: {difference}; 'viacheck restore' tries again{foreign}"
