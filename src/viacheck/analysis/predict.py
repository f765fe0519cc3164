"""Predicts where the agent's packets leave: routing, packet filter and source NAT over a snapshot, without a packet.

A prediction proves nothing. It is useful where it shows that packets cannot leave as intended.
"""

from __future__ import annotations

from dataclasses import dataclass

from viacheck.analysis.explain import explain
from viacheck.analysis.explanation_text import passage_text
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS, ResolvedIntent
from viacheck.model.intent import TransportProtocol


@dataclass(frozen=True, slots=True)
class Prediction:
    """Where packets would leave."""

    as_intended: bool | None
    """None when it cannot be predicted."""
    text: str
    """``leaves by wlan0, source 10.10.50.9``, for people."""


def predict(resolved: ResolvedIntent, protocol: TransportProtocol) -> Prediction:
    """Predict where the agent's packets of one protocol to the probe target leave."""
    if resolved.bridged and resolved.snapshot.agent is None:
        return Prediction(None, "not predicted: the state of the agent's namespace is not known (HOST-07)")
    if not resolved.bridged and resolved.agent_source is None:
        return Prediction(None, "not predicted: the agent's subnet is not known (HOST-07)")
    port = None if protocol == "icmp" else resolved.intent.probe.port
    explanation = explain(resolved, resolved.target, PROTOCOL_NUMBERS[protocol], port)
    decision = resolved.agent_decision(protocol)
    if not resolved.bridged and not decision.certain:
        return Prediction(None, "not predicted: the model skipped a rule it cannot evaluate")
    if not resolved.bridged and len(decision.interfaces) > 1:
        return Prediction(False, f"leaves by {' or '.join(sorted(decision.interfaces))}")
    if explanation.decision.outcome != "unicast" or explanation.uplink is None:
        return Prediction(False, f"leaves by no interface: {explanation.decision.outcome}")
    passage = explanation.traversal.passage if explanation.traversal is not None else None
    if passage is not None and passage.allowed is False:
        return Prediction(False, f"leaves by no interface: {passage_text(passage)}")
    source = f", source {explanation.source_on_wire}" if explanation.source_on_wire else ""
    text = f"leaves by {explanation.uplink}{source}"
    if explanation.uplink != resolved.uplink:
        return Prediction(False, text)
    if passage is not None and passage.allowed is None:
        return Prediction(True, f"{text}, unless a rule drops it that cannot be evaluated")
    return Prediction(True, text)
