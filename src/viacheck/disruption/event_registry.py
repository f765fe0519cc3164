"""The events by name: which event a name of the intent stands for on a target, and why it is not possible there."""

from __future__ import annotations

from viacheck.disruption.controls import (
    DisruptionTarget,
    Event,
    EventNotApplicable,
    EventNotPossible,
    Restarts,
)
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
    NetplanApply,
    NetworkdRestart,
    NetworkManagerRestart,
    Renamed,
    RouterMoved,
)
from viacheck.disruption.manager_waits import NETWORKMANAGER_STARTED, networkd_waits
from viacheck.disruption.side_events import side_event
from viacheck.model.intent import SIDE_EVENTS
from viacheck.model.measurements import EventName
from viacheck.persistence.assess import netplan_links, networkd_links, networkmanager_links

NETWORKMANAGER_RUNS = ("systemctl", "is-active", "--quiet", "NetworkManager.service")
NETPLAN_INSTALLED = ("sh", "-c", "command -v netplan")
"""netplan itself starts a Python, which a busy machine needs long for."""


def event_for(name: EventName, target: DisruptionTarget, original: DisruptionTarget | None = None) -> Event:
    """Return the event of a name on a target.

    Args:
        name: the event's name.
        target: the target that it happens to.
        original: the target that this one is a clone of, whose snapshot says the same; None: it is no clone.

    Raises:
        EventNotApplicable: the event does not belong to the target.
        EventNotPossible: it cannot be carried out there.
    """
    uplink, control = target.intent.egress.uplink, target.services.control
    container = target.intent.agent.container
    original = original or target
    if name == "link-flap":
        return LinkFlap(uplink)
    if name == "carrier-loss":
        if control is None:
            raise EventNotPossible(f"the cable of {uplink} must be unplugged by hand")
        return CarrierLoss(uplink, control)
    if name == "ifupdown":
        if not target.host.run(["ifquery", "--state", uplink]).ok:
            raise EventNotApplicable(f"{uplink} was not brought up by ifupdown (ifquery --state {uplink})")
        return IfUpDown(uplink)
    if name in ("container-restart", "engine-restart"):
        if container is None:
            raise EventNotApplicable("the agent is a namespace and not a container")
        return _restart(name, container, target)
    if name in ("device-change", "rename"):
        if control is None:
            raise EventNotPossible(f"the device of {uplink} must be removed and added by hand")
        if name == "rename":
            return Renamed(uplink)
        addresses = original.snapshot.host.addresses_of(uplink)
        return DeviceRecreated(
            uplink, tuple(f"{address.address}/{address.prefixlen}" for address in addresses), control
        )
    if name in ("dhcp-renew", "address-change"):
        return _lease_event(name, target, original)
    if name == "networkd-restart":
        return _networkd_restart(target, original)
    if name == "networkmanager-restart":
        links = _links_of("NetworkManager", networkmanager_links(original.snapshot), target, NETWORKMANAGER_RUNS)
        return NetworkManagerRestart(links, uplink)
    if name == "netplan-apply":
        return _netplan_apply(target, original)
    if name in SIDE_EVENTS:
        return side_event(name, target, original)
    raise EventNotPossible(f"there is no event with the name {name}")


def _links_of(
    manager: str, links: tuple[str, ...], target: DisruptionTarget, needs: tuple[str, ...]
) -> tuple[str, ...]:
    """Return a manager's links, where the manager can be interrupted: ``needs`` is a command that succeeds there."""
    if not links:
        raise EventNotApplicable(f"{manager} manages no link of this host")
    if target.kind == "lab" and target.services.power is None:
        raise EventNotPossible(f"only a whole-host lab and a live host interrupt {manager}")
    present = target.host.run(needs)
    if not present.ok:
        raise EventNotPossible(
            f"{manager} does not run here ('{present.command}' ended with exit code {present.exit_code})"
        )
    return links


def _restart(name: EventName, container: str, target: DisruptionTarget) -> Event:
    restarts: Restarts
    if target.services.control is not None:
        restarts = target.services.control
    else:
        restarts = engine = DockerControl(target.host, target.services.engine_url, container)
        if name == "engine-restart" and (reason := engine.engine_obstacle()) is not None:
            raise EventNotPossible(reason)
    event = ContainerRestart if name == "container-restart" else EngineRestart
    return event(container, restarts, target.reopen_agent)


def _networkd_restart(target: DisruptionTarget, original: DisruptionTarget) -> Event:
    links = networkd_links(original.snapshot)
    if not links:
        raise EventNotApplicable("systemd-networkd manages no link of this host")
    if target.services.control is not None:
        restart = target.services.control.restart_networkd
        return NetworkdRestart(links, restart, networkd_waits(target.host, links))
    active = target.host.run(["systemctl", "is-active", "--quiet", NETWORKD_SERVICE])
    if not active.ok:
        raise EventNotPossible(
            f"systemd does not run systemd-networkd here ('{active.command}' ended with exit code {active.exit_code})"
        )
    return NetworkdRestart(links, None, networkd_waits(target.host, links))


def _netplan_apply(target: DisruptionTarget, original: DisruptionTarget) -> Event:
    links = _links_of("netplan", netplan_links(original.snapshot), target, NETPLAN_INSTALLED)
    waits = networkd_waits(target.host, networkd_links(original.snapshot))
    if networkmanager_links(original.snapshot):
        waits += (NETWORKMANAGER_STARTED,)
    return NetplanApply(links, waits)


def _lease_event(name: EventName, target: DisruptionTarget, original: DisruptionTarget) -> Event:
    uplink, control = target.intent.egress.uplink, target.services.control
    dhcp_server = control.dhcp_server(uplink) if control is not None else None
    if dhcp_server is not None:
        return RouterMoved(uplink, dhcp_server) if name == "dhcp-renew" else LeaseMoved(uplink, dhcp_server)
    addresses = original.snapshot.host.addresses_of(uplink)
    leased = any(address.valid_lifetime is not None for address in addresses)
    if target.intent.mode == "pipework-dhcp" or leased:
        raise EventNotPossible(
            "the DHCP server, another machine, must announce another router and lease another address"
        )
    holder = uplink if target.intent.mode == "nat" else "the agent"
    raise EventNotApplicable(f"the address of {holder} is fixed and not leased")
