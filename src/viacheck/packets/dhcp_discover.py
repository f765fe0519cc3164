"""DHCP discovery: the servers on an interface's segment, and their offers, by DHCPDISCOVER and never DHCPREQUEST.

A server only notes an offer for a moment and assigns no lease (RFC 2131, 3.1). The first DHCPDISCOVER bears the
interface's own MAC address, for which a server may have a lease already; each further one bears a random MAC address
and requests one address.

pyroute2's DHCPServerDetector cannot request an address (option 50): in the lab of the fault dhcp-in-pool it collects
one offer, this module four. It only logs that an interface is down, and its import takes 0.15 s of CPU time.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from viacheck.host.namespace import Namespace
from viacheck.model.measurements import DiscoveryResult, Offer
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
REPEATED_AFTER = 4.0
"""Seconds until the first retransmission (RFC 2131, 4.1)."""
SETTLING_TIME = 0.5
"""Seconds for further offers once one is enough."""
_LONGEST = 2048
_UDP_NUMBER = 17


class DHCPDiscovery:
    """A discovery that listens in a thread of its own, so that other tests run meanwhile.

    Servers may ping an address before they offer it: 1 s (ISC dhcpd), 3 s (dnsmasq), up to 5 s (Windows).
    """

    def __init__(
        self,
        namespace: Namespace,
        interface: str,
        requested: Sequence[str] = (),
        *,
        seconds: float,
        enough: Callable[[Offer], bool] = lambda _offer: False,
    ) -> None:
        """Broadcast one DHCPDISCOVER, and one more for each requested address; begin to listen for the offers.

        Args:
            namespace: where the interface is.
            interface: the interface to send by; its own MAC address is the frames' source.
            requested: addresses to request (option 50).
            seconds: how long to listen from the first DHCPDISCOVER.
            enough: returns whether an offer ends the discovery soon.

        Raises:
            InterfaceNotUp: when the interface is missing, down, without carrier, or not Ethernet.
            OSError: EPERM without CAP_NET_RAW.
        """
        self._enough, self._seconds = enough, seconds
        self._sender = namespace.call(PacketSender)
        try:
            self._state = usable_interface(namespace, self._sender, interface)
            self._transactions = {secrets.randbits(32): address for address in (None, *requested)}
            self._clients = {
                xid: self._state.mac if address is None else _random_mac()
                for xid, address in self._transactions.items()
            }
            self._listener = namespace.call(
                lambda: PacketSocket(
                    self._state.index, self._state.hardware_type, _answer_filter(), snap_length=_LONGEST, outgoing=False
                )
            )
        except BaseException:
            close_in_background([self._sender])
            raise
        self._stop = os.eventfd(0)
        self._answered: set[int] = set()
        self._began = time.monotonic()
        self._sent_at: list[float] = []
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="dhcp")
        self._discover()
        self._offers = self._pool.submit(self._listen)

    def result(self) -> DiscoveryResult:
        """Wait until the discovery has ended, and return what it heard."""
        return self._offers.result()

    def close(self) -> None:
        """End the discovery, also before its time."""
        os.eventfd_write(self._stop, 1)
        self._pool.shutdown()
        os.close(self._stop)
        close_in_background([self._listener, self._sender])

    def _discover(self) -> None:
        """Send every DHCPDISCOVER that has no offer yet."""
        self._sent_at.append(time.monotonic() - self._began)
        for xid, address in self._transactions.items():
            if xid not in self._answered:
                frame = _discover_frame(self._state.mac, self._clients[xid], xid, address)
                self._sender.send(self._state.index, ETH_P_IP, frame)

    def _listen(self) -> DiscoveryResult:
        offers: list[Offer] = []
        poll = select.poll()
        for descriptor in (self._listener.fileno(), self._stop):
            poll.register(descriptor, select.POLLIN)
        deadline, repeat_at = self._began + self._seconds, self._began + REPEATED_AFTER
        while (now := time.monotonic()) < deadline:
            if now >= repeat_at:
                self._repeat()
                repeat_at = deadline
            ready = dict(poll.poll((min(deadline, repeat_at) - now) * 1000))
            if self._stop in ready:
                break
            for received in self._listener.receive():
                answer = parse_offer(received.octets, self._transactions)
                if answer is not None:
                    xid, offer = answer
                    self._answered.add(xid)
                    offers.append(offer)
                    if self._enough(offer):
                        deadline = min(deadline, time.monotonic() + SETTLING_TIME)
        listened, lost = time.monotonic() - self._began, self._listener.frames_lost()
        return DiscoveryResult(tuple(offers), listened, tuple(self._sent_at), lost)

    def _repeat(self) -> None:
        # The interface went down since the first DHCPDISCOVER: HOST-02 reports that.
        with contextlib.suppress(OSError):
            self._discover()


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


def parse_offer(octets: bytes, transactions: Mapping[int, str | None]) -> tuple[int, Offer] | None:
    """Return the DHCPOFFER in an Ethernet frame, with its transaction id; None for any other frame.

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
    xid = int(frame[scapy.BOOTP].xid)
    return xid, Offer(
        address=frame[scapy.BOOTP].yiaddr,
        server=options.get("server_id", frame[scapy.IP].src),
        server_mac=frame.src,
        requested=transactions[xid],
        router=options.get("router"),
        lease_seconds=options.get("lease_time"),
    )
