"""ARP asked on purpose: who has an address on a segment, and with which sender the question gets through.

Frames are built here and sent by a packet socket, so that nothing of the kernel's neighbour table is used or changed
(RFC 826; RFC 5227 for the probe with an empty sender address).
"""

from __future__ import annotations

import select
import time
from dataclasses import dataclass

from viacheck.host.link_state import LinkReader, LinkState
from viacheck.host.namespace import Namespace
from viacheck.packets import bpf
from viacheck.packets.classify import ETH_P_ARP
from viacheck.packets.scapy_import import ARP, Ether, Packet
from viacheck.packets.scapy_socket import PacketSender, PacketSocket, close_in_background

NO_ADDRESS = "0.0.0.0"  # noqa: S104 - RFC 5227's empty sender, not a socket address
_BROADCAST = "ff:ff:ff:ff:ff:ff"
_ETHERNET_HEADER = 14
_SHORTEST_FRAME = 60
_REQUEST, _REPLY = 1, 2


class InterfaceNotUp(Exception):
    """ARP cannot be asked on the interface; the message says why."""


@dataclass(frozen=True, slots=True)
class ARPAnswer:
    """One reply."""

    address: str
    mac: str
    """The hardware address that the reply names."""
    frame_source: str
    """The MAC address that the frame came from; it differs from ``mac`` where a proxy answers."""
    seconds: float
    """After the first question."""


def ask(
    namespace: Namespace,
    interface: str,
    target: str,
    *,
    sender: str = NO_ADDRESS,
    sender_mac: str | None = None,
    frame_source: str | None = None,
    count: int = 1,
    timeout: float = 1.0,
) -> list[ARPAnswer]:
    """Broadcast ``count`` ARP requests at once, and wait until as many replies are in or the time is over.

    Args:
        namespace: where the interface is.
        interface: by which to ask.
        target: the IPv4 address that is asked for.
        sender: the address that asks; 0.0.0.0 changes nobody's neighbour table (RFC 5227).
        sender_mac: the hardware address inside the request; the interface's own when left out.
        frame_source: the frame's source MAC address; the interface's own when left out.
        count: how many requests, and how many replies are enough.
        timeout: seconds to wait at most.

    Raises:
        InterfaceNotUp: when the interface is missing, down, without carrier, or has no hardware addresses.
        OSError: EPERM without CAP_NET_RAW.
    """
    packets = namespace.call(PacketSender)
    try:
        state = usable_interface(namespace, packets, interface)
        own = state.mac.hex(":")
        program = bpf.assemble(
            [
                bpf.load(2, bpf.PROTOCOL),
                bpf.if_equal(ETH_P_ARP, false="refuse"),
                bpf.load(2, bpf.NETWORK + 6),
                bpf.if_equal(_REPLY, false="refuse"),
                bpf.accept(_SHORTEST_FRAME),
                "refuse",
                bpf.accept(0),
            ]
        )
        request = Ether(src=frame_source or own, dst=_BROADCAST) / ARP(
            op=_REQUEST, hwsrc=sender_mac or own, psrc=sender, pdst=target
        )
        replies = namespace.call(lambda: PacketSocket(state.index, state.hardware_type, program))
        try:
            frame = bytes(request).ljust(_SHORTEST_FRAME, b"\0")
            asked_ns = time.time_ns()
            for _ in range(count):
                packets.send(state.index, ETH_P_ARP, frame)
            return _replies(replies, request[ARP], count, timeout, asked_ns)
        finally:
            close_in_background([replies])
    finally:
        close_in_background([packets])


def usable_interface(namespace: Namespace, packets: PacketSender, interface: str) -> LinkState:
    """The state of an Ethernet interface that is up.

    Raises:
        InterfaceNotUp: when it is not; the message says what it is.
    """
    links = LinkReader(namespace, packets.fileno())
    try:
        state = links.read(interface)
    finally:
        links.close()
    if state.word != "up":
        raise InterfaceNotUp(f"{interface} is {state.word}")
    if state.hardware_type != 1:
        raise InterfaceNotUp(f"{interface} is no Ethernet interface")
    return state


def _replies(one: PacketSocket, asked: Packet, count: int, timeout: float, asked_ns: int) -> list[ARPAnswer]:
    """Collect what answers this request; an answer to the kernel's own question names another sender (RFC 826)."""
    target, sender = asked.pdst, (asked.hwsrc.lower(), asked.psrc)
    answers: list[ARPAnswer] = []
    poll = select.poll()
    poll.register(one.fileno(), select.POLLIN)
    deadline = time.monotonic() + timeout
    while len(answers) < count:
        remaining = deadline - time.monotonic()
        if remaining <= 0 or not poll.poll(remaining * 1000):
            break
        for received in one.receive():
            reply = ARP(received.octets[_ETHERNET_HEADER:])
            is_ours = reply.psrc == target and (str(reply.hwdst).lower(), reply.pdst) == sender
            if not received.outgoing and is_ours:
                mac, source = str(reply.hwsrc).lower(), received.octets[6:12].hex(":")
                answers.append(ARPAnswer(target, mac, source, (received.time_ns - asked_ns) / 1e9))
    return answers
