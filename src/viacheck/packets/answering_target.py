"""Finds an address beyond the uplinks that answers ping, for the draft of a site file.

The candidates are asked first. If none of them answers, the routers are asked that return ICMP Time Exceeded (RFC 792)
to echo requests of small TTL: the first one outside of the host's own networks is the next hop of the uplink's gateway.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from viacheck.host.namespace import Namespace
from viacheck.packets.probes import echo_request

_ROUNDS, _WAIT = 2, 0.75
"""Echo requests to each address, and seconds for the answers to each."""
_TTLS = range(2, 6)
"""The agent's host and the uplink's gateway are the first two hops at most; a tunnel or a modem may be further ones."""
_ECHO_REPLY, _TIME_EXCEEDED = 0, 11
_ICMP_HEADER = struct.Struct("!BBHHH")


@dataclass(slots=True)
class _Answers:
    """Who answered the echo requests of one identifier."""

    echoed: set[IPv4Address] = field(default_factory=set)
    routers: dict[int, IPv4Address] = field(default_factory=dict)
    """The router that a request of a TTL came to, by that TTL."""


def answering_target(
    namespace: Namespace, candidates: Sequence[IPv4Address], own: Collection[IPv4Network]
) -> tuple[IPv4Address, bool] | None:
    """Return the first candidate that answers ping, else the first router beyond the host's networks that does.

    Args:
        namespace: where the echo requests are sent: the agent's namespace, or the host's.
        candidates: addresses beyond the uplinks, the best first; the last one is where requests of small TTL are sent.
        own: the networks of the host and of the agent.

    Returns:
        The address, and whether it is a router's; None when none answers.

    Raises:
        OSError: no raw socket can be opened in the namespace.
    """
    identifier = random.randint(1, 0xFFFF)  # noqa: S311 - not a secret: the answers to these requests carry it
    # They are built here: in the namespace of another root, Python finds none of its modules.
    requests = {number: echo_request(4, identifier, number, b"") for number in (0, *_TTLS)}
    answers = namespace.call(lambda: _ask(requests, identifier, candidates, candidates[-1] if candidates else None))
    first = next((address for address in candidates if address in answers.echoed), None)
    if first is not None:
        return first, False
    routers = [answers.routers[ttl] for ttl in sorted(answers.routers)]
    beyond = [router for router in dict.fromkeys(routers) if not any(router in network for network in own)]
    echoed = namespace.call(lambda: _ask(requests, identifier, beyond, None)).echoed
    return next(((router, True) for router in beyond if router in echoed), None)


def _ask(
    requests: Mapping[int, bytes], identifier: int, addresses: Sequence[IPv4Address], far: IPv4Address | None
) -> _Answers:
    """Send echo requests to addresses, and requests of small TTL to a far one; stop when the first address answers."""
    answers = _Answers()
    if not addresses:
        return answers
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
        for _ in range(_ROUNDS):
            for address in addresses:
                _send(icmp, requests[0], address)
            for ttl in _TTLS if far is not None else ():
                icmp.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
                _send(icmp, requests[ttl], far)
            icmp.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)
            for octets in _received(icmp, time.monotonic() + _WAIT):
                _read(octets, identifier, answers)
                if addresses[0] in answers.echoed:
                    return answers
    return answers


def _send(icmp: socket.socket, packet: bytes, address: IPv4Address | None) -> None:
    try:
        icmp.sendto(packet, (str(address), 0))
    except OSError:
        # No route leads there, or a filter refuses it: the address does not answer.
        return


def _received(icmp: socket.socket, deadline: float) -> Iterator[bytes]:
    while (left := deadline - time.monotonic()) > 0:
        if select.select([icmp], [], [], left)[0]:
            yield icmp.recv(2048)


def _read(octets: bytes, identifier: int, answers: _Answers) -> None:
    """Note an echo reply or a Time Exceeded to one of the requests; other packets are left."""
    source, icmp = _payload(octets)
    if source is None or len(icmp) < _ICMP_HEADER.size:
        return
    kind, _code, _checksum, number, _sequence = _ICMP_HEADER.unpack_from(icmp)
    if kind == _ECHO_REPLY and number == identifier:
        answers.echoed.add(source)
    elif kind == _TIME_EXCEEDED:
        _source, request = _payload(icmp[_ICMP_HEADER.size :])
        if len(request) >= _ICMP_HEADER.size:
            *_rest, number, ttl = _ICMP_HEADER.unpack_from(request)
            if number == identifier:
                answers.routers.setdefault(ttl, source)


def _payload(octets: bytes) -> tuple[IPv4Address | None, bytes]:
    """Return the source and the payload of an IPv4 packet; None for what is too short to be one."""
    if len(octets) < 20:
        return None, b""
    return IPv4Address(octets[12:16]), octets[(octets[0] & 0x0F) * 4 :]
