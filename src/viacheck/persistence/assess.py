"""Which manager configures the uplink, whether its files contain rule and route, and what they lack (PERSIST-01)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import TypeVar, get_args

from viacheck.analysis.agent_rules import selects_agent
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.routing.identity import SameTuple
from viacheck.analysis.table_names import number_of
from viacheck.model.config_entry import ParseProblem, Place, TableNumberOf, WrittenRoute, WrittenRule
from viacheck.model.intent import Intent
from viacheck.model.namespace_state import Link
from viacheck.model.policy_rule import rule_text
from viacheck.model.snapshot import HostFile, Snapshot
from viacheck.parsers.rt_tables import registered
from viacheck.persistence import boot_files, ifupdown, manager_answers, netplan, networkd, networkmanager
from viacheck.persistence.manager_config import OWN_NAMES, PREDEFINED_TABLES, ManagedLink, Manager, ManagerConfig
from viacheck.persistence.manager_units import UNITS, NotStarted, not_started

EntryT = TypeVar("EntryT", WrittenRule, WrittenRoute)
MANAGERS: tuple[Manager, ...] = get_args(Manager)
_BY_FILES_FIRST: tuple[Manager, ...] = ("netplan", "ifupdown", "networkd", "networkmanager")
"""The manager whose files count when several name an interface and none manages it at this moment, first to last."""
_UNRELATED = ""
"""The reason of an entry that has nothing to do with the intent."""


@dataclass(frozen=True, slots=True)
class Persistence:
    """The rules and routes of the intent that the host's files set again."""

    manager: Manager | None
    """The manager that the intent names, else the one that manages the uplink; None when no manager does."""
    link: ManagedLink | None
    """The uplink in that manager's configuration."""
    configs: Mapping[Manager, ManagerConfig]
    rules: tuple[WrittenRule, ...]
    """The rules that send the agent's subnet to the table, and come back by themselves."""
    routes: tuple[WrittenRoute, ...]
    """The routes of the table by the intended gateway and uplink that come back by themselves."""
    missing: tuple[str, ...]
    """What the files lack, in one sentence each."""
    ineffective: tuple[tuple[Place, str], ...]
    """The lines that resemble the rule or route, each with the reason why it does not count."""
    elsewhere: tuple[WrittenRule | WrittenRoute, ...] = ()
    """What the manager's files lack and other files of the host set: rc.local, units, dispatchers (boot_files)."""
    at_boot_only: tuple[Place, ...] = ()
    """The lines of ``elsewhere`` that set a route at boot, and not when its interface comes up again."""
    differences: tuple[str, ...] = ()
    """The differences between the managers' own answers and their files, in one sentence each."""
    unit: NotStarted | None = None
    """The unit of the manager, if nothing starts it at boot."""

    @property
    def holds(self) -> bool:
        """The files contain rule and route."""
        return not self.missing

    @property
    def problems(self) -> tuple[ParseProblem, ...]:
        """The parts of the manager's files that cannot be read."""
        return self.configs[self.manager].problems if self.manager else ()

    @property
    def entries(self) -> tuple[WrittenRule | WrittenRoute, ...]:
        """The rules and the routes."""
        return (*self.rules, *self.routes, *self.elsewhere)

    def config_of(self, rule: WrittenRule) -> ManagerConfig:
        """Return the configuration that contains a rule."""
        return next(
            config for config in self.configs.values() if any(candidate is rule for candidate in config.rules)
        )  # fmt: skip

    @property
    def places(self) -> tuple[Place, ...]:
        """The lines of rule and route."""
        return tuple(entry.place for entry in self.entries)


def must_persist(intent: Intent) -> bool:
    """Whether rule and route must persist: policy routing that is not typed by hand on purpose."""
    return intent.policy_routed and intent.egress.persist != "none"


def table_names(snapshot: Snapshot) -> TableNumberOf:
    """Return the function by which iproute2 on this host turns a table's name into its number."""
    return names_in(snapshot.files)


def names_in(files: Sequence[HostFile]) -> TableNumberOf:
    """Return the function by which iproute2 turns a table's name into its number on a host with these files."""
    known = registered(files)

    def number(table: str) -> int | None:
        if table.isdecimal() or table.startswith("0x"):
            try:
                return int(table, 0)
            except ValueError:
                return None
        registered_number = number_of(known, table)
        return registered_number if registered_number is not None else PREDEFINED_TABLES.get(table)

    return number


def read_all(snapshot: Snapshot) -> dict[Manager, ManagerConfig]:
    """Read the files of every manager."""
    return dict(_read_all(SameTuple(snapshot.files), SameTuple(snapshot.host.links)))


@lru_cache(maxsize=2)
def _read_all(of_host: SameTuple[HostFile], of_links: SameTuple[Link]) -> dict[Manager, ManagerConfig]:
    """Read the files of every manager, once for all checks and causes."""
    files, links, names = of_host.entries, of_links.entries, names_in(of_host.entries)
    return {
        "ifupdown": ifupdown.read(files, names),
        "networkd": networkd.read(files, links),
        "networkmanager": networkmanager.read(files, links, names),
        "netplan": netplan.read(files, links),
    }


@lru_cache(maxsize=2)
def boot_files_of(files: SameTuple[HostFile], managers_unit: str | None = None) -> boot_files.BootFiles:
    """Read what other files than the managers' set at boot; see :func:`viacheck.persistence.boot_files.read`."""
    return boot_files.read(files.entries, names_in(files.entries), managers_unit)


def networkd_links(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the links that systemd-networkd manages at this moment."""
    links = networkd.read(snapshot.files, snapshot.host.links).links
    return tuple(link.interface for link in links if link.active)


def networkmanager_links(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the links that NetworkManager manages at this moment."""
    links = networkmanager.read(snapshot.files, snapshot.host.links, lambda _name: None).links
    return tuple(link.interface for link in links if link.active)


def netplan_links(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the links that netplan's files name."""
    return tuple(link.interface for link in netplan.read(snapshot.files, snapshot.host.links).links)


def manager_of(configs: Mapping[Manager, ManagerConfig], uplink: str) -> Manager | None:
    """Return the manager of an interface: the one that manages it at this moment, else the one whose files name it.

    Where netplan names it, netplan: it generates the files of the manager below it again at each boot.
    """
    active = [
        manager
        for manager in MANAGERS
        if any(link.active and link.interface == uplink for link in configs[manager].links)
    ]
    by_files = [manager for manager in _BY_FILES_FIRST if configs[manager].configured_link(uplink)]
    if active and active[0] != "ifupdown" and "netplan" in by_files:
        return "netplan"
    return next(iter((*active, *by_files)), None)


@lru_cache(maxsize=2)
def assess_persistence(resolved: ResolvedIntent) -> Persistence:
    """Assess which rules and routes of the intent the host's files set again, once for all checks and causes.

    The intent must have policy routing.
    """
    uplink, wanted = resolved.uplink, resolved.intent.egress.persist
    files = read_all(resolved.snapshot)
    configs, differences = manager_answers.prefer_manager_answers(files, resolved.snapshot, uplink)
    manager: Manager | None = manager_of(configs, uplink) if wanted is None or wanted == "none" else wanted
    unit_of_manager = UNITS[manager][0] if manager in UNITS else None
    boot = boot_files_of(SameTuple(resolved.snapshot.files), unit_of_manager)
    if manager is None and wanted is None:
        kept_rule, kept_route = _kept_elsewhere(resolved, boot, rules=True, routes=True)
        if kept_rule is not None and kept_route is not None:
            at_boot_only = (kept_route.place,) if kept_route in boot.entries["boot"] else ()
            return Persistence(
                None, None, configs, (), (), (), tuple(boot.ineffective), (kept_rule, kept_route), at_boot_only,
                differences,
            )  # fmt: skip
    if manager is None:
        missing = f"nothing manages {uplink}: neither ifupdown, systemd-networkd, NetworkManager nor netplan names it"
        return Persistence(None, None, configs, (), (), (missing,), tuple(boot.ineffective), differences=differences)
    config = configs[manager]
    link = config.configured_link(uplink) or config.link(uplink)
    rules, ineffective_rules = _part(config.rules, lambda rule: _rule_fault(resolved, config, rule))
    routes, ineffective_routes = _part(config.routes, lambda route: _route_fault(resolved, config, route))
    if not rules and wanted is None:
        # A rule outlives its interface, so any manager that is active on this host may set it.
        rules = [
            rule
            for other in MANAGERS
            if other != manager and configs[other].active
            for rule in configs[other].rules
            if _rule_fault(resolved, configs[other], rule) is None
        ]
    elsewhere_rule, elsewhere_route = _kept_elsewhere(resolved, boot, rules=not rules, routes=not routes)
    elsewhere = tuple(entry for entry in (elsewhere_rule, elsewhere_route) if entry is not None)
    lacking, unit = list(_link_faults(manager, link, resolved)), not_started(resolved.snapshot.files, manager)
    if unit is not None:
        lacking.append(f"{unit}, so nothing reads the files of {OWN_NAMES[manager]} at boot")
    if not rules and elsewhere_rule is None:
        table = resolved.intent.egress.table_name
        name = f"{resolved.table} ({table})" if table else f"{resolved.table}"
        source = resolved.agent_subnet or resolved.agent_source
        lacking.append(f"a rule from {source} to table {name} is not in the files of {OWN_NAMES[manager]}")
    if not routes and elsewhere_route is None:
        via = f"via {resolved.intent.gateway} " if resolved.intent.gateway is not None else ""
        route = f"a route default {via}dev {uplink} in table {resolved.table}"
        lacking.append(f"{route} is not in the files of {OWN_NAMES[manager]}")
    return Persistence(
        manager, link, configs, tuple(rules), tuple(routes), tuple(lacking),
        (*ineffective_rules, *ineffective_routes, *boot.ineffective), elsewhere,
        tuple(entry.place for entry in elsewhere if entry is elsewhere_route and entry in boot.entries["boot"]),
        differences, unit,
    )  # fmt: skip


def _kept_elsewhere(
    resolved: ResolvedIntent, boot: boot_files.BootFiles, *, rules: bool, routes: bool
) -> tuple[WrittenRule | None, WrittenRoute | None]:
    """Return the rule and the route that other files than the manager's set, those first that run at each change."""
    any_config = ManagerConfig(manager="ifupdown")
    entries = [*boot.entries["interface"], *boot.entries["boot"]]
    rule = next(
        (
            entry
            for entry in entries
            if rules and isinstance(entry, WrittenRule) and _rule_fault(resolved, any_config, entry) is None
        ),
        None,
    )
    route = next(
        (
            entry
            for entry in entries
            if routes and isinstance(entry, WrittenRoute) and _route_fault(resolved, any_config, entry) is None
        ),
        None,
    )
    return rule, route


def _part(
    entries: Iterable[EntryT], fault_of: Callable[[EntryT], str | None]
) -> tuple[list[EntryT], list[tuple[Place, str]]]:
    """Part entries into those that count and, with their faults, those that only resemble one that does."""
    effective, ineffective = [], []
    for entry in entries:
        fault = fault_of(entry)
        if fault is None:
            effective.append(entry)
        elif fault != _UNRELATED:
            ineffective.append((entry.place, fault))
    return effective, ineffective


def _link_faults(manager: Manager, link: ManagedLink | None, resolved: ResolvedIntent) -> Iterable[str]:
    name, uplink, gateway = OWN_NAMES[manager], resolved.uplink, resolved.intent.gateway
    if link is None:
        yield f"{name} does not manage {uplink}: its files do not name it"
    elif manager == "ifupdown" and not link.at_boot:
        yield f"no auto or allow-hotplug line makes {name} bring {uplink} up"
    elif manager == "networkmanager" and not link.at_boot:
        yield f"the profile of {uplink} says autoconnect=false"
    if link is not None and gateway is not None and not link.reaches(str(gateway)):
        addresses = ", ".join(link.addresses or ()) or "no address"
        yield f"{name} gives {uplink} {addresses}, so the gateway {gateway} is not on the link"


def is_the_table(resolved: ResolvedIntent, number: int | None, table: str) -> bool:
    """Whether a configured table is the intent's, by number or by name. The name need not be registered."""
    return number == resolved.table or table == resolved.intent.egress.table_name


def _rule_fault(resolved: ResolvedIntent, config: ManagerConfig, entry: WrittenRule) -> str | None:
    """Return why a configured rule does not count; None when it does, ``_UNRELATED`` for another purpose."""
    rule = entry.rule
    if rule.family != 4 or rule.action != "lookup":
        return _UNRELATED
    to_table, fits = is_the_table(resolved, rule.table, entry.table), selects_agent(resolved, rule)
    if not to_table:
        takes_all = fits and rule.suppress_prefixlength is None and not rule.destination
        return f"the rule leads to table {entry.table}, not to {resolved.table}" if takes_all else _UNRELATED
    if not fits or rule.narrowed:
        text = rule_text(rule, table=entry.table, with_priority=False)
        return f"the rule does not select all packets of the agent: {text}"
    return _not_set_again(config, entry, resolved.uplink)


def _route_fault(resolved: ResolvedIntent, config: ManagerConfig, entry: WrittenRoute) -> str | None:
    """Return why a configured route does not count; None when it does, ``_UNRELATED`` for another purpose."""
    route, uplink = entry.route, resolved.uplink
    if route.family != 4 or not is_the_table(resolved, route.table or None, entry.table) or route.type != "unicast":
        return _UNRELATED
    if ip_address(resolved.target) not in route.network:
        return _UNRELATED
    gateways = {hop.gateway for hop in route.nexthops}
    interfaces = {hop.interface for hop in route.nexthops if hop.interface}
    if not entry.gateway_computed and not (gateways and all(map(resolved.accepts_gateway, gateways))):
        actual = ", ".join(sorted(gateway or "no gateway" for gateway in gateways)) or "no gateway"
        return f"the route leads to {actual}, not to {resolved.intent.gateway or 'a gateway'}"
    if interfaces - {uplink}:
        return f"the route leads out by {', '.join(sorted(interfaces))}, not by {uplink}"
    if entry.interface not in (None, uplink):
        return f"the route stands under {entry.interface}: nothing sets it again when {uplink} comes up"
    return _not_set_again(config, entry, uplink)


def _not_set_again(config: ManagerConfig, entry: WrittenRule | WrittenRoute, uplink: str) -> str | None:
    """Return why a correct rule or route is not set again. Whether the uplink itself comes up is another question."""
    if entry.phase not in ("pre-up", "up"):
        return f"it stands under '{entry.phase}', which runs when the interface goes down"
    if entry.place.volatile:
        return "/run is empty after a reboot"
    other = entry.interface if entry.interface != uplink else None
    link = config.configured_link(other) if other is not None else None
    if link is not None and not link.at_boot:
        return f"nothing brings {entry.interface} up at boot"
    return None
