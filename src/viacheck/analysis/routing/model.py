"""The routing model: which route the kernel gives a packet, computed from a snapshot alone, with every step named.

It answers as RTM_GETROUTE does (rtnetlink(7)): a single lookup, for a packet that the host sends or that arrives on an
interface. Where the kernel's choice depends on a hash or on the neighbours' state (several nexthops, several equal
default routes), the model gives the set that the kernel chooses from.
"""

from __future__ import annotations

from functools import cached_property

from viacheck.analysis.routing.decision import Decision, Exit, RoutingOutcome
from viacheck.analysis.routing.ipv4 import IPv4Routing
from viacheck.analysis.routing.ipv6 import IPv6Routing
from viacheck.analysis.routing.link_loss import without_interface
from viacheck.analysis.routing.packet import LookupKey, Packet
from viacheck.analysis.routing.source_address import SourceSelection
from viacheck.model.namespace_state import NetworkState

__all__ = ["Decision", "Exit", "Packet", "RoutingModel", "RoutingOutcome", "decide", "without_interface"]


class RoutingModel:
    """A snapshot's rules and routes, indexed at the first decision of each family."""

    def __init__(self, state: NetworkState) -> None:
        """Hold a state, which must not change afterwards."""
        self.state = state

    @cached_property
    def _sources(self) -> SourceSelection:
        return SourceSelection(self.state)

    @cached_property
    def _ipv4(self) -> IPv4Routing:
        return IPv4Routing(self.state, self._sources)

    @cached_property
    def _ipv6(self) -> IPv6Routing:
        return IPv6Routing(self.state, self._sources)

    def decide(self, packet: Packet) -> Decision:
        """Decide the route of one packet.

        Raises:
            ValueError: if an address is invalid, or source and destination are of different families.
        """
        key = LookupKey.of(packet)
        return (self._ipv4 if key.family == 4 else self._ipv6).decide(packet, key)


def decide(state: NetworkState, packet: Packet) -> Decision:
    """Decide the route of one packet; keep a ``RoutingModel`` for many packets.

    Raises:
        ValueError: if an address is invalid, or source and destination are of different families.
    """
    return RoutingModel(state).decide(packet)
