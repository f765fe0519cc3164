"""Capture under load: a hundred tagged probes among 200,000 background packets per second, beside scapy's lfilter."""

from __future__ import annotations

import time

from netns_lab.lab_specs import LabSpec
from viacheck.bench.figures import Figure, Limit, Measurement
from viacheck.bench.scapy_sniffer import ScapySniffer
from viacheck.host.namespace import Namespace
from viacheck.packets.background_load import BackgroundLoad
from viacheck.packets.capture import Watch
from viacheck.packets.probe_request import ProbeRequest
from viacheck.packets.probes import Prober
from viacheck.packets.tokens import TokenSpace
from viacheck.targets.namespace_target import NamespaceTarget

LAB = LabSpec("policy-routing")
RATE = 200_000
"""Background packets per second."""
BURSTS, PROBES_EACH, BETWEEN = 20, 5, 5_000
CATCHING_UP = 0.5
"""Seconds for scapy to process the packets that it has received."""


def measure(quick: bool) -> Measurement:
    """Count the probes that viacheck's watch and scapy see, several times."""
    rounds = 1 if quick else 5
    target = LAB.open()
    own = Figure(what="viacheck's watch: probes seen", unit="of 100", limit=Limit(at_least=100))
    scapy = Figure(what="scapy's AsyncSniffer with lfilter: probes seen", unit="of 100")
    rates: list[float] = []
    lost: dict[str, int] = {own.what: 0, scapy.what: 0}
    try:
        assert target.agent is not None
        tokens = TokenSpace()
        watch = Watch(target.host, target.resolved.watchable, tokens)
        sniffer = ScapySniffer(target.host, str(target.intent.probe.target), [target.intent.egress.uplink])
        try:
            for _ in range(rounds):
                with watch() as period:
                    rates.append(_under_load(target, target.agent, tokens))
                own.values.append(len(period.observation.seen(target.intent.egress.uplink)))
                lost[own.what] += sum(watched.frames_lost for watched in period.observation.watched)
                sniffer.begin()
                rates.append(_under_load(target, target.agent, tokens))
                time.sleep(CATCHING_UP)
                counts = sniffer.end()
                scapy.values.append(counts[target.intent.egress.uplink])
                lost[scapy.what] += counts["lost"]
        finally:
            watch.close()
            sniffer.close()
    finally:
        target.close()
    for figure in (own, scapy):
        figure.remark = (
            f"Frames that the kernel counted as lost by the capture, over all repetitions: {lost[figure.what]:,}."
        )
    least = min(rates)
    own.remark += f" Background packets sent per second, at least: {least:,.0f}."
    return Measurement(name="load", title="Capture under load", figures=[own, scapy])


def _under_load(target: NamespaceTarget, agent: Namespace, tokens: TokenSpace) -> float:
    """Send the probes among background traffic; return its rate."""
    prober = Prober(agent, tokens)
    request = ProbeRequest(protocol="udp", destination=str(target.intent.probe.target), count=PROBES_EACH)
    with BackgroundLoad(target.host, target.intent.egress.uplink, RATE) as load:
        for _ in range(BURSTS):
            load.wait_for(BETWEEN)
            prober.send(request)
    return load.result.rate
