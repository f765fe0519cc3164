"""Which process started a process that has ended: the kernel's process connector announces forks and new sessions.

The announcements (linux/cn_proc.h) come only in the initial network, process and user namespace. Elsewhere no ancestor
is known.
"""

from __future__ import annotations

import contextlib
import os
import struct

from viacheck.netlink.codec import NLMSG_DONE, NetlinkSocket, encode_message

FORK, NEW_SESSION = 0x1, 0x80
"""PROC_EVENT_FORK and PROC_EVENT_SID."""
KIND_AT = 36
"""Octets from the beginning of a datagram to the kind of the event: the headers of netlink and of the connector."""
PROCESS_EVENTS = 1
"""CN_IDX_PROC, the group of these announcements; its CN_VAL_PROC has the same number."""
_BEGIN, _END = 1, 2
_CONNECTOR = struct.Struct("=IIIIHHI")
"""struct cn_msg with its data: index, value, sequence number, acknowledgement, length, flags, operation."""
_KIND, _FORKED, _PROCESS = struct.Struct("=I"), struct.Struct("=4I"), struct.Struct("=2I")
_DATA_AT = KIND_AT + 16
_MOST_ANCESTORS = 8
_MOST_PROCESSES = 20_000


def control_message(*, begin: bool) -> bytes:
    """Return the message by which a socket begins, or ends, to receive the announcements."""
    operation = _BEGIN if begin else _END
    payload = _CONNECTOR.pack(PROCESS_EVENTS, PROCESS_EVENTS, 0, 0, 4, 0, operation)
    return encode_message(NLMSG_DONE, 0, 0, payload)


class ProcessAncestry:
    """The ancestors of the processes that were started since a socket began to receive the announcements."""

    def __init__(self, descriptor: int) -> None:
        """Receive by an inherited socket; by none where ``descriptor`` is negative."""
        self._socket = NetlinkSocket.inherited(descriptor) if descriptor >= 0 else None
        self._processes: dict[int, tuple[int, tuple[tuple[int, int], ...]]] = {}
        """By process id: a number that no other process or session has, and the ancestors in the same session."""
        self._latest = 0

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The socket's descriptor, for poll(2), if there is one."""
        return (self._socket.fileno(),) if self._socket is not None else ()

    def read(self) -> None:
        """Receive what was announced so far, without waiting."""
        for datagram in self._socket.waiting() if self._socket is not None else ():
            if datagram is None:
                # A process id may have been given to another process meanwhile.
                self._processes.clear()
            elif len(datagram) >= _DATA_AT + _FORKED.size:
                self._note(_KIND.unpack_from(datagram, KIND_AT)[0], datagram)

    def _note(self, kind: int, datagram: bytes) -> None:
        if kind == FORK:
            _parent_thread, parent, thread, process = _FORKED.unpack_from(datagram, _DATA_AT)
            if thread != process:
                return
            number, ancestors = self._processes.get(parent) or self._add(parent, ())
            self._add(process, ((parent, number), *ancestors)[:_MOST_ANCESTORS])
        elif kind == NEW_SESSION:
            self._add(_PROCESS.unpack_from(datagram, _DATA_AT)[1], ())

    def _add(self, process: int, ancestors: tuple[tuple[int, int], ...]) -> tuple[int, tuple[tuple[int, int], ...]]:
        self._latest += 1
        self._processes.pop(process, None)
        self._processes[process] = self._latest, ancestors
        if len(self._processes) > _MOST_PROCESSES:
            del self._processes[next(iter(self._processes))]
        return self._processes[process]

    def living_ancestor(self, process: int) -> int | None:
        """Return the nearest ancestor that still runs, and is in the session that the ended process was in."""
        self.read()
        for ancestor, number in self._processes.get(process, (0, ()))[1]:
            if self._processes.get(ancestor, (0, ()))[0] == number and os.path.exists(f"/proc/{ancestor}"):
                return ancestor
        return None

    def close(self) -> None:
        """End the announcements: before Linux 6.6 the kernel makes them until this message, also without a socket."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send(control_message(begin=False))
            self._socket.close()
