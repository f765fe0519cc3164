"""Text and evidence about the parent's segment: who holds the agent's address, and whether a second MAC gets through.

Four ARP probes go to the gateway, each with the parent's or the agent's MAC address as the frame's source and as the
ARP sender. The pattern of answers shows what upstream drops (RFC 826; RFC 5227 for the empty sender address).
"""

from __future__ import annotations

from viacheck.model.check_evidence import StateEvidence
from viacheck.model.measurements import AddressClaim, AddressHolder, ClaimSign, SecondMAC, SegmentFacts, Upstream

UPSTREAM_TEXTS: dict[Upstream, str] = {
    "accepted": "a second MAC address is accepted",
    "foreign-source": "frames from a second MAC address are dropped",
    "delivery": "frames to a second MAC address are not delivered",
    "unknown": "the gateway does not answer the parent itself",
}


SIGN_TEXTS: dict[ClaimSign, str] = {
    ClaimSign.OTHER_MAC: "claimed the address in an ARP packet that the side of the {heard_by} heard",
    ClaimSign.AGENT_NOT_ASKED: "answered an ARP request that the agent cannot hear, so another machine has its MAC",
    ClaimSign.ANSWERED_TWICE: "answered one ARP request twice: another machine has the agent's MAC address",
    ClaimSign.FRAMES_FROM_OUTSIDE: "sent frames that came in from outside, and the agent had not sent them",
}


def claim_text(claim: AddressClaim) -> str:
    """Return how another machine showed that it holds the agent's address."""
    heard_by = " and of the ".join(claim.heard_by)
    return f"{claim.mac} {' and '.join(SIGN_TEXTS[sign].format(heard_by=heard_by) for sign in claim.signs)}"


def arp_probe_evidence(second_mac: SecondMAC) -> StateEvidence:
    """Return the four ARP probes as evidence, one line each."""
    macs = {"parent": second_mac.parent_mac, "agent": second_mac.agent_mac}
    sides: tuple[AddressHolder, AddressHolder] = ("parent", "agent")
    lines = [
        f"frame from {macs[frame]} ({frame}), ARP sender {macs[sender]} ({sender}): "
        + ("answered" if (frame, sender) in second_mac.answered else "no answer")
        for frame in sides
        for sender in sides
    ]
    return StateEvidence(title=f"ARP probes for {second_mac.gateway}", lines=lines)


def host_and_agent_evidence(facts: SegmentFacts, parent: str, address: str | None) -> list[StateEvidence]:
    """Return whether host and agent reach each other. Over macvlan they do not, and that is not a failure."""
    if facts.host_answers_agent is None:
        return []
    isolated = "no answer; macvlan keeps a parent and the interfaces on it apart, so this is not a failure"
    answer = "answered" if facts.host_answers_agent else isolated
    return [StateEvidence(title="host and agent", lines=[f"ping of the agent to {parent}'s {address}: {answer}"])]
