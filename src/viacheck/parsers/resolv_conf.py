"""The resolvers that resolv.conf names (resolv.conf(5))."""

from __future__ import annotations

from ipaddress import ip_address


def nameservers(text: str) -> tuple[str, ...]:
    """Return the addresses of the nameserver lines in their order, each once; a line without an address is left out.

    An IPv6 address may have a scope: ``fe80::1%eth0``.
    """
    addresses: list[str] = []
    for line in text.splitlines():
        keyword, *values = line.split()[:2] or [""]
        if keyword == "nameserver" and values and _is_address(values[0]) and values[0] not in addresses:
            addresses.append(values[0])
    return tuple(addresses)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
