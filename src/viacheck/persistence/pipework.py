"""The lines that run pipework again: after a reboot, when its parent comes up, and when the container starts.

The reader covers rc.local, ifupdown's files and scripts, systemd units with their programs, and cron's tables. Each
line that names pipework gets the occasion on which it runs, or the reason why it never runs for this agent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from viacheck.analysis.pipework_facts import pipework_attach
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.config_entry import Place
from viacheck.model.intent import PipeworkStaticAttach
from viacheck.model.snapshot import HostFile, Snapshot
from viacheck.parsers.comments import LEFT_OUT
from viacheck.parsers.shell import ShellError, first_command
from viacheck.parsers.unit_names import device_unit
from viacheck.persistence import ifupdown
from viacheck.persistence.boot_files import RC_LOCAL, UNIT_FOLDERS, enabling_links
from viacheck.persistence.crontabs import CRON_FOLDERS, CRONTAB
from viacheck.persistence.networkmanager import DISPATCHER_FOLDERS
from viacheck.persistence.pipework_line import BY_DHCP, WITH_VALUE, redact_arguments

Occasion = Literal["reboot", "interface", "restart"]
OCCASIONS: dict[Occasion, str] = {
    "reboot": "a reboot",
    "interface": "a change of the parent",
    "restart": "a restart of the container",
}
_PROGRAM = re.compile(r"(?:\S*/)?pipework(?=\s|$)")
_MENTION = re.compile(r"pipework")
_EVENTS = re.compile(r"\bdocker\s+(?:events|wait)\b")
_GUARD = re.compile(r"(?:\|\||&&|\bthen\b)\s*(?:\S*/)?pipework\b")
_ENGINE_TEST = re.compile(r"\bsystemctl\b[^;|&]*\bis-active\b[^;|&]*\bdocker\b")
_END = re.compile(r"([^;&|<>]*)([;&|<>]*)(.*)", re.DOTALL)
_EXIT = re.compile(r"exit\b")
_UNIT_KEYS = ("ExecStart", "ExecStartPost", "WantedBy", "RequiredBy", "BindsTo", "PartOf", "After", "Restart")


@dataclass(frozen=True, slots=True)
class Rerun:
    """A line that runs pipework again."""

    occasion: Occasion
    place: Place
    repeats: bool
    """It may run while the agent's interface exists."""
    guarded: bool
    """It runs only after a test on the same line."""
    hook: bool = False
    """It is an option of ifupdown, which has a shell of its own and runs at boot too."""
    asks_if_engine_runs: bool = False
    """It does nothing while the engine does not run."""


@dataclass(slots=True)
class Reruns:
    """All lines that name pipework."""

    effective: list[Rerun] = field(default_factory=list)
    ineffective: list[tuple[Place, str]] = field(default_factory=list)
    """The lines that never run it for this agent, each with the reason."""

    @property
    def missing(self) -> tuple[Occasion, ...]:
        """The occasions on which nothing runs it."""
        covered = {rerun.occasion for rerun in self.effective}
        return tuple(occasion for occasion in OCCASIONS if occasion not in covered)

    @property
    def not_idempotent(self) -> list[Rerun]:
        """The lines that may run it while its interface exists, which fails and leaves an interface behind."""
        return [rerun for rerun in self.effective if rerun.repeats and not rerun.guarded]


def redact_to_pipework_lines(path: str, text: str) -> str:
    """Return the lines about pipework of a unit, a program or a crontab; every line keeps its number."""
    redact = _redact_unit_line if path.endswith(".service") else _redact_script_line
    return "\n".join(redact(line) for line in text.split("\n"))


def _redact_unit_line(line: str) -> str:
    bare = line.strip()
    if re.fullmatch(r"\[[\w ]+\]", bare):
        return bare
    key, equals, value = bare.partition("=")
    if not equals or key.strip() not in _UNIT_KEYS:
        return ""
    if not key.startswith("Exec"):
        return bare
    if _PROGRAM.search(value):
        return f"{key}={_redact_script_line(value)}"
    if _MENTION.search(value):
        # A program of another name that runs pipework with its own arguments: pipework-watch eth0 te-agent dhclient.
        program, space, arguments = value.strip().partition(" ")
        return f"{key}={program}{space}{redact_arguments(arguments)}"
    return f"{key}={value.split()[0] if value.split() else ''} …"


def _redact_script_line(line: str) -> str:
    if line.strip().startswith("#") or not (_MENTION.search(line) or _EVENTS.search(line)):
        return ""
    events = "docker events … " if _EVENTS.search(line) else ""
    if not _MENTION.search(line):
        return events.rstrip()
    # The commands before and after pipework may hold secrets; only the test before it matters.
    program = _PROGRAM.search(line)
    if program is None:
        return f"{events}{LEFT_OUT}"
    before = line[: program.start()]
    asked = re.search(r"(\|\||&&|\bthen\b)\s*\S*$", before)
    schedule = re.match(r"\s*(@\w+|(?:[\d*/,-]+\s+){5})", line)
    lead = events + (f"{schedule[1].strip()} " if schedule is not None else "")
    arguments, operator, _after = _END.match(line[program.end() :]).groups()  # type: ignore[union-attr]
    command = f"{program[0]}{redact_arguments(arguments)}{f'{operator} {LEFT_OUT}' if operator else ''}".rstrip()
    return f"{lead}{f'{LEFT_OUT} {asked[1]} ' if asked else ''}{command}"


def programs_of(unit: HostFile) -> Iterator[str]:
    """Return the programs that a unit runs, by absolute path."""
    for _place, _key, arguments in _unit_commands(unit):
        if arguments and arguments[0].startswith("/"):
            yield arguments[0]


def reruns(snapshot: Snapshot, parent: str, container: str | None, address: str | None) -> Reruns:
    """Find the lines that run pipework for an agent.

    Args:
        snapshot: of the host, with its files.
        parent: the interface that pipework must get.
        container: the name that it must get; None for an agent that is not a container and has many names.
        address: the address with prefix length that it must get; None for a lease.
    """
    result = Reruns()
    wanted = _Wanted(parent, container, address)
    files = [file for file in snapshot.files if file.exists and file.error is None]
    _rc_local(snapshot.file(RC_LOCAL), wanted, result)
    _interfaces(files, wanted, result)
    _units(files, wanted, result)
    for file in files:
        if file.path == CRONTAB or file.path.rpartition("/")[0] in CRON_FOLDERS:
            _crontab(file, wanted, result)
    return result


def runs_again(snapshot: Snapshot) -> bool:
    """Return whether a file of the host runs pipework, for this agent or another."""
    lines = reruns(snapshot, "", None, None)
    return bool(lines.effective or lines.ineffective)


def reruns_of(resolved: ResolvedIntent) -> Reruns:
    """Find what runs pipework for the agent of an intent, which pipework must attach."""
    attach = pipework_attach(resolved)
    assert attach is not None
    address = str(attach.address) if isinstance(attach, PipeworkStaticAttach) else None
    return reruns(resolved.snapshot, attach.parent, resolved.intent.agent.container, address)


@dataclass(frozen=True, slots=True)
class _Wanted:
    parent: str
    container: str | None
    address: str | None

    def objection(self, arguments: Sequence[str]) -> str | None:
        """Return why pipework with these arguments does not attach this agent as intended; None when it does."""
        plain: list[str] = []
        waiting = list(arguments)
        while waiting:
            word = waiting.pop(0)
            if word in WITH_VALUE:
                del waiting[:1]
            elif not word.startswith("-"):
                plain.append(word)
        if any("$" in word for word in plain):
            return None
        if len(plain) < 3:
            return "it lacks the interface, the container or the address"
        parent, container, address = plain[:3]
        if parent != self.parent:
            return f"it attaches to {parent}, not to {self.parent}"
        if self.container is not None and container != self.container:
            return f"it attaches {container}, not {self.container}"
        leased = address.partition(":")[0] in BY_DHCP
        if self.address is None:
            return None if leased else f"it gives the address {address}, where a lease is intended"
        if leased or address.partition("@")[0] != self.address:
            return f"it gives {address}, not {self.address}"
        return None


def arguments_of(text: str) -> list[str] | None:
    """Return the arguments of ``pipework`` in a line of shell; None where the line does not run it."""
    program = _PROGRAM.search(text)
    if program is None:
        return None
    try:
        return first_command(text[program.end() :])
    except ShellError:
        # A quote that began before pipework ends behind it: sh -c "… || pipework …".
        return re.split(r"[;&|>]", text[program.end() :])[0].rstrip("\"' ").split()


def _add(
    text: str,
    place: Place,
    occasions: Sequence[Occasion],
    wanted: _Wanted,
    result: Reruns,
    *,
    repeats: bool,
    hook: bool = False,
) -> None:
    arguments = arguments_of(text)
    if arguments is None:
        return
    objection = wanted.objection(arguments)
    if objection is not None:
        result.ineffective.append((place, objection))
        return
    guarded, asks = _GUARD.search(text) is not None, _ENGINE_TEST.search(text) is not None
    result.effective += [Rerun(occasion, place, repeats, guarded, hook, asks) for occasion in occasions]


def _rc_local(file: HostFile | None, wanted: _Wanted, result: Reruns) -> None:
    if file is None or not file.exists:
        return
    ended = False
    for number, line in enumerate(file.text.split("\n"), 1):
        if arguments_of(line) is None or line.lstrip().startswith("#"):
            ended = ended or _EXIT.match(line) is not None
            continue
        place = Place(file.path, number, line.strip())
        if ended:
            result.ineffective.append((place, "it stands after 'exit', so it never runs"))
        elif not file.mode & 0o111:
            result.ineffective.append((place, "the file is not executable, so it never runs"))
        else:
            _add(line, place, ["reboot"], wanted, result, repeats=False)


def _interfaces(files: Sequence[HostFile], wanted: _Wanted, result: Reruns) -> None:
    paths = [file.path for file in files]
    by_path = {file.path: file for file in files}
    waiting, seen = [ifupdown.INTERFACES], set[str]()
    while waiting:
        file = by_path.get(waiting.pop(0))
        if file is None or file.path in seen:
            continue
        seen.add(file.path)
        for _line, pattern, folder in ifupdown.sources(file):
            waiting += ifupdown.sourced(pattern, folder, paths)
        for place, interface, text in _hooks(file):
            if arguments_of(text) is not None and interface != wanted.parent:
                result.ineffective.append((place, f"it runs when {interface} comes up, not {wanted.parent}"))
            else:
                _add(text, place, ["interface"], wanted, result, repeats=True, hook=True)
    for file in files:
        if file.path.rpartition("/")[0] in (*_UP_FOLDERS, *DISPATCHER_FOLDERS) and file.mode & 0o111:
            for number, line in enumerate(file.text.split("\n"), 1):
                _add(line, Place(file.path, number, line.strip()), ["interface"], wanted, result, repeats=True)


_UP_FOLDERS = tuple(folder for folder, phase in ifupdown.SCRIPT_FOLDERS.items() if phase == "up")


def _hooks(file: HostFile) -> Iterator[tuple[Place, str, str]]:
    """Return the commands that run when an interface comes up, with the interface."""
    interface: str | None = None
    for line in ifupdown.logical_lines(file.text):
        word, *rest = line.text.split(None, 1)
        if ifupdown.keyword(line) is not None:
            interface = rest[0].split()[0] if word == "iface" and rest else None
        elif interface is not None and rest and ifupdown.HOOKS.get(word) == "up":
            yield Place(file.path, line.number, line.raw.strip("\n")), interface, rest[0]


def _unit_commands(unit: HostFile) -> Iterator[tuple[Place, str, list[str]]]:
    for number, line in enumerate(unit.text.split("\n"), 1):
        key, equals, value = line.partition("=")
        if equals and key in ("ExecStart", "ExecStartPost"):
            # '-', '+', '!' and '@' before a program's name are modifiers (systemd.service(5)).
            yield Place(unit.path, number, line.strip()), key, value.strip().lstrip("-+!:@").split()


def _units(files: Sequence[HostFile], wanted: _Wanted, result: Reruns) -> None:
    paths = {file.path for file in files}
    by_path = {file.path: file for file in files}
    for unit in files:
        folder, _slash, name = unit.path.rpartition("/")
        if folder not in UNIT_FOLDERS or not name.endswith(".service"):
            continue
        wants = {path.rpartition("/")[0].rpartition("/")[2] for path in enabling_links(name, paths)}
        timer = name.removesuffix(".service") + ".timer"
        timed = any(path.endswith(f".wants/{timer}") for path in paths)
        for place, key, arguments in _unit_commands(unit):
            program = by_path.get(arguments[0]) if arguments else None
            written = [line for line in program.text.split("\n") if arguments_of(line)] if program is not None else []
            if not written and not _MENTION.search(" ".join(arguments)):
                continue
            if program is not None and not program.mode & 0o111:
                result.ineffective.append((place, f"{arguments[0]} is not executable"))
                continue
            lines = [line for line in written if "$" not in line]
            if not lines:
                # A program that passes its own arguments on: pipework "$@".
                own = arguments_of(" ".join(arguments)) is not None
                lines = [" ".join(arguments) if own else f"pipework {' '.join(arguments[1:])}"]
            if not wants and not timed:
                result.ineffective.append((place, "the unit is not enabled"))
                continue
            occasions, repeats = _occasions(unit, key, program, wants, wanted.parent, timed)
            for line in lines:
                _add(line, place, occasions, wanted, result, repeats=repeats)


def _occasions(
    unit: HostFile, key: str, program: HostFile | None, wants: set[str], parent: str, timed: bool
) -> tuple[list[Occasion], bool]:
    """Return when a unit runs its command, and whether the agent's interface may exist then."""
    if timed:
        return ["reboot", "interface", "restart"], True
    watches = program is not None and _EVENTS.search(program.text) is not None
    if watches or _EVENTS.search(unit.text):
        return ["restart"], False
    device = f"{device_unit(parent)}.wants"
    if wants == {device}:
        return ["interface"], True
    runs_container = key == "ExecStartPost" and re.search(r"^Restart=(always|on-failure|on-success)", unit.text, re.M)
    return (["reboot", "restart"] if runs_container else ["reboot"]), False


def _crontab(file: HostFile, wanted: _Wanted, result: Reruns) -> None:
    for number, line in enumerate(file.text.split("\n"), 1):
        place = Place(file.path, number, line.strip())
        if line.startswith("@reboot"):
            _add(line, place, ["reboot"], wanted, result, repeats=False)
        elif line.strip():
            _add(line, place, ["reboot", "interface", "restart"], wanted, result, repeats=True)
