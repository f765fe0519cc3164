"""A DHCP client that obtains a lease for an interface of a namespace and holds it (RFC 2131).

Like a host's client it sets the address with the lease's lifetime and the default route by the lease's router, and
renews at half of the lease time. While it runs, port 68 is open in the namespace; when it is closed, the address stays
until its lifetime ends, as after the kill of a client.

pyroute2's own client (0.9.7) binds in 56 ms, but does not fit: its hooks set the address without a lifetime and keep
the old router at a renewal, its end releases the lease, and it opens no port 68, by which viacheck finds a client.
"""

from __future__ import annotations

import fcntl
import secrets
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from netns_lab import rtnetlink_batch
from netns_lab.rtnetlink_batch import request
from netns_lab.services.dhcp_server import (
    ACK,
    BOOT_REPLY,
    BOOT_REQUEST,
    BROADCAST_FLAG,
    CLIENT_PORT,
    DISCOVER,
    NAK,
    OFFER,
    REQUEST,
    SERVER_PORT,
    UNSPECIFIED,
    decode,
    encode,
    open_port,
)
from viacheck.host.namespace import Namespace
from viacheck.packets import bpf

TIMEOUT = 15.0
"""Seconds for an answer: a server of a lab answers at once, but for a busy machine."""
FIRST_WAIT = 0.2
"""Seconds until the client repeats a message; each further wait is twice as long."""
SHORTEST_RETRY = 1.0
PARAMETERS = (1, 3, 51)
"""Subnet mask, router, lease time."""
_BROADCAST = "255.255.255.255"
_ETH_P_IP = 0x0800
_SIOCGIFHWADDR = 0x8927
_PROTOCOL_UDP = 17


class NoLease(Exception):
    """No server gave or renewed a lease; the message names the interface and the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The lease of an address, as a server gave it."""

    address: str
    prefixlen: int
    router: str | None
    server: str
    seconds: int


class DHCPClient:
    """A client on one interface. Made by :meth:`start`, which returns with a lease.

    Attributes:
        lease: the lease that the client holds.
        interface: the interface that the lease is for.
        follow_router: whether a renewal with another router changes the default route; Debian's dhclient-script keeps
            the old route as long as the address is the same.
    """

    def __init__(self, namespace: Namespace, interface: str, *, follow_router: bool = True) -> None:
        """Use :meth:`start`."""
        self.lease: Lease
        self.follow_router = follow_router
        self.interface = interface
        self._namespace = namespace
        self._index, self._mac = namespace.call(lambda: _identity(interface))
        self._sender, self._receiver = namespace.call(lambda: _open(interface))
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._ends = 0.0

    @classmethod
    def start(
        cls, namespace: Namespace, interface: str, *, follow_router: bool = True, timeout: float = TIMEOUT
    ) -> DHCPClient:
        """Obtain a lease, configure the interface, and go on holding the lease.

        Args:
            namespace: of the interface.
            interface: to configure; it must be up.
            follow_router: see the attribute.
            timeout: seconds within which a server must answer each message.

        Raises:
            NoLease: when no server did.
        """
        client = cls(namespace, interface, follow_router=follow_router)
        try:
            client._obtain(timeout)
        except BaseException:
            client.close()
            raise
        client._thread = threading.Thread(target=client._hold, name="dhcp-client", daemon=True)
        client._thread.start()
        return client

    def renew(self, timeout: float = TIMEOUT) -> Lease:
        """Renew the lease now: request the same address from its server, and configure the answer.

        After a refusal the client removes the address and requests another address (RFC 2131, 4.4.5).

        Raises:
            NoLease: when the server is silent, in which case the address stays, or has no address to give.
        """
        with self._lock:
            lease = self.lease
            request_same = {"ciaddr": lease.address, "options": {"message_type": REQUEST}}
            answer = self._exchange(request_same, (ACK, NAK), timeout, to=lease.server)
            if answer["options"]["message_type"] == NAK:
                self._remove_address(lease)
                self._obtain(timeout)
            else:
                self._configure(answer)
            return self.lease

    def _obtain(self, timeout: float) -> None:
        offer = self._exchange({"options": {"message_type": DISCOVER}}, (OFFER,), timeout)
        options = {
            "message_type": REQUEST,
            "requested_ip": offer["yiaddr"],
            "server_id": offer["options"]["server_id"],
        }
        answer = self._exchange({"options": options}, (ACK, NAK), timeout)
        if answer["options"]["message_type"] == NAK:
            raise NoLease(f"{self.interface}: the server withdrew its offer of {offer['yiaddr']}")
        self._configure(answer)

    def _hold(self) -> None:
        """Renew at half of the remaining time, until the lease has ended or the client is closed."""
        while not self._closing.wait(max(SHORTEST_RETRY, (self._ends - time.monotonic()) / 2)):
            if time.monotonic() >= self._ends:
                return
            try:
                self.renew(timeout=min(TIMEOUT, SHORTEST_RETRY))
            except NoLease:
                continue
            except (OSError, rtnetlink_batch.LabBuildError):
                # The interface is gone, and its address with it.
                return

    def _exchange(
        self, message: dict[str, Any], kinds: tuple[int, ...], timeout: float, to: str = _BROADCAST
    ) -> dict[str, Any]:
        """Send a message, repeatedly, until an answer of these kinds comes.

        Raises:
            NoLease: when no such answer comes in time.
        """
        xid = secrets.randbits(32)
        query = {"op": BOOT_REQUEST, "xid": xid, "chaddr": self._mac, "flags": BROADCAST_FLAG, **message}
        query["options"] = {**message["options"], "parameter_list": list(PARAMETERS)}
        octets = encode(query)
        deadline, wait = time.monotonic() + timeout, FIRST_WAIT
        while (now := time.monotonic()) < deadline:
            self._sender.sendto(octets, (to, SERVER_PORT))
            until = min(now + wait, deadline)
            while (left := until - time.monotonic()) > 0 and select.select([self._receiver], [], [], left)[0]:
                answer = decode(_payload(self._receiver.recv(2048)))
                if answer is None or answer["op"] != BOOT_REPLY or answer["xid"] != xid:
                    continue
                if answer["options"].get("message_type") in kinds:
                    return answer
            wait *= 2
        raise NoLease(f"{self.interface}: no answer from a DHCP server ({to}) within {timeout:g} s")

    def _configure(self, answer: dict[str, Any]) -> None:
        """Configure the interface with the lease of an answer."""
        options = answer["options"]
        previous = getattr(self, "lease", None)
        routers = options.get("router") or [None]
        lease = Lease(
            address=answer["yiaddr"],
            prefixlen=IPv4Network(f"{UNSPECIFIED}/{options['subnet_mask']}").prefixlen,
            router=routers[0],
            server=options["server_id"],
            seconds=int(options["lease_time"]),
        )
        same_address = previous is not None and previous.address == lease.address
        if previous is not None and not same_address:
            self._remove_address(previous)
        rtnetlink_batch.send(self._namespace, [self._address("replace", lease)])
        if lease.router and (self.follow_router or not same_address):
            default = request("route", "replace", dst=f"{UNSPECIFIED}/0", gateway=lease.router, oif=self._index)
            rtnetlink_batch.send(self._namespace, [default])
        self.lease = lease
        self._ends = time.monotonic() + lease.seconds

    def _remove_address(self, lease: Lease) -> None:
        rtnetlink_batch.send(self._namespace, [self._address("del", lease)], missing_ok=True)

    def _address(self, verb: str, lease: Lease) -> rtnetlink_batch.LabRequest:
        lifetime = lease.seconds if verb == "replace" else None
        return request(
            "addr", verb, index=self._index, address=lease.address, prefixlen=lease.prefixlen,
            lifetime=lifetime,
        )  # fmt: skip

    def close(self) -> None:
        """End the client as SIGKILL does: it sends no release, and the address stays until its lifetime ends."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self._sender.close()
        self._receiver.close()


def _identity(interface: str) -> tuple[int, str]:
    """Return the interface's index and MAC address (netdevice(7), SIOCGIFHWADDR)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        answer = fcntl.ioctl(query.fileno(), _SIOCGIFHWADDR, struct.pack("256s", interface.encode()))
    return socket.if_nametoindex(interface), answer[18:24].hex(":")


def _open(interface: str) -> tuple[socket.socket, socket.socket]:
    """Open a UDP socket that sends, and a packet socket that receives.

    The reverse path filter drops a server's answers to an interface that has no address yet; a packet socket receives
    them before the filter.
    """
    sender = open_port(interface, CLIENT_PORT)
    try:
        receiver = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
        program = bpf.assemble(
            [
                bpf.load(1, bpf.NETWORK + 9),
                bpf.if_equal(_PROTOCOL_UDP, false="refuse"),
                # DHCP servers send no IP options.
                bpf.load(1, bpf.NETWORK),
                bpf.if_equal(0x45, false="refuse"),
                bpf.load(2, bpf.NETWORK + 22),
                bpf.if_equal(CLIENT_PORT, false="refuse"),
                bpf.accept(2048),
                "refuse",
                bpf.accept(0),
            ]
        )
        bpf.attach(receiver, program)
        receiver.bind((interface, _ETH_P_IP))
    except BaseException:
        sender.close()
        raise
    return sender, receiver


def _payload(packet: bytes) -> bytes:
    """Return the payload after an IPv4 header without options and a UDP header."""
    return packet[28:]
