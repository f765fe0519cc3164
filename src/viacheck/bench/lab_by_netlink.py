"""The least time to build a lab: the same interfaces, addresses, rules and routes, encoded in advance and sent.

One thread creates every namespace and keeps a socket in each, so that it enters no namespace twice. Private files, the
services of the far end and error messages are missing on purpose.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from netns_lab import nft_rules, rtnetlink_batch
from netns_lab.builder import configuration
from netns_lab.plan import LabPlan
from viacheck.host import syscalls
from viacheck.host.namespace import Namespace
from viacheck.host.sysctl import write_sysctl
from viacheck.netlink.codec import NetlinkSocket, decode_messages, raise_error

T = TypeVar("T")
FIRST_DESCRIPTOR = 900
"""Encoded messages name namespaces by descriptor: each namespace gets a fixed descriptor before they are sent."""


class _Here(Namespace):
    """The namespace that the calling thread is in."""

    def call(self, function: Callable[[], T]) -> T:
        return function()


@dataclass(frozen=True, slots=True)
class _Encoded:
    descriptor: int
    sysctls: dict[str, str]
    links: bytes
    link_count: int
    rest: bytes
    rest_count: int


class LabByNetlink:
    """An encoded plan, from which labs are built one after the other."""

    def __init__(self, plan: LabPlan) -> None:
        """Encode every message."""
        self._plan = plan
        # The host last: its packet filter is then applied by the thread that is still in it.
        self._names = [machine.name for machine in reversed(plan.machines)]
        descriptors = {name: FIRST_DESCRIPTOR + place for place, name in enumerate(self._names)}
        self._encoded: dict[str, _Encoded] = {}
        for machine in plan.machines:
            links = [rtnetlink_batch.add_link(link) for link in machine.state.links if link.kind != "veth"]
            for cable in plan.cables:
                if cable.machine == machine.name:
                    other = next(end for end in plan.machines if end.name == cable.other_machine)
                    ends = machine.state.link(cable.interface), other.state.link(cable.other_interface)
                    assert ends[0] is not None
                    assert ends[1] is not None
                    links.append(
                        rtnetlink_batch.add_veth(ends[0], ends[1], Namespace(other.name, descriptors[other.name]))
                    )
            rest = configuration(machine)
            self._encoded[machine.name] = _Encoded(
                descriptors[machine.name], machine.state.sysctls,
                rtnetlink_batch.encode(links), len(links), rtnetlink_batch.encode(rest), len(rest),
            )  # fmt: skip

    @contextlib.contextmanager
    def built(self) -> Iterator[Namespace]:
        """Build the lab; yield the agent's namespace, and remove the lab at the end."""
        failed: list[BaseException] = []

        def build() -> None:
            try:
                self._build()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=build, name="lab-by-netlink")
        thread.start()
        thread.join()
        try:
            if failed:
                raise failed[0]
            agent = Namespace("agent", os.dup(self._encoded[self._plan.agent.name].descriptor))
            try:
                yield agent
            finally:
                agent.close()
        finally:
            for encoded in self._encoded.values():
                with contextlib.suppress(OSError):
                    os.close(encoded.descriptor)

    def _build(self) -> None:
        with contextlib.ExitStack() as closing:
            sockets: dict[str, NetlinkSocket] = {}
            for name in self._names:
                syscalls.unshare(syscalls.CLONE_NEWNET)
                namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
                os.dup2(namespace, self._encoded[name].descriptor, inheritable=False)
                os.close(namespace)
                sockets[name] = closing.enter_context(NetlinkSocket(socket.NETLINK_ROUTE))
                for path, value in self._encoded[name].sysctls.items():
                    write_sysctl(path, value)
            for name, encoded in self._encoded.items():
                _send(sockets[name], encoded.links, encoded.link_count)
            for name in self._names:
                _send(sockets[name], self._encoded[name].rest, self._encoded[name].rest_count)
            nft_rules.apply(_Here("host", -1), "lab", self._plan.host.packet_filter)


def _send(netlink: NetlinkSocket, batch: bytes, count: int) -> None:
    """Send a batch and wait for the answer to its last message; the kernel works through it in order."""
    if not count:
        return
    netlink.send(batch)
    while True:
        for answer in decode_messages(netlink.receive()):
            raise_error(answer.payload)
            if answer.sequence == count:
                return
