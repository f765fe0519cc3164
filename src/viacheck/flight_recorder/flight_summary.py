"""What a record says: every time that the agent's packets did not leave as intended, how long, and why.

The same lines give the same summary, on any machine and however often the recorder was started again. What the lines do
not say stays unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from viacheck.flight_recorder.record_file import Entry, RecordLine

JOIN = 1_000_000_000
"""Nanoseconds around a departure in which probes and packets that went wrong belong to it."""
EVENTS_KEPT = 2_000
"""Announcements that are kept for the timelines, those near a departure first to last."""
PROBES_KEPT = 20_000
MOST_DEPARTURES = 5_000
NEAR = 2_000_000_000
"""Nanoseconds before a departure, and after it, that its timeline shows."""


@dataclass(frozen=True, slots=True)
class FlightMoment:
    """Something that happened, for a timeline."""

    time_ns: int
    text: str


@dataclass(frozen=True, slots=True)
class FlightProbe:
    """One probe."""

    time_ns: int
    text: str
    """The class of traffic."""
    outcome: str
    interface: str | None
    source: str | None


@dataclass(slots=True)
class WayDeparture:
    """A time in which the agent's packets did not all leave as intended."""

    begin_ns: int
    end_ns: int | None = None
    """None: it had not ended when the record ended."""
    end_known: bool = True
    """False: it ended while the recorder did not run, at ``end_ns`` at the latest."""
    from_the_beginning: bool = False
    """It was so when the recorder began."""
    because: list[str] = field(default_factory=list)
    """The announcements right before it; empty: none explains it."""
    restored_by: list[str] = field(default_factory=list)
    ways: dict[str, None] = field(default_factory=dict)
    """The interfaces that packets took, or ``nowhere``, in order."""
    classes: dict[str, None] = field(default_factory=dict)
    decisions: dict[str, None] = field(default_factory=dict)
    """What the routing said, for each way."""
    packets: Counter[str] = field(default_factory=Counter)
    """The agent's packets that were counted elsewhere, by interface."""
    probes: Counter[str] = field(default_factory=Counter)
    """The probes meanwhile, by outcome."""
    seen_by: dict[str, None] = field(default_factory=dict)
    """``routing``, ``packets``, ``probes``: which witnesses saw it."""
    changes: list[FlightMoment] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        """How long it lasted."""
        return None if self.end_ns is None else (self.end_ns - self.begin_ns) / 1e9


@dataclass(slots=True)
class Pause:
    """A time in which the record is not complete."""

    begin_ns: int
    end_ns: int
    why: str


@dataclass(slots=True)
class FlightSummary:
    """The whole of a record."""

    first_ns: int | None = None
    last_ns: int | None = None
    ended: str | None = None
    """Why it ended; None while it has not."""
    failed: bool = False
    """It ended by an error."""
    departures: list[WayDeparture] = field(default_factory=list)
    more_departures: int = 0
    """Departures beyond :data:`MOST_DEPARTURES`."""
    pauses: list[Pause] = field(default_factory=list)
    overruns: list[int] = field(default_factory=list)
    """When announcements were lost."""
    agent_away: list[Pause] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)
    """The agent's packets by interface."""
    expected: Counter[str] = field(default_factory=Counter)
    """Those that may leave there: to its own network, or as the intent excepts them."""
    sent: int | None = None
    rounds: int = 0
    probes: Counter[str] = field(default_factory=Counter)
    unproven: dict[str, str] = field(default_factory=dict)
    unproven_rounds: int = 0
    events: list[FlightMoment] = field(default_factory=list)
    probes_seen: list[FlightProbe] = field(default_factory=list)
    events_unwritten: int = 0
    changes_unwritten: int = 0
    lines_lost: int = 0
    unread: list[RecordLine] = field(default_factory=list)
    """Lines that cannot be read, or not as what they say they are."""
    cut_short: list[RecordLine] = field(default_factory=list)
    """Lines that a recorder was killed at: the one that went on says from when on it watched again."""

    @property
    def seconds(self) -> float:
        """How long the record is, pauses included."""
        return ((self.last_ns or 0) - (self.first_ns or 0)) / 1e9

    @property
    def open(self) -> WayDeparture | None:
        """The departure that has not ended."""
        latest = self.departures[-1] if self.departures else None
        return latest if latest is not None and latest.end_ns is None else None


def summarize(lines: Iterable[RecordLine], uplink: str) -> FlightSummary:
    """Read a record. Of a line with unexpected content only its own part is missing; the summary names it.

    Args:
        lines: the lines, in order.
        uplink: the intended uplink; packets that left by another interface left elsewhere.
    """
    reader = _Reader(uplink)
    summary = reader.summary
    cut_short: RecordLine | None = None
    for line in lines:
        if cut_short is not None:
            goes_on = line.entry is not None and line.entry["kind"] == "resume"
            (summary.cut_short if goes_on else summary.unread).append(cut_short)
            cut_short = None
        if line.entry is None and line.cut_short:
            cut_short = line
        elif line.entry is None:
            summary.unread.append(line)
        else:
            try:
                reader.read(line.entry)
            except (KeyError, TypeError, ValueError, AttributeError):
                summary.unread.append(line)
    if cut_short is not None:
        summary.cut_short.append(cut_short)
    return summary


@dataclass(slots=True)
class _Silence:
    """The probes of a class that were lost one after the other."""

    begin_ns: int
    confirmed: bool = False
    """A repeated probe was lost too: each further one counts at once."""
    uncounted: Counter[str] = field(default_factory=Counter)


class _Reader:
    def __init__(self, uplink: str) -> None:
        self._uplink = uplink
        self.summary = FlightSummary()
        self._paused = False
        """The recorder has paused since the latest line about the way."""
        self._silent: dict[str, _Silence] = {}
        """The classes whose latest probe was lost."""

    def read(self, entry: Entry) -> None:
        time_ns: int = entry["t"]
        summary = self.summary
        summary.first_ns = time_ns if summary.first_ns is None else min(summary.first_ns, time_ns)
        summary.last_ns = time_ns if summary.last_ns is None else max(summary.last_ns, time_ns)
        summary.lines_lost += _number(entry.get("lines_lost", 0))
        match entry["kind"]:
            case "start":
                summary.ended = None
            case "resume":
                self._paused = True
                self._silent.clear()
                summary.ended = None
                summary.pauses.append(Pause(int(entry["since"]), time_ns, "the recorder did not run"))
            case "pause":
                seconds = float(entry["seconds"])
                self._silent.clear()
                summary.pauses.append(Pause(time_ns - int(seconds * 1e9), time_ns, str(entry["why"])))
            case "overrun":
                summary.overruns.append(time_ns)
                self._event(time_ns, entry)
            case "event":
                self._event(time_ns, entry)
            case "way":
                self._way(time_ns, entry)
            case "elsewhere":
                self._packets(time_ns, entry, list(map(str, entry["near"])))
            case "count":
                self._packets(time_ns, entry, [])
                summary.events_unwritten += _number(entry["unwritten"])
                if entry["sent"] is not None:
                    summary.sent = (summary.sent or 0) + _number(entry["sent"])
            case "probe":
                self._round(entry)
            case "agent":
                self._agent(time_ns, entry)
            case "end":
                summary.ended, summary.failed = str(entry["why"]), entry.get("failed") is True

    def _event(self, time_ns: int, entry: Entry) -> None:
        place = " (agent)" if entry["place"] == "agent" else ""
        self.summary.events.append(FlightMoment(time_ns, f"{entry['text']}{place}"))
        if len(self.summary.events) > 2 * EVENTS_KEPT:
            self.summary.events = self._near_departures(self.summary.events)

    def _near_departures(self, moments: list[FlightMoment]) -> list[FlightMoment]:
        """Return the moments that a timeline shows, and the latest, whose departure may follow."""
        latest = moments[-EVENTS_KEPT // 2 :]
        spans = [
            (each.begin_ns - NEAR, (each.end_ns or each.begin_ns) + NEAR) for each in self.summary.departures[-200:]
        ]
        near = [moment for moment in moments[: -EVENTS_KEPT // 2] if any(a <= moment.time_ns <= b for a, b in spans)]
        return near[-EVENTS_KEPT // 2 :] + latest

    def _way(self, time_ns: int, entry: Entry) -> None:
        wrong: list[list[Any]] = entry["wrong"]
        current = self.summary.open
        self.summary.changes_unwritten += _number(entry["unwritten"])
        if wrong and (current is None or current.seen_by.keys() == {"packets"} or current.seen_by.keys() == {"probes"}):
            if current is None:
                current = self._begin(time_ns)
            current.from_the_beginning = entry["first"] is True
            current.because = current.because or list(map(str, entry["because"]))
        if current is not None and wrong:
            current.seen_by["routing"] = None
            for text, interface, decision in wrong:
                current.classes[str(text)] = None
                way = str(interface) if interface is not None else "nowhere"
                current.ways[way] = None
                current.decisions[str(decision)] = None
            ways = sorted({str(interface) if interface is not None else "nowhere" for _, interface, _ in wrong})
            current.changes.append(FlightMoment(time_ns, f"leaves {_by(ways)}"))
        self._packets(time_ns, entry, [])
        if current is not None and not wrong:
            current.end_ns, current.end_known = time_ns, not self._paused
            current.restored_by = list(map(str, entry["because"]))
            current.changes.append(FlightMoment(time_ns, "leaves as intended again"))
        self._paused = False

    def _begin(self, time_ns: int) -> WayDeparture:
        departure = WayDeparture(time_ns)
        if len(self.summary.departures) < MOST_DEPARTURES:
            self.summary.departures.append(departure)
        else:
            self.summary.more_departures += 1
            self.summary.departures[-1] = departure
        return departure

    def _near(self, begin_ns: int, end_ns: int) -> WayDeparture | None:
        """Return the latest departure, if it is under way in a span of time or ended shortly before."""
        latest = self.summary.departures[-1] if self.summary.departures else None
        if latest is None or latest.begin_ns - JOIN > end_ns:
            return None
        return latest if latest.end_ns is None or latest.end_ns + JOIN >= begin_ns else None

    def _packets(self, time_ns: int, entry: Entry, near: list[str]) -> None:
        left = {str(name): _number(number) for name, number in entry["left"].items()}
        self.summary.left.update(left)
        self.summary.expected.update({str(name): _number(number) for name, number in entry["expected"].items()})
        elsewhere = {name: number for name, number in left.items() if name != self._uplink and number}
        if not elsewhere:
            return
        since_ns = int(entry["since"])
        departure = self._near(since_ns, time_ns)
        if departure is None:
            departure = self._begin(since_ns)
            departure.because, departure.end_ns = near, time_ns
        if "routing" not in departure.seen_by:
            departure.end_ns = max(departure.end_ns or 0, time_ns)
        departure.seen_by["packets"] = None
        departure.packets.update(elsewhere)
        departure.ways.update(dict.fromkeys(elsewhere))

    def _round(self, entry: Entry) -> None:
        summary = self.summary
        summary.rounds += 1
        unproven = {str(name): str(why) for name, why in entry["unproven"].items()}
        summary.unproven |= unproven
        summary.unproven_rounds += bool(unproven)
        for sent_ns, text, outcome, interface, source in entry["seen"]:
            probe = FlightProbe(
                int(sent_ns), str(text), str(outcome),
                None if interface is None else str(interface), None if source is None else str(source),
            )  # fmt: skip
            summary.probes[probe.outcome] += 1
            summary.probes_seen.append(probe)
            silence = self._silence(probe, confirmed=entry["confirmed"] is True)
            wrong = probe.outcome == "leaked" or (silence is not None and silence.confirmed)
            begin_ns = silence.begin_ns if silence is not None and wrong else probe.time_ns
            departure = self._near(begin_ns, probe.time_ns)
            if wrong and departure is None:
                departure = self._begin(begin_ns)
                departure.end_ns = probe.time_ns
            if departure is not None and probe.outcome not in ("as-intended", "late"):
                departure.probes[probe.outcome] += 1
                if silence is not None and wrong:
                    departure.probes.update(silence.uncounted)
                    silence.uncounted.clear()
            elif silence is not None:
                silence.uncounted[probe.outcome] += 1
            if departure is not None and wrong:
                departure.seen_by["probes"] = None
                departure.classes[probe.text] = None
                departure.ways[probe.interface or "nowhere"] = None
                if "routing" not in departure.seen_by:
                    departure.end_ns = max(departure.end_ns or 0, probe.time_ns)
        del summary.probes_seen[:-PROBES_KEPT]

    def _silence(self, probe: FlightProbe, *, confirmed: bool) -> _Silence | None:
        """Return since when the probes of a class are lost; None when this one was not."""
        if probe.outcome not in ("lost", "wrong-source"):
            self._silent.pop(probe.text, None)
            return None
        silence = self._silent.setdefault(probe.text, _Silence(probe.time_ns))
        silence.confirmed |= confirmed
        return silence

    def _agent(self, time_ns: int, entry: Entry) -> None:
        away = self.summary.agent_away
        self._silent.clear()
        if entry["away"]:
            away.append(Pause(time_ns, time_ns, str(entry["why"])))
            # An agent that ends takes its interface down first: that is no way of its packets.
            latest = self._near(time_ns, time_ns)
            if latest is not None and latest.ways.keys() == {"nowhere"} and time_ns - latest.begin_ns < NEAR:
                self.summary.departures.remove(latest)
        elif away:
            away[-1].end_ns = time_ns


def _number(value: object) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _by(ways: list[str]) -> str:
    return " and ".join(way if way == "nowhere" else f"by {way}" for way in ways)
