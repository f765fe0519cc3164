"""The files of a twin's host: those of the snapshot, in folders where nothing of this machine's own is left.

A snapshot may come from anywhere, so only files in places that a snapshot is made of are written, whatever it names;
none of them can be run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from netns_lab import pipework_host
from netns_lab.builder import AGENT_PATH
from netns_lab.plan import RESOLVER
from viacheck.host import persistence_files, pipework_files
from viacheck.model.intent import Intent
from viacheck.model.snapshot import HostFile, Snapshot
from viacheck.persistence.pipework import CRON_FOLDERS, CRONTAB, PROGRAM, UNIT_FOLDERS

_TABLE_FOLDERS = ("/etc/iproute2", "/usr/share/iproute2")
_FOLDERS = (
    *_TABLE_FOLDERS, "/etc/network", *persistence_files.FOLDERS, *persistence_files.SCRIPTS, *UNIT_FOLDERS,
    *CRON_FOLDERS,
)  # fmt: skip
_SINGLE = (*persistence_files.ALWAYS, *persistence_files.SINGLE, CRONTAB)
_OF_PROGRAMS = ("/usr/local/bin", "/usr/local/sbin")
_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_ALWAYS_PRIVATE = ("/etc/", "/run/", "/usr/local")
_EXECUTABLE = 0o111
_INTERPRETER = "#!/bin/false"
"""Of every script: it can be looked at, and never runs here. Whoever made the snapshot may have written anything."""
LOCAL_RESOLVERS = "127."
RESOLV_CONF = "/etc/resolv.conf"


@dataclass(frozen=True, slots=True)
class Files:
    """What the host of a twin has on disk, beside what this machine has."""

    texts: dict[str, str]
    executables: frozenset[str]
    links: dict[str, str]
    hidden: tuple[str, ...]
    notes: tuple[str, ...]


def files_of(snapshot: Snapshot, intent: Intent, resolvers: tuple[str, ...]) -> Files:
    """The files of a snapshot, as far as they belong to its network."""
    texts: dict[str, str] = {RESOLV_CONF: "".join(f"nameserver {one}\n" for one in resolvers)}
    executables, links, notes = set[str](), dict[str, str](), list[str]()
    for file in snapshot.files:
        if not file.exists:
            continue
        reason = file.error or _obstacle(file.path)
        if reason is not None:
            notes.append(f"{file.path} is not there: {reason}")
            continue
        if _enables(file):
            links[file.path] = f"../{os.path.basename(file.path)}"
            continue
        texts[file.path] = file.text
        if not file.mode & _EXECUTABLE:
            continue
        if file.text.startswith("\n"):
            # A snapshot keeps no comments, and to it the line that names the interpreter is one.
            texts[file.path] = _INTERPRETER + file.text
        elif file.text:
            # Without that line whatever is there might be taken for a program.
            notes.append(f"{file.path} is not executable here")
            continue
        executables.add(file.path)
    programs = {path for path in texts if path.rpartition("/")[2] == PROGRAM}
    for path in programs:
        texts[path] = pipework_host.STAND_IN
        texts[pipework_host.LEASE_SCRIPT] = pipework_host.LEASE_TEXT
        executables.add(pipework_host.LEASE_SCRIPT)
        notes.append(f"{path} is an equivalent of pipework's effects")
    links |= _names_of_the_agent(intent)
    if len(texts) > 1:
        notes.append("files hold what a snapshot keeps of them: addressing and routing")
    return Files(texts, frozenset(executables), links, tuple(_hidden(texts)), tuple(notes))


def resolvers_of(snapshot: Snapshot) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The resolvers that the twin's agent asks, and what is to be said of them."""
    asked = snapshot.resolvers
    container = snapshot.engine.container if snapshot.engine is not None else None
    if asked is None and container is not None and container.dns:
        asked = container.dns
    if asked is None:
        return (RESOLVER,), (f"the snapshot does not say whom the agent asks for names: {RESOLVER} stands for it",)
    asked = tuple(one for one in asked if _is_ipv4(one))
    outside = tuple(one for one in asked if not one.startswith(LOCAL_RESOLVERS))
    notes = [f"nobody is asked for names at {one}: the program there is not rebuilt" for one in asked
             if one not in outside]  # fmt: skip
    return outside, tuple(notes)


def _is_ipv4(text: str) -> bool:
    try:
        return IPv4Address(text).version == 4
    except ValueError:
        return False


def _obstacle(path: str) -> str | None:
    """Why a file cannot be there; None when it can."""
    if path != os.path.normpath(path) or not path.startswith("/") or "\0" in path:
        return "its path is none"
    if path in _SINGLE:
        return None
    name = os.path.basename(path)
    if os.path.dirname(path) in _OF_PROGRAMS:
        taken = name != PROGRAM and shutil.which(name, path=_SYSTEM_PATH) is not None
        return "it would stand in the way of this machine's own program of that name" if taken else None
    folder = next((one for one in _FOLDERS if path.startswith(f"{one}/")), None)
    if folder is None:
        return "it lies elsewhere than a network set-up does"
    private = folder.startswith(_ALWAYS_PRIVATE) or os.path.isdir(folder)
    return None if private else f"this machine has no {folder} to put a private one over"


def _enables(file: HostFile) -> bool:
    """It is one of the links by which systemctl(1) has enabled a unit; a snapshot knows that it is there."""
    return os.path.dirname(file.path).endswith((".wants", ".requires"))


def _names_of_the_agent(intent: Intent) -> dict[str, str]:
    """The paths by which the host's own commands know the agent's namespace."""
    agent = intent.agent
    if agent.container is not None:
        return {f"{os.path.dirname(AGENT_PATH)}/{agent.container}": AGENT_PATH}
    path = os.path.normpath(agent.netns or AGENT_PATH)
    inside_run = path.startswith("/run/") and path != AGENT_PATH
    return {path: AGENT_PATH} if inside_run else {}


def _hidden(texts: dict[str, str]) -> Iterator[str]:
    """What of this machine the twin's host does not have."""
    # A folder inside a folder that is hidden is gone with it.
    for folder in dict.fromkeys(_FOLDERS):
        if not any(folder.startswith(f"{other}/") for other in _FOLDERS):
            yield folder
    yield from (path for path in _SINGLE if path not in texts)
    for folder in pipework_files.SEARCH_PATH:
        if (path := f"{folder}/{PROGRAM}") not in texts and os.path.isfile(path):
            yield path
