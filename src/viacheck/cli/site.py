"""``./viacheck site``: the JSON Schema of the intent file for editors, and a first draft of one for this host.

A draft is made of what the host shows now. That is what is, not what is meant, so each value says in a comment what a
person has to confirm.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from typing import Any, NoReturn

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from viacheck.atomic_file import write_file
from viacheck.host.docker import ContainerMissing, EngineProblem, container_namespace, read_engine
from viacheck.host.namespace import Namespace, NotANamespace
from viacheck.host.snapshot_reader import take_snapshot
from viacheck.model.intent import Intent, IntentError, parse_intent, toml_key, toml_text
from viacheck.model.snapshot import (
    TABLE_MAIN,
    DockerEngine,
    DockerNetwork,
    NetworkState,
    Nexthop,
    Problem,
    Rule,
    Snapshot,
)
from viacheck.parsers.rt_tables import registered

USAGE_ERROR = 4
CORRECT = "CORRECT THIS"
KERNELS_TABLES = (0, 252, 253, 254, 255)


class CannotDraft(Exception):
    """No draft can be made or written; the message is one line for people."""


@dataclass(frozen=True, slots=True)
class Exit:
    """A default route's way out: one uplink with its gateway."""

    interface: str
    gateway: str | None
    table: int
    metric: int


@dataclass(frozen=True, slots=True)
class Attached:
    """How the agent was found to be connected: the lines of [agent.attach], and what follows from them."""

    lines: tuple[str, ...]
    subnet: IPv4Network | None = None
    bridge: str | None = None
    parent: str | None = None
    gateway: str | None = None


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message}\n")


def main(argv: list[str]) -> int:
    """Run ``site`` with the words after it; the return value is the exit status (4: usage, or nothing to draft)."""
    parser = _Arguments(prog="viacheck site", description="The intent file: its schema, and a first draft of one.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="schema|init")
    commands.add_parser("schema", help="print the JSON Schema of site.toml, for editors")
    init = commands.add_parser("init", help="draft a site.toml from what this host shows")
    init.add_argument("-o", "--output", default="site.toml", metavar="FILE", help="where to write it (site.toml)")
    init.add_argument("--force", action="store_true", help="replace the file if it exists")
    agent = init.add_mutually_exclusive_group()
    agent.add_argument("--container", metavar="NAME", help="name or id of the agent's container")
    agent.add_argument("--netns", metavar="PATH", help="the agent's network namespace, such as /proc/123/ns/net")
    words = parser.parse_args(argv)
    if words.command == "schema":
        sys.stdout.write(json.dumps(intent_schema(), indent=2) + "\n")
        return 0
    try:
        if not words.force and os.path.lexists(words.output):
            raise CannotDraft(f"{words.output}: exists; --force replaces it")
        snapshot = _look(words.container, words.netns)
        text = draft(snapshot, container=words.container, netns=words.netns)
        write(words.output, text, replace=words.force)
    except (CannotDraft, NotANamespace) as error:
        sys.stderr.write(f"viacheck site init: {error}\n")
        return USAGE_ERROR
    sys.stderr.write(
        f"viacheck site init: wrote {words.output}; read every line of it, and correct what is not meant\n"
    )
    for mistake in _mistakes(text, words.output):
        sys.stderr.write(f"viacheck site init: still to be corrected: {mistake}\n")
    return 0


class _TomlSchema(GenerateJsonSchema):
    """TOML has no null: what may be left out is left out, not set to nothing."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        if isinstance(made.get("default"), dict):
            made["default"] = {key: value for key, value in made["default"].items() if value is not None}
        return {key: value for key, value in made.items() if key != "default" or value is not None}


def intent_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the intent file."""
    schema = Intent.model_json_schema(by_alias=True, schema_generator=_TomlSchema)
    return {"$schema": _TomlSchema.schema_dialect, **schema, "title": "viacheck site.toml"}


def write(path: str, text: str, *, replace: bool) -> None:
    """Write a file whole or not at all; an existing one stays unless it may be replaced.

    Raises:
        CannotDraft: when it exists and may not be replaced, or cannot be written.
    """
    try:
        write_file(path, text, replace=replace)
    except FileExistsError:
        raise CannotDraft(f"{path}: exists; --force replaces it") from None
    except OSError as error:
        raise CannotDraft(f"{path}: cannot be written: {error.strerror}") from None


def _look(container: str | None, netns: str | None) -> Snapshot:
    """Take the snapshot that a draft is made of, with the agent's namespace where it can be entered."""
    with contextlib.ExitStack() as opened:
        host = Namespace.current()
        opened.callback(host.close)
        agent: Namespace | None = None
        engine: DockerEngine | None = None
        problems: list[Problem] = []
        if netns is not None:
            agent = Namespace.from_path(netns)
        else:
            try:
                engine = read_engine(container=container)
                if engine.container is not None:
                    agent = container_namespace(engine.container.pid, engine.container.name)
            except ContainerMissing as error:
                raise CannotDraft(str(error)) from error
            except EngineProblem as error:
                problems.append(Problem(what="engine", reason=str(error)))
            except NotANamespace as error:
                problems.append(Problem(what="agent", reason=str(error)))
        if agent is not None:
            opened.callback(agent.close)
        snapshot = take_snapshot(host, agent, engine, problems)
    unread = snapshot.problem("routes") or snapshot.problem("rules")
    if unread is not None:
        raise CannotDraft(unread.reason)
    return snapshot


def _mistakes(text: str, path: str) -> list[str]:
    try:
        parse_intent(tomllib.loads(text), source=path)
    except IntentError as error:
        return error.mistakes
    return []


def draft(snapshot: Snapshot, *, container: str | None = None, netns: str | None = None) -> str:
    """Write a draft of site.toml from what a snapshot shows.

    Raises:
        CannotDraft: when no default route shows an uplink.
    """
    exits = default_exits(snapshot.host)
    attached = _attachment(snapshot)
    gateways: dict[str, str] = {}
    for one in exits:
        if one.gateway is not None:
            gateways.setdefault(one.interface, one.gateway)
    if attached.parent and attached.gateway:
        gateways[attached.parent] = attached.gateway
    if not gateways:
        raise CannotDraft(
            "no default route of this host names a gateway, so no uplink is known: bring the uplinks up, "
            "or write the file by hand"
        )
    lines = [
        "# Drafted by `./viacheck site init` from what this host shows now. That is what is, not what is meant:",
        "# read every line, and correct what is not intended.",
        "schema = 1",
        "",
        "[site]",
        f"name = {toml_text(snapshot.hostname or 'this-host')}  # what the report calls this installation",
        "",
        *_agent_lines(snapshot, container, netns),
        "",
        "[agent.attach]",
        *attached.lines,
        "",
        *_uplink_lines(snapshot.host, gateways, exits),
        "",
        *_egress_lines(snapshot, attached, gateways, exits),
    ]
    main = next((one for one in exits if one.table == TABLE_MAIN and one.interface in gateways), None)
    if main is not None:
        lines += [
            "",
            "[host]",
            f"default_exit = {toml_text(main.interface)}  # where the host's own packets must leave",
        ]
    lines += [
        "",
        "[probe]",
        'target = "198.51.100.1"  # any address beyond the uplink; one that answers proves the way back as well',
        'protocols = ["icmp", "udp", "tcp"]',
        "",
    ]
    return "\n".join(lines)


def default_exits(host: NetworkState) -> list[Exit]:
    """Every IPv4 default route's way out: those of the main table first, then by metric."""
    exits = [
        Exit(hop.interface, hop.gateway, route.table, route.metric)
        for route in host.routes
        if route.family == 4 and route.is_default and route.type == "unicast"
        for hop in route.nexthops
        if hop.interface is not None
    ]
    return sorted(exits, key=lambda one: (one.table != TABLE_MAIN, one.metric, one.table))


def _agent_lines(snapshot: Snapshot, container: str | None, netns: str | None) -> Iterator[str]:
    yield "[agent]"
    if netns is not None:
        yield f"netns = {toml_text(netns)}  # the number in /proc/NUMBER changes when the process restarts"
    elif container is not None:
        yield f"container = {toml_text(container)}"
    else:
        yield f'container = "te-agent"  # {CORRECT}: name of the agent\'s container (`docker ps`)'
    for problem in (snapshot.problem("engine"), snapshot.problem("agent")):
        if problem is not None:
            yield f"# What could not be read: {_comment(problem.reason)}"


def _comment(text: str) -> str:
    """Make text from elsewhere fit for a TOML comment: one line, nothing but what can be printed."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _attachment(snapshot: Snapshot) -> Attached:
    """Find out how the agent is connected: by Docker's word, else by its own interface, else by docker0."""
    engine = snapshot.engine
    if engine is not None and engine.container is not None:
        for attachment in engine.container.attachments:
            network = engine.network(attachment.network)
            if network is not None and network.driver in ("bridge", "macvlan"):
                return _on_network(network)
    if snapshot.agent is not None:
        return _on_interface(snapshot.host, snapshot.agent)
    network = engine.network("bridge") if engine is not None else None
    if network is not None:
        return _on_network(network)
    on_docker0 = snapshot.host.addresses_of("docker0")
    return Attached(
        lines=('mode = "nat"', f'network = "bridge"  # {CORRECT}: nothing showed how the agent is connected'),
        subnet=IPv4Network(str(on_docker0[0].network)) if on_docker0 else None,
        bridge="docker0",
    )


def _on_network(network: DockerNetwork) -> Attached:
    pool = next((pool for pool in network.pools if ip_network(pool.subnet).version == 4), None)
    subnet = IPv4Network(pool.subnet) if pool is not None else None
    named = f"network = {toml_text(network.name)}"
    if network.driver == "bridge":
        now = (
            (f"# subnet = {toml_text(pool.subnet)}  # left out, the Docker network is asked each time",) if pool else ()
        )
        return Attached(('mode = "nat"', named, *now), subnet=subnet, bridge=network.bridge)
    lines = ['mode = "macvlan"', named]
    if network.parent is not None:
        lines.append(f"parent = {toml_text(network.parent)}")
    if pool is not None:
        lines.append(f"subnet = {toml_text(pool.subnet)}")
        lines += [f"gateway = {toml_text(pool.gateway)}"] if pool.gateway else []
        lines += [f"ip_range = {toml_text(pool.ip_range)}"] if pool.ip_range else []
    return Attached(tuple(lines), parent=network.parent, gateway=pool.gateway if pool else None)


def _on_interface(host: NetworkState, agent: NetworkState) -> Attached:
    """Read the attachment off the interface that the agent's default route, or else its only address, is on."""
    lines: tuple[str, ...]
    exits = [one for one in default_exits(agent) if one.table == TABLE_MAIN]
    names = [one.interface for one in exits] + [one.interface for one in agent.addresses if one.family == 4]
    name = next((name for name in names if name != "lo"), None)
    link = agent.link(name) if name is not None else None
    addresses = agent.addresses_of(name) if name is not None else ()
    if link is None or not addresses:
        return Attached(('mode = "nat"', f'network = "bridge"  # {CORRECT}: the agent has no address yet'))
    address = addresses[0]
    other_end = host.link_by_index(link.peer_index) if link.peer_index is not None else None
    if link.kind == "macvlan" and other_end is not None:
        parent = f"parent = {toml_text(other_end.name)}"
        gateway = exits[0].gateway if exits else None
        if "dynamic" in address.flags:
            lines = ('mode = "pipework-dhcp"', parent)
        else:
            placed = f'address = "{address.address}/{address.prefixlen}"'
            shown = f'gateway = "{gateway}"' if gateway else f"# {CORRECT}: gateway = (the agent has no default route)"
            lines = ('mode = "pipework-static"', parent, placed, shown)
        return Attached(lines, parent=other_end.name, gateway=gateway)
    lines = ('mode = "nat"', f'subnet = "{address.network}"  # the agent\'s own address is {address.address}')
    bridge = other_end.master if other_end is not None else None
    if bridge is not None:
        lines += (f"bridge = {toml_text(bridge)}",)
    return Attached(lines, subnet=IPv4Network(str(address.network)), bridge=bridge)


def _uplink_lines(host: NetworkState, gateways: dict[str, str], exits: list[Exit]) -> Iterator[str]:
    yield "# Every interface that leads to a physical network."
    for name, gateway in gateways.items():
        tables = sorted({one.table for one in exits if (one.interface, one.gateway) == (name, gateway)}, reverse=True)
        where = " and ".join("main" if table == TABLE_MAIN else str(table) for table in tables)
        yield f"[uplinks.{toml_key(name)}]"
        yield f"gateway = {toml_text(gateway)}" + (f"  # the default route of table {where}" if tables else "")
        for other in sorted({one.gateway for one in exits if one.interface == name and one.gateway} - {gateway}):
            yield f"# {CORRECT}: another default route on it goes by {other}"
        for gateway6 in [hop.gateway for hop in _default_hops6(host) if hop.interface == name and hop.gateway][:1]:
            yield f"gateway6 = {toml_text(gateway6)}"
    for link in host.links:
        physical = link.kind is None and "LOOPBACK" not in link.flags and link.master is None
        if link.name not in gateways and (physical or any(one.interface == link.name for one in exits)):
            yield f"# [uplinks.{toml_key(link.name)}]  # no default route names its gateway; an uplink too?"
            yield "# gateway ="


def _default_hops6(host: NetworkState) -> Iterator[Nexthop]:
    for route in host.routes:
        if route.family == 6 and route.is_default and route.type == "unicast":
            yield from route.nexthops


def _egress_lines(snapshot: Snapshot, attached: Attached, gateways: dict[str, str], exits: list[Exit]) -> Iterator[str]:
    yield "[egress]"
    if attached.parent is not None:
        yield f"uplink = {toml_text(attached.parent)}  # a bridged agent leaves by its parent"
        return
    usable = [one for one in exits if one.interface in gateways]
    first = usable[0].interface if usable else next(iter(gateways))
    rule = _policy_rule(snapshot.host, attached)
    if rule is None:
        yield f"uplink = {toml_text(first)}  # {CORRECT}: no rule picks one for the agent; the host's own way"
        return
    chosen = next((one.interface for one in usable if one.table == rule.table), None)
    if chosen is None:
        yield f"uplink = {toml_text(first)}  # {CORRECT}: table {rule.table} has no default route that would tell"
    else:
        yield f"uplink = {toml_text(chosen)}  # where the agent's packets must leave"
    yield f"table = {rule.table}  # of the rule: {_comment(str(rule))}"
    for entry in registered(snapshot.files):
        if entry.number == rule.table:
            yield f"table_name = {toml_text(entry.name)}"
            break
    yield '# persist = "ifupdown"  # left out: whatever manages the uplink must bring rule and route back'


def _policy_rule(host: NetworkState, attached: Attached) -> Rule | None:
    """Find the first rule that sends the agent's packets to a table of their own."""
    for rule in host.rules_of(4):
        if rule.action != "lookup" or rule.table in KERNELS_TABLES or rule.invert:
            continue
        if rule.source is not None and attached.subnet is not None:
            if IPv4Network(rule.source).overlaps(attached.subnet):
                return rule
        elif rule.iif is not None and rule.iif == attached.bridge:
            return rule
    return None
