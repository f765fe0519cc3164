"""The sockets of probes: what each sends by, what it receives, and the options that a request asks for."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable

from viacheck.packets import bpf
from viacheck.packets.packet_socket import SO_TIMESTAMPNS, TIMESPEC
from viacheck.packets.probe_request import ProbeRequest

_SO_MARK = 36
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _IPV6_DONTFRAG, _IPV6_CHECKSUM, _PMTUDISC_PROBE = 10, 23, 62, 7, 3
_TCP_CHECKSUM_OFFSET = 16
_NO_FRAME = bpf.assemble([bpf.accept(0)])
_SOL_RAW, _ICMP_FILTER, _ICMPV6_FILTER = 255, 1, 1
_NO_ICMP = {4: (_SOL_RAW, _ICMP_FILTER, b"\xff" * 4), 6: (socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, b"\xff" * 32)}
"""The option by which a raw ICMP socket receives no message (raw(7), RFC 3542): types above 31 of IPv4 pass, which
answer no probe. The kernel takes five times as long to attach a program, and compiles it each time."""


def icmp_receiver(version: int, program: bytes) -> socket.socket:
    """Open the socket that receives the ICMP messages of a batch, in the calling thread's namespace.

    Raises:
        OSError: EPERM without CAP_NET_RAW.
    """
    receiver = _raw(version, _icmp_number(version))
    _receive_by(receiver, program)
    return receiver


def probe_sender(request: ProbeRequest, program: bytes | None) -> socket.socket:
    """Open a socket for a request's probes, in the calling thread's namespace.

    Args:
        request: the probes.
        program: accepts the answers to TCP probes; None when no answer is wanted.

    Raises:
        OSError: EPERM without CAP_NET_RAW.
    """
    if request.protocol == "icmp":
        sender = _raw(request.version, _icmp_number(request.version))
        # The unbound ICMP socket of the batch receives the answers.
        sender.setsockopt(*_NO_ICMP[request.version])
    elif request.protocol == "tcp":
        sender = _raw(request.version, socket.IPPROTO_TCP)
        _receive_by(sender, program if program is not None else _NO_FRAME)
    else:
        sender = socket.socket(_family(request.version), socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        sender.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return sender


def _family(version: int) -> int:
    return socket.AF_INET6 if version == 6 else socket.AF_INET


def _icmp_number(version: int) -> int:
    return socket.IPPROTO_ICMPV6 if version == 6 else socket.IPPROTO_ICMP


def _raw(version: int, protocol: int) -> socket.socket:
    return socket.socket(_family(version), socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)


def _receive_by(receiver: socket.socket, program: bytes) -> None:
    bpf.attach(receiver, program)
    receiver.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def configure(probe_socket: socket.socket, request: ProbeRequest) -> None:
    """Set the options that the request asks for.

    Raises:
        OSError: with the kernel's reason why such probes cannot be sent: ENODEV, EADDRNOTAVAIL, ENETUNREACH and others.
    """
    is_ipv6 = request.version == 6
    if request.device is not None:
        probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, os.fsencode(request.device))
    if request.mark is not None:
        probe_socket.setsockopt(socket.SOL_SOCKET, _SO_MARK, request.mark)
    if request.ttl is not None:
        option = (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) if is_ipv6 else (socket.IPPROTO_IP, socket.IP_TTL)
        probe_socket.setsockopt(*option, request.ttl)
    if request.size is not None:
        _forbid_fragments(probe_socket, is_ipv6)
    datagrams = request.protocol in ("udp", "dns")
    if request.source is not None or (datagrams and request.source_port is not None):
        port = (request.source_port or 0) if datagrams else 0
        any_address = "::" if is_ipv6 else "0.0.0.0"  # noqa: S104 - the kernel chooses
        probe_socket.bind(socket_address(request.source or any_address, port))
    if request.protocol == "tcp":
        if is_ipv6:
            probe_socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_CHECKSUM, _TCP_CHECKSUM_OFFSET)
        # As for a TCP connection: the kernel chooses the source first, then routes with it.
        probe_socket.connect(socket_address(request.destination, 0))


def _forbid_fragments(probe_socket: socket.socket, is_ipv6: bool) -> None:
    """Send packets whole, whatever path MTU the kernel has learned (ip(7), IP_PMTUDISC_PROBE)."""
    if is_ipv6:
        probe_socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
        probe_socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
    else:
        probe_socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)


def socket_address(address: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return a socket address; ``fe80::1%3`` names the scope by the interface's index."""
    plain, _, scope = address.partition("%")
    return (plain, port, 0, int(scope or 0)) if ":" in plain else (plain, port)


def received_ns(control: Iterable[tuple[int, int, bytes]]) -> int:
    """Return when the kernel received a packet, since the epoch, by its control messages."""
    for level, kind, octets in control:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = TIMESPEC.unpack_from(octets)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()
