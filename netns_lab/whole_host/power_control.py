"""The power of a whole host as an event uses it: the reboot, the cables, the boot, the agent that is back."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial

from netns_lab import rtnetlink_batch
from netns_lab.builder import QUIET_SYSCTLS, quick_neighbours, set_sysctls
from netns_lab.control import plug_in
from netns_lab.lab import Lab, LabMachine
from netns_lab.plan import HOST, Cable
from netns_lab.whole_host.host_lab import agent_path
from netns_lab.whole_host.power import WholeHost, WholeHostFailed
from netns_lab.whole_host.unit_states import failed_units, unfinished_jobs
from viacheck.disruption.controls import EventFailed, HostNotBack
from viacheck.host.namespace import Namespace, NotANamespace, open_netns
from viacheck.model.namespace_state import Link

LOOK_AGAIN_AFTER = 0.002
"""Seconds: as soon as the agent is there, its packets count."""
AGENT_WITHIN = 60.0
"""Seconds from power-on: less than an event may take."""
STATE_AGAIN_AFTER = 0.5
"""Seconds between two questions whether the boot is complete."""


class WholeHostPower:
    """The power of one lab's whole host. See :class:`viacheck.disruption.controls.PowerControl`."""

    def __init__(self, lab: Lab, whole_host: WholeHost) -> None:
        """Change nothing yet."""
        self._lab, self._whole_host = lab, whole_host
        self._agent: tuple[int, int] | None = None
        """The namespace that was taken for the agent's during the boot."""

    def reboot(self) -> None:
        """Reboot the host by systemctl; return when its last process has ended."""
        lab, host = self._lab, self._lab.host.namespace
        host.run(["systemctl", "reboot"])
        if not self.wait_until_off():
            raise HostNotBack("the host powered itself off instead of rebooting")
        # Nothing of the host can send any more, and a fence frame needs an interface that is up to prove it.
        for link, _cable, _other in self._cards():
            # An event may have given the card another index.
            index = host.call(partial(socket.if_nametoindex, link.name))
            rtnetlink_batch.send(host, [rtnetlink_batch.request("link", "set", index=index, state="up")])
            lab.wait_for_carrier(link.name, present=True)

    def wait_until_off(self) -> bool:
        """Return when the host's last process has ended: True if it asked to be powered on again.

        Raises:
            HostNotBack: it does not end, or was killed.
        """
        try:
            again = self._whole_host.wait_until_off()
        except WholeHostFailed as error:
            raise HostNotBack(str(error)) from error
        if self._lab.engine is not None:
            self._lab.engine.close()
        self._lab.machines.pop(self._lab.plan.agent.name).namespace.close()
        return again

    def plug_in(self) -> None:
        """Take the cards of the last boot out, and give the host new ones in a network namespace of the next boot."""
        lab, cards = self._lab, list(self._cards())
        for _link, cable, other in cards:
            other.ip("link", "del", "dev", cable.other_interface)
        fresh = Namespace.create(lab.host.namespace.name)
        set_sysctls(fresh, QUIET_SYSCTLS)
        for link, cable, other in cards:
            plug_in(fresh, link, other, cable)
        for _link, _cable, other in cards:
            # Several cards may lead to one switch, which has all its ports again only now.
            set_sysctls(other.namespace, quick_neighbours(other.plan.state.links))
        set_sysctls(fresh, quick_neighbours(link for link, _cable, _other in cards))
        lab.host.namespace.become(fresh)

    def power_on(self) -> None:
        """Start the host's init."""
        try:
            self._whole_host.power_on()
        except WholeHostFailed as error:
            raise HostNotBack(str(error)) from error

    def wait_for_agent(self) -> Namespace:
        """Return the agent's namespace as soon as the engine has made it, before the container has its interface.

        Raises:
            EventFailed: the host has booted, and the engine did not start the container.
            HostNotBack: the boot is not over in time: the agent may still come.
        """
        host, pause, next_state = self._lab.host.namespace, threading.Event(), time.monotonic() + STATE_AGAIN_AFTER
        booted, deadline = False, time.monotonic() + AGENT_WITHIN
        while True:
            if (path := agent_path(host)) is not None:
                # It may be gone again at once.
                with contextlib.suppress(NotANamespace):
                    agent = Namespace("agent", host.call(lambda: open_netns(path)))
                    self._agent = _identity(agent)
                    return agent
            if booted:
                raise self._agent_away()
            if time.monotonic() > deadline:
                raise HostNotBack(f"the boot is not complete after {AGENT_WITHIN:g} s: {unfinished_jobs(host)}")
            if time.monotonic() > next_state:
                booted = self._whole_host.has_booted()
                next_state = time.monotonic() + STATE_AGAIN_AFTER
            pause.wait(LOOK_AGAIN_AFTER)

    def wait_until_booted(self) -> Namespace | None:
        """Return when every job of the boot is done: the agent's namespace if it is not that of :meth:`wait_for_agent`.

        After a shutdown in which it was killed, an engine makes the namespace of the former container once more, and
        removes it, before it starts the container.
        """
        try:
            state = self._whole_host.wait_until_booted()
        except WholeHostFailed as error:
            raise HostNotBack(str(error)) from error
        if state != "running":
            self._lab.notes.append(f"units that failed at a boot: {failed_units(self._lab.host.namespace)}")
        host = self._lab.host.namespace
        if (path := agent_path(host)) is None:
            # Since Docker 26 the namespace of a container that cannot start is there for a moment.
            raise self._agent_away()
        try:
            agent = Namespace("agent", host.call(lambda: open_netns(path)))
        except NotANamespace:
            raise self._agent_away() from None
        if _identity(agent) != self._agent:
            return agent
        agent.close()
        return None

    def files_for_next_boot(self) -> Mapping[str, str]:
        """Return a digest of each file that the next boot finds on the disk, by path; without logs."""
        return self._whole_host.files_on_disk()

    def _agent_away(self) -> EventFailed:
        """Return why the container does not run after the boot, with the engine's own words if it has any."""
        name = self._lab.agent_container
        inspect = ("docker", "inspect", "--format", "{{.State.Error}}", name)
        error = self._lab.host.namespace.run(inspect).stdout.strip()
        return EventFailed(f"the container {name} does not run after the boot" + (f": {error}" if error else ""))

    def _cards(self) -> Iterator[tuple[Link, Cable, LabMachine]]:
        plan = self._lab.plan
        for cable in plan.cables:
            link = plan.host.state.link(cable.interface)
            if cable.machine == HOST and link is not None:
                yield link, cable, self._lab.machines[cable.other_machine]


def _identity(namespace: Namespace) -> tuple[int, int]:
    """Return what distinguishes a network namespace from every other (ioctl_ns(2))."""
    status = os.fstat(namespace.net_fd)
    return status.st_dev, status.st_ino
