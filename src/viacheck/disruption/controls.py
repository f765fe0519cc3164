"""What an event is, where it happens, and whose hands make it happen: in a lab, on a live host.

An event is made to happen step by step on a stage. Cables, servers and services are reached by hands; around an event
on a live host stands a guard.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from viacheck.host.command import CommandResult
from viacheck.host.namespace import Namespace


class EventFailed(Exception):
    """The agent, or what holds the uplink's address, did not come back; the message says why."""


class EventNotMade(Exception):
    """The event could not be made to happen at all; the message says why."""


class EventContext(Protocol):
    """Where an event happens: it writes down what is done, and lets probes pass in between."""

    def run(self, *argv: str) -> CommandResult:
        """Run a command on the host, as one step. That it fails is written down and ends nothing."""

    def act(self, words: str, action: Callable[[], object]) -> None:
        """Do something that is no command of the host, as one step."""

    def hold(self, ticks: int) -> None:
        """Let the stream go on for so many beats."""

    def agent_leaves(self) -> None:
        """The agent is about to end: nothing is sent, and nothing holds its namespace, until it is there again."""

    def agent_is_now(self, agent: Namespace) -> None:
        """The agent came back in another namespace."""

    def reopen(self) -> None:
        """An interface was made anew."""

    def router_moves(self, old: str, new: str) -> None:
        """The router has another address from now on: a route that leads to the old one must follow."""


class Cabling(Protocol):
    """The far ends of the host's uplinks: what a lab can do to them, and a hand at a live host."""

    def unplug(self, uplink: str) -> None:
        """Take the cable out; returns when the host has noticed."""

    def plug(self, uplink: str) -> None:
        """Put the cable back; returns when the host has noticed."""

    def recreate(self, uplink: str) -> None:
        """Take the interface out of the host and put it in again: same name, same place, nothing configured."""


class DhcpServerControl(Protocol):
    """The DHCP server that gave a lease, and the router that it names."""

    @property
    def holder(self) -> str:
        """The interface that holds the lease, in words."""

    @property
    def router(self) -> str:
        """Which router it names."""

    @property
    def next_router(self) -> str:
        """Which it can name instead."""

    def name_next_router(self) -> None:
        """Name the other router from now on; returns when the lease was renewed with it.

        Raises:
            EventFailed: when nobody renewed it.
            EventNotMade: when whoever holds it gets no answer.
        """

    def retire_router(self) -> None:
        """Switch the first router off; nobody remembers its MAC address."""

    def move_lease(self) -> None:
        """Refuse to renew the lease; returns when another address was given.

        Raises:
            EventFailed: when nobody asked for one.
            EventNotMade: when whoever holds it gets no answer.
        """


class Restarts(Protocol):
    """What can restart the engine and the agent's container."""

    def restart_container(self) -> None:
        """Restart the agent's container; returns when the engine says that it runs.

        Raises:
            EventFailed: when it does not start again.
            EventNotMade: when there is no engine to ask.
        """

    def restart_engine(self) -> None:
        """Restart the engine; returns when it answers.

        Raises:
            EventFailed: when it does not answer again.
            EventNotMade: when there is no engine.
        """


class LabControl(Cabling, Restarts, Protocol):
    """Everything that is done to a lab from outside of its host's own commands."""

    def restart_networkd(self) -> None:
        """Restart systemd-networkd as systemd would; returns when it is up.

        Raises:
            EventFailed: when it does not come up again.
            EventNotMade: when it does not run there.
        """

    def dhcp_server(self, uplink: str) -> DhcpServerControl | None:
        """Who gave the agent, or else the host, its address on the segment of an uplink; None where nobody did."""


class Guard(Protocol):
    """What puts a host back as it was after an event."""

    def around(self, event: Event) -> AbstractContextManager[object]:
        """Stand guard while the event happens and is watched."""


class Disruption(Guard, Protocol):
    """Whether, and how, a live host may be interrupted."""

    def refused(self) -> str | None:
        """Why it may not, in one line with what would allow it; None when it may."""


class NoGuard:
    """For a host that is thrown away."""

    def around(self, event: Event) -> AbstractContextManager[object]:  # noqa: ARG002
        """Do nothing."""
        return contextlib.nullcontext()


class Event(Protocol):
    """Something that happens to a host."""

    @property
    def name(self) -> str:
        """As the intent's ``survives`` calls it, where it does."""

    @property
    def title(self) -> str:
        """What happens, for people."""

    @property
    def touches(self) -> Sequence[str]:
        """Which interfaces of the host it changes."""

    def apply(self, stage: EventContext) -> None:
        """Make it happen.

        Raises:
            EventFailed: when the agent or the lease does not come back.
            EventNotMade: when it cannot be made to happen.
        """
