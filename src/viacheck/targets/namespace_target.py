"""A target whose host and agent are network namespaces of this machine: the part that live hosts and labs share."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.disruption.controls import Disruption, EventFailed
from viacheck.host.capabilities import missing_capabilities
from viacheck.host.command import RecordedCommand
from viacheck.host.docker import (
    ContainerMissing,
    ContainerNotRunning,
    EngineProblem,
    EngineUnreachable,
    container_namespace,
    read_engine,
)
from viacheck.host.files import read_text, read_text_in
from viacheck.host.kernel_route import ask_kernel
from viacheck.host.manager_status import ask
from viacheck.host.namespace import Namespace, NotANamespace, open_netns
from viacheck.host.snapshot_reader import routers_seen, snapshot_of_agent, take_snapshot
from viacheck.model.docker_state import DockerEngine
from viacheck.model.intent import Intent, TransportProtocol
from viacheck.model.measurements import HostReadings, KernelDecision
from viacheck.model.result import TargetRecord
from viacheck.model.snapshot import Problem, Snapshot
from viacheck.model.snapshot_json import snapshot_json
from viacheck.parsers.resolv_conf import nameservers
from viacheck.targets.base import Forecast, Services, UpstreamFindings

if TYPE_CHECKING:
    from viacheck.disruption.disruption_tests import DisruptionTests
    from viacheck.packets.traffic_tests import TrafficTests

RETURNS_WITHIN, ASK_AGAIN_AFTER = 5.0, 0.02
"""Seconds: the engine reports that a container was started, but not when it runs."""
ASKED_AT_LEAST = 50
"""How often it is asked before the container counts as stopped: a busy machine is slow in starting it, too."""


class NamespaceTarget:
    """A host and its agent in network namespaces. See :class:`viacheck.targets.base.Target` for the attributes.

    Attributes:
        services: what the target offers beyond its namespaces.
        notes: what a reader of the report must know about this target.
        alerts: what must be known beside every verdict on it.
        engine: the Docker engine's answers; None without a container or without an engine that answers.
    """

    disruption: Disruption | None = None
    replay_obstacle: str | None = None
    host_judged_by: str | None = None
    agent_name: str | None = None
    """The agent's name in a site file with several."""

    def __init__(
        self,
        target_id: str,
        kind: Literal["lab", "local"],
        intent: Intent,
        host: Namespace,
        *,
        title: str = "",
        flavour: Literal["netns", "engine", "host", "vm"] | None = None,
        services: Services | None = None,
    ) -> None:
        """Open the agent's namespace.

        Args:
            target_id: the id in result.json.
            kind: the kind in result.json.
            intent: the intent that the target is judged by.
            host: the host's namespace.
            title: the target's title for people.
            flavour: the flavour of a lab.
            services: what the target offers beyond its namespaces.
        """
        self.id, self.intent, self.host = target_id, intent, host
        self.kind: Literal["lab", "local", "bundle"] = kind
        self.title, self.flavour = title, flavour
        self.services = services or Services()
        self.notes: list[str] = []
        self.alerts: list[str] = []
        self.recorded: list[RecordedCommand] = []
        self._problems: list[Problem] = []
        self._upstream: dict[str, Any] = {}
        self.host_readings = HostReadings()
        self.engine = self._read_engine(self._problems)
        self.agent = self._open_agent()

    def _read_engine(self, problems: list[Problem]) -> DockerEngine | None:
        if self.intent.agent.container is None:
            return None
        try:
            return read_engine(self.services.engine_url, self.intent.agent.container)
        except ContainerMissing as error:
            problems.append(Problem(what="container", reason=str(error)))
            return error.engine
        except EngineProblem as error:
            forbidden = isinstance(error, EngineUnreachable) and error.reason == "permission-denied"
            missing = "root, or membership in the group of Docker's socket" if forbidden and os.geteuid() else None
            problems.append(Problem(what="engine", reason=str(error), missing=missing))
            return None

    def _open_agent(self) -> Namespace | None:
        agent = self.intent.agent
        namespace: Namespace | None = None
        try:
            if agent.netns is not None:
                path = agent.netns
                namespace = Namespace("agent", self.host.call(lambda: open_netns(path)))
            elif self.engine is not None and (container := self.engine.container) is not None:
                namespace = container_namespace(container.pid, container.name, self.services.proc)
        except (NotANamespace, ContainerNotRunning, OSError) as error:
            forbidden = isinstance(error, PermissionError) or isinstance(error.__context__, PermissionError)
            missing = self.missing_capability if forbidden else None
            self._problems.append(Problem(what="agent", reason=str(error), missing=missing))
        if namespace is not None and self.missing_capability is not None:
            reason = f"{agent.name} exists, but its network namespace was not opened"
            self._problems.append(Problem(what="agent", reason=reason, missing=self.missing_capability))
        return namespace

    def leave_agent(self) -> None:
        """Close the agent's namespace, so that it can end with the agent."""
        if self.agent is not None and self.agent is not self.host:
            self.agent.close()
            self.agent = None

    def agent_was_replaced(self) -> bool | None:
        """Whether the agent has another network namespace than the open one; None while it has none at all.

        Raises:
            EngineProblem: the Docker engine does not answer.
        """
        name, path = self.intent.agent.container, self.intent.agent.netns
        if name is not None:
            try:
                container = read_engine(self.services.engine_url, name).container
            except ContainerMissing:
                return None
            if container is None or not container.running:
                return None
            path = f"{self.services.proc}/{container.pid}/ns/net"
        assert path is not None
        try:
            status = self.host.call(lambda: os.stat(path))
        except OSError:
            return None
        if self.agent is None:
            return True
        opened = os.fstat(self.agent.net_fd)
        return (status.st_dev, status.st_ino) != (opened.st_dev, opened.st_ino)

    def agent_was_restarted(self) -> bool:
        """Return whether the agent's container runs in another namespace than the open one by now, or not at all."""
        if self.engine is None or self.engine.container is None:
            return False
        try:
            return self.agent_was_replaced() is not False
        except EngineProblem:
            return False

    def renew_agent(self) -> Snapshot:
        """Open the agent's namespace again, whichever it has now, and return the present state."""
        self.leave_agent()
        self._problems.clear()
        self.engine = self._read_engine(self._problems)
        self.agent = self._open_agent()
        return self._take_snapshot(self.engine, self._problems)

    def reopen_agent(self) -> Namespace:
        """Open the agent's namespace after a restart of its container; the caller closes it.

        Raises:
            EventFailed: the container does not run after 5 s, and after 50 questions.
        """
        assert self.intent.agent.container is not None
        began, asked, waiting = time.monotonic(), 0, threading.Event()
        while True:
            asked += 1
            try:
                container = read_engine(self.services.engine_url, self.intent.agent.container).container
                if container is not None and container.running:
                    return container_namespace(container.pid, container.name, self.services.proc)
                reason = f"the container {self.intent.agent.container} does not run"
            except (EngineProblem, OSError) as error:
                reason = str(error)
            waited = time.monotonic() - began
            if waited > RETURNS_WITHIN and asked >= ASKED_AT_LEAST:
                raise EventFailed(f"{reason}, {waited:.0f} s after its restart")
            waiting.wait(ASK_AGAIN_AFTER)

    @property
    def gateways(self) -> Mapping[str, Namespace]:
        """The gateways' network namespaces by uplink; labs only."""
        return self.services.gateways

    @cached_property
    def missing_capability(self) -> str | None:
        """What this process lacks to send and capture in the target's namespaces; None when it lacks nothing."""
        return missing_capabilities()

    @cached_property
    def snapshot(self) -> Snapshot:
        """The target's state, read once, before the first probe."""
        readings = self.host_readings
        with _recorded(self.recorded, self.host, self.agent):
            snapshot = self._take_snapshot(self.engine, self._problems, readings.snapshot)
        readings.snapshot = readings.snapshot or snapshot
        return snapshot

    def read_state(self) -> Snapshot:
        """Read the target's present state."""
        problems: list[Problem] = []
        return self._take_snapshot(self._read_engine(problems), problems)

    def _take_snapshot(
        self, engine: DockerEngine | None, problems: list[Problem], same_host: Snapshot | None = None
    ) -> Snapshot:
        """Read the state; ``same_host`` is a snapshot for another agent, whose host is not read again."""
        agent = self.agent if self.missing_capability is None else None
        if same_host is not None:
            snapshot = snapshot_of_agent(same_host, agent, engine, problems)
        else:
            snapshot = take_snapshot(self.host, agent, engine, problems)
        manager_answers = ask(self.host, self.intent.egress.uplink)
        return dataclasses.replace(
            snapshot, manager_answers=manager_answers, resolvers=self.resolvers, host_resolvers=self.host_resolvers
        )

    @property
    def resolvers(self) -> tuple[str, ...] | None:
        """The resolvers in the agent's resolv.conf; None when it cannot be read."""
        text = self.read_agent_file("/etc/resolv.conf")
        return None if text is None else nameservers(text)

    @property
    def host_resolvers(self) -> tuple[str, ...] | None:
        """The resolvers in the host's own resolv.conf; None when it cannot be read."""
        try:
            return nameservers(self.host.call(lambda: read_text("/etc/resolv.conf")[0]))
        except OSError:
            return None

    @cached_property
    def resolved(self) -> ResolvedIntent:
        """The intent, resolved against the snapshot."""
        return ResolvedIntent(self.intent, self.snapshot)

    def read_agent_file(self, path: str) -> str | None:
        """Read a file of the container, or of the host for a bare namespace; None when it cannot be read."""
        container = self.engine.container if self.engine is not None else None
        try:
            if container is not None and container.running:
                return read_text_in(f"{self.services.proc}/{container.pid}/root", path)
            return self.host.call(lambda: read_text(path)[0])
        except OSError:
            return None

    def forecast(self, protocol: TransportProtocol) -> Forecast | None:  # noqa: ARG002 - of the protocol Target
        """Return None: packets show where they leave."""
        return None

    def kernel_decision(self, protocol: TransportProtocol) -> KernelDecision:
        """Ask the kernel for the agent's packet to the probe target (RTM_GETROUTE)."""
        model = self.resolved.agent_decision(protocol)
        answer = ask_kernel(self.host, self.resolved.agent_packet(protocol))
        return KernelDecision(answer, model.evidence(kernel=answer.text, agree=model.agrees_with(answer)))

    def traffic_tests(self, captures: Path) -> TrafficTests:
        """Return the tests that send packets; ``captures`` is the folder for pcapng files."""
        from viacheck.packets.traffic_tests import TrafficTests

        return TrafficTests(self, captures)

    def disruption_tests(self) -> DisruptionTests:
        """Return the tests that interrupt the network."""
        from viacheck.disruption.disruption_tests import DisruptionTests

        return DisruptionTests(self, self.disruption)

    def note_changes(self) -> bool:
        """Return False: only the run itself changes a lab."""
        return False

    @cached_property
    def _saved_snapshot(self) -> dict[str, Any]:
        """The snapshot as JSON. Made once, as the state before the first probe does not change."""
        return snapshot_json(self.snapshot)

    def note_upstream(self, findings: UpstreamFindings) -> None:
        """Add to the record what the run's packets showed of the network upstream: a bundle of it holds that."""
        asked = {(neighbour.interface, neighbour.address) for neighbour in findings.gateway_answers}
        routers = (
            entry for entry in routers_seen(self.host, self.snapshot.host)
            if (entry.interface, entry.address) not in asked
        )  # fmt: skip
        seen = dataclasses.replace(findings, gateway_answers=[*findings.gateway_answers, *routers])
        self._upstream = dataclasses.asdict(seen)

    def record(self) -> TargetRecord:
        """Return the target's part of result.json. Its verdict is set when all results are known."""
        return TargetRecord(
            id=self.id, kind=self.kind, flavour=self.flavour, verdict="inconclusive", title=self.title,
            agent=self.agent_name, intent=self.intent.as_json(), notes=self.notes, alerts=self.alerts,
            snapshot={**self._saved_snapshot, **self._upstream},
        )  # fmt: skip

    def obstacle_to(self, event: str) -> str | None:  # noqa: ARG002 - a replica's answer depends on the event
        """Return why an event here would not show what it shows on the real host; None if it does."""
        return None

    def close(self) -> None:
        """Close the agent's namespace."""
        if self.agent is not None and self.agent is not self.host:
            self.agent.close()


@contextlib.contextmanager
def _recorded(commands: list[RecordedCommand], *namespaces: Namespace | None) -> Iterator[None]:
    """Record every command that is run in these namespaces."""
    present = [namespace for namespace in namespaces if namespace is not None]
    for namespace in present:
        namespace.recorder = commands
    try:
        yield
    finally:
        for namespace in present:
            namespace.recorder = None
