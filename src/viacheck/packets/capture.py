"""The watch: captures on many interfaces at once, with proof that an unseen probe was absent.

Each watched interface has its own capture socket, open for as long as the watch lives. A watch period ends with a
fence, a frame of our own sent out of every interface: once a capture has seen the fence, it has seen every frame that
left before, provided that the kernel counts no lost frame.
"""

from __future__ import annotations

import errno
import select
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING

from viacheck.host.link_state import MISSING, LinkReader, LinkStatus
from viacheck.host.namespace import Namespace
from viacheck.model.check_evidence import WatchedInterface
from viacheck.packets import bpf
from viacheck.packets.classify import Classifier
from viacheck.packets.observation import Frame, Observation
from viacheck.packets.packet_socket import (
    ETHERNET_HEADER,
    SHORTEST_FRAME,
    SNAP_LENGTH,
    PacketSender,
    Received,
    close_in_background,
)
from viacheck.packets.tokens import FENCE_ETHERTYPE, TokenSpace

if TYPE_CHECKING:
    from viacheck.packets.scapy_import import Packet
    from viacheck.packets.scapy_socket import CaptureSocket

FENCE_TIMEOUT = 1.0
"""Seconds that a fence frame may take to pass."""
_POLL_SLICE = 0.01
"""Seconds: a sniffer on the same socket may take the fence, and then no further frame wakes poll(2)."""


@dataclass(slots=True)
class _Capture:
    """One interface's socket, with the frames that were received and not yet classified."""

    name: str
    begin: LinkStatus = MISSING
    socket: CaptureSocket | None = None
    waiting: list[Received] = field(default_factory=list)
    reopened: bool = False
    """The socket was opened while the period was under way."""

    def holds(self, state: LinkStatus) -> bool:
        """Return whether the socket is on the interface that has this state."""
        return self.socket is not None and self.socket.index == state.index

    def sends_without_carrier(self, state: LinkStatus) -> bool:
        """Return whether the interface sent packets although it had no carrier, as a bridge without ports does."""
        without = self.begin.condition == state.condition == "no-carrier" and self.begin.index == state.index
        return without and self.begin.sent_packets != state.sent_packets


@dataclass(slots=True)
class _PeriodEnd:
    """The end of one interface's period."""

    state: LinkStatus
    fence_seen: bool = False
    fence_failure: str | None = None
    """Why the fence was not seen."""


class Period:
    """A watch period. As a context manager it ends with the block; then ``observation`` can be read."""

    def __init__(self, watch: Watch) -> None:
        """Hold the watch, which begins the period."""
        self._watch = watch
        self._observation: Observation | None = None

    @property
    def observation(self) -> Observation:
        """The result of the period.

        Raises:
            RuntimeError: while the period has not ended.
        """
        if self._observation is None:
            raise RuntimeError("the watch period has not ended: read the observation after the 'with' block")
        return self._observation

    @property
    def packets(self) -> list[Packet]:
        """The frames of the period as scapy packets, in order of time.

        Raises:
            RuntimeError: while the period has not ended.
        """
        return self.observation.packets

    @property
    def sockets(self) -> dict[CaptureSocket, str]:
        """The open capture sockets, with the names of their interfaces: the ``opened_socket`` of scapy's sniffers.

        A sniffer takes no frame away from the watch. Stop the sniffer before the period ends.
        """
        return self._watch._sockets()

    def read(self) -> list[Frame]:
        """Return the frames that have arrived since the last call, in order of time.

        Call this now and then during a long period, so that the kernel's buffers never fill up.
        """
        return self._watch._read()

    def reopen(self) -> None:
        """Watch interfaces that were created, or recreated, since the period began; earlier frames are not seen."""
        self._watch._reopen()

    def end(self) -> Observation:
        """Send the fences, read until each was seen or its timeout passed, and judge.

        A fence proves only what has left before it. A probe may still be on its way through this host: wait for its
        answer, or for its timeout, before the period ends.
        """
        if self._observation is None:
            self._observation = self._watch._end()
        return self._observation

    def __enter__(self) -> Period:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.end()
        else:
            self._watch._abandon()


class Watch:
    """Watches interfaces of one namespace. One period at a time, from one thread at a time."""

    def __init__(
        self,
        namespace: Namespace,
        interfaces: Sequence[str],
        tokens: TokenSpace,
        *,
        dhcp: bool = False,
        fence_timeout: float = FENCE_TIMEOUT,
    ) -> None:
        """Open a capture on every interface that exists, and see a fence frame on each that is up.

        Args:
            namespace: where the interfaces are.
            interfaces: their names; each period begins with another attempt to open those that do not exist yet.
            tokens: the run's.
            dhcp: capture DHCP for IPv4 as well.
            fence_timeout: seconds that a fence frame may take.

        Raises:
            OSError: EPERM without CAP_NET_RAW in the namespace.
        """
        self._namespace, self._tokens, self._fence_timeout = namespace, tokens, fence_timeout
        self._program = bpf.probe_filter(tokens.marks, snap_length=SNAP_LENGTH, dhcp=dhcp)
        self._captures = [_Capture(name) for name in dict.fromkeys(interfaces)]
        self._watching = False
        self._classifier = Classifier(tokens)
        self._frames: list[Frame] = []
        self._sender = namespace.call(PacketSender)
        try:
            self._links = LinkReader(namespace, self._sender.fileno())
            try:
                self._open()
            except BaseException:
                self._links.close()
                raise
        except BaseException:
            self._sender.close()
            raise

    def __call__(self) -> Period:
        """Begin a watch period: every frame that passes from now on counts.

        Raises:
            RuntimeError: when a period is under way.
            OSError: with the kernel's errno.
        """
        if self._watching:
            raise RuntimeError("a watch period is under way")
        self._open()
        for capture in self._captures:
            if capture.socket is not None:
                capture.socket.discard()
                capture.socket.watched = True
            capture.waiting.clear()
            capture.reopened = False
        self._classifier, self._frames = Classifier(self._tokens), []
        self._watching = True
        return Period(self)

    def close(self) -> None:
        """Close all captures in a thread of their own: each costs some 10 ms."""
        sockets = [capture.socket for capture in self._captures if capture.socket is not None]
        for capture in self._captures:
            capture.socket = None
        self._links.close()
        close_in_background([*sockets, self._sender])

    def _open(self) -> None:
        """Read every interface's state; open the captures that have no socket, or the socket of a former interface."""
        stale: list[CaptureSocket] = []
        opening: list[_Capture] = []
        for capture in self._captures:
            capture.begin = self._links.read(capture.name)
            if capture.holds(capture.begin):
                continue
            if capture.socket is not None:
                stale.append(capture.socket)
                capture.socket = None
            if capture.begin.condition != "missing":
                opening.append(capture)
        self._exchange(stale, opening)

    def _reopen(self) -> None:
        """Open the captures of existing interfaces that have no socket, or the socket of a former interface."""
        self._read()
        stale: list[CaptureSocket] = []
        opening: list[_Capture] = []
        for capture in self._captures:
            state = self._links.read(capture.name)
            if state.condition == "missing" or capture.holds(state):
                continue
            if capture.socket is not None:
                stale.append(capture.socket)
                capture.socket = None
            capture.begin, capture.reopened = state, True
            opening.append(capture)
        self._exchange(stale, opening)

    def _exchange(self, stale: Sequence[CaptureSocket], opening: Sequence[_Capture]) -> None:
        if stale:
            close_in_background(stale)
        if opening:
            # Not at the top: the class is scapy's, and scapy is imported for the first capture, not for the first
            # import. Nor in the namespace, where this program's files may be missing.
            from viacheck.packets.scapy_socket import CaptureSocket

            self._namespace.call(lambda: self._open_all(CaptureSocket, opening))
            # The first fence proves that the capture works; where it does not, the last fence will show that.
            self._fence({capture.name: _PeriodEnd(capture.begin) for capture in opening})

    def _open_all(self, kind: type[CaptureSocket], opening: Sequence[_Capture]) -> None:
        for capture in opening:
            state = capture.begin
            try:
                capture.socket = kind(state.index, state.hardware_type, self._program, interface=capture.name)
            except OSError as error:
                # The interface was removed since its state was read: missing until the next period begins.
                if error.errno not in (errno.ENODEV, errno.ENXIO):
                    raise
                capture.begin = MISSING
            else:
                capture.socket.watched = self._watching

    def _sockets(self) -> dict[CaptureSocket, str]:
        return {capture.socket: capture.name for capture in self._captures if capture.socket is not None}

    def _read(self) -> list[Frame]:
        """Receive and classify the frames that have arrived; frames of one call are in order of time."""
        received: list[tuple[int, _Capture, Received]] = []
        for capture in self._captures:
            if capture.socket is not None:
                arrived = capture.waiting + capture.socket.receive()
                # A fence has done its work by now.
                received += [(frame.time_ns, capture, frame) for frame in arrived if frame.protocol != FENCE_ETHERTYPE]
            capture.waiting.clear()
        received.sort(key=itemgetter(0))
        frames = [
            frame
            for _time_ns, capture, captured in received
            if (frame := _frame(capture, captured, self._classifier)) is not None
        ]
        self._frames += frames
        return frames

    def _abandon(self) -> None:
        self._watching = False
        for socket in self._sockets():
            socket.watched = False

    def _end(self) -> Observation:
        try:
            ends = {capture.name: _PeriodEnd(self._links.read(capture.name)) for capture in self._captures}
            self._fence(ends)
            self._read()
        finally:
            self._abandon()
        frames = sorted(self._frames, key=lambda frame: frame.time_ns)
        counts = Counter(frame.interface for frame in frames if frame.number is not None)
        watched: list[WatchedInterface] = []
        unproven: dict[str, str] = {}
        for capture in self._captures:
            lost = capture.socket.frames_lost() if capture.socket is not None else 0
            interface, reason = _judge(capture, ends[capture.name], lost, counts[capture.name])
            watched.append(interface)
            if reason is not None:
                unproven[capture.name] = reason
        return Observation(tuple(watched), tuple(frames), unproven)

    def _fence(self, ends: Mapping[str, _PeriodEnd]) -> None:
        """Send a fence out of each of these interfaces that is up; read until it is seen or its timeout has passed."""
        pending = self._send_fences(ends)
        deadline = time.monotonic() + self._fence_timeout
        while pending:
            for descriptor, (capture, fence) in list(pending.items()):
                assert capture.socket is not None
                arrived = capture.socket.receive()
                capture.waiting += arrived
                if _holds_fence(arrived, fence):
                    ends[capture.name].fence_seen, ends[capture.name].fence_failure = True, None
                    del pending[descriptor]
            remaining = deadline - time.monotonic()
            if not pending or remaining <= 0:
                return
            poll = select.poll()
            for descriptor in pending:
                poll.register(descriptor, select.POLLIN)
            poll.poll(min(remaining, _POLL_SLICE) * 1000)

    def _send_fences(self, ends: Mapping[str, _PeriodEnd]) -> dict[int, tuple[_Capture, bytes]]:
        """Send the fences; return capture and fence by the capture's descriptor, where the fence could be sent."""
        pending: dict[int, tuple[_Capture, bytes]] = {}
        for capture in self._captures:
            end = ends.get(capture.name)
            if end is None or not (end.state.condition == "up" or capture.sends_without_carrier(end.state)):
                continue
            if capture.socket is None or not capture.holds(end.state):
                created = "created" if capture.begin.condition == "missing" else "recreated"
                end.fence_failure = f"it was {created} during the watch"
                continue
            fence = self._tokens.fence()
            try:
                self._send_fence(capture.socket, end.state.mac, fence)
            except OSError as error:
                end.fence_failure = f"the fence frame could not be sent ({error.strerror})"
                # The kernel shows a frame to captures before the driver gets it. One that carries IP alone, such as
                # WireGuard's, refuses a fence then, which has proved by that time what it is sent for.
                arrived = capture.socket.receive()
                capture.waiting += arrived
                if _holds_fence(arrived, fence):
                    end.fence_seen, end.fence_failure = True, None
                continue
            end.fence_failure = f"the fence frame was not seen within {self._fence_timeout:g} s"
            pending[capture.socket.fileno()] = (capture, fence)
        return pending

    def _send_fence(self, socket: CaptureSocket, mac: bytes, fence: bytes) -> None:
        # Addressed to the interface itself: a switch then does not forward the frame to another port.
        header = mac + mac + FENCE_ETHERTYPE.to_bytes(2, "big") if socket.ethernet else b""
        frame = (header + fence).ljust(SHORTEST_FRAME if socket.ethernet else 0, b"\0")
        self._sender.send(socket.index, FENCE_ETHERTYPE, frame, ethernet=socket.ethernet)


def _holds_fence(frames: Sequence[Received], fence: bytes) -> bool:
    # It is mostly the last one.
    return any(
        frame.protocol == FENCE_ETHERTYPE and frame.outgoing and fence in frame.octets for frame in reversed(frames)
    )


def _judge(capture: _Capture, end: _PeriodEnd, lost: int, count: int) -> tuple[WatchedInterface, str | None]:
    """Return the interface's record, and why absence is not proven on it. State ``up``: packets could leave."""
    begin, state = capture.begin, end.state
    quiet = (
        begin.condition == state.condition != "up"
        and begin.index == state.index
        and begin.sent_packets == state.sent_packets
    )
    if quiet and not capture.reopened and (begin.condition == "missing" or begin.sent_packets is not None):
        return WatchedInterface(
            interface=capture.name, state=state.condition, fence_seen=False, frames_lost=lost, frames=count
        ), None
    reason: str | None = None
    if lost:
        reason = f"{lost} frames were lost by the capture"
    elif capture.reopened:
        reason = "it was recreated during the watch"
    elif not end.fence_seen:
        if begin.condition == state.condition != "up":
            reason = f"it was {begin.condition} when the watch began and ended, but sent packets in between"
        else:
            changed = f"it was {begin.condition} when the watch began and {state.condition} when it ended"
            reason = end.fence_failure or changed
    return WatchedInterface(
        interface=capture.name, state="up", fence_seen=end.fence_seen, frames_lost=lost, frames=count,
        unproven=reason or "",
    ), reason  # fmt: skip


def _frame(capture: _Capture, received: Received, classifier: Classifier) -> Frame | None:
    """Return the frame with its role; None when it has no role in this run."""
    assert capture.socket is not None
    ethernet = capture.socket.ethernet
    octets = received.octets[ETHERNET_HEADER:] if ethernet else received.octets
    classified = classifier.classify(received.protocol, octets)
    return Frame(capture.name, ethernet, received, classified) if classified is not None else None
