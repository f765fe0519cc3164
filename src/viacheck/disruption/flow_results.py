"""Classify a stream of probes: the outcome of each probe, then of each flow.

A stream has an old flow that began before the event, and new flows, each by IPv4 and by IPv6. They differ, because
connection tracking remembers how an old flow was translated. Nothing in this file sends, waits or reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from itertools import groupby, pairwise

from viacheck.model.address_family import Family
from viacheck.model.measurements import LATE, Departure, FlowAge, FlowKind, FlowResult, ProbeOutcome, ProbeResult

SETTLED = 5
"""Probes in a row that decide the outcome of a flow."""


def probe_result(
    time: float,
    flow: FlowAge,
    family: Family,
    departures: Sequence[Departure],
    uplink: str,
    sources: Container[str | None],
    of_source: str | None = None,
) -> ProbeResult:
    """Classify a probe that was sent at a time by its departures. A leak outweighs every other outcome.

    ``of_source``: the source of the intent that it is bound to.
    """
    leaks = [departure for departure in departures if departure.interface != uplink]
    if leaks:
        return ProbeResult(time, flow, family, "leaked", leaks[0].interface, leaks[0].source, of_source)
    if not departures:
        return ProbeResult(time, flow, family, "lost", of_source=of_source)
    first = departures[0]
    if first.source not in sources:
        return ProbeResult(time, flow, family, "wrong-source", first.interface, first.source, of_source)
    outcome: ProbeOutcome = "late" if first.time - time > LATE else "as-intended"
    return ProbeResult(time, flow, family, outcome, first.interface, first.source, of_source)


def settled(probe_results: Sequence[ProbeResult]) -> bool:
    """Return whether the last probes of a flow all left as intended."""
    return len(probe_results) >= SETTLED and all(result.outcome == "as-intended" for result in probe_results[-SETTLED:])


def flow_result(probe_results: Sequence[ProbeResult], ended: float, tick: float | None = None) -> FlowResult:
    """Classify one flow of one family.

    Args:
        probe_results: at least one, in order of time, from before the event on.
        ended: when the event had ended, in seconds since it began.
        tick: the seconds from probe to probe of a machine that keeps the pace: a recovery takes no longer than its
            probes, as a lab is as slow as the machine. None: the clock counts, as on a live host.
    """
    counts = Counter(result.outcome for result in probe_results)
    leaked = [result for result in probe_results if result.outcome == "leaked"]
    lost = [result for result in probe_results if result.outcome == "lost"]
    wrong = [place for place, result in enumerate(probe_results) if result.outcome != "as-intended"]
    recovered_at = recovery = None
    if not wrong:
        kind, recovery = FlowKind.SEAMLESS, 0.0
    elif settled(probe_results):
        kind = FlowKind.LEAKS_THEN_RECOVERS if leaked else FlowKind.RECOVERS
        recovered_at = probe_results[wrong[-1] + 1].time
        recovery = max(0.0, recovered_at - ended)
        if tick is not None:
            recovery = min(recovery, tick * sum(ended < result.time <= recovered_at for result in probe_results))
    else:
        last = {result.outcome for result in probe_results[-SETTLED:]}
        if "leaked" in last:
            kind = FlowKind.KEEPS_LEAKING
        else:
            kind = FlowKind.KEEPS_WRONG_SOURCE if "wrong-source" in last else FlowKind.STAYS_SILENT
    return FlowResult(
        flow=probe_results[0].flow, family=probe_results[0].family, kind=kind, sent=len(probe_results),
        lost=counts["lost"], late=counts["late"], leaked=counts["leaked"], wrong_source=counts["wrong-source"],
        leak=(leaked[0].time, leaked[-1].time) if leaked else None,
        leak_interfaces=tuple(sorted({result.interface for result in leaked if result.interface})),
        leak_sources=tuple(sorted({result.source for result in leaked if result.source})),
        first_lost=lost[0].time if lost else None,
        recovered_at=recovered_at, recovery=recovery, of_source=probe_results[0].of_source,
    )  # fmt: skip


def thinned(probe_results: Sequence[ProbeResult], most: int) -> list[tuple[ProbeResult, int]]:
    """Return about ``most`` probes of one flow, each with how many probes it stands for.

    A probe stands for itself and for the omitted probes after it. The first and the last probe of each run of equal
    outcomes always stay.
    """
    runs = [list(run) for _, run in groupby(probe_results, key=lambda result: (result.outcome, result.interface))]
    edges = sum(min(len(run), 2) for run in runs)
    step = max(1, -(-(len(probe_results) - edges) // max(1, most - edges)))
    kept = []
    for run in runs:
        places = [place for place in range(len(run)) if place in (0, len(run) - 1) or place % step == 0]
        kept += [(run[place], after - place) for place, after in pairwise([*places, len(run)])]
    return kept
