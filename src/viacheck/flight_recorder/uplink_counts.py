"""The counters of all interfaces that lead out of the host, and how much they grew since they were last written."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import replace

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.flight_recorder.watch_plan import WatchPlan
from viacheck.host.link_state import LinkReader
from viacheck.host.namespace import Namespace
from viacheck.packets.bpf import ProbeMarks
from viacheck.packets.ebpf import CountingNotPossible
from viacheck.packets.packet_socket import PacketSender, close_in_background
from viacheck.packets.passive_count import NEVER_ELSEWHERE, ExpectedTraffic, PacketCount, PacketCounter, Sender


class UplinkCounts:
    """Counts from the moment that it is made."""

    def __init__(self, host: Namespace, agent: Namespace | None, plan: WatchPlan, probes: ProbeMarks) -> None:
        """Open a counter on each interface, and one on the agent's own interface; ``probes`` are not counted.

        Raises:
            OSError: EPERM without CAP_NET_RAW.
        """
        self._uplink = plan.uplink
        self.not_counted = dict(plan.not_counted)
        """Why the agent's packets are not counted, by interface."""
        self._counters: dict[str, PacketCounter] = {}
        self._sent: PacketCounter | None = None
        self._last: dict[str, PacketCount] = {}
        self._left: Counter[str] = Counter()
        self._expected: Counter[str] = Counter()
        self._last_sent = 0
        self._since_ns = time.time_ns()
        try:
            for name, sender in plan.senders.items():
                self._open(host, name, replace(sender, not_probes=probes), plan.expected[name])
            if agent is not None and plan.agent_interface is not None and plan.senders:
                ours = tuple(ExpectedTraffic(network) for network in NEVER_ELSEWHERE)
                self._sent = _open_counter(agent, plan.agent_interface, Sender(not_probes=probes), ours)
        except CountingNotPossible as error:
            self.close()
            self._counters, self._sent = {}, None
            self.not_counted |= dict.fromkeys(plan.interfaces, str(error))
        except BaseException:
            self.close()
            raise

    def _open(self, host: Namespace, name: str, sender: Sender, expected: tuple[ExpectedTraffic, ...]) -> None:
        counter = _open_counter(host, name, sender, expected)
        if counter is None:
            self.not_counted[name] = "it did not exist"
        else:
            self._counters[name] = counter
            self._last[name] = counter.read()

    def read(self) -> int:
        """Read all counters; return how many packets left elsewhere since the last reading."""
        elsewhere = 0
        for name, counter in self._counters.items():
            now, before = counter.read(), self._last[name]
            self._last[name] = now
            self._left[name] += now.left - before.left
            self._expected[name] += now.expected - before.expected
            elsewhere += now.left - before.left if name != self._uplink else 0
        return elsewhere

    def take(self) -> tuple[dict[str, int], dict[str, int], int]:
        """Read all counters; return the packets that left by each interface since the last call, and since when.

        The second part are packets that may leave there: to its own network, or as the intent excepts them.
        """
        self.read()
        taken = (
            {name: number for name, number in self._left.items() if number},
            {name: number for name, number in self._expected.items() if number},
            self._since_ns,
        )
        self._left.clear()
        self._expected.clear()
        self._since_ns = time.time_ns()
        return taken

    def take_sent(self) -> int | None:
        """Return how many packets the agent sent since the last call; None where they are not counted."""
        if self._sent is None:
            return None
        before, self._last_sent = self._last_sent, self._sent.read().left
        return self._last_sent - before

    def stale(self, resolved: ResolvedIntent) -> bool:
        """Whether an interface that is counted was created again, or has come to exist since."""
        indexes = {link.name: link.index for link in resolved.snapshot.host.links}
        created = any(name in indexes and reason == "it did not exist" for name, reason in self.not_counted.items())
        return created or any(
            indexes.get(name, counter.index) != counter.index for name, counter in self._counters.items()
        )

    def close(self) -> None:
        """Stop counting."""
        for counter in (*self._counters.values(), *([self._sent] if self._sent is not None else [])):
            counter.close()


def _open_counter(
    namespace: Namespace, name: str, sender: Sender, expected: tuple[ExpectedTraffic, ...]
) -> PacketCounter | None:
    """Open a counter; return None where the interface does not exist."""
    opener = namespace.call(PacketSender)
    try:
        with contextlib.closing(LinkReader(namespace, opener.fileno())) as links:
            status = links.read(name)
        if status.condition == "missing":
            return None
        return namespace.call(lambda: PacketCounter(status, sender, expected))
    finally:
        close_in_background([opener])
