"""What a cause is, and what measurements may say beyond the snapshot."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

from viacheck.analysis.dhcp_offers import Offer
from viacheck.analysis.segment import SegmentFacts
from viacheck.diagnosis.codes import CODES
from viacheck.disruption.flow_results import DisruptionResult
from viacheck.model.intent import Intent
from viacheck.model.result import Diagnosis, Evidence, PacketsEvidence
from viacheck.persistence.replay_result import NotReplayed, ReplayResult

EGRESS = frozenset({"EGRESS-01", "EGRESS-02", "EGRESS-03", "EGRESS-05", "EGRESS-06"})
"""The checks that watch the agent's own packets."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for checks to fail."""

    code: str
    reported_by: str
    """Id of the check that tells this cause."""
    sentence: str
    remedy: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    explains: frozenset[str] = frozenset()
    """Ids of the other checks that may fail because of it."""
    evidence: tuple[Evidence, ...] = ()

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"{self.code} is no diagnosis code; codes.py lists them")

    def diagnosis(self, check: str) -> Diagnosis:
        """The cause as the diagnosis of one check: told whole by its own check, pointed to by others."""
        return Diagnosis(
            code=self.code,
            cause=self.sentence,
            remedy=list(self.remedy),
            undo=list(self.undo),
            reported_by=None if check == self.reported_by else self.reported_by,
        )


@dataclass(slots=True)
class Measurements:
    """What packets have told about a target so far; a snapshot alone cannot know it."""

    silent_gateways: tuple[str, ...] = ()
    """Uplinks whose gateway did not answer ARP."""
    traffic: dict[str, PacketsEvidence] = field(default_factory=dict)
    """The agent's probes, by protocol: ``icmp``, ``udp``, ``tcp``, ``dns``, ``full-size``, ``ipv6``, ``gateway``."""
    reverse_path_drops: tuple[int, int] = (0, 0)
    """TcpExt IPReversePathFilter of the host, before and after the agent's probes."""
    segment: SegmentFacts | None = None
    """What the parent's segment told of a bridged agent."""
    offers: tuple[Offer, ...] = ()
    """What DHCP servers on the parent's segment offered."""
    disruptions: dict[str, DisruptionResult] = field(default_factory=dict)
    """What became of packets through an event, by the event's name."""
    proof: ReplayResult | NotReplayed | None = None
    """What came of running what is written down; None as long as nobody has asked."""


def enter_agent(intent: Intent) -> str:
    """How a person enters the agent's network namespace: what is put before a command."""
    if intent.agent.netns is not None:
        return command("nsenter", f"--net={intent.agent.netns}")
    # The name of a container has no character that a shell would take for its own.
    return f"nsenter --net --target $(docker inspect -f '{{{{.State.Pid}}}}' {intent.agent.container})"


def command(*words: object) -> str:
    """A command as a person types it, every word quoted where it needs to be."""
    return shlex.join(str(word) for word in words)
