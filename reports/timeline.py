"""The timeline of an event, condensed: consecutive probes with the same result form one stretch, by egress interface.

The drawing and the table of the page are made of the same stretches, so that they say the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal

from reports.text import counted, sentence
from viacheck.model.check_evidence import TimelineEvent, TimelineEvidence

Kind = Literal["event", "state", "netlink", "probe", "late", "lost", "wrong-source", "leak"]
FlowKey = tuple[Literal["old", "new"] | None, Literal[4, 6] | None]

MARKS: dict[Kind, str] = {
    "event": "a step of the event",
    "state": "rules, routes or addresses added or removed",
    "netlink": "a netlink message of the kernel",
    "probe": "right: left by the intended interface",
    "late": "late: left by the intended interface after a delay",
    "lost": "lost: seen on no interface",
    "wrong-source": "wrong source: left by the intended interface with another source address",
    "leak": "leak: left by an interface that it should not use",
}
PROBE_OUTCOMES: Mapping[Kind, str] = {
    "probe": "right",
    "late": "late",
    "lost": "lost",
    "wrong-source": "wrong source",
    "leak": "leaked",
}
"""The kinds that are probes, and the noun for their number."""
INTERFACES_SHOWN = 8
STEPS_DESCRIBED = 12
"""Steps in the description; the table has them all."""
_AT_ONCE = 0.002
"""Seconds within which netlink messages are merged."""
_KIND_TEXTS: Mapping[Kind, str] = {
    "state": "read",
    "netlink": "netlink",
    "probe": "right",
    "wrong-source": "wrong source",
}
_FIRST_LEFT_OUT: Sequence[Kind] = ("netlink", "probe", "state", "late", "lost", "event", "wrong-source", "leak")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive marks with the same result: probes of a flow, netlink messages of a moment, or a single mark."""

    kind: Kind
    lane: str
    what: str
    times: tuple[float, ...]
    """Seconds since the event began, one for each mark."""
    probes: int = 0
    """How many probes the marks stand for."""
    flow: FlowKey = (None, None)
    step: int | None = None
    """Number of a step of the event, from 1."""

    @property
    def description(self) -> str:
        """What happened, and to which flow."""
        return self.what if self.flow == (None, None) else f"{label(self.flow)}: {self.what}"

    @property
    def kind_text(self) -> str:
        """The kind as the table shows it."""
        return f"step {self.step}" if self.kind == "event" else _KIND_TEXTS.get(self.kind, self.kind)

    @property
    def when(self) -> str:
        """Its time in milliseconds: ``12.3``, or ``12.3 to 208.0``."""
        begin, end = (f"{1000 * time:,.1f}" for time in (self.times[0], self.times[-1]))
        return begin if begin == end else f"{begin} to {end}"


@dataclass(frozen=True, slots=True)
class Row:
    """One flow on one interface."""

    label: str
    stretches: tuple[Stretch, ...]

    @property
    def counts(self) -> str:
        """The results of its probes: ``24 right, 18 lost``."""
        counts = Counter[Kind]()
        for stretch in self.stretches:
            counts[stretch.kind] += stretch.probes
        return ", ".join(f"{counts[kind]:,} {noun}" for kind, noun in PROBE_OUTCOMES.items() if counts[kind])


@dataclass(frozen=True, slots=True)
class Lane:
    """An egress interface, with a row for each flow that was seen, or should have been seen, on it."""

    name: str
    intended: bool
    rows: tuple[Row, ...]
    unproven: bool = False
    """The capture was not sound, so that absence on this interface proves nothing."""

    @property
    def empty(self) -> str:
        """The text of a lane without rows."""
        return "absence not proven" if self.unproven else "no probe seen"


@dataclass(frozen=True)
class Timeline:
    """What happened during an event: stretches in order of time, and the interfaces that they were on."""

    title: str
    stretches: tuple[Stretch, ...]
    lanes: tuple[Lane, ...]
    interfaces_left_out: int = 0

    @property
    def probes(self) -> int:
        """How many probes were sent."""
        return sum(stretch.probes for stretch in self.stretches)

    def of(self, kind: Kind) -> list[Stretch]:
        """Return the stretches of one kind, in order."""
        return [stretch for stretch in self.stretches if stretch.kind == kind]

    @cached_property
    def kinds(self) -> list[Kind]:
        """The kinds of mark that occur, in the order of the legend."""
        return [kind for kind in MARKS if any(stretch.kind == kind for stretch in self.stretches)]

    def most_important(self, limit: int) -> list[Stretch]:
        """Return at most ``limit`` stretches, in order of time; netlink messages are dropped first, leaks last."""
        ranked = sorted(self.stretches, key=lambda stretch: _FIRST_LEFT_OUT.index(stretch.kind), reverse=True)
        kept = {id(stretch) for stretch in ranked[:limit]}
        return [stretch for stretch in self.stretches if id(stretch) in kept]

    @cached_property
    def description(self) -> str:
        """A summary for readers who cannot see the drawing."""
        steps = self.of("event")
        sentences = [sentence(self.title)] if self.title else []
        if steps:
            texts = [f"{step.what} at {1000 * step.times[0]:,.0f} ms" for step in steps[:STEPS_DESCRIBED]]
            more = f", and {len(steps) - STEPS_DESCRIBED:,} more" if len(steps) > STEPS_DESCRIBED else ""
            sentences.append(sentence(f"{counted(len(steps), 'step')}: {'; '.join(texts)}{more}"))
        for lane in self.lanes:
            rows = [f"{row.label}: {row.counts}" for row in lane.rows if row.stretches]
            name = f"{lane.name}, intended" if lane.intended else lane.name
            sentences.append(sentence(f"{name}: {'; '.join(rows) or lane.empty}"))
        return " ".join([*sentences, "The table after the drawing says the same."])


def timeline(evidence: TimelineEvidence) -> Timeline:
    """Merge a timeline's marks into stretches, and place those of probes on the interfaces by which they left."""
    stretches = tuple(sorted(_stretches(evidence.events), key=lambda stretch: stretch.times))
    probes = [stretch for stretch in stretches if stretch.kind in PROBE_OUTCOMES]
    seen = dict.fromkeys(stretch.lane for stretch in probes)
    interfaces = list(dict.fromkeys([*evidence.ways, *(lane for lane in evidence.lanes if lane in seen), *seen]))
    intended = evidence.ways[0] if evidence.ways else None
    ranked = sorted(interfaces, key=lambda name: (name != intended, name not in seen))
    shown = [name for name in interfaces if name in ranked[:INTERFACES_SHOWN]]
    flows = sorted({stretch.flow for stretch in probes}, key=_order)
    lanes = []
    for name in shown:
        here = [stretch for stretch in probes if stretch.lane == name]
        rows = [Row(label(flow), tuple(stretch for stretch in here if stretch.flow == flow)) for flow in flows]
        kept = tuple(row for row in rows if row.stretches or name == intended)
        lanes.append(Lane(name, name == intended, kept, name in evidence.unproven))
    return Timeline(evidence.title, stretches, tuple(lanes), len(interfaces) - len(shown))


def label(flow: FlowKey) -> str:
    """Return the name of a flow: ``new flows, IPv4``."""
    age, family = flow
    parts = {"old": ["old flow"], "new": ["new flows"], None: []}[age] + ([f"IPv{family}"] if family else [])
    return ", ".join(parts) or "probes"


def _order(flow: FlowKey) -> tuple[int, bool]:
    age, family = flow
    return (family or 0, age == "new")


def _stretches(events: Iterable[TimelineEvent]) -> Iterator[Stretch]:
    ordered = sorted(events, key=lambda event: event.time)
    for number, event in enumerate((event for event in ordered if event.mark == "event"), 1):
        yield Stretch("event", event.lane, event.what, (event.time,), step=number)
    for event in ordered:
        if event.mark == "state":
            yield Stretch("state", event.lane, event.what, (event.time,))
    yield from _netlink_messages([event for event in ordered if event.mark == "netlink"])
    flows: dict[FlowKey, list[TimelineEvent]] = {}
    for event in ordered:
        if event.mark in PROBE_OUTCOMES:
            flows.setdefault((event.flow, event.family), []).append(event)
    for flow, marks in flows.items():
        for (kind, lane, what), run in groupby(marks, key=lambda mark: (mark.mark, mark.lane, mark.what)):
            alike = list(run)
            times, probes = tuple(mark.time for mark in alike), sum(mark.probes for mark in alike)
            yield Stretch(kind, lane, what, times, probes, flow)


def _netlink_messages(messages: Iterable[TimelineEvent]) -> Iterator[Stretch]:
    """Merge simultaneous netlink messages into one stretch."""
    bursts: list[list[TimelineEvent]] = []
    for message in messages:
        if bursts and message.time - bursts[-1][0].time <= _AT_ONCE and message.lane == bursts[-1][0].lane:
            bursts[-1].append(message)
        else:
            bursts.append([message])
    for burst in bursts:
        times = tuple(message.time for message in burst)
        yield Stretch("netlink", burst[0].lane, "; ".join(message.what for message in burst), times)
