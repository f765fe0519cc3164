"""DHCP discovery: the servers on an interface's segment, and their offers, by DHCPDISCOVER and never DHCPREQUEST.

A server only notes an offer for a moment and assigns no lease (RFC 2131, 3.1). The first DHCPDISCOVER bears the
interface's own MAC address, for which a server may have a lease already; each further one bears a random MAC address
and requests one address.

pyroute2's DHCPServerDetector cannot request an address (option 50): in the lab of the fault dhcp-in-pool it collects
one offer, this module four. It only logs that an interface is down, and its import takes 0.15 s of CPU time.
"""

from __future__ import annotations

import secrets
import select
import time
from collections.abc import Mapping, Sequence
from typing import Any

from viacheck.host.namespace import Namespace
from viacheck.model.measurements import Offer
from viacheck.packets import bpf
from viacheck.packets import scapy_import as scapy
from viacheck.packets.arp import usable_interface
from viacheck.packets.classify import ETH_P_IP
from viacheck.packets.packet_socket import PacketSender, PacketSocket, close_in_background

_BROADCAST_MAC, _BROADCAST = "ff:ff:ff:ff:ff:ff", "255.255.255.255"
_NO_ADDRESS = "0.0.0.0"  # noqa: S104 - a client without an address
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
    """Broadcast one DHCPDISCOVER, and one more for each requested address; collect the offers until the timeout.

    Args:
        namespace: where the interface is.
        interface: the interface to send by; its own MAC address is the frames' source.
        requested: addresses to request (option 50).
        timeout: seconds to listen.

    Returns:
        Every offer in order of arrival. A server that answers several messages has several offers.

    Raises:
        InterfaceNotUp: when the interface is missing, down, without carrier, or not Ethernet.
        OSError: EPERM without CAP_NET_RAW.
    """
    sender = namespace.call(PacketSender)
    try:
        state = usable_interface(namespace, sender, interface)
        transactions = {secrets.randbits(32): address for address in (None, *requested)}
        listener = namespace.call(
            lambda: PacketSocket(
                state.index, state.hardware_type, _answer_filter(), snap_length=_LONGEST, outgoing=False
            )
        )
        try:
            for xid, address in transactions.items():
                client = state.mac if address is None else _random_mac()
                sender.send(state.index, ETH_P_IP, _discover_frame(state.mac, client, xid, address))
            return _collect_offers(listener, transactions, timeout)
        finally:
            close_in_background([listener])
    finally:
        close_in_background([sender])


def _random_mac() -> bytes:
    # Locally administered, unicast.
    return b"\x02" + secrets.token_bytes(5)


def _discover_frame(source: bytes, client: bytes, xid: int, requested: str | None) -> bytes:
    options: list[Any] = [("message-type", "discover"), ("param_req_list", _PARAMETERS)]
    if requested is not None:
        options.append(("requested_addr", requested))
    return bytes(
        scapy.Ether(src=source.hex(":"), dst=_BROADCAST_MAC)
        / scapy.IP(src=_NO_ADDRESS, dst=_BROADCAST)
        / scapy.UDP(sport=_CLIENT_PORT, dport=_SERVER_PORT)
        / scapy.BOOTP(chaddr=client, xid=xid, flags=_BROADCAST_FLAG)
        / scapy.DHCP(options=[*options, "end"])
    )


def _answer_filter() -> bytes:
    """Return the program that accepts what servers send to clients."""
    return bpf.assemble(
        [
            # A frame with a VLAN tag belongs to another segment.
            bpf.load(1, bpf.VLAN_TAG_PRESENT),
            bpf.if_equal(0, false="refuse"),
            bpf.load(2, bpf.PROTOCOL),
            bpf.if_equal(ETH_P_IP, false="refuse"),
            bpf.load(1, bpf.NETWORK + 9),
            bpf.if_equal(_UDP_NUMBER, false="refuse"),
            # DHCP servers send no IP options.
            bpf.load(1, bpf.NETWORK),
            bpf.if_equal(0x45, false="refuse"),
            bpf.load(2, bpf.NETWORK + 22),
            bpf.if_equal(_CLIENT_PORT, false="refuse"),
            bpf.accept(_LONGEST),
            "refuse",
            bpf.accept(0),
        ]
    )


def _collect_offers(listener: PacketSocket, transactions: Mapping[int, str | None], timeout: float) -> list[Offer]:
    offers: list[Offer] = []
    poll = select.poll()
    poll.register(listener.fileno(), select.POLLIN)
    deadline = time.monotonic() + timeout
    while (remaining := deadline - time.monotonic()) > 0 and poll.poll(remaining * 1000):
        answers = (parse_offer(received.octets, transactions) for received in listener.receive())
        offers += [offer for offer in answers if offer is not None]
    return offers


def parse_offer(octets: bytes, transactions: Mapping[int, str | None]) -> Offer | None:
    """Return the DHCPOFFER in an Ethernet frame; None for any other frame.

    Args:
        octets: the frame.
        transactions: our transaction ids, with the address that each DHCPDISCOVER requested.
    """
    try:
        frame = scapy.Ether(octets)
        if scapy.DHCP not in frame or frame[scapy.BOOTP].xid not in transactions:
            return None
        options = {option[0]: option[1] for option in frame[scapy.DHCP].options if isinstance(option, tuple)}
    except Exception:
        return None
    if options.get("message-type") != _OFFER:
        return None
    return Offer(
        address=frame[scapy.BOOTP].yiaddr,
        server=options.get("server_id", frame[scapy.IP].src),
        server_mac=frame.src,
        requested=transactions[frame[scapy.BOOTP].xid],
        router=options.get("router"),
        lease_seconds=options.get("lease_time"),
    )
