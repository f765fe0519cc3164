"""Takes a snapshot of a target: asks the kernel, the engine and the files once, and turns the answers into plain data.

Links, addresses, rules and routes are read by ``ip -json``: on a host with 10,000 rules and 100,000 routes that is an
order of magnitude faster than decoding each message in Python, and a person can type the same command.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import gc
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from viacheck.host import persistence_files, pipework_files
from viacheck.host.capabilities import missing_capabilities
from viacheck.host.command import CommandResult
from viacheck.host.dhcp_clients import dhcp_clients
from viacheck.host.facts import facts, read_file
from viacheck.host.link_monitors import link_watchers
from viacheck.host.namespace import Namespace
from viacheck.host.packet_filter_reader import read_packet_filter
from viacheck.host.sysctl import read_sysctls
from viacheck.model.snapshot import (
    DockerEngine,
    HostFile,
    Link,
    NetworkState,
    Problem,
    Snapshot,
)
from viacheck.netlink.packet_filter import without_rule_comments
from viacheck.parsers import iproute
from viacheck.parsers.comments import without_comments

T = TypeVar("T")
UNDECODABLE = "\ufffd"
"""What stands for an octet of a command's answer that is no UTF-8."""
RT_TABLES = "/etc/iproute2/rt_tables"
RT_TABLE_FOLDERS = ("/etc/iproute2/rt_tables.d", "/usr/share/iproute2/rt_tables.d")
PROGRAMS = ("pipework", "nft", "iptables", "conntrack")
SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/all/disable_ipv6",
    "net/ipv4/fib_multipath_hash_policy",
    "net/bridge/bridge-nf-call-iptables",
)
INTERFACE_SYSCTLS = (
    "net/ipv4/conf/{}/forwarding",
    "net/ipv4/conf/{}/rp_filter",
    "net/ipv4/conf/{}/src_valid_mark",
    "net/ipv4/conf/{}/ignore_routes_with_linkdown",
    "net/ipv4/conf/{}/accept_local",
    "net/ipv6/conf/{}/forwarding",
    "net/ipv6/conf/{}/disable_ipv6",
    "net/ipv6/conf/{}/ignore_routes_with_linkdown",
    "net/ipv6/conf/{}/keep_addr_on_down",
)


class _Reader:
    """Reads one namespace and remembers what could not be read."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.problems: list[Problem] = []

    def ip(self, what: str, words: str, parse: Callable[[str], tuple[T, ...]]) -> tuple[T, ...]:
        result = self.namespace.run(["ip", "-N", "-j", *words.split()])
        if not result.ok:
            self.problems.append(_problem(what, result))
            return ()
        try:
            return parse(result.stdout)
        except iproute.ParseError as error:
            self.problems.append(_problem(what, result, reason=str(error)))
            return ()

    def network_state(self) -> NetworkState:
        links = self.ip("links", "-d link show", iproute.parse_links)
        nameless = [link.index for link in links if UNDECODABLE in link.name]
        if nameless:
            reason = f"the name of interface {', '.join(map(str, nameless))} is no UTF-8, so it cannot be watched"
            self.problems.append(Problem(what="links", reason=reason))
        packet_filter = without_rule_comments(read_packet_filter(self.namespace))
        if packet_filter.unread:
            reason = "; ".join(packet_filter.unread)
            self.problems.append(Problem(what="packet filter", reason=reason, missing=missing_capabilities()))
        return NetworkState(
            links=self.namespace.call(lambda: tuple(_with_wireless(link) for link in links)),
            addresses=self.ip("addresses", "-d address show", iproute.parse_addresses),
            rules=(
                *self.ip("rules", "-4 rule show", lambda text: iproute.parse_rules(text, 4)),
                *self.ip("rules6", "-6 rule show", lambda text: iproute.parse_rules(text, 6)),
            ),
            routes=(
                *self.ip("routes", "-d -4 route show table all", lambda text: iproute.parse_routes(text, 4)),
                *self.ip("routes6", "-d -6 route show table all", lambda text: iproute.parse_routes(text, 6)),
            ),
            neighbours=(
                *self.ip("neighbours", "-4 neigh show", lambda text: iproute.parse_neighbours(text, 4)),
                *self.ip("neighbours6", "-6 neigh show", lambda text: iproute.parse_neighbours(text, 6)),
            ),
            sysctls=self.namespace.call(lambda: _sysctls(links)),
            packet_filter=packet_filter,
        )


def network_state(namespace: Namespace) -> tuple[NetworkState, tuple[Problem, ...]]:
    """Read the networking state of one namespace, and what could not be read of it."""
    reader = _Reader(namespace)
    with _collector_paused():
        return reader.network_state(), tuple(reader.problems)


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Python's garbage collector would walk through 100,000 new routes again and again, and find none to be garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def take_snapshot(
    host: Namespace,
    agent: Namespace | None,
    engine: DockerEngine | None = None,
    problems: Iterable[Problem] = (),
) -> Snapshot:
    """Take a snapshot of a host and its agent.

    Args:
        host: the host's namespace.
        agent: the agent's network namespace, where it could be entered.
        engine: what the Docker engine said, where there is one.
        problems: what could not be read before, and why.
    """
    state, host_problems = network_state(host)
    found = [*problems, *host_problems]
    agent_state = None
    if agent is not None:
        agent_state, agent_problems = network_state(agent)
        found += [dataclasses.replace(problem, what=f"agent {problem.what}") for problem in agent_problems]
    fact = facts(host)
    return Snapshot(
        taken=datetime.datetime.now().astimezone().isoformat(timespec="milliseconds"),
        hostname=socket.gethostname(),
        kernel=os.uname().release,
        host=state,
        agent=agent_state,
        engine=engine,
        files=_files(host),
        programs={name: str(fact.find_command(name)) for name in PROGRAMS if fact.exists(name)},
        problems=tuple(found),
        dhcp_clients=dhcp_clients(agent) if agent is not None else None,
        link_watchers=link_watchers(host),
    )


def _files(namespace: Namespace) -> tuple[HostFile, ...]:
    fact = facts(namespace)
    paths = [RT_TABLES, "/usr/share/iproute2/rt_tables"]
    for folder in RT_TABLE_FOLDERS:
        if fact.file(folder).is_directory:
            paths += [f"{folder}/{name}" for name in fact.file(folder).listdir() if name.endswith(".conf")]
    tables = (read_file(fact, path) for path in paths)
    names = (dataclasses.replace(file, text=without_comments(file.text)) for file in tables)
    return (*names, *persistence_files.collect(namespace), *pipework_files.collect(namespace))


def _with_wireless(link: Link) -> Link:
    folder = f"/sys/class/net/{link.name}"
    if os.path.exists(f"{folder}/phy80211") or os.path.exists(f"{folder}/wireless"):
        return dataclasses.replace(link, wireless=True)
    return link


def _sysctls(links: tuple[Link, ...]) -> dict[str, str]:
    """Read the sysctls of the calling thread's namespace that matter."""
    names = ["all", "default", *(link.name for link in links)]
    return read_sysctls((*SYSCTLS, *(pattern.format(name) for pattern in INTERFACE_SYSCTLS for name in names)))


def _problem(what: str, result: CommandResult, reason: str = "") -> Problem:
    return Problem(
        what=what,
        reason=reason or f"{result.command} ended with exit code {result.exit_code}: {result.stderr.strip()}",
        command=result.command,
        exit_code=result.exit_code,
        stdout=result.stdout[:2000],
        stderr=result.stderr,
    )
