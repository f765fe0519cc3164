"""What answers behind the gateways: UDP is echoed, TCP is accepted, DNS gets a name error.

ARP, ICMP and the SYN-ACK are the kernel's own work. One thread serves every gateway of a lab; sockets keep the
namespace that they were opened in.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Iterable, Sequence

from viacheck.host.namespace import Namespace

PROBE_PORT = 33434
DNS_PORT = 53
_DNS_ANSWER_NAME_ERROR = b"\x81\x83"


class Responders:
    """The services behind every gateway of a lab."""

    def __init__(self, gateways: Iterable[tuple[Namespace, Sequence[str]]]) -> None:
        """Open the services on the given addresses of each gateway's namespace, and begin to answer."""
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []
        for namespace, addresses in gateways:
            self._sockets += namespace.call(lambda addresses=addresses: _open(addresses))  # type: ignore[misc]
        for one in self._sockets:
            if one.type == socket.SOCK_DGRAM:
                self._selector.register(one, selectors.EVENT_READ, one.getsockname()[1] == DNS_PORT)
        self._stop_reader, self._stop_writer = os.pipe()
        self._selector.register(self._stop_reader, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._answer, name="far-end", daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        while True:
            for key, _events in self._selector.select():
                if key.data is None:
                    return
                one = key.fileobj
                assert isinstance(one, socket.socket)
                try:
                    request, sender = one.recvfrom(65535)
                    if key.data:
                        request = request[:2] + _DNS_ANSWER_NAME_ERROR + request[4:]
                    one.sendto(request, sender)
                except OSError:
                    # A fault may have taken the way back; the probe then stays unanswered, which is the point.
                    continue

    def close(self) -> None:
        """Stop answering."""
        os.write(self._stop_writer, b"\0")
        self._thread.join()
        self._selector.close()
        for one in self._sockets:
            one.close()
        os.close(self._stop_reader)
        os.close(self._stop_writer)


def _open(addresses: Sequence[str]) -> list[socket.socket]:
    """Open the services in the calling thread's namespace, bound to each address so that answers come from it."""
    opened = []
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for port in (PROBE_PORT, DNS_PORT):
            datagram = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            datagram.bind((address, port))
            opened.append(datagram)
        stream = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stream.bind((address, PROBE_PORT))
        stream.listen(16)
        opened.append(stream)
    return opened
