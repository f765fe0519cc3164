"""The test for an address conflict on the parent's segment: who else holds the agent's address, or its MAC address too.

ARP probes leave from the parent and from the agent, at the times of RFC 5227, and every ARP packet is heard meanwhile.
A machine that has the agent's MAC address as well shows in three ways: it answers a request that the agent cannot hear,
it answers a second time, or its frames come in from outside. The test runs in a thread of its own.
"""

from __future__ import annotations

import os
import random
import select
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from viacheck.host.namespace import Namespace
from viacheck.model.measurements import AddressClaim, AddressFacts, AddressHolder, ClaimSign
from viacheck.packets import bpf
from viacheck.packets.arp import ARP_REPLY, NO_ADDRESS, ARPRequest, InterfaceNotUp, usable_interface
from viacheck.packets.classify import ETH_P_ARP, read_arp
from viacheck.packets.packet_socket import (
    ETHERNET_HEADER,
    PacketSender,
    PacketSocket,
    Received,
    close_in_background,
)

PROBES = 3
"""PROBE_NUM of RFC 5227."""
PROBE_INTERVAL = (1.0, 2.0)
"""Seconds between probes: PROBE_MIN and PROBE_MAX of RFC 5227."""
ANNOUNCE_WAIT = 2.0
"""Seconds after the last probe (RFC 5227)."""
SETTLING_TIME = 0.3
"""Seconds for further signs after the first one; and for reflections of frames that left before the test began."""
_HEADERS = 34
"""Octets of an Ethernet and an IPv4 header. A reflected frame has the same ones; checksums behind them may differ."""


@dataclass(frozen=True, slots=True)
class Side:
    """An interface from which the agent's address is asked for."""

    namespace: Namespace
    interface: str


@dataclass(slots=True)
class _OpenSide:
    """The sockets of a side."""

    holder: AddressHolder
    index: int
    request: ARPRequest
    frame: bytes
    sender: PacketSender
    listener: PacketSocket


@dataclass(slots=True)
class _Signs:
    """What was heard of one MAC address."""

    heard_by: set[AddressHolder] = field(default_factory=set)
    signs: set[ClaimSign] = field(default_factory=set)


class AddressConflictTest:
    """The test of one address. It begins when it is made."""

    def __init__(
        self, address: str, agent_mac: str, sides: Mapping[AddressHolder, Side], *, agent_is_apart: bool
    ) -> None:
        """Open the sockets, and begin to ask and to listen.

        Args:
            address: the agent's IPv4 address.
            agent_mac: the agent's own MAC address.
            sides: the parent, and the agent where its namespace is open; a side that is not up is left out.
            agent_is_apart: whether the agent hears no frame of its parent, as on a macvlan interface.

        Raises:
            OSError: EPERM without CAP_NET_RAW.
        """
        self._address, self._mac, self._apart = address, agent_mac.lower(), agent_is_apart
        self._sides: list[_OpenSide] = []
        self._stop = os.eventfd(0)
        for holder, side in sides.items():
            self._open(holder, side)
        self._own_macs = {self._mac, *(side.request.sender_mac.lower() for side in self._sides)}
        self._sent: set[bytes] = set()
        self._own_answers = 0
        self._heard: dict[str, _Signs] = {}
        self._began = time.monotonic()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="address-conflict")
        self._facts = self._pool.submit(self._run)

    def result(self) -> AddressFacts | None:
        """Wait until the test has ended, and return its result; None when no side is up."""
        return self._facts.result()

    def close(self) -> None:
        """End the test, also before its time."""
        os.eventfd_write(self._stop, 1)
        self._pool.shutdown()
        os.close(self._stop)
        close_in_background([end for side in self._sides for end in (side.listener, side.sender)])

    def _open(self, holder: AddressHolder, side: Side) -> None:
        sender = side.namespace.call(PacketSender)
        try:
            state = usable_interface(side.namespace, sender, side.interface)
            program = _filter(bytes.fromhex(self._mac.replace(":", "")))
            listener = side.namespace.call(lambda: PacketSocket(state.index, state.hardware_type, program))
        except InterfaceNotUp:
            close_in_background([sender])
            return
        except BaseException:
            close_in_background([sender])
            raise
        mac = state.mac.hex(":")
        request = ARPRequest(mac, NO_ADDRESS, self._address)
        self._sides.append(_OpenSide(holder, state.index, request, request.frame(mac), sender, listener))

    def _run(self) -> AddressFacts | None:
        if not self._sides:
            return None
        poll = select.poll()
        poll.register(self._stop, select.POLLIN)
        for side in self._sides:
            poll.register(side.listener.fileno(), select.POLLIN)
        # Times are chosen at random, so that two machines that test at once hear each other (RFC 5227, 2.1.1).
        first, second = (random.uniform(*PROBE_INTERVAL) for _ in range(PROBES - 1))  # noqa: S311
        due = [self._began, self._began + first, self._began + first + second]
        deadline, asked = due[-1] + ANNOUNCE_WAIT, 0
        while (now := time.monotonic()) < deadline:
            if due and now >= due[0]:
                del due[0]
                asked += 1
                self._own_answers = 0
                self._ask()
            ready = dict(poll.poll((min([deadline, *due[:1]]) - now) * 1000 + 1))
            if self._stop in ready:
                break
            for side in self._sides:
                for received in side.listener.receive():
                    self._hear(side, received)
            if self._heard:
                deadline, due = min(deadline, time.monotonic() + SETTLING_TIME), []
        claims = tuple(
            AddressClaim(
                mac,
                tuple(side.holder for side in self._sides if side.holder in heard.heard_by),
                tuple(sign for sign in ClaimSign if sign in heard.signs),
            )
            for mac, heard in self._heard.items()
        )
        asked_from = tuple(side.holder for side in self._sides)
        lost = sum(side.listener.frames_lost() for side in self._sides)
        return AddressFacts(claims, asked_from, asked, time.monotonic() - self._began, lost)

    def _ask(self) -> None:
        for side in self._sides:
            try:
                side.sender.send(side.index, ETH_P_ARP, side.frame)
            except OSError:
                # The interface went down since the test began: HOST-02 reports that.
                continue

    def _hear(self, side: _OpenSide, received: Received) -> None:
        if received.outgoing:
            self._sent.add(received.octets[:_HEADERS])
            return
        source = received.octets[6:12].hex(":")
        arp = read_arp(received.octets[ETHERNET_HEADER:]) if received.protocol == ETH_P_ARP else None
        answers = arp is not None and side.request.answered_by(received.octets) == self._mac
        if arp is not None and arp.sender == self._address and arp.sender_mac not in self._own_macs:
            self._note(side, arp.sender_mac, ClaimSign.OTHER_MAC)
        elif answers and arp is not None and arp.operation == ARP_REPLY:
            self._own_answers += 1
            if self._apart:
                self._note(side, self._mac, ClaimSign.AGENT_NOT_ASKED)
            elif self._own_answers > 1:
                self._note(side, self._mac, ClaimSign.ANSWERED_TWICE)
        elif side.holder == "parent" and source == self._mac and self._apart and self._comes_from_outside(received):
            self._note(side, self._mac, ClaimSign.FRAMES_FROM_OUTSIDE)

    def _comes_from_outside(self, received: Received) -> bool:
        """Return whether a frame is no reflection: a bond or a loop of switches returns broadcasts to their sender."""
        settled = time.monotonic() - self._began > SETTLING_TIME
        return settled and received.octets[:_HEADERS] not in self._sent

    def _note(self, side: _OpenSide, mac: str, sign: ClaimSign) -> None:
        heard = self._heard.setdefault(mac, _Signs())
        heard.heard_by.add(side.holder)
        heard.signs.add(sign)


def _filter(agent_mac: bytes) -> bytes:
    """Return the program that accepts ARP, and every frame from the agent's MAC address."""
    return bpf.assemble(
        [
            # A frame with a VLAN tag belongs to another segment.
            bpf.load(1, bpf.VLAN_TAG_PRESENT),
            bpf.if_equal(0, false="refuse"),
            bpf.load(2, bpf.PROTOCOL),
            bpf.if_equal(ETH_P_ARP, true="accept"),
            bpf.load(4, 6),
            bpf.if_equal(int.from_bytes(agent_mac[:4], "big"), false="refuse"),
            bpf.load(2, 10),
            bpf.if_equal(int.from_bytes(agent_mac[4:], "big"), false="refuse"),
            "accept",
            bpf.accept(ETHERNET_HEADER + 46),
            "refuse",
            bpf.accept(0),
        ]
    )
