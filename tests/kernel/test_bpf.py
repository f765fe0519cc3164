"""The kernel filter: which frames it accepts and which it refuses, tested with real frames over a veth pair."""

from __future__ import annotations

import select
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from viacheck.host.link_state import LinkReader
from viacheck.host.namespace import Namespace
from viacheck.packets import bpf
from viacheck.packets.packet_socket import PacketSender, PacketSocket, Received
from viacheck.packets.scapy_import import (
    ARP,
    DNS,
    DNSQR,
    ICMP,
    IP,
    TCP,
    UDP,
    Ether,
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    IPv6,
    Packet,
    Raw,
)
from viacheck.packets.tokens import FENCE_ETHERTYPE, Token, TokenSpace

SNAP_LENGTH = 96
OURS, OTHERS = TokenSpace(), TokenSpace()
OTHERS.tcp_magic = OURS.tcp_magic ^ 1
LAST = b"\x88\xb5"


@dataclass
class Wire:
    """A veth pair with a filtered capture at one end and a sender at the other."""

    capture: PacketSocket
    sender: PacketSender
    far_index: int

    def passes(self, frame: bytes) -> Received | None:
        """Send a frame and a fence behind it; return the frame as the capture received it, or None."""
        fence = OURS.fence()
        self.sender.send(self.far_index, int.from_bytes(frame[12:14], "big"), frame)
        self.sender.send(self.far_index, FENCE_ETHERTYPE, (b"\2" * 12 + LAST + fence).ljust(60, b"\0"))
        arrived: list[Received] = []
        poll = select.poll()
        poll.register(self.capture.fileno(), select.POLLIN)
        while not any(fence in received.octets for received in arrived):
            assert poll.poll(2000), "the fence behind the frame did not arrive"
            arrived += self.capture.receive()
        accepted = [received for received in arrived if fence not in received.octets]
        assert len(accepted) <= 1
        return accepted[0] if accepted else None


@pytest.fixture(scope="module")
def wires() -> Iterator[dict[bool, Wire]]:
    """Two wires; the filter of the second also accepts DHCP."""
    namespace = Namespace.create("wires")
    wires = {}
    for dhcp, near, far in ((False, "near0", "far0"), (True, "near1", "far1")):
        for arguments in (
            f"link add {near} type veth peer name {far}",
            f"link set {near} up arp off",
            f"link set {far} up arp off",
        ):
            assert namespace.run(["ip", *arguments.split()]).ok
        sender = namespace.call(PacketSender)
        links = LinkReader(namespace, sender.fileno())
        state, far_index = links.read(near), links.read(far).index
        links.close()
        program = bpf.probe_filter(OURS.marks, snap_length=SNAP_LENGTH, dhcp=dhcp)
        capture = namespace.call(lambda index=state.index, program=program: PacketSocket(index, 1, program))  # type: ignore[misc]
        wires[dhcp] = Wire(capture, sender, far_index)
    yield wires
    for wire in wires.values():
        wire.capture.close()
        wire.sender.close()
    namespace.close()


def token(tokens: TokenSpace, protocol: str) -> Token:
    return tokens.issue(protocol, "198.51.100.1", 33434)  # type: ignore[arg-type]


def payload(tokens: TokenSpace, octets: int = 8) -> bytes:
    return tokens.payload(token(tokens, "udp"), octets)


def frame(packet: Packet) -> bytes:
    return bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet)


V4 = {"src": "192.0.2.1", "dst": "198.51.100.1"}
V6 = {"src": "2001:db8::1", "dst": "2001:db8::2"}


def ours(tokens: TokenSpace) -> dict[str, Packet]:
    sequence = tokens.sequence(token(tokens, "tcp"))
    name = tokens.name(token(tokens, "dns"), "viacheck.invalid")
    return {
        "icmp": IP(**V4) / ICMP(type=8) / Raw(payload(tokens)),
        "icmp answer": IP(**V4) / ICMP(type=0) / Raw(payload(tokens)),
        "icmpv6": IPv6(**V6) / ICMPv6EchoRequest(data=payload(tokens)),
        "udp": IP(**V4) / UDP(dport=33434) / Raw(payload(tokens)),
        "udp with IP options": IP(**V4, options=[b"\x94\x04\x00\x00"]) / UDP(dport=33434) / Raw(payload(tokens)),
        "udp over IPv6": IPv6(**V6) / UDP(dport=33434) / Raw(payload(tokens)),
        "first fragment": IP(**V4, flags="MF") / UDP(dport=33434) / Raw(payload(tokens)),
        "tcp": IP(**V4) / TCP(dport=33434, flags="S", seq=sequence),
        "tcp over IPv6": IPv6(**V6) / TCP(dport=33434, flags="S", seq=sequence),
        "tcp answer": IP(**V4) / TCP(sport=33434, flags="SA", seq=7, ack=sequence + 1),
        "tcp reset": IP(**V4) / TCP(sport=33434, flags="RA", seq=0, ack=sequence + 1),
        "dns": IP(**V4) / UDP(sport=4000, dport=53) / DNS(qd=DNSQR(qname=name)),
        "dns in other case": IP(**V4) / UDP(sport=4000, dport=53) / DNS(qd=DNSQR(qname=name.upper())),
        "dns over IPv6": IPv6(**V6) / UDP(sport=53, dport=4000) / DNS(qr=1, qd=DNSQR(qname=name)),
    }


@pytest.mark.parametrize("kind", ours(OURS))
def test_packets_of_this_run_pass_and_packets_of_another_run_do_not(wires: dict[bool, Wire], kind: str) -> None:
    assert wires[False].passes(frame(ours(OURS)[kind])) is not None
    assert wires[False].passes(frame(ours(OTHERS)[kind])) is None


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(ARP(op=1, pdst="192.0.2.9"), id="arp"),
        pytest.param(IP(**V4) / ICMP(type=3, code=4) / IP(**V4) / UDP(dport=9), id="icmp unreachable"),
        pytest.param(IP(**V4) / ICMP(type=5) / IP(**V4) / UDP(dport=9), id="icmp redirect"),
        pytest.param(IP(**V4) / ICMP(type=11) / IP(**V4) / UDP(dport=9), id="icmp time exceeded"),
        pytest.param(IPv6(**V6) / ICMPv6DestUnreach() / IPv6(**V6) / UDP(dport=9), id="icmpv6 unreachable"),
    ],
)
def test_arp_and_icmp_errors_of_any_host_pass(wires: dict[bool, Wire], packet: Packet) -> None:
    assert wires[False].passes(frame(packet)) is not None


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(IP(**V4) / UDP(dport=33434), id="udp without payload"),
        pytest.param(IP(**V4) / UDP(dport=53) / DNS(qd=DNSQR(qname="example.com")), id="another dns query"),
        pytest.param(IP(**V4, frag=100) / Raw(bytes(8) + payload(OURS)), id="later fragment"),
        pytest.param(IP(**V4) / TCP(flags="A", ack=OURS.tcp_magic << 16 | 2), id="tcp without SYN and RST"),
        pytest.param(IP(**V4) / ICMP(type=13) / Raw(payload(OURS)), id="another icmp message"),
        pytest.param(IPv6(**V6, nh=59), id="ipv6 without payload"),
        pytest.param(IP(**V4, proto=47) / Raw(payload(OURS)), id="gre"),
    ],
)
def test_the_kernel_refuses_every_other_packet(wires: dict[bool, Wire], packet: Packet) -> None:
    assert wires[False].passes(frame(packet)) is None


def test_a_frame_with_a_vlan_tag_belongs_to_the_vlans_own_interface(wires: dict[bool, Wire]) -> None:
    untagged = frame(ours(OURS)["udp"])
    assert wires[False].passes(untagged) is not None
    assert wires[False].passes(untagged[:12] + b"\x81\x00\x00\x0a" + untagged[12:]) is None


def test_dhcp_passes_only_on_request(wires: dict[bool, Wire]) -> None:
    discover = frame(IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / Raw(bytes(240)))
    assert wires[True].passes(discover) is not None
    assert wires[False].passes(discover) is None
    assert wires[True].passes(frame(ours(OURS)["udp"])) is not None


def test_a_frame_is_cut_but_its_length_is_kept(wires: dict[bool, Wire]) -> None:
    received = wires[False].passes(frame(IP(**V4) / UDP(dport=33434) / Raw(payload(OURS, 1000))))
    assert received is not None
    assert (len(received.octets), received.length) == (SNAP_LENGTH, 14 + 20 + 8 + 1000)
    assert not received.outgoing


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([bpf.jump("nowhere")], "does not exist"),
        (["here", bpf.accept(0), "here"], "twice"),
        (["before", bpf.accept(0), bpf.jump("before")], "behind"),
        ([bpf.if_equal(1, true="far"), *[bpf.to_index()] * 256, "far", bpf.accept(0)], "too long"),
    ],
)
def test_a_program_that_cannot_be_assembled_says_why(source: list[bpf.Instruction | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bpf.assemble(source)
