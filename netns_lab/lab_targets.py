"""Labs and replicas as targets.

A replica has no Docker engine. The engine's answers come from the host's snapshot, so that checks judge them as on the
host; a bare namespace stands for the agent's container.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from netns_lab.builder import build
from netns_lab.control import NetnsLabControl
from netns_lab.lab import Lab
from netns_lab.plan import AGENT_PATH
from netns_lab.reboot import rebooted_plan
from netns_lab.rtnetlink_batch import LabBuildError
from netns_lab.scenarios import Flavour
from netns_lab.whole_host.power_control import WholeHostPower
from viacheck.analysis.replica_diff import differences
from viacheck.disruption.controls import NoClone
from viacheck.disruption.replica_events import obstacle
from viacheck.host.namespace import Namespace, NotANamespace, open_netns
from viacheck.model.docker_state import DockerEngine
from viacheck.model.snapshot import Problem, Snapshot
from viacheck.targets.base import Services
from viacheck.targets.namespace_target import NamespaceTarget
from viacheck.targets.specs import TargetNotOpened, TargetUnavailable

DIFFERENCES_SHOWN = 30
_OF_THE_ENGINE = ("engine", "container")


class ReplicaOrigin(Protocol):
    """What a target takes from the specification of its replica."""

    @property
    def id(self) -> str:
        """The target's id in result.json."""

    def open(self) -> NamespaceTarget:
        """Build another one like it, and open that as a target."""


class LabOrigin(ReplicaOrigin, Protocol):
    """What a target takes from the specification of its lab."""

    @property
    def title(self) -> str:
        """The title on the page."""

    @property
    def flavour(self) -> Flavour:
        """The lab's flavour."""

    @property
    def agent(self) -> str:
        """The agent's name, where the site file has several."""


class LabTarget(NamespaceTarget):
    """A lab as a target."""

    def __init__(self, spec: LabOrigin, lab: Lab, *, ends_lab: bool = True) -> None:
        """Open the lab's namespaces; ``ends_lab``: closing the target ends the lab."""
        self._lab, self._ends_lab = lab, ends_lab
        # No lab has an init that starts a bridged agent's container after its parent.
        reboots = spec.flavour == "netns" and lab.plan.boots and lab.plan.intent.mode == "nat"
        engine = lab.engine
        super().__init__(
            spec.id, "lab", lab.plan.intent, lab.host.namespace, title=spec.title, flavour=spec.flavour,
            services=Services(
                engine_url=engine.base_url if engine is not None else None,
                proc=engine.proc if engine is not None else "/proc",
                gateways=_gateways(lab),
                control=NetnsLabControl(lab),
                clone=lambda: _clone(spec.open),
                power=WholeHostPower(lab, lab.whole_host) if lab.whole_host is not None else None,
                side_events=lab.whole_host is not None,
                rebooted=(lambda: _clone(lambda: LabTarget(spec, build(rebooted_plan(lab))))) if reboots else None,
            ),
        )  # fmt: skip
        self.agent_name = spec.agent or None
        self.notes += notes_of(lab)

    def close(self) -> None:
        """Close the agent's namespace, and end the lab if it belongs to the target."""
        super().close()
        if self._ends_lab:
            self._lab.close()


class ReplicaTarget(NamespaceTarget):
    """A replica as a target."""

    def __init__(self, spec: ReplicaOrigin, lab: Lab, *, ends_lab: bool = True) -> None:
        """Open the replica's namespaces; ``ends_lab``: closing the target ends the replica."""
        assert lab.replica_of is not None
        self._lab, self._source, self._ends_lab = lab, lab.replica_of, ends_lab
        super().__init__(
            spec.id, "lab", lab.plan.intent, lab.host.namespace, title=lab.plan.title, flavour="netns",
            services=Services(
                gateways=_gateways(lab), control=NetnsLabControl(lab), clone=lambda: _clone(spec.open), side_events=True
            ),
        )  # fmt: skip
        self.notes += notes_of(lab)

    @property
    def replica_difference(self) -> str:
        """How the state of the replica differs from that of its host, in one line."""
        changes = differences(self._source, self.snapshot)
        if not changes:
            return "the replica's state equals the snapshot that it was built from"
        shown = [str(change) for change in changes[:DIFFERENCES_SHOWN]]
        if len(changes) > len(shown):
            shown.append(f"and {len(changes) - len(shown)} more")
        return f"differences between the host (-) and its replica (+): {'; '.join(shown)}"

    @property
    def replay_obstacle(self) -> str | None:  # type: ignore[override]
        """A replica runs no command from the host's files."""
        return self.obstacle_to("reboot")

    def obstacle_to(self, event: str) -> str | None:
        """Return why a replica does not show an event's effect."""
        return obstacle(event, self._source, self.intent)

    def read_agent_file(self, path: str) -> str | None:
        """Read a file of the replica's host: the agent has no files of its own here."""

        def read() -> str | None:
            try:
                return Path(path).read_text(encoding="utf-8", errors="replace")
            except OSError:
                return None

        return self.host.call(read)

    def agent_was_restarted(self) -> bool:
        """A replica's agent is no container of an engine."""
        return False

    def close(self) -> None:
        """Close the agent's namespace, and end the replica if it belongs to the target."""
        super().close()
        if self._ends_lab:
            self._lab.close()

    def _read_engine(self, problems: list[Problem]) -> DockerEngine | None:
        problems += [problem for problem in self._source.problems if problem.what in _OF_THE_ENGINE]
        return self._source.engine

    def _open_agent(self) -> Namespace | None:
        try:
            return Namespace("agent", self.host.call(lambda: open_netns(AGENT_PATH)))
        except NotANamespace as error:
            self._problems.append(self._source.problem("agent") or Problem(what="agent", reason=str(error)))
            return None

    def _take_snapshot(
        self, engine: DockerEngine | None, problems: list[Problem], same_host: Snapshot | None = None
    ) -> Snapshot:
        snapshot = super()._take_snapshot(engine, problems, same_host)
        # A replica has no programs that renew leases or watch links; that the host had some is known.
        return dataclasses.replace(
            snapshot,
            dhcp_clients=snapshot.dhcp_clients or self._source.dhcp_clients,
            link_watchers=self._source.link_watchers,
            firewalld_runs=self._source.firewalld_runs,
        )


def _clone(build_clone: Callable[[], NamespaceTarget]) -> NamespaceTarget:
    """Return a clone of a lab for an event.

    Raises:
        NoClone: it cannot be built; a whole host, for example, did not boot in time.
    """
    try:
        return build_clone()
    except (LabBuildError, TargetNotOpened, TargetUnavailable) as error:
        raise NoClone(f"the lab's clone for the event cannot be built: {error}") from error


def _gateways(lab: Lab) -> dict[str, Namespace]:
    return {name: lab.gateway(name).namespace for name in lab.plan.intent.uplinks}


def notes_of(lab: Lab) -> list[str]:
    """Return a lab's own notes, and the output of the scripts that ran on its host."""
    outputs = [
        f"{name} was run before the checks: {output.strip() or 'no output'}" for name, output in lab.change_output
    ]
    return [*lab.notes, *outputs]
