"""Reads the configuration of netplan: the YAML files of /etc/netplan and its other folders, for any renderer.

netplan(5): a file in /run hides one of the same name in /etc and that one in /usr/lib; the files are merged in the
order of their names. Only syntax nodes are read: every finding keeps its line, and no YAML tag creates an object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_interface

import yaml

from viacheck.analysis.routing.identity import SameTuple
from viacheck.model.address_family import Family
from viacheck.model.config_entry import ParseProblem, Place, WrittenRoute, WrittenRule
from viacheck.model.namespace_state import Link
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Nexthop, Route
from viacheck.model.snapshot import HostFile
from viacheck.parsers.glob import glob_matches
from viacheck.parsers.ini import Section, Setting
from viacheck.persistence.manager_config import (
    PREDEFINED_TABLES,
    ConfigCollector,
    ManagedLink,
    ManagerConfig,
    below,
    winning,
    within_bounds,
)
from viacheck.persistence.networkd import number, prefix
from viacheck.persistence.networkmanager import profile_entries

MOST_YAML = 128 << 10
"""Characters of YAML that are read: of all files, as each 64 Ki of them cost half a second and 20 MB."""
LARGEST_METRIC = 2147483647
"""netplan 0.106 writes a larger metric as a negative number, which systemd-networkd refuses."""
NETWORKMANAGER = "NetworkManager"
RENDERERS = ("networkd", NETWORKMANAGER, "sriov")
NO_RULES = (
    "netplan gives NetworkManager no routing-policy (0.106 to 1.2): only networkmanager.passthrough with "
    "ipv4.routing-rule1 does"
)
UNICAST_ONLY = "NetworkManager gets unicast routes only from netplan, which refuses its files"
_NAME = re.compile(r"[!-~]+")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SEQUENCES = ("addresses", "link-local", "routes", "routing-policy")
FOLDERS = ("/run/netplan", "/etc/netplan", "/usr/lib/netplan")
DEVICE_TYPES = ("ethernets", "wifis", "modems", "bridges", "bonds", "vlans", "tunnels", "vrfs", "dummy-devices")


class YAMLProblem(ValueError):
    """The text is not YAML. The message quotes nothing from the text, which may hold secrets."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


class _Loader(yaml.SafeLoader):
    """Composes without aliases: by aliases a short text can stand for a tree of any size."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="an alias, which this reader does not follow", problem_mark=mark)
        return super().compose_node(parent, index)


def _line_at(text: str, index: int) -> int:
    """Return the number of a line as an editor counts; YAML also ends a line at CR, NEL, LS and PS."""
    return text.count("\n", 0, index) + 1


def compose(text: str) -> yaml.Node | None:
    """Return the syntax tree of a YAML document; None for an empty one.

    Raises:
        YAMLProblem: if the text is not YAML, or is nested too deeply.
    """
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = _line_at(text, error.problem_mark.index) if error.problem_mark else 0
        raise YAMLProblem(line, "not YAML: " + re.sub(r"'[^']*'|\"[^\"]*\"", "…", error.problem or "")) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise YAMLProblem(0, f"not YAML: {type(error).__name__}") from None


def pairs(node: yaml.Node | None) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    """Return the keys of a mapping with their values; nothing for any other node."""
    if isinstance(node, yaml.MappingNode):
        yield from ((key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode))


def value_of(node: yaml.Node | None, key: str) -> yaml.Node | None:
    """Return the value of a key of a mapping."""
    return next((value for name, value in pairs(node) if name.value == key), None)


def text_of(node: yaml.Node | None, key: str) -> str | None:
    """Return the value of a key of a mapping if it is a plain value."""
    value = value_of(node, key)
    return str(value.value) if isinstance(value, yaml.ScalarNode) and value.value else None


def items(node: yaml.Node | None) -> list[yaml.Node]:
    """Return the items of a list; nothing for any other node."""
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def read(files: Sequence[HostFile], links: Sequence[Link]) -> ManagerConfig:
    """Read the configuration of the given links."""
    collector, devices = ConfigCollector("netplan"), definitions(files)
    configured: dict[str, list[tuple[Link, Definition]]] = {}
    settings = sum(
        1 for file, _tree in _documents(SameTuple(tuple(files))) for _line in file.text[:MOST_YAML].split(":")
    )
    for link in within_bounds(links, settings, FOLDERS[1], collector.problems):
        if (definition := definition_of(devices, link)) is not None:
            configured.setdefault(definition.name, []).append((link, definition))
    for file, tree in _documents(SameTuple(tuple(files))):
        if not collector.readable(file):
            continue
        if isinstance(tree, YAMLProblem):
            collector.problems.append(ParseProblem(file.path, tree.line, str(tree)))
            continue
        network = value_of(tree, "network")
        if network is None:
            collector.problems.append(
                ParseProblem(file.path, 0, "has no 'network' key, without which netplan reads nothing")
            )
        for kind, named in pairs(network):
            if kind.value in DEVICE_TYPES:
                for name, device in pairs(named):
                    for link, definition in configured.get(str(name.value), ()):
                        _settings(file, name, device, link, collector, definition.renderer)
        for node, reason in _refusals(tree, network):
            collector.problems.append(ParseProblem(file.path, _line_at(file.text, node.start_mark.index), reason, True))
    if any(problem.refused for problem in collector.problems):
        # netplan then generates nothing at all, from no file.
        collector.entries.clear()
    return collector.config()


def _refusals(tree: yaml.Node | None, network: yaml.Node | None) -> Iterator[tuple[yaml.Node, str]]:
    """Yield the parts for which netplan refuses all its files, each with the reason."""
    kinds = [(kind, devices) for kind, devices in pairs(network) if kind.value in DEVICE_TYPES]
    named_devices = [pair for _kind, devices in kinds for pair in pairs(devices)]
    top = [pair for pair in pairs(tree) if pair[0].value == "network"]
    for key, value in (*top, *kinds, *named_devices):
        if not isinstance(value, yaml.MappingNode):
            yield key, f"{key.value} has no settings, so netplan refuses its files"
    settings = [network, *(device for _name, device in named_devices)]
    for mapping in settings:
        for key, value in pairs(mapping):
            if key.value in _SEQUENCES and not isinstance(value, yaml.SequenceNode):
                yield key, f"{key.value} is not a list, so netplan refuses its files"
            elif key.value == "renderer" and getattr(value, "value", None) not in RENDERERS:
                yield key, "an unknown renderer, so netplan refuses its files"
    for item in (item for device in settings for item in items(value_of(device, "addresses"))):
        if isinstance(item, yaml.ScalarNode) and not _is_address(str(item.value)):
            yield item, "not an address with its prefix length, so netplan refuses its files"


def _is_address(text: str) -> bool:
    try:
        ip_interface(text)
    except ValueError:
        return False
    return "/" in text


def is_valid_name(name: str) -> bool:
    """Return whether netplan takes a name for a device; it refuses all its files for any other."""
    return _NAME.fullmatch(name) is not None


def quoted(name: str) -> str:
    """Return a name as a key of YAML."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return name if _PLAIN_NAME.fullmatch(name) else f'"{escaped}"'


@dataclass(frozen=True, slots=True)
class Definition:
    """A device of netplan's files: all that they say under one name, which need not be an interface's."""

    name: str
    kind: str
    """The key above it, such as ``ethernets`` or ``wifis``."""
    match: yaml.Node | None = None
    set_name: str | None = None
    renderer: str | None = None

    def fits(self, link: Link) -> bool:
        """Return whether the device is this interface."""
        if self.match is None:
            return link.name == self.name
        pattern, mac = text_of(self.match, "name"), text_of(self.match, "macaddress")
        return self.set_name == link.name or bool(
            (pattern or mac)
            and (pattern is None or glob_matches(link.name, pattern))
            and (mac is None or mac.lower() == (link.mac or "").lower())
        )


def definitions(files: Sequence[HostFile]) -> list[Definition]:
    """Return the devices, in the order in which systemd-networkd looks for one that fits an interface.

    netplan writes a .network file for each, with its name in the file's name; the first file that fits is the only one.
    """
    default, devices = default_renderer(files), dict[str, Definition]()
    for network in _networks(files):
        for kind, named in pairs(network):
            if kind.value not in DEVICE_TYPES:
                continue
            of_kind = text_of(named, "renderer")
            for name, device in pairs(named):
                old = devices.get(str(name.value), Definition(str(name.value), str(kind.value), renderer=default))
                devices[old.name] = Definition(
                    old.name, str(kind.value), value_of(device, "match") or old.match,
                    text_of(device, "set-name") or old.set_name,
                    text_of(device, "renderer") or of_kind or old.renderer,
                )  # fmt: skip
    return sorted(devices.values(), key=lambda device: f"{device.name}.network".encode(errors="surrogateescape"))


def definition_of(devices: Sequence[Definition], link: Link) -> Definition | None:
    """Return the device that configures an interface; None where netplan has none for it."""
    return next((device for device in devices if device.fits(link)), None)


def default_renderer(files: Sequence[HostFile]) -> str | None:
    """Return the renderer of the devices that name none: the last file that says it decides."""
    return next(filter(None, (text_of(network, "renderer") for network in reversed(list(_networks(files))))), None)


def _networks(files: Sequence[HostFile]) -> Iterator[yaml.Node | None]:
    for _file, tree in _documents(SameTuple(tuple(files))):
        if not isinstance(tree, YAMLProblem):
            yield value_of(tree, "network")


@lru_cache(maxsize=2)
def _documents(files: SameTuple[HostFile]) -> tuple[tuple[HostFile, yaml.Node | YAMLProblem | None], ...]:
    """Return the files in their order, each with its syntax tree."""
    documents: list[tuple[HostFile, yaml.Node | YAMLProblem | None]] = []
    total = 0
    for file in winning(below(files.entries, *FOLDERS, suffix=".yaml")):
        total += len(file.text)
        try:
            if total > MOST_YAML:
                raise YAMLProblem(0, f"not read: netplan's files have more than {MOST_YAML} characters")
            documents.append((file, compose(file.text)))
        except YAMLProblem as problem:
            documents.append((file, problem))
    return tuple(documents)


def _passthrough(file: HostFile, device: yaml.Node, link: Link, collector: ConfigCollector) -> None:
    """Add the rules and routes that netplan hands to NetworkManager as they are: its own syntax has no rules there."""
    families: dict[str, Family] = {"ipv4": 4, "ipv6": 6}
    settings = value_of(value_of(device, "networkmanager"), "passthrough")
    for name, family in families.items():
        section = Section(name, _place(file, device))
        for key, value in pairs(settings):
            group, _dot, setting = str(key.value).partition(".")
            if group == name and isinstance(value, yaml.ScalarNode):
                section.settings.append(Setting(setting, str(value.value), _place(file, key)))
        collector.entries += profile_entries(section, family, link, collector)


def _settings(
    file: HostFile, name: yaml.Node, device: yaml.Node, link: Link, collector: ConfigCollector, renderer: str | None
) -> None:
    dhcp = (text_of(device, "dhcp4") or "").lower() in ("true", "yes", "on")
    collector.links.append(
        ManagedLink(
            link.name, _place(file, name), method="dhcp" if dhcp else "static",
            addresses=None if dhcp else _addresses(device),
        )
    )  # fmt: skip
    overrides = value_of(device, "dhcp4-overrides")
    table = text_of(overrides, "route-table")
    if dhcp and table is not None and (text_of(overrides, "use-routes") or "true").lower() in ("true", "yes", "on"):
        collector.entries.append(_leased_route(file, overrides, table, link))
    by_networkmanager = renderer == NETWORKMANAGER
    if by_networkmanager:
        _passthrough(file, device, link, collector)
    for key, make in (("routing-policy", _rule), ("routes", _route)):
        for item in items(value_of(device, key)):
            place = _place(file, item)
            if by_networkmanager and key == "routing-policy":
                collector.problems.append(ParseProblem(file.path, place.line, NO_RULES))
                continue
            if by_networkmanager and text_of(item, "type") not in (None, "unicast"):
                collector.problems.append(ParseProblem(file.path, place.line, UNICAST_ONLY, True))
                continue
            try:
                collector.entries.append(make(item, place, link))
            except ValueError:
                reason = f"an item of {key} that netplan refuses, and with it its files"
                collector.problems.append(ParseProblem(file.path, place.line, reason, True))


def _addresses(device: yaml.Node) -> tuple[str, ...] | None:
    """Return the fixed IPv4 addresses; None without the key, which another file may have, and with on-link routes."""
    node = value_of(device, "addresses")
    on_link = any(text_of(route, "on-link") for route in items(value_of(device, "routes")))
    if node is None or on_link or not all(isinstance(item, yaml.ScalarNode) for item in items(node)):
        return None
    return tuple(str(item.value) for item in items(node) if ":" not in str(item.value))


def _leased_route(file: HostFile, overrides: yaml.Node | None, table: str, link: Link) -> WrittenRoute:
    """Return the default route of the lease, which ``route-table`` puts into a table of its own."""
    node = value_of(overrides, "route-table")
    assert node is not None
    route = Route(
        family=4, table=number(table, PREDEFINED_TABLES) or 0, destination="0.0.0.0/0",
        nexthops=(Nexthop(interface=link.name),),
    )  # fmt: skip
    return WrittenRoute(place=_place(file, node), interface=link.name, route=route, table=table, gateway_computed=True)


def _place(file: HostFile, node: yaml.Node) -> Place:
    first, last = node.start_mark.index, node.end_mark.index
    return Place(file.path, _line_at(file.text, first), " ".join(file.text[first:last].split()))


def _rule(item: yaml.Node, place: Place, link: Link) -> WrittenRule:
    source, destination = text_of(item, "from"), text_of(item, "to")
    table, priority, mark = text_of(item, "table") or "main", text_of(item, "priority"), text_of(item, "mark")
    if not table.isdecimal() and table != "main":
        raise ValueError("a table that is not a number")
    if any(value_of(item, key) is not None for key in ("via", "type", "metric")):
        raise ValueError("a route, and not a rule")
    service = text_of(item, "type-of-service")
    rule = Rule(
        family=6 if ":" in (source or "") + (destination or "") else 4,
        priority=int(priority) if priority else 0,
        table=number(table, PREDEFINED_TABLES),
        source=prefix(source),
        destination=prefix(destination),
        fwmark=int(mark, 0) if mark else None,
        tos=int(service, 0) if service else None,
    )
    return WrittenRule(place=place, interface=link.name, rule=rule, table=table, has_priority=priority is not None)


def _route(item: yaml.Node, place: Place, link: Link) -> WrittenRoute:
    destination, gateway = text_of(item, "to"), text_of(item, "via")
    table, metric, kind = text_of(item, "table") or "main", text_of(item, "metric"), text_of(item, "type") or "unicast"
    if destination is None or (not table.isdecimal() and table != "main"):
        raise ValueError("a route without 'to', or a table that is not a number")
    family = 6 if ":" in (gateway or "") + destination else 4
    route = Route(
        family=family,  # type: ignore[arg-type]
        table=number(table, PREDEFINED_TABLES) or 0,
        destination=prefix(destination) or ("::/0" if family == 6 else "0.0.0.0/0"),
        type=kind,
        nexthops=(Nexthop(gateway=gateway, interface=link.name),) if kind == "unicast" else (),
        metric=int(metric) if metric else 0,
    )
    return WrittenRoute(place=place, interface=link.name, route=route, table=table)
