"""A DHCP server for a lab's segment: a pool, a router and a lease time, answered from a thread (RFC 2131, RFC 2132).

The pool can be exchanged while the server runs, as an operator would change it; clients hear of it when they renew.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from pyroute2.dhcp.dhcp4msg import dhcp4msg

from viacheck.host.namespace import Namespace

SERVER_PORT, CLIENT_PORT = 67, 68
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE = 1, 2, 3, 4, 5, 6, 7
BOOT_REQUEST, BOOT_REPLY = 1, 2
BROADCAST_FLAG = 0x8000
NOWHERE = "0.0.0.0"  # noqa: S104 - an empty field of a message
_BROADCAST = "255.255.255.255"
_SHORTEST_MESSAGE = 300
"""Octets: relays and old clients drop less (RFC 1542, 2.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DHCPPool:
    """What a DHCP server hands out."""

    subnet: str
    """In CIDR form."""
    first: str
    last: str
    router: str
    server: str | None = None
    """By which address the server names itself; None for the first of its interface."""
    lease_seconds: int = 3600
    renew_after: int | None = None
    """Seconds after which clients are told to renew (T1 of RFC 2131, 4.4.5); None leaves it to them."""

    def addresses(self) -> Iterator[str]:
        """The pool's addresses in order."""
        for number in range(int(IPv4Address(self.first)), int(IPv4Address(self.last)) + 1):
            yield str(IPv4Address(number))

    def __contains__(self, address: object) -> bool:
        return IPv4Address(self.first) <= IPv4Address(str(address)) <= IPv4Address(self.last)


class DHCPServer:
    """A server on one interface; it begins to answer at once.

    Attributes:
        pool: what it hands out; may be exchanged at any time.
        leases: the address of each client, by its MAC address.
        namespace: where it answers.
    """

    def __init__(self, namespace: Namespace, interface: str, address: str, pool: DHCPPool) -> None:
        """Listen on an interface.

        Args:
            namespace: where the interface is.
            interface: the server answers nobody on others.
            address: the interface's own, by which the server names itself unless the pool says otherwise.
            pool: what it hands out.

        Raises:
            OSError: when another server has the port already (EADDRINUSE).
        """
        self.pool = pool
        self.leases: dict[str, str] = {}
        self.namespace = namespace
        self._address = pool.server or address
        self._given = threading.Condition()
        self._given_from: DHCPPool | None = None
        self._socket = namespace.call(lambda: open_port(interface, SERVER_PORT))
        self._stop_reader, self._stop_writer = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="dhcp-server", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._stop_reader, selectors.EVENT_READ)
            while True:
                for key, _events in selector.select():
                    if key.fileobj is self._stop_reader:
                        return
                    self._answer(self._socket.recv(2048))

    def _answer(self, received: bytes) -> None:
        request = decode(received)
        if request is None or request["op"] != BOOT_REQUEST:
            return
        options, client = request["options"], request["chaddr"]
        match options.get("message_type"):
            case kind if kind == DISCOVER:
                offered = self._address_for(client, options.get("requested_ip"))
                if offered is not None:
                    self._reply(request, OFFER, offered)
            case kind if kind == REQUEST:
                # A request that names another server takes that one's offer.
                if options.get("server_id", self._address) == self._address:
                    self._decide(request, options.get("requested_ip") or request["ciaddr"])
            case kind if kind in (RELEASE, DECLINE):
                self.leases.pop(client, None)

    def _decide(self, request: dict[str, Any], wanted: str) -> None:
        client, pool = request["chaddr"], self.pool
        if self._address_for(client, wanted) != wanted:
            self._reply(request, NAK)
            return
        self.leases[client] = wanted
        self._reply(request, ACK, wanted)
        with self._given:
            self._given_from = pool
            self._given.notify_all()

    def replace_pool(self, pool: DHCPPool, timeout: float) -> bool:
        """Hand out another pool from now on, and wait until a client was given a lease, or a renewal, from it.

        Args:
            pool: what to hand out.
            timeout: seconds to wait at most.

        Returns:
            Whether a client was.
        """
        self.pool = pool
        with self._given:
            return self._given.wait_for(lambda: self._given_from is pool, timeout)

    def _address_for(self, client: str, wanted: str | None) -> str | None:
        """The address that a client has, or wants if it is free, or the first free one."""
        taken = {address for holder, address in self.leases.items() if holder != client}
        for address in filter(None, (self.leases.get(client), wanted)):
            if address in self.pool and address not in taken:
                return address
        return next((address for address in self.pool.addresses() if address not in taken), None)

    def _reply(self, request: dict[str, Any], kind: int, address: str = NOWHERE) -> None:
        pool = self.pool
        options: dict[str, Any] = {"message_type": kind, "server_id": self._address}
        if kind != NAK:
            options |= {
                "lease_time": pool.lease_seconds,
                "subnet_mask": str(IPv4Network(pool.subnet).netmask),
                "router": [pool.router],
            }
            if pool.renew_after is not None:
                options["renewal_time"] = pool.renew_after
        reply = {
            "op": BOOT_REPLY, "xid": request["xid"], "flags": request["flags"], "chaddr": request["chaddr"],
            "ciaddr": request["ciaddr"], "yiaddr": address, "options": options,
        }  # fmt: skip
        # Who has an address already is answered there; everybody else hears broadcasts only (RFC 2131, 4.1).
        to = request["ciaddr"] if request["ciaddr"] != NOWHERE and kind != NAK else _BROADCAST
        try:
            self._socket.sendto(encode(reply), (to, CLIENT_PORT))
        except OSError:
            # A fault may have taken the way back; the client then stays unanswered, which is the point.
            return

    def close(self) -> None:
        """Stop answering. Leases stay with those who have them."""
        os.write(self._stop_writer, b"\0")
        self._thread.join()
        self._socket.close()
        os.close(self._stop_reader)
        os.close(self._stop_writer)


def open_port(interface: str, port: int) -> socket.socket:
    """Open a UDP port for broadcasts on one interface, in the calling thread's namespace.

    Raises:
        OSError: EADDRINUSE when somebody has it.
    """
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        one.bind(("", port))
    except BaseException:
        one.close()
        raise
    return one


def encode(message: dict[str, Any]) -> bytes:
    """A message as it goes over the wire."""
    return bytes(dhcp4msg(message).encode().buf).ljust(_SHORTEST_MESSAGE, b"\0")


def decode(received: bytes) -> dict[str, Any] | None:
    """A message that came; None for what is none."""
    try:
        return dict(dhcp4msg(buf=received).decode())
    except (ValueError, KeyError, IndexError, struct.error):
        return None
