"""Where the agent's packets left, read from EGRESS-01's packet evidence, and the verdict sentence made of it.

The sentence is the first text that a person reads, on the page and on the console. It says only what the evidence
holds: the packets use the intended uplink, they use another uplink, or neither was proven and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from reports.text import counted, ids_shortened, listed, reason, sentence
from viacheck.model.chapters import chapter
from viacheck.model.check_evidence import PacketsEvidence, WatchedInterface
from viacheck.model.fix_order import EGRESS_CHECK
from viacheck.model.result import CheckResult, TargetRecord
from viacheck.model.verdict import Verdict

WATCH_CHECK = "WATCH-01"
"""The check of ``viacheck watch``: its result without a case sums up all departures."""
KERNEL_CHECK = "ROUTE-05"
"""The check that asks the kernel: the second witness where no packets were sent."""
REBOOT_CHECKS = ("PERSIST-01", "PERSIST-02", "PIPEWORK-05", "FLAP-08")
"""Checks whose failure means that a reboot undoes what works now."""


@dataclass(slots=True)
class EgressSummary:
    """Where the probes of EGRESS-01 were seen, over all its cases."""

    intended: str | None
    """The uplink that the intent names; None when the target has no usable intent."""
    uplinks: tuple[str, ...] = ()
    sent: int = 0
    answered: int = 0
    lost: int = 0
    """Frames that the captures lost."""
    seen: dict[str, int] = field(default_factory=dict)
    """Distinct probes seen by interface: leaving, on an uplink; in either direction on other interfaces."""
    left: dict[str, int] = field(default_factory=dict)
    """Distinct probes seen leaving by interface, also by one that the site file does not name."""
    answers: dict[str, int] = field(default_factory=dict)
    """Distinct answers seen by interface: arriving, on an uplink; in either direction on other interfaces."""
    sources: dict[str, list[str]] = field(default_factory=dict)
    """Source addresses of the probes seen by interface."""
    cases: dict[str, list[str]] = field(default_factory=dict)
    """Cases (protocols) seen by interface."""
    watched: dict[str, WatchedInterface] = field(default_factory=dict)
    """The least sound watch of each interface."""

    @property
    def on_intended(self) -> int:
        """Distinct probes seen leaving by the intended uplink."""
        return self.seen.get(self.intended or "", 0)

    def named(self, interface: str) -> str:
        """Return an interface for prose: one that the site file does not name is unknown to the reader."""
        return interface if interface in self.uplinks else f"{interface} (not named in the site file)"

    @property
    def elsewhere(self) -> dict[str, int]:
        """Distinct probes seen leaving by any other interface, those of the site file first."""
        names = dict.fromkeys([*self.uplinks, *self.left])
        return {name: self.left[name] for name in names if name != self.intended and self.left.get(name)}

    @property
    def answers_differ(self) -> bool:
        """Whether answers were seen that did not take the probes' path back: by another uplink, or not to the agent."""
        arrived = {name: self.answers[name] for name in self.uplinks if self.answers.get(name)}
        left = {name for name in self.uplinks if self.seen.get(name)}
        return bool(arrived) and (not arrived.keys() <= left or sum(arrived.values()) > self.answered)

    def sound(self, interface: str) -> bool:
        """Return whether the capture on an interface proves that no other packet left there."""
        watched = self.watched.get(interface)
        return watched is not None and watched.fence_seen and not watched.frames_lost


@dataclass(frozen=True, slots=True)
class VerdictSentence:
    """The verdict on one target as prose, and the one reason that it stands for when nothing was decided."""

    text: str
    undecided_because: str | None = None
    """Why nothing was decided: a note or the reason of every check; None when something was decided."""

    def __str__(self) -> str:
        return self.text


def egress_summary(target: TargetRecord, results: Sequence[CheckResult]) -> EgressSummary:
    """Read where the probes left from a target's results."""
    uplinks = tuple(target.intent.get("uplinks", {}))
    summary = EgressSummary(intended=target.intent.get("egress", {}).get("uplink"), uplinks=uplinks)
    probes: dict[str, set[tuple[str, int, int]]] = {}
    departed: dict[str, set[tuple[str, int, int]]] = {}
    answers: dict[str, set[tuple[str, int, int]]] = {}
    sources: dict[str, set[str]] = {}
    for result in results:
        if result.check != EGRESS_CHECK:
            continue
        for number, evidence in enumerate(result.evidence):
            if not isinstance(evidence, PacketsEvidence):
                continue
            summary.sent += evidence.sent
            summary.answered += evidence.answered
            for watched in evidence.watched:
                summary.lost += watched.frames_lost
                known = summary.watched.get(watched.interface)
                if known is None or _unsoundness(watched) > _unsoundness(known):
                    summary.watched[watched.interface] = watched
            for sighting in evidence.sightings:
                name = sighting.path_interface
                if sighting.same_frame_on is not None:
                    continue
                probe = result.case or "", number, sighting.probe
                if sighting.role == "probe":
                    if sighting.direction == "out":
                        departed.setdefault(name, set()).add(probe)
                    if sighting.direction == "out" or name not in uplinks:
                        probes.setdefault(name, set()).add(probe)
                        sources.setdefault(name, set()).add(sighting.source)
                elif sighting.role == "answer" and (sighting.direction == "in" or name not in uplinks):
                    answers.setdefault(name, set()).add(probe)
    summary.seen = {name: len(seen) for name, seen in probes.items()}
    summary.left = {name: len(seen) for name, seen in departed.items()}
    summary.answers = {name: len(seen) for name, seen in answers.items()}
    summary.sources = {name: sorted(seen) for name, seen in sources.items()}
    summary.cases = {name: sorted({case for case, _, _ in seen if case}) for name, seen in probes.items()}
    return summary


def _unsoundness(watched: WatchedInterface) -> tuple[int, bool]:
    return watched.frames_lost, not watched.fence_seen


def verdict_sentence(target: TargetRecord, results: Sequence[CheckResult]) -> VerdictSentence:
    """Say which uplink the agent's packets of one target use, and what else is wrong with the target.

    ``results`` are those of this target. The text may hold names from outside: show it through
    :func:`reports.text.escape_unprintable`.
    """
    verdict = _on_results(target, results)
    alerts = "".join(f" {sentence(alert[:1].upper() + alert[1:])}" for alert in target.alerts)
    return replace(verdict, text=verdict.text + alerts)


def _on_results(target: TargetRecord, results: Sequence[CheckResult]) -> VerdictSentence:
    if not any(result.verdict.decided for result in results):
        # An obstacle to every check says more than what a single check was missing.
        obstacles = {reason(result) for result in results if result.verdict is Verdict.INCONCLUSIVE}
        if len(obstacles) <= 1:
            why = target.notes[0] if target.notes else reason(results[0]) if results else "no check was run"
            why = obstacles.pop() if obstacles else why
            return VerdictSentence(f"Nothing was decided: {sentence(why)}", why)
    watched = next((result for result in results if result.check == WATCH_CHECK and result.case is None), None)
    if watched is not None:
        return VerdictSentence(sentence(watched.observed[:1].upper() + watched.observed[1:]))
    egress = [result for result in results if result.check == EGRESS_CHECK]
    others = [result for result in results if result.check != EGRESS_CHECK]
    failed = {result.check for result in others if result.counted is Verdict.FAIL}
    undecided = {result.check for result in others if result.counted is Verdict.INCONCLUSIVE}
    text = _egress_sentence(egress_summary(target, results), egress, results, failed)
    advisories = {result.check for result in results if result.verdict is Verdict.ADVISORY}
    if target.verdict == "fail" and not any(result.verdict is Verdict.FAIL for result in results):
        text += f" Advisories count as failures (--strict): {ids_shortened(advisories)}."
    if undecided:
        text += f" {counted(len(undecided), 'check')} could not be decided: {ids_shortened(undecided)}."
    return VerdictSentence(text)


def _egress_sentence(
    summary: EgressSummary, egress: Sequence[CheckResult], results: Sequence[CheckResult], failed: set[str]
) -> str:
    uplink = summary.intended or "the intended uplink"
    verdicts = {result.verdict for result in egress}
    if Verdict.FAIL in verdicts:
        return _failed(summary, uplink, next(result for result in egress if result.verdict is Verdict.FAIL))
    if Verdict.PASS in verdicts and Verdict.INCONCLUSIVE not in verdicts:
        return _passed(summary, uplink, failed)
    also = f" {counted(len(failed), 'check fails', 'checks fail')}: {ids_shortened(failed)}." if failed else ""
    if Verdict.INCONCLUSIVE in verdicts:
        undecided = [result for result in egress if result.verdict is Verdict.INCONCLUSIVE]
        cases = [result.case for result in undecided if result.case]
        which = f" ({', '.join(cases)})" if cases and len(undecided) < len(egress) else ""
        return f"Not proven that the agent's packets{which} leave by {uplink}: {sentence(reason(undecided[0]))}{also}"
    why = reason(egress[0]).rstrip(".") if egress else f"{EGRESS_CHECK} not selected"
    kernel = next((result for result in results if result.check == KERNEL_CHECK and result.verdict.decided), None)
    witness = f" The routing decision: {sentence(reason(kernel))}" if kernel else ""
    return f"Egress by {uplink} was not tested ({why}).{witness}{also}"


def _passed(summary: EgressSummary, uplink: str, failed: set[str]) -> str:
    proof = (
        f"proven by {summary.on_intended} of {summary.sent} probes, {_elsewhere(summary)}, "
        f"{counted(summary.lost, 'frame')} lost"
        if summary.sent
        else "this result holds no packets"
    )
    if not failed:
        return f"The agent's packets leave by {uplink}: {proof}."
    lasting = sorted(failed.intersection(REBOOT_CHECKS))
    events = sorted(check for check in failed.difference(lasting) if chapter(check) == "FLAP")
    other = sorted(failed.difference(lasting, events))
    buts = [
        *([f"will not survive a reboot ({ids_shortened(lasting)})"] if lasting else []),
        *([f"does not survive every event ({ids_shortened(events)})"] if events else []),
        *([f"{counted(len(other), 'check fails', 'checks fail')} ({ids_shortened(other)})"] if other else []),
    ]
    return f"Uses {uplink} now ({proof}), but {listed(buts)}."


def _failed(summary: EgressSummary, uplink: str, first: CheckResult) -> str:
    others = list(map(summary.named, summary.elsewhere))
    if not summary.sent:
        return f"The agent's packets do not leave by {uplink}: {sentence(reason(first))}"
    if others and not summary.on_intended:
        return (
            f"The agent's packets leave by {listed(others)} instead of {uplink}: "
            f"{_elsewhere(summary, summary.sent)}, none on {uplink}."
        )
    if others and summary.on_intended == summary.sent:
        return (
            f"The agent's packets leave by {uplink}, but by {listed(others)} as well: "
            f"{summary.on_intended} of {summary.sent} probes seen on {uplink}, {_elsewhere(summary)}."
        )
    if others:
        return (
            f"Not all of the agent's packets leave by {uplink}: {summary.on_intended} of {summary.sent} probes seen "
            f"there, {_elsewhere(summary)}."
        )
    if not summary.on_intended:
        interfaces = listed(summary.uplinks, "or") or uplink
        probes = counted(summary.sent, "probe")
        return f"The agent's packets leave by no uplink: none of {probes} was seen on {interfaces}."
    if summary.on_intended < summary.sent:
        return f"Only {summary.on_intended} of {summary.sent} probes were seen leaving by {uplink}, and none elsewhere."
    return f"The agent's packets do not leave by {uplink} as intended: {sentence(reason(first))}"


def _elsewhere(summary: EgressSummary, of: int | None = None) -> str:
    total = f" of {of} probes seen" if of else ""
    parts = [
        f"{number}{total} on {name}"
        + (f" ({', '.join(summary.cases[name])})" if not of and summary.cases[name] else "")
        for name, number in summary.elsewhere.items()
    ]
    return listed(parts) or "none elsewhere"
