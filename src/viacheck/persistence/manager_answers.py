"""The answers of the network managers themselves: ifquery(8), networkctl(1) and ``netplan get``.

A manager knows better than a reader of its files which interface it manages now and at boot: where the two differ its
answer counts, and the difference is reported. The output may contain keys of wireless networks, so it is reduced to
addressing and routing before it is stored, as the files are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from viacheck.model.config_entry import Place
from viacheck.model.snapshot import HostFile, ManagerAnswer, Snapshot
from viacheck.persistence import ifupdown, netplan, networkd
from viacheck.persistence.allowlist import redact_to_allowlist
from viacheck.persistence.manager_config import OWN_NAMES, ManagedLink, Manager, ManagerConfig
from viacheck.persistence.netplan import YAMLProblem

STATE, AUTO, HOTPLUG = "ifquery --state", "ifquery --list", "ifquery --list --allow=hotplug"
OF_INTERFACE = "ifquery "
NETWORKCTL, NETPLAN = "networkctl --json=short list", "netplan get"
_NETPLAN_FILE = f"{netplan.FOLDERS[0]}/{NETPLAN}.yaml"
_LINK_KEYS = ("Index", "Name", "AdministrativeState", "OperationalState", "NetworkFile")
_UNMANAGED = frozenset({"unmanaged", "pending", "initialized"})
"""networkd's states of a link that it does not manage, or does not manage yet."""


@dataclass(frozen=True, slots=True)
class _LinkAnswer:
    """A manager's answer about one interface; None where the command says nothing about it."""

    command: str
    active: bool | None = None
    """The manager has brought the interface up, or configures it, at this moment."""
    at_boot: bool | None = None
    """The manager brings the interface up at boot, or when it appears."""
    configured: bool | None = None
    """The manager's files name the interface."""
    file: str = ""
    """The file that configures the interface."""


def commands(interface: str) -> dict[Manager, tuple[str, ...]]:
    """Return the commands that ask each manager about an interface."""
    return {
        "ifupdown": (STATE, AUTO, HOTPLUG, OF_INTERFACE + interface),
        "networkd": (NETWORKCTL,),
        "netplan": (NETPLAN,),
    }


def is_manager_command(command: str) -> bool:
    """Whether a recorded command asks a manager."""
    return command in (NETWORKCTL, NETPLAN) or command.startswith(OF_INTERFACE)


def redact_answer(command: str, text: str) -> str:
    """Return the part of a command's output that a snapshot may hold."""
    if command == NETWORKCTL:
        links = [{key: link.get(key) for key in _LINK_KEYS} for link in _networkctl_links(text)]
        return json.dumps({"Interfaces": links}, separators=(",", ":"))
    if command == NETPLAN:
        try:
            return redact_to_allowlist(_NETPLAN_FILE, text)
        except YAMLProblem:
            return ""
    if command in (STATE, AUTO, HOTPLUG):
        return "\n".join(line for line in text.splitlines() if re.fullmatch(r"[\w.:-]+(=[\w.:-]+)?", line))
    # The options of one interface, each as "option: value": the allow-list of the file applies to them.
    options = (line.replace(": ", " ", 1) for line in text.splitlines())
    section = "\n".join(("iface it inet manual", *(f"    {option}" for option in options)))
    return redact_to_allowlist(ifupdown.INTERFACES, section).partition("\n")[2]


def prefer_manager_answers(
    configs: Mapping[Manager, ManagerConfig], snapshot: Snapshot, interface: str
) -> tuple[dict[Manager, ManagerConfig], tuple[str, ...]]:
    """Correct the configuration that the files show by the managers' own answers about an interface.

    Returns:
        The corrected configurations, and the differences between answers and files in one sentence each.
    """
    differences: list[str] = []
    corrected = dict(configs)
    for manager, answer in _link_answers(snapshot, interface):
        config = corrected[manager]
        differences += _differences(config, answer, interface)
        corrected[manager] = replace(config, links=tuple(_corrected_links(config, answer, interface)))
    return corrected, tuple(differences)


def answers_about(snapshot: Snapshot, manager: Manager | None, interface: str) -> tuple[ManagerAnswer, ...]:
    """Return the answers of a manager about an interface; those of all managers for None."""
    asked = [
        command
        for name, manager_commands in commands(interface).items()
        if manager in (name, None)
        for command in manager_commands
    ]
    return tuple(answer for answer in snapshot.manager_answers if answer.command in asked)


def _link_answers(snapshot: Snapshot, interface: str) -> Iterator[tuple[Manager, _LinkAnswer]]:
    answers = {answer.command: answer for answer in snapshot.manager_answers}
    state = _lines(answers.get(STATE))
    if state is not None:
        yield "ifupdown", _LinkAnswer(STATE, active=interface in {line.partition("=")[0] for line in state})
    auto, hotplug = _lines(answers.get(AUTO)), _lines(answers.get(HOTPLUG))
    if auto is not None and hotplug is not None:
        yield "ifupdown", _LinkAnswer(AUTO, at_boot=interface in (*auto, *hotplug))
    query = answers.get(OF_INTERFACE + interface)
    if query is not None:
        yield "ifupdown", _LinkAnswer(query.command, configured=query.exit_code == 0)
    for link in _networkctl_links(answers[NETWORKCTL].said) if NETWORKCTL in answers else ():
        if link.get("Name") == interface:
            active = link.get("AdministrativeState") not in _UNMANAGED
            yield "networkd", _LinkAnswer(NETWORKCTL, active=active, file=str(link.get("NetworkFile") or ""))
    merged = answers.get(NETPLAN)
    if merged is not None and merged.exit_code == 0:
        file = HostFile(path=_NETPLAN_FILE, exists=True, text=merged.said)
        configured = netplan.read([file], snapshot.host.links).link(interface) is not None
        yield "netplan", _LinkAnswer(NETPLAN, configured=configured)


def _differences(config: ManagerConfig, answer: _LinkAnswer, interface: str) -> Iterator[str]:
    links = [link for link in config.links if link.interface == interface]
    is_active = any(link.active for link in links)
    is_configured = any(not link.active for link in links)
    configured_link = config.configured_link(interface)
    says, otherwise = f"'{answer.command}' says that {OWN_NAMES[config.manager]}", "its files say otherwise"
    if answer.active is not None and answer.active != is_active:
        yield f"{says} {'manages' if answer.active else 'does not manage'} {interface}; {otherwise}"
    if answer.configured is not None and answer.configured != is_configured:
        yield f"{says} {'knows' if answer.configured else 'does not know'} {interface}; {otherwise}"
    if configured_link is None:
        return
    if answer.at_boot is not None and answer.at_boot != configured_link.at_boot:
        yield f"{says} {'brings up' if answer.at_boot else 'does not bring up'} {interface} at boot; {otherwise}"
    path = configured_link.place.path
    if answer.file and networkd.network_name(answer.file) != networkd.network_name(path):
        yield f"{says} uses {answer.file} for {interface}; by its present files it would use {path}"


def _corrected_links(config: ManagerConfig, answer: _LinkAnswer, interface: str) -> Iterator[ManagedLink]:
    has_active = False
    for link in config.links:
        if link.interface != interface:
            yield link
        elif not link.active:
            yield link if answer.at_boot is None else replace(link, at_boot=answer.at_boot)
        elif answer.active is not False:
            has_active = True
            yield link
    if answer.active and not has_active:
        yield ManagedLink(interface, Place(answer.file or answer.command, 1, "its own answer"), active=True)


def _lines(answer: ManagerAnswer | None) -> list[str] | None:
    return answer.said.splitlines() if answer is not None and answer.exit_code == 0 else None


def _networkctl_links(text: str) -> list[dict[str, object]]:
    """Return the links in networkctl's output; none where it is not the JSON that networkctl prints."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return []
    links = parsed.get("Interfaces") if isinstance(parsed, dict) else None
    return [link for link in links if isinstance(link, dict)] if isinstance(links, list) else []
