"""Faults of the bridge modes: the macvlan network and its parent, the network upstream, pipework and its files."""

from __future__ import annotations

import contextlib
import json

from netns_lab import macvlan_network, nft_rules, pipework_host
from netns_lab.faults.fault import FAULT_TABLE, fault
from netns_lab.lab import Lab, LabCommandError
from netns_lab.nft_rules import Masquerade
from netns_lab.plan import AGENT_PATH, HOST_PORT, RESOLVER
from netns_lab.scenarios import AGENT_SUBNET, BRIDGE, MACVLAN_NETWORK, PARENT
from netns_lab.scenarios.bridge import CONTAINER, LAN, PIPEWORK_ADDRESS
from netns_lab.services import port_security
from netns_lab.services.dhcp_server import DHCPPool, DHCPServer
from netns_lab.services.dns_forwarder import start_forwarder
from viacheck.host import syscalls
from viacheck.host.namespace import Namespace

_PIPEWORK = ("pipework-static", "pipework-dhcp")
_BRIDGED = ("macvlan", *_PIPEWORK)
_GATEWAY, _UNUSED_ADDRESS = "10.10.40.1", "10.10.40.77"
_OTHER_ADDRESS = "10.10.40.201/24"
_HOST_BRIDGE = "br0"
_NO_GATEWAY = {"MACVLAN-03", "PIPEWORK-04", "EGRESS-01"}
"""The checks that fail when the agent reaches no gateway on its parent."""


# The network and its parent


@fault("wrong-parent", "The macvlan network is on the other uplink", on="macvlan",
       breaks={"MACVLAN-01", "EGRESS-08", *_NO_GATEWAY}, diagnosis="PARENT_WRONG")  # fmt: skip
def wrong_parent(lab: Lab) -> None:
    macvlan_network.reconnect(lab, parent="wlan0")


@fault("parent-omitted", "The macvlan network was created without a parent, so it has no uplink", on="macvlan",
       breaks={"MACVLAN-01", "EGRESS-08", *_NO_GATEWAY}, diagnosis="PARENT_WRONG", flavour="netns")  # fmt: skip
def parent_omitted(lab: Lab) -> None:
    # Docker makes a dummy interface then, which not every kernel has; a veth pair is isolated too.
    lab.host.ip("link", "add", "dm-0f4311081482", "type", "veth", "peer", "name", "unused")
    lab.host.ip("link", "set", "dev", "unused", "up")
    lab.host.ip("link", "set", "dev", "dm-0f4311081482", "up")
    macvlan_network.reconnect(lab, parent="dm-0f4311081482")


@fault("subnet-mismatch", "The macvlan network has another subnet than the parent", on="macvlan",
       breaks={"MACVLAN-01", "MACVLAN-02", *_NO_GATEWAY}, diagnosis="SUBNET_MISMATCH")  # fmt: skip
def subnet_mismatch(lab: Lab) -> None:
    macvlan_network.reconnect(lab, subnet="10.10.41.0/24", gateway="10.10.41.1", ip_range="10.10.41.192/27")


@fault("gateway-mismatch", "The macvlan network has a gateway that does not exist", on="macvlan",
       breaks={"MACVLAN-01", "EGRESS-01"}, diagnosis="GATEWAY_MISMATCH")  # fmt: skip
def gateway_mismatch(lab: Lab) -> None:
    macvlan_network.reconnect(lab, gateway=_UNUSED_ADDRESS)


@fault("not-attached", "The agent was started without --net, so it is behind docker0", on="macvlan",
       breaks={"MACVLAN-02", "MACVLAN-03", "EGRESS-02"}, diagnosis="AGENT_NOT_ATTACHED")  # fmt: skip
def not_attached(lab: Lab) -> None:
    if lab.engine is not None:
        lab.engine.containers.remove(lab.agent_container)
        lab.engine.containers.run(lab.agent_container)
        lab.set_agent_namespace(lab.engine.containers.namespace(lab.agent_container))
        return
    macvlan_network.disconnect(lab)
    _behind_docker0(lab)


@fault("network-wrong-driver", "The Docker network of the intended name is a bridge network", on="macvlan",
       breaks={"MACVLAN-01", "MACVLAN-02", "MACVLAN-03", "EGRESS-02"}, diagnosis="NETWORK_WRONG_DRIVER",
       flavour="engine")  # fmt: skip
def network_wrong_driver(lab: Lab) -> None:
    assert lab.engine is not None
    macvlan_network.disconnect(lab)
    lab.engine.networks.create_bridge(MACVLAN_NETWORK, "172.30.0.0/24")
    lab.engine.containers.run(lab.agent_container, network=MACVLAN_NETWORK)
    lab.set_agent_namespace(lab.engine.containers.namespace(lab.agent_container))


@fault("parent-down", "The parent is administratively down", on=_BRIDGED,
       breaks={"HOST-02", "HOST-03", "HOST-06", "EGRESS-04", *_NO_GATEWAY}, diagnosis="PARENT_DOWN")  # fmt: skip
def parent_down(lab: Lab) -> None:
    lab.host.ip("link", "set", "dev", PARENT, "down")


@fault("parent-no-carrier", "The parent has no carrier", on=_BRIDGED,
       breaks={"HOST-02", "HOST-03", "EGRESS-04", *_NO_GATEWAY}, diagnosis="PARENT_DOWN")  # fmt: skip
def parent_no_carrier(lab: Lab) -> None:
    lab.switch(PARENT).ip("link", "set", "dev", HOST_PORT, "down")
    lab.wait_for_carrier(PARENT, present=False)


@fault("parent-in-bridge", "The parent is a port of the host's own bridge, so it cannot have a macvlan",
       on="macvlan", breaks={"HOST-02", "HOST-06", "HOST-07", "MACVLAN-01", "MACVLAN-02", *_NO_GATEWAY},
       diagnosis="BRIDGED_UPLINK", flavour="netns")  # fmt: skip
def parent_in_bridge(lab: Lab) -> None:
    network = macvlan_network.intended(lab.plan.intent)
    macvlan_network.disconnect(lab)
    address = next(a for a in lab.plan.host.state.addresses if a.interface == PARENT and a.family == 4)
    link = lab.plan.host.state.link(PARENT)
    assert link is not None
    assert link.mac is not None
    lab.host.ip("link", "add", _HOST_BRIDGE, "address", link.mac, "type", "bridge")
    lab.host.ip("link", "set", "dev", PARENT, "master", _HOST_BRIDGE)
    lab.host.ip("address", "flush", "dev", PARENT)
    lab.host.ip("address", "add", f"{address.address}/{address.prefixlen}", "dev", _HOST_BRIDGE)
    lab.host.ip("link", "set", "dev", _HOST_BRIDGE, "up")
    lab.host.ip("route", "replace", "default", "via", _GATEWAY, "dev", _HOST_BRIDGE)
    from docker.errors import APIError

    with contextlib.suppress(APIError, LabCommandError):
        macvlan_network.connect(lab, network)


@fault("wireless-parent", "The parent is a wireless interface", on=_BRIDGED,
       breaks={"MACVLAN-06"}, diagnosis="PARENT_SINGLE_MAC")  # fmt: skip
def wireless_parent(lab: Lab) -> None:
    lab.host.run("mkdir", "--parents", "/run/lab/sys/wireless", "/run/lab/sys-work")
    layers = f"lowerdir=/sys/devices/virtual/net/{PARENT},upperdir=/run/lab/sys,workdir=/run/lab/sys-work"
    lab.host.namespace.call(
        lambda: syscalls.mount("overlay", f"/sys/devices/virtual/net/{PARENT}", "overlay", options=layers)
    )


@fault("mtu-kept", "The parent's MTU was raised to 1500 again, and the agent's interface kept 1400", on="macvlan",
       breaks={"EGRESS-06"}, diagnosis="MTU_TRAP")  # fmt: skip
def mtu_kept(lab: Lab) -> None:
    lab.host.ip("link", "set", "dev", PARENT, "mtu", "1400")
    lab.host.ip("link", "set", "dev", PARENT, "mtu", "1500")


@fault("dns-by-host", "The host's resolver is on loopback, so Docker forwards the agent's DNS queries from the host",
       on="macvlan", breaks={"EGRESS-05"}, diagnosis="DNS_OTHER_PATH", flavour="engine")  # fmt: skip
def dns_by_host(lab: Lab) -> None:
    assert lab.engine is not None
    lab.on_close(start_forwarder(lab.host.namespace, listen="127.0.0.1", upstream=RESOLVER))
    lab.host.write("/etc/resolv.conf", "nameserver 127.0.0.1\n")
    macvlan_network.reconnect(lab)


# Upstream of the parent, and on its segment


@fault("foreign-source-dropped", "The switch accepts frames from the host's own MAC address only", on=_BRIDGED,
       breaks={"MACVLAN-06", *_NO_GATEWAY}, diagnosis="UPSTREAM_DROPS_MAC")  # fmt: skip
def foreign_source_dropped(lab: Lab) -> None:
    port_security.accept_one_source(lab, PARENT, _parent_mac(lab))


@fault("delivery-filtered", "The switch delivers frames to the host's own MAC address only", on=_BRIDGED,
       breaks={"MACVLAN-06", *_NO_GATEWAY}, diagnosis="UPSTREAM_DROPS_MAC")  # fmt: skip
def delivery_filtered(lab: Lab) -> None:
    port_security.deliver_to_one(lab, PARENT, _parent_mac(lab))


@fault("foreign-data-dropped", "The switch passes ARP and drops IP packets from other MAC addresses", on=_BRIDGED,
       breaks={"MACVLAN-03", "PIPEWORK-04", "MACVLAN-06", "EGRESS-03"}, diagnosis="UPSTREAM_DROPS_MAC")  # fmt: skip
def foreign_data_dropped(lab: Lab) -> None:
    port_security.carry_data_of_one(lab, PARENT, _parent_mac(lab))


@fault("dhcp-in-pool", "A DHCP server leases addresses of the agent's pool", on="macvlan",
       breaks={"MACVLAN-04"}, diagnosis="DHCP_COLLISION")  # fmt: skip
def dhcp_in_pool(lab: Lab) -> None:
    _serve_dhcp(lab, "10.10.40.200", "10.10.40.220")


@fault("dhcp-beside-pool", "A DHCP server leases addresses next to the agent's pool", on="macvlan",
       breaks={"MACVLAN-04"}, diagnosis="DHCP_COLLISION")  # fmt: skip
def dhcp_beside_pool(lab: Lab) -> None:
    _serve_dhcp(lab, "10.10.40.100", "10.10.40.150")


@fault("dhcp-slow", "A DHCP server of the agent's pool pings each address for 3 s before it offers it", on="macvlan",
       breaks={"MACVLAN-04"}, diagnosis="DHCP_COLLISION", flavour="netns")  # fmt: skip
def dhcp_slow(lab: Lab) -> None:
    _serve_dhcp(lab, "10.10.40.200", "10.10.40.220", offer_delay=3.0)


@fault("address-conflict", "Another machine holds the agent's address", on="macvlan",
       breaks={"MACVLAN-05"}, diagnosis="ADDRESS_CONFLICT")  # fmt: skip
def address_conflict(lab: Lab) -> None:
    address = macvlan_network.intended(lab.plan.intent).first_address
    _settle_address(lab)
    lab.neighbour(PARENT).hold_address("lan0", f"{address}/24")


@fault("mac-conflict", "Another machine holds the agent's address and its MAC address", on="macvlan",
       breaks={"MACVLAN-05"}, diagnosis="ADDRESS_CONFLICT", flavour="netns")  # fmt: skip
def mac_conflict(lab: Lab) -> None:
    neighbour, mac = lab.neighbour(PARENT), _settle_address(lab)
    neighbour.ip("link", "set", "dev", "lan0", "address", mac)
    neighbour.hold_address("lan0", f"{macvlan_network.intended(lab.plan.intent).first_address}/24")


@fault("other-router", "The agent's default route uses another router of the segment", on="macvlan",
       breaks={"MACVLAN-01", "EGRESS-09"}, diagnosis="GATEWAY_MISMATCH", flavour="netns")  # fmt: skip
def other_router(lab: Lab) -> None:
    router = lab.neighbour(PARENT)
    router.hold_address("lan0", "10.10.40.2/24")
    router.ip("route", "replace", "default", "via", _GATEWAY, "dev", "lan0")
    router.sysctl("net/ipv4/ip_forward", "1")
    lab.agent.ip("route", "replace", "default", "via", "10.10.40.2")


# pipework's interface


@fault("pipework-not-applied", "The container runs, and pipework was not run for it", on=_PIPEWORK,
       breaks={"PIPEWORK-03", "PIPEWORK-04", "EGRESS-01"}, diagnosis="PIPEWORK_NOT_APPLIED")  # fmt: skip
def pipework_not_applied(lab: Lab) -> None:
    lab.stop_dhcp_client()
    lab.agent.ip("link", "del", "dev", pipework_host.INTERFACE)


@fault("lost-on-restart", "The container was restarted, which removed pipework's interface", on=_PIPEWORK,
       breaks={"PIPEWORK-03", "PIPEWORK-04", "EGRESS-01"}, diagnosis="PIPEWORK_NOT_APPLIED")  # fmt: skip
def lost_on_restart(lab: Lab) -> None:
    if lab.engine is not None:
        lab.stop_dhcp_client()
        lab.engine.containers.restart(lab.agent_container)
        lab.set_agent_namespace(lab.engine.containers.namespace(lab.agent_container))
        return
    # The builder is imported when a lab is built: a list of faults does not need it.
    from netns_lab.builder import bind_agent_namespace

    lab.host.run("umount", AGENT_PATH)
    lab.set_agent_namespace(Namespace.create("agent"))
    lab.agent.ip("link", "set", "dev", "lo", "up")
    bind_agent_namespace(lab.host.namespace, lab.agent.namespace)


@fault("pipework-run-twice", "pipework was run again, failed, and left an interface behind", on=_PIPEWORK,
       breaks={"PIPEWORK-03"}, diagnosis="PIPEWORK_LEFTOVER")  # fmt: skip
def pipework_run_twice(lab: Lab) -> None:
    second = pipework_host.run(lab, PARENT, CONTAINER, f"{PIPEWORK_ADDRESS}@{_GATEWAY}")
    if second.ok:
        raise LabCommandError("host: pipework ran twice without an error")


@fault("pipework-wrong-address", "pipework was run with another address", on="pipework-static",
       breaks={"PIPEWORK-03"}, diagnosis="PIPEWORK_WRONG_ADDRESS")  # fmt: skip
def pipework_wrong_address(lab: Lab) -> None:
    _run_pipework_again(lab, f"{_OTHER_ADDRESS}@{_GATEWAY}")


@fault("pipework-wrong-gateway", "pipework was run with a gateway that does not exist", on="pipework-static",
       breaks={"PIPEWORK-04", "EGRESS-01"}, diagnosis="GATEWAY_MISMATCH")  # fmt: skip
def pipework_wrong_gateway(lab: Lab) -> None:
    _run_pipework_again(lab, f"{PIPEWORK_ADDRESS}@{_UNUSED_ADDRESS}")


@fault("pipework-wrong-parent", "pipework was run on the other uplink", on="pipework-static",
       breaks={"PIPEWORK-03", "PIPEWORK-04", "EGRESS-01", "EGRESS-08"}, diagnosis="PARENT_WRONG")  # fmt: skip
def pipework_wrong_parent(lab: Lab) -> None:
    _run_pipework_again(lab, f"{PIPEWORK_ADDRESS}@{_GATEWAY}", parent="wlan0")


@fault("default-network-present", "The container was started without --net=none, so it is on docker0 too",
       on="pipework-static", breaks={"PIPEWORK-02"}, diagnosis="DEFAULT_NETWORK_PRESENT")  # fmt: skip
def default_network_present(lab: Lab) -> None:
    if lab.engine is None:
        # pipework's default route has the lower metric; Docker's stays behind it.
        _behind_docker0(lab, metric=100)
        return
    lab.engine.containers.remove(lab.agent_container)
    lab.engine.containers.run(lab.agent_container)
    lab.set_agent_namespace(lab.engine.containers.namespace(lab.agent_container))
    _run_pipework(lab, f"{PIPEWORK_ADDRESS}@{_GATEWAY}")


@fault("lease-without-client", "The DHCP client ended after its first lease", on="pipework-dhcp",
       breaks={"PIPEWORK-03"}, diagnosis="LEASE_WITHOUT_CLIENT")  # fmt: skip
def lease_without_client(lab: Lab) -> None:
    lab.stop_dhcp_client()


# pipework's files


@fault("pipework-missing", "pipework is not installed", on=_PIPEWORK,
       breaks={"PIPEWORK-01"}, diagnosis="PIPEWORK_MISSING")  # fmt: skip
def pipework_missing(lab: Lab) -> None:
    lab.host.remove(pipework_host.PATH)


@fault("pipework-not-executable", "pipework is not executable", on=_PIPEWORK,
       breaks={"PIPEWORK-01"}, diagnosis="PIPEWORK_MISSING")  # fmt: skip
def pipework_not_executable(lab: Lab) -> None:
    lab.host.run("chmod", "0644", pipework_host.PATH)


@fault("rc-local-without-line", "rc.local does not run pipework", on=_PIPEWORK,
       breaks={"PIPEWORK-05"}, diagnosis="PIPEWORK_NOT_PERSISTENT")  # fmt: skip
def rc_local_without_line(lab: Lab) -> None:
    lab.host.write(pipework_host.RC_LOCAL, pipework_host.rc_local())


@fault("rc-local-after-exit", "rc.local has the pipework line after 'exit 0', so it never runs", on=_PIPEWORK,
       breaks={"PIPEWORK-05"}, diagnosis="PIPEWORK_NOT_PERSISTENT")  # fmt: skip
def rc_local_after_exit(lab: Lab) -> None:
    first, line, end = lab.host.read(pipework_host.RC_LOCAL).splitlines()
    lab.host.write(pipework_host.RC_LOCAL, "\n".join([first, end, line, ""]))


@fault("rc-local-not-executable", "rc.local is not executable", on=_PIPEWORK,
       breaks={"PIPEWORK-05"}, diagnosis="PIPEWORK_NOT_PERSISTENT")  # fmt: skip
def rc_local_not_executable(lab: Lab) -> None:
    lab.host.run("chmod", "0644", pipework_host.RC_LOCAL)


@fault("interfaces-without-line", "No post-up line runs pipework when the parent comes up again", on=_PIPEWORK,
       breaks={"PIPEWORK-05"}, diagnosis="PIPEWORK_NOT_PERSISTENT")  # fmt: skip
def interfaces_without_line(lab: Lab) -> None:
    kept = [line for line in lab.host.read(pipework_host.INTERFACES).splitlines() if "pipework" not in line]
    lab.host.write(pipework_host.INTERFACES, "\n".join([*kept, ""]))


@fault("post-up-unguarded", "The post-up line is the guide's, and fails at the second ifup", on=_PIPEWORK,
       breaks={"PIPEWORK-05"}, diagnosis="NOT_IDEMPOTENT")  # fmt: skip
def post_up_unguarded(lab: Lab) -> None:
    lines = lab.host.read(pipework_host.INTERFACES).splitlines()
    unguarded = [f"    post-up {line.partition(' || ')[2]}" if "post-up" in line else line for line in lines]
    lab.host.write(pipework_host.INTERFACES, "\n".join([*unguarded, ""]))


@fault("restart-hook-missing", "No unit runs pipework when the container starts again", on=_PIPEWORK,
       breaks={"PIPEWORK-05"}, diagnosis="PIPEWORK_NOT_PERSISTENT")  # fmt: skip
def restart_hook_missing(lab: Lab) -> None:
    for path in (pipework_host.WATCH_ENABLED, pipework_host.WATCH_UNIT, pipework_host.WATCH):
        lab.host.remove(path)


@fault("guide-post-up", "The post-up line is the guide's, and a real ifup runs it", on="pipework-ifupdown",
       breaks={"PIPEWORK-05", "FLAP-03"}, diagnosis="NOT_IDEMPOTENT")  # fmt: skip
def guide_post_up(lab: Lab) -> None:
    post_up_unguarded(lab)


@fault("no-restart-hook", "No unit runs pipework when the real container starts again", on="pipework-static",
       breaks={"PIPEWORK-05", "FLAP-04", "FLAP-05"}, diagnosis="PIPEWORK_NOT_PERSISTENT", flavour="engine")  # fmt: skip
def no_restart_hook(lab: Lab) -> None:
    restart_hook_missing(lab)


def _behind_docker0(lab: Lab, metric: int = 0) -> None:
    """Attach an agent without a container to docker0, as Docker's default network does."""
    lab.host.ip("link", "add", BRIDGE, "type", "bridge")
    lab.host.ip("link", "add", "veth-agent", "type", "veth", "peer", "name", "eth0", "netns", "agent")
    lab.host.ip("link", "set", "dev", "veth-agent", "master", BRIDGE)
    lab.agent.ip("address", "add", "172.17.0.2/16", "dev", "eth0")
    lab.agent.ip("link", "set", "dev", "eth0", "up")
    lab.agent.ip("route", "add", "default", "via", "172.17.0.1", "dev", "eth0", "metric", str(metric))
    lab.host.ip("address", "add", "172.17.0.1/16", "dev", BRIDGE)
    for name in (BRIDGE, "veth-agent"):
        lab.host.sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1")
    lab.host.ip("link", "set", "dev", "veth-agent", "up")
    lab.host.ip("link", "set", "dev", BRIDGE, "up")
    lab.wait_for_carrier(BRIDGE, present=True)
    lab.host.sysctl("net/ipv4/ip_forward", "1")
    nft_rules.apply(lab.host.namespace, FAULT_TABLE, [Masquerade(source=AGENT_SUBNET, not_oif=BRIDGE)])


def _run_pipework(lab: Lab, address: str, parent: str = PARENT) -> None:
    result = pipework_host.run(lab, parent, CONTAINER, address)
    if not result.ok:
        raise LabCommandError(f"host: {result.command}: exit {result.exit_code}: {result.stderr.strip()}")


def _run_pipework_again(lab: Lab, address: str, parent: str = PARENT) -> None:
    lab.agent.ip("link", "del", "dev", pipework_host.INTERFACE)
    _run_pipework(lab, address, parent)


def _settle_address(lab: Lab) -> str:
    """Write the agent's MAC address into the gateway's ARP table, and return it.

    Two machines race to answer the gateway's ARP request; a fault must break the same checks each time.
    """
    address = macvlan_network.intended(lab.plan.intent).first_address
    mac: str = json.loads(lab.agent.ip("-json", "link", "show", "dev", macvlan_network.INTERFACE).stdout)[0]["address"]
    lab.gateway(PARENT).ip("neigh", "replace", address, "lladdr", mac, "dev", "lan0", "nud", "permanent")
    return mac


def _parent_mac(lab: Lab) -> str:
    link = lab.plan.host.state.link(PARENT)
    assert link is not None
    assert link.mac is not None
    return link.mac


def _serve_dhcp(lab: Lab, first: str, last: str, offer_delay: float = 0.0) -> None:
    pool = DHCPPool(subnet=LAN, first=first, last=last, router=_GATEWAY, offer_delay=offer_delay)
    lab.add_dhcp_server(DHCPServer(lab.gateway(PARENT).namespace, "lan0", _GATEWAY, pool))
