"""One event under way: the host that it happens to, the probe stream meanwhile, and the result."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from viacheck.analysis.container_facts import own_address_varies
from viacheck.analysis.disruption_text import flow_label, flow_text
from viacheck.analysis.sources import missing_source, source_uplink
from viacheck.disruption.controls import (
    DisruptionTarget,
    EgressNotAsIntended,
    Event,
    EventFailed,
    EventNotPossible,
    HostNotBack,
)
from viacheck.disruption.egress_state import read_addresses, read_agent_default, read_egress
from viacheck.disruption.events import REBOOT
from viacheck.disruption.flow_results import SETTLED, flow_result, settled
from viacheck.disruption.probe_stream import TICK, ProbeStream, StreamFlow, source_flows, stream_flows
from viacheck.disruption.state_after import StateAfter
from viacheck.disruption.timeline_evidence import Moment, probe_text, timeline_evidence
from viacheck.host.command import CommandResult
from viacheck.host.namespace import Namespace
from viacheck.model.address_family import Family
from viacheck.model.check_evidence import CommandEvidence
from viacheck.model.egress_changes import EgressChanges, EgressState
from viacheck.model.intent_values import seconds
from viacheck.model.measurements import DisruptionResult, ProbeResult
from viacheck.netlink.monitor import RouteMonitor
from viacheck.packets.capture import Watch
from viacheck.packets.probes import Prober
from viacheck.packets.tokens import TokenSpace

LAB_TICKS: Mapping[str | None, int] = {"netns": 200, "engine": 300, "host": 300, "vm": 300}
"""By flavour, the ticks for which packets are watched after an event in a lab, where a recovery follows at once. Ticks
and not seconds, because a busy machine is slow in everything. A container asks for its gateway's MAC address once a
second (retrans_time_ms), a namespace of a lab more often."""
LAB_WATCH = 60.0
"""Seconds after which that watch ends on the busiest machine, on which the kernel needs ten to notice a carrier."""
SETTLE_TICKS = 200
"""Ticks for the egress to be as intended before the event, and once more at the end of the watch after it."""
EVENT_TIMEOUT, LAB_EVENT_TIMEOUT = 60.0, 180.0
"""Seconds for an event, and for each of its commands. A busy machine with several whole hosts needs half a minute for
``netplan apply``; a lab has time for that, and a live host is interrupted meanwhile."""
STATE_TICKS: Mapping[str | None, int] = {"netns": 50, "engine": 50, "host": 300, "vm": 300}
"""By flavour, the ticks for which rules and routes in a lab may stay behind the packets: a whole host has managers."""


@dataclass(slots=True)
class HostUnderTest:
    """A host that an event happens to, with its captures."""

    target: DisruptionTarget
    agent: Namespace | None
    """None while the agent is away."""
    tokens: TokenSpace
    watch: Watch
    own: bool
    """The target was built for this event, and ends with it."""

    def close(self) -> None:
        """Close the captures, and the target that was built for this event."""
        self.watch.close()
        if self.agent is not None and self.agent is not self.target.agent:
            self.agent.close()
        if self.own:
            self.target.close()


@dataclass(slots=True)
class DisruptionRun:
    """One event under way. It is the event's context; the event runs in its own thread beside the stream."""

    host: HostUnderTest
    judged: DisruptionTarget
    event: Event
    stream: ProbeStream = field(init=False)
    monitor: RouteMonitor = field(init=False)
    begin_ns: int = 0
    ended_ns: int = 0
    """When the last step was done."""
    steps: list[Moment] = field(default_factory=list)
    states: list[EgressState] = field(default_factory=list)
    address_readings: list[tuple[float, frozenset[str]]] = field(default_factory=list)
    """When the egress addresses were read, in seconds since the event began, and the addresses."""
    addresses_read_ns: int = 0
    failed_commands: list[CommandEvidence] = field(default_factory=list)
    families: list[Family] = field(default_factory=list)
    ticked: threading.Condition = field(default_factory=threading.Condition)
    over: bool = False
    moved_router: tuple[str, str] | None = None
    figures: list[str] = field(default_factory=list)
    _host_away: bool = False
    """The host is not back from the event."""
    _replaced: bool = False
    """The agent has another namespace than before the event."""
    powered_on: float | None = None
    """Seconds since the event began, when the host was powered on again."""
    _after: StateAfter = field(init=False)
    _waiting: tuple[Callable[[], object], Future[None]] | None = None
    """What is to be done between two ticks of the stream."""

    def result(self) -> DisruptionResult:
        """Carry the event out, and return the result.

        Raises:
            EgressNotAsIntended: the packets do not leave as intended before the event.
            EventNotPossible: the event cannot be carried out.
        """
        flows = self._flows()
        self.families = sorted({flow.family for flow in flows})
        self.monitor = RouteMonitor(self.host.target.host)
        try:
            self.stream = self._stream(flows)
            return self._carry_out(flows)
        finally:
            self.monitor.close()

    def after_boot(self) -> DisruptionResult:
        """Return the result for a host that has just booted; the state before is the judged host's present state."""
        flows = self._flows()
        self.families = sorted({flow.family for flow in flows})
        self.monitor = RouteMonitor(self.host.target.host)
        try:
            assert self.judged.agent is not None
            self.begin_ns = self.ended_ns = time.time_ns()
            self.states.append(self._state_of(self.judged.host, self.judged.agent, "before"))
            self.stream = self._stream(flows)
            return self._judge(flows, (), None)
        finally:
            self.monitor.close()

    def _stream(self, flows: tuple[StreamFlow, ...]) -> ProbeStream:
        resolved = self.judged.resolved
        return ProbeStream(
            self._prober(), self.host.watch, self.monitor, flows, resolved.egress_interfaces, layers=resolved.layers
        )

    def _flows(self) -> tuple[StreamFlow, ...]:
        intent = self.judged.intent
        destinations: dict[Family, str] = {4: str(intent.probe.target)}
        if self.judged.resolved.agent_address6 is not None and intent.probe.target6 is not None:
            destinations[6] = str(intent.probe.target6)
        protocol = "icmp" if "icmp" in intent.probe.protocols else intent.probe.protocols[0]
        flows = stream_flows(protocol, destinations, intent.probe.port)
        resolved = self.judged.resolved
        bound = [
            source_flows(flows, source, source_uplink(resolved, source))
            for source in intent.agent.source
            if missing_source(resolved, source) is None
        ]
        return (*flows, *(flow for of_one in bound for flow in of_one))

    def _prober(self) -> Prober:
        assert self.host.agent is not None
        return Prober(self.host.agent, self.host.tokens)

    def _carry_out(self, flows: Sequence[StreamFlow]) -> DisruptionResult:
        self.begin_ns = time.time_ns()
        self._read_host_state("before")
        self.stream.run_ticks(lambda: all(self._settled(flow) for flow in flows), SETTLE_TICKS)
        judged = [flow for flow in flows if self._settled(flow)]
        not_judged = tuple(
            f"{flow_label(flow.flow, flow.family, flow.of_source)}: not judged, it did not leave as intended before "
            "the event"
            for flow in flows
            if flow not in judged
        )
        if not any(flow.family == 4 and flow.of_source is None for flow in judged):
            main = [flow for flow in flows if flow.family == 4 and flow.of_source is None]
            last = [result for flow in main for result in self._probe_results(flow, last=SETTLED)]
            self.stream.end()
            raise EgressNotAsIntended(", ".join(sorted({probe_text(result) for result in last})) or "nothing was sent")
        self.families = sorted({flow.family for flow in judged})
        self.begin_ns = self.ended_ns = time.time_ns()
        self.states.clear()
        self.address_readings.clear()
        self._read_host_state("before")
        try:
            failure = self._apply()
        except EventNotPossible:
            self.stream.end()
            raise
        return self._judge(judged, not_judged, failure)

    def _apply(self) -> str | None:
        """Apply the event beside the stream, until it is over; return why it failed, if it did."""
        with ThreadPoolExecutor(1, thread_name_prefix="event") as worker:
            done: Future[None] = worker.submit(self.event.apply, self)
            try:
                in_time = self.stream.run(lambda: self._tick(done), self._timeout)
            finally:
                with self.ticked:
                    self.over = True
                    self.ticked.notify_all()
            if not in_time:
                self._host_away = self.event.name == REBOOT
                return f"not over after {self._timeout:g} s"
            try:
                done.result()
            except EventFailed as error:
                self._host_away = isinstance(error, HostNotBack)
                return str(error)
        return None

    @property
    def _timeout(self) -> float:
        return LAB_EVENT_TIMEOUT if self._in_lab else EVENT_TIMEOUT

    @property
    def _in_lab(self) -> bool:
        return self.judged.kind == "lab"

    def _tick(self, done: Future[None]) -> bool:
        """Notify the event of one more tick; return whether the event is over."""
        if self._waiting is not None:
            (action, answer), self._waiting = self._waiting, None
            try:
                action()
            except Exception as error:
                # It belongs to the event, whose thread raises it again.
                answer.set_exception(error)
            else:
                answer.set_result(None)
        with self.ticked:
            self.ticked.notify_all()
        return done.done()

    def _judge(
        self, judged: Sequence[StreamFlow], not_judged: tuple[str, ...], failure: str | None
    ) -> DisruptionResult:
        """Watch until every flow has recovered or the limit is reached, and classify the flows."""
        self._after = StateAfter(lambda: self._state_now("after"))
        ended = (self.ended_ns - self.begin_ns) / 1e9
        if failure is None:
            ticks = LAB_TICKS[self.judged.flavour] if self._in_lab else math.inf
            last = self.stream.ticks + ticks
            within = LAB_WATCH if self._in_lab else seconds(self.judged.intent.egress.recover_within)
            self.stream.run(
                lambda: (self._recovered(judged, ended) and self._restored()) or self.stream.ticks >= last, within
            )
            if self._after.was_read:
                # They had recovered. A busy machine delays a probe now and then, which may be one of the last.
                self.stream.run_ticks(lambda: self._recovered(judged, ended), SETTLE_TICKS)
        watched = (time.time_ns() - self.begin_ns) / 1e9 - ended
        self.states.append(self._after.last(lambda state: not self._changes(state).changed))
        not_proven = self.stream.end()
        resolved = self.judged.resolved
        probe_results = [self._probe_results(flow) for flow in judged]
        tick = TICK if self._in_lab else None
        flow_results = tuple(flow_result(results, ended, tick) for results in probe_results)
        unproven = {
            interface: reason for interface, reason in not_proven.items() if interface in resolved.egress_interfaces
        }
        others = [interface for interface in resolved.egress_interfaces if interface != resolved.uplink]
        return DisruptionResult(
            event=self.event.name,
            title=self.event.title,
            ended=ended,
            watched=watched,
            flow_results=flow_results,
            states=tuple(self.states),
            timeline=timeline_evidence(
                self.event.title,
                self.steps,
                self.states,
                self._announcements(),
                probe_results,
                [resolved.uplink, *others],
                figures=[*self._boot_figures(probe_results), *map(flow_text, flow_results), *not_judged],
                unproven=unproven,
            ),
            failed_commands=tuple(self.failed_commands),
            unproven=unproven,
            not_judged=not_judged,
            failure=failure,
            host_away=self._host_away,
            moved_router=self.moved_router,
            only_table=self._only_table,
            agent_default=read_agent_default(self.host.agent) if self._replaced and self.host.agent else None,
        )

    def _recovered(self, judged: Sequence[StreamFlow], ended: float) -> bool:
        """Return whether all flows have recovered. A program may restore an address after the last step."""
        if self.monitor.address_ns > self.addresses_read_ns:
            now = time.time_ns()
            self._add_addresses(now, read_addresses(self.host.target.host, self.host.agent, self.judged.resolved))
        return all(self._settled(flow, after=ended) for flow in judged)

    def _restored(self) -> bool:
        """Return whether rules and routes are as before. The program that sets them may be slower than the packets."""
        ticks = self.stream.ticks
        state = self._after.at(ticks, announced_ns=self.monitor.last_ns)
        late = self._in_lab and ticks >= self._after.first_read_at + STATE_TICKS[self.judged.flavour]
        return late or not self._changes(state).changed

    def _changes(self, after: EgressState) -> EgressChanges:
        """Return what the event has changed, by this state after it."""
        return EgressChanges(states=(*self.states, after), moved_router=self.moved_router, only_table=self._only_table)

    @property
    def _only_table(self) -> int | None:
        return self.judged.resolved.table if self.event.name == REBOOT else None

    def _probe_results(self, flow: StreamFlow, last: int | None = None) -> list[ProbeResult]:
        uplink, sources = flow.uplink or self.judged.resolved.uplink, self._sources(flow)
        return self.stream.probe_results(flow, uplink, sources, self.begin_ns, last)

    def _settled(self, flow: StreamFlow, after: float | None = None) -> bool:
        probe_results = self._probe_results(flow, last=SETTLED)
        return settled(probe_results) and (after is None or probe_results[0].time > after)

    def _sources(self, flow: StreamFlow) -> Callable[[float], Container[str | None]]:
        """Return the intended sources of a probe by its time: the uplink's, or a bridged agent's own."""
        resolved, family = self.judged.resolved, flow.family
        if flow.uplink is not None:
            agent = resolved.snapshot.agent
            own_addresses = [address.address for address in agent.addresses] if agent is not None else []
            allowed = frozenset([*resolved.uplink_addresses(flow.uplink), *own_addresses])
            return lambda _at: allowed
        own = resolved.agent_address if family == 4 else resolved.agent_address6
        if resolved.bridged and not own_address_varies(resolved):
            return lambda _at: frozenset([own])
        # IPv6 is forwarded without translation, unless the host has NAT for it.
        fixed = frozenset([own] if family == 6 else [])

        def sources(at: float) -> frozenset[str | None]:
            # A state is read a moment after its step, so the next reading may hold for a probe too.
            before = [addresses for read, addresses in self.address_readings if read <= at][-1:]
            after = [addresses for read, addresses in self.address_readings if read > at][:1]
            return fixed.union(*before, *after)

        return sources

    def run(self, *argv: str) -> CommandResult:
        """Run a command on the host, as one step."""
        self._add_step(" ".join(argv))
        result = self.host.target.host.run(argv, self._timeout)
        self.ended_ns = time.time_ns()
        if not result.ok:
            self.failed_commands.append(result.evidence)
        self._read_host_state(result.command)
        return result

    def act(self, text: str, action: Callable[[], object]) -> None:
        """Take a step that is not a command of the host."""
        self._add_step(text)
        action()
        self.ended_ns = time.time_ns()
        self._read_host_state(text)

    def settle(self, *commands: Sequence[str]) -> None:
        """Run commands that wait for what the last step has begun, beside the stream."""
        for argv in commands:
            self._add_step(" ".join(argv))
            self._read_host_state(self.host.target.host.run(argv, self._timeout).command)

    def wait(self, ticks: int) -> None:
        """Wait while the probe stream continues for some ticks."""
        until = self.stream.ticks + ticks
        with self.ticked:
            self.ticked.wait_for(lambda: self.over or self.stream.ticks >= until, self._timeout)

    def agent_stops(self) -> None:
        """Close the agent's namespace and send nothing, because the agent is about to end."""
        self.stream.prober = None
        # The present tick may still use the prober.
        self.wait(1)
        self.host.target.leave_agent()
        self.host.agent = None

    def agent_returns(self, agent: Namespace) -> None:
        """Continue in the agent's new namespace."""
        # The target is a lab that is thrown away, or the live host, whose other checks use the new namespace too.
        self.host.agent = self.host.target.agent = agent
        self._replaced = True
        self.stream.prober = self._prober()
        self._read_host_state("the agent is back")

    def reopen(self) -> None:
        """Watch interfaces that were created, or recreated."""
        self._between_ticks(self.stream.reopen)

    def host_stops(self) -> None:
        """End the watch: the host is off, and its interfaces are about to be gone."""
        self._between_ticks(self.stream.leave)

    def host_starts(self) -> None:
        """Watch the interfaces that the host has from now on; it is powered on after this."""

        def watch() -> None:
            self.host.watch.close()
            self.host.watch = Watch(self.host.target.host, self.judged.resolved.watchable, self.host.tokens)
            self.stream.enter(self.host.watch)
            self.monitor.move(self.host.target.host)

        self._between_ticks(watch)
        self.powered_on = self._since(time.time_ns())

    def _between_ticks(self, action: Callable[[], object]) -> None:
        """Do something in the thread of the stream, which alone uses the watch."""
        answer: Future[None] = Future()
        self._waiting = (action, answer)
        answer.result(self._timeout)

    def _boot_figures(self, flows: Sequence[Sequence[ProbeResult]]) -> list[str]:
        """Return when the host was off and when the agent's first packet left after it was powered on."""
        if self.powered_on is None:
            return []
        left = sorted((result for flow in flows for result in flow if result.interface), key=lambda result: result.time)
        last = max((result.time for result in left if result.time < self.powered_on), default=0.0)
        first = next((result for result in left if result.time > self.powered_on), None)
        text = "none left after the host was powered on"
        if first is not None:
            text = f"the first after power-on left {first.time - self.powered_on:.2f} s after it by {first.interface}"
        return [f"the agent's last packet before power-off left {max(last, 0.0):.2f} s after the event began; {text}"]

    def router_moves(self, old: str, new: str) -> None:
        """Expect routes by the router's old address to follow it to the new one."""
        self.moved_router = (old, new)

    def _add_step(self, text: str) -> None:
        self.steps.append(Moment(self._since(time.time_ns()), text))

    def _read_host_state(self, moment: str) -> None:
        self.states.append(self._state_now(moment))

    def _state_now(self, moment: str) -> EgressState:
        return self._state_of(self.host.target.host, self.host.agent, moment)

    def _state_of(self, host: Namespace, agent: Namespace | None, moment: str) -> EgressState:
        now = time.time_ns()
        at = (now - self.begin_ns) / 1e9
        state = read_egress(host, agent, self.judged.resolved, self.families, time=at, moment=moment)
        self._add_addresses(now, state.addresses)
        return state

    def _add_addresses(self, read_ns: int, addresses: Sequence[str]) -> None:
        self.addresses_read_ns = read_ns
        self.address_readings.append(((read_ns - self.begin_ns) / 1e9, frozenset(addresses)))

    def _announcements(self) -> list[Moment]:
        """Return the kernel's announcements since the event began."""
        announcements = self.monitor.announcements()
        return [
            Moment(self._since(announcement.time_ns), announcement.text)
            for announcement in announcements
            if announcement.time_ns >= self.begin_ns
        ]

    def _since(self, time_ns: int) -> float:
        return round((time_ns - self.begin_ns) / 1e9, 4)
