"""Operations performed on a lab from outside its host: on cables, devices, the container, the engine, the manager.

The other end of a cable belongs to a gateway or a switch. The kernel removes the routes of an interface that goes down,
so plugging the cable in again restores them from the lab's description.
"""

from __future__ import annotations

from dataclasses import replace

from netns_lab import pipework_host, rtnetlink_batch
from netns_lab.dhcp_server_control import LabDhcpServerControl
from netns_lab.docker_engine.daemon import EngineFailed
from netns_lab.docker_engine.engine_builder import apply_pipework, start_agents_dhcp_client
from netns_lab.lab import Engine, Lab, LabMachine, wait_for_carrier
from netns_lab.networkd_daemon import NetworkdFailed
from netns_lab.plan import HOST, Cable
from netns_lab.rtnetlink_batch import LabRequest, request
from viacheck.disruption.controls import EventFailed, EventNotPossible
from viacheck.host.docker import ContainerNotRunning
from viacheck.host.namespace import Namespace
from viacheck.model.namespace_state import Link

ENABLED = ("test", "-e", pipework_host.WATCH_ENABLED)
NEW_INDEX = 500
"""Added to the index of a device that is created again: the kernel never gives an index twice either."""


class NetnsLabControl:
    """Controls one lab."""

    def __init__(self, lab: Lab) -> None:
        """Change nothing yet."""
        self._lab = lab

    def _cable(self, uplink: str) -> tuple[Cable, LabMachine]:
        """Return the cable of an uplink, or of a port of a bridge that is an uplink, and the machine it ends at."""
        plan = self._lab.plan
        names = [uplink, *(link.name for link in plan.host.state.links if link.master == uplink)]
        outside = [cable for cable in plan.cables if cable.machine == HOST and cable.other_machine != plan.agent.name]
        cable = next((cable for name in names for cable in outside if cable.interface == name), None)
        if cable is None:
            raise EventNotPossible(f"{uplink} has no cable of its own that leaves the host")
        return cable, self._lab.machines[cable.other_machine]

    def unplug(self, uplink: str) -> None:
        """Pull the cable: its other end goes down. Returns when the host has noticed."""
        cable, other = self._cable(uplink)
        other.sysctl(f"net/ipv6/conf/{cable.other_interface}/keep_addr_on_down", "1")
        rtnetlink_batch.send(other.namespace, [request("link", "set", index=_index(other, cable), state="down")])
        wait_for_carrier(self._lab.host.namespace, uplink, present=False)

    def plug(self, uplink: str) -> None:
        """Plug the cable in again. Returns when the host has noticed."""
        cable, other = self._cable(uplink)
        rtnetlink_batch.send(other.namespace, [request("link", "set", index=_index(other, cable), state="up")])
        wait_for_carrier(self._lab.host.namespace, uplink, present=True)
        rtnetlink_batch.send(other.namespace, _routes(other, cable, "replace"))

    def recreate(self, uplink: str) -> None:
        """Remove the device and create it again, down and without an address; its cable ends at the same port."""
        cable, other = self._cable(uplink)
        self._lab.host.ip("link", "del", "dev", uplink)
        link = self._lab.plan.host.state.link(uplink)
        assert link is not None
        plug_in(self._lab.host.namespace, replace(link, index=link.index + NEW_INDEX), other, cable)

    def restart_container(self) -> None:
        """Restart the agent's container, and run the units that its start triggers."""
        import docker

        engine = self._engine()
        self._release_agent()
        try:
            engine.containers.restart(self._lab.agent_container)
        except docker.errors.APIError as error:
            raise EventFailed(f"docker restart {self._lab.agent_container}: {error.explanation}") from error
        self._run_start_units()

    def restart_engine(self) -> None:
        """Restart dockerd, and run the units that the start of the agent's container triggers."""
        engine = self._engine()
        self._release_agent()
        try:
            engine.restart()
        except EngineFailed as error:
            raise EventFailed(str(error)) from error
        self._run_start_units()

    def restart_networkd(self) -> None:
        """Restart systemd-networkd; returns when it is up."""
        if self._lab.networkd is None:
            raise EventNotPossible("systemd-networkd does not run in this lab")
        try:
            self._lab.networkd.restart()
        except NetworkdFailed as error:
            raise EventFailed(str(error)) from error

    def _engine(self) -> Engine:
        if self._lab.engine is None:
            raise EventNotPossible("the lab has no Docker engine: its agent is a namespace without a container")
        return self._lab.engine

    def dhcp_server(self, uplink: str) -> LabDhcpServerControl | None:
        """Return the DHCP server on an uplink's segment, if the agent, or on a NAT host the uplink, has its lease."""
        lab, mode = self._lab, self._lab.plan.intent.mode
        segment = lab.gateway(uplink).namespace
        server = next((server for server in lab.dhcp_servers if server.namespace is segment), None)
        leases = lab.dhcp_client is not None if mode == "pipework-dhcp" else mode == "nat"
        return LabDhcpServerControl(lab, uplink, server) if server is not None and leases else None

    def _release_agent(self) -> None:
        """Close every descriptor of the agent's namespace: an open descriptor keeps its interfaces on the segment."""
        self._lab.stop_dhcp_client()
        agent = self._lab.machines.pop(self._lab.plan.agent.name, None)
        if agent is not None:
            agent.namespace.close()

    def _run_start_units(self) -> None:
        """Run pipework again where an enabled unit watches the container's starts and no init does it."""
        lab = self._lab
        assert lab.engine is not None
        try:
            namespace = lab.engine.containers.namespace(lab.agent_container)
        except ContainerNotRunning:
            return
        lab.machines[lab.plan.agent.name] = LabMachine(lab.plan.agent, namespace)
        if lab.whole_host is not None or not lab.plan.intent.mode.startswith("pipework"):
            return
        if lab.host.namespace.run(ENABLED).ok:
            apply_pipework(lab)
            if lab.plan.intent.mode == "pipework-dhcp":
                start_agents_dhcp_client(lab, pipework_host.INTERFACE)


def plug_in(host: Namespace, link: Link, other: LabMachine, cable: Cable) -> None:
    """Give a host a new device, down and without an address, with its cable plugged in at the other machine."""
    port = other.plan.state.link(cable.other_interface)
    assert port is not None
    rtnetlink_batch.send(host, [rtnetlink_batch.add_veth(link, port, other.namespace)])
    master = other.plan.state.link(port.master) if port.master else None
    requests = [request("link", "set", index=port.index, master=master.index)] if master else []
    requests.append(request("link", "set", index=port.index, state="up"))
    addresses = [address for address in other.plan.state.addresses if address.interface == port.name]
    requests += [rtnetlink_batch.add_address(address, port.index) for address in addresses]
    rtnetlink_batch.send(other.namespace, [*requests, *_routes(other, cable, "add")])


def _index(machine: LabMachine, cable: Cable) -> int:
    link = machine.plan.state.link(cable.other_interface)
    assert link is not None
    return link.index


def _routes(machine: LabMachine, cable: Cable, verb: str) -> list[LabRequest]:
    """Return requests for the routes that the kernel removes when the cable's other end goes down."""
    state = machine.plan.state
    indexes = {link.name: link.index for link in state.links}
    return [
        rtnetlink_batch.route_request(verb, route, indexes)
        for route in state.routes
        if any(hop.interface == cable.other_interface for hop in route.nexthops)
    ]
