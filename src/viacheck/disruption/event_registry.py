"""Which event a name of the intent's stands for on a target, and why it cannot be made there."""

from __future__ import annotations

from typing import Literal

from viacheck.disruption.controls import Event, Restarts
from viacheck.disruption.docker_control import DockerControl
from viacheck.disruption.events import (
    NETWORKD_SERVICE,
    CarrierLoss,
    ContainerRestart,
    DeviceRecreated,
    EngineRestart,
    IfUpDown,
    LeaseMoved,
    LinkFlap,
    NetworkdRestart,
    Renamed,
    RouterMoved,
)
from viacheck.model.intent import Survivable
from viacheck.persistence.assess import networkd_links
from viacheck.targets.namespace_target import NamespaceTarget

EventName = Survivable | Literal["address-change", "rename"]
"""What can be made to happen. A lease can change in two ways, and so can a device; both ways are one thing to
survive."""


class NotApplicable(Exception):
    """The event does not belong to this target; the message says why."""


class NotPossible(Exception):
    """The event cannot be made here; the message says what would make it possible."""


def event_for(name: EventName, target: NamespaceTarget) -> Event:
    """The event of that name on a target.

    Raises:
        NotApplicable: when the event does not belong to the target.
        NotPossible: when it cannot be made there.
    """
    uplink, control = target.intent.egress.uplink, target.services.control
    container = target.intent.agent.container
    if name == "link-flap":
        return LinkFlap(uplink)
    if name == "carrier-loss":
        if control is None:
            raise NotPossible(f"the cable of {uplink} must be taken out by hand")
        return CarrierLoss(uplink, control)
    if name == "ifupdown":
        if not target.host.run(["ifquery", "--state", uplink]).ok:
            raise NotApplicable(f"{uplink} was not brought up by ifupdown (ifquery --state {uplink})")
        return IfUpDown(uplink)
    if name in ("container-restart", "engine-restart"):
        if container is None:
            raise NotApplicable("the agent is a namespace, no container")
        return _restart(name, container, target)
    if name in ("device-change", "rename"):
        if control is None:
            raise NotPossible(f"the device of {uplink} must be taken out and put back by hand")
        if name == "rename":
            return Renamed(uplink)
        addresses = (f"{one.address}/{one.prefixlen}" for one in target.snapshot.host.addresses_of(uplink))
        return DeviceRecreated(uplink, tuple(addresses), control)
    if name in ("dhcp-renew", "address-change"):
        return _event_of_lease(name, target)
    if name == "networkd-restart":
        return _networkd_restart(target)
    raise NotPossible(f"no event is known by the name of {name}")


def _restart(name: EventName, container: str, target: NamespaceTarget) -> Event:
    restarts: Restarts
    if target.services.control is not None:
        restarts = target.services.control
    else:
        restarts = engine = DockerControl(target.host, target.services.engine_url, container)
        if name == "engine-restart" and (reason := engine.not_restarted_by()) is not None:
            raise NotPossible(reason)
    made = ContainerRestart if name == "container-restart" else EngineRestart
    return made(container, restarts, target.reopen_agent)


def _networkd_restart(target: NamespaceTarget) -> Event:
    links = networkd_links(target.snapshot)
    if not links:
        raise NotApplicable("systemd-networkd manages no link of this host")
    if target.services.control is not None:
        return NetworkdRestart(links, target.services.control.restart_networkd)
    asked = target.host.run(["systemctl", "is-active", "--quiet", NETWORKD_SERVICE])
    if not asked.ok:
        raise NotPossible(
            f"systemd does not run systemd-networkd here ('{asked.command}' ended with exit code {asked.exit_code})"
        )
    return NetworkdRestart(links, None)


def _event_of_lease(name: EventName, target: NamespaceTarget) -> Event:
    uplink = target.intent.egress.uplink
    dhcp_server = target.services.control.dhcp_server(uplink) if target.services.control is not None else None
    if dhcp_server is not None:
        return RouterMoved(uplink, dhcp_server) if name == "dhcp-renew" else LeaseMoved(uplink, dhcp_server)
    addresses = target.snapshot.host.addresses_of(uplink)
    if target.intent.mode == "pipework-dhcp" or any(one.valid_lifetime is not None for one in addresses):
        raise NotPossible("the DHCP server, another machine, must name another router and give another address")
    holder = uplink if target.intent.mode == "nat" else "the agent"
    raise NotApplicable(f"the address of {holder} is fixed, not leased")
