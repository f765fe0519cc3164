"""What a script may say without a secret: conditions that hooks use, addresses, numbers, and the names of the host."""

from __future__ import annotations

import re
from collections.abc import Callable

from viacheck.parsers.comments import LEFT_OUT

PLAIN_VALUE = re.compile(
    r"[0-9A-Fa-f]{0,4}[.:][0-9A-Fa-f.:]{1,40}(/\d{1,3})?|\d{1,10}(/\d{1,3})?|0x[0-9A-Fa-f]{1,8}|main|default|local"
    r"|((eth|usb|wlan|wwan|ppp|tun|tap|wg|lte|br|docker|bond|team|vlan|ib)\d|(en|wl|ww)[opsx]\d)[\w.-]{0,12}"
)
"""A value that is an address, a number, or has the usual name of an interface: other text may be a secret."""
_WORDS_OF_HOOKS = frozenset({
    "up", "down", "pre-up", "post-up", "pre-down", "post-down", "start", "stop", "restart", "reload", "add", "del",
    "inet", "inet6", "ipv4", "ipv6", "static", "dhcp", "dhcp4", "dhcp6", "manual", "auto", "loopback", "meta", "all",
    "BOUND", "RENEW", "REBIND", "REBOOT", "EXPIRE", "FAIL", "RELEASE", "STOP", "PREINIT", "TIMEOUT", "MEDIUM", "NBI",
    "bound", "renew", "deconfig", "leasefail", "nak", "vpn-up", "vpn-down", "vpn-pre-up", "vpn-pre-down", "hostname",
    "dhcp4-change", "dhcp6-change", "connectivity-change", "routable", "degraded", "carrier", "no-carrier", "dormant",
    "configured", "configuring", "off", "yes", "no", "true", "false", "root", "running", "active", "connected",
})  # fmt: skip
"""Words that hooks compare their variables with: interfaces(5), dhclient-script(8), udhcpc, networkd-dispatcher and
NetworkManager-dispatcher(8)."""
_WORD_OF_CONDITION = re.compile(
    r"-\w+|--\w[\w-]*|[!=<>]?=|[!\]]|/\S*|x?\$\{?[\w@#?*]+\}?|x"
    rf"|\$\({re.escape(LEFT_OUT)}\)|\d?&?>+(&\d|/dev/null)|\d{{0,10}}"
)
"""A part of a condition that holds no text of its own: an option, an operator, a path, a variable, a number."""


def word_of_condition(word: str, known: Callable[[], frozenset[str]]) -> str:
    """Return a part of a condition; text that a secret may be compared with is left out."""
    bare = word.strip("\"'")
    return (
        word if _WORD_OF_CONDITION.fullmatch(bare) is not None or bare in _WORDS_OF_HOOKS else plain_word(word, known)
    )


def plain_word(word: str, known: Callable[[], frozenset[str]]) -> str:
    """Return a word that is an address, a number or a name of the host; other text may be a secret."""
    # Scripts of all ages write [ "x$IFACE" = xeth0 ].
    bare = word.strip("\"'").removeprefix("x")
    return word if PLAIN_VALUE.fullmatch(bare) is not None or bare in known() else LEFT_OUT
