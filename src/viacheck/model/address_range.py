"""A range of addresses, as the networks that it consists of."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, summarize_address_range


def networks_between(first: str, last: str) -> tuple[str, ...]:
    """Return the networks that hold the addresses from ``first`` to ``last``, both included, and no others.

    Raises:
        ValueError: when an address is invalid, of another IP version than the other, or the last one comes first.
    """
    low, high = ip_address(first), ip_address(last)
    if isinstance(low, IPv4Address) and isinstance(high, IPv4Address):
        return tuple(str(network) for network in summarize_address_range(low, high))
    if isinstance(low, IPv6Address) and isinstance(high, IPv6Address):
        return tuple(str(network) for network in summarize_address_range(low, high))
    raise ValueError(f"{first} and {last} are of two IP versions")
