"""Writes rule and route for each manager, with this host's own values: the text, and the edits that put it there.

The recipe closes the gaps of the guide's: fixed priorities, each rule deleted before it is added, and an unreachable
route behind the real one, so that no other route takes the agent's packets while the uplink is down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from viacheck.analysis.agent_rules import (
    BACKSTOP_METRIC,
    FIXED_PRIORITY,
    LOCAL_PRIORITY,
    rules_for_agent,
    selects_agent,
)
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.policy_rule import Rule, rule_arguments, rule_text
from viacheck.model.route import Nexthop, Route, route_command
from viacheck.model.routing_names import TABLE_MAIN
from viacheck.parsers.iproute import EVERYTHING
from viacheck.persistence import ifupdown, netplan, networkd, networkmanager
from viacheck.persistence.file_edit import Arguments, ReversibleEdit, in_diffs, insert_lines, new_file, replace_line
from viacheck.persistence.manager_config import ManagedLink, Manager
from viacheck.persistence.unified_diff import LineChange

NAME = "viacheck"
"""The first part of the names of new files."""
LOOPBACK = "lo"
RELOAD: Arguments = ("networkctl", "reload")
APPLY: Arguments = ("netplan", "apply")
"""The commands that make networkd and netplan read their files."""
PASSTHROUGH_NUMBER = 91
"""The first number of the rules and routes that netplan passes on to NetworkManager."""
GENERATE: Arguments = ("netplan", "generate")
"""The command that writes the files of netplan's renderer, which goes on as it is."""
PRIVATE = "600"
"""The mode of netplan's files, which hold keys of wireless networks."""


KERNEL_CHOSEN_PRIORITY = 32000
"""From this priority on, the kernel has chosen it for a rule that was added without a priority."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The rule, the route and the entries that belong to them, with this host's values."""

    source: str
    table: int
    uplink: str
    gateway: str | None
    """None: a point-to-point uplink."""
    priority: int
    """The priority of the rule that sends the agent's packets to the table."""
    backstop_metric: int
    """Higher than the metric of the real route."""
    local_priority: int | None = None
    """The priority of the rule that keeps local networks local, if that rule must persist too."""
    local_networks: tuple[str, ...] = ()
    """The networks that the host is attached to, for a manager that needs a rule for each."""
    with_rule: bool = True
    """The rules are to be written."""
    with_route: bool = True
    """The routes are to be written."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, in the order of their priorities."""
        if not self.with_rule:
            return ()
        rule = Rule(family=4, priority=self.priority, source=self.source, table=self.table)
        if self.local_priority is None:
            return (rule,)
        return replace(rule, priority=self.local_priority, table=TABLE_MAIN, suppress_prefixlength=0), rule

    @property
    def route(self) -> Route:
        """The default route by the uplink."""
        hop = Nexthop(gateway=self.gateway, interface=self.uplink)
        return Route(family=4, table=self.table, destination=EVERYTHING[4], nexthops=(hop,))

    @property
    def backstop(self) -> Route:
        """The unreachable route that decides while the default route is missing."""
        return Route(
            family=4, table=self.table, destination=EVERYTHING[4], type="unreachable", metric=self.backstop_metric
        )


def recipe_for(resolved: ResolvedIntent) -> Recipe | None:
    """Return the rule and the route to write, with this host's values; None while the agent's subnet is not known."""
    source = resolved.agent_subnet or resolved.agent_source
    if source is None:
        return None
    selecting = rules_for_agent(resolved)
    # Beside a rule for a mark it is the rule for the subnet that is written.
    rules = [rule for rule in selecting if rule.source is not None] or selecting
    fixed = [rule.priority for rule in rules if 0 < rule.priority < KERNEL_CHOSEN_PRIORITY]
    local = [rule.priority for rule in resolved.snapshot.host.rules_of(4) if _keeps_local(resolved, rule)]
    priority, gateway = fixed[0] if fixed else FIXED_PRIORITY, resolved.intent.gateway
    return Recipe(
        str(source), resolved.table, resolved.uplink, str(gateway) if gateway is not None else None,
        priority=priority, backstop_metric=BACKSTOP_METRIC,
        local_priority=(local[0] if local[0] < priority else min(LOCAL_PRIORITY, priority - 1)) if local else None,
        local_networks=tuple(
            dict.fromkeys(
                str(address.network)
                for address in resolved.snapshot.host.addresses
                if address.family == 4 and address.interface != LOOPBACK and 0 < address.prefixlen < 32
            )
        ),
    )  # fmt: skip


def _keeps_local(resolved: ResolvedIntent, rule: Rule) -> bool:
    """Whether a rule sends the agent's packets to local networks by the main table: to all of them, or to one."""
    by_main = rule.action == "lookup" and rule.table == TABLE_MAIN
    return by_main and (rule.suppress_prefixlength == 0 or bool(rule.destination)) and selects_agent(resolved, rule)


def _is_typed(resolved: ResolvedIntent, wanted: Recipe) -> bool:
    """Whether the kernel has the entries already: a manager that reads its files takes them for its own."""
    return bool(
        (not wanted.with_rule or resolved.rules_to_the_table) and (not wanted.with_route or resolved.table_routes)
    )


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """The text to write for one manager, and the edits that put it there; no edits where a person must choose."""

    path: str
    text: str
    edits: tuple[ReversibleEdit, ...] = ()
    reload: tuple[Arguments, ...] = ()
    """The commands that make the manager read its files."""
    reload_after_rollback: tuple[Arguments, ...] = ()
    decision: str | None = None
    """What a person must choose, where there are no edits for another reason than the uplink's address."""


def config_change(
    manager: Manager,
    resolved: ResolvedIntent,
    wanted: Recipe,
    link: ManagedLink | None = None,
    beside: Sequence[LineChange] = (),
) -> ConfigChange:
    """Return the text and the edits for a manager.

    Args:
        manager: the manager of the uplink.
        resolved: the host.
        wanted: the rule and the route.
        link: the uplink in the manager's present configuration, if it is there.
        beside: changes of other lines that belong to it.
    """
    if manager == "ifupdown":
        return _ifupdown(resolved, wanted, link, beside)
    change = _in_own_files(manager, resolved, wanted, link)
    return replace(change, edits=(*change.edits, *in_diffs(resolved.snapshot, beside))) if change.edits else change


def _in_own_files(manager: Manager, resolved: ResolvedIntent, wanted: Recipe, link: ManagedLink | None) -> ConfigChange:
    """Return the change for a manager other than ifupdown."""
    if not (wanted.rules or wanted.with_route) and (link is None or link.at_boot):
        return ConfigChange("", "")
    if manager == "networkd":
        return _networkd(resolved, wanted)
    if manager == "networkmanager":
        return _networkmanager(resolved, wanted, link)
    return _netplan(resolved, wanted)


def _ifupdown_rule(rule: Rule) -> list[str]:
    """Return a rule for ifupdown: two lines that can run any number of times."""
    table = "main" if rule.table == TABLE_MAIN else None
    return [
        f"post-up ip rule del priority {rule.priority} 2>/dev/null || true",
        f"post-up ip rule add {rule_text(rule, table=table)}",
    ]


def _ifupdown(
    resolved: ResolvedIntent, wanted: Recipe, link: ManagedLink | None, beside: Sequence[LineChange]
) -> ConfigChange:
    files = resolved.snapshot.files
    uplink, loopback = ifupdown.last_line(files, wanted.uplink), ifupdown.last_line(files, LOOPBACK)
    rules = [line for rule in wanted.rules for line in _ifupdown_rule(rule)]
    rules += [f"post-up {route_command('replace', wanted.backstop)}"] if wanted.with_route else []
    route = [f"post-up {route_command('replace', wanted.route)}"] if wanted.with_route else []
    if uplink is None:
        # How the uplink gets its address is a person's choice.
        text = _indented([*rules, *route])
        return ConfigChange(ifupdown.INTERFACES, f"auto {wanted.uplink}\niface {wanted.uplink} inet …\n{text}")
    parts = [(loopback or uplink, _indented(rules)), (uplink, _indented(route))]
    if loopback is None:
        parts = [(uplink, _indented([*rules, *route]))]
    text = "".join(
        f"iface {LOOPBACK if place is loopback else wanted.uplink} …\n{lines}" for place, lines in parts if lines
    )
    insertions = [(place.path, place.line, lines) for place, lines in parts if lines]
    if link is not None and not link.at_boot:
        text = f"auto {wanted.uplink}\n{text}"
        insertions.append((link.place.path, link.place.line - 1, f"auto {wanted.uplink}\n"))
    edits = in_diffs(resolved.snapshot, (*(insert_lines(*insertion) for insertion in insertions), *beside))
    return ConfigChange(uplink.path, text, tuple(edits))


def _indented(lines: list[str]) -> str:
    return "".join(f"    {line}\n" for line in lines)


def _file_name(wanted: Recipe) -> str:
    """Return a name that no other agent's fix has: of the table, and of the source that its rule has."""
    return f"{NAME}-{wanted.table}-{wanted.source.replace('/', '-') if wanted.with_rule else 'route'}"


def loopback_config(manager: Manager, resolved: ResolvedIntent, wanted: Recipe) -> tuple[str, str]:
    """Return the file, and its text, of the entries that must stay while the uplink is down.

    They stand under the loopback, which is always up: networkd removes a link's entries together with the link.

    Args:
        manager: networkd itself, or netplan.
        resolved: the host.
        wanted: the rules and the backstop.
    """
    if manager == "netplan":
        lines = _netplan_text({_netplan_device(resolved, LOOPBACK): _netplan_loopback(wanted)})
        return _netplan_path(wanted, f"-{LOOPBACK}"), lines
    sections = []
    for rule in wanted.rules:
        is_local = rule.table == TABLE_MAIN
        table = "Table=main\nSuppressPrefixLength=0" if is_local else f"Table={wanted.table}"
        sections.append(f"[RoutingPolicyRule]\nPriority={rule.priority}\nFrom={wanted.source}\n{table}\n")
    if wanted.with_route:
        sections.append(
            f"[Route]\nDestination=0.0.0.0/0\nType=unreachable\nMetric={wanted.backstop_metric}\nTable={wanted.table}\n"
        )
    network = networkd.file_of(resolved.snapshot.files, resolved.snapshot.host.links, LOOPBACK)
    if network is not None:
        return _drop_in(network, wanted), "\n".join(sections)
    return f"/etc/systemd/network/{NAME}-{LOOPBACK}.network", "\n".join((f"[Match]\nName={LOOPBACK}\n", *sections))


def _networkd(resolved: ResolvedIntent, wanted: Recipe) -> ConfigChange:
    files = dict([loopback_config("networkd", resolved, wanted)])
    network = networkd.file_of(resolved.snapshot.files, resolved.snapshot.host.links, wanted.uplink)
    via = f"Gateway={wanted.gateway}\n" if wanted.gateway is not None else ""
    route = f"[Route]\nDestination=0.0.0.0/0\n{via}Table={wanted.table}\n"
    if network is None:
        # How the uplink gets its address is a person's choice.
        path = f"/etc/systemd/network/10-{wanted.uplink}.network"
        head = f"[Match]\nName={wanted.uplink}\n\n[Network]\n…\n"
        files[path] = f"{head}\n{route}" if wanted.with_route else head
        return ConfigChange(path, _listing(files))
    if wanted.with_route:
        files[_drop_in(network, wanted)] = route
        others = [
            name
            for name in networkd.links_of(resolved.snapshot.files, resolved.snapshot.host.links, network)
            if name != wanted.uplink
        ]
        if others:
            return ConfigChange(network, _listing(files), decision=_of_its_own(network, wanted, others))
    # Entries that were typed before are networkd's own by then: a reload without the files would remove them.
    return ConfigChange(
        next(iter(files)), _listing(files),
        tuple(new_file(resolved.snapshot, path, text) for path, text in files.items()), (RELOAD,),
        () if _is_typed(resolved, wanted) else (RELOAD,),
    )  # fmt: skip


def _of_its_own(where: str, wanted: Recipe, others: Sequence[str]) -> str:
    """Say that a route would be set on other interfaces as well."""
    return (
        f"{where} configures {', '.join(others)} as well, and would set the route there too: give {wanted.uplink} a "
        "part of its own in these files, with its address, that is read before that one"
    )


def _drop_in(network: str, wanted: Recipe) -> str:
    return f"/etc/systemd/network/{network.rpartition('/')[2]}.d/{_file_name(wanted)}.conf"


def _listing(files: dict[str, str]) -> str:
    return "\n".join(f"# {path}\n{text}" for path, text in files.items())


def _networkmanager(resolved: ResolvedIntent, wanted: Recipe, link: ManagedLink | None) -> ConfigChange:
    files = resolved.snapshot.files
    place = networkmanager.profile_of(files, resolved.snapshot.host.links, wanted.uplink)
    profile = networkmanager.profile_lines(files, place.path) if place is not None else None
    numbers = {key: profile.last_number(key) if profile is not None else 0 for key in ("routing-rule", "route")}
    lines: list[str] = []
    for number, rule in enumerate(wanted.rules, numbers["routing-rule"] + 1):
        # NetworkManager takes the keywords of ip rule, and "table" for "lookup".
        value = " ".join("table" if word == "lookup" else word for word in rule_arguments(rule))
        lines.append(f"routing-rule{number}={value}")
    if wanted.with_route:
        first = numbers["route"] + 1
        lines += [
            f"route{first}=0.0.0.0/0{f',{wanted.gateway}' if wanted.gateway is not None else ''}",
            f"route{first}_options=table={wanted.table}",
            f"route{first + 1}=0.0.0.0/0,,{wanted.backstop_metric}",
            f"route{first + 1}_options=table={wanted.table},type=unreachable",
        ]
    text = _text(["[ipv4]", *lines])
    if profile is None or not profile.path.startswith(networkmanager.PROFILE_FOLDERS[0]):
        # A profile that is not in /etc belongs to a package or to the program that made it.
        return ConfigChange(f"the profile of {wanted.uplink}", text)
    changes = [insert_lines(profile.path, profile.end_of("ipv4"), _text(lines))] if lines else []
    automatic = profile.line_of("connection", "autoconnect")
    if link is not None and not link.at_boot and automatic is not None:
        changes.append(replace_line(profile.path, automatic, "autoconnect=true"))
    load: Arguments = ("nmcli", "connection", "load", profile.path)
    reapply: Arguments = ("nmcli", "device", "reapply", wanted.uplink)
    # Entries that are there already are NetworkManager's own by then: without the lines it would remove them.
    after_rollback = (load,) if _is_typed(resolved, wanted) else (load, reapply)
    return ConfigChange(
        profile.path, text, tuple(in_diffs(resolved.snapshot, changes)), (load, reapply) if lines else (load,),
        after_rollback,
    )  # fmt: skip


def _netplan(resolved: ResolvedIntent, wanted: Recipe) -> ConfigChange:
    files, links = resolved.snapshot.files, resolved.snapshot.host.links
    device, persistent, route = _netplan_device(resolved, wanted.uplink), _netplan_loopback(wanted), []
    if wanted.with_route:
        via = "scope: link" if wanted.gateway is None else f"via: {wanted.gateway}"
        route = ["        - to: 0.0.0.0/0", f"          {via}", f"          table: {wanted.table}"]
    routes = ["      routes:", *route] if route else []
    if networkd.at_work(files, links):
        devices = {_netplan_device(resolved, LOOPBACK): persistent, **({device: routes} if routes else {})}
    elif device.renderer == netplan.NETWORKMANAGER:
        devices = {device: [*_netplan_passthrough(wanted), *routes]}
    else:
        # "routes" comes last, and the route to the gateway with it.
        devices = {device: [*persistent, *route]}
    path, text = _netplan_path(wanted), _netplan_text(devices)
    others = [link.name for link in links if link.name != wanted.uplink and device.fits(link)]
    if others and device in devices:
        return ConfigChange(path, text, decision=_of_its_own(f"netplan's '{device.name}'", wanted, others))
    if not all(netplan.is_valid_name(each.name) for each in devices):
        return ConfigChange(
            path, text, decision=f"netplan takes no name such as '{device.name}': match it by a pattern"
        )
    edits = (new_file(resolved.snapshot, path, text, PRIVATE),)
    if _is_generated(resolved, wanted):
        # The files that netplan generated at boot have the entries still, and the next boot reads this file.
        return ConfigChange(path, text, edits)
    # Entries that were typed before are the renderer's own by then: to apply the files without them would remove them.
    return ConfigChange(path, text, edits, (APPLY,), (GENERATE,) if _is_typed(resolved, wanted) else (APPLY,))


def _netplan_device(resolved: ResolvedIntent, interface: str) -> netplan.Definition:
    """Return the device of netplan that configures an interface: the files', else a new one of the interface's name."""
    files, link = resolved.snapshot.files, resolved.snapshot.host.link(interface)
    known = netplan.definition_of(netplan.definitions(files), link) if link is not None else None
    kind = "wifis" if link is not None and link.wireless else "ethernets"
    return known or netplan.Definition(interface, kind, renderer=netplan.default_renderer(files))


def _netplan_text(devices: Mapping[netplan.Definition, Sequence[str]]) -> str:
    """Return a file with lines for each device, grouped by their kinds."""
    lines = ["network:", "  version: 2"]
    for kind in dict.fromkeys(device.kind for device in devices):
        lines.append(f"  {kind}:")
        for device, own in devices.items():
            lines += [f"    {netplan.quoted(device.name)}:", *own] if device.kind == kind else []
    return _text(lines)


def _is_generated(resolved: ResolvedIntent, wanted: Recipe) -> bool:
    """Whether the files that netplan generated for its renderer hold the entries, and its own files do not."""
    files, links = resolved.snapshot.files, resolved.snapshot.host.links
    rule, route = not wanted.with_rule, not wanted.with_route
    for config in (networkd.read(files, links), networkmanager.read(files, links, lambda _name: None)):
        rule |= any(entry.place.volatile and entry.rule.table == wanted.table for entry in config.rules)
        route |= any(entry.place.volatile and entry.route.table == wanted.table for entry in config.routes)
    return rule and route


def _netplan_path(wanted: Recipe, suffix: str = "") -> str:
    return f"/etc/netplan/90-{_file_name(wanted)}{suffix}.yaml"


def _netplan_loopback(wanted: Recipe) -> list[str]:
    """Return the lines of a device for rule and backstop."""
    lines = []
    if wanted.with_rule:
        lines.append("      routing-policy:")
        # netplan has no suppress_prefixlength: a rule for each local network does the same.
        for network in wanted.local_networks if wanted.local_priority is not None else ():
            lines += [f"        - from: {wanted.source}", f"          to: {network}", f"          table: {TABLE_MAIN}",
                      f"          priority: {wanted.local_priority}"]  # fmt: skip
        lines += [f"        - from: {wanted.source}", f"          table: {wanted.table}",
                  f"          priority: {wanted.priority}"]  # fmt: skip
    if wanted.with_route:
        lines += ["      routes:", "        - to: 0.0.0.0/0", "          type: unreachable",
                  f"          metric: {min(wanted.backstop_metric, netplan.LARGEST_METRIC)}",
                  f"          table: {wanted.table}"]  # fmt: skip
    return lines


def _netplan_passthrough(wanted: Recipe) -> list[str]:
    """Return the lines of a device that NetworkManager configures: netplan gives it no rule and no unreachable route.

    The numbers are above those that netplan gives its own routes.
    """
    settings = {}
    for number, rule in enumerate(wanted.rules, PASSTHROUGH_NUMBER):
        value = " ".join("table" if word == "lookup" else word for word in rule_arguments(rule))
        settings[f"ipv4.routing-rule{number}"] = value
    if wanted.with_route:
        backstop = f"ipv4.route{PASSTHROUGH_NUMBER}"
        settings[backstop] = f"0.0.0.0/0,,{min(wanted.backstop_metric, netplan.LARGEST_METRIC)}"
        settings[f"{backstop}_options"] = f"table={wanted.table},type=unreachable"
    lines = [f'          {key}: "{value}"' for key, value in settings.items()]
    return ["      networkmanager:", "        passthrough:", *lines] if lines else []


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
