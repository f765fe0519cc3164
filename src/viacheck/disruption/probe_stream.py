"""A stream of probes from the agent, at a steady pace, watched on every way out for as long as an event lasts.

Each beat sends one probe of every course: the old flow keeps its port or identifier from before the event on, a new
flow has one of its own for each probe. What was seen is taken in at every beat, so that the end of an outage is noticed
when it comes.
"""

from __future__ import annotations

import random
import select
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from viacheck.disruption.flow_results import probe_result
from viacheck.model.intent import TransportProtocol
from viacheck.model.measurements import LATE, Departure, FlowAge, ProbeResult
from viacheck.model.snapshot import Family
from viacheck.netlink.monitor import RouteMonitor
from viacheck.packets.capture import Frame, Observation, Watch
from viacheck.packets.probes import Prober, ProbeRequest

PACE = 0.01
"""Seconds from beat to beat."""
NOT_SENT = -1
_PORTS = (20000, 29999)
"""Outside of what the kernel gives to sockets that ask for none (ip_local_port_range)."""


@dataclass(frozen=True, slots=True)
class StreamFlow:
    """One course of a stream: what it sends at each beat."""

    flow: FlowAge
    family: Family
    request: ProbeRequest


def stream_flows(protocol: TransportProtocol, destinations: Mapping[Family, str], port: int) -> tuple[StreamFlow, ...]:
    """An old flow and new flows to each family's destination; ``port`` is that of UDP and TCP."""
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


class Stream:
    """A stream under way. Begun when it is made; :meth:`end` closes the watch period and judges its soundness."""

    def __init__(
        self,
        prober: Prober,
        watch: Watch,
        news: RouteMonitor,
        flow_results: Sequence[StreamFlow],
        egress_interfaces: Sequence[str],
        pace: float = PACE,
    ) -> None:
        """Begin the watch period.

        Args:
            prober: sends from the agent's namespace. It may be exchanged while the stream is under way; while there is
                none, as the agent is away, every beat counts as a probe lost.
            watch: on every way out of the host.
            news: read between the beats.
            flow_results: what to send.
            egress_interfaces: by which a probe leaves the host; other watched interfaces do not count.
            pace: seconds from beat to beat.
        """
        self.prober: Prober | None = prober
        self.flow_results = tuple(flow_results)
        self.ticks = 0
        self._news, self._ways_out, self._pace = news, frozenset(egress_interfaces), pace
        self._sent: list[list[_Sent]] = [[] for _ in flow_results]
        self._departures: dict[int, list[tuple[int, str, str]]] = {}
        self._period = watch()
        self._next = time.monotonic()

    def run(self, until: Callable[[], bool], timeout: float) -> bool:
        """Send and watch until something is so, or for ``timeout`` seconds; returns whether it came to be so."""
        deadline = time.monotonic() + timeout
        while not until():
            if time.monotonic() >= deadline:
                return False
            self._beat()
            self._wait()
        return True

    def _beat(self) -> None:
        if self.prober is None:
            for sent in self._sent:
                sent.append(_Sent(time.time_ns(), NOT_SENT))
        else:
            with self.prober.launch([flow_result.request for flow_result in self.flow_results]) as flight:
                for sent, exchange in zip(self._sent, flight.exchanges, strict=True):
                    sent += [_Sent(probe.time_ns, probe.token.number) for probe in exchange.probes]
        self.ticks += 1
        self._note(self._period.read())

    def _wait(self) -> None:
        """Until the next beat is due; beats that were missed are left out, not made up for."""
        now = time.monotonic()
        self._next = max(self._next + self._pace, now)
        while (left := self._next - time.monotonic()) > 0:
            if select.select([self._news], [], [], left)[0]:
                self._news.read()

    def _note(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            leaves = frame.direction == "out" and frame.role == "probe" and frame.interface in self._ways_out
            if leaves and frame.number is not None:
                self._departures.setdefault(frame.number, []).append((frame.time_ns, frame.interface, frame.source))

    def reopen(self) -> None:
        """Watch interfaces that were made anew."""
        self._period.reopen()

    def probe_results(
        self,
        flow_result: StreamFlow,
        uplink: str,
        sources: Callable[[float], frozenset[str | None]],
        begin_ns: int,
        last: int | None = None,
    ) -> list[ProbeResult]:
        """What became of a course's probes.

        Args:
            flow_result: one of this stream's.
            uplink: where they must leave.
            sources: the sources that are right, for a probe sent at a time.
            begin_ns: when the event began, since the epoch: times are counted from there, in seconds.
            last: only so many of the last probes.
        """
        sent = self._sent[self.flow_results.index(flow_result)]
        found = []
        for one in sent if last is None else sent[-last:]:
            at = (one.time_ns - begin_ns) / 1e9
            departures = [
                Departure((time_ns - begin_ns) / 1e9, interface, source)
                for time_ns, interface, source in self._departures.get(one.number, ())
            ]
            found.append(probe_result(at, flow_result.flow, flow_result.family, departures, uplink, sources(at)))
        return found

    def end(self) -> Observation:
        """Give the last probes the time that they have, end the watch period, and return what it has shown."""
        deadline = time.monotonic() + LATE
        while self._under_way() and time.monotonic() < deadline:
            self._wait()
            self._note(self._period.read())
        observation = self._period.end()
        self._departures.clear()
        self._note(observation.frames)
        return observation

    def _under_way(self) -> bool:
        """Whether a probe that was sent a moment ago has not been seen leaving."""
        since = time.time_ns() - int(LATE * 1e9)
        recent = (one for sent in self._sent for one in sent[-int(LATE / self._pace) - 1 :] if one.time_ns > since)
        return any(one.number != NOT_SENT and one.number not in self._departures for one in recent)
