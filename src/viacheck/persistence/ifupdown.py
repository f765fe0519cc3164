"""Reads the configuration of ifupdown: /etc/network/interfaces and the files it sources, ifstate, scripts of if-*.d.

The format is that of interfaces(5); where the page is silent, ifupdown 0.8.41 decides: it stops reading a file at a
mistake, and a mistake in the first file makes every ifup fail.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from viacheck.model.config_entry import ConfigEntry, ParseProblem, Phase, Place, TableNumberOf
from viacheck.model.snapshot import HostFile
from viacheck.parsers.glob import glob_matches
from viacheck.parsers.ip_command import entries, ip_commands
from viacheck.parsers.shell import ShellError
from viacheck.persistence.hook_scripts import called_scripts, read_script, read_scripts
from viacheck.persistence.manager_config import ConfigCollector, ManagedLink, ManagerConfig, below

INTERFACES = "/etc/network/interfaces"
LOOPBACK = "lo"
IFSTATE = "/run/network/ifstate"
SCRIPT_FOLDERS: dict[str, Phase] = {
    "/etc/network/if-pre-up.d": "pre-up",
    "/etc/network/if-up.d": "up",
    "/etc/network/if-down.d": "down",
    "/etc/network/if-post-down.d": "post-down",
}
LEASE_HOOKS = "/etc/dhcp/dhclient-exit-hooks.d"
"""Scripts that Debian's dhclient-script sources after each answer of a DHCP server, executable or not
(dhclient-script(8))."""
DEEPEST = 8
"""How deep files may source one another before the reader stops; ifupdown itself has no such limit."""
MOST_READ = 1000
"""How many files are read, a file that is sourced twice counting twice: each level of depth can multiply them."""
MOST_SOURCED = 1 << 19
"""How many characters of sourced files are read, those of a file that is sourced twice counting twice."""
MOST_INHERITED = 12
"""From how many stanzas a stanza may inherit."""
MOST_CALLED = 257
"""From which call on a script that hooks run is not read any more."""
MOST_PATTERNS = 256
"""How many patterns ``auto`` and ``allow-`` lines may name."""
HOOKS: dict[str, Phase] = {
    "pre-up": "pre-up", "up": "up", "post-up": "up", "down": "down", "pre-down": "down", "post-down": "post-down",
}  # fmt: skip
_STOPS_AT_ERROR = re.compile(r"^\s*set\s+-\w*e", re.MULTILINE)
_KEYWORDS = (
    "iface",
    "auto",
    "mapping",
    "source",
    "source-directory",
    "rename",
    "no-auto-down",
    "no-scripts",
    "template",
)


@dataclass(frozen=True, slots=True)
class LogicalLine:
    """A line, joined with the lines that continue it."""

    number: int
    """The number of its first line, from 1."""
    last: int
    text: str
    raw: str
    """The text in the file, line ends included."""


@dataclass(slots=True)
class _Stanza:
    """An iface stanza while it is read."""

    place: Place
    interface: str
    family: str
    method: str
    inherits: str | None
    last_line: int
    hooks: list[tuple[Place, Phase, str]] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)

    @property
    def addresses(self) -> tuple[str, ...] | None:
        """The fixed address in CIDR form; None for another method, and where other options or stanzas add to it."""
        if self.method != "static" or self.family != "inet" or self.inherits or "pointopoint" in self.options:
            return None
        address, netmask = self.options.get("address"), self.options.get("netmask")
        if address is None:
            return ()
        return (address if "/" in address or netmask is None else f"{address}/{netmask}",)


def logical_lines(text: str) -> Iterator[LogicalLine]:
    """Return the lines without comments and blank lines; a backslash at the end joins a line with the next."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        first = at
        if lines[at].lstrip().startswith("#") or not lines[at].strip():
            at += 1
            continue
        joined = lines[at]
        while joined.endswith("\\") and at + 1 < len(lines):
            at += 1
            joined = joined[:-1] + lines[at]
        raw = "\n".join(lines[first : at + 1])
        if joined.strip():
            yield LogicalLine(first + 1, at + 1, joined.strip(), raw)
        at += 1


def keyword(line: LogicalLine) -> str | None:
    """Return the keyword that begins a stanza; None for an option inside a stanza."""
    word = line.text.split(None, 1)[0]
    return word if word in _KEYWORDS or word.startswith("allow-") else None


def sources(file: HostFile) -> list[tuple[int, str, bool]]:
    """Return the files that a file sources: line, absolute pattern, and whether the pattern names folders."""
    return [
        (line.number, pattern, folder)
        for line in logical_lines(file.text)
        for pattern, folder in _sources_of_line(file.path, line)
    ]


def _sources_of_line(path: str, line: LogicalLine) -> Iterator[tuple[str, bool]]:
    word, _space, rest = line.text.partition(" ")
    if word in ("source", "source-directory"):
        for pattern in rest.split():
            absolute = pattern if pattern.startswith("/") else f"{path.rpartition('/')[0]}/{pattern}"
            yield absolute, word == "source-directory"


def sourced(pattern: str, folder: bool, paths: Sequence[str]) -> list[str]:
    """Return the paths that a ``source`` or ``source-directory`` line reads, in their order."""
    wanted = pattern.rstrip("/").split("/") + (["*"] if folder else [])
    matching = []
    for path in sorted(paths):
        parts = path.split("/")
        hidden = any(
            part.startswith(".") and not want.startswith(".") for part, want in zip(parts, wanted, strict=False)
        )
        if len(parts) == len(wanted) and not hidden and all(map(glob_matches, parts, wanted)):
            if folder and not re.fullmatch(r"[a-zA-Z0-9_-]+", parts[-1]):
                continue
            matching.append(path)
    return matching


class _InterfacesReader:
    """Reads /etc/network/interfaces and every file that it sources."""

    def __init__(self, files: Sequence[HostFile], collector: ConfigCollector) -> None:
        self.files = {file.path: file for file in files if file.exists}
        self.collector = collector
        self.stanzas: list[_Stanza] = []
        self._started = {LOOPBACK}
        """The names in ``auto`` and ``allow-`` lines."""
        self._patterns: list[str] = []
        """The patterns there."""
        self._files_read = 0
        self._sourced = 0

    def read(self, path: str, above: tuple[str, ...] = ()) -> None:
        file = self.files[path]
        if not self.collector.readable(file):
            return None
        current: _Stanza | None = None
        for line in logical_lines(file.text):
            place = Place(path, line.number, " ".join(line.text.split()))
            word, *rest = line.text.split(None, 1)
            values = rest[0].split() if rest else []
            if keyword(line) is None:
                if current is None and not self._in_mapping:
                    return self._mistake(place, f"'{word}' stands outside every stanza", refused=True)
                if not values:
                    return self._mistake(place, f"'{word}' has no value", refused=True)
                if current is not None:
                    current.last_line = line.last
                    if word in HOOKS:
                        current.hooks.append((place, HOOKS[word], rest[0]))
                    else:
                        current.options[word] = rest[0]
                continue
            current, self._in_mapping = None, word == "mapping"
            if word == "iface":
                current = self._iface(place, values, line.last)
                if current is None:
                    return None
            elif word == "auto" or word.startswith("allow-"):
                self._start(place, values)
            elif word in ("source", "source-directory"):
                self._follow(place, file, line, (*above, path))
        return None

    _in_mapping = False

    def _start(self, place: Place, names: Sequence[str]) -> None:
        for name in names:
            bare = name.partition("=")[0].lstrip("/")
            if not name.startswith("/"):
                self._started.add(bare)
            elif len(self._patterns) < MOST_PATTERNS:
                self._patterns.append(bare)
            else:
                self._mistake(place, f"more than {MOST_PATTERNS} patterns name interfaces to start")
                break

    def _follow(self, place: Place, file: HostFile, line: LogicalLine, above: tuple[str, ...]) -> None:
        for pattern, folder in _sources_of_line(file.path, line):
            for path in sourced(pattern, folder, list(self.files)):
                if path in above:
                    self._mistake(place, f"{path} sources itself: {' -> '.join((*above[above.index(path) :], path))}")
                elif len(above) > DEEPEST:
                    self._mistake(place, f"more than {DEEPEST} files source one another")
                elif self._files_read >= MOST_READ or self._sourced > MOST_SOURCED:
                    self._too_many(place)
                else:
                    self._files_read += 1
                    self._sourced += len(self.files[path].text)
                    self.read(path, above)

    def _too_many(self, place: Place) -> None:
        # Said once: thousands of lines may do it.
        if self._files_read <= MOST_READ:
            self._files_read = MOST_READ + 1
            self._mistake(place, f"more than {MOST_READ} files, or {MOST_SOURCED} characters of them, are sourced")

    def _iface(self, place: Place, values: list[str], last: int) -> _Stanza | None:
        if not values:
            self._mistake(place, "iface without a name", refused=True)
            return None
        inherits = values[values.index("inherits") + 1] if "inherits" in values[:-1] else None
        plain = values[: values.index("inherits")] if inherits else values
        if len(plain) < 3 and inherits is None:
            self._mistake(place, f"iface {values[0]} has no family and method", refused=True)
            return None
        family, method = (*plain[1:3], "", "")[:2]
        stanza = _Stanza(place, values[0], family, method, inherits, last)
        self.stanzas.append(stanza)
        return stanza

    def _mistake(self, place: Place, reason: str, *, refused: bool = False) -> None:
        """Add a problem; ``refused``: ifupdown reads the file no further."""
        end = "; the file is read no further" if refused else ""
        self.collector.problems.append(ParseProblem(place.path, place.line, f"{reason}{end}", refused))

    def starts(self, interface: str) -> bool:
        """Whether an interface comes up at boot: ``ifup -a`` does so with the loopback, whatever the lines say."""
        return interface in self._started or any(glob_matches(interface, pattern) for pattern in self._patterns)


def read(files: Sequence[HostFile], table_number: TableNumberOf) -> ManagerConfig:
    """Read the configuration of ifupdown.

    Args:
        files: the host's files; those of other managers are ignored.
        table_number: the number of a table's name, as iproute2 knows it.
    """
    collector = ConfigCollector("ifupdown")
    reader = _InterfacesReader(files, collector)
    if INTERFACES in reader.files:
        reader.read(INTERFACES)
    _ifstate(files, collector)
    for stanza in reader.stanzas:
        collector.links.append(
            ManagedLink(
                stanza.interface,
                stanza.place,
                at_boot=reader.starts(stanza.interface),
                method=stanza.method,
                addresses=stanza.addresses,
            )
        )
    collector.entries += _in_running_order(reader.stanzas, collector, table_number, reader.files)
    for folder, phase in SCRIPT_FOLDERS.items():
        named = [file for file in below(files, folder) if re.fullmatch(r"[a-zA-Z0-9_-]+", file.path.rpartition("/")[2])]
        read_scripts(sorted(named, key=lambda file: file.path), files, collector, phase, table_number)
    if any(stanza.method == "dhcp" for stanza in reader.stanzas):
        for script in sorted(below(files, LEASE_HOOKS), key=lambda file: file.path):
            read_script(script, collector, "up", table_number, sourced=True)
    return collector.config()


def _ifstate(files: Sequence[HostFile], collector: ConfigCollector) -> None:
    state = next((file for file in files if file.path == IFSTATE), None)
    if state is None or not collector.readable(state):
        return
    for number, line in enumerate(state.text.splitlines(), 1):
        physical = line.partition("=")[0].strip()
        if physical:
            collector.links.append(ManagedLink(physical, Place(IFSTATE, number, line.strip()), active=True))


def _in_running_order(
    stanzas: list[_Stanza], collector: ConfigCollector, table_number: TableNumberOf, files: Mapping[str, HostFile]
) -> list[ConfigEntry]:
    by_name = {stanza.interface: stanza for stanza in reversed(stanzas)}
    in_order: list[ConfigEntry] = []
    calls = Counter[str]()
    scripts: dict[tuple[str, Phase], ConfigCollector] = {}
    for stanza in stanzas:
        hooks = list(stanza.hooks)
        parent, seen = stanza.inherits, {stanza.interface}
        while parent in by_name and parent not in seen:
            if len(seen) > MOST_INHERITED:
                reason = f"it inherits from more than {MOST_INHERITED} stanzas"
                collector.problems.append(ParseProblem(stanza.place.path, stanza.place.line, reason))
                break
            seen.add(parent)
            hooks = [*by_name[parent].hooks, *hooks]
            parent = by_name[parent].inherits
        order: tuple[Phase, ...] = ("pre-up", "up", "down", "post-down")
        for place, phase, text in sorted(hooks, key=lambda hook: order.index(hook[1])):
            names = {"IFACE": stanza.interface, "LOGICAL": stanza.interface, "METHOD": stanza.method}
            try:
                in_order += entries(ip_commands(text, names), place, stanza.interface, phase, table_number)
            except ShellError as error:
                collector.problems.append(ParseProblem(place.path, place.line, str(error)))
            for path in called_scripts(text):
                calls[path] += 1
                if calls[path] == MOST_CALLED:
                    reason = f"{path} is run by more than {MOST_CALLED - 1} lines"
                    collector.problems.append(ParseProblem(place.path, place.line, reason))
                if path in files and calls[path] < MOST_CALLED:
                    if (path, phase) not in scripts:
                        called = scripts[path, phase] = ConfigCollector("ifupdown")
                        read_script(files[path], called, phase, table_number)
                        collector.problems += called.problems
                    in_order += _of_script(files[path], scripts[path, phase].entries, stanza.interface)
    return in_order


def _of_script(script: HostFile, written: Sequence[ConfigEntry], interface: str) -> Iterator[ConfigEntry]:
    """Yield the entries of a script that a hook runs: without ``-e`` it goes on after a command that fails."""
    goes_on = _STOPS_AT_ERROR.search(script.text) is None
    for number, entry in enumerate(written, 1):
        tolerated = entry.failure_tolerated or (goes_on and number < len(written))
        yield replace(entry, interface=interface, failure_tolerated=tolerated)


def last_line(files: Sequence[HostFile], interface: str) -> Place | None:
    """Return the last line of the first IPv4 stanza of an interface: another line can be inserted behind it."""
    collector = ConfigCollector("ifupdown")
    reader = _InterfacesReader(files, collector)
    if INTERFACES in reader.files:
        reader.read(INTERFACES)
    stanzas = [stanza for stanza in reader.stanzas if stanza.interface == interface]
    stanzas.sort(key=lambda stanza: stanza.family != "inet")
    return Place(stanzas[0].place.path, stanzas[0].last_line) if stanzas else None
