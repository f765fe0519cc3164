"""A run over many hosts: Nornir's threaded runner judges each host, and each host's result is written as it comes."""

from __future__ import annotations

import contextlib
import datetime
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING
from urllib.parse import quote

from reports.egress_summary import verdict_sentence
from reports.fleet_report import HOST_VERDICTS, HOSTS, HostSummary, summaries
from reports.report_files import RESULT, ResultUnreadable, read_outcome, write_outcome
from reports.text import counted
from viacheck import __version__
from viacheck.ending_signals import ending_signals
from viacheck.fleet.inventory import FleetHost
from viacheck.fleet.remote_host import HostNotJudged, HostNotReached, SSHConnections
from viacheck.fleet.site_files import HostSite
from viacheck.model.result import Run, RunResult, TargetRecord
from viacheck.model.site_agents import named

if TYPE_CHECKING:
    from nornir.core.task import Result, Task


@dataclass(frozen=True, slots=True)
class HostDone:
    """A host that is finished."""

    name: str
    verdict: str
    """``pass``, ``fail``, ``inconclusive`` or ``not-run``."""
    sentence: str


Judge = Callable[[FleetHost, str, Path], RunResult]
"""Judges a host with the text of its site file; may leave files in the host's own folder."""


@dataclass(slots=True)
class FleetRun:
    """A run over many hosts."""

    folder: Path
    """The folder of the results."""
    sites: Mapping[str, HostSite]
    judge: Judge
    """Raises HostNotJudged where there is no result."""
    connections: SSHConnections
    on_done: Callable[[HostDone], None]
    """Called for each host that is finished, from the thread that judged it."""
    hosts: dict[Path, Sequence[HostSummary]] = field(default_factory=dict)
    """The hosts that are finished, by the path of their result: the report need not read it again. A host that was not
    reached has no file there."""
    unwritten: list[str] = field(default_factory=list)
    """Results that could not be written."""

    def run(self, hosts: Sequence[FleetHost], parallel: int) -> str | None:
        """Judge the hosts; return the name of the signal that interrupted the run, or None.

        Nornir ends when every host is finished. SIGINT and SIGTERM end the connections, so that all are.
        """
        from nornir.core import Nornir
        from nornir.core.inventory import Defaults, Groups, Host, Hosts, Inventory
        from nornir.plugins.runners import ThreadedRunner

        by_name = {host.name: host for host in hosts}
        inventory = Inventory(
            hosts=Hosts({name: Host(name=name, hostname=host.address) for name, host in by_name.items()}),
            groups=Groups(),
            defaults=Defaults(),
        )
        nornir = Nornir(inventory=inventory, runner=ThreadedRunner(num_workers=parallel))
        with _signals_stop(self.connections) as received:
            nornir.run(task=lambda task: self._host(task, by_name[task.host.name]))
        return received[0] if received else None

    def _host(self, task: Task, host: FleetHost) -> Result:
        """Judge a host and write its result: a task of Nornir."""
        from nornir.core.task import Result

        started, path = _now(), result_path(self.folder, host.name)
        try:
            outcome = self.judge(host, self.sites[host.name].text, path.parent)
            _check_agents(outcome, self.sites[host.name])
            _rename(outcome, host)
        except HostNotReached as error:
            # Nothing is written, so that the end of an interrupted run does not wait for the disk.
            if not path.exists():
                row = HostSummary(
                    name=host.name, verdict="not-run", sentence=f"{error.words[0]}.".capitalize(), page=None
                )
                self.hosts[path] = [row]
            return Result(host=task.host)
        except HostNotJudged as error:
            outcome = self._not_judged(host, started, error.words)
        try:
            write_outcome(outcome, path.parent)
            self.hosts[path] = summaries(self.folder, path, outcome)
        except OSError as error:
            self.unwritten.append(f"{error.filename or host.name}: cannot be written: {error.strerror}")
        target = min(outcome.targets, key=lambda of_agent: HOST_VERDICTS.index(of_agent.verdict))
        judged = any(result.verdict.decided or result.verdict.bad for result in outcome.results)
        verdict = target.verdict if judged else "not-run"
        results = [result for result in outcome.results if result.target == target.id]
        self.on_done(HostDone(host.name, verdict, str(verdict_sentence(target, results))))
        return Result(host=task.host)

    def _not_judged(self, host: FleetHost, started: str, words: list[str]) -> RunResult:
        targets = [
            TargetRecord(
                id=named(target_id(host), agent), kind="remote", verdict="inconclusive", agent=agent or None,
                intent=intent.as_json(), notes=words,
            )
            for agent, intent in self.sites[host.name].intents.items()
        ]  # fmt: skip
        run = Run(
            id=f"{started}-{host.name}",
            started=started,
            finished=_now(),
            command=shlex.join(["viacheck", *sys.argv[1:]]),
            versions={"viacheck": __version__},
        )
        return RunResult(run=run, targets=targets, results=[])


def target_id(host: FleetHost) -> str:
    """Return the id of a remote host in result.json."""
    return f"remote:{host.name}"


def folder_name(name: str) -> str:
    """Return a host's name as the name of a folder."""
    quoted = quote(name, safe="")
    return quoted.replace(".", "%2E", 1) if quoted.startswith(".") else quoted


def result_path(folder: Path, name: str) -> Path:
    """Return the path of a host's result in the folder of a run."""
    return folder / HOSTS / folder_name(name) / RESULT


def judged_before(folder: Path, hosts: Sequence[FleetHost]) -> dict[str, Sequence[HostSummary]]:
    """Return the hosts that have a result with verdicts in an earlier run's folder, by their names in the inventory."""
    judged: dict[str, Sequence[HostSummary]] = {}
    for host in hosts:
        path = result_path(folder, host.name)
        try:
            outcome = read_outcome(path)
        except ResultUnreadable:
            continue
        if outcome.run.interrupted is None and any(result.verdict.decided for result in outcome.results):
            judged[host.name] = summaries(folder, path, outcome)
    return judged


def _check_agents(outcome: RunResult, site: HostSite) -> None:
    """Check that a host sent a target for each agent of its site file.

    Raises:
        HostNotJudged: it sent others.
    """
    sent, expected = sorted(target.agent or "" for target in outcome.targets), sorted(site.intents)
    if sent != expected:
        what = f"{counted(len(sent), 'target')}, not of the {counted(len(expected), 'agent')} of its site file"
        raise HostNotJudged(f"the host sent a result of {what}")
    known = {target.id for target in outcome.targets}
    if len(known) < len(sent) or not known.issuperset(result.target for result in outcome.results):
        raise HostNotJudged("the host sent a result whose targets and results do not belong together")


def _rename(outcome: RunResult, host: FleetHost) -> None:
    """Give the targets the host's name in the inventory; where they were judged they are ``local``, or of a bundle."""
    names = {target.id: named(target_id(host), target.agent or "") for target in outcome.targets}
    for target in outcome.targets:
        target.id, target.kind = names[target.id], "remote"
    for result in outcome.results:
        result.target = names[result.target]


@contextlib.contextmanager
def _signals_stop(connections: SSHConnections) -> Iterator[list[str]]:
    """Let signals that end a run end the connections for the time of a block; yield the names of those that came."""
    received: list[str] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        received.append(signal.Signals(number).name)
        connections.stop()

    with ending_signals(stop):
        yield received


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
