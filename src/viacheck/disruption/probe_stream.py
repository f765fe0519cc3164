"""A stream of probes from the agent at a steady pace, watched on every egress interface while an event happens.

Each tick sends one probe of every flow. An old flow keeps its port or identifier from before the event on; a new flow
has its own for each probe. The captures are read at every tick, so that the end of an outage is noticed at once.
"""

from __future__ import annotations

import math
import random
import select
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace

from viacheck.analysis.link_layers import LinkLayers
from viacheck.disruption.departures import DepartureLog
from viacheck.disruption.flow_results import probe_result
from viacheck.model.address_family import Family
from viacheck.model.intent import Source, TransportProtocol
from viacheck.model.measurements import LATE, FlowAge, ProbeResult
from viacheck.netlink.monitor import RouteMonitor
from viacheck.packets.capture import Period, Watch
from viacheck.packets.observation import Observation
from viacheck.packets.probe_request import ProbeRequest
from viacheck.packets.probes import Prober

TICK = 0.01
"""Seconds from tick to tick."""
NOT_SENT = -1
"""Number of a probe that was not sent, because the agent was away."""
_PORTS = (20000, 29999)
"""Outside the kernel's ephemeral ports (ip_local_port_range)."""


@dataclass(frozen=True, slots=True)
class StreamFlow:
    """One flow of a stream, and its probe of each tick."""

    flow: FlowAge
    family: Family
    request: ProbeRequest
    of_source: str | None = None
    """The source of the intent that it is bound to; None for the agent's main flows."""
    uplink: str | None = None
    """The uplink of that source."""


def source_flows(flows: Sequence[StreamFlow], source: Source, uplink: str) -> tuple[StreamFlow, ...]:
    """Return flows like these by IPv4, bound to a source of the intent, which must leave by an uplink."""
    address = str(source.address) if source.address is not None else None

    def port(flow: StreamFlow) -> int | None:
        # Another one than that of the same flow from the agent's other addresses.
        return random.randint(*_PORTS) if flow.request.source_port is not None else None  # noqa: S311 - any will do

    return tuple(
        StreamFlow(
            flow.flow, flow.family,
            replace(flow.request, source=address, device=source.interface, source_port=port(flow)), source.name, uplink,
        )
        for flow in flows
        if flow.family == 4
    )  # fmt: skip


def stream_flows(protocol: TransportProtocol, destinations: Mapping[Family, str], port: int) -> tuple[StreamFlow, ...]:
    """Return an old flow and new flows to each family's destination; ``port`` is the port of UDP and TCP."""
    kept = random.randint(*_PORTS)  # noqa: S311 - any port will do
    to_port = None if protocol == "icmp" else port
    sources: tuple[tuple[FlowAge, int | None], ...] = (("old", kept), ("new", None))
    return tuple(
        StreamFlow(
            flow,
            family,
            ProbeRequest(protocol=protocol, destination=destination, port=to_port, source_port=source_port),
        )
        for family, destination in destinations.items()
        for flow, source_port in sources
    )


@dataclass(slots=True)
class _Sent:
    time_ns: int
    number: int


class ProbeStream:
    """A stream under way. It begins when it is created; :meth:`end` closes the watch and judges its soundness."""

    def __init__(
        self,
        prober: Prober,
        watch: Watch,
        monitor: RouteMonitor,
        flows: Sequence[StreamFlow],
        egress_interfaces: Sequence[str],
        tick: float = TICK,
        layers: LinkLayers | None = None,
    ) -> None:
        """Begin to watch.

        Args:
            prober: sends from the agent's namespace. It may be replaced while the stream is under way; while it is
                None, because the agent is away, every tick counts as a lost probe.
            watch: on every egress interface of the host.
            monitor: read between the ticks.
            flows: the flows to send.
            egress_interfaces: those that a probe leaves the host by; other watched interfaces do not count.
            tick: seconds from tick to tick.
            layers: how the host's interfaces stand on each other: a frame on several of them leaves once.
        """
        self.prober: Prober | None = prober
        self.flows = tuple(flows)
        self.ticks = 0
        self._monitor, self._tick = monitor, tick
        self._sent: list[list[_Sent]] = [[] for _ in flows]
        self._departures = DepartureLog(egress_interfaces, layers or LinkLayers())
        self._earlier: list[Observation] = []
        self._period: Period | None = watch()
        self._next = time.monotonic()

    def run(self, until: Callable[[], bool], timeout: float) -> bool:
        """Send and watch until a condition holds, for ``timeout`` seconds at most; return whether it came to hold."""
        deadline = time.monotonic() + timeout
        while not until():
            if time.monotonic() >= deadline:
                return False
            self._send()
            self._wait()
        return True

    def run_ticks(self, until: Callable[[], bool], ticks: int) -> None:
        """Send and watch until a condition holds, for so many ticks at most.

        A machine that is too busy for the pace gets more time: it is slow in what is waited for, too.
        """
        last = self.ticks + ticks
        self.run(lambda: until() or self.ticks >= last, math.inf)

    def _send(self) -> None:
        """Send the probes of one tick."""
        if self.prober is None:
            for sent in self._sent:
                sent.append(_Sent(time.time_ns(), NOT_SENT))
        else:
            with self.prober.launch([flow.request for flow in self.flows], answers=False) as batch:
                for sent, exchange in zip(self._sent, batch.exchanges, strict=True):
                    sent += [_Sent(probe.time_ns, probe.token.number) for probe in exchange.probes]
        self.ticks += 1
        self._read()

    def _wait(self) -> None:
        """Wait until the next tick is due. Missed ticks are left out and not made up for."""
        now = time.monotonic()
        self._next = max(self._next + self._tick, now)
        while (remaining := self._next - time.monotonic()) > 0:
            if select.select([self._monitor], [], [], remaining)[0]:
                self._monitor.read()

    def _read(self) -> None:
        if self._period is not None:
            self._departures.note(self._period.read())

    def reopen(self) -> None:
        """Watch interfaces that were recreated."""
        assert self._period is not None, "no interface of a host that is off is recreated"
        self._period.reopen()

    def leave(self) -> None:
        """End the watch period: the interfaces are about to be gone, with their host."""
        assert self._period is not None
        self._earlier.append(self._period.end())
        self._period = None

    def enter(self, watch: Watch) -> None:
        """Go on with a watch on other interfaces, those of the host that is about to boot."""
        self._period = watch()

    def probe_results(
        self,
        flow: StreamFlow,
        uplink: str,
        sources: Callable[[float], Container[str | None]],
        begin_ns: int,
        last: int | None = None,
    ) -> list[ProbeResult]:
        """Return the outcome of a flow's probes.

        Args:
            flow: one of this stream's flows.
            uplink: the interface that they must leave by.
            sources: returns the intended sources for a probe sent at a time.
            begin_ns: when the event began, since the epoch; times count from there, in seconds.
            last: only so many of the last probes.
        """
        sent = self._sent[self.flows.index(flow)]
        results = []
        for probe in sent if last is None else sent[-last:]:
            at = (probe.time_ns - begin_ns) / 1e9
            departures = self._departures.of(probe.number, begin_ns)
            results.append(probe_result(at, flow.flow, flow.family, departures, uplink, sources(at), flow.of_source))
        return results

    def end(self) -> Mapping[str, str]:
        """Wait for the last probes and end the watch; return why absence is not proven, by interface."""
        deadline = time.monotonic() + LATE
        while self._under_way() and time.monotonic() < deadline:
            self._wait()
            self._read()
        observations = [*self._earlier, *([self._period.end()] if self._period is not None else [])]
        self._departures.clear()
        unproven: dict[str, str] = {}
        for observation in observations:
            self._departures.note(observation.frames)
            unproven |= observation.unproven
        return unproven

    def _under_way(self) -> bool:
        """Return whether a recent probe has not been seen leaving."""
        since = time.time_ns() - int(LATE * 1e9)
        recent = (
            probe for sent in self._sent for probe in sent[-int(LATE / self._tick) - 1 :] if probe.time_ns > since
        )
        return any(probe.number != NOT_SENT and probe.number not in self._departures for probe in recent)
