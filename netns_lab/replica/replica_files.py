"""The files of a replica's host: those of the snapshot, in folders that hide this machine's own files.

A snapshot may come from anywhere, so a file is written only in the places that a snapshot is taken from, and no file
can be executed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from netns_lab import pipework_host
from netns_lab.plan import AGENT_PATH, RESOLVER
from viacheck.host import persistence_files, pipework_files
from viacheck.model.intent import Intent
from viacheck.model.snapshot import HostFile, Snapshot
from viacheck.persistence.boot_files import UNIT_FOLDERS
from viacheck.persistence.crontabs import CRON_FOLDERS, CRONTAB
from viacheck.persistence.pipework_line import PROGRAM

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
"""The interpreter of every script: checks can read the script, and it never runs. A snapshot may hold any text."""
LOCAL_RESOLVERS = "127."
DOCKER_RESOLVER = "127.0.0.11"
RESOLV_CONF = "/etc/resolv.conf"


@dataclass(frozen=True, slots=True)
class ReplicaFiles:
    """The files of a replica's host, in addition to those of this machine."""

    texts: dict[str, str]
    executables: frozenset[str]
    links: dict[str, str]
    hidden: tuple[str, ...]
    notes: tuple[str, ...]


def replica_files(snapshot: Snapshot, intent: Intent, resolvers: tuple[str, ...]) -> ReplicaFiles:
    """Return the files of a snapshot that belong to its network."""
    texts: dict[str, str] = {RESOLV_CONF: "".join(f"nameserver {address}\n" for address in resolvers)}
    executables, links, notes = set[str](), dict[str, str](), list[str]()
    for file in snapshot.files:
        if not file.exists:
            continue
        reason = file.error or _obstacle(file.path)
        if reason is not None:
            notes.append(f"{file.path} is not in the replica: {reason}")
            continue
        if _enables(file):
            links[file.path] = f"../{os.path.basename(file.path)}"
            continue
        texts[file.path] = file.text
        if not file.mode & _EXECUTABLE:
            continue
        if file.text.startswith("\n"):
            # A snapshot keeps no comments, and treats the interpreter line as a comment.
            texts[file.path] = _INTERPRETER + file.text
        elif file.text:
            # Without the interpreter line the kernel or a shell could run the text.
            notes.append(f"{file.path} is not executable in the replica")
            continue
        executables.add(file.path)
    programs = {path for path in texts if path.rpartition("/")[2] == PROGRAM}
    for path in programs:
        texts[path] = pipework_host.STAND_IN
        texts[pipework_host.LEASE_SCRIPT] = pipework_host.LEASE_TEXT
        executables.add(pipework_host.LEASE_SCRIPT)
        notes.append(f"{path} is a stand-in for pipework")
    links |= _agent_links(intent)
    if len(texts) > 1:
        notes.append("the files hold only the lines that a snapshot keeps: addressing and routing")
    return ReplicaFiles(texts, frozenset(executables), links, tuple(_hidden(texts)), tuple(notes))


def resolvers_of(snapshot: Snapshot) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the resolvers of the replica's agent, and the notes on them."""
    resolvers = snapshot.resolvers
    container = snapshot.engine.container if snapshot.engine is not None else None
    if resolvers is None and container is not None and container.dns:
        resolvers = container.dns
    if resolvers is None:
        return (RESOLVER,), (f"the snapshot does not hold the agent's resolvers: the replica uses {RESOLVER}",)
    ipv6 = [address for address in resolvers if not _is_ipv4(address)]
    resolvers = tuple(address for address in resolvers if _is_ipv4(address))
    outside = tuple(address for address in resolvers if not address.startswith(LOCAL_RESOLVERS))
    notes = [
        f"the DNS server at {address} is not reproduced in the replica"
        if address != DOCKER_RESOLVER
        else "Docker's DNS is not reproduced in the replica"
        for address in resolvers
        if address not in outside
    ]
    notes += [f"the IPv6 DNS server at {address} is not reproduced in the replica" for address in ipv6]
    return outside, tuple(notes)


def _is_ipv4(text: str) -> bool:
    try:
        return IPv4Address(text).version == 4
    except ValueError:
        return False


def _obstacle(path: str) -> str | None:
    """Return why a file cannot be in the replica, or None when it can."""
    if path != os.path.normpath(path) or not path.startswith("/") or "\0" in path:
        return "its path is invalid"
    if path in _SINGLE:
        return None
    name = os.path.basename(path)
    if os.path.dirname(path) in _OF_PROGRAMS:
        taken = name != PROGRAM and shutil.which(name, path=_SYSTEM_PATH) is not None
        return "it would hide this machine's own program of that name" if taken else None
    folder = next((folder for folder in _FOLDERS if path.startswith(f"{folder}/")), None)
    if folder is None:
        return "it is in a folder that does not belong to the network configuration"
    private = folder.startswith(_ALWAYS_PRIVATE) or os.path.isdir(folder)
    return None if private else f"this machine has no {folder} that a private folder could cover"


def _enables(file: HostFile) -> bool:
    """Return whether a file is a link by which systemctl(1) has enabled a unit."""
    return os.path.dirname(file.path).endswith((".wants", ".requires"))


def _agent_links(intent: Intent) -> dict[str, str]:
    """Return the links by which the host's own commands find the agent's namespace."""
    agent = intent.agent
    if agent.container is not None:
        return {f"{os.path.dirname(AGENT_PATH)}/{agent.container}": AGENT_PATH}
    path = os.path.normpath(agent.netns or AGENT_PATH)
    inside_run = path.startswith("/run/") and path != AGENT_PATH
    return {path: AGENT_PATH} if inside_run else {}


def _hidden(texts: dict[str, str]) -> Iterator[str]:
    """Yield this machine's files and folders that the replica's host must not have."""
    # Hiding a folder hides the folders in it.
    for folder in dict.fromkeys(_FOLDERS):
        if not any(folder.startswith(f"{other}/") for other in _FOLDERS):
            yield folder
    yield from (path for path in _SINGLE if path not in texts)
    for folder in pipework_files.SEARCH_PATH:
        if (path := f"{folder}/{PROGRAM}") not in texts and os.path.isfile(path):
            yield path
