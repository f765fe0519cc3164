"""``viacheck site``: prints the JSON Schema of site.toml for editors, or drafts a site.toml for this host."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tomllib

from viacheck.atomic_file import write_file
from viacheck.host.docker import ContainerMissing, EngineProblem, container_namespace, read_engine
from viacheck.host.namespace import Namespace, NotANamespace
from viacheck.host.snapshot_reader import take_snapshot
from viacheck.model.exit_status import ExitStatus, UsageError
from viacheck.model.intent_draft import draft
from viacheck.model.intent_file import IntentError, parse_intent
from viacheck.model.intent_schema import intent_schema
from viacheck.model.snapshot import DockerEngine, Problem, Snapshot
from viacheck.parsers.rt_tables import registered


def configure(parser: argparse.ArgumentParser) -> None:
    """Define the two sub-commands and their options."""
    commands = parser.add_subparsers(dest="site_command", required=True, metavar="schema|init")
    commands.add_parser("schema", help="print the JSON Schema of site.toml, for editors").set_defaults(
        run_site=_print_schema
    )
    init = commands.add_parser("init", help="draft a site.toml from what this host shows")
    init.set_defaults(run_site=_init)
    init.add_argument("-o", "--output", default="site.toml", metavar="FILE", help="the draft (default: site.toml)")
    init.add_argument("--force", action="store_true", help="replace the file if it exists")
    agent = init.add_mutually_exclusive_group()
    agent.add_argument("--container", metavar="NAME", help="name or id of the agent's container")
    agent.add_argument("--netns", metavar="PATH", help="the agent's network namespace, such as /proc/123/ns/net")


def run(options: argparse.Namespace) -> ExitStatus:
    """Print the schema or write a draft.

    Raises:
        UsageError: when no draft can be made or written.
    """
    status: ExitStatus = options.run_site(options)
    return status


def _print_schema(_options: argparse.Namespace) -> ExitStatus:
    sys.stdout.write(json.dumps(intent_schema(), indent=2) + "\n")
    return ExitStatus.OK


def _init(options: argparse.Namespace) -> ExitStatus:
    path: str = options.output
    if not options.force and os.path.lexists(path):
        raise _exists(path)
    snapshot = _take_snapshot(options.container, options.netns)
    table_names = {entry.number: entry.name for entry in reversed(registered(snapshot.files))}
    text = draft(snapshot, table_names, container=options.container, netns=options.netns)
    try:
        write_file(path, text, replace=options.force)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    sys.stderr.write(f"{options.prog}: wrote {path}; review it; lines marked CORRECT THIS need you\n")
    for mistake in _mistakes(text, path):
        sys.stderr.write(f"{options.prog}: to correct: {mistake}\n")
    return ExitStatus.OK


def _exists(path: str) -> UsageError:
    return UsageError(f"{path}: exists; --force replaces it")


def _take_snapshot(container: str | None, netns: str | None) -> Snapshot:
    """Take the snapshot for the draft, with the agent's namespace where it can be opened."""
    with contextlib.ExitStack() as opened:
        host = Namespace.current()
        opened.callback(host.close)
        agent: Namespace | None = None
        engine: DockerEngine | None = None
        problems: list[Problem] = []
        if netns is not None:
            try:
                agent = Namespace.from_path(netns)
            except NotANamespace as error:
                raise UsageError(str(error)) from None
        else:
            try:
                engine = read_engine(container=container)
                if engine.container is not None:
                    agent = container_namespace(engine.container.pid, engine.container.name)
            except ContainerMissing as error:
                raise UsageError(str(error)) from error
            except EngineProblem as error:
                problems.append(Problem(what="engine", reason=str(error)))
            except NotANamespace as error:
                problems.append(Problem(what="agent", reason=str(error)))
        if agent is not None:
            opened.callback(agent.close)
        snapshot = take_snapshot(host, agent, engine, problems)
    unread = snapshot.problem("routes") or snapshot.problem("rules")
    if unread is not None:
        raise UsageError(unread.reason)
    return snapshot


def _mistakes(text: str, path: str) -> list[str]:
    try:
        parse_intent(tomllib.loads(text), source=path)
    except IntentError as error:
        return error.mistakes
    return []
