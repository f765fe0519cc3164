"""Tokens: marks that identify a probe wherever it is seen, whatever NAT changed, and that no other packet carries.

A run has one token space. Its magic numbers are random, so that two runs on one wire never mix. A token travels in the
first octets of the payload (ICMP echo, UDP), in the initial sequence number (TCP), or in the queried name (DNS). A TCP
probe's window is one more magic number: no NAT rewrites it, and 32 bits alone are few among the SYNs of a busy host.
"""

from __future__ import annotations

import os
import secrets
import struct
from threading import Lock
from typing import Literal, NamedTuple

from viacheck.model.intent import TransportProtocol
from viacheck.packets.bpf import ProbeMarks

ProbeProtocol = TransportProtocol | Literal["dns"]

FENCE_ETHERTYPE = 0x88B5
"""Local experimental EtherType 1 (IEEE Std 802): no switch or host gives it a meaning."""
TOKEN_OCTETS = 8
_PADDING = b"viacheck."
_DNS_HEADER = 12
_LABEL_LENGTH = 16
_SMALLEST_WINDOW, _LARGEST_WINDOW = 8192, 65535
"""Windows that the SYNs of usual systems have."""


class Token(NamedTuple):
    """One probe's token, with the destination of the probe."""

    number: int
    """Within the run, from 1."""
    protocol: ProbeProtocol
    destination: str
    port: int


class TokenSpace:
    """The tokens of one run. It may be used by several threads."""

    def __init__(self) -> None:
        """Draw the magic numbers."""
        self.magic = os.urandom(4)
        self.tcp_magic = int.from_bytes(os.urandom(2), "big")
        self.tcp_window = _SMALLEST_WINDOW + secrets.randbelow(_LARGEST_WINDOW + 1 - _SMALLEST_WINDOW)
        self._issued: dict[int, Token] = {}
        self._by_counter: dict[int, Token] = {}
        self._fences = 0
        self._lock = Lock()

    def issue(self, protocol: ProbeProtocol, destination: str, port: int) -> Token:
        """Return a token for one more probe; ``port`` is 0 for a protocol without ports."""
        with self._lock:
            token = Token(len(self._issued) + 1, protocol, destination, port)
            self._issued[token.number] = token
            if protocol == "tcp":
                self._by_counter[token.number & 0xFFFF] = token
            return token

    def fence(self) -> bytes:
        """Return the payload of one more fence frame."""
        with self._lock:
            self._fences += 1
            return self.magic + struct.pack(">I", self._fences)

    @property
    def marks(self) -> ProbeMarks:
        """The values that the kernel filter compares."""
        return ProbeMarks(
            fence_ethertype=FENCE_ETHERTYPE,
            payload=int.from_bytes(self.magic, "big"),
            sequence=self.tcp_magic,
            name=self.magic.hex().encode(),
            name_length=_LABEL_LENGTH,
        )

    def payload(self, token: Token, octets: int = TOKEN_OCTETS) -> bytes:
        """Return the payload of an ICMP echo or UDP probe, padded to a size, and never shorter than the token."""
        start = self.magic + struct.pack(">I", token.number)
        missing = max(octets - len(start), 0)
        return start + (_PADDING * (missing // len(_PADDING) + 1))[:missing]

    def sequence(self, token: Token) -> int:
        """Return the initial sequence number of a TCP probe."""
        return self.tcp_magic << 16 | token.number & 0xFFFF

    def name(self, token: Token, suffix: str) -> str:
        """Return the name that a DNS probe queries."""
        return f"{self.magic.hex()}{token.number:08x}.{suffix}"

    def in_payload(self, payload: bytes) -> Token | None:
        """Return the token at the start of an ICMP echo's or UDP datagram's payload."""
        if len(payload) < TOKEN_OCTETS or payload[:4] != self.magic:
            return None
        return self._issued.get(int.from_bytes(payload[4:8], "big"))

    def in_sequence(self, sequence: int) -> Token | None:
        """Return the token in a TCP initial sequence number: of the latest probe, as the counter has only 16 bits."""
        return self._by_counter.get(sequence & 0xFFFF) if sequence >> 16 == self.tcp_magic else None

    def in_question(self, message: bytes) -> Token | None:
        """Return the token in the first question of a DNS message, query or response (RFC 1035, section 4.1)."""
        label = message[_DNS_HEADER : _DNS_HEADER + 1 + _LABEL_LENGTH]
        if len(label) <= _LABEL_LENGTH or label[0] != _LABEL_LENGTH:
            return None
        try:
            octets = bytes.fromhex(label[1:].decode("ascii"))
        except ValueError:
            return None
        return self.in_payload(octets)
