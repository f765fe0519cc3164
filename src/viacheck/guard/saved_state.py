"""A namespace's network state in a file: saved before a change, loaded to restore it.

The file is written whole or not at all. It holds everything that a restore needs, and beside each of the kernel's
messages a line of text for a person who reads the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from viacheck.atomic_file import write_file
from viacheck.guard.network_state import (
    CurrentState,
    LinkState,
    boot_id,
    namespace_inode,
    network_sysctls,
    with_upper_links,
)
from viacheck.guard.object_text import object_text
from viacheck.netlink import rtnetlink
from viacheck.netlink.rtnetlink import RouteSocket, RtnetlinkMessage
from viacheck.user_file import read_file

SCHEMA = "viacheck.saved-state/1"
UNFINISHED, FINISHED, OUTCOME, LOG = "saved-state.json", "restored-state.json", "outcome.json", "watchdog.log"
"""Files in the state directory: a state that must still be restored, the last restored state, the result of that
restore, the watchdog's log."""
MODE = 0o600
"""The state shows how a network is built: only its owner reads it."""


class NoSavedState(Exception):
    """The file holds no state that can be restored here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedState:
    """A namespace's state at one moment, and the interfaces and tables that a change is about."""

    interfaces: tuple[str, ...]
    """The interfaces that the change may touch, and those above them."""
    tables: tuple[int, ...]
    """Routing tables that belong to the change, with all of their routes."""
    saved: str
    """When the state was read, as local time (ISO 8601)."""
    boottime: float
    """The same in seconds since the boot (CLOCK_BOOTTIME), by which lifetimes are counted."""
    boot_id: str
    namespace: int
    """Inode of the network namespace."""
    command: str
    links: tuple[LinkState, ...]
    addresses: tuple[RtnetlinkMessage, ...]
    neighbours: tuple[RtnetlinkMessage, ...]
    nexthops: tuple[RtnetlinkMessage, ...]
    routes: tuple[RtnetlinkMessage, ...]
    rules: tuple[RtnetlinkMessage, ...]
    sysctls: dict[str, str]
    """By path below /proc/sys."""
    reconfigures: bool = True
    """The change runs a network manager, which adds and sets what its files say. Without it the kernel removes what
    belongs to a link that goes down, so that whatever was added or set meanwhile is another program's or a person's."""

    def elapsed(self) -> float:
        """Return the seconds since the state was read."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.boottime


def take_state(
    netlink: RouteSocket, interfaces: Iterable[str], tables: Iterable[int], command: str, *, reconfigures: bool = True
) -> SavedState:
    """Read the state of the calling thread's network namespace.

    Raises:
        OSError: with the kernel's errno.
    """
    current = CurrentState(netlink)
    concerned = with_upper_links(interfaces, current.links)
    return SavedState(
        interfaces=tuple(sorted(concerned)),
        tables=tuple(sorted(tables)),
        saved=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        boottime=time.clock_gettime(time.CLOCK_BOOTTIME),
        boot_id=boot_id(),
        namespace=namespace_inode(),
        command=command,
        links=current.links,
        addresses=current.addresses,
        neighbours=current.neighbours,
        nexthops=current.nexthops,
        routes=current.routes,
        rules=current.rules,
        sysctls=network_sysctls(concerned),
        reconfigures=reconfigures,
    )


_MESSAGES = {
    "addresses": rtnetlink.RTM_NEWADDR,
    "neighbours": rtnetlink.RTM_NEWNEIGH,
    "nexthops": rtnetlink.RTM_NEWNEXTHOP,
    "routes": rtnetlink.RTM_NEWROUTE,
    "rules": rtnetlink.RTM_NEWRULE,
}


def save(state: SavedState, path: str) -> None:
    """Write the state to a file that only its owner may read, whole or not at all, and safe from a crash.

    Raises:
        OSError: when the file cannot be written.
    """
    names = {link.index: link.name for link in state.links}
    document: dict[str, Any] = {"schema": SCHEMA}
    for field in dataclasses.fields(state):
        value = getattr(state, field.name)
        if field.name in _MESSAGES:
            value = [{"text": object_text(message, names), "message": message.encode().hex()} for message in value]
        elif field.name == "links":
            value = [dataclasses.asdict(link) for link in value]
        document[field.name] = value
    write_file(path, json.dumps(document, indent=1), mode=MODE)


def load(path: str) -> SavedState:
    """Read a state from its file.

    Raises:
        NoSavedState: when the file is missing, or holds anything else.
    """
    try:
        return _decode(json.loads(read_file(path)))
    except OSError as error:
        raise NoSavedState(f"{path}: {error.strerror}") from None
    except _OtherVersion:
        raise NoSavedState(f"{path}: not a saved state of this version ({SCHEMA})") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NoSavedState(f"{path}: not a saved state ({type(error).__name__}: {error})") from None


class _OtherVersion(Exception):
    """The document has another schema."""


def _decode(document: Any) -> SavedState:
    fields = _object(document)
    if fields.pop("schema") != SCHEMA:
        raise _OtherVersion
    decoders: dict[str, Callable[[Any], Any]] = {
        "interfaces": lambda value: tuple(map(_string, _list(value))),
        "tables": lambda value: tuple(map(_integer, _list(value))),
        "saved": _string,
        "boottime": _number,
        "boot_id": _string,
        "namespace": _integer,
        "command": _string,
        "links": lambda value: tuple(map(_link, _list(value))),
        "sysctls": lambda value: {_string(path): _string(setting) for path, setting in _object(value).items()},
        "reconfigures": _bool,
        **{name: _messages(kind) for name, kind in _MESSAGES.items()},
    }
    # A state that an earlier version saved.
    fields.setdefault("reconfigures", True)
    return SavedState(**{name: decode(fields.pop(name)) for name, decode in decoders.items()}, **fields)


def _messages(kind: int) -> Callable[[Any], tuple[RtnetlinkMessage, ...]]:
    return lambda value: tuple(
        RtnetlinkMessage.decode(kind, bytes.fromhex(_string(_object(entry)["message"]))) for entry in _list(value)
    )


def _link(value: Any) -> LinkState:
    fields = _object(value)
    numbers = {name: _integer(fields.pop(name)) for name in ("index", "flags", "mtu", "txqlen")}
    texts = {name: _string(fields.pop(name)) for name in ("name", "mac")}
    bytes.fromhex(texts["mac"])
    optional = {name: None if fields[name] is None else _string(fields[name]) for name in ("kind", "master", "parent")}
    return LinkState(**{**fields, **numbers, **texts, **optional})


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"an object is needed, not {type(value).__name__}")
    return dict(value)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"a list is needed, not {type(value).__name__}")
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text is needed, not {type(value).__name__}")
    return value


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"true or false is needed, not {type(value).__name__}")
    return value


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"a whole number is needed, not {type(value).__name__}")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"a number is needed, not {type(value).__name__}")
    return value


def mark_restored(path: str) -> None:
    """Rename an unfinished state, so that no later run takes it for unfinished.

    Raises:
        OSError: when the disk cannot be written.
    """
    folder, name = os.path.split(path)
    if name == UNFINISHED:
        os.replace(path, os.path.join(folder, FINISHED))


def discard(path: str) -> None:
    """Delete a state before anything was changed."""
    with contextlib.suppress(OSError):
        os.unlink(path)
