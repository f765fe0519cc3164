"""Captured frames as scapy packets, dissected only when a caller asks for a packet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viacheck.packets import scapy_import as scapy

if TYPE_CHECKING:
    from viacheck.packets.scapy_import import Packet

_INBOUND, _OUTBOUND = 1, 2
"""Values of ``Packet.direction``, as in the flags of a pcapng file."""


def scapy_packet(
    octets: bytes, *, ethernet: bool, time_ns: int, length: int, outgoing: bool, interface: str, comment: str = ""
) -> Packet:
    """Dissect a frame.

    Args:
        octets: the frame, possibly cut short.
        ethernet: whether it begins with an Ethernet header, or with an IP header.
        time_ns: since the epoch; becomes ``time``, with all its nanoseconds.
        length: of the whole frame; becomes ``wirelen``.
        outgoing: becomes ``direction``: 2 for a frame that left, 1 for a frame that came in.
        interface: becomes ``sniffed_on``.
        comment: becomes the only entry of ``comments``.
    """
    packet = _dissect(octets, ethernet)
    packet.time = scapy.EDecimal(time_ns) / 10**9
    packet.wirelen = length
    packet.direction = _OUTBOUND if outgoing else _INBOUND
    packet.sniffed_on = interface
    if comment:
        packet.comments = [comment.encode()]
    return packet


def _dissect(octets: bytes, ethernet: bool) -> Packet:
    version = octets[0] >> 4 if octets else 0
    layer = scapy.Ether if ethernet else {4: scapy.IP, 6: scapy.IPv6}.get(version, scapy.Raw)
    try:
        return layer(octets)
    except Exception:
        # A frame that is too short for its first layer.
        return scapy.Raw(octets)
