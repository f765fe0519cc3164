"""What became of a stream of probes is classified rightly, and judged as the intent says; figures count every probe."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viacheck.analysis.disruption_text import disruption_text, flow_text, leak_text
from viacheck.disruption.flow_results import SETTLED, flow_result, probe_result, thinned
from viacheck.model.intent import Intent
from viacheck.model.intent_file import parse_intent
from viacheck.model.measurements import (
    Departure,
    DisruptionResult,
    EgressState,
    FlowAge,
    FlowKind,
    ProbeOutcome,
    ProbeResult,
)
from viacheck.model.result import CommandEvidence, TimelineEvidence
from viacheck.model.snapshot import Nexthop, Route, Rule

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
    """Fates from before an event that begins at 0, one letter each, the first three sent before it."""
    probe_results = []
    for place, letter in enumerate(letters):
        by = {"L": "eth0", ".": None}.get(letter, "wlan0")
        source = {"L": "10.10.40.9", ".": None, "w": "10.10.50.8"}.get(letter, "10.10.50.9")
        probe_results.append(ProbeResult(round((place - 3) * PACE, 3), flow, 4, PROBE_OUTCOMES[letter], by, source))
    return probe_results


def disruption_result(
    *streams: Sequence[ProbeResult], ended: float = 0.05, after: EgressState = BEFORE
) -> DisruptionResult:
    """A trial of these courses."""
    return DisruptionResult(
        event="link-flap", title="wlan0 is set down and up again", ended=ended, watched=1.0,
        flow_results=tuple(flow_result(one, ended) for one in streams), states=(BEFORE, after),
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
def test_a_course_is_classified(letters: str, kind: FlowKind) -> None:
    assert flow_result(stream(letters), 0.05).kind is kind


def test_recovery_is_counted_from_the_events_end_and_the_figures_are_exact() -> None:
    # Sent at 0 … 30 ms: leaked; at 40 … 60 ms: lost; from 70 ms on right; the event ended at 50 ms.
    one = flow_result(stream("rrr" + "LLLL" + "..." + "rrrrrr"), 0.05)
    assert (one.sent, one.leaked, one.lost) == (16, 4, 3)
    assert (one.leak, one.leak_interfaces, one.leak_sources) == ((0.0, 0.03), ("eth0",), ("10.10.40.9",))
    assert (one.first_lost, one.recovered_at) == (0.04, 0.07)
    assert one.recovery == pytest.approx(0.02)
    assert (
        disruption_text(disruption_result(stream("rrr" + "LLLL" + "..." + "rrrrrr")))
        == "leaks 4 packets over 30 ms, then recovers in 20 ms"
    )


def test_what_was_recovered_at_before_the_event_had_ended_took_no_time() -> None:
    assert flow_result(stream("rrr" + ".." + "rrrrrrrrr"), 0.05).recovery == 0.0


def test_new_flows_that_recover_alone_are_told() -> None:
    one = disruption_result(stream("rrr..rrrrrr"), stream("rrr..wwwwww", "old"))
    assert one.kind is FlowKind.NEW_FLOWS_ONLY
    assert disruption_text(one) == "new flows recover; the old flow keeps leaving with a wrong source"
    assert not one.survived(5.0)


def test_an_old_flow_that_recovers_alone_is_no_recovery() -> None:
    assert disruption_result(stream("rrr......"), stream("rrr..rrrrr", "old")).kind is FlowKind.STAYS_SILENT


@pytest.mark.parametrize(("within", "survived"), [(5.0, True), (0.03, True), (0.01, False)])
def test_survived_means_in_time(within: float, survived: bool) -> None:
    assert disruption_result(stream("rrr" + "......." + "rrrrr")).survived(within) is survived


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (dataclasses.replace(BEFORE, rules=(RULE, RULE, RULE)), "2 rules more than before"),
        (dataclasses.replace(BEFORE, rules=()), "1 rule missing"),
        (dataclasses.replace(BEFORE, routes=()), "1 route missing"),
    ],
)
def test_survived_means_that_rules_and_routes_are_as_before(after: EgressState, told: str) -> None:
    one = disruption_result(stream("rrr..rrrrr"), after=after)
    assert not one.survived(5.0)
    assert disruption_text(one) == f"recovers in 0 ms; {told}"


def _rounds(*counts: int) -> DisruptionResult:
    """An event of so many rounds, each of which leaves a number of rules."""
    rounds = [EgressState(time=0.0, moment="ifup wlan0", rules=(RULE,) * count, routes=(ROUTE,)) for count in counts]
    return dataclasses.replace(disruption_result(stream("rrr..rrrrr")), states=(BEFORE, *rounds, rounds[-1]))


def test_rules_that_grow_from_round_to_round_pile_up() -> None:
    assert len(_rounds(2, 3, 4).rules_added) == 3
    assert not _rounds(2, 3, 4).survived(5.0)


def test_rules_that_differ_once_do_not_pile_up() -> None:
    assert _rounds(2, 2, 2).survived(5.0)


def test_a_reboot_may_leave_another_priority_but_not_no_rule() -> None:
    local = dataclasses.replace(RULE, priority=990, table=254, suppress_prefixlength=0)
    backstop = Route(family=4, table=200, destination="0.0.0.0/0", type="unreachable", metric=4278198272)
    typed = dataclasses.replace(BEFORE, rules=(local, RULE), routes=(ROUTE, backstop))
    moved = dataclasses.replace(BEFORE, rules=(dataclasses.replace(RULE, priority=32765),))
    for after, survived in ((moved, True), (dataclasses.replace(moved, rules=()), False)):
        reboot = dataclasses.replace(
            disruption_result(stream("rrrrrrrr")), event="reboot", states=(typed, after), only_table=200
        )
        assert reboot.survived(5.0) is survived


def test_a_command_of_the_event_that_fails_is_not_survived() -> None:
    refused = CommandEvidence(command="ifup wlan0", exit_code=1, stderr="RTNETLINK answers: File exists")
    one = dataclasses.replace(disruption_result(stream("rrr..rrrrr")), failed_commands=(refused,))
    assert not one.survived(5.0)
    assert disruption_text(one) == "recovers in 0 ms; failed: ifup wlan0"


def test_a_leak_that_does_not_end_is_told_to_the_end_of_the_watching() -> None:
    words = leak_text(disruption_result(stream("rrr" + "L" * 10), stream("rrr" + "L" * 10, "old")))
    assert words == (
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
def test_a_probes_fate(departures: list[Departure], outcome: ProbeOutcome) -> None:
    assert probe_result(0.0, "new", 4, departures, "wlan0", SOURCES).outcome == outcome


def _intent(**egress: object) -> Intent:
    return parse_intent(
        {
            "schema": 1, "site": {"name": "x"}, "agent": {"netns": "/run/netns/agent", "attach": {"mode": "nat"}},
            "uplinks": {"wlan0": {"gateway": "10.10.50.1"}}, "egress": {"uplink": "wlan0", **egress},
        },
        source="test",
    )  # fmt: skip


def test_what_must_be_survived_is_the_intents_to_say() -> None:
    assert _intent().egress.must_survive("carrier-loss")
    assert _intent(survives=["link-flap"]).egress.must_survive("link-flap")
    assert not _intent(survives=["link-flap"]).egress.must_survive("carrier-loss")
    assert not _intent(survives=[]).egress.must_survive("link-flap")


@given(st.text("rh.Lw", min_size=1, max_size=400), st.integers(20, 120))
def test_thinning_keeps_every_turn_and_no_more_than_it_must(letters: str, most: int) -> None:
    probe_results = stream(letters)
    thin = thinned(probe_results, most)
    kept = [one for one, _ in thin]
    assert sum(stands_for for _, stands_for in thin) == len(probe_results)
    turns = [
        one
        for place, one in enumerate(probe_results)
        if place in (0, len(probe_results) - 1)
        or one.outcome != probe_results[place - 1].outcome
        or one.outcome != probe_results[place + 1].outcome
    ]
    assert all(one in kept for one in turns)
    assert kept == sorted(kept, key=lambda one: one.time)
    assert len(kept) <= max(len(turns), most) + len(turns)


@given(st.text("rh.Lw", min_size=SETTLED, max_size=60))
def test_every_probe_is_counted_once(letters: str) -> None:
    one = flow_result(stream(letters), 0.05)
    right = letters.count("r")
    assert one.sent == right + one.late + one.lost + one.leaked + one.wrong_source
    assert (one.recovery is None) == (not letters.endswith("r" * SETTLED))
    assert flow_text(one).startswith("new flows, IPv4: ")
