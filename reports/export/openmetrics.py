"""Metrics of a run, as OpenMetrics 1.0 text that is Prometheus' text format 0.0.4 as well.

node_exporter's textfile collector reads the older format, which has no types beside gauge that this needs. Every name
has its base unit. A reader computes the age of the result from ``viacheck_run_finished_timestamp_seconds``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from reports.text import escape_unprintable
from viacheck.model.check_evidence import PacketsEvidence, TimelineEvidence
from viacheck.model.result import CheckResult, RunResult

HELP = {
    "viacheck_run_finished_timestamp_seconds": "When the run ended, in seconds since 1970.",
    "viacheck_target_verdict": "1 for the verdict of each target.",
    "viacheck_check_verdict": "1 for the verdict of each check.",
    "viacheck_diagnosis": "1 for each diagnosis that is not waived.",
    "viacheck_probes_sent": "Probes that were sent.",
    "viacheck_probes_answered": "Probes that were answered.",
    "viacheck_probe_loss_ratio": "The share of probes without an answer, from 0 to 1.",
    "viacheck_round_trip_seconds": "Round trips of answered probes.",
    "viacheck_leaked_probes": "Probes that left by another uplink during an event.",
    "viacheck_leak_seconds": "Time from the first leaked probe to the last.",
}
Sample = tuple[str, dict[str, str], float]


def write(outcome: RunResult) -> str:
    """Write the metrics of a run."""
    families: dict[str, dict[str, str]] = {name: {} for name in HELP}
    for name, labels, value in _samples(outcome):
        # A series may stand there once: of two results with one name, which only a person's own checks can have, the
        # later counts.
        families[name][_labels(labels)] = f"{value:.9g}" if name != next(iter(HELP)) else f"{value:.3f}"
    lines = []
    for name, series in families.items():
        if series:
            lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge"]
            lines += [f"{name}{labels} {value}" for labels, value in series.items()]
    return "\n".join([*lines, "# EOF"]) + "\n"


def _samples(outcome: RunResult) -> Iterator[Sample]:
    yield "viacheck_run_finished_timestamp_seconds", {}, _timestamp(outcome.run.finished)
    for target in outcome.targets:
        yield "viacheck_target_verdict", {"target": target.id, "verdict": target.verdict}, 1
    for result in outcome.results:
        place = {"target": result.target, "check": result.check, "case": result.case or ""}
        waived = "true" if result.waiver is not None else "false"
        yield "viacheck_check_verdict", {**place, "verdict": result.verdict.value, "waived": waived}, 1
        if result.diagnosis is not None and result.waiver is None:
            yield "viacheck_diagnosis", {"target": result.target, "code": result.diagnosis.code}, 1
        yield from _packet_samples(place, result)
        yield from _leak_samples(place, result)


def _packet_samples(place: dict[str, str], result: CheckResult) -> Iterator[Sample]:
    for evidence in result.evidence:
        if not isinstance(evidence, PacketsEvidence):
            continue
        labels = {**place, "probe": evidence.title}
        yield "viacheck_probes_sent", labels, evidence.sent
        yield "viacheck_probes_answered", labels, evidence.answered
        if evidence.loss is not None:
            yield "viacheck_probe_loss_ratio", labels, evidence.loss.rate
        if evidence.latency is not None:
            yield "viacheck_round_trip_seconds", {**labels, "statistic": "median"}, evidence.latency.median
            yield "viacheck_round_trip_seconds", {**labels, "statistic": "p95"}, evidence.latency.p95


def _leak_samples(place: dict[str, str], result: CheckResult) -> Iterator[Sample]:
    for evidence in result.evidence:
        if not isinstance(evidence, TimelineEvidence):
            continue
        leaks = [event for event in evidence.events if event.mark == "leak"]
        times = [event.time for event in leaks]
        labels = {**place, "event": evidence.title}
        yield "viacheck_leaked_probes", labels, sum(event.probes for event in leaks)
        yield "viacheck_leak_seconds", labels, max(times) - min(times) if times else 0.0


def _timestamp(moment: str) -> float:
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        # An age that no alert accepts is better than none.
        return 0.0


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    """Escape a label's value; control characters, line feeds among them, are escaped for people already."""
    return escape_unprintable(value).replace("\\", "\\\\").replace('"', '\\"')
