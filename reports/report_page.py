"""The page: one self-contained HTML file that says where the packets left, what to fix, and what proves it.

It loads nothing and runs nothing: the style sheet is in the file, and a content security policy (CSP level 3) allows
it by its hash and nothing else. Names from outside are escaped by Jinja2 and by `text.escape_unprintable`, at the one
place that every value passes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import count
from typing import Any

from markupsafe import Markup

from reports import document
from reports.diagnoses import ReportedCause, reported_causes
from reports.document import TEXT_SHOWN
from reports.egress_summary import EGRESS_CHECK, EgressSummary, VerdictSentence, egress_summary, verdict_sentence
from reports.host_facts import Facts, facts
from reports.text import chapter, check_order, counted, ids_shortened, listed, reasons, waivers, worst
from reports.timeline import MARKS, timeline
from reports.timeline_drawing import draw_timeline, key
from reports.topology import KINDS, Topology, draw, topology
from viacheck.model.chapters import CHAPTERS
from viacheck.model.result import (
    CheckResult,
    CommandEvidence,
    DecisionEvidence,
    PacketsEvidence,
    PacketSighting,
    RunResult,
    TargetRecord,
    TimelineEvidence,
    Verdict,
)

ROWS_SHOWN = 60
"""Rows of one table or list of evidence."""
EVIDENCE_SHOWN = 2_000_000
"""Characters of evidence on the whole page; further evidence is in result.json only."""

MEANINGS = {
    Verdict.PASS: "true, and shown to be",
    Verdict.FAIL: "not true",
    Verdict.ADVISORY: "works now, at risk",
    Verdict.INCONCLUSIVE: "could not be proven either way",
    Verdict.NOT_RUN: "did not run",
    Verdict.NOT_APPLICABLE: "does not apply to this kind of attachment",
}


@dataclass(slots=True)
class CheckGroup:
    """One check with its cases."""

    id: str
    title: str
    results: list[CheckResult]

    @property
    def verdict(self) -> Verdict:
        """The worst of its cases."""
        return worst(result.verdict for result in self.results)

    @property
    def opened(self) -> CheckResult | None:
        """The case whose evidence is unfolded: the first bad case; the others are usually alike."""
        return next((result for result in self.results if result.verdict.bad), None)


@dataclass
class TargetView:
    """One target as the page shows it."""

    record: TargetRecord
    ident: str
    results: list[CheckResult]
    groups: dict[str, CheckGroup] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for result in self.results:
            self.groups.setdefault(result.check, CheckGroup(result.check, result.title, [])).results.append(result)

    @cached_property
    def verdict(self) -> VerdictSentence:
        """The verdict sentence."""
        return verdict_sentence(self.record, self.results)

    @property
    def sentence(self) -> str:
        """The text of the verdict sentence."""
        return self.verdict.text

    @cached_property
    def notes(self) -> list[str]:
        """The notes that the verdict sentence does not contain."""
        return [note for note in self.record.notes if note != self.verdict.undecided_because]

    @cached_property
    def egress(self) -> EgressSummary:
        """Where the agent's packets left."""
        return egress_summary(self.record, self.results)

    @cached_property
    def topology(self) -> Topology | None:
        """The topology that is drawn."""
        return topology(self.record, self.egress, self.results)

    @cached_property
    def chapters(self) -> list[tuple[str, str, list[CheckGroup]]]:
        """The checks that were judged: chapter, its title, its checks."""
        judged = [
            self.groups[check]
            for check in sorted(self.groups, key=check_order)
            if self.groups[check].verdict not in (Verdict.NOT_RUN, Verdict.NOT_APPLICABLE)
        ]
        names = dict.fromkeys(chapter(group.id) for group in judged)
        return [(name, CHAPTERS.get(name, ""), [g for g in judged if chapter(g.id) == name]) for name in names]

    @cached_property
    def not_judged(self) -> list[tuple[Verdict, str, list[str]]]:
        """The checks that were not judged: verdict, reason, ids."""
        return [
            (verdict, why, sorted(set(ids), key=check_order))
            for verdict in (Verdict.NOT_RUN, Verdict.NOT_APPLICABLE)
            for why, ids in reasons(self.results, verdict).items()
        ]

    @cached_property
    def facts(self) -> list[Facts]:
        """Host facts from the snapshot."""
        return facts(self.record.snapshot, self.record.intent) if self.record.snapshot else []

    def drawing(self, standing: bool) -> Markup:
        """The topology as SVG, from left to right or, when ``standing``, from top to bottom."""
        if self.topology is None:
            return Markup()
        return draw(self.topology, f"{self.ident}-{'s' if standing else 'l'}", standing=standing)

    def leaks(self, result: CheckResult, sighting: PacketSighting) -> bool:
        """Return whether a sighting is a probe of the agent on an uplink that it should not use."""
        return (
            result.check == EGRESS_CHECK
            and sighting.role == "probe"
            and sighting.direction == "out"
            and sighting.interface in self.egress.uplinks
            and sighting.interface != self.egress.intended
        )


@dataclass(slots=True)
class _Allowance:
    """How much evidence the page may still hold, in characters."""

    left: int = EVIDENCE_SHOWN

    def take(self, evidence: Any) -> bool:
        """Return whether a piece of evidence still fits, and count it as shown if it does."""
        if self.left <= 0:
            return False
        if isinstance(evidence, CommandEvidence):
            cost = min(len(evidence.stdout), TEXT_SHOWN) + min(len(evidence.stderr), TEXT_SHOWN) + 400
        elif isinstance(evidence, PacketsEvidence):
            cost = 400 + 900 * min(len(evidence.sightings), ROWS_SHOWN)
        elif isinstance(evidence, TimelineEvidence):
            cost = 5_000 + 50 * min(len(evidence.events), 1_000)
        else:
            cost = 2_000
        self.left -= cost
        return True


def render(outcome: RunResult) -> str:
    """Render the whole page from an outcome."""
    environment, numbers = document.environment(), count(1)
    environment.filters.update(ids=ids_shortened, listed=listed, evidence_summary=evidence_summary, anchor=_anchor)
    targets = [
        TargetView(record, f"t{number}", [result for result in outcome.results if result.target == record.id])
        for number, record in enumerate(outcome.targets, 1)
    ]
    fixes, unproven, advisories = (
        reported_causes(outcome, verdict) for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ADVISORY)
    )
    return environment.get_template("report.html").render(
        run=outcome.run,
        seconds=_seconds(outcome),
        targets=targets,
        worst_first=sorted(targets, key=lambda target: ("fail", "inconclusive", "pass").index(target.record.verdict)),
        verdict=_overall(outcome),
        many=len(targets) > 1,
        fixes=fixes,
        unproven=unproven,
        advisories=advisories,
        waived=waivers(outcome.results),
        cause_links=_cause_links((("fix", fixes), ("open", unproven), ("advisory", advisories))),
        columns=_columns(targets),
        counts=_counts(outcome),
        meanings=MEANINGS,
        kinds=KINDS,
        **document.style(),
        rows=ROWS_SHOWN,
        capture_file=_capture_file,
        allowance=_Allowance(),
        mark=_marks().__getitem__,
        marks=MARKS,
        key=key,
        timeline_of=timeline,
        drawing_of=lambda rows: draw_timeline(rows, f"timeline-{next(numbers)}"),
    )


def evidence_summary(result: CheckResult) -> str:
    """Say briefly which evidence a result holds."""
    parts = []
    packets = [evidence for evidence in result.evidence if isinstance(evidence, PacketsEvidence)]
    if packets:
        sightings = sum(len(evidence.sightings) for evidence in packets)
        interfaces = len({watched.interface for evidence in packets for watched in evidence.watched})
        parts.append(f"{counted(sightings, 'sighting')} on {counted(interfaces, 'watched interface')}")
    for kind, noun, plural in (
        (DecisionEvidence, "routing decision", None),
        (TimelineEvidence, "timeline", None),
        (CommandEvidence, "command", None),
    ):
        number = sum(isinstance(evidence, kind) for evidence in result.evidence)
        if number:
            parts.append(counted(number, noun, plural))
    paths = sum(evidence.kind == "path" for evidence in result.evidence)
    if paths:
        parts.append(counted(paths, "path"))
    rest = sum(evidence.kind in ("far-end", "file", "counter", "state") for evidence in result.evidence)
    if rest:
        parts.append(counted(rest, "record"))
    return ", ".join(parts)


def _anchor(text: str) -> str:
    """Return a text with which an HTML id can be formed."""
    return re.sub(r"[^A-Za-z0-9-]", lambda match: f"_{ord(match[0]):x}", text)


def _capture_file(path: str | None) -> str | None:
    """Return a capture's path if it is safe to link to: below the report directory, with plain names only."""
    return path if path and re.fullmatch(r"captures/[A-Za-z0-9_+,=@-][A-Za-z0-9_+.,=@-]*", path) else None


def _marks() -> dict[str, Markup]:
    """Return a symbol for each verdict; the shape alone distinguishes them."""
    use = Markup('<svg class="mark" viewBox="0 0 16 16" aria-hidden="true"><use href="#mark-{}"/></svg>')
    return {verdict.value: use.format(verdict.value) for verdict in Verdict}


def _overall(outcome: RunResult) -> str:
    verdicts = {target.verdict for target in outcome.targets}
    return next((word for word in ("fail", "inconclusive", "pass") if word in verdicts), "inconclusive")


def _counts(outcome: RunResult) -> list[tuple[Verdict, int]]:
    counts = [(verdict, sum(result.verdict is verdict for result in outcome.results)) for verdict in MEANINGS]
    return [(verdict, number) for verdict, number in counts if number]


def _columns(targets: Iterable[TargetView]) -> list[tuple[str, list[str]]]:
    """Return the columns of the matrix: chapters with those of their checks that apply to any target."""
    checks = sorted(
        {
            group.id
            for target in targets
            for group in target.groups.values()
            if group.verdict is not Verdict.NOT_APPLICABLE
        },
        key=check_order,
    )
    chapters = dict.fromkeys(chapter(check) for check in checks)
    return [(name, [check for check in checks if chapter(check) == name]) for name in chapters]


def _cause_links(lists: Iterable[tuple[str, list[ReportedCause]]]) -> Callable[[CheckResult], str | None]:
    """Return a function from a result to the section of the page that reports its cause."""
    places = {
        id(result): f"{prefix}-{number}"
        for prefix, causes in lists
        for number, cause in enumerate(causes, 1)
        for result in (*cause.results, *cause.affected)
    }
    return lambda result: places.get(id(result))


def _seconds(outcome: RunResult) -> float | None:
    try:
        begun, ended = (datetime.fromisoformat(moment) for moment in (outcome.run.started, outcome.run.finished))
        return (ended - begun).total_seconds()
    except (ValueError, TypeError):
        return None
