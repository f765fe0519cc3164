"""Specifications of targets: which target a run is about, before the target is open. Cheap to make and to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from viacheck.disruption.shared_events import SharedResults
from viacheck.host.capabilities import missing_capabilities
from viacheck.model.exit_status import UsageError
from viacheck.model.intent import Intent, NatAttach
from viacheck.model.intent_rules import BY_DRIVER
from viacheck.model.measurements import HostReadings
from viacheck.model.site_agents import SOLE_AGENT, named

if TYPE_CHECKING:
    from viacheck.bundle.reader import Bundle
    from viacheck.host.command import CommandResult
    from viacheck.model.result import TargetRecord
    from viacheck.targets.base import Target
    from viacheck.targets.bundle import BundleTarget
    from viacheck.targets.local import LocalTarget


class SelectionError(UsageError):
    """The selection of targets is wrong; the message is one line for the user."""


class TargetUnavailable(Exception):
    """Something that the target needs is missing on this machine; the message says what would help."""


class TargetNotOpened(Exception):
    """Opening the target failed; the message is one line and says why.

    Attributes:
        command: the command that failed, with its whole output, if it was one.
    """

    def __init__(self, message: str, command: CommandResult | None = None) -> None:
        super().__init__(message)
        self.command = command


class TargetSpec(Protocol):
    """A target that can be opened."""

    @property
    def name(self) -> str:
        """The name beside a check, as the command line writes it."""

    @property
    def id(self) -> str:
        """The target's id in result.json."""

    @property
    def intent(self) -> Intent:
        """The intent that the target is judged by."""

    @property
    def slow(self) -> bool:
        """Whether its checks take much longer than those of other targets, so that they start first."""

    @property
    def announcement(self) -> Sequence[str]:
        """The lines that a user must read before the first packet leaves; empty for a lab or a bundle."""

    def open(self) -> Target:
        """Open the target.

        Raises:
            TargetUnavailable: something that it needs is missing on this machine.
            TargetNotOpened: the kernel, the engine or a command refused.
        """

    def unopened(self, reason: str) -> TargetRecord:
        """Return the record of a target that could not be opened; ``reason`` is one line."""


def title_of(intent: Intent, agent: str) -> str:
    """Return the title of a target on a page: the site's name, and the agent's where the site has several."""
    return f"{intent.site.name}, agent {agent}" if agent else intent.site.name


@dataclass(frozen=True, slots=True)
class LocalSpec:
    """The host, or the network namespace, that the run was started in."""

    intent: Intent
    site: str
    """The site file, as the command line names it."""
    allow_disruptive: bool = False
    flap_management: bool = False
    events: tuple[str, ...] = ()
    """The events that may be carried out on the host; empty without ``allow_disruptive``."""
    agent: str = SOLE_AGENT
    """The agent's name in a site file with several."""
    host_judged_by: str | None = None
    """The target that judges what concerns the host alone; None: this one."""
    readings: HostReadings = field(default_factory=HostReadings, compare=False)
    """What is read of the host once: all agents' targets have the same."""
    shared_results: SharedResults = field(default_factory=SharedResults, compare=False)
    """The results of events that were made once for several agents."""
    later: tuple[LocalSpec, ...] = field(default=(), compare=False)
    """The agents of this host that are judged after this one."""
    slow: bool = False

    @property
    def name(self) -> str:
        """The name beside a check."""
        return named("local", self.agent)

    @property
    def id(self) -> str:
        """The target's id in result.json."""
        return named(f"local:{self.intent.site.name}", self.agent)

    @property
    def announcement(self) -> list[str]:
        """The packets that a run sends on this host: how many, where to, and from where."""
        return packets_sent(self)

    def open(self) -> LocalTarget:
        """Open the host's and the agent's network namespaces."""
        from viacheck.targets.local import LocalTarget

        return LocalTarget(self)

    def unopened(self, reason: str) -> TargetRecord:
        """Return the record of a host that could not be opened."""
        from viacheck.model.result import TargetRecord

        return TargetRecord(
            id=self.id, kind="local", verdict="inconclusive", agent=self.agent or None, intent=self.intent.as_json(),
            notes=[reason],
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class BundleSpec:
    """A host of which only a bundle is there."""

    bundle: Bundle
    host_judged_by: str | None = None
    """The target that judges what concerns the host alone; None: this one."""
    slow: bool = False
    announcement: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name beside a check."""
        return named(self.bundle.name, self.bundle.agent)

    @property
    def id(self) -> str:
        """The target's id in result.json."""
        return f"bundle:{self.name}"

    @property
    def intent(self) -> Intent:
        """The intent in the bundle."""
        return self.bundle.intent

    def open(self) -> BundleTarget:
        """Return the target; there is nothing to open."""
        from viacheck.targets.bundle import BundleTarget

        return BundleTarget(self.id, self.bundle, self.host_judged_by)

    def unopened(self, reason: str) -> TargetRecord:
        """Return the record of a bundle that could not be judged."""
        from viacheck.model.result import TargetRecord

        return TargetRecord(
            id=self.id, kind="bundle", verdict="inconclusive", agent=self.bundle.agent or None,
            intent=self.intent.as_json(), notes=[reason],
        )  # fmt: skip


def packets_sent(spec: LocalSpec) -> list[str]:
    """Return the lines about the packets that a run on a live host sends."""
    intent = spec.intent
    changes = "it interrupts the network as listed below" if spec.allow_disruptive else "it changes nothing"
    agent = f", agent {spec.agent}" if spec.agent else ""
    about = f"viacheck judges this host for site {intent.site.name!r}{agent} ({spec.site}); {changes}, and sends"
    missing = missing_capabilities()
    if missing is not None:
        return [f"{about} nothing: probes and captures need {missing}"]
    probe = intent.probe
    protocols = ", ".join(
        protocol.upper() if protocol == "icmp" else f"{protocol.upper()} port {probe.port}"
        for protocol in probe.protocols
    )
    uplinks = ", ".join(
        f"{uplink.gateway} on {name}" for name, uplink in intent.uplinks.items() if uplink.gateway is not None
    )
    of_host = spec.host_judged_by is None
    arp = []
    if uplinks and of_host:
        arp = [f"1 to 3 ARP requests each for {uplinks}, and as many for the gateway of a route where one is silent"]
    attach = intent.agent.attach
    sources = []
    if intent.agent.source:
        names = ", ".join(source.name for source in intent.agent.source)
        sources = [f"  from the agent, bound to each of {names}: as many to {probe.target}"]
    segment = []
    if not isinstance(attach, NatAttach):
        segment = [
            f"  on {attach.parent}'s segment: 4 pings of the agent and 3 of the host to the gateway, 3 pings of the "
            "agent to the host; 4 to 12 ARP requests for the gateway, half of them from the agent's MAC address; up to "
            "3 ARP probes from either side for the agent's own address"
            + ("; up to 8 DHCPDISCOVER, never a DHCPREQUEST" if attach.mode in BY_DRIVER else "")
        ]
    pings = "" if segment else "3 pings to each gateway, "
    return [
        f"{about}:",
        f"  from the agent {intent.agent.name}{' and from the host' if of_host else ''}, to {probe.target}: "
        f"{probe.count} each of {protocols}",
        f"  from the agent: {probe.count} DNS queries to each resolver, {probe.count} or {2 * probe.count} full-size "
        f"packets to {probe.target}, {pings}{probe.count} IPv6 probes if it has an address",
        *sources,
        "  where only some of these are answered: up to 50 of each kind, to measure the loss",
        "  from the agent: 1 packet for each class of traffic that the model sees leave elsewhere (at most 50): ICMP, "
        "UDP or TCP to an address and a port that the deciding rule or route selects",
        *segment,
        f"  from the host: {'; '.join([*arp, 'a frame to itself on every interface'])} that it watches",
    ]
