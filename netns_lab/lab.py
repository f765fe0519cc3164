"""A lab while it lives: its machines, and what a fault or a person may do to them."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.rtnl import RTMGRP_LINK
from pyroute2.netlink.rtnl.ifinfmsg import IFF_LOWER_UP

from netns_lab.docker_engine.daemon import DockerEngine
from netns_lab.networkd_daemon import NetworkdDaemon
from netns_lab.plan import LabPlan, Machine
from netns_lab.services.dhcp_client import DHCPClient
from netns_lab.services.dhcp_server import DHCPServer
from netns_lab.services.responders import Responders
from viacheck.host.command import CommandResult
from viacheck.host.namespace import Namespace
from viacheck.model.snapshot import Snapshot

AGENT_CONTAINER = "te-agent"
CARRIER_TIMEOUT = 2.0


class LabCommandError(Exception):
    """A command that a fault or scenario runs on a lab's machine failed; the message holds command and answer."""


@dataclass(frozen=True, slots=True)
class LabMachine:
    """One machine of a living lab."""

    plan: Machine
    namespace: Namespace

    def run(self, *argv: str) -> CommandResult:
        """Run a command on the machine that must succeed.

        Raises:
            LabCommandError: when it does not.
        """
        result = self.namespace.run(argv)
        if not result.ok:
            raise LabCommandError(
                f"{self.plan.name}: {result.command}: exit {result.exit_code}: {result.stderr.strip()}"
            )
        return result

    def ip(self, *words: str) -> CommandResult:
        """Run ``ip`` with these words; it must succeed."""
        return self.run("ip", *words)

    def sysctl(self, path: str, value: str) -> None:
        """Set a sysctl, named by its path below /proc/sys."""
        self.namespace.call(lambda: Path("/proc/sys", path).write_text(value))

    def write(self, path: str, text: str) -> None:
        """Write one of the machine's private files."""
        self.namespace.call(lambda: Path(path).write_text(text))

    def remove(self, path: str) -> None:
        """Remove one of the machine's private files."""
        self.namespace.call(lambda: Path(path).unlink())

    def hold_address(self, interface: str, address: str) -> None:
        """Give an interface one more address, in CIDR form, and answer ARP for it, whoever else does."""
        self.ip("address", "add", address, "dev", interface)

    def read(self, path: str) -> str:
        """Read a file as the machine sees it."""
        return self.namespace.call(lambda: Path(path).read_text())


class Lab:
    """A living lab. It ends when it is closed, and at the latest with this process.

    Attributes:
        plan: what it was built from.
        engine: the Docker engine that works on the host, in the engine flavour.
        said: what changes said that were run on the host, by name.
        agent_container: what the agent's container is called there.
        dhcp_servers: the DHCP servers of its segments.
        dhcp_client: what holds the agent's lease, where it has one.
        networkd: what configures the host, where systemd-networkd does.
        notes: what a reader of the report must know about the lab.
        replica_of: the snapshot of the host whose twin it is, if it is one.
    """

    def __init__(
        self, plan: LabPlan, machines: dict[str, LabMachine], responders: Responders, engine: DockerEngine | None
    ) -> None:
        self.plan = plan
        self.machines = machines
        self.engine = engine
        self.agent_container = AGENT_CONTAINER
        self.change_output: list[tuple[str, str]] = []
        self.dhcp_servers: list[DHCPServer] = []
        self.dhcp_client: DHCPClient | None = None
        self.networkd: NetworkdDaemon | None = None
        self.notes = list(plan.notes)
        self.replica_of: Snapshot | None = None
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
            LookupError: when the uplink leads straight to its gateway.
        """
        return self._on_segment(uplink, self.plan.segments[uplink].switch, "switch")

    def neighbour(self, uplink: str) -> LabMachine:
        """The second machine on an uplink's segment, which is there by its interface lan0.

        Raises:
            LookupError: when there is none.
        """
        return self._on_segment(uplink, self.plan.segments[uplink].neighbour, "second machine")

    def _on_segment(self, uplink: str, name: str | None, what: str) -> LabMachine:
        if name is None:
            raise LookupError(f"lab {self.plan.name}: there is no {what} on the segment of {uplink}")
        return self.machines[name]

    @property
    def gateways(self) -> Sequence[LabMachine]:
        """Every gateway."""
        return [self.machines[gateway.name] for gateway in self.plan.gateways]

    def add_dhcp_server(self, server: DHCPServer) -> None:
        """Have a DHCP server end together with the lab."""
        self.dhcp_servers.append(server)
        self.on_close(server.close)

    def add_dhcp_client(self, client: DHCPClient) -> None:
        """Have a DHCP client hold the agent's lease until the lab ends or the client is stopped."""
        self.dhcp_client = client

    def add_networkd(self, networkd: NetworkdDaemon) -> None:
        """Have systemd-networkd end together with the lab."""
        self.networkd = networkd
        self.on_close(networkd.close)

    def stop_dhcp_client(self) -> None:
        """End the DHCP client as if it was killed: the agent keeps its address until the lease ends."""
        if self.dhcp_client is not None:
            self.dhcp_client.close()
            self.dhcp_client = None

    def set_agent_namespace(self, namespace: Namespace) -> None:
        """The agent lives in another namespace from now on, as after a restart of its container."""
        self.stop_dhcp_client()
        self.agent.namespace.close()
        self.machines[self.plan.agent.name] = LabMachine(self.plan.agent, namespace)

    def on_close(self, ending: Callable[[], None]) -> None:
        """Have something ended together with the lab."""
        self._endings.append(ending)

    def wait_for_carrier(self, interface: str, *, present: bool) -> None:
        """Wait until the host's kernel has noticed that an interface has, or has lost, its carrier.

        Raises:
            LabCommandError: when it has not after 2 s.
        """
        wait_for_carrier(self.host.namespace, interface, present=present)

    def close(self) -> None:
        """End the lab. The kernel takes the namespaces apart in its own time."""
        self.stop_dhcp_client()
        # Its processes are in the host's process namespace, where there is one, which cannot end before they have.
        if self.engine is not None:
            self.engine.close()
        while self._endings:
            self._endings.pop()()
        for machine in self.machines.values():
            machine.namespace.close()


def wait_for_carrier(namespace: Namespace, interface: str, *, present: bool) -> None:
    """Wait for the link message that tells of an interface's carrier (rtnetlink(7), RTNLGRP_LINK).

    Raises:
        LabCommandError: when it has not come after 2 s.
    """

    def wait() -> bool:
        with IPRoute() as ipr:
            ipr.bind(RTMGRP_LINK)
            deadline = time.monotonic() + CARRIER_TIMEOUT
            while True:
                state = ipr.link("get", ifname=interface)[0]
                if bool(state["flags"] & IFF_LOWER_UP) == present:
                    return True
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not select.select([ipr.fileno()], [], [], remaining)[0]:
                    return False
                ipr.get()

    if not namespace.call(wait):
        raise LabCommandError(
            f"{namespace.name}: {interface} has {'no' if present else 'still a'} carrier after {CARRIER_TIMEOUT:g} s"
        )
