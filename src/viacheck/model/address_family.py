"""The two families of IP addresses, and the option of ip(8) for each."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Literal

Family = Literal[4, 6]
IPNetwork = IPv4Network | IPv6Network

FAMILY_OPTION = {4: "", 6: "-6 "}
"""What ``ip`` needs before the object for each family."""


def ip_command(family: int) -> list[str]:
    """Return the beginning of an ``ip`` command for a family, as an argument list."""
    return ["ip", *FAMILY_OPTION[family].split()]
