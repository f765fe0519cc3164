"""``viacheck site``: drafts a site.toml for this host, checks one, or prints its JSON Schema for editors."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from reports.text import escape_unprintable
from viacheck.atomic_file import write_file
from viacheck.cli.command import print_error
from viacheck.host.docker import (
    ContainerMissing,
    EngineProblem,
    RunningContainer,
    container_namespace,
    read_engine,
    running_containers,
)
from viacheck.host.namespace import Namespace, NotANamespace, open_netns
from viacheck.host.outer_host import require_access
from viacheck.host.snapshot_reader import take_snapshot
from viacheck.model.docker_state import DockerEngine
from viacheck.model.exit_status import ExitStatus, UsageError
from viacheck.model.intent_draft import CORRECT, DraftedTarget, draft, own_networks, target_candidates
from viacheck.model.intent_file import IntentError, parse_intent
from viacheck.model.intent_schema import intent_schema
from viacheck.model.site_agents import load_agents, named
from viacheck.model.snapshot import Problem, Snapshot
from viacheck.packets.answering_target import answering_target
from viacheck.parsers.rt_tables import registered
from viacheck.persistence.assess import manager_of, read_all
from viacheck.persistence.pipework import runs_again

LIKE_AN_AGENT = re.compile(r"agent|thousandeyes", re.IGNORECASE)
"""What the name or the image of an agent's container holds."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Define the sub-commands and their options."""
    commands = parser.add_subparsers(dest="site_command", required=True, metavar="schema|init|check")
    commands.add_parser("schema", help="print the JSON Schema of site.toml, for editors").set_defaults(
        run_site=_print_schema
    )
    check = commands.add_parser("check", help="say what is wrong in a site file, or which agents it is about")
    check.set_defaults(run_site=_check)
    check.add_argument("file", nargs="?", type=Path, default=Path("site.toml"), metavar="FILE")
    init = commands.add_parser("init", help="draft a site.toml from what this host shows")
    init.set_defaults(run_site=_init)
    init.add_argument("-o", "--output", default="site.toml", metavar="FILE", help="the draft (default: site.toml)")
    init.add_argument("--force", action="store_true", help="replace the file if it exists")
    agent = init.add_mutually_exclusive_group()
    agent.add_argument(
        "--container", metavar="NAME[,NAME]", help="name or id of the agent's container, or of each of several agents"
    )
    agent.add_argument("--netns", metavar="PATH", help="the agent's network namespace, such as /proc/123/ns/net")


def run(options: argparse.Namespace) -> ExitStatus:
    """Print the schema, write a draft or check a file.

    Raises:
        UsageError: when no draft can be made or written, or with every mistake of the file.
    """
    status: ExitStatus = options.run_site(options)
    return status


def _print_schema(_options: argparse.Namespace) -> ExitStatus:
    sys.stdout.write(json.dumps(intent_schema(), indent=2) + "\n")
    return ExitStatus.OK


def _check(options: argparse.Namespace) -> ExitStatus:
    for name, intent in load_agents(options.file).items():
        agent, table = intent.agent.name, f", table {intent.egress.table}" if intent.policy_routed else ""
        sources = "".join(
            f"; from {source.name} by {source.uplink or intent.egress.uplink}" for source in intent.agent.source
        )
        line = f"{named(str(options.file), name)}: {agent} ({intent.mode}) by {intent.egress.uplink}{table}{sources}"
        sys.stdout.write(escape_unprintable(line) + "\n")
    return ExitStatus.OK


def _init(options: argparse.Namespace) -> ExitStatus:
    path: str = options.output
    if not options.force and os.path.lexists(path):
        raise _exists(path)
    remarks: list[str] = []
    containers = _containers(options.container)
    if not containers and options.netns is None:
        containers = _find_agent(remarks)
    snapshots, target = {}, None
    for name in containers or [""]:
        snapshots[name], answering = _take_snapshot(name or None, options.netns)
        target = target or answering
    snapshot = next(iter(snapshots.values()))
    table_names = {entry.number: entry.name for entry in reversed(registered(snapshot.files))}
    manager = partial(manager_of, read_all(snapshot))
    drafted = draft(
        snapshots, table_names, manager, netns=options.netns, runs_pipework=runs_again(snapshot), target=target
    )
    try:
        write_file(path, drafted.text, replace=options.force)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    reasons = dict.fromkeys(problem.reason for taken in snapshots.values() for problem in taken.problems)
    problems = [f"could not be read: {reason}" for reason in reasons]
    mistakes = [f"to correct: {mistake}" for mistake in _mistakes(drafted.text, path)]
    last = f"wrote {path}; review it" + ("; lines marked CORRECT THIS need you" if CORRECT in drafted.text else "")
    print_error(options.prog, *remarks, *problems, *drafted.remarks, *mistakes, last)
    return ExitStatus.OK


def _containers(option: str | None) -> list[str]:
    """Return the containers that ``--container`` names, each once."""
    names = [name.strip() for name in option.split(",")] if option is not None else []
    if not all(names):
        raise UsageError(f"--container: found {option!r}; it needs a name, or several with a comma between them")
    return list(dict.fromkeys(names))


def _find_agent(remarks: list[str]) -> list[str]:
    """Return the name of the container that must be the agent; none without an engine or a container."""
    try:
        running = running_containers()
    except EngineProblem:
        # The snapshot says why.
        return []
    if not running:
        return []
    container, why = agent_among(running)
    remarks.append(f"the agent is {container.name} (image {container.image}), the only container that {why}")
    return [container.name]


def agent_among(running: Sequence[RunningContainer]) -> tuple[RunningContainer, str]:
    """Return the container that must be the agent, and what it alone does.

    Raises:
        UsageError: several containers may be the agent.
    """
    alike = [container for container in running if LIKE_AN_AGENT.search(f"{container.name} {container.image}")]
    for group, why in ((alike, "looks like an agent"), (running, "runs")):
        if len(group) == 1:
            return group[0], why
    names = ", ".join(f"{container.name} (image {container.image})" for container in alike or running)
    raise UsageError(f"name the agent's container with --container: {names}; of several agents NAME,NAME")


def _exists(path: str) -> UsageError:
    return UsageError(f"{path}: exists; --force replaces it")


def _take_snapshot(container: str | None, netns: str | None) -> tuple[Snapshot, DraftedTarget | None]:
    """Take the snapshot for the draft, with the agent's namespace where it can be opened, and find a probe target."""
    with contextlib.ExitStack() as opened:
        require_access()
        host = Namespace.current()
        opened.callback(host.close)
        agent: Namespace | None = None
        engine: DockerEngine | None = None
        problems: list[Problem] = []
        if netns is not None:
            try:
                path = netns
                agent = Namespace("agent", host.call(lambda: open_netns(path)))
                opened.callback(agent.close)
                agent.call(lambda: None)
            except NotANamespace as error:
                raise UsageError(str(error)) from None
            except PermissionError:
                raise UsageError(f"--netns: {netns}: entering a network namespace needs root") from None
        else:
            try:
                engine = read_engine(container=container)
                if engine.container is not None:
                    agent = container_namespace(engine.container.pid, engine.container.name)
                    opened.callback(agent.close)
            except ContainerMissing as error:
                raise UsageError(str(error)) from error
            except EngineProblem as error:
                problems.append(Problem(what="engine", reason=str(error)))
            except NotANamespace as error:
                problems.append(Problem(what="agent", reason=str(error)))
        snapshot = take_snapshot(host, agent, engine, problems)
        target = _find_target(agent or host, snapshot)
    unread = snapshot.problem("routes") or snapshot.problem("rules")
    if unread is not None:
        raise UsageError(unread.reason)
    return snapshot, target


def _find_target(sender: Namespace, snapshot: Snapshot) -> DraftedTarget | None:
    """Return an address beyond the uplink that answers ping; None if none does, or this process may not ask."""
    candidates = target_candidates(snapshot)
    try:
        answering = answering_target(sender, candidates, own_networks(snapshot))
    except OSError:
        return None
    if answering is None:
        return None
    address, is_router = answering
    who = "the next router beyond the gateway" if is_router else "this address"
    for resolvers, whose in ((snapshot.host_resolvers, "the host's"), (snapshot.resolvers, "the agent's")):
        if str(address) in (resolvers or ()):
            who = f"{whose} resolver"
    return DraftedTarget(address, f"{who} answered ping")


def _mistakes(text: str, path: str) -> list[str]:
    try:
        parse_intent(tomllib.loads(text), source=path)
    except IntentError as error:
        return error.mistakes
    return []
