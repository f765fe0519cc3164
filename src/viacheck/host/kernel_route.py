"""Asks the kernel itself which way the agent's packet takes: the second witness beside the routing model.

``ip route get`` with source and input interface sends RTM_GETROUTE (rtnetlink(7)); without them the answer would be
about the host's own packets.
"""

from __future__ import annotations

from dataclasses import dataclass

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.routing.model import Decision, Packet
from viacheck.host.namespace import Namespace
from viacheck.model.intent import Protocol
from viacheck.model.result import CommandEvidence, DecisionEvidence
from viacheck.parsers import iproute


@dataclass(frozen=True, slots=True)
class KernelAnswer:
    """What the kernel says of one packet."""

    type: str | None
    """``unicast``, ``local`` …; None when it refused, and ``words`` says how."""
    interface: str | None
    table: int | None
    words: str
    command: CommandEvidence | None
    """None where no kernel could be asked, and the routing model answers in its place."""

    def agrees_with(self, model: Decision) -> bool:
        """Whether the routing model says the same. Of several equal ways the kernel may take any."""
        if self.type is None:
            # The kernel refuses a group that the host has not joined, and no dump tells which ones it has.
            of_a_group = model.outcome == "multicast" and model.packet.iif is not None
            return of_a_group or not model.delivered
        return model.outcome == self.type and (self.interface in model.interfaces or not model.interfaces)


@dataclass(frozen=True, slots=True)
class KernelDecision:
    """The kernel's answer for the agent's packet, with the model's beside it."""

    answer: KernelAnswer
    evidence: DecisionEvidence


def ask_kernel(namespace: Namespace, packet: Packet) -> KernelAnswer:
    """Ask for one packet, in the namespace that routes it."""
    words = ["ip", "-N", "-j", "route", "get", packet.destination]
    options = (
        ("from", packet.source),
        ("iif", packet.iif),
        ("mark", hex(packet.mark) if packet.mark else None),
        ("ipproto", packet.protocol),
        ("dport", packet.dport),
        # Left out, IPv6 would ask about an arriving packet for no user at all, unlike where it passes one on.
        ("uid", packet.uid),
    )
    for name, value in options:
        if value is not None:
            words += [name, str(value)]
    result = namespace.run(words)
    if not result.ok:
        said = result.stderr.strip() or f"exit code {result.exit_code}"
        return KernelAnswer(None, None, None, said, result.evidence)
    answer = iproute.parse_route_get(result.stdout)
    via = f" via {answer.gateway}" if answer.gateway else ""
    said = f"table {answer.table}:{via} dev {answer.interface}" if answer.type == "unicast" else answer.type
    return KernelAnswer(answer.type, answer.interface, answer.table, said, result.evidence)


def ask_for_agent(host: Namespace, resolved: ResolvedIntent, protocol: Protocol) -> KernelDecision:
    """Ask for the agent's packet of one protocol to the probe target."""
    model = resolved.agent_decision(protocol)
    answer = ask_kernel(host, resolved.agent_packet(protocol))
    return KernelDecision(answer, model.evidence(kernel=answer.words, agree=answer.agrees_with(model)))
