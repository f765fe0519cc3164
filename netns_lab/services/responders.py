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
from concurrent.futures import Future
from typing import Self

from viacheck.host import syscalls
from viacheck.host.namespace import Namespace

PROBE_PORT = 33434
DNS_PORT = 53
_DNS_ANSWER_NAME_ERROR = b"\x81\x83"


class Responders:
    """The services behind every gateway of a lab."""

    def __init__(self, gateways: Iterable[tuple[Namespace, Sequence[str]]]) -> None:
        """Begin to open the sockets on the given addresses of each gateway's namespace, and to answer.

        ``wait_until_open`` must follow, or ``close``.
        """
        self.ignored_share = 0.0
        """The share of the UDP probes that get no answer."""
        self.answers_after = 0.0
        """Seconds after which a UDP probe is answered, as by a distant target."""
        self._unanswered = 0.0
        self._sockets: list[socket.socket] = []
        self._stop_reader, self._stop_writer = os.pipe()
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, args=(list(gateways),), name="responders", daemon=True)
        self._thread.start()

    def wait_until_open(self) -> Self:
        """Wait until every gateway answers.

        Raises:
            OSError: when a socket cannot be opened on an address.
        """
        self._opened.result()
        return self

    def _serve(self, gateways: Iterable[tuple[Namespace, Sequence[str]]]) -> None:
        try:
            # This thread goes from one namespace to the next: a worker in each takes longer to start than to open them.
            for namespace, addresses in gateways:
                syscalls.setns(namespace.net_fd, syscalls.CLONE_NEWNET)
                self._sockets += _open(addresses)
        except BaseException as error:
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        self._answer()

    def _answer(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._stop_reader, selectors.EVENT_READ, None)
            for listener in self._sockets:
                if listener.type == socket.SOCK_DGRAM:
                    selector.register(listener, selectors.EVENT_READ, listener.getsockname()[1] == DNS_PORT)
            while True:
                for key, _events in selector.select():
                    if key.data is None:
                        return
                    assert isinstance(key.fileobj, socket.socket)
                    self._answer_one(key.fileobj, is_dns=key.data)

    def _answer_one(self, listener: socket.socket, *, is_dns: bool) -> None:
        try:
            request, sender = listener.recvfrom(65535)
            if is_dns:
                request = request[:2] + _DNS_ANSWER_NAME_ERROR + request[4:]
            elif self._ignores():
                return
            elif self.answers_after:
                time.sleep(self.answers_after)
            listener.sendto(request, sender)
        except OSError:
            # A fault may have removed the route to the sender, on purpose; the probe then gets no answer.
            return

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
