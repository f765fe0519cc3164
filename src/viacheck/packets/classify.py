"""Classifies received packets: probes of this run, their answers, and the ICMP errors that quote them.

The token decides. Only where an error quotes too little of a probe to hold its token (RFC 792 asks for eight octets),
the quote is compared with the probes that were seen on the same wire.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from viacheck.packets import scapy_import as scapy
from viacheck.packets.tokens import Token, TokenSpace

if TYPE_CHECKING:
    from viacheck.packets.scapy_import import Packet

Role = Literal["probe", "answer", "error", "other"]

ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 0x0800, 0x0806, 0x86DD
_ARP_ETHERNET_IPV4, _ARP_FIELDS = bytes.fromhex("0001 0800 06 04"), struct.Struct(">6xH6s4s6s4s")
_IPV4_HEADER, _IPV6_HEADER = 20, 40
_ARP_OPERATIONS = {1: "who-has", 2: "is-at"}
_DHCP_PORTS = frozenset({67, 68})
_DNS_RESPONSE = 0x80
_ECHO_REPLY, _UNREACHABLE, _REDIRECT, _ECHO_REQUEST, _TIME_EXCEEDED, _PARAMETER_PROBLEM = 0, 3, 5, 8, 11, 12
_FRAGMENTATION_NEEDED = 4
_PORT_UNREACHABLE = {4: 3, 6: 4}
_UNREACHABLE_TEXTS = {
    0: "network unreachable",
    1: "host unreachable",
    2: "protocol unreachable",
    3: "port unreachable",
    4: "fragmentation needed",
    5: "source route failed",
    6: "network unknown",
    7: "host unknown",
    9: "network administratively prohibited",
    10: "host administratively prohibited",
    13: "administratively prohibited",
}
"""RFC 792, RFC 1812"""
_V6_UNREACHABLE_TEXTS = {
    0: "no route to destination",
    1: "administratively prohibited",
    2: "beyond scope of source address",
    3: "address unreachable",
    4: "port unreachable",
    5: "source address failed policy",
    6: "reject route to destination",
}
"""RFC 4443"""
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_IPPROTO_ICMP, _IPPROTO_TCP, _IPPROTO_UDP, _IPPROTO_ICMPV6 = 1, 6, 17, 58
_ROLES = (_IPPROTO_ICMP, _IPPROTO_TCP, _IPPROTO_UDP, _IPPROTO_ICMPV6)
_ECHO_IS_REPLY = {_IPPROTO_ICMP: {_ECHO_REQUEST: False, _ECHO_REPLY: True}, _IPPROTO_ICMPV6: {128: False, 129: True}}
"""By IP protocol, whether an echo is a reply by its type."""
_ICMP_ERRORS = frozenset({_UNREACHABLE, _REDIRECT, _TIME_EXCEEDED, _PARAMETER_PROBLEM})
_ICMP_OCTETS, _UDP_OCTETS, _TCP_OCTETS = 8, 8, 20
_LEAST_QUOTED = 8
"""Octets of a packet's payload that an ICMP error quotes at least (RFC 792)."""
_EXTENDED_ERROR = 144
"""Octets of an ICMP error from which on extensions may follow its quote."""
_UDP_FIELDS, _TCP_FIELDS = struct.Struct(">HHH"), struct.Struct(">HHIIBBH")
"""The fields of the headers up to the length, and up to the window."""


class ClassifiedFrame(NamedTuple):
    """The role of a packet in this run."""

    token: Token | None
    """None for ARP and DHCP, which carry no token."""
    role: Role
    protocol: str
    source: str
    destination: str
    note: str = ""
    final: bool = True
    """No further packet of this probe is to be expected."""
    mtu: int | None = None
    """The MTU of the next hop that an ICMP error reports (RFC 1191, RFC 4443)."""


@dataclass(frozen=True, slots=True)
class _ICMPError:
    """What an ICMP error reports."""

    text: str
    final: bool = True
    """The error ends its probe; a redirect does not."""
    closed_port: bool = False
    mtu: int | None = None


class Classifier:
    """Classifies the packets of one run on one wire."""

    def __init__(self, tokens: TokenSpace) -> None:
        """Begin without any probe seen."""
        self._tokens = tokens
        self._seen: dict[Hashable, Token] = {}

    def classify(self, ethertype: int, octets: bytes) -> ClassifiedFrame | None:
        """Return the role of a packet; None for a packet of no role in this run.

        ``octets`` begin with the ARP, IPv4 or IPv6 header. Octets that are no such packet have no role.
        """
        if ethertype == ETH_P_ARP:
            arp = read_arp(octets)
            return _arp(arp) if arp is not None else None
        plain = plain_packet(ethertype, octets)
        if plain is None:
            # scapy need not dissect the multicast listener reports and others that a host sends of its own accord.
            may_count = _next_header(ethertype, octets) in _ROLES
            dissected = _dissect_ip(ethertype, octets) if may_count else None
            return self._dissected(dissected) if dissected is not None else None
        if plain.number == _IPPROTO_UDP:
            return self._udp(plain)
        if plain.number == _IPPROTO_TCP:
            return self._tcp(plain)
        reply = _ECHO_IS_REPLY[plain.number].get(plain.payload[0])
        if reply is None:
            return self._error(plain, _plain_quote(plain.payload), _icmp_error(plain.payload), "icmp")
        return self._echo(plain, reply)

    def _dissected(self, packet: Packet) -> ClassifiedFrame | None:
        inner = packet.payload
        if isinstance(inner, scapy.UDP):
            return self._udp(_read(packet))
        if isinstance(inner, scapy.TCP):
            return self._tcp(_read(packet))
        if isinstance(inner, scapy.ICMP):
            if inner.type in (_ECHO_REQUEST, _ECHO_REPLY):
                return self._echo(_read(packet), inner.type == _ECHO_REPLY)
            return self._error(_read(packet), _quote(inner), _icmp_error(inner.original), "icmp")
        return self._icmpv6(packet, inner)

    def _icmpv6(self, packet: Packet, inner: Packet) -> ClassifiedFrame | None:
        if isinstance(inner, scapy.ICMPv6EchoRequest | scapy.ICMPv6EchoReply):
            return self._echo(_read(packet), isinstance(inner, scapy.ICMPv6EchoReply))
        if isinstance(
            inner,
            scapy.ICMPv6DestUnreach | scapy.ICMPv6PacketTooBig | scapy.ICMPv6TimeExceeded | scapy.ICMPv6ParamProblem,
        ):
            return self._error(_read(packet), _quote(inner), _icmpv6_error(inner), "icmpv6")
        return None

    def _echo(self, packet: PlainPacket, reply: bool) -> ClassifiedFrame | None:
        token = self._tokens.in_payload(packet.payload[_ICMP_OCTETS:])
        if token is None:
            return None
        protocol = "icmp" if packet.number == _IPPROTO_ICMP else "icmpv6"
        return self._classified(packet, token, "answer" if reply else "probe", protocol)

    def _udp(self, packet: PlainPacket) -> ClassifiedFrame | None:
        sport, dport, length = _UDP_FIELDS.unpack_from(packet.payload)
        payload = packet.payload[_UDP_OCTETS:length]
        token = self._tokens.in_question(payload)
        if token is not None:
            return self._classified(packet, token, "answer" if payload[2] & _DNS_RESPONSE else "probe", "dns")
        token = self._tokens.in_payload(payload)
        if token is None:
            if dport not in _DHCP_PORTS:
                return None
            return ClassifiedFrame(None, "other", "dhcp", packet.source, packet.destination)
        # An echoed datagram is the probe again; only its addresses and ports differ.
        to_target = dport == token.port and (packet.destination == token.destination or sport != token.port)
        from_target = sport == token.port and (packet.source == token.destination or dport != token.port)
        if not to_target and not from_target:
            from_target = self._answers_seen(packet, _UDP_FIELDS.pack(dport, sport, length))
        return self._classified(packet, token, "answer" if from_target and not to_target else "probe", "udp")

    def _tcp(self, packet: PlainPacket) -> ClassifiedFrame | None:
        sport, _dport, sequence, acknowledged, _offset, flags, window = _TCP_FIELDS.unpack_from(packet.payload)
        if not flags & _ACK:
            # NAT may have rewritten every address and port: neither is asked for.
            token = self._tokens.in_sequence(sequence)
            if token is None or not flags & _SYN or window != self._tokens.tcp_window:
                return None
            return self._classified(packet, token, "probe", "tcp", "SYN")
        sequence = (acknowledged - 1) & 0xFFFFFFFF
        token = self._tokens.in_sequence(sequence)
        if token is None or not flags & (_SYN | _RST):
            return None
        from_target = sport == token.port or packet.source == token.destination
        if not from_target and not self._answers_seen(packet, sequence.to_bytes(4, "big")):
            return None
        return self._classified(packet, token, "answer", "tcp", "SYN-ACK" if flags & _SYN else "RST")

    def _answers_seen(self, packet: PlainPacket, start: bytes) -> bool:
        """Return whether a packet comes from where a probe went that was seen: NAT may have changed where to."""
        return (packet.destination, packet.source, packet.number, start) in self._seen

    def _classified(
        self, packet: PlainPacket, token: Token, role: Role, protocol: str, note: str = ""
    ) -> ClassifiedFrame:
        if role == "probe":
            self._seen[packet.start] = token
        return ClassifiedFrame(token, role, protocol, packet.source, packet.destination, note)

    def _error(
        self, packet: PlainPacket, probe: PlainPacket | None, error: _ICMPError, protocol: str
    ) -> ClassifiedFrame | None:
        if probe is None:
            return None
        start, token = probe.payload, self._seen.get(probe.start)
        if probe.number == _IPPROTO_TCP:
            token = self._tokens.in_sequence(int.from_bytes(start[4:8], "big")) or token
        else:
            token = self._tokens.in_payload(start[8:]) or self._tokens.in_question(start[8:]) or token
        if token is None:
            return None
        # A closed port, reported by the target itself, is an answer as much as a TCP reset is. NAT may have changed the
        # target; the quote holds its address as it is on this wire.
        source, destination = packet.source, packet.destination
        if error.closed_port and source in (token.destination, probe.destination):
            return ClassifiedFrame(token, "answer", protocol, source, destination, error.text)
        note = f"{error.text}, reported by {source}"
        return ClassifiedFrame(token, "error", protocol, source, destination, note, error.final, error.mtu)


class PlainPacket(NamedTuple):
    """What the classifier reads of an IP packet."""

    number: int
    """The protocol that follows the IP header."""
    source: str
    destination: str
    payload: bytes
    """What follows the IP header, without the padding of the frame."""

    @property
    def start(self) -> Hashable:
        """What an error quotes of the packet and no router changes: addresses, part of the first eight octets."""
        # UDP: the checksum may not have been filled in yet when the probe was seen. ICMP echo: identifier and sequence.
        start = self.payload[:6] if self.number == _IPPROTO_UDP else self.payload[4:8]
        return self.source, self.destination, self.number, start


def plain_packet(ethertype: int, octets: bytes) -> PlainPacket | None:
    """Read a UDP datagram, TCP segment, ICMP echo or error in an IP packet without options or extensions and fragments.

    Return None for any other packet, and for every doubt: scapy then dissects it. Nearly all frames are such packets,
    during an event some hundred a second and interface. scapy takes more than fifty times as long for one: a third of
    the CPU time of a run over a lab, and two thirds of the time of an egress verdict.
    """
    if ethertype == ETH_P_IP:
        packet = _plain_ipv4(octets)
    elif ethertype == ETH_P_IPV6:
        packet = _plain_ipv6(octets)
    else:
        return None
    return packet if packet is not None and _is_plain(packet, ethertype) else None


def _plain_ipv4(octets: bytes) -> PlainPacket | None:
    # Version 4, a header of 20 octets, neither a fragment nor followed by one.
    if len(octets) < _IPV4_HEADER or octets[0] != 0x45 or octets[6] & ~0x40 or octets[7]:
        return None
    end = int.from_bytes(octets[2:4], "big")
    source, destination = _address_text(octets[12:16]), _address_text(octets[16:20])
    return PlainPacket(octets[9], source, destination, octets[_IPV4_HEADER:end])


def _plain_ipv6(octets: bytes) -> PlainPacket | None:
    if len(octets) < _IPV6_HEADER or octets[0] >> 4 != 6:
        return None
    end = _IPV6_HEADER + int.from_bytes(octets[4:6], "big")
    source, destination = _address_text(octets[8:24]), _address_text(octets[24:40])
    return PlainPacket(octets[6], source, destination, octets[_IPV6_HEADER:end])


def _plain_quote(error: bytes) -> PlainPacket | None:
    """Read the packet that an ICMP error quotes; return None for any doubt."""
    # Behind 136 octets there may be extensions (RFC 4884, section 5.2).
    quoted = _plain_ipv4(error[_ICMP_OCTETS:]) if len(error) < _EXTENDED_ERROR else None
    return quoted if quoted is not None and len(quoted.payload) >= _LEAST_QUOTED else None


@lru_cache(maxsize=1024)
def _address_text(octets: bytes) -> str:
    """Return an IPv4 or IPv6 address as text. The packets of a run have few addresses."""
    return socket.inet_ntop(socket.AF_INET if len(octets) == 4 else socket.AF_INET6, octets)


def _next_header(ethertype: int, octets: bytes) -> int | None:
    """Return the number of what follows an IP header, extension headers of IPv6 included; None for other octets."""
    offset = {ETH_P_IP: 9, ETH_P_IPV6: 6}.get(ethertype)
    return octets[offset] if offset is not None and offset < len(octets) else None


def _is_plain(packet: PlainPacket, ethertype: int) -> bool:
    number, payload = packet.number, packet.payload
    if number == _IPPROTO_UDP:
        return len(payload) >= _UDP_OCTETS and int.from_bytes(payload[4:6], "big") >= _UDP_OCTETS
    if number == _IPPROTO_TCP:
        return len(payload) >= _TCP_OCTETS and payload[12] >> 4 >= _TCP_OCTETS // 4
    if number != (_IPPROTO_ICMP if ethertype == ETH_P_IP else _IPPROTO_ICMPV6):
        return False
    if len(payload) < _ICMP_OCTETS:
        return False
    if payload[0] in _ECHO_IS_REPLY[number]:
        return True
    return ethertype == ETH_P_IP and payload[0] in _ICMP_ERRORS and _plain_quote(payload) is not None


def _read(packet: Packet) -> PlainPacket:
    """Return what the classifier reads of a packet that scapy has dissected."""
    number = packet.nh if isinstance(packet, scapy.IPv6) else packet.proto
    return PlainPacket(number, str(packet.src), str(packet.dst), packet.payload.original)


def _quote(error: Packet) -> PlainPacket | None:
    """Read the packet that an error quotes, which scapy has dissected; None when its header is cut short."""
    quoted = error.payload
    if not isinstance(quoted, scapy.IP | scapy.IPv6) or len(quoted.original) < _header_length(quoted):
        return None
    return _read(quoted)


class ARPPacket(NamedTuple):
    """The fields of an ARP packet for Ethernet and IPv4."""

    operation: int
    sender_mac: str
    sender: str
    target_mac: str
    target: str


def read_arp(octets: bytes) -> ARPPacket | None:
    """Read an ARP packet for Ethernet and IPv4 (RFC 826); return None for any other octets.

    Their places are fixed. scapy takes a hundred times as long, raises for octets that are too short, and fills missing
    addresses with those of this host.
    """
    if len(octets) < _ARP_FIELDS.size or not octets.startswith(_ARP_ETHERNET_IPV4):
        return None
    operation, sender_mac, sender, target_mac, target = _ARP_FIELDS.unpack_from(octets)
    return ARPPacket(operation, sender_mac.hex(":"), _address_text(sender), target_mac.hex(":"), _address_text(target))


def _dissect_ip(ethertype: int, octets: bytes) -> Packet | None:
    """Dissect an IPv4 or IPv6 packet; return None for any other octets, or when its header is cut short."""
    layer = {ETH_P_IP: scapy.IP, ETH_P_IPV6: scapy.IPv6}.get(ethertype)
    if layer is None:
        return None
    try:
        packet = layer(octets)
    except Exception:
        # scapy raises struct.error, IndexError and others for headers that are cut short or contradict themselves.
        return None
    return packet if len(octets) >= _header_length(packet) else None


def _header_length(packet: Packet) -> int:
    return _IPV6_HEADER if isinstance(packet, scapy.IPv6) else _IPV4_HEADER


def _arp(arp: ARPPacket) -> ClassifiedFrame:
    operation = _ARP_OPERATIONS.get(arp.operation, f"operation {arp.operation}")
    note = f"{operation} {arp.target if arp.operation == 1 else arp.sender_mac}"
    return ClassifiedFrame(None, "other", "arp", arp.sender, arp.target, note)


def _icmp_error(icmp: bytes) -> _ICMPError:
    """Read an ICMP error (RFC 792, RFC 1191)."""
    kind, code = icmp[0], icmp[1]
    name = f"ICMP type {kind} code {code}"
    if kind == _UNREACHABLE:
        text = f"{_UNREACHABLE_TEXTS.get(code, 'unreachable')} ({name})"
        if code == _FRAGMENTATION_NEEDED:
            mtu = int.from_bytes(icmp[6:8], "big")
            # Routers older than RFC 1191 leave the field empty.
            return _ICMPError(f"{text}, MTU {mtu}", mtu=mtu or None)
        return _ICMPError(text, closed_port=code == _PORT_UNREACHABLE[4])
    if kind == _REDIRECT:
        return _ICMPError(f"redirect to {'.'.join(map(str, icmp[4:8]))} ({name})", final=False)
    texts = {_TIME_EXCEEDED: f"time exceeded ({name})", _PARAMETER_PROBLEM: f"parameter problem ({name})"}
    return _ICMPError(texts.get(kind, name))


def _icmpv6_error(icmp: Packet) -> _ICMPError:
    """Read an ICMPv6 error (RFC 4443)."""
    name = f"ICMPv6 type {icmp.type} code {icmp.code}"
    if isinstance(icmp, scapy.ICMPv6DestUnreach):
        text = f"{_V6_UNREACHABLE_TEXTS.get(icmp.code, 'unreachable')} ({name})"
        return _ICMPError(text, closed_port=icmp.code == _PORT_UNREACHABLE[6])
    if isinstance(icmp, scapy.ICMPv6PacketTooBig):
        return _ICMPError(f"packet too big ({name}), MTU {icmp.mtu}", mtu=icmp.mtu)
    if isinstance(icmp, scapy.ICMPv6TimeExceeded):
        return _ICMPError(f"time exceeded ({name})")
    return _ICMPError(f"parameter problem ({name})")
