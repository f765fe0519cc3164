"""Makes a snapshot from the outputs that the shell script recorded, by the same readers as on a live host.

The text of each command is a contract with the script: see ``collect.sh``.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from viacheck.bundle.manifest import FILES
from viacheck.bundle.recorded_commands import AGENT, OF_ONE, Recorded
from viacheck.bundle.script_engine import CONTAINER_COMMANDS, container_named, engine_of
from viacheck.host.link_monitors import monitor_names
from viacheck.model.filter_chains import PacketFilter
from viacheck.model.intent import Agent
from viacheck.model.namespace_state import Link, NetworkState
from viacheck.model.site_agents import SOLE_AGENT
from viacheck.model.snapshot import IN_AGENT, HostFile, ManagerAnswer, Problem, ProblemSubject, Snapshot, StateSubject
from viacheck.netlink.packet_filter import (
    IPTABLES_FAMILIES,
    IptablesSave,
    NftRuleset,
    merge_packet_filter,
    without_rule_comments,
)
from viacheck.parsers import iproute
from viacheck.parsers.comments import without_comments
from viacheck.parsers.ip_state import IP, read_network_state
from viacheck.parsers.ipset_save import NotIpsetSave, SavedSets, parse_ipset_save
from viacheck.parsers.nft_json import NotARuleset, parse_nft_json
from viacheck.persistence import manager_answers
from viacheck.persistence.allowlist import redact_to_allowlist
from viacheck.persistence.netplan import YAMLProblem

T = TypeVar("T")
SYSCTLS, WIRELESS, PROGRAMS, PERMISSIONS = "cat /proc/sys/net", "ls /sys/class/net", "command -v", "ls -ld"
HOSTNAME, KERNEL = "uname -n", "uname -r"
NETLINK = "cat /proc/net/netlink"
"""Lines ``INODE`` for each socket that receives link messages, and ``INODE NAME`` for a process that holds it."""
NFT, IPSET = "nft -j list ruleset", "ipset save"
ENTER_AGENT = "nsenter"
MANY_PLACES = ("container ", "netns ", OF_ONE)
"""How the places of several namespaces begin: those of a script without a site file, and those of several agents."""


class _Place:
    """The commands of one namespace, and what could not be read of them."""

    def __init__(self, place: Literal["host", "agent"], commands: Iterable[Recorded]) -> None:
        self.place = place
        self.commands = {recorded.command: recorded for recorded in commands if recorded.place == place}
        self.problems: list[Problem] = []

    def problem(self, what: ProblemSubject, reason: str, recorded: Recorded | None = None) -> None:
        self.problems.append(
            Problem(
                what=what, reason=reason, command=recorded.command if recorded else None,
                exit_code=recorded.exit_code if recorded else None, stderr=recorded.stderr if recorded else "",
            )
        )  # fmt: skip

    def unread(self, subject: StateSubject, reason: str, recorded: Recorded | None = None) -> None:
        """Note a part of the namespace's state that could not be read."""
        self.problem(IN_AGENT[subject] if self.place == "agent" else subject, reason, recorded)

    def read(self, subject: StateSubject, arguments: str, parse: Callable[[str], tuple[T, ...]]) -> tuple[T, ...]:
        """Parse the recorded output of one ``ip`` command."""
        command = f"{' '.join(IP)} {arguments}"
        recorded = self.commands.get(command)
        if recorded is None:
            self.unread(subject, f"'{command}' was not recorded")
            return ()
        if recorded.exit_code:
            reason = f"{command} ended with exit code {recorded.exit_code}: {recorded.stderr.strip()}"
            self.unread(subject, reason, recorded)
            return ()
        try:
            return parse(recorded.stdout)
        except iproute.ParseError as error:
            self.unread(subject, str(error), recorded)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            self.unread(subject, f"not the output of {command}: {type(error).__name__}: {error}", recorded)
        return ()

    def output(self, command: str) -> str:
        """Return what a command printed; empty when it was not recorded."""
        recorded = self.commands.get(command)
        return recorded.stdout if recorded is not None else ""

    def state(self) -> NetworkState:
        """Return the state of the namespace."""
        wireless = self.output(WIRELESS).split()
        state = read_network_state(self.read)
        return replace(
            state,
            links=tuple(replace(link, wireless=True) if link.name in wireless else link for link in state.links),
            sysctls=_sysctls(self.output(SYSCTLS), state.links),
            packet_filter=self.packet_filter(),
        )

    def packet_filter(self) -> PacketFilter:
        """Return the packet filter of the namespace."""
        unread: list[str] = []
        saves = [
            IptablesSave(tool, family, recorded.stdout)
            for family, prefix in IPTABLES_FAMILIES
            for tool in (f"{prefix}-save", f"{prefix}-legacy-save")
            if (recorded := self.commands.get(f"{tool} -c")) is not None and not recorded.exit_code
        ]
        packet_filter = merge_packet_filter(self._nft_ruleset(unread), saves, unread, self._sets)
        if packet_filter.unread:
            self.unread("packet filter", "; ".join(packet_filter.unread))
        return without_rule_comments(packet_filter)

    def _sets(self) -> SavedSets:
        """Return the sets that ipset printed."""
        recorded = self.commands.get(IPSET)
        if recorded is None or recorded.exit_code:
            return SavedSets(problem=f"{IPSET}: {_failure(recorded)}")
        try:
            return SavedSets(parse_ipset_save(recorded.stdout))
        except NotIpsetSave as error:
            return SavedSets(problem=str(error))

    def _nft_ruleset(self, unread: list[str]) -> NftRuleset | None:
        """Return the chains that nft printed; add to ``unread`` where it did not."""
        recorded = self.commands.get(NFT)
        if recorded is None or recorded.exit_code:
            unread.append(f"nftables: {NFT}: {_failure(recorded)}")
            return None
        try:
            return NftRuleset(parse_nft_json(recorded.stdout), "nft")
        except NotARuleset as error:
            unread.append(f"nftables: {error}")
            return None


def agents_commands(commands: Iterable[Recorded], agent: Agent, name: str = SOLE_AGENT) -> Iterator[Recorded]:
    """Yield the commands of the host and of the agent's namespace; ``name`` is the agent's, of several.

    A script that was started without a site file enters every namespace: ``container ID`` and ``netns PATH``.
    """
    commands = list(commands)
    container = None
    if agent.container is not None:
        container = container_named(agent.container, commands)
    own_places = [f"{OF_ONE}{name}"]
    if agent.netns is not None:
        own_places.append(f"netns {_run_path(agent.netns)}")
    if container is not None:
        own_places.append(f"container {container['Id']}")
    for command in commands:
        if command.place in own_places:
            yield command.model_copy(update={"place": AGENT})
        elif command.command in CONTAINER_COMMANDS:
            yield command.model_copy(update={"stdout": json.dumps(container) if container is not None else ""})
        elif not command.place.startswith(MANY_PLACES):
            yield command


def _run_path(netns: str) -> str:
    return netns.replace("/var/run/", "/run/", 1) if netns.startswith("/var/run/") else netns


def _failure(recorded: Recorded | None) -> str:
    """Return why a command's output is missing."""
    if recorded is None:
        return "it was not recorded"
    return recorded.stderr.strip() or f"exit code {recorded.exit_code}"


def snapshot_of(
    commands: Sequence[Recorded], members: Mapping[str, bytes], *, taken: str, container: str | None
) -> Snapshot:
    """Return the state of the host on which the commands ran.

    Args:
        commands: the recorded commands with their output.
        members: the bundle's members, which hold the host's files.
        taken: when, ISO 8601.
        container: the agent's container; None when the agent is a bare namespace.
    """
    host, agent = _Place("host", commands), _Place("agent", commands)
    state = host.state()
    engine = None
    if container is not None:
        engine, problems = engine_of(host.commands, container)
        host.problems += problems
    agent_state = agent.state() if agent.commands else None
    if agent_state is None and not any(problem.what in ("engine", "container") for problem in host.problems):
        refused = host.commands.get(ENTER_AGENT)
        reason = refused.stderr.strip() if refused is not None else "its commands were not recorded"
        reason = f"the script did not enter the agent's namespace: {reason}"
        host.problems.append(Problem(what="agent", reason=reason, missing="root, and nsenter"))
    return Snapshot(
        taken=taken,
        hostname=host.output(HOSTNAME).strip(),
        kernel=host.output(KERNEL).strip(),
        host=state,
        agent=agent_state,
        engine=engine,
        files=tuple(_files(host.output(PERMISSIONS), members)),
        programs=dict(line.split(" ", 1) for line in host.output(PROGRAMS).splitlines() if " " in line),
        link_watchers=_link_monitors(host) if NETLINK in host.commands else None,
        manager_answers=tuple(_manager_answers(host)),
        problems=(*host.problems, *agent.problems),
    )


def _manager_answers(host: _Place) -> Iterable[ManagerAnswer]:
    for command, recorded in host.commands.items():
        if manager_answers.is_manager_command(command):
            try:
                yield ManagerAnswer(
                    command, recorded.exit_code, manager_answers.redact_answer(command, recorded.stdout)
                )
            except (ValueError, RecursionError):
                # A bundle from outside may hold anything in place of the answer.
                continue


def _link_monitors(host: _Place) -> tuple[str, ...]:
    lines = [line.split(" ", 1) for line in host.output(NETLINK).splitlines()]
    return monitor_names(frozenset(line[0] for line in lines), {line[0]: line[1] for line in lines if len(line) == 2})


def _sysctls(text: str, links: tuple[Link, ...]) -> dict[str, str]:
    """Read lines ``net/ipv4/ip_forward = 1``, without those of interfaces that are not among the links."""
    # A bundle from outside may hold any JSON value as a name.
    names = {"all", "default", *(str(link.name) for link in links)}
    values = {}
    for line in text.splitlines():
        path, equals, value = line.partition(" = ")
        parts = path.split("/")
        if equals and (len(parts) < 5 or parts[3] in names or not links):
            values[path] = value
    return values


def _files(permissions: str, members: Mapping[str, bytes]) -> Iterable[HostFile]:
    for line in permissions.splitlines():
        mode, _space, path = line.partition(" ")
        if mode == "absent":
            yield HostFile(path=path, exists=False)
            continue
        if mode == "present":
            yield HostFile(path=path, exists=True)
            continue
        content = members.get(FILES + path.lstrip("/"))
        if content is None:
            yield HostFile(path=path, exists=True, error="the script could not read it", mode=_mode(mode))
            continue
        text = content.decode(errors="replace")
        try:
            kept = without_comments(text) if "rt_tables" in path else redact_to_allowlist(path, text)
        except (YAMLProblem, ValueError, RecursionError) as error:
            yield HostFile(path=path, exists=True, error=" ".join(str(error).split()), mode=_mode(mode))
        else:
            # The script has left out what may not leave the host, and does not say of which lines.
            yield HostFile(path=path, exists=True, text=kept, mode=_mode(mode))


def _mode(text: str) -> int:
    """Return the permission bits that ls(1) prints as ``-rwxr-xr-x``."""
    bits = (stat.S_IRUSR, stat.S_IWUSR, stat.S_IXUSR, stat.S_IRGRP, stat.S_IWGRP, stat.S_IXGRP,
            stat.S_IROTH, stat.S_IWOTH, stat.S_IXOTH)  # fmt: skip
    return sum(bit for bit, letter in zip(bits, text[1:10], strict=False) if letter not in "-ST")
