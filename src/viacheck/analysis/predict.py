"""Predicts where the agent's packets leave: routing, packet filter and source NAT over a snapshot, without a packet.

A prediction is no proof. It is worth something where it shows that packets cannot leave as intended.
"""

from __future__ import annotations

from dataclasses import dataclass

from viacheck.analysis.explain import explain
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS, ResolvedIntent
from viacheck.model.intent import NatAttach, TransportProtocol


@dataclass(frozen=True, slots=True)
class Prediction:
    """Where packets would leave."""

    as_intended: bool | None
    """None when it cannot be told."""
    words: str
    """``leaves by wlan0, source 10.10.50.9``, in words for people."""


def predict(resolved: ResolvedIntent, protocol: TransportProtocol) -> Prediction:
    """Where the agent's packets of one protocol to the probe target would leave."""
    bridged = not isinstance(resolved.intent.agent.attach, NatAttach)
    if bridged and resolved.snapshot.agent is None:
        return Prediction(None, "cannot be told: the state of the agent's namespace is not known (HOST-07)")
    if not bridged and resolved.agent_source is None:
        return Prediction(None, "cannot be told: the agent's subnet is not known (HOST-07)")
    port = None if protocol == "icmp" else resolved.intent.probe.port
    found = explain(resolved, resolved.target, PROTOCOL_NUMBERS[protocol], port)
    decision = resolved.agent_decision(protocol)
    if not bridged and not decision.certain:
        return Prediction(None, "cannot be told: a rule is passed by that the routing model cannot judge")
    if not bridged and len(decision.interfaces) > 1:
        return Prediction(False, f"leaves by {' or '.join(sorted(decision.interfaces))}")
    if found.outcome != "unicast" or found.uplink is None:
        return Prediction(False, f"leaves by no interface: {found.outcome}")
    if found.forward is not None and found.forward.startswith("dropped"):
        return Prediction(False, f"leaves by no interface: {found.forward}")
    words = f"leaves by {found.uplink}" + (f", source {found.source_on_wire}" if found.source_on_wire else "")
    if found.uplink != resolved.uplink:
        return Prediction(False, words)
    certain = found.forward is None or found.forward.startswith("accepted")
    return Prediction(True, words if certain else f"{words}, unless a rule drops it whose text cannot be judged")
