"""What a caller asks of probes: protocol, destination, how many, and how each is sent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from viacheck.packets.tokens import ProbeProtocol

DEFAULT_PORT = 33434
DNS_PORT = 53
NAME_SUFFIX = "viacheck.invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRequest:
    """Probes to send."""

    protocol: ProbeProtocol
    destination: str
    """An IPv4 or IPv6 address."""
    count: int = 1
    port: int | None = None
    """Destination port; by default 53 for DNS and 33434 for other protocols."""
    source: str | None = None
    """Source address; by default the kernel chooses."""
    source_port: int | None = None
    """UDP and TCP source port, ICMP identifier: all probes then belong to one flow."""
    device: str | None = None
    """Interface that the socket is bound to."""
    size: int | None = None
    """Octets of the whole IP packet, never fragmented, whatever path MTU the kernel has learned. Not for DNS."""
    mark: int | None = None
    ttl: int | None = None
    name_suffix: str = NAME_SUFFIX
    """The end of a DNS probe's name. Some resolvers answer ``.invalid`` themselves (RFC 6761)."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return _version(self.destination)

    @property
    def to_port(self) -> int:
        """The destination port; 0 for ICMP."""
        if self.protocol == "icmp":
            return 0
        return self.port if self.port is not None else DNS_PORT if self.protocol == "dns" else DEFAULT_PORT


@lru_cache(maxsize=1024)
def _version(address: str) -> int:
    """Return 4 or 6. Every probe asks for the version of its destination, some ten times."""
    return ip_address(address.partition("%")[0]).version
