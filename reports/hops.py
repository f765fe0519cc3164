"""The hops of the agent's packets, each with its evidence: the table under the drawing of the topology.

Numbers are those of EGRESS-01's captures. What decided at a hop is the observation of the check that judges the hop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reports.egress_summary import KERNEL_CHECK, EgressSummary
from reports.text import listed
from reports.topology import OTHER_WAY_IN, Topology, agreement, routing_decisions
from viacheck.model.check_evidence import FarEndEvidence
from viacheck.model.fix_order import EGRESS_CHECK
from viacheck.model.result import CheckResult
from viacheck.model.verdict import Verdict

DECIDING_CHECKS: Mapping[str, str] = {"HOST-04": "forwarding", "NAT-02": "source NAT"}
"""The checks of hops between the routing decision and the uplink, in the order of the path."""
SOURCE_CHECK = "EGRESS-02"
ANSWER_CHECK = "EGRESS-03"


@dataclass(frozen=True, slots=True)
class Hop:
    """One row: where, what was decided or seen there, and how many probes and answers."""

    name: str
    evidence: str
    probes: str = ""
    answers: str = ""
    check: str | None = None
    """The check that judges the hop, and holds the evidence in full."""
    departs: bool = False
    """The packets leave the intended path here."""


def hops(plan: Topology, egress: EgressSummary, results: Sequence[CheckResult]) -> list[Hop]:
    """Return the hops from the agent to the probe target; none if no probe was sent.

    ``results`` are those of the target.
    """
    return list(_hops(plan, egress, results)) if egress.sent else []


def _hops(plan: Topology, egress: EgressSummary, results: Sequence[CheckResult]) -> Iterator[Hop]:
    judged = {result.check: result for result in results if result.verdict.decided or result.verdict.bad}
    agent, target = plan.nodes[0], next(node for node in plan.nodes if node.role == "probe target")
    answers = _known(ANSWER_CHECK, judged)
    answered = f"{egress.answered} of {egress.sent}"
    yield Hop(f"agent {agent.name}", ", ".join(agent.lines[:-1]), f"{egress.sent} sent", answered, answers)
    for node in plan.nodes:
        if node.role in ("bridge", OTHER_WAY_IN):
            what = "bridge" if node.role == "bridge" else "interface"
            yield Hop(f"{what} {node.name}", *_seen(node.name, egress), _known(EGRESS_CHECK, judged))
    departs = KERNEL_CHECK in judged and judged[KERNEL_CHECK].verdict is Verdict.FAIL
    for decision in routing_decisions(results):
        rule = next((f"rule {step.rule}; " for step in decision.steps if step.chosen), "")
        evidence = f"{rule}{decision.kernel or decision.model} ({agreement(decision)})"
        yield Hop("routing", evidence, check=KERNEL_CHECK, departs=departs)
    for check, name in DECIDING_CHECKS.items():
        if check in judged:
            yield Hop(name, judged[check].observed, check=check, departs=judged[check].verdict is Verdict.FAIL)
    for name in egress.uplinks:
        leaks = name in egress.elsewhere
        label = f"uplink {name}" + (", intended" if name == egress.intended else "")
        yield Hop(label, *_seen(name, egress), _known(EGRESS_CHECK, judged), leaks and not departs)
    yield from _far_end(results)
    yield Hop(f"probe target {target.name}", ", ".join(target.lines), check=answers)


def _known(check: str, judged: Mapping[str, CheckResult]) -> str | None:
    return check if check in judged else None


def _seen(interface: str, egress: EgressSummary) -> tuple[str, str, str]:
    """Return the evidence, the probes and the answers of an interface."""
    if interface not in egress.watched:
        return "not watched", "", ""
    sources = egress.sources.get(interface, [])
    evidence = [f"source {listed(sources)}"] if sources else []
    evidence.append("capture sound" if egress.sound(interface) else "capture unsound: absence proves nothing")
    return (
        ", ".join(evidence),
        f"{egress.seen.get(interface, 0)} of {egress.sent}",
        str(egress.answers.get(interface, 0)),
    )


def _far_end(results: Sequence[CheckResult]) -> Iterator[Hop]:
    """Yield what each gateway of a lab received."""
    received: dict[str, list[str]] = {}
    for result in results:
        for evidence in result.evidence if result.check == SOURCE_CHECK else ():
            for record in evidence.records if isinstance(evidence, FarEndEvidence) else ():
                received.setdefault(record.gateway, []).append(record.source)
    for gateway, sources in received.items():
        yield Hop(
            gateway, f"received source {listed(sorted(set(sources)))}", f"{len(sources)} received", check=SOURCE_CHECK
        )
