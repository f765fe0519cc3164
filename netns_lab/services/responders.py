"""The responders behind the gateways: they echo UDP, accept TCP, and answer DNS with a name error.

The kernel answers ARP, ICMP and SYN by itself. A single thread serves every gateway of a lab; sockets keep the
namespace that they were opened in.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from functools import partial

from viacheck.host.namespace import Namespace

PROBE_PORT = 33434
DNS_PORT = 53
_DNS_ANSWER_NAME_ERROR = b"\x81\x83"


class Responders:
    """The services behind every gateway of a lab."""

    def __init__(self, gateways: Iterable[tuple[Namespace, Sequence[str]]]) -> None:
        """Open the sockets on the given addresses of each gateway's namespace, and start to answer."""
        self.ignored_share = 0.0
        """The share of the UDP probes that get no answer."""
        self.answers_after = 0.0
        """Seconds after which a UDP probe is answered, as by a distant target."""
        self._unanswered = 0.0
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []
        opening = [namespace.submit(partial(_open, addresses)) for namespace, addresses in gateways]
        for opened in opening:
            self._sockets += opened.result()
        for listener in self._sockets:
            if listener.type == socket.SOCK_DGRAM:
                self._selector.register(listener, selectors.EVENT_READ, listener.getsockname()[1] == DNS_PORT)
        self._stop_reader, self._stop_writer = os.pipe()
        self._selector.register(self._stop_reader, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._answer, name="responders", daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        while True:
            for key, _events in self._selector.select():
                if key.data is None:
                    return
                listener = key.fileobj
                assert isinstance(listener, socket.socket)
                try:
                    request, sender = listener.recvfrom(65535)
                    if not key.data and self._ignores():
                        continue
                    if key.data:
                        request = request[:2] + _DNS_ANSWER_NAME_ERROR + request[4:]
                    if self.answers_after and not key.data:
                        time.sleep(self.answers_after)
                    listener.sendto(request, sender)
                except OSError:
                    # A fault may have removed the route to the sender, on purpose; the probe then gets no answer.
                    continue

    def _ignores(self) -> bool:
        """Return whether this probe is among those without an answer; they are spread evenly over all probes."""
        self._unanswered += self.ignored_share
        if self._unanswered < 1:
            return False
        self._unanswered -= 1
        return True

    def close(self) -> None:
        """Stop answering."""
        os.write(self._stop_writer, b"\0")
        self._thread.join()
        self._selector.close()
        for listener in self._sockets:
            listener.close()
        os.close(self._stop_reader)
        os.close(self._stop_writer)


def _open(addresses: Sequence[str]) -> list[socket.socket]:
    """Open the sockets in the calling thread's namespace, bound to each address, so that answers have it as source."""
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
