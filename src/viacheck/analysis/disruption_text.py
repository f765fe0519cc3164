"""The text about a disruption: the sentence of a check, the line of each flow, the figures of a leak."""

from __future__ import annotations

from viacheck.model.address_family import Family
from viacheck.model.measurements import LATE, RECOVERED, DisruptionResult, FlowAge, FlowKind, FlowResult

_KIND_TEXT = {
    FlowKind.SEAMLESS: "no interruption",
    FlowKind.RECOVERS: "recovers",
    FlowKind.LEAKS_THEN_RECOVERS: "leaks, then recovers",
    FlowKind.KEEPS_WRONG_SOURCE: "keeps leaving with a wrong source",
    FlowKind.STAYS_SILENT: "does not recover",
    FlowKind.KEEPS_LEAKING: "keeps leaking",
}
"""For one flow. NEW_FLOWS_ONLY is an outcome of several flows."""


def disruption_text(result: DisruptionResult) -> str:
    """Return the outcome of a disruption in one sentence, with its figures."""
    if result.failure is not None:
        return result.failure
    parts = [_flows_text(result)]
    for things, noun, change in (
        (result.rules_lost, "rule", "missing"),
        (result.rules_added, "rule", "more than before"),
        (result.routes_lost, "route", "missing"),
        (result.stale_routes, "route", "still by the old router"),
    ):
        if things:
            parts.append(f"{_count(len(things), noun)} {change}")
    if result.failed_commands:
        parts.append("failed: " + ", ".join(sorted({evidence.command for evidence in result.failed_commands})))
    return "; ".join(parts)


def flow_label(flow: FlowAge, family: Family, of_source: str | None = None) -> str:
    """Return the name of a flow: ``new flows, IPv4``, ``new flows, IPv4 from 172.17.0.3``."""
    origin = f" from {of_source}" if of_source is not None else ""
    return f"{'new flows' if flow == 'new' else 'the old flow'}, IPv{family}{origin}"


def flow_text(flow_result: FlowResult) -> str:
    """Return the outcome of one flow in one line, with all of its figures."""
    label = flow_label(flow_result.flow, flow_result.family, flow_result.of_source)
    text = f"{label}: {_KIND_TEXT[flow_result.kind]}; {flow_result.sent} sent"
    for count, outcome in (
        (flow_result.lost, "lost"),
        (flow_result.late, f"held up for more than {LATE * 1000:g} ms"),
        (flow_result.wrong_source, "with a wrong source"),
        (flow_result.leaked, "leaked"),
    ):
        if count:
            text += f", {count} {outcome}"
    if flow_result.first_lost is not None:
        text += f"; first lost {_ms(flow_result.first_lost)} after the event began"
    if flow_result.leak is not None:
        interfaces, sources = ", ".join(flow_result.leak_interfaces), ", ".join(flow_result.leak_sources)
        text += f"; leaked {_span(flow_result.leak)}, by {interfaces}, with source {sources}"
    if flow_result.recovery is not None and flow_result.recovered_at is not None:
        text += (
            f"; recovered {_ms(flow_result.recovered_at)} after the event began, {_ms(flow_result.recovery)} after it "
            "ended"
        )
    return text


def figures(result: DisruptionResult) -> list[str]:
    """Return one line for each flow, those that were not judged at the end."""
    return [*map(flow_text, result.flow_results), *result.not_judged]


def leak_text(result: DisruptionResult) -> str:
    """Return how many packets leaked, by which interface, with which source and when; or ``nothing leaked``."""
    if result.leak is None:
        return "nothing leaked"
    text = (
        f"{_count(result.leaked, 'packet')} left by {', '.join(result.leak_interfaces)} with source "
        f"{', '.join(result.leak_sources)}, {_span(result.leak)}"
    )
    if any(flow_result.kind is FlowKind.KEEPS_LEAKING for flow_result in result.flow_results):
        text += f", and more were leaving when the test stopped ({_seconds(result.watched)})"
    return text


def _flows_text(result: DisruptionResult) -> str:
    kind, stopped = result.kind, f"when the test stopped ({_seconds(result.watched)})"
    if kind is FlowKind.RECOVERS:
        return f"recovers in {_ms(result.recovery or 0.0)}"
    if kind is FlowKind.LEAKS_THEN_RECOVERS:
        return f"leaks {_leak_figures(result)}, then recovers in {_ms(result.recovery or 0.0)}"
    if kind is FlowKind.KEEPS_LEAKING:
        return f"was still leaking by {', '.join(result.leak_interfaces)} {stopped}: {leak_text(result)}"
    if kind is FlowKind.NEW_FLOWS_ONLY:
        old = next(flow for flow in result.flow_results if flow.flow == "old" and flow.kind not in RECOVERED)
        return f"new flows recover; the old flow {_KIND_TEXT[old.kind]}"
    if kind is FlowKind.KEEPS_WRONG_SOURCE:
        return f"was still leaving with a wrong source {stopped}"
    if kind is FlowKind.STAYS_SILENT:
        return f"no traffic recovered in the {_seconds(result.watched)} watched"
    return _KIND_TEXT[kind]


def _leak_figures(result: DisruptionResult) -> str:
    """Return how many packets leaked, and over how long: ``12 packets over 110 ms``."""
    first, last = result.leak or (0.0, 0.0)
    return f"{_count(result.leaked, 'packet')} over {_ms(last - first)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"


def _span(span: tuple[float, float]) -> str:
    return f"from {_ms(span[0])} to {_ms(span[1])} after the event began"
