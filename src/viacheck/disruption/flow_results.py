"""What became of the agent's packets through an event: a stream of probes, classified, and judged by the intent.

A stream has courses: an old flow that began before the event, and new flows, each by IPv4 and by IPv6. They differ,
because connection tracking remembers how an old flow was translated. Nothing in here sends, waits or reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby, pairwise
from typing import Literal

from viacheck.model.intent import Intent
from viacheck.model.result import CommandEvidence, TimelineEvidence
from viacheck.model.snapshot import Family, Route, Rule

Flow = Literal["old", "new"]
ProbeOutcome = Literal["right", "late", "lost", "leaked", "wrong-source"]
LATE = 0.05
"""Seconds: a probe that leaves later than this after it was sent was held up, by ARP or by a queue."""
SETTLED = 5
"""Probes in a row that decide what a course has come to."""


class Kind(StrEnum):
    """How a course, or a trial, went; from best to worst."""

    SEAMLESS = "seamless"
    RECOVERS = "recovers"
    LEAKS_THEN_RECOVERS = "leaks, then recovers"
    NEW_FLOWS_ONLY = "recovers for new flows only"
    KEEPS_WRONG_SOURCE = "leaves with a wrong source for ever"
    STAYS_SILENT = "goes silent for ever"
    KEEPS_LEAKING = "leaks for ever"


RECOVERED = frozenset({Kind.SEAMLESS, Kind.RECOVERS, Kind.LEAKS_THEN_RECOVERS})
_SEVERITY = {kind: place for place, kind in enumerate(Kind)}


@dataclass(frozen=True, slots=True)
class Departure:
    """A probe seen leaving the host."""

    time: float
    interface: str
    source: str


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What became of one probe. Times are in seconds since the event began; negative before it."""

    time: float
    """When it was sent."""
    flow: Flow
    family: Family
    outcome: ProbeOutcome
    by: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressState:
    """The rules and routes that make the agent's way, and the uplink's addresses, at one moment of a trial."""

    time: float
    """Seconds since the event began."""
    moment: str
    """After which step, in words."""
    rules: tuple[Rule, ...] = ()
    routes: tuple[Route, ...] = ()
    addresses: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """The state, one line for each thing."""
        return [
            *(f"{_six(rule.family)}rule {rule}" for rule in self.rules),
            *(f"{_six(route.family)}route {route}" for route in self.routes),
            *(f"address {address}" for address in self.addresses),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowResult:
    """How one flow of one family went. Times are in seconds since the event began."""

    flow: Flow
    family: Family
    kind: Kind
    sent: int
    lost: int
    late: int
    leaked: int
    wrong_source: int
    leak: tuple[float, float] | None = None
    """When the first and the last leaked probe were sent."""
    leak_by: tuple[str, ...] = ()
    leak_sources: tuple[str, ...] = ()
    first_lost: float | None = None
    right_again: float | None = None
    """When the first probe was sent since which all went right; None when that never came, or never was needed."""
    recovery: float | None = None
    """Seconds from the event's end to ``right_again``; 0 when that was earlier; None when it never came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisruptionResult:
    """One event that was made to happen, and what became of the agent's packets through it."""

    event: str
    """As the intent's ``survives`` names it, where it does."""
    title: str
    ended: float
    """Seconds since the event began."""
    watched: float
    """Seconds that the packets were watched after the event's end."""
    flow_results: tuple[FlowResult, ...]
    states: tuple[EgressState, ...]
    timeline: TimelineEvidence
    refused: tuple[CommandEvidence, ...] = ()
    """Commands of the event that failed."""
    unproven: Mapping[str, str]
    """Ways out on which absence is not proven, and why."""
    left_out: tuple[str, ...] = ()
    """What was not judged, and why."""
    trouble: str | None = None
    """Why the event, or the agent after it, did not come about."""
    moved_router: tuple[str, str] | None = None
    """A router's address before the event and after it: routes are to follow."""
    only_table: int | None = None
    """After a reboot, the table that the way goes by: its rules are compared, at whatever priority, and its routes that
    lead out. What else was typed and is not written down is PERSIST-02's to tell."""

    @property
    def kind(self) -> Kind:
        """The worst of the courses; a family whose new flows alone recover is told as such."""
        kinds = []
        for family in sorted({flow_result.family for flow_result in self.flow_results}):
            by_flow = {
                flow_result.flow: flow_result.kind for flow_result in self.flow_results if flow_result.family == family
            }
            new, old = by_flow.get("new"), by_flow.get("old")
            if new in RECOVERED and old is not None and old not in RECOVERED:
                kinds.append(Kind.NEW_FLOWS_ONLY)
            else:
                kinds += [kind for kind in (new, old) if kind is not None]
        return max(kinds, key=_SEVERITY.__getitem__, default=Kind.STAYS_SILENT)

    @property
    def recovery(self) -> float | None:
        """Seconds from the event's end until every course was right again; None when one never was."""
        times = [flow_result.recovery for flow_result in self.flow_results]
        return None if not times or None in times else max(time for time in times if time is not None)

    @property
    def leaked(self) -> int:
        """How many probes left by another way."""
        return sum(flow_result.leaked for flow_result in self.flow_results)

    @property
    def leak(self) -> tuple[float, float] | None:
        """When the first and the last leaked probe were sent."""
        spans = [flow_result.leak for flow_result in self.flow_results if flow_result.leak is not None]
        return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None

    @property
    def rules_lost(self) -> list[Rule]:
        """Rules that were there before the event and are not after it."""
        return self._missing(self.states[0].rules, self.states[-1].rules) if self.states else []

    @property
    def rules_added(self) -> list[Rule]:
        """Rules that the event leaves and that were not there before, copies of old ones among them.

        Where an event repeats itself there are none as long as they are the same after its first round and after its
        last: what is written down may differ from what was there, once.
        """
        if not self.states or not self._missing(self.states[-1].rules, self._first_round.rules):
            return []
        return self._missing(self.states[-1].rules, self.states[0].rules)

    @property
    def routes_lost(self) -> list[Route]:
        """Routes that were there before the event and are not after it, nor where the router has moved to."""
        if not self.states:
            return []
        left = {_road(route) for route in self.states[-1].routes}
        return [
            route
            for route in self.states[0].routes
            if not left & {_road(route), _road(self._followed(route))} and (self.only_table is None or route.nexthops)
        ]

    @property
    def stale_routes(self) -> list[Route]:
        """Routes that lead to where the router was before the event."""
        return [route for state in self.states[-1:] for route in state.routes if self._followed(route) != route]

    def _followed(self, route: Route) -> Route:
        """A route as it is when it follows the router."""
        if self.moved_router is None:
            return route
        old, new = self.moved_router
        hops = tuple(replace(hop, gateway=new) if hop.gateway == old else hop for hop in route.nexthops)
        return replace(route, nexthops=hops)

    @property
    def _first_round(self) -> EgressState:
        moments = [state.moment for state in self.states[1:-1]]
        repeated = moments and moments.count(moments[-1]) > 1
        return self.states[1 + moments.index(moments[-1])] if repeated else self.states[0]

    def _missing(self, wanted: Sequence[Rule], there: Sequence[Rule]) -> list[Rule]:
        """The wanted rules that are not there, each as often as it is wanted."""
        left, missing = Counter(map(self._key, there)), []
        for rule in wanted:
            if self.only_table is not None and rule.table != self.only_table:
                continue
            left[self._key(rule)] -= 1
            if left[self._key(rule)] < 0:
                missing.append(rule)
        return missing

    def _key(self, rule: Rule) -> Rule:
        return rule if self.only_table is None else replace(rule, priority=0, protocol=None)

    def survived(self, within: float) -> bool:
        """The packets leave as intended again within so many seconds, and rules and routes are back, none added."""
        return (
            self.trouble is None
            and self.recovery is not None
            and self.recovery <= within
            and not (self.rules_lost or self.rules_added or self.routes_lost or self.stale_routes or self.refused)
        )

    @property
    def words(self) -> str:
        """The trial in one sentence, with its figures."""
        if self.trouble is not None:
            return self.trouble
        told = f"{_describe_flows(self)}"
        if self.rules_lost:
            told += f"; {_count(len(self.rules_lost), 'rule')} gone"
        if self.rules_added:
            told += f"; {_count(len(self.rules_added), 'rule')} more than before"
        if self.routes_lost:
            told += f"; {_count(len(self.routes_lost), 'route')} gone"
        if self.stale_routes:
            told += f"; {_count(len(self.stale_routes), 'route')} by the old router"
        if self.refused:
            told += "; failed: " + ", ".join(sorted({one.command for one in self.refused}))
        return told

    @property
    def figures(self) -> list[str]:
        """Each course in one line, and what was not judged."""
        return [*map(flow_line, self.flow_results), *self.left_out]


def probe_result(
    time: float,
    flow: Flow,
    family: Family,
    departures: Sequence[Departure],
    uplink: str,
    sources: Container[str | None],
) -> ProbeResult:
    """What became of a probe that was sent at a time, by where it was seen leaving. Leaking outweighs all."""
    others = [one for one in departures if one.interface != uplink]
    if others:
        return ProbeResult(time, flow, family, "leaked", others[0].interface, others[0].source)
    if not departures:
        return ProbeResult(time, flow, family, "lost")
    first = departures[0]
    if first.source not in sources:
        return ProbeResult(time, flow, family, "wrong-source", first.interface, first.source)
    outcome: ProbeOutcome = "late" if first.time - time > LATE else "right"
    return ProbeResult(time, flow, family, outcome, first.interface, first.source)


def settled(probe_results: Sequence[ProbeResult]) -> bool:
    """Whether the last probes of a course all went right."""
    return len(probe_results) >= SETTLED and all(one.outcome == "right" for one in probe_results[-SETTLED:])


def flow_result(probe_results: Sequence[ProbeResult], ended: float) -> FlowResult:
    """Classify one course: the fates of one flow and family, in order of time, from before the event on.

    Args:
        probe_results: at least one.
        ended: when the event had ended, in seconds since it began.
    """
    counts = Counter(one.outcome for one in probe_results)
    leaked = [one for one in probe_results if one.outcome == "leaked"]
    lost = [one for one in probe_results if one.outcome == "lost"]
    wrong = [place for place, one in enumerate(probe_results) if one.outcome != "right"]
    right_again = recovery = None
    if not wrong:
        kind, recovery = Kind.SEAMLESS, 0.0
    elif settled(probe_results):
        kind = Kind.LEAKS_THEN_RECOVERS if leaked else Kind.RECOVERS
        right_again = probe_results[wrong[-1] + 1].time
        recovery = max(0.0, right_again - ended)
    else:
        last = {one.outcome for one in probe_results[-SETTLED:]}
        if "leaked" in last:
            kind = Kind.KEEPS_LEAKING
        else:
            kind = Kind.KEEPS_WRONG_SOURCE if "wrong-source" in last else Kind.STAYS_SILENT
    return FlowResult(
        flow=probe_results[0].flow, family=probe_results[0].family, kind=kind, sent=len(probe_results),
        lost=counts["lost"], late=counts["late"], leaked=counts["leaked"], wrong_source=counts["wrong-source"],
        leak=(leaked[0].time, leaked[-1].time) if leaked else None,
        leak_by=tuple(sorted({one.by for one in leaked if one.by})),
        leak_sources=tuple(sorted({one.source for one in leaked if one.source})),
        first_lost=lost[0].time if lost else None,
        right_again=right_again, recovery=recovery,
    )  # fmt: skip


def must_survive(intent: Intent, event: str) -> bool:
    """Whether the intent demands that an event is survived: it names it, or names none and leaves the key out."""
    survives = intent.egress.survives
    return survives is None or event in survives


def flow_line(one: FlowResult) -> str:
    """A course with all of its figures."""
    told = f"{'new flows' if one.flow == 'new' else 'the old flow'}, IPv{one.family}: {one.kind}; {one.sent} sent"
    for count, word in (
        (one.lost, "lost"),
        (one.late, f"held up for more than {LATE * 1000:g} ms"),
        (one.wrong_source, "with a wrong source"),
        (one.leaked, "leaked"),
    ):
        if count:
            told += f", {count} {word}"
    if one.first_lost is not None:
        told += f"; first lost {_ms(one.first_lost)} after the event began"
    if one.leak is not None:
        told += f"; leaked {_span(one.leak)}, by {', '.join(one.leak_by)}, with source {', '.join(one.leak_sources)}"
    if one.recovery is not None and one.right_again is not None:
        told += f"; right again {_ms(one.right_again)} after the event began, {_ms(one.recovery)} after it had ended"
    return told


def leak_words(disruption_result: DisruptionResult) -> str:
    """How much leaked through an event, by which way, with which source and for how long; ``nothing leaked``."""
    if disruption_result.leak is None:
        return "nothing leaked"
    by = sorted({way for flow_result in disruption_result.flow_results for way in flow_result.leak_by})
    sources = sorted({source for flow_result in disruption_result.flow_results for source in flow_result.leak_sources})
    lasting = any(flow_result.kind is Kind.KEEPS_LEAKING for flow_result in disruption_result.flow_results)
    until = f" and on until the watching ended, {_ms(disruption_result.watched)} after the event" if lasting else ""
    return (
        f"{_count(disruption_result.leaked, 'packet')} left by {', '.join(by)} with source {', '.join(sources)}, "
        f"{_span(disruption_result.leak)}{until}"
    )


def thinned(probe_results: Sequence[ProbeResult], most: int) -> list[tuple[ProbeResult, int]]:
    """At most about ``most`` fates of one course, each with how many it stands for.

    That is itself, and those left out after it. The first and the last of each run of equal fortune always stay.
    """
    runs = [list(run) for _, run in groupby(probe_results, key=lambda one: (one.outcome, one.by))]
    edges = sum(min(len(run), 2) for run in runs)
    step = max(1, -(-(len(probe_results) - edges) // max(1, most - edges)))
    kept = []
    for run in runs:
        places = [place for place in range(len(run)) if place in (0, len(run) - 1) or place % step == 0]
        kept += [(run[place], after - place) for place, after in pairwise([*places, len(run)])]
    return kept


def _describe_flows(disruption_result: DisruptionResult) -> str:
    kind = disruption_result.kind
    if kind is Kind.RECOVERS:
        return f"recovers in {_ms(disruption_result.recovery or 0.0)}"
    if kind is Kind.LEAKS_THEN_RECOVERS:
        return f"leaks {leak_figures(disruption_result)}, then recovers in {_ms(disruption_result.recovery or 0.0)}"
    if kind is Kind.KEEPS_LEAKING:
        return f"leaks for ever: {leak_words(disruption_result)}"
    if kind is Kind.SEAMLESS:
        return str(kind)
    if kind is Kind.NEW_FLOWS_ONLY:
        old = next(c for c in disruption_result.flow_results if c.flow == "old" and c.kind not in RECOVERED)
        return f"{kind}: the old flow {old.kind}"
    what = "nothing came back within" if kind is Kind.STAYS_SILENT else "watched for"
    return f"{kind}: {what} {_ms(disruption_result.watched)} after the event"


def leak_figures(disruption_result: DisruptionResult) -> str:
    """How many packets leaked, and over how long: ``12 packets over 110 ms``."""
    first, last = disruption_result.leak or (0.0, 0.0)
    return f"{_count(disruption_result.leaked, 'packet')} over {_ms(last - first)}"


def _road(route: Route) -> tuple[Family, str]:
    """What makes a route the same before and after; the kernel's own to a link's network go with its address."""
    return route.family, str(replace(route, source=None) if route.protocol == "kernel" else route)


def _six(family: Family) -> str:
    return "-6 " if family == 6 else ""


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _span(span: tuple[float, float]) -> str:
    return f"from {_ms(span[0])} to {_ms(span[1])} after the event began"
