"""What the parent's segment has told: who holds the agent's address, and whether a second MAC address gets through.

The four ARP probes ask the gateway with the parent's or the agent's MAC address as the frame's source and as the sender
inside, so that what drops the agent's frames upstream can be told apart (RFC 826; RFC 5227 for the empty sender).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from viacheck.model.result import StateEvidence

Holder = Literal["parent", "agent"]
Upstream = Literal["accepted", "foreign-source", "delivery", "unknown"]

UPSTREAM_WORDS: dict[Upstream, str] = {
    "accepted": "a second MAC address is accepted",
    "foreign-source": "frames from a second MAC address are dropped",
    "delivery": "frames to a second MAC address are not delivered",
    "unknown": "the gateway does not answer the parent itself",
}


@dataclass(frozen=True, slots=True)
class SecondMAC:
    """The four ARP probes for the gateway: which were answered."""

    parent_mac: str
    agent_mac: str
    gateway: str
    answered: frozenset[tuple[Holder, Holder]]
    """Pairs of frame source and ARP sender."""

    @property
    def upstream(self) -> Upstream:
        """What the four answers say together."""
        from_parent, to_parent = ("parent", "parent") in self.answered, ("agent", "parent") in self.answered
        to_agent, from_agent = ("parent", "agent") in self.answered, ("agent", "agent") in self.answered
        if not from_parent:
            return "unknown"
        if not to_parent and not from_agent:
            return "foreign-source"
        if not to_agent and not from_agent:
            return "delivery"
        return "accepted"

    def evidence(self) -> StateEvidence:
        """The four probes, one line each."""
        macs = {"parent": self.parent_mac, "agent": self.agent_mac}
        sides: tuple[Holder, Holder] = ("parent", "agent")
        lines = [
            f"frame from {macs[frame]} ({frame}), ARP sender {macs[sender]} ({sender}): "
            + ("answered" if (frame, sender) in self.answered else "no answer")
            for frame in sides
            for sender in sides
        ]
        return StateEvidence(title=f"ARP probes for {self.gateway}", lines=lines)


@dataclass(frozen=True, slots=True)
class AddressClaim:
    """Another machine that answered ARP for the agent's address."""

    mac: str
    heard_by: tuple[Holder, ...]
    """Whose question it answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFacts:
    """Everything that was measured on the parent's segment. None stands for what could not be measured."""

    second_mac: SecondMAC | None = None
    claims: tuple[AddressClaim, ...] | None = None
    asked_from: tuple[Holder, ...] = ()
    """From which sides the agent's address was asked for."""
    gateway_answers_host: bool | None = None
    """Whether the gateway answers the host's own ping."""
    host_answers_agent: bool | None = None
    """Whether the parent's own address answers the agent's ping; over macvlan it does not."""

    def host_and_agent(self, parent: str, address: str | None) -> list[StateEvidence]:
        """A fact of macvlan, and no failure: the kernel keeps a parent and the interfaces on it apart."""
        if self.host_answers_agent is None:
            return []
        told = "no answer; macvlan keeps a parent and the interfaces on it apart, so this is no failure"
        said = "answered" if self.host_answers_agent else told
        return [StateEvidence(title="host and agent", lines=[f"ping of the agent to {parent}'s {address}: {said}"])]
