"""The path of one packet, hop by hop, out to the wire and back: the evidence kind ``path`` of result.json.

Each hop holds what the model predicts, what the kernel answers where it can be asked, and what the captures saw.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from viacheck.model.plain import Plain

Place = Literal["agent", "host", "wire"]
HopStage = Literal["route", "raw", "mangle", "nat", "forward", "filter", "source-nat", "link"]


class PathClass(Plain):
    """The selector of a traffic class: which packets take the path. None: any."""

    to: str
    """Destination prefix."""
    protocol: str | None = None
    ports: str | None = None
    icmp_type: int | None = None
    mark: str | None = None
    family: Literal[4, 6] = 4
    source: str | None = None


class IntendedEgress(Plain):
    """Where the intent wants the class to leave."""

    uplink: str
    source: str | None = None


class HopSightings(Plain):
    """How many of the probes were seen at a hop."""

    of: int
    count: int


class PathHop(Plain):
    """One decision on the path of a packet."""

    place: Place
    interface: str | None = None
    """The interface by which the packet goes on; None where it does not go on."""
    stage: HopStage
    decides: str | None = None
    """The rule or route that decides, as ip or nft prints it."""
    model: str
    """What the model predicts; ``unknown`` where it cannot evaluate the hop."""
    kernel: str | None = None
    seen: HopSightings | None = None


class PathEvidence(Plain):
    """The path of one traffic class, and the first hop at which it departs from the intended path."""

    kind: Literal["path"] = "path"
    traffic_class: PathClass = Field(alias="class")
    intended: IntendedEgress
    out: list[PathHop]
    answer: list[PathHop] = Field(default_factory=list)
    departs_at: int | None = None
    answer_departs_at: int | None = None


class UncoveredDecision(Plain):
    """A rule, route or policy that no probe of the run meets."""

    place: Place
    stage: HopStage
    what: str
    """As ip, nft or iptables prints it."""
    reached_by: str
    """The traffic class whose packets reach it."""


class CoverageEvidence(Plain):
    """How much of what decides on the agent's paths the probes of a run meet."""

    kind: Literal["coverage"] = "coverage"
    covered: int
    of: int
    """Rules, routes and filter rules that some packet of the agent reaches on its way out."""
    uncovered: list[UncoveredDecision] = Field(default_factory=list)
    counted: int = 0
    """Of those that probes meet, the rules of the packet filter whose packets the kernel counts."""
    confirmed: int = 0
    """Of these, the rules whose counter moved during the run."""
    unmoved: list[str] = Field(default_factory=list)
    """The others: the model says that probes meet them, and their counter did not move."""
