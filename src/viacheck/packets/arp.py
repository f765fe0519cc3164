"""ARP requests with chosen sender addresses: who answers for an address on a segment, and to which sender.

A packet socket sends the frames, so that the kernel's neighbour table is neither read nor changed (RFC 826; RFC 5227
for the probe with an empty sender address).
"""

from __future__ import annotations

import select
import time
from dataclasses import dataclass

from viacheck.host.link_state import LinkReader, LinkStatus
from viacheck.host.namespace import Namespace
from viacheck.packets import bpf
from viacheck.packets import scapy_import as scapy
from viacheck.packets.classify import ETH_P_ARP, read_arp
from viacheck.packets.packet_socket import (
    ETHERNET_HEADER,
    SHORTEST_FRAME,
    PacketSender,
    PacketSocket,
    close_in_background,
)

NO_ADDRESS = "0.0.0.0"  # noqa: S104 - RFC 5227's empty sender, not a socket address
_BROADCAST = "ff:ff:ff:ff:ff:ff"
ARP_REQUEST, ARP_REPLY = 1, 2


class InterfaceNotUp(Exception):
    """No frame can be sent by the interface; the message says why."""


@dataclass(frozen=True, slots=True)
class ARPAnswer:
    """One ARP reply."""

    address: str
    mac: str
    """The hardware address that the reply names."""
    frame_source: str
    """The MAC address that the frame came from; it differs from ``mac`` where a proxy answers."""
    seconds: float
    """Since the first request."""


def arp_request(
    namespace: Namespace,
    interface: str,
    target: str,
    *,
    sender: str = NO_ADDRESS,
    sender_mac: str | None = None,
    frame_source: str | None = None,
    count: int = 1,
    tries: int = 1,
    timeout: float = 1.0,
) -> list[ARPAnswer]:
    """Broadcast ``count`` ARP requests at once; wait for as many replies, or until the timeout.

    Broadcasts get lost on radio links: several tries are spread evenly over the timeout.

    Args:
        namespace: where the interface is.
        interface: the interface to send by.
        target: the requested IPv4 address.
        sender: the sender address; 0.0.0.0 changes no machine's neighbour table (RFC 5227).
        sender_mac: the sender's hardware address; the interface's own by default.
        frame_source: the frame's source MAC address; the interface's own by default.
        count: how many requests to send, and how many replies are enough.
        tries: how often the requests are sent, until enough replies have come.
        timeout: seconds to wait at most, over all tries.

    Raises:
        InterfaceNotUp: when the interface is missing, down, without carrier, or not Ethernet.
        OSError: EPERM without CAP_NET_RAW.
    """
    packets = namespace.call(PacketSender)
    try:
        state = usable_interface(namespace, packets, interface)
        own = state.mac.hex(":")
        request = ARPRequest(sender_mac or own, sender, target)
        replies = namespace.call(lambda: PacketSocket(state.index, state.hardware_type, _reply_filter()))
        try:
            frame = request.frame(frame_source or own)
            sent_ns = time.time_ns()
            answers: list[ARPAnswer] = []
            for _ in range(tries):
                for _ in range(count - len(answers)):
                    packets.send(state.index, ETH_P_ARP, frame)
                answers += _receive_replies(replies, request, count - len(answers), timeout / tries, sent_ns)
            return answers
        finally:
            close_in_background([replies])
    finally:
        close_in_background([packets])


def usable_interface(namespace: Namespace, packets: PacketSender, interface: str) -> LinkStatus:
    """Return the state of an Ethernet interface that is up.

    Raises:
        InterfaceNotUp: when it is not up, or not Ethernet; the message says which.
    """
    links = LinkReader(namespace, packets.fileno())
    try:
        state = links.read(interface)
    finally:
        links.close()
    if state.condition != "up":
        raise InterfaceNotUp(f"{interface} is {state.condition}")
    if state.hardware_type != 1:
        raise InterfaceNotUp(f"{interface} is not an Ethernet interface")
    return state


@dataclass(frozen=True, slots=True)
class ARPRequest:
    """The addresses of an ARP request."""

    sender_mac: str
    sender: str
    target: str

    def frame(self, source: str) -> bytes:
        """Build the broadcast frame."""
        arp = scapy.ARP(op=ARP_REQUEST, hwsrc=self.sender_mac, psrc=self.sender, pdst=self.target)
        return bytes(scapy.Ether(src=source, dst=_BROADCAST) / arp).ljust(SHORTEST_FRAME, b"\0")

    def answered_by(self, octets: bytes) -> str | None:
        """Return the hardware address that a reply to this request names; None for any other frame.

        A reply to the kernel's own request names another sender (RFC 826).
        """
        reply = read_arp(octets[ETHERNET_HEADER:])
        if reply is None or reply.sender != self.target:
            return None
        is_ours = (reply.target_mac, reply.target) == (self.sender_mac.lower(), self.sender)
        return reply.sender_mac if is_ours else None


def _reply_filter() -> bytes:
    return bpf.assemble(
        [
            bpf.load(2, bpf.PROTOCOL),
            bpf.if_equal(ETH_P_ARP, false="refuse"),
            bpf.load(2, bpf.NETWORK + 6),
            bpf.if_equal(ARP_REPLY, false="refuse"),
            bpf.accept(SHORTEST_FRAME),
            "refuse",
            bpf.accept(0),
        ]
    )


def _receive_replies(
    replies: PacketSocket, request: ARPRequest, count: int, timeout: float, sent_ns: int
) -> list[ARPAnswer]:
    answers: list[ARPAnswer] = []
    poll = select.poll()
    poll.register(replies.fileno(), select.POLLIN)
    deadline = time.monotonic() + timeout
    while len(answers) < count:
        remaining = deadline - time.monotonic()
        if remaining <= 0 or not poll.poll(remaining * 1000):
            break
        for received in replies.receive():
            mac = request.answered_by(received.octets)
            if mac is not None and not received.outgoing:
                source = received.octets[6:12].hex(":")
                answers.append(ARPAnswer(request.target, mac, source, (received.time_ns - sent_ns) / 1e9))
    return answers
