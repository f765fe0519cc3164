"""A running lab: its machines, and the operations on them that faults, events and people use."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from netns_lab.plan import LabPlan, Machine
from netns_lab.rtnetlink_batch import LabBuildError
from viacheck.host.command import CommandResult
from viacheck.host.namespace import Namespace
from viacheck.host.sysctl import write_sysctl
from viacheck.model.snapshot import Snapshot
from viacheck.netlink.rtnetlink import IFF_LOWER_UP, ChangeListener, RouteSocket

if TYPE_CHECKING:
    from docker import DockerClient

    from netns_lab.docker_engine.containers import EngineContainers
    from netns_lab.docker_engine.networks import EngineNetworks
    from netns_lab.services.dhcp_client import DHCPClient
    from netns_lab.services.dhcp_server import DHCPServer
    from netns_lab.services.responders import Responders
    from netns_lab.whole_host.power import WholeHost

AGENT_CONTAINER = "te-agent"
CARRIER_TIMEOUT = 60.0
"""Seconds for the kernel to notice a carrier: a work queue of its own does that, when the machine has the time."""


class Networkd(Protocol):
    """The systemd-networkd that configures a lab's host."""

    def restart(self) -> None:
        """Restart it; return when it is up.

        Raises:
            netns_lab.networkd_daemon.NetworkdFailed: it does not end, or does not come up again.
        """

    def settle(self) -> None:
        """Wait until every link that its files name is configured.

        Raises:
            netns_lab.networkd_daemon.NetworkdFailed: a link is not.
        """


class Engine(Protocol):
    """The engine that works on a lab's host: Docker, or podman."""

    @property
    def containers(self) -> EngineContainers:
        """Return its containers."""

    @property
    def networks(self) -> EngineNetworks:
        """Return its networks."""

    @property
    def pid(self) -> int:
        """Return a process in the engine's namespaces, as this process sees it."""

    @property
    def root(self) -> str:
        """Return the engine's file system, as this process sees it."""

    @property
    def proc(self) -> str:
        """Return the /proc in which the engine's process numbers are true."""

    @property
    def base_url(self) -> str:
        """Return the address of the engine's API, for any client on this machine."""

    @property
    def hosts_url(self) -> str:
        """Return the address of the engine's API, for a command that runs on the lab's host."""

    def hosts_pid(self, inner: int) -> int:
        """Return the number that one of the engine's processes has for a command that runs on the lab's host."""

    @property
    def client(self) -> DockerClient:
        """Return the Docker SDK's client of the engine."""

    def restart(self) -> None:
        """Restart the daemon; return when it is ready.

        Raises:
            netns_lab.docker_engine.daemon.EngineFailed: it does not start again.
        """

    def stop_daemon(self) -> None:
        """Stop the daemon.

        Raises:
            netns_lab.docker_engine.daemon.EngineFailed: it does not end.
        """

    def close(self) -> None:
        """Release the engine; what runs in the lab's own namespaces ends with it."""


class LabCommandError(Exception):
    """A command that a fault or scenario runs on a lab's machine failed; the message holds command and output."""


@dataclass(frozen=True, slots=True)
class LabMachine:
    """One machine of a running lab."""

    plan: Machine
    namespace: Namespace

    def run(self, *argv: str) -> CommandResult:
        """Run a command on the machine.

        Raises:
            LabCommandError: when it fails.
        """
        result = self.namespace.run(argv)
        if not result.ok:
            raise LabCommandError(
                f"{self.plan.name}: {result.command}: exit {result.exit_code}: {result.stderr.strip()}"
            )
        return result

    def ip(self, *arguments: str) -> CommandResult:
        """Run ``ip`` with these arguments.

        Raises:
            LabCommandError: when it fails.
        """
        return self.run("ip", *arguments)

    def sysctl(self, path: str, value: str) -> None:
        """Set a sysctl, given by its path below /proc/sys."""
        self.namespace.call(lambda: write_sysctl(path, value))

    def write(self, path: str, text: str) -> None:
        """Write a private file of the machine."""
        self.namespace.call(lambda: Path(path).write_text(text))

    def remove(self, path: str) -> None:
        """Remove a private file of the machine."""
        self.namespace.call(lambda: Path(path).unlink())

    def hold_address(self, interface: str, address: str) -> None:
        """Give an interface another address, in CIDR form, even if another machine holds it too."""
        self.ip("address", "add", address, "dev", interface)

    def read(self, path: str) -> str:
        """Read a file as the machine sees it."""
        return self.namespace.call(lambda: Path(path).read_text())


class Lab:
    """A running lab. It ends when it is closed, and at the latest with this process.

    Attributes:
        plan: the description that it was built from.
        engine: the Docker engine that works on the host, in the flavours engine and host.
        change_output: the name and the output of each change that was run on the host.
        agent_container: the name of the agent's container.
        responders: the services behind its gateways.
        dhcp_servers: the DHCP servers of its segments.
        dhcp_client: the client that holds the agent's lease, where the agent has a lease.
        networkd: the systemd-networkd that configures the host, where the host has it.
        whole_host: the power of a host that has an init of its own.
        notes: remarks for the reader of the report.
        replica_of: the snapshot that this lab is a replica of, if it is a replica.
    """

    def __init__(
        self, plan: LabPlan, machines: dict[str, LabMachine], responders: Responders, engine: Engine | None
    ) -> None:
        self.plan = plan
        self.machines = machines
        self.engine = engine
        self.agent_container = AGENT_CONTAINER
        self.change_output: list[tuple[str, str]] = []
        self.dhcp_servers: list[DHCPServer] = []
        self.dhcp_client: DHCPClient | None = None
        self.networkd: Networkd | None = None
        self.whole_host: WholeHost | None = None
        self.notes = list(plan.notes)
        self.replica_of: Snapshot | None = None
        self.responders = responders
        self._endings: list[Callable[[], None]] = [responders.close]

    @property
    def host(self) -> LabMachine:
        """The machine that stands for the agent's host."""
        return self.machines[self.plan.host.name]

    @property
    def agent(self) -> LabMachine:
        """The namespace that stands for the agent's container."""
        return self.machines[self.plan.agent.name]

    def gateway(self, uplink: str) -> LabMachine:
        """The gateway at the other end of an uplink."""
        return self.machines[self.plan.segments[uplink].gateway]

    def switch(self, uplink: str) -> LabMachine:
        """The switch that an uplink is plugged into, at the port :data:`netns_lab.plan.HOST_PORT`.

        Raises:
            LookupError: when the uplink's cable ends at its gateway.
        """
        return self._on_segment(uplink, self.plan.segments[uplink].switch, "switch")

    def neighbour(self, uplink: str) -> LabMachine:
        """The second machine on an uplink's segment; its interface there is lan0.

        Raises:
            LookupError: when the segment has no second machine.
        """
        return self._on_segment(uplink, self.plan.segments[uplink].neighbour, "second machine")

    def _on_segment(self, uplink: str, name: str | None, role: str) -> LabMachine:
        if name is None:
            raise LookupError(f"lab {self.plan.name}: the segment of {uplink} has no {role}")
        return self.machines[name]

    @property
    def gateways(self) -> Sequence[LabMachine]:
        """Every gateway."""
        return [self.machines[gateway.name] for gateway in self.plan.gateways]

    def add_dhcp_server(self, server: DHCPServer) -> None:
        """Add a DHCP server, which closes with the lab."""
        self.dhcp_servers.append(server)
        self.on_close(server.close)

    def add_dhcp_client(self, client: DHCPClient) -> None:
        """Add the DHCP client of the agent, which closes with the lab unless it is stopped before."""
        self.dhcp_client = client

    def stop_dhcp_client(self) -> None:
        """Kill the agent's DHCP client: the agent keeps its address until the lease ends."""
        if self.dhcp_client is not None:
            self.dhcp_client.close()
            self.dhcp_client = None

    def set_agent_namespace(self, namespace: Namespace) -> None:
        """Give the agent another namespace, as a restart of its container does."""
        self.stop_dhcp_client()
        self.agent.namespace.close()
        self.machines[self.plan.agent.name] = LabMachine(self.plan.agent, namespace)

    def on_close(self, ending: Callable[[], None]) -> None:
        """Call a function when the lab is closed, the last added first."""
        self._endings.append(ending)

    def wait_for_carrier(self, interface: str, *, present: bool) -> None:
        """Wait until the host's kernel has noticed that an interface has, or has lost, its carrier.

        Raises:
            LabCommandError: after a minute without it.
        """
        wait_for_carrier(self.host.namespace, interface, present=present)

    def close(self) -> None:
        """End the lab. The kernel removes the namespaces later."""
        self.stop_dhcp_client()
        # The host's process namespace cannot end before the engine's processes in it have ended.
        if self.engine is not None:
            self.engine.close()
        while self._endings:
            self._endings.pop()()
        for machine in self.machines.values():
            machine.namespace.close()


def wait_for_carrier(namespace: Namespace, interface: str, *, present: bool) -> None:
    """Wait for the link message that reports an interface's carrier (rtnetlink(7), RTNLGRP_LINK).

    Raises:
        LabCommandError: when no such message came within a minute.
    """

    def wait() -> bool:
        with ChangeListener() as changes, RouteSocket() as netlink:
            deadline = time.monotonic() + CARRIER_TIMEOUT
            while bool(netlink.link(interface).flags & IFF_LOWER_UP) != present:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                changes.wait(remaining)
            return True

    if not namespace.call(wait):
        raise LabCommandError(
            f"{namespace.name}: {interface} has {'no' if present else 'still a'} carrier after {CARRIER_TIMEOUT:g} s"
        )


@contextlib.contextmanager
def closed_on_failure(lab: Lab, name: str = "", *errors: type[Exception]) -> Iterator[None]:
    """Close a lab whose building is not carried to its end.

    Args:
        lab: the lab.
        name: its name in messages.
        errors: what becomes a :class:`LabBuildError` with the lab's name.

    Raises:
        LabBuildError: one of these errors occurred.
    """
    try:
        yield
    except BaseException as error:
        lab.close()
        if isinstance(error, errors):
            raise LabBuildError(f"{name}: {error}") from error
        raise
