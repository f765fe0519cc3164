"""Probes: packets that carry a token, sent through a namespace's own kernel stack, and the answers that reach it.

Every probe is a flow of its own unless a source port is given, so that the kernel routes and translates each. The
probes of all requests leave first; then one wait covers them all.
"""

from __future__ import annotations

import errno
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from viacheck.host.namespace import Namespace
from viacheck.packets import arp, bpf
from viacheck.packets import scapy_import as scapy
from viacheck.packets.arp import ARPAnswer
from viacheck.packets.classify import ETH_P_IP, ETH_P_IPV6, Classifier
from viacheck.packets.packet_socket import SNAP_LENGTH
from viacheck.packets.probe_request import ProbeRequest
from viacheck.packets.probe_sockets import configure, icmp_receiver, probe_sender, received_ns, socket_address
from viacheck.packets.tokens import Token, TokenSpace

ANSWER_TIMEOUT = 2.0

_IP_HEADER = {4: 20, 6: 40}
_TRANSPORT_HEADER = {"icmp": 8, "udp": 8, "tcp": 20}
_EPHEMERAL_PORTS = (32768, 60999)
_LARGEST = 65535
_ECHO_HEADER, _ECHO_REQUEST, _ECHO_REQUEST6 = struct.Struct(">BBHHH"), 8, 128


@dataclass(slots=True)
class SentProbe:
    """One probe that was sent, or that the sender's own kernel refused to send."""

    token: Token
    time_ns: int
    """Since the epoch, right before the call that sent it."""
    refused: str | None = None
    """``ENETUNREACH``, ``EPERM``, ``EMSGSIZE`` …"""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, or an ICMP error, that reached the sender."""

    token: Token
    time_ns: int
    source: str
    """The address that the answer came from."""
    role: Literal["answer", "error"]
    note: str = ""
    icmp_error: bool = False
    """An ICMP error is the answer: machines limit their rate (RFC 1812, 4.3.2.8)."""


@dataclass(slots=True)
class Exchange:
    """One request's probes, and the answers to them."""

    request: ProbeRequest
    probes: list[SentProbe] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """How many probes the request had, refused probes included."""
        return len(self.probes)

    @property
    def answered(self) -> int:
        """How many probes were answered; an ICMP error from a router is not an answer."""
        return len({answer.token for answer in self.answers if answer.role == "answer"})

    @property
    def refused(self) -> list[str]:
        """The kernel's reason for each probe that it refused to send."""
        return [probe.refused for probe in self.probes if probe.refused is not None]

    @property
    def missing(self) -> int:
        """How many probes were sent and not answered."""
        return self.sent - len(self.refused) - self.answered

    @property
    def rate_limited(self) -> bool:
        """Whether the answers are ICMP errors: a missing one shows no loss."""
        return any(answer.icmp_error for answer in self.answers if answer.role == "answer")

    @property
    def round_trips(self) -> list[float]:
        """The seconds from each answered probe to its first answer."""
        first: dict[Token, int] = {}
        for answer in self.answers:
            if answer.role == "answer":
                first[answer.token] = min(answer.time_ns, first.get(answer.token, answer.time_ns))
        return [(first[probe.token] - probe.time_ns) / 1e9 for probe in self.probes if probe.token in first]

    @property
    def errors(self) -> list[Answer]:
        """The ICMP errors that reached the sender."""
        return [answer for answer in self.answers if answer.role == "error"]

    def add(self, further: Exchange) -> None:
        """Take over the probes and answers of a further exchange of the same kind."""
        self.probes += further.probes
        self.answers += further.answers


class Prober:
    """Sends probes from one namespace."""

    def __init__(self, namespace: Namespace, tokens: TokenSpace) -> None:
        """Prepare the kernel filter; sockets are opened when probes are sent."""
        self.namespace = namespace
        self._tokens = tokens
        self._program = bpf.probe_filter(tokens.marks, snap_length=SNAP_LENGTH)

    def send(self, request: ProbeRequest, timeout: float = ANSWER_TIMEOUT) -> Exchange:
        """Send one request's probes, and wait until all are settled or ``timeout`` seconds have passed.

        Raises:
            OSError: when the sockets cannot be opened: EPERM without CAP_NET_RAW.
            ValueError: for a size that no such packet can have.
        """
        return self.send_many([request], timeout)[0]

    def send_many(
        self, requests: Sequence[ProbeRequest], timeout: float = ANSWER_TIMEOUT, *, spread: float = 0.0
    ) -> list[Exchange]:
        """Send several requests' probes and wait for all together; as ``send``.

        They leave at once, or evenly over ``spread`` seconds; the last one has ``timeout`` seconds for its answer.
        """
        with self.launch(requests, spread=spread) as batch:
            return batch.wait(timeout)

    def launch(self, requests: Sequence[ProbeRequest], *, spread: float = 0.0, answers: bool = True) -> ProbeBatch:
        """Send several requests' probes and do not wait. The caller closes the batch.

        Without ``answers`` the batch receives none, and cannot be waited for: where a watch sees the probes leave, the
        sockets are opened in a fourth of the time.

        Raises:
            OSError: when the sockets cannot be opened: EPERM without CAP_NET_RAW.
            ValueError: for a size that no such packet can have.
        """
        for request in requests:
            _payload_octets(request)
        batch = ProbeBatch(self._tokens, requests, answers=answers)
        try:
            self.namespace.call(lambda: batch.open(self._program))
            batch.send(spread)
        except BaseException:
            batch.close()
            raise
        return batch

    def arp_request(
        self,
        interface: str,
        target: str,
        *,
        sender: str = arp.NO_ADDRESS,
        sender_mac: str | None = None,
        frame_source: str | None = None,
        count: int = 1,
        tries: int = 1,
        timeout: float = 1.0,
    ) -> list[ARPAnswer]:
        """Send ARP requests from this namespace; see ``arp.arp_request``."""
        return arp.arp_request(
            self.namespace,
            interface,
            target,
            sender=sender,
            sender_mac=sender_mac,
            frame_source=frame_source,
            count=count,
            tries=tries,
            timeout=timeout,
        )


@dataclass(slots=True)
class _Sender:
    """The socket of one or more probes of one request."""

    exchange: Exchange
    socket: socket.socket
    probes: list[SentProbe] = field(default_factory=list)
    refused: str | None = None
    """Why this socket cannot send."""


class ProbeBatch:
    """Probes under way. A context manager that closes the sockets at its end."""

    def __init__(self, tokens: TokenSpace, requests: Sequence[ProbeRequest], *, answers: bool = True) -> None:
        """Prepare the exchanges; the prober opens the sockets and sends."""
        self._tokens, self._answers = tokens, answers
        self.exchanges = [Exchange(request) for request in requests]
        self._classifier = Classifier(tokens)
        self._senders: list[_Sender] = []
        self._icmp: dict[int, socket.socket] = {}
        self._unsettled: set[Token] = set()

    def open(self, program: bytes) -> None:
        """Open every socket in the calling thread's namespace.

        Raises:
            OSError: EPERM without CAP_NET_RAW.
        """
        for exchange in self.exchanges if self._answers else ():
            version = exchange.request.version
            if version not in self._icmp:
                self._icmp[version] = icmp_receiver(version, program)
        for exchange in self.exchanges:
            for _ in range(exchange.request.count if _one_socket_each(exchange.request) else 1):
                self._senders.append(self._open_sender(exchange, program))

    def _open_sender(self, exchange: Exchange, program: bytes) -> _Sender:
        request = exchange.request
        probe_socket = probe_sender(request, program if self._answers else None)
        sender = _Sender(exchange, probe_socket)
        try:
            configure(probe_socket, request)
        except OSError as error:
            sender.refused = _errno_name(error)
        return sender

    def send(self, spread: float = 0.0) -> None:
        """Send every probe: at once, or evenly over so many seconds."""
        pause = threading.Event()
        count = sum(exchange.request.count for exchange in self.exchanges)
        for sender in self._senders:
            request = sender.exchange.request
            for _ in range(1 if _one_socket_each(request) else request.count):
                self._send_probe(sender)
                if spread:
                    pause.wait(spread / count)

    def _send_probe(self, sender: _Sender) -> None:
        request = sender.exchange.request
        token = self._tokens.issue(request.protocol, request.destination.partition("%")[0], request.to_port)
        probe = SentProbe(token, 0, sender.refused)
        sender.probes.append(probe)
        sender.exchange.probes.append(probe)
        if probe.refused is not None:
            probe.time_ns = time.time_ns()
            return
        octets = self._build(sender, token)
        # A raw IPv6 socket accepts no port.
        port = request.to_port if request.protocol in ("udp", "dns") else 0
        probe.time_ns = time.time_ns()
        try:
            sender.socket.sendto(octets, socket_address(request.destination, port))
            self._unsettled.add(token)
        except OSError as error:
            probe.refused = _errno_name(error)

    def _build(self, sender: _Sender, token: Token) -> bytes:
        """Build what the socket sends: a payload for a UDP socket, else the packet without its IP header."""
        request = sender.exchange.request
        if request.protocol == "dns":
            question = scapy.DNSQR(qname=self._tokens.name(token, request.name_suffix))
            return bytes(scapy.DNS(id=token.number & 0xFFFF, rd=1, qd=question))
        payload = self._tokens.payload(token, _payload_octets(request))
        if request.protocol == "udp":
            return payload
        if request.protocol == "icmp":
            return echo_request(request.version, _source_port(request), token.number & 0xFFFF, payload)
        tcp = scapy.TCP(
            sport=_source_port(request), dport=token.port, flags="S", seq=self._tokens.sequence(token),
            window=self._tokens.tcp_window, options=[("MSS", 1460)],
        )  # fmt: skip
        if request.size is not None:
            tcp = tcp / scapy.Raw(payload)
        if request.version == 6:
            tcp.chksum = 0
            return bytes(tcp)
        source = sender.socket.getsockname()[0]
        return bytes(scapy.IP(src=source, dst=request.destination) / tcp)[_IP_HEADER[4] :]

    def wait(self, timeout: float = ANSWER_TIMEOUT) -> list[Exchange]:
        """Wait until each probe is answered, or ended by an ICMP error, or ``timeout`` seconds have passed.

        Raises:
            RuntimeError: the batch was launched without answers.
        """
        if not self._answers:
            raise RuntimeError("the batch receives no answers")
        poll = select.poll()
        receivers: dict[int, tuple[socket.socket, _Sender | None, int]] = {}
        for version, icmp in self._icmp.items():
            receivers[icmp.fileno()] = (icmp, None, version)
        for sender in self._senders:
            if sender.exchange.request.protocol != "icmp":
                receivers[sender.socket.fileno()] = (sender.socket, sender, sender.exchange.request.version)
        for descriptor in receivers:
            poll.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + timeout
        while self._unsettled:
            remaining = deadline - time.monotonic()
            ready = poll.poll(max(remaining, 0) * 1000)
            if not ready:
                break
            for descriptor, _events in ready:
                self._receive(*receivers[descriptor])
        return self.exchanges

    def _receive(self, receiver: socket.socket, sender: _Sender | None, version: int) -> None:
        while True:
            try:
                octets, control, _flags, address = receiver.recvmsg(_LARGEST, 128)
            except BlockingIOError:
                return
            except OSError:
                # An ICMP error that the kernel reports by this socket; the raw socket receives the message itself.
                continue
            time_ns = received_ns(control)
            if sender is not None and sender.exchange.request.protocol in ("udp", "dns"):
                self._datagram(sender, octets, address[0], time_ns)
            else:
                self._packet(receiver, sender, octets, address[0], version, time_ns)

    def _datagram(self, sender: _Sender, octets: bytes, source: str, time_ns: int) -> None:
        token, note = self._tokens.in_question(octets) or self._tokens.in_payload(octets), ""
        if token is None and len(sender.probes) == 1:
            # The socket serves this probe alone: every datagram to it answers the probe.
            token, note = sender.probes[0].token, "not an echo"
        if token is not None:
            self._settle(Answer(token, time_ns, source, "answer", note), final=True)

    def _packet(
        self, receiver: socket.socket, sender: _Sender | None, octets: bytes, source: str, version: int, time_ns: int
    ) -> None:
        ethertype = ETH_P_IP
        if version == 6:
            # Raw IPv6 sockets deliver no header, and the classifier needs one for the next header's number.
            ethertype = ETH_P_IPV6
            addresses = socket.inet_pton(socket.AF_INET6, source.partition("%")[0]) + bytes(16)
            octets = struct.pack(">IHBB", 6 << 28, len(octets), receiver.proto, 64) + addresses + octets
        classified = self._classifier.classify(ethertype, octets)
        if classified is None or classified.token is None:
            return
        # Raw TCP sockets to the same destination receive each other's answers.
        if sender is not None and all(probe.token is not classified.token for probe in sender.probes):
            return
        if classified.role == "answer" or classified.role == "error":
            icmp_error = sender is None and classified.token.protocol != "icmp"
            answer = Answer(classified.token, time_ns, classified.source, classified.role, classified.note, icmp_error)
            self._settle(answer, final=classified.final)

    def _settle(self, answer: Answer, *, final: bool) -> None:
        for exchange in self.exchanges:
            if any(probe.token is answer.token for probe in exchange.probes):
                exchange.answers.append(answer)
                if final:
                    self._unsettled.discard(answer.token)

    def close_all_but_udp(self) -> None:
        """Close every socket but those of UDP probes.

        To an answer for a closed UDP socket the sender's kernel sends an ICMP error. Of the other protocols it answers
        what it receives whether a socket is open or not.
        """
        for sender in self._senders:
            if sender.socket.type != socket.SOCK_DGRAM:
                sender.socket.close()

    def close(self) -> None:
        """Close every socket."""
        for probe_socket in (*self._icmp.values(), *(sender.socket for sender in self._senders)):
            probe_socket.close()

    def __enter__(self) -> ProbeBatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _source_port(request: ProbeRequest) -> int:
    """Return the request's source port, or a random one: a flow of its own for each probe."""
    return request.source_port if request.source_port is not None else random.randint(*_EPHEMERAL_PORTS)  # noqa: S311


def echo_request(version: int, identifier: int, number: int, payload: bytes) -> bytes:
    """Return an ICMP echo (RFC 792, RFC 4443); the kernel fills in the checksum of ICMPv6.

    An event sends some hundred of them. scapy takes more than a hundred times as long to build one: a tenth of the CPU
    time of a run over a lab.
    """
    if version == 6:
        return _ECHO_HEADER.pack(_ECHO_REQUEST6, 0, 0, identifier, number) + payload
    header = _ECHO_HEADER.pack(_ECHO_REQUEST, 0, 0, identifier, number)
    return _ECHO_HEADER.pack(_ECHO_REQUEST, 0, scapy.checksum(header + payload), identifier, number) + payload


def _one_socket_each(request: ProbeRequest) -> bool:
    """Return whether each probe needs its own socket: a UDP flow does, and ICMP probes must not share a send buffer."""
    return request.protocol == "icmp" or (request.protocol in ("udp", "dns") and request.source_port is None)


def _payload_octets(request: ProbeRequest) -> int:
    if request.size is None:
        return 0
    if request.protocol == "dns":
        raise ValueError("the size of a DNS probe cannot be chosen")
    octets = request.size - _IP_HEADER[request.version] - _TRANSPORT_HEADER[request.protocol]
    octets -= 4 if request.protocol == "tcp" else 0
    if octets < 8 or request.size > _LARGEST:
        raise ValueError(f"{request.protocol} probes of {request.size} octets are not possible")
    return octets


def _errno_name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error))
