"""A packet as routing sees it: the addresses, interfaces, mark, protocol and ports that rules and routes select by."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from viacheck.model.address_family import Family

LOOPBACK = "lo"
ROOT = 0


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet whose route is looked up (the fields of struct flowi4 and struct flowi6)."""

    source: str | None
    """None: the host has yet to choose its source address (locally generated packets only)."""
    destination: str
    iif: str | None = None
    """The interface that it arrives on; None or ``lo`` for a packet that the host generates."""
    oif: str | None = None
    """The interface that its socket is bound to."""
    mark: int = 0
    protocol: int | None = None
    """IP protocol number; None: not given, and rules with ``ipproto`` do not match."""
    sport: int | None = None
    dport: int | None = None
    tos: int = 0
    """The whole TOS or traffic class byte."""
    uid: int = ROOT
    """Owner of the socket; the kernel takes root for a forwarded packet."""

    def __str__(self) -> str:
        """The packet as ``ip route get`` takes it."""
        arguments = [self.destination]
        for name, value in (("from", self.source), ("iif", self.iif), ("oif", self.oif)):
            if value is not None:
                arguments += [name, value]
        if self.mark:
            arguments += ["mark", f"0x{self.mark:x}"]
        if self.tos:
            arguments += ["tos", f"0x{self.tos:x}"]
        for name, number in (("ipproto", self.protocol), ("sport", self.sport), ("dport", self.dport)):
            if number is not None:
                arguments += [name, str(number)]
        if self.uid != ROOT:
            arguments += ["uid", str(self.uid)]
        return " ".join(arguments)


@dataclass(slots=True)
class LookupKey:
    """A packet as selectors are compared with it: addresses as integers, and a value in every field."""

    family: Family
    source: int | None
    destination: int
    iif: str
    oif: str | None
    mark: int
    protocol: int
    sport: int
    dport: int
    tos: int
    uid: int

    @classmethod
    def of(cls, packet: Packet) -> LookupKey:
        """Return the key of a packet.

        Raises:
            ValueError: if an address is invalid, or source and destination are of different families.
        """
        destination = ip_address(packet.destination)
        source = None if packet.source is None else ip_address(packet.source)
        if source is not None and source.version != destination.version:
            raise ValueError(f"source {source} and destination {destination} are of different families")
        iif = packet.iif or LOOPBACK
        return cls(
            family=destination.version,
            source=None if source is None or int(source) == 0 else int(source),
            destination=int(destination),
            iif=iif,
            oif=packet.oif if iif == LOOPBACK else None,
            mark=packet.mark,
            protocol=packet.protocol or 0,
            sport=packet.sport or 0,
            dport=packet.dport or 0,
            tos=packet.tos,
            uid=packet.uid if iif == LOOPBACK else ROOT,
        )

    @property
    def local(self) -> bool:
        """The host generates the packet."""
        return self.iif == LOOPBACK
