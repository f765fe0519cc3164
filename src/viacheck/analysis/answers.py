"""The way of the answers through the host, by the model."""

from __future__ import annotations

from viacheck.analysis.paths import Path, PathEnd, PathTracer, probe_traffic
from viacheck.analysis.resolved_intent import ResolvedIntent


def misrouted_answer(resolved: ResolvedIntent) -> Path | None:
    """Return the path of a probe that leaves as intended, and whose answer the host sends elsewhere; None without."""
    tracer = PathTracer(resolved)
    for protocol in resolved.intent.probe.protocols:
        path = tracer.trace(probe_traffic(resolved, protocol))
        if path.end is PathEnd.LEAVES and path.egress == {resolved.uplink} and path.misrouted is not None:
            return path
    return None
