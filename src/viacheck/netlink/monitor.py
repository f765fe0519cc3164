"""The kernel's announcements while a test runs: links, addresses, rules and routes that appear or go (rtnetlink(7)).

The kernel does not announce everything: it flushes the IPv4 routes of a link that goes down in silence. State is
therefore read again and never added up from here. Messages are only received while packets are watched, and decoded
later.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from viacheck.model.address_family import FAMILY_OPTION
from viacheck.model.policy_rule import rule_text
from viacheck.model.route import route_text
from viacheck.model.routing_names import TABLE_LOCAL
from viacheck.netlink import codec, rtnetlink
from viacheck.netlink.codec import NetlinkSocket, as_string
from viacheck.netlink.nfnetlink import EnterableNamespace
from viacheck.netlink.routing_objects import route_of, rule_of
from viacheck.netlink.rtnetlink import IFF_LOWER_UP, IFF_UP, LinkChange, RtnetlinkMessage, address_text

_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL = 1, 2, 3
_VERBS = {
    rtnetlink.RTM_NEWLINK: "there", rtnetlink.RTM_DELLINK: "gone",
    rtnetlink.RTM_NEWADDR: "there", rtnetlink.RTM_DELADDR: "gone",
    rtnetlink.RTM_NEWRULE: "there", rtnetlink.RTM_DELRULE: "gone",
    rtnetlink.RTM_NEWROUTE: "there", rtnetlink.RTM_DELROUTE: "gone",
}  # fmt: skip
CHANGES = frozenset(_VERBS)
"""Types of the messages that announce a change."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """One change that the kernel announced."""

    time_ns: int
    """Since the epoch, when it was received."""
    text: str


class RouteMonitor:
    """Collects the announcements of one namespace's kernel, from the moment that the monitor is made."""

    def __init__(self, namespace: EnterableNamespace) -> None:
        """Begin to listen.

        Raises:
            OSError: with the kernel's errno.
        """
        self._socket = _listen(namespace)
        self._received: list[tuple[int, bytes]] = []
        self.last_ns = self.address_ns = 0
        """Since the epoch, when the last change was received, and the last one of an address; 0 when there was none."""

    def fileno(self) -> int:
        """Return the socket's descriptor, for poll(2)."""
        return self._socket.fileno()

    def read(self) -> None:
        """Receive the announcements so far, without waiting."""
        for datagram in self._socket.waiting():
            self.last_ns = time.time_ns()
            if datagram is None:
                # The state is read by dumps in any case.
                continue
            self._received.append((self.last_ns, datagram))
            # struct nlmsghdr of netlink(7): the length, then the type.
            if int.from_bytes(datagram[4:6], codec.BYTE_ORDER) in (rtnetlink.RTM_NEWADDR, rtnetlink.RTM_DELADDR):
                self.address_ns = self.last_ns

    def move(self, namespace: EnterableNamespace) -> None:
        """Go on listening in another namespace, that of the host that is about to boot."""
        self.read()
        self._socket.close()
        self._socket = _listen(namespace)

    def announcements(self) -> Iterator[Announcement]:
        """Yield everything that was received."""
        self.read()
        names: dict[int, str] = {}
        for time_ns, datagram in self._received:
            for text in announced(datagram, names):
                yield Announcement(time_ns, text)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def _listen(namespace: EnterableNamespace) -> NetlinkSocket:
    return namespace.call(lambda: NetlinkSocket(socket.NETLINK_ROUTE, timeout=0, groups=rtnetlink.CHANGE_GROUPS))


def announced(datagram: bytes, names: dict[int, str]) -> Iterator[str]:
    """Yield the changes that one datagram announces.

    Args:
        datagram: as received.
        names: the interfaces' names by index; announcements of links add to them.

    Raises:
        MalformedMessage: when a length does not fit.
    """
    for message in codec.decode_messages(datagram):
        if message.type in CHANGES:
            text = change_text(RtnetlinkMessage.decode(message.type, message.payload), names)
            if text is not None:
                yield text


def change_text(message: RtnetlinkMessage, names: dict[int, str]) -> str | None:
    """Return one change as text; None for a route of the local table, which follows the addresses.

    Raises:
        MalformedMessage: when a length does not fit.
    """
    verb = _VERBS[message.kind]
    match message.kind:
        case rtnetlink.RTM_NEWLINK | rtnetlink.RTM_DELLINK:
            return _link(LinkChange.of(message), names)
        case rtnetlink.RTM_NEWADDR | rtnetlink.RTM_DELADDR:
            return _address(message, names, verb)
        case rtnetlink.RTM_NEWRULE | rtnetlink.RTM_DELRULE:
            rule = rule_of(message)
            return f"{FAMILY_OPTION[rule.family]}rule {rule_text(rule)} {verb}"
        case _:
            route = route_of(message, names)
            if route.table == TABLE_LOCAL:
                return None
            return f"{FAMILY_OPTION[route.family]}route {route_text(route)} {verb}"


def _link(link: LinkChange, names: dict[int, str]) -> str:
    name = names[link.index] = link.name or f"interface {link.index}"
    if link.gone:
        return f"link {name} gone"
    carrier = "carrier" if link.flags & IFF_LOWER_UP else "no carrier"
    return f"link {name} {f'up, {carrier}' if link.flags & IFF_UP else 'down'}"


def _address(message: RtnetlinkMessage, names: dict[int, str], verb: str) -> str:
    (index,) = struct.unpack_from("=I", message.body, 4)
    name = names.get(index) or _string(message, _IFA_LABEL) or f"interface {index}"
    address = address_text(message.get(_IFA_LOCAL) or message.get(_IFA_ADDRESS) or b"")
    return f"address {address}/{message.body[1]} of {name} {verb}"


def _string(message: RtnetlinkMessage, kind: int) -> str:
    return as_string(message.get(kind) or b"")
