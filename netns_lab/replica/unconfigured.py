"""A replica in the state before ifupdown runs: the same interfaces and neighbours, without ifupdown's configuration.

The configuration of other managers stays. Where the host holds a lease, the gateway leases the host's own address.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from netns_lab.plan import HOST, Machine
from netns_lab.replica.replica_plan import ReplicaPlan
from netns_lab.replica.upstream import GATEWAY_PORT
from netns_lab.services.dhcp_server import DHCPPool
from viacheck.model.filter_chains import PacketFilter
from viacheck.model.namespace_state import Address, NetworkState
from viacheck.model.route import Route
from viacheck.model.routing_names import TABLE_MAIN
from viacheck.model.snapshot import HostFile

LEASE_SECONDS = 3600
LOOPBACK = "lo"
_EXECUTABLE = 0o111
# A DHCP client keeps its leases and finds its hooks in these folders.
_LEASES, _HOOKS = "/var/lib/dhcp", "/etc/dhcp"
_HIDDEN = (_HOOKS, _LEASES, "/usr/local/sbin", "/usr/local/bin", "/dev/log")
WRITABLE = ("/run", "/etc", "/etc/network", _HOOKS, _LEASES, "/proc")
"""The folders that ifupdown and a DHCP client write to: all are the lab's own."""


def unconfigured(
    replica: ReplicaPlan, files: Sequence[HostFile], interfaces: Collection[str], leased: Collection[str]
) -> ReplicaPlan:
    """Remove ifupdown's configuration, and add the files from which ifupdown can make it again.

    Args:
        replica: of the host with its present configuration.
        files: of ifupdown.
        interfaces: that ifupdown configures.
        leased: those of them that request a lease; each must be :func:`leasable`.
    """
    lab, pools = replica.lab, {f"gw-{name}": lease_pool(replica, name) for name in leased}
    links = tuple(replace(link, flags=()) if link.name in interfaces else link for link in lab.host.state.links)
    return replace(
        replica,
        lab=replace(
            lab,
            host=Machine(HOST, replace(lab.host.state, links=links)),
            gateways=tuple(replace(gateway, dhcp=pools.get(gateway.name)) for gateway in lab.gateways),
            files={**lab.files, **{file.path: file.text for file in files}},
            executables=lab.executables | {file.path for file in files if file.mode & _EXECUTABLE},
            hidden=(*lab.hidden, *(path for path in _HIDDEN if path not in lab.hidden)),
        ),
        host=_unconfigured(replica.host, interfaces),
        silent=(),
        wireless=(),
    )


def leasable(replica: ReplicaPlan) -> frozenset[str]:
    """Return the host's interfaces whose gateway can lease them their present address."""
    return frozenset(
        cable.interface
        for cable in replica.lab.cables
        if cable.machine == HOST and cable.other_interface == GATEWAY_PORT
        if _leased_address(replica, cable.interface) is not None and _router(replica, cable.interface) is not None
    )


def _leased_address(replica: ReplicaPlan, interface: str) -> Address | None:
    addresses = replica.snapshot.host.addresses_of(interface)
    return next((address for address in addresses if address.scope == "global"), None)


def _router(replica: ReplicaPlan, interface: str) -> Address | None:
    """Return the gateway's first address, if it is an IPv4 address on the segment."""
    for gateway in replica.lab.gateways:
        if gateway.name == f"gw-{interface}":
            first = next(iter(gateway.state.addresses), None)
            return first if first is not None and (first.interface, first.family) == (GATEWAY_PORT, 4) else None
    return None


def lease_pool(replica: ReplicaPlan, interface: str) -> DHCPPool:
    """Return the pool by which the gateway of a :func:`leasable` interface leases it its present address."""
    address, router = _leased_address(replica, interface), _router(replica, interface)
    assert address is not None
    assert router is not None
    return DHCPPool(
        subnet=str(address.network), first=address.address, last=address.address, router=router.address,
        lease_seconds=LEASE_SECONDS,
    )  # fmt: skip


def _unconfigured(state: NetworkState, interfaces: Collection[str]) -> NetworkState:
    def stays(route: Route) -> bool:
        names = {hop.interface for hop in route.nexthops}
        if names == {LOOPBACK}:
            return route.protocol == "kernel"
        # A route without an interface, or in another table, comes from the files of ifupdown.
        return bool(names) and not names & set(interfaces) and (route.table == TABLE_MAIN or route.protocol == "kernel")

    return replace(
        state,
        links=tuple(replace(link, flags=()) if link.name in interfaces else link for link in state.links),
        addresses=tuple(
            address for address in state.addresses
            if (address.scope == "host" if address.interface == LOOPBACK else address.interface not in interfaces)
        ),
        rules=tuple(rule for rule in state.rules if rule.kernels_own),
        routes=tuple(filter(stays, state.routes)),
        packet_filter=PacketFilter(),
    )  # fmt: skip
