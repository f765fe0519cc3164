"""The wire format of nfnetlink, for nftables: attributes packed and taken apart, dumps asked for, batches sent.

pyroute2 has an nftables socket too. It is not used because its transactions of several messages never tell that the
kernel refused them, and because reading and writing then share one small codec that costs nothing to import.
Constants and layouts follow linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from viacheck.host.namespace import Namespace

NETLINK_NETFILTER = 12
NLM_F_REQUEST, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_DUMP, NLM_F_CREATE, NLM_F_APPEND = 1, 0x10, 0x200, 0x300, 0x400, 0x800
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYSTEM_NFTABLES = 10
_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE_SIZE = 1 << 17
ANSWER_TIMEOUT = 5.0


class MessageType(IntEnum):
    """The requests and objects of nf_tables (enum nf_tables_msg_types)."""

    NEWTABLE = 0
    GETTABLE = 1
    DELTABLE = 2
    NEWCHAIN = 3
    GETCHAIN = 4
    NEWRULE = 6
    GETRULE = 7
    NEWSET = 9
    GETSET = 10
    NEWSETELEM = 12
    GETSETELEM = 13
    NEWGEN = 15
    GETGEN = 16


class Protocol(IntEnum):
    """NFPROTO_*: the family that a table belongs to; the value's name in lower case is nft's word for it."""

    UNSPEC = 0
    INET = 1
    IP = 2
    ARP = 3
    NETDEV = 5
    BRIDGE = 7
    IP6 = 10


@dataclass(frozen=True, slots=True)
class Message:
    """One nf_tables message: a request, or one object of a dump."""

    type: MessageType
    family: Protocol
    body: bytes
    flags: int = 0


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four octets."""
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(-length % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NLA_F_NESTED, b"".join(parts))


def string(kind: int, value: str) -> bytes:
    """A NUL-terminated name."""
    return attribute(kind, os.fsencode(value) + b"\0")


def number(kind: int, value: int) -> bytes:
    """A 32-bit number; nf_tables has all of them in network order, negative ones in two's complement."""
    return attribute(kind, (value & 0xFFFFFFFF).to_bytes(4, "big"))


def elements(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in a body, in order, repeated ones included."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _NLA_TYPE_MASK, body[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def attributes(body: bytes) -> dict[int, bytes]:
    """The attributes in a body by kind."""
    return dict(elements(body))


def as_string(payload: bytes) -> str:
    """The name in an attribute's payload."""
    return os.fsdecode(payload.split(b"\0", 1)[0])


def as_number(payload: bytes) -> int:
    """The unsigned number in an attribute's payload, of any width."""
    return int.from_bytes(payload, "big")


class NfnetlinkSocket:
    """An nfnetlink socket that lives in one namespace; usable from any thread, one at a time."""

    def __init__(self, namespace: Namespace) -> None:
        """Open the socket inside the namespace.

        Raises:
            OSError: EPROTONOSUPPORT when the kernel has no nfnetlink.
        """
        self._socket = namespace.call(
            lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        )
        self._socket.settimeout(ANSWER_TIMEOUT)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def generation(self) -> int:
        """The number of the ruleset in force; every committed batch makes it another one.

        Raises:
            OSError: with the kernel's errno.
        """
        self._request(MessageType.GETGEN, Protocol.UNSPEC, b"", NLM_F_REQUEST)
        for message in self._received():
            return as_number(attributes(message.body)[1])
        raise OSError(errno.EPROTO, "no answer to NFT_MSG_GETGEN")

    def dump(self, kind: MessageType, family: Protocol = Protocol.UNSPEC, body: bytes = b"") -> list[Message]:
        """All objects of one kind, in the kernel's order.

        Raises:
            InterruptedError: when the ruleset changed while it was read.
            OSError: with the kernel's errno.
        """
        self._request(kind, family, body, NLM_F_REQUEST | NLM_F_DUMP)
        return list(self._received())

    def commit(self, messages: Sequence[Message]) -> None:
        """Have the kernel take over all messages in one transaction, or none of them.

        Raises:
            OSError: with the errno of the first message that the kernel refused.
        """
        subsystem = struct.pack(">BBH", Protocol.UNSPEC, 0, _SUBSYSTEM_NFTABLES)
        batch = [self._packed(_BATCH_BEGIN, NLM_F_REQUEST, subsystem)]
        for message in messages:
            kind = _SUBSYSTEM_NFTABLES << 8 | message.type
            batch.append(self._packed(kind, NLM_F_REQUEST | message.flags, _family(message.family) + message.body))
        batch.append(self._packed(_BATCH_END, NLM_F_REQUEST, subsystem))
        self._socket.send(b"".join(batch))
        # The kernel works a batch off before send() returns: what it has to object to is in the queue by now.
        self._socket.settimeout(0)
        try:
            answer = self._socket.recv(_RECEIVE_SIZE)
        except BlockingIOError:
            return
        finally:
            self._socket.settimeout(ANSWER_TIMEOUT)
        for _ in _messages(answer):
            pass

    def _request(self, kind: MessageType, family: Protocol, body: bytes, flags: int) -> None:
        self._socket.send(self._packed(_SUBSYSTEM_NFTABLES << 8 | kind, flags, _family(family) + body))

    def _packed(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        return _HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body

    def _received(self) -> Iterator[Message]:
        while True:
            for message in _messages(self._socket.recv(_RECEIVE_SIZE)):
                if message is None:
                    return
                yield message


def _family(family: Protocol) -> bytes:
    return struct.pack(">BBH", family, 0, 0)


def _messages(received: bytes) -> Iterator[Message | None]:
    """The messages of one datagram; None stands for the end of the dump."""
    offset = 0
    while offset < len(received):
        length, kind, flags, _, _ = _HEADER.unpack_from(received, offset)
        body = received[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3
        if kind in (_NLMSG_ERROR, _NLMSG_DONE) and len(body) >= 4:
            code = -struct.unpack_from("=i", body)[0]
            if code:
                raise OSError(code, os.strerror(code))
        if flags & NLM_F_DUMP_INTR:
            raise InterruptedError(errno.EINTR, "the ruleset changed while it was read")
        if kind == _NLMSG_DONE:
            yield None
        elif kind != _NLMSG_ERROR:
            yield Message(MessageType(kind & 0xFF), Protocol(body[0]), body[4:], flags)
