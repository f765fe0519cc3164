"""Builds a replica: the machines and cables of its description first, then the state of host and agent."""

from __future__ import annotations

import re

from netns_lab import rtnetlink_batch
from netns_lab.builder import bind_agent_namespace, build
from netns_lab.lab import Lab, closed_on_failure
from netns_lab.plan import AGENT_PATH, HOST
from netns_lab.replica.agent_tunnels import add_tunnel
from netns_lab.replica.replica_plan import ReplicaPlan
from netns_lab.replica.replica_state import restore_state
from netns_lab.replica.upstream import GATEWAY_PORT
from viacheck.host import syscalls
from viacheck.host.namespace import Namespace
from viacheck.model.namespace_state import Link

_SYSFS = "/sys/devices/virtual/net"
_PLAIN_NAME = re.compile(r"[\w.-]+")


def build_replica(replica: ReplicaPlan) -> Lab:
    """Build a replica. The lab's notes name its replaced parts, and the parts that could not be rebuilt.

    Raises:
        LabBuildError: when the system forbids namespaces, or the kernel refuses an interface.
        LabCommandError: when a gateway cannot be made silent.
    """
    lab = build(replica.lab)
    lab.replica_of = replica.snapshot
    with closed_on_failure(lab):
        for tunnel in replica.agent_tunnels:
            _add_tunnel(lab, tunnel)
        if replica.shares_host_network:
            _share_host_network(lab)
        elif replica.agent is not None:
            refused = restore_state(lab.agent.namespace, replica.agent, add_only=replica.agent_assumed)
            lab.notes += [f"agent: {note}" for note in refused]
        else:
            lab.host.run("umount", AGENT_PATH)
            lab.host.run("rm", AGENT_PATH)
        lab.notes += restore_state(lab.host.namespace, replica.host)
        for uplink in replica.silent:
            lab.gateway(uplink).ip("link", "set", "dev", GATEWAY_PORT, "arp", "off")
        for interface in replica.point_to_point:
            _without_arp(lab, interface)
        for interface in replica.wireless:
            _show_wireless(lab, interface)
        for machine in (lab.host, lab.agent, *lab.gateways):
            rtnetlink_batch.settle(machine.namespace, machine.plan.state.links)
    return lab


def _share_host_network(lab: Lab) -> None:
    """Let the agent be in the host's namespace."""
    lab.set_agent_namespace(Namespace.from_path(f"/proc/self/fd/{lab.host.namespace.net_fd}"))
    lab.host.run("umount", AGENT_PATH)
    bind_agent_namespace(lab.host.namespace, lab.agent.namespace)


def _add_tunnel(lab: Lab, tunnel: Link) -> None:
    try:
        add_tunnel(lab.agent.namespace, tunnel)
    except OSError as error:
        lab.notes.append(f"the agent's {tunnel.name} is missing here: no tun device can be made: {error.strerror}")
        return
    lab.agent.ip("link", "set", "dev", tunnel.name, "mtu", str(tunnel.mtu), *(["up"] if tunnel.up else []))


def _without_arp(lab: Lab, interface: str) -> None:
    """Turn ARP off at both ends of a cable."""
    for cable in lab.plan.cables:
        if (cable.machine, cable.interface) == (HOST, interface):
            for machine, name in ((cable.machine, cable.interface), (cable.other_machine, cable.other_interface)):
                lab.machines[machine].ip("link", "set", "dev", name, "arp", "off")


def _show_wireless(lab: Lab, interface: str) -> None:
    """Mark an interface as wireless in the host's /sys, although it is a cable."""
    if not _PLAIN_NAME.fullmatch(interface):
        # The overlay's options cannot hold such a name.
        lab.notes.append(f"/sys does not show that {interface} is wireless")
        return
    layer = f"/run/lab/sys/{interface}"
    lab.host.run("mkdir", "--parents", f"{layer}/upper/wireless", f"{layer}/work")
    folder = f"{_SYSFS}/{interface}"
    layers = f"lowerdir={folder},upperdir={layer}/upper,workdir={layer}/work"
    lab.host.namespace.call(lambda: syscalls.mount("overlay", folder, "overlay", options=layers))
