"""Whether an agent that the intent puts behind NAT really is there: it may share the host's network, or use a tunnel.

The host's rules and source NAT see nothing of such an agent's packets, so they are not blamed for where these leave.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from viacheck.analysis.paths import PathEnd, PathTracer, Traffic
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS, ResolvedIntent
from viacheck.model.intent import NatAttach


class BesideNAT(StrEnum):
    """Why the agent's packets do not pass the host's NAT."""

    HOST_NETWORK = "host-network"
    TUNNEL = "tunnel"


@dataclass(frozen=True, slots=True)
class AgentNetwork:
    """An agent whose packets do not pass the host's NAT."""

    kind: BesideNAT
    text: str


def beside_nat(resolved: ResolvedIntent) -> AgentNetwork | None:
    """Return why the packets of an agent behind NAT do not pass the host's NAT; None when they do."""
    if not isinstance(resolved.intent.agent.attach, NatAttach) or resolved.snapshot.agent is None:
        return None
    if shares_host_network(resolved):
        return AgentNetwork(
            BesideNAT.HOST_NETWORK, "the agent shares the host's network: its packets are the host's own"
        )
    protocol = PROTOCOL_NUMBERS[resolved.intent.probe.protocols[0]]
    path = PathTracer(resolved).trace(Traffic(destination=resolved.target, protocol=protocol))
    if path.end is PathEnd.TUNNEL:
        return AgentNetwork(BesideNAT.TUNNEL, path.reason)
    return None


def shares_host_network(resolved: ResolvedIntent) -> bool:
    """Return whether the agent is in the host's own network namespace, as with ``docker run --network host``."""
    snapshot = resolved.snapshot
    container = snapshot.engine.container if snapshot.engine is not None else None
    if container is not None:
        return container.network_mode == "host"
    if snapshot.agent is None:
        return False
    here, there = (
        {(link.index, link.name, link.mac) for link in state.links} for state in (snapshot.host, snapshot.agent)
    )
    return here == there and len(here) > 1
