"""The evidence of a check: what was run, sent, seen and counted (contract viacheck.result/1)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from viacheck.model.path import CoverageEvidence, PathEvidence
from viacheck.model.plain import Plain


class CommandEvidence(Plain):
    """A command that was run, with its whole output."""

    kind: Literal["command"] = "command"
    command: str
    exit_code: int
    stdout: str = ""
    stderr: str = ""


class PacketSighting(Plain):
    """A probe (or its answer) seen on an interface."""

    time: float
    """Seconds since the first probe of this check was sent."""
    interface: str
    direction: Literal["out", "in"]
    probe: int
    """Number of the probe within its check, from 1."""
    role: Literal["probe", "answer", "error", "other"] = "probe"
    protocol: str
    """``icmp``, ``udp``, ``tcp``, ``dns``, ``arp``, ``icmpv6`` …"""
    source: str
    destination: str
    source_mac: str = ""
    destination_mac: str = ""
    length: int = 0
    note: str = ""
    mtu: int | None = None
    """The MTU of the next hop that an ICMP error reports (RFC 1191, RFC 4443)."""
    same_frame_on: str | None = None
    """The interface on top of this one (a VLAN, macvlan or bridge) on which this same frame was seen as well."""
    counts_for: str | None = None
    """The interface that the frame counts for, where that is another one: the bridge of a port, or its uplink port."""

    @property
    def path_interface(self) -> str:
        """The interface by which the frame enters or leaves the host, in the terms of the intent."""
        return self.counts_for or self.interface


class WatchedInterface(Plain):
    """How sound the capture on an interface was."""

    interface: str
    state: Literal["up", "down", "no-carrier", "missing"]
    fence_seen: bool
    """The fence frame was seen, so every frame that left before it was seen too."""
    frames_lost: int
    """PACKET_STATISTICS drops."""
    frames: int = 0
    """Frames of this check that were seen."""
    counts_for: str | None = None
    """The interface that its frames count for, where that is another one."""
    unproven: str = ""
    """Why an unseen packet is no proof that none left by the interface; empty where it is one."""


class LossFigure(Plain):
    """How many probes got no answer, as a rate with its 95 % interval (Wilson)."""

    lost: int
    sent: int
    low: FiniteFloat
    """The interval's ends, from 0 to 1."""
    high: FiniteFloat

    @property
    def rate(self) -> float:
        """The share of the probes that got no answer, from 0 to 1."""
        return self.lost / self.sent


class LossVerdict(StrEnum):
    """How a loss compares with the share that is allowed."""

    ALLOWED = "allowed"
    TOO_MUCH = "too-much"
    UNDECIDED = "undecided"
    """More was lost than is allowed, but with so few probes that the real rate may be lower."""


class LatencyFigures(Plain):
    """The round trips of the answered probes, in seconds."""

    median: FiniteFloat
    p95: FiniteFloat


class PacketsEvidence(Plain):
    """The interfaces on which probes were seen, and those on which they were not."""

    kind: Literal["packets"] = "packets"
    title: str = ""
    sent: int
    answered: int
    refused: list[str] = []
    """The error for each probe that the sender's own kernel refused: ``ENETUNREACH`` …"""
    watched: list[WatchedInterface]
    sightings: list[PacketSighting]
    capture: str | None = None
    """File below the report directory; ``not written: …`` and the reason where the file is missing."""
    loss: LossFigure | None = None
    """None when every probe was answered, and when the loss cannot be measured: a machine limits its ICMP errors."""
    latency: LatencyFigures | None = None
    """None without any answer."""


class FarEndRecord(Plain):
    """A probe as the far side received it."""

    gateway: str
    protocol: str
    source: str
    probe: int


class FarEndEvidence(Plain):
    """The probes that the gateways behind the uplinks received (labs only)."""

    kind: Literal["far-end"] = "far-end"
    records: list[FarEndRecord]


class DecisionStep(Plain):
    """A rule that was compared, with the result."""

    rule: str
    outcome: str
    """``no match: from 10.0.0.0/8`` …, ``table 200: default via 10.10.50.1 dev wlan0`` …"""
    chosen: bool = False


class DecisionEvidence(Plain):
    """A routing decision of the model, step by step, beside the kernel's own where the kernel was asked."""

    kind: Literal["decision"] = "decision"
    question: str
    steps: list[DecisionStep]
    model: str
    kernel: str | None = None
    agree: bool | None = None


class TimelineEvent(Plain):
    """An event, a state or a probe at a moment."""

    time: FiniteFloat
    """Seconds since the event began; a probe's is when it was sent."""
    lane: str
    what: str
    mark: Literal["event", "netlink", "probe", "late", "lost", "wrong-source", "leak", "state"] = "event"
    flow: Literal["old", "new"] | None = None
    family: Literal[4, 6] | None = None
    probes: int = 1
    """How many probes a mark stands for: its own, and the following ones without a mark, which show the same."""


class TimelineEvidence(Plain):
    """The course of an event, in order."""

    kind: Literal["timeline"] = "timeline"
    title: str = ""
    events: list[TimelineEvent]
    lanes: list[str] = []
    """Every lane, in order: event, state and kernel first, then the egress interfaces."""
    ways: list[str] = []
    """The lanes of watched egress interfaces, the intended uplink first."""
    unproven: dict[str, str] = {}
    """Egress interfaces on which absence is not proven, and why."""
    figures: list[str] = []
    """A line of figures for each outcome: exact, however many marks are left out."""
    left_out: int = 0
    """How many probes have no mark, because their neighbours show the same."""


class FileEvidence(Plain):
    """Lines of a file of the host."""

    kind: Literal["file"] = "file"
    path: str
    line: int | None = None
    text: str


class CounterEvidence(Plain):
    """A counter before and after."""

    kind: Literal["counter"] = "counter"
    name: str
    before: int
    after: int


class StateEvidence(Plain):
    """Facts from the snapshot, a line for each."""

    kind: Literal["state"] = "state"
    title: str
    lines: list[str]
    machines: list[str] = []
    """Addresses of machines on the segment that the lines are about, for programs that read the result."""


Evidence = Annotated[
    CommandEvidence
    | PacketsEvidence
    | FarEndEvidence
    | DecisionEvidence
    | TimelineEvidence
    | FileEvidence
    | CounterEvidence
    | StateEvidence
    | PathEvidence
    | CoverageEvidence,
    Field(discriminator="kind"),
]
