"""The timeline of a disruption: its steps, the states after them, the kernel's announcements and every probe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from viacheck.disruption.flow_results import thinned
from viacheck.model.check_evidence import TimelineEvent, TimelineEvidence
from viacheck.model.egress_changes import EgressState
from viacheck.model.measurements import ProbeOutcome, ProbeResult

MARKS = 120
"""Marks for each flow; the figures count every probe."""
ANNOUNCEMENTS = 60
EVENT_LANE, STATE_LANE, KERNEL_LANE = "event", "state", "kernel"
_MARK_OF: Mapping[ProbeOutcome, Literal["probe", "late", "lost", "wrong-source", "leak"]] = {
    "as-intended": "probe", "late": "late", "lost": "lost", "wrong-source": "wrong-source", "leaked": "leak",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Moment:
    """A step of the event, or an announcement of the kernel."""

    time: float
    """Seconds since the event began."""
    text: str


def timeline_evidence(
    title: str,
    steps: Sequence[Moment],
    states: Sequence[EgressState],
    announcements: Sequence[Moment],
    flows: Sequence[Sequence[ProbeResult]],
    egress_interfaces: list[str],
    *,
    figures: list[str],
    unproven: dict[str, str],
) -> TimelineEvidence:
    """Return everything in the order of time.

    Args:
        title: the event as text.
        steps: the event's steps.
        states: rules, routes and addresses as they were read, the state before the event first.
        announcements: the kernel's.
        flows: the probes of each flow.
        egress_interfaces: the interfaces that lead out of the host, the intended uplink first.
        figures: one line for each flow, and for each flow that was not judged.
        unproven: egress interfaces on which absence is not proven, and why.
    """
    events = [TimelineEvent(time=step.time, lane=EVENT_LANE, what=step.text) for step in steps]
    events += _changes(states)
    distinct = [next(alike) for _text, alike in groupby(announcements, key=lambda moment: moment.text)]
    events += [
        TimelineEvent(time=moment.time, lane=KERNEL_LANE, what=moment.text, mark="netlink")
        for moment in distinct[:ANNOUNCEMENTS]
    ]
    left_out = 0
    for probe_results in flows:
        kept = thinned(probe_results, MARKS)
        left_out += len(probe_results) - len(kept)
        events += [_mark(result, egress_interfaces[0], probes) for result, probes in kept]
    return TimelineEvidence(
        title=title,
        events=sorted(events, key=lambda event: event.time),
        lanes=[EVENT_LANE, STATE_LANE, KERNEL_LANE, *egress_interfaces],
        ways=egress_interfaces,
        unproven=unproven,
        figures=figures,
        left_out=left_out,
    )


def probe_text(result: ProbeResult) -> str:
    """Return where a probe was seen."""
    if result.interface is None:
        return "seen on no egress interface"
    text = f"left by {result.interface} with source {result.source}"
    return text + {"late": ", held up", "wrong-source": ", which is wrong"}.get(result.outcome, "")


def _changes(states: Sequence[EgressState]) -> Iterator[TimelineEvent]:
    """Yield what each state has and the state before it has not, and what it lacks."""
    previous: list[str] = []
    for state in states:
        lines = [line for line in state.lines if line not in previous]
        lines += [f"gone: {line}" for line in previous if line not in state.lines]
        if lines:
            yield TimelineEvent(time=round(state.time, 4), lane=STATE_LANE, what="; ".join(lines), mark="state")
        previous = state.lines


def _mark(result: ProbeResult, uplink: str, probes: int) -> TimelineEvent:
    return TimelineEvent(
        time=round(result.time, 4),
        lane=result.interface or uplink,
        what=probe_text(result),
        mark=_MARK_OF[result.outcome],
        flow=result.flow,
        family=result.family,
        probes=probes,
    )
