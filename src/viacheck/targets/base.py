"""A target: the host and the agent that checks judge. A lab, a live host, a bundle and a replica share one protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.disruption.controls import Disruption, DisruptionTarget, LabControl, PowerControl
from viacheck.host.command import RecordedCommand
from viacheck.host.namespace import Namespace
from viacheck.model.intent import Intent, TransportProtocol
from viacheck.model.measurements import KernelDecision
from viacheck.model.namespace_state import Neighbour
from viacheck.model.result import TargetRecord
from viacheck.model.snapshot import Snapshot

if TYPE_CHECKING:
    from viacheck.disruption.disruption_tests import DisruptionTests
    from viacheck.packets.traffic_tests import TrafficTests


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamFindings:
    """What a run's packets showed of the network upstream, under the names that the snapshot gives it."""

    gateway_answers: Sequence[Neighbour]
    """The gateways that were asked by ARP, answering or silent."""
    subnet_routed: bool
    """Probes with the agent's own address were answered, so the network routes its subnet."""
    answers_by: str | None
    """The interface on which the answers came in, where the probes left by another one."""
    silent_beyond: Sequence[str]
    """Interfaces that are no uplinks of the intent, by which probes left and no answer came in."""
    answers_lost: str | None
    """The figures of a loss that is more than the intent allows."""
    address_claimed_by: Sequence[str]
    """The MAC addresses of other machines that answered ARP for the agent's address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What a target offers beyond its network namespaces."""

    engine_url: str | None = None
    """The Docker engine's address; None for the address in DOCKER_HOST, or Docker's default."""
    proc: str = "/proc"
    """The /proc in which the engine's process numbers are valid."""
    gateways: Mapping[str, Namespace] = field(default_factory=dict)
    """The gateways' network namespaces by uplink; labs only."""
    control: LabControl | None = None
    """The control over cables, container and engine; labs only."""
    clone: Callable[[], DisruptionTarget] | None = None
    """Builds another target like this one, faults included; labs only."""
    power: PowerControl | None = None
    """The control over the host's power; only labs whose host has an init of its own."""
    side_events: bool = False
    """Whether events that others make on the side show here what they show on a real host."""
    rebooted: Callable[[], DisruptionTarget] | None = None
    """Builds the target as it comes up from its files alone; only labs that run a network manager."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Where the routing model sends the agent's packets, for a target whose packets cannot be captured."""

    as_intended: bool | None
    """None when the model cannot say."""
    text: str
    needs: str
    """What would prove it."""


class Target(Protocol):
    """A host and its agent, open for checks."""

    @property
    def id(self) -> str:
        """The target's id in result.json."""

    @property
    def kind(self) -> Literal["lab", "local", "bundle"]:
        """The kind in result.json."""

    @property
    def intent(self) -> Intent:
        """The intent that the target is judged by."""

    @property
    def host(self) -> Namespace | None:
        """The host's network namespace; None for a bundle."""

    @property
    def agent(self) -> Namespace | None:
        """The agent's network namespace; None while it cannot be opened."""

    @property
    def agent_name(self) -> str | None:
        """The name of the agent, where the site file has several."""

    @property
    def snapshot(self) -> Snapshot:
        """The target's state before the first probe."""

    @property
    def resolved(self) -> ResolvedIntent:
        """The intent, resolved against the snapshot."""

    @property
    def host_judged_by(self) -> str | None:
        """The id of the target that judges what concerns the host alone; None: this one, as its agent is the first."""

    @property
    def missing_capability(self) -> str | None:
        """What the run lacks to send and capture in the target's namespaces; None when it lacks nothing."""

    @property
    def disruption(self) -> Disruption | None:
        """Whether and how a live host may be interrupted; None for a target that needs no consent."""

    @property
    def recorded(self) -> Sequence[RecordedCommand]:
        """The commands that the snapshot was read with."""

    @property
    def replay_obstacle(self) -> str | None:
        """Why the target's ifupdown files cannot be run in a lab; None when they can."""

    def forecast(self, protocol: TransportProtocol) -> Forecast | None:
        """Return where the routing model sends the agent's packets; None where packets show it."""

    def kernel_decision(self, protocol: TransportProtocol) -> KernelDecision:
        """Return the kernel's decision for the agent's packets; the routing model's for a target without a kernel."""

    def traffic_tests(self, captures: Path) -> TrafficTests:
        """Return the tests that send packets; ``captures`` is the folder for pcapng files."""

    def disruption_tests(self) -> DisruptionTests:
        """Return the tests that interrupt the network."""

    def note_changes(self) -> bool:
        """Add a note about the changes since the snapshot to a host that others may change; return whether it did."""

    def note_upstream(self, findings: UpstreamFindings) -> None:
        """Add to the record what the run's packets showed of the network upstream."""

    def record(self) -> TargetRecord:
        """Return the target's part of result.json. Its verdict is set when all results are known."""

    def close(self) -> None:
        """Close every namespace, and end a lab."""
