"""The part of a command line of pipework that a snapshot may hold: the arguments that pipework documents.

pipework takes ``INTERFACE [-i NAME] [-l NAME] [-a FAMILY] CONTAINER ADDRESS/LENGTH[@GATEWAY]|dhclient [MAC][@VLAN]``.
"""

from __future__ import annotations

import re

from viacheck.parsers.comments import LEFT_OUT

PROGRAM = "pipework"
BY_DHCP = ("dhclient", "dhcpcd", "udhcpc", "dhcp")
"""The words that pipework takes in place of an address; a version may follow after a colon."""
WITH_VALUE = ("-i", "-l", "-a")
NAMES = 2
"""The first two arguments are names: of the interface and of the container."""
_ADDRESS = re.compile(r"[0-9A-Fa-f.:]{3,45}/\d{1,3}(@[0-9A-Fa-f.:]{3,45})?|0/0")
_LEASE = re.compile(rf"(?:{'|'.join(BY_DHCP)})(?::[\d.]{{1,8}})?(?:-f)?")
_MAC = re.compile(r"(?:[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5})?(?:@\d{1,4})?")
_VARIABLE = re.compile(r"\$[\w@*#]+|\$\{\w+\}|\$\(…\)")
_WORD = re.compile(r"\S+")


def redact_arguments(text: str) -> str:
    """Return the arguments of one command of pipework, with LEFT_OUT in place of each unknown one."""
    names, value, attached = 0, False, False

    def kept(match: re.Match[str]) -> str:
        nonlocal names, value, attached
        word = match[0]
        bare = word.strip("\"'")
        if value:
            value = False
            return word
        if word in WITH_VALUE:
            value = True
            return word
        if word.startswith("-"):
            return word if word == "--wait" else LEFT_OUT
        if not bare:
            return word
        names += 1
        if _VARIABLE.fullmatch(bare):
            return word
        if names <= NAMES:
            return word
        shape = _MAC if attached else _ADDRESS
        known = shape.fullmatch(bare) or (not attached and _LEASE.fullmatch(bare))
        attached = True
        return word if known else word.replace(bare, LEFT_OUT)

    return _WORD.sub(kept, text)
