"""The capture socket under scapy: sniffers, writers and bridges use it, and a watch's proof loses nothing by it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.paths import ROOT
from viacheck.host.namespace import Namespace
from viacheck.packets import bpf, packet_socket
from viacheck.packets.agent_probes import AgentProbes, PacketWatch
from viacheck.packets.background_load import BackgroundLoad
from viacheck.packets.capture import Watch
from viacheck.packets.packet_socket import PacketSender
from viacheck.packets.probe_request import ProbeRequest
from viacheck.packets.probes import Prober
from viacheck.packets.scapy_import import (
    IP,
    UDP,
    AsyncSniffer,
    Ether,
    Packet,
    PcapWriter,
    Raw,
    SuperSocket,
    bridge_and_sniff,
    rdpcap,
    sniff,
    wrpcap,
)
from viacheck.packets.scapy_socket import CaptureSocket, open_capture
from viacheck.packets.tokens import TokenSpace

TIMEOUT = 5.0
"""Seconds after which a sniffer gives up; none of the tests waits for it."""
ICMP_ONLY = bpf.assemble(
    [
        bpf.load(2, bpf.PROTOCOL),
        bpf.if_equal(0x0800, false="refuse"),
        bpf.load(1, bpf.NETWORK + 9),
        bpf.if_equal(socket.IPPROTO_ICMP, false="refuse"),
        bpf.accept(packet_socket.WHOLE_FRAME),
        "refuse",
        bpf.accept(0),
    ]
)


@pytest.fixture(scope="module")
def wires() -> Iterator[Namespace]:
    """A namespace with two cables: from left0 to left1, and from right0 to right1."""
    namespace = Namespace.create("wires")
    for side in ("left", "right"):
        assert namespace.run(f"ip link add {side}0 type veth peer name {side}1".split()).ok
        assert namespace.run(f"ip link set {side}0 up".split()).ok
        assert namespace.run(f"ip link set {side}1 up".split()).ok
    for interface in ("left0", "left1", "right0", "right1"):
        assert namespace.run(["sysctl", "-qw", f"net.ipv6.conf.{interface}.disable_ipv6=1"]).ok
    assert namespace.run(["ip", "address", "add", "10.0.0.1/24", "dev", "left0"]).ok
    assert namespace.run(["ip", "neighbour", "add", "10.0.0.2", "lladdr", "02:00:00:00:00:02", "dev", "left0"]).ok
    yield namespace
    namespace.close()


@pytest.fixture
def send(wires: Namespace) -> Iterator[Callable[..., None]]:
    """Sends packets by an interface, beside every socket under test."""
    sender = wires.call(PacketSender)

    def send(interface: str, *packets: Packet) -> None:
        index = wires.call(lambda: socket.if_nametoindex(interface))
        for packet in packets:
            octets = bytes(packet)
            sender.send(index, int.from_bytes(octets[12:14], "big"), octets)

    yield send
    sender.close()


def udp(number: int, octets: int = 1) -> Packet:
    packet = Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b") / IP(src="192.0.2.1", dst="192.0.2.2")
    return packet / UDP(sport=1000 + number, dport=9) / Raw(bytes(octets))


def icmp() -> Packet:
    return Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b") / IP(src="192.0.2.1", dst="192.0.2.2", proto=1)


def ports(packets: list[Packet]) -> list[int]:
    return [packet[UDP].sport - 1000 for packet in packets if UDP in packet]


def started(**sniffing: Any) -> Any:
    """Return a sniffer that has begun to sniff."""
    ready = threading.Event()
    sniffer = AsyncSniffer(started_callback=ready.set, **sniffing)
    sniffer.start()
    assert ready.wait(TIMEOUT)
    return sniffer


def test_sniff_returns_whole_packets_with_the_kernels_time(wires: Namespace, send: Callable[..., None]) -> None:
    with open_capture(wires, "left0") as capture:
        assert isinstance(capture, SuperSocket)
        before = time.time_ns()
        send("left1", *[udp(number, 1000) for number in range(70)])
        after = time.time_ns()
        packets = sniff(opened_socket=capture, count=70, timeout=TIMEOUT)
        assert ports(packets) == list(range(70)), "more than two batches of recvmmsg(2), none lost, in order"
        times = [int(packet.time * 10**9) for packet in packets]
        assert times == sorted(times)
        assert before <= times[0]
        assert times[-1] <= after
        assert len({moment % 1000 for moment in times}) > 1, "nanoseconds are kept"
        assert {(packet.direction, packet.wirelen, len(packet)) for packet in packets} == {(1, 1042, 1042)}
        assert not capture.closed, "sniff leaves a socket open that it did not open"
        send("left0", udp(99))
        packet = capture.recv()
        assert packet is not None
        assert (packet.sniffed_on, packet.direction, packet[UDP].sport) == ("left0", 2, 1099)
        assert capture.recv() is None, "recv does not wait"
        layer, octets, _moment = capture.recv_raw()
        assert (layer, octets) == (None, None)


def test_the_kernel_filter_keeps_other_frames_out(wires: Namespace, send: Callable[..., None]) -> None:
    with open_capture(wires, "left0", ICMP_ONLY) as capture:
        send("left1", udp(1), icmp(), udp(2), icmp())
        packets = sniff(opened_socket=capture, count=2, timeout=TIMEOUT)
        assert [packet[IP].proto for packet in packets] == [1, 1]
        assert capture.recv() is None


def test_async_sniffer_names_the_interface(wires: Namespace, send: Callable[..., None]) -> None:
    with open_capture(wires, "left0") as left, open_capture(wires, "right0") as right:
        sniffer = started(opened_socket={left: "left0", right: "right0"}, count=3)
        send("left1", udp(1))
        send("right1", udp(2))
        send("left1", udp(3))
        sniffer.join(timeout=TIMEOUT)
        seen = {(packet.sniffed_on, *ports([packet])) for packet in sniffer.results}
        assert seen == {("left0", 1), ("right0", 2), ("left0", 3)}


def test_files_hold_the_packets_with_their_time(wires: Namespace, send: Callable[..., None], tmp_path: Path) -> None:
    with open_capture(wires, "left0") as capture:
        send("left1", udp(1, 100), udp(2, 200))
        packets = sniff(opened_socket=capture, count=2, timeout=TIMEOUT)
    wrpcap(str(tmp_path / "packets.pcap"), packets)
    again = rdpcap(str(tmp_path / "packets.pcap"))
    assert [bytes(packet) for packet in again] == [bytes(packet) for packet in packets]
    with PcapWriter(str(tmp_path / "nano.pcap"), nano=True) as writer:
        writer.write(packets)
    assert [packet.time for packet in rdpcap(str(tmp_path / "nano.pcap"))] == [packet.time for packet in packets]


def test_bridge_and_sniff_carries_packets_over(wires: Namespace, send: Callable[..., None]) -> None:
    ready = threading.Event()
    with (
        open_capture(wires, "left1", outgoing=False) as left,
        open_capture(wires, "right1", outgoing=False) as right,
        open_capture(wires, "right0") as far,
    ):
        bridging = threading.Thread(
            target=bridge_and_sniff,
            args=(left, right),
            kwargs={"count": 1, "timeout": TIMEOUT, "started_callback": ready.set},
        )
        bridging.start()
        assert ready.wait(TIMEOUT)
        send("left0", udp(7, 1000))
        bridging.join()
        (packet,) = sniff(opened_socket=far, count=1, timeout=TIMEOUT)
        assert bytes(packet) == bytes(udp(7, 1000)), "the whole frame, once"
        assert far.recv() is None


def test_lost_frames_are_counted(wires: Namespace, send: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packet_socket, "RECEIVE_BUFFER", 4096)
    with open_capture(wires, "left0") as capture:
        send("left1", *[udp(number) for number in range(200)])
        packets = sniff(opened_socket=capture, timeout=0.05)
        lost = capture.frames_lost()
        assert lost > 0
        assert len(packets) + lost == 200
        assert capture.frames_lost() == 0, "each loss is counted once"


def test_a_sniffer_takes_nothing_away_from_a_watch(wires: Namespace) -> None:
    tokens = TokenSpace()
    watch = Watch(wires, ["left0", "right0"], tokens)
    with watch() as period:
        sniffer = started(opened_socket=period.sockets)
        exchange = Prober(wires, tokens).send(ProbeRequest(protocol="udp", destination="10.0.0.2", count=40), timeout=0)
        deadline = time.monotonic() + TIMEOUT
        while sniffer.count < 40 and time.monotonic() < deadline:
            time.sleep(0.001)
        sniffed = sniffer.stop()
    observation = period.observation
    assert exchange.refused == []
    assert len(observation.seen("left0")) == len(sniffed) == 40
    assert observation.unproven == {}
    assert observation.proven_absent("right0")[0]
    assert [packet.time for packet in sniffed] == [packet.time for packet in period.packets]
    assert {packet.sniffed_on for packet in sniffed} == {packet.sniffed_on for packet in period.packets} == {"left0"}
    watch.close()


def test_a_sniffer_that_never_stops_hides_no_fence_and_no_probe(wires: Namespace) -> None:
    tokens = TokenSpace()
    watch = Watch(wires, ["left0", "right0"], tokens)
    with BackgroundLoad(wires, "right0", 2000), watch() as period:
        sniffer = started(opened_socket=period.sockets)
        exchange = Prober(wires, tokens).send(ProbeRequest(protocol="udp", destination="10.0.0.2", count=40), timeout=0)
    sniffer.stop()
    assert exchange.refused == []
    assert len(period.observation.seen("left0")) == 40
    assert period.observation.unproven == {}
    with watch() as period:
        pass
    assert period.observation.frames == (), "frames of the last period do not come up in this one"
    watch.close()


def test_the_documented_sniffer_works(wires: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "own-checks.md").read_text()
    blocks = [block.partition("```")[0] for block in text.split("```python\n")[1:]]
    (example,) = (block for block in blocks if "AsyncSniffer" in block)
    tokens = TokenSpace()
    names = {
        "watch": PacketWatch(wires, tokens),
        "agent": AgentProbes(lambda: wires, tokens, timeout=0.05),
        "intent": SimpleNamespace(uplinks=("left0", "right0"), probe=SimpleNamespace(target="10.0.0.2")),
    }
    monkeypatch.chdir(tmp_path)
    exec(example, names)
    saved = rdpcap(str(tmp_path / "uplinks.pcap"))
    assert [bytes(packet) for packet in saved] == [packet.original for packet in names["seen"].packets]  # type: ignore[attr-defined]
    assert ports(saved) != []


def test_packets_of_an_observation_are_dissected_when_asked_for(wires: Namespace) -> None:
    tokens = TokenSpace()
    watch = Watch(wires, ["left0"], tokens)
    with watch() as period:
        Prober(wires, tokens).send(ProbeRequest(protocol="udp", destination="10.0.0.2", size=1200), timeout=0)
    observation = period.observation
    assert "packets" not in vars(observation)
    (packet,), (frame,) = observation.packets, observation.frames
    assert (packet[IP].dst, packet[UDP].dport) == ("10.0.0.2", 33434)
    assert int(packet.time * 10**9) == frame.time_ns
    assert (packet.sniffed_on, packet.direction, packet.comments) == ("left0", 2, [b"probe udp out"])
    assert (packet.wirelen, len(bytes(packet.original))) == (1214, packet_socket.SNAP_LENGTH)
    assert observation.packets is observation.packets
    watch.close()


def test_an_interface_without_ethernet_gives_ip_packets(wires: Namespace) -> None:
    assert wires.run(["ip", "tuntap", "add", "tun0", "mode", "tun"]).ok
    index = wires.call(lambda: socket.if_nametoindex("tun0"))
    accept = bpf.assemble([bpf.accept(64)])
    with wires.call(lambda: CaptureSocket(index, 65534, accept, interface="tun0")) as capture:
        assert not capture.ethernet
        with pytest.raises(OSError, match="Network is down"):
            capture.send(IP(src="192.0.2.1", dst="192.0.2.2") / UDP())
    assert wires.run(["ip", "link", "delete", "tun0"]).ok


def test_a_capture_that_cannot_be_opened_says_why(wires: Namespace, recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(OSError, match="No such device"):
        open_capture(wires, "nowhere0")
    with pytest.raises(OSError, match="No such device"):
        wires.call(lambda: CaptureSocket(9999, 1, ICMP_ONLY))
    assert list(recwarn) == []
