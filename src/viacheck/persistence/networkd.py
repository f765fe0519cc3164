"""Reads the configuration of systemd-networkd: .network files with drop-ins, networkd.conf, and its state of links.

systemd.network(5): of the files in /etc, /run and /usr/lib one of the same name hides the others, the first by name
that matches a link configures it, and NAME.network.d/*.conf of all folders are read after it. networkd knows the names
of tables from RouteTable= in networkd.conf(5) only, not from rt_tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_network

from viacheck.analysis.routing.identity import SameTuple
from viacheck.model.address_family import Family
from viacheck.model.config_entry import ParseProblem, Place, WrittenRoute, WrittenRule
from viacheck.model.namespace_state import Link
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Nexthop, Route
from viacheck.model.snapshot import HostFile
from viacheck.parsers.glob import glob_matches
from viacheck.parsers.ini import Section, is_yes, named, sections
from viacheck.persistence.manager_config import (
    PREDEFINED_TABLES,
    ConfigCollector,
    ManagedLink,
    ManagerConfig,
    below,
    winning,
    within_bounds,
)

FOLDERS = ("/etc/systemd/network", "/run/systemd/network", "/usr/local/lib/systemd/network", "/usr/lib/systemd/network")
CONF = "/etc/systemd/networkd.conf"
CONF_FOLDERS = (
    "/etc/systemd/networkd.conf.d", "/run/systemd/networkd.conf.d", "/usr/local/lib/systemd/networkd.conf.d",
    "/usr/lib/systemd/networkd.conf.d",
)  # fmt: skip
STATE_FOLDER = "/run/systemd/netif/links"
_USE_KEYS = ("UseRoutes", "UseGateway")
_MATCHED = frozenset({"Name", "MACAddress", "PermanentMACAddress", "Kind", "Type"})
_UNDECIDED = frozenset({
    "Architecture", "BSSID", "Credential", "Driver", "Firmware", "Host", "KernelCommandLine", "KernelVersion", "Path",
    "Property", "SSID", "Virtualization", "WLANInterfaceType",
})  # fmt: skip
"""Conditions of [Match] that a snapshot cannot decide; networkd ignores any other key (systemd.network(5))."""
RULES_KEY, ROUTES_KEY = "ManageForeignRoutingPolicyRules", "ManageForeignRoutes"
"""Whether networkd removes the rules, or routes, that it finds when it starts and did not set (networkd.conf(5))."""
KEEP_FOREIGN_PATH = "/etc/systemd/networkd.conf.d/viacheck.conf"
KEEP_FOREIGN = f"[Network]\n{RULES_KEY}=no\n{ROUTES_KEY}=no"
"""The text that makes networkd keep them. It reads this file when it starts, so no restart is needed."""
UNREADABLE = "cannot be read as networkd reads it"
MOST_DIGITS = 10
"""The digits of the largest table number, which has 32 bits."""


def configuration(files: Sequence[HostFile], problems: list[ParseProblem]) -> list[Section]:
    """Return the [Network] sections of networkd.conf and its drop-ins, in the order in which they apply."""
    main = [file for file in files if file.path == CONF and file.exists and file.error is None]
    parts = [*main, *winning(below(files, *CONF_FOLDERS, suffix=".conf"))]
    return [section for file in parts for section in named(sections(file, problems), "Network")]


def purges_foreign(files: Sequence[HostFile], key: str = RULES_KEY) -> tuple[bool, Place | None]:
    """Return whether networkd removes foreign rules (or routes, by the other key), and the line that says so."""
    settings = [setting for section in configuration(files, []) for setting in section.settings if setting.key == key]
    return is_yes(settings[-1].value if settings else None, default=True), settings[-1].place if settings else None


def table_names(files: Sequence[HostFile]) -> dict[str, int]:
    """Return the names of tables that networkd knows, with their numbers."""
    names = dict(PREDEFINED_TABLES)
    for section in configuration(files, []):
        for setting in section.all("RouteTable"):
            for pair in setting.value.split():
                name, _colon, number = pair.partition(":")
                if number.isdecimal():
                    names[name] = int(number)
    return names


def read(files: Sequence[HostFile], links: Sequence[Link]) -> ManagerConfig:
    """Read the configuration of the given links."""
    return _read(SameTuple(tuple(files)), SameTuple(tuple(links)))


@lru_cache(maxsize=2)
def _read(of_host: SameTuple[HostFile], of_links: SameTuple[Link]) -> ManagerConfig:
    files, links = of_host.entries, of_links.entries
    collector = ConfigCollector("networkd")
    _state(files, links, collector)
    names = table_names(files)
    configuration(files, collector.problems)
    networks = []
    for file in winning(below(files, *FOLDERS, suffix=".network")):
        # An empty file, or a link to /dev/null, masks the other files of its name.
        if not file.text or not collector.readable(file):
            continue
        name = file.path.rpartition("/")[2]
        parts = [file, *winning(below(files, *(f"{folder}/{name}.d" for folder in FOLDERS), suffix=".conf"))]
        networks.append((file, [section for part in parts for section in sections(part, collector.problems)]))
    settings = sum(
        1 + setting.value.count(" ") for _file, parts in networks for part in parts for setting in part.settings
    )
    for link in within_bounds(links, settings, FOLDERS[0], collector.problems):
        for file, file_sections in networks:
            if _matches(file_sections, link):
                _network(file, file_sections, link, names, collector)
                break
    return collector.config()


def at_work(files: Sequence[HostFile], links: Sequence[Link]) -> bool:
    """Whether networkd manages any link at this moment, by its own state."""
    return read(files, links).active


def file_of(files: Sequence[HostFile], links: Sequence[Link], interface: str) -> str | None:
    """Return the path of the .network file that configures a link; None without such a file."""
    managed = [link for link in read(files, links).links if link.interface == interface]
    present = {file.path for file in files if file.exists}
    for link in sorted(managed, key=lambda link: link.active):
        path = _whole_file(link.place.path)
        # The file that networkd still uses may have been removed since.
        if path.endswith(".network") and path in present:
            return path
    return None


def links_of(files: Sequence[HostFile], links: Sequence[Link], path: str) -> tuple[str, ...]:
    """Return the links that a .network file configures."""
    managed = (link for link in read(files, links).links if _whole_file(link.place.path) == path)
    return tuple(dict.fromkeys(link.interface for link in managed))


def network_name(path: str) -> str:
    """Return the name that a .network file shares with its drop-ins, whatever folders they are in."""
    return _whole_file(path).rpartition("/")[2]


def _whole_file(path: str) -> str:
    """Return the .network file that a drop-in belongs to; the path itself for any other file."""
    folder, _slash, name = path.rpartition("/")
    return folder.removesuffix(".d") if name.endswith(".conf") else path


def _state(files: Sequence[HostFile], links: Sequence[Link], collector: ConfigCollector) -> None:
    by_index = {str(link.index): link for link in links}
    for file in below(files, STATE_FOLDER):
        link = by_index.get(file.path.rpartition("/")[2])
        if link is None or not collector.readable(file):
            continue
        state = dict(line.partition("=")[::2] for line in file.text.splitlines())
        if state.get("ADMIN_STATE", "unmanaged") not in ("unmanaged", "pending", "initialized"):
            network = state.get("NETWORK_FILE", "")
            collector.links.append(
                ManagedLink(link.name, Place(network or file.path, 1, "networkd's own state"), active=True)
            )


def _matches(file_sections: Sequence[Section], link: Link) -> bool:
    settings = [setting for section in named(file_sections, "Match") for setting in section.settings]
    if any(setting.key in _UNDECIDED for setting in settings):
        return False
    settings = [setting for setting in settings if setting.key in _MATCHED]
    # networkd ignores a file without any condition (systemd 246).
    if not any(setting.value for setting in settings):
        return False
    kind = "wlan" if link.wireless else "loopback" if link.name == "lo" else "ether"
    values = {"Name": link.name, "Kind": link.kind or "", "Type": kind,
              "MACAddress": (link.mac or "").lower(), "PermanentMACAddress": (link.mac or "").lower()}  # fmt: skip
    return all(_matches_value(setting.value, values[setting.key], setting.key) for setting in settings)


def _matches_value(pattern: str, value: str, key: str) -> bool:
    patterns = pattern.split()
    inverted = bool(patterns) and patterns[0].startswith("!")
    if inverted:
        patterns[0] = patterns[0][1:]
    if key.endswith("MACAddress"):
        patterns = [address.lower().replace("-", ":") for address in patterns]
    return any(glob_matches(value, alternative) for alternative in patterns if alternative) != inverted


def _network(
    file: HostFile, file_sections: Sequence[Section], link: Link, names: dict[str, int], collector: ConfigCollector
) -> None:
    for section in named(file_sections, "Link"):
        if is_yes(section.get("Unmanaged"), default=False):
            return
    first = next(named(file_sections, "Match"), file_sections[0] if file_sections else None)
    dhcp = any(section.get("DHCP") in ("yes", "ipv4", "true", "1") for section in named(file_sections, "Network"))
    collector.links.append(
        ManagedLink(
            link.name,
            first.place if first else Place(file.path, 1),
            method="dhcp" if dhcp else "static",
            addresses=None if dhcp else _addresses(file_sections),
        )
    )
    for section in named(file_sections, "DHCPv4") if dhcp else ():
        if section.get("RouteTable") and all(is_yes(section.get(key), default=True) for key in _USE_KEYS):
            collector.entries.append(_leased_route(section, link, names))
    for section in file_sections:
        try:
            if section.name == "RoutingPolicyRule":
                collector.entries.append(_rule(section, link, names))
            elif section.name == "Route":
                collector.entries.append(_route(section, link, names))
        except ValueError:
            collector.problems.append(
                ParseProblem(section.place.path, section.place.line, f"{section.name} {UNREADABLE}")
            )


def _addresses(file_sections: Sequence[Section]) -> tuple[str, ...] | None:
    """Return the fixed IPv4 addresses; None where the gateway is taken to be on the link.

    A route says so (``GatewayOnLink=``), and networkd says so by itself where a file has no address at all.
    """
    if any(is_yes(section.get("GatewayOnLink"), default=False) for section in named(file_sections, "Route")):
        return None
    written = [
        setting.value
        for section in file_sections
        if section.name in ("Network", "Address")
        for setting in section.all("Address")
    ]
    return tuple(address for address in written if ":" not in address) if written else None


def number(table: str, names: dict[str, int]) -> int | None:
    """Return the number of a table, given as number or name; None for an unknown name."""
    if table.isdecimal() and len(table) <= MOST_DIGITS:
        return int(table)
    return names.get(table)


def _rule(section: Section, link: Link, names: dict[str, int]) -> WrittenRule:
    source, destination = section.get("From"), section.get("To")
    table, priority = section.get("Table") or "main", section.get("Priority")
    mark, _slash, mask = (section.get("FirewallMark") or "").partition("/")
    suppress = section.get("SuppressPrefixLength")
    six = ":" in (source or "") + (destination or "") or section.get("Family") == "ipv6"
    ports = {"IPProtocol": "ipproto", "SourcePort": "sport", "DestinationPort": "dport", "User": "uidrange",
             "TypeOfService": "tos"}  # fmt: skip
    kind = section.get("Type")
    rule = Rule(
        family=6 if six else 4,
        priority=int(priority) if priority else 0,
        action=kind if kind in ("blackhole", "unreachable", "prohibit") else "lookup",  # type: ignore[arg-type]
        table=number(table, names),
        invert=is_yes(section.get("InvertRule"), default=False),
        source=prefix(source),
        destination=prefix(destination),
        iif=section.get("IncomingInterface"),
        oif=section.get("OutgoingInterface"),
        fwmark=int(mark, 0) if mark else None,
        fwmask=int(mask, 0) if mask else None,
        suppress_prefixlength=int(suppress) if suppress else None,
        unread=tuple(f"{keyword} {section.get(key)}" for key, keyword in ports.items() if section.get(key)),
    )
    return WrittenRule(
        place=section.place_of("From" if rule.table is not None else "Table"),
        interface=link.name,
        rule=rule,
        table=table,
        has_priority=priority is not None,
    )


def _route(section: Section, link: Link, names: dict[str, int]) -> WrittenRoute:
    gateway, table, metric = section.get("Gateway"), section.get("Table") or "main", section.get("Metric")
    destination, kind = section.get("Destination"), section.get("Type") or "unicast"
    computed = gateway is not None and gateway.startswith("_")
    family: Family = 6 if ":" in (gateway or "") + (destination or "") or gateway == "_ipv6ra" else 4
    hops = (Nexthop(gateway=None if computed else gateway, interface=link.name),) if kind == "unicast" else ()
    route = Route(
        family=family,
        table=number(table, names) or 0,
        destination=prefix(destination) or ("::/0" if family == 6 else "0.0.0.0/0"),
        type=kind,
        nexthops=hops,
        metric=int(metric) if metric else 0,
    )
    return WrittenRoute(
        place=section.place_of("Table"), interface=link.name, route=route, table=table, gateway_computed=computed
    )


def _leased_route(section: Section, link: Link, names: dict[str, int]) -> WrittenRoute:
    """Return the default route of the lease, which RouteTable= of [DHCPv4] puts into a table of its own."""
    table = section.get("RouteTable") or ""
    route = Route(
        family=4, table=number(table, names) or 0, destination="0.0.0.0/0", nexthops=(Nexthop(interface=link.name),)
    )
    return WrittenRoute(
        place=section.place_of("RouteTable"), interface=link.name, route=route, table=table, gateway_computed=True
    )


def prefix(value: str | None) -> str | None:
    """Return a prefix in CIDR form; None for a missing prefix or one that selects everything.

    Raises:
        ValueError: if it is not a prefix.
    """
    if not value or value in ("default", "any", "all"):
        return None
    network = ip_network(value, strict=False)
    return None if network.prefixlen == 0 else str(network)
