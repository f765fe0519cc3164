"""One target as the page shows it: its sentence, its drawing, and its checks by chapter, folded where all is right."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from markupsafe import Markup

from reports.egress_summary import (
    WATCH_CHECK,
    EgressSummary,
    VerdictSentence,
    egress_summary,
    verdict_sentence,
)
from reports.hops import Hop, hops
from reports.host_facts import Facts, facts
from reports.text import reason, worst
from reports.topology import Topology, topology
from reports.topology_drawing import draw_topology
from viacheck.model.chapters import CHAPTERS, chapter, check_order
from viacheck.model.check_evidence import PacketSighting
from viacheck.model.fix_order import EGRESS_CHECK
from viacheck.model.result import CheckResult, TargetRecord
from viacheck.model.verdict import Verdict

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
    def cases(self) -> list[list[CheckResult]]:
        """Its results; those of several cases that say the same are together."""
        alike: dict[tuple[object, ...], list[CheckResult]] = {}
        for result in self.results:
            cause = (result.diagnosis.code, result.diagnosis.cause) if result.diagnosis else None
            alike.setdefault((result.verdict, result.expected, result.observed, cause), []).append(result)
        return list(alike.values())

    @property
    def judged(self) -> bool:
        """Whether the check ran and applies."""
        return self.verdict not in (Verdict.NOT_RUN, Verdict.NOT_APPLICABLE)

    @property
    def is_consequence(self) -> bool:
        """Whether other checks report the cause of every bad case."""
        bad = [result for result in self.results if result.verdict.bad]
        return bool(bad) and all(result.diagnosis and result.diagnosis.reported_by for result in bad)


@dataclass(slots=True)
class ChapterView:
    """A chapter with its checks."""

    name: str
    title: str
    groups: list[CheckGroup]
    folded: bool
    """The chapter is one line: none of its checks was judged, or only checks of other chapters failed."""

    @property
    def counts(self) -> str:
        """The verdicts of its checks: ``3 not-run, 9 not-applicable``."""
        verdicts = [group.verdict for group in self.groups]
        return ", ".join(f"{verdicts.count(verdict)} {verdict.value}" for verdict in MEANINGS if verdict in verdicts)

    @property
    def verdict(self) -> Verdict:
        """The worst of its checks."""
        return worst(group.verdict for group in self.groups)

    @property
    def reason(self) -> str:
        """Why none of its checks was judged, if all with the worst verdict have one reason; else empty."""
        if any(group.judged for group in self.groups):
            return ""
        texts = {reason(result) for group in self.groups for result in group.results if result.verdict is self.verdict}
        return texts.pop() if len(texts) == 1 else ""


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
        # A watch follows the packets over hours: a drawing of one moment would show nothing of that.
        watch = any(result.check == WATCH_CHECK for result in self.results)
        return None if watch else topology(self.record, self.egress, self.results)

    @cached_property
    def chapters(self) -> list[ChapterView]:
        """The chapters in order, with all of their checks."""
        groups = [self.groups[check] for check in sorted(self.groups, key=check_order)]
        chapters: dict[str, list[CheckGroup]] = {}
        for group in groups:
            chapters.setdefault(chapter(group.id), []).append(group)
        passed = self.record.verdict == "pass"
        return [
            ChapterView(
                name,
                CHAPTERS.get(name, ""),
                members,
                folded=not any(group.verdict.decided if passed else group.verdict.bad for group in members),
            )
            for name, members in chapters.items()
        ]

    @cached_property
    def hops(self) -> list[Hop]:
        """The hops of the probes, each with its evidence."""
        return hops(self.topology, self.egress, self.results) if self.topology else []

    @cached_property
    def facts(self) -> list[Facts]:
        """Host facts from the snapshot."""
        return facts(self.record.snapshot, self.record.intent) if self.record.snapshot else []

    def drawing(self, standing: bool) -> Markup:
        """The topology as SVG, from left to right or, when ``standing``, from top to bottom."""
        if self.topology is None:
            return Markup()
        return draw_topology(self.topology, f"{self.ident}-{'s' if standing else 'l'}", standing=standing)

    def leaks(self, result: CheckResult, sighting: PacketSighting) -> bool:
        """Return whether a sighting is a probe of the agent on an uplink that it should not use."""
        return (
            result.check == EGRESS_CHECK
            and sighting.role == "probe"
            and sighting.direction == "out"
            and sighting.interface in self.egress.uplinks
            and sighting.interface != self.egress.intended
        )
