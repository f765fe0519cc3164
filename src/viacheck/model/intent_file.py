"""Reads site.toml as a whole and reports every mistake at once.

Each mistake is one line with the file, the key, the value found there and what is allowed.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ValidationError

from viacheck.model.exit_status import UsageError
from viacheck.model.intent import MODES, Attach, Intent
from viacheck.model.intent_rules import contradictions
from viacheck.model.intent_values import Allowed
from viacheck.model.toml_text import shortened, shown, toml_key, toml_text
from viacheck.user_file import read_file, special_kind_of

IN_ATTACH = "in [agent.attach]"
AGENTS = "agents"
"""The key of several agents' tables, which :mod:`viacheck.model.site_agents` reads."""
LARGEST_SITE = 1 << 20
"""Bytes of a site file."""


class IntentError(UsageError):
    """The intent cannot be used. ``mistakes`` has one line for each mistake, ready to be shown."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__(*mistakes)
        self.mistakes = mistakes


def load_intent(path: Path) -> Intent:
    """Read and validate a site.toml with one agent.

    Raises:
        IntentError: with every mistake of the file.
    """
    intent = parse_intent(read_document(path), source=str(path))
    refuse_special_file(intent, f"{path}: agent.netns")
    return intent


def read_document(path: Path) -> dict[str, Any]:
    """Read a site file as TOML.

    Raises:
        IntentError: the file cannot be read, or is not TOML.
    """
    text = ""
    try:
        text = read_file(path, LARGEST_SITE).decode()
        return tomllib.loads(text)
    except OSError as error:
        raise IntentError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise IntentError([f"{path}: not UTF-8 text (byte {error.start}); a site file is TOML in UTF-8"]) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise IntentError([f"{path}: not TOML: {error}{_unquoted(text, str(error))}"]) from None


def _unquoted(text: str, error: str) -> str:
    """Return a hint for a line whose value lacks its quotes, the most frequent mistake; else nothing.

    tomllib stops at the first letter of a word, and behind the first two parts of an address.
    """
    number = re.search(r"\(at line (\d+), column \d+\)$", error)
    line = text.split("\n")[int(number[1]) - 1] if number is not None else ""
    unquoted = re.fullmatch(r"\s*([\w-]+)\s*=\s*([A-Za-z0-9/][\w.:/-]*)\s*(?:#.*)?", line)
    return f"; text stands between quotes: {unquoted[1]} = {toml_text(unquoted[2])}" if unquoted is not None else ""


def refuse_special_file(intent: Intent, key: str) -> None:
    """Refuse an agent's namespace that is a pipe or another special file; ``key`` names it in the message.

    Raises:
        IntentError: it is one.
    """
    kind = special_kind_of(intent.agent.netns) if intent.agent.netns is not None else None
    if kind is not None:
        raise IntentError([f"{key}: {intent.agent.netns} is {kind}, not a network namespace"])


def parse_intent(document: dict[str, Any], *, source: str) -> Intent:
    """Validate an intent that is already parsed; a message about a mistake begins with ``source``.

    Raises:
        IntentError: with every mistake of the document.
    """
    if AGENTS in document:
        allowed = "here the file is about one agent: write [agent] and [egress]"
        raise IntentError([f"{source}: {AGENTS}: [agents.NAME] is for several agents; {allowed}"])
    document, unquoted = _with_whole_uplink_names(document)
    try:
        intent = Intent.model_validate(document)
    except ValidationError as error:
        # pydantic looks at the rules between values only when each value is valid by itself; a person wants to see all.
        single = [_mistake(dict(mistake)) for mistake in error.errors() if mistake["loc"]]
        mistakes = [*unquoted, *single, *contradictions(document)]
        raise IntentError([f"{source}: {mistake}" for mistake in mistakes]) from None
    if unquoted:
        raise IntentError([f"{source}: {mistake}" for mistake in unquoted])
    return intent


def _with_whole_uplink_names(document: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Join the names of interfaces that TOML split at a dot, as in ``[uplinks.eth0.40]``, and report each."""
    uplinks = document.get("uplinks")
    if not isinstance(uplinks, dict):
        return document, []
    whole: dict[str, Any] = {}
    mistakes = []
    for name, table in uplinks.items():
        for parts, leaf in _leaves((str(name),), table):
            joined = ".".join(parts)
            whole[joined] = leaf
            if len(parts) > 1:
                written = f"[uplinks.{'.'.join(map(toml_key, parts))}]"
                mistakes.append(
                    f"uplinks.{toml_key(parts[0])}: found {shortened(written)}; the name of an interface with a dot "
                    f"stands between quotes: write [uplinks.{shortened(toml_text(joined))}]"
                )
    return {**document, "uplinks": whole}, mistakes


def _leaves(name: tuple[str, ...], table: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each table that holds no other table, with its name; what a table holds beside others belongs to itself."""
    inner = {key: value for key, value in table.items() if isinstance(value, dict)} if isinstance(table, dict) else {}
    own = {key: value for key, value in table.items() if key not in inner} if inner else table
    if own or not inner:
        yield name, own
    for key, value in inner.items():
        yield from _leaves((*name, str(key)), value)


def _mistake(error: dict[str, Any]) -> str:
    """Return one line for an error of pydantic: the key, the value found there, and what is allowed."""
    path = list(error["loc"])
    mode = path.pop(2) if path[:2] == ["agent", "attach"] and len(path) > 2 else None
    if path[-1] == "[key]":
        path.pop()
    if error["type"] in ("union_tag_not_found", "union_tag_invalid"):
        path.append("mode")
        value = "missing" if error["type"] == "union_tag_not_found" else f"found {shown(error['input']['mode'])}"
        return f"{_dotted(path)}: {value}; allowed: {', '.join(MODES)}"
    if error["type"] == "extra_forbidden":
        known = sorted(_fields(_bare(_type_at(path[:-1], mode), mode)))
        places = _places(str(path[-1]))
        # A key of another mode of [agent.attach] is in the right table.
        if places and not (mode is not None and IN_ATTACH in places):
            return f"{_dotted(path)}: in the wrong place; it belongs {' or '.join(places)}"
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        return (
            f"{_dotted(path)}: unknown key{f', did you mean {near[0]!r}?' if near else ''}; "
            f"allowed here: {', '.join(known)}"
        )
    value = "missing" if error["type"] == "missing" else f"found {shown(error['input'])}"
    if error["type"] == "value_error":
        return f"{_dotted(path)}: {value}; {error['ctx']['error']}"
    allowed = _type_at(path, mode)
    words = [word for word in typing.get_args(_bare(allowed)) if isinstance(word, str)]
    near = difflib.get_close_matches(str(error.get("input")), words, n=1)
    return f"{_dotted(path)}: {value}{f', did you mean {near[0]!r}?' if near else ''}; allowed: {_allowed(allowed)}"


def _places(key: str) -> list[str]:
    """Return where a key of the file belongs; empty for a key that no table has."""
    places = []
    if key in _fields(Intent):
        is_table = _is_part(_bare(_fields(Intent)[key])) or typing.get_origin(_bare(_fields(Intent)[key])) is dict
        places.append(f"under [{key}], a table of its own" if is_table else "at the top of the file, above every table")
    for name, kind in _fields(Intent).items():
        part = _bare(kind)
        header = f"[{name}]"
        if typing.get_origin(part) is dict:
            part, header = _bare(typing.get_args(part)[1]), f"[{name}.NAME]"
        if _is_part(part) and key in _fields(part):
            places.append(f"in {header}")
        if name == "agent" and any(key in _fields(mode) for mode in typing.get_args(typing.get_args(Attach)[0])):
            places.append(IN_ATTACH)
    return places


def _dotted(path: list[str | int]) -> str:
    """Return a key of the file as TOML writes it, and an entry of a list with its number from 1."""
    text = "".join(f"[{step + 1}]" if isinstance(step, int) else f".{shortened(toml_key(step))}" for step in path)
    return text.removeprefix(".")


def _fields(part: type[BaseModel]) -> dict[str, Any]:
    """Return the type of each key of a part, with its annotations."""
    hints = typing.get_type_hints(part, include_extras=True)
    return {field.alias or name: hints[name] for name, field in part.model_fields.items()}


def _type_at(path: list[str | int], mode: str | None) -> Any:
    """Return the type of a key of the file; ``mode`` chooses among the types of [agent.attach]."""
    kind: Any = Intent
    for step in path:
        kind = _bare(kind, mode)
        if _is_part(kind):
            kind = _fields(kind)[str(step)]
        else:
            key_or_item, *value = typing.get_args(kind)
            kind = value[0] if typing.get_origin(kind) is dict else key_or_item
    return kind


def _bare(kind: Any, mode: str | None = None) -> Any:
    """Return a type without annotations and ``| None``; of the types of [agent.attach], the type of that mode."""
    if typing.get_origin(kind) is Annotated:
        return _bare(typing.get_args(kind)[0], mode)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        options = [option for option in typing.get_args(kind) if option is not types.NoneType]
        chosen = [part for part in options if _is_part(part) and mode in typing.get_args(_fields(part)["mode"])]
        return (chosen or options)[0] if mode else _bare(options[0])
    return kind


def _is_part(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _allowed(kind: Any) -> str:
    """Return the text that says what a value of this type may be."""
    notes = [note.text for note in _notes(kind) if isinstance(note, Allowed)]
    bare = _bare(kind)
    if notes:
        return notes[0]
    if typing.get_origin(bare) is Literal:
        return ", ".join(map(str, typing.get_args(bare)))
    if typing.get_origin(bare) is tuple:
        return f"a list of: {_allowed(typing.get_args(bare)[0])}"
    return "a table"


def _notes(kind: Any) -> Iterator[Any]:
    yield from getattr(kind, "__metadata__", ())
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        yield from _notes(typing.get_args(kind)[0])
