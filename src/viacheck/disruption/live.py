"""Events on a live host: refused where they would cut off their operator, never without a watchdog that restores it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from viacheck.disruption.controls import Event
from viacheck.disruption.event_registry import NotPossible
from viacheck.guard.disruption_plan import Plan, Step, consent_missing, cuts_management
from viacheck.guard.guard import GuardRefused, guard
from viacheck.guard.lock import LockHeld
from viacheck.guard.restore import Outcome
from viacheck.guard.ssh_sessions import ManagementUnknown, ssh_sessions
from viacheck.model.intent import Intent, seconds
from viacheck.targets.base import Target

MARGIN = 15.0
"""Seconds beyond the time to recover that one event and the watching of it may take."""


def plan_of(intent: Intent) -> Plan:
    """What would be done to the host: each event that can be made on it, and how long it takes at most."""
    bound = seconds(intent.egress.recover_within) + MARGIN
    uplink = intent.egress.uplink
    steps = [
        Step("link down, then up", uplink, bound),
        Step("ifdown and ifup, three times, where ifupdown brought it up", uplink, bound),
        Step("restart of the service, where systemd runs it and it manages a link", "systemd-networkd", bound),
    ]
    if intent.agent.container is not None:
        steps += [
            Step("docker restart", intent.agent.container, bound),
            Step("restart of the service, and with it of every container, where systemd runs it", "docker", bound),
        ]
    return Plan(tuple(steps))


class Disruption:
    """Whether, and how, a live host may be interrupted."""

    def __init__(self, target: Target, site: str, *, asked: bool, flap_management: bool) -> None:
        """``asked``: ``--allow-disruptive`` was given; ``flap_management``: ``--flap-management`` was."""
        self._target, self._site = target, site
        self._asked, self._flap_management = asked, flap_management

    def refused(self) -> str | None:
        """Why nothing may be interrupted, in one line with what would allow it; None when it may."""
        return consent_missing(self._site, self._target.intent.allow_disruptive, self._asked)

    def _cuts_operator_off(self, interfaces: Sequence[str]) -> str | None:
        try:
            sessions = ssh_sessions(self._target.host)
        except ManagementUnknown as error:
            return None if self._flap_management else f"{error}; --flap-management does it all the same"
        return cuts_management(interfaces, sessions, self._flap_management)

    @contextlib.contextmanager
    def around(self, event: Event) -> Iterator[None]:
        """Have a watchdog hold the saved state while the event happens, and put the host back after it.

        Raises:
            NotPossible: when it would cut off the operator's own session, nothing can be fallen back on, or another run
                is changing this host.
        """
        intent = self._target.intent
        if event.touches and (cut := self._cuts_operator_off(event.touches)) is not None:
            raise NotPossible(cut)
        # A restart touches no interface of the host's own; what it does to the uplink's way is put back all the same.
        interfaces = event.touches or (intent.egress.uplink,)
        tables = (intent.egress.table,) if intent.egress.table is not None else ()
        try:
            with guard(self._target.host, interfaces, timeout=plan_of(intent).timeout, tables=tables) as armed:
                yield
        except (GuardRefused, LockHeld) as error:
            raise NotPossible(str(error)) from None
        if armed.outcome is not None:
            self._target.notes.append(f"after {event.title}: {_in_words(armed.outcome)}")


def _in_words(outcome: Outcome) -> str:
    foreign = f"; left alone, as others changed it: {'; '.join(outcome.foreign)}" if outcome.foreign else ""
    if outcome.equal:
        return f"the host was put back within {outcome.seconds:.1f} s, and equals its saved state{foreign}"
    return f"the host could NOT be put back: {'; '.join(outcome.difference)}; './viacheck restore' tries again{foreign}"
