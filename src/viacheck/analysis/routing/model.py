"""The routing model: which way the kernel sends a packet, worked out from a snapshot alone, with every step named.

It answers as RTM_GETROUTE does (rtnetlink(7)): one lookup, for a packet of the host's own or one that arrives on an
interface. Where the kernel's choice hangs on a hash or on the neighbours' state (several nexthops, several equal
default routes), the model gives the set that it chooses from.
"""

from __future__ import annotations

from viacheck.analysis.routing.decision import Decision, Exit, RoutingOutcome
from viacheck.analysis.routing.ipv4 import IPv4Routing
from viacheck.analysis.routing.ipv6 import IPv6Routing
from viacheck.analysis.routing.link_loss import without_interface
from viacheck.analysis.routing.packet import LookupKey, Packet
from viacheck.analysis.routing.source_address import SourceSelection
from viacheck.model.snapshot import NetworkState

__all__ = ["Decision", "Exit", "Packet", "RoutingModel", "RoutingOutcome", "decide", "without_interface"]


class RoutingModel:
    """A snapshot's rules and routes, indexed when first needed, to be asked many times."""

    def __init__(self, state: NetworkState) -> None:
        """Take over a state, which must not change after."""
        self.state = state
        sources = SourceSelection(state)
        self._ipv4 = IPv4Routing(state, sources)
        self._ipv6 = IPv6Routing(state, sources)

    def decide(self, packet: Packet) -> Decision:
        """Work out the way of one packet.

        Raises:
            ValueError: when an address is none, or source and destination are of different families.
        """
        key = LookupKey.of(packet)
        return (self._ipv4 if key.family == 4 else self._ipv6).decide(packet, key)


def decide(state: NetworkState, packet: Packet) -> Decision:
    """Work out the way of one packet; keep a ``RoutingModel`` to ask about many.

    Raises:
        ValueError: when an address is none, or source and destination are of different families.
    """
    return RoutingModel(state).decide(packet)
