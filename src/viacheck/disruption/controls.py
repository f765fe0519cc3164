"""The interfaces between an event, the host that it happens to, and the controls that carry it out.

An event is carried out step by step in a context. Controls operate cables, servers and services. A guard restores a
live host after an event.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.host.command import CommandResult
from viacheck.host.namespace import Namespace
from viacheck.model.intent import Intent
from viacheck.model.measurements import DisruptionResult
from viacheck.model.snapshot import Snapshot


class EventFailed(Exception):
    """The agent or the lease did not return after the event; the message says why."""


class HostNotBack(EventFailed):
    """The host itself has not come back, so that nothing is known of its agent; the message says what it waits for."""


class EventNotApplicable(Exception):
    """The event does not belong to this target; the message says why."""


class EventDisturbed(Exception):
    """Something else acted during the event, so that its result is not the event's; the message names it."""


class NoClone(Exception):
    """No clone of a lab can take the event: it cannot be built, or its agent not be opened; the message says why."""


class EventNotPossible(Exception):
    """The event cannot be carried out here; the message says what would make it possible."""


class EgressNotAsIntended(Exception):
    """The agent's packets do not leave as intended before the event; the message says where they leave."""


class EventContext(Protocol):
    """An event under way: it records each step, and sends probes between the steps."""

    def run(self, *argv: str) -> CommandResult:
        """Run a command on the host, as one step. A failure is recorded and does not end the event."""

    def act(self, text: str, action: Callable[[], object]) -> None:
        """Take a step that is not a command of the host."""

    def settle(self, *commands: Sequence[str]) -> None:
        """Run commands of the host that wait for what the last step has begun; the event ended with that step.

        A command that fails or does not exist ends the wait and says nothing about the event.
        """

    def wait(self, ticks: int) -> None:
        """Wait while the probe stream continues for some ticks."""

    def agent_stops(self) -> None:
        """Close the agent's namespace and send nothing, because the agent is about to end."""

    def agent_returns(self, agent: Namespace) -> None:
        """Continue in the agent's new namespace."""

    def reopen(self) -> None:
        """Watch interfaces that were created, or recreated."""

    def host_stops(self) -> None:
        """End the watch: the host is off, and its interfaces are about to be gone."""

    def host_starts(self) -> None:
        """Watch the interfaces that the host has from now on; it is powered on after this."""

    def router_moves(self, old: str, new: str) -> None:
        """Expect routes by the router's old address to follow it to the new one."""


class CableControl(Protocol):
    """The cables of the host's uplinks."""

    def unplug(self, uplink: str) -> None:
        """Unplug the cable; return when the host has noticed."""

    def plug(self, uplink: str) -> None:
        """Plug the cable in; return when the host has noticed."""

    def recreate(self, uplink: str) -> None:
        """Remove the interface and create it again: same name, same cable, nothing configured."""


class DhcpServerControl(Protocol):
    """The DHCP server that gave a lease, and the router that it announces."""

    @property
    def holder(self) -> str:
        """Return the interface that holds the lease, as text."""

    @property
    def router(self) -> str:
        """Return the router that the server announces."""

    @property
    def next_router(self) -> str:
        """Return the router that it can announce instead."""

    def name_next_router(self) -> None:
        """Announce the other router; return when the lease was renewed with it.

        Raises:
            EventFailed: no client renewed the lease.
            EventNotPossible: the client gets no answer.
        """

    def retire_router(self) -> None:
        """Switch the first router off, and remove its neighbour entries."""

    def move_lease(self) -> None:
        """Refuse to renew the lease; return when another address was leased.

        Raises:
            EventFailed: no client asked for an address.
            EventNotPossible: the client gets no answer.
        """


class Restarts(Protocol):
    """Restarts of the Docker engine and the agent's container."""

    def restart_container(self) -> None:
        """Restart the agent's container; return when the engine reports that it runs.

        Raises:
            EventFailed: the container does not start again.
            EventNotPossible: the engine cannot be reached.
        """

    def restart_engine(self) -> None:
        """Restart the engine; return when it answers.

        Raises:
            EventFailed: the engine does not answer again.
            EventNotPossible: no engine runs.
        """


class PowerControl(Protocol):
    """The power of a host with an init of its own; a lab's, as it is started again from outside of it."""

    def reboot(self) -> None:
        """Reboot the host as a person would; return when it is off.

        Raises:
            HostNotBack: it does not shut down, or does not ask to be started again.
        """

    def plug_in(self) -> None:
        """Give the host that is off new interfaces, with their cables plugged in and nothing configured."""

    def power_on(self) -> None:
        """Start the host's init.

        Raises:
            HostNotBack: it does not start.
        """

    def wait_for_agent(self) -> Namespace:
        """Return the agent's namespace as soon as it exists; the caller closes it.

        Raises:
            EventFailed: the host has booted without the agent.
            HostNotBack: the boot does not end.
        """

    def wait_until_booted(self) -> Namespace | None:
        """Return when every job of the boot is done: the agent's namespace if another has replaced the first one.

        Raises:
            EventFailed: it has booted without the agent.
            HostNotBack: the boot does not end.
        """

    def files_for_next_boot(self) -> Mapping[str, str]:
        """Return what the next boot finds on the disk besides the files of packages: a digest of each file, by path.

        Logs and what a manager counts by itself are left out.
        """


class LabControl(CableControl, Restarts, Protocol):
    """Operations performed on a lab from outside its host."""

    def restart_networkd(self) -> None:
        """Restart systemd-networkd as systemd would; return when it is up, which is before it configures its links.

        Raises:
            EventFailed: it does not start again.
            EventNotPossible: the lab does not run it.
        """

    def dhcp_server(self, uplink: str) -> DhcpServerControl | None:
        """Return the server that leased the agent's or the host's address on an uplink; None without a lease."""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """Something else that acted on the host during an event."""

    text: str
    """What it was, in one line."""
    restores: bool = False
    """It may have restored the egress: neither a failure nor a recovery is the event's then."""

    def may_cause(self, result: DisruptionResult, within: float) -> bool:
        """Return whether a result may be this one's effect; ``within``: seconds in which the egress must recover."""
        return self.restores or result.leaked > 0 or not result.survived(within)


class Guard(Protocol):
    """Restores a host after an event."""

    def around(self, event: Event) -> AbstractContextManager[list[Disturbance]]:
        """Guard the host while the event happens and is watched; then the list has what else acted meanwhile."""


class Disruption(Guard, Protocol):
    """The consent to interrupt a live host, and the guard around each event."""

    def refused(self) -> str | None:
        """Return why the host may not be interrupted, in one line with the missing consent; None when it may."""


class NoGuard:
    """The guard of a host that is thrown away."""

    def around(self, event: Event) -> AbstractContextManager[list[Disturbance]]:  # noqa: ARG002
        """Do nothing."""
        return contextlib.nullcontext([])


class Event(Protocol):
    """Something that happens to a host."""

    @property
    def name(self) -> str:
        """Return the event's name, as in the intent's ``survives`` where it has one there."""

    @property
    def title(self) -> str:
        """Return the event as text."""

    @property
    def touches(self) -> Sequence[str]:
        """Return the host's interfaces that the event changes."""

    def apply(self, context: EventContext) -> None:
        """Carry the event out.

        Raises:
            EventFailed: the agent or the lease did not return.
            EventNotPossible: the event could not be carried out.
        """


class DisruptionServices(Protocol):
    """The services of a target that events use."""

    @property
    def engine_url(self) -> str | None:
        """Return the Docker engine's address; None for the address in DOCKER_HOST, or Docker's default."""

    @property
    def control(self) -> LabControl | None:
        """Return the control over cables, container and engine; labs only."""

    @property
    def clone(self) -> Callable[[], DisruptionTarget] | None:
        """Return the function that builds another target like this one; labs only."""

    @property
    def power(self) -> PowerControl | None:
        """Return the control over the host's power; only labs whose host has an init of its own."""

    @property
    def side_events(self) -> bool:
        """Return whether the events of others are made here: whole-host labs and replicas."""

    @property
    def rebooted(self) -> Callable[[], DisruptionTarget] | None:
        """Return the function that builds the target as it boots; only labs that run a network manager."""


class DisruptionTarget(Protocol):
    """A host and its agent, as far as events need them."""

    agent: Namespace | None
    """The agent's network namespace; None while it cannot be opened."""

    @property
    def kind(self) -> Literal["lab", "local", "bundle"]:
        """Return the kind in result.json."""

    @property
    def flavour(self) -> str | None:
        """Return the flavour of a lab."""

    @property
    def intent(self) -> Intent:
        """Return the intent that the target is judged by."""

    @property
    def host(self) -> Namespace:
        """Return the host's network namespace."""

    @property
    def snapshot(self) -> Snapshot:
        """Return the target's state before the first probe."""

    @property
    def resolved(self) -> ResolvedIntent:
        """Return the intent, resolved against the snapshot."""

    @property
    def services(self) -> DisruptionServices:
        """Return the services beyond the namespaces."""

    @property
    def notes(self) -> list[str]:
        """Return the notes for a reader of the report, to which a guard adds its own."""

    @property
    def alerts(self) -> list[str]:
        """Return what must be known beside every verdict, such as a restore that did not finish."""

    def leave_agent(self) -> None:
        """Close the agent's namespace, so that it can end with the agent."""

    def reopen_agent(self) -> Namespace:
        """Open the agent's namespace after a restart of its container; the caller closes it.

        Raises:
            EventFailed: the container does not run again.
        """

    def agent_was_replaced(self) -> bool | None:
        """Return whether the agent has another network namespace than the open one; None while it has none at all."""

    def obstacle_to(self, event: str) -> str | None:
        """Return why an event here would not show what it shows on the real host; None if it does."""

    def close(self) -> None:
        """Close every namespace, and end a lab."""
