"""A DHCP server for a lab's segment: a pool, a router and a lease time, served from a thread (RFC 2131, RFC 2132).

The pool can be replaced while the server runs, as an operator would change it; clients get the change when they renew.
The messages are pyroute2's; it has a DHCP client and a server detector, but no server (0.9.7).
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from viacheck.host.namespace import Namespace

SERVER_PORT, CLIENT_PORT = 67, 68
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE = 1, 2, 3, 4, 5, 6, 7
BOOT_REQUEST, BOOT_REPLY = 1, 2
BROADCAST_FLAG = 0x8000
UNSPECIFIED = "0.0.0.0"  # noqa: S104 - an empty field of a message
_BROADCAST = "255.255.255.255"
_SHORTEST_MESSAGE = 300
"""Octets: relays and old clients drop shorter messages (RFC 1542, 2.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DHCPPool:
    """The addresses, the router and the lease time that a DHCP server hands out."""

    subnet: str
    """In CIDR form."""
    first: str
    last: str
    router: str
    server: str | None = None
    """The server's own address in its messages; None for the first of its interface."""
    lease_seconds: int = 3600
    renew_after: int | None = None
    """Seconds after which clients must renew (T1 of RFC 2131, 4.4.5); None leaves T1 to the clients."""
    offer_delay: float = 0.0
    """Seconds between a DHCPDISCOVER and its offer: servers ping the address meanwhile."""

    def addresses(self) -> Iterator[str]:
        """Yield the pool's addresses in order."""
        for number in range(int(IPv4Address(self.first)), int(IPv4Address(self.last)) + 1):
            yield str(IPv4Address(number))

    def __contains__(self, address: object) -> bool:
        return IPv4Address(self.first) <= IPv4Address(str(address)) <= IPv4Address(self.last)


class DHCPServer:
    """A server on one interface, which answers as soon as it is made.

    Attributes:
        pool: the pool that it hands out; may be replaced at any time.
        leases: the address of each client, by its MAC address.
        namespace: of the interface.
    """

    def __init__(self, namespace: Namespace, interface: str, address: str, pool: DHCPPool) -> None:
        """Listen on an interface.

        Args:
            namespace: of the interface.
            interface: the only interface on which the server answers.
            address: of the interface; the server's own address in its messages, unless the pool names another.
            pool: to hand out.

        Raises:
            OSError: when another server has opened the port (EADDRINUSE).
        """
        self.pool = pool
        self.leases: dict[str, str] = {}
        self.namespace = namespace
        self._address = pool.server or address
        self._delayed: list[tuple[float, dict[str, Any], str]] = []
        """When an offer is due, the DHCPDISCOVER that it answers, and the offered address."""
        self._leased = threading.Condition()
        self._leased_from: DHCPPool | None = None
        self._socket = namespace.call(lambda: open_port(interface, SERVER_PORT))
        self._stop_reader, self._stop_writer = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="dhcp-server", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._stop_reader, selectors.EVENT_READ)
            while True:
                due = min((due for due, _request, _address in self._delayed), default=None)
                for key, _events in selector.select(None if due is None else max(due - time.monotonic(), 0)):
                    if key.fileobj is self._stop_reader:
                        return
                    self._answer(self._socket.recv(2048))
                self._send_delayed()

    def _send_delayed(self) -> None:
        """Send the offers that are due."""
        now = time.monotonic()
        for due, request, address in self._delayed:
            if due <= now:
                self._reply(request, OFFER, address)
        self._delayed = [entry for entry in self._delayed if entry[0] > now]

    def _answer(self, received: bytes) -> None:
        request = decode(received)
        if request is None or request["op"] != BOOT_REQUEST:
            return
        options, client = request["options"], request["chaddr"]
        match options.get("message_type"):
            case kind if kind == DISCOVER:
                offered = self._address_for(client, options.get("requested_ip"))
                if offered is not None:
                    self._delayed.append((time.monotonic() + self.pool.offer_delay, request, offered))
            case kind if kind == REQUEST:
                # A request that names another server accepts the other server's offer.
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
        with self._leased:
            self._leased_from = pool
            self._leased.notify_all()

    def replace_pool(self, pool: DHCPPool, timeout: float) -> bool:
        """Hand out another pool, and wait until a client has a lease or a renewal from it.

        Args:
            pool: to hand out.
            timeout: seconds to wait at most.

        Returns:
            Whether a client has.
        """
        self.pool = pool
        with self._leased:
            return self._leased.wait_for(lambda: self._leased_from is pool, timeout)

    def _address_for(self, client: str, wanted: str | None) -> str | None:
        """Return a client's present address, or its wanted address if that is free, or the first free address."""
        taken = {address for holder, address in self.leases.items() if holder != client}
        for address in filter(None, (self.leases.get(client), wanted)):
            if address in self.pool and address not in taken:
                return address
        return next((address for address in self.pool.addresses() if address not in taken), None)

    def _reply(self, request: dict[str, Any], kind: int, address: str = UNSPECIFIED) -> None:
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
        # A client with an address gets a unicast answer; other clients hear only broadcasts (RFC 2131, 4.1).
        to = request["ciaddr"] if request["ciaddr"] != UNSPECIFIED and kind != NAK else _BROADCAST
        try:
            self._socket.sendto(encode(reply), (to, CLIENT_PORT))
        except OSError:
            # A fault may have removed the route to the client, on purpose; the client then gets no answer.
            return

    def close(self) -> None:
        """Stop answering. Clients keep their leases."""
        os.write(self._stop_writer, b"\0")
        self._thread.join()
        self._socket.close()
        os.close(self._stop_reader)
        os.close(self._stop_writer)


def open_port(interface: str, port: int) -> socket.socket:
    """Open a UDP port for broadcasts on one interface, in the calling thread's namespace.

    Raises:
        OSError: EADDRINUSE when another program has opened it.
    """
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        opened.bind(("", port))
    except BaseException:
        opened.close()
        raise
    return opened


def encode(message: dict[str, Any]) -> bytes:
    """Return a message in its wire format (RFC 2131, 2)."""
    from pyroute2.dhcp.dhcp4msg import dhcp4msg

    return bytes(dhcp4msg(message).encode().buf).ljust(_SHORTEST_MESSAGE, b"\0")


def decode(received: bytes) -> dict[str, Any] | None:
    """Return the fields of a received message, or None when it is not a DHCP message."""
    from pyroute2.dhcp.dhcp4msg import dhcp4msg

    try:
        return dict(dhcp4msg(buf=received).decode())
    except (ValueError, KeyError, IndexError, struct.error):
        return None
