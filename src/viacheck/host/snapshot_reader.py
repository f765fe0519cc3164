"""Takes a snapshot of a target: asks the kernel, the engine and the files once, and turns the answers into plain data.

Links, addresses, rules and routes are read by ``ip -json``: on a host with 10,000 rules and 100,000 routes that is an
order of magnitude faster than decoding each message in Python, and a person can type the same command.
"""

from __future__ import annotations

import dataclasses
import datetime
import gc
import os
import socket
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TypeVar

from viacheck.collector_pause import collector_paused
from viacheck.host import persistence_files, pipework_files
from viacheck.host.capabilities import missing_capabilities
from viacheck.host.command import CommandResult
from viacheck.host.dhcp_clients import dhcp_clients
from viacheck.host.facts import find_programs
from viacheck.host.firewalld_process import FIREWALLD_TABLE, firewalld_runs
from viacheck.host.link_monitors import link_monitors
from viacheck.host.namespace import Namespace
from viacheck.host.packet_filter_reader import read_packet_filter
from viacheck.host.sysctl import read_sysctls
from viacheck.host.table_files import table_files
from viacheck.model.docker_state import DockerEngine
from viacheck.model.namespace_state import Link, Neighbour, NetworkState
from viacheck.model.snapshot import IN_AGENT, Problem, Snapshot, StateSubject
from viacheck.netlink.packet_filter import without_rule_comments
from viacheck.parsers import iproute
from viacheck.parsers.ip_state import IP, read_neighbours, read_network_state

T = TypeVar("T")
UNDECODABLE = "\ufffd"
"""Stands for an octet of a command's output that is not UTF-8."""
LARGE_STATE = 10_000
"""Rules and routes from which a state is left out of the searches for cyclic garbage."""
LONG_OUTPUT = 100_000
"""Characters of a command's output from which it is worth to keep what was read from it."""
PROGRAMS = ("pipework", "nft", "iptables", "iptables-legacy", "conntrack", "patch")
SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv4/ip_default_ttl",
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
    "net/ipv4/conf/{}/proxy_arp",
    "net/ipv6/conf/{}/forwarding",
    "net/ipv6/conf/{}/disable_ipv6",
    "net/ipv6/conf/{}/ignore_routes_with_linkdown",
    "net/ipv6/conf/{}/keep_addr_on_down",
)


class _StateReader:
    """Reads one namespace and remembers what could not be read."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._begun: dict[str, Callable[[], CommandResult]] = {}
        self.problems: list[Problem] = []

    def network_state(self) -> NetworkState:
        # All commands at once: while one output is read, the kernel writes the next.
        read_network_state(self._begin)
        try:
            state = read_network_state(self._ip)
        finally:
            for ended in self._begun.values():
                ended()
        undecodable = [link.index for link in state.links if UNDECODABLE in link.name]
        if undecodable:
            interfaces = ", ".join(map(str, undecodable))
            reason = f"the name of interface {interfaces} is not UTF-8, so that it cannot be watched"
            self.problems.append(Problem(what="links", reason=reason))
        packet_filter = without_rule_comments(read_packet_filter(self._namespace))
        if packet_filter.unread:
            reason = "; ".join(packet_filter.unread)
            self.problems.append(Problem(what="packet filter", reason=reason, missing=missing_capabilities()))
        return dataclasses.replace(
            state,
            links=self._namespace.call(lambda: tuple(_with_wireless(link) for link in state.links)),
            sysctls=self._namespace.call(lambda: _sysctls(state.links)),
            packet_filter=packet_filter,
        )

    def neighbours(self) -> tuple[Neighbour, ...]:
        """Read the neighbour table."""
        return read_neighbours(self._ip)

    def _begin(
        self,
        subject: StateSubject,  # noqa: ARG002 - of the protocol ReadIp
        arguments: str,
        parse: Callable[[str], tuple[T, ...]],  # noqa: ARG002 - of the protocol ReadIp
    ) -> tuple[T, ...]:
        self._begun[arguments] = self._namespace.begin([*IP, *arguments.split()], large=True)
        return ()

    def _ip(self, subject: StateSubject, arguments: str, parse: Callable[[str], tuple[T, ...]]) -> tuple[T, ...]:
        begun = self._begun.pop(arguments, None)
        result = begun() if begun is not None else self._namespace.run([*IP, *arguments.split()], large=True)
        if not result.ok:
            self.problems.append(_problem(subject, result))
            return ()
        try:
            return (_parsed if len(result.stdout) > LONG_OUTPUT else _parse)(parse, result.stdout)
        except iproute.ParseError as error:
            self.problems.append(_problem(subject, result, reason=str(error)))
            return ()


def _parse(parse: Callable[[str], tuple[T, ...]], text: str) -> tuple[T, ...]:
    return parse(text)


_parsed = lru_cache(maxsize=4)(_parse)
"""The same for long texts: a state is read again to see what changed, and 100,000 routes have seldom changed."""


def network_state(namespace: Namespace) -> tuple[NetworkState, tuple[Problem, ...]]:
    """Read the networking state of one namespace, and what could not be read of it."""
    reader = _StateReader(namespace)
    with collector_paused():
        state = reader.network_state()
        if len(state.routes) + len(state.rules) >= LARGE_STATE:
            # They are kept to the end, and the collector would visit each of them again: 0.2 s of CPU time.
            gc.freeze()
    return state, tuple(reader.problems)


def routers_seen(namespace: Namespace, state: NetworkState) -> tuple[Neighbour, ...]:
    """Return the entries of the neighbour table, as it is now, of the gateways of a state's routes.

    The kernel learns of a gateway when a packet goes by it: the table before a run may lack one that exists.
    """
    routers = {(hop.interface, hop.gateway) for route in state.routes for hop in route.nexthops if hop.gateway}
    neighbours = _StateReader(namespace).neighbours()
    return tuple(entry for entry in neighbours if (entry.interface, entry.address) in routers)


def take_snapshot(
    host: Namespace,
    agent: Namespace | None,
    engine: DockerEngine | None = None,
    problems: Iterable[Problem] = (),
) -> Snapshot:
    """Take a snapshot of a host and its agent.

    Args:
        host: the host's namespace.
        agent: the agent's network namespace; None when it cannot be entered.
        engine: the Docker engine's answers; None without an engine.
        problems: what could not be read before, and why.
    """
    state, host_problems = network_state(host)
    has_firewalld = any(chain.table == FIREWALLD_TABLE for chain in state.packet_filter.chains)
    all_problems = [*problems, *host_problems]
    agent_state = None
    if agent is not None:
        agent_state, agent_problems = network_state(agent)
        all_problems += map(_in_agent, agent_problems)
    return Snapshot(
        taken=datetime.datetime.now().astimezone().isoformat(timespec="milliseconds"),
        hostname=socket.gethostname(),
        kernel=os.uname().release,
        host=state,
        agent=agent_state,
        engine=engine,
        files=(*host.call(table_files), *persistence_files.collect(host), *pipework_files.collect(host)),
        programs=find_programs(host, PROGRAMS),
        problems=tuple(all_problems),
        dhcp_clients=dhcp_clients(agent) if agent is not None else None,
        link_watchers=link_monitors(host),
        firewalld_runs=firewalld_runs(host) if has_firewalld else None,
    )


def snapshot_of_agent(
    same_host: Snapshot, agent: Namespace | None, engine: DockerEngine | None, problems: Iterable[Problem] = ()
) -> Snapshot:
    """Take a snapshot of another agent on a host that has been read; the arguments are those of take_snapshot."""
    own_problems = list(problems)
    agent_state = None
    if agent is not None:
        agent_state, agent_problems = network_state(agent)
        own_problems += map(_in_agent, agent_problems)
    of_host = [problem for problem in same_host.problems if problem.what in IN_AGENT]
    return dataclasses.replace(
        same_host,
        agent=agent_state,
        engine=engine,
        problems=(*own_problems, *of_host),
        dhcp_clients=dhcp_clients(agent) if agent is not None else None,
    )


def _in_agent(problem: Problem) -> Problem:
    """Return a problem of the agent's namespace under the agent's name."""
    return dataclasses.replace(problem, what=IN_AGENT[problem.what])


def _with_wireless(link: Link) -> Link:
    folder = f"/sys/class/net/{link.name}"
    if os.path.exists(f"{folder}/phy80211") or os.path.exists(f"{folder}/wireless"):
        return dataclasses.replace(link, wireless=True)
    return link


def _sysctls(links: tuple[Link, ...]) -> dict[str, str]:
    """Read the sysctls of the calling thread's namespace that matter."""
    names = ["all", "default", *(link.name for link in links)]
    return read_sysctls((*SYSCTLS, *(pattern.format(name) for pattern in INTERFACE_SYSCTLS for name in names)))


def _problem(what: StateSubject, result: CommandResult, reason: str = "") -> Problem:
    return Problem(
        what=what,
        reason=reason or f"{result.command} ended with exit code {result.exit_code}: {result.stderr.strip()}",
        command=result.command,
        exit_code=result.exit_code,
        stdout=result.stdout[:2000],
        stderr=result.stderr,
    )
