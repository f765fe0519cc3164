"""Who removed what during a change: the kernel's announcements, and the processes that asked for the removals.

rtnetlink(7) announces a removal with the port of the socket that asked for it, which is the number of the process
for its first socket, and 0 where the kernel removed the object by itself (with a link that went down). The process is
looked up at once, because a command such as ip(8) ends right after its request.

- A process in another login session than the run's is a person's: what it removed is not restored.
- Everything else may be a reaction to the change (a network manager, a hook), and what it removed is restored.
- A process that had ended before it could be looked up was in the session of its nearest ancestor that still runs (a
  shell). Where no ancestor is known, what it removed is restored too.
- The kernel does not name the process that removed an IPv6 address. It does not announce a removal of a proxy
  neighbour, or of the IPv4 routes that go with their link.
"""

from __future__ import annotations

import enum
import os
import socket
import struct
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from viacheck.guard.process_ancestry import ProcessAncestry
from viacheck.netlink import rtnetlink
from viacheck.netlink.codec import MalformedMessage, NetlinkSocket
from viacheck.netlink.route_message import KernelRoute
from viacheck.netlink.rtnetlink import RtnetlinkMessage

RUN_MARK = "VIACHECK_GUARDED_RUN"
"""Environment variable of every command that the run starts while it is guarded."""

# RTMGRP_NEIGH, and RTNLGRP_NEXTHOP (group 32), which has no RTMGRP name.
_GROUPS = rtnetlink.CHANGE_GROUPS | 0x4 | 1 << 31
_HEADER = struct.Struct("=IHHII")
_NUD_FAILED = 0x20
_RULE_INVERT = 0x2
_MOST_KEPT = 20_000
"""Announcements that are kept: a routing daemon may remove a hundred thousand routes."""
_REMOVALS = frozenset({
    rtnetlink.RTM_DELADDR, rtnetlink.RTM_DELROUTE, rtnetlink.RTM_DELNEIGH, rtnetlink.RTM_DELRULE,
    rtnetlink.RTM_DELNEXTHOP,
})  # fmt: skip
_ADDITIONS = frozenset(kind - 1 for kind in _REMOVALS)


class Origin(enum.Enum):
    """Where a removal came from."""

    RUN = "run"
    """The run itself, or one of its commands."""
    PERSON = "person"
    """A process in another login session."""
    PROGRAM = "program"
    """Another process, or one of which no session is known: it may have reacted to the change."""


@dataclass(frozen=True, slots=True)
class Remover:
    """The process that asked for a removal."""

    origin: Origin
    text: str
    """For people."""


def object_key(message: RtnetlinkMessage, names: Mapping[int, str]) -> Hashable:
    """Return what an object is known by in the announcement of its removal too; ``names`` by index."""
    kind, body = message.kind & ~1, message.body
    if kind == rtnetlink.RTM_NEWROUTE:
        return KernelRoute(message, dict(names)).identity
    if kind == rtnetlink.RTM_NEWRULE:
        # The kernel itself sets the flags that say whether interface and target exist.
        inverted = struct.unpack_from("=I", body, 8)[0] & _RULE_INVERT
        return kind, body[:8], inverted, tuple(sorted(message.attributes))
    if kind == rtnetlink.RTM_NEWNEXTHOP:
        return kind, message.number(1)
    index = struct.unpack_from("=i", body, 4)[0]
    if kind == rtnetlink.RTM_NEWADDR:
        return kind, body[0], index, message.get(2) or message.get(1)
    return kind, body[0], index, message.get(1)


class Removals:
    """The removals that the kernel announced while something waited for the end of a change."""

    def __init__(self, removers: Mapping[Hashable, Remover] | None = None, *, lost: bool = False) -> None:
        """Hold what was announced; ``lost``: some announcements were lost."""
        self._removers, self.lost = dict(removers or {}), lost

    def __bool__(self) -> bool:
        return bool(self._removers)

    def by_person(self, message: RtnetlinkMessage, names: Mapping[int, str]) -> str | None:
        """Return the process of a person that removed an object; None when none did."""
        return self._by(Origin.PERSON, message, names)

    def by_program(self, message: RtnetlinkMessage, names: Mapping[int, str]) -> str | None:
        """Return the process that removed an object, and may have reacted to the change; None when none did."""
        return self._by(Origin.PROGRAM, message, names)

    def _by(self, origin: Origin, message: RtnetlinkMessage, names: Mapping[int, str]) -> str | None:
        if not self._removers:
            return None
        remover = self._removers.get(object_key(message, names))
        return remover.text if remover is not None and remover.origin is origin else None


class RemovalListener:
    """Listens in the calling thread's network namespace, and looks up each process that removes something."""

    def __init__(self, run: int, ancestry: ProcessAncestry) -> None:
        """Begin to listen.

        Args:
            run: the process that makes the change.
            ancestry: knows who started a process that has ended.

        Raises:
            OSError: when the kernel does not have rtnetlink.
        """
        self._run, self._session, self._ancestry = run, _login_session(run), ancestry
        self._received: list[tuple[int, bytes, Remover | None]] = []
        self._lost = False
        self._down: set[int] = set()
        self._socket = NetlinkSocket(socket.NETLINK_ROUTE, timeout=0, groups=_GROUPS)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptors that are readable when something was announced, for poll(2)."""
        return (self._socket.fileno(), *self._ancestry.descriptors)

    def read(self) -> None:
        """Receive what was announced so far, without waiting."""
        self._ancestry.read()
        for datagram in self._socket.waiting():
            if datagram is None:
                self._lost = True
                continue
            offset = 0
            while offset + _HEADER.size <= len(datagram):
                length, kind, _flags, _sequence, port = _HEADER.unpack_from(datagram, offset)
                self._add(kind, port, datagram[offset + _HEADER.size : offset + length])
                offset += max((length + 3) & ~3, _HEADER.size)

    def _add(self, kind: int, port: int, payload: bytes) -> None:
        if kind == rtnetlink.RTM_NEWLINK and len(payload) >= rtnetlink.BODY_SIZE[kind]:
            index, flags = struct.unpack_from("=iI", payload, 4)
            (self._down.discard if flags & rtnetlink.IFF_UP else self._down.add)(index)
            return
        failed = kind == rtnetlink.RTM_NEWNEIGH and struct.unpack_from("=H", payload, 8)[0] & _NUD_FAILED
        if (kind in _REMOVALS or failed) and port:
            self._keep(kind, payload, self._remover(port))
        elif kind == rtnetlink.RTM_DELADDR and payload[0] == rtnetlink.AF_INET6:
            # Of these the kernel says no port at all; it removes them by itself only when their link goes down.
            if struct.unpack_from("=i", payload, 4)[0] not in self._down:
                self._keep(kind, payload, Remover(Origin.PROGRAM, "a process that the kernel does not name"))
        elif kind in _ADDITIONS and self._received:
            self._keep(kind, payload, None)

    def _keep(self, kind: int, payload: bytes, remover: Remover | None) -> None:
        if len(self._received) < _MOST_KEPT:
            self._received.append((kind, payload, remover))
        else:
            self._lost = True

    def _remover(self, port: int) -> Remover:
        process: int | None = port
        name, session, mark = _command_name(port), _login_session(port), _has_mark(port)
        text = f"{name} (pid {port})"
        if name is None or session is None:
            process = self._ancestry.living_ancestor(port)
            if process is not None:
                name, session, mark = _command_name(process), _login_session(process), _has_mark(process)
            text = f"a process that had ended (pid {port}), started from {name} (pid {process})"
        if name is None or session is None:
            return Remover(Origin.PROGRAM, f"a process that had ended (port {port})")
        own = self._session
        if mark or process == self._run or (own is not None and session.number == own.number):
            return Remover(Origin.RUN, text)
        # A command of the run that has left its session has no terminal, and the run's control group.
        login = "/user.slice/" in session.cgroup and (own is None or session.cgroup != own.cgroup)
        return Remover(Origin.PERSON if session.terminal or login else Origin.PROGRAM, text)

    def removals(self, names: Mapping[int, str]) -> Removals:
        """Return what was removed and not added again; ``names`` of the interfaces by index, as they were saved."""
        self.read()
        removers: dict[Hashable, Remover] = {}
        for kind, payload, remover in self._received:
            try:
                key = object_key(RtnetlinkMessage.decode(kind, payload), names)
            except (MalformedMessage, struct.error):
                continue
            if remover is None:
                removers.pop(key, None)
            else:
                removers[key] = remover
        return Removals(removers, lost=self._lost)

    def forget(self) -> None:
        """Drop what was announced since the last reading: the restore itself removes objects."""
        received = list(self._received)
        self.read()
        self._received = received


@dataclass(frozen=True, slots=True)
class _LoginSession:
    number: int
    """Of the session (setsid(2))."""
    terminal: bool
    """It has a controlling terminal."""
    cgroup: str
    """As /proc shows it; systemd-logind(8) gives each login one of its own below user.slice."""


def _login_session(pid: int) -> _LoginSession | None:
    """Return the session of a process; None when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        with open(f"/proc/{pid}/cgroup") as file:
            cgroup = file.read()
    except OSError:
        return None
    # proc_pid_stat(5): state, ppid, pgrp, session, tty_nr.
    return _LoginSession(int(fields[3]), fields[4] != b"0", cgroup)


def _command_name(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return os.fsdecode(file.read().rstrip(b"\n"))
    except OSError:
        return None


def _has_mark(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return any(entry.startswith(f"{RUN_MARK}=".encode()) for entry in file.read().split(b"\0"))
    except OSError:
        return False
