"""The parts of the flight recorder on a real kernel: what is counted, asked, received and replayed, in a lab."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from netns_lab.lab_specs import parse_labs
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.flight_recorder.egress_ways import EgressWays, KernelEvent
from viacheck.flight_recorder.flight_summary import summarize
from viacheck.flight_recorder.record_file import RecordFile, read_lines
from viacheck.flight_recorder.recording import Recording
from viacheck.flight_recorder.uplink_counts import UplinkCounts
from viacheck.flight_recorder.watch_plan import watch_plan
from viacheck.host.link_state import LinkReader
from viacheck.host.namespace import Namespace
from viacheck.netlink.event_listener import EventListener, ReceivedEvents
from viacheck.netlink.monitor import announced
from viacheck.packets.ebpf import CounterMap, CountingNotPossible
from viacheck.packets.packet_socket import PacketSender, close_in_background
from viacheck.packets.passive_count import ExpectedTraffic, PacketCount, PacketCounter, Sender
from viacheck.packets.probe_request import ProbeRequest
from viacheck.packets.probes import Prober
from viacheck.packets.tokens import TokenSpace
from viacheck.targets.namespace_target import NamespaceTarget

TARGET, OTHER = "198.51.100.1", "203.0.113.9"


@pytest.fixture(scope="module")
def lab() -> Iterator[NamespaceTarget]:
    with contextlib.closing(parse_labs("policy-routing")[0].open()) as target:
        assert isinstance(target, NamespaceTarget)
        yield target


def ip(namespace: Namespace, *commands: str) -> None:
    """Run ``ip`` commands by one process; none may fail."""
    result = namespace.run(["ip", "-batch", "-"], stdin="\n".join(commands) + "\n")
    assert result.ok, result.stderr


def send(namespace: Namespace, octets: int, *to: tuple[str, int]) -> None:
    """Send one datagram to each address."""

    def send_all() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for address in to:
                sender.sendto(b"x" * octets, address)

    namespace.call(send_all)


@contextlib.contextmanager
def counter(
    namespace: Namespace, name: str, sender: Sender, *expected: ExpectedTraffic
) -> Iterator[Callable[[], PacketCount]]:
    """Count on an interface."""
    opener = namespace.call(PacketSender)
    with contextlib.closing(LinkReader(namespace, opener.fileno())) as links:
        status = links.read(name)
    close_in_background([opener])
    with contextlib.closing(namespace.call(lambda: PacketCounter(status, sender, expected))) as opened:
        yield opened.read


def patiently() -> Iterator[None]:
    """Yield for 20 s at most, with short pauses: what is waited for comes at once, except on a busy machine."""
    deadline, pause = time.monotonic() + 20, threading.Event()
    while time.monotonic() < deadline:
        yield
        pause.wait(0.005)
    pytest.fail("waited in vain")


def bridge_index(lab: NamespaceTarget) -> int:
    link = lab.snapshot.host.link("docker0")
    assert link is not None
    return link.index


# --- The counters ---


def test_the_agents_packets_are_told_from_the_hosts_own_behind_nat(lab: NamespaceTarget) -> None:
    assert lab.agent is not None
    with counter(lab.host, "wlan0", Sender(arrived_on=(bridge_index(lab),))) as on_uplink:
        send(lab.agent, 100, *[(TARGET, 9)] * 40)
        assert on_uplink() == PacketCount(40, 0)
        lab.host.run(["ip", "route", "add", "203.0.113.0/24", "via", "10.10.50.1"])
        send(lab.host, 100, *[(OTHER, 9)] * 7)
        lab.host.run(["ip", "route", "del", "203.0.113.0/24"])
        assert on_uplink() == PacketCount(40, 0)
    with counter(lab.agent, "eth0", Sender()) as sent:
        send(lab.agent, 0, *[(TARGET, 9)] * 3)
        assert sent() == PacketCount(3, 0)


def test_packets_that_may_leave_there_are_counted_apart(lab: NamespaceTarget) -> None:
    assert lab.agent is not None
    may = (
        ExpectedTraffic(IPv4Network("203.0.113.0/24"), socket.IPPROTO_UDP, (8000, 8010)),
        ExpectedTraffic(IPv4Network("192.0.2.0/25")),
        ExpectedTraffic(IPv6Network("2001:db8::/33"), socket.IPPROTO_TCP, (80, 80)),
    )
    sent = {
        (OTHER, 7999): 1, (OTHER, 8000): 2, (OTHER, 8010): 4, (OTHER, 8011): 8, ("192.0.2.127", 1): 16,
        ("192.0.2.128", 1): 32,
    }  # fmt: skip
    with counter(lab.host, "wlan0", Sender(arrived_on=(bridge_index(lab),)), *may) as read:
        send(lab.agent, 1, *[address for address, number in sent.items() for _ in range(number)])
        assert read() == PacketCount(1 + 8 + 32, 2 + 4 + 16)


def test_our_own_probes_are_not_counted(lab: NamespaceTarget) -> None:
    assert lab.agent is not None
    tokens = TokenSpace()
    sender = Sender(arrived_on=(bridge_index(lab),), not_probes=tokens.marks)
    requests = [ProbeRequest(protocol=protocol, destination=TARGET, count=3) for protocol in ("icmp", "udp", "tcp")]
    with counter(lab.host, "wlan0", sender) as read:
        Prober(lab.agent, tokens).send_many(requests)
        # Short datagrams end before a probe's mark would.
        for octets in (0, 3, 4, 200):
            send(lab.agent, octets, (TARGET, 9))
        assert read() == PacketCount(4, 0)


def test_a_bridged_agent_is_counted_by_its_mac_address() -> None:
    with contextlib.closing(parse_labs("macvlan")[0].open()) as target:
        assert isinstance(target, NamespaceTarget)
        assert target.agent is not None
        plan = watch_plan(target.resolved)
        assert plan.not_counted == {}
        with counter(target.host, plan.uplink, plan.senders[plan.uplink]) as read:
            send(target.agent, 10, *[(TARGET, 9)] * 5)
            send(target.host, 10, *[(TARGET, 9)] * 3)
            assert read().left == 5


def test_a_process_without_the_right_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("viacheck.packets.ebpf._SYSCALL", None)
    with pytest.raises(CountingNotPossible, match=r"bpf\(2\) has no number here"):
        CounterMap(1)


# --- Announcements ---


def test_lost_announcements_are_reported(lab: NamespaceTarget) -> None:
    listener = EventListener(lab.host)
    try:
        # More than the socket can hold, before the thread begins to receive.
        ip(lab.host, *(f"link set dev eth0 alias number-{number}" for number in range(2000)))
        listener.start()
        received: list[ReceivedEvents] = []
        for _ in patiently():
            received += listener.take()
            if any(events.datagram is None for events in received):
                break
        texts = set[str]()
        for _ in patiently():
            # The socket may still be full.
            ip(lab.host, "rule add from 192.0.2.2 lookup 77 priority 19999", "rule del priority 19999")
            texts |= {text for events in listener.take() if events.datagram for text in announced(events.datagram, {})}
            if any(text.startswith("rule priority 19999 ") and text.endswith(" gone") for text in texts):
                break
    finally:
        listener.close()


# --- The recording ---


def test_an_error_ends_the_recording_with_what_it_has(
    lab: NamespaceTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_counts: UplinkCounts) -> int:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    with contextlib.closing(RecordFile(tmp_path / "state", 1 << 20)) as record:
        recording = Recording(lab, record, interval=60.0, say=lambda _line: None)
        recording.open()
        monkeypatch.setattr(recording, "_sample", lambda: refuse(recording._counts))
        why = recording.run({"t": time.time_ns(), "kind": "start"}, time.time_ns() + 60 * 10**9)
    assert why == f"an error: [Errno {errno.ENOMEM}] Cannot allocate memory"
    summary = summarize(read_lines(tmp_path / "state"), "wlan0")
    assert (summary.failed, summary.ended, summary.departures) == (True, why, [])


# --- The ways ---


@pytest.fixture
def ways(lab: NamespaceTarget) -> Iterator[EgressWays]:
    assert lab.agent is not None
    plan = watch_plan(ResolvedIntent(lab.intent, lab.read_state()))
    with contextlib.closing(EgressWays(plan, {"host": lab.host, "agent": lab.agent})) as opened:
        assert opened.now() == {}
        assert opened.not_replayed == []
        yield opened


def taken(ways: EgressWays, *last: str) -> tuple[list[str], list[set[str | None]]]:
    """Take everything up to an announcement that has these parts.

    Returns:
        The announcements, and where the classes that go wrong go.
    """
    texts: list[str] = []
    wrong: list[set[str | None]] = []
    for _ in patiently():
        if any(all(part in text for part in last) for text in texts):
            break
        for step in ways.take():
            if isinstance(step, KernelEvent):
                texts.append(step.text)
            else:
                wrong.append({way.interface for way in step.wrong.values()})
    return texts, wrong


def wait_for(ways: EgressWays, host: Namespace) -> None:
    """Wait until everything that was announced so far has been received, without taking it."""
    ip(host, "link set dev eth0 alias last")
    listener = ways._routings["host"].listener
    for _ in patiently():
        if any(b"last" in (events.datagram or b"") for events in list(listener._waiting)):
            break
    ip(host, "link set dev eth0 alias other")


RULE = "from 172.17.0.0/16 lookup 200"


def test_a_change_that_is_over_when_it_is_read_is_replayed(lab: NamespaceTarget, ways: EgressWays) -> None:
    ip(lab.host, f"rule del {RULE}", f"rule add {RULE} priority 31000")
    wait_for(ways, lab.host)
    texts, wrong = taken(ways, "priority 31000", "there")
    assert texts[0].endswith(f"{RULE} gone")
    assert wrong == [{"eth0"}, set()]


def test_a_silent_flush_is_replayed(lab: NamespaceTarget, ways: EgressWays) -> None:
    """The kernel announces none of the routes that go with a link."""
    back = "route add default via 10.10.50.1 dev wlan0 table 200"
    ip(lab.host, "link set wlan0 down", "link set wlan0 up", back)
    wait_for(ways, lab.host)
    _texts, wrong = taken(ways, "route", "via 10.10.50.1 dev wlan0 table 200", "there")
    assert {"eth0"} in wrong
    for _ in patiently():
        ways.take()
        if not ways.now():
            break


def test_changes_of_other_routes_ask_nothing(lab: NamespaceTarget, ways: EgressWays) -> None:
    ip(lab.host, "route add 192.0.2.64/32 dev eth0 table 200", "route del 192.0.2.64/32 table 200")
    ip(lab.host, "address add 192.0.2.65/32 dev eth0", "address del 192.0.2.65/32 dev eth0")
    texts, wrong = taken(ways, "address 192.0.2.65/32 of eth0 gone")
    assert len(texts) == 4
    assert wrong == []


def test_a_way_inside_the_agent_is_followed_too(lab: NamespaceTarget, ways: EgressWays) -> None:
    assert lab.agent is not None
    ip(lab.agent, "route add 198.51.100.0/24 dev lo")
    texts, wrong = taken(ways, "198.51.100.0/24 dev lo", "there")
    ip(lab.agent, "route del 198.51.100.0/24 dev lo")
    assert wrong[-1] == {"lo in the agent's namespace"}, texts
    taken(ways, "198.51.100.0/24 dev lo", "gone")
    assert ways.now() == {}
