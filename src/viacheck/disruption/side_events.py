"""What others do on a host on the side: reloads of managers and firewalls, other networks and containers, a VPN.

None of these events means the agent, and each may break its egress. They are made by the programs that people and
packages use, one command after another. They are never made on a live host: whole-host labs have the same programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from viacheck.disruption.controls import (
    DisruptionTarget,
    Event,
    EventContext,
    EventFailed,
    EventNotApplicable,
    EventNotPossible,
)
from viacheck.disruption.docker_control import SERVICE as DOCKER
from viacheck.disruption.events import NETWORKD_SERVICE, PAUSE_TICKS
from viacheck.disruption.manager_waits import NETWORKD_ANSWERS, networkd_waits
from viacheck.host.docker import EngineProblem
from viacheck.host.namespace import Namespace
from viacheck.model.intent import FIREWALL_UNITS, SideEvent
from viacheck.persistence.assess import networkd_links

OTHER = "viacheck-other"
"""The name of the other network, container and interface."""
RESTARTED_BY_UPGRADES = ("systemd-udevd.service", NETWORKD_SERVICE, "containerd.service")
"""The units of network and containers that the packages systemd, udev and containerd restart when they are upgraded."""
WIREGUARD_TABLE = 51820
"""The table and mark that wg-quick(8) takes first."""
SUPPRESSED = "from all lookup main suppress_prefixlength 0"
"""What ip(8) prints for the rule of wg-quick(8) for local networks, and for every other rule like it."""
ENGINE_LOOKS = 600
"""How often the engine's pending job is looked for, a few ticks apart, before the event fails."""


@dataclass(frozen=True, slots=True)
class HostCommands:
    """Commands of the host, one after another, with a pause between them."""

    name: SideEvent
    title: str
    commands: tuple[tuple[str, ...], ...]
    agent: DisruptionTarget | None = None
    """The target whose container is found again after the commands, where they may restart the engine."""
    touches: Sequence[str] = ()
    waits: tuple[tuple[str, ...], ...] = ()
    """The commands that wait for a program of the host that reacts to the others."""

    def apply(self, context: EventContext) -> None:
        """Run the commands, and continue in the agent's namespace, which may be another one."""
        for number, argv in enumerate(self.commands):
            if number:
                context.wait(PAUSE_TICKS)
            context.run(*argv)
        context.settle(*self.waits)
        if self.agent is not None:
            _follow_agent(self.agent, context)


def _follow_agent(target: DisruptionTarget, context: EventContext) -> None:
    """Continue in the agent's new namespace, if its engine was restarted by another unit's restart.

    Raises:
        EventFailed: the engine is not ready again, or the container does not run again.
    """
    for _ in range(ENGINE_LOOKS):
        job = target.host.run(["systemctl", "show", "--property=Job", "--value", DOCKER])
        if job.stdout.strip() in ("", "0"):
            break
        context.wait(PAUSE_TICKS)
    else:
        raise EventFailed(f"{DOCKER} is not ready again")
    try:
        replaced = target.agent_was_replaced() is not False
    except EngineProblem:
        replaced = True
    if replaced:
        context.agent_stops()
        context.agent_returns(target.reopen_agent())


@dataclass(frozen=True, slots=True)
class VpnComesAndGoes:
    """A VPN for all of the host's traffic comes up and goes down, by the commands of wg-quick(8)."""

    host: Namespace
    table: int
    name: SideEvent = "vpn"
    title: str = "a VPN comes up and goes down"
    touches: Sequence[str] = ()

    def apply(self, context: EventContext) -> None:
        """Add interface, routes and rules, and remove them after a while.

        The kernel puts the rules before all others, so that the agent's packets go to the VPN as long as it is up.
        """
        table = str(self.table)
        context.act(f"the interface {OTHER} is added", self._add_interface)
        context.run("ip", "-4", "address", "add", "10.254.254.2/32", "dev", OTHER)
        context.run("ip", "link", "set", "mtu", "1420", "up", "dev", OTHER)
        context.run("ip", "-4", "route", "add", "0.0.0.0/0", "dev", OTHER, "table", table)
        context.run("ip", "-4", "rule", "add", "not", "fwmark", table, "table", table)
        context.run("ip", "-4", "rule", "add", "table", "main", "suppress_prefixlength", "0")
        context.wait(PAUSE_TICKS)
        self._delete_rules(context, f"lookup {table}", "table", table)
        self._delete_rules(context, SUPPRESSED, "table", "main", "suppress_prefixlength", "0")
        context.run("ip", "link", "delete", "dev", OTHER)

    def _delete_rules(self, context: EventContext, shown: str, *selectors: str) -> None:
        """Delete rules as wg-quick(8) does it: as often as ip shows this text, the host's own rules too."""
        for _ in range(self.host.run(["ip", "-4", "rule", "show"]).stdout.count(shown)):
            context.run("ip", "-4", "rule", "delete", *selectors)

    def _add_interface(self) -> None:
        """Add WireGuard's interface; a bridge where the kernel has none, as the rules and the table do the harm."""
        for kind in ("wireguard", "bridge"):
            added = self.host.run(["ip", "link", "add", OTHER, "type", kind])
            if added.ok:
                return
        raise EventFailed(f"{added.command}: exit {added.exit_code}: {added.stderr.strip()}")


def side_event(name: SideEvent, target: DisruptionTarget, original: DisruptionTarget) -> Event:
    """Return an event of others; the snapshot of ``original``, which the target may be a clone of, says what it needs.

    Raises:
        EventNotApplicable: nothing on the host makes it.
        EventNotPossible: it is a live host.
    """
    if not target.services.side_events:
        if target.kind == "local":
            raise EventNotPossible("never made on a live host; --twin makes the VPN, and a lab host:… all of them")
        raise EventNotApplicable("only a whole-host lab and a replica make what others do on the side")
    if name == "vpn":
        used = {route.table for route in original.snapshot.host.routes}
        return VpnComesAndGoes(target.host, next(table for table in count(WIREGUARD_TABLE) if table not in used))
    if name in ("networkd-reload", "networkd-reconfigure"):
        return _networkctl(name, target, original)
    if name in ("other-network", "other-container"):
        return _docker(name, target, original)
    if name == "upgrade":
        links = networkd_links(original.snapshot)
        active = [unit for unit in RESTARTED_BY_UPGRADES if _runs(target, "systemctl", "is-active", "--quiet", unit)]
        return HostCommands(
            name, "an unattended upgrade of systemd, udev and containerd",
            (("systemctl", "daemon-reexec"), ("systemctl", "restart", *active)),
            waits=networkd_waits(target.host, links) if NETWORKD_SERVICE in active else (),
        )  # fmt: skip
    return _firewall(name, target)


def _networkctl(name: SideEvent, target: DisruptionTarget, original: DisruptionTarget) -> Event:
    links = networkd_links(original.snapshot)
    if not links:
        raise EventNotApplicable("systemd-networkd manages no link of this host")
    if name == "networkd-reload":
        return HostCommands(
            name, "networkctl reload", (("networkctl", "reload"),), waits=networkd_waits(target.host, links)
        )
    others = [link for link in links if link not in (target.intent.egress.uplink, "lo")]
    if not others:
        raise EventNotApplicable(f"systemd-networkd manages no link but {target.intent.egress.uplink}")
    reconfigure = ("networkctl", "reconfigure", others[0])
    return HostCommands(
        name, f"networkctl reconfigure {others[0]}", (reconfigure,), waits=networkd_waits(target.host, others[:1])
    )  # fmt: skip


def _docker(name: SideEvent, target: DisruptionTarget, original: DisruptionTarget) -> Event:
    engine = original.snapshot.engine
    if engine is None or engine.container is None:
        raise EventNotApplicable("no Docker engine runs the agent")
    if not _runs(target, "docker", "--version"):
        raise EventNotApplicable("the host has no docker command")
    # networkd configures links of the engine that its files match, when it comes to it.
    waits = (NETWORKD_ANSWERS,) if networkd_links(original.snapshot) else ()
    if name == "other-network":
        return HostCommands(
            name, "another Docker network is created and removed",
            (("docker", "network", "create", OTHER), ("docker", "network", "rm", OTHER)), waits=waits,
        )  # fmt: skip
    start = ("docker", "run", "--detach", "--rm", "--init", "--name", OTHER, "--entrypoint", "sleep")
    return HostCommands(
        name, "another container is started and stopped",
        ((*start, engine.container.image, "infinity"), ("docker", "stop", OTHER)), waits=waits,
    )  # fmt: skip


def _firewall(name: SideEvent, target: DisruptionTarget) -> Event:
    agent = target if target.intent.agent.container is not None else None
    if name in FIREWALL_UNITS:
        unit = FIREWALL_UNITS[name]
        if not _runs(target, "systemctl", "is-active", "--quiet", unit):
            raise EventNotApplicable(f"{unit} is not active on this host")
        return HostCommands(name, f"systemctl restart {unit}", (("systemctl", "restart", unit),), agent)
    if name == "firewalld-reload":
        if not _runs(target, "firewall-cmd", "--state"):
            raise EventNotApplicable("firewalld does not run on this host")
        return HostCommands(name, "firewall-cmd --reload", (("firewall-cmd", "--reload"),), agent)
    if "Status: active" not in target.host.run(["ufw", "status"]).stdout:
        raise EventNotApplicable("ufw is not active on this host")
    return HostCommands(name, "ufw reload", (("ufw", "reload"),), agent)


def _runs(target: DisruptionTarget, *argv: str) -> bool:
    return target.host.run(argv).ok
