"""A record as a result: a check of the agent's packets with a timeline for each departure, and a check of the watch.

WATCH-01 is about the agent's packets, WATCH-02 about the watch itself: what it did not see is never called right.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable, Iterator

from reports.text import counted, listed
from viacheck import __version__
from viacheck.diagnosis.cause import Cause
from viacheck.disruption.timeline_evidence import Moment, timeline_evidence
from viacheck.flight_recorder.flight_start import FlightStart
from viacheck.flight_recorder.flight_summary import NEAR, FlightProbe, FlightSummary, Pause, WayDeparture
from viacheck.flight_recorder.record_file import RecordLine
from viacheck.model.check_evidence import Evidence, StateEvidence, TimelineEvidence
from viacheck.model.diagnosis_record import Diagnosis
from viacheck.model.intent_values import seconds as seconds_of
from viacheck.model.measurements import ProbeOutcome, ProbeResult
from viacheck.model.result import CheckResult, Run, RunResult, overall
from viacheck.model.verdict import Verdict
from viacheck.model.waivers import waiver_of

PACKETS_CHECK, WATCH_CHECK = "WATCH-01", "WATCH-02"
TITLES = {
    PACKETS_CHECK: "While it is watched, the agent's packets leave by the intended uplink",
    WATCH_CHECK: "The watch sees everything from its beginning to its end",
}
TIMELINES = 40
"""Departures that are shown with a timeline of their own, the worst of them; the list has more."""
LISTED = 400
SEGMENTS_NAMED, LINES_NAMED = 8, 10
"""Segments with lines that cannot be read, and lines of each, that are named."""
_OUTCOMES: dict[str, ProbeOutcome] = {
    "as-intended": "as-intended", "late": "late", "lost": "lost", "leaked": "leaked", "wrong-source": "wrong-source",
}  # fmt: skip


def flight_result(start: FlightStart, summary: FlightSummary) -> RunResult:
    """Return the whole result of a recording, finished or not.

    Raises:
        IntentError: the intent of the record was changed.
    """
    judge = _Judge(start, summary)
    results = [judge.all_packets(), *judge.departures(), judge.watch()]
    for result in results:
        result.waiver = waiver_of(result, start.intent, datetime.date.today())
    target = start.target.model_copy(deep=True)
    target.verdict = overall([result.counted for result in results])
    target.notes += start.remarks
    run = Run(
        id=start.id,
        started=_iso(start.started_ns),
        finished=_iso(summary.last_ns or start.started_ns),
        command=start.command,
        versions={"viacheck": __version__, "python": platform.python_version(), "kernel": os.uname().release},
    )
    return RunResult(run=run, targets=[target], results=results)


class _Judge:
    def __init__(self, start: FlightStart, summary: FlightSummary) -> None:
        self.start, self.summary = start, summary
        self.uplink = start.uplink
        self.recover_within = seconds_of(start.intent.egress.recover_within)

    def verdict_of(self, departure: WayDeparture) -> Verdict:
        """A departure by another uplink is a failure, and so is one that lasts; a short silence is an advisory."""
        if any(way != "nowhere" for way in departure.ways):
            return Verdict.FAIL
        lasts = departure.seconds is None or departure.seconds > self.recover_within
        return Verdict.FAIL if lasts else Verdict.ADVISORY

    def all_packets(self) -> CheckResult:
        """Return the result for the whole time."""
        departures = self.summary.departures
        verdicts = [self.verdict_of(departure) for departure in departures]
        verdict = Verdict.FAIL if Verdict.FAIL in verdicts else Verdict.ADVISORY if verdicts else Verdict.PASS
        if not departures and not self._was_watched:
            verdict = Verdict.INCONCLUSIVE
        evidence: list[Evidence] = [StateEvidence(title="What was seen", lines=list(self._figures()))]
        if departures:
            lines = [self._line(departure) for departure in departures[:LISTED]]
            if len(departures) + self.summary.more_departures > LISTED:
                lines.append(f"and {len(departures) + self.summary.more_departures - LISTED:,} more")
            evidence.append(StateEvidence(title="Every time that they did not", lines=lines))
        return CheckResult(
            check=PACKETS_CHECK, target=self.start.target.id, title=TITLES[PACKETS_CHECK], verdict=verdict,
            expected=f"the agent's packets leave by {self.uplink}", observed=self._sentence(), evidence=evidence,
            seconds=round(self.summary.seconds, 3),
            diagnosis=self._diagnosis(departures[verdicts.index(verdict)]) if verdict is Verdict.FAIL else None,
        )  # fmt: skip

    @property
    def _was_watched(self) -> bool:
        return self.summary.rounds > 0 and self.summary.first_ns is not None

    def _sentence(self) -> str:
        time = _lasting(self.summary.seconds)
        departures = self.summary.departures
        if not self._was_watched:
            return f"nothing was watched in {time}"
        if not departures:
            return f"in {time} the agent's packets left by {self.uplink} only"
        last_ns = self.summary.last_ns or 0
        total = sum(max((each.end_ns or last_ns) - each.begin_ns, 0) for each in departures) / 1e9
        number = len(departures) + self.summary.more_departures
        often = "once" if number == 1 else f"{number:,} times"
        lasting = f"for {_lasting(total)}" + (" in all" if number > 1 else "")
        still = ", and not yet again when the watch ended" if self.summary.open is not None else ""
        first = departures[0]
        when = "at" if number == 1 else "the first time at"
        ways = list(dict.fromkeys(way for departure in departures for way in departure.ways))
        where = listed([way if way == "nowhere" else f"by {way}" for way in ways], "or")
        return (
            f"in {time} the agent's packets left {where} instead of by {self.uplink} {often}, {lasting}{still}; {when} "
            f"{_moment(first.begin_ns)} {self._cause(first)}"
        )

    def departures(self) -> Iterator[CheckResult]:
        """Yield a result for each of the worst departures, in order of time."""
        ranked = sorted(
            self.summary.departures,
            key=lambda each: (self.verdict_of(each) is Verdict.FAIL, sum(each.packets.values()), each.seconds or 1e9),
            reverse=True,
        )
        kept = {id(departure) for departure in ranked[:TIMELINES]}
        for departure in self.summary.departures:
            if id(departure) in kept:
                yield self._departure(departure)

    def _departure(self, departure: WayDeparture) -> CheckResult:
        verdict = self.verdict_of(departure)
        evidence: list[Evidence] = [self._timeline(departure)]
        if departure.decisions:
            evidence.append(StateEvidence(title="The routing meanwhile", lines=list(departure.decisions)))
        return CheckResult(
            check=PACKETS_CHECK, target=self.start.target.id, case=_moment(departure.begin_ns),
            title=TITLES[PACKETS_CHECK], verdict=verdict, expected=f"the agent's packets leave by {self.uplink}",
            observed=self._course(departure), evidence=evidence, seconds=round(departure.seconds or 0.0, 3),
            diagnosis=self._diagnosis(departure) if verdict is Verdict.FAIL else None,
        )  # fmt: skip

    def _diagnosis(self, departure: WayDeparture) -> Diagnosis:
        begin = datetime.datetime.fromtimestamp(departure.begin_ns / 1e9).astimezone()
        since, until = (begin + datetime.timedelta(seconds=offset) for offset in (-5, 5))
        decision = (
            "find the program that did this; see what ran on the host at that time: journalctl "
            f"--since '{since:%Y-%m-%d %H:%M:%S}' --until '{until:%Y-%m-%d %H:%M:%S}'"
        )
        if departure.from_the_beginning:
            decision = "judge the host as it is now with viacheck --local: the cause was there before the recorder"
        sentence = f"{_moment(departure.begin_ns)} {self._cause(departure)}: {self._where(departure)}; "
        cause = Cause("EGRESS_CHANGED", PACKETS_CHECK, f"{sentence}{self._packets(departure)}.", decision=decision)
        return cause.diagnosis(PACKETS_CHECK)

    def _cause(self, departure: WayDeparture) -> str:
        """Return what happened right before a departure."""
        if departure.from_the_beginning:
            return "it was so when the recorder began, or began again"
        if not departure.because:
            return "(no change of a rule, route, link or address was announced before it: the cause is unknown)"
        shown = "; ".join(departure.because[:3])
        more = f"; and {len(departure.because) - 3} more changes" if len(departure.because) > 3 else ""
        if "routing" not in departure.seen_by:
            return f"(shortly before: {shown}{more}; whether that is the cause is unknown)"
        return f"after: {shown}{more}"

    def _course(self, departure: WayDeparture) -> str:
        """Return where the packets went, for how long, how many were counted, and what ended it."""
        parts = [self._where(departure), self._packets(departure)]
        bad = [f"{number:,} {name}" for name, number in departure.probes.items()]
        if bad:
            parts.append(f"probes meanwhile: {', '.join(bad)}")
        if departure.restored_by:
            parts.append(f"right again after: {'; '.join(departure.restored_by[:3])}")
        if departure.classes:
            classes = list(departure.classes)
            more = f" and {len(classes) - 3} more" if len(classes) > 3 else ""
            parts.append(f"concerned: {', '.join(classes[:3])}{more}")
        return "; ".join(parts)

    def _where(self, departure: WayDeparture) -> str:
        ways = list(departure.ways)
        leaks = [way for way in ways if way != "nowhere"]
        where = f"left by {listed(leaks)}" if leaks else "left nowhere"
        if leaks and len(leaks) < len(ways):
            where += ", or nowhere"
        lasting = departure.seconds
        if lasting is None:
            return f"the packets {where} from then on, until the watch ended"
        if not departure.end_known:
            return f"the packets {where}; that ended while the watch was interrupted, after {_lasting(lasting)} at most"
        # Probes alone show neither when it began nor when it ended: that lies between two rounds.
        at_least = "at least " if departure.seen_by.keys() == {"probes"} else ""
        return f"for {at_least}{_lasting(lasting)} the packets {where}"

    def _packets(self, departure: WayDeparture) -> str:
        if departure.packets:
            counts = [f"{number:,} by {name}" for name, number in departure.packets.items()]
            total = sum(departure.packets.values())
            return f"{counted(total, 'packet')} of the agent counted elsewhere ({listed(counts)})"
        others = [name for name in self.start.interfaces if name != self.uplink]
        unknown = [name for name in others if name in self.start.not_counted]
        if unknown:
            return f"how many packets is unknown ({self.start.not_counted[unknown[0]]})"
        return "no packet of the agent counted elsewhere"

    def _line(self, departure: WayDeparture) -> str:
        return f"{_moment(departure.begin_ns)} {self._cause(departure)}: {self._course(departure)}"

    def _timeline(self, departure: WayDeparture) -> TimelineEvidence:
        begin = departure.begin_ns
        from_ns, to_ns = begin - NEAR, (departure.end_ns or self.summary.last_ns or begin) + NEAR
        probes = [probe for probe in self.summary.probes_seen if from_ns <= probe.time_ns <= to_ns]
        flows: dict[str, list[ProbeResult]] = {}
        for probe in probes:
            flows.setdefault(probe.text, []).append(_probe_result(probe, begin))
        used = [way for way in departure.ways if way != "nowhere"]
        interfaces = list(dict.fromkeys([*self.start.interfaces, *used]))
        return timeline_evidence(
            f"the agent's packets around {_moment(begin)}",
            [
                Moment(_since(change.time_ns, begin), f"the agent's traffic {change.text}")
                for change in departure.changes
            ],
            [],
            [Moment(_since(e.time_ns, begin), e.text) for e in self.summary.events if from_ns <= e.time_ns <= to_ns],
            list(flows.values()),
            interfaces,
            figures=[self._course(departure)],
            unproven=dict(self.summary.unproven),
        )

    def watch(self) -> CheckResult:
        """Return the result about the watch itself."""
        summary = self.summary
        blind = list(self._blind())
        gaps = list(self._gaps())
        verdict = Verdict.INCONCLUSIVE if blind else Verdict.ADVISORY if gaps else Verdict.PASS
        observed = "; ".join([*blind, *gaps]) or f"{_lasting(summary.seconds)} without an interruption"
        return CheckResult(
            check=WATCH_CHECK, target=self.start.target.id, title=TITLES[WATCH_CHECK], verdict=verdict,
            expected="no interruption, no announcement lost, every packet of the agent counted", observed=observed,
            evidence=[StateEvidence(title="Interruptions", lines=[*blind, *gaps])] if blind or gaps else [],
        )  # fmt: skip

    def _blind(self) -> Iterator[str]:
        """Yield why something may have happened that the record does not have."""
        summary = self.summary
        if summary.failed:
            yield f"the recorder ended before its time: {summary.ended}"
        if summary.lines_lost:
            yield f"{counted(summary.lines_lost, 'line')} could not be written to the record"
        for place in _places(summary.unread):
            yield f"{place}: what the record says there is unknown"
        if summary.changes_unwritten:
            yield f"{counted(summary.changes_unwritten, 'change')} of the way came too fast to be written"
        if summary.first_ns is not None and summary.first_ns > self.start.started_ns + 60_000_000_000:
            yield f"the record before {_moment(summary.first_ns)} was removed, as the disk limit says"
        if summary.rounds and summary.unproven_rounds == summary.rounds:
            name, why = next(iter(summary.unproven.items()))
            yield f"in no round was it proven that a probe did not leave elsewhere ({name}: {why})"

    def _gaps(self) -> Iterator[str]:
        """Yield what was not watched."""
        summary = self.summary
        for pause in summary.pauses[:20]:
            yield f"{pause.why} {_span(pause)}"
        if len(summary.pauses) > 20:
            yield f"and {len(summary.pauses) - 20} more interruptions"
        if summary.overruns:
            times = "once" if len(summary.overruns) == 1 else f"{len(summary.overruns):,} times"
            first = _moment(summary.overruns[0])
            yield (
                f"the kernel had more to announce than could be received, {times}, at first at {first} (ENOBUFS); "
                "the state was read again each time"
            )
        for away in summary.agent_away[:20]:
            yield f"the agent was away ({away.why}) {_span(away)}"
        for name, why in self.start.not_counted.items():
            yield f"the agent's packets on {name} are not counted: {why}"
        if summary.rounds > summary.unproven_rounds > 0:
            name, why = next(iter(summary.unproven.items()))
            yield f"in {counted(summary.unproven_rounds, 'round')} absence was not proven ({name}: {why})"
        for place in _places(summary.cut_short):
            yield f"{place}: the recorder was killed while it wrote"
        if summary.ended is None:
            yield "the record has no end: the recorder still runs, or was killed"

    def _figures(self) -> Iterator[str]:
        summary = self.summary
        if summary.first_ns is not None and summary.last_ns is not None:
            yield (
                f"watched from {_moment(summary.first_ns)} to {_moment(summary.last_ns)}: {_lasting(summary.seconds)}; "
                f"ended because: {summary.ended or 'it has not'}"
            )
        if summary.sent is not None:
            yield f"the agent sent {counted(summary.sent, 'packet')}"
        for name in self.start.interfaces:
            if name in self.start.not_counted:
                yield f"{name}: the agent's packets are not counted: {self.start.not_counted[name]}"
                continue
            own = summary.expected[name]
            may = f", and {counted(own, 'packet')} that may leave there" if own else ""
            intended = " (intended)" if name == self.uplink else ""
            yield f"{name}{intended}: {counted(summary.left[name], 'packet')} of the agent left{may}"
        outcomes = ", ".join(f"{number:,} {name}" for name, number in sorted(summary.probes.items()))
        yield f"{counted(summary.rounds, 'round')} of probes: {outcomes or 'none sent'}"
        yield f"{counted(len(self.start.classes), 'class', 'classes')} of traffic: {'; '.join(self.start.classes)}"
        if summary.events_unwritten:
            yield f"{counted(summary.events_unwritten, 'announcement')} of the kernel without effect were not written"


def _probe_result(probe: FlightProbe, begin_ns: int) -> ProbeResult:
    outcome = _OUTCOMES.get(probe.outcome, "lost")
    return ProbeResult(_since(probe.time_ns, begin_ns), "new", 4, outcome, probe.interface, probe.source)


def _places(lines: Iterable[RecordLine]) -> Iterator[str]:
    """Yield which lines of each segment cannot be read, or are missing."""
    numbers: dict[str, list[int]] = {}
    gone: dict[str, list[RecordLine]] = {}
    for line in lines:
        if line.missing:
            gone.setdefault(line.segment, []).append(line)
        else:
            numbers.setdefault(line.segment, []).append(line.number)
    for segment, unread in list(numbers.items())[:SEGMENTS_NAMED]:
        if unread == [0]:
            yield f"{segment} is missing"
            continue
        shown = [f"{number:,}" for number in unread[:LINES_NAMED]]
        if len(unread) > LINES_NAMED:
            shown.append(f"{len(unread) - LINES_NAMED:,} more")
        yield f"{segment}: {'line' if len(unread) == 1 else 'lines'} {listed(shown)} cannot be read"
    if len(numbers) > SEGMENTS_NAMED:
        yield f"{counted(len(numbers) - SEGMENTS_NAMED, 'more segment')} cannot be read whole"
    for segment, gaps in list(gone.items())[:SEGMENTS_NAMED]:
        missing = sum(gap.missing for gap in gaps)
        are = "is" if missing == 1 else "are"
        yield f"{segment}: {counted(missing, 'line')} {are} missing, the first before line {gaps[0].number:,}"
    if len(gone) > SEGMENTS_NAMED:
        yield f"lines are missing before {counted(len(gone) - SEGMENTS_NAMED, 'more segment')} too"


def _since(time_ns: int, begin_ns: int) -> float:
    return round((time_ns - begin_ns) / 1e9, 4)


def _span(pause: Pause) -> str:
    return f"from {_moment(pause.begin_ns)} for {_lasting((pause.end_ns - pause.begin_ns) / 1e9)}"


def _moment(time_ns: int) -> str:
    """Return a moment as local time with its zone: ``2026-11-27 02:13:04.512 UTC+01:00``."""
    local = datetime.datetime.fromtimestamp(time_ns / 1e9).astimezone()
    offset = local.strftime("%z")
    zone = f"{offset[:3]}:{offset[3:5]}" if local.utcoffset() else ""
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03} UTC{zone}"


def _iso(time_ns: int) -> str:
    return datetime.datetime.fromtimestamp(time_ns / 1e9).astimezone().isoformat(timespec="milliseconds")


def _lasting(seconds: float) -> str:
    """Return a length of time as a person says it: ``301 ms``, ``12.3 s``, ``12 min 3 s``, ``3 h 2 min``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 else "less than 1 ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
