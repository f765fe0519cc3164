"""The way that the agent's packets took, read out of EGRESS-01's packet evidence, and the sentence that tells it.

The sentence is the first thing that a person reads, on the page and on the console. It says only what the evidence
holds: a way is proven, or another one was seen, or it could not be proven and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from reports.text import counted, ids_shortened, listed, reason, sentence
from viacheck.model.result import CheckResult, PacketsEvidence, TargetRecord, Verdict, WatchedInterface

PROOF = "EGRESS-01"
"""The check whose probes prove the way."""
KERNEL = "ROUTE-05"
"""The check that asks the kernel instead, the second-best witness."""


@dataclass(slots=True)
class Way:
    """Where the probes of EGRESS-01 were seen, over all its cases."""

    intended: str | None
    """The uplink that the intent names; None when the target has no usable intent."""
    uplinks: tuple[str, ...] = ()
    sent: int = 0
    answered: int = 0
    lost: int = 0
    """Frames that the captures lost."""
    seen: dict[str, int] = field(default_factory=dict)
    """Distinct probes seen by interface: leaving, on an uplink; in either direction elsewhere."""
    cases: dict[str, list[str]] = field(default_factory=dict)
    """Cases (protocols) seen by interface."""
    watched: dict[str, WatchedInterface] = field(default_factory=dict)
    """The least sound watch of each interface."""

    @property
    def here(self) -> int:
        """Distinct probes seen leaving by the intended uplink."""
        return self.seen.get(self.intended or "", 0)

    @property
    def elsewhere(self) -> dict[str, int]:
        """Distinct probes seen leaving by any other uplink, by uplink."""
        return {name: self.seen[name] for name in self.uplinks if name != self.intended and self.seen.get(name)}


def way_of(target: TargetRecord, results: Sequence[CheckResult]) -> Way:
    """Read the way out of a target's results."""
    uplinks = tuple(target.intent.get("uplinks", {}))
    way = Way(intended=target.intent.get("egress", {}).get("uplink"), uplinks=uplinks)
    probes: dict[str, set[tuple[str, int, int]]] = {}
    for result in results:
        if result.check != PROOF:
            continue
        for number, evidence in enumerate(result.evidence):
            if not isinstance(evidence, PacketsEvidence):
                continue
            way.sent += evidence.sent
            way.answered += evidence.answered
            for watched in evidence.watched:
                way.lost += watched.frames_lost
                before = way.watched.get(watched.interface)
                if before is None or (watched.frames_lost, not watched.fence_seen) > (
                    before.frames_lost,
                    not before.fence_seen,
                ):
                    way.watched[watched.interface] = watched
            for one in evidence.sightings:
                if one.role == "probe" and (one.direction == "out" or one.interface not in uplinks):
                    probes.setdefault(one.interface, set()).add((result.case or "", number, one.probe))
    way.seen = {name: len(found) for name, found in probes.items()}
    way.cases = {name: sorted({case for case, _, _ in found if case}) for name, found in probes.items()}
    return way


def verdict_sentence(target: TargetRecord, results: Sequence[CheckResult]) -> str:
    """Tell in words which way the agent's packets of one target took, and what else is wrong with it.

    ``results`` are those of this target. The text may hold names from outside: show it through `words.escape_unprintable`.
    """
    if not any(result.verdict.decided for result in results):
        # What stood in the way of every check says more than what one of them was lacking.
        whys = {reason(result) for result in results if result.verdict is Verdict.INCONCLUSIVE}
        if len(whys) <= 1:
            why = target.notes[0] if target.notes else reason(results[0]) if results else "no check was run"
            return f"Nothing was decided: {sentence(whys.pop() if whys else why)}"
    proof = [result for result in results if result.check == PROOF]
    told = _way_sentence(way_of(target, results), proof, results)
    others = [result for result in results if result.check != PROOF]
    failed = {result.check for result in others if result.verdict is Verdict.FAIL}
    unproven = {result.check for result in others if result.verdict is Verdict.INCONCLUSIVE}
    if failed and not any(result.verdict is Verdict.FAIL for result in proof):
        told += f" But {counted(len(failed), 'check fails', 'checks fail')}: {ids_shortened(failed)}."
    if unproven:
        told += f" {counted(len(unproven), 'check')} could not be decided: {ids_shortened(unproven)}."
    return told


def _way_sentence(way: Way, proof: Sequence[CheckResult], results: Sequence[CheckResult]) -> str:
    uplink = way.intended or "the intended uplink"
    verdicts = {result.verdict for result in proof}
    if Verdict.FAIL in verdicts:
        return _failed(way, uplink, next(result for result in proof if result.verdict is Verdict.FAIL))
    if Verdict.INCONCLUSIVE in verdicts:
        open_cases = [result for result in proof if result.verdict is Verdict.INCONCLUSIVE]
        cases = [result.case for result in open_cases if result.case]
        which = f" ({', '.join(cases)})" if cases and len(open_cases) < len(proof) else ""
        return (
            f"It could not be proven that the agent's packets{which} leave by {uplink}: "
            f"{sentence(reason(open_cases[0]))}"
        )
    if Verdict.PASS in verdicts:
        if not way.sent:
            return f"The agent's packets leave by {uplink}, as EGRESS-01 judged; its packets are not in this result."
        return (
            f"The agent's packets leave by {uplink}: proven, {way.here} of {way.sent} probes, "
            f"{_elsewhere(way)}, {counted(way.lost, 'frame')} lost."
        )
    why = sentence(reason(proof[0])) if proof else "EGRESS-01 is not among the results."
    kernel = next((result for result in results if result.check == KERNEL and result.verdict.decided), None)
    witness = f" By the kernel's own decision: {sentence(reason(kernel))}" if kernel else ""
    return f"Whether the agent's packets leave by {uplink} was not watched: {why}{witness}"


def _failed(way: Way, uplink: str, first: CheckResult) -> str:
    others = list(way.elsewhere)
    if not way.sent:
        return f"The agent's packets do not leave by {uplink}: {sentence(reason(first))}"
    if others and not way.here:
        return (
            f"The agent's packets leave by {listed(others)} instead of {uplink}: "
            f"{_elsewhere(way, way.sent)}, none on {uplink}."
        )
    if others and way.here == way.sent:
        return (
            f"The agent's packets leave by {uplink}, but by {listed(others)} as well: {way.here} of {way.sent} probes "
            f"seen on {uplink}, {_elsewhere(way)}."
        )
    if others:
        return (
            f"Not all of the agent's packets leave by {uplink}: {way.here} of {way.sent} probes seen there, "
            f"{_elsewhere(way)}."
        )
    if not way.here:
        where = listed(way.uplinks, "or") or uplink
        return f"The agent's packets leave by no uplink: none of {counted(way.sent, 'probe')} was seen on {where}."
    if way.here < way.sent:
        return f"Only {way.here} of {way.sent} probes were seen leaving by {uplink}, and none elsewhere."
    return f"The agent's packets do not leave by {uplink} as intended: {sentence(reason(first))}"


def _elsewhere(way: Way, of: int | None = None) -> str:
    total = f" of {of} probes seen" if of else ""
    parts = [
        f"{number}{total} on {name}" + (f" ({', '.join(way.cases[name])})" if not of and way.cases[name] else "")
        for name, number in way.elsewhere.items()
    ]
    return listed(parts) or "none elsewhere"
