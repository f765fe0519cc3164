"""Reads the hosts of a fleet from what people have: a list of names, an ssh_config, Ansible's or Nornir's inventory."""

from __future__ import annotations

import configparser
import fnmatch
import glob
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from viacheck.model.exit_status import UsageError
from viacheck.user_file import read_file

LARGEST_INVENTORY = 64 << 20
"""Bytes of an inventory file."""
DEEPEST_GROUP = 32
"""Groups of Ansible's YAML inventory within each other: a group that an alias puts into itself never ends."""
DEEPEST_INCLUDE = 16
"""Files of ssh_config that include each other, as in OpenSSH."""
_ADDRESS = re.compile(r"[A-Za-z0-9_.:%\[\]][A-Za-z0-9_.:%\[\]-]*")
"""What OpenSSH may be given as a destination; a name that begins with a hyphen would be an option."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetHost:
    """A host of the inventory, as OpenSSH reaches it."""

    name: str
    address: str
    """What ssh is given: a name of ssh_config, a DNS name, an address."""
    port: int | None = None
    user: str | None = None
    key_file: str | None = None
    """The private key that the inventory names."""
    groups: tuple[str, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    """The inventory's variables of the host, for a template of site files."""


def read_inventory(path: Path, limit: str | None = None) -> list[FleetHost]:
    """Return the hosts of an inventory, by name.

    Args:
        path: a file. YAML with a key ``inventory`` is a configuration of Nornir, which may name any of its plug-ins. A
            folder, or a program, is Ansible's.
        limit: shell patterns of names or groups, separated by commas; ``!`` in front leaves out what matches.

    Raises:
        UsageError: it cannot be read, a host cannot be addressed, or no host is left.
    """
    hosts = {host.name: host for host in _read(path)}
    for host in hosts.values():
        if not _ADDRESS.fullmatch(host.address) or not host.name.isprintable():
            raise UsageError(f"{path}: {host.name!r}: {host.address!r} is not a name or an address of a host")
        if host.user is not None and (host.user.startswith("-") or not host.user.isprintable()):
            raise UsageError(f"{path}: {host.name!r}: {host.user!r} is not a name of a user")
    chosen = [hosts[name] for name in sorted(hosts) if limit is None or _is_chosen(hosts[name], limit)]
    if not chosen:
        raise UsageError(f"{path}: holds no host" if limit is None else f"--limit: no host of {path} matches {limit!r}")
    return chosen


def _is_chosen(host: FleetHost, limit: str) -> bool:
    patterns = [pattern.strip() for pattern in limit.split(",")]
    without = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    only = [pattern for pattern in patterns if not pattern.startswith("!")]
    return (not only or _matches(host, only)) and not _matches(host, without)


def _matches(host: FleetHost, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (host.name, *host.groups) for pattern in patterns)


def _read(path: Path) -> Iterator[FleetHost]:
    if path.is_dir() or (path.is_file() and os.access(path, os.X_OK)):
        if not _has_ansible():
            kind = "folder" if path.is_dir() else "program"
            raise UsageError(f"{path}: is a {kind}: install ansible-core, whose ansible-inventory reads it")
        return _from_ansible(path)
    text = _text(path)
    if path.suffix in (".yml", ".yaml"):
        return _from_yaml(path, text)
    if re.search(r"^\s*(Host|Include)[\s=]", text, re.MULTILINE | re.IGNORECASE):
        return _from_ssh_config(path, text)
    if re.search(r"^\s*\[", text, re.MULTILINE) and _has_ansible():
        return _from_ansible(path)
    return _from_ini(path, text)


def _text(path: Path) -> str:
    try:
        return read_file(path, LARGEST_INVENTORY).decode()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start})") from None


def _has_ansible() -> bool:
    return shutil.which("ansible-inventory") is not None


def _from_ssh_config(path: Path, text: str, depth: int = 0) -> Iterator[FleetHost]:
    """Yield the names of ssh_config(5) that are no patterns, also those of included files."""
    for number, line in enumerate(text.splitlines(), 1):
        keyword, _, rest = re.sub(r"^\s*(\w+)\s*[\s=]\s*", r"\1 ", line).partition(" ")
        if keyword.lower() not in ("host", "include"):
            continue
        try:
            names = shlex.split(rest, comments=True)
        except ValueError as error:
            raise UsageError(f"{path}:{number}: {error}") from None
        if keyword.lower() == "host":
            yield from (FleetHost(name=name, address=name) for name in names if not set("*?!") & set(name))
        elif depth < DEEPEST_INCLUDE:
            for pattern in names:
                # A relative name is in the user's folder, wherever the including file is.
                for included in sorted(
                    glob.glob(os.path.join(Path("~/.ssh").expanduser(), os.path.expanduser(pattern)))
                ):
                    yield from _from_ssh_config(Path(included), _text(Path(included)), depth + 1)


class _AnyTag(yaml.SafeLoader):
    """Reads YAML with tags of other programs, such as Ansible's ``!vault``, as if their values were empty."""


_AnyTag.add_multi_constructor("!", lambda _loader, _tag, _node: None)


def _from_yaml(path: Path, text: str) -> Iterator[FleetHost]:
    try:
        document = yaml.load(text, _AnyTag)  # noqa: S506 - it is a SafeLoader
    except RecursionError:
        raise UsageError(f"{path}: not YAML of an inventory: its values are nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        # A date such as 2026-13-01 is a ValueError of datetime.
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise UsageError(f"{path}: is not an inventory of Ansible or Nornir")
    if "inventory" in document:
        return _from_nornir_config(path)
    if any(isinstance(group, dict) and {"hosts", "children"} & group.keys() for group in document.values()):
        return _from_ansible(path) if _has_ansible() else _from_ansible_groups(path, document)
    return _from_nornir_hosts(path)


def _from_ansible(path: Path) -> Iterator[FleetHost]:
    """Yield the hosts that ansible-inventory lists, with all its variables merged."""
    argv = ["ansible-inventory", "--inventory", str(path), "--list"]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        errors = done.stderr.split("\n")
        raise UsageError(f"{path}: ansible-inventory: {next(filter(None, map(str.strip, errors)), 'it failed')}")
    listed = json.loads(done.stdout)
    variables = listed.pop("_meta", {}).get("hostvars", {})
    parents: dict[str, list[str]] = {}
    groups: dict[str, list[str]] = {}
    for group, content in listed.items():
        for child in content.get("children", []):
            parents.setdefault(child, []).append(group)
        for name in content.get("hosts", []):
            groups.setdefault(name, []).append(group)
    for name, own_groups in groups.items():
        yield _ansible_host(name, variables.get(name, {}), _with_parents(own_groups, parents))


def _with_parents(groups: list[str], parents: Mapping[str, Sequence[str]]) -> list[str]:
    """Return groups with all groups above them, nearest first."""
    every = list(groups)
    for group in every:
        # The list grows while it is read: a group's parents have parents.
        every += [parent for parent in parents.get(group, ()) if parent not in every]
    return every


def _from_ansible_groups(path: Path, document: Mapping[str, Any]) -> Iterator[FleetHost]:
    """Yield the hosts of Ansible's YAML inventory without ansible-inventory: variables of groups go to their hosts."""
    hosts: dict[str, tuple[dict[str, Any], list[str]]] = {}

    def table(names: tuple[str, ...], content: Any) -> dict[Any, Any]:
        if content is not None and not isinstance(content, dict):
            raise UsageError(f"{path}: {'.'.join(names)}: is not a mapping")
        return content or {}

    def visit(names: tuple[str, ...], group: Any, above: dict[str, Any]) -> None:
        if len(names) > DEEPEST_GROUP:
            raise UsageError(
                f"{path}: {'.'.join(reversed(names[-2:]))}: more than {DEEPEST_GROUP} groups in each other"
            )
        group = group if isinstance(group, dict) else {}
        inherited = above | table((names[0], "vars"), group.get("vars"))
        for host, own in table((names[0], "hosts"), group.get("hosts")).items():
            variables, groups = hosts.setdefault(str(host), ({}, []))
            variables.update(inherited | table((names[0], "hosts", str(host)), own))
            groups += [name for name in names if name not in groups]
        for child, content in table((names[0], "children"), group.get("children")).items():
            visit((str(child), *names), content, inherited)

    for name, group in document.items():
        visit((str(name),), group, {})
    for name, (variables, groups) in hosts.items():
        _refuse_ranges(path, name)
        yield _ansible_host(name, variables, groups)


def _from_ini(path: Path, text: str) -> Iterator[FleetHost]:
    """Yield the hosts of Ansible's INI inventory, of which a list of names is the simplest form."""
    parser = configparser.ConfigParser(
        allow_no_value=True, delimiters=("\0",), comment_prefixes=("#", ";"), interpolation=None, strict=False,
        default_section="\0",
    )  # fmt: skip
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        # An indented line would continue the line before it.
        lines = "\n".join(line.strip() for line in text.splitlines())
        parser.read_string(f"[ungrouped]\n{lines}", source=str(path))
    except configparser.Error as error:
        raise UsageError(f"{path}: {' '.join(str(error).split())}") from None
    hosts: dict[str, tuple[dict[str, str], list[str]]] = {}
    for section in parser.sections():
        if section.endswith((":children", ":vars")):
            continue
        for line in parser.options(section):
            try:
                name, *words = shlex.split(line, comments=True)
            except ValueError as error:
                raise UsageError(f"{path}: {line!r}: {error}") from None
            _refuse_ranges(path, name)
            variables, groups = hosts.setdefault(name, ({}, []))
            groups.append(section)
            variables.update({key: value for key, equals, value in (word.partition("=") for word in words) if equals})
    parents = _ini_parents(parser)
    group_variables = _ini_group_variables(parser)
    for name, (variables, groups) in hosts.items():
        groups = _with_parents(groups, parents)
        inherited: dict[str, str] = {}
        for group in ("all", *reversed(groups)):
            inherited |= group_variables.get(group, {})
        yield _ansible_host(name, inherited | variables, groups)


def _ini_parents(parser: configparser.ConfigParser) -> dict[str, list[str]]:
    """Return the groups that name a group among their children."""
    parents: dict[str, list[str]] = {}
    for section in parser.sections():
        if section.endswith(":children"):
            for child in parser.options(section):
                parents.setdefault(child, []).append(section.removesuffix(":children"))
    return parents


def _ini_group_variables(parser: configparser.ConfigParser) -> dict[str, dict[str, str]]:
    return {
        section.removesuffix(":vars"): {
            key.strip(): value.strip()
            for key, separator, value in (line.partition("=") for line in parser.options(section))
            if separator
        }
        for section in parser.sections()
        if section.endswith(":vars")
    }


def _refuse_ranges(path: Path, name: str) -> None:
    if re.search(r"\[[^\]]*:[^\]]*\]", name):
        raise UsageError(
            f"{path}: {name!r} is a range of hosts: install ansible-core, whose ansible-inventory reads it"
        )


def _ansible_host(name: str, variables: Mapping[str, Any], groups: list[str]) -> FleetHost:
    port = variables.get("ansible_port") or variables.get("ansible_ssh_port")
    user = variables.get("ansible_user") or variables.get("ansible_ssh_user")
    key_file = variables.get("ansible_ssh_private_key_file") or variables.get("ansible_private_key_file")
    address = variables.get("ansible_host") or variables.get("ansible_ssh_host") or name
    return FleetHost(
        name=name,
        address=str(address),
        port=_port(name, port),
        user=None if user is None else str(user),
        key_file=None if key_file is None else os.path.expanduser(str(key_file)),
        groups=tuple(groups),
        variables=variables,
    )


def _port(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if not re.fullmatch("[0-9]{1,5}", str(value)) or not 0 < int(value) < 65536:
        raise UsageError(f"inventory: {name!r}: {value!r} is not a port")
    return int(value)


def _from_nornir_config(path: Path) -> Iterator[FleetHost]:
    from nornir import InitNornir

    try:
        return _nornir_hosts(InitNornir(config_file=str(path), logging={"enabled": False}).inventory)
    except Exception as error:  # a plug-in may raise anything
        raise UsageError(f"{path}: Nornir: {type(error).__name__}: {' '.join(str(error).split())}") from None


def _from_nornir_hosts(path: Path) -> Iterator[FleetHost]:
    from nornir.plugins.inventory import SimpleInventory

    beside = {name: str(path.with_name(f"{name}.yaml")) for name in ("groups", "defaults")}
    try:
        inventory = SimpleInventory(str(path), beside["groups"], beside["defaults"]).load()
    except Exception as error:  # its reader of YAML raises errors of a library that is Nornir's, and not ours
        text = " ".join(str(error).split())
        raise UsageError(f"{path}: is not an inventory of Ansible or Nornir: {text}") from None
    return _nornir_hosts(inventory)


def _nornir_hosts(inventory: Any) -> Iterator[FleetHost]:
    for name, host in inventory.hosts.items():
        yield FleetHost(
            name=str(name),
            address=str(host.hostname or name),
            port=_port(name, host.port),
            user=host.username,
            groups=tuple(group.name for group in host.groups),
            variables=dict(host.items()),
        )
