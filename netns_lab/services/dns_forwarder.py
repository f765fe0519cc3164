"""A resolver that carries queries on, as Docker's embedded one does: from its own namespace, with its own source."""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Callable

from viacheck.host.namespace import Namespace

DNS_PORT = 53


def start_forwarder(namespace: Namespace, listen: str, upstream: str) -> Callable[[], None]:
    """Answer DNS on an address of a namespace by asking another resolver; returns what ends it."""

    def open_sockets() -> tuple[socket.socket, socket.socket]:
        inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        inside.bind((listen, DNS_PORT))
        outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        outside.connect((upstream, DNS_PORT))
        return inside, outside

    inside, outside = namespace.call(open_sockets)
    stop_reader, stop_writer = os.pipe()
    thread = threading.Thread(target=_carry, args=(inside, outside, stop_reader), name="resolver", daemon=True)
    thread.start()

    def stop() -> None:
        os.write(stop_writer, b"\0")
        thread.join()
        for one in (inside, outside):
            one.close()
        os.close(stop_reader)
        os.close(stop_writer)

    return stop


def _carry(inside: socket.socket, outside: socket.socket, stop: int) -> None:
    asked: dict[bytes, tuple[str, int]] = {}
    with selectors.DefaultSelector() as selector:
        for one in (inside, outside, stop):
            selector.register(one, selectors.EVENT_READ)
        while True:
            for key, _events in selector.select():
                if key.fileobj is stop:
                    return
                try:
                    if key.fileobj is inside:
                        query, sender = inside.recvfrom(4096)
                        asked[query[:2]] = sender
                        outside.send(query)
                    else:
                        answer = outside.recv(4096)
                        if answer[:2] in asked:
                            inside.sendto(answer, asked.pop(answer[:2]))
                except OSError:
                    # The way to the upstream may be broken on purpose; the query then stays unanswered.
                    continue
