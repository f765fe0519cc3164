"""How rule and route are written down for each manager, with this host's own values.

A stanza is the text, the commands that put it there, and the commands that take it away again.
The recipe is the one without the holes of the guide's: fixed priorities, each rule deleted before it is added, an
unreachable route behind the real one so that the agent's packets find no other way while the uplink is away.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from viacheck.analysis.agent_rules import (
    BACKSTOP_METRIC,
    FIXED_PRIORITY,
    LOCAL_PRIORITY,
    rules_for_agent,
    selects_agent,
)
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.persistence import ifupdown, netplan, networkd, networkmanager
from viacheck.persistence.manager_config import ManagedLink, Manager

NAME = "viacheck"
"""What new files are called."""
LOOPBACK = "lo"
RELOAD, APPLY = "networkctl reload", "netplan apply"
"""What makes networkd and netplan read their files."""
PRIVATE = "600"
"""The mode of netplan's files, which hold keys of wireless networks."""


KERNEL_CHOSEN_PRIORITY = 32000
"""From this priority on, the kernel has chosen it for a rule that was added without a priority."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The rule, the route and what belongs to them, with this host's values."""

    source: str
    table: int
    uplink: str
    gateway: str
    priority: int
    """Of the rule that sends the agent's packets to the table."""
    backstop_metric: int
    """Worse than that of the real route."""
    local_priority: int | None = None
    """Of a rule that keeps local networks local, where one belongs to what persists."""
    with_rule: bool = True
    """The rules are not written down yet."""
    with_route: bool = True
    """The routes are not written down yet."""

    @property
    def rules(self) -> tuple[tuple[int, str], ...]:
        """Each rule: its priority, and the rest of it as ``ip rule add`` takes it."""
        if not self.with_rule:
            return ()
        rule = (self.priority, f"from {self.source} lookup {self.table}")
        if self.local_priority is None:
            return (rule,)
        return (self.local_priority, f"from {self.source} lookup main suppress_prefixlength 0"), rule

    @property
    def route(self) -> str:
        """The real default route, as ``ip route`` takes it."""
        return f"default via {self.gateway} dev {self.uplink} table {self.table}"

    @property
    def backstop(self) -> str:
        """What holds while the real one is away."""
        return f"unreachable default metric {self.backstop_metric} table {self.table}"


def recipe_for(resolved: ResolvedIntent) -> Recipe | None:
    """Return the rule and the route to write, with this host's values; None while the agent's subnet is not known."""
    source = resolved.agent_subnet or resolved.agent_source
    if source is None:
        return None
    fixed = [rule.priority for rule in rules_for_agent(resolved) if 0 < rule.priority < KERNEL_CHOSEN_PRIORITY]
    local = [
        rule.priority
        for rule in resolved.snapshot.host.rules_of(4)
        if rule.suppress_prefixlength == 0 and selects_agent(resolved, rule)
    ]
    priority = fixed[0] if fixed else FIXED_PRIORITY
    return Recipe(
        str(source), resolved.table, resolved.uplink, str(resolved.intent.gateway),
        priority=priority, backstop_metric=BACKSTOP_METRIC,
        local_priority=(local[0] if local[0] < priority else min(LOCAL_PRIORITY, priority - 1)) if local else None,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stanza:
    """What to write for one manager, and how."""

    path: str
    text: str
    remedy: tuple[str, ...]
    undo: tuple[str, ...]


def stanza(manager: Manager, resolved: ResolvedIntent, wanted: Recipe, holding: ManagedLink | None = None) -> Stanza:
    """What to write down for a manager.

    Args:
        manager: who manages the uplink.
        resolved: the host that it is for.
        wanted: the rule and the route.
        holding: the manager's present hold on the uplink, where there is one.
    """
    if manager == "ifupdown":
        return _ifupdown(resolved, wanted, holding)
    if manager == "networkd":
        return _networkd(resolved, wanted)
    if manager == "networkmanager":
        return _networkmanager(resolved, wanted, holding)
    return _netplan(resolved, wanted)


def command(*words: str) -> str:
    """A command as a person types it."""
    return shlex.join(words)


def written_file(path: str, text: str, mode: str = "644") -> str:
    """A command that writes a file, and the folders above it, from a here-document."""
    return f"install -D -m {mode} /dev/stdin {command(path)} <<'EOF'\n{text}EOF"


def appended(path: str, line: int, text: str) -> tuple[str, str]:
    """A command that puts lines behind a line of a file, and the one that takes these very lines out again."""
    first, last = line + 1, line + text.count("\n")
    quoted = command(path)
    return f"sed -i '{line}r /dev/stdin' {quoted} <<'EOF'\n{text}EOF", f"sed -i '{first},{last}d' {quoted}"


def removed(path: str, line: int, old: str) -> tuple[str, str]:
    """A command that takes one line out of a file, and the one that puts it back; ``line`` is not the first."""
    put_back, _take_out = appended(path, line - 1, f"{old}\n")
    return f"sed -i '{line}d' {command(path)}", put_back


def replaced(path: str, line: int, old: str, new: str) -> tuple[str, str]:
    """A command that puts lines in place of one line of a file, and the one that puts the old line back."""
    last, quoted = line + new.count("\n"), command(path)
    return (
        f"sed -i -e '{line}r /dev/stdin' -e '{line}d' {quoted} <<'EOF'\n{new}\nEOF",
        f"sed -i -e '{last}r /dev/stdin' -e '{line},{last}d' {quoted} <<'EOF'\n{old}\nEOF",
    )


def commented(path: str, line: int, new: str) -> tuple[str, str]:
    """The same for a line of which only parts are known: it becomes a comment, and the new lines stand behind it."""
    first, last, quoted = line + 1, line + 1 + new.count("\n"), command(path)
    return (
        f"sed -i -e '{line}r /dev/stdin' -e '{line}s/^/#/' {quoted} <<'EOF'\n{new}\nEOF",
        f"sed -i -e '{first},{last}d' -e '{line}s/^#//' {quoted}",
    )


def rule_lines(priority: int, words: str) -> list[str]:
    """A rule for ifupdown: two lines that can run any number of times."""
    return [
        f"post-up ip rule del priority {priority} 2>/dev/null || true",
        f"post-up ip rule add priority {priority} {words}",
    ]


def _ifupdown(resolved: ResolvedIntent, wanted: Recipe, holding: ManagedLink | None) -> Stanza:
    files = resolved.snapshot.files
    uplink, loopback = ifupdown.last_line(files, wanted.uplink), ifupdown.last_line(files, "lo")
    first = [line for rule in wanted.rules for line in rule_lines(*rule)]
    first += [f"post-up ip route replace {wanted.backstop}"] if wanted.with_route else []
    second = [f"post-up ip route replace {wanted.route}"] if wanted.with_route else []
    if uplink is None:
        # How the uplink gets its address is not for this tool to choose.
        text = _indented([*first, *second])
        return Stanza(ifupdown.INTERFACES, f"auto {wanted.uplink}\niface {wanted.uplink} inet …\n{text}", (), ())
    parts = [(loopback or uplink, _indented(first)), (uplink, _indented(second))]
    if loopback is None:
        parts = [(uplink, _indented([*first, *second]))]
    text = "".join(
        f"iface {'lo' if place is loopback else wanted.uplink} …\n{lines}" for place, lines in parts if lines
    )
    changes = [(place.line, appended(place.path, place.line, lines)) for place, lines in parts if lines]
    if holding is not None and not holding.at_boot:
        text = f"auto {wanted.uplink}\n{text}"
        line, path = holding.place.line, command(holding.place.path)
        changes.append((line - 1, (f"sed -i '{line}i auto {wanted.uplink}' {path}", f"sed -i '{line}d' {path}")))
    # The later lines first: the earlier ones keep their numbers, and the undo runs the other way round.
    changes.sort(key=lambda change: -change[0])
    return _stanza(uplink.path, text, [change for _line, change in changes])


def _indented(lines: list[str]) -> str:
    return "".join(f"    {line}\n" for line in lines)


def _stanza(path: str, text: str, changes: list[tuple[str, str]], apply: tuple[str, ...] = ()) -> Stanza:
    """A stanza of changes that are undone the other way round; ``apply`` makes the manager read them, both times."""
    done, undone = [do for do, _undo in changes], [undo for _do, undo in reversed(changes)]
    return Stanza(path, text, (*done, *apply), (*undone, *apply))


def _file_name(wanted: Recipe) -> str:
    return NAME if wanted.with_rule and wanted.with_route else f"{NAME}-rule" if wanted.with_rule else f"{NAME}-route"


def beside_the_uplink(manager: Manager, resolved: ResolvedIntent, wanted: Recipe) -> tuple[str, str]:
    """What systemd-networkd is to set whatever becomes of the uplink: the file for it, and what to write there.

    It stands under the loopback, which is always there: networkd takes away with a link what is written under it.

    Args:
        manager: who is told, networkd itself or netplan.
        resolved: the host that it is for.
        wanted: the rules and the backstop.
    """
    if manager == "netplan":
        lines = ["network:", "  version: 2", "  ethernets:", f"    {LOOPBACK}:"]
        return _netplan_path(wanted, f"-{LOOPBACK}"), _lines([*lines, *_netplan_beside(wanted)])
    sections = []
    for priority, words in wanted.rules:
        table = "Table=main\nSuppressPrefixLength=0" if "suppress" in words else f"Table={wanted.table}"
        sections.append(f"[RoutingPolicyRule]\nPriority={priority}\nFrom={wanted.source}\n{table}\n")
    if wanted.with_route:
        sections.append(
            f"[Route]\nDestination=0.0.0.0/0\nType=unreachable\nMetric={wanted.backstop_metric}\nTable={wanted.table}\n"
        )
    network = networkd.file_of(resolved.snapshot.files, resolved.snapshot.host.links, LOOPBACK)
    if network is not None:
        return _drop_in(network, wanted), "\n".join(sections)
    return f"/etc/systemd/network/{NAME}-{LOOPBACK}.network", "\n".join((f"[Match]\nName={LOOPBACK}\n", *sections))


def _networkd(resolved: ResolvedIntent, wanted: Recipe) -> Stanza:
    files = dict([beside_the_uplink("networkd", resolved, wanted)])
    network = networkd.file_of(resolved.snapshot.files, resolved.snapshot.host.links, wanted.uplink)
    route = f"[Route]\nDestination=0.0.0.0/0\nGateway={wanted.gateway}\nTable={wanted.table}\n"
    if network is None:
        # How the uplink gets its address is not for this tool to choose.
        path = f"/etc/systemd/network/10-{wanted.uplink}.network"
        head = f"[Match]\nName={wanted.uplink}\n\n[Network]\n…\n"
        files[path] = f"{head}\n{route}" if wanted.with_route else head
        return Stanza(path, _together(files), (), ())
    if wanted.with_route:
        files[_drop_in(network, wanted)] = route
    done = [written_file(path, text) for path, text in files.items()]
    undone = [command("rm", path) for path in reversed(files)]
    # What is there already, typed, is networkd's own by then: told that the file is gone, it would take it away.
    typed = (not wanted.with_rule or resolved.rules_to_the_table) and (not wanted.with_route or resolved.table_routes)
    return Stanza(next(iter(files)), _together(files), (*done, RELOAD), (*undone, *(() if typed else (RELOAD,))))


def _drop_in(network: str, wanted: Recipe) -> str:
    return f"/etc/systemd/network/{network.rpartition('/')[2]}.d/{_file_name(wanted)}.conf"


def _together(files: dict[str, str]) -> str:
    return "\n".join(f"# {path}\n{text}" for path, text in files.items())


def _networkmanager(resolved: ResolvedIntent, wanted: Recipe, holding: ManagedLink | None) -> Stanza:
    found = networkmanager.profile_of(resolved.snapshot.files, resolved.snapshot.host.links, wanted.uplink)
    lines, values = [], []
    for number, (priority, words) in enumerate(wanted.rules, 1):
        rule = f"priority {priority} {words}".replace("lookup main", "table 254").replace("lookup", "table")
        lines.append(f"routing-rule{number}={rule}")
        values.append(("ipv4.routing-rules", rule))
    if wanted.with_route:
        lines += [
            f"route1=0.0.0.0/0,{wanted.gateway}",
            f"route1_options=table={wanted.table}",
            f"route2=0.0.0.0/0,,{wanted.backstop_metric}",
            f"route2_options=table={wanted.table},type=unreachable",
        ]
        values.append(("ipv4.routes", f"0.0.0.0/0 {wanted.gateway} table={wanted.table}"))
        values.append(("ipv4.routes", f"0.0.0.0/0 {wanted.backstop_metric} table={wanted.table} type=unreachable"))
    text = "".join(f"{line}\n" for line in ("[ipv4]", *lines))
    if found is None:
        return Stanza(f"the profile of {wanted.uplink}", text, (), ())
    place, profile = found

    def modify(name: str, value: str) -> str:
        return command("nmcli", "connection", "modify", profile, name, value)

    changes = [(modify(f"+{name}", value), modify(f"-{name}", value)) for name, value in values]
    if holding is not None and not holding.at_boot:
        changes.append((modify("connection.autoconnect", "yes"), modify("connection.autoconnect", "no")))
    return _stanza(place.path, text, changes, (command("nmcli", "device", "reapply", wanted.uplink),))


def _netplan(resolved: ResolvedIntent, wanted: Recipe) -> Stanza:
    files, link = resolved.snapshot.files, resolved.snapshot.host.link(wanted.uplink)
    kind = netplan.device_type(files, wanted.uplink)
    kind = kind or ("wifis" if link is not None and link.wireless else "ethernets")
    beside, route = _netplan_beside(wanted), []
    if wanted.with_route:
        route = ["        - to: 0.0.0.0/0", f"          via: {wanted.gateway}", f"          table: {wanted.table}"]
    lines = ["network:", "  version: 2"]
    if networkd.at_work(files, resolved.snapshot.host.links):
        head = [] if kind == "ethernets" else [f"  {kind}:"]
        lines += ["  ethernets:", f"    {LOOPBACK}:", *beside]
        lines += [*head, f"    {wanted.uplink}:", "      routes:", *route] if route else []
    else:
        # "routes" comes last, and the route to the gateway with it.
        lines += [f"  {kind}:", f"    {wanted.uplink}:", *beside, *route]
    path, text = _netplan_path(wanted), _lines(lines)
    return _stanza(path, text, [(written_file(path, text, PRIVATE), command("rm", path))], (APPLY,))


def _netplan_path(wanted: Recipe, what: str = "") -> str:
    return f"/etc/netplan/90-{_file_name(wanted)}{what}.yaml"


def _netplan_beside(wanted: Recipe) -> list[str]:
    """The lines of a device for rule and backstop."""
    lines = []
    if wanted.with_rule:
        # netplan has no suppress_prefixlength: the rule that keeps local networks local cannot be written for it.
        lines += ["      routing-policy:", f"        - from: {wanted.source}", f"          table: {wanted.table}",
                  f"          priority: {wanted.priority}"]  # fmt: skip
    if wanted.with_route:
        lines += ["      routes:", "        - to: 0.0.0.0/0", "          type: unreachable",
                  f"          metric: {min(wanted.backstop_metric, netplan.LARGEST_METRIC)}",
                  f"          table: {wanted.table}"]  # fmt: skip
    return lines


def _lines(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
