"""A packet as routing sees it: the addresses, interfaces, mark, protocol and ports that rules and routes look at."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from viacheck.model.snapshot import Family

LOOPBACK = "lo"
ROOT = 0


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet that a way is asked for (the keys of flowi(9): struct flowi4, struct flowi6)."""

    source: str | None
    """None: the host has yet to choose one (locally generated packets only)."""
    destination: str
    iif: str | None = None
    """The interface that it arrives on; None or ``lo`` for a packet that the host itself generates."""
    oif: str | None = None
    """The interface that its socket is bound to."""
    mark: int = 0
    protocol: int | None = None
    """IP protocol number; None leaves it out of the question, so that rules with ``ipproto`` do not match."""
    sport: int | None = None
    dport: int | None = None
    tos: int = 0
    """The whole TOS or traffic class byte."""
    uid: int = ROOT
    """Owner of the socket; the kernel asks for root where a packet is passed on."""

    def __str__(self) -> str:
        """The packet in the words of ``ip route get``."""
        words = [self.destination]
        for name, value in (("from", self.source), ("iif", self.iif), ("oif", self.oif)):
            if value is not None:
                words += [name, value]
        if self.mark:
            words += ["mark", f"0x{self.mark:x}"]
        if self.tos:
            words += ["tos", f"0x{self.tos:x}"]
        for name, number in (("ipproto", self.protocol), ("sport", self.sport), ("dport", self.dport)):
            if number is not None:
                words += [name, str(number)]
        if self.uid != ROOT:
            words += ["uid", str(self.uid)]
        return " ".join(words)


@dataclass(slots=True)
class LookupKey:
    """A packet made ready for comparing: addresses as integers, nothing left out."""

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
        """Read a packet.

        Raises:
            ValueError: when an address is none, or source and destination are of different families.
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
        """The host itself generates it."""
        return self.iif == LOOPBACK
