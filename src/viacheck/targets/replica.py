"""Twins in a run: which hosts a file has twins of, and a twin as what a check is to judge.

A twin has no Docker engine. What the host's own engine said is taken from the snapshot, so that checks of it are judged
as they were on the host; the agent's container is a bare namespace.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from netns_lab.builder import AGENT_PATH
from netns_lab.lab import Lab
from reports.report_files import ResultUnreadable, read_outcome
from viacheck.analysis.replica_diff import differences
from viacheck.bundle.reader import BundleUnreadable, is_archive, read_bundle
from viacheck.disruption.replica_events import obstacle
from viacheck.host.namespace import Namespace, NotANamespace, open_netns
from viacheck.model.intent import IntentError, parse_intent
from viacheck.model.result import TargetRecord
from viacheck.model.snapshot import DockerEngine, Problem, Snapshot
from viacheck.targets.base import Target
from viacheck.targets.specs import ReplicaSpec, SelectionError

DIFFERENCES_TOLD = 30
_OF_THE_ENGINE = ("engine", "container")


def replicas_in(path: Path) -> list[ReplicaSpec]:
    """The twins of the hosts that a bundle, or a saved result.json, holds.

    Raises:
        SelectionError: when it is neither, or holds no host's state.
    """
    try:
        if is_archive(path):
            bundle = read_bundle(path)
            return [ReplicaSpec(bundle.intent.site.name, bundle.intent, bundle.snapshot)]
        outcome = read_outcome(path)
    except (BundleUnreadable, ResultUnreadable) as error:
        raise SelectionError(f"--twin: {error}") from None
    found = [twin for target in outcome.targets if (twin := replica_of(target, path.name)) is not None]
    if not found:
        raise SelectionError(f"--twin: {path}: holds no host's state")
    return found


def replica_of(target: TargetRecord, source: str) -> ReplicaSpec | None:
    """The twin of a target of a result, if its state is in it; ``source`` is what messages call the result.

    Raises:
        SelectionError: when the target's intent or state is none.
    """
    if target.snapshot is None:
        return None
    try:
        intent = parse_intent(target.intent, source=f"--twin: {source}, {target.id}")
        snapshot: Snapshot = TypeAdapter(Snapshot).validate_python(target.snapshot)
    except IntentError as error:
        raise SelectionError(error.mistakes[0]) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise SelectionError(f"--twin: {source}, {target.id}: snapshot.{place}: {first['msg']}") from None
    return ReplicaSpec(target.id.partition(":")[2], intent, snapshot)


class ReplicaTarget(Target):
    """A twin as a target."""

    def __init__(self, target_id: str, lab: Lab) -> None:
        """Take over the twin: closing the target ends it.

        Args:
            target_id: as in result.json.
            lab: what was built of a snapshot.
        """
        assert lab.replica_of is not None
        self._source, intent = lab.replica_of, lab.plan.intent
        host = lab.host.namespace
        super().__init__(target_id, "lab", intent, host, title=lab.plan.title, flavour="netns", end=lab.close)

    @property
    def replica_difference(self) -> str:
        """In one line, how the state of the twin differs from that of its host."""
        found = differences(self._source, self.snapshot)
        if not found:
            return "the twin's state equals the snapshot that it was built from"
        told = found[:DIFFERENCES_TOLD]
        if len(found) > len(told):
            told.append(f"and {len(found) - len(told)} more")
        return f"differences between the host (-) and its twin (+): {'; '.join(told)}"

    def _read_engine(self, problems: list[Problem]) -> DockerEngine | None:
        problems += [problem for problem in self._source.problems if problem.what in _OF_THE_ENGINE]
        return self._source.engine

    def _enter_agent(self) -> Namespace | None:
        try:
            return Namespace("agent", self.host.call(lambda: open_netns(AGENT_PATH)))
        except NotANamespace as error:
            told = self._source.problem("agent") or Problem(what="agent", reason=str(error))
            self._problems.append(told)
            return None

    def _take_snapshot(self, engine: DockerEngine | None, problems: list[Problem]) -> Snapshot:
        taken = super()._take_snapshot(engine, problems)
        # Programs that renew leases or watch links are not rebuilt; that there were some is known.
        return dataclasses.replace(
            taken,
            dhcp_clients=taken.dhcp_clients or self._source.dhcp_clients,
            link_watchers=self._source.link_watchers,
        )

    def obstacle_to(self, event: str) -> str | None:
        """Why an event cannot be told from a twin."""
        return obstacle(event, self._source, self.intent)

    def read_agent_file(self, path: str) -> str | None:
        """A file as the agent sees it: it has no files of its own here."""

        def read() -> str | None:
            try:
                return Path(path).read_text(encoding="utf-8", errors="replace")
            except OSError:
                return None

        return self.host.call(read)
