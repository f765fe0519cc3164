"""The watch: many interfaces captured at once, with proof that what was not seen was not there.

Each watched interface has its own packet socket, open for as long as the watch lives. A watch period ends with a fence,
a frame of our own sent out of every interface: once a capture has seen it, whatever left before it has been seen too,
provided that the kernel counts no lost frame.
"""

from __future__ import annotations

import errno
import select
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from viacheck.host.link_state import MISSING, LinkReader, LinkState
from viacheck.host.namespace import Namespace
from viacheck.model.result import WatchedInterface
from viacheck.packets import bpf
from viacheck.packets.classify import Classifier, Role
from viacheck.packets.pcapng import LINKTYPE_ETHERNET, LINKTYPE_RAW, CapturedPacket, write_pcapng
from viacheck.packets.scapy_socket import SNAP_LENGTH, PacketSender, PacketSocket, Received, close_in_background
from viacheck.packets.tokens import FENCE_ETHERTYPE, TokenSpace

FENCE_TIMEOUT = 1.0
"""Seconds that a fence frame may take to pass."""
_ETHERNET_HEADER = 14
_SHORTEST_FRAME = 60

Direction = Literal["out", "in"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame that was captured, and what it is to this run."""

    time_ns: int
    """Since the epoch, by the kernel's clock at the interface."""
    interface: str
    direction: Direction
    number: int | None
    """The token's number within the run; None for ARP and DHCP."""
    role: Role
    protocol: str
    source: str
    destination: str
    source_mac: str
    destination_mac: str
    length: int
    """Of the whole frame."""
    note: str
    mtu: int | None
    """The MTU of the next hop that an ICMP error reports."""
    octets: bytes = field(repr=False)
    """The frame's first SNAP_LENGTH octets."""
    link_type: int = field(repr=False)
    """LINKTYPE_* of the capture file."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a watch period has shown."""

    watched: tuple[WatchedInterface, ...]
    frames: tuple[Frame, ...]
    """In order of time."""
    unproven: Mapping[str, str]
    """Why absence is not proven, by interface; those on which it is proven are not named."""

    def seen(self, interface: str, direction: Direction = "out", role: Role = "probe") -> list[Frame]:
        """The frames of one kind on one interface, in order of time."""
        return [
            frame
            for frame in self.frames
            if (frame.interface, frame.direction, frame.role) == (interface, direction, role)
        ]

    def proven_absent(self, interface: str) -> tuple[bool, str]:
        """Whether it is proven that no probe left by an interface, and the reason either way."""
        one = next((one for one in self.watched if one.interface == interface), None)
        if one is None:
            return False, f"{interface} was not watched"
        left = len(self.seen(interface))
        if left:
            return False, f"{left} probes were seen leaving by {interface}"
        if interface in self.unproven:
            return False, f"{interface}: {self.unproven[interface]}"
        if one.state == "up":
            return True, f"{interface}: the fence frame was seen, no frame was lost, no probe was among them"
        return True, f"{interface} was {one.state} all the time, and sent nothing"

    def write_capture(self, path: str, numbers: Mapping[int, int]) -> None:
        """Write every frame to a pcapng file; ``numbers`` turns a token's number into that of the check's probe.

        Raises:
            OSError: when the file cannot be written.
        """
        packets = [
            CapturedPacket(
                interface=frame.interface,
                link_type=frame.link_type,
                time_ns=frame.time_ns,
                octets=frame.octets,
                length=frame.length,
                outgoing=frame.direction == "out",
                comment=_comment(frame, numbers),
            )
            for frame in self.frames
        ]
        write_pcapng(path, [one.interface for one in self.watched], packets, SNAP_LENGTH)


def _comment(frame: Frame, numbers: Mapping[int, int]) -> str:
    number = numbers.get(frame.number) if frame.number is not None else None
    words = (frame.role, str(number)) if number is not None else (frame.role,)
    comment = " ".join((*words, frame.protocol, frame.direction))
    return f"{comment}: {frame.note}" if frame.note else comment


@dataclass(slots=True)
class _Capture:
    """One interface's socket, with what has been received and not yet looked at."""

    name: str
    begin: LinkState = MISSING
    socket: PacketSocket | None = None
    waiting: list[Received] = field(default_factory=list)
    remade: bool = False
    """It was first opened, or opened anew, while the period was under way."""

    def holds(self, state: LinkState) -> bool:
        """The socket is on the interface that has this state."""
        return self.socket is not None and self.socket.index == state.index

    def sends_without_carrier(self, state: LinkState) -> bool:
        """The interface has sent packets although it had no carrier, as a bridge without ports does."""
        without = self.begin.word == state.word == "no-carrier" and self.begin.index == state.index
        return without and self.begin.sent_packets != state.sent_packets


@dataclass(slots=True)
class _Judged:
    """How one interface's period ended."""

    state: LinkState
    fence_seen: bool = False
    trouble: str | None = None
    """Why no fence was seen."""


class Period:
    """A watch period; as a context manager it ends with the block, after which ``observation`` is there."""

    def __init__(self, watch: Watch) -> None:
        """Begun by the watch."""
        self._watch = watch
        self._observation: Observation | None = None

    @property
    def observation(self) -> Observation:
        """What was seen.

        Raises:
            RuntimeError: while the period has not ended.
        """
        if self._observation is None:
            raise RuntimeError("the watch period has not ended")
        return self._observation

    def read(self) -> list[Frame]:
        """Take in what has arrived since this was last called, and return it in order of time.

        A long period calls this now and then, so that it never fills the kernel's buffers.
        """
        return self._watch._read()

    def reopen(self) -> None:
        """Watch interfaces that were made, or made anew, since the period began; what they did before is not seen."""
        self._watch._reopen()

    def end(self) -> Observation:
        """Send the fences, read until each was seen or the bound was hit, and judge.

        A fence stands behind what has left by then. A probe that may still be on its way through this host is no such
        thing: wait for its answer, or for the time that it has, before the period ends.
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
            interfaces: their names; those that do not exist yet are looked for again when a period begins.
            tokens: the run's.
            dhcp: keep DHCP for IPv4 as well.
            fence_timeout: seconds that a fence frame may take.

        Raises:
            OSError: EPERM without CAP_NET_RAW in the namespace.
        """
        self._namespace, self._tokens, self._fence_timeout = namespace, tokens, fence_timeout
        self._program = bpf.probe_filter(tokens.marks, snap_length=SNAP_LENGTH, dhcp=dhcp)
        self._captures = [_Capture(name) for name in dict.fromkeys(interfaces)]
        self._watching = False
        self._recogniser = Classifier(tokens)
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
        """Begin a watch period: whatever passes from now on counts.

        Raises:
            RuntimeError: when one is under way.
            OSError: with the kernel's errno.
        """
        if self._watching:
            raise RuntimeError("a watch period is under way")
        self._open()
        for capture in self._captures:
            if capture.socket is not None:
                capture.socket.receive()
                capture.socket.frames_lost()
            capture.waiting.clear()
            capture.remade = False
        self._recogniser, self._frames = Classifier(self._tokens), []
        self._watching = True
        return Period(self)

    def close(self) -> None:
        """Close all captures, in a thread of its own: each costs some 10 ms."""
        closing = [capture.socket for capture in self._captures if capture.socket is not None]
        for capture in self._captures:
            capture.socket = None
        self._links.close()
        close_in_background([*closing, self._sender])

    def _open(self) -> None:
        """Note every interface's state; open those that have none, or another interface's socket."""
        stale: list[PacketSocket] = []
        opening: list[_Capture] = []
        for capture in self._captures:
            capture.begin = self._links.read(capture.name)
            if capture.holds(capture.begin):
                continue
            if capture.socket is not None:
                stale.append(capture.socket)
                capture.socket = None
            if capture.begin.word != "missing":
                opening.append(capture)
        self._exchange(stale, opening)

    def _reopen(self) -> None:
        """Open those that have no socket, or another interface's, and do exist now."""
        self._read()
        stale: list[PacketSocket] = []
        opening: list[_Capture] = []
        for capture in self._captures:
            state = self._links.read(capture.name)
            if state.word == "missing" or capture.holds(state):
                continue
            if capture.socket is not None:
                stale.append(capture.socket)
                capture.socket = None
            capture.begin, capture.remade = state, True
            opening.append(capture)
        self._exchange(stale, opening)

    def _exchange(self, stale: Sequence[PacketSocket], opening: Sequence[_Capture]) -> None:
        if stale:
            close_in_background(stale)
        if opening:
            self._namespace.call(lambda: self._open_all(opening))
            # The first fence proves that the capture works; where it does not, the last one will tell.
            self._fence({capture.name: _Judged(capture.begin) for capture in opening})

    def _open_all(self, opening: Sequence[_Capture]) -> None:
        for capture in opening:
            state = capture.begin
            try:
                capture.socket = PacketSocket(state.index, state.hardware_type, self._program)
            except OSError as error:
                # It went away since its state was read: missing until the next period begins.
                if error.errno not in (errno.ENODEV, errno.ENXIO):
                    raise
                capture.begin = MISSING

    def _read(self) -> list[Frame]:
        """Take in and recognise what has arrived; frames of one call are in order of time."""
        received: list[tuple[_Capture, Received]] = []
        for capture in self._captures:
            if capture.socket is not None:
                received += [(capture, one) for one in (*capture.waiting, *capture.socket.receive())]
            capture.waiting.clear()
        received.sort(key=lambda pair: pair[1].time_ns)
        frames = [frame for pair in received if (frame := _frame(*pair, self._recogniser)) is not None]
        self._frames += frames
        return frames

    def _abandon(self) -> None:
        self._watching = False

    def _end(self) -> Observation:
        self._watching = False
        judged = {capture.name: _Judged(self._links.read(capture.name)) for capture in self._captures}
        self._fence(judged)
        self._read()
        frames = sorted(self._frames, key=lambda frame: frame.time_ns)
        watched: list[WatchedInterface] = []
        unproven: dict[str, str] = {}
        for capture in self._captures:
            lost = capture.socket.frames_lost() if capture.socket is not None else 0
            count = sum(frame.interface == capture.name and frame.number is not None for frame in frames)
            one, reason = _judge(capture, judged[capture.name], lost, count)
            watched.append(one)
            if reason is not None:
                unproven[capture.name] = reason
        return Observation(tuple(watched), tuple(frames), unproven)

    def _fence(self, judged: Mapping[str, _Judged]) -> None:
        """Send a fence out of each of these interfaces that is up, and read until it was seen or the bound is hit."""
        pending: dict[int, tuple[_Capture, bytes]] = {}
        for capture in self._captures:
            one = judged.get(capture.name)
            if one is None or not (one.state.word == "up" or capture.sends_without_carrier(one.state)):
                continue
            if capture.socket is None or not capture.holds(one.state):
                one.trouble = f"it was {'made' if capture.begin.word == 'missing' else 'made anew'} during the watch"
                continue
            fence = self._tokens.fence()
            try:
                self._send_fence(capture.socket, one.state.mac, fence)
            except OSError as error:
                one.trouble = f"the fence frame could not be sent ({error.strerror})"
                continue
            one.trouble = f"the fence frame was not seen within {self._fence_timeout:g} s"
            pending[capture.socket.fileno()] = (capture, fence)
        poll = select.poll()
        for descriptor in pending:
            poll.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + self._fence_timeout
        while pending:
            for descriptor, (capture, fence) in list(pending.items()):
                assert capture.socket is not None
                arrived = capture.socket.receive()
                capture.waiting += arrived
                if any(one.outgoing and one.protocol == FENCE_ETHERTYPE and fence in one.octets for one in arrived):
                    judged[capture.name].fence_seen, judged[capture.name].trouble = True, None
                    poll.unregister(descriptor)
                    del pending[descriptor]
            remaining = deadline - time.monotonic()
            if pending and (remaining <= 0 or not poll.poll(remaining * 1000)):
                return

    def _send_fence(self, one: PacketSocket, mac: bytes, fence: bytes) -> None:
        # Addressed to the interface itself, so that a switch keeps it to the port that it came from.
        header = mac + mac + FENCE_ETHERTYPE.to_bytes(2, "big") if one.ethernet else b""
        frame = (header + fence).ljust(_SHORTEST_FRAME if one.ethernet else 0, b"\0")
        self._sender.send(one.index, FENCE_ETHERTYPE, frame, ethernet=one.ethernet)


def _judge(capture: _Capture, judged: _Judged, lost: int, count: int) -> tuple[WatchedInterface, str | None]:
    """How sound the watching of an interface was, and why it was not; state ``up`` means that packets could leave."""
    begin, end = capture.begin, judged.state
    quiet = begin.word == end.word != "up" and begin.index == end.index and begin.sent_packets == end.sent_packets
    if quiet and not capture.remade and (begin.word == "missing" or begin.sent_packets is not None):
        return WatchedInterface(
            interface=capture.name, state=end.word, fence_seen=False, frames_lost=lost, frames=count
        ), None
    reason: str | None = None
    if lost:
        reason = f"{lost} frames were lost by the capture"
    elif capture.remade:
        reason = "it was made anew during the watch"
    elif not judged.fence_seen:
        if begin.word == end.word != "up":
            reason = f"it was {end.word} when the watch began and ended, but sent packets in between"
        else:
            reason = judged.trouble or f"it was {begin.word} when the watch began and {end.word} when it ended"
    return WatchedInterface(
        interface=capture.name, state="up", fence_seen=judged.fence_seen, frames_lost=lost, frames=count
    ), reason


def _frame(capture: _Capture, one: Received, recogniser: Classifier) -> Frame | None:
    assert capture.socket is not None
    ethernet = capture.socket.ethernet
    found = recogniser.classify(one.protocol, one.octets[_ETHERNET_HEADER:] if ethernet else one.octets)
    if found is None:
        return None
    return Frame(
        time_ns=one.time_ns,
        interface=capture.name,
        direction="out" if one.outgoing else "in",
        number=found.token.number if found.token is not None else None,
        role=found.role,
        protocol=found.protocol,
        source=found.source,
        destination=found.destination,
        source_mac=one.octets[6:12].hex(":") if ethernet else "",
        destination_mac=one.octets[:6].hex(":") if ethernet else "",
        length=one.length,
        note=found.note,
        mtu=found.mtu,
        octets=one.octets,
        link_type=LINKTYPE_ETHERNET if ethernet else LINKTYPE_RAW,
    )
