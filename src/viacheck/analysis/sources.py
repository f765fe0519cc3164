"""The sources of an agent that the intent names: interfaces or addresses whose packets are judged by themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from viacheck.analysis.paths import PathTracer, probe_traffic
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.sightings import answers_by_other_interface, answers_seen
from viacheck.analysis.traced_path import Path, PathEnd
from viacheck.model.check_evidence import PacketsEvidence
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
    """Return the path of a probe whose socket is bound to a source, and of its answer."""
    address = str(source.address) if source.address is not None else None
    traffic = replace(probe_traffic(resolved, protocol), source=address, device=source.interface)
    return PathTracer(resolved).trace(traffic)


@dataclass(frozen=True, slots=True)
class SourceAnswers:
    """Answers to the probes of a source that do not come back as they should."""

    text: str
    seen: bool
    """An answer was seen on an egress interface."""
    elsewhere: tuple[str, ...] = ()
    """Other egress interfaces than that of the probes by which answers came in."""


def source_answers(resolved: ResolvedIntent, uplink: str, packets: PacketsEvidence) -> SourceAnswers | None:
    """Return what is wrong with the answers to the probes of a source; None where they come back by its uplink."""
    astray = answers_by_other_interface(packets, uplink)
    elsewhere = tuple(name for name in astray if name in resolved.egress_interfaces)
    if elsewhere:
        by = ", ".join(f"{len(astray[name])} by {name}" for name in elsewhere)
        return SourceAnswers(f"answers come in by another interface: {by}", True, elsewhere)
    if packets.answered:
        return None
    seen = answers_seen(packets, uplink)
    return SourceAnswers(f"{len(seen)} answers were seen on {uplink}, none reached the agent", bool(seen))


def leaves_astray(path: Path, uplink: str) -> bool:
    """Whether the model shows that packets do not leave by an uplink, or only some flows do."""
    if path.end is PathEnd.UNKNOWN and not path.egress:
        return False
    return path.all_egress != {uplink}
