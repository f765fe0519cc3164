"""Operations on the DHCP server of a lab's segment: it announces another router, or leases another address.

They stand for changes in a network that the host's operator does not control.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from netns_lab.lab import Lab, LabMachine
from netns_lab.services.dhcp_client import NoLease
from netns_lab.services.dhcp_server import DHCPPool, DHCPServer
from viacheck.disruption.controls import EventFailed, EventNotPossible
from viacheck.host.dhcp_clients import dhcp_clients

RENEWAL_TIMEOUT = 30.0
"""Seconds within which a client that runs must have renewed its lease. A lab's server sets the renewal time to one
second; a refused client begins again after random pauses, and runs a script for each step, which takes a busy machine
long."""
NEXT_ROUTER, NEXT_ADDRESSES = 1, 20
"""Added to the router's address, and to those of the pool."""


class LabDhcpServerControl:
    """The server that gave the agent, or the lab's host, its lease by an uplink."""

    def __init__(self, lab: Lab, uplink: str, server: DHCPServer) -> None:
        """Change nothing yet."""
        self._lab, self._uplink, self._server = lab, uplink, server
        self.router = server.pool.router
        self.next_router = _later(self.router, NEXT_ROUTER)

    @property
    def _client(self) -> tuple[LabMachine, str]:
        """The machine that holds the lease, and its interface."""
        if self._lab.dhcp_client is not None:
            return self._lab.agent, self._lab.dhcp_client.interface
        return self._lab.host, self._uplink

    @property
    def holder(self) -> str:
        """The interface that holds the lease."""
        machine, interface = self._client
        return interface if machine is self._lab.host else f"the agent's {interface}"

    def name_next_router(self) -> None:
        """Add the new router address to the gateway and announce it."""
        self._lab.gateway(self._uplink).ip("address", "add", self._with_prefix(self.next_router), "dev", "lan0")
        self._replace_pool(replace(self._server.pool, router=self.next_router))

    def retire_router(self) -> None:
        """Remove the old router address from the gateway, and its neighbour entry from the client."""
        gateway = self._lab.gateway(self._uplink)
        gateway.sysctl("net/ipv4/conf/lan0/promote_secondaries", "1")
        gateway.ip("address", "del", self._with_prefix(self.router), "dev", "lan0")
        machine, interface = self._client
        machine.ip("neighbour", "flush", "to", self.router, "dev", interface)

    def move_lease(self) -> None:
        """Lease other addresses only."""
        pool = self._server.pool
        self._replace_pool(
            replace(pool, first=_later(pool.first, NEXT_ADDRESSES), last=_later(pool.last, NEXT_ADDRESSES))
        )

    def _with_prefix(self, router: str) -> str:
        return f"{router}/{self._server.pool.subnet.rpartition('/')[2]}"

    def _replace_pool(self, pool: DHCPPool) -> None:
        client = self._lab.dhcp_client
        if client is None:
            if not dhcp_clients(self._lab.host.namespace):
                self._server.pool = pool
                raise EventFailed(f"no client can renew the lease of {self.holder}")
            if not self._server.replace_pool(pool, RENEWAL_TIMEOUT):
                raise EventFailed(f"no client renewed the lease of {self.holder} within {RENEWAL_TIMEOUT:g} s")
            return
        self._server.pool = pool
        try:
            client.renew()
        except NoLease as error:
            raise EventNotPossible(str(error)) from error


def _later(address: str, by: int) -> str:
    return str(IPv4Address(address) + by)
