"""The sources of an agent that the intent names: interfaces or addresses whose packets are judged by themselves."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from viacheck.analysis.paths import PathTracer, probe_traffic
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.traced_path import Path, PathEnd
from viacheck.model.intent import Source, TransportProtocol


def source_uplink(resolved: ResolvedIntent, source: Source) -> str:
    """Return the uplink that the packets of a source must leave by."""
    return source.uplink or resolved.uplink


def missing_source(resolved: ResolvedIntent, source: Source) -> str | None:
    """Return what the agent lacks to send from a source; None when it has it, or its state is not known."""
    agent = resolved.snapshot.agent
    if agent is None:
        return None
    if source.interface is not None and agent.link(source.interface) is None:
        return f"the agent has no interface {source.interface}"
    if source.address is not None and all(own.address != str(source.address) for own in agent.addresses):
        return f"the agent has no address {source.address}"
    return None


@lru_cache(maxsize=64)
def source_path(resolved: ResolvedIntent, source: Source, protocol: TransportProtocol) -> Path:
    """Return the path of a probe whose socket is bound to a source."""
    address = str(source.address) if source.address is not None else None
    traffic = replace(probe_traffic(resolved, protocol), source=address, device=source.interface)
    return PathTracer(resolved, answers=False).trace(traffic)


def leaves_astray(path: Path, uplink: str) -> bool:
    """Whether the model shows that packets do not leave by an uplink, or only some flows do."""
    if path.end is PathEnd.UNKNOWN and not path.egress:
        return False
    return path.all_egress != {uplink}
