"""Measurements: the facts about a target that packets and events show and a snapshot cannot hold.

These types are plain data. Code in ``packets``, ``disruption`` and ``targets`` fills them in; ``diagnosis`` and the
checks read them; ``analysis.disruption_text`` makes the text about them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from viacheck.model.address_family import Family
from viacheck.model.check_evidence import (
    CommandEvidence,
    DecisionEvidence,
    Evidence,
    PacketsEvidence,
    TimelineEvidence,
)
from viacheck.model.egress_changes import EgressChanges
from viacheck.model.intent import Survivable
from viacheck.model.route import Route
from viacheck.model.snapshot import Snapshot

# --- The kernel's routing decision ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KernelAnswer:
    """The kernel's answer to the route request for one packet (RTM_GETROUTE)."""

    type: str | None
    """``unicast``, ``local`` …; None when the kernel refused, and ``text`` has its error."""
    interface: str | None
    table: int | None
    text: str
    command: CommandEvidence | None
    """None where no kernel can be asked, and the routing model answers in its place."""


@dataclass(frozen=True, slots=True)
class KernelDecision:
    """The kernel's answer for the agent's packet, with the routing model's decision beside it."""

    answer: KernelAnswer
    evidence: DecisionEvidence


# --- DHCP servers and the parent's segment ---------------------------------------------------------------------------


@dataclass(slots=True)
class HostReadings:
    """What a run reads of a host and asks of its gateways once, however many agents the host has. None: not yet."""

    snapshot: Snapshot | None = None
    """The first agent's snapshot, whose host is that of all others."""
    gateway_macs: dict[str, list[str]] | None = None
    """By uplink, the MAC addresses that answered ARP for its gateway."""
    routers_in_use: dict[str, str] | None = None
    """By uplink whose gateway is silent, a gateway of the host's own routes that answers."""
    exit_macs: list[str] | None = None
    """The MAC addresses that answered ARP for the next hop of the host's own packets, by an interface of no uplink."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A DHCPOFFER that answered one of our DHCPDISCOVER messages (RFC 2131)."""

    address: str
    server: str
    """The server identifier (option 54), or the packet's source address without it."""
    server_mac: str
    requested: str | None = None
    """The address that the DHCPDISCOVER requested (option 50)."""
    router: str | None = None
    lease_seconds: int | None = None

    def __str__(self) -> str:
        asked = f", asked for {self.requested}" if self.requested else ""
        lease = f" for {self.lease_seconds} s" if self.lease_seconds is not None else ""
        return f"{self.server} ({self.server_mac}) offers {self.address}{lease}{asked}"


@dataclass(frozen=True, slots=True)
class DiscoveryResult:
    """The offers of DHCP servers on a segment, and how long they were listened for."""

    offers: tuple[Offer, ...]
    """In order of arrival. A server that answers several messages has several offers."""
    listened: float
    """Seconds from the first DHCPDISCOVER."""
    sent_at: tuple[float, ...]
    """When DHCPDISCOVER messages were sent, in seconds from the first one."""
    frames_lost: int = 0
    """Frames that the kernel dropped before they were read: an offer may be among them."""


AddressHolder = Literal["parent", "agent"]
Upstream = Literal["accepted", "foreign-source", "delivery", "unknown"]


@dataclass(frozen=True, slots=True)
class SecondMAC:
    """The four ARP probes for the gateway, and which of them were answered."""

    parent_mac: str
    agent_mac: str
    gateway: str
    answered: frozenset[tuple[AddressHolder, AddressHolder]]
    """Pairs of frame source and ARP sender."""

    @property
    def upstream(self) -> Upstream:
        """Return the conclusion from the four answers."""
        from_parent, to_parent = ("parent", "parent") in self.answered, ("agent", "parent") in self.answered
        to_agent, from_agent = ("parent", "agent") in self.answered, ("agent", "agent") in self.answered
        if not from_parent:
            return "unknown"
        if not to_parent and not from_agent:
            return "foreign-source"
        if not to_agent and not from_agent:
            return "delivery"
        return "accepted"


class ClaimSign(StrEnum):
    """How another machine showed that it holds the agent's address."""

    OTHER_MAC = "other-mac"
    """It announced the address, or answered ARP for it, with a MAC address of its own."""
    AGENT_NOT_ASKED = "agent-not-asked"
    """The agent's MAC address answered a request that the agent cannot hear."""
    ANSWERED_TWICE = "answered-twice"
    """The agent's MAC address answered one request twice."""
    FRAMES_FROM_OUTSIDE = "frames-from-outside"
    """Frames with the agent's MAC address as their source came in from outside, and the agent had not sent them."""


@dataclass(frozen=True, slots=True)
class AddressClaim:
    """Another machine that holds the agent's address."""

    mac: str
    heard_by: tuple[AddressHolder, ...]
    """The interfaces that heard it."""
    signs: tuple[ClaimSign, ...] = (ClaimSign.OTHER_MAC,)


@dataclass(frozen=True, slots=True)
class AddressFacts:
    """The result of the test for an address conflict."""

    claims: tuple[AddressClaim, ...]
    asked_from: tuple[AddressHolder, ...]
    """The interfaces that sent ARP requests for the agent's address."""
    asked: int
    """How many requests each of them sent."""
    seconds: float
    """How long answers were listened for."""
    frames_lost: int = 0
    """Frames that the kernel dropped before they were read: an answer may be among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFacts:
    """The measurements on the parent's segment. None stands for a measurement that was not possible."""

    second_mac: SecondMAC | None = None
    gateway_answers_host: bool | None = None
    """Whether the gateway answers the host's own ping."""
    host_answers_agent: bool | None = None
    """Whether the parent's own address answers the agent's ping; over macvlan it does not."""


# --- Disruptions: an event, and the agent's packets while it happens --------------------------------------------------

FlowAge = Literal["old", "new"]
"""An old flow began before the event. A new flow has its own port or identifier for each probe."""
ProbeOutcome = Literal["as-intended", "late", "lost", "leaked", "wrong-source"]

LATE = 0.05
"""Seconds: a probe is late when it leaves the host later than this after it was sent: ARP or a queue held it up."""


EventName = Survivable | Literal["address-change", "rename"]
"""An event that can be carried out. A lease can change in two ways, and so can a device; the intent names each once."""


class EventObstacle(StrEnum):
    """Why an event was not carried out."""

    NOT_APPLICABLE = "not-applicable"
    """The event does not belong to the target."""
    NOT_POSSIBLE = "not-possible"
    """The event cannot be carried out here."""
    EGRESS_NOT_AS_INTENDED = "egress-not-as-intended"
    """The agent's packets do not leave as intended before the event."""
    DISTURBED = "disturbed"
    """Something else acted during the event, so that its result is not the event's."""
    NO_CLONE = "no-clone"
    """No clone of the lab could be built for the event."""


@dataclass(frozen=True, slots=True)
class EventNotRun:
    """An event that was not carried out."""

    obstacle: EventObstacle
    text: str
    """The reason in one line, for people."""


class FlowKind(StrEnum):
    """The outcome of a flow, or of a whole disruption; from best to worst."""

    SEAMLESS = "seamless"
    RECOVERS = "recovers"
    LEAKS_THEN_RECOVERS = "leaks-then-recovers"
    NEW_FLOWS_ONLY = "new-flows-only"
    KEEPS_WRONG_SOURCE = "keeps-wrong-source"
    STAYS_SILENT = "stays-silent"
    KEEPS_LEAKING = "keeps-leaking"


RECOVERED = frozenset({FlowKind.SEAMLESS, FlowKind.RECOVERS, FlowKind.LEAKS_THEN_RECOVERS})
_SEVERITY = {kind: rank for rank, kind in enumerate(FlowKind)}


@dataclass(frozen=True, slots=True)
class Departure:
    """A probe seen leaving the host."""

    time: float
    interface: str
    source: str


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The outcome of one probe. Times are in seconds since the event began; negative before it."""

    time: float
    """When the probe was sent."""
    flow: FlowAge
    family: Family
    outcome: ProbeOutcome
    interface: str | None = None
    """The interface that the probe left by; None when it was lost."""
    source: str | None = None
    of_source: str | None = None
    """The source of the intent that its socket is bound to ([[agent.source]]); None for the agent's main flows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowResult:
    """The outcome of one flow of one family. Times are in seconds since the event began."""

    flow: FlowAge
    family: Family
    kind: FlowKind
    sent: int
    lost: int
    late: int
    leaked: int
    wrong_source: int
    leak: tuple[float, float] | None = None
    """When the first and the last leaked probe were sent."""
    leak_interfaces: tuple[str, ...] = ()
    leak_sources: tuple[str, ...] = ()
    first_lost: float | None = None
    recovered_at: float | None = None
    """When the first probe of the final, intended stretch was sent; None without an interruption or a recovery."""
    recovery: float | None = None
    """Seconds from the event's end to ``recovered_at``; 0 when that was earlier; None when the flow did not recover."""
    of_source: str | None = None
    """The source of the intent that its sockets are bound to; None for the agent's main flows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisruptionResult(EgressChanges):
    """One event that was carried out, and the outcome for the agent's packets."""

    event: str
    """The event's name, as in the intent's ``survives`` where it has one there."""
    title: str
    ended: float
    """Seconds since the event began."""
    watched: float
    """Seconds that the packets were watched after the event's end."""
    flow_results: tuple[FlowResult, ...]
    timeline: TimelineEvidence
    failed_commands: tuple[CommandEvidence, ...] = ()
    """Commands of the event that failed."""
    unproven: Mapping[str, str]
    """Egress interfaces on which absence is not proven, and why."""
    not_judged: tuple[str, ...] = ()
    """The flows that were not judged, and why."""
    failure: str | None = None
    """Why the event did not complete, or why the agent did not return after it."""
    host_away: bool = False
    """With ``failure``: the host itself is not back, as its boot is not over, and nothing is known of its agent."""
    agent_default: Route | None = None
    """The agent's own IPv4 default route after an event that replaced its namespace; None without one."""

    @property
    def kind(self) -> FlowKind:
        """Return the worst outcome of all flows; NEW_FLOWS_ONLY for a family whose old flow alone does not recover."""
        kinds = []
        of_same: dict[tuple[Family, str | None], dict[FlowAge, FlowKind]] = {}
        for flow_result in self.flow_results:
            of_same.setdefault((flow_result.family, flow_result.of_source), {})[flow_result.flow] = flow_result.kind
        for by_flow in of_same.values():
            new, old = by_flow.get("new"), by_flow.get("old")
            if new in RECOVERED and old is not None and old not in RECOVERED:
                kinds.append(FlowKind.NEW_FLOWS_ONLY)
            else:
                kinds += [kind for kind in (new, old) if kind is not None]
        return max(kinds, key=_SEVERITY.__getitem__, default=FlowKind.STAYS_SILENT)

    @property
    def recovery(self) -> float | None:
        """Return the seconds from the event's end until every flow had recovered; None when a flow did not."""
        times = [flow_result.recovery for flow_result in self.flow_results]
        return None if not times or None in times else max(time for time in times if time is not None)

    @property
    def leaked(self) -> int:
        """Return how many probes left by another interface."""
        return sum(flow_result.leaked for flow_result in self.flow_results)

    @property
    def leak(self) -> tuple[float, float] | None:
        """Return when the first and the last leaked probe were sent."""
        spans = [flow_result.leak for flow_result in self.flow_results if flow_result.leak is not None]
        return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None

    @property
    def leak_interfaces(self) -> list[str]:
        """Return the interfaces that leaked probes left by."""
        return sorted({interface for flow_result in self.flow_results for interface in flow_result.leak_interfaces})

    @property
    def leak_sources(self) -> list[str]:
        """Return the source addresses of leaked probes."""
        return sorted({source for flow_result in self.flow_results for source in flow_result.leak_sources})

    def survived(self, within: float) -> bool:
        """Return whether every flow recovered within so many seconds, with the rules and routes as before."""
        return (
            self.failure is None
            and self.recovery is not None
            and self.recovery <= within
            and not self.changed
            and not self.failed_commands
        )


# --- Replay of the host's configuration files -------------------------------------------------------------------------

ReplayFault = Literal["NOT_IDEMPOTENT", "RULES_ACCUMULATE", "RULE_LOST", "ROUTE_NOT_RESTORED"]
"""Diagnosis codes that a replay can show."""


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The outcome of running the host's configuration several times in a lab."""

    holds: bool
    observed: str
    evidence: tuple[Evidence, ...] = ()
    fault: ReplayFault | None = None
    """The diagnosis code of the fault, when the replay does not hold."""
    sentence: str = ""
    """The fault as the cause of a failure."""


@dataclass(frozen=True, slots=True)
class NotReplayed:
    """Why the host's configuration was read and not run."""

    reason: str


# --- All measurements of a target -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficMeasurements:
    """The results of the traffic tests so far. A test that did not run leaves its field empty."""

    packets: Mapping[str, PacketsEvidence] = field(default_factory=dict)
    """The agent's probes by protocol (``icmp``, ``udp``, ``tcp``), and ``dns``, ``full-size``, ``ipv6``, ``gateway``.

    The host's own probes are named ``host icmp``, ``host udp`` and so on.
    """
    by_source: Mapping[tuple[str, str], PacketsEvidence] = field(default_factory=dict)
    """The probes from each source of the intent, by its name and the protocol."""
    silent_gateways: tuple[str, ...] = ()
    """Uplinks with carrier whose gateway did not answer ARP."""
    routers_in_use: Mapping[str, str] = field(default_factory=dict)
    """By uplink whose gateway is silent, the gateway of the host's default routes by it that did answer ARP."""
    gateway_macs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By uplink, the MAC addresses that answered ARP for its gateway."""
    exit_macs: tuple[str, ...] | None = None
    """Those for the next hop of the host's own packets, by an interface that is no uplink; None: it was not asked."""
    reverse_path_drops: tuple[int, int] = (0, 0)
    """TcpExt IPReversePathFilter of the host, before and after the agent's probes."""
    segment: SegmentFacts | None = None
    """The parent's segment, for a bridged agent."""
    address: AddressFacts | None = None
    """Who else holds a bridged agent's address."""
    offers: tuple[Offer, ...] = ()
    """The offers of DHCP servers on the parent's segment."""


@dataclass(slots=True)
class Measurements:
    """The measurements of one target so far."""

    traffic: TrafficMeasurements = field(default_factory=TrafficMeasurements)
    disruptions: dict[str, DisruptionResult] = field(default_factory=dict)
    """The disruptions that were carried out, by the event's name."""
    replay: ReplayResult | NotReplayed | None = None
    """The replay of the host's configuration; None until a check asks for it."""
