"""One event under way: the host that it happens to, the stream of probes through it, and what became of them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from viacheck.analysis.disruption_text import flow_text
from viacheck.disruption.controls import Event, EventFailed, EventNotMade
from viacheck.disruption.egress_state import read_addresses, read_egress
from viacheck.disruption.event_registry import NotPossible
from viacheck.disruption.flow_results import SETTLED, flow_result, settled
from viacheck.disruption.probe_stream import Stream, StreamFlow, stream_flows
from viacheck.disruption.timeline import Moment, timeline, whereabouts
from viacheck.host.command import CommandResult
from viacheck.host.namespace import Namespace
from viacheck.model.intent_values import seconds
from viacheck.model.measurements import DisruptionResult, EgressState, ProbeResult
from viacheck.model.result import CommandEvidence
from viacheck.model.snapshot import Family
from viacheck.netlink.monitor import RouteMonitor
from viacheck.packets.capture import Watch
from viacheck.packets.probes import Prober
from viacheck.packets.tokens import TokenSpace
from viacheck.targets.namespace_target import NamespaceTarget

LAB_TICKS: Mapping[str | None, int] = {"netns": 100, "engine": 300}
"""By flavour, beats of the stream that packets are watched for after an event in a lab, where what brings them back
does so at once; a busy machine takes longer for a beat, as for everything else. A container asks for its gateway's
address once a second (retrans_time_ms), a namespace of a lab more often."""
SETTLE_TIMEOUT = 2.0
"""Seconds that the way may take to be right before anything happens; a busy machine is slow to show it."""
EVENT_TIMEOUT = 60.0


class EgressNotAsIntended(Exception):
    """The agent's packets do not leave as intended before anything has happened; the message says what they do."""


@dataclass(slots=True)
class HostUnderTest:
    """A host that events happen to, with everything that watches it."""

    target: NamespaceTarget
    agent: Namespace | None
    """None while it is away."""
    tokens: TokenSpace
    watch: Watch
    own: bool
    """It was built for trials, and ends with them."""

    def close(self) -> None:
        """Let go of it, and end what was built for trials."""
        self.watch.close()
        if self.agent is not None and self.agent is not self.target.agent:
            self.agent.close()
        if self.own:
            self.target.close()


@dataclass(slots=True)
class DisruptionRun:
    """One event under way: the stage that it happens on, in a thread of its own beside the stream."""

    ground: HostUnderTest
    judged: NamespaceTarget
    event: Event
    stream: Stream = field(init=False)
    news: RouteMonitor = field(init=False)
    begin_ns: int = 0
    ended_ns: int = 0
    """When the last step was done."""
    steps: list[Moment] = field(default_factory=list)
    states: list[EgressState] = field(default_factory=list)
    held: list[tuple[float, frozenset[str]]] = field(default_factory=list)
    """When the addresses to leave with were read, in seconds since the event began, and what they were."""
    addresses_read_ns: int = 0
    refused: list[CommandEvidence] = field(default_factory=list)
    families: list[Family] = field(default_factory=list)
    beat: threading.Condition = field(default_factory=threading.Condition)
    over: bool = False
    moved_router: tuple[str, str] | None = None

    def disruption_result(self) -> DisruptionResult:
        """Make the event happen, and judge what became of the packets.

        Raises:
            WayNotRight: when they do not leave as intended to begin with.
            NotPossible: when the event cannot be made to happen.
        """
        flow_results = self._courses()
        self.families = sorted({one.family for one in flow_results})
        self.news = RouteMonitor(self.ground.target.host)
        try:
            egress_interfaces = self.judged.resolved.egress_interfaces
            self.stream = Stream(self._prober(), self.ground.watch, self.news, flow_results, egress_interfaces)
            return self._trial(flow_results)
        finally:
            self.news.close()

    @property
    def _ways(self) -> list[str]:
        """The ways out of the host, the intended one first."""
        uplink = self.judged.resolved.uplink
        return [uplink, *(way for way in self.judged.resolved.egress_interfaces if way != uplink)]

    def _courses(self) -> tuple[StreamFlow, ...]:
        intent = self.judged.intent
        destinations: dict[Family, str] = {4: str(intent.probe.target)}
        if self.judged.resolved.agent_address6 is not None and intent.probe.target6 is not None:
            destinations[6] = str(intent.probe.target6)
        protocol = "icmp" if "icmp" in intent.probe.protocols else intent.probe.protocols[0]
        return stream_flows(protocol, destinations, intent.probe.port)

    def _prober(self) -> Prober:
        assert self.ground.agent is not None
        return Prober(self.ground.agent, self.ground.tokens)

    def _trial(self, flow_results: Sequence[StreamFlow]) -> DisruptionResult:
        self.begin_ns = time.time_ns()
        self._dump("before")
        self.stream.run(lambda: all(self._settled(one) for one in flow_results), SETTLE_TIMEOUT)
        judged = [one for one in flow_results if self._settled(one)]
        left_out = tuple(
            f"{'new flows' if one.flow == 'new' else 'the old flow'}, IPv{one.family}: not judged, it did not leave as "
            "intended before anything had happened"
            for one in flow_results
            if one not in judged
        )
        if not any(one.family == 4 for one in judged):
            last = [
                probe_result for one in flow_results if one.family == 4 for probe_result in self._fates(one, last=1)
            ]
            self.stream.end()
            raise EgressNotAsIntended(
                ", ".join(sorted({whereabouts(probe_result) for probe_result in last})) or "nothing was sent"
            )
        self.families = sorted({one.family for one in judged})
        self.begin_ns = self.ended_ns = time.time_ns()
        self.states.clear()
        self.held.clear()
        self._dump("before")
        try:
            trouble = self._happen()
        except EventNotMade as error:
            self.stream.end()
            raise NotPossible(str(error)) from error
        return self._judge(judged, left_out, trouble)

    def _judge(self, judged: Sequence[StreamFlow], left_out: tuple[str, ...], trouble: str | None) -> DisruptionResult:
        """Watch until all is right again or the bound is hit, and classify."""
        ended = (self.ended_ns - self.begin_ns) / 1e9
        if trouble is None:
            ticks = LAB_TICKS[self.judged.flavour] if self.judged.kind == "lab" else math.inf
            last, within = self.stream.ticks + ticks, seconds(self.judged.intent.egress.recover_within)
            self.stream.run(lambda: self._right_again(judged, ended) or self.stream.ticks >= last, within)
        watched = (time.time_ns() - self.begin_ns) / 1e9 - ended
        self._dump("after")
        observation = self.stream.end()
        probe_results = [self._fates(one) for one in judged]
        found = tuple(flow_result(one, ended) for one in probe_results)
        unproven = {
            way: why for way, why in observation.unproven.items() if way in self.judged.resolved.egress_interfaces
        }
        return DisruptionResult(
            event=self.event.name,
            title=self.event.title,
            ended=ended,
            watched=watched,
            flow_results=found,
            states=tuple(self.states),
            timeline=timeline(
                self.event.title,
                self.steps,
                self.states,
                self._announced(),
                probe_results,
                self._ways,
                figures=[*map(flow_text, found), *left_out],
                unproven=unproven,
            ),
            failed_commands=tuple(self.refused),
            unproven=unproven,
            not_judged=left_out,
            failure=trouble,
            moved_router=self.moved_router,
        )

    def _right_again(self, judged: Sequence[StreamFlow], ended: float) -> bool:
        """Whether all courses are as they should be. Who gives an address back may do so after the last step."""
        if self.news.address_ns > self.addresses_read_ns:
            now = time.time_ns()
            self._hold(now, read_addresses(self.ground.target.host, self.ground.agent, self.judged.resolved))
        return all(self._settled(one, after=ended) for one in judged)

    def _hold(self, asked_ns: int, addresses: Sequence[str]) -> None:
        self.addresses_read_ns = asked_ns
        self.held.append(((asked_ns - self.begin_ns) / 1e9, frozenset(addresses)))

    def after_boot(self) -> DisruptionResult:
        """Judge a host that has just come up; before is what the judged host is like now."""
        resolved, ground = self.judged.resolved, self.ground
        flow_results = self._courses()
        self.families = sorted({one.family for one in flow_results})
        self.news = RouteMonitor(ground.target.host)
        try:
            assert self.judged.agent is not None
            self.begin_ns = self.ended_ns = time.time_ns()
            self._keep(self.judged.host, self.judged.agent, "before")
            self.stream = Stream(self._prober(), ground.watch, self.news, flow_results, resolved.egress_interfaces)
            return replace(self._judge(flow_results, (), None), only_table=resolved.table)
        finally:
            self.news.close()

    def _happen(self) -> str | None:
        """Apply the event beside the stream, until it is over; returns why it did not come about, if so."""
        with ThreadPoolExecutor(1, thread_name_prefix="event") as worker:
            done: Future[None] = worker.submit(self.event.apply, self)
            try:
                in_time = self.stream.run(lambda: self._beaten(done), EVENT_TIMEOUT)
            finally:
                with self.beat:
                    self.over = True
                    self.beat.notify_all()
            if not in_time:
                return f"{self.event.title}: not over after {EVENT_TIMEOUT:g} s"
            try:
                done.result()
            except EventFailed as error:
                return str(error)
        return None

    def _beaten(self, done: Future[None]) -> bool:
        """Tell the event that one more beat has passed; whether it is over."""
        with self.beat:
            self.beat.notify_all()
        return done.done()

    def _fates(self, one: StreamFlow, last: int | None = None) -> list[ProbeResult]:
        return self.stream.probe_results(
            one, self.judged.resolved.uplink, self._sources(one.family), self.begin_ns, last
        )

    def _settled(self, one: StreamFlow, after: float | None = None) -> bool:
        probe_results = self._fates(one, last=SETTLED)
        return settled(probe_results) and (after is None or probe_results[0].time > after)

    def _sources(self, family: Family) -> Callable[[float], frozenset[str | None]]:
        """Which sources are right for a probe: a bridged agent's own, else the uplink's or the lease's of that time."""
        resolved = self.judged.resolved
        own = resolved.agent_address if family == 4 else resolved.agent_address6
        if resolved.intent.mode not in ("nat", "pipework-dhcp"):
            return lambda _at: frozenset([own])
        # IPv6 is passed on untranslated, as far as the host has no NAT for it.
        fixed = frozenset([own] if family == 6 else [])

        def sources(at: float) -> frozenset[str | None]:
            # A state is read a moment after its step, so a probe may be as new as the next one.
            before = [addresses for read, addresses in self.held if read <= at][-1:]
            after = [addresses for read, addresses in self.held if read > at][:1]
            return fixed.union(*before, *after)

        return sources

    def run(self, *argv: str) -> CommandResult:
        """Run a command on the host, as one step."""
        self._step(" ".join(argv))
        result = self.ground.target.host.run(argv)
        self.ended_ns = time.time_ns()
        if not result.ok:
            self.refused.append(result.evidence)
        self._dump(result.command)
        return result

    def act(self, words: str, action: Callable[[], object]) -> None:
        """Do something that is no command of the host, as one step."""
        self._step(words)
        action()
        self.ended_ns = time.time_ns()
        self._dump(words)

    def hold(self, ticks: int) -> None:
        """Let the stream go on for so many beats."""
        until = self.stream.ticks + ticks
        with self.beat:
            self.beat.wait_for(lambda: self.over or self.stream.ticks >= until, EVENT_TIMEOUT)

    def agent_leaves(self) -> None:
        """Send nothing, and hold nothing of the agent's, until it is there again."""
        self.stream.prober = None
        # The beat that is under way may still use it.
        self.hold(1)
        self.ground.target.leave_agent()
        self.ground.agent = None

    def agent_is_now(self, agent: Namespace) -> None:
        """Go on from where the agent is now."""
        # Of a lab that is thrown away, or of the live host, whose other checks go on with it.
        self.ground.agent = self.ground.target.agent = agent
        self.stream.prober = self._prober()
        self._dump("the agent is back")

    def reopen(self) -> None:
        """Watch an interface that was made anew."""
        self.stream.reopen()

    def router_moves(self, old: str, new: str) -> None:
        """Expect routes to follow a router to its new address."""
        self.moved_router = (old, new)

    def _step(self, words: str) -> None:
        self.steps.append(Moment(self._since(time.time_ns()), words))

    def _dump(self, moment: str) -> None:
        self._keep(self.ground.target.host, self.ground.agent, moment)

    def _keep(self, host: Namespace, agent: Namespace | None, moment: str) -> None:
        now = time.time_ns()
        at = (now - self.begin_ns) / 1e9
        state = read_egress(host, agent, self.judged.resolved, self.families, time=at, moment=moment)
        self.states.append(state)
        self._hold(now, state.addresses)

    def _announced(self) -> list[Moment]:
        """What the kernel has said since the event began."""
        found = (one for one in self.news.announcements() if one.time_ns >= self.begin_ns)
        return [Moment(self._since(one.time_ns), one.text) for one in found]

    def _since(self, time_ns: int) -> float:
        return round((time_ns - self.begin_ns) / 1e9, 4)
