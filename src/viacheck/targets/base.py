"""A target: a host and its agent, in namespaces that can be acted in. A lab and a live host are the same here."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Literal

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis import Cause, diagnose
from viacheck.disruption.controls import Disruption, EventFailed, LabControl
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
from viacheck.host.manager_status import ask
from viacheck.host.namespace import Namespace, NotANamespace, open_netns
from viacheck.host.snapshot_reader import take_snapshot
from viacheck.model.diff import changes
from viacheck.model.intent import Intent
from viacheck.model.measurements import Measurements, TrafficMeasurements
from viacheck.model.result import TargetRecord
from viacheck.model.snapshot import DockerEngine, Problem, Snapshot
from viacheck.model.snapshot_json import snapshot_json

CHANGES_TOLD = 10
NAMESERVER = r"^\s*nameserver\s+(\d+(?:\.\d+){3})\s*$"
COMES_BACK_WITHIN, ASK_AGAIN_AFTER = 5.0, 0.02
"""Seconds: the engine says that a container was started, and no more of when."""


class Target:
    """What is judged.

    Attributes:
        id: as in result.json.
        intent: what must be true.
        host: the host's namespace.
        agent: the agent's network namespace; None while it cannot be entered.
        disruption: whether and how a live host may be interrupted; None where that needs no consent.
        gateways: the namespaces behind the uplinks, by uplink; labs only.
        hands: what can be done to cables, container and engine; labs only.
        twin: builds another target just like this one, faults included; labs only.
        rebooted: builds the target as it comes up from its files alone; labs that have a network manager only.
        engine_url: the Docker engine's address; None for what DOCKER_HOST or Docker's default says.
        measure_traffic: measures what a diagnosis must know before a cause is named.
        measured: what packets have told so far.
        notes: what a reader of the report must know about this target.
        recorded: the commands that the snapshot was read with.
    """

    disruption: Disruption | None = None

    def __init__(
        self,
        target_id: str,
        kind: Literal["lab", "local", "bundle"],
        intent: Intent,
        host: Namespace,
        *,
        title: str = "",
        flavour: Literal["netns", "engine"] | None = None,
        engine_url: str | None = None,
        proc: str = "/proc",
        end: Callable[[], None] = lambda: None,
    ) -> None:
        """Find the agent.

        Args:
            target_id: as in result.json.
            kind: a lab, or the host that this runs on.
            intent: what must be true.
            host: the host's namespace.
            title: what the target is, for people.
            flavour: of a lab.
            engine_url: the Docker engine's address; None for what DOCKER_HOST or Docker's default says.
            proc: the /proc in which the engine's process numbers are true.
            end: what ends the target when it is closed.
        """
        self.id, self.kind, self.intent, self.host = target_id, kind, intent, host
        self.title, self.flavour = title, flavour
        self.measurements = Measurements()
        self.measure_traffic: Callable[[], TrafficMeasurements] = TrafficMeasurements
        self.gateways: dict[str, Namespace] = {}
        self.control: LabControl | None = None
        self.twin: Callable[[], Target] | None = None
        self.rebooted: Callable[[], Target] | None = None
        self.notes: list[str] = []
        self.recorded: list[RecordedCommand] = []
        self._end = end
        self._proc = proc
        self.engine_url = engine_url
        self._problems: list[Problem] = []
        self.engine = self._read_engine(self._problems)
        self.agent = self._enter_agent()

    def _read_engine(self, problems: list[Problem]) -> DockerEngine | None:
        if self.intent.agent.container is None:
            return None
        try:
            return read_engine(self.engine_url, self.intent.agent.container)
        except ContainerMissing as error:
            problems.append(Problem(what="container", reason=str(error)))
            return error.engine
        except EngineProblem as error:
            forbidden = isinstance(error, EngineUnreachable) and error.reason == "permission-denied"
            missing = "root, or membership in the group of Docker's socket" if forbidden and os.geteuid() else None
            problems.append(Problem(what="engine", reason=str(error), missing=missing))
            return None

    def _enter_agent(self) -> Namespace | None:
        agent = self.intent.agent
        found: Namespace | None = None
        try:
            if agent.netns is not None:
                path = agent.netns
                found = Namespace("agent", self.host.call(lambda: open_netns(path)))
            elif self.engine is not None and (container := self.engine.container) is not None:
                found = container_namespace(container.pid, container.name, self._proc)
        except (NotANamespace, ContainerNotRunning, OSError) as error:
            forbidden = isinstance(error, PermissionError) or isinstance(error.__context__, PermissionError)
            missing = self.missing_capability if forbidden else None
            self._problems.append(Problem(what="agent", reason=str(error), missing=missing))
        if found is not None and self.missing_capability is not None:
            reason = f"{agent.name} is there, and was not entered"
            self._problems.append(Problem(what="agent", reason=reason, missing=self.missing_capability))
        return found

    def leave_agent(self) -> None:
        """Let go of the agent's namespace, so that it can end with the agent."""
        if self.agent is not None and self.agent is not self.host:
            self.agent.close()
            self.agent = None

    def enter_agent_again(self) -> Namespace:
        """The agent's namespace after a restart of its container; the caller closes it.

        Raises:
            EventFailed: when the container has not come back after 5 s.
        """
        assert self.intent.agent.container is not None
        deadline, waiting = time.monotonic() + COMES_BACK_WITHIN, threading.Event()
        while True:
            try:
                container = read_engine(self.engine_url, self.intent.agent.container).container
                if container is not None and container.running:
                    return container_namespace(container.pid, container.name, self._proc)
                reason = f"the container {self.intent.agent.container} does not run"
            except (EngineProblem, OSError) as error:
                reason = str(error)
            if time.monotonic() > deadline:
                raise EventFailed(f"{reason}, {COMES_BACK_WITHIN:g} s after it should have come back")
            waiting.wait(ASK_AGAIN_AFTER)

    @cached_property
    def missing_capability(self) -> str | None:
        """What this process lacks to send and capture in the target's namespaces; None when it lacks nothing."""
        return missing_capabilities()

    @cached_property
    def snapshot(self) -> Snapshot:
        """The target's state, read once, before the first probe."""
        with _recorded(self.recorded, self.host, self.agent):
            return self._take_snapshot(self.engine, self._problems)

    def read_state(self) -> Snapshot:
        """The target's state as it is now."""
        problems: list[Problem] = []
        return self._take_snapshot(self._read_engine(problems), problems)

    def _take_snapshot(self, engine: DockerEngine | None, problems: list[Problem]) -> Snapshot:
        agent = self.agent if self.missing_capability is None else None
        taken = take_snapshot(self.host, agent, engine, problems)
        manager_answers = ask(self.host, self.intent.egress.uplink)
        return dataclasses.replace(taken, manager_answers=manager_answers, resolvers=self.resolvers)

    @property
    def resolvers(self) -> tuple[str, ...] | None:
        """The IPv4 resolvers that the agent's resolv.conf names (resolv.conf(5)); None when it cannot be read."""
        text = self.read_agent_file("/etc/resolv.conf")
        return None if text is None else tuple(re.findall(NAMESERVER, text, re.MULTILINE))

    @cached_property
    def resolved(self) -> ResolvedIntent:
        """The intent, resolved against the snapshot."""
        return ResolvedIntent(self.intent, self.snapshot)

    def cause_of(self, check: str) -> Cause | None:
        """Why a check fails on this target, as far as it can be told."""
        if self.missing_capability is None:
            self.measurements.traffic = self.measure_traffic()
        return diagnose(check, self.resolved, self.measurements)

    def read_agent_file(self, path: str) -> str | None:
        """A file as the agent sees it: the container's own, or the host's for a bare namespace; None if none."""
        container = self.engine.container if self.engine is not None else None
        root = f"{self._proc}/{container.pid}/root" if container is not None and container.running else ""

        def read() -> str | None:
            try:
                with open(root + path, encoding="utf-8", errors="replace") as file:
                    return file.read()
            except OSError:
                return None

        return read() if root else self.host.call(read)

    def compare_with_now(self) -> None:
        """Read the state once more, and note what is not as it was before the first probe."""
        found = changes(self.snapshot, self.read_state())
        if found:
            told = found[:CHANGES_TOLD]
            if len(found) > len(told):
                told.append(f"and {len(found) - len(told)} more")
            self.notes.append(f"the state changed while it was judged: {'; '.join(told)}")
        else:
            self.notes.append("the state after the run equals the state before it")

    @cached_property
    def _saved_snapshot(self) -> dict[str, Any]:
        """Made once, as the state before the first probe does not change."""
        return snapshot_json(self.snapshot)

    def record(self) -> TargetRecord:
        """The target as it stands in result.json. Its verdict is set when all of its checks are known."""
        return TargetRecord(
            id=self.id, kind=self.kind, flavour=self.flavour, verdict="inconclusive", title=self.title,
            intent=self.intent.as_json(), snapshot=self._saved_snapshot, notes=self.notes,
        )  # fmt: skip

    def obstacle_to(self, event: str) -> str | None:  # noqa: ARG002 - what stands in the way depends on it elsewhere
        """Why an event cannot go here as on the host that is meant; None where this is that host."""
        return None

    def close(self) -> None:
        """Let go of everything, and end a lab."""
        if self.agent is not None and self.agent is not self.host:
            self.agent.close()
        self._end()


@contextlib.contextmanager
def _recorded(commands: list[RecordedCommand], *namespaces: Namespace | None) -> Iterator[None]:
    """Keep every command that is run in these namespaces."""
    present = [namespace for namespace in namespaces if namespace is not None]
    for namespace in present:
        namespace.recorder = commands
    try:
        yield
    finally:
        for namespace in present:
            namespace.recorder = None
