"""The timeline of a trial: its steps, the states that were read, what the kernel said, where each probe was seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from viacheck.disruption.flow_results import Fate, Fortune, WayState, thinned
from viacheck.model.result import TimelineEvent, TimelineEvidence

MARKS = 120
"""Marks for each course; the figures count every probe."""
ANNOUNCEMENTS = 60
EVENT_LANE, STATE_LANE, KERNEL_LANE = "event", "state", "kernel"
_MARK_OF: Mapping[Fortune, Literal["probe", "late", "lost", "wrong-source", "leak"]] = {
    "right": "probe", "late": "late", "lost": "lost", "wrong-source": "wrong-source", "leaked": "leak",
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
    states: Sequence[WayState],
    announced: Sequence[Moment],
    fates: Sequence[Sequence[Fate]],
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
        fates: of the probes, course by course.
        ways: out of the host, the intended one first.
        figures: each course in one line, and what was not judged.
        unproven: ways out on which absence is not proven, and why.
    """
    events = [TimelineEvent(time=step.time, lane=EVENT_LANE, what=step.words) for step in steps]
    events += _changes(states)
    told = [next(alike) for _words, alike in groupby(announced, key=lambda one: one.words)][:ANNOUNCEMENTS]
    events += [TimelineEvent(time=one.time, lane=KERNEL_LANE, what=one.words, mark="netlink") for one in told]
    left_out = 0
    for course in fates:
        kept = thinned(course, MARKS)
        left_out += len(course) - len(kept)
        events += [_mark(fate, ways[0], probes) for fate, probes in kept]
    return TimelineEvidence(
        title=title,
        events=sorted(events, key=lambda event: event.time),
        lanes=[EVENT_LANE, STATE_LANE, KERNEL_LANE, *ways],
        ways=ways,
        unproven=unproven,
        figures=figures,
        left_out=left_out,
    )


def whereabouts(fate: Fate) -> str:
    """Where a probe was seen, in words."""
    if fate.by is None:
        return "seen on no way out"
    words = f"left by {fate.by} with source {fate.source}"
    return words + {"late": ", held up", "wrong-source": ", which is wrong"}.get(fate.fortune, "")


def _changes(states: Sequence[WayState]) -> Iterator[TimelineEvent]:
    """What each state has that the one before had not, and the other way round."""
    told: list[str] = []
    for state in states:
        lines = [line for line in state.lines if line not in told]
        lines += [f"gone: {line}" for line in told if line not in state.lines]
        if lines:
            yield TimelineEvent(time=round(state.time, 4), lane=STATE_LANE, what="; ".join(lines), mark="state")
        told = state.lines


def _mark(fate: Fate, uplink: str, probes: int) -> TimelineEvent:
    return TimelineEvent(
        time=round(fate.time, 4), lane=fate.by or uplink, what=whereabouts(fate), mark=_MARK_OF[fate.fortune],
        flow=fate.flow, family=fate.family, probes=probes,
    )  # fmt: skip
