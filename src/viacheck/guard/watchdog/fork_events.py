"""Opens the socket by which the watchdog learns which process started which."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from viacheck.guard.process_ancestry import FORK, KIND_AT, NEW_SESSION, PROCESS_EVENTS, control_message
from viacheck.packets import bpf

_NETLINK_CONNECTOR = 11
_SO_RCVBUFFORCE = 33
_RECEIVE_BUFFER = 1 << 22
"""Octets for some thousand forks, while the watchdog is busy."""
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO: the announcements have the process ids of this namespace."""


@contextlib.contextmanager
def fork_events() -> Iterator[int]:
    """Open a socket that receives the announcements of forks and new sessions; -1 where the kernel makes none.

    It is opened in the network namespace of the calling thread: the connector is in the initial one only.
    """
    try:
        events = _open()
    except OSError:
        yield -1
        return
    with events:
        yield events.fileno()


def _open() -> socket.socket:
    if os.stat("/proc/self/ns/pid").st_ino != _INITIAL_PID_NAMESPACE:
        raise ProcessLookupError
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_CONNECTOR)
    try:
        events.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        bpf.attach(events, _FORKS_AND_SESSIONS)
        events.bind((0, PROCESS_EVENTS))
        events.send(control_message(begin=True))
    except BaseException:
        events.close()
        raise
    return events


_FORKS_AND_SESSIONS = bpf.assemble(
    [
        # BPF loads in network order, and the kernel writes these numbers in the machine's.
        bpf.load(4, KIND_AT),
        bpf.if_equal(socket.htonl(FORK), true="accept"),
        bpf.if_equal(socket.htonl(NEW_SESSION), true="accept"),
        bpf.accept(0),
        "accept",
        bpf.accept(0xFFFFFFFF),
    ]
)
"""Each end, each program and each name of a thread is announced too."""
