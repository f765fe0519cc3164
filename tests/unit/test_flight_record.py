"""The record of a watch: lines in segments of bounded size, read again whatever happened to them; and what they say."""

from __future__ import annotations

import json
import os
import random
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.diagnoses import reported_causes
from tests.helpers.hand_made import SITE
from viacheck.flight_recorder import flight_summary
from viacheck.flight_recorder.flight_result import flight_result
from viacheck.flight_recorder.flight_start import FlightStart, read_start, save_start
from viacheck.flight_recorder.flight_summary import FlightSummary
from viacheck.flight_recorder.record_file import (
    SEGMENTS,
    Entry,
    RecordFile,
    RecordInUse,
    RecordLine,
    read_entries,
    read_lines,
)
from viacheck.model.check_evidence import StateEvidence, TimelineEvidence
from viacheck.model.exit_status import ExitStatus, UsageError
from viacheck.model.intent_file import parse_intent
from viacheck.model.result import TargetRecord, exit_status
from viacheck.model.verdict import Verdict

S = 1_000_000_000
T0 = 1_790_000_000 * S
TO_ETH0: list[list[str | None]] = [["icmp, as to 198.51.100.1", "eth0", "table 254: via 10.10.40.1 dev eth0"]]
GONE = "rule priority 100 from 172.17.0.0/16 lookup 200 gone"
THERE = "rule priority 100 from 172.17.0.0/16 lookup 200 there"

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
KINDS = st.sampled_from(
    ["start", "resume", "pause", "overrun", "event", "way", "elsewhere", "count", "probe", "agent", "end", "other"]
)
KEYS = st.sampled_from(
    ["since", "left", "expected", "wrong", "because", "unwritten", "seen", "unproven", "text", "place", "why", "sent",
     "near", "seconds", "away", "confirmed", "lines_lost"]
)  # fmt: skip


@st.composite
def lines(draw: st.DrawFn) -> Entry:
    """A line as a damaged or foreign record may have it: a kind that exists, with values of any type."""
    entry: dict[str, Any] = draw(st.dictionaries(KEYS, VALUES, max_size=8))
    return {**entry, "t": draw(st.integers(0, 2 * T0)), "kind": draw(KINDS)}


@pytest.fixture
def record(tmp_path: Path) -> Iterator[RecordFile]:
    opened = RecordFile(tmp_path / "state", SEGMENTS * 4096)
    yield opened
    opened.close()


def summarize(entries: list[Entry], uplink: str) -> FlightSummary:
    """Read entries as the lines of one segment."""
    lines = (RecordLine("record-00000001.jsonl", number, entry) for number, entry in enumerate(entries, 1))
    return flight_summary.summarize(lines, uplink)


def way(time_ns: int, wrong: list[list[str | None]], because: list[str], **more: Any) -> Entry:
    return {"t": time_ns, "kind": "way", "since": time_ns - S, "left": {}, "expected": {}, "wrong": wrong,
            "because": because, "first": time_ns == T0, "unwritten": 0, **more}  # fmt: skip


def count(time_ns: int, left: dict[str, int], sent: int | None = None) -> Entry:
    return {"t": time_ns, "kind": "count", "since": time_ns - S, "left": left, "expected": {}, "sent": sent,
            "events": 0, "unwritten": 0}  # fmt: skip


def probes(time_ns: int, outcome: str, interface: str | None, *, confirmed: bool = False) -> Entry:
    seen = [[time_ns, "icmp, as to 198.51.100.1", outcome, interface, "10.0.0.1"]]
    return {"t": time_ns, "kind": "probe", "why": "interval", "sent": 1, "confirmed": confirmed, "unproven": {},
            "refused": None, "seen": seen}  # fmt: skip


def flap(begin_ns: int) -> list[Entry]:
    """A rule that is away for 300 ms, and 3,000 packets meanwhile."""
    return [
        {"t": begin_ns, "kind": "event", "place": "host", "text": GONE},
        way(begin_ns, TO_ETH0, [GONE]),
        {"t": begin_ns + 3 * S // 10, "kind": "event", "place": "host", "text": THERE},
        way(begin_ns + 3 * S // 10, [], [THERE], left={"eth0": 3000}),
    ]


def flight(tmp_path: Path, more: str = "") -> FlightStart:
    """Return the beginning of a recording; ``more`` are further lines of its site file."""
    start = FlightStart(
        id="x", version="0", command="viacheck watch", started_ns=T0, until_ns=T0 + 3600 * S, interval=60.0,
        uplink="wlan0", interfaces=["wlan0", "eth0"], classes=["icmp, as to 198.51.100.1"], remarks=[], not_counted={},
        commands=[], target=TargetRecord(
            id="local:x", kind="local", verdict="inconclusive",
            intent=parse_intent(tomllib.loads(SITE + more), source="site.toml").as_json(), snapshot={},
        ),
    )  # fmt: skip
    (tmp_path / "kept").mkdir(mode=0o700, exist_ok=True)
    save_start(tmp_path / "kept", start)
    read = read_start(tmp_path / "kept")
    assert read == start
    return start


# --- The file ---


@settings(max_examples=15, deadline=None)
@given(entries=st.lists(lines(), max_size=30), seed=st.integers(0, 2**32))
def test_what_is_written_is_read_again_in_order_and_damage_costs_its_own_line(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Entry], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("record") / "state"
    record, chance = RecordFile(folder, 1 << 30), random.Random(seed)
    expected = []
    for entry in entries:
        record.write(entry)
        expected.append(entry)
        match chance.randrange(6):
            case 0:  # The recorder is killed while it writes, and started again.
                record.close()
                segments = sorted(folder.glob("record-*"))
                with segments[-1].open("ab") as cut_short:
                    cut_short.write(b'{"t":1,"kind":"wa')
                record = RecordFile(folder, 1 << 30)
            case 1:  # logrotate renames the segment and makes an empty one.
                segment = sorted(folder.glob("record-*"))[-1]
                lost = segment.read_bytes().splitlines()
                segment.rename(folder / "moved")
                segment.touch()
                expected = expected[: len(expected) - sum(b'"kind"' in line and line.endswith(b"}") for line in lost)]
    record.close()
    assert list(read_entries(folder)) == json.loads(json.dumps(expected))


def test_the_record_stays_below_its_limit_and_keeps_the_latest_lines(record: RecordFile) -> None:
    for number in range(3000):
        record.write({"t": number, "kind": "event", "text": "x" * 80})
    sizes = [path.stat().st_size for path in record.folder.glob("record-*")]
    assert len(sizes) == SEGMENTS
    assert sum(sizes) <= SEGMENTS * 4096
    times = [entry["t"] for entry in read_entries(record.folder)]
    assert times == list(range(times[0], 3000))
    assert len(times) > 400
    assert {path.stat().st_mode & 0o777 for path in record.folder.iterdir()} == {0o600}
    assert record.folder.stat().st_mode & 0o777 == 0o700


def test_rotation_by_another_program_costs_no_later_line(record: RecordFile) -> None:
    def present() -> Path:
        return sorted(record.folder.glob("record-*"))[-1]

    record.write({"t": 1, "kind": "event"})
    present().unlink()
    record.write({"t": 2, "kind": "event"})
    os.truncate(present(), 0)
    record.write({"t": 3, "kind": "event"})
    moved = record.folder / "record.old"
    present().rename(moved)
    record.write({"t": 4, "kind": "event"})
    assert [entry["t"] for entry in read_entries(record.folder)] == [4]
    for time in (5, 6):
        record.write({"t": time, "kind": "event"})
    kept = present().read_text().splitlines(keepends=True)
    present().write_text(kept[0] + kept[2])
    record.write({"t": 7, "kind": "event"})
    lines = [(line.missing, line.entry and line.entry["t"]) for line in read_lines(record.folder)]
    assert lines == [(0, 4), (1, None), (0, 6), (0, 7)]
    assert json.loads(moved.read_text())["t"] == 3


def test_two_recorders_do_not_share_a_folder(record: RecordFile) -> None:
    with pytest.raises(RecordInUse, match="another recorder writes to it"):
        RecordFile(record.folder, 1 << 20)


def test_a_planted_link_is_not_followed(record: RecordFile, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    (record.folder / "record-00000001.jsonl").symlink_to(tmp_path / "victim")
    record.write({"t": 1, "kind": "event"})
    assert (tmp_path / "victim").read_text() == "kept"
    with pytest.raises(OSError, match="symbolic link"):
        list(read_entries(record.folder))


def test_a_file_that_is_not_ours_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "start.json").write_text("{}")
    with pytest.raises(UsageError, match="not a record of viacheck watch: id"):
        read_start(tmp_path)


# --- What it says ---


@settings(max_examples=40, deadline=None)
@given(entries=st.lists(lines(), max_size=12))
def test_no_line_ends_the_reader_or_the_report(tmp_path_factory: pytest.TempPathFactory, entries: list[Entry]) -> None:
    summary = summarize([*entries, *flap(T0 + 100 * S)], "wlan0")
    assert isinstance(summary, FlightSummary)
    assert flight_result(flight(tmp_path_factory.getbasetemp()), summary).results


def test_a_flap_is_one_departure_with_its_cause_its_length_and_its_packets(tmp_path: Path) -> None:
    entries = [
        {"t": T0, "kind": "start"}, way(T0, [], []), probes(T0, "as-intended", "wlan0"),
        *flap(T0 + 10 * S), probes(T0 + 10 * S + S // 100, "leaked", "eth0"),
        count(T0 + 11 * S, {"wlan0": 100_000, "eth0": 12}, 103_012),
        {"t": T0 + 60 * S, "kind": "end", "why": "the time is up"},
    ]  # fmt: skip
    summary = summarize(entries, "wlan0")
    (departure,) = summary.departures
    assert departure.seconds == pytest.approx(0.3)
    assert departure.because == [GONE]
    assert departure.restored_by == [THERE]
    # What was on its way when the rule came back left elsewhere too.
    assert departure.packets == {"eth0": 3012}
    assert departure.probes == {"leaked": 1}
    assert list(departure.seen_by) == ["routing", "packets", "probes"]
    result = flight_result(flight(tmp_path), summary)
    overall, single, watch = result.results
    assert [each.verdict for each in (overall, single, watch)] == [Verdict.FAIL, Verdict.FAIL, Verdict.PASS]
    assert "left by eth0 instead of by wlan0 once, for 300 ms" in overall.observed
    assert single.diagnosis is not None
    assert single.diagnosis.code == "EGRESS_CHANGED"
    assert GONE in single.diagnosis.cause
    assert "3,012 packets of the agent counted elsewhere" in single.observed
    assert "journalctl --since" in (single.diagnosis.decision or "")
    (timeline,) = (evidence for evidence in single.evidence if isinstance(evidence, TimelineEvidence))
    marks = [(event.time, event.mark) for event in timeline.events]
    assert marks == [(0.0, "event"), (0.0, "netlink"), (0.01, "leak"), (0.3, "event"), (0.3, "netlink")]
    assert result.targets[0].verdict == "fail"


def test_a_calm_record_passes_and_its_figures_are_the_sums(tmp_path: Path) -> None:
    entries = [{"t": T0, "kind": "start"}, way(T0, [], [])]
    for minute in range(1, 61):
        entries += [count(T0 + 60 * minute * S, {"wlan0": 600_000}, 600_000)]
        entries += [probes(T0 + 60 * minute * S, "as-intended", "wlan0")]
    entries.append({"t": T0 + 3600 * S, "kind": "end", "why": "the time is up"})
    result = flight_result(flight(tmp_path), summarize(entries, "wlan0"))
    packets, watch = result.results
    assert (packets.verdict, packets.observed) == (
        Verdict.PASS, "in 60 min the agent's packets left by wlan0 only",
    )  # fmt: skip
    assert watch.verdict is Verdict.PASS
    (state,) = packets.evidence
    assert isinstance(state, StateEvidence)
    assert "wlan0 (intended): 36,000,000 packets of the agent left" in state.lines
    assert "eth0: 0 packets of the agent left" in state.lines


def test_packets_elsewhere_without_a_change_have_no_guessed_cause(tmp_path: Path) -> None:
    elsewhere = {
        "t": T0 + 5 * S,
        "kind": "elsewhere",
        "since": T0 + 4 * S,
        "left": {"eth0": 7},
        "expected": {},
        "near": [],
    }
    entries = [{"t": T0, "kind": "start"}, way(T0, [], []), probes(T0, "as-intended", "wlan0"), elsewhere]
    summary = summarize(entries, "wlan0")
    (departure,) = summary.departures
    assert (departure.because, list(departure.seen_by), departure.packets) == ([], ["packets"], {"eth0": 7})
    single = flight_result(flight(tmp_path), summary).results[1]
    assert single.diagnosis is not None
    assert "the cause is unknown" in single.diagnosis.cause


@pytest.mark.parametrize(("confirmed", "departures"), [(False, 0), (True, 1)])
def test_a_lost_probe_counts_once_it_was_repeated(confirmed: bool, departures: int) -> None:
    entries = [way(T0, [], []), probes(T0 + S, "lost", None, confirmed=confirmed), probes(T0 + 9 * S, "late", "wlan0")]
    assert len(summarize(entries, "wlan0").departures) == departures


def test_a_silence_lasts_from_its_first_lost_probe_to_its_last(tmp_path: Path) -> None:
    entries = [
        {"t": T0, "kind": "start"}, way(T0, [], []), probes(T0, "as-intended", "wlan0"),
        probes(T0 + 60 * S, "lost", None), probes(T0 + 63 * S, "lost", None, confirmed=True),
        probes(T0 + 120 * S, "lost", None), probes(T0 + 180 * S, "lost", None),
        probes(T0 + 183 * S, "as-intended", "wlan0", confirmed=True), probes(T0 + 240 * S, "lost", None),
        probes(T0 + 243 * S, "as-intended", "wlan0", confirmed=True),
        {"t": T0 + 300 * S, "kind": "end", "why": "SIGTERM"},
    ]  # fmt: skip
    summary = summarize(entries, "wlan0")
    (departure,) = summary.departures
    assert (departure.begin_ns, departure.seconds, departure.probes) == (T0 + 60 * S, 120.0, {"lost": 4})
    _overall, single, _watch = flight_result(flight(tmp_path), summary).results
    assert single.verdict is Verdict.FAIL
    assert "for at least 2 min the packets left nowhere" in single.observed


def test_a_restart_is_a_gap_that_has_a_name_and_an_end_in_it_is_not_exact(tmp_path: Path) -> None:
    entries = [
        {"t": T0, "kind": "start"}, way(T0, [], []), probes(T0, "as-intended", "wlan0"),
        way(T0 + 10 * S, TO_ETH0, [GONE]),
        {"t": T0 + 30 * S, "kind": "resume", "since": T0 + 12 * S}, way(T0 + 30 * S, [], []),
        {"t": T0 + 60 * S, "kind": "end", "why": "SIGTERM"},
    ]  # fmt: skip
    summary = summarize(entries, "wlan0")
    (departure,) = summary.departures
    assert (departure.end_known, departure.seconds) == (False, 20.0)
    _overall, single, watch = flight_result(flight(tmp_path), summary).results
    assert "that ended while the watch was interrupted, after 20.0 s at most" in single.observed
    assert watch.verdict is Verdict.ADVISORY
    assert "the recorder did not run from" in watch.observed
    assert "for 18.0 s" in watch.observed


def test_a_departure_from_the_beginning_is_called_so(tmp_path: Path) -> None:
    entries = [{"t": T0, "kind": "start"}, way(T0, TO_ETH0, []), probes(T0, "leaked", "eth0")]
    summary = summarize(entries, "wlan0")
    (departure,) = summary.departures
    assert departure.from_the_beginning
    assert departure.end_ns is None
    overall = flight_result(flight(tmp_path), summary).results[0]
    assert "it was so when the recorder began" in overall.observed


def test_an_agent_that_ends_is_no_departure(tmp_path: Path) -> None:
    nowhere: list[list[str | None]] = [["icmp, as to 198.51.100.1", None, "agent: Network is unreachable"]]
    entries = [
        way(T0, [], []), probes(T0, "as-intended", "wlan0"), way(T0 + S, nowhere, ["link eth0 down (agent)"]),
        {"t": T0 + S + S // 100, "kind": "agent", "away": True, "why": "its interface is gone"},
        way(T0 + S + S // 50, [], []), {"t": T0 + 3 * S, "kind": "agent", "away": False, "why": "it is back"},
        {"t": T0 + 9 * S, "kind": "end", "why": "SIGTERM"},
    ]  # fmt: skip
    packets, watch = flight_result(flight(tmp_path), summarize(entries, "wlan0")).results
    assert packets.verdict is Verdict.PASS
    assert watch.verdict is Verdict.ADVISORY
    assert "the agent was away (its interface is gone) from" in watch.observed


@pytest.mark.parametrize(("seconds", "verdict"), [(3, Verdict.ADVISORY), (8, Verdict.FAIL)])
def test_a_silence_fails_when_it_lasts_longer_than_the_intent_allows(
    seconds: int, verdict: Verdict, tmp_path: Path
) -> None:
    nowhere: list[list[str | None]] = [["icmp, as to 198.51.100.1", None, "wlan0 is down, or has no carrier"]]
    entries = [
        way(T0, [], []), probes(T0, "as-intended", "wlan0"),
        way(T0 + S, nowhere, ["link wlan0 down"]), way(T0 + S + seconds * S, [], ["link wlan0 up, carrier"]),
    ]  # fmt: skip
    single = flight_result(flight(tmp_path), summarize(entries, "wlan0")).results[1]
    assert single.verdict is verdict
    assert "left nowhere" in single.observed


def test_the_page_has_a_short_silence_among_what_is_at_risk_and_a_leak_among_what_to_fix(tmp_path: Path) -> None:
    nowhere: list[list[str | None]] = [["icmp, as to 198.51.100.1", None, "wlan0 is down, or has no carrier"]]
    silence = [
        way(T0, [], []), way(T0 + S, nowhere, ["link wlan0 down"]), way(T0 + 2 * S, [], ["link wlan0 up, carrier"]),
    ]  # fmt: skip
    result = flight_result(flight(tmp_path), summarize([*silence, *flap(T0 + 60 * S)], "wlan0"))
    (leak,) = reported_causes(result, Verdict.FAIL)
    assert leak.code == "EGRESS_CHANGED"
    assert "left by eth0" in leak.text
    assert [each.case is None for each in leak.results] == [True, False]
    assert any("left nowhere" in cause.text for cause in reported_causes(result, Verdict.ADVISORY))


def test_a_waiver_accepts_a_departure(tmp_path: Path) -> None:
    waive = '[[waive]]\ndiagnosis = "EGRESS_CHANGED"\nreason = "known"\nuntil = 2999-01-01\n'
    entries = [way(T0, [], []), probes(T0, "as-intended", "wlan0"), *flap(T0 + 10 * S)]
    entries.append({"t": T0 + 60 * S, "kind": "end", "why": "the time is up"})
    result = flight_result(flight(tmp_path, waive), summarize(entries, "wlan0"))
    assert result.results[0].verdict is Verdict.FAIL
    assert exit_status(result) is ExitStatus.OK
    assert exit_status(flight_result(flight(tmp_path), summarize(entries, "wlan0"))) is ExitStatus.FAILED


def test_what_the_watch_missed_is_never_called_right(tmp_path: Path) -> None:
    entries = [way(T0, [], []), probes(T0, "as-intended", "wlan0"), {**count(T0 + S, {}), "lines_lost": 3}]
    watch = flight_result(flight(tmp_path), summarize(entries, "wlan0")).results[-1]
    assert watch.verdict is Verdict.INCONCLUSIVE
    assert "3 lines could not be written" in watch.observed
    entries = [way(T0, [], []), {"t": T0 + S, "kind": "end", "why": "an error: ENOMEM", "failed": True}]
    watch = flight_result(flight(tmp_path), summarize(entries, "wlan0")).results[-1]
    assert (watch.verdict, watch.observed) == (
        Verdict.INCONCLUSIVE, "the recorder ended before its time: an error: ENOMEM",
    )  # fmt: skip
    nothing = flight_result(flight(tmp_path), summarize([], "wlan0")).results[0]
    assert nothing.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("damage", "verdict", "observed"),
    [
        (lambda text: text.replace(b'{"t":1790000000000000000,"kind":"probe"', b"XXXX"), Verdict.INCONCLUSIVE,
         "record-00000001.jsonl: line 3 cannot be read: what the record says there is unknown"),
        (lambda text: text.replace(b'"wrong"', b'"wr0ng"', 1), Verdict.INCONCLUSIVE, "line 2 cannot be read: what"),
        (lambda text: text[:-20], Verdict.INCONCLUSIVE, "line 3 cannot be read: what"),
        (lambda text: text + b"x" * 200_000 + b"\n", Verdict.INCONCLUSIVE, "line 4 cannot be read: what"),
        (lambda text: text.partition(b"\n")[0] + b"\n" + text.split(b"\n", 2)[2], Verdict.INCONCLUSIVE,
         "record-00000001.jsonl: 1 line is missing, the first before line 2: what"),
        (lambda _text: None, Verdict.INCONCLUSIVE, "record-00000002.jsonl is missing: what"),
        (lambda text: text, Verdict.PASS, "60.0 s without an interruption"),
    ],
)  # fmt: skip
def test_damage_to_the_record_is_named(
    damage: Callable[[bytes], bytes | None], verdict: Verdict, observed: str, tmp_path: Path
) -> None:
    parts = [
        [{"t": T0, "kind": "start"}, way(T0, [], []), probes(T0, "as-intended", "wlan0")],
        [count(T0 + S, {"wlan0": 9})],
        [{"t": T0 + 60 * S, "kind": "end", "why": "the time is up"}],
    ]
    folder = tmp_path / "state"
    for part in parts:
        record = RecordFile(folder, 1 << 20)
        for entry in part:
            record.write(entry)
        record.close()
    first, middle, _last = sorted(folder.glob("record-*"))
    damaged = damage(first.read_bytes())
    if damaged is None:
        middle.unlink()
    else:
        first.write_bytes(damaged)
    result = flight_result(flight(tmp_path), flight_summary.summarize(read_lines(folder), "wlan0"))
    watch = result.results[-1]
    assert watch.verdict is verdict
    assert observed in watch.observed


def test_a_recorder_that_was_killed_while_it_wrote_is_an_interruption(record: RecordFile, tmp_path: Path) -> None:
    record.write({"t": T0, "kind": "start"})
    segment = next(record.folder.glob("record-*"))
    with segment.open("ab") as cut_short:
        cut_short.write(b'{"t":1,"kind":"wa')
    (record.folder / "record-00000002.jsonl").write_text(
        json.dumps({"t": T0 + S, "kind": "resume", "since": T0}) + "\n"
    )
    summary = flight_summary.summarize(read_lines(record.folder), "wlan0")
    watch = flight_result(flight(tmp_path), summary).results[-1]
    assert watch.verdict is Verdict.ADVISORY
    assert "record-00000001.jsonl: line 2 cannot be read: the recorder was killed while it wrote" in watch.observed
