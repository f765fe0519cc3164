"""Counts the agent's own packets that leave by an interface, in the kernel; no packet is copied, nothing is kept.

After source NAT a packet of the agent has the uplink's address, as the host's own have. The difference is the interface
that a packet arrived on: the kernel keeps it while it forwards the packet (skb_iif), and a packet of the host itself
has none. The packets of a bridged agent have its MAC address, those over ipvlan its IP address.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from viacheck.host.link_state import LinkStatus
from viacheck.packets import ebpf
from viacheck.packets.bpf import NETWORK, ProbeMarks
from viacheck.packets.classify import ETH_P_IP, ETH_P_IPV6
from viacheck.packets.ebpf import CounterMap, EbpfInstruction
from viacheck.packets.packet_socket import ETHERNET_LIKE, bind_to_index

LINK_LAYER = -0x200000
"""SKF_LL_OFF: offsets from here count from the link layer's header."""
NEVER_ELSEWHERE = (
    IPv4Network("224.0.0.0/4"), IPv4Network("255.255.255.255/32"), IPv4Network("169.254.0.0/16"),
    IPv6Network("ff00::/8"), IPv6Network("fe80::/10"),
)  # fmt: skip
"""Destinations on the link: they show no way out of the host."""
MOST_DESTINATIONS = 64
"""Destinations that a program compares, so that it stays short."""

_PACKET_TYPE, _PROTOCOL, _VLAN_PRESENT, _INGRESS_INDEX, _SEGMENTS = 4, 16, 20, 36, 164
"""Offsets of struct __sk_buff (linux/bpf.h)."""
_OUTGOING = 4
_ICMP, _TCP, _UDP = 1, 6, 17
_SYN_OR_RST = 6
_MARKED = 12
"""Octets of an ICMP or UDP probe behind the IP header, to the end of its mark."""
_COUNTED, _EXPECTED = 0, 1
"""Keys of the counters."""
_CONTEXT, _AMOUNT, _ADDRESS, _HEADER = 6, 7, 8, 9
"""Registers that calls leave alone."""


@dataclass(frozen=True, slots=True)
class Sender:
    """What marks a frame as the agent's; any of the marks is enough, and without a mark every frame counts."""

    arrived_on: tuple[int, ...] = ()
    """Indexes of the interfaces on which the host receives the agent's packets."""
    macs: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    """IPv4 source addresses."""
    not_macs: tuple[str, ...] = ()
    """MAC addresses of interfaces on top of the counted one, which are counted themselves."""
    not_probes: ProbeMarks | None = None
    """The marks of our own probes, which are not the agent's packets."""

    @property
    def everything(self) -> bool:
        """Whether every frame counts."""
        return not (self.arrived_on or self.macs or self.addresses)


@dataclass(frozen=True, slots=True)
class ExpectedTraffic:
    """Packets that may leave by an interface: to a destination, of a protocol, to ports; None stands for any."""

    to: IPv4Network | IPv6Network
    protocol: int | None = None
    ports: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class PacketCount:
    """The counters of one interface."""

    left: int
    """Packets of the agent that left by it."""
    expected: int
    """Packets of the agent that left by it and may: to its own network, or as the intent excepts them."""


class PacketCounter:
    """Counts on one interface from the moment that it is opened, until it is closed."""

    def __init__(self, status: LinkStatus, sender: Sender, expected: Sequence[ExpectedTraffic]) -> None:
        """Open in the calling thread's namespace.

        Raises:
            CountingNotPossible: the kernel lets this process load no program.
            OSError: EPERM without CAP_NET_RAW, ENODEV when the interface is gone.
        """
        self.index = status.index
        ethernet = status.hardware_type in ETHERNET_LIKE
        self._map = CounterMap(2)
        try:
            kind = socket.SOCK_RAW if ethernet else socket.SOCK_DGRAM
            self._socket = socket.socket(socket.AF_PACKET, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
            try:
                ebpf.attach_program(self._socket, _program(self._map.fd, sender, expected, ethernet=ethernet))
                bind_to_index(self._socket, status.index)
            except BaseException:
                self._socket.close()
                raise
        except BaseException:
            self._map.close()
            raise

    def read(self) -> PacketCount:
        """Return the counters."""
        return PacketCount(self._map.read(_COUNTED), self._map.read(_EXPECTED))

    def close(self) -> None:
        """Stop counting; this waits for an RCU grace period, some 10 ms."""
        self._socket.close()
        self._map.close()


def _program(counters: int, sender: Sender, expected: Sequence[ExpectedTraffic], *, ethernet: bool) -> bytes:
    return ebpf.assemble_ebpf(
        [
            ebpf.copy(_CONTEXT, 1),
            ebpf.load_field(0, _CONTEXT, _PACKET_TYPE),
            ebpf.if_is_not(0, _OUTGOING, "refuse"),
            # A frame with a VLAN tag belongs to the VLAN's own interface, on which it has none.
            ebpf.load_field(0, _CONTEXT, _VLAN_PRESENT),
            ebpf.if_is_not(0, 0, "refuse"),
            *_from_sender(sender, ethernet=ethernet),
            "sender",
            # Of a packet that the kernel has not yet cut into segments, each segment counts.
            ebpf.load_field(_AMOUNT, _CONTEXT, _SEGMENTS),
            ebpf.if_is_not(_AMOUNT, 0, "family"),
            ebpf.set_number(_AMOUNT, 1),
            "family",
            ebpf.load_field(0, _CONTEXT, _PROTOCOL),
            ebpf.if_is(0, socket.htons(ETH_P_IP), "ipv4"),
            ebpf.if_is_not(0, socket.htons(ETH_P_IPV6), "refuse"),
            *_expected_ipv6([traffic for traffic in expected if traffic.to.version == 6]),
            ebpf.continue_at("count"),
            "ipv4",
            *_unless_probe(sender.not_probes),
            *_expected_ipv4([traffic for traffic in expected if traffic.to.version == 4]),
            "count",
            *ebpf.count(counters, _COUNTED, _AMOUNT),
            *_expected_count(counters, expected),
            "refuse",
            *ebpf.refuse_frame(),
        ]
    )


def _expected_count(counters: int, expected: Sequence[ExpectedTraffic]) -> Iterator[EbpfInstruction | str]:
    """Count what may leave here, if anything may: the kernel refuses a program with a part that nothing reaches."""
    if expected:
        yield ebpf.continue_at("refuse")
        yield "expected"
        yield from ebpf.count(counters, _EXPECTED, _AMOUNT)


def _from_sender(sender: Sender, *, ethernet: bool) -> Iterator[EbpfInstruction | str]:
    """Continue with the agent's frames; refuse the others."""
    if ethernet:
        for number, mac in enumerate(sender.not_macs):
            yield from _if_mac(mac, "refuse", f"not mac {number}")
    if sender.everything:
        return
    if sender.arrived_on:
        yield ebpf.load_field(0, _CONTEXT, _INGRESS_INDEX)
        for index in sender.arrived_on:
            yield ebpf.if_is(0, index, "sender")
    if ethernet:
        for number, mac in enumerate(sender.macs):
            yield from _if_mac(mac, "sender", f"mac {number}")
    if sender.addresses:
        yield ebpf.load_field(0, _CONTEXT, _PROTOCOL)
        yield ebpf.if_is_not(0, socket.htons(ETH_P_IP), "refuse")
        yield ebpf.load_octets(4, NETWORK + 12)
        for address in sender.addresses:
            yield ebpf.if_is(0, int.from_bytes(socket.inet_aton(address), "big"), "sender")
    yield ebpf.continue_at("refuse")


def _if_mac(mac: str, label: str, otherwise: str) -> Iterator[EbpfInstruction | str]:
    octets = bytes.fromhex(mac.replace(":", ""))
    yield ebpf.load_octets(4, LINK_LAYER + 6)
    yield ebpf.if_is_not(0, int.from_bytes(octets[:4], "big"), otherwise)
    yield ebpf.load_octets(2, LINK_LAYER + 10)
    yield ebpf.if_is(0, int.from_bytes(octets[4:], "big"), label)
    yield otherwise


def _unless_probe(marks: ProbeMarks | None) -> Iterator[EbpfInstruction | str]:
    """Load the length of the IPv4 header; refuse our own probes, and the resets that their answers draw."""
    yield ebpf.load_octets(1, NETWORK)
    yield ebpf.mask_bits(0, 0x0F)
    yield ebpf.shift_up(0, 2)
    yield ebpf.copy(_HEADER, 0)
    if marks is None:
        return
    yield ebpf.load_octets(1, NETWORK + 9)
    yield ebpf.if_is(0, _TCP, "tcp")
    yield ebpf.if_is(0, _UDP, "payload")
    yield ebpf.if_is_not(0, _ICMP, "not a probe")
    yield "payload"
    # To load what a short packet does not have would end the program.
    yield ebpf.load_octets(2, NETWORK + 2)
    yield ebpf.subtract_register(0, _HEADER)
    yield ebpf.if_below(0, _MARKED, "not a probe")
    yield ebpf.load_octets_after(4, _HEADER, NETWORK + 8)
    yield ebpf.if_is(0, marks.payload, "refuse")
    yield ebpf.continue_at("not a probe")
    yield "tcp"
    yield ebpf.load_octets_after(1, _HEADER, NETWORK + 13)
    yield ebpf.mask_bits(0, _SYN_OR_RST)
    yield ebpf.if_is(0, 0, "not a probe")
    yield ebpf.load_octets_after(2, _HEADER, NETWORK + 4)
    yield ebpf.if_is(0, marks.sequence, "refuse")
    yield "not a probe"


def _expected_ipv4(expected: Sequence[ExpectedTraffic]) -> Iterator[EbpfInstruction | str]:
    yield ebpf.load_octets(4, NETWORK + 16)
    yield ebpf.copy(_ADDRESS, 0)
    for number, traffic in enumerate(expected):
        otherwise = f"not ipv4 {number}"
        yield ebpf.copy(0, _ADDRESS)
        yield ebpf.mask_bits(0, int(traffic.to.netmask))
        yield ebpf.if_is_not(0, int(traffic.to.network_address), otherwise)
        yield from _if_transport(traffic, 9, otherwise)
        yield otherwise


def _expected_ipv6(expected: Sequence[ExpectedTraffic]) -> Iterator[EbpfInstruction | str]:
    yield ebpf.set_number(_HEADER, 40)
    for number, traffic in enumerate(expected):
        otherwise = f"not ipv6 {number}"
        address, mask = (int(value).to_bytes(16, "big") for value in (traffic.to.network_address, traffic.to.netmask))
        for word in range(0, -(-traffic.to.prefixlen // 32) * 4, 4):
            yield ebpf.load_octets(4, NETWORK + 24 + word)
            yield ebpf.mask_bits(0, int.from_bytes(mask[word : word + 4], "big"))
            yield ebpf.if_is_not(0, int.from_bytes(address[word : word + 4], "big"), otherwise)
        yield from _if_transport(traffic, 6, otherwise)
        yield otherwise


def _if_transport(traffic: ExpectedTraffic, protocol_at: int, otherwise: str) -> Iterator[EbpfInstruction | str]:
    """Continue at ``expected`` if protocol and ports are those of the traffic."""
    if traffic.protocol is not None:
        yield ebpf.load_octets(1, NETWORK + protocol_at)
        yield ebpf.if_is_not(0, traffic.protocol, otherwise)
    if traffic.ports is not None:
        first, last = traffic.ports
        yield ebpf.load_octets_after(2, _HEADER, NETWORK + 2)
        yield ebpf.if_below(0, first, otherwise)
        yield ebpf.if_above(0, last, otherwise)
    yield ebpf.continue_at("expected")
