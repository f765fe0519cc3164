"""A test whether a new lab is ready: the agent's very first ping is answered at once."""

from __future__ import annotations

from netns_lab.plan import PROBE_TARGET
from viacheck.bench.figures import BenchFailed
from viacheck.host.namespace import Namespace
from viacheck.packets.probe_request import ProbeRequest
from viacheck.packets.probes import Prober
from viacheck.packets.tokens import TokenSpace

PATIENCE = 3.0
"""Seconds after which a lab counts as broken."""


def first_ping(agent: Namespace, what: str) -> float:
    """Return the milliseconds until the agent's first ping of the probe target is answered.

    Raises:
        BenchFailed: when the ping is not answered.
    """
    exchange = Prober(agent, TokenSpace()).send(ProbeRequest(protocol="icmp", destination=PROBE_TARGET), PATIENCE)
    if not exchange.answered:
        raise BenchFailed(f"{what}: the agent's first ping was not answered within {PATIENCE:g} s")
    return (exchange.answers[0].time_ns - exchange.probes[0].time_ns) / 1e6
