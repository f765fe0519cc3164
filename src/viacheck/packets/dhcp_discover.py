"""Asks an interface's segment which DHCP servers there are and what they would give: DHCPDISCOVER, never DHCPREQUEST.

A server that is asked only notes its offer for a moment and gives nothing away (RFC 2131, 3.1). The first question
bears the interface's own MAC address, for which a server may have a lease already; each further one a made-up client's,
who names the address that it would like.
"""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import time
from collections.abc import Sequence
from typing import Any

from viacheck.host.namespace import Namespace
from viacheck.model.measurements import Offer
from viacheck.packets import bpf
from viacheck.packets.arp import usable_interface
from viacheck.packets.classify import ETH_P_IP
from viacheck.packets.scapy_import import BOOTP, DHCP, IP, UDP, Ether
from viacheck.packets.scapy_socket import PacketSender, close_in_background

_BROADCAST_MAC, _BROADCAST = "ff:ff:ff:ff:ff:ff", "255.255.255.255"
_NOWHERE = "0.0.0.0"  # noqa: S104 - a client without an address
_SERVER_PORT, _CLIENT_PORT = 67, 68
_BROADCAST_FLAG = 0x8000
_OFFER = 2
_PARAMETERS = [1, 3, 51, 54]
"""Subnet mask, router, lease time, server."""
_LONGEST = 2048
_UDP_NUMBER = 17


def discover(
    namespace: Namespace, interface: str, requested: Sequence[str] = (), *, timeout: float = 1.0
) -> list[Offer]:
    """Broadcast one DHCPDISCOVER, and one more for each address by name; collect the offers until the time is over.

    Args:
        namespace: where the interface is.
        interface: by which to ask; its own MAC address is the frames' source.
        requested: addresses that servers are asked for by name (option 50).
        timeout: seconds to listen.

    Returns:
        Every offer, in the order in which they came; a server that answers all questions is there several times.

    Raises:
        InterfaceNotUp: when the interface is missing, down, without carrier, or no Ethernet.
        OSError: EPERM without CAP_NET_RAW.
    """
    sender = namespace.call(PacketSender)
    try:
        state = usable_interface(namespace, sender, interface)
        questions = {secrets.randbits(32): wanted for wanted in (None, *requested)}
        with contextlib.closing(namespace.call(lambda: _listen(interface))) as listener:
            for xid, wanted in questions.items():
                client = state.mac if wanted is None else _made_up_mac()
                sender.send(state.index, ETH_P_IP, _question(state.mac, client, xid, wanted))
            return _offers(listener, questions, timeout)
    finally:
        close_in_background([sender])


def _made_up_mac() -> bytes:
    # Locally administered, unicast.
    return b"\x02" + secrets.token_bytes(5)


def _question(source: bytes, client: bytes, xid: int, wanted: str | None) -> bytes:
    options: list[Any] = [("message-type", "discover"), ("param_req_list", _PARAMETERS)]
    if wanted is not None:
        options.append(("requested_addr", wanted))
    return bytes(
        Ether(src=source.hex(":"), dst=_BROADCAST_MAC)
        / IP(src=_NOWHERE, dst=_BROADCAST)
        / UDP(sport=_CLIENT_PORT, dport=_SERVER_PORT)
        / BOOTP(chaddr=client, xid=xid, flags=_BROADCAST_FLAG)
        / DHCP(options=[*options, "end"])
    )


def _listen(interface: str) -> socket.socket:
    """Hear what servers say to clients on one interface, before any packet filter of the host does."""
    program = bpf.assemble(
        [
            bpf.load(2, bpf.PROTOCOL),
            bpf.if_equal(ETH_P_IP, false="refuse"),
            bpf.load(1, bpf.NETWORK + 9),
            bpf.if_equal(_UDP_NUMBER, false="refuse"),
            # An IP header with options is no DHCP server's.
            bpf.load(1, bpf.NETWORK),
            bpf.if_equal(0x45, false="refuse"),
            bpf.load(2, bpf.NETWORK + 22),
            bpf.if_equal(_CLIENT_PORT, false="refuse"),
            bpf.accept(_LONGEST),
            "refuse",
            bpf.accept(0),
        ]
    )
    one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    try:
        bpf.attach(one, program)
        one.bind((interface, ETH_P_IP))
    except BaseException:
        one.close()
        raise
    return one


def _offers(listener: socket.socket, questions: dict[int, str | None], timeout: float) -> list[Offer]:
    found: list[Offer] = []
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0 and select.select([listener], [], [], left)[0]:
        frame = Ether(listener.recv(_LONGEST))
        if DHCP not in frame or frame[BOOTP].xid not in questions:
            continue
        options = {option[0]: option[1] for option in frame[DHCP].options if isinstance(option, tuple)}
        if options.get("message-type") == _OFFER:
            offer = Offer(
                address=frame[BOOTP].yiaddr,
                server=options.get("server_id", frame[IP].src),
                server_mac=frame.src,
                requested=questions[frame[BOOTP].xid],
                router=options.get("router"),
                lease_seconds=options.get("lease_time"),
            )
            found.append(offer)
    return found
