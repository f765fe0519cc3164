"""What is done to a lab from outside of its host: cables, devices, the container, the engine.

The other end of a cable belongs to a gateway or a switch, which must be as it was when the cable is back: what the
kernel takes from an interface that goes down is put back from the lab's description.
"""

from __future__ import annotations

from dataclasses import replace

from netns_lab import pipework_host, rtnetlink_batch
from netns_lab.dhcp_server_control import LabDhcpServerControl
from netns_lab.docker_engine.daemon import DockerEngine, EngineFailed
from netns_lab.docker_engine.engine_builder import apply_pipework, hold_agents_lease
from netns_lab.lab import Lab, LabMachine, wait_for_carrier
from netns_lab.networkd_daemon import NetworkdFailed
from netns_lab.plan import HOST, Cable
from netns_lab.rtnetlink_batch import Request, request
from viacheck.disruption.controls import EventFailed, EventNotMade

ENABLED = ("test", "-e", pipework_host.WATCH_ENABLED)
NEW_INDEX = 500
"""Added to the index of a device that is made anew: the kernel never gives an index twice either."""


class NetnsLabControl:
    """The hands at one lab."""

    def __init__(self, lab: Lab) -> None:
        """Nothing is touched yet."""
        self._lab = lab

    def _cable(self, uplink: str) -> tuple[Cable, LabMachine]:
        """The cable that leads out by an uplink; of one that is a bridge, by a port of it."""
        plan = self._lab.plan
        names = [uplink, *(link.name for link in plan.host.state.links if link.master == uplink)]
        outside = [one for one in plan.cables if one.machine == HOST and one.other_machine != plan.agent.name]
        cable = next((one for name in names for one in outside if one.interface == name), None)
        if cable is None:
            raise EventFailed(f"no cable leads out by {uplink}")
        return cable, self._lab.machines[cable.other_machine]

    def unplug(self, uplink: str) -> None:
        """Take the cable out: its other end goes down. Returns when the host has noticed."""
        cable, other = self._cable(uplink)
        other.sysctl(f"net/ipv6/conf/{cable.other_interface}/keep_addr_on_down", "1")
        rtnetlink_batch.send(other.namespace, [request("link", "set", index=_index(other, cable), state="down")])
        wait_for_carrier(self._lab.host.namespace, uplink, present=False)

    def plug(self, uplink: str) -> None:
        """Put the cable back. Returns when the host has noticed."""
        cable, other = self._cable(uplink)
        rtnetlink_batch.send(other.namespace, [request("link", "set", index=_index(other, cable), state="up")])
        wait_for_carrier(self._lab.host.namespace, uplink, present=True)
        rtnetlink_batch.send(other.namespace, _routes(other, cable, "replace"))

    def recreate(self, uplink: str) -> None:
        """Remove the device and make it anew, down and without an address, its cable in the same place."""
        cable, other = self._cable(uplink)
        self._lab.host.ip("link", "del", "dev", uplink)
        link, far = self._lab.plan.host.state.link(uplink), other.plan.state.link(cable.other_interface)
        assert link is not None
        assert far is not None
        anew = replace(link, index=link.index + NEW_INDEX)
        rtnetlink_batch.send(self._lab.host.namespace, [rtnetlink_batch.add_veth(anew, far, other.namespace)])
        master = other.plan.state.link(far.master) if far.master else None
        far_end = [request("link", "set", index=far.index, master=master.index)] if master else []
        far_end.append(request("link", "set", index=far.index, state="up"))
        addresses = [one for one in other.plan.state.addresses if one.interface == far.name]
        far_end += [rtnetlink_batch.add_address(address, far.index) for address in addresses]
        rtnetlink_batch.send(other.namespace, [*far_end, *_routes(other, cable, "add")])

    def restart_container(self) -> None:
        """Restart the agent's container, and do what the host's init would do then."""
        import docker

        engine = self._engine()
        self._release_agent()
        try:
            engine.containers.restart(self._lab.agent_container)
        except docker.errors.APIError as error:
            raise EventFailed(f"docker restart {self._lab.agent_container}: {error.explanation}") from error
        except ProcessLookupError as error:
            raise EventFailed(f"docker restart {self._lab.agent_container}: {error}") from error
        self._as_init_would()

    def restart_engine(self) -> None:
        """Restart dockerd, and do what the host's init would do then."""
        engine = self._engine()
        self._release_agent()
        try:
            engine.restart()
        except EngineFailed as error:
            raise EventFailed(str(error)) from error
        self._as_init_would()

    def restart_networkd(self) -> None:
        """Restart systemd-networkd; returns when it is up."""
        if self._lab.networkd is None:
            raise EventNotMade("systemd-networkd does not run in this lab")
        try:
            self._lab.networkd.restart()
        except NetworkdFailed as error:
            raise EventFailed(str(error)) from error

    def _engine(self) -> DockerEngine:
        if self._lab.engine is None:
            raise EventNotMade("the lab has no Docker engine: the container is a namespace here")
        return self._lab.engine

    def dhcp_server(self, uplink: str) -> LabDhcpServerControl | None:
        """Who gave the agent, or else the host, its address on the segment of an uplink; None where nobody did."""
        lab, mode = self._lab, self._lab.plan.intent.mode
        segment = lab.gateway(uplink).namespace
        server = next((one for one in lab.dhcp_servers if one.namespace is segment), None)
        leases = lab.dhcp_client is not None if mode == "pipework-dhcp" else mode == "nat"
        return LabDhcpServerControl(lab, uplink, server) if server is not None and leases else None

    def _release_agent(self) -> None:
        """Hold nothing of the agent's namespace: as long as anybody does, its interfaces stay on the segment."""
        self._lab.stop_dhcp_client()
        agent = self._lab.machines.pop(self._lab.plan.agent.name, None)
        if agent is not None:
            agent.namespace.close()

    def _as_init_would(self) -> None:
        """A lab has no init: run pipework again where an enabled unit watches the container's starts."""
        lab = self._lab
        assert lab.engine is not None
        if not lab.engine.containers.pid(lab.agent_container):
            return
        namespace = lab.engine.containers.namespace(lab.agent_container)
        lab.machines[lab.plan.agent.name] = LabMachine(lab.plan.agent, namespace)
        if lab.plan.intent.mode.startswith("pipework") and lab.host.namespace.run(ENABLED).ok:
            apply_pipework(lab)
            if lab.plan.intent.mode == "pipework-dhcp":
                hold_agents_lease(lab, pipework_host.INTERFACE)


def _index(machine: LabMachine, cable: Cable) -> int:
    link = machine.plan.state.link(cable.other_interface)
    assert link is not None
    return link.index


def _routes(machine: LabMachine, cable: Cable, verb: str) -> list[Request]:
    """The routes that the kernel drops when the cable's end goes down."""
    state = machine.plan.state
    indexes = {link.name: link.index for link in state.links}
    return [
        rtnetlink_batch.route_request(verb, route, indexes)
        for route in state.routes
        if any(hop.interface == cable.other_interface for hop in route.nexthops)
    ]
