"""The site file of each host of a fleet: a file by its name, or a template filled with the inventory's variables."""

from __future__ import annotations

import json
import tomllib
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from viacheck.fleet.inventory import FleetHost
from viacheck.model.exit_status import UsageError
from viacheck.model.intent import Intent
from viacheck.model.intent_file import LARGEST_SITE, IntentError
from viacheck.model.site_agents import parse_agents
from viacheck.user_file import read_file


@dataclass(frozen=True, slots=True)
class HostSite:
    """The site file of a host."""

    text: str
    intents: Mapping[str, Intent]
    """The intent of each agent by its name."""


def site_files(hosts: Sequence[FleetHost], folder: Path | None, template: Path | None) -> Mapping[str, HostSite]:
    """Return the site file of each host, by the host's name.

    Raises:
        UsageError: with every mistake of every file.
    """
    filled = SiteTemplate(template) if template is not None else None
    sites, mistakes = {}, []
    for host in hosts:
        try:
            if filled is not None:
                text, source = filled.text_for(host), f"{template} for {host.name}"
            else:
                assert folder is not None, "a folder or a template is given"
                source = str(folder / f"{host.name}.toml")
                text = _read(Path(source))
            sites[host.name] = HostSite(text, parse_agents(tomllib.loads(text), source=source))
        except IntentError as error:
            mistakes += error.mistakes
        except UsageError as error:
            mistakes += error.lines
        except tomllib.TOMLDecodeError as error:
            mistakes.append(f"{source}: not TOML: {error}")
    if mistakes:
        raise UsageError(*mistakes)
    return sites


class SiteTemplate:
    """A Jinja2 template of a site file, which is filled with the inventory's variables in a sandbox."""

    def __init__(self, path: Path) -> None:
        """Compile the template; what it includes is read from its folder.

        Raises:
            UsageError: it cannot be read, or is no template.
        """
        from jinja2 import FileSystemLoader, StrictUndefined, TemplateSyntaxError
        from jinja2.sandbox import SandboxedEnvironment

        self.path = path
        environment = SandboxedEnvironment(
            loader=FileSystemLoader(path.parent),
            undefined=StrictUndefined,
            autoescape=False,
            keep_trailing_newline=True,
        )
        environment.filters["toml"] = toml_value
        try:
            self._template = environment.from_string(_read(path))
        except TemplateSyntaxError as error:
            raise UsageError(f"{path}:{error.lineno}: {error.message}") from None

    def text_for(self, host: FleetHost) -> str:
        """Return the site file of a host.

        Raises:
            UsageError: a variable is missing, or the template does what cannot be done; one line.
        """
        try:
            return self._template.render({**host.variables, "inventory_hostname": host.name})
        except Exception as error:  # a template may raise anything
            text = " ".join(str(error).split()) or type(error).__name__
            raise UsageError(f"{self.path}{_line_of(error)} for {host.name}: {text}") from None


def _line_of(error: Exception) -> str:
    """Return ``:LINE`` of the template's line that raised an error; Jinja2 puts it into the traceback."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return f":{lines[-1]}" if lines else ""


def toml_value(value: object) -> str:
    """Return a value as TOML writes it: a text, a number, a truth value, or a list of them.

    Raises:
        TypeError: the value is of another kind.
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    # A variable that is not defined raises its own error here, with its name.
    text = str(value)
    if not isinstance(value, str | int | float):
        raise TypeError(f"{text} is not a text, a number, true, false, or a list of them")
    # They are the same in JSON and in TOML.
    return json.dumps(value, ensure_ascii=False)


def _read(path: Path) -> str:
    try:
        return read_file(path, LARGEST_SITE).decode()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start}); a site file is TOML in UTF-8") from None
