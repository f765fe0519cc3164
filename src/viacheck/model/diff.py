"""The changes between two snapshots of one host, as typed values; their text is made where it is shown.

Values that change by themselves are left out: neighbours, counters, the lifetimes of addresses.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from viacheck.model.address_family import FAMILY_OPTION
from viacheck.model.docker_state import DockerEngine
from viacheck.model.filter_chains import FilterChain, FilterRule
from viacheck.model.namespace_state import Address, Link, NetworkState
from viacheck.model.policy_rule import Rule, rule_text
from viacheck.model.route import Route, route_details
from viacheck.model.snapshot import HostFile, Snapshot

Where = Literal["host", "agent"]


class Subject(StrEnum):
    """The kind of object that a change is about."""

    NAMESPACE = "namespace"
    LINK = "link"
    ADDRESS = "address"
    RULE = "rule"
    ROUTE = "route"
    SYSCTL = "sysctl"
    PACKET_FILTER = "packet filter"
    ENGINE = "engine"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class SysctlValue:
    """A value below /proc/sys."""

    path: str
    value: str


@dataclass(frozen=True, slots=True)
class ChainContent:
    """The policy of a chain, or one of its rules without counters and handle."""

    chain: FilterChain
    """The chain without its rules."""
    rule: FilterRule | None = None
    """None for the chain and its policy."""


@dataclass(frozen=True, slots=True)
class EngineFact:
    """The version of the Docker engine, a network of it, or the agent's container."""

    kind: Literal["version", "network", "container"]
    name: str
    driver: str = ""
    bridge: str | None = None
    pid: int = 0


Changed = Link | Address | Rule | Route | SysctlValue | ChainContent | EngineFact | HostFile | bool
"""What a change is about; for a namespace, whether it can be opened."""


@dataclass(frozen=True, slots=True)
class Change:
    """One object that differs between two snapshots.

    Programs compare ``subject``, ``before`` and ``after``; :meth:`__str__` is for people.
    """

    subject: Subject
    where: Where | None
    """The network namespace; None for the engine and the files of the host."""
    before: Changed | None
    """None when the object is new."""
    after: Changed | None
    """None when the object is gone."""

    @property
    def interfaces(self) -> frozenset[str]:
        """The interfaces that the object belongs to; empty for an object of the whole namespace."""
        names: set[str | None] = set()
        for value in (self.before, self.after):
            match value:
                case Link():
                    names.add(value.name)
                case Address():
                    names.add(value.interface)
                case Route():
                    names |= {hop.interface for hop in value.nexthops}
                case SysctlValue():
                    # net/ipv4/conf/eth0/rp_filter
                    names |= set(value.path.split("/")[3:4])
        return frozenset(name for name in names if name is not None)

    @property
    def heading(self) -> str:
        """The subject with its namespace, as text: ``host route``."""
        path = f" {self.before.path}" if isinstance(self.before, HostFile) else ""
        return f"{self.where} {self.subject}" if self.where else f"{self.subject}{path}"

    def __str__(self) -> str:
        """The change in one line: ``-`` for what is gone, ``+`` for what is new."""
        if self.before is not None and self.after is not None:
            return f"{self.heading}: {value_text(self.before)} -> {value_text(self.after)}"
        sign, value = ("+", self.after) if self.before is None else ("-", self.before)
        return f"{sign} {self.heading}: {value_text(value)}"


def changes(before: Snapshot, after: Snapshot) -> list[Change]:
    """Return every change between two snapshots; of each subject, objects that are gone come before new ones."""
    changed = list(_network(before.host, after.host, "host"))
    if before.agent is not None and after.agent is not None:
        changed += _network(before.agent, after.agent, "agent")
    elif (before.agent is None) != (after.agent is None):
        changed.append(Change(Subject.NAMESPACE, "agent", before.agent is not None, after.agent is not None))
    changed += _difference(Subject.ENGINE, None, _engine(before.engine), _engine(after.engine))
    earlier = {file.path: file for file in before.files}
    changed += [
        Change(Subject.FILE, None, earlier[file.path], file)
        for file in after.files
        if file.path in earlier and earlier[file.path].text != file.text
    ]
    return changed


def network_changes(before: NetworkState, after: NetworkState) -> list[Change]:
    """Return every change between two networking states of one host."""
    return list(_network(before, after, "host"))


def passing_interfaces(changed: Iterable[Change]) -> Set[tuple[Where | None, str]]:
    """Return the interfaces that came or went, each with its network namespace."""
    before: set[tuple[Where | None, str]] = set()
    after: set[tuple[Where | None, str]] = set()
    for change in changed:
        for value, names in ((change.before, before), (change.after, after)):
            if isinstance(value, Link):
                names.add((change.where, value.name))
    return before ^ after


def moving_packets(changed: Iterable[Change], needed: Set[str]) -> list[Change]:
    """Return the changes that may change where packets go.

    Left out are files and the engine, which act through others, and interfaces that came or went with all that is on
    them, as every start of a container makes some.

    Args:
        changed: of :func:`changes`.
        needed: interfaces of the host whose coming and going matters.
    """
    changed = list(changed)
    passing = {(where, name) for where, name in passing_interfaces(changed) if where == "agent" or name not in needed}
    return [
        change
        for change in changed
        if change.subject not in (Subject.ENGINE, Subject.FILE)
        and (change.subject is not Subject.LINK or (change.where == "host" and change.interfaces & needed))
        and not (change.interfaces and all((change.where, name) in passing for name in change.interfaces))
    ]


def _network(before: NetworkState, after: NetworkState, where: Where) -> Iterator[Change]:
    parts: dict[Subject, Callable[[NetworkState], Iterable[Changed]]] = {
        Subject.LINK: lambda state: map(_lasting_link, state.links),
        Subject.ADDRESS: lambda state: map(_lasting_address, state.addresses),
        Subject.RULE: lambda state: state.rules,
        Subject.ROUTE: lambda state: state.routes,
        Subject.SYSCTL: lambda state: (SysctlValue(path, value) for path, value in state.sysctls.items()),
        Subject.PACKET_FILTER: _packet_filter,
    }
    for subject, part in parts.items():
        yield from _difference(subject, where, part(before), part(after))


def _difference(
    subject: Subject, where: Where | None, before: Iterable[Changed], after: Iterable[Changed]
) -> Iterator[Change]:
    before, after = tuple(before), tuple(after)
    # 100,000 routes are compared much sooner than they are counted.
    if before == after:
        return
    old, new = Counter(before), Counter(after)
    yield from (Change(subject, where, value, None) for value in (old - new).elements())
    yield from (Change(subject, where, None, value) for value in (new - old).elements())


def _lasting_link(link: Link) -> Link:
    return Link(
        index=link.index,
        name=link.name,
        flags=tuple(sorted(link.flags)),
        mtu=link.mtu,
        mac=link.mac,
        master=link.master,
    )


def _lasting_address(address: Address) -> Address:
    return Address(
        interface=address.interface, family=address.family, address=address.address, prefixlen=address.prefixlen
    )


def _packet_filter(state: NetworkState) -> Iterator[ChainContent]:
    for chain in state.packet_filter.chains:
        if not chain.rules and chain.policy in (None, "accept"):
            # An empty chain does nothing; iptables leaves an empty chain where a rule was.
            continue
        bare = replace(chain, rules=())
        yield ChainContent(bare)
        for rule in chain.rules:
            yield ChainContent(bare, replace(rule, packets=None, bytes=None, handle=None, text=""))


def _engine(engine: DockerEngine | None) -> Iterator[EngineFact]:
    if engine is None:
        return
    yield EngineFact("version", engine.version)
    for network in engine.networks:
        yield EngineFact("network", network.name, driver=network.driver, bridge=network.bridge)
    if engine.container is not None:
        yield EngineFact("container", engine.container.name, pid=engine.container.pid)


def value_text(value: Changed | None) -> str:
    """Return the text of an object that a change is about."""
    if value is None:
        return "absent"
    return _TEXTS[type(value)](value)


def _link_text(link: Link) -> str:
    flags = ",".join(link.flags)
    of = "".join(
        f" {name} {value}" for name, value in (("mac", link.mac), ("master", link.master)) if value is not None
    )
    # An index that counts for nothing is left out: it is another one after every boot.
    index = f" index {link.index}" if link.index else ""
    return f"{link.name}{index} <{flags}> mtu {link.mtu}{of}"


def _route_text(route: Route) -> str:
    flags = dict.fromkeys(flag for hop in route.nexthops for flag in hop.flags if flag != "onlink")
    return " ".join([f"{FAMILY_OPTION[route.family]}{route_details(route)}", *flags])


def _chain_text(content: ChainContent) -> str:
    chain, rule = content.chain, content.rule
    name = f"{chain.backend} {chain.family} {chain.table} {chain.name}"
    if rule is None:
        return f"{name} policy {chain.policy}" if chain.policy is not None else name
    conditions = [f"{'not ' if match.negated else ''}{match.field} {','.join(match.values)}" for match in rule.matches]
    action = [part for part in (rule.verdict, rule.argument) if part]
    marks = [f"{what} {change}" for what, change in (("mark", rule.set_mark), ("ct mark", rule.set_ctmark)) if change]
    return f"{name}: {' '.join([*conditions, *action, *marks]) or 'a rule without effect'}"


def _engine_text(fact: EngineFact) -> str:
    if fact.kind == "network":
        return f"network {fact.name} {fact.driver}" + (f" on {fact.bridge}" if fact.bridge is not None else "")
    return f"{fact.kind} {fact.name}" + (f", process {fact.pid}" if fact.kind == "container" else "")


def _file_text(file: HostFile) -> str:
    digest = hashlib.sha256(file.text.encode(errors="surrogatepass")).hexdigest()
    return f"text with SHA-256 {digest[:16]}"


_TEXTS: Mapping[type, Callable[[Any], str]] = {
    bool: lambda is_open: "can be opened" if is_open else "cannot be opened",
    Link: _link_text,
    Address: lambda address: f"{address.address}/{address.prefixlen} dev {address.interface}",
    Rule: lambda rule: f"{FAMILY_OPTION[rule.family]}{rule_text(rule)}",
    Route: _route_text,
    SysctlValue: lambda sysctl: f"{sysctl.path} = {sysctl.value}",
    ChainContent: _chain_text,
    EngineFact: _engine_text,
    HostFile: _file_text,
}
