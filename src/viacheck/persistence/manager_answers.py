"""What the managers of a network say themselves: ifquery(8), networkctl(1) and ``netplan get``.

Who holds an interface at this moment, and what brings it up at boot, they know better than a reader of their files:
where they differ theirs counts, and the difference is told. What they print may hold keys of wireless networks, so it
is reduced to what concerns addressing and routing before it is kept, as their files are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from viacheck.model.config_entry import Place
from viacheck.model.snapshot import HostFile, ManagerAnswer, Snapshot
from viacheck.persistence import ifupdown, netplan, networkd
from viacheck.persistence.allowlist import keep
from viacheck.persistence.manager_config import OWN_NAMES, ManagedLink, Manager, Written
from viacheck.persistence.netplan import YAMLProblem

STATE, AUTO, HOTPLUG = "ifquery --state", "ifquery --list", "ifquery --list --allow=hotplug"
OF_INTERFACE = "ifquery "
NETWORKCTL, NETPLAN = "networkctl --json=short list", "netplan get"
_NETPLAN_FILE = f"{netplan.FOLDERS[0]}/{NETPLAN}.yaml"
_KEPT_OF_LINK = ("Index", "Name", "AdministrativeState", "OperationalState", "NetworkFile")
_NOT_HELD = frozenset({"unmanaged", "pending", "initialized"})
"""networkd's words for a link that is none of its business, or not yet."""


@dataclass(frozen=True, slots=True)
class _Word:
    """What a manager says of one interface; None where it says nothing of it."""

    command: str
    holds: bool | None = None
    """It has brought the interface up, or configures it, at this moment."""
    at_boot: bool | None = None
    """It brings the interface up at boot, or when that appears."""
    knows: bool | None = None
    """Its files name the interface."""
    file: str = ""
    """Which of them it goes by."""


def commands(interface: str) -> dict[Manager, tuple[str, ...]]:
    """The commands that ask each manager about an interface."""
    return {
        "ifupdown": (STATE, AUTO, HOTPLUG, OF_INTERFACE + interface),
        "networkd": (NETWORKCTL,),
        "netplan": (NETPLAN,),
    }


def is_one(command: str) -> bool:
    """Whether a recorded command is one of these."""
    return command in (NETWORKCTL, NETPLAN) or command.startswith(OF_INTERFACE)


def kept(command: str, text: str) -> str:
    """What may be kept of what a command printed."""
    if command == NETWORKCTL:
        links = [{key: link.get(key) for key in _KEPT_OF_LINK} for link in _links(text)]
        return json.dumps({"Interfaces": links}, separators=(",", ":"))
    if command == NETPLAN:
        try:
            return keep(_NETPLAN_FILE, text)
        except YAMLProblem:
            return ""
    if command in (STATE, AUTO, HOTPLUG):
        return "\n".join(line for line in text.splitlines() if re.fullmatch(r"[\w.:-]+(=[\w.:-]+)?", line))
    # The options of one interface, each as "option: value": they go through the same allow-list as in the file.
    options = (line.replace(": ", " ", 1) for line in text.splitlines())
    stanza = "\n".join(("iface it inet manual", *(f"    {option}" for option in options)))
    return keep(ifupdown.INTERFACES, stanza).partition("\n")[2]


def prefer_manager_answers(
    written: dict[Manager, Written], snapshot: Snapshot, interface: str
) -> tuple[dict[Manager, Written], tuple[str, ...]]:
    """Correct what was read of the managers' files by their own words of an interface.

    Returns:
        What counts, and in one sentence each where the words and the reading differ.
    """
    differences: list[str] = []
    heeded = dict(written)
    for manager, word in _words(snapshot, interface):
        mine = heeded[manager]
        differences += _differences(mine, word, interface)
        heeded[manager] = replace(mine, holdings=tuple(_holdings(mine, word, interface)))
    return heeded, tuple(differences)


def of_manager(snapshot: Snapshot, manager: Manager | None, interface: str) -> tuple[ManagerAnswer, ...]:
    """The answers of a manager that concern an interface; of all managers where it is none's."""
    asked = [one for name, several in commands(interface).items() if manager in (name, None) for one in several]
    return tuple(word for word in snapshot.manager_answers if word.command in asked)


def _words(snapshot: Snapshot, interface: str) -> Iterator[tuple[Manager, _Word]]:
    answers = {word.command: word for word in snapshot.manager_answers}
    state = _lines(answers.get(STATE))
    if state is not None:
        yield "ifupdown", _Word(STATE, holds=interface in {line.partition("=")[0] for line in state})
    auto, hotplug = _lines(answers.get(AUTO)), _lines(answers.get(HOTPLUG))
    if auto is not None and hotplug is not None:
        yield "ifupdown", _Word(AUTO, at_boot=interface in (*auto, *hotplug))
    asked = answers.get(OF_INTERFACE + interface)
    if asked is not None:
        yield "ifupdown", _Word(asked.command, knows=asked.exit_code == 0)
    for link in _links(answers[NETWORKCTL].said) if NETWORKCTL in answers else ():
        if link.get("Name") == interface:
            holds = link.get("AdministrativeState") not in _NOT_HELD
            yield "networkd", _Word(NETWORKCTL, holds=holds, file=str(link.get("NetworkFile") or ""))
    merged = answers.get(NETPLAN)
    if merged is not None and merged.exit_code == 0:
        file = HostFile(path=_NETPLAN_FILE, exists=True, text=merged.said)
        yield "netplan", _Word(NETPLAN, knows=netplan.read([file], snapshot.host.links).holding(interface) is not None)


def _differences(mine: Written, word: _Word, interface: str) -> Iterator[str]:
    held = any(one.now for one in mine.holdings if one.interface == interface)
    named = any(not one.now for one in mine.holdings if one.interface == interface)
    stanza = mine.stanza(interface)
    said, otherwise = f"'{word.command}' says that {OWN_NAMES[mine.manager]}", f"{interface}; its files read otherwise"
    if word.holds is not None and word.holds != held:
        yield f"{said} {'manages' if word.holds else 'does not manage'} {otherwise}"
    if word.knows is not None and word.knows != named:
        yield f"{said} {'knows' if word.knows else 'does not know'} {otherwise}"
    if stanza is None:
        return
    if word.at_boot is not None and word.at_boot != stanza.at_boot:
        yield f"{said} {'brings up' if word.at_boot else 'does not bring up'} at boot {otherwise}"
    path = stanza.place.path
    if word.file and networkd.network_name(word.file) != networkd.network_name(path):
        yield f"{said} goes by {word.file} for {interface}; as its files are now it would be {path}"


def _holdings(mine: Written, word: _Word, interface: str) -> Iterator[ManagedLink]:
    held = False
    for holding in mine.holdings:
        if holding.interface != interface:
            yield holding
        elif not holding.now:
            yield holding if word.at_boot is None else replace(holding, at_boot=word.at_boot)
        elif word.holds is not False:
            held = True
            yield holding
    if word.holds and not held:
        yield ManagedLink(interface, Place(word.file or word.command, 1, "its own word"), now=True)


def _lines(word: ManagerAnswer | None) -> list[str] | None:
    return word.said.splitlines() if word is not None and word.exit_code == 0 else None


def _links(text: str) -> list[dict[str, object]]:
    """The links that networkctl tells of; none where it told something else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    links = found.get("Interfaces") if isinstance(found, dict) else None
    return [link for link in links if isinstance(link, dict)] if isinstance(links, list) else []
