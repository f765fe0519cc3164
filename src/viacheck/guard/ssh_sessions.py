"""Find the interfaces that carry the operator's SSH session, which must not be taken down without consent.

sshd sets SSH_CONNECTION for its session. sudo removes it, so the sshd above this process is found in /proc, and its
connection in /proc/net/tcp (proc(5)). In tmux no sshd is above this process: then every SSH session of the host counts.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from viacheck.guard.network_state import CurrentState, with_lower_links
from viacheck.guard.objects.address_repair import local_address
from viacheck.host.namespace import Namespace
from viacheck.netlink import rtnetlink
from viacheck.netlink.codec import attribute
from viacheck.netlink.rtnetlink import AF_INET, AF_INET6, RouteSocket

_DAEMONS = ("sshd", "sshd-session", "dropbear")
_ESTABLISHED = "01"
_RTA_DST, _RTA_OIF = 1, 4


class ManagementUnknown(Exception):
    """The connection of an SSH session cannot be found; the message says why."""


@dataclass(frozen=True, slots=True)
class SshSession:
    """An SSH session of this host, and the interfaces that it depends on."""

    peer: str
    interfaces: frozenset[str]
    """The interfaces that its packets arrive and leave by, with the ports and parents below them."""
    found_by: str
    """``SSH_CONNECTION``, ``the sshd above`` or ``an sshd``."""


@dataclass(frozen=True, slots=True)
class _Connection:
    local: bytes
    peer: bytes
    found_by: str


def ssh_sessions(
    namespace: Namespace, environ: Mapping[str, str] | None = None, pid: int | None = None
) -> tuple[SshSession, ...]:
    """Return the SSH sessions that hold the operator's terminal and pass this namespace.

    Args:
        namespace: the host's; a session of another namespace does not depend on its interfaces.
        environ: the environment with SSH_CONNECTION; None for this process's own.
        pid: the process below the operator's sshd; None for this process.

    Raises:
        ManagementUnknown: when an sshd is above the process, and this user must not read its connection.
    """
    inode = os.fstat(namespace.net_fd).st_ino
    connections = list(_from_environment(os.environ if environ is None else environ))
    above = [ancestor for ancestor in _ancestors(os.getpid() if pid is None else pid) if _is_daemon(ancestor)]
    for daemon in above:
        connections += _connections(daemon, inode, "the sshd above", must=True)
    if not connections and not above:
        daemons = (name for name in os.listdir("/proc") if name.isdigit() and _is_daemon(int(name)))
        for number in daemons:
            connections += _connections(int(number), inode, "an sshd", must=False)
    sessions = namespace.call(lambda: [_session(connection) for connection in dict.fromkeys(connections)])
    return tuple(session for session in sessions if session is not None)


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Connection]:
    fields = environ.get("SSH_CONNECTION", "").split()
    if len(fields) == 4:
        peer, local = _octets(fields[0]), _octets(fields[2])
        if peer and local:
            yield _Connection(local, peer, "SSH_CONNECTION")


def _octets(text: str) -> bytes | None:
    bare = text.partition("%")[0]
    for family in (AF_INET, AF_INET6):
        try:
            return _unmapped(socket.inet_pton(family, bare))
        except OSError:
            continue
    return None


def _unmapped(octets: bytes) -> bytes:
    """Return the IPv4 address inside an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2)."""
    return octets[12:] if len(octets) == 16 and octets[:12] == bytes(10) + b"\xff\xff" else octets


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        try:
            with open(f"/proc/{pid}/stat") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            return
        if pid:
            yield pid


def _is_daemon(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip() in _DAEMONS
    except OSError:
        return False


def _connections(pid: int, namespace: int, found_by: str, *, must: bool) -> Iterator[_Connection]:
    """Yield the TCP connections of a process, if the process is in that namespace."""
    try:
        if os.stat(f"/proc/{pid}/ns/net").st_ino != namespace:
            return
        targets = []
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                targets.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
            except FileNotFoundError:
                continue
        sockets = {target[8:-1] for target in targets if target.startswith("socket:[")}
        for name in ("tcp", "tcp6"):
            with open(f"/proc/{pid}/net/{name}") as file:
                rows = [line.split() for line in file.readlines()[1:]]
            for row in rows:
                if row[3] == _ESTABLISHED and row[9] in sockets:
                    yield _Connection(_from_hex(row[1]), _from_hex(row[2]), found_by)
    except PermissionError as error:
        if must:
            raise ManagementUnknown(f"{error.filename}: {error.strerror}") from None
    except FileNotFoundError:
        # The process ended meanwhile, or the kernel has no IPv6.
        return


def _from_hex(address: str) -> bytes:
    """Decode an address of /proc/net/tcp: 32-bit numbers in the machine's byte order, then the port."""
    octets = bytes.fromhex(address.partition(":")[0])
    numbers = struct.unpack(f">{len(octets) // 4}I", octets)
    return _unmapped(struct.pack(f"={len(numbers)}I", *numbers))


def _session(connection: _Connection) -> SshSession | None:
    """Return a connection's session; None when it ends elsewhere. Called inside the namespace."""
    family = AF_INET if len(connection.peer) == 4 else AF_INET6
    with RouteSocket() as netlink:
        state = CurrentState(netlink)
        names = {link.index: link.name for link in state.links}
        holders = {
            names[struct.unpack_from("=I", address.body, 4)[0]]
            for address in state.addresses
            if local_address(address) == connection.local
        }
        if not holders:
            return None
        body = struct.pack("=BBBBBBBBI", family, 8 * len(connection.peer), 0, 0, 0, 0, 0, 0, 0)
        try:
            answer = netlink.ask(rtnetlink.RTM_GETROUTE, body + attribute(_RTA_DST, connection.peer))
            outgoing = {names[answer.number(_RTA_OIF)]} if answer.number(_RTA_OIF) in names else set()
        except OSError:
            outgoing = set()
        interfaces = with_lower_links(holders | outgoing, state.links)
    return SshSession(socket.inet_ntop(family, connection.peer), interfaces, connection.found_by)
