"""One egress verdict: probes of three protocols, their answers, the proof on every interface; beside scapy's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from netns_lab.lab_specs import LabSpec
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.sightings import left_by, unsound
from viacheck.bench.figures import BenchFailed, Figure, Limit, Measurement, milliseconds
from viacheck.bench.scapy_sniffer import ScapySniffer
from viacheck.host.namespace import Namespace
from viacheck.model.intent_values import seconds
from viacheck.packets.capture import Watch
from viacheck.packets.evidence import packets_evidence
from viacheck.packets.probe_request import ProbeRequest
from viacheck.packets.probes import Prober
from viacheck.packets.tokens import TokenSpace
from viacheck.targets.namespace_target import NamespaceTarget

LAB = LabSpec("policy-routing")
WARM_UP = 2


class _Judge:
    """Sends the probes of the intent and judges where they left."""

    def __init__(self, target: NamespaceTarget, agent: Namespace) -> None:
        self.resolved: ResolvedIntent = target.resolved
        self.tokens = TokenSpace()
        self._prober = Prober(agent, self.tokens)
        intent = target.intent.probe
        self._timeout = seconds(intent.timeout)
        self.requests = [
            ProbeRequest(
                protocol=protocol, destination=str(intent.target), count=intent.count,
                port=None if protocol == "icmp" else intent.port,
            )
            for protocol in intent.protocols
        ]  # fmt: skip
        self.probes = len(self.requests) * intent.count

    def send(self) -> None:
        """Send, and wait for every answer."""
        answered = sum(exchange.answered for exchange in self._prober.send_many(self.requests, self._timeout))
        if answered != self.probes:
            raise BenchFailed(f"{answered} of {self.probes} probes were answered")

    def judge(self, watch: Watch) -> None:
        """Send, watch, and prove that every probe left by the uplink and by no other interface."""
        with watch() as period:
            exchanges = self._prober.send_many(self.requests, self._timeout)
        others = [way for way in self.resolved.egress_interfaces if way != self.resolved.uplink]
        for exchange in exchanges:
            packets = packets_evidence([exchange], period.observation)
            left = left_by(packets, self.resolved.egress_interfaces)
            proven = set(left) == {self.resolved.uplink} and len(left[self.resolved.uplink]) == packets.sent
            if not proven or packets.answered != packets.sent or unsound(packets, others):
                raise BenchFailed(f"{exchange.request.protocol}: {left}, {packets.answered} answered, not as intended")


def measure(quick: bool) -> Measurement:
    """Judge the policy-routing lab repeatedly: with open captures, with new captures, with scapy's sniffer.

    The verdict with open captures and the probes alone, whose ratio is limited, alternate by themselves: what
    follows scapy's sniffer, for which this process waits some 50 ms, begins with cold caches and takes longer.
    """
    rounds = 5 if quick else 51
    target = LAB.open()
    try:
        assert target.agent is not None
        judge = _Judge(target, target.agent)
        names = target.resolved.watchable
        count = f"{judge.probes} probes of {len(judge.requests)} protocols"
        warm = Figure(
            what=f"{count}, {len(names)} interfaces watched, captures open", unit="ms", limit=Limit(at_most=30)
        )
        cold = Figure(what="the same, captures opened for it", unit="ms")
        alone = Figure(
            what="the probes and their answers alone, without captures", unit="ms",
            limit=Limit(of="ratio", at_least=0.667),
        )  # fmt: skip
        scapy = Figure(
            what="the probes with scapy's AsyncSniffer and lfilter on both uplinks", unit="ms",
            remark="Without a fence and a count of lost frames, the sniffer proves no absence.",
        )  # fmt: skip
        sniffer = ScapySniffer(target.host, str(target.intent.probe.target), list(target.intent.uplinks))
        watch = Watch(target.host, names, judge.tokens)
        try:
            _measure_in_turn(rounds, [(warm, lambda: judge.judge(watch)), (alone, judge.send)])
            _measure_in_turn(
                rounds,
                [(cold, lambda: _cold(judge, target.host, names)), (scapy, lambda: _with_scapy(judge, sniffer))],
            )
        finally:
            watch.close()
            sniffer.close()
    finally:
        target.close()
    return Measurement(name="verdict", title="One egress verdict", figures=[warm, cold, alone, scapy])


def _measure_in_turn(rounds: int, measured: Sequence[tuple[Figure, Callable[[], None]]]) -> None:
    for number in range(rounds + WARM_UP):
        for figure, action in measured:
            duration = milliseconds(action)
            figure.values += [duration] if number >= WARM_UP else []


def _cold(judge: _Judge, host: Namespace, names: tuple[str, ...]) -> None:
    watch = Watch(host, names, judge.tokens)
    try:
        judge.judge(watch)
    finally:
        watch.close()


def _with_scapy(judge: _Judge, sniffer: ScapySniffer) -> None:
    sniffer.begin()
    judge.send()
    sniffer.end()
