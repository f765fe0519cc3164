"""Coverage: which rules, routes and filter rules on the agent's paths the probes of a run meet, as tests cover code.

The traffic classes say which of them some packet of the agent reaches; what no probe meets is listed with a class that
would. The idea is that of Automatic Test Packet Generation (Zeng et al., CoNEXT 2012). It is the model that says what a
packet meets; where the kernel counts the packets of a rule, its counter must have moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from viacheck.analysis.classes import ClassPartition, ClassVerdict
from viacheck.analysis.traced_path import Path, Traffic
from viacheck.model.filter_chains import PacketFilter
from viacheck.model.path import CoverageEvidence, HopStage, Place, UncoveredDecision


@dataclass(frozen=True, slots=True)
class _DecidedBy:
    """A rule, route or policy that decides at some stage of a path."""

    place: Place
    stage: HopStage
    what: str


def coverage(
    partition: ClassPartition, probes: Iterable[Traffic], after: PacketFilter | None = None
) -> CoverageEvidence:
    """Return what the probes meet of all that decides on the paths of the agent's packets beyond its own networks.

    Args:
        partition: the classes of the agent's traffic.
        probes: one packet for each kind of probe that was sent.
        after: the packet filter once the probes were sent; None where it was not read again.
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
    before = partition.resolved.snapshot.host.packet_filter
    moved = _counters_moved(before, after) if after is not None else {}
    counted = {decided: moved[decided.what] for decided in met & set(reached) if decided.what in moved}
    return CoverageEvidence(
        covered=len(reached) - len(uncovered), of=len(reached), uncovered=uncovered, counted=len(counted),
        confirmed=sum(counted.values()),
        unmoved=sorted(decided.what for decided, has_moved in counted.items() if not has_moved),
    )  # fmt: skip


def _counters_moved(before: PacketFilter, after: PacketFilter) -> dict[str, bool]:
    """Return for the text of each rule that the kernel counts packets of whether its counter moved.

    A rule whose text is there more than once has moved if one of them has; a counter that was reset says nothing.
    """
    later = dict(_counters(after))
    moved: dict[str, bool] = {}
    for place, (text, packets) in _counters(before):
        if place in later and later[place][1] >= packets:
            moved[text] = moved.get(text, False) or later[place][1] > packets
    return moved


def _counters(packet_filter: PacketFilter) -> Iterator[tuple[tuple[object, ...], tuple[str, int]]]:
    for chain in packet_filter.chains:
        for position, rule in enumerate(chain.rules):
            if rule.packets is not None:
                # The text of a rule of nftables holds its counter, so it is no place.
                which = rule.handle if rule.handle is not None else position
                yield (chain.backend, chain.family, chain.table, chain.name, which), (rule.text, rule.packets)


def _on(path: Path) -> Iterator[_DecidedBy]:
    for hop in path.out:
        # A look-up is decided by a rule and a route.
        for what in (hop.decides or "").split("; "):
            if what:
                yield _DecidedBy(hop.place, hop.stage, what)
