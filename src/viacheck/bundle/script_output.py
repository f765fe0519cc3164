"""Makes a snapshot of raw outputs, as the shell script leaves them: the same readers as on a live host, on saved text.

What a command of the script is called here is a contract between the two: see ``collect.sh``.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from viacheck.bundle.manifest import FILES
from viacheck.bundle.recorded_commands import Recorded
from viacheck.host.link_monitors import in_words
from viacheck.model.snapshot import (
    DockerEngine,
    HostFile,
    Link,
    ManagerAnswer,
    NetworkState,
    PacketFilter,
    Problem,
    Snapshot,
)
from viacheck.netlink.packet_filter import (
    IPTABLES_FAMILIES,
    IptablesSave,
    NftRuleset,
    merge_packet_filter,
    without_rule_comments,
)
from viacheck.parsers import iproute
from viacheck.parsers.comments import without_comments
from viacheck.parsers.docker_api import NotAnEngineAnswer, engine_from_answers
from viacheck.parsers.nft_json import NotARuleset, parse_nft_json
from viacheck.persistence import manager_answers
from viacheck.persistence.allowlist import keep
from viacheck.persistence.netplan import YAMLProblem

T = TypeVar("T")
SYSCTLS, WIRELESS, PROGRAMS, PERMISSIONS = "cat /proc/sys/net", "ls /sys/class/net", "command -v", "ls -ld"
HOSTNAME, KERNEL = "uname -n", "uname -r"
NETLINK = "cat /proc/net/netlink"
"""Lines ``INODE`` for each socket that is told of links, and ``INODE NAME`` for a process that holds it."""
NFT = "nft -j list ruleset"
DOCKER_VERSION, DOCKER_INFO, DOCKER_NETWORKS, DOCKER_CONTAINER = (
    "docker version", "docker info", "docker network inspect", "docker inspect",
)  # fmt: skip
ENTER_AGENT = "nsenter"


class _Place:
    """The commands of one namespace, and what could not be read of them."""

    def __init__(self, place: str, commands: Iterable[Recorded]) -> None:
        self.place = place
        self.commands = {one.command: one for one in commands if one.place == place}
        self.problems: list[Problem] = []

    def problem(self, what: str, reason: str, one: Recorded | None = None) -> None:
        name = what if self.place == "host" else f"{self.place} {what}"
        self.problems.append(
            Problem(
                what=name, reason=reason, command=one.command if one else None,
                exit_code=one.exit_code if one else None, stderr=one.stderr if one else "",
            )
        )  # fmt: skip

    def read(self, what: str, words: str, parse: Callable[[str], tuple[T, ...]]) -> tuple[T, ...]:
        command = f"ip -N -j {words}"
        one = self.commands.get(command)
        if one is None:
            self.problem(what, f"'{command}' was not recorded")
            return ()
        if one.exit_code:
            self.problem(what, f"{command} ended with exit code {one.exit_code}: {one.stderr.strip()}", one)
            return ()
        try:
            return parse(one.stdout)
        except iproute.ParseError as error:
            self.problem(what, str(error), one)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            self.problem(what, f"not what {command} prints: {type(error).__name__}: {error}", one)
        return ()

    def output(self, command: str) -> str:
        one = self.commands.get(command)
        return one.stdout if one is not None else ""

    def state(self) -> NetworkState:
        wireless = self.output(WIRELESS).split()
        links = self.read("links", "-d link show", iproute.parse_links)
        return NetworkState(
            links=tuple(replace(link, wireless=True) if link.name in wireless else link for link in links),
            addresses=self.read("addresses", "-d address show", iproute.parse_addresses),
            rules=(
                *self.read("rules", "-4 rule show", lambda text: iproute.parse_rules(text, 4)),
                *self.read("rules6", "-6 rule show", lambda text: iproute.parse_rules(text, 6)),
            ),
            routes=(
                *self.read("routes", "-d -4 route show table all", lambda text: iproute.parse_routes(text, 4)),
                *self.read("routes6", "-d -6 route show table all", lambda text: iproute.parse_routes(text, 6)),
            ),
            neighbours=(
                *self.read("neighbours", "-4 neigh show", lambda text: iproute.parse_neighbours(text, 4)),
                *self.read("neighbours6", "-6 neigh show", lambda text: iproute.parse_neighbours(text, 6)),
            ),
            sysctls=_sysctls(self.output(SYSCTLS), links),
            packet_filter=self.packet_filter(),
        )

    def packet_filter(self) -> PacketFilter:
        unread: list[str] = []
        saves = [
            IptablesSave(tool, family, recorded.stdout)
            for family, prefix in IPTABLES_FAMILIES
            for tool in (f"{prefix}-save", f"{prefix}-legacy-save")
            if (recorded := self.commands.get(f"{tool} -c")) is not None and not recorded.exit_code
        ]
        packet_filter = merge_packet_filter(self._nft_ruleset(unread), saves, unread)
        if packet_filter.unread:
            self.problem("packet filter", "; ".join(packet_filter.unread))
        return without_rule_comments(packet_filter)

    def _nft_ruleset(self, unread: list[str]) -> NftRuleset | None:
        """Return the chains that nft printed; add to ``unread`` where it did not."""
        recorded = self.commands.get(NFT)
        if recorded is None or recorded.exit_code:
            why = recorded_failure(recorded)
            unread.append(f"nftables: {NFT}: {why}")
            return None
        try:
            return NftRuleset(parse_nft_json(recorded.stdout), "nft")
        except NotARuleset as error:
            unread.append(f"nftables: {error}")
            return None


def recorded_failure(recorded: Recorded | None) -> str:
    """Return why a command's output is not there."""
    if recorded is None:
        return "it was not recorded"
    return recorded.stderr.strip() or f"exit code {recorded.exit_code}"


def snapshot_of(
    commands: Sequence[Recorded], members: Mapping[str, bytes], *, taken: str, container: str | None
) -> Snapshot:
    """The state of the host that these commands were run on.

    Args:
        commands: what was run, and what it said.
        members: the bundle's members, of which the host's files are read.
        taken: when, ISO 8601.
        container: the agent's container; None when it is a bare namespace.
    """
    host, agent = _Place("host", commands), _Place("agent", commands)
    state = host.state()
    engine = _engine(host, container) if container is not None else None
    agent_state = agent.state() if agent.commands else None
    if agent_state is None and not any(one.what in ("engine", "container") for one in host.problems):
        refused = host.commands.get(ENTER_AGENT)
        reason = refused.stderr.strip() if refused is not None else "its commands were not recorded"
        host.problems.append(
            Problem(what="agent", reason=f"the script did not enter it: {reason}", missing="root, and nsenter")
        )
    return Snapshot(
        taken=taken,
        hostname=host.output(HOSTNAME).strip(),
        kernel=host.output(KERNEL).strip(),
        host=state,
        agent=agent_state,
        engine=engine,
        files=tuple(_files(host.output(PERMISSIONS), members)),
        programs=dict(line.split(" ", 1) for line in host.output(PROGRAMS).splitlines() if " " in line),
        link_watchers=_link_watchers(host) if NETLINK in host.commands else None,
        manager_answers=tuple(_own_words(host)),
        problems=(*host.problems, *agent.problems),
    )


def _own_words(host: _Place) -> Iterable[ManagerAnswer]:
    for command, one in host.commands.items():
        if manager_answers.is_one(command):
            try:
                yield ManagerAnswer(command, one.exit_code, manager_answers.kept(command, one.stdout))
            except (ValueError, RecursionError):
                # What a stranger's bundle says there may be anything.
                continue


def _link_watchers(host: _Place) -> tuple[str, ...]:
    words = [line.split(" ", 1) for line in host.output(NETLINK).splitlines()]
    return in_words(frozenset(one[0] for one in words), {one[0]: one[1] for one in words if len(one) == 2})


def _sysctls(text: str, links: tuple[Link, ...]) -> dict[str, str]:
    """Lines ``net/ipv4/ip_forward = 1``; of interfaces that came and went meanwhile nothing is kept."""
    names = {"all", "default", *(link.name for link in links)}
    found = {}
    for line in text.splitlines():
        path, equals, value = line.partition(" = ")
        parts = path.split("/")
        if equals and (len(parts) < 5 or parts[3] in names or not links):
            found[path] = value
    return found


def _engine(host: _Place, container: str) -> DockerEngine | None:
    version = _json(host, DOCKER_VERSION)
    if not isinstance(version, dict):
        one = host.commands.get(DOCKER_VERSION)
        said = one.stderr.strip().splitlines() if one is not None else []
        host.problem("engine", f"docker version: {said[-1] if said else 'it was not recorded'}", one)
        return None
    options = _json(host, DOCKER_INFO)
    networks = [_without_ends(network) for network in _lines(host.output(DOCKER_NETWORKS))]
    inspected = [_without_ends(one) for one in _lines(host.output(DOCKER_CONTAINER))]
    try:
        engine = engine_from_answers(
            version, {"SecurityOptions": options}, networks, inspected[0] if inspected else None
        )
    except (NotAnEngineAnswer, KeyError, TypeError, AttributeError, ValueError) as error:
        host.problem("engine", f"what docker said cannot be read: {type(error).__name__}: {error}")
        return None
    if engine.container is None:
        host.problem("container", f"docker inspect told nothing of {container!r}", host.commands.get(DOCKER_CONTAINER))
    return engine


def _json(host: _Place, command: str) -> Any:
    one = host.commands.get(command)
    if one is None or one.exit_code:
        return None
    try:
        return json.loads(one.stdout)
    except (ValueError, RecursionError):
        return None


def _lines(text: str) -> list[Any]:
    """One JSON value for each line."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError):
            continue
    return found


def _without_ends(value: Any) -> Any:
    """Docker's templates know no last element: the script ends each list with "" and each object with "": null."""
    if isinstance(value, dict):
        return {key: _without_ends(one) for key, one in value.items() if key}
    if isinstance(value, list):
        return [_without_ends(one) for one in value if one != ""]
    return value


def _files(permissions: str, members: Mapping[str, bytes]) -> Iterable[HostFile]:
    for line in permissions.splitlines():
        mode, _space, path = line.partition(" ")
        if mode == "absent":
            yield HostFile(path=path, exists=False)
            continue
        content = members.get(FILES + path.lstrip("/"))
        if content is None:
            yield HostFile(path=path, exists=True, error="the script could not read it", mode=_mode(mode))
            continue
        text = content.decode(errors="replace")
        try:
            kept = without_comments(text) if "rt_tables" in path else keep(path, text)
        except (YAMLProblem, ValueError, RecursionError) as error:
            yield HostFile(path=path, exists=True, error=" ".join(str(error).split()), mode=_mode(mode))
        else:
            yield HostFile(path=path, exists=True, text=kept, mode=_mode(mode))


def _mode(words: str) -> int:
    """Permission bits of what ls(1) prints: ``-rwxr-xr-x``."""
    bits = (stat.S_IRUSR, stat.S_IWUSR, stat.S_IXUSR, stat.S_IRGRP, stat.S_IWGRP, stat.S_IXGRP,
            stat.S_IROTH, stat.S_IWOTH, stat.S_IXOTH)  # fmt: skip
    return sum(bit for bit, letter in zip(bits, words[1:10], strict=False) if letter not in "-ST")
