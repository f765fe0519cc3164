"""The capture socket as a scapy SuperSocket, for ``sniff``, ``AsyncSniffer``, ``bridge_and_sniff`` and ``wrpcap``.

The kernel filters, stamps the time and counts lost frames, as in a PacketSocket. Importing this module imports scapy;
captures import it when they open their first socket.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from viacheck.host.link_state import LinkReader
from viacheck.host.namespace import Namespace
from viacheck.packets import bpf
from viacheck.packets.classify import ETH_P_IP, ETH_P_IPV6
from viacheck.packets.packet_socket import (
    SNAP_LENGTH,
    WHOLE_FRAME,
    PacketSender,
    PacketSocket,
    Received,
    close_in_background,
    send_frame,
)
from viacheck.packets.scapy_import import SuperSocket
from viacheck.packets.scapy_packet import scapy_packet

if TYPE_CHECKING:
    from viacheck.packets.scapy_import import EDecimal, Packet

_ETHERTYPE = slice(12, 14)


class CaptureSocket(PacketSocket, SuperSocket):  # type: ignore[misc]
    """Captures on one interface, for a watch and for scapy at once.

    A watch reads frames by ``receive``, scapy reads packets by ``recv``. While ``watched`` is set, the frames that
    scapy takes are kept for the watch as well: a sniffer on a watch's sockets costs the proof no frame. Frames that the
    watch reads first do not reach the sniffer: stop the sniffer before the watch period ends.
    """

    desc = "capture with a kernel filter on one interface"

    def __init__(
        self,
        index: int,
        hardware_type: int,
        program: bytes,
        *,
        interface: str = "",
        snap_length: int = SNAP_LENGTH,
        outgoing: bool = True,
    ) -> None:
        """Open in the calling thread's namespace; arguments and errors as for PacketSocket.

        ``interface`` is the name that packets bear as ``sniffed_on``.
        """
        # scapy closes a socket when the last reference to it goes; one that could not be opened has nothing to close.
        self.closed = True
        super().__init__(index, hardware_type, program, snap_length=snap_length, outgoing=outgoing)
        self.closed = False
        self.interface = interface
        self.ins = self.outs = self._socket
        self.watched = False
        self._lock = threading.Lock()
        self._for_scapy: deque[Received] = deque()
        self._for_watch: list[Received] = []

    def receive(self) -> list[Received]:
        """Return everything that has arrived since the last call, what scapy took in a watch period included.

        Raises:
            OSError: with the kernel's errno.
        """
        with self._lock:
            taken, self._for_watch = self._for_watch, []
            return taken + super().receive()

    def discard(self) -> None:
        """Drop all frames that have arrived, what scapy took included, and the kernel's count of lost frames.

        Raises:
            OSError: with the kernel's errno.
        """
        with self._lock:
            self._for_watch.clear()
            super().discard()
            self._for_scapy.clear()

    def _take(self) -> Received | None:
        """Return the next frame for scapy, or None when no frame is waiting."""
        with self._lock:
            if not self._for_scapy:
                arrived = super().receive()
                self._for_scapy.extend(arrived)
                if self.watched:
                    self._for_watch += arrived
            return self._for_scapy.popleft() if self._for_scapy else None

    def recv(self, x: int = WHOLE_FRAME, **_: Any) -> Packet | None:  # noqa: ARG002 - scapy's signature
        """Return the next frame as a packet, with the kernel's time; None when no frame is waiting.

        Raises:
            OSError: with the kernel's errno.
        """
        received = self._take()
        if received is None:
            return None
        return scapy_packet(
            received.octets, ethernet=self.ethernet, time_ns=received.time_ns, length=received.length,
            outgoing=received.outgoing, interface=self.interface,
        )  # fmt: skip

    def recv_raw(self, x: int = WHOLE_FRAME) -> tuple[type[Packet] | None, bytes | None, EDecimal | None]:
        """Return the next frame as scapy's triple: layer, octets, time."""
        packet = self.recv(x)
        return (None, None, None) if packet is None else (type(packet), packet.original, packet.time)

    def send(self, x: Packet) -> int:
        """Send a packet by the interface; return its length.

        Raises:
            OSError: ENETDOWN, ENXIO, ENOBUFS and others of packet(7).
        """
        octets = bytes(x)
        if self.ethernet:
            protocol = int.from_bytes(octets[_ETHERTYPE], "big")
        else:
            protocol = ETH_P_IPV6 if octets[:1] and octets[0] >> 4 == 6 else ETH_P_IP
        x.sent_time = time.time()
        return send_frame(self._socket, self.index, protocol, octets)

    @staticmethod
    def select(sockets: Sequence[SuperSocket], remain: float | None = None) -> list[SuperSocket]:
        """Return the sockets that ``recv`` will not find empty: those with frames of a batch left count too."""
        ready = [sock for sock in sockets if isinstance(sock, CaptureSocket) and sock._for_scapy]
        others = [sock for sock in sockets if sock not in ready]
        selected: list[SuperSocket] = SuperSocket.select(others, 0 if ready else remain)
        return ready + selected

    def close(self) -> None:
        """Close; this waits for an RCU grace period, some 10 ms."""
        if not self.closed:
            self.closed = True
            super().close()


def open_capture(
    namespace: Namespace,
    interface: str,
    program: bytes | None = None,
    *,
    snap_length: int = WHOLE_FRAME,
    outgoing: bool = True,
) -> CaptureSocket:
    """Open a capture on an interface of a namespace, for use with scapy.

    Args:
        namespace: where the interface is.
        interface: its name.
        program: classic BPF, from ``bpf.assemble``; every frame is accepted without one.
        snap_length: octets to keep of each frame.
        outgoing: receive the frames that leave by the interface too; False for ``bridge_and_sniff``.

    Raises:
        OSError: EPERM without CAP_NET_RAW, ENODEV when the interface does not exist.
    """
    sender = namespace.call(PacketSender)
    try:
        links = LinkReader(namespace, sender.fileno())
        try:
            state = links.read(interface)
        finally:
            links.close()
    finally:
        close_in_background([sender])
    if state.condition == "missing":
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), interface)
    accepted = program if program is not None else bpf.assemble([bpf.accept(snap_length)])
    return namespace.call(
        lambda: CaptureSocket(
            state.index, state.hardware_type, accepted,
            interface=interface, snap_length=snap_length, outgoing=outgoing,
        )
    )  # fmt: skip
