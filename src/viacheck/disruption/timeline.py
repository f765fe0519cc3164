"""The timeline of a trial: its steps, the states that were read, what the kernel said, where each probe was seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from viacheck.disruption.flow_results import thinned
from viacheck.model.measurements import EgressState, ProbeOutcome, ProbeResult
from viacheck.model.result import TimelineEvent, TimelineEvidence

MARKS = 120
"""Marks for each course; the figures count every probe."""
ANNOUNCEMENTS = 60
EVENT_LANE, STATE_LANE, KERNEL_LANE = "event", "state", "kernel"
_MARK_OF: Mapping[ProbeOutcome, Literal["probe", "late", "lost", "wrong-source", "leak"]] = {
    "as-intended": "probe", "late": "late", "lost": "lost", "wrong-source": "wrong-source", "leaked": "leak",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened."""

    time: float
    """Seconds since the event began."""
    words: str


def timeline(
    title: str,
    steps: Sequence[Moment],
    states: Sequence[EgressState],
    announced: Sequence[Moment],
    probe_results: Sequence[Sequence[ProbeResult]],
    ways: list[str],
    *,
    figures: list[str],
    unproven: dict[str, str],
) -> TimelineEvidence:
    """Put everything into the order of time.

    Args:
        title: the event, for people.
        steps: of the event.
        states: rules, routes and addresses as they were read, the one before the event first.
        announced: by the kernel.
        probe_results: of the probes, course by course.
        ways: out of the host, the intended one first.
        figures: each course in one line, and what was not judged.
        unproven: ways out on which absence is not proven, and why.
    """
    events = [TimelineEvent(time=step.time, lane=EVENT_LANE, what=step.words) for step in steps]
    events += _changes(states)
    told = [next(alike) for _words, alike in groupby(announced, key=lambda one: one.words)][:ANNOUNCEMENTS]
    events += [TimelineEvent(time=one.time, lane=KERNEL_LANE, what=one.words, mark="netlink") for one in told]
    left_out = 0
    for flow_result in probe_results:
        kept = thinned(flow_result, MARKS)
        left_out += len(flow_result) - len(kept)
        events += [_mark(probe_result, ways[0], probes) for probe_result, probes in kept]
    return TimelineEvidence(
        title=title,
        events=sorted(events, key=lambda event: event.time),
        lanes=[EVENT_LANE, STATE_LANE, KERNEL_LANE, *ways],
        ways=ways,
        unproven=unproven,
        figures=figures,
        left_out=left_out,
    )


def whereabouts(probe_result: ProbeResult) -> str:
    """Where a probe was seen, in words."""
    if probe_result.interface is None:
        return "seen on no way out"
    words = f"left by {probe_result.interface} with source {probe_result.source}"
    return words + {"late": ", held up", "wrong-source": ", which is wrong"}.get(probe_result.outcome, "")


def _changes(states: Sequence[EgressState]) -> Iterator[TimelineEvent]:
    """What each state has that the one before had not, and the other way round."""
    told: list[str] = []
    for state in states:
        lines = [line for line in state.lines if line not in told]
        lines += [f"gone: {line}" for line in told if line not in state.lines]
        if lines:
            yield TimelineEvent(time=round(state.time, 4), lane=STATE_LANE, what="; ".join(lines), mark="state")
        told = state.lines


def _mark(result: ProbeResult, uplink: str, probes: int) -> TimelineEvent:
    return TimelineEvent(
        time=round(result.time, 4),
        lane=result.interface or uplink,
        what=whereabouts(result),
        mark=_MARK_OF[result.outcome],
        flow=result.flow,
        family=result.family,
        probes=probes,
    )
