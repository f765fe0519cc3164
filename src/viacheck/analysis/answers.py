"""The way of the answers through the host, by the model."""

from __future__ import annotations

from viacheck.analysis.paths import Path, PathEnd, PathTracer, Traffic
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS, ResolvedIntent


def misrouted_answer(resolved: ResolvedIntent) -> Path | None:
    """Return the path of a probe that leaves as intended, and whose answer the host sends elsewhere; None without."""
    tracer = PathTracer(resolved)
    for protocol in resolved.intent.probe.protocols:
        port = resolved.intent.probe.port if protocol != "icmp" else None
        traffic = Traffic(destination=resolved.target, protocol=PROTOCOL_NUMBERS[protocol], dport=port)
        path = tracer.trace(traffic)
        if path.end is PathEnd.LEAVES and path.egress == {resolved.uplink} and path.misrouted is not None:
            return path
    return None
