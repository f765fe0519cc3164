"""A flap's timeline, drawn and as a table: both say what the evidence says, whatever the names, and stay small."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.report_page import ROWS_SHOWN, render
from reports.time_axis import CALM, time_axis
from reports.timeline import PROBE_OUTCOMES, FlowKey, Kind, timeline
from reports.timeline_drawing import SHAPES, draw_timeline
from tests.helpers.sample_outcomes import HOSTILE, healthy
from tests.helpers.sample_outcomes import timeline as flap
from tests.unit.test_report_page import Page
from viacheck.model.check_evidence import TimelineEvent, TimelineEvidence

PACE = 0.01
KIND_OF: dict[str, Kind] = {"r": "probe", "h": "late", ".": "lost", "w": "wrong-source", "L": "leak"}
OLD: FlowKey = ("old", 4)
NEW: FlowKey = ("new", 4)


def probes(letters: str, flow_result: FlowKey = NEW, begin: float = -0.03) -> list[TimelineEvent]:
    """Marks of one course, one letter each, from before the event on."""
    return [
        TimelineEvent(
            time=round(begin + place * PACE, 4), lane="eth0" if letter == "L" else "wlan0",
            what={"L": "left by eth0", ".": "seen on no way out"}.get(letter, "left by wlan0"),
            mark=KIND_OF[letter], flow=flow_result[0], family=flow_result[1],
        )
        for place, letter in enumerate(letters)
    ]  # fmt: skip


def step(time: float, what: str) -> TimelineEvent:
    return TimelineEvent(time=time, lane="event", what=what)


def evidence(*events: TimelineEvent, **more: object) -> TimelineEvidence:
    known = {"title": "wlan0 is set down and up again", "ways": ["wlan0", "eth0"], **more}
    return TimelineEvidence.model_validate({"events": events, **known})


def drawn(shown: TimelineEvidence) -> Page:
    drawing = draw_timeline(timeline(shown), "one")
    assert drawing is not None
    return Page(str(drawing.svg))


def page_of(shown: TimelineEvidence) -> Page:
    outcome = healthy()
    result = flap("lab:policy-routing")
    result.evidence = [shown]
    outcome.results.append(result)
    return Page(render(outcome))


def marks(page: Page, kind: Kind) -> list[float]:
    """Where marks of a kind are drawn, all rows together."""
    shape = re.escape(SHAPES[kind])
    ways = "".join(a["d"] for a, _ in page.all("path") if a["class"] == f"at {kind}")
    return [float(x) for x in re.findall(rf"M([\d.]+) [\d.]+{shape}", ways)]


def texts(page: Page, style: str) -> list[str]:
    return [text for _, text in page.all("text", **{"class": style})]


FLAP = evidence(
    *probes("rrrrLLLL..hrrrrr", OLD), *probes("rrrrLLLLwwwrrrrr", NEW),
    step(0.005, "ip link set dev wlan0 down"), step(0.055, "ip link set dev wlan0 up"),
    TimelineEvent(time=0.006, lane="kernel", what="link wlan0 down", mark="netlink"),
    TimelineEvent(time=0.007, lane="kernel", what="route gone", mark="netlink"),
    TimelineEvent(time=0.0, lane="state", what="rule priority 1000", mark="state"),
    figures=["the old flow, IPv4: leaks, then recovers"],
)  # fmt: skip


def test_every_fortune_has_a_shape_of_its_own() -> None:
    assert len({SHAPES[kind] for kind in PROBE_OUTCOMES}) == len(PROBE_OUTCOMES)
    assert set(KIND_OF.values()) == set(PROBE_OUTCOMES)


@pytest.mark.parametrize("kind", PROBE_OUTCOMES)
def test_a_mark_is_drawn_for_each_probe_that_has_room(kind: Kind) -> None:
    assert len(marks(drawn(FLAP), kind)) == sum(event.mark == kind for event in FLAP.events)


@pytest.mark.parametrize("kind", PROBE_OUTCOMES)
def test_the_legend_explains_what_is_drawn_and_nothing_else(kind: Kind) -> None:
    keys = [a["class"] for a, _ in page_of(FLAP).all("path") if a.get("d", "").startswith("M0 0")]
    assert f"at {kind}" in keys
    calm = page_of(evidence(*probes("rrrrr"), step(0.0, "nothing much")))
    keys = [a["class"] for a, _ in calm.all("path") if a.get("d", "").startswith("M0 0")]
    assert keys == ["at event", "at probe"]


def test_lanes_are_ways_out_the_intended_one_first_and_rows_are_courses() -> None:
    shown = evidence(
        *probes("rrrL", ("new", 6)), *probes("rrrr", ("old", 6)), *probes("rrrr", NEW), *probes("rrrr", OLD),
        ways=["wlan0", "eth0", "wwan0"],
    )  # fmt: skip
    assert texts(drawn(shown), "name") == ["wlan0", "eth0", "wwan0"]
    lanes = timeline(shown).lanes
    assert [lane.intended for lane in lanes] == [True, False, False]
    assert [row.label for row in lanes[0].rows] == [
        "old flow, IPv4", "new flows, IPv4", "old flow, IPv6", "new flows, IPv6",
    ]  # fmt: skip
    assert [row.label for row in lanes[1].rows] == ["new flows, IPv6"]
    assert texts(drawn(shown), "count") == ["4 right", "4 right", "4 right", "3 right", "1 leaked", "no probe seen"]


def test_the_intended_way_stays_first_when_nothing_was_seen_on_it() -> None:
    lanes = timeline(evidence(*probes("LLLL"))).lanes
    assert [(lane.name, [row.counts for row in lane.rows]) for lane in lanes] == [
        ("wlan0", [""]), ("eth0", ["4 leaked"]),
    ]  # fmt: skip


def test_the_drawing_for_a_phone_counts_the_same_and_fits() -> None:
    drawing = draw_timeline(timeline(FLAP), "one")
    assert drawing is not None
    wide, narrow = Page(str(drawing.svg)), Page(str(drawing.narrow))
    rows = [row for lane in timeline(FLAP).lanes for row in lane.rows]
    assert texts(narrow, "count") == [f"{row.label}: {row.counts}" for row in rows]
    assert texts(narrow, "name") == texts(wide, "name")
    assert texts(narrow, "step-name") == ["1", "2"], "the list of steps under the drawing has their names"
    assert float(next(narrow.all("svg"))[0]["width"]) <= 310
    steps = [text for _, text in page_of(FLAP).all("ol", **{"class": "flap-steps"})]
    assert steps == ["ip link set dev wlan0 downip link set dev wlan0 up"]


def test_absence_that_is_not_proven_is_not_called_absence() -> None:
    shown = evidence(*probes("rrrr"), unproven={"eth0": "no fence was seen"})
    assert "absence not proven" in texts(drawn(shown), "count")
    assert "Not proven that nothing left by eth0: no fence was seen." in page_of(shown).text("main")


def test_steps_are_numbered_lines_in_order() -> None:
    page = drawn(FLAP)
    assert texts(page, "step-name") == ["1: ip link set dev wlan0 down", "2: ip link set dev wlan0 up"]
    lines = re.findall(r"M([\d.]+) ", next(a["d"] for a, _ in page.all("path", **{"class": "step"})))
    assert len(lines) == 2
    assert float(lines[0]) < float(lines[1])


@given(st.lists(st.tuples(st.floats(0, 0.5), st.text("abc ", min_size=1, max_size=200)), min_size=1, max_size=14))
def test_no_name_of_a_step_runs_into_another_or_is_crossed(steps: list[tuple[float, str]]) -> None:
    page = drawn(evidence(*probes("r" * 50), *(step(time, what) for time, what in steps)))
    names = [(float(a["x"]), float(a["y"]), len(text) * 6.2) for a, text in page.all("text", **{"class": "step-name"})]
    lines = next(a["d"] for a, _ in page.all("path", **{"class": "step"}))
    tops = [(float(x), float(y)) for x, y in re.findall(r"M([\d.]+) ([\d.]+)V", lines)]
    width = float(next(page.all("svg"))[0]["width"])
    for x, y, long in names:
        assert x + long <= width + 1
        assert not [top for at, top in tops if x < at < x + long - 1 and top < y - 10]
        assert not [other for other, level, _ in names if level == y and x < other < x + long - 1]


def test_the_table_and_the_drawing_say_the_same() -> None:
    page = page_of(FLAP)
    rows = [
        re.findall(r">([^<]*)</t[dh]>", row)
        for row in re.findall(r"<tr[^>]*>(.*?)</tr>", page.source[page.source.index('class="timeline"') :])[1:]
    ]
    told = Counter[tuple[str, str]]()
    rows = [row for row in rows if len(row) == 5]
    for _, where, kind, number, _ in (row for row in rows if row[3].isdigit()):
        told[where, kind] += int(number)
    svg = page.text("svg", **{"class": "flap wide"})
    assert told == {
        ("wlan0", "right"): 18, ("eth0", "leak"): 8, ("wlan0", "lost"): 2, ("wlan0", "late"): 1,
        ("wlan0", "wrong source"): 3,
    }  # fmt: skip
    assert {"9 right, 1 late, 2 lost", "9 right, 3 wrong source", "4 leaked"} == set(texts(drawn(FLAP), "count"))
    assert "new flows, IPv4: 4 leaked" in svg
    assert sum(row[4].startswith("new flows, IPv4: left by") for row in rows) == 4
    assert "the old flow, IPv4: leaks, then recovers" in page.text("ul", **{"class": "figures"})


def test_probes_that_fare_alike_are_one_line_with_their_first_and_last_moment() -> None:
    stretches = [stretch for stretch in timeline(FLAP).stretches if stretch.flow == OLD]
    lines = [(stretch.when, stretch.lane, stretch.kind_text, stretch.probes) for stretch in stretches]
    assert lines == [
        ("-30.0 to 0.0", "wlan0", "right", 4),
        ("10.0 to 40.0", "eth0", "leak", 4),
        ("50.0 to 60.0", "wlan0", "lost", 2),
        ("70.0", "wlan0", "late", 1),
        ("80.0 to 120.0", "wlan0", "right", 5),
    ]


def test_what_the_kernel_announces_at_once_is_one_line() -> None:
    assert [one.what for one in timeline(FLAP).of("netlink")] == ["link wlan0 down; route gone"]


def test_a_mark_counts_for_the_probes_that_it_stands_for() -> None:
    thin = probes("rrr") + probes("L", begin=0.0)
    thin[-1].probes = 57
    assert "57 leaked" in texts(drawn(evidence(*thin)), "count")
    assert "60 probes, 4 marks" in page_of(evidence(*thin)).text("main")


def test_names_from_outside_are_shown_and_not_obeyed() -> None:
    events = [*probes("rrL"), step(0.0, HOSTILE), TimelineEvent(time=0.0, lane=HOSTILE, what=HOSTILE, mark="leak")]
    shown = evidence(*events, title=HOSTILE, ways=[HOSTILE, "wlan0", "eth0"], figures=[HOSTILE])
    shown.unproven = {"eth0": HOSTILE}
    page = page_of(shown)
    assert "evil" not in "".join(text for _, text in page.all("b"))
    assert [c for c in page.source if not c.isprintable() and c not in "\n\t"] == []
    assert any("\u2039U+001B\u203a[2J" in text for _, text in page.all("text"))
    assert page.text("desc", id="timeline-1-desc").startswith("<b>\u2039U+001B\u203a[2J\u2039U+202E\u203aevil")


def test_who_cannot_see_the_drawing_hears_the_gist() -> None:
    page = drawn(FLAP)
    svg = next(page.all("svg"))[0]
    assert svg["role"] == "img"
    assert svg["aria-labelledby"].split() == [a["id"] for tag in ("title", "desc") for a, _ in page.all(tag)]
    assert page.text("desc") == (
        "wlan0 is set down and up again. 2 steps: ip link set dev wlan0 down at 5 ms; ip link set dev wlan0 up at "
        "55 ms. wlan0, intended: old flow, IPv4: 9 right, 1 late, 2 lost; new flows, IPv4: 9 right, 3 wrong source. "
        "eth0: old flow, IPv4: 4 leaked; new flows, IPv4: 4 leaked. The table after the drawing says the same."
    )


def test_nothing_recorded_is_nothing_drawn() -> None:
    assert draw_timeline(timeline(evidence()), "one") is None
    page = page_of(evidence())
    assert not list(page.all("svg", **{"class": "flap"}))
    assert "What happened, in order" in page.text("main")


@pytest.mark.parametrize("event", [step(0.2, "set down"), *probes("L", begin=7200.0)])
def test_one_event_alone_is_drawn(event: TimelineEvent) -> None:
    page = drawn(evidence(event))
    assert len(texts(page, "time")) >= 1
    assert "wlan0" in texts(page, "name")


def test_evidence_without_courses_and_ways_is_drawn_all_the_same() -> None:
    (older,) = flap("lab:policy-routing").evidence
    assert isinstance(older, TimelineEvidence)
    assert [(lane.name, lane.intended) for lane in timeline(older).lanes] == [("probes", False), ("eth0", False)]
    assert (len(marks(drawn(older), "probe")), len(marks(drawn(older), "leak"))) == (1, 1)


def test_a_huge_timeline_stays_small_and_keeps_what_leaked() -> None:
    letters = ("r." * 2_000 + "r" * 30_000) * 2 + "L"
    steps = [step(number / 10, f"step {number}") for number in range(1_000)]
    shown = evidence(
        *probes(letters, OLD), *probes(letters, NEW), *steps, ways=[f"eth{number}" for number in range(900)]
    )
    drawing = draw_timeline(timeline(shown), "one")
    assert drawing is not None
    assert len(drawing.svg) < 60_000
    page = page_of(shown)
    assert len(page.source) - len(page_of(evidence()).source) < 100_000
    table = page.source[page.source.index('class="timeline"') :]
    assert table[: table.index("</table>")].count("<tr") == ROWS_SHOWN + 1
    assert table.count('<tr class="leak"') == 2
    assert "lines left out here" in table
    assert "interfaces left out of the drawing" in page.text("main")


def test_a_long_tail_is_drawn_short_and_said_to_be() -> None:
    tail = [TimelineEvent(time=60.0, lane="eth0", what="left by eth0", mark="leak", flow="new", family=4, probes=5_800)]
    shown = evidence(*probes("rrr" + "L" * 20), *tail, step(0.0, "down"), step(0.15, "up"))
    leaks = marks(drawn(shown), "leak")
    assert leaks[15] - leaks[0] > 320, "the step's 150 ms have half of the room"
    ticks = texts(drawn(shown), "time")
    assert {"59,790 ms", "0", "60,000"} <= set(ticks)
    assert "compressed time: nothing changes" in page_of(shown).text("main")


@given(st.lists(st.floats(-1, 10_000, allow_nan=False), min_size=1, max_size=40))
def test_an_axis_keeps_the_order_of_time_and_its_ticks_apart(turns: list[float]) -> None:
    axis = time_axis(turns, 100, 640)
    places = [axis.place(time) for time in sorted(turns)]
    assert all(100 <= place <= 740.001 for place in places)
    assert places == sorted(places)
    ticks = [place for place, _ in axis.ticks()]
    assert ticks
    assert all(after - before >= 46 for before, after in pairwise(ticks))
    assert all(span.end - span.begin >= CALM for span in axis.calm)
    assert all(before.right == after.left for before, after in pairwise(axis.spans))
