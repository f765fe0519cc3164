"""Probes: packets sent, packets that the sender's kernel refuses, the answers that count, and ARP requests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from netns_lab import nft_rules
from netns_lab.builder import build
from netns_lab.lab import Lab
from netns_lab.nft_rules import DropFrames
from netns_lab.scenarios import SCENARIOS
from tests.helpers.paths import ROOT
from viacheck.host.namespace import Namespace
from viacheck.packets.arp import InterfaceNotUp
from viacheck.packets.capture import Watch
from viacheck.packets.evidence import packets_evidence
from viacheck.packets.probe_request import ProbeRequest
from viacheck.packets.probes import Prober
from viacheck.packets.scapy_import import DNS, DNSQR
from viacheck.packets.tokens import ProbeProtocol, TokenSpace

TARGET = "198.51.100.1"
PROTOCOLS: tuple[ProbeProtocol, ...] = ("icmp", "udp", "tcp", "dns")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    lab = build(SCENARIOS["policy-routing"]())
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def tokens() -> TokenSpace:
    return TokenSpace()


@pytest.fixture
def agent(lab: Lab, tokens: TokenSpace) -> Prober:
    return Prober(lab.agent.namespace, tokens)


@pytest.fixture
def host(lab: Lab, tokens: TokenSpace) -> Prober:
    return Prober(lab.host.namespace, tokens)


@pytest.fixture
def watch(lab: Lab, tokens: TokenSpace) -> Iterator[Watch]:
    watch = Watch(lab.host.namespace, ["eth0", "wlan0", "docker0"], tokens)
    yield watch
    watch.close()


def probe(protocol: ProbeProtocol, **more: object) -> ProbeRequest:
    return ProbeRequest(**({"protocol": protocol, "destination": TARGET} | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_probe_has_its_own_token_and_its_own_answer(agent: Prober, protocol: ProbeProtocol) -> None:
    exchange = agent.send(probe(protocol, count=4))
    assert (exchange.sent, exchange.answered, exchange.refused, exchange.errors) == (4, 4, [], [])
    assert len({sent.token.number for sent in exchange.probes}) == 4
    assert [answer.source for answer in exchange.answers] == [TARGET] * 4
    sent_at = {sent.token: sent.time_ns for sent in exchange.probes}
    assert all(answer.time_ns > sent_at[answer.token] for answer in exchange.answers)


def test_one_wait_covers_several_protocols(agent: Prober) -> None:
    exchanges = agent.send_many([probe(protocol, count=2) for protocol in PROTOCOLS])
    assert [exchange.answered for exchange in exchanges] == [2, 2, 2, 2]
    assert [exchange.request.protocol for exchange in exchanges] == list(PROTOCOLS)


def test_a_refusal_of_the_senders_kernel_is_a_result(agent: Prober, lab: Lab) -> None:
    for kind, network in (("unreachable", 1), ("prohibit", 2), ("blackhole", 3)):
        lab.agent.ip("route", "replace", kind, f"203.0.113.{network}/32")
    requests = {
        "EHOSTUNREACH": [probe(protocol, destination="203.0.113.1", count=2) for protocol in PROTOCOLS],
        "EACCES": [probe(protocol, destination="203.0.113.2") for protocol in PROTOCOLS],
        "EINVAL": [probe(protocol, destination="203.0.113.3") for protocol in PROTOCOLS],
        "EMSGSIZE": [probe(protocol, size=1501) for protocol in ("icmp", "udp", "tcp")],
        "EADDRNOTAVAIL": [probe(protocol, source="192.0.2.99") for protocol in PROTOCOLS],
        "ENODEV": [probe(protocol, device="nowhere0") for protocol in PROTOCOLS],
        "ENETUNREACH": [probe(protocol, destination="2001:db8:99::1") for protocol in PROTOCOLS],
    }
    for reason, listed in requests.items():
        for exchange in agent.send_many(listed, timeout=5.0):
            assert exchange.refused == [reason] * exchange.sent, exchange.request
            assert (exchange.sent, exchange.answered) == (exchange.request.count, 0)


def test_a_packet_of_exactly_the_mtu_is_sent_unfragmented(agent: Prober, watch: Watch) -> None:
    requests = [probe(protocol, size=1500) for protocol in ("icmp", "udp", "tcp")]
    with watch() as period:
        exchanges = agent.send_many(requests)
    assert [exchange.answered for exchange in exchanges] == [1, 1, 1]
    frames = period.observation.seen("wlan0")
    assert [frame.length for frame in frames] == [1514] * 3
    assert [frame.octets[20] & 0x40 for frame in frames] == [0x40] * 3, "the DF bit is set"


@pytest.mark.parametrize(("protocol", "size"), [("icmp", 20), ("udp", 70000), ("dns", 100)])
def test_an_impossible_size_is_refused(agent: Prober, protocol: ProbeProtocol, size: int) -> None:
    with pytest.raises(ValueError, match="probe"):
        agent.send(probe(protocol, size=size))


def test_a_time_exceeded_ends_the_probe_and_names_the_router(agent: Prober) -> None:
    for exchange in agent.send_many([probe(protocol, ttl=1) for protocol in PROTOCOLS], timeout=30.0):
        assert exchange.answered == 0
        assert [(answer.source, answer.note) for answer in exchange.errors] == [
            ("172.17.0.1", "time exceeded (ICMP type 11 code 0), reported by 172.17.0.1")
        ]


def test_a_closed_port_reported_by_the_target_is_an_answer(agent: Prober) -> None:
    udp, tcp = agent.send_many([probe("udp", port=9), probe("tcp", port=9)], timeout=30.0)
    assert (udp.answered, udp.answers[0].note) == (1, "port unreachable (ICMP type 3 code 3)")
    assert (tcp.answered, [answer.note for answer in tcp.answers]) == (1, ["RST"])


def test_without_answers_the_wait_ends_at_the_timeout(agent: Prober) -> None:
    exchange = agent.send(probe("udp", destination="192.0.2.200"), timeout=0.05)
    assert (exchange.sent, exchange.answered, exchange.refused) == (1, 0, [])


def test_the_wait_for_launched_probes_may_begin_later(agent: Prober) -> None:
    with agent.launch([probe(protocol) for protocol in PROTOCOLS]) as batch:
        assert [exchange.sent for exchange in batch.exchanges] == [1, 1, 1, 1]
        assert [exchange.answered for exchange in batch.wait()] == [1, 1, 1, 1]


def test_probes_without_answers_leave_and_queue_nothing(agent: Prober, watch: Watch) -> None:
    with watch() as period, agent.launch([probe(protocol) for protocol in PROTOCOLS], answers=False) as batch:
        # The answers come to the agent: its own batch, sent after, is answered.
        assert [exchange.answered for exchange in agent.send_many([probe(protocol) for protocol in PROTOCOLS])] == [
            1
        ] * 4
        with pytest.raises(RuntimeError, match="receives no answers"):
            batch.wait()
        for sender in batch._senders:
            if sender.exchange.request.protocol in ("icmp", "tcp"):
                with pytest.raises(BlockingIOError):
                    sender.socket.recv(1)
    numbers = {exchange.probes[0].token.number for exchange in batch.exchanges}
    assert numbers <= {frame.number for frame in period.observation.seen("wlan0")}
    assert numbers <= {frame.number for frame in period.observation.seen("wlan0", "in", "answer")}


def test_a_source_port_keeps_probes_to_one_flow(agent: Prober, watch: Watch) -> None:
    with watch() as period:
        agent.send_many([probe("udp", count=3, source_port=40001), probe("udp", count=3)])
    ports = [frame.octets[34:36] for frame in period.observation.seen("docker0", "in")]
    assert ports[:3] == [(40001).to_bytes(2, "big")] * 3
    assert len(set(ports[3:])) == 3


def test_the_host_can_choose_device_source_and_mark(host: Prober, lab: Lab, watch: Watch) -> None:
    lab.host.ip("rule", "add", "fwmark", "7", "lookup", "200", "priority", "77")
    marked = [probe(protocol, mark=7) for protocol in PROTOCOLS]
    try:
        with watch() as period:
            exchanges = host.send_many(
                [
                    probe("udp"),
                    probe("udp", source="10.10.50.9"),
                    probe("udp", destination="10.10.50.1", device="wlan0"),
                    *marked,
                ],
                timeout=0.2,
            )
    finally:
        lab.host.ip("rule", "del", "priority", "77")
    frames = [frame for name in ("eth0", "wlan0") for frame in period.observation.seen(name)]
    left = {frame.number: (frame.interface, frame.source) for frame in frames}
    assert [left[exchange.probes[0].token.number] for exchange in exchanges] == [
        ("eth0", "10.10.40.9"),
        ("eth0", "10.10.50.9"),
        ("wlan0", "10.10.50.9"),
        *[("wlan0", "10.10.50.9")] * len(marked),
    ]


def test_any_datagram_answers_a_socket_of_a_single_probe(lab: Lab, agent: Prober) -> None:
    exchange = agent.send(probe("udp", port=53))
    assert (exchange.answered, exchange.answers[0].note) == (1, "not an echo")


def test_evidence_numbers_probes_and_counts_time_from_the_first(agent: Prober, watch: Watch) -> None:
    with watch() as period:
        first, second = agent.send_many([probe("icmp", count=2), probe("udp", ttl=1)])
    both = packets_evidence([first, second], period.observation, title="both", capture="captures/both.pcapng")
    assert (both.title, both.capture, both.sent, both.answered) == ("both", "captures/both.pcapng", 3, 2)
    assert {sighting.probe for sighting in both.sightings} == {1, 2, 3}
    assert [sighting.role for sighting in both.sightings if sighting.probe == 3] == ["probe", "error"]
    assert 0 <= min(sighting.time for sighting in both.sightings) < 2.0
    alone = packets_evidence([second], period.observation)
    assert {sighting.probe for sighting in alone.sightings} == {1}
    assert {watched.interface: watched.frames for watched in alone.watched} == {"eth0": 0, "wlan0": 0, "docker0": 2}


def test_the_gateway_answers_every_arp_request(host: Prober) -> None:
    answers = host.arp_request("eth0", "10.10.40.1", count=4)
    assert len(answers) == 4
    assert {(answer.address, answer.mac == answer.frame_source) for answer in answers} == {("10.10.40.1", True)}
    assert host.arp_request("eth0", "10.10.40.1", sender="10.10.40.9")[0].mac == answers[0].mac


def test_an_unused_address_has_no_arp_answer(host: Prober) -> None:
    assert host.arp_request("eth0", "10.10.40.250", timeout=0.05) == []


def test_arp_requests_leave_with_the_given_mac_addresses(host: Prober, lab: Lab) -> None:
    gateway, foreign = lab.gateway("eth0"), "02:00:00:00:be:ef"
    nft_rules.apply(gateway.namespace, "port-security", [DropFrames(device="lan0", source=foreign)])
    try:
        assert host.arp_request("eth0", "10.10.40.1", frame_source=foreign, timeout=0.05) == []
        # The reply goes to the address that is named inside the question, and this interface hears it all the same.
        assert len(host.arp_request("eth0", "10.10.40.1", sender_mac=foreign)) == 1
    finally:
        nft_rules.remove(gateway.namespace, "port-security")


def test_arp_by_an_unusable_interface_says_why(host: Prober) -> None:
    for interface, reason in (("nowhere0", "nowhere0 is missing"), ("lo", "lo is not an Ethernet interface")):
        with pytest.raises(InterfaceNotUp, match=reason):
            host.arp_request(interface, "10.10.40.1")


def test_tokens_of_this_run_are_found_and_tokens_of_others_are_not(tokens: TokenSpace) -> None:
    token = tokens.issue("udp", TARGET, 33434)
    assert tokens.in_payload(tokens.payload(token, 1000)) is token
    assert len(tokens.payload(token, 1000)) == 1000
    name = tokens.name(token, "viacheck.invalid")
    for spelled in (name, name.upper()):
        assert tokens.in_question(bytes(DNS(qd=DNSQR(qname=spelled)))) is token
    tcp = tokens.issue("tcp", TARGET, 33434)
    assert tokens.in_sequence(tokens.sequence(tcp)) is tcp
    assert tokens.in_payload(tokens.magic + b"\xff" * 4) is None
    assert tokens.in_payload(b"short") is None
    assert tokens.in_question(b"") is None
    assert TokenSpace().in_payload(tokens.payload(token)) is None


def test_without_cap_net_raw_sending_raises_permission_error() -> None:
    script = (
        "import ctypes, struct\n"
        "from viacheck.host.namespace import Namespace\n"
        "from viacheck.packets.probe_request import ProbeRequest\n"
        "from viacheck.packets.probes import Prober\n"
        "from viacheck.packets.tokens import TokenSpace\n"
        "namespace = Namespace.create('bare')\n"
        "no_capabilities = struct.pack('Ii', 0x20080522, 0), bytes(24)\n"
        "namespace.call(lambda: ctypes.CDLL(None).capset(*no_capabilities))\n"
        "try:\n"
        "    Prober(namespace, TokenSpace()).send(ProbeRequest(protocol='icmp', destination='127.0.0.1'))\n"
        "except PermissionError:\n"
        "    print('refused')\n"
    )
    completed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert completed.stdout == "refused\n"


def test_a_second_namespace_is_not_confused_with_the_first(tokens: TokenSpace) -> None:
    namespace = Namespace.create("alone")
    (exchange,) = Prober(namespace, tokens).send_many([probe("udp")])
    assert exchange.refused == ["ENETUNREACH"]
    namespace.close()
