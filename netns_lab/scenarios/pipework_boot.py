"""Whole hosts on which pipework attaches the agent, at boot by rc.local or by a unit, and after that by a watch."""

from __future__ import annotations

from dataclasses import replace

from netns_lab import pipework_host
from netns_lab.draft import LabDraft
from netns_lab.plan import LabPlan
from netns_lab.scenarios.bridge import (
    CONTAINER,
    CONTAINER_GUARD,
    HOST_NUMBER,
    PARENT,
    PIPEWORK_ADDRESS,
    PIPEWORK_MAC,
    bridged_intent,
    on_the_lan,
)
from netns_lab.scenarios.register import scenario

START_ENGINE = "systemctl start docker.service"
"""rc.local is not ordered after the engine, which is ready when it has started the containers."""


def _host(lab: LabDraft) -> tuple[str, str]:
    """Describe the host but for what runs pipework at boot; return pipework's command line and its address."""
    office = on_the_lan(lab)
    lab.on_parent(PARENT, PIPEWORK_ADDRESS, interface=pipework_host.INTERFACE, mac=PIPEWORK_MAC, gateway=office.gateway)
    lab.host.links = [replace(link, flags=()) for link in lab.host.links]
    lab.host.addresses.clear()
    lab.host.routes.clear()
    address = f"{PIPEWORK_ADDRESS}@{office.gateway}"
    line = pipework_host.command_line(PARENT, CONTAINER, address)
    lab.program(pipework_host.PATH, pipework_host.STAND_IN)
    # At boot the parent comes up before the engine. A question would start the engine by its socket, and the engine
    # waits for the network: the boot would hang.
    post_up = f"systemctl is-active --quiet docker.service || exit 0; {CONTAINER_GUARD} || {line}"
    lab.files[pipework_host.INTERFACES] = (
        pipework_host.interfaces(PARENT, str(office[HOST_NUMBER]), office.gateway, post_up)
        + "\nauto wlan0\niface wlan0 inet static\n    address 10.10.50.9/24\n"
    )
    lab.program(pipework_host.WATCH, pipework_host.HOST_WATCH_TEXT)
    lab.file_links[pipework_host.WATCH_ENABLED] = pipework_host.WATCH_UNIT
    return line, address


@scenario(
    "pipework-rc-local",
    "The agent is on the LAN by pipework: rc.local runs it at boot, a unit when the container is restarted",
    "Bridge, bridging with pipework, steps 7-11",
    flavours=("host",),
)
def pipework_rc_local(lab: LabDraft) -> LabPlan:
    """Describe an rc.local that waits for the engine."""
    line, address = _host(lab)
    lab.program(pipework_host.RC_LOCAL, pipework_host.rc_local(START_ENGINE, line))
    lab.files[pipework_host.WATCH_UNIT] = pipework_host.watch_unit(
        PARENT, CONTAINER, address, after="docker.service rc-local.service"
    )
    return _finish(lab)


@scenario(
    "pipework-unit",
    "The agent is on the LAN by pipework: one unit runs it at boot, another when the container is restarted",
    "Bridge, bridging with pipework, steps 7-11",
    flavours=("host",),
)
def pipework_unit(lab: LabDraft) -> LabPlan:
    """Describe a unit that starts after the engine."""
    _line, address = _host(lab)
    lab.files[pipework_host.BOOT_UNIT] = pipework_host.boot_unit(PARENT, CONTAINER, address)
    lab.file_links[pipework_host.BOOT_ENABLED] = pipework_host.BOOT_UNIT
    lab.files[pipework_host.WATCH_UNIT] = pipework_host.watch_unit(
        PARENT, CONTAINER, address, after="docker.service pipework.service"
    )
    return _finish(lab)


def _finish(lab: LabDraft) -> LabPlan:
    gateway = lab.uplinks[PARENT].gateway
    return lab.finish(bridged_intent({"mode": "pipework-static", "address": PIPEWORK_ADDRESS, "gateway": gateway}))
