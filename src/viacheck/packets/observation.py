"""What a watch period has seen: the frames that have a role in this run, and where absence is proven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

from viacheck.model.check_evidence import WatchedInterface
from viacheck.packets.classify import ClassifiedFrame, Role
from viacheck.packets.packet_socket import SNAP_LENGTH, Received
from viacheck.packets.pcapng import LINKTYPE_ETHERNET, LINKTYPE_RAW, CapturedPacket, write_pcapng
from viacheck.packets.scapy_packet import scapy_packet

if TYPE_CHECKING:
    from viacheck.packets.scapy_import import Packet

Direction = Literal["out", "in"]


class Frame(NamedTuple):
    """One captured frame, and its role in this run. Few of its fields are ever read of most frames."""

    interface: str
    ethernet: bool
    """Whether the frame begins with an Ethernet header, or with an IP header."""
    received: Received
    classified: ClassifiedFrame

    @property
    def time_ns(self) -> int:
        """Since the epoch, by the kernel's clock at the interface."""
        return self.received.time_ns

    @property
    def direction(self) -> Direction:
        """Whether the frame left by the interface or came in."""
        return "out" if self.received.outgoing else "in"

    @property
    def number(self) -> int | None:
        """The token's number within the run; None for ARP and DHCP."""
        token = self.classified.token
        return token.number if token is not None else None

    @property
    def role(self) -> Role:
        """Whether it is a probe, an answer, an error, or another frame."""
        return self.classified.role

    @property
    def protocol(self) -> str:
        """``icmp``, ``udp``, ``tcp``, ``dns``, ``arp``, ``icmpv6``, ``dhcp``."""
        return self.classified.protocol

    @property
    def source(self) -> str:
        """The source address."""
        return self.classified.source

    @property
    def destination(self) -> str:
        """The destination address."""
        return self.classified.destination

    @property
    def source_mac(self) -> str:
        """The source MAC address; empty without an Ethernet header."""
        return self.received.octets[6:12].hex(":") if self.ethernet else ""

    @property
    def destination_mac(self) -> str:
        """The destination MAC address; empty without an Ethernet header."""
        return self.received.octets[:6].hex(":") if self.ethernet else ""

    @property
    def length(self) -> int:
        """Octets of the whole frame."""
        return self.received.length

    @property
    def note(self) -> str:
        """What the frame reports: flags of TCP, an ICMP error, an ARP operation."""
        return self.classified.note

    @property
    def mtu(self) -> int | None:
        """The MTU of the next hop that an ICMP error reports."""
        return self.classified.mtu

    @property
    def octets(self) -> bytes:
        """The frame's first SNAP_LENGTH octets."""
        return self.received.octets

    @property
    def link_type(self) -> int:
        """LINKTYPE_* of the capture file."""
        return LINKTYPE_ETHERNET if self.ethernet else LINKTYPE_RAW

    @property
    def packet(self) -> Packet:
        """Dissect the frame by scapy; ``time``, ``sniffed_on``, ``direction``, ``wirelen``, ``comments`` are set."""
        return scapy_packet(
            self.octets,
            ethernet=self.ethernet,
            time_ns=self.time_ns,
            length=self.length,
            outgoing=self.direction == "out",
            interface=self.interface,
            comment=_comment(self, {}),
        )


@dataclass(frozen=True)
class Observation:
    """The result of a watch period."""

    watched: tuple[WatchedInterface, ...]
    frames: tuple[Frame, ...]
    """In order of time."""
    unproven: Mapping[str, str]
    """Why absence is not proven, by interface; interfaces on which absence is proven are left out."""

    @cached_property
    def packets(self) -> list[Packet]:
        """The frames as scapy packets, in order of time. They are dissected at the first use."""
        return [frame.packet for frame in self.frames]

    def seen(self, interface: str, direction: Direction = "out", role: Role = "probe") -> list[Frame]:
        """Return the frames of one role on one interface, in order of time."""
        return [
            frame
            for frame in self.frames
            if (frame.interface, frame.direction, frame.role) == (interface, direction, role)
        ]

    def proven_absent(self, interface: str) -> tuple[bool, str]:
        """Return whether it is proven that no probe left by an interface, and the reason either way."""
        watched = next((watched for watched in self.watched if watched.interface == interface), None)
        if watched is None:
            return False, f"{interface} was not watched"
        left = len(self.seen(interface))
        if left:
            return False, f"{left} probes were seen leaving by {interface}"
        if interface in self.unproven:
            return False, f"{interface}: {self.unproven[interface]}"
        if watched.state == "up":
            return True, f"{interface}: the capture saw the fence frame, lost no frame, and saw no probe"
        return True, f"{interface} was {watched.state} all the time, and sent nothing"

    def write_capture(self, path: str, numbers: Mapping[int, int]) -> None:
        """Write every frame to a pcapng file; ``numbers`` maps a token's number to the probe's number in the check.

        Raises:
            OSError: when the file cannot be written.
        """
        packets = [
            CapturedPacket(
                interface=frame.interface,
                link_type=frame.link_type,
                time_ns=frame.time_ns,
                octets=frame.octets,
                length=frame.length,
                outgoing=frame.direction == "out",
                comment=_comment(frame, numbers),
            )
            for frame in self.frames
        ]
        write_pcapng(path, [watched.interface for watched in self.watched], packets, SNAP_LENGTH)


def _comment(frame: Frame, numbers: Mapping[int, int]) -> str:
    number = numbers.get(frame.number) if frame.number is not None else None
    role = frame.role if number is None else f"{frame.role} {number}"
    comment = f"{role} {frame.protocol} {frame.direction}"
    return f"{comment}: {frame.note}" if frame.note else comment
