"""The watch: the frames that it sees, the absence that it proves, and the cases in which absence stays unproven."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_lab import nft_rules
from netns_lab.builder import build
from netns_lab.lab import Lab
from netns_lab.nft_rules import DropFrames
from netns_lab.scenarios import SCENARIOS
from viacheck.analysis.sightings import sound, unsound
from viacheck.host.namespace import Namespace
from viacheck.packets import packet_socket
from viacheck.packets.background_load import BackgroundLoad
from viacheck.packets.capture import Watch
from viacheck.packets.evidence import numbers_of, packets_evidence
from viacheck.packets.observation import Observation
from viacheck.packets.packet_socket import PacketSender
from viacheck.packets.probe_request import ProbeRequest
from viacheck.packets.probes import Exchange, Prober
from viacheck.packets.scapy_import import ICMP, IP, UDP, Ether, PcapNgReader, Raw
from viacheck.packets.tokens import FENCE_ETHERTYPE, TokenSpace

TARGET, TARGET6 = "198.51.100.1", "2001:db8:ffff::1"
PROTOCOLS = ("icmp", "udp", "tcp")
IFF_TUN, IFF_NO_PI, TUNSETIFF = 0x0001, 0x1000, 0x400454CA


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """An agent behind NAT whose packets leave by wlan0, while the default exit is eth0; IPv6 as well."""
    lab = build(SCENARIOS["policy-routing-hardened"]())
    # The gateway's link-local address may still be tentative, and its first neighbour solicitations get no answer.
    wlan0 = lab.plan.host.state.link("wlan0")
    assert wlan0 is not None
    assert wlan0.mac is not None
    lab.gateway("wlan0").ip("neighbour", "replace", "2001:db8:50::9", "lladdr", wlan0.mac, "dev", "lan0")
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def tokens() -> TokenSpace:
    return TokenSpace()


@pytest.fixture(scope="module")
def watch(lab: Lab, tokens: TokenSpace) -> Iterator[Watch]:
    watch = Watch(lab.host.namespace, ["eth0", "wlan0", "docker0"], tokens)
    yield watch
    watch.close()


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A host with two uplinks, left0 and right0, and nothing behind them but the other ends of the cables."""
    namespace = Namespace.create("host")
    for number, name in enumerate(("left0", "right0")):
        ip(namespace, f"link add {name} index {10 + number} type veth peer name far{number} index {20 + number}")
        ip(namespace, f"address add 10.0.{number}.9/24 dev {name}")
        ip(namespace, f"neighbour add 10.0.{number}.1 lladdr 02:00:00:00:00:0{number} dev {name}")
        ip(namespace, f"link set far{number} up")
        ip(namespace, f"link set {name} up")
        ip(namespace, f"neighbour replace 10.0.{number}.1 lladdr 02:00:00:00:00:0{number} dev {name}")
    ip(namespace, "route add default via 10.0.0.1 dev left0")
    yield namespace
    namespace.close()


def ip(namespace: Namespace, arguments: str) -> None:
    result = namespace.run(["ip", *arguments.split()])
    # A neighbour cannot be added before its interface is up; the second attempt counts.
    assert result.ok or "neighbour add" in arguments, result.stderr


def one_probe(host: Namespace, tokens: TokenSpace, **more: object) -> Exchange:
    return Prober(host, tokens).send(ProbeRequest(protocol="udp", destination=TARGET, **more), timeout=0)  # type: ignore[arg-type]


def consistent(observation: Observation) -> None:
    """Check that the observation and its plain record agree on soundness."""
    for watched in observation.watched:
        assert sound(watched) == (watched.interface not in observation.unproven)


@pytest.mark.parametrize(
    ("destination", "sources"),
    [(TARGET, {"10.10.50.9"}), (TARGET6, {"2001:db8:50::9", "fd00:17::2"})],
    ids=["IPv4", "IPv6"],
)
def test_tokens_survive_nat_and_the_other_uplink_is_proven_empty(
    lab: Lab, watch: Watch, tokens: TokenSpace, destination: str, sources: set[str]
) -> None:
    prober = Prober(lab.agent.namespace, tokens)
    with watch() as period:
        exchanges = prober.send_many(
            [
                ProbeRequest(protocol=protocol, destination=destination, count=3)
                for protocol in ("icmp", "udp", "tcp", "dns")
            ]
        )
    observation = period.observation
    consistent(observation)
    assert observation.proven_absent("eth0")[0], observation.proven_absent("eth0")
    assert observation.proven_absent("wlan0") == (False, "12 probes were seen leaving by wlan0")
    for exchange in exchanges:
        evidence = packets_evidence([exchange], observation)
        assert (evidence.sent, evidence.answered, evidence.refused) == (3, 3, [])
        seen = [
            (sighting.interface, sighting.direction, sighting.role, sighting.probe) for sighting in evidence.sightings
        ]
        for number in (1, 2, 3):
            hops = [(interface, direction, role) for interface, direction, role, probe in seen if probe == number]
            assert hops == [
                ("docker0", "in", "probe"),
                ("wlan0", "out", "probe"),
                ("wlan0", "in", "answer"),
                ("docker0", "out", "answer"),
            ]
        assert {
            sighting.source
            for sighting in evidence.sightings
            if (sighting.interface, sighting.direction) == ("wlan0", "out")
        } <= sources
        assert evidence.sightings[0].time >= 0
        assert unsound(evidence, ["eth0", "wlan0", "docker0"]) == []


def test_frames_have_their_addresses_and_their_whole_length(lab: Lab, watch: Watch, tokens: TokenSpace) -> None:
    with watch() as period:
        Prober(lab.agent.namespace, tokens).send(ProbeRequest(protocol="icmp", destination=TARGET, size=1200))
    (inside,) = period.observation.seen("docker0", "in")
    (outside,) = period.observation.seen("wlan0")
    assert (inside.length, len(inside.octets)) == (1200 + 14, packet_socket.SNAP_LENGTH)
    assert inside.source_mac == lab.plan.agent.state.links[0].mac
    assert (inside.source, outside.source, outside.destination) == ("172.17.0.2", "10.10.50.9", TARGET)


def test_an_icmp_error_names_its_router_and_the_mtu(lab: Lab, watch: Watch, tokens: TokenSpace) -> None:
    gateway = lab.gateway("wlan0")
    gateway.ip("route", "replace", "blackhole", "203.0.113.0/25")
    gateway.ip("link", "add", "narrow0", "type", "veth", "peer", "name", "narrow1")
    gateway.ip("link", "set", "narrow1", "up")
    gateway.ip("link", "set", "narrow0", "up", "mtu", "1300")
    gateway.ip("route", "replace", "203.0.113.128/25", "dev", "narrow0")
    gateway.sysctl("net/ipv4/ip_forward", "1")
    request = ProbeRequest(protocol="udp", destination="203.0.113.129", size=1500)
    with watch() as period:
        exchange = Prober(lab.agent.namespace, tokens).send(request)
    (error,) = period.observation.seen("wlan0", "in", "error")
    assert error.number == exchange.probes[0].token.number
    assert (error.note, error.mtu) == (
        "fragmentation needed (ICMP type 3 code 4), MTU 1300, reported by 10.10.50.1",
        1300,
    )
    assert [(answer.source, answer.note) for answer in exchange.errors] == [("10.10.50.1", error.note)]
    assert exchange.answered == 0


def test_an_error_that_quotes_eight_octets_is_matched_with_the_probes_seen(host: Namespace, tokens: TokenSpace) -> None:
    watch = Watch(host, ["left0", "right0"], tokens)
    sender = host.call(PacketSender)
    with watch() as period:
        exchange = one_probe(host, tokens, source_port=40000)
        quoted = IP(src="10.0.0.9", dst=TARGET, proto=17) / Raw(struct.pack(">HHHH", 40000, 33434, 16, 0))
        error = Ether(dst="ff:ff:ff:ff:ff:ff") / IP(src="10.0.0.1", dst="10.0.0.9") / ICMP(type=3, code=1) / quoted
        sender.send(20, 0x0800, bytes(error))
    (error,) = period.observation.seen("left0", "in", "error")
    assert error.number == exchange.probes[0].token.number
    sender.close()
    watch.close()


def test_lost_frames_leave_absence_unproven(
    host: Namespace, tokens: TokenSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packet_socket, "RECEIVE_BUFFER", 4096)
    watch = Watch(host, ["left0", "right0"], tokens)
    sender = host.call(PacketSender)
    stranger = Ether() / IP(src="10.0.0.1", dst="10.0.0.9") / ICMP(type=3) / IP() / UDP()
    with watch() as period:
        sender.burst(20, 0x0800, bytes(stranger), 500).send(500)
    observation = period.observation
    consistent(observation)
    proven, reason = observation.proven_absent("left0")
    assert not proven
    assert "frames were lost" in reason
    assert observation.proven_absent("right0")[0]
    sender.close()
    watch.close()


def test_a_fence_that_does_not_pass_leaves_absence_unproven(host: Namespace, tokens: TokenSpace) -> None:
    watch = Watch(host, ["left0", "right0"], tokens, fence_timeout=0.05)
    nft_rules.apply(host, "wall", [DropFrames(device="left0", direction="egress")])
    with watch() as period:
        one_probe(host, tokens)
    observation = period.observation
    consistent(observation)
    assert observation.seen("left0") == []
    proven, reason = observation.proven_absent("left0")
    assert (proven, reason) == (False, "left0: the fence frame could not be sent (No buffer space available)")
    assert observation.proven_absent("right0")[0]
    nft_rules.remove(host, "wall")
    with watch() as period:
        one_probe(host, tokens)
    assert len(period.observation.seen("left0")) == 1
    watch.close()


def test_a_fence_that_is_held_back_is_missed(host: Namespace, tokens: TokenSpace) -> None:
    watch = Watch(host, ["left0"], tokens, fence_timeout=0.05)
    rate = ["rate", "8bit", "burst", "100", "limit", "10000"]
    held = host.run(["tc", "qdisc", "add", "dev", "left0", "root", "tbf", *rate])
    if not held.ok:
        pytest.skip("this kernel has no token bucket filter")
    with watch() as period:
        one_probe(host, tokens, count=3)
    consistent(period.observation)
    assert period.observation.unproven["left0"] == "the fence frame was not seen within 0.05 s"
    watch.close()


def test_an_interface_that_is_down_or_without_carrier_or_missing_sends_nothing(
    host: Namespace, tokens: TokenSpace
) -> None:
    ip(host, "link set left0 down")
    ip(host, "link set far1 down")
    watch = Watch(host, ["left0", "right0", "nowhere0"], tokens)
    with watch() as period:
        pass
    observation = period.observation
    consistent(observation)
    assert [watched.state for watched in observation.watched] == ["down", "no-carrier", "missing"]
    assert observation.proven_absent("left0") == (True, "left0 was down all the time, and sent nothing")
    assert observation.proven_absent("right0")[0]
    assert observation.proven_absent("nowhere0")[0]
    assert observation.proven_absent("other0") == (False, "other0 was not watched")
    watch.close()


def test_an_interface_that_was_up_for_a_moment_does_not_count_as_down(host: Namespace, tokens: TokenSpace) -> None:
    ip(host, "link set left0 down")
    watch = Watch(host, ["left0", "right0"], tokens)
    with watch() as period:
        ip(host, "link set left0 up")
        ip(host, "route replace default via 10.0.0.1 dev left0")
        ip(host, "neighbour replace 10.0.0.1 lladdr 02:00:00:00:00:00 dev left0")
        one_probe(host, tokens)
        ip(host, "link set left0 down")
    observation = period.observation
    consistent(observation)
    assert len(observation.seen("left0")) == 1
    assert "left0" in observation.unproven
    watch.close()


def test_an_interface_that_comes_up_is_captured_from_its_first_frame(host: Namespace, tokens: TokenSpace) -> None:
    ip(host, "link set left0 down")
    watch = Watch(host, ["left0", "right0"], tokens)
    with watch() as period:
        ip(host, "link set left0 up")
        ip(host, "route replace default via 10.0.0.1 dev left0")
        ip(host, "neighbour replace 10.0.0.1 lladdr 02:00:00:00:00:00 dev left0")
        one_probe(host, tokens, count=3)
    observation = period.observation
    consistent(observation)
    assert len(observation.seen("left0")) == 3
    assert observation.unproven == {}
    watch.close()


def test_a_flap_within_a_period_loses_no_frame(host: Namespace, tokens: TokenSpace) -> None:
    watch = Watch(host, ["left0", "right0"], tokens)
    with watch() as period:
        one_probe(host, tokens)
        ip(host, "link set left0 down")
        refused = one_probe(host, tokens)
        period.read()
        ip(host, "link set left0 up")
        ip(host, "route replace default via 10.0.0.1 dev left0")
        ip(host, "neighbour replace 10.0.0.1 lladdr 02:00:00:00:00:00 dev left0")
        one_probe(host, tokens)
    observation = period.observation
    consistent(observation)
    assert refused.refused == ["ENETUNREACH"]
    assert len(observation.seen("left0")) == 2
    assert observation.proven_absent("right0")[0]
    assert observation.unproven == {}
    watch.close()


def test_a_recreated_interface_is_unproven_in_that_period_and_watched_in_the_next(
    host: Namespace, tokens: TokenSpace
) -> None:
    watch = Watch(host, ["left0", "right0", "late0"], tokens)
    with watch() as period:
        ip(host, "link delete right0")
        ip(host, "link add right0 type veth peer name far1")
        ip(host, "link set far1 up")
        ip(host, "link set right0 up")
        ip(host, "link add late0 type veth peer name far2")
        ip(host, "link set far2 up")
        ip(host, "link set late0 up")
    consistent(period.observation)
    assert period.observation.unproven == {
        "right0": "it was recreated during the watch",
        "late0": "it was created during the watch",
    }
    with watch() as period:
        for name in ("right0", "late0"):
            one_probe(host, tokens, device=name)
    assert period.observation.unproven == {}
    watch.close()


@pytest.mark.parametrize("name", ["we<ird", "wlän0", "a&b;$(x)'\"", "\udcff\udcfe"])
def test_interfaces_with_odd_names_are_watched(host: Namespace, tokens: TokenSpace, name: str, tmp_path: Path) -> None:
    ip(host, "link set left0 down")
    assert host.run(["ip", "link", "set", "left0", "name", name]).ok
    assert host.run(["ip", "link", "set", name, "up"]).ok
    assert host.run(["ip", "neighbour", "replace", "10.0.0.1", "lladdr", "02:00:00:00:00:00", "dev", name]).ok
    watch = Watch(host, [name, "right0"], tokens)
    with watch() as period:
        exchange = Prober(host, tokens).send(
            ProbeRequest(protocol="udp", destination="10.0.0.1", device=name), timeout=0
        )
    assert len(period.observation.seen(name)) == 1
    assert period.observation.proven_absent("right0")[0]
    path = tmp_path / "odd.pcapng"
    period.observation.write_capture(str(path), numbers_of([exchange]))
    with PcapNgReader(str(path)) as reader:
        assert [packet.sniffed_on for packet in reader] == [name.encode(errors="replace").decode()]
    watch.close()


@pytest.fixture
def tun(host: Namespace) -> Iterator[int]:
    """The descriptor of tun0, an interface without Ethernet headers that is up; nothing reads from it."""

    def make() -> int:
        descriptor = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
        return descriptor

    if not os.path.exists("/dev/net/tun"):
        pytest.skip("this kernel has no tun")
    descriptor = host.call(make)
    ip(host, "link set tun0 up txqueuelen 1")
    yield descriptor
    os.close(descriptor)


def test_a_fence_that_the_driver_refuses_after_captures_saw_it_is_a_proof(
    host: Namespace, tokens: TokenSpace, tun: int
) -> None:
    """As WireGuard does with whatever is no IP packet; this driver refuses a frame while its only place is taken."""
    assert host.run(["tc", "qdisc", "replace", "dev", "tun0", "root", "noqueue"]).ok
    ip(host, "address add 192.0.2.1/24 dev tun0")
    watch = Watch(host, ["tun0", "left0"], tokens, fence_timeout=0.05)
    sender = host.call(PacketSender)
    index = host.call(lambda: socket.if_nametoindex("tun0"))
    with contextlib.suppress(OSError):
        sender.send(index, FENCE_ETHERTYPE, b"none of ours", ethernet=False)
    with pytest.raises(OSError, match="No buffer space available"):
        sender.send(index, FENCE_ETHERTYPE, b"none of ours", ethernet=False)
    with watch() as period:
        one_probe(host, tokens)
    observation = period.observation
    consistent(observation)
    assert observation.proven_absent("tun0") == (
        True, "tun0: the capture saw the fence frame, lost no frame, and saw no probe",
    )  # fmt: skip
    # What is dropped before captures see it proves nothing, and the reason is the kernel's.
    nft_rules.apply(host, "wall", [DropFrames(device="tun0", direction="egress")])
    with watch() as period:
        one_probe(host, tokens)
    (unproven,) = (watched.unproven for watched in period.observation.watched if watched.interface == "tun0")
    assert unproven == "the fence frame could not be sent (No buffer space available)"
    assert period.observation.proven_absent("tun0") == (False, f"tun0: {unproven}")
    nft_rules.remove(host, "wall")
    sender.close()
    watch.close()


@pytest.mark.usefixtures("tun")
def test_a_tunnel_without_ethernet_header_is_watched_too(host: Namespace, tokens: TokenSpace, tmp_path: Path) -> None:
    ip(host, "route replace default dev tun0")
    watch = Watch(host, ["tun0", "left0", "lo"], tokens)
    with watch() as period:
        exchange = one_probe(host, tokens)
    (frame,) = period.observation.seen("tun0")
    assert (frame.protocol, frame.source_mac, period.observation.unproven) == ("udp", "", {})
    path = tmp_path / "tunnel.pcapng"
    period.observation.write_capture(str(path), numbers_of([exchange]))
    with PcapNgReader(str(path)) as reader:
        assert [type(packet).__name__ for packet in reader] == ["IP"]
    watch.close()


def test_a_period_counts_only_frames_that_pass_within_it(host: Namespace, tokens: TokenSpace) -> None:
    watch = Watch(host, ["left0"], tokens)
    one_probe(host, tokens)
    with watch() as period:
        one_probe(host, tokens)
        with pytest.raises(RuntimeError, match="under way"):
            watch()
        with pytest.raises(RuntimeError, match="not ended"):
            _ = period.observation
    one_probe(host, tokens)
    assert len(period.observation.seen("left0")) == 1
    with pytest.raises(ZeroDivisionError), watch():
        _ = 1 // 0
    with watch() as period:
        pass
    assert period.observation.frames == ()
    watch.close()


def test_another_runs_probes_and_fences_are_not_ours(host: Namespace, tokens: TokenSpace) -> None:
    others = TokenSpace()
    ours, theirs = Watch(host, ["left0"], tokens), Watch(host, ["left0"], others)
    with ours() as our_period, theirs() as their_period:
        one_probe(host, others)
    assert our_period.observation.frames == ()
    assert our_period.observation.unproven == their_period.observation.unproven == {}
    assert len(their_period.observation.frames) == 1
    ours.close()
    theirs.close()


def test_a_frame_that_is_cut_short_does_not_stop_a_watch(host: Namespace, tokens: TokenSpace) -> None:
    watch = Watch(host, ["left0"], tokens)
    sender = host.call(PacketSender)
    far = host.call(lambda: socket.if_nametoindex("far0"))
    with watch() as period:
        for octets in range(30):
            sender.send(
                far, 0x0806, bytes(12) + b"\x08\x06" + bytes.fromhex("0001080006040002").ljust(octets, b"\0")[:octets]
            )
        one_probe(host, tokens)
    assert len(period.observation.seen("left0")) == 1
    assert period.observation.unproven == {}
    sender.close()
    watch.close()


def test_arp_is_kept_beside_the_probes(host: Namespace, tokens: TokenSpace) -> None:
    watch = Watch(host, ["left0"], tokens)
    with watch() as period:
        Prober(host, tokens).arp_request("left0", "10.0.0.77", timeout=0)
    (frame,) = period.observation.seen("left0", "out", "other")
    assert (frame.protocol, frame.source, frame.note, frame.number) == ("arp", "0.0.0.0", "who-has 10.0.0.77", None)
    assert period.observation.proven_absent("left0")[0]
    watch.close()


def test_tshark_and_scapy_read_the_capture_file(lab: Lab, watch: Watch, tokens: TokenSpace, tmp_path: Path) -> None:
    requests = [ProbeRequest(protocol=protocol, destination=TARGET, count=2) for protocol in PROTOCOLS]  # type: ignore[arg-type]
    with watch() as period:
        exchanges = Prober(lab.agent.namespace, tokens).send_many(requests)
    path = tmp_path / "probes.pcapng"
    period.observation.write_capture(str(path), numbers_of(exchanges))
    assert os.listdir(tmp_path) == ["probes.pcapng"]
    with PcapNgReader(str(path)) as reader:
        packets = list(reader)
    frames = period.observation.frames
    assert len([frame for frame in frames if frame.number is not None]) == 24
    for packet, frame in zip(packets, frames, strict=True):
        assert (bytes(packet), packet.sniffed_on, packet.wirelen) == (frame.octets, frame.interface, frame.length)
        assert int(packet.time * 10**9) == frame.time_ns
    comments = [packet.comments[0].decode() for packet in packets]
    assert {"probe 1 icmp in", "probe 1 icmp out", "answer 4 udp in", "probe 6 tcp out: SYN"} <= set(comments)
    tshark = shutil.which("tshark")
    if tshark is not None:
        fields = ["-e", "frame.interface_name", "-e", "frame.comment", "-e", "frame.time_epoch"]
        dissected = subprocess.run(
            [tshark, "-r", path, "-T", "fields", *fields], capture_output=True, text=True, check=True
        )
        assert [line.split("\t") for line in dissected.stdout.splitlines()] == [
            [frame.interface, comment, f"{frame.time_ns // 10**9}.{frame.time_ns % 10**9:09d}"]
            for frame, comment in zip(frames, comments, strict=True)
        ]


def test_a_watch_sees_all_of_a_hundred_probes_in_heavy_traffic(
    lab: Lab, watch: Watch, tokens: TokenSpace, capsys: pytest.CaptureFixture[str]
) -> None:
    prober = Prober(lab.agent.namespace, tokens)
    with BackgroundLoad(lab.host.namespace, "wlan0", 200_000) as load, watch() as period:
        exchanges = []
        for _ in range(20):
            load.wait_for(5_000)
            exchanges.append(prober.send(ProbeRequest(protocol="udp", destination=TARGET, count=5)))
    with capsys.disabled():
        print(f" [{load.result.packets} background packets, {load.result.rate:,.0f} a second]", end="")  # noqa: T201
    observation = period.observation
    evidence = packets_evidence(exchanges, observation)
    assert (evidence.sent, evidence.answered) == (100, 100)
    assert len(observation.seen("wlan0")) == 100
    assert sum(watched.frames_lost for watched in observation.watched) == 0
    assert observation.proven_absent("eth0")[0]
