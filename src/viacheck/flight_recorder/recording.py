"""The recorder at work: waits for announcements, samples the counters, sends the rounds, and writes what it saw.

One thread does all of it and sleeps between; only announcements are received, and the engine is asked, in threads of
their own. Every kind of line has a budget, so that no storm of changes fills the record or a processor.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.flight_recorder.egress_ways import EgressWays, KernelEvent, WaysAt, WrongWay, same_ways
from viacheck.flight_recorder.probe_rounds import ProbeRounds, RoundResult
from viacheck.flight_recorder.record_file import Entry, RecordFile
from viacheck.flight_recorder.uplink_counts import UplinkCounts
from viacheck.flight_recorder.watch_plan import Place, WatchPlan, watch_plan
from viacheck.host.docker import EngineProblem
from viacheck.host.namespace import Namespace
from viacheck.model.snapshot import Snapshot
from viacheck.packets.tokens import TokenSpace
from viacheck.targets.namespace_target import NamespaceTarget

SAMPLE = 1.0
"""Seconds from one reading of the counters to the next."""
ROUND_TICK = 0.02
"""Seconds from one reading of the captures to the next while a round is under way."""
CAUSE_WITHIN = 2_000_000_000
"""Nanoseconds before a change of the way in which an announcement may be its cause."""
CAUSES = 8
RECENT = 64
"""Announcements that are remembered, to be written when the way changes."""
SECONDS_ASLEEP = 2.0
"""A clock that jumps by more than that was set, or the host was asleep."""
SECONDS_LATE = 5.0
"""A sample that is later than that was not late by a busy machine alone."""
AGENT_TICK = 1.0
"""Seconds from one search for the agent to the next while it is away."""
INTERFACES_TICK = 5.0
"""Seconds from one look at all interfaces to the next at least."""
LEAK_LINES = 10
"""Lines about packets that leave elsewhere while no way is wrong; after that a line in each interval has the number."""


@dataclass(slots=True)
class Budget:
    """So many lines at once, and so many in a second for as long as it lasts."""

    most: float
    each_second: float
    left: float = field(init=False)
    refused: int = 0
    """Lines that were refused since :meth:`take_refused`."""
    _filled: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.left = self.most

    def take(self) -> bool:
        """Return whether a line may be written."""
        now = time.monotonic()
        self.left = min(self.most, self.left + (now - self._filled) * self.each_second)
        self._filled = now
        if self.left < 1:
            self.refused += 1
            return False
        self.left -= 1
        return True

    def take_refused(self) -> int:
        """Return how many lines were refused since the last call."""
        refused, self.refused = self.refused, 0
        return refused


class Recording:
    """A recorder under way."""

    def __init__(
        self,
        target: NamespaceTarget,
        record: RecordFile,
        *,
        interval: float,
        say: Callable[[str], None],
    ) -> None:
        """Watch nothing yet.

        Args:
            target: a lab or this host; its agent must be open.
            record: where the lines go.
            interval: seconds from one round of probes to the next.
            say: prints a line for a person.
        """
        self._target, self._record, self._interval, self._until_ns = target, record, interval, 0
        self._say = say
        self._ended: str | None = None
        self._woken = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wrong: Mapping[int, WrongWay] = {}
        self._recent: deque[KernelEvent] = deque(maxlen=RECENT)
        self._unwritten: list[KernelEvent] = []
        self._event_lines, self._way_lines = Budget(300, 1), Budget(200, 1)
        self._extra_rounds = Budget(8, 0.2)
        self._events = 0
        self._leak_lines = 0
        self._failed_lines = 0
        self._round_wanted: str | None = None
        self._round_why = ""
        self._agent_away = False
        self._agent_search: Future[bool | None] | None = None
        self._searcher = ThreadPoolExecutor(1, thread_name_prefix="agent-search")
        self._search_at = self._interfaces_at = 0.0
        self._interfaces_changed = False
        self._rounds: ProbeRounds | None = None
        self.resolved: ResolvedIntent
        self.plan: WatchPlan

    def end(self, why: str) -> None:
        """End the recording soon; a signal handler may call this."""
        self._ended = self._ended or why
        with contextlib.suppress(OSError):
            os.eventfd_write(self._woken, 1)

    def open(self) -> None:
        """Open the listeners, the captures and the counters. :meth:`run` closes them.

        Raises:
            OSError: the kernel refuses a socket.
        """
        self._open(self._target.snapshot)

    @property
    def not_counted(self) -> dict[str, str]:
        """Why the agent's packets are not counted, by interface."""
        return self._counts.not_counted

    @property
    def remarks(self) -> list[str]:
        """What the watch leaves out, or holds beside the agent's own packets."""
        more = [self.plan.count_remark] if self.plan.count_remark is not None and len(self.not_counted) == 0 else []
        unsure = self._ways.not_replayed
        if unsure:
            more.append(
                f"the model does not see what the kernel does, so the kernel alone is asked: {'; '.join(unsure)}"
            )
        return [*self.plan.remarks, *more]

    def run(self, entry: Entry, until_ns: int) -> str:
        """Record until the time is up, or until :meth:`end`; return why it ended.

        Args:
            entry: the first line, which says why the recording begins.
            until_ns: since the epoch, when the recording ends.
        """
        self._until_ns = until_ns
        try:
            self._write(entry)
            wrong = self._ways.now()
            # After a restart the record must show how it is now, also where it is right.
            self._change(WaysAt(time.time_ns(), wrong), (), always=True)
            self._loop()
            self._finish()
        except OSError as error:
            # What was recorded so far is reported all the same.
            self._ended = f"an error: {error}"
            self._write({"t": time.time_ns(), "kind": "end", "why": self._ended, "failed": True})
            self._record_synced()
        finally:
            self._close()
        return self._ended or "the time is up"

    def _open(self, snapshot: Snapshot) -> None:
        """Open listeners, captures and counters for the present state."""
        self.resolved = ResolvedIntent(self._target.intent, snapshot)
        self.plan = watch_plan(self.resolved)
        namespaces: dict[Place, Namespace] = {"host": self._target.host}
        agent = self._target.agent
        if agent is not None and not self.resolved.shares_host_network:
            namespaces["agent"] = agent
        self._ways = EgressWays(self.plan, namespaces)
        tokens = TokenSpace()
        self._counts = UplinkCounts(self._target.host, agent, self.plan, tokens.marks)
        self._rounds = None
        if agent is not None:
            self._rounds = ProbeRounds(self._target.host, agent, self.resolved, self.plan, tokens)

    def _close_watch(self) -> None:
        self._ways.close()
        self._counts.close()
        if self._rounds is not None:
            self._rounds.close()

    def _close(self) -> None:
        self._close_watch()
        self._searcher.shutdown(wait=False, cancel_futures=True)
        os.close(self._woken)

    def _loop(self) -> None:
        now = time.monotonic()
        next_sample, next_round, tick_of = now + SAMPLE, now + self._interval, time.time_ns() / 1e9 - now
        # Also a short recording on a busy machine has one round.
        self._begin_round("interval")
        while self._ended is None and time.time_ns() < self._until_ns:
            now = time.monotonic()
            if now >= next_sample:
                asleep = time.time_ns() / 1e9 - now - tick_of
                late = now - next_sample
                if abs(asleep) > SECONDS_ASLEEP or late > SECONDS_LATE:
                    self._note_pause(asleep, late)
                    tick_of += asleep
                self._sample()
                next_sample = now + SAMPLE
            if now >= next_round and not self._under_way:
                self._begin_round("interval")
                self._write_counts()
                missed = int((now - next_round) // self._interval)
                next_round += (missed + 1) * self._interval
            elif self._round_wanted is not None and not self._under_way:
                self._begin_round(self._round_wanted)
            self._wait(min(next_sample, next_round if not self._under_way else now + ROUND_TICK) - now)
            self._take_events()
            if self._under_way:
                self._read_round()
            self._look_after_agent()
            self._look_after_interfaces()

    def _wait(self, seconds: float) -> None:
        poll = select.poll()
        for descriptor in (self._woken, *self._ways.descriptors):
            poll.register(descriptor, select.POLLIN)
        until = (self._until_ns - time.time_ns()) / 1e9
        poll.poll(max(0.0, min(seconds, until, ROUND_TICK if self._under_way else seconds)) * 1000)

    @property
    def _under_way(self) -> bool:
        return self._rounds is not None and self._rounds.under_way

    # --- What is announced ---

    def _take_events(self) -> None:
        """Write what was announced, and every change of the way."""
        trigger: list[KernelEvent] = []
        agent_gone = False
        for step in self._ways.take():
            if isinstance(step, KernelEvent):
                self._note_event(step)
                if step.moves:
                    trigger.append(step)
                agent_gone = agent_gone or self._is_agents(step)
            elif not agent_gone:
                self._change(step, trigger)
                trigger = []
        if agent_gone and not self._agent_away:
            self._lose_agent("its interface is gone")

    def _is_agents(self, event: KernelEvent) -> bool:
        if event.link_gone is None:
            return False
        if event.place == "agent":
            return event.link_gone == self.plan.agent_interface
        return event.link_gone in self.plan.agent_ports

    def _note_event(self, event: KernelEvent) -> None:
        self._recent.append(event)
        self._events += 1
        outside = event.place == "host" and (event.new_link or event.link_gone)
        if outside and outside not in self.plan.agent_ports:
            self._interfaces_changed = True
        if event.lost or self._event_lines.take():
            self._write_event(event)
        else:
            # They are written after all if the way changes soon.
            self._unwritten = [*self._unwritten, event][-CAUSES:]

    def _write_event(self, event: KernelEvent) -> None:
        kind = "overrun" if event.lost else "event"
        self._write({"t": event.time_ns, "kind": kind, "place": event.place, "text": event.text})

    def _change(self, step: WaysAt, trigger: Sequence[KernelEvent], *, always: bool = False) -> None:
        """Write a change of the way, with what was announced before it."""
        if same_ways(step.wrong, self._wrong) and not always:
            return
        was_right, self._wrong = not self._wrong, step.wrong
        if not self._way_lines.take():
            return
        left, expected, since_ns = self._counts.take()
        for event in self._unwritten:
            self._write_event(event)
        self._unwritten = []
        texts = {each.number: each.text for each in self.plan.classes}
        self._write({
            "t": step.time_ns, "kind": "way", "since": since_ns, "left": left, "expected": expected,
            "wrong": [[texts[number], way.interface, way.text] for number, way in step.wrong.items()],
            "because": list(dict.fromkeys(self._causes(step.time_ns, trigger))),
            "first": always, "unwritten": self._way_lines.take_refused(),
        })  # fmt: skip
        self._say_change(step, was_right=was_right)
        if not always and self._extra_rounds.take():
            self._round_wanted = "the way changed"

    def _causes(self, time_ns: int, trigger: Sequence[KernelEvent]) -> Iterator[str]:
        """Yield the announcements that moved the packets; else those shortly before."""
        moved = [event for event in trigger if event.time_ns <= time_ns][-CAUSES:]
        near = [event for event in self._recent if 0 <= time_ns - event.time_ns <= CAUSE_WITHIN and event.moves]
        for event in moved or near[-CAUSES:]:
            yield f"{event.text}{' (agent)' if event.place == 'agent' else ''}"

    def _say_change(self, step: WaysAt, *, was_right: bool) -> None:
        if step.wrong:
            ways = sorted({f"by {way.interface}" if way.interface else "nowhere" for way in step.wrong.values()})
            self._say(f"the agent's packets leave {' and '.join(ways)}, not by {self.plan.uplink}")
        elif not was_right:
            self._say(f"the agent's packets leave by {self.plan.uplink} again")

    # --- What is counted ---

    def _sample(self) -> None:
        """Read the counters; write at once that packets left elsewhere while every way was right."""
        elsewhere = self._counts.read()
        if self._rounds is not None:
            self._rounds.close_answered()
        if self._wrong or not elsewhere:
            self._leak_lines = 0 if not elsewhere else self._leak_lines
            return
        self._leak_lines += 1
        if self._leak_lines <= LEAK_LINES:
            left, expected, since_ns = self._counts.take()
            near = [event for event in self._recent if time.time_ns() - event.time_ns <= CAUSE_WITHIN]
            self._write({
                "t": time.time_ns(), "kind": "elsewhere", "since": since_ns, "left": left, "expected": expected,
                "near": [event.text for event in near[-CAUSES:]],
            })  # fmt: skip

    def _write_counts(self) -> None:
        left, expected, since_ns = self._counts.take()
        self._write({
            "t": time.time_ns(), "kind": "count", "since": since_ns, "left": left, "expected": expected,
            "sent": self._counts.take_sent(), "events": self._events, "unwritten": self._event_lines.take_refused(),
        })  # fmt: skip
        self._events = 0
        self._record_synced()

    def _note_pause(self, asleep: float, late: float) -> None:
        """Write that the clock was set, or that this process or the whole host did not run."""
        now = time.time_ns()
        why = (
            "the host was asleep, or its clock was set" if abs(asleep) > SECONDS_ASLEEP else "the recorder did not run"
        )
        self._write({"t": now, "kind": "pause", "seconds": round(max(asleep, late, 0.0), 3), "why": why})

    # --- What is sent ---

    def _begin_round(self, why: str) -> None:
        self._round_wanted = None
        if self._rounds is None or self._agent_away:
            return
        if self._rounds.spent:
            self._reopen(self.resolved.snapshot)
        self._round_why = why
        try:
            self._rounds.launch()
        except OSError as error:
            self._write({"t": time.time_ns(), "kind": "not-sent", "why": error.strerror or str(error)})

    def _read_round(self) -> None:
        assert self._rounds is not None
        result = self._rounds.read()
        if result is None:
            return
        bad = [probe for probe in result.probes if probe.outcome not in ("as-intended", "late")]
        confirmed = self._round_why == "repeat"
        self._write_round(result, confirmed=confirmed)
        unclear = any(probe.outcome != "leaked" for probe in bad)
        if unclear and not confirmed and not self._wrong and self._extra_rounds.take():
            self._round_wanted = "repeat"
        # The agent may have restarted: its namespace is then another one.
        self._search_agent()

    def _write_round(self, result: RoundResult, *, confirmed: bool) -> None:
        texts = {each.number: each.text for each in self.plan.classes}
        self._write({
            "t": result.probes[0].time_ns if result.probes else time.time_ns(), "kind": "probe", "why": self._round_why,
            "sent": len(result.probes), "confirmed": confirmed, "unproven": dict(result.unproven),
            "refused": result.refused,
            "seen": [
                [probe.time_ns, texts[probe.number], probe.outcome, probe.interface, probe.source]
                for probe in result.probes
            ],
        })  # fmt: skip

    # --- The agent and the interfaces come and go ---

    def _lose_agent(self, why: str) -> None:
        """Go on without the agent until it is back."""
        self._agent_away = True
        self._write({"t": time.time_ns(), "kind": "agent", "away": True, "why": why})
        self._say("the agent is away")
        # As long as anything here is open in its namespace, the kernel keeps that, and the interfaces in it.
        self._target.leave_agent()
        self._reopen(self.resolved.snapshot)
        self._change(WaysAt(time.time_ns(), self._ways.now()), ())

    def _look_after_agent(self) -> None:
        """Search for an agent that is away, and take the result of a search."""
        if self._agent_away and time.monotonic() >= self._search_at:
            self._search_at = time.monotonic() + AGENT_TICK
            self._search_agent()
        if self._agent_search is None or not self._agent_search.done():
            return
        search, self._agent_search = self._agent_search, None
        try:
            replaced = search.result()
        except EngineProblem:
            return
        if replaced is None and not self._agent_away:
            self._lose_agent("it is not there")
        elif replaced or (replaced is False and self._agent_away):
            self._find_agent()

    def _search_agent(self) -> None:
        if self._agent_search is None:
            self._agent_search = self._searcher.submit(self._target.agent_was_replaced)

    def _find_agent(self) -> None:
        """Watch the agent's present namespace."""
        snapshot = self._target.renew_agent()
        if self._target.agent is None:
            if not self._agent_away:
                # It has gone since it was found, and its former namespace is left.
                self._lose_agent("it is not there")
            return
        self._agent_away = False
        self._reopen(snapshot)
        self._write({"t": time.time_ns(), "kind": "agent", "away": False, "why": "it is back"})
        self._say("the agent is back")
        self._change(WaysAt(time.time_ns(), self._ways.now()), ())

    def _look_after_interfaces(self) -> None:
        """Watch interfaces that appeared, or that were created again."""
        if not self._interfaces_changed or self._agent_away or time.monotonic() < self._interfaces_at:
            return
        self._interfaces_changed, self._interfaces_at = False, time.monotonic() + INTERFACES_TICK
        resolved = ResolvedIntent(self._target.intent, self._target.read_state())
        if watch_plan(resolved) == self.plan and not self._counts.stale(resolved):
            return
        self._reopen(resolved.snapshot)
        self._write({"t": time.time_ns(), "kind": "interfaces", "watched": list(self.plan.interfaces)})
        self._change(WaysAt(time.time_ns(), self._ways.now()), ())

    def _reopen(self, snapshot: Snapshot) -> None:
        """Open everything for another state, and take what was announced and counted until now."""
        self._write_counts()
        former = (self._ways, self._counts, self._rounds)
        self._open(snapshot)
        for step in former[0].take():
            # The present listeners have received what came later as well.
            if isinstance(step, KernelEvent) and step.time_ns < self._ways.listening_ns:
                self._note_event(step)
        former[0].close()
        former[1].close()
        if former[2] is not None:
            former[2].close()

    # --- The record ---

    def _finish(self) -> None:
        while self._under_way:
            self._read_round()
            time.sleep(ROUND_TICK)
        self._take_events()
        self._counts.read()
        self._write_counts()
        self._write({"t": time.time_ns(), "kind": "end", "why": self._ended or "the time is up"})
        self._record_synced()

    def _write(self, entry: Entry) -> None:
        """Write a line. A full disk ends nothing: the lines that were lost are counted in the next one."""
        if self._failed_lines:
            entry = {**entry, "lines_lost": self._failed_lines}
        try:
            self._record.write(entry)
        except OSError as error:
            if not self._failed_lines:
                self._say(f"the record cannot be written: {error.strerror}")
            self._failed_lines += 1
        else:
            self._failed_lines = 0

    def _record_synced(self) -> None:
        with contextlib.suppress(OSError):
            self._record.sync()
