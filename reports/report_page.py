"""The page: one self-contained HTML file that says which way the packets took, what to mend, and how it is known.

It loads nothing and runs nothing: the style sheet is in the file and named to the browser by its hash in a content
security policy that allows nothing else (CSP level 3). Names from outside are escaped by Jinja2 and made visible by
`words.escape_unprintable`, at the one place that every value passes.
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
from reports.diagnoses import Cause, causes
from reports.document import TEXT_SHOWN
from reports.egress_summary import PROOF, Way, verdict_sentence, way_of
from reports.host_facts import Facts, facts
from reports.text import CHAPTERS, chapter, check_order, counted, ids_shortened, listed, reasons, worst
from reports.timeline import MARKS, timeline
from reports.timeline_drawing import draw_timeline, key
from reports.topology import KINDS, Topology, draw, topology
from viacheck.model.result import (
    CheckResult,
    CommandEvidence,
    DecisionEvidence,
    Outcome,
    PacketsEvidence,
    PacketSighting,
    TargetRecord,
    TimelineEvidence,
    Verdict,
)

ROWS_SHOWN = 60
"""Rows of one table or list of evidence."""
EVIDENCE_SHOWN = 2_000_000
"""Characters of evidence on the whole page; what comes after is in result.json only."""

MEANINGS = {
    Verdict.PASS: "true, and shown to be",
    Verdict.FAIL: "not true",
    Verdict.ADVISORY: "works, but will hurt",
    Verdict.INCONCLUSIVE: "could not be proven either way",
    Verdict.NOT_RUN: "was not looked at",
    Verdict.NOT_APPLICABLE: "does not belong to this way of connecting",
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
        """The case whose evidence is laid open: the first bad one; the others are alike more often than not."""
        return next((result for result in self.results if result.verdict.bad), None)


@dataclass
class TargetView:
    """One target as the page tells it."""

    record: TargetRecord
    ident: str
    results: list[CheckResult]
    groups: dict[str, CheckGroup] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for result in self.results:
            self.groups.setdefault(result.check, CheckGroup(result.check, result.title, [])).results.append(result)

    @cached_property
    def sentence(self) -> str:
        """The verdict in words."""
        return verdict_sentence(self.record, self.results)

    @cached_property
    def notes(self) -> list[str]:
        """What a reader must know besides the verdict in words."""
        return [note for note in self.record.notes if note.rstrip(".") not in self.sentence]

    @cached_property
    def way(self) -> Way:
        """The way that the packets took."""
        return way_of(self.record, self.results)

    @cached_property
    def plan(self) -> Topology | None:
        """What is drawn."""
        return topology(self.record, self.way, self.results)

    @cached_property
    def chapters(self) -> list[tuple[str, str, list[CheckGroup]]]:
        """Checks that were looked at: chapter, its title, its checks."""
        told = [
            self.groups[check]
            for check in sorted(self.groups, key=check_order)
            if self.groups[check].verdict not in (Verdict.NOT_RUN, Verdict.NOT_APPLICABLE)
        ]
        names = dict.fromkeys(chapter(group.id) for group in told)
        return [(name, CHAPTERS.get(name, ""), [g for g in told if chapter(g.id) == name]) for name in names]

    @cached_property
    def unlooked(self) -> list[tuple[Verdict, str, list[str]]]:
        """Checks that were not looked at: verdict, reason, ids."""
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
        """The topology, lying or standing."""
        return draw(self.plan, f"{self.ident}-{'s' if standing else 'l'}", standing=standing) if self.plan else Markup()

    def leaks(self, result: CheckResult, sighting: PacketSighting) -> bool:
        """Say whether a sighting is a probe of the agent on an uplink that it should not take."""
        return (
            result.check == PROOF
            and sighting.role == "probe"
            and sighting.direction == "out"
            and sighting.interface in self.way.uplinks
            and sighting.interface != self.way.intended
        )


@dataclass(slots=True)
class _Allowance:
    """How much evidence the page may still hold, in characters."""

    left: int = EVIDENCE_SHOWN

    def take(self, evidence: Any) -> bool:
        """Say whether a piece of evidence still fits, and count it as shown if so."""
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


def render(outcome: Outcome) -> str:
    """Render the whole page from an outcome."""
    environment, numbers = document.environment(), count(1)
    environment.filters.update(ids=ids_shortened, listed=listed, evidence_words=evidence_words, anchor=_anchor)
    targets = [
        TargetView(record, f"t{number}", [result for result in outcome.results if result.target == record.id])
        for number, record in enumerate(outcome.targets, 1)
    ]
    fixes, unproven, advisories = (
        causes(outcome, verdict) for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ADVISORY)
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
        drawing_of=lambda told: draw_timeline(told, f"timeline-{next(numbers)}"),
    )


def evidence_words(result: CheckResult) -> str:
    """Say in a few words which evidence a result holds."""
    words = []
    packets = [evidence for evidence in result.evidence if isinstance(evidence, PacketsEvidence)]
    if packets:
        sightings = sum(len(evidence.sightings) for evidence in packets)
        interfaces = len({watched.interface for evidence in packets for watched in evidence.watched})
        words.append(f"{counted(sightings, 'sighting')} on {counted(interfaces, 'watched interface')}")
    for kind, noun, plural in (
        (DecisionEvidence, "routing decision", None),
        (TimelineEvidence, "timeline", None),
        (CommandEvidence, "command", None),
    ):
        number = sum(isinstance(evidence, kind) for evidence in result.evidence)
        if number:
            words.append(counted(number, noun, plural))
    rest = sum(evidence.kind in ("far-end", "file", "counter", "state") for evidence in result.evidence)
    if rest:
        words.append(counted(rest, "record"))
    return ", ".join(words)


def _anchor(text: str) -> str:
    """Make a text fit to be part of an id."""
    return re.sub(r"[^A-Za-z0-9-]", lambda match: f"_{ord(match[0]):x}", text)


def _capture_file(path: str | None) -> str | None:
    """A capture's path when it is safe to link to: below the report directory, nothing but plain names."""
    return path if path and re.fullmatch(r"captures/[A-Za-z0-9_+,=@-][A-Za-z0-9_+.,=@-]*", path) else None


def _marks() -> dict[str, Markup]:
    """One symbol for each verdict, told apart by shape alone."""
    use = Markup('<svg class="mark" viewBox="0 0 16 16" aria-hidden="true"><use href="#mark-{}"/></svg>')
    return {verdict.value: use.format(verdict.value) for verdict in Verdict}


def _overall(outcome: Outcome) -> str:
    verdicts = {target.verdict for target in outcome.targets}
    return next((word for word in ("fail", "inconclusive", "pass") if word in verdicts), "inconclusive")


def _counts(outcome: Outcome) -> list[tuple[Verdict, int]]:
    counts = [(verdict, sum(result.verdict is verdict for result in outcome.results)) for verdict in MEANINGS]
    return [(verdict, number) for verdict, number in counts if number]


def _columns(targets: Iterable[TargetView]) -> list[tuple[str, list[str]]]:
    """Columns of the matrix: chapters with their checks, as far as they apply to any target."""
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


def _cause_links(lists: Iterable[tuple[str, list[Cause]]]) -> Callable[[CheckResult], str | None]:
    """Where the cause of a result is told: the id of a section of the page."""
    places = {
        id(result): f"{prefix}-{number}"
        for prefix, found in lists
        for number, cause in enumerate(found, 1)
        for result in (*cause.told, *cause.followers)
    }
    return lambda result: places.get(id(result))


def _seconds(outcome: Outcome) -> float | None:
    try:
        begun, ended = (datetime.fromisoformat(moment) for moment in (outcome.run.started, outcome.run.finished))
        return (ended - begun).total_seconds()
    except (ValueError, TypeError):
        return None
