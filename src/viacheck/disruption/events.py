"""The events that the agent's egress must survive.

An event names the interfaces that it touches, and its ``apply`` carries it out step by step. The context records each
step, reads the state after it and sends probes between the steps. An event restores nothing: a lab is thrown away, and
on a live host the guard restores the state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from viacheck.disruption.controls import CableControl, DhcpServerControl, EventContext, PowerControl, Restarts
from viacheck.disruption.manager_waits import NETWORKMANAGER_STARTED
from viacheck.host.namespace import Namespace
from viacheck.model.measurements import EventName

DOWN_TICKS = 15
"""Ticks of the probe stream for which an uplink is down."""
PAUSE_TICKS = 5
"""Ticks between the steps of an event that repeats its steps."""
NETWORKD_SERVICE = "systemd-networkd.service"
REBOOT: EventName = "reboot"
CYCLES = 3
"""How often ifupdown takes an interface down and up: one cycle does not prove that the next succeeds."""


@dataclass(frozen=True, slots=True)
class LinkFlap:
    """The uplink is set administratively down and up again."""

    uplink: str
    name: str = "link-flap"

    @property
    def title(self) -> str:
        """Return the event as text."""
        return f"{self.uplink} is set down and up again"

    @property
    def touches(self) -> Sequence[str]:
        """Return the uplink."""
        return (self.uplink,)

    def apply(self, context: EventContext) -> None:
        """Set the uplink down, and up after a while."""
        context.run("ip", "link", "set", "dev", self.uplink, "down")
        context.wait(DOWN_TICKS)
        context.run("ip", "link", "set", "dev", self.uplink, "up")


@dataclass(frozen=True, slots=True)
class CarrierLoss:
    """The uplink loses its carrier and regains it."""

    uplink: str
    cabling: CableControl
    name: str = "carrier-loss"

    @property
    def title(self) -> str:
        """Return the event as text."""
        return f"{self.uplink} loses its carrier and regains it"

    @property
    def touches(self) -> Sequence[str]:
        """Return the uplink."""
        return (self.uplink,)

    def apply(self, context: EventContext) -> None:
        """Unplug the cable, and plug it in after a while."""
        context.act(f"the cable of {self.uplink} is unplugged", lambda: self.cabling.unplug(self.uplink))
        context.wait(DOWN_TICKS)
        context.act(f"the cable of {self.uplink} is plugged in", lambda: self.cabling.plug(self.uplink))


@dataclass(frozen=True, slots=True)
class IfUpDown:
    """ifupdown takes the uplink down and up again, several times (ifup(8))."""

    uplink: str
    cycles: int = CYCLES
    name: str = "ifupdown"

    @property
    def title(self) -> str:
        """Return the event as text."""
        return f"ifdown and ifup of {self.uplink}, {self.cycles} times"

    @property
    def touches(self) -> Sequence[str]:
        """Return the uplink."""
        return (self.uplink,)

    def apply(self, context: EventContext) -> None:
        """Take the uplink down and up, several times."""
        for _ in range(self.cycles):
            context.run("ifdown", self.uplink)
            context.wait(PAUSE_TICKS)
            context.run("ifup", self.uplink)
            context.wait(PAUSE_TICKS)


@dataclass(frozen=True, slots=True)
class NetworkdRestart:
    """systemd-networkd is restarted, as by an upgrade of its package; it configures each of its links again."""

    links: tuple[str, ...]
    """The links that it manages."""
    restart: Callable[[], object] | None
    """Restarts the service in a lab; None where systemd runs it."""
    waits: tuple[tuple[str, ...], ...] = ()
    """The commands that wait until it has configured its links: what is missing before that is no finding."""
    name: str = "networkd-restart"

    @property
    def title(self) -> str:
        """Return the event as text."""
        return "a restart of systemd-networkd"

    @property
    def touches(self) -> Sequence[str]:
        """Return every link of networkd: it removes their addresses when it starts, and adds them again."""
        return self.links

    def apply(self, context: EventContext) -> None:
        """Restart the service, and watch until it has configured its links."""
        if self.restart is None:
            context.run("systemctl", "restart", NETWORKD_SERVICE)
        else:
            context.act("systemd-networkd is restarted", self.restart)
        context.settle(*self.waits)


@dataclass(frozen=True, slots=True)
class NetworkManagerRestart:
    """NetworkManager is restarted, as by an upgrade of its package, and applies the uplink's profile once more."""

    links: tuple[str, ...]
    """The links that it manages."""
    uplink: str
    name: str = "networkmanager-restart"

    @property
    def title(self) -> str:
        """Return the event as text."""
        return "a restart of NetworkManager"

    @property
    def touches(self) -> Sequence[str]:
        """Return every link of NetworkManager: it configures them again."""
        return self.links

    def apply(self, context: EventContext) -> None:
        """Restart the service, wait until it has configured its links, and apply the profile."""
        context.run("systemctl", "restart", "NetworkManager.service")
        context.settle(NETWORKMANAGER_STARTED)
        if self.uplink in self.links:
            context.run("nmcli", "device", "reapply", self.uplink)


@dataclass(frozen=True, slots=True)
class NetplanApply:
    """netplan generates the files of the manager below it again, and has that manager read them (netplan-apply(8))."""

    links: tuple[str, ...]
    """The links that its files name."""
    waits: tuple[tuple[str, ...], ...] = ()
    """The commands that wait until the manager below has configured its links."""
    name: str = "netplan-apply"

    @property
    def title(self) -> str:
        """Return the event as text."""
        return "netplan apply"

    @property
    def touches(self) -> Sequence[str]:
        """Return every link of netplan."""
        return self.links

    def apply(self, context: EventContext) -> None:
        """Apply its files, and watch until the manager below has configured its links."""
        context.run("netplan", "apply")
        context.settle(*self.waits)


@dataclass(frozen=True, slots=True)
class RouterMoved:
    """A lease is renewed with another router, and the old router disappears (RFC 2131, 4.4.5)."""

    uplink: str
    dhcp_server: DhcpServerControl
    name: str = "dhcp-renew"

    @property
    def title(self) -> str:
        """Return the event as text."""
        return f"the renewal of the lease of {self.dhcp_server.holder} with another router"

    @property
    def touches(self) -> Sequence[str]:
        """Return the uplink."""
        return (self.uplink,)

    def apply(self, context: EventContext) -> None:
        """Announce the new router first, so that a client that follows the server loses no packet."""
        old, new = self.dhcp_server.router, self.dhcp_server.next_router
        context.router_moves(old, new)
        context.act(f"the lease is renewed with the router {new}", self.dhcp_server.name_next_router)
        context.act(f"the old router {old} disappears", self.dhcp_server.retire_router)


@dataclass(frozen=True, slots=True)
class LeaseMoved:
    """The DHCP server refuses to renew a lease, and leases another address."""

    uplink: str
    dhcp_server: DhcpServerControl
    name: str = "address-change"

    @property
    def title(self) -> str:
        """Return the event as text."""
        return f"the change of the leased address of {self.dhcp_server.holder}"

    @property
    def touches(self) -> Sequence[str]:
        """Return the uplink."""
        return (self.uplink,)

    def apply(self, context: EventContext) -> None:
        """Refuse the lease, and lease another address."""
        context.act("the lease is refused and another address leased", self.dhcp_server.move_lease)


@dataclass(frozen=True, slots=True)
class DeviceRecreated:
    """The uplink's device is removed and recreated with its addresses: a dongle, a driver, a virtual port."""

    uplink: str
    addresses: tuple[str, ...]
    """In CIDR form."""
    cabling: CableControl
    name: str = "device-change"

    @property
    def title(self) -> str:
        """Return the event as text."""
        return f"{self.uplink} is removed and recreated"

    @property
    def touches(self) -> Sequence[str]:
        """Return the uplink."""
        return (self.uplink,)

    def apply(self, context: EventContext) -> None:
        """Remove the device, recreate it, and configure its addresses."""
        context.act(f"{self.uplink} is removed and recreated", lambda: self.cabling.recreate(self.uplink))
        context.reopen()
        for address in self.addresses:
            context.run("ip", "address", "add", address, "dev", self.uplink)
        context.run("ip", "link", "set", "dev", self.uplink, "up")


@dataclass(frozen=True, slots=True)
class Renamed:
    """The uplink has another name for a while, as on a host without predictable names."""

    uplink: str
    other: str = "viacheck-other"
    name: str = "rename"

    @property
    def title(self) -> str:
        """Return the event as text."""
        return f"{self.uplink} is renamed to {self.other} for a while"

    @property
    def touches(self) -> Sequence[str]:
        """Return the uplink."""
        return (self.uplink,)

    def apply(self, context: EventContext) -> None:
        """Rename the uplink, and give it its name again after a while."""
        context.run("ip", "link", "set", "dev", self.uplink, "name", self.other)
        context.wait(PAUSE_TICKS)
        context.run("ip", "link", "set", "dev", self.other, "name", self.uplink)


@dataclass(frozen=True, slots=True)
class ContainerRestart:
    """The agent's container is restarted (docker restart)."""

    container: str
    restarts: Restarts
    agent: Callable[[], Namespace]
    """Opens the agent's namespace after the restart."""
    name: str = "container-restart"

    @property
    def title(self) -> str:
        """Return the event as text."""
        return f"the container {self.container} is restarted"

    @property
    def touches(self) -> Sequence[str]:
        """Return no interface: the restart touches none of the host's own."""
        return ()

    def apply(self, context: EventContext) -> None:
        """Restart it, and continue in the agent's new namespace.

        The container runs once its restart has returned. Finding it takes a busy engine long, and no packet can be sent
        before that: the event ends then.
        """
        context.agent_stops()
        context.act(f"docker restart {self.container}", self.restarts.restart_container)
        agent = self.agent()
        context.act("the agent's new namespace is open", lambda: context.agent_returns(agent))


@dataclass(frozen=True, slots=True)
class EngineRestart:
    """The Docker engine is restarted, and with it the agent's container."""

    container: str
    restarts: Restarts
    agent: Callable[[], Namespace]
    """Opens the agent's namespace after the restart."""
    name: str = "engine-restart"

    @property
    def title(self) -> str:
        """Return the event as text."""
        return "the Docker engine is restarted"

    @property
    def touches(self) -> Sequence[str]:
        """Return no interface: the restart touches none of the host's own."""
        return ()

    def apply(self, context: EventContext) -> None:
        """Restart it, and continue in the agent's new namespace."""
        context.agent_stops()
        context.act("the Docker engine is restarted", self.restarts.restart_engine)
        context.agent_returns(self.agent())


@dataclass(frozen=True, slots=True)
class Reboot:
    """The host is really rebooted: the agent sends until it is stopped, and again as soon as it is there."""

    power: PowerControl
    name: str = REBOOT

    @property
    def title(self) -> str:
        """Return the event as text."""
        return "a reboot"

    @property
    def touches(self) -> Sequence[str]:
        """Return no interface: all of them are gone, and others are there after it."""
        return ()

    def apply(self, context: EventContext) -> None:
        """Reboot it; the captures are open before its init runs again."""
        context.act("systemctl reboot", self.power.reboot)
        context.agent_stops()
        context.host_stops()
        context.act("the host is off, and gets new interfaces", self.power.plug_in)
        context.host_starts()
        context.act("the host is powered on", self.power.power_on)
        context.agent_returns(self.power.wait_for_agent())
        # A VLAN or a bond is made in the boot. The uplink of most hosts is there before it, and watched already.
        context.reopen()
        if (agent := self.power.wait_until_booted()) is not None:
            context.agent_stops()
            context.agent_returns(agent)
        context.reopen()
        context.act("the boot is complete", lambda: None)
