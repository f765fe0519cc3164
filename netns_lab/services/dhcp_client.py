"""A DHCP client that obtains a lease for an interface of a namespace and holds it (RFC 2131).

It does what a client on a host does: sets the address with the lease's lifetime and the default route by the lease's
router, and renews at half of the time. While it lives, port 68 is open in the namespace; when it is closed, the address
stays until its lifetime ends, as after a client that was killed.
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
    NOWHERE,
    OFFER,
    REQUEST,
    SERVER_PORT,
    decode,
    encode,
    open_port,
)
from viacheck.host.namespace import Namespace
from viacheck.packets import bpf

TIMEOUT = 5.0
FIRST_WAIT = 0.2
"""Seconds until a message is sent again; each further wait is twice as long."""
SHORTEST_RETRY = 1.0
PARAMETERS = (1, 3, 51)
"""Subnet mask, router, lease time."""
_BROADCAST = "255.255.255.255"
_ETH_P_IP = 0x0800
_SIOCGIFHWADDR = 0x8927
_PROTOCOL_UDP = 17


class NoLease(Exception):
    """No server gave, or prolonged, a lease; the message says what was asked and what came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What a server gave."""

    address: str
    prefixlen: int
    router: str | None
    server: str
    seconds: int


class DHCPClient:
    """A client on one interface. Made by :meth:`start`, which returns with a lease.

    Attributes:
        lease: what the client holds.
        interface: what it holds it for.
        follow_router: whether a renewal that names another router changes the default route; Debian's dhclient-script
            leaves the old one as long as the address is the same.
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
            namespace: where the interface is; it must be up.
            interface: what to configure.
            follow_router: as the attribute.
            timeout: seconds until a server must have given a lease.

        Raises:
            NoLease: when none did.
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
        """Renew the lease now: ask its server for the same address again, and follow what it says.

        A refusal takes the address away, and another one is asked for (RFC 2131, 4.4.5).

        Raises:
            NoLease: when the server is silent, which leaves the address, or has none to give.
        """
        with self._lock:
            held = self.lease
            ask = {"ciaddr": held.address, "options": {"message_type": REQUEST}}
            answer = self._exchange(ask, (ACK, NAK), timeout, to=held.server)
            if answer["options"]["message_type"] == NAK:
                self._drop(held)
                self._obtain(timeout)
            else:
                self._take(answer)
            return self.lease

    def _obtain(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        offer = self._exchange({"options": {"message_type": DISCOVER}}, (OFFER,), timeout)
        wanted = {
            "message_type": REQUEST,
            "requested_ip": offer["yiaddr"],
            "server_id": offer["options"]["server_id"],
        }
        answer = self._exchange({"options": wanted}, (ACK, NAK), deadline - time.monotonic())
        if answer["options"]["message_type"] == NAK:
            raise NoLease(f"{self.interface}: the server took its offer of {offer['yiaddr']} back")
        self._take(answer)

    def _hold(self) -> None:
        """Renew at half of the time that is left, until the lease has ended or the client is closed."""
        while not self._closing.wait(max(SHORTEST_RETRY, (self._ends - time.monotonic()) / 2)):
            if time.monotonic() >= self._ends:
                return
            try:
                self.renew(timeout=min(TIMEOUT, SHORTEST_RETRY))
            except NoLease:
                continue
            except (OSError, rtnetlink_batch.LabBuildError):
                # The interface is gone, and with it the address.
                return

    def _exchange(
        self, message: dict[str, Any], kinds: tuple[int, ...], timeout: float, to: str = _BROADCAST
    ) -> dict[str, Any]:
        """Send a message until one of these kinds of answer comes.

        Raises:
            NoLease: when none comes in time.
        """
        xid = secrets.randbits(32)
        whole = {"op": BOOT_REQUEST, "xid": xid, "chaddr": self._mac, "flags": BROADCAST_FLAG, **message}
        whole["options"] = {**message["options"], "parameter_list": list(PARAMETERS)}
        octets = encode(whole)
        deadline, wait = time.monotonic() + timeout, FIRST_WAIT
        while (now := time.monotonic()) < deadline:
            self._sender.sendto(octets, (to, SERVER_PORT))
            until = min(now + wait, deadline)
            while (left := until - time.monotonic()) > 0 and select.select([self._receiver], [], [], left)[0]:
                answer = decode(_payload(self._receiver.recv(2048)))
                ours = answer is not None and answer["op"] == BOOT_REPLY and answer["xid"] == xid
                if answer is not None and ours and answer["options"].get("message_type") in kinds:
                    return answer
            wait *= 2
        raise NoLease(f"{self.interface}: no answer from a DHCP server ({to}) within {timeout:g} s")

    def _take(self, answer: dict[str, Any]) -> None:
        """Configure the interface as the server says."""
        options = answer["options"]
        before = getattr(self, "lease", None)
        routers = options.get("router") or [None]
        lease = Lease(
            address=answer["yiaddr"],
            prefixlen=IPv4Network(f"{NOWHERE}/{options['subnet_mask']}").prefixlen,
            router=routers[0],
            server=options["server_id"],
            seconds=int(options["lease_time"]),
        )
        if before is not None and before.address != lease.address:
            self._drop(before)
        rtnetlink_batch.send(self._namespace, [self._address("replace", lease)])
        same_address = before is not None and before.address == lease.address
        if lease.router and (self.follow_router or not same_address):
            default = request("route", "replace", dst=f"{NOWHERE}/0", gateway=lease.router, oif=self._index)
            rtnetlink_batch.send(self._namespace, [default])
        self.lease = lease
        self._ends = time.monotonic() + lease.seconds

    def _drop(self, lease: Lease) -> None:
        rtnetlink_batch.send(self._namespace, [self._address("del", lease)], missing_ok=True)

    def _address(self, verb: str, lease: Lease) -> rtnetlink_batch.Request:
        lifetime = lease.seconds if verb == "replace" else None
        return request(
            "addr", verb, index=self._index, address=lease.address, prefixlen=lease.prefixlen,
            preferred_lft=lifetime, valid_lft=lifetime,
        )  # fmt: skip

    def close(self) -> None:
        """End the client without a word to the server, as a killed one does: the address stays until its time is up."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self._sender.close()
        self._receiver.close()


def _identity(interface: str) -> tuple[int, str]:
    """The interface's index and MAC address (netdevice(7), SIOCGIFHWADDR)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        answer = fcntl.ioctl(one.fileno(), _SIOCGIFHWADDR, struct.pack("256s", interface.encode()))
    return socket.if_nametoindex(interface), answer[18:24].hex(":")


def _open(interface: str) -> tuple[socket.socket, socket.socket]:
    """A UDP socket to send by, and a packet socket to hear by.

    Reverse path checks drop what a server says to an interface that has no address yet, packet sockets hear it first.
    """
    sender = open_port(interface, CLIENT_PORT)
    try:
        receiver = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
        program = bpf.assemble(
            [
                bpf.load(1, bpf.NETWORK + 9),
                bpf.if_equal(_PROTOCOL_UDP, false="refuse"),
                # An IP header with options is no DHCP server's.
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
    """What is inside an IPv4 header without options and a UDP header."""
    return packet[28:]
