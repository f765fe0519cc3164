"""Which interfaces carry the SSH session that the operator works through, and so must not be taken down unasked.

sshd tells its session in SSH_CONNECTION; sudo takes that away, so the sshd above this process is looked for in /proc,
and its connection in /proc/net/tcp (proc(5)). In tmux there is no sshd above: then every SSH session counts.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from viacheck.guard.objects.addresses import local as local_address
from viacheck.guard.saved_state import LinkState, LiveState
from viacheck.host.namespace import Namespace
from viacheck.netlink import rtnetlink
from viacheck.netlink.codec import attribute
from viacheck.netlink.rtnetlink import AF_INET, AF_INET6, RouteSocket

_DAEMONS = ("sshd", "sshd-session", "dropbear")
_ESTABLISHED = "01"
_RTA_DST, _RTA_OIF = 1, 4


class ManagementUnknown(Exception):
    """There is an SSH session, and its connection cannot be found out; the message says why."""


@dataclass(frozen=True, slots=True)
class SshSession:
    """An SSH session of this host, and the interfaces without which it would be cut."""

    peer: str
    interfaces: frozenset[str]
    """Where its packets arrive and leave, with the ports and parents beneath."""
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
    """The SSH sessions that hold the operator's terminal and pass this namespace.

    Args:
        namespace: the host's; a session of another namespace is none of its interfaces' business.
        environ: where SSH_CONNECTION is looked for; None for this process's own.
        pid: the process above which an sshd is looked for; None for this one.

    Raises:
        ManagementUnknown: when an sshd stands above, and this user may not see its connection.
    """
    inode = os.fstat(namespace.net_fd).st_ino
    found = list(_from_environment(os.environ if environ is None else environ))
    above = [one for one in _ancestors(os.getpid() if pid is None else pid) if _is_daemon(one)]
    for daemon in above:
        found += _connections(daemon, inode, "the sshd above", must=True)
    if not found and not above:
        daemons = (one for one in os.listdir("/proc") if one.isdigit() and _is_daemon(int(one)))
        for number in daemons:
            found += _connections(int(number), inode, "an sshd", must=False)
    sessions = namespace.call(lambda: [_session(one) for one in dict.fromkeys(found)])
    return tuple(one for one in sessions if one is not None)


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Connection]:
    words = environ.get("SSH_CONNECTION", "").split()
    if len(words) == 4:
        peer, here = _octets(words[0]), _octets(words[2])
        if peer and here:
            yield _Connection(here, peer, "SSH_CONNECTION")


def _octets(text: str) -> bytes | None:
    bare = text.partition("%")[0]
    for family in (AF_INET, AF_INET6):
        try:
            return _unmapped(socket.inet_pton(family, bare))
        except OSError:
            continue
    return None


def _unmapped(octets: bytes) -> bytes:
    """An IPv4 address that an IPv6 socket sees (RFC 4291, 2.5.5.2) as what it is."""
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
    """The TCP connections of one process, if it lives in that namespace."""
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
        # It ended meanwhile, or there is no IPv6.
        return


def _from_hex(address: str) -> bytes:
    """An address of /proc/net/tcp: 32-bit words in the machine's byte order, then the port."""
    words = bytes.fromhex(address.partition(":")[0])
    numbers = struct.unpack(f">{len(words) // 4}I", words)
    return _unmapped(struct.pack(f"={len(numbers)}I", *numbers))


def _session(connection: _Connection) -> SshSession | None:
    """Run inside the namespace: the interfaces of one connection; None when it does not end here."""
    family = AF_INET if len(connection.peer) == 4 else AF_INET6
    with RouteSocket() as netlink:
        live = LiveState(netlink)
        names = {link.index: link.name for link in live.links}
        holders = {
            names[struct.unpack_from("=I", one.body, 4)[0]]
            for one in live.addresses
            if local_address(one) == connection.local
        }
        if not holders:
            return None
        body = struct.pack("=BBBBBBBBI", family, 8 * len(connection.peer), 0, 0, 0, 0, 0, 0, 0)
        try:
            answer = netlink.ask(rtnetlink.RTM_GETROUTE, body + attribute(_RTA_DST, connection.peer))
            way = {names[answer.number(_RTA_OIF)]} if answer.number(_RTA_OIF) in names else set()
        except OSError:
            way = set()
        interfaces = _with_beneath(holders | way, live.links)
    return SshSession(socket.inet_ntop(family, connection.peer), interfaces, connection.found_by)


def _with_beneath(interfaces: set[str], links: tuple[LinkState, ...]) -> frozenset[str]:
    """A bridge's ports, a bond's members and a VLAN's parent carry what passes it."""
    found = set(interfaces)
    while True:
        more = {link.name for link in links if link.master in found}
        more |= {link.parent for link in links if link.name in found and link.parent}
        if more <= found:
            return frozenset(found)
        found |= more
