"""The names of what the kernel numbers in routes and rules, as ip(8) prints them (rtnetlink(7), linux/rtnetlink.h)."""

from __future__ import annotations

ROUTE_TYPES = (
    "unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit", "throw",
    "nat", "xresolve",
)  # fmt: skip
"""RTN_*, by number."""
WITHOUT_NEXTHOP = frozenset({"blackhole", "unreachable", "prohibit", "throw"})
"""The types of routes by which no packet leaves. Of IPv6 the kernel gives them the interface lo."""
SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
"""RT_SCOPE_*, by number."""
PROTOCOLS = {
    1: "redirect", 2: "kernel", 3: "boot", 4: "static", 9: "ra", 11: "zebra", 12: "bird", 16: "dhcp", 18: "keepalived",
    186: "bgp", 188: "ospf",
}  # fmt: skip
"""RTPROT_*, by number."""
TABLE_COMPAT, TABLE_DEFAULT, TABLE_MAIN, TABLE_LOCAL = 252, 253, 254, 255
"""RT_TABLE_*"""
TABLE_NAMES = {TABLE_DEFAULT: "default", TABLE_MAIN: "main", TABLE_LOCAL: "local"}
"""The tables that every ``ip`` knows by name, whatever rt_tables says."""
