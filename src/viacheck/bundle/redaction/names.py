"""The names that ``strict`` maps: of hosts, sites, agents, containers, namespaces and networks, and paths as typed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from viacheck.bundle.redaction.mapping import stand_ins
from viacheck.model.snapshot import Snapshot

PREDEFINED_NETWORKS = frozenset({"bridge", "host", "none"})
NAMED_NAMESPACES = ("/run/netns", "/var/run/netns")
"""Folders with the namespaces of ip-netns(8): the file's name is a name that a person chose."""
OPTIONS_WITH_NAMES = frozenset(
    {"--site", "--report-dir", "--state-dir", "--report", "--baseline", "--group", "--basetemp"}
)
"""Options whose value may name a customer, also where it has no slash."""
GENERIC_PATHS = frozenset({"site.toml", "report", "reports"})


def names_to_map(
    intents: Mapping[str, dict[str, Any]], snapshots: Mapping[str, Snapshot], command: str
) -> dict[str, str]:
    """Return the names that ``strict`` maps, each with its stand-in, and the names of interfaces, which stay.

    Args:
        intents: the intents by agent.
        snapshots: the snapshots by agent.
        command: the command line of the run, as typed; empty without a run.
    """
    hosts: list[str] = []
    domains: list[str] = []
    containers: list[str] = []
    networks: list[str] = []
    namespaces: list[str] = []
    interfaces: set[str] = set()
    for agent, snapshot in snapshots.items():
        intent, engine, container = intents[agent], snapshot.engine, snapshot.container
        label, _dot, domain = snapshot.hostname.partition(".")
        hosts += [snapshot.hostname, label, intent.get("site", {}).get("name", "")]
        domains.append(domain)
        of_agent = intent.get("agent", {})
        containers.append(of_agent.get("container") or "")
        namespace = PurePath(of_agent.get("netns") or "")
        if str(namespace.parent) in NAMED_NAMESPACES:
            namespaces.append(namespace.name)
        if container is not None:
            containers += [container.name, container.id, container.id[:12], container.image]
            containers.append(container.namespace_of or "")
            containers += [alias for attachment in container.attachments for alias in attachment.aliases]
        for network in engine.networks if engine is not None else ():
            networks += [network.name, network.id]
            containers += network.containers or ()
        interfaces |= {*(link.name for link in snapshot.host.links), *intent.get("uplinks", ())}
    names = {
        "host": hosts, "domain": domains, "agent": list(intents), "container": containers, "network": networks,
        "namespace": namespaces, "path": list(_paths(command)),
    }  # fmt: skip
    kept = {"", *PREDEFINED_NETWORKS, *interfaces}
    mapped = stand_ins({kind: [name for name in of_kind if name not in kept] for kind, of_kind in names.items()})
    # An interface's name may have a mapped name in it, and stays whole.
    return {**mapped, **{name: name for name in interfaces}}


def _paths(command: str) -> Iterator[str]:
    """Yield the paths and names on a command line: as typed, and as messages say them."""
    option = ""
    for argument in shlex.split(command)[1:]:
        given, equals, value = argument.partition("=") if argument.startswith("-") else (option, "", argument)
        option = given if argument.startswith("-") else ""
        if argument.startswith("-") and not equals:
            continue
        if (given in OPTIONS_WITH_NAMES or "/" in value) and value not in GENERIC_PATHS:
            yield from (value, os.path.normpath(value), os.path.abspath(value))
