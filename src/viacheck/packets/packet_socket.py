"""Packet sockets on one interface, which is named by its index (packet(7)).

Python's own AF_PACKET calls look up the name at each call, fail on names that are not UTF-8, and receive one frame per
call. These sockets bind to an index, and receive all waiting frames by one recvmmsg(2), each with the kernel's time.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from viacheck.packets import bpf

SNAP_LENGTH = 256
"""Octets kept of each frame: the token lies within the first hundred."""
WHOLE_FRAME = 65535
"""A snap length that keeps every frame whole."""
RECEIVE_BUFFER = 4 << 20
ETHERNET_HEADER = 14
SHORTEST_FRAME = 60
"""Octets of the shortest Ethernet frame, without its checksum."""
SO_TIMESTAMPNS = 35
TIMESPEC = struct.Struct("@ll")
"""struct timespec: the control message of SO_TIMESTAMPNS."""
ETHERNET_LIKE = frozenset({1, 772})
"""ARPHRD_ETHER and ARPHRD_LOOPBACK: interfaces whose frames have an Ethernet header."""

_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_AUXDATA, _PACKET_IGNORE_OUTGOING = 263, 6, 8, 23
_SO_RCVBUFFORCE = 33
_PACKET_OUTGOING = 4
_BATCH = 32
_WORD = struct.calcsize("@N")
_CONTROL = 24
_FACTS = struct.Struct(f"@2xH6xB9x4x{_WORD}xiill{_WORD}xii4xI12x0N")
"""What the kernel says of a frame: struct sockaddr_ll with EtherType and direction, then at _CONTROL the control
messages with its time (struct timespec), and with its length (struct tpacket_auxdata)."""
_EXPECTED_CONTROLS = (socket.SOL_SOCKET, SO_TIMESTAMPNS, _SOL_PACKET, _PACKET_AUXDATA)
_STATISTICS = struct.Struct("@II")

_libc = ctypes.CDLL(None, use_errno=True)


class _Address(ctypes.Structure):
    """struct sockaddr_ll."""

    _fields_ = (
        ("family", ctypes.c_ushort),
        ("protocol", ctypes.c_ushort),
        ("index", ctypes.c_int),
        ("hardware_type", ctypes.c_ushort),
        ("packet_type", ctypes.c_ubyte),
        ("address_length", ctypes.c_ubyte),
        ("address", ctypes.c_ubyte * 8),
    )


class _Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", _Header), ("received", ctypes.c_uint))


_MESSAGE_FIELDS = struct.Struct(f"@{_Message.received.offset}xI0P")
"""What is read of it: ctypes takes longer."""


class Received(NamedTuple):
    """One frame that the kernel delivered."""

    time_ns: int
    """Since the epoch, by the kernel's clock when the frame passed the interface."""
    outgoing: bool
    protocol: int
    """EtherType."""
    octets: bytes
    """The frame up to the snap length; without an Ethernet header where the interface has none."""
    length: int
    """Of the whole frame."""


class PacketSocket:
    """Receives the frames that pass one interface, in both directions, and that the kernel filter accepts.

    The interface may go down and up again. Once it is removed, the socket receives nothing more.
    """

    def __init__(
        self,
        index: int,
        hardware_type: int,
        program: bytes,
        *,
        snap_length: int = SNAP_LENGTH,
        outgoing: bool = True,
    ) -> None:
        """Open in the calling thread's namespace. The filter is in force before the first frame.

        Args:
            index: the interface's.
            hardware_type: ARPHRD_*.
            program: classic BPF.
            snap_length: octets to keep of each frame.
            outgoing: receive the frames that leave by the interface too.

        Raises:
            OSError: EPERM without CAP_NET_RAW, ENODEV when no interface has that index.
        """
        self.index = index
        self.ethernet = hardware_type in ETHERNET_LIKE
        kind = socket.SOCK_RAW if self.ethernet else socket.SOCK_DGRAM
        self._socket = socket.socket(socket.AF_PACKET, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
        try:
            self._configure(program, outgoing)
            bind_to_index(self._socket, index)
        except BaseException:
            self._socket.close()
            raise
        self._buffers = _Buffers(snap_length)
        self._receiving = threading.Lock()

    def _configure(self, program: bytes, outgoing: bool) -> None:
        bpf.attach(self._socket, program)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        if not outgoing:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)

    def fileno(self) -> int:
        """Return the descriptor, for poll(2)."""
        return self._socket.fileno()

    def receive(self) -> list[Received]:
        """Return everything that has arrived, without waiting. An interface that went down in between is no error.

        Raises:
            OSError: with the kernel's errno.
        """
        frames: list[Received] = []
        with self._receiving:
            while True:
                count = self._buffers.fill(self.fileno())
                frames += self._buffers.frames(count)
                if count < _BATCH:
                    return frames

    def discard(self) -> None:
        """Drop everything that has arrived, and the kernel's count of lost frames.

        Raises:
            OSError: with the kernel's errno.
        """
        with self._receiving:
            while _receive_messages(self.fileno(), _DROPPED) == len(_DROPPED):
                pass
        self.frames_lost()

    def frames_lost(self) -> int:
        """Return how many frames that passed the filter the kernel dropped since the last call."""
        return int(_STATISTICS.unpack(self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size))[1])

    def close(self) -> None:
        """Close; this waits for an RCU grace period, some 10 ms."""
        self._socket.close()


_DROPPED = (_Message * 256)()
"""Messages without any memory: of a frame that is received to one, nothing is kept."""


def _receive_messages(descriptor: int, messages: ctypes.Array[_Message]) -> int:
    """Receive frames to messages, without waiting; return how many frames were received."""
    while True:
        count: int = _libc.recvmmsg(descriptor, messages, len(messages), socket.MSG_DONTWAIT, None)
        if count >= 0:
            return count
        number = ctypes.get_errno()
        if number == errno.EAGAIN:
            return 0
        if number not in (errno.ENETDOWN, errno.EINTR):
            raise OSError(number, os.strerror(number))


class _Buffers:
    """The memory that recvmmsg(2) writes a batch of frames to, with their addresses and control messages."""

    def __init__(self, snap_length: int) -> None:
        self._snap_length = snap_length
        self._frames = bytearray(_BATCH * snap_length)
        self._facts = bytearray(_BATCH * _FACTS.size)
        self._vectors = (_Vector * _BATCH)()
        self._messages = (_Message * _BATCH)()
        frames = ctypes.addressof(ctypes.c_char.from_buffer(self._frames))
        facts = ctypes.addressof(ctypes.c_char.from_buffer(self._facts))
        for place in range(_BATCH):
            self._vectors[place].base = frames + place * snap_length
            self._vectors[place].length = snap_length
            header = self._messages[place].header
            header.name = facts + place * _FACTS.size
            header.name_length = ctypes.sizeof(_Address)
            header.vectors = ctypes.addressof(self._vectors[place])
            header.vector_count = 1
            header.control = facts + place * _FACTS.size + _CONTROL
            header.control_length = _FACTS.size - _CONTROL
        self._unused = bytes(self._messages)
        self._used = 0

    def fill(self, descriptor: int) -> int:
        """Receive at most one batch, without waiting; return how many frames it holds."""
        # The kernel has overwritten the lengths.
        ctypes.memmove(self._messages, self._unused, self._used * _MESSAGE_FIELDS.size)
        self._used = _receive_messages(descriptor, self._messages)
        return self._used

    def frames(self, count: int) -> Iterator[Received]:
        """Return copies of the first frames of the batch.

        Raises:
            OSError: EBADMSG when the kernel has not added the control messages that the socket asks for.
        """
        frames = memoryview(self._frames)
        messages, facts = _MESSAGE_FIELDS.iter_unpack(self._messages), _FACTS.iter_unpack(self._facts)
        for place, (received,), (
            protocol, packet_type, time_level, time_kind, seconds, nanoseconds, auxdata_level, auxdata_kind, length,
        ) in zip(range(count), messages, facts, strict=False):  # fmt: skip
            if (time_level, time_kind, auxdata_level, auxdata_kind) != _EXPECTED_CONTROLS:
                raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
            start = place * self._snap_length
            yield Received(
                seconds * 1_000_000_000 + nanoseconds,
                packet_type == _PACKET_OUTGOING,
                socket.ntohs(protocol),
                frames[start : start + received].tobytes(),
                length,
            )


class PacketSender:
    """Sends whole frames by any interface of the namespace that it was opened in. It receives nothing."""

    def __init__(self) -> None:
        """Open in the calling thread's namespace.

        Raises:
            PermissionError: without CAP_NET_RAW.
        """
        flags = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | flags, 0)
        self._cooked = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | flags, 0)

    def fileno(self) -> int:
        """Return the descriptor, for ioctls on the namespace's interfaces."""
        return self._raw.fileno()

    def send(self, index: int, protocol: int, frame: bytes, *, ethernet: bool = True) -> None:
        """Send a frame by an interface: with its Ethernet header, or without one where the interface has none.

        Raises:
            OSError: ENETDOWN, ENXIO, ENOBUFS and others of packet(7).
        """
        send_frame(self._raw if ethernet else self._cooked, index, protocol, frame)

    def burst(self, index: int, protocol: int, frame: bytes, size: int) -> Burst:
        """Prepare to send the same frame up to ``size`` times by one system call."""
        return Burst(self._raw.fileno(), index, protocol, frame, size)

    def close(self) -> None:
        """Close both sockets."""
        self._raw.close()
        self._cooked.close()


class Burst:
    """One Ethernet frame, prepared for sending many times by sendmmsg(2)."""

    def __init__(self, descriptor: int, index: int, protocol: int, frame: bytes, size: int) -> None:
        """Prepare for a packet sender's descriptor, which must stay open."""
        self._descriptor = descriptor
        self._size = size
        self._frame = ctypes.create_string_buffer(frame, len(frame))
        self._address = _address(index, protocol)
        self._vector = _Vector(ctypes.addressof(self._frame), len(frame))
        self._messages = (_Message * size)()
        for message in self._messages:
            message.header.name = ctypes.addressof(self._address)
            message.header.name_length = ctypes.sizeof(self._address)
            message.header.vectors = ctypes.addressof(self._vector)
            message.header.vector_count = 1

    def send(self, count: int) -> int:
        """Send the frame at most ``count`` times; return how many frames the kernel accepted.

        Raises:
            OSError: when the kernel accepted none: EAGAIN or ENOBUFS while the interface is busy.
        """
        sent: int = _libc.sendmmsg(self._descriptor, self._messages, min(count, self._size), socket.MSG_DONTWAIT)
        if sent < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return sent


def close_in_background(sockets: Sequence[PacketSocket | PacketSender]) -> None:
    """Close sockets in a thread of their own: each packet socket costs an RCU grace period."""

    def close() -> None:
        for packet_socket in sockets:
            packet_socket.close()

    threading.Thread(target=close, name="packet-sockets-closing").start()


def send_frame(packet_socket: socket.socket, index: int, protocol: int, frame: bytes) -> int:
    """Send a frame by an interface; return its length.

    Raises:
        OSError: ENETDOWN, ENXIO, ENOBUFS and others of packet(7).
    """
    address = _address(index, protocol)
    sent: int = _libc.sendto(
        packet_socket.fileno(), frame, ctypes.c_size_t(len(frame)), 0, ctypes.byref(address), ctypes.sizeof(address)
    )
    if sent < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return sent


def _address(index: int, protocol: int) -> _Address:
    return _Address(family=socket.AF_PACKET, protocol=socket.htons(protocol), index=index)


def bind_to_index(packet_socket: socket.socket, index: int) -> None:
    """Bind a packet socket to an interface: from now on it receives that interface's frames.

    Raises:
        OSError: ENODEV when no interface has that index.
    """
    address = _address(index, _ETH_P_ALL)
    if _libc.bind(packet_socket.fileno(), ctypes.byref(address), ctypes.sizeof(address)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
