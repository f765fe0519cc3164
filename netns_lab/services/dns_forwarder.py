"""A DNS forwarder, like Docker's embedded DNS server: it sends queries from its own namespace, with its own source."""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Callable

from viacheck.host.namespace import Namespace

DNS_PORT = 53


def start_forwarder(namespace: Namespace, listen: str, upstream: str) -> Callable[[], None]:
    """Answer DNS on an address of a namespace by asking another resolver; return the function that ends it."""

    def open_sockets() -> tuple[socket.socket, socket.socket]:
        inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        inside.bind((listen, DNS_PORT))
        outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        outside.connect((upstream, DNS_PORT))
        return inside, outside

    inside, outside = namespace.call(open_sockets)
    stop_reader, stop_writer = os.pipe()
    thread = threading.Thread(target=_forward, args=(inside, outside, stop_reader), name="dns-forwarder", daemon=True)
    thread.start()

    def stop() -> None:
        os.write(stop_writer, b"\0")
        thread.join()
        inside.close()
        outside.close()
        os.close(stop_reader)
        os.close(stop_writer)

    return stop


def _forward(inside: socket.socket, outside: socket.socket, stop: int) -> None:
    clients: dict[bytes, tuple[str, int]] = {}
    """By the query's transaction number."""
    with selectors.DefaultSelector() as selector:
        for descriptor in (inside, outside, stop):
            selector.register(descriptor, selectors.EVENT_READ)
        while True:
            for key, _events in selector.select():
                if key.fileobj is stop:
                    return
                try:
                    if key.fileobj is inside:
                        query, client = inside.recvfrom(4096)
                        clients[query[:2]] = client
                        outside.send(query)
                    else:
                        answer = outside.recv(4096)
                        if answer[:2] in clients:
                            inside.sendto(answer, clients.pop(answer[:2]))
                except OSError:
                    # A fault may have removed the route to the resolver, on purpose; the query then gets no answer.
                    continue
