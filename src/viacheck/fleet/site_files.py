"""The site file of each host of a fleet: a file by its name, or a template filled with the inventory's variables."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from viacheck.fleet.inventory import FleetHost
from viacheck.model.exit_status import UsageError
from viacheck.model.intent import Intent
from viacheck.model.intent_file import LARGEST_SITE, IntentError, parse_intent
from viacheck.user_file import read_file


@dataclass(frozen=True, slots=True)
class HostSite:
    """The site file of a host."""

    text: str
    intent: Intent


def site_files(hosts: Sequence[FleetHost], folder: Path | None, template: Path | None) -> Mapping[str, HostSite]:
    """Return the site file of each host, by the host's name.

    Raises:
        UsageError: with every mistake of every file.
    """
    sites, mistakes = {}, []
    for host in hosts:
        try:
            if template is not None:
                text, source = _filled(template, host), f"{template} for {host.name}"
            else:
                assert folder is not None, "a folder or a template is given"
                source = str(folder / f"{host.name}.toml")
                text = _read(Path(source))
            sites[host.name] = HostSite(text, parse_intent(tomllib.loads(text), source=source))
        except IntentError as error:
            mistakes += error.mistakes
        except UsageError as error:
            mistakes += error.lines
        except tomllib.TOMLDecodeError as error:
            mistakes.append(f"{source}: not TOML: {error}")
    if mistakes:
        raise UsageError(*mistakes)
    return sites


def _read(path: Path) -> str:
    try:
        return read_file(path, LARGEST_SITE).decode()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start}); a site file is TOML in UTF-8") from None


def _filled(template: Path, host: FleetHost) -> str:
    """Return the template with the variables of a host; the filter ``toml`` writes any value with its quotes."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    # A string, a number, a list of them or a truth value of JSON is the same in TOML.
    environment.filters["toml"] = lambda value: json.dumps(value, ensure_ascii=False)
    try:
        text: str = environment.from_string(_read(template)).render(**host.variables, inventory_hostname=host.name)
    except TemplateError as error:
        raise UsageError(f"{template} for {host.name}: {error}") from None
    return text
