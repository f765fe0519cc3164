"""Coverage: which rules, routes and filter rules on the agent's paths the probes of a run meet, as tests cover code.

The traffic classes say which of them some packet of the agent reaches; what no probe meets is listed with a class that
would. The idea is that of Automatic Test Packet Generation (Zeng et al., CoNEXT 2012). It is the model that says what a
packet meets; the captures prove the interface alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from viacheck.analysis.classes import ClassPartition, ClassVerdict
from viacheck.analysis.traced_path import Path, Traffic
from viacheck.model.path import CoverageEvidence, HopStage, Place, UncoveredDecision


@dataclass(frozen=True, slots=True)
class _DecidedBy:
    """A rule, route or policy that decides at some stage of a path."""

    place: Place
    stage: HopStage
    what: str


def coverage(partition: ClassPartition, probes: Iterable[Traffic]) -> CoverageEvidence:
    """Return what the probes meet of all that decides on the paths of the agent's packets beyond its own networks.

    Args:
        partition: the classes of the agent's traffic.
        probes: one packet for each kind of probe that was sent.
    """
    reached: dict[_DecidedBy, str] = {}
    for traffic_class in partition.classes:
        if traffic_class.verdict is not ClassVerdict.LOCAL:
            for decided in _on(traffic_class.path):
                reached.setdefault(decided, traffic_class.text)
    met = {decided for traffic in probes for decided in _on(partition.tracer.trace(traffic))}
    uncovered = [
        UncoveredDecision(place=decided.place, stage=decided.stage, what=decided.what, reached_by=text)
        for decided, text in reached.items()
        if decided not in met
    ]
    return CoverageEvidence(covered=len(reached) - len(uncovered), of=len(reached), uncovered=uncovered)


def _on(path: Path) -> Iterator[_DecidedBy]:
    for hop in path.out:
        # A look-up is decided by a rule and a route.
        for what in (hop.decides or "").split("; "):
            if what:
                yield _DecidedBy(hop.place, hop.stage, what)
