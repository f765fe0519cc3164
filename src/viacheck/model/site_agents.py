"""The agents of a site file: ``[agent]`` alone, or a table ``[agents.NAME]`` for each of several on one host.

Each agent gets an intent of its own, of its table and of all that the file says of the host. So every rule, check and
report knows one form, and a mistake in an agent's table is reported by the same lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from viacheck.model.exit_status import UsageError
from viacheck.model.intent import Intent
from viacheck.model.intent_file import AGENTS, IntentError, parse_intent, read_document, refuse_special_file
from viacheck.model.toml_text import shortened, shown, toml_key
from viacheck.model.waivers import unknown_waivers

SOLE_AGENT = ""
"""The name of the agent of a file with ``[agent]``."""
MOST_AGENTS = 64
LONGEST_AGENT_NAME = 32
AGENT_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{LONGEST_AGENT_NAME - 1}}}")
"""A name that can be part of a target's id and of a file's name."""


def load_agents(path: Path) -> dict[str, Intent]:
    """Read and validate a site file; return the intent of each agent by its name.

    Raises:
        IntentError: with every mistake of the file.
    """
    document = read_document(path)
    unknown = [f"{path}: {mistake}" for mistake in unknown_waivers(document)]
    try:
        intents = parse_agents(document, source=str(path))
    except IntentError as error:
        raise IntentError([*error.mistakes, *unknown]) from None
    if unknown:
        raise IntentError(unknown)
    for name, intent in intents.items():
        key = f"{AGENTS}.{name}" if name else "agent"
        refuse_special_file(intent, f"{path}: {key}.netns")
    return intents


def parse_agents(document: dict[str, Any], *, source: str) -> dict[str, Intent]:
    """Validate a site file that is already parsed; return the intent of each agent by its name.

    Raises:
        IntentError: with every mistake of the document; each begins with ``source``.
    """
    if AGENTS not in document:
        return {SOLE_AGENT: parse_intent(document, source=source)}
    tables = document[AGENTS]
    if "agent" in document:
        mistake = "given beside [agent]; allowed: [agent] for one agent, or a table [agents.NAME] for each of several"
        raise IntentError([f"{source}: {AGENTS}: {mistake}"])
    if not isinstance(tables, dict) or not 0 < len(tables) <= MOST_AGENTS:
        allowed = f"1 to {MOST_AGENTS} tables [agents.NAME]"
        raise IntentError([f"{source}: {AGENTS}: found {shown(tables)}; allowed: {allowed}"])
    mistakes = [f"{source}: {mistake}" for mistake in _mistakes_between(document, tables)]
    shared = {key: value for key, value in document.items() if key not in (AGENTS, "egress")}
    intents: dict[str, Intent] = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            mistakes.append(f"{source}: {_key(name)}: found {shown(table)}; allowed: a table")
            continue
        own = {key: value for key, value in table.items() if key != "egress"}
        egress = {"egress": table["egress"]} if "egress" in table else {}
        try:
            intents[name] = parse_intent({**shared, "agent": own, **egress}, source=source)
        except IntentError as error:
            mistakes += [f"{source}: {in_table(name, line.removeprefix(f'{source}: '))}" for line in error.mistakes]
    if mistakes:
        # What is wrong for every agent is wrong once.
        raise IntentError(list(dict.fromkeys(mistakes)))
    return intents


def _mistakes_between(document: dict[str, Any], tables: dict[str, Any]) -> Iterator[str]:
    """Yield the mistakes that no agent's table shows by itself."""
    if "egress" in document:
        yield "egress: in the wrong place; each of several agents has its own table [agents.NAME.egress]"
    seen: dict[tuple[str, str], str] = {}
    for name, table in tables.items():
        if not AGENT_NAME.fullmatch(name):
            yield f"{_key(name)}: the name of an agent is 1 to 32 letters, digits, '_' or '-', a letter or digit first"
        for kind in ("container", "netns"):
            place = table.get(kind) if isinstance(table, dict) else None
            if not isinstance(place, str):
                continue
            if (kind, place) in seen:
                yield f"{_key(name)}.{kind}: {shown(place)} is already that of {_key(seen[kind, place])}"
            seen.setdefault((kind, place), name)


def _key(name: str) -> str:
    return f"{AGENTS}.{shortened(toml_key(name))}"


def in_table(name: str, mistake: str) -> str:
    """Return a mistake of an agent's own intent as one of its table."""
    key = _key(name)
    mistake = re.sub(r"^agent(?=[.:\[])", lambda _: key, mistake)
    mistake = re.sub(r"^egress(?=[.:\[])", lambda _: f"{key}.egress", mistake)
    return in_agents_tables(name, mistake)


def in_agents_tables(name: str, text: str) -> str:
    """Return a text with its tables ``[agent]`` and ``[egress]`` as those of one of several agents."""
    key = _key(name)
    text = re.sub(r"\[agent(?=[.\]])", lambda _: f"[{key}", text)
    return re.sub(r"\[egress(?=[.\]])", lambda _: f"[{key}.egress", text)


def joined(intents: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the document of a site file with these agents; each intent is as :meth:`Intent.as_json` returns it."""
    if SOLE_AGENT in intents:
        return intents[SOLE_AGENT]
    first = next(iter(intents.values()))
    shared = {key: value for key, value in first.items() if key not in ("agent", "egress")}
    return {**shared, AGENTS: {name: {**own["agent"], "egress": own["egress"]} for name, own in intents.items()}}


def named(base: str, agent: str) -> str:
    """Return the name of an agent's target: that of its host, and behind a colon the agent's, if it has one."""
    return f"{base}:{agent}" if agent else base


def agents_chosen(names: Iterable[str], wanted: str | None, source: str) -> list[str]:
    """Return the names of the agents that ``--agent NAME[,NAME]`` chooses; all without the option.

    Raises:
        UsageError: the file has no such agent.
    """
    known = list(names)
    if wanted is None:
        return known
    if known == [SOLE_AGENT]:
        raise UsageError(f"--agent: {source} has one agent; --agent chooses among tables [agents.NAME]")
    chosen = [name.strip() for name in wanted.split(",")]
    for name in chosen:
        if name not in known:
            raise UsageError(f"--agent: {name!r} is not an agent of {source}; allowed: {', '.join(known)}")
    return [name for name in known if name in chosen]


def agent_chosen(names: Iterable[str], wanted: str | None, source: str) -> str:
    """Return the name of the one agent that a command is about.

    Raises:
        UsageError: the file has no such agent, or several.
    """
    chosen = agents_chosen(names, wanted, source)
    if len(chosen) != 1:
        raise UsageError(f"{source} has several agents: choose one by --agent: {', '.join(chosen)}")
    return chosen[0]
