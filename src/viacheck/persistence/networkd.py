"""Reads what systemd-networkd configures: .network files with their drop-ins, networkd.conf, and its state of links.

systemd.network(5): of the files in /etc, /run and /usr/lib one of the same name hides the others, the first by name
that matches a link configures it, and NAME.network.d/*.conf of all folders are read after it. networkd knows the names
of tables from RouteTable= in networkd.conf(5) only, not from rt_tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_network

from viacheck.model.config_entry import ParseProblem, Place, WrittenRoute, WrittenRule
from viacheck.model.snapshot import Family, HostFile, Link, Nexthop, Route, Rule
from viacheck.parsers.ini import Section, is_yes, named, sections
from viacheck.persistence.manager_config import (
    PREDEFINED_TABLES,
    ConfigCollector,
    ManagedLink,
    ManagerConfig,
    below,
    winning,
)

FOLDERS = ("/etc/systemd/network", "/run/systemd/network", "/usr/local/lib/systemd/network", "/usr/lib/systemd/network")
CONF = "/etc/systemd/networkd.conf"
CONF_FOLDERS = (
    "/etc/systemd/networkd.conf.d", "/run/systemd/networkd.conf.d", "/usr/local/lib/systemd/networkd.conf.d",
    "/usr/lib/systemd/networkd.conf.d",
)  # fmt: skip
STATE_FOLDER = "/run/systemd/netif/links"
_MATCHED = frozenset({"Name", "MACAddress", "PermanentMACAddress", "Kind", "Type"})
RULES_KEY, ROUTES_KEY = "ManageForeignRoutingPolicyRules", "ManageForeignRoutes"
"""Whether networkd takes away the rules, or routes, that it finds at its start and did not set (networkd.conf(5))."""
KEEP_FOREIGN_PATH = "/etc/systemd/networkd.conf.d/viacheck.conf"
KEEP_FOREIGN = f"[Network]\n{RULES_KEY}=no\n{ROUTES_KEY}=no"
"""What makes networkd leave them alone. It reads this first when it starts, so nothing need be restarted for it."""
UNREADABLE = "cannot be read as networkd reads it"


def configuration(files: Sequence[HostFile], problems: list[ParseProblem]) -> list[Section]:
    """The [Network] sections of networkd.conf and its drop-ins, in the order in which they count."""
    main = [file for file in files if file.path == CONF and file.exists and file.error is None]
    parts = [*main, *winning(below(files, *CONF_FOLDERS, suffix=".conf"))]
    return [section for file in parts for section in named(sections(file, problems), "Network")]


def purges_foreign(files: Sequence[HostFile], key: str = RULES_KEY) -> tuple[bool, Place | None]:
    """Whether networkd removes rules (or, by the other key, routes) that it does not own, and where that is said."""
    said = [setting for section in configuration(files, []) for setting in section.settings if setting.key == key]
    return is_yes(said[-1].value if said else None, default=True), said[-1].place if said else None


def table_names(files: Sequence[HostFile]) -> dict[str, int]:
    """The names of tables that networkd knows."""
    names = dict(PREDEFINED_TABLES)
    for section in configuration(files, []):
        for setting in section.all("RouteTable"):
            for pair in setting.value.split():
                name, _colon, number = pair.partition(":")
                if number.isdecimal():
                    names[name] = int(number)
    return names


def read(files: Sequence[HostFile], links: Sequence[Link]) -> ManagerConfig:
    """Read everything that networkd configures on the given links."""
    collector = ConfigCollector("networkd")
    _state(files, links, collector)
    names = table_names(files)
    configuration(files, collector.problems)
    networks = []
    for file in winning(below(files, *FOLDERS, suffix=".network")):
        # An empty file, or a link to /dev/null, masks those of its name.
        if not file.text or not collector.readable(file):
            continue
        name = file.path.rpartition("/")[2]
        parts = [file, *winning(below(files, *(f"{folder}/{name}.d" for folder in FOLDERS), suffix=".conf"))]
        found = [section for part in parts for section in sections(part, collector.problems)]
        networks.append((file, found))
    for link in links:
        for file, found in networks:
            if _matches(found, link):
                _network(file, found, link, names, collector)
                break
    return collector.config()


def at_work(files: Sequence[HostFile], links: Sequence[Link]) -> bool:
    """Whether networkd says of any link that it manages it at this moment."""
    return read(files, links).active


def file_of(files: Sequence[HostFile], links: Sequence[Link], interface: str) -> str | None:
    """The path of the .network file that configures a link; None where none does."""
    managed = [link for link in read(files, links).links if link.interface == interface]
    present = {file.path for file in files if file.exists}
    for link in sorted(managed, key=lambda link: link.active):
        path = _whole_file(link.place.path)
        # What networkd still goes by may have been removed since.
        if path.endswith(".network") and path in present:
            return path
    return None


def network_name(path: str) -> str:
    """The name by which a .network file and its drop-ins go together, in whatever folders they lie."""
    return _whole_file(path).rpartition("/")[2]


def _whole_file(path: str) -> str:
    """The file that a drop-in belongs to, which may be what says what the file is for; any other is whole itself."""
    folder, _slash, name = path.rpartition("/")
    return folder.removesuffix(".d") if name.endswith(".conf") else path


def _state(files: Sequence[HostFile], links: Sequence[Link], collector: ConfigCollector) -> None:
    by_index = {str(link.index): link for link in links}
    for file in below(files, STATE_FOLDER):
        link = by_index.get(file.path.rpartition("/")[2])
        if link is None or not collector.readable(file):
            continue
        said = dict(line.partition("=")[::2] for line in file.text.splitlines())
        if said.get("ADMIN_STATE", "unmanaged") not in ("unmanaged", "pending", "initialized"):
            network = said.get("NETWORK_FILE", "")
            collector.links.append(
                ManagedLink(link.name, Place(network or file.path, 1, "networkd's own state"), active=True)
            )


def _matches(found: Sequence[Section], link: Link) -> bool:
    settings = [setting for section in named(found, "Match") for setting in section.settings]
    if not any(setting.value for setting in settings) or {setting.key for setting in settings} - _MATCHED:
        # Without [Match] a file is for every link, which networkd itself warns about; what is not known here
        # (drivers, paths, hosts) is not guessed.
        return not settings
    kind = "wlan" if link.wireless else "loopback" if link.name == "lo" else "ether"
    values = {"Name": link.name, "Kind": link.kind or "", "Type": kind,
              "MACAddress": (link.mac or "").lower(), "PermanentMACAddress": (link.mac or "").lower()}  # fmt: skip
    return all(_one_matches(setting.value, values[setting.key], setting.key) for setting in settings)


def _one_matches(pattern: str, value: str, key: str) -> bool:
    words = pattern.split()
    inverted = bool(words) and words[0].startswith("!")
    if inverted:
        words[0] = words[0][1:]
    if key.endswith("MACAddress"):
        words = [word.lower().replace("-", ":") for word in words]
    return any(fnmatchcase(value, word) for word in words if word) != inverted


def _network(
    file: HostFile, found: Sequence[Section], link: Link, names: dict[str, int], collector: ConfigCollector
) -> None:
    for section in named(found, "Link"):
        if is_yes(section.get("Unmanaged"), default=False):
            return
    first = next(named(found, "Match"), found[0] if found else None)
    dhcp = any(section.get("DHCP") in ("yes", "ipv4", "true", "1") for section in named(found, "Network"))
    collector.links.append(
        ManagedLink(link.name, first.place if first else Place(file.path, 1), method="dhcp" if dhcp else "static")
    )
    for section in found:
        try:
            if section.name == "RoutingPolicyRule":
                collector.entries.append(_rule(section, link, names))
            elif section.name == "Route":
                collector.entries.append(_route(section, link, names))
        except ValueError:
            collector.problems.append(
                ParseProblem(section.place.path, section.place.line, f"{section.name} {UNREADABLE}")
            )


def number(table: str, names: dict[str, int]) -> int | None:
    """The number of a table that is written as number or name; None where the name is not known."""
    return int(table) if table.isdecimal() else names.get(table)


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
        unread=tuple(f"{word} {section.get(key)}" for key, word in ports.items() if section.get(key)),
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
    found = number(table, names)
    route = Route(
        family=family,
        table=found if found is not None else 0,
        destination=prefix(destination) or ("::/0" if family == 6 else "0.0.0.0/0"),
        type=kind,
        nexthops=hops,
        metric=int(metric) if metric else 0,
    )
    return WrittenRoute(
        place=section.place_of("Table"), interface=link.name, route=route, table=table, gateway_computed=computed
    )


def prefix(value: str | None) -> str | None:
    """A prefix in CIDR form; None for one that is left out or selects everything.

    Raises:
        ValueError: when it is none.
    """
    if not value or value in ("default", "any", "all"):
        return None
    network = ip_network(value, strict=False)
    return None if network.prefixlen == 0 else str(network)
