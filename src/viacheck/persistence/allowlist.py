"""The part of a manager's file that a snapshot may hold: addressing and routing, and nothing else.

Network managers store Wi-Fi keys, passwords and scripts with credentials in the same files. Every file passes an
allow-list here before it becomes part of a snapshot. A line that is left out stays as an empty line, so line numbers
do not change. Comments are left out: people put old passwords there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import yaml

from viacheck.parsers.comments import LEFT_OUT
from viacheck.persistence import boot_files, crontabs, hook_scripts, ifupdown, netplan, networkd, networkmanager
from viacheck.persistence.netplan import compose, items, pairs
from viacheck.persistence.pipework_line import PROGRAM, redact_arguments
from viacheck.persistence.plain_words import PLAIN_VALUE, plain_word, word_of_condition

_IFUPDOWN_OPTIONS = frozenset({
    "address", "netmask", "broadcast", "gateway", "metric", "pointopoint", "scope", "mtu", "hwaddress",
    "bridge_ports", "bridge-ports", "vlan-raw-device", "vlan_raw_device", "bond-master", "accept_ra", "autoconf",
})  # fmt: skip
_NETWORKD_KEYS: dict[str, frozenset[str]] = {
    "Match": frozenset({"Name", "MACAddress", "PermanentMACAddress", "Kind", "Type", "Driver", "Path", "Property",
                        "Host", "Virtualization", "OriginalName"}),
    "Link": frozenset({"Unmanaged", "ActivationPolicy"}),
    "Network": frozenset({"DHCP", "Address", "Gateway", "IgnoreCarrierLoss", "ConfigureWithoutCarrier",
                          "KeepConfiguration", "ManageForeignRoutingPolicyRules", "ManageForeignRoutes", "RouteTable"}),
    "Address": frozenset({"Address"}),
    "RoutingPolicyRule": frozenset({
        "From", "To", "Table", "Priority", "FirewallMark", "IncomingInterface", "OutgoingInterface", "SourcePort",
        "DestinationPort", "IPProtocol", "InvertRule", "Family", "User", "SuppressPrefixLength", "TypeOfService",
        "SuppressInterfaceGroup", "Type"}),
    "Route": frozenset({"Gateway", "GatewayOnLink", "Destination", "Source", "Metric", "Scope", "PreferredSource",
                        "Table", "Protocol", "Type"}),
    "DHCPv4": frozenset({"UseRoutes", "UseGateway", "RouteTable", "RouteMetric"}),
}  # fmt: skip
_IP_KEYS = frozenset({"method", "gateway", "route-table", "route-metric", "never-default", "ignore-auto-routes"})
_PROFILE_KEYS: dict[str, frozenset[str]] = {
    "connection": frozenset({"uuid", "type", "interface-name", "autoconnect", "autoconnect-priority"}),
    "match": frozenset({"interface-name"}),
    "ipv4": _IP_KEYS,
    "ipv6": _IP_KEYS,
    "device": frozenset({"managed", "connection-uuid"}),
}
_IP_NUMBERED = re.compile(r"(address(es)?|route|routing-rule)\d*(_options)?")
_NETPLAN_DEVICE = frozenset({
    "renderer", "set-name", "dhcp4", "dhcp6", "addresses", "gateway4", "gateway6", "optional", "link", "id",
    "interfaces", "link-local",
})  # fmt: skip
_NETPLAN_LISTS: dict[str, frozenset[str]] = {
    "routes": frozenset({"to", "via", "table", "metric", "type", "from", "on-link", "scope"}),
    # The keys of a route show an item for which netplan refuses the file: it would pass for a rule without them.
    "routing-policy": frozenset(
        {"from", "to", "table", "priority", "mark", "type-of-service", "via", "type", "metric"}
    ),
}
_NETPLAN_MAPS: dict[str, frozenset[str]] = {
    "match": frozenset({"name", "macaddress", "driver"}),
    "dhcp4-overrides": frozenset({"use-routes", "route-metric", "route-table"}),
}
_FREE_VALUE_OF_IP = re.compile(r"(\s(?:alias|altname|key|ikey|okey)\s+)(?:\"[^\"]*\"|'[^']*'|\S+)")
"""An argument of ``ip`` that holds any text, or the key of a tunnel."""
_KEPT_WHOLE = frozenset({"ifup", "ifdown", "true", ":", "exit", "[", "test"})
_DEFAULT_OF_VARIABLE = re.compile(r"(\$\{\w+:?[-=+?])([^}]*)(?=\})")
_HERE_STRING = re.compile(r"(<<<\s*)(?:\"[^\"]*\"|'[^']*'|\S+)")
_KEPT_NAMES = frozenset({"grep", "sleep", "logger", "sysctl", "iptables", "nft", "conntrack"})
_SHELL_WORDS = frozenset({
    "if", "then", "else", "elif", "fi", "do", "done", "while", "until", "for", "case", "esac", "{", "}", "!",
})  # fmt: skip
_IP_OBJECTS = re.compile(r"(-\S+\s+)*(ro?u?t?e?|rul?e?|a(ddr?(ess)?)?|li?n?k?|neigh\w*)\b")
_SUBSTITUTION = re.compile(r"\$\([^()]*\)|`[^`]*`")
_PLAIN_TEXT, _OPERATORS = re.compile(r"[^\"'#;|&()$`]+"), re.compile(r"[;&|()]+")
"""Text of a line of shell without a meaning of its own, and operators between commands."""
_PROPERTIES = re.compile(r"([&!]\S*\s+)+")
_VALUE_OF_IP = re.compile(
    r"(?:^|\s)(?:dev|oif|iif|table|lookup|via|from|to|src|priority|pref|preference|metric|fwmark|mtu|add|del|delete"
    r"|replace|change|append)\s+[\"']?\$\{?(\w+)\}?(?:/(?:\d+|\$\{?(\w+)))?"
)
"""An argument of ``ip`` that is a device, an address, a table or a number. An alias, for example, holds any text."""
_NAME_OF_SECRET = re.compile(r"(?i)pass|secret|token|psk|key|cred|auth|identity")


@dataclass(frozen=True, slots=True)
class _Variables:
    """The shell variables of a file that may be kept."""

    names: frozenset[str] = frozenset()
    """Those that ``ip`` commands use as a device, an address, a table or a number."""
    known: Callable[[], frozenset[str]] = frozenset
    """Returns the names of the host's interfaces and tables."""

    def keeps(self, variable: str, value: str) -> bool:
        """Return whether an assignment holds what it seems to hold: other text may be a secret."""
        bare = value.strip("\"'")
        return variable in self.names and (PLAIN_VALUE.fullmatch(bare) is not None or bare in self.known())


def redact_to_allowlist(path: str, text: str, known: Callable[[], frozenset[str]] = frozenset) -> str:
    """Return the part of a file's text that a snapshot may hold; every line keeps its number.

    Args:
        path: the file's path; it decides the format.
        text: the whole text.
        known: returns the names of the host's interfaces and tables, which a script's variables may hold.

    Raises:
        YAMLProblem: if a netplan file is not YAML; then no part of it may be stored.
    """
    return _redactor(path, known)(text)


def _redactor(path: str, known: Callable[[], frozenset[str]]) -> Callable[[str], str]:
    folder = path.rpartition("/")[0]
    if path.endswith(".yaml"):
        return _netplan
    if folder == networkd.STATE_FOLDER:
        return _link_state
    if folder in (*networkmanager.PROFILE_FOLDERS, networkmanager.STATE_FOLDER):
        return lambda text: _ini(text, _PROFILE_KEYS, _IP_NUMBERED, "#")
    if "/systemd/network" in path:
        return lambda text: _ini(text, _NETWORKD_KEYS, None, "#;")
    if path == ifupdown.IFSTATE:
        return _ifstate
    if path.endswith(".service"):
        return _unit
    if folder == boot_files.NETWORK_SCRIPTS:
        return _arguments
    if crontabs.is_crontab(path):
        return lambda text: _crontab(path, text)
    if path == boot_files.RC_LOCAL or folder in (
        *networkmanager.DISPATCHER_FOLDERS,
        *boot_files.NETWORKD_DISPATCHER,
        *ifupdown.SCRIPT_FOLDERS,
        ifupdown.LEASE_HOOKS,
    ):
        return lambda text: _script(text, known)
    return lambda text: _interfaces(text, known)


def redact_script(text: str, known: Callable[[], frozenset[str]] = frozenset) -> str:
    """Return the part of a script that a snapshot may hold, wherever the script lies.

    The first line becomes ``set -e`` where the interpreter gets this option: comments are not kept.
    """
    first, newline, rest = text.partition("\n")
    option = "set -e" if re.fullmatch(r"#!\S+\s+-\w*e\w*\s*", first) else ""
    return option + newline + _script(rest, known)


def _unit(text: str) -> str:
    """Return the lines of a systemd unit that say when it runs, and the commands that concern routing."""
    kept = []
    for line in text.split("\n"):
        key, equals, value = line.strip().partition("=")
        if re.fullmatch(r"\[[\w ]+\]", line.strip()):
            kept.append(line.strip())
        elif not equals or key.strip() not in boot_files.UNIT_KEYS:
            kept.append("")
        elif key.startswith("Exec"):
            shell = boot_files.BY_SHELL.fullmatch(value.strip())
            before, quote, inner = shell.group("before", "quote", "commands") if shell is not None else ("", "", value)
            kept.append(f"{key}={before}{quote}{_commands(inner, _Variables())}{quote}")
        else:
            kept.append(line.strip())
    return "\n".join(kept)


def _crontab(path: str, text: str) -> str:
    """Return the commands of a crontab that concern routing and run at boot."""
    kept = []
    for number, line in enumerate(text.split("\n"), 1):
        at_boot = crontabs.reboot_line(path, number, line)
        commands = _commands(at_boot.command, _Variables()) if at_boot is not None else ""
        if at_boot is None or not (next(hook_scripts.called_scripts(commands), None) or re.search(r"\bip\b", commands)):
            kept.append("")
            continue
        # A name of a user may be a person's.
        user = "" if path == crontabs.ROOTS_CRONTAB else "root " if at_boot.user == "root" else f"{LEFT_OUT} "
        kept.append(f"@reboot {user}{commands}")
    return "\n".join(kept)


def _arguments(text: str) -> str:
    """Return lines that hold arguments of ip alone, without comments."""
    return "\n".join(line if re.fullmatch(r"[\w./: -]+", line) else "" for line in text.split("\n"))


def _ifstate(text: str) -> str:
    return "\n".join(line if re.fullmatch(r"[\w.:-]+=[\w.:-]+", line) else "" for line in text.split("\n"))


def _link_state(text: str) -> str:
    wanted = ("ADMIN_STATE=", "NETWORK_FILE=")
    return "\n".join(line if line.startswith(wanted) else "" for line in text.split("\n"))


def _ini(text: str, allowed: dict[str, frozenset[str]], numbered: re.Pattern[str] | None, comments: str) -> str:
    kept, section = [], ""
    continued = keeping = False
    for line in text.split("\n"):
        bare = line.strip()
        if continued:
            kept.append(line if keeping else "")
        elif bare.startswith("[") and bare.endswith("]"):
            section = bare[1:-1]
            keeping = section in allowed
            kept.append(bare if keeping else "")
        else:
            key = bare.partition("=")[0].strip() if "=" in bare and bare[0] not in comments else ""
            in_ip = numbered is not None and section in ("ipv4", "ipv6") and numbered.fullmatch(key)
            keeping = bool(key) and (key in allowed.get(section, frozenset()) or bool(in_ip))
            # A further condition of [Match] must stay visible: without it the file would seem to match more links.
            narrows = section == "Match" and key and not keeping
            kept.append(line if keeping else f"{key}={LEFT_OUT}" if narrows else "")
        continued = bare.endswith("\\")
    return "\n".join(kept)


def _interfaces(text: str, known: Callable[[], frozenset[str]]) -> str:
    kept = [""] * len(text.split("\n"))
    variables = _Variables(_referenced(line.text for line in ifupdown.logical_lines(text)), known)
    for line in ifupdown.logical_lines(text):
        word, *rest = line.text.split(None, 1)
        if ifupdown.keyword(line) is not None or word in _IFUPDOWN_OPTIONS:
            kept[line.number - 1] = " ".join(line.raw.replace("\\\n", " ").rstrip().split("\n"))
        elif word in ifupdown.HOOKS and rest:
            commands = _commands(rest[0], variables)
            if commands == rest[0]:
                kept[line.number - 1 : line.last] = line.raw.split("\n")
            else:
                # The word itself may be continued over lines.
                indentation = line.raw[: len(line.raw) - len(line.raw.lstrip(" \t"))]
                kept[line.number - 1] = f"{indentation}{word} {commands}"
        elif rest:
            # ifupdown refuses a file with an option outside a stanza, or without a value: the line must stay visible.
            kept[line.number - 1] = f"    {LEFT_OUT} {LEFT_OUT}"
        else:
            kept[line.number - 1] = f"    {LEFT_OUT}"
    return "\n".join(kept)


def _script(text: str, known: Callable[[], frozenset[str]]) -> str:
    """Return the commands of a shell script that concern routing, without the other commands on their lines."""
    lines = text.split("\n")
    variables = _Variables(_referenced(lines), known)
    kept = [""] * len(lines)
    at = 0
    while at < len(lines):
        first, line = at, lines[at]
        while line.endswith("\\") and at + 1 < len(lines):
            at += 1
            line = line[:-1] + lines[at]
        at += 1
        commands = _commands(line, variables)
        called = next(hook_scripts.called_scripts(commands), None)
        stops = re.fullmatch(r"\s*set\s+-\w*e\w*", line)
        if called or stops or re.search(r"\b(ip|pipework)\b|\w=", commands) or commands.strip().startswith("exit"):
            kept[first] = line if stops else commands
    return "\n".join(kept)


def _referenced(lines: Iterator[str] | list[str]) -> frozenset[str]:
    """Return the variables that ``ip`` commands use as a device, an address, a table or a number."""
    variables: set[str] = set()
    for line in lines:
        for piece, _operator in _pieces(line):
            if _is_kept_ip(piece.strip()):
                variables |= {name for names in _VALUE_OF_IP.findall(piece) for name in names}
    return frozenset(name for name in variables if name and not _NAME_OF_SECRET.search(name))


def _pieces(line: str) -> list[tuple[str, str]]:
    """Split a line at the operators outside quotes and substitutions: each piece with the operator after it."""
    pieces, piece, quote, at = [], "", "", 0
    while at < len(line):
        plain = _PLAIN_TEXT.match(line, at)
        if plain is not None:
            piece += plain[0]
            at = plain.end()
            continue
        inside = _SUBSTITUTION.match(line, at) if quote != "'" else None
        if inside is not None:
            piece += f"$({LEFT_OUT})"
            at = inside.end()
            continue
        char = line[at]
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char == "#" and (not piece or piece[-1].isspace()):
            break
        elif char in ";|()" or (char == "&" and not piece.endswith(">") and not line.startswith("&>", at)):
            operator = _OPERATORS.match(line, at)
            assert operator is not None
            pieces.append((piece, operator[0]))
            piece, at = "", operator.end()
            continue
        piece += char
        at += 1
    # A quote without an end continues in the next line: its content is not known.
    pieces.append((LEFT_OUT + quote if quote else piece, ""))
    return pieces


def _is_kept_ip(piece: str) -> bool:
    words = _without_shell_words(piece)
    name, _space, rest = words.partition(" ")
    return name.rpartition("/")[2] == "ip" and bool(_IP_OBJECTS.match(rest.strip()))


def _without_shell_words(piece: str) -> str:
    words = piece.split()
    while words and words[0] in _SHELL_WORDS:
        words.pop(0)
    return " ".join(words)


def _commands(line: str, variables: _Variables) -> str:
    """Return a line of shell without the commands that do not concern routing."""
    return "".join(_command(piece, variables) + operator for piece, operator in _pieces(line)).rstrip()


def _command(piece: str, variables: _Variables) -> str:
    bare = _without_shell_words(piece)
    if not bare:
        return piece
    lead = piece[: piece.index(bare.split()[0])]
    first = bare.split()[0]
    name = first.rpartition("/")[2]
    if name == "ip" and _is_kept_ip(piece):
        piece = _HERE_STRING.sub(rf"\g<1>{LEFT_OUT}", _FREE_VALUE_OF_IP.sub(rf"\g<1>{LEFT_OUT}", piece))
        return _DEFAULT_OF_VARIABLE.sub(lambda match: match[1] + plain_word(match[2], variables.known), piece)
    if name == PROGRAM:
        begin = piece.index(first) + len(first)
        return piece[:begin] + redact_arguments(piece[begin:])
    if name in _KEPT_WHOLE:
        begin = piece.index(first) + len(first)
        return piece[:begin] + re.sub(r"\S+", lambda match: word_of_condition(match[0], variables.known), piece[begin:])
    variable, equals, value = first.partition("=")
    if equals and first == bare and variables.keeps(variable, value):
        return piece
    trail = " " if piece.endswith(" ") else ""
    called = next(hook_scripts.called_scripts(bare), None)
    if called is not None:
        # Its arguments may be anything.
        return f"{lead}{called}{f' {LEFT_OUT}' if bare != called else ''}{trail}"
    if name in _KEPT_NAMES or name == "ip":
        return f"{lead}{first} {LEFT_OUT}{trail}"
    unclosed = bare[1:] if bare in (f"{LEFT_OUT}'", f'{LEFT_OUT}"') else ""
    return f"{lead}{LEFT_OUT}{unclosed}{trail}"


class _Canvas:
    """A text in which only the copied parts are visible; the rest is blank, and every line keeps its number."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._shown = ["\n" if char == "\n" else " " for char in text]

    def copy(self, first: int, last: int) -> None:
        self._shown[first:last] = self.text[first:last]

    def scalar(self, node: yaml.Node) -> bool:
        """Show a plain value, and no other node."""
        if isinstance(node, yaml.ScalarNode):
            # An anchor or a tag comes before its value and belongs to the node.
            before = _PROPERTIES.match(self.text, node.start_mark.index, node.end_mark.index)
            self.copy(before.end() if before is not None else node.start_mark.index, node.end_mark.index)
            return True
        return False

    def mapping(self, node: yaml.Node, show: Callable[[str, yaml.Node], bool]) -> bool:
        """Show the keys of a mapping whose values ``show`` has shown."""
        if not isinstance(node, yaml.MappingNode):
            return False
        self._brackets(node)
        for key, value in pairs(node):
            if show(str(key.value), value):
                self.copy(key.start_mark.index, self.text.index(":", key.end_mark.index) + 1)
                self._comma(node, value)
        return True

    def sequence(self, node: yaml.Node, show: Callable[[yaml.Node], bool]) -> bool:
        """Show the items of a list by ``show``."""
        if not isinstance(node, yaml.SequenceNode):
            return False
        self._brackets(node)
        for item in items(node):
            if show(item):
                if not node.flow_style:
                    dash = self.text.rindex("-", 0, item.start_mark.index)
                    self.copy(dash, dash + 1)
                self._comma(node, item)
        return True

    def _brackets(self, node: yaml.CollectionNode) -> None:
        if node.flow_style:
            self.copy(node.start_mark.index, node.start_mark.index + 1)
            self.copy(node.end_mark.index - 1, node.end_mark.index)

    def _comma(self, parent: yaml.CollectionNode, node: yaml.Node) -> None:
        behind = re.compile(r"\s*,").match(self.text, node.end_mark.index) if parent.flow_style else None
        if behind is not None:
            self.copy(behind.end() - 1, behind.end())

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in "".join(self._shown).split("\n"))


def _netplan(text: str) -> str:
    canvas = _Canvas(text)

    def only(names: frozenset[str]) -> Callable[[yaml.Node], bool]:
        return lambda node: canvas.mapping(node, lambda name, value: name in names and canvas.scalar(value))

    def address(node: yaml.Node) -> bool:
        # An address with options is a key; its options are left out.
        return canvas.scalar(node) or canvas.mapping(node, lambda _name, _value: True)

    def passed_on(name: str, value: yaml.Node) -> bool:
        group, _dot, key = name.partition(".")
        return group in ("ipv4", "ipv6") and _IP_NUMBERED.fullmatch(key) is not None and canvas.scalar(value)

    def passthrough(name: str, value: yaml.Node) -> bool:
        return name == "passthrough" and canvas.mapping(value, passed_on)

    def setting(name: str, value: yaml.Node) -> bool:
        if name in _NETPLAN_LISTS:
            return canvas.sequence(value, only(_NETPLAN_LISTS[name])) or is_empty(value)
        if name == "networkmanager":
            return canvas.mapping(value, passthrough)
        if name in _NETPLAN_MAPS:
            return only(_NETPLAN_MAPS[name])(value)
        return name in _NETPLAN_DEVICE and (canvas.scalar(value) or canvas.sequence(value, address))

    def is_empty(node: yaml.Node) -> bool:
        # netplan refuses a file in which a mapping or a list is empty, so the key must stay visible.
        return isinstance(node, yaml.ScalarNode) and not node.value and canvas.scalar(node)

    def devices(node: yaml.Node) -> bool:
        return canvas.mapping(node, lambda _name, device: canvas.mapping(device, setting) or is_empty(device))

    def network(name: str, value: yaml.Node) -> bool:
        return (
            devices(value) or is_empty(value)
            if name in netplan.DEVICE_TYPES
            else name in ("version", "renderer") and canvas.scalar(value)
        )

    tree = compose(text)
    if tree is not None:
        canvas.mapping(
            tree, lambda name, value: name == "network" and (canvas.mapping(value, network) or is_empty(value))
        )
    return str(canvas)
