"""The parsers of received packets: no octets make them raise, and no rewriting on the path hides a token."""

from __future__ import annotations

import tempfile
from ipaddress import IPv4Address

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from viacheck.model.measurements import Offer
from viacheck.packets import scapy_import as scapy
from viacheck.packets.arp import ARPRequest
from viacheck.packets.classify import (
    ETH_P_ARP,
    ETH_P_IP,
    ETH_P_IPV6,
    ClassifiedFrame,
    Classifier,
    plain_packet,
    read_arp,
)
from viacheck.packets.dhcp_discover import parse_offer
from viacheck.packets.pcapng import LINKTYPE_ETHERNET, CapturedPacket, write_pcapng
from viacheck.packets.probes import echo_request
from viacheck.packets.scapy_packet import scapy_packet
from viacheck.packets.tokens import Token, TokenSpace

TOKENS = TokenSpace()
UDP_TOKEN, ICMP_TOKEN, TCP_TOKEN, DNS_TOKEN = (
    TOKENS.issue(protocol, "198.51.100.1", port)  # type: ignore[arg-type]
    for protocol, port in (("udp", 33434), ("icmp", 0), ("tcp", 33434), ("dns", 53))
)
NAME = TOKENS.name(DNS_TOKEN, "viacheck.invalid")
V4 = {"src": "192.0.2.1", "dst": "198.51.100.1"}
V6 = {"src": "2001:db8::1", "dst": "2001:db8::2"}
SYN = {"flags": "S", "seq": TOKENS.sequence(TCP_TOKEN), "window": TOKENS.tcp_window}
XID, REQUESTED = 0x12345678, "10.10.40.208"


def probe(version: int = 4) -> bytes:
    network = scapy.IPv6(**V6) if version == 6 else scapy.IP(**V4)
    return bytes(network / scapy.UDP(sport=40000, dport=33434) / scapy.Raw(TOKENS.payload(UDP_TOKEN)))


PACKETS = {
    "udp": (ETH_P_IP, probe()),
    "icmp": (ETH_P_IP, bytes(scapy.IP(**V4) / scapy.ICMP(type=8) / scapy.Raw(TOKENS.payload(ICMP_TOKEN)))),
    "tcp": (ETH_P_IP, bytes(scapy.IP(**V4) / scapy.TCP(dport=33434, **SYN))),
    "dns": (ETH_P_IP, bytes(scapy.IP(**V4) / scapy.UDP() / scapy.DNS(qd=scapy.DNSQR(qname=NAME)))),
    "error": (ETH_P_IP, bytes(scapy.IP(**V4) / scapy.ICMP(type=3, code=4, nexthopmtu=1300) / scapy.Raw(probe()))),
    "redirect": (ETH_P_IP, bytes(scapy.IP(**V4) / scapy.ICMP(type=5, gw="192.0.2.9") / scapy.Raw(probe()))),
    "udp6": (ETH_P_IPV6, probe(6)),
    "icmp6": (ETH_P_IPV6, bytes(scapy.IPv6(**V6) / scapy.ICMPv6EchoRequest(data=TOKENS.payload(ICMP_TOKEN)))),
    "error6": (ETH_P_IPV6, bytes(scapy.IPv6(**V6) / scapy.ICMPv6PacketTooBig(mtu=1280) / scapy.Raw(probe(6)))),
    "arp": (ETH_P_ARP, bytes(scapy.ARP(op=2, hwsrc="02:00:00:00:00:01", psrc="10.0.0.1", pdst="0.0.0.0"))),
}
OFFER = bytes(
    scapy.Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff")
    / scapy.IP(src="10.10.40.1", dst="255.255.255.255")
    / scapy.UDP(sport=67, dport=68)
    / scapy.BOOTP(op=2, xid=XID, yiaddr=REQUESTED)
    / scapy.DHCP(
        options=[
            ("message-type", "offer"), ("server_id", "10.10.40.1"), ("router", "10.10.40.1"), ("lease_time", 3600),
            "end",
        ]
    )
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, octets: bytes) -> bytes:
    """The octets, cut short somewhere and with a few octets overwritten."""
    copy = bytearray(octets[: draw(st.integers(0, len(octets)))])
    for place in draw(st.lists(st.integers(0, max(len(copy) - 1, 0)), max_size=6)) if copy else ():
        copy[place] = draw(st.integers(0, 255))
    return bytes(copy) + draw(st.binary(max_size=8))


RECEIVED = st.one_of(
    st.tuples(st.sampled_from((ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, 0x88B5)), st.binary(max_size=128)),
    st.sampled_from(list(PACKETS.values())).flatmap(lambda pair: st.tuples(st.just(pair[0]), damaged(pair[1]))),
)


ECHOES = [
    (ETH_P_IP, bytes(scapy.IP(**V4) / scapy.ICMP(type=kind, id=7, seq=9) / scapy.Raw(TOKENS.payload(ICMP_TOKEN, size))))
    for kind, size in ((8, 8), (0, 30), (8, 0))
] + [
    (ETH_P_IPV6, bytes(scapy.IPv6(**V6) / layer(id=7, seq=9, data=TOKENS.payload(ICMP_TOKEN))))
    for layer in (scapy.ICMPv6EchoRequest, scapy.ICMPv6EchoReply)
]


def _errors(quoted: bytes) -> list[tuple[int, bytes]]:
    kinds: list[dict[str, object]] = [
        {"type": 3, "code": 1}, {"type": 3, "code": 3}, {"type": 3, "code": 4, "nexthopmtu": 0}, {"type": 11},
        {"type": 12, "ptr": 9},
    ]  # fmt: skip
    return [(ETH_P_IP, bytes(scapy.IP(**V4) / scapy.ICMP(**kind) / scapy.Raw(quoted))) for kind in kinds]


ERRORS = [PACKETS["error"], PACKETS["redirect"]]
for quoted_probe in (probe(), PACKETS["tcp"][1], PACKETS["icmp"][1], PACKETS["dns"][1][:60], probe()[:28]):
    ERRORS += _errors(quoted_probe)
EXTENDED = _errors(probe() + bytes(100) + b"\x20\x00\x00\x00")
"""With room for extensions behind the quote."""
PLAIN = [*ECHOES, *(PACKETS[name] for name in ("udp", "tcp", "dns", "udp6")), *ERRORS]


@given(st.sampled_from(PLAIN).flatmap(lambda pair: st.tuples(st.just(pair[0]), damaged(pair[1]))))
@example(ECHOES[0])
@example((ETH_P_IP, ECHOES[0][1] + b"padding of the frame"))
@example((ETH_P_IP, PACKETS["udp"][1] + b"padding of the frame"))
@example(PACKETS["tcp"])
@example(ERRORS[0])
@example(EXTENDED[0])
def test_a_plain_packet_is_read_as_scapy_dissects_it(received: tuple[int, bytes]) -> None:
    plain = plain_packet(*received)
    if plain is None:
        assert received not in PLAIN
        return
    packet = (scapy.IP if received[0] == ETH_P_IP else scapy.IPv6)(received[1])
    inner = packet.payload
    kinds = {
        1: scapy.ICMP, 6: scapy.TCP, 17: scapy.UDP, 58: scapy.ICMPv6EchoRequest | scapy.ICMPv6EchoReply,
    }  # fmt: skip
    assert isinstance(inner, kinds[plain.number])
    assert (plain.source, plain.destination, plain.payload) == (packet.src, packet.dst, inner.original)


@given(st.sampled_from(PLAIN).flatmap(lambda pair: st.tuples(st.just(pair[0]), damaged(pair[1]))))
def test_a_plain_packet_has_the_role_that_it_has_when_scapy_dissects_it(received: tuple[int, bytes]) -> None:
    if plain_packet(*received) is None:
        return
    packet = (scapy.IP if received[0] == ETH_P_IP else scapy.IPv6)(received[1])
    by_field, by_scapy = Classifier(TOKENS), Classifier(TOKENS)
    for classifier in (by_field, by_scapy):
        # An error that quotes only eight octets is known by the probe that was seen.
        classifier.classify(ETH_P_IP, probe())
    assert by_field.classify(*received) == by_scapy._dissected(packet)


def test_every_error_that_quotes_a_probe_is_recognised_without_scapy() -> None:
    for error in ERRORS:
        assert plain_packet(*error) is not None
        classifier = Classifier(TOKENS)
        classifier.classify(ETH_P_IP, probe())
        classified = classifier.classify(*error)
        assert classified is not None
        assert classified.role in ("error", "answer")
    for error in EXTENDED:
        assert plain_packet(*error) is None


ARP = [
    bytes(scapy.ARP(op=number, hwsrc="02:00:00:00:00:AB", psrc="10.0.0.1", hwdst="02:00:00:00:00:02", pdst="10.0.0.2"))
    for number in (1, 2, 3)
]


@given(st.sampled_from(ARP).flatmap(damaged))
@example(ARP[0])
@example(ARP[1] + b"padding of the frame")
@example(ARP[1][:27])
def test_arp_is_read_as_scapy_dissects_it(octets: bytes) -> None:
    arp = read_arp(octets)
    if arp is None:
        assert len(octets) < 28 or octets[:6] != ARP[0][:6]
        return
    by_scapy = scapy.ARP(octets)
    assert arp == (by_scapy.op, by_scapy.hwsrc, by_scapy.psrc, by_scapy.hwdst, by_scapy.pdst)


@pytest.mark.parametrize("payload", [b"12345678", b"123456789", b"\xff" * 1464], ids=len)
def test_an_echo_is_built_as_scapy_builds_it(payload: bytes) -> None:
    assert echo_request(4, 0xFFFF, 9, payload) == bytes(scapy.ICMP(type=8, id=0xFFFF, seq=9) / scapy.Raw(payload))
    by_scapy = bytes(scapy.ICMPv6EchoRequest(id=7, seq=9, data=payload, cksum=0))
    assert echo_request(6, 7, 9, payload) == by_scapy


@given(st.lists(RECEIVED, max_size=4))
def test_a_classifier_takes_any_octets(received: list[tuple[int, bytes]]) -> None:
    classifier = Classifier(TOKENS)
    for ethertype, octets in received:
        classified = classifier.classify(ethertype, octets)
        if classified is not None:
            _is_whole(classified)


def _is_whole(classified: ClassifiedFrame) -> None:
    assert all(isinstance(text, str) for text in (classified.source, classified.destination, classified.note))
    assert classified.mtu is None or 0 < classified.mtu <= 0xFFFFFFFF
    assert (classified.token is None) == (classified.protocol in ("arp", "dhcp"))


@pytest.mark.parametrize("name", PACKETS)
def test_whole_packets_have_their_role(name: str) -> None:
    classifier = Classifier(TOKENS)
    classified = classifier.classify(*PACKETS[name])
    assert classified is not None
    _is_whole(classified)
    roles = {"error": "error", "redirect": "error", "error6": "error", "arp": "other"}
    assert classified.role == roles.get(name, "probe")
    assert classified.mtu == {"error": 1300, "error6": 1280}.get(name)


@given(st.ip_addresses(v=4), st.integers(0, 65535), st.integers(0, 255))
def test_a_token_survives_translation(source: IPv4Address, port: int, ttl: int) -> None:
    network = scapy.IP(src=str(source), dst=V4["dst"], ttl=ttl)
    payload = scapy.Raw(TOKENS.payload(UDP_TOKEN))
    classified = Classifier(TOKENS).classify(ETH_P_IP, bytes(network / scapy.UDP(sport=port, dport=33434) / payload))
    assert classified is not None
    assert classified.token is UDP_TOKEN
    assert classified.source == str(source)


REWRITTEN = (st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(0, 65535), st.integers(0, 65535))


@settings(max_examples=25)
@given(*REWRITTEN)
@example(IPv4Address("10.10.50.9"), IPv4Address("192.0.2.55"), 42058, 5353)
def test_a_tcp_probe_survives_any_translation_and_so_does_its_answer(
    source: IPv4Address, destination: IPv4Address, sport: int, dport: int
) -> None:
    classifier, there, back = Classifier(TOKENS), *_both_ways(source, destination)
    syn = bytes(there / scapy.TCP(sport=sport, dport=dport, **SYN))
    assert _seen(classifier, syn) == (TCP_TOKEN, "probe")
    for flags in ("SA", "RA"):
        answer = bytes(back / scapy.TCP(sport=dport, dport=sport, flags=flags, ack=TOKENS.sequence(TCP_TOKEN) + 1))
        assert _seen(classifier, answer) == (TCP_TOKEN, "answer")


@settings(max_examples=25)
@given(*REWRITTEN)
@example(IPv4Address("10.10.50.9"), IPv4Address("192.0.2.55"), 42058, 5353)
def test_a_udp_probe_survives_any_translation_and_so_does_its_answer(
    source: IPv4Address, destination: IPv4Address, sport: int, dport: int
) -> None:
    assume(source != destination and UDP_TOKEN.destination != str(source) and UDP_TOKEN.port != sport)
    classifier, there, back = Classifier(TOKENS), *_both_ways(source, destination)
    payload = scapy.Raw(TOKENS.payload(UDP_TOKEN))
    assert _seen(classifier, bytes(there / scapy.UDP(sport=sport, dport=dport) / payload)) == (UDP_TOKEN, "probe")
    assert _seen(classifier, bytes(back / scapy.UDP(sport=dport, dport=sport) / payload)) == (UDP_TOKEN, "answer")


@pytest.mark.parametrize(("reporter", "role"), [("192.0.2.55", "answer"), ("10.10.50.1", "error")])
def test_a_closed_port_of_the_target_after_nat_is_an_answer_and_of_a_router_is_not(reporter: str, role: str) -> None:
    udp = scapy.UDP(sport=40000, dport=5353) / scapy.Raw(TOKENS.payload(UDP_TOKEN))
    quoted = scapy.IP(src="10.10.50.9", dst="192.0.2.55") / udp
    error = scapy.IP(src=reporter, dst="10.10.50.9") / scapy.ICMP(type=3, code=3) / quoted
    assert _seen(Classifier(TOKENS), bytes(error)) == (UDP_TOKEN, role)


def test_a_syn_of_another_program_is_no_probe_whatever_its_sequence_number() -> None:
    foreign = {**SYN, "window": TOKENS.tcp_window ^ 1}
    reset = scapy.TCP(sport=5353, dport=9, flags="RA", ack=TOKENS.sequence(TCP_TOKEN) + 1)
    classifier = Classifier(TOKENS)
    for tcp in (scapy.TCP(dport=33434, **foreign), reset):
        assert _seen(classifier, bytes(scapy.IP(src="10.0.0.1", dst="10.0.0.2") / tcp)) is None


def _both_ways(source: IPv4Address, destination: IPv4Address) -> tuple[scapy.Packet, scapy.Packet]:
    """Return the IPv4 headers of a probe and of its answer."""
    there = scapy.IP(src=str(source), dst=str(destination))
    return there, scapy.IP(src=str(destination), dst=str(source))


def _seen(classifier: Classifier, octets: bytes) -> tuple[Token | None, str] | None:
    classified = classifier.classify(ETH_P_IP, octets)
    return None if classified is None else (classified.token, classified.role)


@given(st.binary(max_size=300))
@example(TOKENS.magic)
@example(bytes(12) + b"\x10" + TOKENS.magic.hex().encode())
@example(bytes(12) + b"\x10" + b"\xff" * 16)
@example(bytes(12) + b"\x10" + (TOKENS.magic.hex() + " 1 2 3 4").encode())
def test_tokens_are_looked_for_in_any_octets(octets: bytes) -> None:
    for token in (TOKENS.in_payload(octets), TOKENS.in_question(octets)):
        assert token is None or TOKENS.magic in (octets[:4], bytes.fromhex(octets[13:21].decode()))
    assert TOKENS.in_sequence(int.from_bytes(octets[:4], "big")) in (None, TCP_TOKEN)


@given(st.one_of(st.binary(max_size=400), damaged(OFFER)))
def test_a_damaged_offer_is_an_offer_or_none(octets: bytes) -> None:
    answer = parse_offer(octets, {XID: REQUESTED})
    if answer is not None:
        xid, offer = answer
        assert xid == XID
        assert IPv4Address(offer.address)
        assert IPv4Address(offer.server)
        assert offer.router is None or IPv4Address(offer.router)
        assert offer.lease_seconds is None or 0 <= offer.lease_seconds <= 0xFFFFFFFF
        assert (len(offer.server_mac), offer.requested) == (17, REQUESTED)


@given(st.binary(max_size=120))
def test_any_options_leave_a_whole_offer_or_none(options: bytes) -> None:
    start = OFFER.index(bytes.fromhex("63825363")) + 4
    test_a_damaged_offer_is_an_offer_or_none.hypothesis.inner_test(  # type: ignore[attr-defined]
        OFFER[:start] + b"\x35\x01\x02" + options
    )


def test_an_offer_is_read() -> None:
    assert parse_offer(OFFER, {XID: None}) == (
        XID,
        Offer(REQUESTED, "10.10.40.1", "02:00:00:00:00:01", requested=None, router="10.10.40.1", lease_seconds=3600),
    )
    assert parse_offer(OFFER, {XID + 1: None}) is None, "an offer to another client"


@given(st.one_of(st.binary(max_size=80), damaged(bytes(14) + PACKETS["arp"][1])))
def test_any_frame_answers_an_arp_request_or_not(octets: bytes) -> None:
    mac = ARPRequest("02:00:00:00:00:02", "0.0.0.0", "10.0.0.1").answered_by(octets)
    assert mac is None or len(bytes.fromhex(mac.replace(":", ""))) == 6


@given(st.binary(max_size=200), st.booleans(), st.integers(0, 2**62))
def test_any_frame_becomes_a_packet(octets: bytes, ethernet: bool, time_ns: int) -> None:
    packet = scapy_packet(
        octets, ethernet=ethernet, time_ns=time_ns, length=len(octets), outgoing=False, interface="eth0"
    )
    assert int(packet.time * 10**9) == time_ns
    assert packet.wirelen == len(octets)


@given(
    st.lists(
        st.builds(
            CapturedPacket,
            interface=st.sampled_from(("eth0", "wlan0", "tun0")),
            link_type=st.just(LINKTYPE_ETHERNET),
            time_ns=st.integers(1, 2**60),
            octets=st.binary(min_size=14, max_size=100),
            length=st.integers(100, 2000),
            outgoing=st.booleans(),
            comment=st.text(st.characters(codec="utf-8"), max_size=20),
        ),
        max_size=5,
    )
)
def test_scapy_reads_what_a_capture_file_holds(packets: list[CapturedPacket]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/capture.pcapng"
        write_pcapng(path, ["eth0", "wlan0"], packets, snap_length=100)
        with scapy.PcapNgReader(path) as reader:
            read = [reader.read_packet() for _ in packets]
    assert [(int(packet.time * 10**9), packet.original, packet.wirelen, packet.direction) for packet in read] == [
        (packet.time_ns, packet.octets, packet.length, 2 if packet.outgoing else 1) for packet in packets
    ]
    assert [packet.sniffed_on for packet in read] == [packet.interface for packet in packets]
    assert [packet.comments for packet in read] == [[packet.comment.encode()] for packet in packets]
