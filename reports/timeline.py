"""A flap's timeline as a reader takes it in: probes that fared alike in a row are one stretch, on the way they took.

The drawing and the table of the page are both made of the same stretches, so that they say the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal

from reports.text import counted, sentence
from viacheck.model.result import TimelineEvent, TimelineEvidence

Kind = Literal["event", "state", "netlink", "probe", "late", "lost", "wrong-source", "leak"]
FlowResult = tuple[Literal["old", "new"] | None, Literal[4, 6] | None]

MARKS: dict[Kind, str] = {
    "event": "a step of the event",
    "state": "rules, routes or addresses: new, or gone",
    "netlink": "an announcement of the kernel",
    "probe": "right: left by the intended way",
    "late": "late: left by the intended way, but was held up",
    "lost": "lost: seen on no way out",
    "wrong-source": "wrong source: left by the intended way, under another address",
    "leak": "leak: left by a way that it should not take",
}
PROBE_OUTCOMES: Mapping[Kind, str] = {
    "probe": "right",
    "late": "late",
    "lost": "lost",
    "wrong-source": "wrong source",
    "leak": "leaked",
}
"""Kinds that are probes, and what is said of so many of them."""
WAYS_SHOWN = 8
STEPS_TOLD = 12
"""In words; the table has them all."""
_AT_ONCE = 0.002
"""Seconds within which the kernel's announcements are told as one."""
_WORDS: Mapping[Kind, str] = {"state": "read", "netlink": "announced", "probe": "right", "wrong-source": "wrong source"}
_FIRST_LEFT_OUT: Sequence[Kind] = ("netlink", "probe", "state", "late", "lost", "event", "wrong-source", "leak")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Marks that say the same, in a row: probes of one course, announcements made at once, or one mark alone."""

    kind: Kind
    lane: str
    what: str
    times: tuple[float, ...]
    """Seconds since the event began, one for each mark."""
    probes: int = 0
    """How many probes the marks stand for."""
    flow_result: FlowResult = (None, None)
    step: int | None = None
    """Number of a step of the event, from 1."""

    @property
    def told(self) -> str:
        """What it says, of which course."""
        return self.what if self.flow_result == (None, None) else f"{label(self.flow_result)}: {self.what}"

    @property
    def words(self) -> str:
        """The kind in a word or two."""
        return f"step {self.step}" if self.kind == "event" else _WORDS.get(self.kind, self.kind)

    @property
    def when(self) -> str:
        """When it was, in milliseconds: ``12.3``, or ``12.3 to 208.0``."""
        begin, end = (f"{1000 * time:,.1f}" for time in (self.times[0], self.times[-1]))
        return begin if begin == end else f"{begin} to {end}"


@dataclass(frozen=True, slots=True)
class Row:
    """One course on one way out."""

    label: str
    stretches: tuple[Stretch, ...]

    @property
    def counts(self) -> str:
        """How its probes fared: ``24 right, 18 lost``."""
        counts = Counter[Kind]()
        for stretch in self.stretches:
            counts[stretch.kind] += stretch.probes
        return ", ".join(f"{counts[kind]:,} {word}" for kind, word in PROBE_OUTCOMES.items() if counts[kind])


@dataclass(frozen=True, slots=True)
class Lane:
    """A way out of the host, with a row for each course that was seen, or should have been seen, on it."""

    name: str
    intended: bool
    rows: tuple[Row, ...]
    unproven: bool = False
    """Where nothing was seen that proves nothing: the watching was not sound."""

    @property
    def empty(self) -> str:
        """What is said of it when it has no row."""
        return "absence not proven" if self.unproven else "no probe seen"


@dataclass(frozen=True)
class Timeline:
    """What is told of an event: stretches in order of time, and the ways out that they were on."""

    title: str
    stretches: tuple[Stretch, ...]
    lanes: tuple[Lane, ...]
    ways_left_out: int = 0

    @property
    def probes(self) -> int:
        """How many probes were sent."""
        return sum(stretch.probes for stretch in self.stretches)

    def of(self, kind: Kind) -> list[Stretch]:
        """The stretches of one kind, in order."""
        return [stretch for stretch in self.stretches if stretch.kind == kind]

    @cached_property
    def kinds(self) -> list[Kind]:
        """The kinds of mark that occur, in the order of the legend."""
        return [kind for kind in MARKS if any(stretch.kind == kind for stretch in self.stretches)]

    def most_telling(self, most: int) -> list[Stretch]:
        """At most so many stretches, in order of time: what the kernel announced goes first, what leaked goes last."""
        ranked = sorted(self.stretches, key=lambda stretch: _FIRST_LEFT_OUT.index(stretch.kind), reverse=True)
        kept = {id(stretch) for stretch in ranked[:most]}
        return [stretch for stretch in self.stretches if id(stretch) in kept]

    @cached_property
    def words(self) -> str:
        """The gist of it, for who cannot see the drawing."""
        steps = self.of("event")
        told = [sentence(self.title)] if self.title else []
        if steps:
            words = [f"{step.what} at {1000 * step.times[0]:,.0f} ms" for step in steps[:STEPS_TOLD]]
            more = f", and {len(steps) - STEPS_TOLD:,} more" if len(steps) > STEPS_TOLD else ""
            told.append(sentence(f"{counted(len(steps), 'step')}: {'; '.join(words)}{more}"))
        for lane in self.lanes:
            rows = [f"{row.label}: {row.counts}" for row in lane.rows if row.stretches]
            name = f"{lane.name}, intended" if lane.intended else lane.name
            told.append(sentence(f"{name}: {'; '.join(rows) or lane.empty}"))
        return " ".join([*told, "The table after the drawing says the same."])


def timeline(evidence: TimelineEvidence) -> Timeline:
    """Put a timeline's marks together to stretches, and those of probes on the ways out that they took."""
    stretches = tuple(sorted(_stretches(evidence.events), key=lambda stretch: stretch.times))
    probes = [stretch for stretch in stretches if stretch.kind in PROBE_OUTCOMES]
    seen = dict.fromkeys(stretch.lane for stretch in probes)
    ways = list(dict.fromkeys([*evidence.ways, *(lane for lane in evidence.lanes if lane in seen), *seen]))
    intended = evidence.ways[0] if evidence.ways else None
    ranked = sorted(ways, key=lambda way: (way != intended, way not in seen))
    shown = [way for way in ways if way in ranked[:WAYS_SHOWN]]
    flow_results = sorted({stretch.flow_result for stretch in probes}, key=_order)
    lanes = []
    for way in shown:
        here = [stretch for stretch in probes if stretch.lane == way]
        rows = [
            Row(label(flow_result), tuple(one for one in here if one.flow_result == flow_result))
            for flow_result in flow_results
        ]
        kept = tuple(row for row in rows if row.stretches or way == intended)
        lanes.append(Lane(way, way == intended, kept, way in evidence.unproven))
    return Timeline(evidence.title, stretches, tuple(lanes), len(ways) - len(shown))


def label(flow_result: FlowResult) -> str:
    """A course in words: ``new flows, IPv4``."""
    flow, family = flow_result
    words = {"old": ["old flow"], "new": ["new flows"], None: []}[flow] + ([f"IPv{family}"] if family else [])
    return ", ".join(words) or "probes"


def _order(flow_result: FlowResult) -> tuple[int, bool]:
    flow, family = flow_result
    return (family or 0, flow == "new")


def _stretches(events: Iterable[TimelineEvent]) -> Iterator[Stretch]:
    ordered = sorted(events, key=lambda event: event.time)
    for number, event in enumerate((event for event in ordered if event.mark == "event"), 1):
        yield Stretch("event", event.lane, event.what, (event.time,), step=number)
    for event in ordered:
        if event.mark == "state":
            yield Stretch("state", event.lane, event.what, (event.time,))
    yield from _announcements([event for event in ordered if event.mark == "netlink"])
    flow_results: dict[FlowResult, list[TimelineEvent]] = {}
    for event in ordered:
        if event.mark in PROBE_OUTCOMES:
            flow_results.setdefault((event.flow, event.family), []).append(event)
    for flow_result, marks in flow_results.items():
        for (kind, lane, what), run in groupby(marks, key=lambda mark: (mark.mark, mark.lane, mark.what)):
            alike = list(run)
            times, probes = tuple(mark.time for mark in alike), sum(mark.probes for mark in alike)
            yield Stretch(kind, lane, what, times, probes, flow_result)


def _announcements(news: Iterable[TimelineEvent]) -> Iterator[Stretch]:
    """What the kernel announced at once is one stretch."""
    together: list[list[TimelineEvent]] = []
    for one in news:
        if together and one.time - together[-1][0].time <= _AT_ONCE and one.lane == together[-1][0].lane:
            together[-1].append(one)
        else:
            together.append([one])
    for several in together:
        times = tuple(one.time for one in several)
        yield Stretch("netlink", several[0].lane, "; ".join(one.what for one in several), times)
