"""Causes of a source whose packets do not leave by its uplink: an interface or address of the agent by itself."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.sightings import departures
from viacheck.analysis.sources import (
    leaves_astray,
    missing_source,
    source_answers,
    source_path,
    source_uplink,
)
from viacheck.diagnosis.cause import Cause
from viacheck.model.measurements import Measurements

CHECK = "EGRESS-10"


def source_missing(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find a source of the intent that the agent does not have."""
    missing = [text for source in resolved.intent.agent.source if (text := missing_source(resolved, source))]
    if missing:
        yield Cause(
            "SOURCE_MISSING", CHECK, f"{'; '.join(missing)}, which the site file names as a source ([[agent.source]])",
            decision="give the agent that interface or address (docker network connect), or correct the site file",
        )  # fmt: skip


def source_astray(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find a source whose packets the agent's or the host's routing sends elsewhere."""
    agent = resolved.intent.agent
    astray: dict[str, None] = {}
    for source in agent.source:
        uplink = source_uplink(resolved, source)
        for protocol in resolved.intent.probe.protocols:
            path = source_path(resolved, source, protocol)
            if leaves_astray(path, uplink) and missing_source(resolved, source) is None:
                by = " or ".join(sorted(path.egress)) or "no interface"
                astray[f"from {source.name} by {by} instead of {uplink}: {path.reason}"] = None
    if astray:
        yield Cause(
            "SOURCE_BYPASSES_UPLINK", CHECK, f"the agent's packets leave {'; '.join(astray)}",
            decision="add a rule for that source address, or a route by that interface, in the agent's namespace where "
            "it chooses the interface, on the host where it chooses the uplink; or correct the uplink of the source in "
            "the site file",
        )  # fmt: skip


def source_unanswered(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that the answers to a source's packets come in by another uplink, or that this host keeps them."""
    for source in resolved.intent.agent.source:
        uplink = source_uplink(resolved, source)
        for protocol in resolved.intent.probe.protocols:
            packets = measurements.traffic.by_source.get((source.name, protocol))
            answers = source_answers(resolved, uplink, packets) if packets is not None and departures(packets) else None
            if answers is None or not answers.seen:
                continue
            path = source_path(resolved, source, protocol)
            if answers.elsewhere:
                yield Cause(
                    "ANSWERS_BY_OTHER_UPLINK", CHECK,
                    f"the agent's packets from {source.name} leave by {uplink}, and their {answers.text}",
                    decision=f"correct the ARP entry or the route of {uplink}'s gateway for the source",
                )  # fmt: skip
            elif path.answer_returns is False:
                yield Cause(
                    "ANSWERS_MISROUTED", CHECK,
                    f"the answers to {source.name} come in on {uplink}, and this host does not send them on to the "
                    f"agent: {path.answer_reason}",
                    decision="let the host's rules send packets to the agent by its bridge before they send them away",
                )  # fmt: skip
            else:
                continue
            return
