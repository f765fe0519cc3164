"""Rounds of probes: one tagged probe of each class of traffic, watched on every interface that leads out of the host.

A round never waits: it is launched, read now and then, and ends when every probe was seen, or after a while.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.disruption.departures import DepartureLog
from viacheck.disruption.egress_state import EgressUnreadable, read_addresses
from viacheck.disruption.flow_results import probe_result
from viacheck.flight_recorder.watch_plan import WatchedClass, WatchPlan
from viacheck.host.namespace import Namespace
from viacheck.model.measurements import ProbeOutcome
from viacheck.packets.capture import Period, Watch
from viacheck.packets.probe_request import ProbeRequest
from viacheck.packets.probes import ProbeBatch, Prober
from viacheck.packets.tokens import TokenSpace

ROUND_TIMEOUT = 3.0
"""Seconds for the probes of a round to be seen: an ARP request is repeated twice, after a second each."""
ANSWERED_WITHIN = 5.0
"""Seconds for the answers to a round's UDP probes. To a later one the agent's kernel sends an ICMP error, which is
counted as a packet of the agent."""
MOST_ROUNDS_UNANSWERED = 20
"""Rounds whose sockets stay open for answers: a round each 100 ms with 16 classes must not need a thousand."""
MOST_PROBES = 50_000
"""Probes of one token space: after so many, the rounds are opened again, so that its memory stays bounded."""


@dataclass(frozen=True, slots=True)
class ProbeSeen:
    """The outcome of one probe."""

    time_ns: int
    """Since the epoch, when it was sent."""
    number: int
    """The class's."""
    outcome: ProbeOutcome
    interface: str | None
    source: str | None


@dataclass(frozen=True, slots=True)
class RoundResult:
    """One round."""

    probes: tuple[ProbeSeen, ...]
    unproven: Mapping[str, str]
    """Interfaces on which absence is not proven, and why."""
    refused: str | None
    """Why the agent's own kernel refused a probe, if it did."""


class ProbeRounds:
    """Sends the rounds of one plan, from one agent."""

    def __init__(
        self, host: Namespace, agent: Namespace, resolved: ResolvedIntent, plan: WatchPlan, tokens: TokenSpace
    ) -> None:
        """Open the captures.

        Raises:
            OSError: EPERM without CAP_NET_RAW in the namespaces.
        """
        self._host, self._agent, self._resolved, self._plan = host, agent, resolved, plan
        self._prober = Prober(agent, tokens)
        self._watch = Watch(host, resolved.watchable, tokens)
        self._round: _Round | None = None
        self._unanswered: deque[tuple[float, ProbeBatch]] = deque()
        self._sent = 0

    @property
    def spent(self) -> bool:
        """Whether the rounds should be opened again."""
        return self._sent >= MOST_PROBES and not self.under_way

    @property
    def under_way(self) -> bool:
        """Whether a round has been launched and not ended."""
        return self._round is not None

    def launch(self) -> None:
        """Send one probe of each class.

        Raises:
            OSError: the agent's namespace has no network any more, or with the kernel's errno.
        """
        assert self._round is None
        self.close_answered()
        period = self._watch()
        try:
            batch = self._prober.launch([_request(each) for each in self._plan.classes], answers=False)
        except BaseException:
            period.end()
            raise
        self._sent += len(self._plan.classes)
        log = DepartureLog(self._resolved.egress_interfaces, self._resolved.layers)
        self._round = _Round(period, batch, log, time.monotonic() + ROUND_TIMEOUT)

    def read(self) -> RoundResult | None:
        """Read what was seen so far; return the result once the round is over."""
        current = self._round
        assert current is not None
        current.log.note(current.period.read())
        probes = [probe for exchange in current.batch.exchanges for probe in exchange.probes]
        seen = all(probe.token.number in current.log for probe in probes)
        if not seen and time.monotonic() < current.deadline:
            return None
        self._round = None
        current.batch.close_all_but_udp()
        self._unanswered.append((time.monotonic() + ANSWERED_WITHIN, current.batch))
        observation = current.period.end()
        current.log.note(observation.frames)
        refused = next((probe.refused for probe in probes if probe.refused is not None), None)
        sources = self._sources()
        results = []
        for each, probe in zip(self._plan.classes, probes, strict=True):
            departures = current.log.of(probe.token.number, probe.time_ns)
            result = probe_result(0.0, "new", 4, departures, each.uplink, sources(each))
            results.append(ProbeSeen(probe.time_ns, each.number, result.outcome, result.interface, result.source))
        unproven = {name: why for name, why in observation.unproven.items() if name in self._plan.interfaces}
        return RoundResult(tuple(results), unproven, refused)

    def _sources(self) -> Callable[[WatchedClass], frozenset[str | None]]:
        """Return the intended source addresses of a class: those that its uplink has now, or the agent's own."""
        resolved = self._resolved
        if resolved.intent.mode not in ("nat", "pipework-dhcp"):
            return lambda _each: frozenset([resolved.agent_address])
        try:
            present: tuple[str, ...] = read_addresses(self._host, self._agent, resolved)
        except EgressUnreadable:
            present = resolved.uplink_addresses(resolved.uplink)
        return lambda each: frozenset(
            present if each.uplink == resolved.uplink else resolved.uplink_addresses(each.uplink)
        )

    def close_answered(self) -> None:
        """Close the sockets of rounds whose answers are no longer awaited."""
        now = time.monotonic()
        while self._unanswered and (self._unanswered[0][0] <= now or len(self._unanswered) > MOST_ROUNDS_UNANSWERED):
            self._unanswered.popleft()[1].close()

    def close(self) -> None:
        """Close the captures and all sockets."""
        if self._round is not None:
            self._round.batch.close()
        for _until, batch in self._unanswered:
            batch.close()
        self._watch.close()


@dataclass(slots=True)
class _Round:
    period: Period
    batch: ProbeBatch
    log: DepartureLog
    deadline: float


def _request(each: WatchedClass) -> ProbeRequest:
    return ProbeRequest(protocol=each.protocol, destination=each.destination, port=each.port)
