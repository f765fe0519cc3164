"""Who manages the uplink, whether rule and route are written down for it, and what is missing (PERSIST-01)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import get_args

from viacheck.analysis.agent_rules import selects_agent
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.config_entry import ParseProblem, Place, TableNumberOf, WrittenRoute, WrittenRule
from viacheck.model.intent import Intent
from viacheck.model.iproute_text import rule_text
from viacheck.model.snapshot import Snapshot
from viacheck.parsers.rt_tables import number_of, registered
from viacheck.persistence import ifupdown, manager_answers, netplan, networkd, networkmanager
from viacheck.persistence.manager_config import OWN_NAMES, PREDEFINED_TABLES, ManagedLink, Manager, Written

MANAGERS: tuple[Manager, ...] = get_args(Manager)
_STANDING_FIRST: tuple[Manager, ...] = ("netplan", "ifupdown", "networkd", "networkmanager")
"""Whose files count when several name an interface and none says that it holds it at this moment."""


@dataclass(frozen=True, slots=True)
class Persistence:
    """What the files make persist of the intent."""

    manager: Manager | None
    """Who must have rule and route: whom the intent names, else who manages the uplink; None when nobody does."""
    holding: ManagedLink | None
    """That manager's hold on the uplink."""
    written: dict[Manager, Written]
    rules: tuple[WrittenRule, ...]
    """The rules that send the agent's subnet to the table, and come back by themselves."""
    routes: tuple[WrittenRoute, ...]
    """The routes of the table by the intended gateway and uplink that come back by themselves."""
    missing: tuple[str, ...]
    """What is not written down, in one sentence each."""
    astray: tuple[tuple[Place, str], ...]
    """Lines that come near, and why they do not count."""
    differences: tuple[str, ...] = ()
    """Where the managers' own words differ from what was read of their files."""

    @property
    def holds(self) -> bool:
        """Rule and route are written down."""
        return not self.missing

    @property
    def problems(self) -> tuple[ParseProblem, ...]:
        """What could not be read of the manager's files."""
        return self.written[self.manager].problems if self.manager else ()

    @property
    def entries(self) -> tuple[WrittenRule | WrittenRoute, ...]:
        """The rules and the routes."""
        return (*self.rules, *self.routes)

    def reading_of(self, rule: WrittenRule) -> Written:
        """Whose files a rule is in."""
        return next(written for written in self.written.values() if any(one is rule for one in written.rules))

    @property
    def places(self) -> tuple[Place, ...]:
        """Where rule and route stand."""
        return tuple(entry.place for entry in self.entries)


def must_persist(intent: Intent) -> bool:
    """Whether anything must be persistent: policy routing that is not typed by hand on purpose."""
    return intent.policy_routed and intent.egress.persist != "none"


def table_names(snapshot: Snapshot) -> TableNumberOf:
    """How iproute2 on this host turns the name of a table into its number."""
    known = registered(snapshot.files)

    def number(table: str) -> int | None:
        if table.isdecimal() or table.startswith("0x"):
            try:
                return int(table, 0)
            except ValueError:
                return None
        found = number_of(known, table)
        return found if found is not None else PREDEFINED_TABLES.get(table)

    return number


def read_all(snapshot: Snapshot) -> dict[Manager, Written]:
    """Read the files of every manager."""
    files, links, names = snapshot.files, snapshot.host.links, table_names(snapshot)
    return {
        "ifupdown": ifupdown.read(files, names),
        "networkd": networkd.read(files, links),
        "networkmanager": networkmanager.read(files, links, names),
        "netplan": netplan.read(files, links),
    }


def networkd_links(snapshot: Snapshot) -> tuple[str, ...]:
    """The links that systemd-networkd manages at this moment."""
    held = networkd.read(snapshot.files, snapshot.host.links).holdings
    return tuple(holding.interface for holding in held if holding.now)


def managing(written: dict[Manager, Written], uplink: str) -> Manager | None:
    """Who manages an interface: who says so at this moment, else whose files name it.

    Where netplan names it, netplan: what works below it is written anew at each boot.
    """
    now = [manager for manager in MANAGERS if any(h.now and h.interface == uplink for h in written[manager].holdings)]
    by_files = [manager for manager in _STANDING_FIRST if written[manager].stanza(uplink)]
    if now and now[0] != "ifupdown" and "netplan" in by_files:
        return "netplan"
    return next(iter((*now, *by_files)), None)


def assess_persistence(resolved: ResolvedIntent) -> Persistence:
    """Assess which rules and routes of the intent the host's files bring back. The intent must have policy routing."""
    uplink, table = resolved.uplink, _table_words(resolved)
    written, differences = manager_answers.prefer_manager_answers(
        read_all(resolved.snapshot), resolved.snapshot, uplink
    )
    wanted = resolved.intent.egress.persist
    manager: Manager | None = managing(written, uplink) if wanted is None or wanted == "none" else wanted
    what_rule = f"a rule from {resolved.agent_subnet or resolved.agent_source} to table {table}"
    what_route = f"a route default via {resolved.intent.gateway} dev {uplink} in table {table}"
    if manager is None:
        missing = f"nothing manages {uplink}: neither ifupdown, systemd-networkd, NetworkManager nor netplan names it"
        return Persistence(None, None, written, (), (), (missing,), (), differences)
    mine = written[manager]
    holding = mine.stanza(uplink) or mine.holding(uplink)
    astray: list[tuple[Place, str]] = []
    rules, routes, missing_parts = [], [], []
    for rule in mine.rules:
        reason = _rule_astray(resolved, mine, rule)
        if reason is None:
            rules.append(rule)
        elif reason:
            astray.append((rule.place, reason))
    for route in mine.routes:
        reason = _route_astray(resolved, mine, route)
        if reason is None:
            routes.append(route)
        elif reason:
            astray.append((route.place, reason))
    if not rules:
        # A rule outlives its interface, so that whoever is at work on this host may bring it.
        rules = [
            rule
            for other in MANAGERS
            if other != manager and wanted is None and written[other].active
            for rule in written[other].rules
            if _rule_astray(resolved, written[other], rule) is None
        ]
    name = OWN_NAMES[manager]
    if holding is None:
        missing_parts.append(f"{name} does not manage {uplink}: its files do not name it")
    elif manager == "ifupdown" and not holding.at_boot:
        missing_parts.append(f"no auto or allow-hotplug line has {name} bring {uplink} up")
    elif manager == "networkmanager" and not holding.at_boot:
        missing_parts.append(f"the profile of {uplink} says autoconnect=false")
    if not rules:
        missing_parts.append(f"{what_rule} is not written down for {name}")
    if not routes:
        missing_parts.append(f"{what_route} is not written down for {name}")
    return Persistence(
        manager, holding, written, tuple(rules), tuple(routes), tuple(missing_parts), tuple(astray), differences
    )  # fmt: skip


def _table_words(resolved: ResolvedIntent) -> str:
    name = resolved.intent.egress.table_name
    return f"{resolved.table} ({name})" if name else str(resolved.table)


def is_the_table(resolved: ResolvedIntent, number: int | None, written: str) -> bool:
    """Whether a written table is the intent's, by number or by name; that the name is known is another question."""
    return number == resolved.table or written == resolved.intent.egress.table_name


def _rule_astray(resolved: ResolvedIntent, mine: Written, written: WrittenRule) -> str | None:
    """Why a rule does not count: None when it does, an empty reason when it has nothing to do with the intent."""
    rule = written.rule
    if rule.family != 4 or rule.action != "lookup":
        return ""
    to_table, fits = is_the_table(resolved, rule.table, written.table), selects_agent(resolved, rule)
    if not to_table:
        main = fits and rule.suppress_prefixlength is None and not rule.destination
        return f"the rule leads to table {written.table}, not to {resolved.table}" if main else ""
    if not fits or rule.narrowed:
        text = rule_text(rule, table=written.table, with_priority=False)
        return f"the rule does not select all packets of the agent: {text}"
    return _not_back(mine, written, resolved.uplink)


def _route_astray(resolved: ResolvedIntent, mine: Written, written: WrittenRoute) -> str | None:
    """The same for a route."""
    route, uplink = written.route, resolved.uplink
    if route.family != 4 or not is_the_table(resolved, route.table or None, written.table) or route.type != "unicast":
        return ""
    if ip_address(resolved.target) not in route.network:
        return ""
    gateways = {hop.gateway for hop in route.nexthops}
    interfaces = {hop.interface for hop in route.nexthops if hop.interface}
    if not written.gateway_computed and gateways != {str(resolved.intent.gateway)}:
        found = ", ".join(sorted(str(gateway) for gateway in gateways)) or "no gateway"
        return f"the route leads to {found}, not to {resolved.intent.gateway}"
    if interfaces - {uplink}:
        return f"the route leads out by {', '.join(sorted(interfaces))}, not by {uplink}"
    if written.interface not in (None, uplink):
        return f"the route stands under {written.interface}: it is not put back when {uplink} comes up again"
    return _not_back(mine, written, uplink)


def _not_back(mine: Written, written: WrittenRule | WrittenRoute, uplink: str) -> str | None:
    """Why a rule or route that is right does not come back. That the uplink itself is started is asked elsewhere."""
    if written.phase not in ("pre-up", "up"):
        return f"it stands under '{written.phase}', which is run when the interface goes"
    if written.place.volatile:
        return "/run is empty after a reboot"
    other = written.interface if written.interface != uplink else None
    stanza = mine.stanza(other) if other is not None else None
    if stanza is not None and not stanza.at_boot:
        return f"nothing brings {written.interface} up at boot"
    return None
