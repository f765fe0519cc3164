"""The host that the run was started on, as a target."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from viacheck.disruption.live import LiveDisruption, plan_of, same_events
from viacheck.disruption.shared_events import SharedResults
from viacheck.guard.pending import pending_restore
from viacheck.host.namespace import Namespace
from viacheck.model.diff import changes, moving_packets
from viacheck.model.intent import Intent
from viacheck.model.measurements import HostReadings
from viacheck.model.result import TargetRecord
from viacheck.model.site_agents import SOLE_AGENT, named
from viacheck.targets.announcement import packets_sent
from viacheck.targets.namespace_target import NamespaceTarget
from viacheck.targets.specs import title_of

if TYPE_CHECKING:
    from viacheck.disruption.disruption_tests import DisruptionTests

CHANGES_SHOWN = 10


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
        return packets_sent(
            self.intent, self.site, self.agent, disruptive=self.allow_disruptive, of_host=self.host_judged_by is None
        )

    def open(self) -> LocalTarget:
        """Open the host's and the agent's network namespaces."""
        return LocalTarget(self)

    def unopened(self, reason: str) -> TargetRecord:
        """Return the record of a host that could not be opened."""
        return TargetRecord(
            id=self.id, kind="local", verdict="inconclusive", agent=self.agent or None, intent=self.intent.as_json(),
            notes=[reason],
        )  # fmt: skip


class LaterAgents:
    """The agents of this host that are judged after one agent, as far as an event is theirs too."""

    def __init__(self, spec: LocalSpec) -> None:
        """``spec`` is the agent that is judged."""
        self._spec = spec
        self.agent, self.shared = spec.agent, spec.shared_results

    def concerned_by(self, event: str) -> list[tuple[str, LocalTarget]]:
        """Open the agents that an event concerns as well; the caller closes them."""
        plan = plan_of(self._spec.intent, self._spec.events)
        return [
            (later.agent, LocalTarget(later))
            for later in self._spec.later
            if event in same_events(plan, plan_of(later.intent, later.events))
            and event not in self.shared.of(later.agent)
        ]


class LocalTarget(NamespaceTarget):
    """The host, or the network namespace, that this process runs in."""

    def __init__(self, spec: LocalSpec) -> None:
        """Open the namespaces of the host and the agent, with the consent to interruptions that the user gave."""
        super().__init__(spec.id, "local", spec.intent, Namespace.current(), title=title_of(spec.intent, spec.agent))
        self.host_judged_by, self.agent_name = spec.host_judged_by, spec.agent or None
        self.host_readings = spec.readings
        self._spec = spec
        pending = pending_restore()
        if pending is not None:
            self.alerts.append(pending)
        tables = [later.intent.egress.table for later in spec.later]
        self.disruption = self._live = LiveDisruption(
            self, spec.site, spec.events, asked=spec.allow_disruptive, flap_management=spec.flap_management,
            tables=[table for table in tables if table is not None],
        )  # fmt: skip

    def disruption_tests(self) -> DisruptionTests:
        """Return the tests that interrupt the network; an event of several agents is made once."""
        from viacheck.disruption.disruption_tests import DisruptionTests

        return DisruptionTests(self, self.disruption, LaterAgents(self._spec))

    @property
    def replay_obstacle(self) -> str | None:  # type: ignore[override]
        """A replay runs in a lab, which needs capabilities."""
        return f"a lab needs {self.missing_capability}" if self.missing_capability is not None else None

    def obstacle_to(self, event: str) -> str | None:
        """Return why an event is not carried out on this host."""
        return self._live.obstacle_to(event)

    def note_changes(self) -> bool:
        """Read the state once more, and note every difference; it is an alert if packets may take another way now."""
        differences = changes(self.snapshot, self.read_state())
        bridge = [self.resolved.bridge] if self.resolved.bridge is not None else []
        moving = moving_packets(differences, {*self.intent.uplinks, *bridge})
        others = [difference for difference in differences if difference not in moving]
        for remarks, listed in ((self.alerts, moving), (self.notes, others)):
            shown = [str(difference) for difference in listed[:CHANGES_SHOWN]]
            if len(listed) > len(shown):
                shown.append(f"and {len(listed) - len(shown)} more")
            if shown:
                remarks.append(f"the state changed during the run: {'; '.join(shown)}")
        if not differences:
            self.notes.append("nothing on this host was changed")
        return True

    def close(self) -> None:
        """Close the namespaces of the agent and the host."""
        super().close()
        self.host.close()
