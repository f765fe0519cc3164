"""The types of single values in site.toml: a named validator for each, and the text that says what is allowed."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

T = TypeVar("T")
LONGEST = 3600
"""Seconds: no duration of an intent is longer."""
SHORTEST_DHCP_WAIT, LONGEST_DHCP_WAIT = 6, 60
"""Seconds: servers may ping an address before they offer it, 1 s (ISC dhcpd), 3 s (dnsmasq) or up to 5 s (Windows)."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a value of the intent may be, as a message about a mistake says it."""

    text: str


def interface_name(value: str) -> str:
    """Accept a name that the kernel accepts for an interface (dev_valid_name, net/core/dev.c)."""
    if not 0 < len(value.encode()) < 16:
        raise ValueError("an interface name has 1 to 15 bytes")
    # The kernel's white space is that of Latin-1, byte by byte: U+2007 passes, and U+00E0 (c3 a0) does not.
    if value in (".", "..") or set(value.encode()) & set(b"/: \t\n\v\f\r\xa0"):
        raise ValueError("an interface name has no '/', no ':' and no white space, and is not '.' or '..'")
    return value


def docker_name(value: str) -> str:
    """Accept a name that Docker accepts for a container or a network."""
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", value):
        raise ValueError("a Docker name has two or more letters, digits, '_', '.' or '-', and a letter or digit first")
    return value


def namespace_path(value: str) -> str:
    """Accept an absolute path."""
    if not value.startswith("/") or not value.isprintable():
        raise ValueError("the path of a network namespace is absolute, such as /proc/123/ns/net")
    return value


def one_line(value: str) -> str:
    """Accept text without control characters."""
    if not value.isprintable():
        raise ValueError("a name is one line without control characters")
    return value


def duration(value: str) -> str:
    """Accept a number with its unit, up to the longest duration."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?(ms|s|m)", value):
        raise ValueError("a duration is a number with its unit: '500ms', '5s', '2m'")
    if not 0 < seconds(value) <= LONGEST:
        raise ValueError(f"a duration is more than 0 and at most {LONGEST // 60}m")
    return value


def dhcp_wait(value: str) -> str:
    """Accept a duration that is longer than any known DHCP server pings an address before it offers it."""
    if not SHORTEST_DHCP_WAIT <= seconds(duration(value)) <= LONGEST_DHCP_WAIT:
        raise ValueError(f"the wait is from {SHORTEST_DHCP_WAIT}s, as servers may take 5s, to {LONGEST_DHCP_WAIT}s")
    return value


def seconds(text: str) -> float:
    """Return the seconds of a duration (``500ms``, ``5s``, ``2m``, ``24h``, ``7d``)."""
    number, unit = re.fullmatch(r"([\d.]+)(ms|s|m|h|d)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[unit]


def share_text(value: str) -> str:
    """Accept a percentage."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)? ?%", value):
        raise ValueError("a share is a number with %: '2%', '0.5%'")
    if not 0 <= share(value) <= 1:
        raise ValueError("a share is from 0% to 100%")
    return value


def share(text: str) -> float:
    """Return a percentage of the intent (``2%``) as a number from 0 to 1."""
    return float(text.rstrip("% ")) / 100


def schema_number(value: object) -> object:
    """Refuse what merely equals a whole number: Literal[1] takes True and 1.0."""
    if isinstance(value, bool | float):
        raise ValueError("allowed: 1")
    return value


def date_alone(value: object) -> object:
    """Refuse a date with a time of day, and a number, which would be seconds since 1970."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        return value
    if not isinstance(value, datetime.date) or isinstance(value, datetime.datetime):
        raise ValueError("a date is year, month and day: 2026-12-31")
    return value


def address_text(value: object) -> object:
    """Refuse a number in place of an address: ipaddress takes 10 for 0.0.0.10."""
    if isinstance(value, int | bytes):
        raise ValueError("an address is text between quotes")
    return value


def other_machine(value: IPv4Address) -> IPv4Address:
    """Accept the address of a machine other than this host."""
    if value.is_multicast or value.is_unspecified or value.is_loopback or value == IPv4Address("255.255.255.255"):
        raise ValueError("the address of another machine is needed: not loopback, multicast, broadcast or 0.0.0.0")
    return value


def free_table(value: int) -> int:
    """Refuse the tables that the kernel uses itself."""
    if value in (252, 253, 254, 255):
        raise ValueError("tables 252 to 255 are the kernel's own; pick another, such as 200")
    return value


def without_repetition(value: tuple[T, ...]) -> tuple[T, ...]:
    """Refuse a list with the same entry twice."""
    if len(set(value)) != len(value):
        raise ValueError("the list has an entry twice")
    return value


InterfaceName = Annotated[str, AfterValidator(interface_name), Allowed("the name of an interface, such as 'eth0'")]
DockerName = Annotated[str, AfterValidator(docker_name), Allowed("a Docker name or id, such as 'te-agent'")]
NamespacePath = Annotated[str, AfterValidator(namespace_path), Allowed("a path such as '/proc/123/ns/net'")]
Duration = Annotated[str, AfterValidator(duration), Allowed("a number with its unit: '500ms', '5s', '2m'")]
DhcpWait = Annotated[str, AfterValidator(dhcp_wait), Allowed("a duration from '6s' to '60s'")]
Percentage = Annotated[str, AfterValidator(share_text), Allowed("a number from 0 to 100 with %: '2%', '0.5%'")]
CheckId = Annotated[
    str, Field(pattern=r"^[A-Z][A-Z0-9]*(-[A-Z0-9]+)*-[0-9]+$"), Allowed("the id of a check, such as 'ROUTE-07'")
]
DiagnosisCode = Annotated[
    str, Field(pattern=r"^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$"), Allowed("the code of a diagnosis, such as 'FAIL_OPEN'")
]
Day = Annotated[datetime.date, BeforeValidator(date_alone), Allowed("a date, such as 2026-12-31")]
MachineAddress = Annotated[
    IPv4Address,
    BeforeValidator(address_text),
    AfterValidator(other_machine),
    Allowed("an IPv4 address, such as '10.10.50.1'"),
]
MachineAddress6 = Annotated[
    IPv6Address, BeforeValidator(address_text), Allowed("an IPv6 address, such as '2001:db8::1'")
]
Subnet = Annotated[
    IPv4Network,
    BeforeValidator(address_text),
    Allowed("an IPv4 subnet without host bits, such as '10.10.40.0/24'"),
]
AddressOnSubnet = Annotated[
    IPv4Interface,
    BeforeValidator(address_text),
    Allowed("an IPv4 address with its prefix length, such as '10.0.0.200/24'"),
]
Port = Annotated[int, Field(strict=True, ge=1, le=65535), Allowed("a whole number from 1 to 65535")]
TableNumber = Annotated[
    int,
    Field(strict=True, ge=1, le=0xFFFFFFFF),
    AfterValidator(free_table),
    Allowed("a whole number from 1 to 4294967295, other than 252 to 255"),
]
TableName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$"),
    Allowed("letters, digits, '_', '.', '-', a letter or '_' first, such as 'wlan0rt'"),
]
