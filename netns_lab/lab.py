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

from fixtures.access.commands import CommandResult
from fixtures.access.namespace import Namespace
from netns_lab.engine import Engine
from netns_lab.far_end import FarEnd
from netns_lab.plan import LabPlan, Machine

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

    def read(self, path: str) -> str:
        """Read a file as the machine sees it."""
        return self.namespace.call(lambda: Path(path).read_text())


class Lab:
    """A living lab. It ends when it is closed, and at the latest with this process.

    Attributes:
        plan: what it was built from.
        engine: the Docker engine that works on the host, in the engine flavour.
        agent_container: what the agent's container is called there.
    """

    def __init__(self, plan: LabPlan, machines: dict[str, LabMachine], far_end: FarEnd, engine: Engine | None) -> None:
        self.plan = plan
        self.machines = machines
        self.engine = engine
        self.agent_container = AGENT_CONTAINER
        self._endings: list[Callable[[], None]] = [far_end.close]

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
        cable = next(c for c in self.plan.cables if c.machine == self.plan.host.name and c.interface == uplink)
        return self.machines[cable.other_machine]

    @property
    def gateways(self) -> Sequence[LabMachine]:
        """Every gateway."""
        return [self.machines[gateway.name] for gateway in self.plan.gateways]

    def at_end(self, ending: Callable[[], None]) -> None:
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
        while self._endings:
            self._endings.pop()()
        if self.engine is not None:
            self.engine.close()
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
