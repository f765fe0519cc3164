"""The page: one self-contained HTML file that says where the packets left, what to fix, and what proves it.

What passed, and what does not apply, is folded to a line for each check; what failed is open, and in print all is.
The page loads nothing and runs nothing: the style sheet is in the file, and a content security policy (CSP level 3)
allows it by its hash and nothing else. Names from outside are escaped by Jinja2 and by `text.escape_unprintable`, at
the one place that every value passes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from itertools import count
from typing import Any

from jinja2 import Template
from markupsafe import Markup

from reports import document
from reports.diagnoses import ReportedCause, fixes_together, reported_causes
from reports.document import TEXT_SHOWN
from reports.target_view import MEANINGS, TargetView
from reports.text import counted, ids_shortened, waivers
from reports.timeline import MARKS, STEPS_DESCRIBED, timeline
from reports.timeline_drawing import draw_timeline, key
from reports.topology import KINDS
from viacheck.model.chapters import chapter, check_order
from viacheck.model.check_evidence import CommandEvidence, DecisionEvidence, PacketsEvidence, TimelineEvidence
from viacheck.model.result import CheckResult, RunResult
from viacheck.model.verdict import Verdict

ROWS_SHOWN = 60
"""Rows of one table or list of evidence."""
BAD_TARGETS_SHOWN = 12
"""Targets whose verdict sentence is under the headline of a page of several targets."""
EVIDENCE_SHOWN = 2_000_000
"""Characters of evidence on the whole page; further evidence is in result.json only."""


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


@cache
def page_template() -> Template:
    """Return the page's template, with what it includes loaded: the page of a long watch is made much later."""
    environment = document.environment()
    environment.filters.update(ids=ids_shortened, evidence_summary=evidence_summary, anchor=_anchor, moment=_moment)
    for included in ("head.html", "matrix.html"):
        environment.get_template(included)
    document.style()
    return environment.get_template("report.html")


def render(outcome: RunResult) -> str:
    """Render the whole page from an outcome."""
    template, numbers = page_template(), count(1)
    targets = [
        TargetView(record, f"t{number}", [result for result in outcome.results if result.target == record.id])
        for number, record in enumerate(outcome.targets, 1)
    ]
    fixes, unproven, advisories = (
        reported_causes(outcome, verdict) for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ADVISORY)
    )
    return template.render(
        run=outcome.run,
        started=_moment(outcome.run.started),
        seconds=_seconds(outcome),
        targets=targets,
        bad_targets=[
            target for verdict in ("fail", "inconclusive") for target in targets if target.record.verdict == verdict
        ],
        bad_shown=BAD_TARGETS_SHOWN,
        verdict=_overall(outcome),
        many=len(targets) > 1,
        fixes=fixes,
        together=list(fixes_together(outcome)),
        unproven=unproven,
        advisories=advisories,
        waived=waivers(outcome.results),
        cause_links=_cause_links((("fix", fixes), ("open", unproven), ("advisory", advisories))),
        columns=_columns(targets),
        counts=_counts(outcome),
        advisory_count=sum(result.verdict is Verdict.ADVISORY for result in outcome.results),
        meanings=MEANINGS,
        kinds=KINDS,
        **document.style(),
        rows=ROWS_SHOWN,
        capture_file=_capture_file,
        allowance=_Allowance(),
        mark=_marks().__getitem__,
        marks=MARKS,
        key=key,
        steps_shown=STEPS_DESCRIBED,
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
    rest = sum(evidence.kind in ("far-end", "file", "counter", "state", "coverage") for evidence in result.evidence)
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


def _moment(text: str) -> str:
    """Return a moment for people, with its zone: ``2026-11-27 06:07:57 UTC+01:00``; other text as it is."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    offset = moment.strftime("%z")
    zone = "" if not offset else " UTC" if moment.utcoffset() == timedelta() else f" UTC{offset[:3]}:{offset[3:5]}"
    return f"{moment:%Y-%m-%d %H:%M:%S}{zone}"


def _seconds(outcome: RunResult) -> float | None:
    try:
        begun, ended = (datetime.fromisoformat(moment) for moment in (outcome.run.started, outcome.run.finished))
        return (ended - begun).total_seconds()
    except (ValueError, TypeError):
        return None
