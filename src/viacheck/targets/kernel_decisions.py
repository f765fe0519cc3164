"""The kernel's decision for the agent's packets, with the routing model's beside it."""

from __future__ import annotations

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.host.kernel_route import ask_kernel
from viacheck.host.namespace import Namespace
from viacheck.model.intent import Protocol
from viacheck.model.measurements import KernelDecision


def ask_for_agent(host: Namespace, resolved: ResolvedIntent, protocol: Protocol) -> KernelDecision:
    """Ask the host's kernel for the agent's packet of one protocol to the probe target."""
    model = resolved.agent_decision(protocol)
    answer = ask_kernel(host, resolved.agent_packet(protocol))
    return KernelDecision(answer, model.evidence(kernel=answer.text, agree=model.agrees_with(answer)))
