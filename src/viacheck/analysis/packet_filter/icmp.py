"""Types of ICMP messages that begin a flow, and those of the answers to them."""

from __future__ import annotations

from socket import IPPROTO_ICMP, IPPROTO_ICMPV6

ECHO_REQUEST = 8
REQUESTS: dict[int, dict[int, int]] = {
    IPPROTO_ICMP: {ECHO_REQUEST: 0, 13: 14, 15: 16, 17: 18},
    IPPROTO_ICMPV6: {128: 129},
}
"""The type of the answer to each type of request, by protocol (RFC 792, RFC 950, RFC 4443).

Conntrack begins a flow for these types of ICMP alone (valid_new, net/netfilter/nf_conntrack_proto_icmp.c).
"""
REQUEST_NAMES = {ECHO_REQUEST: "echo-request", 13: "timestamp-request", 15: "info-request", 17: "address-mask-request"}
"""The types of IPv4's requests as nft and iptables name them."""


def echo_request(protocol: int | None) -> int | None:
    """Return the type of a ping of a protocol; None for one without types."""
    return next(iter(REQUESTS.get(protocol or 0, ())), None)


def type_of_answer(protocol: int | None, request: int | None) -> int | None:
    """Return the type of the answer to a request; None for another type."""
    return REQUESTS.get(protocol or 0, {}).get(request) if request is not None else None
