"""Background traffic for measurements: small frames at a steady rate out of one interface, without any token.

Tests and the bench command measure captures under this load. Use it in labs only.
"""

from __future__ import annotations

import errno
import threading
import time
from dataclasses import dataclass

from viacheck.host.link_state import LinkReader
from viacheck.host.namespace import Namespace
from viacheck.packets import scapy_import as scapy
from viacheck.packets.classify import ETH_P_IP
from viacheck.packets.packet_socket import PacketSender, close_in_background

_BURST = 256
_PAUSE = 0.0005
_UNUSED_MAC = "02:00:00:00:00:fe"
_DISCARD_PORT = 9


@dataclass(frozen=True, slots=True)
class LoadResult:
    """How many packets were sent, and how long that took."""

    packets: int
    seconds: float

    @property
    def rate(self) -> float:
        """Packets per second."""
        return self.packets / self.seconds if self.seconds else 0.0


class BackgroundLoad:
    """Sends from a thread of its own while its block runs; ``result`` holds the figures afterwards."""

    def __init__(self, namespace: Namespace, interface: str, rate: int) -> None:
        """Prepare the frames.

        Args:
            namespace: where the interface is.
            interface: an Ethernet interface that is up.
            rate: intended packets per second; a busy machine reaches fewer.

        Raises:
            OSError: EPERM without CAP_NET_RAW; ENODEV when the interface is not up.
        """
        self._rate = rate
        self._sender = namespace.call(PacketSender)
        links = LinkReader(namespace, self._sender.fileno())
        try:
            state = links.read(interface)
        finally:
            links.close()
        if state.condition != "up":
            close_in_background([self._sender])
            raise OSError(errno.ENODEV, f"{interface} is {state.condition}")
        # No machine has this MAC address: the far side drops the frame early, at the least cost.
        frame = scapy.Ether(src=state.mac.hex(":"), dst=_UNUSED_MAC) / scapy.IP(src="192.0.2.1", dst="192.0.2.2")
        frame = frame / scapy.UDP(sport=_DISCARD_PORT, dport=_DISCARD_PORT) / scapy.Raw(bytes(18))
        self._burst = self._sender.burst(state.index, ETH_P_IP, bytes(frame), _BURST)
        self._stop = threading.Event()
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._send, name="background-load", daemon=True)
        self._packets, self._seconds = 0, 0.0

    def _send(self) -> None:
        begin = time.perf_counter()
        while not self._stop.is_set():
            due = int((time.perf_counter() - begin) * self._rate) - self._packets
            if due < 1:
                time.sleep(_PAUSE)
                continue
            try:
                self._packets += self._burst.send(due)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                    raise
            self._running.set()
        self._seconds = time.perf_counter() - begin

    @property
    def result(self) -> LoadResult:
        """The figures, once the block has ended."""
        return LoadResult(self._packets, self._seconds)

    def wait_for(self, packets: int) -> None:
        """Wait until this many more packets have been sent, for one second at most."""
        enough, deadline = self._packets + packets, time.monotonic() + 1.0
        while self._packets < enough and time.monotonic() < deadline:
            time.sleep(_PAUSE)

    def __enter__(self) -> BackgroundLoad:
        self._thread.start()
        self._running.wait(1.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        close_in_background([self._sender])
