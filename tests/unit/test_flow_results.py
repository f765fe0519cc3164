"""A stream of probes is classified correctly and judged by the intent; the figures count every probe."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viacheck.analysis.disruption_text import disruption_text, flow_text, leak_text
from viacheck.disruption.flow_results import SETTLED, flow_result, probe_result, thinned
from viacheck.model.check_evidence import CommandEvidence, TimelineEvidence
from viacheck.model.egress_changes import EgressChanges, EgressState
from viacheck.model.intent import Intent
from viacheck.model.intent_file import parse_intent
from viacheck.model.measurements import (
    Departure,
    DisruptionResult,
    FlowAge,
    FlowKind,
    ProbeOutcome,
    ProbeResult,
)
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Nexthop, Route

PACE = 0.01
SOURCES = frozenset({"10.10.50.9"})
RULE = Rule(family=4, priority=1000, source="172.17.0.0/16", table=200)
ROUTE = Route(
    family=4, table=200, destination="0.0.0.0/0", nexthops=(Nexthop(gateway="10.10.50.1", interface="wlan0"),)
)
BEFORE = EgressState(time=0.0, moment="before", rules=(RULE,), routes=(ROUTE,))
PROBE_OUTCOMES: dict[str, ProbeOutcome] = {
    "r": "as-intended",
    "h": "late",
    ".": "lost",
    "L": "leaked",
    "w": "wrong-source",
}


def stream(letters: str, flow: FlowAge = "new") -> list[ProbeResult]:
    """Return probe results, one for each letter, the first three from before an event that begins at 0."""
    probe_results = []
    for place, letter in enumerate(letters):
        by = {"L": "eth0", ".": None}.get(letter, "wlan0")
        source = {"L": "10.10.40.9", ".": None, "w": "10.10.50.8"}.get(letter, "10.10.50.9")
        probe_results.append(ProbeResult(round((place - 3) * PACE, 3), flow, 4, PROBE_OUTCOMES[letter], by, source))
    return probe_results


def disruption_result(
    *streams: Sequence[ProbeResult], ended: float = 0.05, after: EgressState = BEFORE
) -> DisruptionResult:
    """Return a disruption with these flows."""
    return DisruptionResult(
        event="link-flap", title="wlan0 is set down and up again", ended=ended, watched=1.0,
        flow_results=tuple(flow_result(results, ended) for results in streams), states=(BEFORE, after),
        timeline=TimelineEvidence(events=[]), unproven={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("letters", "kind"),
    [
        ("rrr" + "rrrrrrrrr", FlowKind.SEAMLESS),
        ("rrr" + "...." + "rrrrr", FlowKind.RECOVERS),
        ("rrr" + "hhh" + "rrrrr", FlowKind.RECOVERS),
        ("rrr" + "LLLL.." + "rrrrr", FlowKind.LEAKS_THEN_RECOVERS),
        ("rrr" + "ww" + "rrrrr", FlowKind.RECOVERS),
        ("rrr" + "....LLLLLL", FlowKind.KEEPS_LEAKING),
        ("rrr" + "LLLL......", FlowKind.STAYS_SILENT),
        ("rrr" + "......wwwww", FlowKind.KEEPS_WRONG_SOURCE),
        ("rrr" + "....rrrr", FlowKind.STAYS_SILENT),
    ],
)
def test_a_flow_is_classified(letters: str, kind: FlowKind) -> None:
    assert flow_result(stream(letters), 0.05).kind is kind


def test_recovery_is_counted_from_the_events_end_and_the_figures_are_exact() -> None:
    # Sent at 0 … 30 ms: leaked; at 40 … 60 ms: lost; from 70 ms on right; the event ended at 50 ms.
    result = flow_result(stream("rrr" + "LLLL" + "..." + "rrrrrr"), 0.05)
    assert (result.sent, result.leaked, result.lost) == (16, 4, 3)
    assert (result.leak, result.leak_interfaces, result.leak_sources) == ((0.0, 0.03), ("eth0",), ("10.10.40.9",))
    assert (result.first_lost, result.recovered_at) == (0.04, 0.07)
    assert result.recovery == pytest.approx(0.02)
    assert (
        disruption_text(disruption_result(stream("rrr" + "LLLL" + "..." + "rrrrrr")))
        == "leaks 4 packets over 30 ms, then recovers in 20 ms"
    )


def test_in_a_lab_a_recovery_takes_no_longer_than_its_probes() -> None:
    late = [replace(result, time=result.time * 100) for result in stream("rrr" + "......" + "rrrrr")]
    assert flow_result(late, 0.0).recovery == pytest.approx(6.0)
    assert flow_result(late, 0.0, PACE).recovery == pytest.approx(6 * PACE)
    at_pace = stream("rrr" + "......" + "rrrrr")
    assert flow_result(at_pace, 0.005, PACE).recovery == flow_result(at_pace, 0.005).recovery


def test_what_was_recovered_at_before_the_event_had_ended_took_no_time() -> None:
    assert flow_result(stream("rrr" + ".." + "rrrrrrrrr"), 0.05).recovery == 0.0


def test_a_recovery_of_new_flows_only_is_reported() -> None:
    result = disruption_result(stream("rrr..rrrrrr"), stream("rrr..wwwwww", "old"))
    assert result.kind is FlowKind.NEW_FLOWS_ONLY
    assert disruption_text(result) == "new flows recover; the old flow keeps leaving with a wrong source"
    assert not result.survived(5.0)


def test_a_recovery_of_the_old_flow_only_is_no_recovery() -> None:
    assert disruption_result(stream("rrr......"), stream("rrr..rrrrr", "old")).kind is FlowKind.STAYS_SILENT


@pytest.mark.parametrize(("within", "survived"), [(5.0, True), (0.03, True), (0.01, False)])
def test_survived_means_recovered_in_time(within: float, survived: bool) -> None:
    assert disruption_result(stream("rrr" + "......." + "rrrrr")).survived(within) is survived


@pytest.mark.parametrize(("metric", "lost"), [(100, 0), (4278198273, 1)])
def test_a_route_may_have_another_metric_in_the_same_place(metric: int, lost: int) -> None:
    """NetworkManager's routes have 100 or 101, by the order in which a boot activates its devices."""
    backstop = Route(family=4, table=200, destination="0.0.0.0/0", type="unreachable", metric=4278198272)
    before, after = (replace(BEFORE, routes=(replace(ROUTE, metric=it), backstop)) for it in (101, metric))
    assert len(EgressChanges(states=(before, after)).routes_lost) == lost


@pytest.mark.parametrize(
    ("after", "text"),
    [
        (dataclasses.replace(BEFORE, rules=(RULE, RULE, RULE)), "2 rules more than before"),
        (dataclasses.replace(BEFORE, rules=()), "1 rule missing"),
        (dataclasses.replace(BEFORE, routes=()), "1 route missing"),
    ],
)
def test_survived_means_that_rules_and_routes_are_as_before(after: EgressState, text: str) -> None:
    result = disruption_result(stream("rrr..rrrrr"), after=after)
    assert not result.survived(5.0)
    assert disruption_text(result) == f"recovers in 0 ms; {text}"


def _cycles(*counts: int) -> DisruptionResult:
    """Return an event with so many cycles, each of which leaves a number of rules."""
    cycles = [EgressState(time=0.0, moment="ifup wlan0", rules=(RULE,) * count, routes=(ROUTE,)) for count in counts]
    return dataclasses.replace(disruption_result(stream("rrr..rrrrr")), states=(BEFORE, *cycles, cycles[-1]))


def test_rules_that_grow_from_cycle_to_cycle_accumulate() -> None:
    assert len(_cycles(2, 3, 4).rules_added) == 3
    assert not _cycles(2, 3, 4).survived(5.0)


def test_rules_that_differ_once_do_not_accumulate() -> None:
    assert _cycles(2, 2, 2).survived(5.0)


def test_a_reboot_may_change_a_priority_but_must_keep_the_rule() -> None:
    local = dataclasses.replace(RULE, priority=990, table=254, suppress_prefixlength=0)
    backstop = Route(family=4, table=200, destination="0.0.0.0/0", type="unreachable", metric=4278198272)
    typed = dataclasses.replace(BEFORE, rules=(local, RULE), routes=(ROUTE, backstop))
    moved = dataclasses.replace(BEFORE, rules=(dataclasses.replace(RULE, priority=32765),))
    for after, survived in ((moved, True), (dataclasses.replace(moved, rules=()), False)):
        reboot = dataclasses.replace(
            disruption_result(stream("rrrrrrrr")), event="reboot", states=(typed, after), only_table=200
        )
        assert reboot.survived(5.0) is survived


def test_an_event_whose_command_fails_is_not_survived() -> None:
    refused = CommandEvidence(command="ifup wlan0", exit_code=1, stderr="RTNETLINK answers: File exists")
    result = dataclasses.replace(disruption_result(stream("rrr..rrrrr")), failed_commands=(refused,))
    assert not result.survived(5.0)
    assert disruption_text(result) == "recovers in 0 ms; failed: ifup wlan0"


def test_a_leak_that_does_not_end_is_reported_until_the_test_stopped() -> None:
    text = leak_text(disruption_result(stream("rrr" + "L" * 10), stream("rrr" + "L" * 10, "old")))
    assert text == (
        "20 packets left by eth0 with source 10.10.40.9, from 0 ms to 90 ms after the event began, and more were "
        "leaving when the test stopped (1.0 s)"
    )
    assert leak_text(disruption_result(stream("rrr....."))) == "nothing leaked"


@pytest.mark.parametrize(
    ("departures", "outcome"),
    [
        ([], "lost"),
        ([Departure(0.001, "wlan0", "10.10.50.9")], "as-intended"),
        ([Departure(0.3, "wlan0", "10.10.50.9")], "late"),
        ([Departure(0.001, "wlan0", "10.10.50.8")], "wrong-source"),
        ([Departure(0.001, "wlan0", "10.10.50.9"), Departure(0.002, "eth0", "10.10.40.9")], "leaked"),
    ],
)
def test_a_probe_is_classified(departures: list[Departure], outcome: ProbeOutcome) -> None:
    assert probe_result(0.0, "new", 4, departures, "wlan0", SOURCES).outcome == outcome


def _intent(**egress: object) -> Intent:
    return parse_intent(
        {
            "schema": 1, "site": {"name": "x"}, "agent": {"netns": "/run/netns/agent", "attach": {"mode": "nat"}},
            "uplinks": {"wlan0": {"gateway": "10.10.50.1"}}, "egress": {"uplink": "wlan0", **egress},
        },
        source="test",
    )  # fmt: skip


def test_the_intent_names_the_events_to_survive() -> None:
    assert _intent().egress.must_survive("carrier-loss")
    assert _intent(survives=["link-flap"]).egress.must_survive("link-flap")
    assert not _intent(survives=["link-flap"]).egress.must_survive("carrier-loss")
    assert not _intent(survives=[]).egress.must_survive("link-flap")


@given(st.text("rh.Lw", min_size=1, max_size=400), st.integers(20, 120))
def test_thinning_keeps_every_turn_and_no_more_than_it_must(letters: str, most: int) -> None:
    probe_results = stream(letters)
    thin = thinned(probe_results, most)
    kept = [result for result, _ in thin]
    assert sum(stands_for for _, stands_for in thin) == len(probe_results)
    turns = [
        result
        for place, result in enumerate(probe_results)
        if place in (0, len(probe_results) - 1)
        or result.outcome != probe_results[place - 1].outcome
        or result.outcome != probe_results[place + 1].outcome
    ]
    assert all(result in kept for result in turns)
    assert kept == sorted(kept, key=lambda result: result.time)
    assert len(kept) <= max(len(turns), most) + len(turns)


@given(st.text("rh.Lw", min_size=SETTLED, max_size=60))
def test_every_probe_is_counted_once(letters: str) -> None:
    result = flow_result(stream(letters), 0.05)
    right = letters.count("r")
    assert result.sent == right + result.late + result.lost + result.leaked + result.wrong_source
    assert (result.recovery is None) == (not letters.endswith("r" * SETTLED))
    assert flow_text(result).startswith("new flows, IPv4: ")
