"""The events that a way must survive, each as something that can be made to happen to a host.

An event says what it touches, and its ``apply`` makes it happen step by step on a stage, which writes down each step,
reads the state after it and lets the stream of probes go on in between. Putting things back is not an event's business:
in a lab the host is thrown away, on a live host a guard stands around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from viacheck.disruption.controls import Cabling, DhcpServerControl, EventContext, Restarts
from viacheck.host.namespace import Namespace

DOWN_TICKS = 15
"""Beats of the stream that an uplink is taken away for."""
BETWEEN = 5
"""Beats between the steps of an event that repeats itself."""
NETWORKD_SERVICE = "systemd-networkd.service"
CYCLES = 3
"""How often an interface is taken down and up by its manager: once is no proof that it can be done again."""


@dataclass(frozen=True, slots=True)
class LinkFlap:
    """The uplink is set administratively down, and up again."""

    uplink: str
    name: str = "link-flap"

    @property
    def title(self) -> str:
        """What happens, for people."""
        return f"{self.uplink} is set down and up again"

    @property
    def touches(self) -> Sequence[str]:
        """The uplink."""
        return (self.uplink,)

    def apply(self, stage: EventContext) -> None:
        """Down, a while, up."""
        stage.run("ip", "link", "set", "dev", self.uplink, "down")
        stage.hold(DOWN_TICKS)
        stage.run("ip", "link", "set", "dev", self.uplink, "up")


@dataclass(frozen=True, slots=True)
class CarrierLoss:
    """The uplink loses its carrier, and has it again."""

    uplink: str
    cabling: Cabling
    name: str = "carrier-loss"

    @property
    def title(self) -> str:
        """What happens, for people."""
        return f"{self.uplink} loses its carrier, and has it again"

    @property
    def touches(self) -> Sequence[str]:
        """The uplink."""
        return (self.uplink,)

    def apply(self, stage: EventContext) -> None:
        """Out, a while, in."""
        stage.act(f"the cable of {self.uplink} is taken out", lambda: self.cabling.unplug(self.uplink))
        stage.hold(DOWN_TICKS)
        stage.act(f"the cable of {self.uplink} is put back", lambda: self.cabling.plug(self.uplink))


@dataclass(frozen=True, slots=True)
class IfUpDown:
    """ifupdown takes the uplink down and up again, several times (ifup(8))."""

    uplink: str
    cycles: int = CYCLES
    name: str = "ifupdown"

    @property
    def title(self) -> str:
        """What happens, for people."""
        return f"ifdown and ifup of {self.uplink}, {self.cycles} times"

    @property
    def touches(self) -> Sequence[str]:
        """The uplink."""
        return (self.uplink,)

    def apply(self, stage: EventContext) -> None:
        """Down and up, again and again."""
        for _ in range(self.cycles):
            stage.run("ifdown", self.uplink)
            stage.hold(BETWEEN)
            stage.run("ifup", self.uplink)
            stage.hold(BETWEEN)


@dataclass(frozen=True, slots=True)
class NetworkdRestart:
    """systemd-networkd is restarted, as at an upgrade of its package; it takes each of its links anew."""

    links: tuple[str, ...]
    """Those that it manages."""
    restart: Callable[[], object] | None
    """Restarts it where no systemd does."""
    name: str = "networkd-restart"

    @property
    def title(self) -> str:
        """What happens, for people."""
        return "a restart of systemd-networkd"

    @property
    def touches(self) -> Sequence[str]:
        """Every link of networkd's: at its start it takes their addresses away and sets them again."""
        return self.links

    def apply(self, stage: EventContext) -> None:
        """As systemd does it, or whoever stands for it."""
        if self.restart is None:
            stage.run("systemctl", "restart", NETWORKD_SERVICE)
        else:
            stage.act("systemd-networkd is restarted", self.restart)


@dataclass(frozen=True, slots=True)
class RouterMoved:
    """A lease is renewed with the same address and another router, and the old router goes (RFC 2131, 4.4.5)."""

    uplink: str
    dhcp_server: DhcpServerControl
    name: str = "dhcp-renew"

    @property
    def title(self) -> str:
        """What happens, for people."""
        return f"the renewal of the lease of {self.dhcp_server.holder} with another router"

    @property
    def touches(self) -> Sequence[str]:
        """The uplink."""
        return (self.uplink,)

    def apply(self, stage: EventContext) -> None:
        """The new router first, so that whoever follows what the server says loses nothing."""
        old, new = self.dhcp_server.router, self.dhcp_server.next_router
        stage.router_moves(old, new)
        stage.act(f"the lease is renewed, with {new} as the router", self.dhcp_server.name_next_router)
        stage.act(f"the old router {old} goes", self.dhcp_server.retire_router)


@dataclass(frozen=True, slots=True)
class LeaseMoved:
    """The DHCP server refuses to renew a lease, and gives another address."""

    uplink: str
    dhcp_server: DhcpServerControl
    name: str = "address-change"

    @property
    def title(self) -> str:
        """What happens, for people."""
        return f"the change of the leased address of {self.dhcp_server.holder}"

    @property
    def touches(self) -> Sequence[str]:
        """The uplink."""
        return (self.uplink,)

    def apply(self, stage: EventContext) -> None:
        """As the server decides."""
        stage.act("the lease is refused, and another address given", self.dhcp_server.move_lease)


@dataclass(frozen=True, slots=True)
class DeviceRecreated:
    """The uplink's device goes and comes again, and gets its addresses back: a dongle, a driver, a virtual port."""

    uplink: str
    addresses: tuple[str, ...]
    """In CIDR form."""
    cabling: Cabling
    name: str = "device-change"

    @property
    def title(self) -> str:
        """What happens, for people."""
        return f"{self.uplink} is removed and made anew"

    @property
    def touches(self) -> Sequence[str]:
        """The uplink."""
        return (self.uplink,)

    def apply(self, stage: EventContext) -> None:
        """Gone, there again, up, with its addresses."""
        stage.act(f"{self.uplink} is removed and made anew", lambda: self.cabling.recreate(self.uplink))
        stage.reopen()
        for address in self.addresses:
            stage.run("ip", "address", "add", address, "dev", self.uplink)
        stage.run("ip", "link", "set", "dev", self.uplink, "up")


@dataclass(frozen=True, slots=True)
class Renamed:
    """The uplink has another name for a while, as when names are not fixed."""

    uplink: str
    other: str = "viacheck-other"
    name: str = "rename"

    @property
    def title(self) -> str:
        """What happens, for people."""
        return f"{self.uplink} is called {self.other} for a while"

    @property
    def touches(self) -> Sequence[str]:
        """The uplink."""
        return (self.uplink,)

    def apply(self, stage: EventContext) -> None:
        """One name, a while, the other."""
        stage.run("ip", "link", "set", "dev", self.uplink, "name", self.other)
        stage.hold(BETWEEN)
        stage.run("ip", "link", "set", "dev", self.other, "name", self.uplink)


@dataclass(frozen=True, slots=True)
class ContainerRestart:
    """The agent's container is restarted (docker restart)."""

    container: str
    restarts: Restarts
    agent: Callable[[], Namespace]
    """Finds the agent's namespace anew."""
    name: str = "container-restart"

    @property
    def title(self) -> str:
        """What happens, for people."""
        return f"the container {self.container} is restarted"

    @property
    def touches(self) -> Sequence[str]:
        """None of the host's own."""
        return ()

    def apply(self, stage: EventContext) -> None:
        """Restart it and go on from where the agent is then."""
        stage.agent_leaves()
        stage.act(f"docker restart {self.container}", self.restarts.restart_container)
        stage.agent_is_now(self.agent())


@dataclass(frozen=True, slots=True)
class EngineRestart:
    """The Docker engine is restarted, and with it the agent's container."""

    container: str
    restarts: Restarts
    agent: Callable[[], Namespace]
    """Finds the agent's namespace anew."""
    name: str = "engine-restart"

    @property
    def title(self) -> str:
        """What happens, for people."""
        return "the Docker engine is restarted"

    @property
    def touches(self) -> Sequence[str]:
        """None of the host's own."""
        return ()

    def apply(self, stage: EventContext) -> None:
        """Restart it and go on from where the agent is then."""
        stage.agent_leaves()
        stage.act("the Docker engine is restarted", self.restarts.restart_engine)
        stage.agent_is_now(self.agent())
