"""The results of many hosts, reduced to what their common report shows; one result is in memory at a time.

A result is any ``result.json`` below a folder, or a ``NAME.json`` in the folder itself, whichever program brought it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from reports.diagnoses import REPORTED, reported_causes
from reports.egress_summary import egress_summary, verdict_sentence
from reports.report_files import REPORT, RESULT, ResultUnreadable, read_outcome
from reports.report_page import render
from reports.text import one_line, worst
from viacheck.atomic_file import write_file
from viacheck.collector_pause import collector_paused
from viacheck.model.chapters import check_order
from viacheck.model.result import CheckResult, RunResult, TargetRecord
from viacheck.model.verdict import Verdict
from viacheck.private_folder import FILE_MODE

HOSTS = "hosts"
"""The folder of a fleet run with a folder for each host."""
INDEX = "index.html"
COMMON_SHARE = 0.6
"""A value that this share of the hosts has is the fleet's; a host with another value is an outlier."""
FEWEST_HOSTS = 3
"""Of fewer hosts none is an outlier."""
HostVerdict = Literal["fail", "inconclusive", "not-run", "pass"]
HOST_VERDICTS: tuple[HostVerdict, ...] = ("fail", "inconclusive", "not-run", "pass")
"""Worst first."""


@dataclass(frozen=True, slots=True)
class HostCause:
    """A cause on one host."""

    verdict: Verdict
    code: str
    """The diagnosis, or the checks that failed without one."""
    text: str
    remedy: tuple[str, ...]
    undo: tuple[str, ...]
    decision: str
    needs: tuple[str, ...] = ()
    """What must be there on this host before the remedy can be typed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSummary:
    """One host (or another target) of the fleet."""

    name: str
    verdict: HostVerdict
    sentence: str
    page: str | None
    """The path of its own page, relative to the folder of the report; None when it has no page."""
    uplink: str = ""
    """The uplink on which its probes were seen, else the uplink that is intended."""
    finished: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    """What hosts of one fleet usually have in common: Docker engine, kernel, mode, table."""
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    """The worst verdict of each check that applies; a waived failure is an advisory."""
    causes: tuple[HostCause, ...] = ()

    @property
    def leading(self) -> str:
        """The code of the cause to fix first."""
        return self.causes[0].code if self.causes else ""


@dataclass(slots=True)
class CauseGroup:
    """One diagnosis with all hosts that have it."""

    verdict: Verdict
    code: str
    first: HostCause
    hosts: list[HostSummary] = field(default_factory=list)
    variants: int = 1
    """How many different lists of commands its hosts need: the commands hold a host's own addresses and names."""


@dataclass(slots=True)
class OutlierGroup:
    """The hosts that have one value of a fact, where most hosts of the fleet have another."""

    fact: str
    value: str
    common: str
    share: float
    """The share of the hosts that have the common value, from 0 to 1."""
    hosts: list[HostSummary] = field(default_factory=list)


def result_files(folder: Path) -> list[Path]:
    """Return the results below a folder, by path. Links are not followed: ``latest`` would be counted twice."""
    found_files = [path for path in folder.glob("*.json") if path.name != RESULT and not path.is_symlink()]
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not Path(parent, name).is_symlink())
        if RESULT in files:
            found_files.append(Path(parent, RESULT))
    return sorted(found_files)


def summarise(
    folder: Path, *, known: Mapping[Path, Sequence[HostSummary]] | None = None, processes: int | None = None
) -> list[HostSummary]:
    """Read every result below a folder, write the page of each that has none, and return the hosts, worst first.

    Args:
        folder: the folder of the results.
        known: the hosts of results that are not read again, or that have no file, by the path of the result.
        processes: how many processes read; left out, one for each core.
    """
    known = known or {}
    files = [path for path in result_files(folder) if path not in known]
    count = min(processes or len(os.sched_getaffinity(0)), max(len(files) // 8, 1))
    read = partial(_summaries, folder)
    if count == 1:
        hosts = [host for path in files for host in read(path)]
    else:
        with ProcessPoolExecutor(count) as pool:
            hosts = [host for batch in pool.map(read, files, chunksize=8) for host in batch]
    hosts += [host for batch in known.values() for host in batch]
    return sorted(hosts, key=lambda host: (HOST_VERDICTS.index(host.verdict), host.name))


def _summaries(folder: Path, path: Path) -> list[HostSummary]:
    # What is made of one result is freed without the collector: it would visit all of it again and again.
    with collector_paused():
        return _summaries_of(folder, path)


def _summaries_of(folder: Path, path: Path) -> list[HostSummary]:
    try:
        outcome = read_outcome(path)
    except ResultUnreadable as error:
        return [HostSummary(name=_name(folder, path), verdict="inconclusive", sentence=str(error), page=None)]
    return summaries(folder, path, outcome)


def summaries(folder: Path, path: Path, outcome: RunResult) -> list[HostSummary]:
    """Return the hosts of a result that was read from a path below a folder; write its page if it has none."""
    name = _name(folder, path)
    page = _page(path, outcome)
    link = None if page is None else str(page.relative_to(folder))
    single = len(outcome.targets) == 1
    return [
        _summary(outcome, target, name if single else f"{name}: {target.agent or target.id}", link)
        for target in outcome.targets
    ] or [HostSummary(name=name, verdict="not-run", sentence="Nothing was decided: no target was opened.", page=link)]


def _name(folder: Path, path: Path) -> str:
    relative = path.relative_to(folder)
    parts = relative.parts[:-1] if path.name == RESULT else relative.with_suffix("").parts
    return one_line("/".join(parts[1:] if parts[:1] == (HOSTS,) and len(parts) > 1 else parts)) or one_line(folder.name)


def _page(path: Path, outcome: RunResult) -> Path | None:
    """Return the page beside a result, and write it unless it is newer than the result."""
    page = path.with_name(REPORT) if path.name == RESULT else path.with_suffix(f".{REPORT}")
    try:
        if not page.is_file() or page.stat().st_size == 0 or page.stat().st_mtime < path.stat().st_mtime:
            write_file(page, render(outcome), mode=FILE_MODE, durable=False)
    except OSError:
        return page if page.is_file() else None
    return page


def _summary(outcome: RunResult, target: TargetRecord, name: str, page: str | None) -> HostSummary:
    results = [result for result in outcome.results if result.target == target.id]
    verdict: HostVerdict = target.verdict
    if not any(result.verdict.decided or result.verdict.bad for result in results):
        verdict = "not-run"
    alone = RunResult(run=outcome.run, targets=[target], results=results)
    causes = [cause for kind in REPORTED for cause in reported_causes(alone, kind)]
    egress = egress_summary(target, results)
    seen_on = [uplink for uplink in egress.uplinks if egress.seen.get(uplink)]
    return HostSummary(
        name=name,
        verdict=verdict,
        sentence=str(verdict_sentence(target, results)),
        page=page,
        uplink=", ".join(seen_on) or egress.intended or "",
        finished=outcome.run.finished,
        facts=_facts(outcome, target),
        verdicts=_verdicts(results),
        causes=tuple(
            HostCause(
                cause.verdict, cause.code or cause.checks, cause.text, cause.remedy, cause.undo, cause.decision,
                cause.needs,
            )
            for cause in causes
        ),
    )  # fmt: skip


def _verdicts(results: Sequence[CheckResult]) -> dict[str, Verdict]:
    cases: dict[str, list[Verdict]] = {}
    for result in results:
        if result.verdict is not Verdict.NOT_APPLICABLE:
            cases.setdefault(result.check, []).append(result.counted)
    return {check: worst(verdicts) for check, verdicts in cases.items()}


def _facts(outcome: RunResult, target: TargetRecord) -> dict[str, str]:
    state, intent = target.snapshot or {}, target.intent
    engine, egress = state.get("engine") or {}, intent.get("egress") or {}
    attach = (intent.get("agent") or {}).get("attach") or {}
    values = {
        "engine": engine.get("version"),
        "kernel": state.get("kernel"),
        "viacheck": outcome.run.versions.get("viacheck"),
        "mode": attach.get("mode"),
        "network": attach.get("network"),
        "intended uplink": egress.get("uplink"),
        "table": egress.get("table"),
        "persistence": egress.get("persist"),
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def cause_groups(hosts: Iterable[HostSummary]) -> list[CauseGroup]:
    """Return each diagnosis with its hosts: failures first, then by the number of hosts."""
    groups: dict[tuple[Verdict, str], CauseGroup] = {}
    remedies: dict[tuple[Verdict, str], set[tuple[str, ...]]] = {}
    for host in hosts:
        for cause in host.causes:
            key = (cause.verdict, cause.code)
            group = groups.setdefault(key, CauseGroup(cause.verdict, cause.code, cause))
            if host not in group.hosts[-1:]:
                group.hosts.append(host)
            remedies.setdefault(key, set()).add(cause.remedy)
    for key, group in groups.items():
        group.variants = len(remedies[key])
    return sorted(groups.values(), key=lambda group: (REPORTED.index(group.verdict), -len(group.hosts), group.code))


def outliers(hosts: Sequence[HostSummary]) -> list[OutlierGroup]:
    """Return the hosts that have another value of a fact than most hosts: by fact, rare values first."""
    judged = [host for host in hosts if host.facts and host.verdict != "not-run"]
    return list(_outliers(judged)) if len(judged) >= FEWEST_HOSTS else []


def _outliers(judged: Sequence[HostSummary]) -> Iterator[OutlierGroup]:
    for fact in dict.fromkeys(name for host in judged for name in host.facts):
        by_value: dict[str, list[HostSummary]] = {}
        for host in judged:
            by_value.setdefault(host.facts.get(fact, "none"), []).append(host)
        common = max(by_value, key=lambda value: len(by_value[value]))
        share = len(by_value.pop(common)) / len(judged)
        if share >= COMMON_SHARE:
            for value in sorted(by_value, key=lambda value: (len(by_value[value]), value)):
                yield OutlierGroup(fact, value, common, share, by_value[value])


def matrix_columns(hosts: Iterable[HostSummary]) -> list[str]:
    """Return the checks that apply to any host, in the order of the chapters."""
    return sorted({check for host in hosts for check in host.verdicts}, key=check_order)
